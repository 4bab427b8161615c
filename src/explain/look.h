/*
 * What the rules look at: the figures of one engine, gathered in a few walks over the session.
 * Filled by look_*.c, read by rule_*.c; owns nothing that grows with the session.
 */
#ifndef PM_EXPLAIN_LOOK_H
#define PM_EXPLAIN_LOOK_H

#include "reader/requests.h"
#include "session/frontend_facts.h"
#include "session/graph_facts.h"
#include "session/hist.h"
#include "session/request_facts.h"
#include "session/step_facts.h"
#include "view/common.h"
#include "view/sampling.h"
#include "view/window.h"

#define PM_LOOK_WORST 8 /* requests that are named */
#define PM_LOOK_BINS 24 /* of decode batch sizes: 1, 2, 3-4, 5-8, … */
#define PM_LOOK_RANKS 64

/* Times: how many, their sum, greatest, and buckets for quantiles. */
struct pm_times {
    uint64_t count, sum_ns, max_ns;
    struct pm_hist hist;
};
static inline void pm_times_add(struct pm_times *times, uint64_t ns)
{
    times->count++;
    times->sum_ns += ns;
    times->max_ns = ns > times->max_ns ? ns : times->max_ns;
    pm_hist_add(&times->hist, ns);
}
/* Seconds; 0 where there are none. A quantile is good to PM_HIST_QUANTILE_ERROR. */
double pm_times_mean_s(const struct pm_times *times);
double pm_times_quantile_s(const struct pm_times *times, double q);

/* The requests with the greatest weight, greatest first. */
struct pm_worst {
    unsigned n;
    struct {
        char id[PM_REQUEST_ID_MAX];
        double weight;
        uint64_t a, b; /* what goes with it */
    } rows[PM_LOOK_WORST];
};
void pm_worst_add(struct pm_worst *worst, const char *id, double weight, uint64_t a, uint64_t b);

/* Why requests wait while a step runs: the first that holds. */
enum pm_wait_cause {
    PM_WAIT_SEQS,   /* as many requests run as may */
    PM_WAIT_KV,     /* no room in the KV cache */
    PM_WAIT_TOKENS, /* the step has all the tokens that it may have */
    PM_WAIT_OTHER,
    PM_WAIT_CAUSES,
};

/* Where the time of a step goes outside of the model. */
enum pm_host_part {
    PM_HOST_SCHEDULE, /* Scheduler.schedule */
    PM_HOST_PREPARE,  /* execute_model entered to the model's start */
    PM_HOST_POST,     /* the model's end to execute_model's return */
    PM_HOST_SAMPLE,   /* sample_tokens */
    PM_HOST_UPDATE,   /* Scheduler.update_from_output */
    PM_HOST_PARTS,
};

/* Steps, as the scheduler and the worker that samples had them (look_steps.c). */
struct pm_look_steps {
    uint64_t n, prefill, decode, mixed; /* with tokens */
    uint64_t first, last;               /* numbers */
    uint64_t from_ns, to_ns;            /* first one's beginning, last one's end */
    uint64_t tokens, prefill_tokens, decode_tokens, recompute_tokens;
    uint64_t requests; /* added up over steps */
    uint64_t max_running;
    /* A step's weight is the time from its beginning to the next one's, where requests were there
     * all the time, else what it took itself. */
    uint64_t busy_ns;
    uint64_t loaded_ns;              /* of it, of steps that were followed at once … */
    uint64_t loaded;                 /* … how many */
    uint64_t forward_ns, idle_ns;    /* of those: the model ran, it did not */
    uint64_t by_device;              /* of them, those weighed by the device's own events: from one
                                        model's start there to the next one's, sampling counts as work */
    uint64_t part_ns[PM_HOST_PARTS]; /* PM_HOST_UPDATE: of all `updates` */
    uint64_t updates;
    uint64_t clocks[4];     /* steps by pm_step.forward_clock */
    uint64_t sample_all_ns; /* sample_tokens of all steps, and of them: */
    uint64_t sampler_ns, bookkeep_ns, draft_ns;
    uint64_t device_sampled, device_sample_ns; /* steps with sampling by device events, its sum */
    uint64_t full_tokens_ns;      /* weight of steps with all the tokens that they may have … */
    uint64_t full_tokens_wait_ns; /* … while prompts waited for more: the step before or after has
                                     prefills as well */
    uint64_t waiting_steps, waiting_ns; /* steps with waiting requests: count, weight */
    uint64_t cause_ns[PM_WAIT_CAUSES];  /* weight by cause */
    double wait_s[PM_WAIT_CAUSES];      /* waiting requests x weight */
    uint64_t recompute_ns;              /* steps' weight by their share of tokens computed again */
    uint32_t max_seqs, max_tokens;      /* the scheduler's limits; 0: not known */
    uint64_t drafted, accepted;         /* by the updates */
};

struct pm_look_kv {
    uint64_t steps; /* 0: not seen */
    uint64_t total; /* blocks, newest */
    uint64_t peak;  /* most in use at a time, in the steps seen */
    uint64_t peak_ns;
    double used_sum, total_sum;        /* over steps */
    uint64_t over_ns, under_ns, of_ns; /* weight of steps above, below the limits; of all */
    uint64_t over_steps;
    uint64_t over_from_ns, over_to_ns; /* first and last of them */
    uint64_t allocated, revived, freed, evicted, dropped;
    uint64_t queried_tokens, hit_tokens, requeried_tokens, rehit_tokens;
    bool caching;
    struct pm_times lifetime, idle; /* of evicted blocks whose age is known */
    uint64_t evictions, reused;     /* evicted; of them, hit at least once since given out */
    uint64_t reuses;
    struct pm_times reused_idle; /* idle times of those that had been hit */
};

/* Requests (look_life.c). */
struct pm_look_life {
    uint64_t requests, started, finished;
    struct pm_times queue, ttft, front; /* front: arrived to queued */
    uint64_t front_of_ttft_ns;          /* ttft of the requests in front */
    uint64_t preempted_requests, preemptions, resets, lost_tokens, lost_blocks;
    uint64_t away_ns, longest_away_ns, resumes, recomputed_tokens;
    uint64_t first_preempted_ns, last_preempted_ns;
    uint64_t prompt_tokens, cached_tokens, output_tokens;
    struct pm_worst preempted; /* weight: seconds away; a: tokens lost, b: times */
    struct pm_worst queued;    /* weight: seconds in the queue; a: prompt tokens */
    bool asked;                /* for one request: */
    struct pm_request one;
};

/* Prefills that held up decodes (look_stall.c). */
struct pm_look_stall {
    uint64_t decode_only;     /* updates of steps without a prefill that gave a gap */
    uint64_t mixed;           /* with a prefill, that somebody's next token waited for */
    uint64_t stalled_outputs; /* tokens that waited for them */
    double gaps_s;            /* all times between two outputs, added up */
    double delay_s;           /* of it, beyond what a step without prefills takes */
    uint64_t max_delay_ns, max_step, max_delay_at_ns;
    uint64_t from_ns, to_ns;
    struct pm_hist base[PM_LOOK_BINS]; /* gaps of decode-only steps by decodes in the step */
    double base_s[PM_LOOK_BINS];       /* their medians; 0: none */
    double base_all_s;
    struct pm_times gap;      /* of mixed steps */
    struct pm_worst culprits; /* weight: seconds of others' waiting; a: tokens; b: steps */
    struct pm_worst victims;  /* weight: seconds that it waited; a: steps that held it up */
    uint64_t n_culprits, n_victims;
    uint64_t tokens_max; /* most prefill tokens in a stalling step */
    double one_s;        /* what the request that was asked for waited so */
};

/* Ranks of one engine, step by step (look_ranks.c). */
struct pm_look_ranks {
    unsigned n;
    int rank[PM_LOOK_RANKS];
    uint64_t steps;
    uint64_t late_ns;                /* last start of the model - median start, added up */
    uint64_t spread_ns;              /* longest forward - shortest, added up */
    uint64_t forward_ns;             /* longest forward, added up */
    uint64_t last[PM_LOOK_RANKS];    /* how often it started last … */
    uint64_t longest[PM_LOOK_RANKS]; /* … and took longest */
    uint64_t sum_ns[PM_LOOK_RANKS];  /* forward times */
    bool pipeline;                   /* stages, which differ by nature */
};

/* CUDA graphs of the worker that samples (look_rest.c). */
struct pm_look_graphs {
    bool seen;
    uint64_t passes[PM_GRAPH_OUTCOMES_COUNT], tokens[PM_GRAPH_OUTCOMES_COUNT];
    uint64_t padding[PM_GRAPH_OUTCOMES_COUNT];
    uint64_t captured, unused, capture_ns, unused_capture_ns, at_runtime, at_runtime_ns;
    uint64_t replays, top_replays, used;
    char top[PM_LOOK_WORST][96]; /* descriptors, most replayed first */
    uint64_t top_n[PM_LOOK_WORST];
    unsigned n_top;
    uint64_t largest; /* most tokens of a captured graph */
};

struct pm_look_moe {
    bool seen;
    uint64_t layers, layers_seen, experts, selections;
    uint64_t uneven, dead_layers, dead;   /* layers beyond the limit, with dead experts; those */
    double worst_max_mean, mean_max_mean; /* busiest expert / mean */
    uint32_t worst_layer, worst_expert;
    uint64_t calls, time_ns;
    char dead_text[200];
    bool enough;
};

/* Sampling, and what its settings cost a step (look_rest.c). */
struct pm_look_sampling {
    uint64_t steps;               /* that sampled; 0: not recorded */
    enum pm_sampling_clock clock; /* that took most of them */
    struct {
        bool told;                        /* by itself, with a figure */
        bool sure;                        /* its interval leaves 0 out */
        char together[PM_SAMPLING_WORDS]; /* what always came with it; "" */
        double cost_s, error_s;           /* a step's */
        uint64_t with;                    /* steps with it … */
        double step_s;                    /* … their mean, by the host's clock */
        uint64_t requests;                /* that ask for it, summed over them */
    } settings[PM_SAMPLING_ALL];
};

/* Front ends of the session, for its first engine (look_rest.c). */
struct pm_look_front {
    struct pm_times op[PM_FRONTEND_CLASSES], delay;
    uint64_t tokens, outputs, processes, busy_ns, from_ns, to_ns;
};

struct pm_look {
    const struct pm_session *session;
    const struct pm_window *window; /* NULL: none */
    size_t engine;                  /* place */
    unsigned number, sampler, n_ranks;
    const struct pm_process *process;
    const char *device; /* "cuda", "cpu", …; "" */
    bool on_cpu;
    struct pm_look_steps steps;
    struct pm_look_kv kv;
    struct pm_look_life life;
    struct pm_look_stall stall;
    struct pm_look_ranks ranks;
    struct pm_look_graphs graphs;
    struct pm_look_moe moe;
    struct pm_look_sampling sampling;
    struct pm_look_front front;
};

/* All engines, for the rules of the whole session. */
struct pm_looks {
    const struct pm_session *session;
    struct pm_look **engines;
    size_t n;
    struct pm_sums sums;
};

PM_MUST_USE int pm_look_take_steps(struct pm_look *look);
PM_MUST_USE int pm_look_take_evictions(struct pm_look *look);
PM_MUST_USE int pm_look_take_life(struct pm_look *look);
PM_MUST_USE int pm_look_take_stall(struct pm_look *look);
PM_MUST_USE int pm_look_take_ranks(struct pm_look *look);
PM_MUST_USE int pm_look_take_graphs(struct pm_look *look);
PM_MUST_USE int pm_look_take_moe(struct pm_look *look);
PM_MUST_USE int pm_look_take_sampling(struct pm_look *look);
PM_MUST_USE int pm_look_take_front(struct pm_look *look);

/* A configuration value that the engine, else any process, told; NULL: none. */
const char *pm_look_config(const struct pm_look *look, const char *key);
uint64_t pm_look_config_u64(const struct pm_look *look, const char *key);

#endif
