/*
 * Reads the table of traced functions (see functions.h). Every number of the file is a claim until
 * checked: what lies outside of it, or is larger than it can be, is nothing.
 */
#include "reader/functions.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/utf8.h"
#include "reader/internal.h"

#define FILE_MAX (256u << 20)
#define ROW_MIN 24u
#define NODE_MIN 48u
#define SIZE_MAX_ENTRY 4096u
#define DEPTH_MAX 4096u /* the recorder tells 1024 apart */

struct table {
    const uint8_t *bytes;
    size_t size;
    struct pm_function_head head;
    uint64_t nodes_at, text_at;
};

/* The table's path: the record file's with the other suffix, wherever that was found. */
static int name_of(const struct pm_process *process, char *out, size_t size)
{
    static const char own[] = ".pmrec";
    char link[64];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", process->fd);
    ssize_t length = readlink(link, out, size - 1);
    if (length < (ssize_t)sizeof(own))
        return -PM_ENOTFOUND;
    out[length] = '\0';
    char *suffix = out + length - (sizeof(own) - 1);
    if (strcmp(suffix, own) != 0)
        return -PM_ENOTFOUND;
    _Static_assert(sizeof(PM_FUNCTION_SUFFIX) == sizeof(own), "one length");
    memcpy(suffix, PM_FUNCTION_SUFFIX, sizeof(own));
    return 0;
}

static int read_file(const char *path, uint8_t **ret_bytes, size_t *ret_size, struct pm_error *err)
{
    struct stat st;
    int rc = 0, fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return -PM_ENOTFOUND;
    if (fd < 0 || fstat(fd, &st) != 0)
        rc = pm_error_set(err, pm_error_from_errno(errno), "%s: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode) || st.st_size > (off_t)FILE_MAX)
        rc = pm_error_set(err, -PM_EFORMAT, "%s: no table of functions", path);
    uint8_t *bytes = rc == 0 ? malloc((size_t)st.st_size + 1) : NULL;
    if (rc == 0 && bytes == NULL)
        rc = pm_error_set(err, -PM_ENOMEM, "%s: out of memory", path);
    ssize_t got = rc == 0 ? pm_read_at(fd, bytes, (size_t)st.st_size, 0) : 0;
    if (got < 0)
        rc = pm_error_set(err, pm_error_from_errno(errno), "%s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    if (rc != 0) {
        free(bytes);
        return rc;
    }
    *ret_bytes = bytes;
    *ret_size = (size_t)got;
    return 0;
}

/* Checks the head; what is counted beyond what the file holds is cut. */
static int check_head(struct table *table, const char *path, struct pm_error *err)
{
    struct pm_function_head *head = &table->head;
    if (table->size < sizeof(*head))
        return pm_error_set(err, -PM_ETRUNCATED, "%s: cut off in its head", path);
    memcpy(head, table->bytes, sizeof(*head));
    if (head->magic != PM_FUNCTION_MAGIC)
        return head->magic == 0 ? -PM_ENOTFOUND /* just made */
                                : pm_error_set(err, -PM_EFORMAT, "%s: no table of functions", path);
    if (head->version > PM_FUNCTION_VERSION)
        return pm_error_set(err, -PM_EUNSUPPORTED, "%s: written by a newer release (version %u)",
                            path, head->version);
    table->nodes_at = head->head_bytes + (uint64_t)head->row_bytes * head->rows_max;
    table->text_at = table->nodes_at + (uint64_t)head->node_bytes * head->nodes_max;
    if (head->row_bytes < ROW_MIN || head->row_bytes > SIZE_MAX_ENTRY ||
        head->node_bytes < NODE_MIN || head->node_bytes > SIZE_MAX_ENTRY ||
        head->head_bytes < sizeof(*head) || table->text_at > table->size)
        return pm_error_set(err, -PM_ECORRUPT, "%s: its head does not fit its size", path);
    if (head->n_rows > head->rows_max)
        head->n_rows = head->rows_max;
    if (head->n_nodes > head->nodes_max)
        head->n_nodes = head->nodes_max;
    if (head->n_flat > head->nodes_max - head->n_nodes)
        head->n_flat = head->nodes_max - head->n_nodes;
    head->filter[sizeof(head->filter) - 1] = '\0';
    return 0;
}

/* A text as one line of UTF-8, put at *at. */
static const char *take_text(const struct table *table, uint32_t offset, char **at)
{
    const uint64_t begin = table->text_at + offset;
    uint16_t bytes;
    if (offset == 0 || begin + sizeof(bytes) > table->size)
        return "";
    memcpy(&bytes, table->bytes + begin, sizeof(bytes));
    if (bytes > PM_FUNCTION_TEXT_LONGEST || begin + sizeof(bytes) + bytes > table->size)
        return "";
    const unsigned char *from = table->bytes + begin + sizeof(bytes);
    char *text = *at, *out = text;
    for (size_t i = 0; i < bytes;) {
        const size_t length = pm_utf8_length((const char *)from + i, bytes - i);
        const bool plain = length != 0 && from[i] >= 0x20 && from[i] != 0x7f;
        for (size_t k = 0; k < (plain ? length : 1); k++)
            *out++ = plain ? (char)from[i + k] : '?';
        i += plain ? length : 1;
    }
    *out++ = '\0';
    *at = out;
    return text;
}

static void take_rows(const struct table *table, struct pm_functions *functions)
{
    char *at = functions->text;
    for (uint32_t i = 0; i < functions->n_rows; i++) {
        struct pm_function_row row;
        struct pm_function *out = &functions->rows[i];
        *out = (struct pm_function){.module = "", .name = "", .file = ""};
        if (i == 0)
            continue;
        memcpy(&row, table->bytes + table->head.head_bytes + (size_t)table->head.row_bytes * i,
               sizeof(row));
        out->module = take_text(table, row.module, &at);
        out->name = take_text(table, row.name, &at);
        out->file = take_text(table, row.file, &at);
        out->line = row.line;
        out->flags = row.flags;
    }
}

static void take_path(const struct table *table, struct pm_functions *functions, uint32_t node,
                      uint32_t path)
{
    struct pm_function_node from;
    struct pm_function_path *to = &functions->paths[path];
    memset(&from, 0, sizeof(from));
    memcpy(&from, table->bytes + table->nodes_at + (size_t)table->head.node_bytes * node, NODE_MIN);
    *to = (struct pm_function_path){
        .parent = path < functions->n_tree && from.parent < path ? from.parent : 0,
        .row = from.row < functions->n_rows ? from.row : 0,
        .calls = from.calls,
        .resumes = from.resumes,
        .raised = from.raised,
        .self_ns = from.self_ns,
        .total_ns = from.self_ns,
        .max_ns = from.max_ns,
    };
}

/* Children come after their parents, so one walk from the end adds everything up. */
static void add_up(struct pm_functions *functions)
{
    struct pm_function_path *paths = functions->paths;
    for (uint32_t i = functions->n_tree; i-- > 1;)
        if (paths[i].parent != 0)
            paths[paths[i].parent].total_ns += paths[i].total_ns;
    for (uint32_t i = 1; i < functions->n_tree; i++) {
        unsigned depth = 0;
        for (uint32_t up = paths[i].parent; up != 0 && !paths[i].repeated && depth < DEPTH_MAX;
             up = paths[up].parent, depth++)
            paths[i].repeated = paths[up].row == paths[i].row;
    }
}

static int take(const struct table *table, struct pm_functions *functions)
{
    const struct pm_function_head *head = &table->head;
    functions->n_rows = head->n_rows > 0 ? head->n_rows : 1;
    functions->n_tree = head->n_nodes > 0 ? head->n_nodes : 1;
    functions->n_paths = functions->n_tree + head->n_flat;
    functions->nodes_max = head->nodes_max;
    functions->rows = calloc(functions->n_rows, sizeof(*functions->rows));
    functions->paths = calloc(functions->n_paths, sizeof(*functions->paths));
    functions->text = malloc((size_t)functions->n_rows * 3 * (PM_FUNCTION_TEXT_LONGEST + 1));
    if (functions->rows == NULL || functions->paths == NULL || functions->text == NULL)
        return -PM_ENOMEM;
    take_rows(table, functions);
    for (uint32_t i = 1; i < functions->n_tree; i++)
        take_path(table, functions, i, i);
    for (uint32_t i = functions->n_tree; i < functions->n_paths; i++)
        take_path(table, functions, head->nodes_max - 1 - (i - functions->n_tree), i);
    add_up(functions);
    functions->pid = head->pid;
    functions->by = head->by;
    functions->start_ns = head->start_ns;
    functions->last_ns = head->last_ns;
    functions->flat_calls = head->flat_calls;
    functions->lost_calls = head->lost_calls;
    functions->records = head->records;
    functions->short_ns = head->short_ns;
    functions->unended = head->unended;
    functions->paused_ns = head->paused_ns;
    functions->pauses = head->pauses;
    for (size_t i = 0; head->filter[i] != '\0'; i++)
        functions->filter[i] = (unsigned char)head->filter[i] < 0x20 ? '?' : head->filter[i];
    return 0;
}

int pm_functions_read(const struct pm_process *process, struct pm_functions *ret_functions,
                      struct pm_error *err)
{
    char path[PATH_MAX];
    struct table table = {.bytes = NULL};
    struct pm_functions functions = {0};
    uint8_t *bytes = NULL;
    int rc = name_of(process, path, sizeof(path));
    if (rc == 0)
        rc = read_file(path, &bytes, &table.size, err);
    if (rc != 0)
        return rc;
    table.bytes = bytes;
    rc = check_head(&table, path, err);
    if (rc == 0 && take(&table, &functions) != 0) {
        pm_functions_release(&functions);
        rc = pm_error_set(err, -PM_ENOMEM, "%s: out of memory", path);
    }
    free(bytes);
    if (rc == 0)
        *ret_functions = functions;
    return rc;
}

void pm_functions_release(struct pm_functions *functions)
{
    free(functions->rows);
    free(functions->paths);
    free(functions->text);
    *functions = (struct pm_functions){0};
}

uint32_t pm_functions_path(const struct pm_functions *functions, uint32_t node)
{
    if (node < functions->n_tree)
        return node;
    const uint32_t flat = functions->nodes_max - 1 - node;
    if (node >= functions->nodes_max || flat >= functions->n_paths - functions->n_tree)
        return 0;
    return functions->n_tree + flat;
}
