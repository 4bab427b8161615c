/* See switches.h. Reads the stream of kept facts of one process; owns its cursor. */
#include "view/switches.h"

#include <stdio.h>
#include <string.h>

#include "session/switch_facts.h"

struct columns {
    int schema;
    const struct pm_field *at, *what, *value, *kind;
};

static const struct pm_field *field_named(const struct pm_schema *schema, const char *name)
{
    for (size_t i = 0; i < schema->n_fields; i++)
        if (strcmp(schema->fields[i].name, name) == 0)
            return &schema->fields[i];
    return NULL;
}

/* False: the process describes no such facts. */
static bool find_columns(const struct pm_process *process, struct columns *ret_columns)
{
    struct columns columns = {.schema = pm_process_schema_find(process, "switch")};
    if (columns.schema < 0)
        return false;
    const struct pm_schema *schema = pm_process_schema(process, (size_t)columns.schema);
    columns.at = field_named(schema, "at_ns");
    columns.what = field_named(schema, "what");
    columns.value = field_named(schema, "value");
    columns.kind = field_named(schema, "kind");
    *ret_columns = columns;
    return columns.at && columns.what && columns.value && columns.kind;
}

static void sentence_of(unsigned kind, const char *what, const char *value, double sec, char *out,
                        size_t size)
{
    switch (kind) {
    case PM_SWITCH_START:
        snprintf(out, size,
                 "recording began while the server ran, at %.3f s: requests that were under way "
                 "are in the steps, but have no life of their own",
                 sec);
        break;
    case PM_SWITCH_STOP:
        snprintf(out, size, "recording was ended at %.3f s, the server went on", sec);
        break;
    case PM_SWITCH_SET:
        snprintf(out, size, "%.60s %.60s from %.3f s on", what, value, sec);
        break;
    case PM_SWITCH_DETAIL:
        snprintf(out, size, "in detail from %.3f s on, for %.20s steps", sec, value);
        break;
    case PM_SWITCH_OVER:
        snprintf(out, size, "no longer in detail from %.3f s on", sec);
        break;
    default:
        snprintf(out, size, "something that this release does not know was switched at %.3f s",
                 sec);
    }
}

/* How many there were. */
static size_t tell_process(const struct pm_session *session, const struct pm_process *process,
                           void (*tell)(const char *sentence, void *arg), void *arg)
{
    const uint64_t start_ns = pm_session_info(session)->start_mono_ns;
    struct pm_cursor *cursor;
    struct pm_record record;
    struct columns columns;
    char sentence[320], what[64];
    size_t count = 0;
    if (!find_columns(process, &columns) || pm_cursor_open(&cursor, process, PM_STREAM_KEEP) != 0)
        return 0;
    while (pm_cursor_next(cursor, &record) == 1) {
        if ((int)record.schema != columns.schema || count++ >= PM_SWITCHES_TOLD)
            continue;
        const uint64_t at_ns = pm_field_get(columns.at, record.payload);
        snprintf(what, sizeof(what), "%s",
                 pm_cursor_string(cursor, (uint32_t)pm_field_get(columns.what, record.payload)));
        sentence_of((unsigned)pm_field_get(columns.kind, record.payload), what,
                    pm_cursor_string(cursor, (uint32_t)pm_field_get(columns.value, record.payload)),
                    at_ns > start_ns ? (double)(at_ns - start_ns) / 1e9 : 0, sentence,
                    sizeof(sentence));
        tell(sentence, arg);
    }
    pm_cursor_close(cursor);
    if (count > PM_SWITCHES_TOLD) {
        snprintf(sentence, sizeof(sentence),
                 "%zu more were switched: the native table switch has them all",
                 count - PM_SWITCHES_TOLD);
        tell(sentence, arg);
    }
    return count;
}

void pm_switches_tell(const struct pm_session *session,
                      void (*tell)(const char *sentence, void *arg), void *arg)
{
    for (unsigned round = 0; round < 2; round++)
        for (size_t i = 0; i < pm_session_process_count(session); i++) {
            const struct pm_process *process = pm_session_process(session, i);
            const bool engine = (pm_process_info(process)->roles & PM_ROLE_ENGINE) != 0;
            if (engine == (round == 0) && tell_process(session, process, tell, arg) > 0)
                return;
        }
}
