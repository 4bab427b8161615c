/* See run_beside.h. */
#include "cmd/run_beside.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/settings.h"
#include "cmd/amounts.h"
#include "cmd/cmd.h"
#include "cmd/follow.h"
#include "cmd/http.h"
#include "cmd/request_log.h"

#define FOLLOW_EVERY_MS 250
#define LOG_FLUSH_MS 1000
#define LOG_BYTES (100u << 20)
#define LAST_FLUSH_MS 20000 /* of a trace, when somebody waits for the server to go */

static void flush_log(struct pm_beside *beside)
{
    struct pm_error err = {""};
    if (pm_request_log_flush(beside->log, &err) != 0)
        pm_complain("%s, the lines wait: make room there", err.text);
    beside->flush_ms = pm_now_ms() + LOG_FLUSH_MS;
}

static int tick(void *arg)
{
    struct pm_beside *beside = arg;
    int next_ms = FOLLOW_EVERY_MS;
    pm_follow_poll(beside->follow, false);
    if (beside->log != NULL && pm_now_ms() >= beside->flush_ms)
        flush_log(beside);
    if (beside->torch != NULL)
        next_ms = pm_torch_step(beside->torch);
    return next_ms;
}

/* The server is not ended under the profiler's feet: a trace that is not written is lost. */
static bool hold(int signal, void *arg)
{
    struct pm_beside *beside = arg;
    if (signal != SIGTERM && signal != SIGINT && signal != SIGHUP && signal != SIGQUIT)
        return false;
    if (beside->torch == NULL || !pm_torch_busy(beside->torch))
        return false;
    pm_torch_end(beside->torch, LAST_FLUSH_MS);
    return pm_torch_busy(beside->torch);
}

void pm_beside_end(struct pm_beside *beside, bool quiet)
{
    struct pm_error err = {""};
    uint64_t lines, lost;
    if (beside->follow != NULL)
        pm_follow_poll(beside->follow, true);
    if (beside->torch != NULL)
        pm_torch_report(beside->torch);
    if (beside->log != NULL) {
        if (pm_request_log_close(beside->log, &lines, &lost, &err) != 0)
            pm_complain("%s, %llu lines of the request log are lost", err.text,
                        (unsigned long long)lost);
        if (!quiet)
            fprintf(stderr, "profilemate: %llu request%s in the log %s\n",
                    (unsigned long long)lines, lines == 1 ? "" : "s", beside->log_dir);
    }
    pm_torch_free(beside->torch);
    pm_follow_free(beside->follow);
}

bool pm_beside_options_fit(const struct pm_beside_options *options)
{
    const struct pm_torch_options *torch = &options->torch;
    const char *alone = torch->dir != NULL             ? "trace-dir"
                        : torch->requests != NULL      ? "requests"
                        : torch->steps >= 0            ? "steps"
                        : torch->every != NULL         ? "every"
                        : torch->size_limit != NULL    ? "size-limit"
                        : torch->flush_timeout != NULL ? "flush-timeout"
                        : torch->server != NULL        ? "server"
                                                       : NULL;
    if (torch->mode == NULL && alone != NULL) {
        pm_misuse("run", "--%s is about torch's profiler, give --torch-profile as well", alone);
        return false;
    }
    alone = options->task != NULL ? "task" : options->log_size != NULL ? "request-log-size" : NULL;
    if (options->log_dir == NULL && alone != NULL) {
        pm_misuse("run", "--%s is about request logs, give --request-log=DIR as well", alone);
        return false;
    }
    return true;
}

/* Both count requests, which the recorder has to follow. */
static bool requests_are_followed(const struct pm_beside_options *options,
                                  const struct pm_settings *settings)
{
    const bool needed = options->log_dir != NULL ||
                        (options->torch.mode != NULL && options->torch.requests != NULL);
    if (!needed || settings->preemption)
        return true;
    pm_complain("%s needs the life of requests, which --no-preemption-tracking turns off, leave "
                "that away",
                options->log_dir != NULL ? "--request-log" : "--requests");
    return false;
}

static int bad(const struct pm_error *err, int code)
{
    if (code == -PM_EINVALID || code == -PM_EUNSUPPORTED)
        return pm_misuse("run", "%s", err->text);
    return pm_complain("%s, name another or make it so", err->text);
}

static int begin_log(struct pm_beside *beside, const struct pm_beside_options *options, int mode)
{
    struct pm_error err = {""};
    struct pm_request_log_options log = {
        .dir = options->log_dir,
        .task = options->task,
        .limit_bytes = LOG_BYTES,
        .keep = options->log_keep < 1000 ? (unsigned)options->log_keep : 1000,
        .mode = (mode_t)mode,
    };
    if (options->log_size != NULL && !pm_parse_size(options->log_size, &log.limit_bytes))
        return pm_misuse("run", "--request-log-size=%.80s is not valid, give a size such as 64M",
                         options->log_size);
    snprintf(beside->log_dir, sizeof(beside->log_dir), "%s", options->log_dir);
    int code = pm_request_log_open(&beside->log, &log, &err);
    return code == 0 ? PM_EXIT_OK : bad(&err, code);
}

static void warn_of_blocking(const struct pm_environ *env)
{
    const char *blocking = pm_environ_get(env, "CUDA_LAUNCH_BLOCKING");
    if (blocking != NULL && blocking[0] != '\0' && strcmp(blocking, "0") != 0)
        fprintf(stderr, "profilemate: CUDA_LAUNCH_BLOCKING=1 makes every kernel launch wait: times "
                        "and gaps are not those of normal operation\n");
}

int pm_beside_begin(struct pm_beside *beside, const struct pm_beside_options *options,
                    struct pm_environ *env, char *const *command, const char *dir,
                    const uint8_t *token)
{
    static struct pm_torch_plan plan;
    static struct pm_settings settings;
    struct pm_error err = {""};
    const bool torch = options->torch.mode != NULL, log = options->log_dir != NULL;
    *beside = (struct pm_beside){.watch = {.tick = tick, .hold = hold, .arg = beside}};
    if (!torch && !log)
        return PM_EXIT_OK;
    pm_settings_read(&settings, pm_environ_lookup, env, NULL, NULL);
    if (!requests_are_followed(options, &settings))
        return PM_EXIT_FAILED;
    int code = torch ? pm_torch_plan(&plan, &options->torch, env, command, &err) : 0;
    if (code != 0)
        return bad(&err, code);
    code = log ? begin_log(beside, options, settings.mode) : PM_EXIT_OK;
    if (code != PM_EXIT_OK)
        return code;
    beside->follow = pm_follow_new(dir, token, log ? pm_request_log_add : NULL, beside->log);
    if (torch && beside->follow != NULL) {
        pm_torch_environment(&plan, env);
        warn_of_blocking(env);
        beside->torch = pm_torch_new(&plan, beside->follow);
    }
    if (beside->follow == NULL || env->failed || (torch && beside->torch == NULL))
        return pm_complain("cannot prepare the command's environment, out of memory, free some");
    return PM_EXIT_OK;
}

const struct pm_supervisor_watch *pm_beside_watch(struct pm_beside *beside)
{
    return beside->follow != NULL ? &beside->watch : NULL;
}
