/* See memory.h. Called by seed_export.c, report_text.c and report_json.c. */
#include "view/memory.h"

#include <string.h>

#include "base/number.h"
#include "session/memory_facts.h"
#include "view/columns.h"
#include "view/outfile.h"
#include "view/seed.h"

#define HEADER                                                                                     \
    "timestamp_sec,device,allocated_bytes,reserved_bytes,peak_allocated_bytes,fragmentation_pct\n"

struct phase {
    bool seen;
    uint64_t dur_ns, before, after;
};

struct sums {
    struct phase phases[PM_MEMORY_PHASES_COUNT]; /* the newest of each, but of serving */
    uint64_t samples, serving;                   /* all; those between steps */
    uint64_t least, greatest;                    /* allocated, of serving */
    uint64_t peak, reserved;
    struct pm_memory_sample last;
};

static const char *const phase_names[] = {
#define X(name, text) text,
    PM_MEMORY_PHASES(X)
#undef X
};

static bool on_device(const struct pm_memory_sample *sample)
{
    return sample->device != PM_MEMORY_CPU;
}

/* What torch holds of the device without using it, of all that it holds. */
static double fragmentation_pct(const struct pm_memory_sample *sample)
{
    return sample->reserved_bytes > sample->allocated_bytes
               ? 100.0 * (double)(sample->reserved_bytes - sample->allocated_bytes) /
                     (double)sample->reserved_bytes
               : 0.0;
}

static int put_row(struct pm_outfile *file, const struct pm_memory_sample *sample,
                   uint64_t start_ns)
{
    char number[PM_NUMBER_MAX], device[16] = "cpu", reserved[64] = ",";
    *pm_number_sec6_signed(number, (int64_t)(sample->at_ns - start_ns)) = '\0';
    if (on_device(sample)) {
        snprintf(device, sizeof(device), "%d", sample->device);
        snprintf(reserved, sizeof(reserved), "%llu,", (unsigned long long)sample->reserved_bytes);
    }
    (void)pm_buf_printf(&file->buf, "%s,%s,%llu,%s%llu,", number, device,
                        (unsigned long long)sample->allocated_bytes, reserved,
                        (unsigned long long)sample->peak_bytes);
    if (on_device(sample))
        (void)pm_buf_printf(&file->buf, "%.2f", fragmentation_pct(sample));
    const int rc = pm_buf_add_char(&file->buf, '\n');
    return rc != 0 ? rc : pm_outfile_spill(file);
}

static void add(struct sums *sums, const struct pm_memory_sample *sample)
{
    sums->samples++;
    sums->last = *sample;
    if (sample->peak_bytes > sums->peak)
        sums->peak = sample->peak_bytes;
    if (sample->reserved_bytes > sums->reserved)
        sums->reserved = sample->reserved_bytes;
    if (sample->phase == PM_MEMORY_SERVING) {
        if (sums->serving++ == 0 || sample->allocated_bytes < sums->least)
            sums->least = sample->allocated_bytes;
        if (sample->allocated_bytes > sums->greatest)
            sums->greatest = sample->allocated_bytes;
    } else if (sample->phase < PM_MEMORY_PHASES_COUNT) {
        sums->phases[sample->phase] =
            (struct phase){true, sample->dur_ns, sample->before_bytes, sample->allocated_bytes};
    }
}

int pm_memory_each(const struct pm_session *session, size_t engine, unsigned n, pm_memory_tell tell,
                   void *arg)
{
    const struct pm_process *process;
    struct pm_cursor *cursor;
    struct pm_record record;
    unsigned number;
    int rank;

    if (engine >= pm_session_engine_count(session) ||
        pm_engine_worker(session, engine, n, &process, &number, &rank) != 0)
        return 0;
    const int schema = pm_process_schema_find(process, "memory_sample");
    if (schema < 0)
        return 0;
    const struct pm_schema *desc = pm_process_schema(process, (size_t)schema);
    const struct pm_field *at = pm_column(desc, "at_ns"), *dur = pm_column(desc, "dur_ns");
    const struct pm_field *before = pm_column(desc, "before_bytes");
    const struct pm_field *allocated = pm_column(desc, "allocated_bytes");
    const struct pm_field *reserved = pm_column(desc, "reserved_bytes");
    const struct pm_field *peak = pm_column(desc, "peak_bytes");
    const struct pm_field *device = pm_column(desc, "device"), *phase = pm_column(desc, "phase");
    const struct pm_field *instance = pm_column(desc, "instance");
    int rc = pm_cursor_open(&cursor, process, PM_STREAM_CORE);
    if (rc != 0)
        return rc;
    while ((rc = pm_cursor_next(cursor, &record)) == 1) {
        const void *payload = record.payload;
        if (record.schema != (unsigned)schema || record.keyframe ||
            pm_column_get(instance, payload) != number)
            continue;
        const struct pm_memory_sample sample = {
            .at_ns = pm_column_get(at, payload),
            .dur_ns = pm_column_get(dur, payload),
            .before_bytes = pm_column_get(before, payload),
            .allocated_bytes = pm_column_get(allocated, payload),
            .reserved_bytes = pm_column_get(reserved, payload),
            .peak_bytes = pm_column_get(peak, payload),
            .device = (int32_t)pm_column_get(device, payload),
            .phase = (uint8_t)pm_column_get(phase, payload),
        };
        const int error = tell(arg, &sample);
        if (error != 0) {
            rc = error;
            break;
        }
    }
    pm_cursor_close(cursor);
    return rc;
}

struct walk {
    struct sums *sums;
    struct pm_outfile *file; /* NULL: only the sums */
    uint64_t start_ns;
};

static int on_sample(void *arg, const struct pm_memory_sample *sample)
{
    const struct walk *walk = arg;
    add(walk->sums, sample);
    return walk->file != NULL ? put_row(walk->file, sample, walk->start_ns) : 0;
}

static int walk(const struct pm_session *session, size_t engine, unsigned n,
                struct pm_outfile *file, struct sums *ret_sums)
{
    struct walk walk = {ret_sums, file, pm_session_info(session)->start_mono_ns};
    memset(ret_sums, 0, sizeof(*ret_sums));
    return pm_memory_each(session, engine, n, on_sample, &walk);
}

/* ---- memory_summary.json ---- */

static void put_u64(struct pm_json *json, const char *key, uint64_t value, bool known)
{
    pm_json_key(json, key);
    known ? pm_json_u64(json, value) : pm_json_null(json);
}

static void put_summary(struct pm_json *json, const struct sums *sums)
{
    const bool any = sums->samples > 0, device = any && on_device(&sums->last);

    pm_json_object(json);
    put_u64(json, "samples", sums->samples, true);
    pm_json_key(json, "source");
    pm_json_text(json, device ? "torch" : any ? "process" : "none");
    put_u64(json, "allocated_bytes", sums->last.allocated_bytes, any);
    put_u64(json, "reserved_bytes", sums->last.reserved_bytes, device);
    put_u64(json, "max_reserved_bytes", sums->reserved, device);
    put_u64(json, "peak_allocated_bytes", sums->peak, any);
    put_u64(json, "serving_min_bytes", sums->least, sums->serving > 0);
    put_u64(json, "serving_max_bytes", sums->greatest, sums->serving > 0);
    pm_json_key(json, "fragmentation_pct");
    device ? pm_json_double(json, fragmentation_pct(&sums->last), 2) : pm_json_null(json);
    pm_json_key(json, "phases");
    pm_json_object(json);
    for (unsigned p = 1; p < PM_MEMORY_PHASES_COUNT; p++) {
        const struct phase *phase = &sums->phases[p];
        if (!phase->seen)
            continue;
        pm_json_key(json, phase_names[p]);
        pm_json_object(json);
        put_u64(json, "before_bytes", phase->before, true);
        put_u64(json, "after_bytes", phase->after, true);
        pm_json_key(json, "duration_sec");
        pm_json_sec6(json, phase->dur_ns);
        pm_json_end(json);
    }
    pm_json_end(json);
    pm_json_end(json);
}

int pm_seed_memory(struct pm_seed *seed, int dir_fd, size_t engine, unsigned n)
{
    struct pm_outfile file;
    struct pm_json json;
    struct sums sums = {0};
    int rc = pm_seed_begin(seed, dir_fd, "memory_usage.csv", &file);

    if (rc != 0)
        return rc;
    rc = pm_buf_add_text(&file.buf, HEADER);
    if (rc == 0)
        rc = walk(seed->session, engine, n, &file, &sums);
    rc = pm_seed_finish(seed, &file, rc);
    if (rc == 0)
        rc = pm_seed_begin(seed, dir_fd, "memory_summary.json", &file);
    if (rc == 0) {
        seed->result.rows += sums.samples;
        pm_json_init(&json, &file.buf, 2);
        put_summary(&json, &sums);
        rc = pm_seed_finish(seed, &file, pm_json_finish(&json));
    }
    return rc;
}

/* ---- the reports ---- */

static double mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

int pm_memory_report_text(const struct pm_session *session, size_t engine, unsigned n, bool colour,
                          struct pm_buf *buf)
{
    struct sums sums;
    const int rc = walk(session, engine, n, NULL, &sums);

    if (rc != 0 || sums.samples == 0)
        return rc;
    const bool device = on_device(&sums.last);
    (void)pm_buf_printf(buf, "\n%sMemory, MiB: %s%s\n", colour ? "\033[1m" : "",
                        device ? "torch's allocator on the device" : "the worker process, resident",
                        colour ? "\033[0m" : "");
    for (unsigned p = 1; p < PM_MEMORY_PHASES_COUNT; p++) {
        const struct phase *phase = &sums.phases[p];
        if (phase->seen)
            (void)pm_buf_printf(buf, "  %-14s%12.1f  (%+.1f in %.3f s)\n", phase_names[p],
                                mib(phase->after), mib(phase->after) - mib(phase->before),
                                (double)phase->dur_ns / 1e9);
    }
    if (sums.serving > 0)
        (void)pm_buf_printf(buf, "  %-14s%12.1f  (%.1f to %.1f)\n", phase_names[0],
                            mib(sums.last.allocated_bytes), mib(sums.least), mib(sums.greatest));
    (void)pm_buf_printf(buf, "  %-14s%12.1f\n", "peak", mib(sums.peak));
    if (device)
        (void)pm_buf_printf(buf, "  %-14s%12.1f  (%.2f %% of it not allocated)\n", "reserved",
                            mib(sums.last.reserved_bytes), fragmentation_pct(&sums.last));
    return pm_buf_status(buf);
}

int pm_memory_report_json(const struct pm_session *session, size_t engine, unsigned n,
                          struct pm_json *json)
{
    struct sums sums;
    const int rc = walk(session, engine, n, NULL, &sums);

    if (rc == 0 && sums.samples > 0)
        put_summary(json, &sums);
    else
        pm_json_null(json);
    return rc;
}
