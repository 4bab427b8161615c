-- Expert load over the fleet: per model and layer the most and the least used expert, and how even the load is.
--
-- A load of 1 is an even share of the layer's selections. Where several ranks see the same tokens, the lowest counts.
-- engines_agree is on how many engines the fleet's most used expert is the most used one too: many, and the model (or
-- the traffic) is so; few, and it evens out over the fleet.
--
-- param limit whole 100  rows
-- param model text ''  only this model
-- param since text 0001-01-01  first day
-- param until text 9999-12-31  last day
-- reads expert_load, sessions
WITH known AS (
    SELECT session, coalesce(engine, 0) AS engine, coalesce(model, 'unknown') AS model,
        coalesce(vllm_version, 'unknown') AS vllm
    FROM sessions
),
by_rank AS (
    SELECT session, engine, coalesce(rank, 0) AS rank, layer, experts, top_k, expert, sum(selections) AS n
    FROM expert_load
    WHERE date BETWEEN :since AND :until
    GROUP BY session, engine, coalesce(rank, 0), layer, experts, top_k, expert
),
lowest AS (
    SELECT session, engine, layer, min(rank) AS rank
    FROM by_rank
    GROUP BY session, engine, layer
),
by_engine AS (
    SELECT s.model, c.session, c.engine, c.layer, c.experts, c.top_k, c.expert, c.n
    FROM by_rank c
    JOIN lowest l ON l.session = c.session AND l.engine = c.engine AND l.layer = c.layer AND l.rank = c.rank
    JOIN known s ON s.session = c.session AND s.engine = c.engine
    WHERE :model = '' OR s.model = :model
),
favourites AS (
    SELECT model, layer, experts, top_k, session, engine, max_by(expert, n * 65536 - expert) AS expert
    FROM by_engine
    GROUP BY model, layer, experts, top_k, session, engine
),
by_expert AS (
    SELECT model, layer, experts, top_k, expert, sum(n) AS n
    FROM by_engine
    GROUP BY model, layer, experts, top_k, expert
),
loads AS (
    SELECT model, layer, experts, top_k, sum(n) AS selections, count(*) AS used,
        max_by(expert, n * 65536 - expert) AS hottest, max(n) AS most,
        CASE WHEN count(*) < experts THEN 0 ELSE min(n) END AS least,
        sum(1e0 * n * n) AS squares
    FROM by_expert
    WHERE n > 0
    GROUP BY model, layer, experts, top_k
),
agreed AS (
    SELECT l.model, l.layer, l.experts, l.top_k, count(*) AS engines,
        sum(CASE WHEN f.expert = l.hottest THEN 1 ELSE 0 END) AS agree
    FROM loads l
    JOIN favourites f ON f.model = l.model AND f.layer = l.layer AND f.experts = l.experts AND f.top_k = l.top_k
    GROUP BY l.model, l.layer, l.experts, l.top_k
)
SELECT l.model, l.layer, l.experts, l.top_k, a.engines,
    CAST(l.selections AS BIGINT) AS selections,
    l.used AS experts_used,
    l.hottest AS hottest_expert,
    1e0 * l.most * l.experts / l.selections AS hottest_load,
    1e0 * l.least * l.experts / l.selections AS coldest_load,
    sqrt(greatest(l.squares * l.experts / (1e0 * l.selections * l.selections) - 1, 0e0)) AS variation,
    CAST(a.agree AS BIGINT) AS engines_agree
FROM loads l
JOIN agreed a ON a.model = l.model AND a.layer = l.layer AND a.experts = l.experts AND a.top_k = l.top_k
ORDER BY hottest_load DESC, l.model, l.layer
LIMIT :limit
