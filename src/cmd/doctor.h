/*
 * What doctor's parts share: the list of findings and the table of hooks.
 *
 *   doctor.c          the command: options, the order of the checks, text and JSON
 *   doctor_command.c  a command line: which Python runs it, what the gate decides
 *   doctor_setup.c    settings, where sessions go, the clock
 *   doctor_python.c   which Python and vLLM, how the extension gets in, which hooks exist
 *   doctor_custom.c   hooks of the user's own (VLLM_PROFILING_CUSTOM)
 *   doctor_torch.c    torch's profiler: its variables, folder and room
 *   doctor_model.c    the model and the front end of a command
 *   doctor_ray.c      what reaches the workers where they are Ray's
 *   doctor_session.c  a session: which hooks fired, what was lost, how its processes ended
 */
#ifndef PM_CMD_DOCTOR_H
#define PM_CMD_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>

#include "base/custom.h"
#include "base/error.h"
#include "cmd/place.h"

enum pm_mark {
    PM_MARK_FINE,
    PM_MARK_NOTE,    /* worth knowing, nothing to do */
    PM_MARK_WARNING, /* works, but perhaps not as meant */
    PM_MARK_PROBLEM, /* exit code 1 */
};

struct pm_finding {
    enum pm_mark mark;
    const char *section; /* "Python", "Settings", … */
    const char *id;      /* stays the same over releases, for scripts: "python-version" */
    char *text;          /* one sentence */
    char *advice;        /* what to do; NULL: nothing */
};

struct pm_findings {
    struct pm_finding *list;
    size_t count, room;
    const char *section; /* of the findings to come */
    size_t problems, warnings;
    bool failed; /* memory ran out */
};

void pm_doctor_release(struct pm_findings *findings);

/* Adds one. advice: a sentence, NULL where there is nothing to do. */
void pm_find(struct pm_findings *findings, enum pm_mark mark, const char *id, const char *advice,
             const char *format, ...) PM_PRINTF(5, 6);
/* Gives the last finding its advice with figures in it. */
void pm_advise(struct pm_findings *findings, const char *format, ...) PM_PRINTF(2, 3);

/* A hook of the probes: a row of probe/targets.def. */
struct pm_hook_row {
    const char *probe, *module, *qualname;
    const char *target; /* "module:qualname" */
    bool optional;
    const char *versions;   /* "0.12.0+" */
    const char *quiet_when; /* NULL: it always fires in a process that has it */
};
extern const struct pm_hook_row pm_hook_rows[];
extern const size_t pm_hook_rows_count;
/* Whether an earlier row is of the same place in vLLM: several probes may hook one, which is told
 * once. */
bool pm_hook_row_repeats(size_t i);

/* Compares two versions by their first three numbers: < 0, 0, > 0. "0.12.0+" is 0.12.0. */
int pm_version_compare(const char *a, const char *b);

/* The vLLM releases that ProfileMate's hooks were checked against. */
#define PM_VLLM_OLDEST "0.11.0"
#define PM_VLLM_NEWEST "0.33.0"

/* What the user means to run: the words after `--`, and what follows from them. */
struct pm_subject {
    char *const *command; /* NULL: none given */
    size_t count;
    bool by_run;        /* it was `profilemate run … -- COMMAND`: command is COMMAND */
    const char *python; /* the interpreter asked */
    char python_buf[PATH_MAX];
    const char *flags[8]; /* of the interpreter, of those that change what it loads: -E -I -s -S */
    size_t n_flags;
    bool is_python;           /* the command is known to be run by `python` */
    char script[PATH_MAX];    /* path of the script with a #! line, "" else */
    char path_word[PATH_MAX]; /* the file that command[0] is; "" when there is none */
};

/* doctor_command.c */
/* Works out from the command which Python would run it. asked: --python, NULL else. */
void pm_doctor_subject(struct pm_subject *subject, char *const *command, size_t count,
                       const char *asked);
void pm_doctor_command(struct pm_findings *findings, const struct pm_subject *subject);

/* doctor_setup.c */
void pm_doctor_settings(struct pm_findings *findings);
void pm_doctor_output(struct pm_findings *findings);

/* doctor_torch.c */
void pm_doctor_torch(struct pm_findings *findings, const struct pm_subject *subject);

/* doctor_python.c */
void pm_doctor_python(struct pm_findings *findings, const struct pm_subject *subject);

/* doctor_model.c */
void pm_doctor_model(struct pm_findings *findings, const struct pm_subject *subject);
void pm_doctor_frontend(struct pm_findings *findings);

/* doctor_ray.c: of a command whose workers are Ray's; answers: of its Python. */
struct pm_answers;
void pm_doctor_ray(struct pm_findings *findings, const struct pm_subject *subject,
                   const struct pm_answers *answers);

/* doctor_custom.c */
struct pm_session;
struct pm_hook_state;
void pm_doctor_custom_setting(struct pm_findings *findings, const struct pm_settings *settings);
/* The custom hooks of the environment, NULL: none. Free them with free(). */
struct pm_custom *pm_doctor_custom_asked(void);
/* Whether they exist: from the answers to their names. */
void pm_doctor_custom_python(struct pm_findings *findings, const struct pm_custom *custom,
                             const struct pm_answers *answers);
/* What became of them in a session, whose hooks stand in states. */
void pm_doctor_custom_session(struct pm_findings *findings, const struct pm_session *session,
                              const struct pm_hook_state *states, size_t count);

/* doctor_session.c. -PM_E… with a sentence when the session cannot be read. */
PM_MUST_USE int pm_doctor_session(struct pm_findings *findings, const struct pm_place *place,
                                  struct pm_error *err);

#endif
