/*
 * The control page: how `profilemate set`, `start` and `stop` talk to a process of vLLM, and the
 * contract between the extension (hook/control.c) and the program (live/control.c).
 *
 * Each process of vLLM in which the extension is loaded has one page, a sealed memfd of its own
 * that nothing on the disk names: the program opens it through /proc/<pid>/fd, which the kernel
 * grants to the process's own user and to root, to nobody else. It lives as long as the process,
 * records or not, and cannot be cut short (a store behind the end of a file would be a SIGBUS).
 *
 *   program                                     process
 *   -------                                     -------
 *   lock (flock on its own open file)           a thread of ours sleeps on `bell`, for ever
 *   slot[n % SLOTS].request = text
 *   bell = n, FUTEX_WAKE  ------------------->  heard = n; Py_AddPendingCall
 *   waits on `answered`                         … the interpreter's main thread comes by:
 *                                               reads the requests answered + 1 .. bell, does them,
 *   reads the answer       <------------------  slot.answer = text, answered = n, FUTEX_WAKE
 *
 * Requests and answers are text, lines that end with a newline, keys and values separated by one
 * blank. A request is one of
 *   set\n<field> <value>\n…          fields of base/settings.def
 *   detail\n<steps>\n
 *   start\n<birth>\n<field> <value>\n…   birth: as in VLLM_PROFILING_SESSION
 *   stop\n
 * An answer begins with a line `ok` or `no <reason>`; the others are `note <sentence>`, `session
 * <path>`, `done <field> <value>`, `refused <field> <reason>`, `hooks <in place> <missing>
 * <waiting for an import>`.
 *
 * `status` is what holds now, written by the process alone: lines `state dormant|recording`,
 * `roles <bits>`, `birth <…>`, `session <path>`, `set <field> <value>`, `detail <steps left>`.
 * status_seq is odd while it is being written.
 */
#ifndef PM_SESSION_CONTROL_H
#define PM_SESSION_CONTROL_H

#include <stdatomic.h>
#include <stdint.h>

#define PM_CONTROL_NAME "profilemate-control"  /* /proc shows /memfd:profilemate-control */
#define PM_CONTROL_MAGIC 0x4c525443454d4650ull /* "PFMECTRL" */
#define PM_CONTROL_VERSION 1u
#define PM_CONTROL_GROUP_BYTES 16
#define PM_CONTROL_SLOTS 4u
#define PM_CONTROL_REQUEST_MAX 3072u
#define PM_CONTROL_ANSWER_MAX 4096u
#define PM_CONTROL_STATUS_MAX 8192u

struct pm_control_slot {
    char request[PM_CONTROL_REQUEST_MAX];
    char answer[PM_CONTROL_ANSWER_MAX];
};

struct pm_control_page {
    uint64_t magic;
    uint32_t version;
    uint32_t bytes;    /* of this struct */
    uint32_t pid;      /* as the process itself sees it: a child of fork() has inherited the page of
                          its parent until it has made its own */
    uint32_t root_pid; /* of the process that its server began with, likewise */
    uint8_t group[PM_CONTROL_GROUP_BYTES]; /* the same in all processes of one server */
    _Atomic uint32_t bell;                 /* number of the newest request; a futex */
    _Atomic uint32_t heard;                /* handed to the interpreter */
    _Atomic uint32_t answered;             /* a futex */
    _Atomic uint32_t status_seq;
    char status[PM_CONTROL_STATUS_MAX];
    struct pm_control_slot slots[PM_CONTROL_SLOTS];
};

/* In the environment of the children of a server that does not record: "<root pid>:<group, hex>".
 */
#define PM_CONTROL_ENV "PROFILEMATE_DORMANT"

#endif
