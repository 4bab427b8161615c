-- The steps behind the worst requests: for each of them, the longest engine steps while it waited for its tokens.
--
-- By ttft, the steps from its arrival to its first token; by tpot, itl or e2e those from its first token to its last. A
-- step is of the request's engine, whether the request was in it (stage running) or still in the queue (stage waiting).
--
-- param by ttft|tpot|itl|e2e ttft  what is bad about them
-- param requests whole 10  how many requests
-- param steps whole 3  how many steps of each
-- param model text ''  only this model
-- param since text 0001-01-01  first day
-- param until text 9999-12-31  last day
-- reads requests, steps, sessions
WITH known AS (
    SELECT session, coalesce(engine, 0) AS engine, coalesce(model, 'unknown') AS model,
        coalesce(vllm_version, 'unknown') AS vllm
    FROM sessions
),
chosen AS (
    SELECT r.date, r.host, r.session, r.engine, r.request_id, s.model, s.vllm, r.prompt_tokens,
        r.output_tokens, r.preemptions, r.started_sec, r.queue_ns, r.preempted_ns,
        CASE :by WHEN 'ttft' THEN r.ttft_ns WHEN 'tpot' THEN nullif(r.tpot_ns, 0) WHEN 'itl' THEN r.max_itl_ns
            WHEN 'e2e' THEN r.e2e_ns END AS bad_ns,
        CASE WHEN :by = 'ttft' THEN coalesce(r.arrived_sec, r.queued_sec) ELSE r.first_token_sec END AS from_sec,
        CASE WHEN :by = 'ttft' THEN r.first_token_sec ELSE r.last_token_sec END AS to_sec
    FROM requests r
    JOIN known s ON s.session = r.session AND s.engine = r.engine
    WHERE r.date BETWEEN :since AND :until AND (:model = '' OR s.model = :model)
),
top AS (
    SELECT *
    FROM chosen
    WHERE bad_ns IS NOT NULL AND from_sec IS NOT NULL AND to_sec IS NOT NULL
    ORDER BY bad_ns DESC, host, session, request_id
    LIMIT :requests
),
numbered AS (
    SELECT row_number() OVER (ORDER BY bad_ns DESC, host, session, request_id) AS place, top.*
    FROM top
),
behind AS (
    SELECT w.place, w.host, w.session, w.request_id, w.model, w.vllm, w.bad_ns, w.queue_ns, w.preempted_ns,
        w.prompt_tokens, w.output_tokens, w.preemptions, w.from_sec, w.started_sec, t.step, t.timestamp_sec, t.phase,
        t.requests, t.tokens, t.prefill_tokens, t.recompute_tokens, t.running, t.waiting, t.forward_ns, t.total_ns,
        coalesce(t.schedule_ns, 0) + coalesce(t.total_ns, 0) + coalesce(t.update_ns, 0) AS step_ns
    FROM numbered w
    JOIN steps t ON t.session = w.session AND t.engine = w.engine
        AND t.timestamp_sec <= w.to_sec AND t.timestamp_sec + coalesce(t.total_ns, 0) / 1e9 >= w.from_sec
    WHERE t.date BETWEEN :since AND :until AND coalesce(t.rank, 0) = 0
),
ordered AS (
    SELECT behind.*,
        row_number() OVER (PARTITION BY place ORDER BY step_ns DESC, step) AS nth,
        count(*) OVER (PARTITION BY place) AS steps_in_all,
        sum(step_ns) OVER (PARTITION BY place) AS all_ns
    FROM behind
)
SELECT place, host, session, request_id, model, vllm, bad_ns / 1e6 AS request_ms, queue_ns / 1e6 AS queue_ms,
    preempted_ns / 1e6 AS preempted_ms, prompt_tokens, output_tokens, preemptions, steps_in_all,
    all_ns / 1e6 AS steps_ms, step, step_ns / 1e6 AS step_ms,
    (timestamp_sec - from_sec) * 1e3 AS after_ms,
    CASE WHEN started_sec IS NULL OR timestamp_sec < started_sec THEN 'waiting' ELSE 'running' END AS stage,
    phase, requests, tokens, prefill_tokens, recompute_tokens, running, waiting, forward_ns / 1e6 AS forward_ms
FROM ordered
WHERE nth <= :steps
ORDER BY place, nth
