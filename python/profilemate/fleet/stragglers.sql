-- The slowest hosts and ranks: which take longer than their peers for the same steps, and how sure it is.
--
-- Peers are hosts of the same model, vLLM version and setup (device and config_id), timed by the same clock. A step is
-- compared with steps of the same composition: kind (decode, prefill, mixed), requests that decode (each number up to
-- 31, then eight classes per doubling; in mixed steps two per doubling) and prompt tokens (each number up to 15, then
-- eight per doubling). What is typical of a composition is the median over hosts, so that a few bad ones do not move
-- it; of times the mean of the logarithm is taken, so that a stall does not either. z is the host's distance from the
-- median host by the spread of all hosts (1.4826 MAD, at least floor_pct) and by its own uncertainty (how its
-- stretches of time differ, which follow one another: steps are no independent witnesses). A host is called a
-- straggler when z and the difference are both large.
--
-- param z number 3.5  so far from the median host, at least
-- param min_slower_pct number 2  so much slower, at least
-- param floor_pct number 0.5  hosts are taken to differ by this much at least
-- param min_steps whole 5  steps that a host must have of a composition
-- param min_peers whole 3  hosts that must have the composition
-- param stretch_sec number 60  length of a stretch of time
-- param limit whole 20  rows
-- param model text ''  only this model
-- param since text 0001-01-01  first day
-- param until text 9999-12-31  last day
-- reads steps, sessions
WITH known AS (
    SELECT session, coalesce(engine, 0) AS engine, coalesce(model, 'unknown') AS model,
        coalesce(vllm_version, 'unknown') AS vllm,
        concat(coalesce(device, 'unknown'), ' ', coalesce(config_id, '')) AS setup
    FROM sessions
),
placed AS (
    SELECT s.model, s.vllm, s.setup, coalesce(t.forward_clock, '') AS clock, t.host, coalesce(t.rank, 0) AS rank,
        t.session, t.engine, CAST(floor(t.timestamp_sec / :stretch_sec) AS BIGINT) AS stretch,
        CASE WHEN t.prefill_requests + t.recompute_requests = 0 THEN 'decode'
            WHEN t.decode_requests > 0 THEN 'mixed' ELSE 'prefill' END AS kind,
        t.decode_requests AS d,
        t.prefill_tokens + t.recompute_tokens AS p,
        t.forward_ns
    FROM steps t
    JOIN known s ON s.session = t.session AND s.engine = t.engine
    WHERE t.date BETWEEN :since AND :until AND t.forward_ns > 0 AND t.has_scheduler AND t.matched
        AND (:model = '' OR s.model = :model)
),
classed AS (
    SELECT placed.*,
        CASE WHEN kind = 'mixed' THEN CAST(floor(2 * log2(d) + 1e-9) AS BIGINT)
            WHEN d < 32 THEN d ELSE 32 + CAST(floor(8 * log2(d / 32e0) + 1e-9) AS BIGINT) END AS decodes,
        CASE WHEN p < 16 THEN p ELSE 16 + CAST(floor(8 * log2(p / 16e0) + 1e-9) AS BIGINT) END AS prompt
    FROM placed
),
cells AS (
    SELECT model, vllm, setup, clock, host, rank, session, engine, stretch, kind, decodes, prompt,
        count(*) AS n, avg(ln(forward_ns)) AS x, sum(forward_ns / 1e9) AS forward_sec
    FROM classed
    GROUP BY model, vllm, setup, clock, host, rank, session, engine, stretch, kind, decodes, prompt
),
by_host AS (
    SELECT model, vllm, setup, clock, host, rank, kind, decodes, prompt, sum(n * x) / sum(n) AS x
    FROM cells
    GROUP BY model, vllm, setup, clock, host, rank, kind, decodes, prompt
    HAVING sum(n) >= :min_steps
),
typical AS (
    SELECT model, vllm, setup, clock, kind, decodes, prompt, percentile_cont(0.5) WITHIN GROUP (ORDER BY x) AS x
    FROM by_host
    GROUP BY model, vllm, setup, clock, kind, decodes, prompt
    HAVING count(DISTINCT host) >= :min_peers
),
stretches AS (
    SELECT c.model, c.vllm, c.setup, c.clock, c.host, c.rank, c.session, c.engine, c.stretch,
        sum(c.n) AS n, sum(c.n * (c.x - t.x)) / sum(c.n) AS x, sum(c.forward_sec) AS forward_sec
    FROM cells c
    JOIN typical t ON t.model = c.model AND t.vllm = c.vllm AND t.setup = c.setup AND t.clock = c.clock
        AND t.kind = c.kind AND t.decodes = c.decodes AND t.prompt = c.prompt
    GROUP BY c.model, c.vllm, c.setup, c.clock, c.host, c.rank, c.session, c.engine, c.stretch
),
centred AS (
    SELECT model, vllm, setup, clock, host, rank, n, x, forward_sec,
        sum(n * x) OVER (PARTITION BY model, vllm, setup, clock, host, rank)
            / sum(n) OVER (PARTITION BY model, vllm, setup, clock, host, rank) AS score
    FROM stretches
),
scores AS (
    SELECT model, vllm, setup, clock, host, rank, score, count(*) AS stretches, sum(n) AS steps,
        sum(forward_sec) AS forward_sec,
        CASE WHEN count(*) > 1
            THEN sqrt(sum((1e0 * n) * n * (x - score) * (x - score)) * count(*) / (count(*) - 1)) / sum(n)
            ELSE 1e0 END AS error
    FROM centred
    GROUP BY model, vllm, setup, clock, host, rank, score
),
middles AS (
    SELECT model, vllm, setup, clock, count(DISTINCT host) AS hosts,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY score) AS middle
    FROM scores
    GROUP BY model, vllm, setup, clock
),
spreads AS (
    SELECT s.model, s.vllm, s.setup, s.clock, m.hosts, m.middle,
        greatest(1.4826e0 * percentile_cont(0.5) WITHIN GROUP (ORDER BY abs(s.score - m.middle)),
            :floor_pct / 1e2) AS spread
    FROM scores s
    JOIN middles m ON m.model = s.model AND m.vllm = s.vllm AND m.setup = s.setup AND m.clock = s.clock
    GROUP BY s.model, s.vllm, s.setup, s.clock, m.hosts, m.middle
),
judged AS (
    SELECT s.model, s.vllm, s.setup, s.clock, s.host, s.rank, m.hosts, s.steps, s.stretches, s.forward_sec,
        1e2 * (exp(s.score - m.middle) - 1) AS slower_pct,
        1e2 * s.error AS error_pct,
        1e2 * m.spread AS spread_pct,
        (s.score - m.middle) / sqrt(m.spread * m.spread + s.error * s.error) AS z
    FROM scores s
    JOIN spreads m ON m.model = s.model AND m.vllm = s.vllm AND m.setup = s.setup AND m.clock = s.clock
)
SELECT host, rank, model, vllm, setup, hosts AS peers, CAST(steps AS BIGINT) AS steps, stretches, slower_pct, error_pct,
    spread_pct, z, forward_sec * slower_pct / (1e2 + slower_pct) AS lost_sec,
    hosts >= :min_peers AND z >= :z AND slower_pct >= :min_slower_pct AS straggler
FROM judged
ORDER BY z DESC, host, rank, model, vllm
LIMIT :limit
