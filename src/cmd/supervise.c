/*
 * Runs one command: see supervise.h.
 *
 * The child stays in our process group, so that the terminal's Ctrl+C, Ctrl+\ and Ctrl+Z reach it
 * without us, as if it had been started by itself. Such a signal comes from the kernel (si_code
 * SI_KERNEL) and is not sent a second time; one that a process sent to us alone (kill, `docker
 * stop`, systemd, a batch system) is passed on. vLLM takes a second Ctrl+C as the wish to end
 * without cleaning up, so that sending it twice would do harm.
 */
#include "cmd/supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const int passed_on[] = {
    SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGTSTP, SIGCONT, SIGWINCH,
};

/* In the child, between fork and exec. The parent has one thread, so that any call is safe. */
static void become(const struct pm_supervisor *sup, char *const *argv, char *const *envp, int tell)
{
    sigaction(SIGCHLD, &sup->chld, NULL);
    sigprocmask(SIG_SETMASK, &sup->mask_before, NULL);
    execvpe(argv[0], argv, envp);
    int why = errno;
    ssize_t written = write(tell, &why, sizeof(why));
    (void)written;
    _exit(127);
}

int pm_supervisor_start(struct pm_supervisor *sup, char *const *argv,
                        char *const *(*environment)(void *arg), void *arg)
{
    struct sigaction plain = {.sa_handler = SIG_DFL};
    int tell[2], why = 0;
    *sup = (struct pm_supervisor){0};
    sigemptyset(&sup->taken);
    sigaddset(&sup->taken, SIGCHLD);
    for (size_t i = 0; i < sizeof(passed_on) / sizeof(passed_on[0]); i++)
        sigaddset(&sup->taken, passed_on[i]);
    if (pipe2(tell, O_CLOEXEC) != 0)
        return errno;
    /* Orphans of the server come to us, so that we know when the last of it has ended. */
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    sigprocmask(SIG_BLOCK, &sup->taken, &sup->mask_before);
    sigaction(SIGCHLD, &plain, &sup->chld); /* ignored, it would lose us the exit status */
    sup->child = fork();
    if (sup->child == 0)
        become(sup, argv, environment(arg), tell[1]);
    if (sup->child < 0)
        why = errno;
    close(tell[1]);
    if (sup->child > 0) {
        ssize_t n;
        do
            n = read(tell[0], &why, sizeof(why));
        while (n < 0 && errno == EINTR);
        if (n == (ssize_t)sizeof(why))
            while (waitpid(sup->child, &sup->status, 0) < 0 && errno == EINTR)
                ;
        else
            why = 0;
    }
    close(tell[0]);
    if (why != 0)
        pm_supervisor_finish(sup);
    return why;
}

/* Reaps whoever has ended. Returns false when no child of any kind is left. */
static bool reap(struct pm_supervisor *sup)
{
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid == 0)
            return true;
        if (pid < 0 && errno == EINTR)
            continue;
        if (pid < 0)
            return false;
        if (pid == sup->child) {
            sup->status = status;
            sup->ended = true;
        }
    }
}

/* Whether the child got this signal by itself. */
static bool child_has_it(const struct pm_supervisor *sup, const siginfo_t *info)
{
    if (info->si_code <= 0 && info->si_pid == sup->child)
        return true; /* it sent it, to its group or to us */
    if (info->si_code != SI_KERNEL)
        return false;
    /* A hang-up is told to the leader of the session only. */
    if (info->si_signo == SIGHUP && getsid(0) == getpid())
        return false;
    return getpgid(sup->child) == getpgrp();
}

/* Stops us as Ctrl+Z would have, until someone says to go on. */
static void stop_ourselves(void)
{
    sigset_t tstp;
    sigemptyset(&tstp);
    sigaddset(&tstp, SIGTSTP);
    raise(SIGTSTP);
    sigprocmask(SIG_UNBLOCK, &tstp, NULL);
    sigprocmask(SIG_BLOCK, &tstp, NULL);
}

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Takes the next signal, or 0 when the time is over. */
static int next_signal(const struct pm_supervisor *sup, int limit_ms, siginfo_t *ret_info)
{
    int signal;
    if (limit_ms < 0)
        signal = sigwaitinfo(&sup->taken, ret_info);
    else {
        const struct timespec limit = {.tv_sec = limit_ms / 1000,
                                       .tv_nsec = limit_ms % 1000 * 1000000L};
        signal = sigtimedwait(&sup->taken, ret_info, &limit);
    }
    return signal > 0 ? signal : 0; /* 0: EINTR, EAGAIN */
}

void pm_supervisor_wait(struct pm_supervisor *sup, const struct pm_supervisor_watch *watch)
{
    int64_t due_ms = 0;
    int held = 0;
    while (!sup->ended) {
        siginfo_t info;
        int64_t left_ms = -1;
        if (watch != NULL) {
            int64_t now = now_ms();
            if (now >= due_ms)
                due_ms = now + watch->tick(watch->arg);
            if (held != 0 && !watch->hold(held, watch->arg)) {
                kill(sup->child, held);
                held = 0;
            }
            left_ms = due_ms - now_ms();
            if (left_ms < 0)
                left_ms = 0;
        }
        int signal = next_signal(sup, (int)left_ms, &info);
        if (signal == 0)
            continue;
        if (signal == SIGCHLD) {
            if (!reap(sup))
                break;
            continue;
        }
        if (signal == SIGINT || signal == SIGTERM || signal == SIGHUP || signal == SIGQUIT)
            sup->asked = signal;
        if (!child_has_it(sup, &info)) {
            if (held != 0)
                kill(sup->child, held);
            else if (watch != NULL && watch->hold(signal, watch->arg)) {
                held = signal;
                continue;
            }
            held = 0;
            kill(sup->child, signal);
        }
        if (signal == SIGTSTP)
            stop_ourselves();
    }
}

void pm_supervisor_settle(struct pm_supervisor *sup, int limit_ms, bool (*wanted)(void *arg),
                          void *arg)
{
    const struct timespec pause = {.tv_nsec = 50 * 1000 * 1000};
    bool init = getpid() == 1;
    int64_t until = now_ms() + limit_ms;
    while (reap(sup) && !sup->interrupted && now_ms() < until && (init || wanted(arg))) {
        int signal = sigtimedwait(&sup->taken, NULL, &pause);
        if (signal != SIGTERM && signal != SIGINT && signal != SIGHUP && signal != SIGQUIT)
            continue;
        if (init)
            kill(-1, signal);
        else
            sup->interrupted = true;
    }
}

void pm_supervisor_finish(struct pm_supervisor *sup)
{
    const struct timespec none = {0};
    while (sigtimedwait(&sup->taken, NULL, &none) > 0)
        ;
    sigaction(SIGCHLD, &sup->chld, NULL);
    sigprocmask(SIG_SETMASK, &sup->mask_before, NULL);
}

int pm_supervisor_exit_code(const struct pm_supervisor *sup)
{
    if (WIFSIGNALED(sup->status))
        return 128 + WTERMSIG(sup->status);
    return WEXITSTATUS(sup->status);
}
