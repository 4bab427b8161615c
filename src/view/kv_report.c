/*
 * The KV cache's section of a report, as text of 80 columns and as JSON. Called by report_text.c
 * and report_json.c.
 */
#include "view/kv.h"

static void put_pct(struct pm_json *json, const char *key, double pct)
{
    pm_json_key(json, key);
    pct >= 0.0 ? pm_json_double(json, pct, 2) : pm_json_null(json);
}

static void put_u64(struct pm_json *json, const char *key, uint64_t value)
{
    pm_json_key(json, key);
    pm_json_u64(json, value);
}

static double mean_sec(unsigned __int128 sum_ns, uint64_t count)
{
    return (double)sum_ns / (double)count / 1e9;
}

void pm_kv_report_text(struct pm_buf *buf, const struct pm_kv_sums *sums)
{
    const double peak = pm_kv_peak_pct(sums), hit = pm_kv_hit_pct(sums);

    if (sums->steps == 0)
        return;
    (void)pm_buf_printf(buf, "  %-12smean %.1f %%, peak %.1f %% of %u blocks: %s\n", "usage",
                        pm_kv_mean_pct(sums), peak, sums->total, pm_kv_verdict(peak));
    (void)pm_buf_printf(buf, "  %-12s%llu given out, %llu given back, %llu taken back by a hit\n",
                        "blocks", (unsigned long long)sums->allocated,
                        (unsigned long long)sums->freed, (unsigned long long)sums->revived);
    (void)pm_buf_printf(buf, "  %-12s%llu", "evictions", (unsigned long long)sums->evicted);
    if (sums->timed != 0)
        (void)pm_buf_printf(buf, ", mean life %.3f s, idle %.3f s",
                            mean_sec(sums->lifetime_ns, sums->timed),
                            mean_sec(sums->idle_ns, sums->timed));
    if (sums->dropped != 0)
        (void)pm_buf_printf(buf, "; %llu dropped by resets", (unsigned long long)sums->dropped);
    if (hit >= 0.0)
        (void)pm_buf_printf(buf, "\n  %-12s%.1f %% of %llu tokens\n", "prefix hits", hit,
                            (unsigned long long)sums->queried_tokens);
    else
        (void)pm_buf_printf(buf, "\n  %-12s%s\n", "prefix hits",
                            sums->caching ? "no look-up yet" : "prefix caching is off");
    (void)pm_buf_add_text(buf, "  Rule of thumb for the peak: 60 to 80 % is good, below 40 % the "
                               "cache is\n  larger than it need be, above 90 % it is too small.\n");
}

void pm_kv_report_json(struct pm_json *json, const struct pm_kv_sums *sums)
{
    pm_json_object(json);
    put_u64(json, "steps", sums->steps);
    put_u64(json, "total_blocks", sums->total);
    put_pct(json, "mean_usage_pct", pm_kv_mean_pct(sums));
    put_u64(json, "peak_blocks", sums->peak);
    put_pct(json, "peak_usage_pct", pm_kv_peak_pct(sums));
    put_u64(json, "used_blocks", sums->now);
    put_u64(json, "evictable_blocks", sums->evictable);
    put_u64(json, "allocations", sums->allocated);
    put_u64(json, "deallocations", sums->freed);
    put_u64(json, "revived", sums->revived);
    put_u64(json, "evictions", sums->evicted);
    put_u64(json, "dropped", sums->dropped);
    pm_json_key(json, "mean_lifetime_sec");
    sums->timed != 0 ? pm_json_double(json, mean_sec(sums->lifetime_ns, sums->timed), 6)
                     : pm_json_null(json);
    pm_json_key(json, "mean_idle_sec");
    sums->timed != 0 ? pm_json_double(json, mean_sec(sums->idle_ns, sums->timed), 6)
                     : pm_json_null(json);
    pm_json_key(json, "prefix_caching");
    sums->steps != 0 ? pm_json_bool(json, sums->caching) : pm_json_null(json);
    put_u64(json, "queried_tokens", sums->queried_tokens);
    put_u64(json, "hit_tokens", sums->hit_tokens);
    put_pct(json, "hit_rate_pct", pm_kv_hit_pct(sums));
    put_u64(json, "requeried_tokens", sums->requeried_tokens);
    put_u64(json, "rehit_tokens", sums->rehit_tokens);
    pm_json_end(json);
}
