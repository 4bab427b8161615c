/*
 * The table of traced functions: as text for a terminal, as CSV, as JSON (see functions.h).
 */
#include "view/functions.h"

#include <inttypes.h>
#include <string.h>

#include "base/json.h"
#include "base/number.h"
#include "view/view.h"

#define CEILING (256u << 20)

static size_t shown(const struct pm_function_set *set, const struct pm_function_how *how)
{
    return how->limit != 0 && how->limit < set->n_sums ? how->limit : set->n_sums;
}

/* ns as microseconds with 3 decimals. */
static void add_us(struct pm_buf *buf, uint64_t ns)
{
    char number[PM_NUMBER_MAX];
    (void)pm_buf_add(buf, number, (size_t)(pm_number_fixed(number, ns, 3, 3) - number));
}

/* ---- text ---- */

static void put_head(struct pm_buf *buf, const struct pm_function_set *set)
{
    for (size_t i = 0; i < set->n; i++) {
        const struct pm_functions *table = &set->tables[i];
        const struct pm_process_info *info = pm_process_info(set->processes[i]);
        const uint64_t end_ns = info->last_ns > table->last_ns ? info->last_ns : table->last_ns;
        char name[96];
        pm_function_process_name(set->processes[i], ' ', name, sizeof(name));
        (void)pm_buf_printf(
            buf, "%s: VLLM_TRACE_FUNCTION=%s, %.1f s by %s\n", name, table->filter,
            end_ns > table->start_ns ? (double)(end_ns - table->start_ns) / 1e9 : 0.0,
            table->by == PM_FUNCTION_BY_MONITORING ? "sys.monitoring" : "a profile function");
        if (table->pauses != 0)
            (void)pm_buf_printf(
                buf,
                "  paused %u time%s, %.1f s in all, while torch's profiler recorded "
                "Python stacks: its traces have these functions\n",
                table->pauses, table->pauses == 1 ? "" : "s", (double)table->paused_ns / 1e9);
    }
    (void)pm_buf_printf(buf, "%" PRIu64 " calls of %zu functions, %.3f s in them\n", set->calls,
                        set->n_sums, (double)set->self_ns / 1e9);
}

static void put_notes(struct pm_buf *buf, const struct pm_function_set *set, size_t rows)
{
    uint64_t flat = 0, lost = 0;
    for (size_t i = 0; i < set->n; i++) {
        flat += set->tables[i].flat_calls;
        lost += set->tables[i].lost_calls;
    }
    if (rows < set->n_sums)
        (void)pm_buf_printf(buf, "%zu more functions: --limit 0 shows all\n", set->n_sums - rows);
    if (flat != 0)
        (void)pm_buf_printf(
            buf,
            "%" PRIu64 " calls came by more paths than the %u that are told apart: "
            "they count here, but not in\ntheir callers' totals, and stand alone in "
            "the flame graph\n",
            flat, PM_FUNCTION_PATHS);
    if (lost != 0)
        (void)pm_buf_printf(buf,
                            "%" PRIu64 " calls are of more functions than the %u that are told "
                            "apart: name fewer in VLLM_TRACE_FUNCTION\n",
                            lost, PM_FUNCTION_ROWS);
}

int pm_view_functions_text(const struct pm_session *session, const struct pm_function_how *how,
                           FILE *out, struct pm_error *err)
{
    struct pm_function_set set;
    struct pm_buf buf;
    int rc = pm_function_set_read(session, how, &set, err);
    if (rc != 0)
        return rc;
    pm_buf_init(&buf, CEILING);
    const size_t rows = shown(&set, how);
    put_head(&buf, &set);
    (void)pm_buf_printf(&buf, "\n%s%11s %10s %6s %10s %10s %10s  %s%s\n",
                        how->colour ? "\033[1m" : "", "calls", "self ms", "self%", "total ms",
                        "us/call", "max ms", "function", how->colour ? "\033[0m" : "");
    for (size_t i = 0; i < rows; i++) {
        const struct pm_function_sum *sum = &set.sums[i];
        const uint64_t stays = sum->calls + sum->resumes;
        char name[PM_FUNCTION_FULL_NAME];
        (void)pm_function_full_name(sum->function, name, sizeof(name));
        (void)pm_buf_printf(
            &buf, "%11" PRIu64 " %10.3f %6.2f %10.3f %10.3f %10.3f  %s", sum->calls,
            (double)sum->self_ns / 1e6,
            set.self_ns != 0 ? 100.0 * (double)sum->self_ns / (double)set.self_ns : 0.0,
            (double)sum->total_ns / 1e6,
            stays != 0 ? (double)sum->total_ns / (double)(sum->calls ? sum->calls : stays) / 1e3
                       : 0.0,
            (double)sum->max_ns / 1e6, name);
        if (sum->resumes != 0)
            (void)pm_buf_printf(&buf, "  (resumed %" PRIu64 ")", sum->resumes);
        if (sum->raised != 0)
            (void)pm_buf_printf(&buf, "  (raised %" PRIu64 ")", sum->raised);
        (void)pm_buf_add_char(&buf, '\n');
    }
    put_notes(&buf, &set, rows);
    rc = pm_function_put(&buf, out);
    pm_buf_release(&buf);
    pm_function_set_release(&set);
    return rc != 0 ? pm_error_set(err, rc, "the table: %s", pm_strerror(rc)) : 0;
}

/* ---- CSV ---- */

static void add_field(struct pm_buf *buf, const char *text)
{
    if (strpbrk(text, ",\"") == NULL) { /* line ends are none: texts are one line each */
        (void)pm_buf_add_text(buf, text);
        return;
    }
    (void)pm_buf_add_char(buf, '"');
    for (; *text != '\0'; text++) {
        if (*text == '"')
            (void)pm_buf_add_char(buf, '"');
        (void)pm_buf_add_char(buf, *text);
    }
    (void)pm_buf_add_char(buf, '"');
}

int pm_view_functions_csv(const struct pm_session *session, const struct pm_function_how *how,
                          FILE *out, struct pm_error *err)
{
    struct pm_function_set set;
    struct pm_buf buf;
    int rc = pm_function_set_read(session, how, &set, err);
    if (rc != 0)
        return rc;
    pm_buf_init(&buf, CEILING);
    (void)pm_buf_add_text(&buf,
                          "name,module,file,line,calls,resumes,raised,self_us,total_us,max_us\n");
    for (size_t i = 0; i < shown(&set, how); i++) {
        const struct pm_function_sum *sum = &set.sums[i];
        const char *const texts[] = {sum->function->name, sum->function->module,
                                     sum->function->file};
        for (size_t k = 0; k < 3; k++) {
            add_field(&buf, texts[k]);
            (void)pm_buf_add_char(&buf, ',');
        }
        (void)pm_buf_printf(&buf, "%u,%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",", sum->function->line,
                            sum->calls, sum->resumes, sum->raised);
        add_us(&buf, sum->self_ns);
        (void)pm_buf_add_char(&buf, ',');
        add_us(&buf, sum->total_ns);
        (void)pm_buf_add_char(&buf, ',');
        add_us(&buf, sum->max_ns);
        (void)pm_buf_add_char(&buf, '\n');
    }
    rc = pm_function_put(&buf, out);
    pm_buf_release(&buf);
    pm_function_set_release(&set);
    return rc != 0 ? pm_error_set(err, rc, "the table: %s", pm_strerror(rc)) : 0;
}

/* ---- JSON ---- */

static void member(struct pm_json *json, const char *key, uint64_t value)
{
    pm_json_key(json, key);
    pm_json_u64(json, value);
}

static void member_text(struct pm_json *json, const char *key, const char *text)
{
    pm_json_key(json, key);
    pm_json_text(json, text);
}

static void member_us(struct pm_json *json, const char *key, uint64_t ns)
{
    pm_json_key(json, key);
    pm_json_fixed(json, ns, 3, 3);
}

static void put_process(struct pm_json *json, const struct pm_function_set *set, size_t i)
{
    const struct pm_functions *table = &set->tables[i];
    const struct pm_process_info *info = pm_process_info(set->processes[i]);
    char roles[64];
    pm_roles_name(info->roles, roles, sizeof(roles));
    pm_json_object(json);
    member(json, "pid", info->pid);
    member_text(json, "role", roles);
    member_text(json, "filter", table->filter);
    member_text(json, "by",
                table->by == PM_FUNCTION_BY_MONITORING ? "sys.monitoring" : "PyEval_SetProfile");
    member(json, "functions", table->n_rows);
    member(json, "paths", table->n_paths);
    member(json, "calls_without_path", table->flat_calls);
    member(json, "calls_without_function", table->lost_calls);
    member(json, "calls_without_end", table->unended);
    member(json, "recorded_calls", table->records);
    member(json, "pauses", table->pauses);
    member_us(json, "paused_us", table->paused_ns);
    pm_json_end(json);
}

int pm_view_functions_json(const struct pm_session *session, const struct pm_function_how *how,
                           FILE *out, struct pm_error *err)
{
    struct pm_function_set set;
    struct pm_buf buf;
    struct pm_json json;
    int rc = pm_function_set_read(session, how, &set, err);
    if (rc != 0)
        return rc;
    pm_buf_init(&buf, CEILING);
    pm_json_init(&json, &buf, 1);
    pm_json_object(&json);
    member_text(&json, "session", pm_session_info(session)->name);
    pm_json_key(&json, "processes");
    pm_json_array(&json);
    for (size_t i = 0; i < set.n; i++)
        put_process(&json, &set, i);
    pm_json_end(&json);
    member(&json, "calls", set.calls);
    member_us(&json, "self_us", set.self_ns);
    pm_json_key(&json, "functions");
    pm_json_array(&json);
    for (size_t i = 0; i < shown(&set, how); i++) {
        const struct pm_function_sum *sum = &set.sums[i];
        pm_json_object(&json);
        member_text(&json, "name", sum->function->name);
        member_text(&json, "module", sum->function->module);
        member_text(&json, "file", sum->function->file);
        member(&json, "line", sum->function->line);
        member(&json, "calls", sum->calls);
        member(&json, "resumes", sum->resumes);
        member(&json, "raised", sum->raised);
        member_us(&json, "self_us", sum->self_ns);
        member_us(&json, "total_us", sum->total_ns);
        member_us(&json, "max_us", sum->max_ns);
        pm_json_end(&json);
    }
    pm_json_end(&json);
    pm_json_end(&json);
    rc = pm_json_finish(&json);
    if (rc == 0)
        rc = pm_function_put(&buf, out);
    pm_buf_release(&buf);
    pm_function_set_release(&set);
    return rc != 0 ? pm_error_set(err, rc, "the table: %s", pm_strerror(rc)) : 0;
}
