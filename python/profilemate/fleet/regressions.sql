-- Regressions between two vLLM versions: which part of a step takes longer for the same work, and how sure it is.
--
-- Steps are matched by composition, as in `stragglers`, and by the tokens of context that the KV blocks of the batch
-- hold (up to 1023, then a class per doubling; servers that tell none have one class); a part is compared on what both
-- versions have. A server's score is how much longer its steps take than the median server of the older version does
-- for them; servers, not steps, are the witnesses, and medians of them are compared, so that one bad host is no
-- regression.
-- Without names of versions each one is held against the one of the same model and setup (device, parallel sizes,
-- quantization) that was seen first before it.
--
-- param base text ''  the older version; empty: the one seen before
-- param new text ''  the newer version; empty: each
-- param z number 4  so many standard errors, at least
-- param min_change_pct number 1  so much slower, at least
-- param floor_pct number 0.5  servers are taken to differ by this much at least
-- param min_steps whole 5  steps that a server must have of a composition
-- param min_servers whole 3  servers that each side must have
-- param model text ''  only this model
-- param since text 0001-01-01  first day
-- param until text 9999-12-31  last day
-- reads steps, sessions
WITH known AS (
    SELECT session, coalesce(engine, 0) AS engine, coalesce(model, 'unknown') AS model,
        coalesce(vllm_version, 'unknown') AS vllm,
        start_real_ns, block_size,
        concat(coalesce(device, 'unknown'), ' tp', CAST(coalesce(tensor_parallel, 1) AS STRING),
            ' pp', CAST(coalesce(pipeline_parallel, 1) AS STRING), ' ', coalesce(quantization, '')) AS setup
    FROM sessions
),
placed AS (
    SELECT s.model, s.setup, s.vllm, coalesce(t.forward_clock, '') AS clock, t.session, t.engine,
        CASE WHEN t.prefill_requests + t.recompute_requests = 0 THEN 'decode'
            WHEN t.decode_requests > 0 THEN 'mixed' ELSE 'prefill' END AS kind,
        t.decode_requests AS d,
        t.prefill_tokens + t.recompute_tokens AS p,
        coalesce(t.kv_used, 0) * coalesce(s.block_size, 16) AS held,
        CASE WHEN t.forward_ns > 0 THEN ln(t.forward_ns) END AS forward,
        CASE WHEN t.schedule_ns > 0 THEN ln(t.schedule_ns) END AS schedule,
        CASE WHEN t.pre_ns > 0 THEN ln(t.pre_ns) END AS pre,
        CASE WHEN t.sample_ns > 0 THEN ln(t.sample_ns) END AS sampling,
        CASE WHEN t.update_ns > 0 THEN ln(t.update_ns) END AS output
    FROM steps t
    JOIN known s ON s.session = t.session AND s.engine = t.engine
    WHERE t.date BETWEEN :since AND :until AND t.has_scheduler AND t.matched AND coalesce(t.rank, 0) = 0
        AND (:model = '' OR s.model = :model)
),
classed AS (
    SELECT placed.*,
        CASE WHEN kind = 'mixed' THEN CAST(floor(2 * log2(d) + 1e-9) AS BIGINT)
            WHEN d < 32 THEN d ELSE 32 + CAST(floor(8 * log2(d / 32e0) + 1e-9) AS BIGINT) END AS decodes,
        CASE WHEN p < 16 THEN p ELSE 16 + CAST(floor(8 * log2(p / 16e0) + 1e-9) AS BIGINT) END AS prompt,
        CASE WHEN held < 1024 THEN 0 ELSE CAST(floor(log2(held / 512e0) + 1e-9) AS BIGINT) END AS context
    FROM placed
),
cells AS (
    SELECT model, setup, vllm, clock, session, engine, kind, decodes, prompt, context,
        count(*) AS n, avg(forward) AS forward, avg(schedule) AS schedule, avg(pre) AS pre, avg(sampling) AS sampling,
        avg(output) AS output
    FROM classed
    GROUP BY model, setup, vllm, clock, session, engine, kind, decodes, prompt, context
    HAVING count(*) >= :min_steps
),
parts AS (
    SELECT model, setup, vllm, clock, session, engine, kind, decodes, prompt, context, n, part, x
    FROM (
        SELECT c.*, i.part, CASE i.part WHEN 'forward' THEN forward WHEN 'schedule' THEN schedule WHEN 'pre' THEN pre
            WHEN 'sample' THEN sampling ELSE output END AS x
        FROM cells c
        CROSS JOIN (VALUES ('forward'), ('schedule'), ('pre'), ('sample'), ('output')) AS i(part)
    ) AS lines
    WHERE x IS NOT NULL
),
versions AS (
    SELECT model, setup, vllm, min(start_real_ns) AS seen_ns
    FROM known
    GROUP BY model, setup, vllm
),
follow AS (
    SELECT model, setup, vllm, lag(vllm) OVER (PARTITION BY model, setup ORDER BY seen_ns, vllm) AS before
    FROM versions
),
pairs AS (
    SELECT model, setup, CASE WHEN :base <> '' THEN :base ELSE before END AS base, vllm AS new
    FROM follow
    WHERE (:new = '' OR vllm = :new) AND (:base <> '' OR before IS NOT NULL) AND vllm <> :base
),
typical AS (
    SELECT model, setup, vllm, clock, kind, part, decodes, prompt, context,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY x) AS x
    FROM parts
    GROUP BY model, setup, vllm, clock, kind, part, decodes, prompt, context
),
both_have AS (
    SELECT r.model, r.setup, r.base, r.new, b.clock, b.kind, b.part, b.decodes, b.prompt, b.context, b.x
    FROM pairs r
    JOIN typical b ON b.model = r.model AND b.setup = r.setup AND b.vllm = r.base
    JOIN typical n ON n.model = r.model AND n.setup = r.setup AND n.vllm = r.new AND n.clock = b.clock
        AND n.kind = b.kind AND n.part = b.part AND n.decodes = b.decodes AND n.prompt = b.prompt
        AND n.context = b.context
),
scores AS (
    SELECT t.model, t.setup, t.base, t.new, t.clock, t.kind, t.part, p.vllm, p.session, p.engine,
        sum(p.n) AS steps, sum(p.n * t.x) / sum(p.n) AS level, sum(p.n * (p.x - t.x)) / sum(p.n) AS score
    FROM both_have t
    JOIN parts p ON p.model = t.model AND p.setup = t.setup AND p.clock = t.clock AND p.kind = t.kind
        AND p.part = t.part AND p.decodes = t.decodes AND p.prompt = t.prompt AND p.context = t.context
        AND (p.vllm = t.base OR p.vllm = t.new)
    GROUP BY t.model, t.setup, t.base, t.new, t.clock, t.kind, t.part, p.vllm, p.session, p.engine
),
middles AS (
    SELECT model, setup, base, new, clock, kind, part, vllm, count(*) AS servers, sum(steps) AS steps,
        sum(steps * level) / sum(steps) AS level, percentile_cont(0.5) WITHIN GROUP (ORDER BY score) AS middle
    FROM scores
    GROUP BY model, setup, base, new, clock, kind, part, vllm
),
spreads AS (
    SELECT s.model, s.setup, s.base, s.new, s.clock, s.kind, s.part, s.vllm, m.servers, m.steps, m.level, m.middle,
        greatest(1.4826e0 * percentile_cont(0.5) WITHIN GROUP (ORDER BY abs(s.score - m.middle)), :floor_pct / 1e2)
            * 1.2533e0 / sqrt(m.servers) AS error
    FROM scores s
    JOIN middles m ON m.model = s.model AND m.setup = s.setup AND m.base = s.base AND m.new = s.new
        AND m.clock = s.clock AND m.kind = s.kind AND m.part = s.part AND m.vllm = s.vllm
    GROUP BY s.model, s.setup, s.base, s.new, s.clock, s.kind, s.part, s.vllm, m.servers, m.steps, m.level, m.middle
),
judged AS (
    SELECT b.model, b.setup, b.base, b.new, b.clock, b.kind, b.part, b.servers AS base_servers,
        n.servers AS new_servers, b.steps AS base_steps, n.steps AS new_steps, exp(n.level) / 1e6 AS base_ms,
        n.middle - b.middle AS change, sqrt(b.error * b.error + n.error * n.error) AS error
    FROM spreads b
    JOIN spreads n ON n.model = b.model AND n.setup = b.setup AND n.base = b.base AND n.new = b.new
        AND n.clock = b.clock AND n.kind = b.kind AND n.part = b.part
    WHERE b.vllm = b.base AND n.vllm = n.new
)
SELECT model, setup, base, new, kind, part, base_servers, new_servers, CAST(base_steps AS BIGINT) AS base_steps,
    CAST(new_steps AS BIGINT) AS new_steps, base_ms, base_ms * exp(change) AS new_ms,
    1e2 * (exp(change) - 1) AS change_pct,
    1e2 * (exp(change - 1.96e0 * error) - 1) AS low_pct,
    1e2 * (exp(change + 1.96e0 * error) - 1) AS high_pct,
    change / error AS z,
    base_ms * (exp(change) - 1) * new_steps / 1e3 AS cost_sec,
    base_servers >= :min_servers AND new_servers >= :min_servers AND change / error >= :z
        AND 1e2 * (exp(change) - 1) >= :min_change_pct AS regression
FROM judged
ORDER BY z DESC, model, setup, base, new, kind, part
