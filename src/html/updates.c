/*
 * What an engine's steps gave, and how full its KV cache was, for the page. Called by page.c.
 */
#include "html/data.h"

#include "html/spread.h"
#include "html/thin.h"
#include "reader/engine_facts.h"
#include "reader/kv_facts.h"

#define ROWS_HELD 40000u

enum update_column { GAP, CONTINUED, OUTPUTS, OUTPUT_TOKENS, TOOK, DRAFTED, ACCEPTED, UPDATES };
static const struct pm_thin_column update_columns[UPDATES] = {
    /* 0 where no request waited through it, so that the greatest are those that somebody felt */
    [GAP] = {"gap", PM_THIN_ROW | PM_THIN_MAX | PM_THIN_NS},
    [CONTINUED] = {"cont", PM_THIN_ROW | PM_THIN_SUM},
    [OUTPUTS] = {"outputs", PM_THIN_ROW | PM_THIN_SUM},
    [OUTPUT_TOKENS] = {"otok", PM_THIN_ROW | PM_THIN_SUM},
    [TOOK] = {"took", PM_THIN_ROW | PM_THIN_SUM | PM_THIN_MAX | PM_THIN_NS},
    [DRAFTED] = {"drafted", PM_THIN_ROW | PM_THIN_SUM},
    [ACCEPTED] = {"accepted", PM_THIN_ROW | PM_THIN_SUM},
};

int pm_data_updates(struct pm_json *json, const struct pm_session *session, size_t engine)
{
    struct pm_engine_facts *facts;
    struct pm_update_step fact;
    struct pm_thin thin;
    uint64_t drafted = 0, accepted = 0, tokens = 0;
    int rc = pm_engine_facts_open(&facts, session, engine, PM_ENGINE_UPDATE);

    if (rc != 0)
        return rc;
    pm_thin_init(&thin, update_columns, UPDATES, GAP, pm_session_info(session)->start_mono_ns,
                 ROWS_HELD);
    while ((rc = pm_engine_facts_next(facts, &fact)) == 1) {
        const uint64_t values[UPDATES] = {
            [GAP] = fact.continued > 0 ? fact.gap_ns : 0,
            [CONTINUED] = fact.continued,
            [OUTPUTS] = fact.outputs,
            [OUTPUT_TOKENS] = fact.output_tokens,
            [TOOK] = fact.dur_ns,
            [DRAFTED] = fact.drafted,
            [ACCEPTED] = fact.accepted,
        };
        drafted += fact.drafted;
        accepted += fact.accepted;
        tokens += fact.output_tokens;
        rc = pm_thin_add(&thin, fact.start_ns + fact.dur_ns, values);
        if (rc != 0)
            break;
    }
    pm_engine_facts_close(facts);
    if (rc == 0) {
        pm_put_u64(json, "drafted", drafted);
        pm_put_u64(json, "accepted", accepted);
        pm_put_u64(json, "output_tokens", tokens);
        pm_json_key(json, "updates");
        pm_thin_json(json, &thin);
    }
    pm_thin_release(&thin);
    return rc;
}

/* ---- the KV cache ---- */

enum kv_column { USED, TOTAL, EVICTABLE, ALLOCATED, FREED, EVICTED, QUERIED, HIT, KV_COLUMNS };
static const struct pm_thin_column kv_columns[KV_COLUMNS] = {
    [USED] = {"used", PM_THIN_ROW | PM_THIN_SUM | PM_THIN_MIN | PM_THIN_MAX},
    [TOTAL] = {"total", PM_THIN_MAX},
    [EVICTABLE] = {"cached", PM_THIN_ROW | PM_THIN_MAX},
    [ALLOCATED] = {"alloc", PM_THIN_ROW | PM_THIN_SUM},
    [FREED] = {"freed", PM_THIN_ROW | PM_THIN_SUM},
    [EVICTED] = {"evicted", PM_THIN_ROW | PM_THIN_SUM},
    [QUERIED] = {"queried", PM_THIN_ROW | PM_THIN_SUM},
    [HIT] = {"hit", PM_THIN_ROW | PM_THIN_SUM},
};

static int walk_usage(const struct pm_session *session, size_t engine, struct pm_thin *thin,
                      struct pm_kv_step *last)
{
    struct pm_kv_facts *facts;
    struct pm_kv_step fact;
    int rc = pm_kv_steps_open(&facts, session, engine);

    if (rc != 0)
        return rc;
    while ((rc = pm_kv_steps_next(facts, &fact)) == 1) {
        const uint64_t values[KV_COLUMNS] = {
            [USED] = fact.used,
            [TOTAL] = fact.total,
            [EVICTABLE] = fact.evictable,
            [ALLOCATED] = fact.allocated,
            [FREED] = fact.freed,
            [EVICTED] = fact.evicted,
            [QUERIED] = fact.queried_tokens,
            [HIT] = fact.hit_tokens,
        };
        *last = fact;
        rc = pm_thin_add(thin, fact.at_ns, values);
        if (rc != 0)
            break;
    }
    pm_kv_facts_close(facts);
    return rc;
}

static int walk_evictions(const struct pm_session *session, size_t engine,
                          struct pm_spread *lifetime, struct pm_spread *idle, uint64_t *ret_count)
{
    struct pm_kv_facts *facts;
    struct pm_kv_eviction fact;
    int rc = pm_kv_evictions_open(&facts, session, engine);

    if (rc != 0)
        return rc;
    while ((rc = pm_kv_evictions_next(facts, &fact)) == 1) {
        ++*ret_count;
        rc = fact.lifetime_ns != 0 ? pm_spread_add(lifetime, fact.lifetime_ns, 1) : 0;
        if (rc == 0 && fact.lifetime_ns != 0)
            rc = pm_spread_add(idle, fact.idle_ns, 1);
        if (rc != 0)
            break;
    }
    pm_kv_facts_close(facts);
    return rc;
}

int pm_data_kv(struct pm_json *json, const struct pm_session *session, size_t engine)
{
    struct pm_kv_step last = {0};
    struct pm_spread lifetime, idle;
    struct pm_thin thin;
    uint64_t evictions = 0;

    pm_thin_init(&thin, kv_columns, KV_COLUMNS, -1, pm_session_info(session)->start_mono_ns,
                 ROWS_HELD);
    pm_spread_init(&lifetime);
    pm_spread_init(&idle);
    int rc = walk_usage(session, engine, &thin, &last);
    if (rc == 0)
        rc = walk_evictions(session, engine, &lifetime, &idle, &evictions);
    if (rc == 0) {
        pm_json_key(json, "kv");
        if (thin.rows == 0) {
            pm_json_null(json);
        } else {
            pm_json_object(json);
            pm_put_u64(json, "total", last.total);
            pm_put_u64(json, "peak", last.peak);
            pm_json_key(json, "caching");
            pm_json_bool(json, (last.flags & PM_KV_CACHING) != 0);
            pm_put_u64(json, "evictions", evictions);
            pm_json_key(json, "lifetime");
            pm_spread_json(json, &lifetime);
            pm_json_key(json, "idle");
            pm_spread_json(json, &idle);
            pm_json_key(json, "steps");
            pm_thin_json(json, &thin);
            pm_json_end(json);
        }
    }
    pm_thin_release(&thin);
    pm_spread_release(&lifetime);
    pm_spread_release(&idle);
    return rc;
}
