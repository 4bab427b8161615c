/*
 * The traced functions of a session, over its processes: read, added up by function, sorted (see
 * functions.h). One thread.
 */
#include "view/functions.h"

#include <stdlib.h>
#include <string.h>

#include "view/view.h"

/* ---- names ---- */

void pm_function_process_name(const struct pm_process *process, char separator, char *out,
                              size_t size)
{
    const struct pm_process_info *info = pm_process_info(process);
    char role[64];
    pm_roles_name(info->roles, role, sizeof(role));
    snprintf(out, size, "%s%c%u", role, separator, info->pid);
}

size_t pm_function_full_name(const struct pm_function *function, char *out, size_t size)
{
    int length;
    if (function->flags & PM_FUNCTION_THREAD && function->name[0] == '\0')
        length = snprintf(out, size, "thread %u", function->line);
    else if (function->module[0] == '\0')
        length = snprintf(out, size, "%s", function->name[0] != '\0' ? function->name : "?");
    else
        length = snprintf(out, size, "%s.%s", function->module, function->name);
    return length < 0 ? 0 : (size_t)length < size ? (size_t)length : size - 1;
}

int pm_function_put(struct pm_buf *buf, FILE *out)
{
    if (pm_buf_status(buf) == 0 && buf->used > 0)
        (void)fwrite(buf->data, 1, buf->used, out);
    const int rc = pm_buf_status(buf);
    if (rc == 0)
        pm_buf_clear(buf);
    return rc;
}

/* ---- adding up ---- */

static int by_identity(const void *left, const void *right)
{
    const struct pm_function *a = ((const struct pm_function_sum *)left)->function;
    const struct pm_function *b = ((const struct pm_function_sum *)right)->function;
    int order = strcmp(a->module, b->module);
    if (order == 0)
        order = strcmp(a->name, b->name);
    if (order == 0)
        order = strcmp(a->file, b->file);
    return order != 0 ? order : a->line < b->line ? -1 : a->line > b->line;
}

static enum pm_function_sort sorting; /* of the qsort that runs */

static int by_figure(const void *left, const void *right)
{
    const struct pm_function_sum *a = left, *b = right;
    uint64_t x = 0, y = 0;
    switch (sorting) {
    case PM_FUNCTION_BY_SELF:
        x = a->self_ns, y = b->self_ns;
        break;
    case PM_FUNCTION_BY_TOTAL:
        x = a->total_ns, y = b->total_ns;
        break;
    case PM_FUNCTION_BY_CALLS:
        x = a->calls + a->resumes, y = b->calls + b->resumes;
        break;
    case PM_FUNCTION_BY_MAX:
        x = a->max_ns, y = b->max_ns;
        break;
    case PM_FUNCTION_BY_NAME:
        break;
    }
    return x != y ? (x > y ? -1 : 1) : by_identity(left, right);
}

static void merge(struct pm_function_sum *to, const struct pm_function_sum *from)
{
    to->calls += from->calls;
    to->resumes += from->resumes;
    to->raised += from->raised;
    to->self_ns += from->self_ns;
    to->total_ns += from->total_ns;
    if (from->max_ns > to->max_ns)
        to->max_ns = from->max_ns;
}

/* One table's functions behind those that are there; threads are none. */
static void add_table(struct pm_function_set *set, const struct pm_functions *table)
{
    struct pm_function_sum *sums = set->sums + set->n_sums;
    for (uint32_t i = 0; i < table->n_rows; i++)
        sums[i] = (struct pm_function_sum){.function = &table->rows[i]};
    for (uint32_t i = 1; i < table->n_paths; i++) {
        const struct pm_function_path *path = &table->paths[i];
        const struct pm_function_sum one = {
            .calls = path->calls,
            .resumes = path->resumes,
            .raised = path->raised,
            .self_ns = path->self_ns,
            .total_ns = path->repeated ? 0 : path->total_ns,
            .max_ns = path->max_ns,
        };
        merge(&sums[path->row], &one);
    }
    size_t kept = 0;
    for (uint32_t i = 1; i < table->n_rows; i++)
        if (!(table->rows[i].flags & PM_FUNCTION_THREAD) &&
            (sums[i].calls > 0 || sums[i].resumes > 0))
            sums[kept++] = sums[i];
    set->n_sums += kept;
}

static int add_up(struct pm_function_set *set, enum pm_function_sort sort)
{
    size_t room = 0, kept = 0;
    for (size_t i = 0; i < set->n; i++)
        room += set->tables[i].n_rows;
    set->sums = calloc(room + 1, sizeof(*set->sums));
    if (set->sums == NULL)
        return -PM_ENOMEM;
    for (size_t i = 0; i < set->n; i++)
        add_table(set, &set->tables[i]);
    qsort(set->sums, set->n_sums, sizeof(*set->sums), by_identity);
    for (size_t i = 0; i < set->n_sums; i++) {
        if (kept > 0 && by_identity(&set->sums[kept - 1], &set->sums[i]) == 0)
            merge(&set->sums[kept - 1], &set->sums[i]);
        else
            set->sums[kept++] = set->sums[i];
    }
    set->n_sums = kept;
    for (size_t i = 0; i < kept; i++) {
        set->calls += set->sums[i].calls;
        set->self_ns += set->sums[i].self_ns;
    }
    sorting = sort;
    qsort(set->sums, set->n_sums, sizeof(*set->sums), by_figure);
    return 0;
}

/* ---- reading ---- */

/* Why functions are not traced in a process that should; NULL: they are, or need not be. */
static const char *why_off(const struct pm_process *process)
{
    const char *how = pm_process_attr(process, PM_ATTR_FUNCTIONS);
    return how != NULL && strncmp(how, "off: ", 5) == 0 ? how + 5 : NULL;
}

/* Why there is nothing to show. */
static int nothing(const struct pm_session *session, long pid, struct pm_error *err)
{
    const char *name = pm_session_info(session)->name;
    const char *off = NULL;
    for (size_t i = 0; i < pm_session_process_count(session) && off == NULL; i++)
        off = why_off(pm_session_process(session, i));
    if (pid != 0)
        return pm_error_set(err, -PM_ENOTFOUND, "process %ld of the session %s traced no functions",
                            pid, name);
    if (off != NULL)
        return pm_error_set(err, -PM_ENOTFOUND, "the session %s has no traced functions: %.200s",
                            name, off);
    return pm_error_set(err, -PM_ENOTFOUND,
                        "the session %s has no traced functions, start its server with "
                        "VLLM_TRACE_FUNCTION=all or the names of modules and functions",
                        name);
}

int pm_function_set_read(const struct pm_session *session, const struct pm_function_how *how,
                         struct pm_function_set *ret_set, struct pm_error *err)
{
    const size_t count = pm_session_process_count(session);
    struct pm_function_set set = {.n = 0};
    set.tables = calloc(count + 1, sizeof(*set.tables));
    set.processes = calloc(count + 1, sizeof(*set.processes));
    int rc = set.tables == NULL || set.processes == NULL ? -PM_ENOMEM : 0;
    for (size_t i = 0; i < count && rc == 0; i++) {
        const struct pm_process *process = pm_session_process(session, i);
        if ((how->pid != 0 && (long)pm_process_info(process)->pid != how->pid) ||
            why_off(process) != NULL)
            continue;
        rc = pm_functions_read(process, &set.tables[set.n], err);
        if (rc == 0)
            set.processes[set.n++] = process;
        else if (rc == -PM_ENOTFOUND)
            rc = 0;
    }
    if (rc == 0 && set.n == 0)
        rc = nothing(session, how->pid, err);
    if (rc == 0)
        rc = add_up(&set, how->sort);
    if (rc == -PM_ENOMEM)
        pm_error_set(err, rc, "out of memory");
    if (rc != 0)
        pm_function_set_release(&set);
    else
        *ret_set = set;
    return rc;
}

void pm_function_set_release(struct pm_function_set *set)
{
    for (size_t i = 0; i < set->n; i++)
        pm_functions_release(&set->tables[i]);
    free(set->tables);
    free(set->processes);
    free(set->sums);
    *set = (struct pm_function_set){.n = 0};
}
