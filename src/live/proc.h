/*
 * What the kernel says of a process: whether it is there, in which state, what it has used. Read
 * from /proc, never more than a few small files; called by the live views on one thread. Owns
 * nothing.
 *
 * The pids that a session's files hold are those of the server's own pid namespace. The one to look
 * under here is the owner of the file's lock, which the kernel translates; where it is not to be
 * had, the recorded one, if the process of that number began at the recorded moment.
 */
#ifndef PM_LIVE_PROC_H
#define PM_LIVE_PROC_H

#include "reader/reader.h"

struct pm_proc {
    uint32_t pid; /* as we see it; 0: not to be seen from here */
    uint32_t ppid;
    char state; /* R, S, D, T, t, Z, …; 0: unknown */
    char comm[16];
    char wchan[48]; /* where in the kernel it sleeps; "": not told */
    uint32_t threads;
    uint64_t start_ticks; /* since the machine began */
    uint64_t cpu_ticks;   /* user and system time */
    uint64_t rss_bytes;
    int exit_status; /* of a zombie, as of wait(); -1: not told */
};

/* Looks under a pid of ours. false: there is no such process. */
bool pm_proc_read(uint32_t pid, struct pm_proc *ret_proc);

/* Looks for the process of a record file, zombies included. false: it cannot be found here. */
bool pm_proc_of(const struct pm_process_info *info, struct pm_proc *ret_proc);

/* The state of one thread of it, by its id in the process's own namespace; 0: not to be had. */
char pm_proc_thread_state(const struct pm_proc *proc, const struct pm_process_info *info,
                          uint32_t tid);

/* "running", "sleeping", "in uninterruptible sleep", …: a state's letter in words. */
const char *pm_proc_state_text(char state);

/* How a wait status reads: "killed by signal 9 (SIGKILL)", "exited with 1". */
void pm_proc_status_text(int status, char *out, size_t size);

/* The memory of this machine, and of a cgroup (version 2, by its path; NULL or "": our own), bytes;
 * UINT64_MAX where not known. */
struct pm_memory {
    uint64_t total, available, swap_total, swap_free;
    uint64_t group_used, group_limit, group_oom_kills;
};
void pm_memory_read(const char *cgroup, struct pm_memory *ret_memory);

#endif
