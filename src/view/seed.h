/*
 * The seeds' files, one writer per group of them: what a writer gets from the export under way
 * (seed_export.c), and the table of writers (seed_files.def). A writer makes its files with their
 * header, or their documented keys, whether or not there is anything to put into them.
 */
#ifndef PM_VIEW_SEED_H
#define PM_VIEW_SEED_H

#include "view/common.h"
#include "view/outfile.h"

/* One export under way. */
struct pm_seed {
    const struct pm_session *session;
    int preset;    /* enum pm_preset */
    uint32_t mode; /* of the files */
    struct pm_export_result result;
    struct pm_account account;
    struct pm_error *err;
};

/* Which groups of the export a writer has files in. */
enum pm_seed_scope {
    PM_SEED_RANK = 1,   /* each engine and rank */
    PM_SEED_ENGINE = 2, /* each engine: with the files of the rank that samples */
    PM_SEED_SIMPLE = 4, /* in the preset `simple` as well */
};

/* Writes files into the folder dir_fd, of worker n (as for pm_engine_worker) of an engine, which
 * need not exist: then they have no rows. Counts the rows of its CSVs into seed->result.rows. 0, or
 * -PM_E… with a sentence in seed->err. */
typedef int (*pm_seed_write_fn)(struct pm_seed *seed, int dir_fd, size_t engine, unsigned n);

#define X(setting, scope, function)                                                                \
    int function(struct pm_seed *seed, int dir_fd, size_t engine, unsigned n);
#include "view/seed_files.def"
#undef X

/* Begins a file, and ends it with what its writer came to: rc 0 renames it, anything else leaves
 * the old file and says why. */
PM_MUST_USE int pm_seed_begin(struct pm_seed *seed, int dir_fd, const char *name,
                              struct pm_outfile *file);
PM_MUST_USE int pm_seed_finish(struct pm_seed *seed, struct pm_outfile *file, int rc);

#endif
