/*
 * The end of the root process: a session becomes its files. Runs at the end of Py_Finalize, or
 * from libc's exit() where that is not called: no Python. Engines and workers are usually killed
 * before they come here; their files are valid without it.
 *
 * The program's `export` is started in a session of its own, so that a terminal's Ctrl+C does not
 * reach it, and waited for 3 s at most. Where `profilemate run` has made up the session it does
 * this itself.
 */
#include "hook/session.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "hook/compat.h"
#include "hook/console.h"
#include "hook/hook.h"

#define WAIT_MS 3000

extern char **environ;

static void finish(bool python_has_gone)
{
    static bool done;
    if (!done)
        pm_session_finish(python_has_gone);
    done = true;
}

/* The last thing that Py_Finalize does. After an uncaught KeyboardInterrupt that is also the last
 * thing of the process, which then kills itself with SIGINT. */
static void at_finalize(void)
{
    finish(true);
}

static void at_exit(void)
{
    finish(!Py_IsInitialized());
}

void pm_finish_register(void)
{
    (void)Py_AtExit(at_finalize); /* there are places for 32 */
    (void)atexit(at_exit);
}

static void say(const char *what, const char *program, const char *dir)
{
    char line[2 * PATH_MAX + 256];
    int length =
        snprintf(line, sizeof line, "[ProfileMate] %s: %s export %s\n", what, program, dir);
    if (length > 0)
        pm_console_write(line, (size_t)length < sizeof line ? (size_t)length : sizeof line - 1);
}

/* Waits for the child until it ends or the time is up; true if it ended. *ret_ok: with 0. */
static bool wait_for(pid_t child, bool *ret_ok)
{
    struct timespec nap = {.tv_nsec = 5000000};
    for (int waited_ms = 0; waited_ms < WAIT_MS; waited_ms += 5) {
        int status = 0;
        pid_t ended = waitpid(child, &status, WNOHANG);
        if (ended == child || ended < 0) { /* < 0: SIGCHLD is ignored here, or somebody reaped it */
            *ret_ok = ended < 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 0);
            return true;
        }
        (void)nanosleep(&nap, NULL);
    }
    return false;
}

void pm_finish_export(const char *session_dir)
{
    char program[PATH_MAX];
    if (!pm_place_program(program, sizeof program)) {
        say("this session's files are written by", "profilemate", session_dir);
        return;
    }
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    if (posix_spawnattr_init(&attributes) != 0)
        return;
    if (posix_spawn_file_actions_init(&actions) != 0) {
        posix_spawnattr_destroy(&attributes);
        return;
    }
    sigset_t none, defaults;
    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGINT), sigaddset(&defaults, SIGTERM), sigaddset(&defaults, SIGPIPE);
    (void)posix_spawnattr_setsigmask(&attributes, &none);
    (void)posix_spawnattr_setsigdefault(&attributes, &defaults);
    (void)posix_spawnattr_setflags(
        &attributes, (short)(POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF));
    /* It outlives us perhaps: it must not hold the caller's pipes open. */
    (void)posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    (void)posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    (void)posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    char export_word[] = "export", folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", session_dir);
    char *const argv[] = {program, export_word, folder, NULL};
    pid_t child;
    int failed = posix_spawn(&child, program, &actions, &attributes, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    bool ok = false;
    if (failed || (wait_for(child, &ok) && !ok))
        say("the files of this session could not be written; to try again", program, session_dir);
    else if (!ok)
        say("still writing the files of this session; to repeat it", program, session_dir);
}
