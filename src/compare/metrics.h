/*
 * The numbers of what is compared (metrics.def), shared by collectors, estimator and printers.
 *
 *   whole step   from the end of the step before to its own end, where there was work in between;
 *                else execute_model's entry to the end of the step
 *   idle         of the time between two steps with work, what neither schedule() nor
 *                update_from_output took
 *   model        device time, or vLLM's own synchronisation, or wall time: as the session knows it
 *   launch       on a device: the host's share of it
 *   output       Scheduler.update_from_output
 */
#ifndef PM_COMPARE_METRICS_H
#define PM_COMPARE_METRICS_H

#include "compare/cells.h"

enum pm_step_value {
#define PM_COMPARE_STEP(name, key, words, part) PM_STEP_##name,
#include "compare/metrics.def"
    PM_STEP_VALUES
};
enum pm_request_value {
#define PM_COMPARE_REQUEST(name, key, words) PM_REQUEST_VALUE_##name,
#include "compare/metrics.def"
    PM_REQUEST_VALUES
};
_Static_assert(PM_STEP_VALUES <= PM_CELL_VALUES, "cells hold every value of a step");
_Static_assert(PM_REQUEST_VALUES <= PM_CELL_VALUES, "and of a request");

/* Sums of all steps of a block. */
enum pm_step_sum {
    PM_SUM_STEPS,
    PM_SUM_TOKENS,
    PM_SUM_PREFILL,
    PM_SUM_OF_PREFILL, /* tokens of steps whose prompt tokens are known */
    PM_SUM_RECOMPUTED,
    PM_SUM_REQUESTS,
    PM_SUM_WAITING,
    PM_SUM_SPAN,        /* ns from the end of the step before to the end of this one */
    PM_SUM_NO_WORK,     /* ns of it in which no request was there */
    PM_SUM_OUTPUTS,     /* output tokens */
    PM_SUM_OUTPUT_SPAN, /* the span of steps whose outputs are known */
    PM_SUM_GAP_NS,      /* between two outputs of a request, added up over requests … */
    PM_SUM_GAPS,        /* … and how many */
    PM_SUM_KV_USED,
    PM_SUM_KV_TOTAL,
    PM_SUM_HITS,
    PM_SUM_QUERIED,
    PM_SUM_PADDING,
    PM_SUM_COMPUTED, /* tokens, padding included, of steps that ran from a graph */
    PM_SUM_EAGER,
    PM_SUM_PASSES,
    PM_SUM_DRAFTED,
    PM_SUM_ACCEPTED,
    PM_STEP_SUMS
};
enum pm_request_sum {
    PM_REQUEST_SUM_ENDED,
    PM_REQUEST_SUM_PREEMPTIONS,
    PM_REQUEST_SUM_SIZED, /* those whose sizes are known */
    PM_REQUEST_SUM_PROMPT,
    PM_REQUEST_SUM_OUTPUT,
    PM_REQUEST_SUM_CROWD,
    /* Raw durations and how many requests had them: pairs, in the order of the values. */
    PM_REQUEST_SUM_VALUES,
    PM_REQUEST_SUMS = PM_REQUEST_SUM_VALUES + 2 * PM_REQUEST_VALUES
};
_Static_assert(PM_STEP_SUMS <= PM_BLOCK_SUMS, "blocks hold every sum of the steps");
_Static_assert(PM_REQUEST_SUMS <= PM_BLOCK_SUMS, "and of the requests");

/* What kind of work a composition is. */
enum pm_work { PM_WORK_DECODE, PM_WORK_PREFILL, PM_WORK_MIXED, PM_WORK_KINDS };
const char *pm_work_name(unsigned kind); /* "decode", "prefill", "mixed" */

/* A step's composition as a key, and back into words. Sizes that a session does not have are 0 on
 * all sides. */
struct pm_composition {
    enum pm_work kind;
    uint64_t decode_requests, prefill_tokens, prefill_requests, kv_tokens, drafts_per_request;
};
uint64_t pm_composition_key(const struct pm_composition *what);
enum pm_work pm_composition_kind(uint64_t key);
/* Classes of steps as a person speaks of them: decode batches by size, the others by prompt tokens.
 * Of keys with the same class the words are the same. */
unsigned pm_composition_class(uint64_t key);
void pm_composition_words(unsigned class_number, char *out, size_t size);

/* A request's size and the crowd it was in. */
uint64_t pm_request_key(uint64_t new_prompt_tokens, uint64_t output_tokens, uint64_t crowd,
                        uint64_t prompt_tokens_beside);

#endif
