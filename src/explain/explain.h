/*
 * Findings: what a session shows that somebody could act on, each with its evidence, its cost, how
 * sure it is and the vLLM option to turn. Called by `explain` and by the reports, one thread; owns
 * what it returns.
 *
 * Rules stand in rules.def with their thresholds, and are explained one by one, with their
 * formulas, in docs/FINDINGS.md. A rule says nothing below its least evidence. The session is
 * streamed; memory does not grow with it.
 */
#ifndef PM_EXPLAIN_EXPLAIN_H
#define PM_EXPLAIN_EXPLAIN_H

#include "base/buf.h"
#include "base/json.h"
#include "reader/reader.h"
#include "view/view.h"
#include "view/window.h"

enum pm_severity {
    PM_SEVERITY_INFO,   /* worth knowing, nothing to do */
    PM_SEVERITY_LOW,    /* costs little */
    PM_SEVERITY_MEDIUM, /* costs noticeably */
    PM_SEVERITY_HIGH,   /* costs much, or what was recorded cannot be trusted */
};

#define PM_FINDING_EVIDENCE 8 /* sentences */
#define PM_FINDING_NUMBERS 16
#define PM_FINDING_REQUESTS 8
#define PM_FINDING_CHANGES 4

/* A figure that a rule used, by the name that docs/FINDINGS.md gives it. */
struct pm_finding_number {
    const char *name; /* "peak_pct"; lives as long as the program */
    const char *unit; /* "%", "s", "ms", "tokens", "steps", …; "" */
    double value;
};

/* What to turn. */
struct pm_finding_change {
    const char *flag;      /* an option of `vllm serve`: "--gpu-memory-utilization"; or an
                              environment variable */
    const char *direction; /* "raise", "lower", "set", "unset" */
    char value[64];        /* a value to try; "" where none can be told */
    char now[64];          /* what it was in this session; "" where not known */
};

struct pm_finding {
    const char *rule; /* name in rules.def: "kv_too_small" */
    const char *area; /* "KV cache", "scheduling", …: for grouping */
    enum pm_severity severity;
    double confidence; /* 0..1 */
    char title[160];   /* one line */
    char evidence[PM_FINDING_EVIDENCE][256];
    unsigned n_evidence;
    char advice[512]; /* what to do, a sentence or two; "" for nothing */
    struct pm_finding_change changes[PM_FINDING_CHANGES];
    unsigned n_changes;
    struct pm_finding_number numbers[PM_FINDING_NUMBERS];
    unsigned n_numbers;
    bool has_cost_s, has_cost_tokens; /* which of the costs is known */
    double cost_s;                    /* seconds lost, as cost_of says */
    double cost_tokens;               /* tokens computed for nothing */
    const char *cost_of;              /* "waiting of requests", "time of the engine"; "" */
    double share;                     /* of the time seen that it cost, 0..1; -1: not known */
    int engine, rank;                 /* -1: of the whole session, of no single rank */
    uint64_t from_ns, to_ns;          /* when it was seen, CLOCK_MONOTONIC; 0, 0: not a span */
    uint64_t n_requests;              /* that it touched */
    char requests[PM_FINDING_REQUESTS][PM_REQUEST_ID_MAX]; /* the worst of them */
    unsigned n_named;
};

/* How a rule ended. */
enum pm_verdict {
    PM_VERDICT_FOUND,   /* there is a finding */
    PM_VERDICT_FINE,    /* looked at, nothing to say */
    PM_VERDICT_LITTLE,  /* too little evidence to say anything */
    PM_VERDICT_UNSEEN,  /* what it needs was not recorded */
    PM_VERDICT_NOT_HERE /* does not apply: no experts, no graphs, one rank, … */
};

struct pm_rule_result {
    const char *rule;
    enum pm_verdict verdict;
    char why[160]; /* the figures that settled it, or what was missing */
};

struct pm_findings {
    struct pm_finding *rows; /* worst first: severity, then share, then confidence */
    size_t count;
    struct pm_rule_result *results; /* one per rule that was asked, in order of rules.def */
    size_t n_results;
    double seconds; /* of engines' time that was looked at, first step to last */
    uint64_t steps, requests;
    struct pm_window window;
};

/* Looks at the session through the window (NULL: the whole, or the window that was laid over it
 * before). 0 or -PM_E… with a sentence. An empty session is fine: no findings. */
PM_MUST_USE int pm_explain(const struct pm_session *session, const struct pm_window *window,
                           struct pm_findings *ret_findings, struct pm_error *err);

/* The same, asking one rule only; -PM_ENOTFOUND for a name that rules.def does not have. NULL: all.
 */
PM_MUST_USE int pm_explain_rule(const struct pm_session *session, const struct pm_window *window,
                                const char *rule, struct pm_findings *ret_findings,
                                struct pm_error *err);
void pm_findings_release(struct pm_findings *findings);

/* The n-th rule's name and its sentence; NULL past the end. */
const char *pm_rule_name(size_t n, const char **ret_sentence);

/* "info", "low", "medium", "high"; "certain", "likely", "possible". */
const char *pm_severity_name(enum pm_severity severity);
const char *pm_confidence_name(double confidence);
const char *pm_verdict_name(enum pm_verdict verdict);

/* ---- Ways to show them ---- */

/* One JSON array of objects (man profilemate-explain names the members): the value of a key, or a
 * document of its own. The HTML report embeds exactly this. start: pm_session_info.start_mono_ns,
 * from which times are counted. */
void pm_findings_json(struct pm_json *json, const struct pm_findings *findings, uint64_t start_ns);

/* Text of 80 columns for a terminal: at most `limit` findings (0: all), then what was left out. */
struct pm_findings_style {
    bool colour;
    unsigned limit;
    bool brief; /* title, cost and change only */
    bool rules; /* then how each rule ended */
};
void pm_findings_text(struct pm_buf *buf, const struct pm_findings *findings,
                      const struct pm_findings_style *style, uint64_t start_ns);

/* The reports of view.h with the findings at their head: what `report --text`, `report --json` and
 * the end of `run` print. options->window may be set. */
PM_MUST_USE int pm_explain_report_text(const struct pm_session *session,
                                       const struct pm_report_options *options, FILE *out,
                                       struct pm_error *err);
PM_MUST_USE int pm_explain_report_json(const struct pm_session *session,
                                       const struct pm_report_options *options, FILE *out,
                                       struct pm_error *err);

#endif
