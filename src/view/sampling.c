/* See sampling.h. One walk through the steps, and beside it through the mixes and the bitmasks. */
#include "view/sampling.h"

#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "view/columns.h"
#include "view/outfile.h"

#define HEADER "timestamp_sec,strategy,batch_size,duration_ms\n"

static const char *const names[PM_SAMPLING_ALL] = {
#define NAME(name, member, doc) #member,
    PM_SAMPLING_SETTINGS(NAME)
#undef NAME
        [PM_SAMPLING_SPEC] = "spec_verification",
};

const char *pm_sampling_name(unsigned setting)
{
    return setting < PM_SAMPLING_ALL ? names[setting] : "unknown";
}

void pm_sampling_words(uint32_t bits, char *out, size_t size)
{
    size_t used = 0;

    snprintf(out, size, "%s", (bits & PM_SAMPLING_UNKNOWN) != 0 ? "unknown" : "none");
    for (unsigned i = 0; i < PM_SAMPLING_ALL; i++) {
        if ((bits >> i & 1) == 0 || used >= size)
            continue;
        const int n = snprintf(out + used, size - used, "%s%s", used > 0 ? "+" : "", names[i]);
        used += n > 0 ? (size_t)n : 0;
    }
}

/* ---- the mix beside the steps ---------------------------------------------------------------- */

struct mixes {
    struct pm_cursor *cursor; /* NULL: none */
    int mix, bitmask;         /* schemas; -1: none */
    unsigned instance;
    const struct pm_field *step, *requests, *unknown, *flags, *which;
    const struct pm_field *settings[PM_SAMPLING_COUNT];
    const struct pm_field *mask_which, *mask_ns, *mask_requests;
    struct pm_sampling_mix next, now;
    bool has_next, has_now;
};

static void take_mix(const struct mixes *mixes, const void *payload, struct pm_sampling_mix *ret)
{
    *ret = (struct pm_sampling_mix){
        .step = pm_column_get(mixes->step, payload),
        .requests = (uint32_t)pm_column_get(mixes->requests, payload),
        .unknown = (uint32_t)pm_column_get(mixes->unknown, payload),
        .flags = (uint8_t)pm_column_get(mixes->flags, payload),
    };
#define TAKE(name, member, doc)                                                                    \
    ret->member = (uint32_t)pm_column_get(mixes->settings[PM_SAMPLING_##name], payload);
    PM_SAMPLING_SETTINGS(TAKE)
#undef TAKE
}

/* The next mix of this scheduler; bitmasks on the way are counted. A mix that is told again at the
 * head of a segment says nothing new, or what went with older segments. */
static int next_mix(struct mixes *mixes, struct pm_sampling *sampling)
{
    struct pm_record record;
    int rc = 0;

    mixes->has_next = false;
    while (mixes->cursor != NULL && (rc = pm_cursor_next(mixes->cursor, &record)) == 1) {
        const void *payload = record.payload;
        if ((int)record.schema == mixes->bitmask && !record.keyframe &&
            pm_column_get(mixes->mask_which, payload) == mixes->instance) {
            sampling->bitmasks++;
            sampling->bitmask_ns += pm_column_get(mixes->mask_ns, payload);
            sampling->bitmask_requests += pm_column_get(mixes->mask_requests, payload);
        }
        if ((int)record.schema != mixes->mix ||
            pm_column_get(mixes->which, payload) != mixes->instance)
            continue;
        take_mix(mixes, payload, &mixes->next);
        mixes->has_next = true;
        return 0;
    }
    return rc < 0 ? rc : 0;
}

static int open_mixes(struct mixes *mixes, const struct pm_session *session, size_t engine,
                      struct pm_sampling *sampling)
{
    static const char *const members[] = {
#define MEMBER(name, member, doc) #member,
        PM_SAMPLING_SETTINGS(MEMBER)
#undef MEMBER
    };
    const struct pm_engine *which = pm_session_engine(session, engine);

    memset(mixes, 0, sizeof(*mixes));
    mixes->mix = mixes->bitmask = -1;
    if (which == NULL || which->process == NULL)
        return 0;
    mixes->instance = which->instance;
    mixes->mix = pm_process_schema_find(which->process, "sampling_mix");
    if (mixes->mix < 0)
        return 0;
    sampling->recorded = true;
    const struct pm_schema *schema = pm_process_schema(which->process, (size_t)mixes->mix);
    mixes->step = pm_column(schema, "step");
    mixes->requests = pm_column(schema, "requests");
    mixes->unknown = pm_column(schema, "unknown");
    mixes->flags = pm_column(schema, "flags");
    mixes->which = pm_column(schema, "instance");
    for (unsigned i = 0; i < PM_SAMPLING_COUNT; i++)
        mixes->settings[i] = pm_column(schema, members[i]);
    const enum pm_stream stream = schema->stream;
    mixes->bitmask = pm_process_schema_find(which->process, "grammar_bitmask");
    if (mixes->bitmask >= 0) {
        schema = pm_process_schema(which->process, (size_t)mixes->bitmask);
        mixes->mask_which = pm_column(schema, "instance");
        mixes->mask_ns = pm_column(schema, "dur_ns");
        mixes->mask_requests = pm_column(schema, "requests");
    }
    const int rc = pm_cursor_open(&mixes->cursor, which->process, stream);
    return rc == 0 ? next_mix(mixes, sampling) : rc;
}

/* The mix of this step in mixes->now; steps are asked for in order. */
static int reach(struct mixes *mixes, uint64_t step, struct pm_sampling *sampling)
{
    int rc = 0;
    while (rc == 0 && mixes->has_next && mixes->next.step <= step) {
        mixes->now = mixes->next;
        mixes->has_now = true;
        rc = next_mix(mixes, sampling);
    }
    return rc;
}

/* ---- steps ----------------------------------------------------------------------------------- */

/* Who is told of each step. */
struct sink {
    struct pm_outfile *file; /* NULL: no rows */
    pm_sampling_fn fn;       /* NULL: nobody */
    void *arg;
};

/* How long a step sampled, since when, and by which clock; false: it did not, or nothing tells. */
static bool duration_of(const struct pm_step *step, uint64_t *ret_at_ns, uint64_t *ret_ns,
                        enum pm_sampling_clock *ret_clock)
{
    const uint64_t before = step->sample_ns != 0 && step->total_ns > step->sample_ns
                                ? step->total_ns - step->sample_ns
                                : 0;
    const uint64_t end = (uint64_t)step->sampler_at_ns + step->sampler_ns;

    *ret_clock = step->forward_clock > 1 ? PM_SAMPLING_LAUNCH : PM_SAMPLING_WALL;
    if (step->sampler_ns != 0) {
        const bool inside = before != 0 && before <= step->sampler_at_ns;
        *ret_at_ns = step->worker_start_ns + (inside ? before : step->sampler_at_ns);
        *ret_ns = inside ? end - before : step->sampler_ns;
    } else { /* only the whole of sample_tokens was seen */
        *ret_at_ns = step->worker_start_ns + before;
        *ret_ns = step->sample_ns;
    }
    if (step->has_device_sample) {
        *ret_ns = step->device_sample_ns;
        *ret_clock = PM_SAMPLING_EVENTS;
    }
    return *ret_ns != 0;
}

static uint32_t bits_of(const struct mixes *mixes, const struct pm_step *step)
{
    const struct pm_sampling_mix *mix = &mixes->now;
    uint32_t bits = step->spec_requests > 0 ? 1u << PM_SAMPLING_SPEC : 0;

    if (!mixes->has_now || (mix->flags & PM_SAMPLING_OFF) != 0 || mix->unknown > 0)
        return PM_SAMPLING_UNKNOWN;
#define BITS(name, member, doc) bits |= mix->member > 0 ? 1u << PM_SAMPLING_##name : 0;
    PM_SAMPLING_SETTINGS(BITS)
#undef BITS
    return bits;
}

static void count_settings(struct pm_sampling *sampling, const struct pm_sampling_mix *mix,
                           const struct pm_step *step, struct pm_sampling_step *told)
{
#define TELL(name, member, doc) told->settings[PM_SAMPLING_##name] = mix->member;
    PM_SAMPLING_SETTINGS(TELL)
#undef TELL
    told->settings[PM_SAMPLING_SPEC] = step->spec_requests;
    for (unsigned i = 0; i < PM_SAMPLING_ALL; i++) {
        sampling->with[i] += told->settings[i] > 0;
        sampling->with_ns[i] += told->settings[i] > 0 ? step->total_ns : 0;
        sampling->request_steps[i] += told->settings[i];
    }
}

static int strategy_of(struct pm_sampling *sampling, uint32_t bits,
                       struct pm_sampling_strategy **ret_strategy)
{
    size_t i = 0;
    while (i < sampling->n_strategies && sampling->strategies[i].bits != bits)
        i++;
    if (i == PM_SAMPLING_STRATEGIES_MAX)
        i--;
    *ret_strategy = &sampling->strategies[i];
    if (i < sampling->n_strategies)
        return 0;
    if (sampling->strategies == NULL) {
        sampling->strategies = calloc(PM_SAMPLING_STRATEGIES_MAX, sizeof(*sampling->strategies));
        if (sampling->strategies == NULL)
            return -PM_ENOMEM;
        *ret_strategy = sampling->strategies;
    }
    (*ret_strategy)->bits = bits;
    pm_samples_init(&(*ret_strategy)->samples);
    sampling->n_strategies++;
    return 0;
}

static int put_row(struct pm_outfile *file, int64_t at_ns, uint32_t bits, uint32_t requests,
                   uint64_t dur_ns)
{
    char words[PM_SAMPLING_WORDS];

    pm_sampling_words(bits, words, sizeof(words));
    char *out = pm_buf_reserve(&file->buf, 3 * (PM_NUMBER_MAX + 1) + sizeof(words));
    char *const begin = out;
    if (out == NULL)
        return pm_buf_status(&file->buf);
    out = pm_number_sec6_signed(out, at_ns);
    *out++ = ',';
    const size_t bytes = strlen(words);
    memcpy(out, words, bytes);
    out += bytes;
    *out++ = ',';
    out = pm_number_u64(out, requests);
    *out++ = ',';
    out = pm_number_ms3(out, dur_ns);
    *out++ = '\n';
    pm_buf_advance(&file->buf, (size_t)(out - begin));
    return pm_outfile_spill(file);
}

static int take_step(struct pm_sampling *sampling, struct pm_sampling_costs *costs,
                     const struct mixes *mixes, const struct pm_step *step, uint64_t start_ns,
                     const struct sink *sink)
{
    struct pm_sampling_step told = {.requests = step->requests};
    struct pm_sampling_strategy *strategy;

    if (step->tokens == 0 || step->failed || !step->has_worker ||
        !duration_of(step, &told.at_ns, &told.dur_ns, &told.clock))
        return 0;
    told.bits = bits_of(mixes, step);
    int rc = strategy_of(sampling, told.bits, &strategy);
    if (rc != 0)
        return rc;
    sampling->steps++;
    sampling->requests += step->requests;
    sampling->total_ns += told.dur_ns;
    sampling->step_ns += step->total_ns;
    sampling->clocks[told.clock]++;
    strategy->requests += step->requests;
    strategy->total_ns += told.dur_ns;
    rc = pm_samples_add(&strategy->samples, told.dur_ns);
    if (rc == 0 && told.bits != PM_SAMPLING_UNKNOWN) {
        count_settings(sampling, &mixes->now, step, &told);
        rc = pm_sampling_costs_add(costs, told.bits, step->requests, told.clock, told.dur_ns);
    }
    if (rc == 0 && sink->fn != NULL)
        rc = sink->fn(sink->arg, &told);
    if (rc != 0 || sink->file == NULL)
        return rc;
    sampling->rows++;
    return put_row(sink->file, (int64_t)(told.at_ns - start_ns), told.bits, step->requests,
                   told.dur_ns);
}

static int walk_steps(const struct pm_session *session, size_t engine, unsigned n,
                      const struct sink *sink, struct pm_sampling *sampling,
                      struct pm_sampling_costs *costs, struct mixes *mixes)
{
    const uint64_t start_ns = pm_session_info(session)->start_mono_ns;
    struct pm_steps *steps;
    struct pm_step step;
    int rc = pm_steps_open(&steps, session, engine, n), error = 0;

    if (rc != 0)
        return rc;
    while (error == 0 && (rc = pm_steps_next(steps, &step)) == 1) {
        error = reach(mixes, step.step, sampling);
        if (error == 0)
            error = take_step(sampling, costs, mixes, &step, start_ns, sink);
    }
    pm_steps_close(steps);
    while (error == 0 && rc == 0 && mixes->has_next) /* the bitmasks behind the last step */
        error = next_mix(mixes, sampling);
    return error != 0 ? error : rc;
}

void pm_sampling_release(struct pm_sampling *sampling)
{
    for (size_t i = 0; i < sampling->n_strategies; i++)
        pm_samples_release(&sampling->strategies[i].samples);
    free(sampling->strategies);
    memset(sampling, 0, sizeof(*sampling));
}

static int walk(const struct pm_session *session, size_t engine, unsigned n,
                const struct sink *sink, struct pm_sampling *ret_sampling)
{
    struct pm_sampling_costs *costs;
    const struct pm_process *process;
    struct mixes mixes;
    unsigned instance;
    int rank, rc = 0;

    memset(ret_sampling, 0, sizeof(*ret_sampling));
    if (sink->file != NULL)
        rc = pm_buf_add_text(&sink->file->buf, HEADER);
    if (rc != 0 || engine >= pm_session_engine_count(session))
        return rc;
    rc = pm_sampling_costs_open(&costs);
    if (rc != 0)
        return rc;
    if (pm_engine_worker(session, engine, n, &process, &instance, &rank) == 0)
        ret_sampling->recycled = pm_process_info(process)->first_fact[PM_STREAM_CORE] > 0;
    rc = open_mixes(&mixes, session, engine, ret_sampling);
    if (rc == 0 && ret_sampling->recorded)
        rc = walk_steps(session, engine, n, sink, ret_sampling, costs, &mixes);
    pm_cursor_close(mixes.cursor);
    pm_sampling_costs_settle(costs);
    for (unsigned i = 0; i < PM_SAMPLING_ALL; i++)
        pm_sampling_costs_tell(costs, i, &ret_sampling->costs[i]);
    pm_sampling_costs_close(costs);
    return rc;
}

int pm_sampling_walk(const struct pm_session *session, size_t engine, unsigned n,
                     struct pm_outfile *file, struct pm_sampling *ret_sampling)
{
    return walk(session, engine, n, &(struct sink){.file = file}, ret_sampling);
}

int pm_sampling_each(const struct pm_session *session, size_t engine, unsigned n, pm_sampling_fn fn,
                     void *arg, struct pm_sampling *ret_sampling)
{
    return walk(session, engine, n, &(struct sink){.fn = fn, .arg = arg}, ret_sampling);
}

const char *pm_sampling_clock(const struct pm_sampling *sampling)
{
    static const char *const words[PM_SAMPLING_CLOCKS] = {"wall", "launch", "events"};
    const char *word = "none";
    for (unsigned i = 0; i < PM_SAMPLING_CLOCKS; i++) {
        if (sampling->clocks[i] > 0)
            word = strcmp(word, "none") == 0 ? words[i] : "mixed";
    }
    return word;
}
