/*
 * Options of `run --torch-profile` into a plan, and into the server's environment (see
 * torch_profile.h).
 */
#include "cmd/torch_profile.h"

#include <stdio.h>
#include <string.h>

#include "cmd/amounts.h"
#include "cmd/output_dir.h"
#include "cmd/server.h"

#define STEPS_DEFAULT 100  /* of a window that nothing else bounds */
#define STEPS_CEILING 1000 /* of one that requests bound: traces of more are no longer opened */
#define FLUSH_DEFAULT_MS 600000

static const char *const modes[] = {"light", "detailed", "deep"};

static int window(struct pm_torch_plan *plan, const struct pm_torch_options *options,
                  struct pm_error *err)
{
    if (options->requests != NULL && !pm_parse_range(options->requests, &plan->from, &plan->to))
        return pm_error_set(err, -PM_EINVALID,
                            "--requests=%.80s is not valid, give FROM:TO, such as 10:20",
                            options->requests);
    if (options->steps == 0)
        return pm_error_set(err, -PM_EINVALID, "--steps=0 would profile nothing, give 1 or more");
    plan->steps = options->steps > 0 ? (uint64_t)options->steps
                  : plan->to > 0     ? STEPS_CEILING
                                     : STEPS_DEFAULT;
    plan->ends_when_quiet = options->steps < 0 && plan->to == 0;
    if (options->every != NULL && !pm_parse_duration(options->every, &plan->every_ms))
        return pm_error_set(err, -PM_EINVALID,
                            "--every=%.80s is not valid, give a time such as 90s, 5m or 1h",
                            options->every);
    if (options->size_limit != NULL && !pm_parse_size(options->size_limit, &plan->size_limit))
        return pm_error_set(err, -PM_EINVALID,
                            "--size-limit=%.80s is not valid, give a size such as 200M or 2G",
                            options->size_limit);
    plan->flush_ms = FLUSH_DEFAULT_MS;
    if (options->flush_timeout != NULL &&
        !pm_parse_duration(options->flush_timeout, &plan->flush_ms))
        return pm_error_set(err, -PM_EINVALID,
                            "--flush-timeout=%.80s is not valid, give a time such as 90s or 10m",
                            options->flush_timeout);
    return 0;
}

static int where(struct pm_torch_plan *plan, const struct pm_torch_options *options,
                 const struct pm_environ *env, char *const *command, struct pm_error *err)
{
    int rc =
        pm_server_from_command(&plan->server, command, pm_environ_get(env, "VLLM_API_KEY"), err);
    if (rc == 0 && options->server != NULL)
        rc = pm_server_from_url(&plan->server, options->server, err);
    if (rc == 0 && plan->server.tls)
        rc =
            pm_error_set(err, -PM_EUNSUPPORTED,
                         "the server speaks https, which --torch-profile does not: leave the "
                         "certificate away while profiling, or name a plain address with --server");
    return rc;
}

int pm_torch_plan(struct pm_torch_plan *ret_plan, const struct pm_torch_options *options,
                  const struct pm_environ *env, char *const *command, struct pm_error *err)
{
    static struct pm_torch_plan plan;
    memset(&plan, 0, sizeof(plan));
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
        if (strcmp(options->mode, modes[i]) == 0)
            plan.mode = modes[i];
    if (plan.mode == NULL)
        return pm_error_set(err, -PM_EINVALID,
                            "--torch-profile=%.80s is not valid, give light, detailed or deep",
                            options->mode);
    int rc = window(&plan, options, err);
    if (rc == 0)
        rc = where(&plan, options, env, command, err);
    if (rc != 0)
        return rc;
    const char *dir = options->dir;
    if (dir == NULL)
        dir = pm_environ_get(env, "VLLM_TORCH_PROFILER_DIR");
    if (dir == NULL || dir[0] == '\0')
        dir = "profiler_output";
    rc = pm_output_dir(dir, plan.dir, err);
    if (rc == 0)
        *ret_plan = plan;
    return rc;
}

/* Keeps what the user has set. */
static void offer(struct pm_environ *env, const char *name, const char *value)
{
    const char *present = pm_environ_get(env, name);
    if (present == NULL || present[0] == '\0')
        pm_environ_set(env, name, value);
}

void pm_torch_environment(const struct pm_torch_plan *plan, struct pm_environ *env)
{
    static const char *const switches[] = {
        "VLLM_TORCH_PROFILER_RECORD_SHAPES",
        "VLLM_TORCH_PROFILER_WITH_FLOPS",
        "VLLM_TORCH_PROFILER_WITH_PROFILE_MEMORY",
        "VLLM_TORCH_PROFILER_WITH_STACK",
    };
    const bool light = strcmp(plan->mode, "light") == 0;
    char steps[32];
    pm_environ_set(env, "VLLM_TORCH_PROFILER_DIR", plan->dir);
    for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++)
        offer(env, switches[i], light ? "0" : "1");
    /* In light mode workers only: the front end's trace is its event loop. */
    offer(env, "VLLM_TORCH_PROFILER_DISABLE_ASYNC_LLM", light ? "1" : "0");
    /* The worker ends the window by itself after so many, should nobody be left to do it. */
    snprintf(steps, sizeof(steps), "%llu", (unsigned long long)plan->steps);
    pm_environ_set(env, "VLLM_PROFILER_MAX_ITERS", steps);
    if (strcmp(plan->mode, "deep") == 0 &&
        pm_environ_get(env, "PROFILEMATE_TRACE_FUNCTION") == NULL &&
        pm_environ_get(env, "VLLM_TRACE_FUNCTION") == NULL)
        offer(env, "VLLM_PROFILING_TRACE_FUNCTION", "all");
}
