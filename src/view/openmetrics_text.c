/*
 * The lines of OpenMetrics (openmetrics.h), and which metrics there are.
 */
#include "view/openmetrics.h"

#include <string.h>

#include "base/number.h"
#include "base/utf8.h"
#include "session/attrs.h"
#include "session/step_facts.h"

const struct pm_metric pm_metrics[] = {
#define M(name, type, schema, field, phases, label, help)                                          \
    {#name, PM_METRIC_##type, schema, field, phases, label, help},
#include "view/openmetrics.def"
};
const size_t pm_metrics_count = sizeof(pm_metrics) / sizeof(pm_metrics[0]);

void pm_metric_escape(struct pm_buf *buf, const char *value)
{
    const size_t bytes = strlen(value);
    for (size_t i = 0; i < bytes;) {
        const size_t length = pm_utf8_length(value + i, bytes - i);
        if (length == 0)
            (void)pm_buf_add_text(buf, "\xef\xbf\xbd");
        else if (value[i] == '\n')
            (void)pm_buf_add_text(buf, "\\n");
        else if (value[i] == '"' || value[i] == '\\')
            (void)pm_buf_printf(buf, "\\%c", value[i]);
        else
            (void)pm_buf_add(buf, value + i, length);
        i += length > 0 ? length : 1;
    }
}

/* The value of an option in a command line as pm_mask_command writes it: the word after it, or
 * joined to it by =. false: it is not there, or was masked. */
static bool option_value(const char *command, const char *option, char *out, size_t size)
{
    const char *at = strstr(command, option);
    const size_t bytes = strlen(option);
    if (at == NULL || at == command || at[-1] != ' ' || (at[bytes] != ' ' && at[bytes] != '='))
        return false;
    at += bytes + 1;
    const bool quoted = *at == '\'';
    const size_t length = strcspn(at + quoted, quoted ? "'" : " ");
    if (length == 0 || length >= size || strncmp(at + quoted, "***", 3) == 0 || *at == '-')
        return false;
    memcpy(out, at + quoted, length);
    out[length] = '\0';
    return true;
}

void pm_metric_model_name(const struct pm_session *session, char *out, size_t size)
{
    const char *model = pm_session_attr(session, PM_ATTR_MODEL);
    const char *served = pm_session_attr(session, PM_ATTR_SERVED_NAME);
    const char *command = pm_session_attr(session, PM_ATTR_COMMAND);
    if (served != NULL) /* sessions of old have it in the command line only */
        snprintf(out, size, "%s", served);
    else if (command == NULL || !option_value(command, "--served-model-name", out, size))
        snprintf(out, size, "%s", model != NULL ? model : "");
}

int pm_metric_text_init(struct pm_metric_text *text, const struct pm_session *session, FILE *out)
{
    char model[1024];
    pm_metric_model_name(session, model, sizeof(model));
    *text = (struct pm_metric_text){.out = out};
    pm_buf_init(&text->buf, PM_VIEW_TEXT_MAX);
    pm_buf_init(&text->model, 1u << 16);
    pm_metric_escape(&text->model, model);
    (void)pm_buf_text(&text->model);
    return pm_buf_status(&text->model);
}

void pm_metric_text_release(struct pm_metric_text *text)
{
    pm_buf_release(&text->buf);
    pm_buf_release(&text->model);
}

int pm_metric_text_spill(struct pm_metric_text *text, size_t at_least)
{
    int rc = pm_buf_status(&text->buf);
    if (rc != 0 || text->buf.used < at_least || text->buf.used == 0)
        return rc;
    if (fwrite(text->buf.data, 1, text->buf.used, text->out) != text->buf.used)
        rc = -PM_EIO;
    pm_buf_clear(&text->buf);
    return rc;
}

void pm_metric_head(struct pm_metric_text *text, const struct pm_metric *metric, bool summary)
{
    const char *type = metric->type == PM_METRIC_COUNTER ? "counter"
                       : metric->type != PM_METRIC_TIME  ? "gauge"
                       : summary                         ? "summary"
                                                         : "histogram";
    (void)pm_buf_printf(&text->buf, "# TYPE profilemate_%s %s\n", metric->name, type);
    if (metric->type == PM_METRIC_TIME)
        (void)pm_buf_printf(&text->buf, "# UNIT profilemate_%s seconds\n", metric->name);
    else if (metric->type == PM_METRIC_RATIO)
        (void)pm_buf_printf(&text->buf, "# UNIT profilemate_%s ratio\n", metric->name);
    (void)pm_buf_printf(&text->buf, "# HELP profilemate_%s %s\n", metric->name, metric->help);
}

void pm_metric_sample(struct pm_metric_text *text, const struct pm_metric *metric,
                      const char *suffix, unsigned engine, int rank, int phase, const char *more)
{
    static const char *const phases[PM_PHASE_CLASSES] = {"empty", "prefill", "decode"};
    (void)pm_buf_printf(&text->buf, "profilemate_%s%s{model_name=\"", metric->name, suffix);
    (void)pm_buf_add(&text->buf, text->model.data, text->model.used);
    (void)pm_buf_printf(&text->buf, "\",engine=\"%u\"", engine);
    if (rank >= 0)
        (void)pm_buf_printf(&text->buf, ",rank=\"%d\"", rank);
    if (phase >= 0)
        (void)pm_buf_printf(&text->buf, ",phase=\"%s\"", phases[phase % PM_PHASE_CLASSES]);
    if (metric->label[0] != '\0')
        (void)pm_buf_printf(&text->buf, ",%s", metric->label);
    if (more != NULL)
        (void)pm_buf_printf(&text->buf, ",%s", more);
    (void)pm_buf_add_text(&text->buf, "} ");
}

void pm_metric_seconds(struct pm_buf *buf, uint64_t ns)
{
    char text[PM_NUMBER_MAX];
    char *end = pm_number_fixed(text, ns, 9, 9);
    while (end[-1] == '0' && end[-2] != '.')
        end--;
    (void)pm_buf_add(buf, text, (size_t)(end - text));
}

void pm_metric_sums(const struct pm_process *process, const struct pm_totals *totals,
                    const struct pm_metric *metric, pm_metric_put *put, void *arg)
{
    const char *field = metric->field[0] != '\0' ? metric->field : NULL;
    struct pm_metric_sum sum = {0};
    bool have = false;

    for (unsigned c = 0; c < PM_PHASE_CLASSES; c++) {
        struct pm_series series;
        if (!pm_series_find(process, totals, metric->schema, field, c, &series))
            continue;
        have = true;
        sum.count += series.count;
        sum.sum += series.sum;
        for (size_t b = 0; series.hist != NULL && b < PM_HIST_BUCKETS; b++)
            sum.hist.buckets[b] += series.hist->buckets[b];
        if (metric->by_phase) {
            put(&sum, (int)c, arg);
            sum = (struct pm_metric_sum){0};
            have = false;
        }
    }
    if (have)
        put(&sum, -1, arg);
}

uint64_t pm_metric_buckets(const struct pm_hist *hist, uint64_t ret_below[PM_METRIC_BOUNDS])
{
    uint64_t below = 0, all = 0;
    unsigned b = 1;

    for (unsigned i = 1; i < PM_HIST_BUCKETS; i++)
        all += hist->buckets[i];
    for (unsigned i = 0; i < PM_METRIC_BOUNDS; i++) {
        for (; b <= 1 + PM_HIST_SUB * (PM_METRIC_FIRST_BOUND + i) && b < PM_HIST_BUCKETS - 1; b++)
            below += hist->buckets[b];
        ret_below[i] = below;
    }
    return all;
}
