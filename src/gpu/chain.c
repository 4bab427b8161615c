/* See chain.h. */
#include "gpu/chain.h"

#include <stdlib.h>
#include <string.h>

enum state {
    OPEN,
    CLOSED, /* to be read */
    READ,
    GIVEN_UP,
};

struct mark {
    void *event; /* NULL: not made yet */
    void *stream;
    uint64_t ns;   /* since `from`; while its chain is being read */
    uint32_t from; /* number in the chain; PM_CHAIN_NO_MARK: no time ends here */
    uint32_t tag;
};

struct chain {
    struct pm_chain_of of;
    uint32_t first, count; /* marks: place in the ring of the first one */
    uint32_t times;        /* of them end a time */
    uint8_t state;         /* enum state */
};

/* Of one context. Marks lie in the order in which they were recorded, chains likewise. */
struct ring {
    void *context;
    struct mark *marks;   /* of `capacity` */
    struct chain *chains; /* of PM_CHAINS_MAX */
    uint32_t first_mark, n_marks;
    uint32_t first_chain, n_chains;
    uint32_t waiting; /* marks of CLOSED chains */
};

struct pm_chains {
    struct pm_gpu_calls calls;
    uint32_t capacity, batch;
    struct ring rings[PM_CHAIN_CONTEXTS];
    unsigned n_rings;
    /* The open chain. */
    struct pm_chain_of of;
    bool open;
    struct ring *at; /* where it is; NULL: it has no mark yet */
    struct chain *chain;
    struct pm_chains_counts counts;
};

int pm_chains_open(struct pm_chains **ret_chains, const struct pm_driver *driver, unsigned marks,
                   unsigned batch)
{
    struct pm_chains *chains = calloc(1, sizeof *chains);
    if (chains == NULL)
        return -PM_ENOMEM;
    chains->calls.driver = *driver;
    chains->capacity = marks < 2 ? 2 : marks;
    chains->batch = batch == 0 ? 1 : batch < chains->capacity / 2 ? batch : chains->capacity / 2;
    *ret_chains = chains;
    return 0;
}

static struct chain *chain_at(const struct ring *at, uint32_t i)
{
    return &at->chains[(at->first_chain + i) % PM_CHAINS_MAX];
}

static struct mark *mark_of(const struct pm_chains *chains, const struct ring *at,
                            const struct chain *chain, uint32_t i)
{
    return &at->marks[(chain->first + i) % chains->capacity];
}

/* Frees the marks of chains that are done with, from the oldest on. */
static void release(const struct pm_chains *chains, struct ring *at)
{
    while (at->n_chains > 0 && chain_at(at, 0)->state >= READ) {
        const uint32_t count = chain_at(at, 0)->count;
        at->first_mark = (at->first_mark + count) % chains->capacity;
        at->n_marks -= count;
        at->first_chain = (at->first_chain + 1) % PM_CHAINS_MAX;
        at->n_chains--;
    }
}

/* ---- recording ------------------------------------------------------------------------------ */

static void close_chain(struct pm_chains *chains, bool good)
{
    struct chain *chain = chains->chain;
    struct ring *at = chains->at;
    chains->open = false;
    chains->chain = NULL;
    chains->at = NULL;
    if (chain == NULL)
        return;
    if (good && chain->times > 0) {
        chain->state = CLOSED;
        at->waiting += chain->count;
        chains->counts.chains++;
    } else {
        chain->state = GIVEN_UP;
        release(chains, at);
    }
}

void pm_chains_begin(struct pm_chains *chains, const struct pm_chain_of *of)
{
    close_chain(chains, true);
    chains->of = *of;
    chains->open = true;
}

void pm_chains_end(struct pm_chains *chains)
{
    close_chain(chains, true);
}

void pm_chains_lose(struct pm_chains *chains)
{
    close_chain(chains, false);
}

bool pm_chains_is_open(const struct pm_chains *chains)
{
    return chains->open;
}

bool pm_chains_is_elsewhere(const struct pm_chains *chains, const void *stream)
{
    return chains->chain != NULL && mark_of(chains, chains->at, chains->chain, 0)->stream != stream;
}

/* The context in use, with its ring. NULL: *ret_why says why. */
static struct ring *ring_here(struct pm_chains *chains, enum pm_event_outcome *ret_why)
{
    int device;
    void *context = pm_gpu_context(&chains->calls, &device, ret_why);
    if (context == NULL)
        return NULL;
    for (unsigned i = 0; i < chains->n_rings; i++)
        if (chains->rings[i].context == context)
            return &chains->rings[i];
    if (chains->n_rings == PM_CHAIN_CONTEXTS)
        return NULL;
    struct ring *at = &chains->rings[chains->n_rings];
    *at = (struct ring){.context = context};
    at->marks = calloc(chains->capacity, sizeof *at->marks);
    at->chains = calloc(PM_CHAINS_MAX, sizeof *at->chains);
    if (at->marks == NULL || at->chains == NULL) {
        free(at->marks);
        free(at->chains);
        return NULL;
    }
    chains->n_rings++;
    return at;
}

/* The open chain's first mark is about to be recorded. */
static struct chain *take_chain(struct pm_chains *chains, struct ring *at)
{
    if (at->n_chains == PM_CHAINS_MAX)
        return NULL;
    struct chain *chain = chain_at(at, at->n_chains++);
    *chain = (struct chain){
        .of = chains->of,
        .first = (at->first_mark + at->n_marks) % chains->capacity,
        .state = OPEN,
    };
    chains->at = at;
    chains->chain = chain;
    return chain;
}

enum pm_event_outcome pm_chains_mark(struct pm_chains *chains, void *stream, uint32_t from,
                                     uint32_t tag, uint32_t *ret_mark)
{
    enum pm_event_outcome why;

    if (pm_gpu_off(&chains->calls))
        return PM_EVENT_OFF;
    if (!chains->open)
        return PM_EVENT_NONE;
    if (!pm_driver_clean(&chains->calls.driver))
        return PM_EVENT_FOREIGN;
    struct ring *at = ring_here(chains, &why);
    if (at == NULL)
        return why;
    if (chains->at != NULL && chains->at != at)
        return PM_EVENT_MOVED;
    if (pm_gpu_captured(&chains->calls, stream))
        return pm_gpu_off(&chains->calls) ? PM_EVENT_OFF : PM_EVENT_CAPTURE;
    if (at->n_marks == chains->capacity)
        return PM_EVENT_FULL;
    struct chain *chain = chains->chain != NULL ? chains->chain : take_chain(chains, at);
    if (chain == NULL)
        return PM_EVENT_FULL;
    struct mark *mark = mark_of(chains, at, chain, chain->count);
    if (!pm_gpu_record(&chains->calls, &mark->event, stream, &chains->counts.made))
        return PM_EVENT_OFF;
    mark->stream = stream;
    mark->from = from < chain->count ? from : PM_CHAIN_NO_MARK;
    mark->tag = tag;
    chain->times += mark->from != PM_CHAIN_NO_MARK;
    if (ret_mark != NULL)
        *ret_mark = chain->count;
    chain->count++;
    at->n_marks++;
    chains->counts.marks++;
    return PM_EVENT_RECORDED;
}

/* ---- reading back --------------------------------------------------------------------------- */

bool pm_chains_due(const struct pm_chains *chains, uint64_t now_ns)
{
    for (unsigned c = 0; c < chains->n_rings && !pm_gpu_off(&chains->calls); c++) {
        const struct ring *at = &chains->rings[c];
        if (at->waiting >= chains->batch)
            return true;
        if (at->waiting > 0 && chain_at(at, 0)->state == CLOSED &&
            now_ns > chain_at(at, 0)->of.begun_ns + PM_CHAIN_OLD_NS)
            return true;
    }
    return false;
}

/* True: the times of all marks are there. False: not yet, or the driver failed. */
static bool measure(struct pm_chains *chains, const struct ring *at, const struct chain *chain)
{
    for (uint32_t i = 0; i < chain->count; i++) {
        struct mark *mark = mark_of(chains, at, chain, i);
        if (mark->from == PM_CHAIN_NO_MARK)
            continue;
        const struct mark *from = mark_of(chains, at, chain, mark->from);
        if (from->stream != mark->stream) /* nothing follows: one may run while the other does */
            continue;
        if (pm_gpu_between(&chains->calls, from->event, mark->event, &mark->ns) != 1)
            return false;
    }
    return true;
}

static void tell_all(struct pm_chains *chains, const struct ring *at, const struct chain *chain,
                     pm_chains_tell tell, void *arg)
{
    uint64_t whole_ns = 0;
    for (uint32_t i = 0; i < chain->count; i++) {
        const struct mark *mark = mark_of(chains, at, chain, i);
        if (mark->from == PM_CHAIN_NO_MARK)
            continue;
        if (mark_of(chains, at, chain, mark->from)->stream != mark->stream) {
            chains->counts.apart++;
            continue;
        }
        whole_ns += mark->ns;
        tell(&chain->of, mark->tag, mark->ns, arg);
    }
    tell(&chain->of, PM_CHAIN_WHOLE, whole_ns, arg);
}

unsigned pm_chains_read(struct pm_chains *chains, bool all, pm_chains_tell tell, void *arg)
{
    void *behind[8]; /* streams whose oldest chain is not complete */
    unsigned n_behind = 0, told = 0;
    uint32_t marks = 0;
    enum pm_event_outcome why;

    if (pm_gpu_off(&chains->calls) || !pm_driver_clean(&chains->calls.driver))
        return 0;
    struct ring *at = chains->n_rings > 0 ? ring_here(chains, &why) : NULL;
    if (at == NULL || at->waiting == 0 ||
        pm_gpu_captured(&chains->calls,
                        at->marks[(at->first_mark + at->n_marks - 1) % chains->capacity].stream))
        return 0;
    chains->counts.turns++;
    for (uint32_t i = 0; i < at->n_chains && (all || told < 2 || marks < chains->batch); i++) {
        struct chain *chain = chain_at(at, i);
        if (chain->state != CLOSED)
            continue;
        const struct mark *last = mark_of(chains, at, chain, chain->count - 1);
        bool skip = false;
        for (unsigned b = 0; b < n_behind && !skip; b++)
            skip = behind[b] == last->stream;
        if (skip)
            continue;
        const int complete = pm_gpu_complete(&chains->calls, last->event);
        if (complete != 1 || !measure(chains, at, chain)) {
            if (pm_gpu_off(&chains->calls) || n_behind == sizeof behind / sizeof *behind)
                break;
            behind[n_behind++] = last->stream;
            continue;
        }
        chain->state = READ;
        at->waiting -= chain->count;
        marks += chain->count;
        told++;
        chains->counts.read++;
        tell_all(chains, at, chain, tell, arg);
    }
    release(chains, at);
    return told;
}

/* ---- end ------------------------------------------------------------------------------------ */

bool pm_chains_failed(const struct pm_chains *chains, char *out, size_t size)
{
    return pm_gpu_failed(&chains->calls, out, size);
}

void pm_chains_count(const struct pm_chains *chains, struct pm_chains_counts *ret_counts)
{
    *ret_counts = chains->counts;
}

void pm_chains_abandon(struct pm_chains *chains)
{
    for (unsigned c = 0; chains != NULL && c < chains->n_rings; c++) {
        free(chains->rings[c].marks);
        free(chains->rings[c].chains);
    }
    free(chains);
}

void pm_chains_close(struct pm_chains *chains)
{
    for (unsigned c = 0; chains != NULL && c < chains->n_rings; c++)
        for (uint32_t i = 0; i < chains->capacity; i++)
            pm_gpu_destroy(&chains->calls, chains->rings[c].marks[i].event);
    pm_chains_abandon(chains);
}
