/*
 * The session in this process (see session.h): what is reserved at activation, the birth, the
 * recorder, and what a child of fork() does instead. GIL held everywhere but in the fork handler
 * and in pm_session_finish; owns the recorder and the attributes.
 */
#include "hook/session.h"

#include <errno.h>
#include <limits.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/custom.h"
#include "hook/compat.h"
#include "hook/console.h"
#include "hook/control.h"
#include "hook/guard.h"
#include "hook/hook.h"
#include "probe/registry.h"
#include "session/attrs.h"
#include "session/doing.h"

#define SCHEMAS_MAX 64
#define SETTINGS_MAX 64

static struct {
    bool active, mute;
    bool of_run; /* `profilemate run` has made the session up and completes it */
    bool asked;  /* by the switch: not the command table's guess */
    bool late;   /* begun by `profilemate start`, in a process that ran already */
    bool broken; /* no directory or no recorder: said once, mute since */
    const char *entry;
    struct pm_settings settings;
    struct pm_birth birth;
    char dir[PATH_MAX]; /* "" before the birth */
    struct pm_recorder *rec;
    struct pm_recorder *stale; /* the parent's, in a child of fork */
    unsigned roles;
    int engine, rank;
    const struct pm_schema *schemas[SCHEMAS_MAX];
    size_t n_schemas;
} session = {.engine = -1, .rank = -1};

/* ---- begin ----------------------------------------------------------------------------------- */

static void keep_warning(const char *sentence, void *arg)
{
    (void)arg;
    if (session.birth.root)
        pm_console_line("[ProfileMate] %s", sentence);
}

/* The probe custom says nothing of what it leaves out but in notes. */
static void warn_of_custom(void)
{
    struct pm_custom *custom = session.settings.custom[0] ? malloc(sizeof *custom) : NULL;
    if (custom)
        pm_custom_parse(session.settings.custom, custom, keep_warning, NULL);
    free(custom);
}

/* Values that were asked for while the process ran, by row of the settings; NULL: the environment
 * says. */
static char *asked[SETTINGS_MAX];

static const char *look_up(const char *name, void *arg)
{
    static const char first[] = "VLLM_PROFILING_", second[] = "PROFILEMATE_";
    const bool is_first = strncmp(name, first, sizeof first - 1) == 0;
    const char *suffix = name + (is_first ? sizeof first : sizeof second) - 1;
    (void)arg;
    for (size_t i = 0; i < pm_setting_rows_count && i < SETTINGS_MAX; i++) {
        if (asked[i] && strcmp(pm_setting_rows[i].env, suffix) == 0)
            return is_first ? asked[i] : NULL;
    }
    return getenv(name);
}

static bool preset_is_named(void)
{
    const char *value = look_up("VLLM_PROFILING_PRESET", NULL);
    const char *own = getenv("PROFILEMATE_PRESET");
    return (value && value[0]) || (own && own[0]);
}

bool pm_session_ask(const struct pm_setting_row *row, const char *value)
{
    const size_t i = (size_t)(row - pm_setting_rows);
    char *copy = value && i < SETTINGS_MAX ? strdup(value) : NULL;
    if (value && !copy)
        return false;
    free(asked[i]);
    asked[i] = copy;
    return true;
}

void pm_session_settings(struct pm_settings *ret_settings, pm_settings_warn_fn warn)
{
    pm_settings_read(ret_settings, look_up, NULL, warn, NULL);
    if (pm_place_is_simple(pm_place_file()) && !preset_is_named())
        ret_settings->preset = PM_PRESET_SIMPLE;
}

/* Where children find it. */
static void put_token(void)
{
    char token[256];
    pm_birth_format(&session.birth, token, sizeof token);
    pm_guide_put(PM_SESSION_ENV, token);
}

/* A child of fork(): Python's fork holds the GIL, so nothing here is half done. The recorder is
 * the parent's and must not be touched but to be dropped, later. */
static void forked(void)
{
    if (session.rec) {
        session.stale = session.rec;
        session.rec = NULL;
        pm_attributes_attach(NULL);
        session.roles = 0;
    }
    session.birth.root = false;
}

/* Whether dir is this session's, born by another process of the server. */
static bool is_ours(const char *dir)
{
    struct pm_birth_file file;
    return pm_birth_read(dir, &file) == 0 &&
           memcmp(file.birth.token, session.birth.token, PM_TOKEN_BYTES) == 0;
}

/* A root that only starts others (torchrun) never opens the session itself. */
static bool find_born(char *out, size_t size)
{
    for (int n = 1; n <= 9; n++) {
        int length =
            n == 1 ? snprintf(out, size, "%s/%s", session.settings.dir, session.birth.name)
                   : snprintf(out, size, "%s/%s_%d", session.settings.dir, session.birth.name, n);
        if (length < 0 || (size_t)length >= size || access(out, F_OK) < 0)
            return false;
        if (is_ours(out))
            return true;
    }
    return false;
}

/* The session of the environment, or a new one. A process that starts a server begins one of its
 * own; but one that only executed itself again (the same process) goes on with it, and under
 * `profilemate run` the first server, whoever started it, is the one that was meant. */
static void take_session(const struct pm_gate_verdict *verdict)
{
    const char *token = getenv(PM_SESSION_ENV);
    bool found = token && pm_birth_parse(token, &session.birth) == 0;
    bool same = found && session.birth.root_pid == (uint32_t)getpid();
    bool of_run = found && getenv("PROFILEMATE_RUN");
    if (of_run && !same && verdict->server) {
        char dir[PATH_MAX];
        same = !find_born(dir, sizeof dir);
    }
    if (found && (same || !verdict->server)) {
        session.birth.root = same;
        session.of_run = of_run;
        return;
    }
    pm_birth_reserve(&session.birth);
    session.birth.root = true;
    put_token();
}

/* What a process needs once, whichever session comes first. */
static void prepare_process(void)
{
    if (session.n_schemas > 0)
        return;
    for (size_t p = 0; p < pm_probes_count; p++) {
        for (size_t s = 0; s < pm_probes[p]->n_schemas && session.n_schemas < SCHEMAS_MAX; s++)
            session.schemas[session.n_schemas++] = pm_probes[p]->schemas[s];
    }
    (void)pthread_atfork(NULL, NULL, forked);
    pm_finish_register();
}

void pm_session_begin(const struct pm_gate_verdict *verdict, const char *entry)
{
    pm_guide_take();
    pm_session_settings(&session.settings, NULL);
    take_session(verdict);
    session.active = true;
    pm_clock_init(); /* its rate is known by the time of the birth */
    session.asked = verdict->reason == PM_GATE_SWITCH_ON;
    session.entry = entry;
    pm_session_settings(&session.settings, keep_warning);
    session.birth.file_mode = (uint32_t)session.settings.mode;
    (void)pm_settings_enable(NULL, NULL, keep_warning, NULL);
    warn_of_custom();
    prepare_process();
}

void pm_session_begin_late(const struct pm_birth *birth)
{
    pm_clock_init();
    session.birth = *birth;
    session.birth.root = birth->root_pid == (uint32_t)getpid();
    pm_session_settings(&session.settings, NULL);
    session.birth.file_mode = (uint32_t)session.settings.mode;
    session.entry = "started";
    session.active = session.asked = session.late = true;
    session.mute = session.broken = session.of_run = false;
    session.dir[0] = '\0';
    prepare_process();
    put_token();
}

void pm_session_prefer_simple(void)
{
    if (!session.dir[0] && !preset_is_named())
        session.settings.preset = PM_PRESET_SIMPLE;
}

bool pm_session_active(void)
{
    return session.active;
}

void pm_session_mute(void)
{
    session.mute = true;
}

const char *pm_session_dir(void)
{
    return session.dir;
}

void pm_session_set(const struct pm_settings *settings)
{
    session.settings = *settings;
    pm_console_verbose(settings->verbose || settings->debug);
}

bool pm_facts_late(void)
{
    return session.late;
}

const struct pm_birth *pm_session_birth(void)
{
    return &session.birth;
}

unsigned pm_session_roles(void)
{
    return session.roles;
}

/* ---- birth ----------------------------------------------------------------------------------- */

/* One line where the session cannot be had, from the root or where there is no other to say it. */
static void give_up(const char *what, const struct pm_error *err)
{
    session.broken = true;
    pm_console_drop();
    if (!session.birth.root)
        return;
    char line[768];
    int length =
        snprintf(line, sizeof line, "[ProfileMate] %s: %s; nothing is recorded\n", what, err->text);
    if (length > 0)
        pm_console_write(line, (size_t)length < sizeof line ? (size_t)length : sizeof line - 1);
}

static uint64_t ceiling_bytes(void)
{
    uint64_t mb = (uint64_t)session.settings.max_mb;
    struct statfs fs;
    if (mb == 0)
        mb = statfs(session.dir, &fs) == 0 && fs.f_type == TMPFS_MAGIC ? 64
             : session.asked                                           ? 2048
                                                                       : 256;
    return mb << 20;
}

static bool find_directory(bool *ret_made)
{
    struct pm_error err = {{0}};
    bool fallback = false;
    int status = pm_birth_directory(&session.birth, session.settings.dir, session.dir,
                                    sizeof session.dir, ret_made, &fallback, &err);
    if (status < 0) {
        session.dir[0] = '\0';
        give_up("no place for a session", &err);
        return false;
    }
    if (fallback && *ret_made)
        pm_console_line("[ProfileMate] %s cannot be written: the session goes to %s",
                        session.settings.dir, session.dir);
    return true;
}

static bool open_recorder(void)
{
    struct pm_error err = {{0}};
    struct pm_recorder_options options = {
        .session_dir = session.dir,
        .token = session.birth.token,
        .schemas = session.schemas,
        .n_schemas = session.n_schemas,
        .ceiling_bytes = ceiling_bytes(),
        .file_mode = (uint32_t)session.settings.mode,
        .thread = true, /* started by the first fact: a front end that records none has none */
        .keyframe = pm_install_keyframe,
    };
    if (pm_recorder_open(&session.rec, &options, &err) < 0) {
        session.rec = NULL;
        give_up("the recorder could not be opened", &err);
        return false;
    }
    pm_attributes_attach(session.rec);
    pm_recorder_identify(session.rec, session.roles, session.engine, session.rank);
    pm_guard_attach(session.rec);
    return true;
}

static void close_recorder(void)
{
    struct pm_recorder *rec = session.rec;
    pm_attributes_attach(NULL);
    pm_guard_attach(NULL);
    session.rec = NULL;
    pm_recorder_close(rec);
}

/* Gives birth, or takes up a session that lives; then everything that waited for it. */
static bool ensure(void)
{
    if (session.rec)
        return true;
    if (!session.active || session.mute || session.broken)
        return false;
    if (session.stale) {
        pm_recorder_abandon(session.stale);
        session.stale = NULL;
        pm_install_reset();
    }
    bool made = false, first = session.dir[0] == '\0';
    if (first && !find_directory(&made))
        return false;
    if (first) {
        (void)pm_clock_steer(NULL, NULL, NULL); /* no helper thread does it yet */
        pm_about_process(session.entry);
        pm_install_attributes();
    }
    if (!open_recorder())
        return false;
    if (made)
        pm_about_write_metadata();
    if (session.late)
        pm_console_drop(); /* whoever asked for it is told by the command */
    if (first)
        pm_console_born(&session.settings, session.dir, made && !session.late);
    pm_control_publish();
    return true;
}

bool pm_facts_identify(unsigned roles, int engine, int rank)
{
    session.roles |= roles;
    if (engine >= 0)
        session.engine = engine;
    if (rank >= 0)
        session.rank = rank;
    if (!ensure())
        return false;
    pm_recorder_identify(session.rec, session.roles, session.engine, session.rank);
    return true;
}

/* ---- what probes see (probe/probe.h) --------------------------------------------------------- */

struct pm_recorder *pm_facts(void)
{
    if (__builtin_expect(session.rec != NULL, 1))
        return session.rec;
    return ensure() ? session.rec : NULL;
}

void pm_facts_doing(unsigned doing, uint64_t since_ns)
{
    if (__builtin_expect(session.rec != NULL, 1))
        pm_recorder_doing(session.rec, doing, since_ns);
}

void pm_facts_raised(const char *what, unsigned doing, uint64_t step, const struct pm_call *call)
{
    char key[96];
    pm_facts_doing(doing | PM_DOING_RAISED, call->end_ns);
    PyObject *name = call->raised != NULL ? PyObject_GetAttrString(call->raised, "__name__") : NULL;
    const char *text =
        name != NULL && PyUnicode_Check(name) ? PyUnicode_AsUTF8AndSize(name, NULL) : NULL;
    PyErr_Clear();
    snprintf(key, sizeof key, PM_ATTR_RAISED_PREFIX "%s", what);
    pm_attributes_set(key, "%s at step %llu", text != NULL ? text : "an exception",
                      (unsigned long long)step);
    Py_XDECREF(name);
}

unsigned pm_facts_schema(const struct pm_schema *schema)
{
    for (size_t i = 0; i < session.n_schemas; i++) {
        if (session.schemas[i] == schema)
            return (unsigned)i;
    }
    return SCHEMAS_MAX; /* none of the registry's: the recorder refuses it */
}

const struct pm_settings *pm_facts_settings(void)
{
    return &session.settings;
}

void pm_facts_say(const char *format, ...)
{
    if (!session.settings.verbose && !session.settings.debug)
        return;
    char line[512];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line, sizeof line - 1, format, args);
    va_end(args);
    if (length < 0)
        return;
    pm_console_line("%s", line);
}

/* ---- the end of a session, and of the process
 * ------------------------------------------------------------------------------------- */

void pm_session_end(void)
{
    if (session.rec)
        close_recorder();
    if (session.active)
        pm_guide_put(PM_SESSION_ENV, NULL);
    session.active = false;
    session.dir[0] = '\0';
    pm_console_drop();
    pm_attributes_forget(PM_ATTR_FIRED_PREFIX);
    pm_attributes_forget(PM_ATTR_HOOK_PREFIX);
    pm_attributes_forget(PM_ATTR_PROBE_PREFIX);
    pm_attributes_forget(PM_ATTR_RAISED_PREFIX);
    pm_attributes_forget(PM_ATTR_MARK_PREFIX);
}

void pm_session_finish(bool python_has_gone)
{
    bool root = session.birth.root && session.birth.root_pid == (uint32_t)getpid();
    /* With Python still alive (a library called exit) a thread may be in a hook: the file is valid
     * as it is. */
    if (python_has_gone && session.rec && !pm_recorder_forked(session.rec)) {
        pm_install_finish(session.rec);
        close_recorder();
    }
    if (!root || !session.active || session.broken || session.mute || session.of_run)
        return;
    if (session.dir[0] || find_born(session.dir, sizeof session.dir))
        pm_finish_export(session.dir);
}
