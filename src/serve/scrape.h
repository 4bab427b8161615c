/*
 * One scrape on its way: inside the serve room, shared by metrics.c (what comes from records) and
 * metrics_own.c (what does not). One thread; lives for one call of pm_serve_metrics.
 */
#ifndef PM_SERVE_SCRAPE_H
#define PM_SERVE_SCRAPE_H

#include "serve/expose.h"
#include "serve/serve.h"

/* One engine's scheduler, or one of its workers. */
struct part {
    size_t session, engine; /* places */
    int n, rank;            /* place and rank of the worker; -1: the scheduler */
    const struct pm_process *process;
    const struct pm_totals *totals;
};

struct scrape {
    const struct pm_serve *serve;
    struct pm_expose expose;
    struct session {
        char id[256], model[512];
        const struct pm_live_view *view;
    } * sessions;
    size_t n_sessions;
    struct part *parts;
    size_t n_parts, capacity;
};

/* Texts that labels point to; lives as long as they. */
struct label_text {
    char engine[16], rank[16], pid[16], roles[64], kind[64];
};

/* The labels of a session; of an engine of it, by their places; a rank more. */
void pm_label_session(const struct scrape *s, size_t session, struct pm_labels *ret_labels);
void pm_label_engine(const struct scrape *s, size_t session, size_t engine, struct label_text *text,
                     struct pm_labels *ret_labels);
void pm_label_rank(int rank, struct label_text *text, struct pm_labels *labels);

/* Puts the families of metrics.def. */
void pm_scrape_own(struct scrape *s);

#endif
