/*
 * Asking a Python. The child runs in a process group of its own, so that whatever it started can be
 * ended with it when it does not answer.
 */
#include "cmd/ask.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"

/* src/cmd/doctor_probe.py as bytes, NUL at the end, made by the build. */
static const char script[] = {
#include "cmd/doctor_probe.inc"
};

extern char **environ;

#define PM_ANSWER_MAX (1u << 20) /* of stdout; what is beyond makes the answer incomplete */
#define PM_GRUMBLE_MAX 4096      /* of stderr */

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Takes what is there; false at the end of the stream. Beyond the ceiling bytes are dropped. */
static bool take(int fd, struct pm_buf *buf)
{
    char bytes[4096];
    ssize_t n = read(fd, bytes, sizeof(bytes));
    if (n < 0)
        return errno == EINTR || errno == EAGAIN;
    if (n > 0)
        pm_buf_add(buf, bytes, (size_t)n);
    return n > 0;
}

/* Reads both streams until both end. false: it took too long. */
static bool listen_to(const int fds[2], struct pm_buf bufs[2])
{
    struct pollfd polls[2] = {{fds[0], POLLIN, 0}, {fds[1], POLLIN, 0}};
    int64_t until = now_ms() + PM_ASK_LIMIT_SEC * 1000;
    while (polls[0].fd >= 0) { /* a grandchild may keep stderr open: stdout's end counts */
        int64_t left = until - now_ms();
        if (left <= 0)
            return false;
        if (poll(polls, 2, (int)left) < 0 && errno != EINTR)
            return false;
        for (int i = 0; i < 2; i++)
            if (polls[i].fd >= 0 && polls[i].revents != 0 && !take(polls[i].fd, &bufs[i]))
                polls[i].fd = -1;
    }
    return true;
}

static void unescape(char *text)
{
    char *to = text;
    for (const char *from = text; *from != '\0'; from++) {
        if (*from == '\\' && from[1] != '\0') {
            from++;
            *to++ = *from == 't' ? '\t' : *from == 'n' ? '\n' : *from;
        } else {
            *to++ = *from;
        }
    }
    *to = '\0';
}

static int parse(const char *text, struct pm_answers *ret)
{
    struct pm_answers answers = {.text = strdup(text)};
    size_t lines = 1;
    for (const char *c = text; *c != '\0'; c++)
        lines += *c == '\n';
    answers.lines = calloc(lines, sizeof(answers.lines[0]));
    if (answers.text == NULL || answers.lines == NULL) {
        pm_answers_release(&answers);
        return -PM_ENOMEM;
    }
    char *rest = answers.text, *line;
    while ((line = strsep(&rest, "\n")) != NULL && answers.count < lines) {
        struct pm_answer *answer = &answers.lines[answers.count];
        answer->key = strsep(&line, "\t");
        for (size_t i = 0; i < 3; i++) {
            char *value = line != NULL ? strsep(&line, "\t") : NULL;
            if (value != NULL)
                unescape(value);
            answer->value[i] = value != NULL ? value : "";
        }
        if (answer->key[0] != '\0')
            answers.count++;
    }
    *ret = answers;
    return 0;
}

void pm_answers_release(struct pm_answers *answers)
{
    free(answers->text);
    free(answers->lines);
    *answers = (struct pm_answers){0};
}

const char *pm_answer(const struct pm_answers *answers, const char *key)
{
    for (size_t i = 0; i < answers->count; i++)
        if (strcmp(answers->lines[i].key, key) == 0)
            return answers->lines[i].value[0];
    return "";
}

static bool has_line(const struct pm_answers *answers, const char *key)
{
    for (size_t i = 0; i < answers->count; i++)
        if (strcmp(answers->lines[i].key, key) == 0)
            return true;
    return false;
}

/* Starts the child with its streams in pipes. 0 and the reading ends, or an errno value. */
static int start(char *const *argv, pid_t *ret_pid, int ret_fds[2])
{
    int out[2], grumble[2], tell[2], why = 0;
    if (pipe2(out, O_CLOEXEC) != 0)
        return errno;
    if (pipe2(grumble, O_CLOEXEC) != 0) {
        why = errno;
        goto close_out;
    }
    if (pipe2(tell, O_CLOEXEC) != 0) {
        why = errno;
        goto close_grumble;
    }
    *ret_pid = fork();
    if (*ret_pid == 0) {
        int none = open("/dev/null", O_RDONLY | O_CLOEXEC);
        setpgid(0, 0);
        if (dup2(none, 0) >= 0 && dup2(out[1], 1) >= 0 && dup2(grumble[1], 2) >= 0)
            execvpe(argv[0], argv, environ);
        why = errno;
        ssize_t written = write(tell[1], &why, sizeof(why));
        (void)written;
        _exit(127);
    }
    if (*ret_pid < 0)
        why = errno;
    close(tell[1]);
    if (*ret_pid > 0) {
        if (read(tell[0], &why, sizeof(why)) == (ssize_t)sizeof(why))
            waitpid(*ret_pid, NULL, 0);
        else
            why = 0;
    }
    close(tell[0]);
close_grumble:
    close(grumble[1]);
    if (why != 0)
        close(grumble[0]);
close_out:
    close(out[1]);
    if (why != 0)
        close(out[0]);
    ret_fds[0] = out[0];
    ret_fds[1] = grumble[0];
    return why;
}

/* The last line that is not blank: of a traceback, the one that says what. */
static const char *last_line(char *text)
{
    char *last = text, *rest = text, *line;
    while ((line = strsep(&rest, "\n")) != NULL)
        if (line[strspn(line, " \t\r")] != '\0')
            last = line;
    return last;
}

/* Whether what the child said is a whole answer; else the sentence. */
static int judge(const char *exe, bool in_time, int status, struct pm_buf bufs[2],
                 struct pm_answers *ret_answers, struct pm_error *err)
{
    char grumble[256];
    struct pm_answers answers;
    if (!in_time)
        return pm_error_set(err, -PM_EIO,
                            "%s did not answer within %d seconds, something that it loads at its "
                            "start hangs: try `%s -X importtime -c pass`",
                            exe, PM_ASK_LIMIT_SEC, exe);
    int error = parse(pm_buf_text(&bufs[0]), &answers);
    if (error != 0)
        return pm_error_set(err, error, "cannot keep the answer of %s, out of memory", exe);
    if (has_line(&answers, "end")) {
        *ret_answers = answers;
        return 0;
    }
    pm_answers_release(&answers);
    char *text = strdup(pm_buf_text(&bufs[1]));
    snprintf(grumble, sizeof(grumble), "%s", text != NULL ? last_line(text) : "");
    free(text);
    if (WIFSIGNALED(status))
        return pm_error_set(err, -PM_EIO,
                            "%s was ended by signal %d (%s) while it started, try `%s -c pass`",
                            exe, WTERMSIG(status), strsignal(WTERMSIG(status)), exe);
    return pm_error_set(err, -PM_EFORMAT,
                        "%s does not answer as a Python does (exit code %d%s%s), name the Python "
                        "that runs vLLM with --python",
                        exe, WEXITSTATUS(status), grumble[0] != '\0' ? ": " : "", grumble);
}

int pm_ask(const char *exe, const char *const *flags, size_t n_flags, const char *const *targets,
           size_t n_targets, struct pm_answers *ret_answers, struct pm_error *err)
{
    union {
        const char *in;
        char *out;
    } word; /* execve's argv is not const for history's sake only */
    struct pm_buf bufs[2];
    pid_t pid = -1;
    int fds[2] = {-1, -1}, status = 0;
    char **argv = calloc(n_flags + n_targets + 4, sizeof(argv[0]));
    if (argv == NULL)
        return pm_error_set(err, -PM_ENOMEM, "cannot ask %s, out of memory", exe);
    size_t n = 0;
    word.in = exe, argv[n++] = word.out;
    for (size_t i = 0; i < n_flags; i++)
        word.in = flags[i], argv[n++] = word.out;
    word.in = "-c", argv[n++] = word.out;
    word.in = script, argv[n++] = word.out;
    for (size_t i = 0; i < n_targets; i++)
        word.in = targets[i], argv[n++] = word.out;
    int why = start(argv, &pid, fds);
    free(argv);
    if (why != 0)
        return pm_error_set(err, pm_error_from_errno(why),
                            "cannot run the Python %s (%s), name the one that runs vLLM with "
                            "--python",
                            exe, strerror(why));
    pm_buf_init(&bufs[0], PM_ANSWER_MAX);
    pm_buf_init(&bufs[1], PM_GRUMBLE_MAX);
    bool in_time = listen_to(fds, bufs);
    if (!in_time && kill(-pid, SIGKILL) != 0)
        kill(pid, SIGKILL);
    close(fds[0]);
    close(fds[1]);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    int error = judge(exe, in_time, status, bufs, ret_answers, err);
    pm_buf_release(&bufs[0]);
    pm_buf_release(&bufs[1]);
    return error;
}
