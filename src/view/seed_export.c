/*
 * Writes the seeds' files of a session: one group per engine and rank, the first engine's sampling
 * rank at the top, every other one under engine_<n>/rank_<m>/. Called by the program, on one
 * thread; may run while the server does, and again at any time.
 */
#include "view/seed.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/settings.h"

#define OLD_METADATA_MAX (16u << 20)

static const struct writer {
    const char *setting;
    unsigned scope;
    pm_seed_write_fn write;
} writers[] = {
#define X(setting, scope, function) {setting, scope, function},
#include "view/seed_files.def"
#undef X
};

int pm_seed_begin(struct pm_seed *seed, int dir_fd, const char *name, struct pm_outfile *file)
{
    return pm_outfile_begin(file, dir_fd, name, seed->mode, seed->err);
}

int pm_seed_finish(struct pm_seed *seed, struct pm_outfile *file, int rc)
{
    uint64_t bytes = 0;
    const char *name = file->name;

    if (rc != 0)
        (void)pm_error_set(seed->err, rc, "%s: cannot be written: %s%s", name, pm_strerror(rc),
                           rc == -PM_ENOSPACE ? " on the disk; the file that was there stays" : "");
    rc = pm_outfile_finish(file, rc, &bytes, seed->err);
    if (rc == 0) {
        seed->result.files++;
        seed->result.bytes += bytes;
    }
    return rc;
}

/* forward_pass_timing.csv and its summary. */
int pm_seed_forward(struct pm_seed *seed, int dir_fd, size_t engine, unsigned n)
{
    const bool simple = seed->preset == PM_PRESET_SIMPLE;
    struct pm_stats stats[PM_FORWARD_PHASES];
    struct pm_forward forward;
    struct pm_outfile file;
    const char *source = "exact";

    pm_forward_init(&forward);
    int rc = pm_seed_begin(seed, dir_fd, "forward_pass_timing.csv", &file);
    if (rc != 0)
        goto done;
    rc = pm_forward_walk(seed->session, engine, n, seed->preset, &file, &forward);
    rc = pm_seed_finish(seed, &file, rc);
    if (rc != 0)
        goto done;
    rc = pm_forward_stats(seed->session, engine, n, &forward, stats, &source);
    if (rc != 0) {
        rc = pm_error_set(seed->err, rc, "%s", pm_strerror(rc));
        goto done;
    }
    rc = pm_seed_begin(seed, dir_fd, simple ? "summary.json" : "forward_pass_summary.json", &file);
    if (rc != 0)
        goto done;
    struct pm_json json;
    pm_json_init(&json, &file.buf, 2);
    pm_forward_summary(&json, seed->preset, stats, source);
    rc = pm_seed_finish(seed, &file, pm_json_finish(&json));
    seed->result.rows += forward.rows;
    pm_account_add(&seed->account, &forward, source);
done:
    pm_forward_release(&forward);
    return rc;
}

/* By its default. */
static bool is_on(const char *setting)
{
    for (size_t i = 0; i < pm_setting_rows_count; i++)
        if (strcmp(pm_setting_rows[i].field, setting) == 0)
            return pm_setting_rows[i].def[0] != '\0' && strcmp(pm_setting_rows[i].def, "0") != 0;
    return true;
}

static int group(struct pm_seed *seed, size_t engine, unsigned n, const char *sub)
{
    const bool samples = engine >= pm_session_engine_count(seed->session) ||
                         n == pm_engine_sampler(seed->session, engine);
    int dir_fd;
    int rc = pm_outfile_folder(seed->result.out_dir, sub, &dir_fd, seed->err);

    if (rc != 0)
        return rc;
    for (size_t i = 0; i < sizeof(writers) / sizeof(*writers) && rc == 0; i++) {
        const struct writer *writer = &writers[i];
        if (seed->preset == PM_PRESET_SIMPLE && (writer->scope & PM_SEED_SIMPLE) == 0)
            continue;
        if ((writer->scope & PM_SEED_RANK) == 0 && !samples)
            continue;
        if (pm_session_setting_on(seed->session, writer->setting, is_on(writer->setting)))
            rc = writer->write(seed, dir_fd, engine, n);
    }
    close(dir_fd);
    return rc;
}

/* How many workers before n have the same rank. */
static unsigned twin_before(const struct pm_session *session, size_t engine, unsigned n, int rank)
{
    unsigned twins = 0;
    for (unsigned i = 0; i < n; i++) {
        const struct pm_process *process;
        unsigned instance;
        int other;
        if (pm_engine_worker(session, engine, i, &process, &instance, &other) == 0)
            twins += other == rank;
    }
    return twins;
}

static int all_groups(struct pm_seed *seed)
{
    const size_t n_engines = pm_session_engine_count(seed->session);
    int rc = 0;

    if (n_engines == 0)
        return group(seed, 0, 0, NULL);
    for (size_t e = 0; e < n_engines && rc == 0; e++) {
        const struct pm_engine *engine = pm_session_engine(seed->session, e);
        const unsigned sampler = pm_engine_sampler(seed->session, e);
        /* An engine whose workers have not shown themselves still has its files. */
        for (unsigned n = 0; n < (engine->n_ranks > 0 ? engine->n_ranks : 1) && rc == 0; n++) {
            const struct pm_process *process;
            unsigned instance;
            int rank = 0;
            char sub[64];
            if (e == 0 && n == sampler) {
                rc = group(seed, e, n, NULL);
                continue;
            }
            if (pm_engine_worker(seed->session, e, n, &process, &instance, &rank) != 0)
                rank = 0;
            if (twin_before(seed->session, e, n, rank) == 0)
                snprintf(sub, sizeof(sub), "engine_%u/rank_%d", engine->number, rank);
            else /* a worker that came in the place of one that had died */
                snprintf(sub, sizeof(sub), "engine_%u/rank_%d_%u", engine->number, rank,
                         twin_before(seed->session, e, n, rank) + 1);
            rc = group(seed, e, n, sub);
        }
    }
    return rc;
}

/* The metadata.json that is there; NULL where there is none that can be read. */
static char *read_old(int dir_fd, size_t *ret_bytes)
{
    struct stat st;
    char *bytes = NULL;
    ssize_t got = -1;
    int fd = openat(dir_fd, "metadata.json", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 &&
        st.st_size <= (off_t)OLD_METADATA_MAX) {
        bytes = malloc((size_t)st.st_size);
        if (bytes != NULL)
            got = read(fd, bytes, (size_t)st.st_size);
    }
    if (fd >= 0)
        close(fd);
    if (got <= 0) {
        free(bytes);
        return NULL;
    }
    *ret_bytes = (size_t)got;
    return bytes;
}

static int metadata_file(struct pm_seed *seed)
{
    struct pm_outfile file;
    size_t old_bytes = 0;
    int dir_fd;
    int rc = pm_outfile_folder(seed->result.out_dir, NULL, &dir_fd, seed->err);

    if (rc != 0)
        return rc;
    char *old = read_old(dir_fd, &old_bytes);
    rc = pm_seed_begin(seed, dir_fd, "metadata.json", &file);
    if (rc == 0) {
        rc = pm_metadata_write(seed->session, &seed->account, old, old_bytes, &file.buf);
        rc = pm_seed_finish(seed, &file, rc);
    }
    free(old);
    close(dir_fd);
    return rc;
}

int pm_export_seed(const struct pm_session *session, const struct pm_export_options *options,
                   struct pm_export_result *ret_result, struct pm_error *err)
{
    struct pm_seed seed = {
        .session = session,
        .preset = options->preset >= 0 ? options->preset : pm_session_preset(session),
        .mode = pm_session_file_mode(session),
        .err = err,
    };
    const char *out_dir =
        options->out_dir != NULL ? options->out_dir : pm_session_info(session)->path;

    seed.result.preset = seed.preset;
    if (strlen(out_dir) >= sizeof(seed.result.out_dir))
        return pm_error_set(err, -PM_EINVALID, "%.200s…: the path is too long", out_dir);
    snprintf(seed.result.out_dir, sizeof(seed.result.out_dir), "%s", out_dir);
    int rc = all_groups(&seed);
    if (rc == 0 && seed.preset != PM_PRESET_SIMPLE)
        rc = metadata_file(&seed);
    if (ret_result != NULL)
        *ret_result = seed.result;
    return rc;
}
