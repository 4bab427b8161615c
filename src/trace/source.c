/*
 * The bytes of a trace (see source.h). The helper thread fills slots, the reader empties them, in
 * turn; a mutex guards their states.
 */
#include "trace/source.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SLOTS 3u
#define SLOT_BYTES (256u * 1024)
#define THREAD_FROM_BYTES (64 * 1024) /* below this a thread is not worth its start */

struct slot {
    uint8_t *data;
    size_t used, taken;
    bool full;
};

struct pm_trace_source {
    int fd;               /* -1 for memory */
    const uint8_t *bytes; /* memory */
    uint64_t n_bytes, at; /* size; read so far */
    bool gzip;
    struct pm_inflate inflate;
    bool threaded;
    pthread_t thread;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    bool stop, ended;
    int status;
    struct slot slots[SLOTS];
    unsigned next_out; /* the reader's */
};

static int64_t read_raw(void *arg, uint8_t *out, size_t n)
{
    struct pm_trace_source *source = arg;
    if (source->fd < 0) {
        if (n > source->n_bytes - source->at)
            n = source->n_bytes - source->at;
        memcpy(out, source->bytes + source->at, n);
        source->at += n;
        return (int64_t)n;
    }
    ssize_t got;
    do
        got = read(source->fd, out, n);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return pm_error_from_errno(errno);
    source->at += (uint64_t)got;
    return got;
}

/* ---- the helper thread ----------------------------------------------------------------------- */

static void *inflate_ahead(void *arg)
{
    struct pm_trace_source *source = arg;
    for (unsigned i = 0;; i = (i + 1) % SLOTS) {
        struct slot *slot = &source->slots[i];
        pthread_mutex_lock(&source->lock);
        while (slot->full && !source->stop)
            pthread_cond_wait(&source->changed, &source->lock);
        bool stop = source->stop;
        pthread_mutex_unlock(&source->lock);
        if (stop)
            return NULL;
        int64_t got = pm_inflate_read(&source->inflate, slot->data, SLOT_BYTES);
        pthread_mutex_lock(&source->lock);
        if (got <= 0) {
            source->ended = true;
            source->status = (int)got;
        } else {
            slot->used = (size_t)got;
            slot->taken = 0;
            slot->full = true;
        }
        pthread_cond_signal(&source->changed);
        pthread_mutex_unlock(&source->lock);
        if (got <= 0)
            return NULL;
    }
}

static int start_thread(struct pm_trace_source *source)
{
    sigset_t all, before;
    for (unsigned i = 0; i < SLOTS; i++) {
        source->slots[i].data = malloc(SLOT_BYTES);
        if (source->slots[i].data == NULL)
            return -PM_ENOMEM;
    }
    pthread_mutex_init(&source->lock, NULL);
    pthread_cond_init(&source->changed, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int failed = pthread_create(&source->thread, NULL, inflate_ahead, source);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed != 0) {
        pthread_cond_destroy(&source->changed);
        pthread_mutex_destroy(&source->lock);
        return 0; /* without a thread it works too */
    }
    source->threaded = true;
    return 0;
}

/* ---- the reader ------------------------------------------------------------------------------ */

static int64_t read_slot(struct pm_trace_source *source, uint8_t *out, size_t n)
{
    struct slot *slot = &source->slots[source->next_out];
    pthread_mutex_lock(&source->lock);
    while (!slot->full && !source->ended)
        pthread_cond_wait(&source->changed, &source->lock);
    bool full = slot->full;
    int status = source->status;
    pthread_mutex_unlock(&source->lock);
    if (!full)
        return status;
    if (n > slot->used - slot->taken)
        n = slot->used - slot->taken;
    memcpy(out, slot->data + slot->taken, n);
    slot->taken += n;
    if (slot->taken == slot->used) {
        pthread_mutex_lock(&source->lock);
        slot->full = false;
        pthread_cond_signal(&source->changed);
        pthread_mutex_unlock(&source->lock);
        source->next_out = (source->next_out + 1) % SLOTS;
    }
    return (int64_t)n;
}

int64_t pm_trace_source_read(struct pm_trace_source *source, uint8_t *out, size_t n)
{
    if (!source->gzip)
        return read_raw(source, out, n);
    if (source->threaded)
        return read_slot(source, out, n);
    return pm_inflate_read(&source->inflate, out, n);
}

void pm_trace_source_how_ended(const struct pm_trace_source *source,
                               struct pm_trace_source_end *ret)
{
    *ret = (struct pm_trace_source_end){
        .gzip = source->gzip,
        .state = PM_INFLATE_COMPLETE,
        .file_bytes = source->n_bytes,
        .consumed = source->at,
    };
    if (source->gzip) {
        ret->state = source->inflate.state;
        ret->consumed = source->inflate.consumed;
        ret->trailing = source->inflate.trailing;
        ret->members = source->inflate.members;
    }
}

/* ---- opening and closing --------------------------------------------------------------------- */

static int begin(struct pm_trace_source *source, bool gzip,
                 const struct pm_trace_source_options *options)
{
    static const struct pm_trace_source_options defaults = {PM_INFLATE_BEST, false};
    if (options == NULL)
        options = &defaults;
    if (!gzip)
        return 0;
    int err = pm_inflate_init(&source->inflate, read_raw, source, options->library);
    if (err != 0)
        return err;
    source->gzip = true;
    if (!options->one_thread && source->n_bytes >= THREAD_FROM_BYTES)
        return start_thread(source);
    return 0;
}

int pm_trace_source_open(struct pm_trace_source **ret, const char *path,
                         const struct pm_trace_source_options *options, struct pm_error *err)
{
    struct stat info;
    uint8_t magic[2];
    struct pm_trace_source *source = calloc(1, sizeof(*source));
    if (source == NULL)
        return pm_error_set(err, -PM_ENOMEM, "cannot read %.300s, out of memory, free some", path);
    source->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (source->fd < 0 || fstat(source->fd, &info) != 0) {
        int code = pm_error_from_errno(errno);
        pm_error_set(err, code, "cannot open %.300s, %s, check the path and its permissions", path,
                     pm_strerror(code));
        pm_trace_source_close(source);
        return code;
    }
    if (S_ISDIR(info.st_mode)) {
        pm_trace_source_close(source);
        return pm_error_set(err, -PM_EINVALID,
                            "%.300s is a folder, give the trace files in it (*.json, *.json.gz)",
                            path);
    }
    source->n_bytes = info.st_size > 0 ? (uint64_t)info.st_size : 0;
    bool gzip = pread(source->fd, magic, 2, 0) == 2 && magic[0] == 0x1F && magic[1] == 0x8B;
    posix_fadvise(source->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    int code = begin(source, gzip, options);
    if (code != 0) {
        pm_trace_source_close(source);
        return pm_error_set(err, code, "cannot read %.300s, %s", path, pm_strerror(code));
    }
    *ret = source;
    return 0;
}

int pm_trace_source_memory(struct pm_trace_source **ret, const void *bytes, size_t n,
                           const struct pm_trace_source_options *options)
{
    const uint8_t *p = bytes;
    struct pm_trace_source *source = calloc(1, sizeof(*source));
    if (source == NULL)
        return -PM_ENOMEM;
    source->fd = -1;
    source->bytes = p;
    source->n_bytes = n;
    int code = begin(source, n >= 2 && p[0] == 0x1F && p[1] == 0x8B, options);
    if (code != 0) {
        pm_trace_source_close(source);
        return code;
    }
    *ret = source;
    return 0;
}

void pm_trace_source_close(struct pm_trace_source *source)
{
    if (source == NULL)
        return;
    if (source->threaded) {
        pthread_mutex_lock(&source->lock);
        source->stop = true;
        pthread_cond_signal(&source->changed);
        pthread_mutex_unlock(&source->lock);
        pthread_join(source->thread, NULL);
        pthread_cond_destroy(&source->changed);
        pthread_mutex_destroy(&source->lock);
    }
    for (unsigned i = 0; i < SLOTS; i++)
        free(source->slots[i].data);
    if (source->gzip)
        pm_inflate_release(&source->inflate);
    if (source->fd >= 0)
        close(source->fd);
    free(source);
}
