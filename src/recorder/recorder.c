/*
 * The recorder's life (open, close, fork) and its quiet verbs. Called by the hooks, on the thread
 * that holds the GIL; see internal.h for the whole and write.c for the hot verbs.
 */
#include "recorder/internal.h"

#include "base/clock.h"
#include "session/doing.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

/* What a child of fork() without our handler (a bare system call) gets for a header. */
static struct pm_file_head no_head;

/* ---- opening ---- */

/* The schemas' texts in one block, and what the hot path and the totals need of each. */
static int take_schemas(struct pm_recorder *rec, const struct pm_recorder_options *options,
                        struct pm_error *err)
{
    size_t bytes = 0;
    for (size_t i = 0; i < options->n_schemas; i++)
        bytes += pm_schema_to_text(options->schemas[i], NULL, 0) + 1;
    rec->sorts = calloc(options->n_schemas + 1, sizeof *rec->sorts);
    rec->tables = calloc(options->n_schemas + 1, sizeof *rec->tables);
    rec->texts = malloc(bytes + 1);
    if (rec->sorts == NULL || rec->tables == NULL || rec->texts == NULL)
        return pm_error_set(err, -PM_ENOMEM, "no memory for the schemas");
    char *text = rec->texts;
    for (size_t i = 0; i < options->n_schemas; i++) {
        const struct pm_schema *schema = options->schemas[i];
        struct pm_rec_table *table = &rec->tables[i];
        size_t left = bytes + 1 - (size_t)(text - rec->texts);
        table->schema = schema;
        table->text = text;
        table->text_bytes = (uint32_t)pm_schema_to_text(schema, text, left);
        text += table->text_bytes + 1;
        table->first_value = rec->totals.n_values;
        table->first_hist = rec->totals.n_hists;
        uint32_t values = 0, hists = 0;
        pm_schema_series(schema, &values, &hists);
        rec->totals.n_values += values;
        rec->totals.n_hists += hists;

        size_t record = 8 + pm_rec_round8(schema->payload_bytes);
        if ((unsigned)schema->stream >= PM_STREAM_COUNT || record > PM_SEGMENT_BYTES_MIN / 4)
            return pm_error_set(err, -PM_EINVALID, "schema %s: bad stream, or records of %zu bytes",
                                schema->name, record);
        rec->sorts[i] = (struct pm_rec_sort){
            .need = schema->stream == PM_STREAM_KEEP ? UINT32_MAX : (uint32_t)record,
            .bytes = (uint32_t)record,
            .out = (uint32_t)offsetof(struct pm_rec_hot, out[schema->stream]),
            .stream = (uint32_t)schema->stream,
            .head = pm_record_head_make((uint32_t)(PM_SCHEMA_FIRST + i), (uint32_t)(record / 8), 0),
        };
    }
    rec->n_sorts = (uint32_t)options->n_schemas;
    return 0;
}

/* Sizes of header and segments. A segment must hold the schemas in a quarter of it, so small ones
 * grow. */
static int take_sizes(struct pm_recorder *rec, const struct pm_recorder_options *options,
                      struct pm_error *err)
{
    size_t schemas = 0;
    for (size_t i = 0; i < options->n_schemas; i++)
        schemas += 8 + pm_rec_round8(8 + (size_t)rec->tables[i].text_bytes);
    size_t segment = options->segment_bytes == 0 ? PM_SEGMENT_BYTES : options->segment_bytes;
    if (segment < PM_SEGMENT_BYTES_MIN || segment > PM_SEGMENT_BYTES_MAX ||
        segment % PM_SEGMENT_BYTES_MIN != 0)
        return pm_error_set(err, -PM_EINVALID,
                            "segments of %zu bytes: expected a multiple of 64 KiB up to 4 MiB",
                            segment);
    while (segment < PM_SEGMENT_BYTES_MAX && schemas > segment / 4)
        segment = segment * 2 <= PM_SEGMENT_BYTES_MAX ? segment * 2 : PM_SEGMENT_BYTES_MAX;
    if (schemas > segment / 4)
        return pm_error_set(err, -PM_ELIMIT, "the schemas take %zu bytes", schemas);
    rec->segment_bytes = segment;
    /* Slots are mapped each on its own, so they begin at a multiple of any page size there is. */
    size_t page = PM_SEGMENT_BYTES_MIN;
    rec->live_offset = 4096;
    rec->live_bytes = sizeof(struct pm_live_head) + rec->totals.n_values * sizeof(uint64_t) +
                      rec->totals.n_hists * sizeof(struct pm_hist);
    rec->header_bytes = (rec->live_offset + 2 * rec->live_bytes + page - 1) / page * page;
    if (rec->header_bytes > UINT32_MAX / 2)
        return pm_error_set(err, -PM_ELIMIT, "the live totals take %zu bytes", rec->header_bytes);
    rec->ceiling_bytes = options->ceiling_bytes;
    uint64_t slots = options->ceiling_bytes / segment + 3; /* those that are always allowed */
    rec->max_slots = slots < PM_REC_SLOT_NONE ? (uint32_t)slots : PM_REC_SLOT_NONE - 1;
    return 0;
}

static int make_state(struct pm_recorder *rec, struct pm_error *err)
{
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != (ssize_t)sizeof seed)
        seed = pm_clock_vdso_ns() * 0x9e3779b97f4a7c15ull ^ (uintptr_t)rec;
    for (unsigned stream = 0; stream < PM_STREAM_COUNT; stream++) {
        rec->lanes[stream].oldest = rec->lanes[stream].newest = PM_REC_SLOT_NONE;
        rec->lanes[stream].strings.seed = seed;
    }
    rec->spare = PM_REC_SLOT_NONE;
    if (pm_rec_totals_init(rec) != 0)
        return pm_error_set(err, -PM_ENOMEM, "no memory for the totals");
    rec->slots = calloc(rec->max_slots, sizeof *rec->slots);
    if (rec->slots == NULL)
        return pm_error_set(err, -PM_ENOMEM, "no memory for %u slots", rec->max_slots);
    void *hot =
        mmap(NULL, sizeof *rec->hot, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (hot == MAP_FAILED)
        return pm_error_set(err, -PM_ENOMEM, "no memory for the recorder");
    (void)madvise(hot, sizeof *rec->hot, MADV_WIPEONFORK);
    rec->hot = hot;
    rec->hot->alive = 1;
    return 0;
}

/* The first segments: KEEP, with the schemas and the clock, and CORE's, so that the first step does
 * not wait for it. Without room for them facts are lost and counted, as later. */
static void begin_keeping(struct pm_recorder *rec)
{
    uint64_t now_ns = pm_clock_vdso_ns();
    rec->clock_ns = rec->rollup_ns = rec->steered_ns = now_ns;
    pm_rec_make_now(rec, PM_STREAM_KEEP);
    if (rec->threaded)
        pm_rec_make_now(rec, PM_STREAM_CORE);
    struct pm_triple triple = pm_rec_triple();
    pm_rec_keep_enter(rec, 8 + sizeof triple, PM_REC_HURRY);
    void *payload = pm_rec_begin(rec, PM_STREAM_KEEP, sizeof triple);
    if (payload != NULL) {
        memcpy(payload, &triple, sizeof triple);
        pm_rec_end(rec, PM_STREAM_KEEP, PM_SCHEMA_CLOCK, sizeof triple);
    }
    pm_rec_keep_leave(rec);
}

int pm_recorder_open(struct pm_recorder **ret_rec, const struct pm_recorder_options *options,
                     struct pm_error *err)
{
    struct pm_recorder *rec = calloc(1, sizeof *rec);
    if (rec == NULL)
        return pm_error_set(err, -PM_ENOMEM, "no memory for the recorder");
    rec->fd = -1;
    rec->threaded = options->thread;
    rec->keyframe = options->keyframe;
    rec->keyframe_arg = options->keyframe_arg;
    pthread_mutex_init(&rec->helper_lock, NULL);
    pthread_mutex_init(&rec->keep_lock, NULL);
    pm_clock_init();

    int code = take_schemas(rec, options, err);
    if (code == 0)
        code = take_sizes(rec, options, err);
    if (code == 0)
        code = make_state(rec, err);
    if (code == 0 && (code = pm_rec_fork_watch(rec)) != 0)
        pm_error_set(err, code, "too many recorders in one process");
    if (code == 0)
        code = pm_rec_file_create(rec, options, err);
    if (code != 0) {
        pm_rec_free(rec);
        return code;
    }
    begin_keeping(rec);
    *ret_rec = rec;
    return 0;
}

/* ---- the end ---- */

void pm_rec_free(struct pm_recorder *rec)
{
    pm_rec_fork_forget(rec);
    if (rec->forked || rec->head == NULL || rec->hot->alive == 0) {
        for (size_t i = 0; i < sizeof rec->stand_in / sizeof *rec->stand_in; i++) {
            if (rec->stand_in[i].base != NULL)
                munmap(rec->stand_in[i].base, rec->stand_in[i].bytes);
        }
    } else {
        for (unsigned stream = 0; stream < PM_STREAM_COUNT; stream++) {
            for (unsigned i = 0; i < PM_REC_RING; i++) {
                if (rec->lanes[stream].ring[i].base != NULL)
                    munmap(rec->lanes[stream].ring[i].base, rec->segment_bytes);
            }
        }
        munmap(rec->head, rec->header_bytes);
        pm_rec_budget_close(rec);
    }
    for (unsigned stream = 0; stream < PM_STREAM_COUNT; stream++)
        pm_rec_strings_free(&rec->lanes[stream].strings);
    /* A child may have closed the descriptor and got another one under its number. */
    if (pm_rec_file_ours(rec))
        close(rec->fd);
    if (!rec->forked) {
        pthread_mutex_destroy(&rec->helper_lock);
        pthread_mutex_destroy(&rec->keep_lock);
    }
    if (rec->hot != NULL)
        munmap(rec->hot, sizeof *rec->hot);
    free(rec->slots);
    free(rec->totals.values);
    free(rec->totals.hists);
    free(rec->texts);
    free(rec->tables);
    free(rec->sorts);
    free(rec);
}

void pm_recorder_close(struct pm_recorder *rec)
{
    if (rec == NULL)
        return;
    if (pm_recorder_forked(rec)) {
        pm_recorder_abandon(rec);
        return;
    }
    for (unsigned stream = 0; stream < PM_STREAM_COUNT; stream++) {
        if (stream == PM_STREAM_KEEP)
            continue;
        pm_rec_seal(rec, (enum pm_stream)stream);
    }
    struct pm_file_head *head = rec->head;
    if (!pm_rec_thread_stop(rec)) {
        /* It hangs in the disk and keeps the memory until it comes back. The facts are all in the
         * file; only the live copy stays behind, which the reader makes up for. */
        return;
    }
    pthread_mutex_lock(&rec->helper_lock);
    pm_rec_follow(rec);
    pthread_mutex_unlock(&rec->helper_lock);
    pthread_mutex_lock(&rec->keep_lock);
    pm_rec_seal(rec, PM_STREAM_KEEP);
    pthread_mutex_unlock(&rec->keep_lock);
    atomic_store_explicit(&head->closed_ns, pm_clock_vdso_ns(), memory_order_release);
    atomic_fetch_or_explicit(&head->state, PM_STATE_CLOSED, memory_order_release);
    pm_rec_free(rec);
}

bool pm_recorder_forked(const struct pm_recorder *rec)
{
    return pm_rec_mute(rec);
}

void pm_recorder_abandon(struct pm_recorder *rec)
{
    if (rec == NULL)
        return;
    if (!pm_recorder_forked(rec)) {
        pm_recorder_close(rec);
        return;
    }
    rec->forked = true;
    pm_rec_free(rec);
}

/* ---- quiet verbs ---- */

void pm_recorder_attr(struct pm_recorder *rec, const char *key, const char *value)
{
    if (pm_rec_mute(rec) || key == NULL || value == NULL)
        return;
    size_t key_bytes = pm_rec_cut(key, strlen(key), PM_REC_ATTR_KEY_MAX);
    size_t value_bytes = pm_rec_cut(value, strlen(value), PM_REC_ATTR_VALUE_MAX);
    size_t bytes = 16 + key_bytes + value_bytes;
    pm_rec_keep_enter(rec, 8 + pm_rec_round8(bytes), PM_REC_WAIT);
    unsigned char *payload = pm_rec_begin(rec, PM_STREAM_KEEP, bytes);
    if (payload != NULL) {
        uint64_t now_ns = pm_clock_vdso_ns();
        uint32_t sizes[2] = {(uint32_t)key_bytes, (uint32_t)value_bytes};
        memcpy(payload, &now_ns, sizeof now_ns);
        memcpy(payload + 8, sizes, sizeof sizes);
        memcpy(payload + 16, key, key_bytes);
        memcpy(payload + 16 + key_bytes, value, value_bytes);
        pm_rec_end(rec, PM_STREAM_KEEP, PM_SCHEMA_ATTR, bytes);
    }
    pm_rec_keep_leave(rec);
}

void pm_recorder_identify(struct pm_recorder *rec, unsigned roles, int engine, int rank)
{
    if (pm_rec_mute(rec))
        return;
    atomic_fetch_or_explicit(&rec->head->roles, roles, memory_order_relaxed);
    if (engine >= 0)
        atomic_store_explicit(&rec->head->engine, engine, memory_order_relaxed);
    if (rank >= 0)
        atomic_store_explicit(&rec->head->rank, rank, memory_order_relaxed);
}

/* This thread's word, as it was claimed: in which header, and for which thread, since a child of
 * fork() has the copy of its parent's thread. */
struct own_word {
    const struct pm_file_head *head;
    struct pm_thread_word *word; /* NULL: all were taken */
    uint32_t tid;
};
static _Thread_local struct own_word own;

static __attribute__((noinline, cold)) void claim_word(struct pm_recorder *rec)
{
    own.head = rec->head;
    own.word = NULL;
    own.tid = (uint32_t)gettid();
    for (unsigned i = 0; i < PM_THREAD_WORDS; i++) {
        struct pm_thread_word *word = &rec->head->threads[i];
        uint32_t free_tid = 0;
        if (atomic_compare_exchange_strong_explicit(&word->tid, &free_tid, own.tid,
                                                    memory_order_relaxed, memory_order_relaxed) ||
            free_tid == own.tid) {
            own.word = word;
            return;
        }
    }
}

void pm_recorder_doing(struct pm_recorder *rec, unsigned doing, uint64_t since_ns)
{
    if (PM_REC_UNLIKELY(pm_rec_mute(rec)))
        return;
    /* To find a thread's own is a call in a shared object: made once, not at every use. */
    const struct own_word *mine = &own;
    __asm__("" : "+r"(mine));
    /* A header at the address of one that was closed has other words. */
    if (PM_REC_UNLIKELY(mine->head != rec->head) ||
        (mine->word != NULL &&
         atomic_load_explicit(&mine->word->tid, memory_order_relaxed) != mine->tid))
        claim_word(rec);
    if (mine->word != NULL)
        atomic_store_explicit(&mine->word->state, pm_doing_make(doing, since_ns),
                              memory_order_relaxed);
}

struct pm_file_head *pm_recorder_head(struct pm_recorder *rec)
{
    /* The handler left anonymous pages there; without it the address is not mapped. */
    if (pm_rec_mute(rec) && rec->stand_in[0].base == NULL)
        return &no_head;
    return rec->head;
}

void pm_recorder_round(struct pm_recorder *rec)
{
    if (!pm_rec_mute(rec))
        pm_rec_round(rec);
}
