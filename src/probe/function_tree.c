/*
 * The tree of call paths (see function_tree.h): what is done once per function, path or thread. GIL
 * held; the tracers own the struct.
 */
#include "probe/function_tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CODES 65536u /* places; three quarters are used */
#define PATHS 524288u
#define TEXTS 65536u
#define THREADS_MAX 64u /* threads told apart */
#define WINDOW_NS 100000000ull
#define WINDOW_RECORDS 1000u
#define SHORT_MIN_NS 500u
#define NODES (PM_FUNCTION_PATHS + PM_FUNCTION_ROWS)

static const char others_code; /* stands for the codes of "(other functions)" */

size_t pm_calls_table_bytes(void)
{
    return 4096 + sizeof(struct pm_function_row) * PM_FUNCTION_ROWS +
           sizeof(struct pm_function_node) * NODES + PM_FUNCTION_TEXT;
}

/* ---- texts ---- */

static uint64_t hash_bytes(const char *text, size_t bytes)
{
    uint64_t hash = 0xcbf29ce484222325ull;
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3ull;
    return hash ^ hash >> 29;
}

/* The offset of a text, 0 for the empty one and where there is no room. */
static uint32_t text_of(struct pm_calls *calls, const char *text)
{
    size_t bytes = text == NULL ? 0 : strlen(text);
    struct pm_function_head *head = calls->head;
    if (bytes > PM_FUNCTION_TEXT_LONGEST) {
        bytes = PM_FUNCTION_TEXT_LONGEST;
        while (bytes > 0 && ((unsigned char)text[bytes] & 0xc0) == 0x80)
            bytes--;
    }
    if (bytes == 0)
        return 0;
    uint32_t at = (uint32_t)hash_bytes(text, bytes) & (TEXTS - 1);
    for (; calls->texts[at] != 0; at = (at + 1) & (TEXTS - 1)) {
        uint16_t length;
        memcpy(&length, calls->text + calls->texts[at], sizeof length);
        if (length == bytes && memcmp(calls->text + calls->texts[at] + 2, text, bytes) == 0)
            return calls->texts[at];
    }
    /* three texts a row at most: the table never fills */
    if (head->text_bytes + 2 + bytes > head->text_max)
        return 0;
    const uint32_t offset = head->text_bytes;
    const uint16_t length = (uint16_t)bytes;
    memcpy(calls->text + offset, &length, sizeof length);
    memcpy(calls->text + offset + 2, text, bytes);
    __atomic_store_n(&head->text_bytes, offset + 2 + (uint32_t)bytes, __ATOMIC_RELEASE);
    calls->texts[at] = offset;
    return offset;
}

/* ---- rows and nodes ---- */

/* 0: no room. */
static uint32_t new_row(struct pm_calls *calls, const struct pm_function_row *row)
{
    struct pm_function_head *head = calls->head;
    const uint32_t number = head->n_rows;
    if (number == head->rows_max)
        return 0;
    calls->rows[number] = *row;
    __atomic_store_n(&head->n_rows, number + 1, __ATOMIC_RELEASE);
    return number;
}

/* 0: no room. */
static uint32_t new_node(struct pm_calls *calls, uint32_t parent, uint32_t row, const void *code)
{
    struct pm_function_head *head = calls->head;
    const uint32_t node = head->n_nodes;
    if (node == PM_FUNCTION_PATHS)
        return 0;
    calls->nodes[node].parent = parent;
    calls->nodes[node].row = row;
    calls->spots[node] = (struct pm_calls_spot){.code = code, .flags = calls->rows[row].flags};
    __atomic_store_n(&head->n_nodes, node + 1, __ATOMIC_RELEASE);
    return node;
}

/* The node of a function for calls that have no path of their own: there is one for each row. */
static uint32_t flat_node(struct pm_calls *calls, uint32_t row, const void *code)
{
    struct pm_function_head *head = calls->head;
    if (calls->flat_of[row] == 0) {
        const uint32_t node = NODES - 1 - head->n_flat;
        calls->nodes[node].row = row;
        calls->spots[node] = (struct pm_calls_spot){.code = code, .flags = calls->rows[row].flags};
        __atomic_store_n(&head->n_flat, head->n_flat + 1, __ATOMIC_RELEASE);
        calls->flat_of[row] = node;
    }
    return calls->flat_of[row];
}

static uint32_t path_hash(uint32_t parent, const void *code)
{
    uint64_t hash = ((uint64_t)(uintptr_t)code >> 4) * 0x9e3779b97f4a7c15ull;
    hash = (hash ^ parent) * 0xd6e8feb86659fd93ull;
    return (uint32_t)(hash >> 40) & (PATHS - 1);
}

uint32_t pm_calls_path(struct pm_calls *calls, const struct pm_calls_thread *thread,
                       const void *code, uint32_t row)
{
    const uint32_t parent = thread->node;
    if (row == calls->others) {
        code = &others_code;
        calls->head->lost_calls++;
    }
    uint32_t node, at = path_hash(parent, code);
    for (; (node = calls->paths[at]) != 0; at = (at + 1) & (PATHS - 1))
        if (calls->spots[node].code == code && calls->nodes[node].parent == parent)
            goto found;
    if (thread->depth < PM_CALLS_PATH_DEPTH)
        node = new_node(calls, parent, row, code);
    if (node == 0) {
        calls->head->flat_calls++;
        return flat_node(calls, row, code);
    }
    calls->paths[at] = node;
found:
    calls->spots[parent].last = node;
    return node;
}

/* ---- codes ---- */

static uint32_t code_place(const struct pm_calls *calls, const void *code)
{
    uint32_t at =
        (uint32_t)((((uint64_t)(uintptr_t)code >> 4) * 0x9e3779b97f4a7c15ull) >> 40) & (CODES - 1);
    while (calls->codes[at].code != NULL && calls->codes[at].code != code)
        at = (at + 1) & (CODES - 1);
    return at;
}

uint32_t pm_calls_code(const struct pm_calls *calls, const void *code)
{
    const struct pm_calls_code *entry = &calls->codes[code_place(calls, code)];
    return entry->code == NULL ? PM_CALLS_UNKNOWN : entry->row;
}

static bool keep_code(struct pm_calls *calls, const void *code, uint32_t row)
{
    if (calls->n_codes >= CODES / 4 * 3)
        return false;
    calls->codes[code_place(calls, code)] = (struct pm_calls_code){.code = code, .row = row};
    calls->n_codes++;
    return true;
}

bool pm_calls_skip(struct pm_calls *calls, const void *code)
{
    return keep_code(calls, code, PM_CALLS_SKIPPED);
}

uint32_t pm_calls_add(struct pm_calls *calls, const void *code, const char *module,
                      const char *name, const char *file, uint32_t line, uint32_t flags,
                      bool *ret_kept)
{
    *ret_kept = false;
    if (calls->n_codes >= CODES / 4 * 3 || calls->head->n_rows == calls->head->rows_max)
        return calls->others;
    const struct pm_function_row row = {
        .module = text_of(calls, module),
        .name = text_of(calls, name),
        .file = text_of(calls, file),
        .line = line,
        .flags = flags,
    };
    const uint32_t number = new_row(calls, &row);
    *ret_kept = keep_code(calls, code, number);
    return number;
}

/* ---- threads ---- */

bool pm_calls_thread_begin(struct pm_calls *calls, struct pm_calls_thread *thread, uint32_t tid,
                           const char *name, uint64_t now_ns)
{
    uint32_t row = 0, root = 0;
    if (thread->frames == NULL) {
        thread->room = 256;
        thread->frames = malloc(thread->room * sizeof *thread->frames);
        if (thread->frames == NULL) {
            thread->room = 0;
            return false;
        }
    }
    if (calls->threads < THREADS_MAX) {
        const struct pm_function_row own = {
            .name = text_of(calls, name), .line = tid, .flags = PM_FUNCTION_THREAD};
        row = new_row(calls, &own);
        root = row != 0 ? new_node(calls, 0, row, NULL) : 0;
    }
    if (root == 0 && calls->shared_root == 0) {
        const struct pm_function_row all = {.name = text_of(calls, "(other threads)"),
                                            .flags = PM_FUNCTION_THREAD};
        row = new_row(calls, &all);
        calls->shared_root = new_node(calls, 0, row, NULL);
    }
    calls->threads++;
    thread->root = thread->node = root != 0 ? root : calls->shared_root;
    thread->named = root == 0 || name != NULL;
    thread->depth = thread->beyond = 0;
    thread->last_ns = now_ns;
    thread->tid = tid;
    thread->epoch = calls->epoch;
    return true;
}

void pm_calls_thread_name(struct pm_calls *calls, struct pm_calls_thread *thread, const char *name)
{
    calls->rows[calls->nodes[thread->root].row].name = text_of(calls, name);
    thread->named = true;
}

void pm_calls_thread_release(struct pm_calls_thread *thread)
{
    free(thread->frames);
    *thread = (struct pm_calls_thread){0};
}

void pm_calls_thread_after(struct pm_calls *calls, struct pm_calls_thread *thread, uint32_t depth,
                           uint64_t paused_ns, uint64_t now_ns)
{
    if (paused_ns > thread->last_ns)
        pm_calls_pass(calls, thread, paused_ns);
    while (thread->depth > depth) {
        calls->head->unended++;
        pm_calls_pop(calls, thread, paused_ns);
    }
    thread->beyond = 0;
    thread->last_ns = now_ns;
}

bool pm_calls_more_frames(struct pm_calls_thread *thread)
{
    if (thread->room >= PM_CALLS_DEPTH)
        return false;
    struct pm_calls_frame *more = realloc(thread->frames, 2 * thread->room * sizeof *more);
    if (more == NULL)
        return false;
    thread->frames = more;
    thread->room *= 2;
    return true;
}

bool pm_calls_unwind_to(struct pm_calls *calls, struct pm_calls_thread *thread, const void *key,
                        uint64_t now_ns)
{
    uint32_t depth = thread->depth;
    while (depth > 0 && thread->frames[depth - 1].key != key)
        depth--;
    if (depth == 0)
        return false;
    while (thread->depth > depth) {
        calls->head->unended++;
        pm_calls_pass(calls, thread, now_ns);
        pm_calls_pop(calls, thread, now_ns);
    }
    return true;
}

/* ---- records ---- */

void pm_calls_record(struct pm_calls *calls, uint64_t start_ns, uint64_t dur_ns, uint32_t node,
                     uint32_t tid)
{
    const uint64_t now_ns = start_ns + dur_ns;
    calls->head->last_ns = now_ns;
    if (now_ns - calls->window_ns >= WINDOW_NS) {
        /* after quiet windows shorter calls are recorded again */
        uint64_t quiet = (now_ns - calls->window_ns) / WINDOW_NS;
        if (calls->in_window > WINDOW_RECORDS / 4)
            quiet--;
        calls->short_ns = quiet < 32 ? calls->short_ns >> quiet : 0;
        if (calls->short_ns < SHORT_MIN_NS)
            calls->short_ns = 0;
        calls->window_ns = now_ns;
        calls->in_window = 0;
    } else if (calls->in_window == WINDOW_RECORDS) {
        calls->short_ns = calls->short_ns != 0 ? 2 * calls->short_ns : SHORT_MIN_NS;
        /* what is left of the window goes to those that are longer, a half of a window's */
        calls->in_window = WINDOW_RECORDS / 2;
    }
    calls->head->short_ns = calls->short_ns;
    if (dur_ns < calls->short_ns || calls->record == NULL)
        return;
    calls->in_window++;
    calls->head->records++;
    calls->record(start_ns, dur_ns, node, tid);
}

/* ---- begin and end ---- */

bool pm_calls_begin(struct pm_calls *calls, void *table, pm_calls_record_fn record)
{
    unsigned char *at = table;
    const uint32_t epoch = calls->epoch + 1;
    *calls = (struct pm_calls){.epoch = epoch, .record = record};
    calls->spots = calloc(NODES, sizeof *calls->spots);
    calls->paths = calloc(PATHS, sizeof *calls->paths);
    calls->codes = calloc(CODES, sizeof *calls->codes);
    calls->texts = calloc(TEXTS, sizeof *calls->texts);
    calls->flat_of = calloc(PM_FUNCTION_ROWS, sizeof *calls->flat_of);
    if (calls->spots == NULL || calls->paths == NULL || calls->codes == NULL ||
        calls->texts == NULL || calls->flat_of == NULL) {
        pm_calls_release(calls);
        return false;
    }
    calls->head = table;
    calls->rows = (struct pm_function_row *)(void *)(at += 4096);
    calls->nodes = (struct pm_function_node *)(void *)(at += PM_FUNCTION_ROWS *
                                                             sizeof(struct pm_function_row));
    calls->text = at + NODES * sizeof(struct pm_function_node);
    struct pm_function_head *head = calls->head;
    head->version = PM_FUNCTION_VERSION;
    head->head_bytes = 4096;
    head->row_bytes = sizeof(struct pm_function_row);
    head->node_bytes = sizeof(struct pm_function_node);
    head->rows_max = PM_FUNCTION_ROWS;
    head->nodes_max = NODES;
    head->text_max = PM_FUNCTION_TEXT;
    head->text_bytes = 2; /* the empty text */
    head->n_rows = 1;
    head->n_nodes = 1;
    const struct pm_function_row others = {.name = text_of(calls, "(other functions)"),
                                           .flags = PM_FUNCTION_OTHERS};
    calls->others = new_row(calls, &others);
    return true;
}

void pm_calls_release(struct pm_calls *calls)
{
    free(calls->spots);
    free(calls->paths);
    free(calls->codes);
    free(calls->texts);
    free(calls->flat_of);
    *calls = (struct pm_calls){.epoch = calls->epoch};
}
