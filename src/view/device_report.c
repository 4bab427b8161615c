/* See device_report.h. */
#include "view/device_report.h"

#include <stdio.h>

#include "session/step_facts.h"
#include "view/common.h"

/* Requests that decode now, are computed again, or were waiting, were there in between. */
static bool was_loaded(const struct pm_device_sums *sums, const struct pm_step *step)
{
    return step->decode_requests > 0 || step->recompute_requests > 0 || step->spec_requests > 0 ||
           sums->left || (!step->has_sched && step->phase == PM_PHASE_DECODE);
}

void pm_device_add(struct pm_device_sums *sums, const struct pm_step *step)
{
    if (step->has_device) {
        sums->steps++;
        sums->model_ns += step->device_model_ns;
        sums->launch_ns += step->model_ns;
        sums->samples += step->has_device_sample;
        sums->after_ns += step->device_after_ns;
        sums->sample_ns += step->device_sample_ns;
        if (step->has_device_wait && was_loaded(sums, step)) {
            sums->waits++;
            sums->wait_ns += step->device_wait_ns;
        } else if (step->has_device_wait) {
            sums->without_work++;
            sums->no_work_ns += step->device_wait_ns;
        }
    }
    sums->left = step->has_sched && step->waiting > 0;
}

static void put_row(struct pm_buf *buf, const char *name, uint64_t ns, uint64_t count, double whole)
{
    (void)pm_buf_printf(buf, "  %-12s%12.3f%9.1f %%\n", name,
                        count != 0 ? (double)ns / 1e6 / (double)count : 0.0,
                        whole > 0 ? 100.0 * (double)ns / whole : 0.0);
}

void pm_device_report_text(const struct pm_device_sums *sums, uint64_t passes, bool colour,
                           struct pm_buf *buf)
{
    const double whole = (double)sums->wait_ns + (double)sums->model_ns + (double)sums->after_ns +
                         (double)sums->sample_ns;

    if (sums->steps == 0)
        return;
    (void)pm_buf_printf(buf, "\n%sThe device's time by its own events: mean in ms, share%s\n",
                        colour ? "\033[1m" : "", colour ? "\033[0m" : "");
    put_row(buf, "waiting", sums->wait_ns, sums->waits, whole);
    put_row(buf, "model", sums->model_ns, sums->steps, whole);
    put_row(buf, "after", sums->after_ns, sums->samples, whole);
    put_row(buf, "sampling", sums->sample_ns, sums->samples, whole);
    (void)pm_buf_add_text(
        buf, "  waiting: from a step's end to the next model's start while requests were there,\n"
             "  for the host, and for input copies; after: model end to sampling (logits).\n");
    if (sums->without_work > 0)
        (void)pm_buf_printf(buf, "  Without requests it waited %.3f s more.\n",
                            (double)sums->no_work_ns / 1e9);
    if (passes > sums->steps)
        (void)pm_buf_printf(buf,
                            "  %llu of %llu passes have no events: they end at vLLM's own\n"
                            "  synchronisation, where that was seen.\n",
                            (unsigned long long)(passes - sums->steps), (unsigned long long)passes);
}

static void put_mean(struct pm_json *json, const char *key, uint64_t ns, uint64_t count)
{
    pm_json_ms_double(json, key, count != 0 ? (double)ns / (double)count : 0.0, count);
}

void pm_device_report_json(const struct pm_device_sums *sums, struct pm_json *json)
{
    pm_json_key(json, "device");
    if (sums->steps == 0) {
        pm_json_null(json);
        return;
    }
    pm_json_object(json);
    pm_json_key(json, "steps");
    pm_json_u64(json, sums->steps);
    put_mean(json, "wait_ms", sums->wait_ns, sums->waits);
    put_mean(json, "model_ms", sums->model_ns, sums->steps);
    put_mean(json, "after_ms", sums->after_ns, sums->samples);
    put_mean(json, "sample_ms", sums->sample_ns, sums->samples);
    put_mean(json, "launch_ms", sums->launch_ns, sums->steps);
    pm_json_key(json, "wait_total_ms");
    pm_json_double(json, (double)sums->wait_ns / 1e6, 3);
    pm_json_key(json, "without_work_ms");
    pm_json_double(json, (double)sums->no_work_ns / 1e6, 3);
    pm_json_end(json);
}
