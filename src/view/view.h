/*
 * Views: a session in, bytes out. Called by the program (src/cmd) on its main thread; nothing here
 * prints to a terminal, exits or changes a record file.
 *
 * Every view works on a session of a running server as well: it shows what was committed when it
 * read. Files are written beside their place under a temporary name and renamed when complete, so
 * that a reader sees the old file or the new one, never half of one; a full disk leaves the old
 * file in place and gives one sentence.
 */
#ifndef PM_VIEW_VIEW_H
#define PM_VIEW_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "reader/reader.h"
#include "reader/steps.h"

/* ---- The seeds' files (seed_export.c) ---- */

struct pm_export_options {
    const char *out_dir; /* NULL: the session's own folder; made if it does not exist */
    int preset;          /* enum pm_preset; -1: the one the session was recorded with */
};

struct pm_export_result {
    unsigned files; /* written, in all folders */
    uint64_t rows;  /* CSV rows in them, headers not counted */
    uint64_t bytes;
    int preset; /* enum pm_preset: the one used */
    char out_dir[4096];
};

/* Writes every file of the preset whose probe was on; files of probes that were off are not
 * touched. May be repeated at any time. 0, or -PM_E… with a sentence (-PM_ENOSPACE on a full disk);
 * files finished before the failure stay. ret_result may be NULL. */
PM_MUST_USE int pm_export_seed(const struct pm_session *session,
                               const struct pm_export_options *options,
                               struct pm_export_result *ret_result, struct pm_error *err);

/* ---- Native tables (native.c) ---- */

enum pm_native_format {
    PM_NATIVE_JSON, /* JSON Lines, one object per row */
    PM_NATIVE_CSV,  /* RFC 4180, one header */
};

/* The names of the tables that this session has: every schema of its processes, and "steps" (the
 * scheduler's and the worker's facts joined). Calls fn once per name, in order; stops when fn
 * returns non-zero and returns that. */
int pm_native_tables(const struct pm_session *session,
                     int (*fn)(const char *name, const char *sentence, void *arg), void *arg);

/* One table to a stream. JSON rows open with "table". -PM_ENOTFOUND for a name that the session
 * does not have. ret_rows may be NULL. */
PM_MUST_USE int pm_view_native(const struct pm_session *session, const char *table,
                               enum pm_native_format format, FILE *out, uint64_t *ret_rows,
                               struct pm_error *err);

/* All tables: with out_dir one file each, <table>.jsonl or <table>.csv (made if it does not exist);
 * with out_dir NULL all into `out` one after another (JSON only; CSV gives -PM_EINVALID where there
 * is more than one table). */
PM_MUST_USE int pm_export_native(const struct pm_session *session, enum pm_native_format format,
                                 const char *out_dir, FILE *out,
                                 struct pm_export_result *ret_result, struct pm_error *err);

/* ---- Text and JSON reports (report.c) ---- */

struct pm_window;
struct pm_buf;
struct pm_json;

struct pm_report_options {
    bool colour; /* ANSI colours: only when writing to a terminal that wants them */
    bool brief;  /* the few lines that `profilemate run` ends with */
    const struct pm_window *window; /* the part to show, see view/window.h; NULL: the whole, or the
                                       window that was laid over the session before */
    /* Both NULL, or what the room `explain` made: text that follows what ran; writes one value. */
    void (*findings_text)(struct pm_buf *buf, bool colour, bool brief, void *arg);
    void (*findings_json)(struct pm_json *json, void *arg);
    void *findings_arg;
};

/* What ran, forward passes by phase, batches, time breakdown, queues, hooks, losses and own cost;
 * 80 columns. An empty session is fine. */
PM_MUST_USE int pm_view_report_text(const struct pm_session *session,
                                    const struct pm_report_options *options, FILE *out,
                                    struct pm_error *err);

/* The same figures as one JSON object, for scripts. options may be NULL; colour and brief count for
 * nothing. */
PM_MUST_USE int pm_view_report_json(const struct pm_session *session,
                                    const struct pm_report_options *options, FILE *out,
                                    struct pm_error *err);

/* metadata.json as the full preset writes it. */
PM_MUST_USE int pm_view_metadata(const struct pm_session *session, FILE *out, struct pm_error *err);

/* ---- Models that other commands want too ---- */

/* How a hook stood in the processes of a session, from their attributes (hooks.c). */
struct pm_hook_state {
    char target[256];        /* "vllm.v1.core.sched.scheduler:Scheduler.schedule" */
    unsigned patched;        /* processes in which it was in place */
    unsigned missing;        /* processes whose vLLM does not have it */
    unsigned off;            /* processes in which its probe was off */
    unsigned fired;          /* processes in which it was called at least once */
    uint64_t first_fired_ns; /* CLOCK_MONOTONIC of the first call, 0: never */
};

/* All hooks, in order of their names. Free *ret_hooks with free(). */
PM_MUST_USE int pm_hooks_collect(const struct pm_session *session, struct pm_hook_state **ret_hooks,
                                 size_t *ret_count);

/* Whether the session was recorded with this setting (a field of base/settings.def: a BOOL, or a
 * TEXT that is empty when it is off) on; the default when no process says. */
bool pm_session_setting_on(const struct pm_session *session, const char *field, bool by_default);

/* The preset that the session was recorded with (enum pm_preset). */
int pm_session_preset(const struct pm_session *session);

/* How a session stands, in a word: "running" (a process of it is), "ended" (every front end, or
 * every process where none is known, closed its file), "killed" (one did not), "empty" (no process
 * has written yet). */
const char *pm_session_state(const struct pm_session *session);

/* An engine core's file has no end, and a front end saw its engine core gone before it began to end
 * itself: not one that vLLM ended, which it does by SIGKILL too. */
bool pm_engine_died(const struct pm_session *session);

/* How a process stands, in words: "running", "closed", "killed". */
const char *pm_life_name(enum pm_life life);

/* What a process is: "engine", "worker", "engine+worker", "frontend", …; "none" before its first
 * fact. */
void pm_roles_name(unsigned roles, char *out, size_t size);

/* A moment in ISO 8601 with the local zone: "2026-11-23T08:25:01.123+01:00". */
void pm_iso_time(uint64_t real_ns, char *out, size_t size);

/* CLOCK_MONOTONIC to CLOCK_REALTIME by the session's start; good to some ms over days. */
uint64_t pm_session_real_ns(const struct pm_session *session, uint64_t mono_ns);

#endif
