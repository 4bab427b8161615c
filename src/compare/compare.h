/*
 * Two sessions, or two groups of them, compared: what takes longer of the same work, how sure that
 * is, and what changed in the load. Called by the program, one thread; owns what it returns.
 *
 * docs/COMPARING.md explains the method; match.h has the formulas. Sessions are streamed, one after
 * another; memory does not grow with them.
 */
#ifndef PM_COMPARE_COMPARE_H
#define PM_COMPARE_COMPARE_H

#include <stdio.h>

#include "base/error.h"
#include "base/json.h"
#include "compare/metrics.h"
#include "reader/reader.h"

struct pm_collected;

struct pm_compare_options {
    double min_change;  /* smaller changes are never called slower or faster; 0.01 */
    unsigned resamples; /* of the bootstrap; 1000 */
    uint64_t seed;
};
#define PM_COMPARE_DEFAULTS                                                                        \
    ((struct pm_compare_options){.min_change = 0.01, .resamples = 1000, .seed = 1})
#define PM_COMPARE_RESAMPLES_MAX 20000
/* Observations that each side must have, matched, before anything is said of a quantity. */
#define PM_COMPARE_LEAST 20
/* A change that costs less than this share of the whole is not called slower or faster. */
#define PM_COMPARE_LEAST_SHARE 0.005

enum pm_change_verdict {
    PM_CHANGE_UNSEEN, /* not recorded on both sides, or nothing matched */
    PM_CHANGE_LITTLE, /* too few observations */
    PM_CHANGE_UNSURE, /* no change that is sure and large enough */
    PM_CHANGE_SLIGHT, /* sure, but of too little weight */
    PM_CHANGE_FASTER, /* takes less */
    PM_CHANGE_SLOWER, /* takes longer */
};
const char *pm_change_name(enum pm_change_verdict verdict); /* "slower", … */

/* One quantity on both sides. */
struct pm_change {
    bool known;               /* the next ones are */
    double before, after;     /* means, in ns or in the ratio's own unit */
    bool relative;            /* change, low and high are shares of before; else differences */
    double change, low, high; /* with the 95 % interval */
    double sigmas;            /* change by its standard error, with the sign of the change */
    bool certain;             /* beyond chance among all that was compared (95 % for all at once) */
    uint64_t n[2];            /* observations */
    double cost_ns;           /* of the change, in all matched observations of after; signed */
    double share;             /* … of what the whole took there; signed */
    enum pm_change_verdict verdict;
};

/* What one session brought. */
struct pm_compared_session {
    char name[256], path[4096];
    char model[256], vllm[64], device[64], profilemate[64];
    uint64_t steps, requests, left_out, span_ns;
    unsigned engines;
    bool recycled, has_sched, has_kv;
    char clock[16]; /* how the model's time is known, mostly: "wall", "sync", "events", "none" */
};

/* Steps or requests that have no match, by what they are. */
struct pm_unmatched {
    unsigned class_number; /* of pm_composition_words */
    uint64_t n;
    double value_ns;
};
#define PM_UNMATCHED_NAMED 4

enum pm_request_tail {
#define PM_COMPARE_TAIL(name, ...) PM_TAIL_##name,
#include "compare/metrics.def"
    PM_TAILS
};
/* Observations beyond a percentile that each side must have for an interval of it. */
#define PM_COMPARE_BEYOND 5

enum pm_ratio {
#define PM_COMPARE_RATIO(name, ...) PM_RATIO_##name,
#include "compare/metrics.def"
    PM_RATIOS
};
enum pm_request_ratio {
#define PM_COMPARE_REQUEST_RATIO(name, ...) PM_REQUEST_RATIO_##name,
#include "compare/metrics.def"
    PM_REQUEST_RATIOS
};

struct pm_comparison {
    struct pm_compare_options options;
    struct pm_compared_session *sessions[2];
    unsigned n_sessions[2];
    struct pm_change steps[PM_WORK_KINDS][PM_STEP_VALUES];
    struct pm_change whole;                              /* whole steps of all kinds together */
    struct pm_change requests[PM_REQUEST_VALUES];        /* matched by size and crowd */
    struct pm_change requests_raw[PM_REQUEST_VALUES];    /* as they were */
    struct pm_change tails[PM_REQUEST_VALUES][PM_TAILS]; /* … and their percentiles */
    struct pm_change ratios[PM_RATIOS], request_ratios[PM_REQUEST_RATIOS];
    uint64_t n_steps[2], n_requests[2], matched_steps[2], matched_requests[2];
    double matched_share[2]; /* of the steps' time */
    struct pm_unmatched unmatched[2][PM_UNMATCHED_NAMED];
    unsigned n_unmatched[2];
    double blocks[2], request_blocks[2]; /* independent stretches that the intervals rest on */
    double degrees;                      /* of freedom, of whole steps */
    unsigned slower, faster;             /* quantities called so, parts and requests */
    bool clocks_differ;                  /* the model's time is of another kind: left out */
    bool comparable;                     /* something could be compared at all */
    char notes[16][256];                 /* what was not seen, a sentence each */
    unsigned n_notes;
};

/* Collects one session after another, then compares. */
struct pm_compare_input;
PM_MUST_USE int pm_compare_begin(struct pm_compare_input **ret_input);
/* What a session knows, asked of all of them before the first is added. */
PM_MUST_USE int pm_compare_look(struct pm_compare_input *input, const struct pm_session *session);
PM_MUST_USE int pm_compare_add(struct pm_compare_input *input, unsigned side,
                               const struct pm_session *session, struct pm_error *err);
/* For tests: a session that is there already as tallies; takes them over. */
PM_MUST_USE int pm_compare_add_collected(struct pm_compare_input *input, unsigned side,
                                         const char *name, struct pm_collected *collected);
struct pm_strata *pm_compare_step_strata(struct pm_compare_input *input);
struct pm_strata *pm_compare_request_strata(struct pm_compare_input *input);
/* Once, at the end. */
PM_MUST_USE int pm_compare_end(struct pm_compare_input *input,
                               const struct pm_compare_options *options,
                               struct pm_comparison *ret_comparison);
void pm_compare_free(struct pm_compare_input *input);
void pm_comparison_release(struct pm_comparison *comparison);

/* The changes that are worth naming, costliest first: parts of steps (and whole steps of a kind
 * whose parts do not say why). Pointers into the comparison. */
struct pm_named_change {
    const struct pm_change *change;
    const char *key, *words; /* "sample" */
    int kind;                /* enum pm_work; -1: of requests */
};
#define PM_NAMED_MAX (PM_WORK_KINDS * PM_STEP_VALUES + PM_REQUEST_VALUES)
unsigned pm_compare_named(const struct pm_comparison *comparison, enum pm_change_verdict verdict,
                          struct pm_named_change named[PM_NAMED_MAX]);

/* The worst change that is called slower: 0.07 for 7 %; 0 where nothing is. */
double pm_compare_worst(const struct pm_comparison *comparison);

/* Names of a step's value, and whether it is a part of the whole. */
const char *pm_step_value_name(unsigned value, const char **ret_words, bool *ret_part);
const char *pm_request_value_name(unsigned value, const char **ret_words);
struct pm_tail_row {
    const char *key; /* "p99" */
    double q;
};
extern const struct pm_tail_row pm_tail_rows[PM_TAILS];
struct pm_ratio_row {
    const char *key, *words, *unit;
    unsigned decimals;
    double factor;
    unsigned over, under;
};
extern const struct pm_ratio_row pm_ratio_rows[PM_RATIOS];
extern const struct pm_ratio_row pm_request_ratio_rows[PM_REQUEST_RATIOS];

/* ---- Ways to show it ---- */

struct pm_compare_style {
    bool colour;
    bool all;         /* every part, also where nothing is to be said of it */
    double fail_over; /* the limit that was asked for, a share; negative: none */
};
void pm_compare_text(struct pm_buf *buf, const struct pm_comparison *comparison,
                     const struct pm_compare_style *style);
void pm_compare_json(struct pm_json *json, const struct pm_comparison *comparison,
                     const struct pm_compare_style *style);
/* One page that needs nothing else. */
void pm_compare_html(struct pm_buf *buf, const struct pm_comparison *comparison,
                     const struct pm_compare_style *style);

/* The comparison in a sentence. */
void pm_compare_verdict(const struct pm_comparison *comparison, char *out, size_t size);

#endif
