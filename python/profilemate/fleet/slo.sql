-- Latency and goodput against an SLO, per model and vLLM version.
--
-- A request is good when it ended by itself (stop, length, repetition), its first token came within ttft_ms, and its
-- tokens followed within tpot_ms each. Aborted requests are the client's doing: they are in no percentage. Times are
-- those of every request that has them, as in `report`: TTFT of those still under way too, E2E without the aborted
-- ones.
--
-- param ttft_ms number 500  time to first token that the SLO allows, ms
-- param tpot_ms number 50  time per output token that the SLO allows, ms
-- param model text ''  only this model
-- param since text 0001-01-01  first day
-- param until text 9999-12-31  last day
-- reads requests, sessions
WITH known AS (
    SELECT session, coalesce(engine, 0) AS engine, coalesce(model, 'unknown') AS model,
        coalesce(vllm_version, 'unknown') AS vllm
    FROM sessions
),
lives AS (
    SELECT s.model, s.vllm, r.session, r.engine, r.arrived_sec, r.last_token_sec, r.prompt_tokens, r.output_tokens,
        r.ttft_ns, nullif(r.tpot_ns, 0) AS tpot_ns, r.queue_ns,
        CASE WHEN r.state = 'finished' AND r.reason <> 'abort' THEN r.e2e_ns END AS e2e_ns,
        CASE WHEN r.state = 'finished' THEN 1 ELSE 0 END AS ended,
        CASE WHEN r.state = 'finished' AND r.reason = 'abort' THEN 1 ELSE 0 END AS aborted,
        CASE WHEN r.state = 'finished' AND r.reason IN ('stop', 'length', 'repetition')
                AND r.ttft_ns <= :ttft_ms * 1e6 AND coalesce(r.tpot_ns, 0) <= :tpot_ms * 1e6
            THEN 1 ELSE 0 END AS good
    FROM requests r
    JOIN known s ON s.session = r.session AND s.engine = r.engine
    WHERE r.date BETWEEN :since AND :until AND (:model = '' OR s.model = :model)
),
servers AS (
    SELECT model, vllm, session, engine, max(last_token_sec) - min(arrived_sec) AS busy_sec
    FROM lives
    GROUP BY model, vllm, session, engine
),
hours AS (
    SELECT model, vllm, count(*) AS engines, sum(busy_sec) / 3600e0 AS engine_hours
    FROM servers
    GROUP BY model, vllm
),
times AS (
    SELECT model, vllm,
        count(*) AS requests,
        CAST(sum(ended) AS BIGINT) AS ended,
        CAST(sum(aborted) AS BIGINT) AS aborted,
        CAST(sum(good) AS BIGINT) AS good,
        CAST(sum(prompt_tokens) AS BIGINT) AS prompt_tokens,
        CAST(sum(output_tokens) AS BIGINT) AS output_tokens,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY ttft_ns) / 1e6 AS ttft_p50_ms,
        percentile_cont(0.95) WITHIN GROUP (ORDER BY ttft_ns) / 1e6 AS ttft_p95_ms,
        percentile_cont(0.99) WITHIN GROUP (ORDER BY ttft_ns) / 1e6 AS ttft_p99_ms,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY tpot_ns) / 1e6 AS tpot_p50_ms,
        percentile_cont(0.95) WITHIN GROUP (ORDER BY tpot_ns) / 1e6 AS tpot_p95_ms,
        percentile_cont(0.99) WITHIN GROUP (ORDER BY tpot_ns) / 1e6 AS tpot_p99_ms,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY e2e_ns) / 1e6 AS e2e_p50_ms,
        percentile_cont(0.99) WITHIN GROUP (ORDER BY e2e_ns) / 1e6 AS e2e_p99_ms,
        percentile_cont(0.99) WITHIN GROUP (ORDER BY queue_ns) / 1e6 AS queue_p99_ms
    FROM lives
    GROUP BY model, vllm
)
SELECT t.model, t.vllm, h.engines, h.engine_hours, t.requests, t.ended, t.aborted, t.good,
    CASE WHEN t.ended > t.aborted THEN 1e2 * t.good / (t.ended - t.aborted) END AS good_pct,
    CASE WHEN h.engine_hours > 0 THEN t.good / (h.engine_hours * 3600e0) END AS goodput_per_engine_sec,
    CASE WHEN h.engine_hours > 0 THEN t.output_tokens / (h.engine_hours * 3600e0) END AS output_tokens_per_engine_sec,
    t.prompt_tokens, t.output_tokens, t.ttft_p50_ms, t.ttft_p95_ms, t.ttft_p99_ms, t.tpot_p50_ms, t.tpot_p95_ms,
    t.tpot_p99_ms, t.e2e_p50_ms, t.e2e_p99_ms, t.queue_p99_ms
FROM times t
JOIN hours h ON h.model = t.model AND h.vllm = t.vllm
ORDER BY t.model, t.vllm
