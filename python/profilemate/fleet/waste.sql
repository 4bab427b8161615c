-- Preemptions, and work done in vain, by configuration of the servers.
--
-- In vain is what a preemption made a server compute again, what was drafted and not accepted, and what was computed
-- for requests that the client then aborted. The time is the forward passes', split by tokens.
--
-- param model text ''  only this model
-- param since text 0001-01-01  first day
-- param until text 9999-12-31  last day
-- reads requests, steps, sessions
WITH known AS (
    SELECT session, coalesce(engine, 0) AS engine, coalesce(model, 'unknown') AS model,
        coalesce(vllm_version, 'unknown') AS vllm, config_id, max_num_seqs, max_num_batched_tokens,
        num_gpu_blocks, block_size, enable_prefix_caching
    FROM sessions
),
lives AS (
    SELECT session, engine,
        count(*) AS requests,
        sum(CASE WHEN preemptions > 0 THEN 1 ELSE 0 END) AS preempted,
        sum(preemptions) AS preemptions,
        sum(lost_tokens) AS lost_tokens,
        sum(preempted_ns / 1e9) AS away_sec,
        sum(CASE WHEN reason = 'abort' THEN 1 ELSE 0 END) AS aborted,
        sum(CASE WHEN reason = 'abort' THEN output_tokens ELSE 0 END) AS aborted_output_tokens
    FROM requests
    WHERE date BETWEEN :since AND :until
    GROUP BY session, engine
),
work AS (
    SELECT session, engine,
        count(*) AS steps,
        sum(tokens) AS tokens,
        sum(recompute_tokens) AS recompute_tokens,
        sum(coalesce(drafted, 0)) AS drafted,
        sum(coalesce(accepted, 0)) AS accepted,
        sum(coalesce(forward_ns, 0) / 1e9) AS forward_sec,
        sum(CASE WHEN tokens > 0 THEN coalesce(forward_ns, 0) / 1e9 * recompute_tokens / tokens ELSE 0 END) AS again_sec
    FROM steps
    WHERE date BETWEEN :since AND :until AND has_scheduler AND coalesce(rank, 0) = 0
    GROUP BY session, engine
)
SELECT s.model, s.vllm, s.config_id, s.max_num_seqs, s.max_num_batched_tokens, s.enable_prefix_caching,
    min(s.num_gpu_blocks) AS least_blocks, min(s.block_size) AS block_size,
    count(*) AS engines,
    CAST(sum(w.steps) AS BIGINT) AS steps,
    CAST(sum(w.tokens) AS BIGINT) AS tokens,
    CAST(sum(l.requests) AS BIGINT) AS requests,
    CAST(sum(l.preempted) AS BIGINT) AS preempted_requests,
    CAST(sum(l.preemptions) AS BIGINT) AS preemptions,
    CASE WHEN sum(l.requests) > 0 THEN 1e3 * sum(l.preemptions) / sum(l.requests) END AS preemptions_per_1000,
    CAST(sum(l.lost_tokens) AS BIGINT) AS lost_tokens,
    CAST(sum(w.recompute_tokens) AS BIGINT) AS recomputed_tokens,
    CASE WHEN sum(w.tokens) > 0 THEN 1e2 * sum(w.recompute_tokens) / sum(w.tokens) END AS recomputed_pct,
    sum(w.again_sec) AS recomputing_sec,
    CASE WHEN sum(w.forward_sec) > 0 THEN 1e2 * sum(w.again_sec) / sum(w.forward_sec) END AS recomputing_pct_of_time,
    CASE WHEN sum(l.preemptions) > 0 THEN sum(l.away_sec) / sum(l.preemptions) END AS away_sec_per_preemption,
    CAST(sum(w.drafted - w.accepted) AS BIGINT) AS rejected_drafts,
    CASE WHEN sum(w.drafted) > 0 THEN 1e2 * sum(w.drafted - w.accepted) / sum(w.drafted) END AS rejected_pct,
    CAST(sum(l.aborted) AS BIGINT) AS aborted_requests,
    CAST(sum(l.aborted_output_tokens) AS BIGINT) AS aborted_output_tokens
FROM known s
JOIN work w ON w.session = s.session AND w.engine = s.engine
LEFT JOIN lives l ON l.session = s.session AND l.engine = s.engine
WHERE :model = '' OR s.model = :model
GROUP BY s.model, s.vllm, s.config_id, s.max_num_seqs, s.max_num_batched_tokens, s.enable_prefix_caching
ORDER BY recomputing_sec DESC, s.model, s.vllm, s.config_id
