/*
 * Native tables in parts (view/table_part.h): wherever a table is cut, its parts together are the
 * whole, row by row and value by value. An engine and two workers, each with many segments.
 */
#include "make_session.h"

#include "view/table_part.h"

#define STEPS 2500u

/* Every cell of a row as text, the position left out. */
static size_t row_text(const struct pm_table *table, size_t n_columns, char *out, size_t size)
{
    size_t used = 0;
    for (size_t i = 0; i < n_columns; i++) {
        const struct pm_cell *cell = &table->cells[i];
        const int n =
            !cell->have ? snprintf(out + used, size - used, ";")
            : table->columns[i].type == PM_CELL_TEXT
                ? snprintf(out + used, size - used, "%s;", cell->text)
                : snprintf(out + used, size - used, "%llx;", (unsigned long long)cell->u64);
        used += (size_t)n;
        assert_true(used < size);
    }
    return used;
}

static uint64_t hash(uint64_t sum, const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        sum = (sum ^ (uint8_t)text[i]) * 0x100000001b3ull;
    return sum;
}

struct rows {
    uint64_t count, sum;
};

static void read_rows(struct pm_table *table, size_t n_columns, struct rows *rows)
{
    char text[8192];
    int rc;
    while ((rc = pm_table_next(table)) == 1) {
        rows->count++;
        rows->sum = hash(rows->sum, text, row_text(table, n_columns, text, sizeof text));
    }
    assert_int_equal(rc, 0);
    pm_table_close(table);
}

static struct rows whole_of(const struct pm_session *session, const char *name)
{
    struct rows rows = {0};
    struct pm_table *table;
    struct pm_error err = {""};
    assert_int_equal(pm_table_open(&table, session, name, &err), 0);
    read_rows(table, table->n_columns, &rows);
    return rows;
}

struct cutting {
    const struct pm_session *session;
    const char *name;
    uint64_t every; /* positions of a part; 0: where segments begin */
    struct rows rows;
    unsigned sources, parts;
};

static void read_part(struct cutting *cutting, const struct pm_table_source *source, uint64_t from,
                      uint64_t to)
{
    struct pm_table *table;
    struct pm_error err = {""};
    assert_int_equal(
        pm_table_open_part(&table, cutting->session, cutting->name, source->name, from, to, &err),
        0);
    const size_t last = table->n_columns - 1;
    assert_string_equal(table->columns[last].name, "position");
    read_rows(table, last, &cutting->rows);
    cutting->parts++;
}

static int cut_source(const struct pm_table_source *source, void *arg)
{
    struct cutting *cutting = arg;
    struct pm_table_cut *cuts = NULL;
    size_t count = 0;
    uint64_t from = 0;
    cutting->sources++;
    assert_true(source->over);
    assert_int_equal(pm_table_cuts(cutting->session, source, &cuts, &count), 0);
    const uint64_t last = count > 0 ? cuts[count - 1].position : 0;
    for (size_t i = 0; cutting->every == 0 && i < count; i++) {
        read_part(cutting, source, from, cuts[i].position);
        from = cuts[i].position;
    }
    for (; cutting->every != 0 && from < last; from += cutting->every)
        read_part(cutting, source, from, from + cutting->every);
    read_part(cutting, source, from, UINT64_MAX);
    free(cuts);
    return 0;
}

/* The segments were begun when the made-up server had come so far, not when this test ran. */
static void set_begun(const char *file)
{
    size_t bytes = 0;
    char *data = mk_read(file, &bytes);
    struct pm_file_head head;
    memcpy(&head, data, sizeof head);
    uint64_t newest = MK_START_MONO;
    for (size_t at = head.header_bytes; at + head.segment_bytes <= bytes;
         at += head.segment_bytes) {
        memcpy(data + at + offsetof(struct pm_segment_head, clock.mono_ns), &newest, 8);
        for (size_t record = at + sizeof(struct pm_segment_head);;) {
            uint64_t word, when;
            memcpy(&word, data + record, 8);
            if (word == 0 || record + pm_record_words(word) * 8 + 8 > at + head.segment_bytes)
                break;
            memcpy(&when, data + record + 16, 8); /* the second member of all these facts */
            if (pm_record_schema(word) >= PM_SCHEMA_FIRST && when > newest)
                newest = when;
            record += pm_record_words(word) * 8;
        }
    }
    mk_write(file, data, bytes);
    free(data);
}

static void make_process(const char *dir, int rank)
{
    struct mk mk;
    mk_open(&mk, dir, 64u << 20, false);
    pm_recorder_identify(mk.rec, rank < 0 ? PM_ROLE_ENGINE : PM_ROLE_WORKER, 0, rank);
    for (uint64_t step = 0; step < STEPS; step++) {
        const uint32_t p = step % 7 == 0, d = (uint32_t)(step % 5);
        if (rank < 0) {
            mk_sched(&mk, mk_sched_of(step, p, d));
            continue;
        }
        if (step % 97 == 50 && rank == 1)
            continue; /* a half that is not there */
        struct pm_worker_step worker = mk_worker_of(step, p, d, 3000000 + (uint32_t)step);
        if (step % 500 == 499)
            worker.total_ns += 300000000; /* longer than many steps apart */
        mk_worker(&mk, worker);
    }
    mk_close(&mk, rank < 0 ? 100 : 200 + (uint32_t)rank, rank < 0 ? 1 : 100,
             MK_START_MONO + (uint64_t)(rank + 2), rank >= 0);
    set_begun(mk.file);
}

static void parts_are_the_whole(void **state)
{
    static const struct {
        const char *table;
        unsigned sources;
        uint64_t every[3];
    } cases[] = {
        {"steps", 2, {0, 777 * MK_MS, 5000 * MK_MS}},
        {"sched_step", 3, {0, 333, 1000}},
        {"worker_step", 3, {0, 100, 1024}},
    };
    char dir[300];
    (void)state;
    mk_folder(dir, sizeof dir);
    for (int rank = -1; rank < 2; rank++)
        make_process(dir, rank);
    struct pm_session *session = mk_session(dir);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct rows whole = whole_of(session, cases[i].table);
        assert_true(whole.count >= STEPS);
        for (unsigned k = 0; k < 3; k++) {
            struct cutting cutting = {
                .session = session, .name = cases[i].table, .every = cases[i].every[k]};
            assert_int_equal(pm_table_sources(session, cases[i].table, cut_source, &cutting), 0);
            assert_int_equal(cutting.sources, cases[i].sources);
            assert_true(cutting.parts > cutting.sources + 3);
            assert_int_equal(cutting.rows.count, whole.count);
            assert_true(cutting.rows.sum == whole.sum);
        }
    }
    pm_session_close(session);
    mk_remove(dir);
}

static void what_is_not_there(void **state)
{
    struct pm_table *table;
    struct pm_error err = {""};
    char dir[300];
    (void)state;
    mk_folder(dir, sizeof dir);
    make_process(dir, -1);
    struct pm_session *session = mk_session(dir);
    assert_int_equal(pm_table_open_part(&table, session, "steps", "p1-none-0", 0, 1, &err),
                     -PM_ENOTFOUND);
    assert_non_null(strstr(err.text, "p1-none-0"));
    assert_int_equal(pm_table_open_part(&table, session, "nothing", "p1-none", 0, 1, &err),
                     -PM_ENOTFOUND);
    pm_session_close(session);
    mk_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_the_whole),
        cmocka_unit_test(what_is_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
