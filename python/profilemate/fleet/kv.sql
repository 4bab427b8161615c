-- KV cache head-room per configuration: how full the caches get, how long they are full, and what could be spared.
--
-- A server's p99 is the level that 99 of 100 of its steps do not exceed. spare_pct is what the fullest server of the
-- configuration leaves free at its p99: so much less cache, or so many more requests, would have fitted everywhere.
--
-- param full_pct number 95  a cache is called full from here on, per cent of its blocks
-- param model text ''  only this model
-- param since text 0001-01-01  first day
-- param until text 9999-12-31  last day
-- reads kv_step, sessions
WITH known AS (
    SELECT session, coalesce(engine, 0) AS engine, coalesce(model, 'unknown') AS model,
        coalesce(vllm_version, 'unknown') AS vllm, config_id, block_size
    FROM sessions
),
levels AS (
    SELECT session, engine, total, used, count(*) AS n, sum(evicted) AS evicted, sum(queried_tokens) AS queried,
        sum(hit_tokens) AS hit
    FROM kv_step
    WHERE date BETWEEN :since AND :until AND total > 0
    GROUP BY session, engine, total, used
),
ranked AS (
    SELECT session, engine, total, used, n, evicted, queried, hit, 1e2 * used / total AS pct,
        sum(n) OVER (PARTITION BY session, engine ORDER BY 1e0 * used / total) AS below,
        sum(n) OVER (PARTITION BY session, engine) AS whole
    FROM levels
),
servers AS (
    SELECT session, engine, max(total) AS total, sum(n) AS steps, sum(n * pct) AS sum_pct,
        min(CASE WHEN below >= 0.5e0 * whole THEN pct END) AS p50_pct,
        min(CASE WHEN below >= 0.99e0 * whole THEN pct END) AS p99_pct,
        max(used) AS peak_blocks, max(pct) AS peak_pct,
        sum(CASE WHEN pct >= :full_pct THEN n ELSE 0 END) AS full_steps,
        sum(evicted) AS evicted, sum(queried) AS queried, sum(hit) AS hit
    FROM ranked
    GROUP BY session, engine
)
SELECT s.model, s.vllm, s.config_id, min(s.block_size) AS block_size, min(k.total) AS least_blocks,
    max(k.total) AS most_blocks,
    count(*) AS engines,
    CAST(sum(k.steps) AS BIGINT) AS steps,
    sum(k.sum_pct) / sum(k.steps) AS mean_pct,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY k.p50_pct) AS typical_p50_pct,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY k.p99_pct) AS typical_p99_pct,
    max(k.p99_pct) AS fullest_p99_pct,
    max(k.peak_blocks) AS peak_blocks,
    max(k.peak_pct) AS peak_pct,
    1e2 - max(k.p99_pct) AS spare_pct,
    CAST(floor(min(k.total * (1e2 - k.p99_pct) / 1e2) + 1e-6) AS BIGINT) AS spare_blocks,
    1e2 * sum(k.full_steps) / sum(k.steps) AS full_steps_pct,
    CAST(sum(CASE WHEN k.full_steps > 0 THEN 1 ELSE 0 END) AS BIGINT) AS engines_full,
    CAST(sum(k.evicted) AS BIGINT) AS evicted_blocks,
    CASE WHEN sum(k.queried) > 0 THEN 1e2 * sum(k.hit) / sum(k.queried) END AS prefix_hit_pct
FROM servers k
JOIN known s ON s.session = k.session AND s.engine = k.engine
WHERE :model = '' OR s.model = :model
GROUP BY s.model, s.vllm, s.config_id
ORDER BY spare_pct, s.model, s.vllm, s.config_id
