/*
 * Experts in the reports: how even the choices are, which experts are never chosen, how long the
 * layers take, or why nothing can be seen. Called by report_text.c and report_json.c.
 */
#include "view/moe.h"

#include <string.h>

#define WIDTH 80u
#define INDENT 14u
#define DEAD_LISTED 8

/* A layer of which anything was seen, the least even first among them. */
static const struct pm_moe_sum *worst_of(const struct pm_moe_sums *sums,
                                         struct pm_moe_balance *ret_balance)
{
    const struct pm_moe_sum *worst = NULL;
    for (size_t i = 0; i < sums->n_layers; i++) {
        struct pm_moe_balance balance;
        if (sums->layers[i].selections == 0)
            continue;
        pm_moe_balance_of(sums->layers[i].n, sums->layers[i].fact.experts, &balance);
        if (worst == NULL || balance.balance < ret_balance->balance) {
            worst = &sums->layers[i];
            *ret_balance = balance;
        }
    }
    return worst;
}

static size_t layers_of(const struct pm_moe_sums *sums)
{
    size_t layers = 0;
    for (size_t i = 0; i < sums->n_layers; i++)
        layers += sums->layers[i].n != NULL;
    return layers;
}

/* ---- text ---- */

/* A sentence behind a word, broken at blanks. */
static void put_wrapped(struct pm_buf *buf, const char *word, const char *text)
{
    size_t column = INDENT;
    (void)pm_buf_printf(buf, "  %-12s", word);
    while (*text != '\0') {
        const size_t bytes = strcspn(text, " ");
        if (column > INDENT && column + 1 + bytes > WIDTH) {
            (void)pm_buf_printf(buf, "\n%*s", (int)INDENT, "");
            column = INDENT;
        } else if (column > INDENT) {
            (void)pm_buf_add_char(buf, ' ');
            column++;
        }
        (void)pm_buf_add(buf, text, bytes);
        column += bytes;
        text += bytes;
        text += strspn(text, " ");
    }
    (void)pm_buf_add_char(buf, '\n');
}

static void put_dead(struct pm_buf *buf, const struct pm_moe_sums *sums)
{
    uint64_t dead = 0, experts = 0;
    unsigned listed = 0;
    for (size_t i = 0; i < sums->n_layers; i++) {
        const struct pm_moe_sum *layer = &sums->layers[i];
        for (uint32_t e = 0; layer->selections > 0 && e < layer->fact.experts; e++)
            dead += layer->n[e] == 0;
        experts += layer->selections > 0 ? layer->fact.experts : 0;
    }
    (void)pm_buf_printf(buf, "  %-12s%llu of %llu experts were never chosen", "dead",
                        (unsigned long long)dead, (unsigned long long)experts);
    for (size_t i = 0; i < sums->n_layers && listed < DEAD_LISTED; i++) {
        const struct pm_moe_sum *layer = &sums->layers[i];
        for (uint32_t e = 0; layer->selections > 0 && e < layer->fact.experts; e++) {
            if (layer->n[e] != 0 || listed == DEAD_LISTED)
                continue;
            (void)pm_buf_printf(buf, "%s%u/%u", listed == 0 ? ": layer/expert " : " ",
                                (unsigned)layer->fact.layer, (unsigned)e);
            listed++;
        }
    }
    (void)pm_buf_add_text(buf, dead > listed ? " …\n" : "\n");
}

static void put_seen(struct pm_buf *buf, const struct pm_moe_sums *sums)
{
    struct pm_moe_balance balance;
    const struct pm_moe_sum *worst = worst_of(sums, &balance);
    uint64_t time_ns = 0;

    if (worst != NULL) {
        (void)pm_buf_printf(buf, "  %-12s%llu, %u of %u experts a token\n", "selections",
                            (unsigned long long)sums->selections, (unsigned)worst->fact.top_k,
                            (unsigned)worst->fact.experts);
        (void)pm_buf_printf(buf,
                            "  %-12slayer %u is the least even: its busiest expert has %.2f times "
                            "the\n%*smean, balance %.2f of 1, deviation %.1f %% of the mean\n",
                            "balance", (unsigned)worst->fact.layer,
                            balance.mean > 0 ? (double)balance.max / balance.mean : 0.0,
                            (int)INDENT, "", balance.balance,
                            balance.mean > 0 ? 100.0 * balance.std / balance.mean : 0.0);
        put_dead(buf, sums);
    }
    for (size_t i = 0; i < sums->n_layers; i++)
        time_ns += sums->layers[i].time_ns;
    if (sums->calls > 0)
        (void)pm_buf_printf(buf, "  %-12s%.3f ms a call, %llu calls%s\n", "layer time",
                            (double)time_ns / (double)sums->calls / 1e6,
                            (unsigned long long)sums->calls,
                            sums->recycled_times ? " (of the detail held)" : "");
}

int pm_moe_report_text(const struct pm_session *session, size_t engine, unsigned n, bool colour,
                       struct pm_buf *buf)
{
    struct pm_moe_sums sums;
    const char *why;
    const int rc = pm_moe_walk(session, engine, n, NULL, &sums);

    if (rc == 0 && (sums.n_layers > 0 || sums.reason != NULL)) {
        (void)pm_buf_printf(buf, "\n%sExperts (%zu MoE layers)%s\n", colour ? "\033[1m" : "",
                            layers_of(&sums), colour ? "\033[0m" : "");
        if (pm_moe_observable(&sums, &why) == 0)
            put_wrapped(buf, "not seen", why);
        if (sums.in_graph != NULL)
            put_wrapped(buf, "in graphs", sums.in_graph);
        put_seen(buf, &sums);
    }
    pm_moe_sums_release(&sums);
    return rc != 0 ? rc : pm_buf_status(buf);
}

/* ---- JSON ---- */

static void put_u64(struct pm_json *json, const char *key, uint64_t value)
{
    pm_json_key(json, key);
    pm_json_u64(json, value);
}

static void put_double(struct pm_json *json, const char *key, double value, unsigned decimals,
                       bool known)
{
    pm_json_key(json, key);
    known ? pm_json_double(json, value, decimals) : pm_json_null(json);
}

void pm_moe_put_layer(struct pm_json *json, const struct pm_moe_sum *layer)
{
    static const char *const ways[] = {[PM_MOE_UNSEEN] = "no",
                                       [PM_MOE_HOST] = "host",
                                       [PM_MOE_TRACED] = "graph",
                                       [PM_MOE_DEVICE] = "device"};
    const uint32_t experts = layer->fact.experts;
    const bool seen = layer->fact.seen != PM_MOE_UNSEEN, any = layer->selections > 0;
    struct pm_moe_balance balance;

    pm_moe_balance_of(layer->n, experts, &balance);
    pm_json_key(json, "name");
    pm_json_text(json, layer->name);
    pm_json_key(json, "observed");
    pm_json_text(json, ways[layer->fact.seen <= PM_MOE_DEVICE ? layer->fact.seen : 0]);
    put_u64(json, "experts", experts);
    put_u64(json, "top_k", layer->fact.top_k);
    pm_json_key(json, "selections");
    seen ? pm_json_u64(json, layer->selections) : pm_json_null(json);
    put_double(json, "coverage_pct", experts > 0 ? 100.0 * balance.chosen / experts : 0, 2, any);
    put_double(json, "mean", balance.mean, 3, any);
    put_double(json, "std", balance.std, 3, any);
    put_double(json, "min", (double)balance.min, 0, any);
    put_double(json, "max", (double)balance.max, 0, any);
    put_double(json, "load_balance_ratio", balance.balance, 4, any);
    pm_json_key(json, "coselection");
    pm_json_bool(json, layer->pairs != NULL);
    put_u64(json, "timed_calls", layer->calls);
    put_double(json, "mean_ms",
               (double)layer->time_ns / (double)(layer->calls + !layer->calls) / 1e6, 3,
               layer->calls > 0);
}

int pm_moe_report_json(const struct pm_session *session, size_t engine, unsigned n,
                       struct pm_json *json)
{
    struct pm_moe_sums sums;
    const char *why;
    const int rc = pm_moe_walk(session, engine, n, NULL, &sums);

    if (rc == 0 && (sums.n_layers > 0 || sums.reason != NULL)) {
        const int observable = pm_moe_observable(&sums, &why);
        pm_json_object(json);
        pm_json_key(json, "observable");
        observable < 0 ? pm_json_null(json) : pm_json_bool(json, observable > 0);
        pm_json_key(json, "reason");
        pm_json_text(json, why);
        put_u64(json, "selections", sums.selections);
        pm_json_key(json, "layers");
        pm_json_array(json);
        for (size_t i = 0; i < sums.n_layers; i++) {
            if (sums.layers[i].n == NULL)
                continue;
            pm_json_object(json);
            put_u64(json, "layer", sums.layers[i].fact.layer);
            pm_moe_put_layer(json, &sums.layers[i]);
            pm_json_end(json);
        }
        pm_json_end(json);
        pm_json_end(json);
    } else {
        pm_json_null(json);
    }
    pm_moe_sums_release(&sums);
    return rc;
}
