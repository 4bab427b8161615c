/*
 * One output file that appears whole or not at all: written under a hidden temporary name in the
 * same folder, renamed when complete. Used by the exports, on one thread; owns the descriptor and
 * the buffer.
 *
 *   struct pm_outfile file;
 *   pm_outfile_begin(&file, dir_fd, "summary.json", 0600, err) … write to file.buf …
 *   pm_outfile_spill(&file)            now and then, where the file is long
 *   pm_outfile_finish(&file, rc, &bytes, err)   renames it, or, with rc != 0, removes it
 */
#ifndef PM_VIEW_OUTFILE_H
#define PM_VIEW_OUTFILE_H

#include "base/buf.h"

#define PM_OUTFILE_SPILL_BYTES (256u * 1024u)

struct pm_outfile {
    int dir_fd; /* borrowed */
    int fd;
    const char *name; /* borrowed */
    char temporary[160];
    struct pm_buf buf;
    uint64_t written; /* bytes on their way to the disk already */
};

/* Opens the folder that the files go to, below base where sub is not NULL, made if it does not
 * exist (sub may be two levels deep). Files that a killed export left half-written are removed. */
PM_MUST_USE int pm_outfile_folder(const char *base, const char *sub, int *ret_dir_fd,
                                  struct pm_error *err);

PM_MUST_USE int pm_outfile_begin(struct pm_outfile *ret_file, int dir_fd, const char *name,
                                 uint32_t mode, struct pm_error *err);

/* Hands a full buffer to the system. 0, or -PM_ENOSPACE, -PM_EIO, …. */
PM_MUST_USE int pm_outfile_spill_now(struct pm_outfile *file);

static inline int pm_outfile_spill(struct pm_outfile *file)
{
    return file->buf.used < PM_OUTFILE_SPILL_BYTES ? 0 : pm_outfile_spill_now(file);
}

/* Ends the file. rc: 0, or why its writer gave up: then the old file stays. Returns rc or the
 * failure of the last writes, with one sentence; ret_bytes (may be NULL) gets the size. */
PM_MUST_USE int pm_outfile_finish(struct pm_outfile *file, int rc, uint64_t *ret_bytes,
                                  struct pm_error *err);

#endif
