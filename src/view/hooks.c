/*
 * Hook coverage: which hooks were in place, missing, off, and which fired, over all processes of a
 * session, from their attributes. Called by metadata.c, the reports and `doctor`.
 */
#include "view/common.h"

#include <stdlib.h>
#include <string.h>

#include "session/attrs.h"

struct hook_list {
    struct pm_hook_state *hooks;
    size_t count, capacity;
};

static int by_target(const void *left, const void *right)
{
    return strcmp(((const struct pm_hook_state *)left)->target,
                  ((const struct pm_hook_state *)right)->target);
}

static int add(struct hook_list *list, const struct pm_hook_state *hook)
{
    if (list->count == list->capacity) {
        size_t want = list->capacity != 0 ? list->capacity * 2 : 64;
        struct pm_hook_state *more = realloc(list->hooks, want * sizeof(*more));
        if (more == NULL)
            return -PM_ENOMEM;
        list->hooks = more;
        list->capacity = want;
    }
    list->hooks[list->count++] = *hook;
    return 0;
}

/* One attribute of a process as the account of one hook; false when it is about something else. */
static bool take(const char *key, const char *value, struct pm_hook_state *hook)
{
    const size_t hook_bytes = strlen(PM_ATTR_HOOK_PREFIX);
    const size_t fired_bytes = strlen(PM_ATTR_FIRED_PREFIX);

    memset(hook, 0, sizeof(*hook));
    if (strncmp(key, PM_ATTR_HOOK_PREFIX, hook_bytes) == 0) {
        snprintf(hook->target, sizeof(hook->target), "%s", key + hook_bytes);
        hook->patched = strcmp(value, "patched") == 0;
        hook->missing = strcmp(value, "missing") == 0;
        hook->off = strcmp(value, "off") == 0;
        return true;
    }
    if (strncmp(key, PM_ATTR_FIRED_PREFIX, fired_bytes) == 0) {
        snprintf(hook->target, sizeof(hook->target), "%s", key + fired_bytes);
        hook->fired = 1;
        hook->first_fired_ns = strtoull(value, NULL, 10);
        return true;
    }
    return false;
}

/* Rows of one target, which stand together, become one. */
static void merge(struct hook_list *list)
{
    size_t kept = 0;

    if (list->count > 1)
        qsort(list->hooks, list->count, sizeof(*list->hooks), by_target);
    for (size_t i = 0; i < list->count; i++) {
        const struct pm_hook_state *from = &list->hooks[i];
        struct pm_hook_state *into = kept > 0 ? &list->hooks[kept - 1] : NULL;
        if (into == NULL || strcmp(into->target, from->target) != 0) {
            list->hooks[kept++] = *from;
            continue;
        }
        into->patched += from->patched;
        into->missing += from->missing;
        into->off += from->off;
        into->fired += from->fired;
        if (from->first_fired_ns != 0 &&
            (into->first_fired_ns == 0 || from->first_fired_ns < into->first_fired_ns))
            into->first_fired_ns = from->first_fired_ns;
    }
    list->count = kept;
}

int pm_hooks_collect(const struct pm_session *session, struct pm_hook_state **ret_hooks,
                     size_t *ret_count)
{
    struct hook_list list = {0};

    for (size_t p = 0; p < pm_session_process_count(session); p++) {
        const struct pm_process *process = pm_session_process(session, p);
        for (size_t i = 0; i < pm_process_attr_count(process); i++) {
            struct pm_hook_state hook;
            const char *key, *value;
            pm_process_attr_at(process, i, &key, &value);
            if (!take(key, value, &hook))
                continue;
            int rc = add(&list, &hook);
            if (rc != 0) {
                free(list.hooks);
                return rc;
            }
        }
    }
    merge(&list);
    *ret_hooks = list.hooks;
    *ret_count = list.count;
    return 0;
}
