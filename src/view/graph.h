/*
 * CUDA graphs of one worker: which were captured, how often each was replayed, and what became of
 * the steps (graph.c). For its files (graph_files.c) and its part of the reports (graph_report.c).
 */
#ifndef PM_VIEW_GRAPH_H
#define PM_VIEW_GRAPH_H

#include "session/graph_facts.h"
#include "view/common.h"

/* One graph. */
struct pm_graph_row {
    struct pm_graph_desc desc;
    uint64_t at_ns;      /* its first capture; 0: not seen */
    uint64_t capture_ns; /* its captures took, added up */
    uint64_t replays;
    uint32_t pieces;
    uint32_t at_runtime; /* captures while requests waited */
    uint32_t order;      /* in which they were met: captures first */
};

struct pm_graph_sums {
    struct pm_graph_row *rows; /* in the order in which they were met */
    uint32_t *index;           /* open addressing: place in rows + 1 */
    size_t n_rows, room, index_size;
    uint64_t captures, captures_at_runtime, capture_ns;
    uint64_t replays, held; /* all of them; those whose detail is held */
    /* Steps with tokens, by enum pm_graph_outcome (PM_GRAPH_ASIDE: replays beside them), and what
     * they computed. All steps, where the totals know those that are not held. */
    uint64_t passes[PM_GRAPH_OUTCOMES_COUNT];
    uint64_t tokens[PM_GRAPH_OUTCOMES_COUNT], padding[PM_GRAPH_OUTCOMES_COUNT];
    uint64_t replay_ns[PM_GRAPH_OUTCOMES_COUNT];
    bool recycled, from_totals; /* older steps had to go; the figures are those of the totals */
};

/* One replay, as the timeline has it. Returns 0, or -PM_E… to end the walk. */
typedef int (*pm_graph_replay_fn)(void *arg, const struct pm_graph_pass *pass);

/* Walks the facts of worker n of an engine (one that does not exist has none). fn may be NULL.
 * Release *ret_sums in any case. */
PM_MUST_USE int pm_graph_walk(const struct pm_session *session, size_t engine, unsigned n,
                              pm_graph_replay_fn fn, void *arg, struct pm_graph_sums *ret_sums);
void pm_graph_sums_release(struct pm_graph_sums *sums);

/* Sorts the rows: most replayed first, then as they were met. */
void pm_graph_sort(struct pm_graph_sums *sums);

/* The seeds' words: "FULL"; "128" or "None". */
const char *pm_graph_mode_name(unsigned mode);
#define PM_GRAPH_TEXT_MAX 96
/* "FULL,256,128,True,False" with this separator; returns the end, as the pm_number_ functions. */
char *pm_graph_put_desc(char *out, const struct pm_graph_desc *desc, char separator);

/* A section of the text report, and "cuda_graphs" of the JSON one: nothing, and null, where the
 * worker recorded no such fact. */
PM_MUST_USE int pm_graph_report_text(const struct pm_session *session, size_t engine, unsigned n,
                                     bool colour, struct pm_buf *buf);
PM_MUST_USE int pm_graph_report_json(const struct pm_session *session, size_t engine, unsigned n,
                                     struct pm_json *json);

#endif
