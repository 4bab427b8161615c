/*
 * A report as one JSON object, for scripts. Called by `report --json`.
 */
#include "view/caution.h"
#include "view/collective.h"
#include "view/compute.h"
#include "view/graph.h"
#include "view/host_report.h"
#include "view/layer.h"
#include "view/memory.h"
#include "view/moe.h"
#include "view/report_model.h"
#include "view/transfer.h"
#include "view/sampling.h"
#include "view/window.h"
#include "view/wasted.h"

#include <string.h>

#include "session/step_facts.h"
#include "session/attrs.h"

static void put_u64(struct pm_json *json, const char *key, uint64_t value)
{
    pm_json_key(json, key);
    pm_json_u64(json, value);
}

static void put_text(struct pm_json *json, const char *key, const char *value)
{
    pm_json_key(json, key);
    pm_json_text(json, value);
}

static void put_phase(struct pm_json *json, const char *name, const struct pm_rank_report *rank,
                      unsigned phase)
{
    const struct pm_stats *s = &rank->stats[phase];

    pm_json_key(json, name);
    pm_json_object(json);
    put_u64(json, "count", s->count);
    put_u64(json, "tokens", rank->forward.tokens[phase]);
    pm_json_ms_double(json, "mean_ms", s->mean, s->count);
    pm_json_ms_double(json, "std_ms", s->std, s->count);
    pm_json_ms_double(json, "min_ms", s->min, s->count);
    pm_json_ms_double(json, "max_ms", s->max, s->count);
    pm_json_ms_double(json, "p50_ms", s->p50, s->count);
    pm_json_ms_double(json, "p90_ms", s->p90, s->count);
    pm_json_ms_double(json, "p95_ms", s->p95, s->count);
    pm_json_ms_double(json, "p99_ms", s->p99, s->count);
    pm_json_key(json, "tokens_per_sec");
    if (rank->forward_ns[phase] != 0)
        pm_json_ratio(json, rank->timed_tokens[phase], 1000000000u, rank->forward_ns[phase], 1);
    else
        pm_json_null(json);
    pm_json_end(json);
}

static void put_mean_ms(struct pm_json *json, const char *key, uint64_t sum_ns, uint64_t count)
{
    pm_json_ms_double(json, key, count != 0 ? (double)sum_ns / (double)count : 0.0, count);
}

static void put_rank(struct pm_json *json, const struct pm_rank_report *rank)
{
    const struct pm_breakdown *down = &rank->breakdown;

    pm_json_object(json);
    pm_json_key(json, "rank");
    rank->rank >= 0 ? pm_json_i64(json, rank->rank) : pm_json_null(json);
    put_phase(json, "prefill", rank, PM_PHASE_PREFILL);
    put_phase(json, "decode", rank, PM_PHASE_DECODE);
    put_text(json, "forward_clock", pm_forward_clock(&rank->forward));
    put_text(json, "percentiles", rank->source);
    put_u64(json, "without_time", rank->forward.untimed);
    put_u64(json, "mismatched", rank->forward.mismatched);
    put_u64(json, "scheduler_only", rank->forward.sched_only);
    put_u64(json, "worker_only", rank->forward.worker_only);
    pm_json_key(json, "mean_step");
    pm_json_object(json);
    put_mean_ms(json, "schedule_ms", down->schedule_ns, down->steps);
    put_mean_ms(json, "pre_ms", down->pre_ns, down->steps);
    put_mean_ms(json, "model_ms", down->model_ns, down->steps);
    put_mean_ms(json, "post_ms", down->post_ns, down->steps);
    put_mean_ms(json, "sample_ms", down->sample_ns, down->steps);
    put_mean_ms(json, "other_ms", down->other_ns, down->steps);
    put_mean_ms(json, "idle_ms", down->idle_ns, down->steps);
    put_mean_ms(json, "idle_for_schedule_ms", down->waited_schedule_ns, down->steps);
    pm_json_end(json);
    pm_device_report_json(&rank->device, json);
    pm_json_end(json);
}

static void put_level(struct pm_json *json, const char *key, const struct pm_level *level)
{
    pm_json_key(json, key);
    pm_json_object(json);
    pm_json_key(json, "mean");
    if (level->count != 0)
        pm_json_ratio(json, level->sum, 1, level->count, 2);
    else
        pm_json_null(json);
    put_u64(json, "max", level->max);
    pm_json_end(json);
}

static void put_engine(struct pm_json *json, const struct pm_session *session, size_t e,
                       const struct pm_engine_report *engine)
{
    pm_json_object(json);
    put_u64(json, "engine", engine->number);
    put_u64(json, "steps", engine->steps);
    put_u64(json, "prefill_steps", engine->prefill_steps);
    put_u64(json, "decode_steps", engine->decode_steps);
    put_u64(json, "mixed_steps", engine->mixed_steps);
    put_u64(json, "empty_steps", engine->empty_steps);
    put_u64(json, "prefill_tokens", engine->prefill_tokens);
    put_u64(json, "recompute_tokens", engine->recompute_tokens);
    put_u64(json, "decode_tokens", engine->decode_tokens);
    put_u64(json, "spec_tokens", engine->spec_tokens);
    put_level(json, "batch_size", &engine->requests);
    put_level(json, "batch_tokens", &engine->tokens);
    put_level(json, "running", &engine->running);
    put_level(json, "waiting", &engine->waiting);
    (void)!pm_host_report_json(session, e, engine->sampler, json);
    pm_json_key(json, "bandwidth_compute");
    (void)!pm_compute_report_json(session, e, engine->sampler, json);
    pm_json_key(json, "kv_cache");
    pm_kv_report_json(json, &engine->kv);
    pm_json_key(json, "cuda_graphs");
    (void)!pm_graph_report_json(session, e, engine->sampler, json);
    pm_json_key(json, "moe");
    (void)!pm_moe_report_json(session, e, engine->sampler, json);
    pm_json_key(json, "sampling");
    (void)!pm_sampling_report_json(session, e, engine->sampler, json);
    pm_json_key(json, "memory");
    (void)!pm_memory_report_json(session, e, engine->sampler, json);
    pm_json_key(json, "collectives");
    (void)!pm_collective_report_json(session, e, engine->sampler, json);
    pm_json_key(json, "kv_transfers");
    (void)!pm_transfer_report_json(session, e, engine->sampler, json);
    pm_json_key(json, "layers");
    (void)!pm_layer_report_json(session, e, engine->sampler, json);
    if (pm_session_setting_on(session, "spec_decode", true))
        (void)!pm_wasted_report_json(session, e, engine->sampler, json);
    pm_json_key(json, "ranks");
    pm_json_array(json);
    for (unsigned n = 0; n < engine->n_ranks; n++)
        put_rank(json, &engine->ranks[n]);
    pm_json_end(json);
    pm_json_end(json);
}

static void put_report(struct pm_json *json, const struct pm_report *report,
                       const struct pm_report_options *options)
{
    const struct pm_session *session = report->session;
    const struct pm_session_info *info = pm_session_info(session);
    const struct pm_sums *sums = &report->sums;
    char start[64];

    pm_iso_time(info->start_real_ns, start, sizeof(start));
    pm_json_object(json);
    put_text(json, "session_id", info->name);
    put_text(json, "path", info->path);
    put_text(json, "state", pm_session_state_name(sums));
    put_text(json, "start", start);
    pm_json_key(json, "duration_sec");
    if (sums->end_ns > info->start_mono_ns)
        pm_json_sec6(json, sums->end_ns - info->start_mono_ns);
    else
        pm_json_null(json);
    if (options != NULL && options->window != NULL && !options->window->whole)
        put_text(json, "window", options->window->words);
    put_text(json, "model", pm_session_attr(session, PM_ATTR_MODEL));
    put_text(json, "vllm", pm_session_attr(session, PM_ATTR_VLLM));
    put_text(json, "device", pm_session_attr(session, PM_ATTR_DEVICE));
    put_u64(json, "processes", pm_session_process_count(session));
    if (options != NULL && options->findings_json != NULL) {
        pm_json_key(json, "findings");
        options->findings_json(json, options->findings_arg);
    }
    pm_json_key(json, "engines");
    pm_json_array(json);
    for (size_t e = 0; e < report->n_engines; e++)
        put_engine(json, session, e, &report->engines[e]);
    pm_json_end(json);
    pm_json_key(json, "hooks");
    pm_json_object(json);
    put_u64(json, "patched", report->hooks_patched);
    put_u64(json, "fired", report->hooks_fired);
    put_u64(json, "missing", report->hooks_missing);
    put_u64(json, "off", report->hooks_off);
    pm_json_end(json);
    pm_sums_records_json(sums, json);
    pm_sums_cost_json(sums, json);
    pm_json_key(json, "notes");
    pm_json_array(json);
    for (size_t i = 0; i < pm_session_note_count(session); i++)
        pm_json_text(json, pm_session_note(session, i));
    pm_put_cautions(json, session);
    pm_json_end(json);
    pm_json_end(json);
}

int pm_view_report_json(const struct pm_session *session, const struct pm_report_options *options,
                        FILE *out, struct pm_error *err)
{
    struct pm_report report;
    struct pm_json json;
    struct pm_buf buf;
    int rc = options != NULL ? pm_window_apply(session, options->window, err) : 0;

    if (rc != 0)
        return rc;
    rc = pm_report_make(&report, session);
    if (rc != 0)
        return pm_error_set(err, rc, "%s: %s", pm_session_info(session)->path, pm_strerror(rc));
    pm_buf_init(&buf, PM_VIEW_TEXT_MAX);
    pm_json_init(&json, &buf, 2);
    put_report(&json, &report, options);
    rc = pm_json_finish(&json);
    if (rc != 0)
        (void)pm_error_set(err, rc, "the report cannot be written: %s", pm_strerror(rc));
    else if (fwrite(buf.data, 1, buf.used, out) != buf.used)
        rc = pm_error_set(err, -PM_EIO, "the report cannot be written");
    pm_buf_release(&buf);
    pm_report_release(&report);
    return rc;
}
