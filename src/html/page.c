/*
 * The report's data and its HTML file (see page.h; frame.c has the page round the data). Called by
 * the command `report`.
 */
#include "html/page.h"

#include <time.h>

#include "explain/explain.h"
#include "html/data.h"
#include "html/frame.h"
#include "session/attrs.h"
#include "view/cpu.h"
#include "view/detail.h"

static void put_session(struct pm_json *json, const struct pm_session *session,
                        const struct pm_sums *sums)
{
    const struct pm_session_info *info = pm_session_info(session);
    char start[64];

    pm_iso_time(info->start_real_ns, start, sizeof(start));
    pm_json_object(json);
    pm_put_text(json, "name", info->name);
    pm_put_text(json, "path", info->path);
    pm_put_text(json, "state", pm_session_state_name(sums));
    pm_put_text(json, "start", start);
    pm_json_key(json, "start_unix_ms");
    pm_json_fixed(json, info->start_real_ns, 6, 3);
    pm_json_key(json, "duration");
    pm_json_u64(
        json, sums->end_ns > info->start_mono_ns ? (sums->end_ns - info->start_mono_ns) / 1000 : 0);
    pm_put_text(json, "model", pm_session_attr(session, PM_ATTR_MODEL));
    pm_put_text(json, "vllm", pm_session_attr(session, PM_ATTR_VLLM));
    pm_put_text(json, "torch", pm_session_attr(session, PM_ATTR_TORCH));
    pm_put_text(json, "python", pm_session_attr(session, PM_ATTR_PYTHON));
    pm_put_text(json, "profilemate", pm_session_attr(session, PM_ATTR_PROFILEMATE));
    pm_put_text(json, "device", pm_session_attr(session, PM_ATTR_DEVICE));
    pm_put_text(json, "clock", pm_session_attr(session, PM_ATTR_CLOCK));
    pm_put_text(json, "host", pm_session_attr(session, PM_ATTR_HOST));
    pm_json_end(json);
}

static void put_sums(struct pm_json *json, const struct pm_sums *sums)
{
    pm_json_object(json);
    pm_put_u64(json, "records", sums->records);
    pm_put_u64(json, "lost", sums->lost);
    pm_put_u64(json, "recycled", sums->recycled);
    pm_put_u64(json, "damaged", sums->damaged);
    pm_put_u64(json, "faults", sums->faults);
    pm_put_u64(json, "hook_calls", sums->hook_calls);
    pm_json_key(json, "hook_ms");
    pm_json_ms3(json, sums->hook_ns);
    pm_json_key(json, "share_pct");
    pm_json_ratio(json, sums->hook_ns, 100, sums->observed_ns, 4);
    pm_json_end(json);
}

static int put_host(struct pm_json *json, const struct pm_session *session, size_t engine,
                    unsigned n)
{
    struct pm_cpu_sums sums;
    const char *source = "exact";
    int rc = pm_cpu_walk(session, engine, n, NULL, &sums);

    if (rc == 0 && sums.n > 0)
        rc = pm_cpu_stats(session, engine, n, &sums, &source);
    if (rc == 0) {
        pm_json_key(json, "host");
        pm_json_array(json);
        for (unsigned i = 0; i < sums.n; i++) {
            const struct pm_stats *stats = &sums.operations[i].stats;
            pm_json_object(json);
            pm_put_text(json, "operation", sums.operations[i].operation);
            pm_put_u64(json, "count", stats->count);
            pm_json_ms_double(json, "total_ms", stats->mean * (double)stats->count, stats->count);
            pm_json_ms_double(json, "mean_ms", stats->mean, stats->count);
            pm_json_ms_double(json, "p50_ms", stats->p50, stats->count);
            pm_json_ms_double(json, "p99_ms", stats->p99, stats->count);
            pm_json_ms_double(json, "max_ms", stats->max, stats->count);
            pm_json_end(json);
        }
        pm_json_end(json);
    }
    pm_cpu_release(&sums);
    return rc;
}

static int put_engine(struct pm_json *json, const struct pm_session *session, size_t engine)
{
    const unsigned sampler = pm_engine_sampler(session, engine);

    pm_json_object(json);
    pm_put_u64(json, "engine", pm_session_engine(session, engine)->number);
    pm_json_key(json, "recycled");
    pm_json_bool(json, pm_engine_recycled(session, engine) != NULL);
    int rc = pm_data_steps(json, session, engine);
    if (rc == 0)
        rc = pm_data_updates(json, session, engine);
    if (rc == 0)
        rc = pm_data_kv(json, session, engine);
    if (rc == 0)
        rc = pm_data_requests(json, session, engine);
    if (rc == 0)
        rc = put_host(json, session, engine, sampler);
    if (rc == 0)
        rc = pm_data_models(json, session, engine, sampler);
    if (rc == 0)
        rc = pm_data_sampling(json, session, engine, sampler);
    if (rc == 0)
        rc = pm_data_machine(json, session, engine, sampler);
    pm_json_end(json);
    return rc;
}

static int put_metadata(struct pm_json *json, const struct pm_session *session)
{
    const struct pm_account account = {0};
    struct pm_buf buf;

    pm_buf_init(&buf, PM_VIEW_TEXT_MAX);
    const int rc = pm_metadata_write(session, &account, NULL, 0, &buf);
    if (rc == 0) {
        pm_json_key(json, "metadata");
        pm_json_raw(json, buf.data, buf.used);
    }
    pm_buf_release(&buf);
    return rc;
}

static int put_findings(struct pm_json *json, const struct pm_session *session,
                        struct pm_error *err)
{
    struct pm_findings findings;
    const int rc = pm_explain(session, NULL, &findings, err);

    if (rc != 0)
        return rc;
    pm_json_key(json, "findings");
    pm_findings_json(json, &findings, pm_session_info(session)->start_mono_ns);
    pm_findings_release(&findings);
    return 0;
}

static int put_all(struct pm_json *json, const struct pm_session *session,
                   const struct pm_window *window, struct pm_error *err)
{
    struct timespec now;
    struct pm_sums sums;
    char made[64];

    clock_gettime(CLOCK_REALTIME, &now);
    pm_iso_time((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec, made, sizeof(made));
    pm_json_object(json);
    pm_put_u64(json, "version", 1);
    pm_put_text(json, "made", made);
    pm_put_text(json, "made_by", PM_VERSION);
    pm_put_text(json, "window", window != NULL && !window->whole ? window->words : NULL);
    int rc = put_findings(json, session, err);
    pm_json_key(json, "engines");
    pm_json_array(json);
    for (size_t e = 0; e < pm_session_engine_count(session) && rc == 0; e++)
        rc = put_engine(json, session, e);
    pm_json_end(json);
    if (rc == 0)
        rc = pm_data_about(json, session);
    if (rc == 0)
        rc = put_metadata(json, session);
    pm_session_sums(session, &sums); /* after the walks: damage is found there */
    pm_json_key(json, "session");
    put_session(json, session, &sums);
    pm_json_key(json, "sums");
    put_sums(json, &sums);
    pm_json_end(json);
    return rc;
}

int pm_html_data(struct pm_buf *buf, const struct pm_session *session,
                 const struct pm_window *window, struct pm_error *err)
{
    struct pm_json json;

    pm_json_init(&json, buf, 0);
    int rc = put_all(&json, session, window, err);
    const int end = pm_json_finish(&json);
    rc = rc != 0 ? rc : end;
    if (rc != 0 && (err == NULL || err->text[0] == '\0'))
        (void)pm_error_set(err, rc, "%s: the report cannot be made: %s",
                           pm_session_info(session)->path, pm_strerror(rc));
    return rc;
}

int pm_html_write(const struct pm_session *session, const struct pm_window *window,
                  const char *path, struct pm_html_result *ret_result, struct pm_error *err)
{
    struct pm_buf data;

    if (!pm_html_built())
        return pm_html_not_built("use --text", err);
    pm_buf_init(&data, PM_HTML_DATA_MAX);
    int rc = pm_html_data(&data, session, window, err);
    if (rc == 0)
        rc = pm_html_frame_write(PM_PAGE_REPORT, &data, path, pm_session_file_mode(session),
                                 ret_result, err);
    pm_buf_release(&data);
    return rc;
}
