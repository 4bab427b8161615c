/*
 * The KV cache's files: kv_cache_usage.csv, kv_cache_evictions.csv and kv_cache_summary.txt. Called
 * by seed_export.c through its table, and by the report's model for the sums.
 */
#include "view/kv.h"

#include <string.h>

#include "base/number.h"
#include "reader/kv_facts.h"
#include "session/hist.h"
#include "view/seed.h"

#define USAGE_HEADER "timestamp_sec,usage_pct,num_blocks,total_blocks\n"
#define EVICTIONS_HEADER "timestamp_sec,lifetime_sec,idle_sec\n"

static int put_usage(struct pm_outfile *file, const struct pm_kv_step *step, uint64_t start_ns)
{
    char *out = pm_buf_reserve(&file->buf, 4 * (PM_NUMBER_MAX + 1));
    char *const begin = out;

    if (out == NULL)
        return pm_buf_status(&file->buf);
    out = pm_number_sec6_signed(out, (int64_t)(step->at_ns - start_ns));
    *out++ = ',';
    if (step->total != 0)
        out = pm_number_ratio(out, step->used, 100, step->total, 2);
    *out++ = ',';
    out = pm_number_u64(out, step->used);
    *out++ = ',';
    out = pm_number_u64(out, step->total);
    *out++ = '\n';
    pm_buf_advance(&file->buf, (size_t)(out - begin));
    return pm_outfile_spill(file);
}

/* A block whose beginning was not seen has empty fields. */
static int put_eviction(struct pm_outfile *file, const struct pm_kv_eviction *eviction,
                        uint64_t start_ns)
{
    char *out = pm_buf_reserve(&file->buf, 3 * (PM_NUMBER_MAX + 1));
    char *const begin = out;

    if (out == NULL)
        return pm_buf_status(&file->buf);
    out = pm_number_sec6_signed(out, (int64_t)(eviction->at_ns - start_ns));
    *out++ = ',';
    if (eviction->lifetime_ns != 0)
        out = pm_number_sec6(out, eviction->lifetime_ns);
    *out++ = ',';
    if (eviction->lifetime_ns != 0)
        out = pm_number_sec6(out, eviction->idle_ns);
    *out++ = '\n';
    pm_buf_advance(&file->buf, (size_t)(out - begin));
    return pm_outfile_spill(file);
}

static int walk_steps(const struct pm_session *session, size_t engine, struct pm_outfile *file,
                      struct pm_kv_sums *sums)
{
    const uint64_t start_ns = pm_session_info(session)->start_mono_ns;
    struct pm_kv_facts *facts;
    struct pm_kv_step step;
    int rc = pm_kv_steps_open(&facts, session, engine);

    if (rc != 0)
        return rc;
    while ((rc = pm_kv_steps_next(facts, &step)) == 1) {
        sums->rows++;
        sums->used += step.used;
        sums->total_sum += step.total;
        sums->allocated += step.allocated;
        sums->revived += step.revived;
        sums->freed += step.freed;
        sums->evicted += step.evicted;
        sums->dropped += step.dropped;
        sums->queried_tokens += step.queried_tokens;
        sums->hit_tokens += step.hit_tokens;
        sums->requeried_tokens += step.requeried_tokens;
        sums->rehit_tokens += step.rehit_tokens;
        sums->total = step.total;
        sums->peak = step.peak;
        sums->now = step.used;
        sums->evictable = step.evictable;
        sums->caching = (step.flags & PM_KV_CACHING) != 0;
        rc = file != NULL ? put_usage(file, &step, start_ns) : 0;
        if (rc != 0)
            break;
    }
    sums->steps = sums->rows;
    pm_kv_facts_close(facts);
    return rc;
}

static int walk_evictions(const struct pm_session *session, size_t engine, struct pm_outfile *file,
                          struct pm_kv_sums *sums)
{
    const uint64_t start_ns = pm_session_info(session)->start_mono_ns;
    struct pm_kv_facts *facts;
    struct pm_kv_eviction eviction;
    int rc = pm_kv_evictions_open(&facts, session, engine);

    if (rc != 0)
        return rc;
    while ((rc = pm_kv_evictions_next(facts, &eviction)) == 1) {
        sums->eviction_rows++;
        sums->timed += eviction.lifetime_ns != 0;
        sums->lifetime_ns += eviction.lifetime_ns;
        sums->idle_ns += eviction.idle_ns;
        rc = file != NULL ? put_eviction(file, &eviction, start_ns) : 0;
        if (rc != 0)
            break;
    }
    pm_kv_facts_close(facts);
    return rc;
}

/* Whether a process runs this engine's scheduler and no other: then its totals are the engine's. */
static bool alone(const struct pm_session *session, const struct pm_process *process)
{
    unsigned schedulers = 0;
    for (size_t e = 0; e < pm_session_engine_count(session); e++)
        schedulers += pm_session_engine(session, e)->process == process;
    return schedulers == 1;
}

static bool sum_of(const struct pm_process *process, const struct pm_totals *totals,
                   const char *schema, const char *field, uint64_t *ret_sum)
{
    struct pm_series series;
    bool found = pm_series_find(process, totals, schema, field, 0, &series);
    if (found)
        *ret_sum = series.sum;
    return found;
}

/* Older steps or evictions had to go: the totals know all of them. */
static void from_totals(struct pm_kv_sums *sums, const struct pm_process *process,
                        const struct pm_totals *totals)
{
    struct pm_kv_sums all = *sums;
    struct pm_series lifetimes;
    uint64_t lifetime_ns, idle_ns;
    const struct {
        const char *field;
        uint64_t *sum;
    } steps[] = {
        {"used", &all.used},
        {"total", &all.total_sum},
        {"allocated", &all.allocated},
        {"revived", &all.revived},
        {"freed", &all.freed},
        {"evicted", &all.evicted},
        {"dropped", &all.dropped},
        {"queried_tokens", &all.queried_tokens},
        {"hit_tokens", &all.hit_tokens},
        {"requeried_tokens", &all.requeried_tokens},
        {"rehit_tokens", &all.rehit_tokens},
    };

    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++)
        if (!sum_of(process, totals, "kv_step", steps[i].field, steps[i].sum))
            return;
    if (!pm_series_find(process, totals, "kv_step", NULL, 0, &lifetimes))
        return;
    all.steps = lifetimes.count;
    if (!pm_series_find(process, totals, "kv_eviction", "lifetime_ns", 0, &lifetimes) ||
        !sum_of(process, totals, "kv_eviction", "lifetime_ns", &lifetime_ns) ||
        !sum_of(process, totals, "kv_eviction", "idle_ns", &idle_ns) || lifetimes.hist == NULL)
        return;
    all.timed = lifetimes.count - lifetimes.hist->buckets[0]; /* without those of 0: not known */
    all.lifetime_ns = lifetime_ns;
    all.idle_ns = idle_ns;
    all.from_totals = true;
    *sums = all;
}

int pm_kv_walk(const struct pm_session *session, size_t engine, struct pm_outfile *usage,
               struct pm_outfile *evictions, struct pm_kv_sums *ret_sums)
{
    struct pm_kv_sums sums = {0};
    struct pm_totals totals;
    int rc = 0;

    if (usage != NULL)
        rc = pm_buf_add_text(&usage->buf, USAGE_HEADER);
    if (rc == 0 && evictions != NULL)
        rc = pm_buf_add_text(&evictions->buf, EVICTIONS_HEADER);
    if (rc == 0 && engine < pm_session_engine_count(session)) {
        const struct pm_process *process = pm_session_engine(session, engine)->process;
        rc = walk_steps(session, engine, usage, &sums);
        if (rc == 0)
            rc = walk_evictions(session, engine, evictions, &sums);
        if (rc == 0 && process != NULL) {
            const struct pm_process_info *info = pm_process_info(process);
            sums.recycled =
                info->first_fact[PM_STREAM_CORE] > 0 || info->first_fact[PM_STREAM_BLOCKS] > 0;
            if (sums.recycled && alone(session, process)) {
                rc = pm_process_totals(process, &totals);
                if (rc == 0) {
                    from_totals(&sums, process, &totals);
                    pm_totals_free(&totals);
                }
                rc = rc == -PM_ENOMEM ? rc : 0;
            }
        }
    }
    /* One may be recorded after the last step. */
    if (sums.evicted < sums.eviction_rows)
        sums.evicted = sums.eviction_rows;
    if (rc == 0)
        *ret_sums = sums;
    return rc;
}

/* ---- shares ---- */

static double share(uint64_t part, uint64_t whole)
{
    return whole != 0 ? 100.0 * (double)part / (double)whole : -1.0;
}

double pm_kv_mean_pct(const struct pm_kv_sums *sums)
{
    return share(sums->used, sums->total_sum);
}

double pm_kv_peak_pct(const struct pm_kv_sums *sums)
{
    return share(sums->peak, sums->total);
}

double pm_kv_hit_pct(const struct pm_kv_sums *sums)
{
    return share(sums->hit_tokens, sums->queried_tokens);
}

const char *pm_kv_verdict(double peak_pct)
{
    return peak_pct < 40.0    ? "over-provisioned"
           : peak_pct < 60.0  ? "roomy"
           : peak_pct <= 80.0 ? "good"
           : peak_pct <= 90.0 ? "nearly full"
                              : "under-provisioned";
}

/* ---- the summary ---- */

static void put_count(struct pm_buf *buf, const char *key, uint64_t value)
{
    (void)pm_buf_printf(buf, "%-26s%llu\n", key, (unsigned long long)value);
}

static void put_pct(struct pm_buf *buf, const char *key, double pct)
{
    (void)(pct >= 0.0 ? pm_buf_printf(buf, "%-26s%.2f %%\n", key, pct)
                      : pm_buf_printf(buf, "%-26sn/a\n", key));
}

static void put_mean(struct pm_buf *buf, const char *key, unsigned __int128 sum_ns, uint64_t count)
{
    (void)(count != 0
               ? pm_buf_printf(buf, "%-26s%.6f s\n", key, (double)sum_ns / (double)count / 1e9)
               : pm_buf_printf(buf, "%-26sn/a\n", key));
}

static int put_summary(struct pm_buf *buf, const struct pm_kv_sums *sums)
{
    (void)pm_buf_add_text(buf, "KV cache summary\n================\n\nBlocks\n");
    put_count(buf, "  Total blocks:", sums->total);
    put_count(buf, "  Allocations:", sums->allocated);
    put_count(buf, "  Deallocations:", sums->freed);
    put_count(buf, "  Taken back by a hit:", sums->revived);
    put_count(buf, "  In use at the end:", sums->now);
    put_count(buf, "  Free but cached then:", sums->evictable);
    (void)pm_buf_add_text(buf, "\nUsage\n");
    put_count(buf, "  Steps:", sums->steps);
    put_pct(buf, "  Mean usage:", pm_kv_mean_pct(sums));
    put_count(buf, "  Peak blocks:", sums->peak);
    put_pct(buf, "  Peak usage:", pm_kv_peak_pct(sums));
    (void)pm_buf_add_text(buf, "\nEvictions\n");
    put_count(buf, "  Evictions:", sums->evicted);
    put_mean(buf, "  Mean lifetime:", sums->lifetime_ns, sums->timed);
    put_mean(buf, "  Mean idle time:", sums->idle_ns, sums->timed);
    put_count(buf, "  Dropped by resets:", sums->dropped);
    (void)pm_buf_add_text(buf, "\nPrefix cache\n");
    (void)pm_buf_printf(buf, "%-26s%s\n", "  Prefix caching:",
                        sums->steps == 0 ? "n/a"
                        : sums->caching  ? "on"
                                         : "off");
    put_count(buf, "  Queried tokens:", sums->queried_tokens);
    put_count(buf, "  Hit tokens:", sums->hit_tokens);
    put_pct(buf, "  Hit rate:", pm_kv_hit_pct(sums));
    put_count(buf, "  Queried again:", sums->requeried_tokens);
    put_count(buf, "  Hit again:", sums->rehit_tokens);
    if (sums->recycled)
        (void)pm_buf_printf(buf,
                            "\nOlder detail had to go: %llu steps and %llu evictions are held. "
                            "These figures are of %s.\n",
                            (unsigned long long)sums->rows, (unsigned long long)sums->eviction_rows,
                            sums->from_totals ? "the whole run" : "what is held");
    else if (sums->eviction_rows < sums->evicted)
        (void)pm_buf_printf(buf,
                            "\n%llu evictions came too fast to be written one by one; their "
                            "number is right, the means are of the others.\n",
                            (unsigned long long)(sums->evicted - sums->eviction_rows));
    return pm_buf_status(buf);
}

int pm_seed_kv(struct pm_seed *seed, int dir_fd, size_t engine, unsigned n)
{
    struct pm_outfile usage, evictions, summary;
    struct pm_kv_sums sums;

    (void)n;
    int rc = pm_seed_begin(seed, dir_fd, "kv_cache_usage.csv", &usage);
    if (rc != 0)
        return rc;
    int evictions_rc = pm_seed_begin(seed, dir_fd, "kv_cache_evictions.csv", &evictions);
    rc = evictions_rc != 0 ? evictions_rc
                           : pm_kv_walk(seed->session, engine, &usage, &evictions, &sums);
    const int walk_rc = rc;
    rc = pm_seed_finish(seed, &usage, rc);
    if (evictions_rc == 0) {
        evictions_rc = pm_seed_finish(seed, &evictions, walk_rc);
        rc = rc != 0 ? rc : evictions_rc;
    }
    if (rc != 0)
        return rc;
    seed->result.rows += sums.rows + sums.eviction_rows;
    rc = pm_seed_begin(seed, dir_fd, "kv_cache_summary.txt", &summary);
    if (rc != 0)
        return rc;
    return pm_seed_finish(seed, &summary, put_summary(&summary.buf, &sums));
}
