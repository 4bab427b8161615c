/*
 * Function tracing on disk: the table of call paths beside a process's record file, and the record
 * of one call. Written by src/probe/function_*.c, read by src/reader/functions.c. Pure C.
 *
 * The table is the file p<pid>-<8 hex digits>.pmfun beside the .pmrec of the same name. The process
 * counts in it directly, through a shared mapping: what was counted is there however the process
 * ends, its size is fixed when it is made, and it may be read at any time.
 *
 *   | head, 4096 bytes | functions_max rows | nodes_max nodes | text_max bytes of text |
 *
 * A node is a call path: a function called from the path that is its parent. Node 0 is nothing.
 * The outermost node of each thread stands for the thread itself. A node's self time is the time
 * that its function ran while no function it called did; the time of a path is that of all nodes
 * below it. A node whose parent is 0 and whose function is no thread holds the calls of a function
 * by paths for which there was no room.
 *
 * Texts are UTF-8 with their length before them: u16 bytes, then the bytes. Offset 0 is the empty
 * text. All numbers are little-endian, those marked (live) change while the process runs.
 */
#ifndef PM_SESSION_FUNCTION_FACTS_H
#define PM_SESSION_FUNCTION_FACTS_H

#include <stdint.h>

#include "session/layout.h"

#define PM_FUNCTION_MAGIC 0x314e5546454d4650ull /* "PFMEFUN1" */
#define PM_FUNCTION_VERSION 1u
#define PM_FUNCTION_SUFFIX ".pmfun"

#define PM_FUNCTION_ROWS 16384u       /* functions told apart */
#define PM_FUNCTION_PATHS 229376u     /* call paths told apart; each function has one node more */
#define PM_FUNCTION_TEXT (3u << 19)   /* 1.5 MiB of names */
#define PM_FUNCTION_TEXT_LONGEST 512u /* bytes kept of a text */
#define PM_FUNCTION_FILTER 512u

enum pm_function_by {
    PM_FUNCTION_BY_MONITORING = 1, /* sys.monitoring */
    PM_FUNCTION_BY_PROFILE = 2,    /* PyEval_SetProfile */
};

struct pm_function_head {
    uint64_t magic;
    uint32_t version;
    uint32_t head_bytes;
    uint8_t token[PM_TOKEN_BYTES]; /* of the session */
    uint32_t pid;
    uint32_t by;        /* enum pm_function_by */
    uint64_t start_ns;  /* when tracing began */
    uint32_t row_bytes; /* sizeof struct pm_function_row, and so on: later versions may append */
    uint32_t node_bytes;
    uint32_t rows_max, nodes_max;
    uint32_t text_max;
    uint32_t n_rows;     /* (live) row 0 is nothing */
    uint32_t n_nodes;    /* (live) paths: nodes 0 … n_nodes - 1 */
    uint32_t n_flat;     /* (live) the others: the last n_flat nodes */
    uint32_t text_bytes; /* (live) */
    uint32_t reserved;
    uint64_t last_ns;    /* (live) of the last call that was counted */
    uint64_t flat_calls; /* (live) calls counted by function only: no room for their path */
    uint64_t lost_calls; /* (live) calls of functions for which there was no room */
    uint64_t records;    /* (live) calls recorded one by one */
    uint64_t short_ns;   /* (live) calls shorter than this are counted, not recorded */
    uint64_t unended;    /* (live) calls whose end was not seen */
    char filter[PM_FUNCTION_FILTER]; /* the setting, NUL-terminated */
    uint64_t paused_ns;              /* (live) of pauses that are over: nothing was counted */
    uint32_t pauses;                 /* (live) begun: another profiler needed the threads */
    uint32_t reserved2;
};
_Static_assert(sizeof(struct pm_function_head) <= 4096, "the head has its page");

enum pm_function_flags {
    PM_FUNCTION_THREAD = 1,    /* no function: a thread, `line` is its number (tid) */
    PM_FUNCTION_GENERATOR = 2, /* generator or coroutine: may be resumed */
    PM_FUNCTION_OTHERS = 4,    /* stands for all functions for which there was no room */
};

struct pm_function_row {
    uint32_t module, name, file; /* texts */
    uint32_t line;               /* of its first line in the file */
    uint32_t flags;              /* enum pm_function_flags */
    uint32_t reserved;
};

struct pm_function_node {
    uint32_t parent; /* always made before this one */
    uint32_t row;
    uint64_t calls;   /* begun */
    uint64_t resumes; /* of a generator or coroutine after a yield or await */
    uint64_t raised;  /* left by an exception */
    uint64_t self_ns;
    uint64_t max_ns; /* longest stay: from call or resume to return or yield */
    uint64_t reserved[2];
};
_Static_assert(sizeof(struct pm_function_node) == 64, "a node is one line of the cache");

/* How functions are traced in a process: "sys.monitoring", "PyEval_SetProfile", or "off: <why>". */
#define PM_ATTR_FUNCTIONS "functions"

/* Schema "function_call", stream custom: one stay in a function, for the timeline. At most about
 * ten thousand a second are recorded, the longest ones. */
struct pm_function_call {
    uint64_t start_ns; /* call or resume */
    uint64_t dur_ns;   /* to the return or yield */
    uint32_t node;
    uint32_t tid;
};

#endif
