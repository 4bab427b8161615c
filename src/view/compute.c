/* See compute.h. One walk through the steps, and beside it through the contexts. */
#include "view/compute.h"

#include <string.h>

#include "base/number.h"
#include "session/attrs.h"
#include "session/step_facts.h"
#include "view/outfile.h"
#include "view/seed.h"

#define HEADER                                                                                     \
    "timestamp_sec,phase,batch_size,num_tokens,duration_ms,gflop,weight_mb,kv_read_mb,"            \
    "kv_written_mb,tflops,gb_per_sec,compute_pct,bandwidth_pct\n"

static const char *const phase_names[PM_FORWARD_PHASES] = {"empty", "prefill", "decode"};

static double moved(const struct pm_step_work *work)
{
    return work->weight_bytes + work->cache_read_bytes + work->cache_written_bytes;
}

/* ---- steps ----------------------------------------------------------------------------------- */

static uint64_t duration_of(const struct pm_step *step)
{
    if (step->forward_ns == 0)
        return 0;
    if (step->has_device)
        return step->forward_ns + step->device_after_ns;
    return step->forward_clock == 1 ? step->forward_ns + step->post_ns : step->forward_ns;
}

static int put_row(struct pm_outfile *file, const struct pm_compute *compute,
                   const struct pm_step *step, const struct pm_step_work *work, uint64_t dur_ns,
                   uint64_t start_ns)
{
    const double seconds = (double)dur_ns / 1e9, bytes = moved(work);
    char *out = pm_buf_reserve(&file->buf, 13 * (PM_NUMBER_MAX + 1));
    char *const begin = out;

    if (out == NULL)
        return pm_buf_status(&file->buf);
    out = pm_number_sec6_signed(out, (int64_t)(step->time_ns - start_ns));
    *out++ = ',';
    const size_t n = strlen(phase_names[step->phase]);
    memcpy(out, phase_names[step->phase], n);
    out += n;
    *out++ = ',';
    out = pm_number_u64(out, step->requests);
    *out++ = ',';
    out = pm_number_u64(out, step->tokens);
    *out++ = ',';
    out = pm_number_ms3(out, dur_ns);
    const double cells[] = {work->operations / 1e9,
                            work->weight_bytes / 1e6,
                            work->cache_read_bytes / 1e6,
                            work->cache_written_bytes / 1e6,
                            work->operations / seconds / 1e12,
                            bytes / seconds / 1e9};
    for (size_t i = 0; i < sizeof(cells) / sizeof(*cells); i++) {
        *out++ = ',';
        out = pm_number_double(out, cells[i], i == 4 ? 6 : 3);
    }
    *out++ = ',';
    if (compute->has_peak)
        out = pm_number_double(out, 100 * work->operations / seconds / compute->peak.operations, 2);
    *out++ = ',';
    if (compute->has_peak)
        out = pm_number_double(out, 100 * bytes / seconds / compute->peak.bytes, 2);
    *out++ = '\n';
    pm_buf_advance(&file->buf, (size_t)(out - begin));
    return pm_outfile_spill(file);
}

static int take_step(struct pm_compute *compute, const struct pm_step *step,
                     const struct pm_context_step *context, struct pm_outfile *file,
                     uint64_t start_ns)
{
    const uint64_t dur_ns = duration_of(step);
    struct pm_step_work work;

    if (step->tokens == 0 || step->failed || !step->has_worker)
        return 0;
    if (context == NULL || !context->known || !step->matched || dur_ns == 0) {
        compute->untold++;
        return 0;
    }
    /* A row of logits for each request, and one for each draft. */
    pm_model_work(&compute->sizes, step->tokens, (double)step->requests + step->spec_tokens,
                  context, &work);
    struct pm_compute_sums *sums = &compute->phases[step->phase];
    sums->steps++;
    sums->tokens += step->tokens;
    sums->dur_ns += dur_ns;
    sums->work.operations += work.operations;
    sums->work.weight_bytes += work.weight_bytes;
    sums->work.cache_read_bytes += work.cache_read_bytes;
    sums->work.cache_written_bytes += work.cache_written_bytes;
    compute->clocks[step->forward_clock & 3]++;
    if (file == NULL)
        return 0;
    compute->rows++;
    return put_row(file, compute, step, &work, dur_ns, start_ns);
}

static int walk_steps(const struct pm_session *session, struct pm_steps *steps,
                      struct pm_contexts *contexts, struct pm_outfile *file,
                      struct pm_compute *compute)
{
    const uint64_t start_ns = pm_session_info(session)->start_mono_ns;
    struct pm_context_step context;
    struct pm_step step;
    int rc, error = 0, has = pm_contexts_next(contexts, &context);

    while (error == 0 && (rc = pm_steps_next(steps, &step)) == 1) {
        while (has == 1 && context.step < step.step)
            has = pm_contexts_next(contexts, &context);
        const bool there = has == 1 && context.step == step.step;
        error = has < 0 ? has : take_step(compute, &step, there ? &context : NULL, file, start_ns);
    }
    return error != 0 ? error : rc;
}

int pm_compute_walk(const struct pm_session *session, size_t engine, unsigned n,
                    struct pm_outfile *file, struct pm_compute *ret_compute)
{
    struct pm_contexts *contexts = NULL;
    struct pm_steps *steps;
    int rc = 0;

    memset(ret_compute, 0, sizeof(*ret_compute));
    if (file != NULL)
        rc = pm_buf_add_text(&file->buf, HEADER);
    ret_compute->fits = pm_model_sizes_read(session, &ret_compute->sizes, ret_compute->why,
                                            sizeof(ret_compute->why)) == 0;
    ret_compute->has_peak = pm_device_peak_find(session, &ret_compute->peak);
    if (rc != 0 || !ret_compute->fits || engine >= pm_session_engine_count(session))
        return rc;
    rc = pm_steps_open(&steps, session, engine, n);
    if (rc != 0)
        return rc;
    rc = pm_contexts_open(&contexts, session, engine, (uint32_t)ret_compute->sizes.window);
    if (rc == 0)
        rc = walk_steps(session, steps, contexts, file, ret_compute);
    pm_contexts_close(contexts);
    pm_steps_close(steps);
    return rc;
}

/* ---- what is said of it ---------------------------------------------------------------------- */

static void put_u64(struct pm_json *json, const char *key, uint64_t value)
{
    pm_json_key(json, key);
    pm_json_u64(json, value);
}

/* null where it is not known. */
static void put_double(struct pm_json *json, const char *key, double value, unsigned decimals,
                       bool known)
{
    pm_json_key(json, key);
    known ? pm_json_double(json, value, decimals) : pm_json_null(json);
}

static const char *clock_of(const struct pm_compute *compute)
{
    struct pm_forward forward = {0};
    memcpy(forward.clocks, compute->clocks, sizeof(forward.clocks));
    return pm_forward_clock(&forward);
}

static void put_phase(struct pm_json *json, const char *name, const struct pm_compute *compute,
                      const struct pm_compute_sums *sums)
{
    const struct pm_step_work *work = &sums->work;
    const double seconds = (double)sums->dur_ns / 1e9, bytes = moved(work);
    const bool any = sums->steps > 0, peak = any && compute->has_peak;

    pm_json_key(json, name);
    pm_json_object(json);
    put_u64(json, "steps", sums->steps);
    put_u64(json, "tokens", sums->tokens);
    pm_json_ms_double(json, "total_ms", (double)sums->dur_ns, sums->steps);
    put_double(json, "operations", work->operations, 0, any);
    put_double(json, "weight_bytes", work->weight_bytes, 0, any);
    put_double(json, "kv_read_bytes", work->cache_read_bytes, 0, any);
    put_double(json, "kv_written_bytes", work->cache_written_bytes, 0, any);
    put_double(json, "operations_per_byte", any ? work->operations / bytes : 0, 3, any);
    put_double(json, "tflops", any ? work->operations / seconds / 1e12 : 0, 6, any);
    put_double(json, "gb_per_sec", any ? bytes / seconds / 1e9 : 0, 3, any);
    put_double(json, "compute_pct",
               peak ? 100 * work->operations / seconds / compute->peak.operations : 0, 2, peak);
    put_double(json, "bandwidth_pct", peak ? 100 * bytes / seconds / compute->peak.bytes : 0, 2,
               peak);
    pm_json_end(json);
}

void pm_compute_summary(struct pm_json *json, const struct pm_compute *compute)
{
    pm_json_object(json);
    pm_json_key(json, "forward_clock");
    pm_json_text(json, clock_of(compute));
    for (unsigned phase = PM_PHASE_PREFILL; phase < PM_FORWARD_PHASES; phase++)
        put_phase(json, phase_names[phase], compute, &compute->phases[phase]);
    put_u64(json, "steps_left_out", compute->untold);
    pm_json_key(json, "not_computed");
    pm_json_text(json, compute->fits ? NULL : compute->why);
    pm_json_key(json, "peak");
    if (compute->has_peak) {
        pm_json_object(json);
        pm_json_key(json, "of");
        pm_json_text(json, compute->peak.name);
        put_double(json, "tflops", compute->peak.operations / 1e12, 1, true);
        put_double(json, "gb_per_sec", compute->peak.bytes / 1e9, 1, true);
        pm_json_end(json);
    } else {
        pm_json_null(json);
    }
    pm_json_end(json);
}

static bool any_step(const struct pm_compute *compute)
{
    return compute->phases[PM_PHASE_PREFILL].steps + compute->phases[PM_PHASE_DECODE].steps > 0;
}

int pm_compute_report_json(const struct pm_session *session, size_t engine, unsigned n,
                           struct pm_json *json)
{
    struct pm_compute compute;
    const int rc = pm_compute_walk(session, engine, n, NULL, &compute);

    if (rc == 0 && any_step(&compute))
        pm_compute_summary(json, &compute);
    else
        pm_json_null(json);
    return rc;
}

/* 12.3 T, 4.56 G: three digits and a unit. */
static const char *scaled(double value, char out[32])
{
    static const char units[] = {' ', 'k', 'M', 'G', 'T', 'P', 'E'};
    unsigned unit = 0;
    while (value >= 999.5 && unit + 1 < sizeof(units)) {
        value /= 1000;
        unit++;
    }
    snprintf(out, 32, "%.*f %c", value < 9.995 ? 2 : value < 99.95 ? 1 : 0, value, units[unit]);
    return out;
}

static void put_line(struct pm_buf *buf, const char *name, const struct pm_compute *compute,
                     const struct pm_compute_sums *sums)
{
    const double seconds = (double)sums->dur_ns / 1e9, bytes = moved(&sums->work);
    char a[32], b[32], shares[2][16] = {"-", "-"};

    if (sums->steps == 0)
        return;
    if (compute->has_peak) {
        snprintf(shares[0], sizeof(shares[0]), "%.1f %%",
                 100 * sums->work.operations / seconds / compute->peak.operations);
        snprintf(shares[1], sizeof(shares[1]), "%.1f %%",
                 100 * bytes / seconds / compute->peak.bytes);
    }
    (void)pm_buf_printf(buf, "  %-9s%10llu%11sF/s%10s%11sB/s%10s%11.2f\n", name,
                        (unsigned long long)sums->steps, scaled(sums->work.operations / seconds, a),
                        shares[0], scaled(bytes / seconds, b), shares[1],
                        sums->work.operations / bytes);
}

int pm_compute_report_text(const struct pm_session *session, size_t engine, unsigned n, bool colour,
                           struct pm_buf *buf)
{
    struct pm_compute compute;
    const int rc = pm_compute_walk(session, engine, n, NULL, &compute);

    if (rc != 0 || !any_step(&compute))
        return rc;
    (void)pm_buf_printf(buf, "\n%sBandwidth and compute, from sizes (%s)%s\n",
                        colour ? "\033[1m" : "",
                        compute.clocks[3] > 0   ? "device events"
                        : compute.clocks[2] > 0 ? "to vLLM's own synchronisation"
                                                : "wall time",
                        colour ? "\033[0m" : "");
    (void)pm_buf_printf(buf, "  %-9s%10s%14s%10s%14s%10s%11s\n", "phase", "steps", "computed",
                        "of peak", "moved", "of peak", "F per B");
    for (unsigned phase = PM_PHASE_PREFILL; phase < PM_FORWARD_PHASES; phase++)
        put_line(buf, phase_names[phase], &compute, &compute.phases[phase]);
    if (compute.has_peak)
        (void)pm_buf_printf(buf, "  peak (%s): %.0f TFLOP/s dense at 16 bits, %.0f GB/s\n",
                            compute.peak.name, compute.peak.operations / 1e12,
                            compute.peak.bytes / 1e9);
    const char *given = pm_session_attr(session, PM_ATTR_SETTING_PREFIX "device_peak");
    struct pm_device_peak peak;
    if (given != NULL && given[0] != '\0' && !pm_device_peak_parse(given, &peak))
        (void)pm_buf_add_text(buf,
                              "  The setting device_peak is no TFLOPS,GBPS and was left out.\n");
    if (compute.untold > 0)
        (void)pm_buf_printf(buf,
                            "  %llu steps are left out: their contexts or times are not known.\n",
                            (unsigned long long)compute.untold);
    return pm_buf_status(buf);
}

int pm_seed_compute(struct pm_seed *seed, int dir_fd, size_t engine, unsigned n)
{
    struct pm_compute compute;
    struct pm_outfile file;
    struct pm_json json;
    int rc = pm_seed_begin(seed, dir_fd, "bandwidth_compute.csv", &file);

    if (rc != 0)
        return rc;
    rc = pm_compute_walk(seed->session, engine, n, &file, &compute);
    rc = pm_seed_finish(seed, &file, rc);
    if (rc == 0)
        rc = pm_seed_begin(seed, dir_fd, "bandwidth_compute_summary.json", &file);
    if (rc == 0) {
        seed->result.rows += compute.rows;
        pm_json_init(&json, &file.buf, 2);
        pm_compute_summary(&json, &compute);
        rc = pm_seed_finish(seed, &file, pm_json_finish(&json));
    }
    return rc;
}
