/*
 * What the recorder's tests share: schemas of four streams whose payloads follow from a number, so
 * that a checker knows from the number alone what was written; a session folder; and the check of
 * the live totals against the sums of everything that was ever committed.
 */
#ifndef PM_TESTS_RECORDER_KIT_H
#define PM_TESTS_RECORDER_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <ftw.h>
#include <sys/wait.h>

#include "recorder/recorder.h"
#include "walk.h"

enum { KIT_STEP, KIT_BLOCK, KIT_CUSTOM, KIT_NOTE, KIT_PRESENT, KIT_SCHEMAS };

struct kit_step {
    uint64_t n;
    uint64_t dur_ns;
    uint32_t tokens;
    uint8_t phase;
    uint8_t pad[3];
    uint32_t name; /* id of the string "name-<n % 50>", or 0 */
    uint32_t mark; /* low half of ~n: a torn record would not have it */
};

struct kit_small {
    uint64_t n;
    uint64_t amount;
};

static const struct pm_field kit_step_fields[] = {
    PM_FIELD(struct kit_step, n, U64, "", ID, PM_AGG_NONE, "number"),
    PM_FIELD(struct kit_step, dur_ns, U64, "ns", DURATION, PM_AGG_HIST, "duration"),
    PM_FIELD(struct kit_step, tokens, U32, "tokens", COUNT, PM_AGG_SUM, "tokens"),
    PM_FIELD(struct kit_step, phase, U8, "", ID, PM_AGG_CLASS, "phase"),
    PM_FIELD(struct kit_step, name, STR, "", ID, PM_AGG_NONE, "name"),
    PM_FIELD(struct kit_step, mark, U32, "", ID, PM_AGG_NONE, "check"),
};
static const struct pm_field kit_small_fields[] = {
    PM_FIELD(struct kit_small, n, U64, "", ID, PM_AGG_NONE, "number"),
    PM_FIELD(struct kit_small, amount, U64, "bytes", COUNT, PM_AGG_SUM, "amount"),
};

#define KIT_SMALL(name_, stream_)                                                                  \
    {                                                                                              \
        .name = (name_), .stream = (stream_), .payload_bytes = sizeof(struct kit_small),           \
        .classes = 1, .doc = "test", .fields = kit_small_fields, .n_fields = 2                     \
    }
static const struct pm_schema kit_tables[KIT_SCHEMAS] = {
    [KIT_STEP] = {.name = "step",
                  .stream = PM_STREAM_CORE,
                  .payload_bytes = sizeof(struct kit_step),
                  .classes = 3,
                  .doc = "test",
                  .fields = kit_step_fields,
                  .n_fields = 6},
    [KIT_BLOCK] = KIT_SMALL("block", PM_STREAM_BLOCKS),
    [KIT_CUSTOM] = KIT_SMALL("custom", PM_STREAM_CUSTOM),
    [KIT_NOTE] = KIT_SMALL("note", PM_STREAM_KEEP),
    [KIT_PRESENT] = KIT_SMALL("present", PM_STREAM_CORE),
};
static const struct pm_schema *const kit_schemas[KIT_SCHEMAS] = {
    &kit_tables[0], &kit_tables[1], &kit_tables[2], &kit_tables[3], &kit_tables[4]};
static const uint8_t kit_token[PM_TOKEN_BYTES] = "0123456789abcde";

/* Values of the live copy: step has 3 classes of count, dur sum, tokens sum; the others count, sum.
 */
#define KIT_VALUES (3 * 3 + 4 * 2)
#define KIT_HISTS 3

static inline void kit_step_fill(struct kit_step *step, uint64_t n, uint32_t name)
{
    step->n = n;
    step->dur_ns = n * 2654435761u % 1000000;
    step->tokens = (uint32_t)(n % 97);
    step->phase = (uint8_t)(n % 3);
    step->name = name;
    step->mark = ~(uint32_t)n;
}

static inline bool kit_record(struct pm_recorder *rec, unsigned schema, uint64_t n, uint32_t name)
{
    void *payload = pm_recorder_reserve(rec, schema);
    if (payload == NULL)
        return false;
    if (schema == KIT_STEP)
        kit_step_fill(payload, n, name);
    else
        *(struct kit_small *)payload = (struct kit_small){n, n % 13};
    pm_recorder_commit(rec, payload);
    return true;
}

static inline int kit_remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static inline void kit_remove(const char *path)
{
    (void)nftw(path, kit_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* A fresh session folder with records/ in it, under base or $TMPDIR. */
static inline void kit_session(char *ret_path, size_t size, const char *base)
{
    char records[400];
    if (base == NULL)
        base = getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp";
    snprintf(ret_path, size, "%s/pmrec-XXXXXX", base);
    assert_non_null(mkdtemp(ret_path));
    snprintf(records, sizeof records, "%s/records", ret_path);
    assert_int_equal(mkdir(records, 0700), 0);
}

static inline struct pm_recorder_options kit_options(const char *session_dir, bool thread)
{
    return (struct pm_recorder_options){.session_dir = session_dir,
                                        .token = kit_token,
                                        .schemas = kit_schemas,
                                        .n_schemas = KIT_SCHEMAS,
                                        .ceiling_bytes = 64u << 20,
                                        .segment_bytes = PM_SEGMENT_BYTES_MIN,
                                        .file_mode = 0600,
                                        .thread = thread};
}

static inline struct pm_recorder *kit_open(const struct pm_recorder_options *options)
{
    struct pm_recorder *rec = NULL;
    struct pm_error err = {{0}};
    int code = pm_recorder_open(&rec, options, &err);
    if (code != 0)
        fail_msg("open: %d %s", code, err.text);
    return rec;
}

/* ---- the check ---- */

struct kit_check {
    struct walk *walk;
    uint64_t next[KIT_SCHEMAS]; /* the number that is due; the first one seen sets it */
    bool seen[KIT_SCHEMAS];
    uint64_t found[KIT_SCHEMAS];
    const struct pm_live_head *live;
    uint64_t *values; /* the live copy's, with the later facts added */
    struct pm_hist *hists;
    char names[256][32]; /* by id, of the segment at hand */
    const struct walk_segment *segment;
};

static inline void kit_visit(void *arg, const struct walk_segment *segment, uint32_t schema,
                             uint64_t fact, const unsigned char *payload, size_t bytes,
                             int in_keyframe)
{
    struct kit_check *check = arg;
    (void)in_keyframe;
    if (check->segment != segment) {
        memset(check->names, 0, sizeof check->names); /* each segment stands alone */
        check->segment = segment;
    }
    if (schema == PM_SCHEMA_STRING) {
        uint32_t words[2];
        memcpy(words, payload, sizeof words);
        if (words[1] + 8 > bytes)
            WALK_FAULT(check->walk, "a string longer than its record");
        else if (words[0] < 256 && words[1] < 32)
            memcpy(check->names[words[0]], payload + 8, words[1]);
        return;
    }
    if (schema < PM_SCHEMA_FIRST)
        return;
    unsigned kind = schema - PM_SCHEMA_FIRST;
    uint64_t n;
    if (kind >= KIT_SCHEMAS || bytes != (kit_tables[kind].payload_bytes + 7u) / 8 * 8 ||
        segment->stream != (uint32_t)kit_tables[kind].stream) {
        WALK_FAULT(check->walk, "schema %u with %zu bytes in stream %u", schema, bytes,
                   segment->stream);
        return;
    }
    memcpy(&n, payload, sizeof n);
    if (kind != KIT_PRESENT && check->seen[kind] && n != check->next[kind])
        WALK_FAULT(check->walk, "schema %u: number %llu where %llu was due", kind,
                   (unsigned long long)n, (unsigned long long)check->next[kind]);
    check->seen[kind] = true;
    check->next[kind] = n + 1;
    check->found[kind]++;
    if (kind == KIT_STEP) {
        struct kit_step step, want;
        memcpy(&step, payload, sizeof step);
        memset(&want, 0, sizeof want);
        kit_step_fill(&want, n, step.name);
        if (memcmp(&step, &want, sizeof want) != 0)
            WALK_FAULT(check->walk, "step %llu is torn", (unsigned long long)n);
        char name[32];
        snprintf(name, sizeof name, "name-%llu", (unsigned long long)(n % 50));
        if (step.name >= 256 || (step.name != 0 && strcmp(check->names[step.name], name) != 0))
            WALK_FAULT(check->walk, "step %llu: string %u is '%s' in its segment, not '%s'",
                       (unsigned long long)n, step.name,
                       step.name < 256 ? check->names[step.name] : "?", name);
    }
    if (check->live != NULL && fact >= check->live->covers[segment->stream]) {
        static const unsigned value[KIT_SCHEMAS] = {0, 9, 11, 13, 15};
        pm_schema_accumulate(&kit_tables[kind], payload, check->values + value[kind], check->hists);
    }
}

/* Walks the file at path and checks all that a reader relies on. written[schema]: records
 * committed, numbered from 0 in each schema; exact: not one more than that. */
static inline void kit_check_walked(struct kit_check *check, struct walk *walk,
                                    const uint64_t written[KIT_SCHEMAS], bool exact)
{
    memset(check, 0, sizeof *check);
    check->walk = walk;
    check->live = walk_live(walk);
    uint64_t values[KIT_VALUES] = {0};
    struct pm_hist *hists = calloc(KIT_HISTS, sizeof *hists);
    if (check->live != NULL) {
        if (check->live->n_values != KIT_VALUES || check->live->n_hists != KIT_HISTS) {
            WALK_FAULT(walk, "the live copy has %u values", check->live->n_values);
            free(hists);
            return;
        }
        memcpy(values, check->live + 1, sizeof values);
        memcpy(hists, (const unsigned char *)(check->live + 1) + sizeof values,
               KIT_HISTS * sizeof *hists);
    }
    check->values = values;
    check->hists = hists;
    walk_records(walk, kit_visit, check);

    static const unsigned kinds[] = {KIT_STEP, KIT_BLOCK, KIT_CUSTOM, KIT_NOTE};
    for (size_t i = 0; i < 4 && walk->fault[0] == '\0'; i++) {
        unsigned kind = kinds[i];
        uint64_t total = check->next[kind]; /* numbers are dense, so the last one tells */
        uint64_t recycled = walk->head->recycled[kit_tables[kind].stream];
        if (!check->seen[kind] && recycled == 0 && written[kind] != 0)
            WALK_FAULT(walk, "schema %u: none of %llu is there", kind,
                       (unsigned long long)written[kind]);
        /* Where even the last one went with a recycled segment, the totals tell. */
        if (check->seen[kind] && (total < written[kind] || (exact && total != written[kind])))
            WALK_FAULT(walk, "schema %u: ends before %llu, %llu were written", kind,
                       (unsigned long long)total, (unsigned long long)written[kind]);
    }
    /* Totals: the live copy and the facts after it against the sums of all numbers. */
    struct {
        uint64_t values[KIT_VALUES];
    } want = {{0}};
    uint64_t steps = values[0] + values[3] + values[6];
    struct pm_hist *want_hists = calloc(KIT_HISTS, sizeof *want_hists);
    for (uint64_t n = 0; n < steps; n++) {
        struct kit_step step = {0};
        kit_step_fill(&step, n, 0);
        pm_schema_accumulate(&kit_tables[KIT_STEP], &step, want.values, want_hists);
    }
    for (unsigned i = 0; i < 3; i++) {
        for (uint64_t n = 0; n < values[9 + 2 * i]; n++) {
            struct kit_small small = {n, n % 13};
            pm_schema_accumulate(&kit_tables[KIT_BLOCK + i], &small, want.values + 9 + 2 * i,
                                 want_hists);
        }
    }
    const uint64_t counts[4] = {steps, values[9], values[11], values[13]};
    for (size_t i = 0; i < 4 && check->live != NULL; i++) {
        if (counts[i] < written[kinds[i]] || (exact && counts[i] != written[kinds[i]]))
            WALK_FAULT(walk, "schema %u: totals count %llu, %llu were written", kinds[i],
                       (unsigned long long)counts[i], (unsigned long long)written[kinds[i]]);
    }
    if (check->live != NULL && (memcmp(want.values, values, 15 * sizeof *values) != 0 ||
                                memcmp(want_hists, hists, KIT_HISTS * sizeof *hists) != 0))
        WALK_FAULT(walk, "the totals are not the sums of what was written");
    free(want_hists);
    free(hists);
    check->values = NULL;
    check->hists = NULL;
}

/* The only file of the session; fails the test on any fault. The caller frees the walk. */
static inline void kit_check_session(const char *session_dir, const uint64_t written[KIT_SCHEMAS],
                                     struct walk *walk)
{
    char path[600];
    struct kit_check *check = calloc(1, sizeof *check);
    assert_int_equal(walk_find(session_dir, path, sizeof path), 1);
    assert_int_equal(walk_open(walk, path), 0);
    if (walk->fault[0] == '\0')
        kit_check_walked(check, walk, written, true);
    free(check);
    if (walk->fault[0] != '\0')
        fail_msg("%s", walk->fault);
}

#endif
