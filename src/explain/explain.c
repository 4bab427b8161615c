/*
 * Asks the rules: gathers the figures of each engine, hands them to every rule of rules.def, and
 * sorts what they found. Called by the program, one thread.
 */
#include "explain/explain.h"

#include <stdlib.h>
#include <string.h>

#include "explain/rules.h"
#include "reader/engine_facts.h"
#include "reader/steps.h"
#include "session/attrs.h"

enum scope { SCOPE_ENGINE, SCOPE_SESSION };

/* One of the two functions, by scope. */
struct rule {
    const char *name, *area, *sentence;
    enum scope scope;
    enum pm_verdict (*of_engine)(const struct pm_look *, struct pm_finding *, char *);
    enum pm_verdict (*of_session)(const struct pm_looks *, struct pm_finding *, char *);
};

#define FUNCTION_ENGINE(name) .of_engine = pm_rule_##name
#define FUNCTION_SESSION(name) .of_session = pm_rule_##name
static const struct rule rules[] = {
#define PM_RULE(name_, area_, scope_, sentence_)                                                   \
    {.name = #name_,                                                                               \
     .area = (area_),                                                                              \
     .sentence = (sentence_),                                                                      \
     .scope = SCOPE_##scope_,                                                                      \
     FUNCTION_##scope_(name_)},
#include "explain/rules.def"
};
#define RULES (sizeof(rules) / sizeof(rules[0]))

const char *pm_rule_name(size_t n, const char **ret_sentence)
{
    if (n >= RULES)
        return NULL;
    if (ret_sentence != NULL)
        *ret_sentence = rules[n].sentence;
    return rules[n].name;
}

/* ---- the figures ---- */

/* The scheduler's limits: its first step tells them, else the configuration of its process. */
static int take_limits(struct pm_look *look)
{
    struct pm_engine_facts *facts;
    struct pm_sched_step first = {0};
    int rc = pm_engine_facts_open(&facts, look->session, look->engine, PM_ENGINE_SCHED);

    if (rc != 0)
        return rc;
    rc = pm_engine_facts_next(facts, &first);
    pm_engine_facts_close(facts);
    look->steps.max_seqs = first.max_requests;
    look->steps.max_tokens = first.max_tokens;
    if (look->steps.max_seqs == 0)
        look->steps.max_seqs =
            (uint32_t)pm_look_config_u64(look, PM_ATTR_CONFIG_PREFIX "max_num_seqs");
    if (look->steps.max_tokens == 0)
        look->steps.max_tokens =
            (uint32_t)pm_look_config_u64(look, PM_ATTR_CONFIG_PREFIX "max_num_scheduled_tokens");
    if (look->steps.max_tokens == 0)
        look->steps.max_tokens =
            (uint32_t)pm_look_config_u64(look, PM_ATTR_CONFIG_PREFIX "max_num_batched_tokens");
    return rc < 0 ? rc : 0;
}

static int look_at(struct pm_look *look, const struct pm_session *session, size_t e,
                   const struct pm_window *window)
{
    static int (*const takes[])(struct pm_look *) = {
        take_limits,        pm_look_take_steps,    pm_look_take_evictions, pm_look_take_life,
        pm_look_take_stall, pm_look_take_ranks,    pm_look_take_graphs,    pm_look_take_moe,
        pm_look_take_front, pm_look_take_sampling,
    };
    const struct pm_engine *engine = pm_session_engine(session, e);
    int rc = 0;

    look->session = session;
    look->window = window;
    look->engine = e;
    look->number = engine->number;
    look->n_ranks = engine->n_ranks;
    look->process = engine->process;
    look->sampler = pm_engine_sampler(session, e);
    look->device = pm_look_config(look, PM_ATTR_DEVICE);
    look->device = look->device != NULL ? look->device : "";
    look->on_cpu = strcmp(look->device, "cpu") == 0;
    for (size_t i = 0; i < sizeof(takes) / sizeof(takes[0]) && rc == 0; i++)
        rc = takes[i](look);
    return rc;
}

static void looks_free(struct pm_looks *looks)
{
    for (size_t e = 0; e < looks->n && looks->engines != NULL; e++)
        free(looks->engines[e]);
    free(looks->engines);
}

static int looks_make(struct pm_looks *looks, const struct pm_session *session,
                      const struct pm_window *window)
{
    int rc = 0;

    looks->session = session;
    looks->n = pm_session_engine_count(session);
    looks->engines = calloc(looks->n + 1, sizeof(struct pm_look *));
    if (looks->engines == NULL)
        return -PM_ENOMEM;
    for (size_t e = 0; e < looks->n && rc == 0; e++) {
        looks->engines[e] = calloc(1, sizeof(struct pm_look));
        rc =
            looks->engines[e] != NULL ? look_at(looks->engines[e], session, e, window) : -PM_ENOMEM;
    }
    pm_session_sums(session, &looks->sums); /* after the walks: damage is found there */
    return rc;
}

/* ---- asking ---- */

/* Of several engines the verdict that says most stands for the rule. */
static void settle(struct pm_rule_result *result, enum pm_verdict verdict, const char *why)
{
    if (result->why[0] != '\0' && verdict >= result->verdict)
        return;
    result->verdict = verdict;
    memcpy(result->why, why, sizeof(result->why));
    if (result->why[0] == '\0')
        result->why[0] = ' ';
}

static int ask(const struct rule *rule, const struct pm_looks *looks, const struct pm_look *look,
               struct pm_rule_result *result, struct pm_findings *findings)
{
    char why[PM_WHY_MAX] = "";
    struct pm_finding *more =
        realloc(findings->rows, (findings->count + 1) * sizeof(*findings->rows));

    if (more == NULL)
        return -PM_ENOMEM;
    findings->rows = more;
    struct pm_finding *finding = &findings->rows[findings->count];
    memset(finding, 0, sizeof(*finding));
    finding->rule = rule->name;
    finding->area = rule->area;
    finding->engine = look != NULL ? (int)look->number : -1;
    finding->rank = -1;
    finding->share = -1;
    finding->cost_of = "";
    finding->confidence = 1;
    const enum pm_verdict verdict =
        look != NULL ? rule->of_engine(look, finding, why) : rule->of_session(looks, finding, why);
    if (verdict == PM_VERDICT_FOUND) {
        findings->count++;
        memcpy(why, finding->title, sizeof(why));
    }
    settle(result, verdict, why);
    return 0;
}

static int ask_all(const struct pm_looks *looks, const char *only, struct pm_findings *findings)
{
    findings->results = calloc(RULES, sizeof(*findings->results));
    if (findings->results == NULL)
        return -PM_ENOMEM;
    for (size_t i = 0; i < RULES; i++) {
        const struct rule *rule = &rules[i];
        if (only != NULL && strcmp(only, rule->name) != 0)
            continue;
        struct pm_rule_result *result = &findings->results[findings->n_results++];
        int rc = 0;
        *result = (struct pm_rule_result){.rule = rule->name, .verdict = PM_VERDICT_NOT_HERE};
        if (rule->scope == SCOPE_SESSION)
            rc = ask(rule, looks, NULL, result, findings);
        for (size_t e = 0; e < looks->n && rule->scope == SCOPE_ENGINE && rc == 0; e++)
            rc = ask(rule, looks, looks->engines[e], result, findings);
        if (rc != 0)
            return rc;
        if (result->why[0] == '\0')
            (void)pm_because(result->why, result->verdict, "no engine was found");
    }
    return 0;
}

static int by_weight(const void *left, const void *right)
{
    const struct pm_finding *a = left, *b = right;
    const bool asked_a = strcmp(a->rule, "request_time") == 0;
    const bool asked_b = strcmp(b->rule, "request_time") == 0;
    if (asked_a != asked_b) /* what was asked for comes first */
        return asked_a ? -1 : 1;
    if (a->severity != b->severity)
        return a->severity > b->severity ? -1 : 1;
    if (a->share != b->share)
        return a->share > b->share ? -1 : 1;
    if (a->confidence != b->confidence)
        return a->confidence > b->confidence ? -1 : 1;
    if (a->engine != b->engine)
        return a->engine < b->engine ? -1 : 1;
    return strcmp(a->rule, b->rule);
}

int pm_explain_rule(const struct pm_session *session, const struct pm_window *window,
                    const char *rule, struct pm_findings *ret_findings, struct pm_error *err)
{
    struct pm_findings findings = {.window = {.whole = true, .to_ns = UINT64_MAX}};
    struct pm_looks looks = {0};
    bool known = rule == NULL;
    int rc;

    for (size_t i = 0; i < RULES; i++)
        known = known || strcmp(rule, rules[i].name) == 0;
    if (!known)
        return pm_error_set(err, -PM_ENOTFOUND, "%s: no such rule", rule);
    rc = pm_window_apply(session, window, err);
    if (rc != 0)
        return rc;
    if (window != NULL)
        findings.window = *window;
    rc = looks_make(&looks, session, window);
    if (rc == 0)
        rc = ask_all(&looks, rule, &findings);
    for (size_t e = 0; e < looks.n && rc == 0; e++) {
        const struct pm_look_steps *steps = &looks.engines[e]->steps;
        findings.seconds +=
            steps->to_ns > steps->from_ns ? (double)(steps->to_ns - steps->from_ns) / 1e9 : 0;
        findings.steps += steps->n;
        findings.requests += looks.engines[e]->life.requests;
    }
    looks_free(&looks);
    if (rc != 0) {
        pm_findings_release(&findings);
        return pm_error_set(err, rc, "%s: %s", pm_session_info(session)->path, pm_strerror(rc));
    }
    if (findings.count > 1)
        qsort(findings.rows, findings.count, sizeof(*findings.rows), by_weight);
    *ret_findings = findings;
    return 0;
}

int pm_explain(const struct pm_session *session, const struct pm_window *window,
               struct pm_findings *ret_findings, struct pm_error *err)
{
    return pm_explain_rule(session, window, NULL, ret_findings, err);
}

void pm_findings_release(struct pm_findings *findings)
{
    free(findings->rows);
    free(findings->results);
    *findings = (struct pm_findings){0};
}

/* ---- words ---- */

const char *pm_severity_name(enum pm_severity severity)
{
    static const char *const names[] = {"info", "low", "medium", "high"};
    return names[severity];
}

const char *pm_confidence_name(double confidence)
{
    return confidence >= 0.9 ? "certain" : confidence >= 0.6 ? "likely" : "possible";
}

const char *pm_verdict_name(enum pm_verdict verdict)
{
    static const char *const names[] = {"found", "fine", "too little", "not seen",
                                        "does not apply"};
    return names[verdict];
}
