/*
 * Sampling by strategy: how long each step took to turn logits into tokens, and what its batch
 * asked for (sampling.c); sampling_timing.csv, sampling_summary.json, and the reports' part
 * (sampling_report.c). Called by the seeds' export and the reports.
 *
 * A step's strategy is all that its requests ask for, in the order of sampling_facts.h:
 * `greedy+temperature+top_p` where one is greedy and another one draws with top_p. A step that
 * verifies drafts has `spec_verification` too; `unknown` where the mix was not recorded.
 *
 * The duration is, in this order: the device's own (device_sample_ns); else the host's, from the
 * beginning of sample_tokens to the sampler's end, with the bitmask of grammars that is applied
 * before it. On a device the latter is the time of launches, and called so.
 */
#ifndef PM_VIEW_SAMPLING_H
#define PM_VIEW_SAMPLING_H

#include "view/common.h"
#include "view/sampling_cost.h"

enum pm_sampling_clock {
    PM_SAMPLING_WALL,
    PM_SAMPLING_LAUNCH, /* of the host, on a device */
    PM_SAMPLING_EVENTS,
    PM_SAMPLING_CLOCKS
};

#define PM_SAMPLING_STRATEGIES_MAX 256u /* further ones are counted in the last */
#define PM_SAMPLING_UNKNOWN (1u << 31)  /* instead of settings: none are known */

struct pm_sampling_strategy {
    uint32_t bits; /* settings, or PM_SAMPLING_UNKNOWN */
    uint64_t requests, total_ns;
    struct pm_samples samples;
};

/* Of one engine, by one of its workers. */
struct pm_sampling {
    uint64_t steps;    /* that sampled */
    uint64_t requests; /* in them */
    uint64_t total_ns;
    uint64_t step_ns; /* of the same steps, from execute_model's entry to their end, host clock */
    uint64_t clocks[PM_SAMPLING_CLOCKS];
    struct pm_sampling_strategy *strategies;
    size_t n_strategies;
    uint64_t with[PM_SAMPLING_ALL];          /* steps with each setting */
    uint64_t with_ns[PM_SAMPLING_ALL];       /* of them, as step_ns */
    uint64_t request_steps[PM_SAMPLING_ALL]; /* requests with it, summed over these */
    struct pm_sampling_cost costs[PM_SAMPLING_ALL];
    uint64_t bitmasks, bitmask_ns, bitmask_requests; /* that the engine core filled */
    uint64_t rows;                                   /* of the file */
    bool recorded; /* the session has the facts: it is of a release with this probe */
    bool recycled; /* older steps had to go */
};

struct pm_outfile;

/* Walks the steps of worker n; each that sampled also becomes a row of sampling_timing.csv where
 * file is not NULL. Release what it gives, also after a failure. */
PM_MUST_USE int pm_sampling_walk(const struct pm_session *session, size_t engine, unsigned n,
                                 struct pm_outfile *file, struct pm_sampling *ret_sampling);
void pm_sampling_release(struct pm_sampling *sampling);

/* A step that sampled. */
struct pm_sampling_step {
    uint64_t at_ns, dur_ns;
    enum pm_sampling_clock clock;
    uint32_t bits;                      /* its strategy, or PM_SAMPLING_UNKNOWN … */
    uint32_t requests;                  /* in its batch */
    uint32_t settings[PM_SAMPLING_ALL]; /* … else so many of them ask for each */
};
typedef int (*pm_sampling_fn)(void *arg, const struct pm_sampling_step *step);

/* The same walk, which tells of each such step; what fn returns, other than 0, ends it. */
PM_MUST_USE int pm_sampling_each(const struct pm_session *session, size_t engine, unsigned n,
                                 pm_sampling_fn fn, void *arg, struct pm_sampling *ret_sampling);

/* Whether a setting is told of by itself: it was used, is not `greedy`, and no earlier one always
 * came with it. */
bool pm_sampling_is_told(const struct pm_sampling *sampling, unsigned setting);
/* What always came and went with a setting: "top_k, min_p"; "" where it stands alone. */
void pm_sampling_companions(const struct pm_sampling_cost *cost, unsigned setting, char *out,
                            size_t size);

/* The name of a setting; PM_SAMPLING_SPEC has one too. */
const char *pm_sampling_name(unsigned setting);

/* A strategy in words, cut to size. */
#define PM_SAMPLING_WORDS 192
void pm_sampling_words(uint32_t bits, char *out, size_t size);

/* What takes the durations: "events", "wall", "launch"; "mixed" where several do, "none". */
const char *pm_sampling_clock(const struct pm_sampling *sampling);

/* sampling_summary.json, and the member of the JSON report. */
void pm_sampling_summary(struct pm_json *json, struct pm_sampling *sampling);

/* Sections of the reports: nothing, and null, where no step sampled. */
PM_MUST_USE int pm_sampling_report_text(const struct pm_session *session, size_t engine, unsigned n,
                                        bool colour, struct pm_buf *buf);
PM_MUST_USE int pm_sampling_report_json(const struct pm_session *session, size_t engine, unsigned n,
                                        struct pm_json *json);

#endif
