/*
 * One record file: its header, its schemas, its attributes, how far it goes and whether its writer
 * lives. Called by session.c; the object lives as long as the session.
 */
#include "reader/internal.h"

#include "session/doing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail(struct pm_error *err, int code, const char *name, uint64_t offset, const char *what)
{
    return pm_error_set(err, code, "records/%s: at byte %llu: %s", name, (unsigned long long)offset,
                        what);
}

/* Checks the header's claims about the file's form. */
static int check_head(struct pm_process *process, const struct pm_file_head *head, size_t got,
                      const uint8_t *token, struct pm_error *err)
{
    const char *name = process->file;

    if (got < sizeof(head->magic))
        return fail(err, -PM_ETRUNCATED, name, got, "cut off inside the file's header");
    if (head->magic != PM_FILE_MAGIC)
        return fail(err, -PM_EFORMAT, name, 0, "not a record file of ProfileMate");
    if (got < sizeof(*head))
        return fail(err, -PM_ETRUNCATED, name, got, "cut off inside the file's header");
    if (head->version > PM_FORMAT_VERSION)
        return pm_error_set(err, -PM_EVERSION,
                            "records/%s: format version %u, this program reads up to %u: use a "
                            "newer profilemate",
                            name, head->version, PM_FORMAT_VERSION);
    if (head->version == 0)
        return fail(err, -PM_ECORRUPT, name, offsetof(struct pm_file_head, version),
                    "expected a format version, found 0");
    if (head->segment_bytes < PM_SEGMENT_BYTES_MIN || head->segment_bytes > PM_SEGMENT_BYTES_MAX ||
        head->segment_bytes % 4096 != 0)
        return fail(err, -PM_ECORRUPT, name, offsetof(struct pm_file_head, segment_bytes),
                    "the size of a segment is out of range");
    if (head->header_bytes < sizeof(*head) || head->header_bytes % 4096 != 0 ||
        head->header_bytes > (1u << 30))
        return fail(err, -PM_ECORRUPT, name, offsetof(struct pm_file_head, header_bytes),
                    "the size of the header is out of range");
    if (head->live_bytes != 0 &&
        (head->live_offset < sizeof(*head) || head->live_bytes < sizeof(struct pm_live_head) ||
         head->live_offset % 8 != 0 || head->live_bytes % 8 != 0 ||
         (uint64_t)head->live_offset + 2ull * head->live_bytes > head->header_bytes))
        return fail(err, -PM_ECORRUPT, name, offsetof(struct pm_file_head, live_offset),
                    "the live totals lie outside the header");
    if (token != NULL && memcmp(head->token, token, PM_TOKEN_BYTES) != 0)
        return fail(err, -PM_EINVALID, name, offsetof(struct pm_file_head, token),
                    "belongs to another session: not read");
    process->header_bytes = head->header_bytes;
    process->segment_bytes = head->segment_bytes;
    process->live_offset = head->live_offset;
    process->live_bytes = head->live_bytes;
    return 0;
}

static void take_head(struct pm_process *process, struct pm_file_head *head)
{
    struct pm_process_info *info = &process->info;

    info->pid = head->pid;
    info->ppid = head->ppid;
    info->start_ticks = head->process_start_ticks;
    info->roles = atomic_load(&head->roles);
    info->engine = atomic_load(&head->engine);
    info->rank = atomic_load(&head->rank);
    info->state = atomic_load(&head->state);
    info->opened_mono_ns = head->opened.mono_ns;
    info->opened_real_ns = head->opened.real_ns;
    info->closed_ns = atomic_load(&head->closed_ns);
    info->heartbeat_ns = atomic_load(&head->heartbeat_ns);
    info->faults = atomic_load(&head->faults);
    info->hook_calls = atomic_load(&head->hook_calls);
    info->hook_ns = atomic_load(&head->hook_ns);
    for (unsigned s = 0; s < PM_STREAM_COUNT; s++) {
        info->lost[s] = atomic_load(&head->lost[s]);
        info->recycled[s] = atomic_load(&head->recycled[s]);
    }
}

/* The owner holds a write lock on byte 0 for as long as it lives. */
static void look_at_lock(struct pm_process *process)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    struct pm_process_info *info = &process->info;
    const bool held = fcntl(process->fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;

    /* The kernel tells the pid as it is in our namespace, 0 or less where it has none there. */
    info->owner_pid = held && lock.l_pid > 0 ? (uint32_t)lock.l_pid : 0;
    if ((info->state & PM_STATE_CLOSED) != 0)
        info->life = PM_LIFE_CLOSED;
    else
        info->life = held ? PM_LIFE_RUNNING : PM_LIFE_KILLED;
}

static int take_schema(struct pm_process *process, const struct pm_raw *raw)
{
    struct pm_schema *schema = NULL;

    if (raw->bytes < 8)
        return -PM_ECORRUPT;
    uint32_t id = pm_load32(raw->payload);
    uint32_t bytes = pm_load32(raw->payload + 4);
    if (bytes > raw->bytes - 8 || id < PM_SCHEMA_FIRST ||
        id - PM_SCHEMA_FIRST >= PM_READER_MAX_SCHEMAS)
        return -PM_ECORRUPT;
    uint32_t number = id - PM_SCHEMA_FIRST;
    if (process->schemas[number] != NULL)
        return 0; /* each keyframe says it again */
    int rc = pm_schema_from_text((const char *)raw->payload + 8, bytes, &schema);
    if (rc != 0)
        return rc;
    process->schemas[number] = schema;
    if (number >= process->n_schemas)
        process->n_schemas = number + 1;
    return 0;
}

static int take_attr(struct pm_process *process, const struct pm_raw *raw)
{
    if (raw->bytes < 16)
        return -PM_ECORRUPT;
    uint32_t key_bytes = pm_load32(raw->payload + 8);
    uint32_t value_bytes = pm_load32(raw->payload + 12);
    uint64_t room = raw->bytes - 16;
    if ((uint64_t)key_bytes + value_bytes > room)
        return -PM_ECORRUPT;
    const char *text = (const char *)raw->payload + 16;
    int rc = pm_attrs_put(&process->attrs, text, key_bytes, text + key_bytes, value_bytes,
                          pm_load64(raw->payload));
    return rc == -PM_ELIMIT ? -PM_ECORRUPT : rc;
}

/* The newest moment that a fact names. */
static void take_times(struct pm_process *process, const struct pm_raw *raw)
{
    uint32_t number = raw->schema - PM_SCHEMA_FIRST;
    const struct pm_schema *schema =
        number < PM_READER_MAX_SCHEMAS ? process->schemas[number] : NULL;

    if (schema == NULL || raw->bytes < schema->payload_bytes)
        return;
    for (size_t i = 0; i < schema->n_fields; i++) {
        if (schema->fields[i].kind != PM_KIND_TIME)
            continue;
        uint64_t at = pm_field_get(&schema->fields[i], raw->payload);
        if (at > process->info.last_ns)
            process->info.last_ns = at;
    }
}

enum { WALK_SCHEMAS = 1, WALK_ATTRS = 2, WALK_TIMES = 4, WALK_KEYFRAME_ONLY = 8 };

/* Walks one segment for what the process says of itself. *ret_facts: how many facts it holds. */
static int walk_segment(struct pm_process *process, enum pm_stream stream,
                        const struct pm_segment_ref *ref, unsigned what,
                        struct pm_segment_copy *copy, uint64_t *ret_facts)
{
    struct pm_walk walk;
    struct pm_raw raw;
    const char *why = "";
    int rc = pm_segment_read(process, stream, ref, copy);

    *ret_facts = 0;
    if (rc == 1)
        return 0;
    if (rc == -PM_EIO) {
        pm_session_add_note(process->session, "records/%s: a segment cannot be read from the disk",
                            process->file);
        return 0;
    }
    if (rc < 0)
        return rc;
    pm_walk_begin(&walk, copy);
    while ((rc = pm_walk_next(&walk, &raw, &why)) == 1) {
        int bad = 0;
        if (raw.schema == PM_SCHEMA_SCHEMA && (what & WALK_SCHEMAS) != 0)
            bad = take_schema(process, &raw);
        else if (raw.schema == PM_SCHEMA_ATTR && (what & WALK_ATTRS) != 0)
            bad = take_attr(process, &raw);
        else if (raw.schema >= PM_SCHEMA_FIRST && (what & WALK_TIMES) != 0)
            take_times(process, &raw);
        else if (raw.schema == PM_SCHEMA_KEYFRAME && (what & WALK_KEYFRAME_ONLY) != 0)
            return 0;
        if (bad == -PM_ENOMEM)
            return bad;
        if (bad != 0)
            pm_segment_note(process, copy, walk.pos - raw.bytes - 8,
                            "a description that cannot be read");
    }
    if (rc < 0)
        pm_segment_note(process, copy, walk.pos, why);
    *ret_facts = walk.fact - ref->first_fact;
    return 0;
}

/* How many facts are readable, by the heads where they follow one another, else by counting. */
static int count_stream(struct pm_process *process, enum pm_stream stream,
                        const struct pm_segment_list *list, struct pm_segment_copy *copy)
{
    const uint64_t most = process->segment_bytes / 8;

    for (size_t i = 0; i < list->count; i++) {
        const struct pm_segment_ref *ref = &list->refs[i];
        const struct pm_segment_ref *next = i + 1 < list->count ? ref + 1 : NULL;
        uint64_t facts;
        if (next != NULL && next->index == ref->index + 1 && next->first_fact >= ref->first_fact &&
            next->first_fact - ref->first_fact <= most) {
            facts = next->first_fact - ref->first_fact;
        } else {
            int rc = walk_segment(process, stream, ref, WALK_TIMES, copy, &facts);
            if (rc != 0)
                return rc;
        }
        process->info.records[stream] += facts;
    }
    if (list->count > 0)
        process->info.first_fact[stream] = list->refs[0].first_fact;
    return 0;
}

/* Everything a process says of itself: first the stream that is kept, then the keyframes of the
 * others, should schemas be missing there. */
static int take_segments(struct pm_process *process)
{
    struct pm_segment_list lists[PM_STREAM_COUNT];
    struct pm_segment_copy copy = {0};
    uint64_t facts;
    int rc = pm_segments_list(process, (1u << PM_STREAM_COUNT) - 1, lists);

    if (rc != 0)
        return rc;
    const struct pm_segment_list *keep = &lists[PM_STREAM_KEEP];
    for (size_t i = 0; i < keep->count && rc == 0; i++)
        rc = walk_segment(process, PM_STREAM_KEEP, &keep->refs[i], WALK_SCHEMAS | WALK_ATTRS, &copy,
                          &facts);
    for (unsigned s = PM_STREAM_KEEP + 1; s < PM_STREAM_COUNT && rc == 0; s++)
        if (lists[s].count > 0)
            rc = walk_segment(process, s, &lists[s].refs[lists[s].count - 1],
                              WALK_SCHEMAS | WALK_KEYFRAME_ONLY, &copy, &facts);
    for (unsigned s = 0; s < PM_STREAM_COUNT && rc == 0; s++)
        rc = count_stream(process, s, &lists[s], &copy);
    pm_segment_copy_free(&copy);
    pm_segments_free(lists);
    return rc;
}

int pm_process_open(struct pm_process **ret_process, struct pm_session *session, int dir_fd,
                    const char *name, const uint8_t *token, struct pm_error *err)
{
    struct pm_file_head head = {0};
    struct stat st;
    ssize_t got;
    int rc;
    struct pm_process *process = calloc(1, sizeof(*process));

    if (process == NULL)
        return -PM_ENOMEM;
    process->session = session;
    process->self = process;
    snprintf(process->file, sizeof(process->file), "%s", name);
    snprintf(process->info.file, sizeof(process->info.file), "%s", name);
    /* O_NONBLOCK: a FIFO planted here must not hold us up. */
    process->fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (process->fd < 0 || fstat(process->fd, &st) != 0) {
        rc = pm_error_set(err, pm_error_from_errno(errno), "records/%s: cannot be opened: %s", name,
                          strerror(errno));
        goto fail;
    }
    if (!S_ISREG(st.st_mode)) {
        rc = pm_error_set(err, -PM_EFORMAT, "records/%s: not a regular file", name);
        goto fail;
    }
    got = pm_read_at(process->fd, &head, sizeof(head), 0);
    if (got < 0) {
        rc = pm_error_set(err, -PM_EIO, "records/%s: cannot be read: %s", name, strerror(errno));
        goto fail;
    }
    rc = check_head(process, &head, (size_t)got, token, err);
    if (rc != 0)
        goto fail;
    take_head(process, &head);
    look_at_lock(process);
    rc = take_segments(process);
    if (rc != 0) {
        rc = pm_error_set(err, rc, "records/%s: %s", name, pm_strerror(rc));
        goto fail;
    }
    *ret_process = process;
    return 0;
fail:
    pm_process_free(process);
    return rc;
}

int pm_process_look(const struct pm_process *process)
{
    struct pm_file_head head;

    if (pm_read_at(process->fd, &head, sizeof(head), 0) != (ssize_t)sizeof(head) ||
        head.magic != PM_FILE_MAGIC)
        return -PM_EIO;
    take_head(process->self, &head);
    look_at_lock(process->self);
    return 0;
}

size_t pm_process_threads(const struct pm_process *process,
                          struct pm_thread_state ret_threads[PM_THREAD_WORDS])
{
    struct pm_thread_word words[PM_THREAD_WORDS];
    size_t count = 0;

    if (pm_read_at(process->fd, words, sizeof(words), offsetof(struct pm_file_head, threads)) !=
        (ssize_t)sizeof(words))
        return 0;
    for (unsigned i = 0; i < PM_THREAD_WORDS; i++) {
        const uint64_t state = atomic_load(&words[i].state);
        const uint32_t tid = atomic_load(&words[i].tid);
        if (tid == 0 || state == 0)
            continue;
        const unsigned doing = pm_doing_of(state);
        ret_threads[count++] = (struct pm_thread_state){
            .tid = tid,
            .doing = doing < PM_DOING_COUNT ? doing : PM_DOING_UNKNOWN,
            .raised = pm_doing_raised(state),
            .since_ns = pm_doing_since_ns(state),
        };
    }
    return count;
}

void pm_process_free(struct pm_process *process)
{
    if (process == NULL)
        return;
    if (process->fd >= 0)
        close(process->fd);
    for (size_t i = 0; i < process->n_schemas; i++)
        free(process->schemas[i]);
    pm_attrs_free(&process->attrs);
    free(process);
}

const struct pm_process_info *pm_process_info(const struct pm_process *process)
{
    return &process->info;
}

const char *pm_process_attr(const struct pm_process *process, const char *key)
{
    const struct pm_attr *attr = pm_attrs_get(&process->attrs, key);
    return attr != NULL ? attr->value : NULL;
}

size_t pm_process_attr_count(const struct pm_process *process)
{
    return process->attrs.count;
}

void pm_process_attr_at(const struct pm_process *process, size_t i, const char **ret_key,
                        const char **ret_value)
{
    *ret_key = process->attrs.rows[i].key;
    *ret_value = process->attrs.rows[i].value;
}

size_t pm_process_schema_count(const struct pm_process *process)
{
    return process->n_schemas;
}

const struct pm_schema *pm_process_schema(const struct pm_process *process, size_t i)
{
    return i < process->n_schemas ? process->schemas[i] : NULL;
}

int pm_process_schema_find(const struct pm_process *process, const char *name)
{
    for (size_t i = 0; i < process->n_schemas; i++)
        if (process->schemas[i] != NULL && strcmp(process->schemas[i]->name, name) == 0)
            return (int)i;
    return -1;
}
