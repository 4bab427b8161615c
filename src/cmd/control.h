/*
 * What `set`, `start` and `stop` share: which processes are meant, the words `name=value`, asking
 * all of them at once, and telling what came of it.
 */
#ifndef PM_CMD_CONTROL_H
#define PM_CMD_CONTROL_H

#include "cmd/place.h"
#include "live/control.h"

/* The wanted values as lines of a request, appended to out: `field value`. Words are `name=value`,
 * several may stand in one with commas between. begin: for a session that begins (start). Returns
 * an exit code; a bad word is told on stderr. */
int pm_control_words(const char *command, bool begin, int count, char **words, char *out,
                     size_t size);

/* The settings that may be given, as the end of --help. */
void pm_control_help(bool begin);

/* The time of --wait in seconds, text NULL: the default. An exit code. */
int pm_control_limit(const char *command, const char *text, uint64_t *ret_ns);

/* The processes of a server: of a process's id, or of a session that is recorded (meant NULL: the
 * newest of one's own). An exit code; what is wrong is told. ret_place may be NULL; its path is ""
 * where meant was a pid. */
int pm_control_meant(const char *meant, const char *dir, struct pm_controls *ret_controls);

/* "12" as a pid; 0: it is none. */
uint32_t pm_control_pid(const char *word);

struct pm_control_ending {
    const char *done, *queued; /* what a process that answered has done, one asleep will do */
    bool refusal_fails;        /* what was refused had been asked for by name */
};

/* Tells how it went, process by process. Returns the exit code: failed where one did not do it. */
int pm_control_tell(const struct pm_controls *controls, const struct pm_control_ending *words);

/* The same as the members of a JSON object that is open. Returns the exit code. */
struct pm_json;
int pm_control_tell_json(const struct pm_controls *controls, const struct pm_control_ending *words,
                         struct pm_json *json);

/* "engine core, worker": what a process is, by its status; else its name. */
void pm_control_role(const struct pm_control_process *process, char *out, size_t size);

#endif
