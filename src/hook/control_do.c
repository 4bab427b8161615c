/*
 * What is asked of a running process, done: set, detail, start, stop, and the status that says what
 * holds (session/control.h has the texts). Called by control.c in a pending call: main thread, GIL
 * held, no half of a hooked call under way anywhere. Owns what was asked for, and the detail that
 * is under way.
 */
#include "hook/control.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/control.h"
#include "base/error.h"
#include "hook/hook.h"
#include "hook/session.h"
#include "hook/switch.h"
#include "session/attrs.h"
#include "session/switch_facts.h"

uint64_t pm_detail_left;

/* ---- answers --------------------------------------------------------------------------------- */

struct text {
    char *out;
    size_t size, used;
};

static void PM_PRINTF(2, 3) add(struct text *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text->out + text->used, text->size - text->used, format, args);
    va_end(args);
    if (length > 0 && (size_t)length < text->size - text->used)
        text->used += (size_t)length;
    else
        text->out[text->used] = '\0'; /* a line is there whole or not at all */
}

/* Also takes the wish back, so that the status does not show what is not so. */
static void add_refused(const char *probe, const char *why, void *arg)
{
    const struct pm_setting_row *row = pm_setting_named(probe);
    add(arg, "refused %s %s\n", probe, why);
    if (row)
        (void)pm_session_ask(row, "0");
}

/* The settings in force become these, and the hooks follow. */
static void switch_to(const struct pm_settings *settings, bool begin, struct text *text,
                      struct pm_switched *ret_switched)
{
    static struct pm_settings now;
    pm_session_set(settings);
    pm_switch_to(settings, begin, ret_switched, text ? add_refused : NULL, text);
    pm_session_settings(&now, NULL);
    if (text && pm_detail_left == 0)
        pm_session_set(&now);
}

static void add_switched(struct text *text, const struct pm_switched *switched)
{
    add(text, "hooks %zu %zu %zu\n", switched->patched, switched->missing, switched->waiting);
    if (switched->covered > 0)
        add(text,
            "note %zu wrappers stay in place and pass calls through, since something else has "
            "wrapped them\n",
            switched->covered);
}

/* ---- settings -------------------------------------------------------------------------------- */

static const size_t offsets[] = {
#define X(field, type, env, option, def, min, max, metavar, doc)                                   \
    offsetof(struct pm_settings, field),
#include "base/settings.def"
#undef X
};

static bool is_switch(const struct pm_setting_row *row)
{
    return strcmp(row->type, "BOOL") == 0 || strcmp(row->type, "TRISTATE") == 0;
}

/* Settings that may be changed and do something here. */
static bool may_be_set(size_t row)
{
    const struct pm_setting_row *setting = &pm_setting_rows[row];
    if (pm_setting_fixed(setting))
        return false;
    return !is_switch(setting) || strcmp(setting->field, "verbose") == 0 ||
           strcmp(setting->field, "debug") == 0 ||
           pm_switch_follows(pm_facts_settings(), offsets[row]);
}

/* A value as one would write it; false for texts. */
static bool value_of(size_t row, const struct pm_settings *settings, char *out, size_t size)
{
    int number = 0;
    if (strcmp(pm_setting_rows[row].type, "TEXT") == 0)
        return false;
    memcpy(&number, (const char *)settings + offsets[row], sizeof number);
    if (strcmp(pm_setting_rows[row].type, "BOOL") == 0)
        snprintf(out, size, "%s", number ? "on" : "off");
    else if (strcmp(pm_setting_rows[row].type, "TRISTATE") == 0)
        snprintf(out, size, "%s", number < 0 ? "auto" : number ? "1" : "off");
    else
        snprintf(out, size, "%d", number);
    return true;
}

/* The attribute says of a probe whether it was ever on: its files are then written. */
static void tell_setting(const struct pm_setting_row *row, const char *value)
{
    char key[96];
    const bool on = strcmp(value, "off") != 0;
    snprintf(key, sizeof key, PM_ATTR_SETTING_PREFIX "%s", row->field);
    if (!is_switch(row))
        pm_facts_attr(key, value);
    else if (on)
        pm_facts_attr(key, strcmp(value, "auto") == 0 ? "auto" : "1");
}

/* What is different in the new settings is recorded. */
static void record_changes(const struct pm_settings *old, const struct pm_settings *new)
{
    char before[64], after[64];
    for (size_t row = 0; row < pm_setting_rows_count; row++) {
        if (!value_of(row, old, before, sizeof before) ||
            !value_of(row, new, after, sizeof after) || strcmp(before, after) == 0)
            continue;
        tell_setting(&pm_setting_rows[row], after);
        pm_facts_switched(PM_SWITCH_SET, pm_setting_rows[row].field, after);
    }
}

/* "field value" of a line: cuts it. */
static char *split(char *line)
{
    char *blank = strchr(line, ' ');
    if (blank)
        *blank++ = '\0';
    return blank;
}

/* The next line of a request, NULL at its end. */
static char *next_line(char **rest)
{
    char *line = *rest;
    char *end = line ? strchr(line, '\n') : NULL;
    if (!end)
        return NULL;
    *end = '\0';
    *rest = end + 1;
    return line;
}

/* Takes one line `field value` of a request. */
static bool ask(char *line, bool begin, struct text *text)
{
    char expected[128];
    const char *value = split(line), *fixed;
    const struct pm_setting_row *row = pm_setting_named(line);
    if (!row || !value) {
        add(text, "refused %s no such setting\n", line);
    } else if (!begin && (fixed = pm_setting_fixed(row)) != NULL) {
        add(text, "refused %s %s\n", row->field, fixed);
    } else if (begin &&
               (strcmp(row->field, "trace_function") == 0 || strcmp(row->field, "control") == 0)) {
        add(text, "refused %s %s\n", row->field, pm_setting_fixed(row));
    } else if (!begin && !may_be_set((size_t)(row - pm_setting_rows))) {
        add(text, "refused %s nothing in this release follows it\n", row->field);
    } else if (!pm_setting_check(row, value, expected, sizeof expected)) {
        add(text, "refused %s give %s\n", row->field, expected);
    } else if (strcmp(row->field, "moe") == 0 && strcmp(value, "1") == 0 &&
               (begin || pm_facts_settings()->moe != 1)) {
        add(text, "refused moe counting inside graphs must be in place when the model is compiled "
                  "and captured, that is at the server's start\n");
    } else if (pm_session_ask(row, value)) {
        return true;
    }
    return false;
}

/* ---- detail for some steps ------------------------------------------------------------------- */

static struct pm_settings before_detail;

/* Everything that may be switched here, on. */
static void detailed(const struct pm_settings *from, struct pm_settings *ret_settings)
{
    *ret_settings = *from;
    for (size_t row = 0; row < pm_setting_rows_count; row++) {
        const struct pm_setting_row *setting = &pm_setting_rows[row];
        const int more = strcmp(setting->type, "BOOL") == 0 ? 1 : -1; /* TRISTATE: auto */
        int now = 0;
        if (!is_switch(setting) || pm_setting_fixed(setting) ||
            !pm_switch_follows(from, offsets[row]) || !pm_switch_possible(setting->field))
            continue;
        memcpy(&now, (const char *)from + offsets[row], sizeof now);
        if (now == 0)
            memcpy((char *)ret_settings + offsets[row], &more, sizeof more);
    }
}

static void do_detail(uint64_t steps, struct text *text)
{
    static struct pm_settings settings;
    struct pm_switched switched;
    char value[32];
    if (pm_detail_left == 0)
        before_detail = *pm_facts_settings();
    detailed(&before_detail, &settings);
    snprintf(value, sizeof value, "%llu", (unsigned long long)steps);
    pm_facts_switched(PM_SWITCH_DETAIL, "", value);
    record_changes(pm_facts_settings(), &settings);
    pm_detail_left = steps;
    switch_to(&settings, false, text, &switched);
    add(text, "done detail %s\n", value);
    add_switched(text, &switched);
}

/* The steps are over: as before. */
static int end_detail(void *unused)
{
    struct pm_switched switched;
    (void)unused;
    if (!pm_session_active())
        return 0;
    PyObject *type, *raised, *traceback;
    PyErr_Fetch(&type, &raised, &traceback);
    record_changes(pm_facts_settings(), &before_detail);
    switch_to(&before_detail, false, NULL, &switched);
    pm_facts_switched(PM_SWITCH_OVER, "", "");
    pm_control_publish();
    PyErr_Restore(type, raised, traceback);
    return 0;
}

/* Each process counts its own: an engine core its scheduler's steps, a worker alone those that it
 * executes, a front end the batches of outputs that it takes in. */
void pm_detail_stepped(unsigned role)
{
    const unsigned roles = pm_session_roles();
    const bool counts = role == PM_ROLE_ENGINE ||
                        (role == PM_ROLE_WORKER && !(roles & PM_ROLE_ENGINE)) ||
                        (role == PM_ROLE_FRONTEND && !(roles & (PM_ROLE_ENGINE | PM_ROLE_WORKER)));
    if (!counts || pm_detail_left == 0 || --pm_detail_left > 0)
        return;
    if (Py_AddPendingCall(end_detail, NULL) < 0)
        pm_detail_left = 1; /* no room just now: with the next step */
}

/* ---- the verbs ------------------------------------------------------------------------------- */

static void do_set(char *rest, struct text *text)
{
    static struct pm_settings settings, before;
    struct pm_switched switched;
    char *line, value[64];
    uint64_t asked = 0;
    while ((line = next_line(&rest)) != NULL) {
        const struct pm_setting_row *row = NULL;
        char field[96];
        snprintf(field, sizeof field, "%.*s", (int)strcspn(line, " "), line);
        if (ask(line, false, text))
            row = pm_setting_named(field);
        if (row)
            asked |= 1ull << (row - pm_setting_rows);
    }
    if (asked == 0)
        return;
    pm_session_settings(&settings, NULL);
    before = *pm_facts_settings();
    pm_detail_left = 0; /* what was set now holds, also where detail was under way */
    switch_to(&settings, false, text, &switched);
    record_changes(&before, pm_facts_settings());
    for (size_t row = 0; row < pm_setting_rows_count; row++)
        if ((asked & 1ull << row) && value_of(row, pm_facts_settings(), value, sizeof value))
            add(text, "done %s %s\n", pm_setting_rows[row].field, value);
    add_switched(text, &switched);
}

static void do_start(char *rest, struct text *text)
{
    static struct pm_settings wished;
    struct pm_birth birth;
    struct pm_switched switched;
    char *line = next_line(&rest);
    if (pm_session_active() && pm_session_dir()[0]) {
        add(text, "session %s\nnote records already\n", pm_session_dir());
        return;
    }
    if (!line || pm_birth_parse(line, &birth) < 0 || !pm_hook_bring_up()) {
        text->used = 0;
        add(text, "no %s\n", line ? "the hooks could not be made" : "a name is missing");
        return;
    }
    for (size_t row = 0; row < pm_setting_rows_count; row++)
        (void)pm_session_ask(&pm_setting_rows[row], NULL);
    while ((line = next_line(&rest)) != NULL)
        (void)ask(line, true, text);
    pm_session_begin_late(&birth);
    wished = *pm_facts_settings();
    switch_to(&wished, true, text, &switched);
    if (!pm_facts()) {
        text->used = 0;
        pm_switch_to(NULL, false, &switched, NULL, NULL);
        pm_session_end();
        add(text, "no there is no place for a session (see its standard error), check "
                  "VLLM_PROFILING_DIR\n");
        return;
    }
    pm_facts_switched(PM_SWITCH_START, "", "");
    add(text, "session %s\n", pm_session_dir());
    add_switched(text, &switched);
}

static void do_stop(struct text *text)
{
    struct pm_switched switched;
    const char *stuck = pm_switch_stuck();
    if (!pm_session_active()) {
        add(text, "note records nothing\n");
        return;
    }
    if (stuck) {
        text->used = 0;
        add(text, "no the probe %s cannot be taken out of a running process\n", stuck);
        return;
    }
    if (pm_session_dir()[0])
        add(text, "session %s\n", pm_session_dir());
    if (pm_facts_settings()->moe == 1)
        add(text,
            "note the counters of MOE_EXPERT_TRACKING=1 stay in the model's graphs, unread\n");
    if (pm_session_dir()[0]) {
        struct pm_recorder *rec = pm_facts();
        if (rec)
            pm_install_finish(rec);
        pm_facts_switched(PM_SWITCH_STOP, "", "");
    }
    pm_detail_left = 0;
    pm_switch_to(NULL, false, &switched, NULL, NULL);
    pm_session_end();
    if (switched.covered > 0)
        add_switched(text, &switched);
}

void pm_control_do(char *request, char *answer, size_t size)
{
    struct text text = {answer, size, 0};
    char *rest = request, *verb = next_line(&rest);
    memset(answer, 0, size);
    add(&text, "ok\n");
    if (verb && strcmp(verb, "start") == 0) {
        do_start(rest, &text);
    } else if (verb && strcmp(verb, "stop") == 0) {
        do_stop(&text);
    } else if (verb && !(pm_session_active() && pm_session_dir()[0])) {
        text.used = 0;
        add(&text, "no it records nothing: profilemate start\n");
    } else if (verb && strcmp(verb, "set") == 0) {
        do_set(rest, &text);
    } else if (verb && strcmp(verb, "detail") == 0) {
        char *steps = next_line(&rest);
        unsigned long long n = steps ? strtoull(steps, NULL, 10) : 0;
        do_detail(n > 0 ? n : 1, &text);
    } else {
        text.used = 0;
        add(&text, "no the request is not understood: is it a newer profilemate?\n");
    }
}

void pm_control_status(char *out, size_t size)
{
    struct text text = {out, size, 0};
    char value[64];
    memset(out, 0, size);
    const bool recording = pm_session_active() && pm_session_dir()[0];
    add(&text, "state %s\n", recording ? "recording" : "dormant");
    add(&text, "roles %u\n", pm_session_roles());
    if (!recording)
        return;
    char token[256];
    pm_birth_format(pm_session_birth(), token, sizeof token);
    add(&text, "birth %s\nsession %s\n", token, pm_session_dir());
    if (pm_detail_left > 0)
        add(&text, "detail %llu\n", (unsigned long long)pm_detail_left);
    for (size_t row = 0; row < pm_setting_rows_count; row++)
        if (may_be_set(row) && value_of(row, pm_facts_settings(), value, sizeof value))
            add(&text, "set %s %s\n", pm_setting_rows[row].field, value);
}
