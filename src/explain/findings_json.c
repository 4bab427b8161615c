/* Findings as JSON: see explain.h; man profilemate-explain names the members. */
#include "explain/explain.h"

#include <math.h>

static void put_text(struct pm_json *json, const char *key, const char *text)
{
    pm_json_key(json, key);
    pm_json_text(json, text);
}

static void put_double(struct pm_json *json, const char *key, double value, unsigned decimals)
{
    pm_json_key(json, key);
    pm_json_double(json, value, decimals); /* null where it is not finite */
}

static void put_or_null(struct pm_json *json, const char *key, bool known, double value,
                        unsigned decimals)
{
    put_double(json, key, known ? value : NAN, decimals);
}

static void put_whole(struct pm_json *json, const char *key, int value)
{
    pm_json_key(json, key);
    value >= 0 ? pm_json_i64(json, value) : pm_json_null(json);
}

static void put_moment(struct pm_json *json, const char *key, uint64_t ns, uint64_t start_ns)
{
    pm_json_key(json, key);
    if (ns == 0)
        pm_json_null(json);
    else
        pm_json_fixed_signed(json, (int64_t)(ns - start_ns) / 1000, 6, 6);
}

static void put_changes(struct pm_json *json, const struct pm_finding *finding)
{
    pm_json_key(json, "changes");
    pm_json_array(json);
    for (unsigned i = 0; i < finding->n_changes; i++) {
        const struct pm_finding_change *change = &finding->changes[i];
        pm_json_object(json);
        put_text(json, "flag", change->flag);
        put_text(json, "direction", change->direction);
        put_text(json, "value", change->value[0] != '\0' ? change->value : NULL);
        put_text(json, "now", change->now[0] != '\0' ? change->now : NULL);
        pm_json_end(json);
    }
    pm_json_end(json);
}

static void put_finding(struct pm_json *json, const struct pm_finding *finding, uint64_t start_ns)
{
    pm_json_object(json);
    put_text(json, "rule", finding->rule);
    put_text(json, "area", finding->area);
    put_text(json, "severity", pm_severity_name(finding->severity));
    put_double(json, "confidence", finding->confidence, 2);
    put_text(json, "sure", pm_confidence_name(finding->confidence));
    put_text(json, "title", finding->title);
    pm_json_key(json, "evidence");
    pm_json_array(json);
    for (unsigned i = 0; i < finding->n_evidence; i++)
        pm_json_text(json, finding->evidence[i]);
    pm_json_end(json);
    put_text(json, "advice", finding->advice[0] != '\0' ? finding->advice : NULL);
    put_changes(json, finding);
    put_or_null(json, "cost_sec", finding->has_cost_s, finding->cost_s, 6);
    put_text(json, "cost_of", finding->cost_of[0] != '\0' ? finding->cost_of : NULL);
    put_or_null(json, "cost_tokens", finding->has_cost_tokens, finding->cost_tokens, 0);
    put_or_null(json, "share_pct", finding->share >= 0, finding->share * 100, 2);
    put_whole(json, "engine", finding->engine);
    put_whole(json, "rank", finding->rank);
    put_moment(json, "from_sec", finding->from_ns, start_ns);
    put_moment(json, "to_sec", finding->to_ns, start_ns);
    pm_json_key(json, "requests");
    pm_json_u64(json, finding->n_requests);
    pm_json_key(json, "request_ids");
    pm_json_array(json);
    for (unsigned i = 0; i < finding->n_named; i++)
        pm_json_text(json, finding->requests[i]);
    pm_json_end(json);
    pm_json_key(json, "numbers");
    pm_json_object(json);
    for (unsigned i = 0; i < finding->n_numbers; i++)
        put_double(json, finding->numbers[i].name, finding->numbers[i].value, 6);
    pm_json_end(json);
    pm_json_key(json, "units");
    pm_json_object(json);
    for (unsigned i = 0; i < finding->n_numbers; i++)
        put_text(json, finding->numbers[i].name, finding->numbers[i].unit);
    pm_json_end(json);
    pm_json_end(json);
}

void pm_findings_json(struct pm_json *json, const struct pm_findings *findings, uint64_t start_ns)
{
    pm_json_array(json);
    for (size_t i = 0; i < findings->count; i++)
        put_finding(json, &findings->rows[i], start_ns);
    pm_json_end(json);
}
