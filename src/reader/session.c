/*
 * A session: its folder, the file `session`, the list of its processes, and the notes of what was
 * not seen. Called by the program; the session owns everything that the reader hands out.
 */
#include "reader/internal.h"
#include "reader/span.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SESSION_TEXT_MAX 65536

/* What the file `session` says besides struct pm_session_info. */
struct session_text {
    bool found, has_token;
    uint64_t version;
    char spool[4096];
};

bool pm_session_add_note(struct pm_session *session, const char *format, ...)
{
    char text[1024];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (session->n_notes == PM_READER_MAX_NOTES) {
        session->notes_dropped++;
        return true;
    }
    for (size_t i = 0; i < session->n_notes; i++)
        if (strcmp(session->notes[i], text) == 0)
            return false;
    if (session->notes == NULL)
        session->notes = calloc(PM_READER_MAX_NOTES, sizeof(*session->notes));
    char *copy = session->notes != NULL ? strdup(text) : NULL;
    if (copy == NULL) {
        session->notes_dropped++;
        return true;
    }
    session->notes[session->n_notes++] = copy;
    return true;
}

size_t pm_session_note_count(const struct pm_session *session)
{
    return session->n_notes + (session->notes_dropped != 0);
}

const char *pm_session_note(const struct pm_session *session, size_t i)
{
    if (i < session->n_notes)
        return session->notes[i];
    return i == session->n_notes && session->notes_dropped != 0 ? "… and more of the same kind"
                                                                : "";
}

/* ---- the file `session` ---- */

static bool parse_u64(const char *text, uint64_t *ret_value)
{
    uint64_t value = 0;
    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        unsigned digit = (unsigned)(*text - '0');
        if (digit > 9 || value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *ret_value = value;
    return true;
}

static bool parse_token(const char *text, uint8_t token[PM_TOKEN_BYTES])
{
    uint8_t out[PM_TOKEN_BYTES] = {0};
    for (size_t i = 0; i < 2 * PM_TOKEN_BYTES; i++) {
        char c = (char)tolower((unsigned char)text[i]);
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                                                : 16;
        if (digit == 16)
            return false; /* also at an early end */
        out[i / 2] = (uint8_t)(out[i / 2] << 4 | digit);
    }
    if (text[2 * (size_t)PM_TOKEN_BYTES] != '\0')
        return false;
    memcpy(token, out, sizeof(out));
    return true;
}

static void take_line(struct pm_session *session, struct session_text *text, char *line)
{
    char *value = strchr(line, ' ');
    uint64_t number;
    bool good = true;

    if (value == NULL)
        return;
    *value++ = '\0';
    if (strcmp(line, "token") == 0) {
        good = text->has_token = parse_token(value, session->info.token);
    } else if (strcmp(line, "start_mono_ns") == 0) {
        good = parse_u64(value, &session->info.start_mono_ns);
    } else if (strcmp(line, "start_real_ns") == 0) {
        good = parse_u64(value, &session->info.start_real_ns);
    } else if (strcmp(line, "version") == 0) {
        good = parse_u64(value, &text->version);
    } else if (strcmp(line, "root_pid") == 0) {
        good = parse_u64(value, &number) && number <= UINT32_MAX;
        if (good)
            session->info.root_pid = (uint32_t)number;
    } else if (strcmp(line, "spool") == 0) {
        good = value[0] == '/' && strlen(value) < sizeof(text->spool);
        if (good)
            snprintf(text->spool, sizeof(text->spool), "%s", value);
    }
    if (!good)
        pm_session_add_note(session, "session: the value of %s cannot be read", line);
}

static void read_session_text(struct pm_session *session, int dir_fd, struct session_text *text)
{
    char *bytes = malloc(SESSION_TEXT_MAX + 1);
    int fd = openat(dir_fd, "session", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    ssize_t got = bytes != NULL && fd >= 0 ? pm_read_at(fd, bytes, SESSION_TEXT_MAX, 0) : -1;

    if (got >= 0) {
        text->found = true;
        bytes[got] = '\0';
        for (char *line = bytes; line < bytes + got;) {
            char *end = memchr(line, '\n', (size_t)(bytes + got - line));
            if (end == NULL)
                break; /* cut off: half a value would be a wrong one */
            *end = '\0';
            take_line(session, text, line);
            line = end + 1;
        }
    }
    if (fd >= 0)
        close(fd);
    free(bytes);
}

/* ---- the folder ---- */

/* The folder meant by a path: itself, or that of metadata.json or `session` in it. */
static int resolve_folder(const char *path, char *out, size_t size, struct pm_error *err)
{
    struct stat st;

    if (path[0] == '\0' || strlen(path) >= size)
        return pm_error_set(err, -PM_EINVALID, "%.200s: not the path of a session", path);
    if (stat(path, &st) != 0)
        return pm_error_set(err, pm_error_from_errno(errno), "%s: %s", path, strerror(errno));
    snprintf(out, size, "%s", path);
    if (!S_ISDIR(st.st_mode)) {
        char *slash = strrchr(out, '/');
        const char *base = slash != NULL ? slash + 1 : out;
        if (strcmp(base, "metadata.json") != 0 && strcmp(base, "session") != 0)
            return pm_error_set(err, -PM_EFORMAT,
                                "%s: expected a session's folder, or its metadata.json", path);
        if (slash == NULL)
            snprintf(out, size, ".");
        else if (slash == out)
            slash[1] = '\0';
        else
            *slash = '\0';
    }
    char real[PATH_MAX];
    /* The links of /proc/<pid>/root lead into another mount namespace: their text does not. */
    if (strncmp(out, "/proc/", 6) != 0 && realpath(out, real) != NULL && strlen(real) < size)
        snprintf(out, size, "%s", real);
    return 0;
}

static int by_start(const void *left, const void *right)
{
    const struct pm_process_info *a = &(*(struct pm_process *const *)left)->info;
    const struct pm_process_info *b = &(*(struct pm_process *const *)right)->info;
    if (a->opened_mono_ns != b->opened_mono_ns)
        return a->opened_mono_ns < b->opened_mono_ns ? -1 : 1;
    if (a->pid != b->pid)
        return a->pid < b->pid ? -1 : 1;
    return strcmp(a->file, b->file);
}

static bool is_record_name(const char *name)
{
    size_t len = strlen(name);
    return len > 6 && strcmp(name + len - 6, ".pmrec") == 0 && name[0] != '.';
}

static int add_process(struct pm_session *session, struct pm_process *process)
{
    if ((session->n_processes & (session->n_processes - 1)) == 0) {
        size_t capacity = session->n_processes != 0 ? session->n_processes * 2 : 1;
        struct pm_process **more = realloc(session->processes, capacity * sizeof(*more));
        if (more == NULL)
            return -PM_ENOMEM;
        session->processes = more;
    }
    session->processes[session->n_processes++] = process;
    return 0;
}

static bool opened_already(const struct pm_session *session, const char *name)
{
    for (size_t i = 0; i < session->n_processes; i++)
        if (strcmp(session->processes[i]->file, name) == 0)
            return true;
    return false;
}

/* All record files of a folder; those that cannot be read become notes. */
static int open_processes(struct pm_session *session, DIR *dir, const uint8_t *token)
{
    const struct dirent *entry;

    while ((entry = readdir(dir)) != NULL) {
        struct pm_error error = {""};
        struct pm_process *process;
        if (!is_record_name(entry->d_name) || opened_already(session, entry->d_name))
            continue;
        if (session->n_processes == PM_READER_MAX_PROCESSES) {
            pm_session_add_note(session, "records: more than %u processes: the others are not read",
                                PM_READER_MAX_PROCESSES);
            break;
        }
        int rc = pm_process_open(&process, session, dirfd(dir), entry->d_name, token, &error);
        if (rc == -PM_ENOMEM)
            return rc;
        if (rc != 0) {
            pm_session_add_note(session, "%s", error.text);
            continue;
        }
        rc = add_process(session, process);
        if (rc != 0) {
            pm_process_free(process);
            return rc;
        }
    }
    return 0;
}

/* A session whose own file is lost or damaged takes its start from its first process. */
static void mend_start(struct pm_session *session)
{
    struct pm_session_info *info = &session->info;
    if (info->start_mono_ns != 0 && info->start_real_ns != 0)
        return;
    if (session->n_processes == 0)
        return;
    const struct pm_process_info *first = &session->processes[0]->info;
    info->start_mono_ns = first->opened_mono_ns;
    info->start_real_ns = first->opened_real_ns;
    pm_session_add_note(session,
                        "session: the start of the session cannot be read: times count from the "
                        "start of the first process");
}

static DIR *open_folder(int dir_fd, const char *name)
{
    int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (dir == NULL && fd >= 0)
        close(fd);
    return dir;
}

int pm_session_open(struct pm_session **ret_session, const char *path, struct pm_error *err)
{
    struct session_text text = {0};
    struct pm_session *session = calloc(1, sizeof(*session));
    const char *slash;
    DIR *records = NULL, *spool = NULL;
    int dir_fd = -1, rc;

    if (session == NULL)
        return pm_error_set(err, -PM_ENOMEM, "%s: out of memory", path);
    session->self = session;
    rc = resolve_folder(path, session->info.path, sizeof(session->info.path), err);
    if (rc != 0)
        goto done;
    slash = strrchr(session->info.path, '/');
    snprintf(session->info.name, sizeof(session->info.name), "%.255s",
             slash != NULL && slash[1] != '\0' ? slash + 1 : session->info.path);
    dir_fd = open(session->info.path, O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    if (dir_fd < 0) {
        rc = pm_error_set(err, pm_error_from_errno(errno), "%s: cannot be opened: %s",
                          session->info.path, strerror(errno));
        goto done;
    }
    read_session_text(session, dir_fd, &text);
    if (text.version > PM_FORMAT_VERSION) {
        rc = pm_error_set(err, -PM_EVERSION,
                          "%s: format version %llu, this program reads up to %u: use a newer "
                          "profilemate",
                          session->info.path, (unsigned long long)text.version, PM_FORMAT_VERSION);
        goto done;
    }
    /* Finished files of a spooled session may have come home already: these first. */
    records = open_folder(dir_fd, "records");
    if (records == NULL && !text.found) {
        rc = pm_error_set(err, -PM_EFORMAT,
                          "%s: not a session: it has neither a file `session` nor a folder "
                          "`records`",
                          session->info.path);
        goto done;
    }
    if (records == NULL && text.spool[0] == '\0')
        pm_session_add_note(session, "records: the folder cannot be opened: %s", strerror(errno));
    if (!text.has_token)
        pm_session_add_note(session, "session: the session's token cannot be read: its record "
                                     "files are taken as they are");
    if (text.spool[0] != '\0')
        spool = open_folder(AT_FDCWD, text.spool);
    for (int i = 0; i < 2; i++) {
        DIR *dir = i == 0 ? records : spool;
        rc = dir != NULL ? open_processes(session, dir, text.has_token ? session->info.token : NULL)
                         : 0;
        if (rc != 0) {
            rc = pm_error_set(err, rc, "%s: %s", session->info.path, pm_strerror(rc));
            goto done;
        }
    }
    if (session->n_processes > 1)
        qsort(session->processes, session->n_processes, sizeof(*session->processes), by_start);
    mend_start(session);
done:
    if (records != NULL)
        closedir(records);
    if (spool != NULL)
        closedir(spool);
    if (dir_fd >= 0)
        close(dir_fd);
    if (rc != 0)
        pm_session_close(session);
    else
        *ret_session = session;
    return rc;
}

void pm_session_rename(struct pm_session *session, const char *path, const char *name)
{
    snprintf(session->info.path, sizeof(session->info.path), "%s", path);
    snprintf(session->info.name, sizeof(session->info.name), "%s", name);
}

void pm_session_close(struct pm_session *session)
{
    if (session == NULL)
        return;
    pm_span_free(session->view);
    pm_engines_free(session->engines);
    for (size_t i = 0; i < session->n_processes; i++)
        pm_process_free(session->processes[i]);
    free(session->processes);
    for (size_t i = 0; i < session->n_notes; i++)
        free(session->notes[i]);
    free(session->notes);
    free(session);
}

const struct pm_session_info *pm_session_info(const struct pm_session *session)
{
    return &session->info;
}

size_t pm_session_process_count(const struct pm_session *session)
{
    return session->n_processes;
}

struct pm_process *pm_session_process(const struct pm_session *session, size_t i)
{
    return session->processes[i];
}

const char *pm_session_attr(const struct pm_session *session, const char *key)
{
    for (size_t i = 0; i < session->n_processes; i++) {
        const char *value = pm_process_attr(session->processes[i], key);
        if (value != NULL)
            return value;
    }
    return NULL;
}
