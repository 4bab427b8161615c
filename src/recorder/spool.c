/*
 * Where a session's record files lie: in its records/, or, while the session lives on a network
 * file system, in a spool on a local disk. Mapped files that a server writes all the time must not
 * wait for a network, nor be seen half by another machine.
 *
 *   <session>/session          "spool
 * /var/tmp/profilemate-spool-0/session_20261123_082501-1a2b3c4d" <session>/records/ finished files,
 * brought home by pm_birth_unspool <spool>/                   files that are being written, and the
 * budget
 *
 * pm_birth_spool_make and _join are called by birth_dir.c, pm_birth_records_dir by the recorder and
 * the readers, pm_birth_unspool by the program after a server's end. Any one thread.
 */
#include "recorder/birth_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/dir.h"
#include "session/function_facts.h"

#define ROOT_NAME "profilemate-spool-"
#define LEAF_BYTES 96
#define TOKEN_DIGITS 8          /* of the token in the spool's name */
#define COPY_BYTES (256u << 10) /* moved at a time */
#define YOUNG_SECONDS 60        /* a file without its magic may be in the making for that long */

/* Numbers of statfs(2) and of the kernels' own headers. */
static bool is_network_type(unsigned long type)
{
    static const unsigned long types[] = {
        0x6969,     /* NFS */
        0x517b,     /* SMB */
        0xff534d42, /* CIFS */
        0xfe534d42, /* SMB2 and 3 */
        0x65735546, /* FUSE, virtiofs too */
        0x01021997, /* 9p */
        0x0bd00bd0, /* Lustre */
        0x00c36400, /* Ceph */
        0x5346414f, /* AFS */
        0x6b414653, /* kAFS */
        0x73757245, /* Coda */
        0x01161970, /* GFS2 */
        0x7461636f, /* OCFS2 */
        0x47504653, /* GPFS */
        0x19830326, /* BeeGFS */
        0xaad7aaea, /* PanFS */
        0x013111a8, /* IBRIX */
    };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (type == types[i])
            return true;
    return false;
}

static bool is_remote(int dir_fd)
{
    struct statfs fs;
    return fstatfs(dir_fd, &fs) == 0 && is_network_type((unsigned long)fs.f_type & 0xffffffffu);
}

bool (*pm_birth_is_remote)(int dir_fd) = is_remote;
const char *pm_birth_spool_places[4] = {"/var/tmp", "/tmp", NULL, NULL};

bool pm_birth_is_own(int fd, const struct stat *st)
{
    return st->st_uid == geteuid() || pm_birth_is_remote(fd);
}

int pm_birth_make_budget(int records_fd, uint32_t file_mode)
{
    static const char zeros[8];
    return pm_dir_create_file(records_fd, PM_BIRTH_BUDGET, zeros, sizeof zeros, file_mode);
}

/* ---- making ---- */

/* Makes or opens a folder of this user's own, closed to others. */
static int open_own(int dir_fd, const char *name, int *ret_fd)
{
    struct stat st;
    int fd;
    if (mkdirat(dir_fd, name, 0700) != 0 && errno != EEXIST)
        return pm_error_from_errno(errno);
    int status = pm_dir_open_child(dir_fd, name, &fd);
    if (status != 0)
        return status;
    if (fstat(fd, &st) != 0)
        status = pm_error_from_errno(errno);
    else if (st.st_uid != geteuid())
        status = -PM_EPERMISSION;
    else if ((st.st_mode & 077) != 0 && fchmod(fd, 0700) != 0)
        status = pm_error_from_errno(errno);
    if (status != 0)
        close(fd);
    else
        *ret_fd = fd;
    return status;
}

/* Makes <place>/profilemate-spool-<uid>/<leaf> with its budget, or finds it there. */
static int make_in(const char *place, const char *leaf, uint32_t file_mode)
{
    char root[48];
    int place_fd, root_fd, fd;
    snprintf(root, sizeof root, ROOT_NAME "%u", (unsigned)geteuid());
    int status = pm_dir_open(place, &place_fd, NULL);
    if (status != 0)
        return status;
    if (pm_birth_is_remote(place_fd))
        status = -PM_EUNSUPPORTED;
    else
        status = open_own(place_fd, root, &root_fd);
    close(place_fd);
    if (status != 0)
        return status;
    status = open_own(root_fd, leaf, &fd);
    close(root_fd);
    if (status != 0)
        return status;
    status = pm_birth_make_budget(fd, file_mode);
    close(fd);
    return status == -PM_EEXISTS ? 0 : status;
}

static void leaf_name(const struct pm_birth *birth, char out[LEAF_BYTES])
{
    char hex[PM_BIRTH_HEX];
    pm_birth_token_hex(birth->token, hex);
    snprintf(out, LEAF_BYTES, "%.63s-%.*s", birth->name, TOKEN_DIGITS, hex);
}

int pm_birth_spool_make(const struct pm_birth *birth, char *ret_path, size_t size)
{
    char leaf[LEAF_BYTES], path[512];
    leaf_name(birth, leaf);
    for (size_t i = 0; pm_birth_spool_places[i] != NULL; i++) {
        int length = snprintf(path, sizeof path, "%s/" ROOT_NAME "%u/%s", pm_birth_spool_places[i],
                              (unsigned)geteuid(), leaf);
        if (length < 0 || (size_t)length >= sizeof path || (size_t)length >= size ||
            make_in(pm_birth_spool_places[i], leaf, birth->file_mode) != 0)
            continue;
        memcpy(ret_path, path, (size_t)length + 1);
        return 0;
    }
    return -PM_ENOTFOUND;
}

/* Splits a spool's path into the place it is in and its two names, if it is one that
 * pm_birth_spool_make writes for this session: the file `session` may come from anywhere. */
static bool split_path(const struct pm_birth_file *file, char place[512], char root[48],
                       char leaf[LEAF_BYTES])
{
    char path[512];
    leaf_name(&file->birth, leaf);
    snprintf(root, 48, ROOT_NAME "%u", (unsigned)file->uid);
    if (file->spool[0] != '/' || strstr(file->spool, "/../") != NULL)
        return false;
    size_t tail = 1 + strlen(root) + 1 + strlen(leaf), bytes = strlen(file->spool);
    if (bytes <= tail)
        return false;
    snprintf(place, 512, "%.*s", (int)(bytes - tail), file->spool);
    int length = snprintf(path, sizeof path, "%s/%s/%s", place, root, leaf);
    return length > 0 && (size_t)length < sizeof path && strcmp(path, file->spool) == 0;
}

int pm_birth_spool_join(const struct pm_birth_file *file, uint32_t file_mode)
{
    char place[512], root[48], leaf[LEAF_BYTES];
    if (file->uid != geteuid() || !split_path(file, place, root, leaf))
        return -PM_EPERMISSION;
    return make_in(place, leaf, file_mode);
}

/* ---- finding ---- */

/* Opens the session's spool, if it has one and it is there: it must belong to who made the session
 * and be closed to others. */
static int open_spool(const struct pm_birth_file *file, int *ret_fd)
{
    char place[512], root[48], leaf[LEAF_BYTES];
    struct stat st;
    int fd;
    if (file->spool[0] == '\0')
        return -PM_ENOTFOUND;
    if (!split_path(file, place, root, leaf))
        return -PM_EPERMISSION;
    int status = pm_dir_open(file->spool, &fd, NULL);
    if (status != 0)
        return status;
    if (fstat(fd, &st) != 0)
        status = pm_error_from_errno(errno);
    else if (st.st_uid != file->uid || (st.st_mode & 022) != 0)
        status = -PM_EPERMISSION;
    if (status != 0)
        close(fd);
    else
        *ret_fd = fd;
    return status;
}

int pm_birth_records_dir(const char *session_dir, char *out, size_t size)
{
    struct pm_birth_file file;
    char path[PATH_MAX + 16];
    int fd;
    int status = pm_birth_read(session_dir, &file);
    if (status != 0)
        return status;
    int length;
    if (open_spool(&file, &fd) == 0) {
        close(fd);
        length = snprintf(path, sizeof path, "%s", file.spool);
    } else {
        length = snprintf(path, sizeof path, "%s/" PM_BIRTH_RECORDS, session_dir);
    }
    if (length < 0 || (size_t)length >= sizeof path || (size_t)length >= size)
        return -PM_ELIMIT;
    memcpy(out, path, (size_t)length + 1);
    return 0;
}

/* ---- bringing home ---- */

/* Whether a process still writes this file: it holds the file's byte lock, or it has just made it
 * and not got that far. */
static bool is_live(int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    struct stat st;
    uint64_t magic = 0;
    if (fcntl(fd, F_GETLK, &lock) != 0 || lock.l_type != F_UNLCK)
        return true;
    if (pread(fd, &magic, sizeof magic, 0) == (ssize_t)sizeof magic &&
        (magic == PM_FILE_MAGIC || magic == PM_FUNCTION_MAGIC))
        return false;
    return fstat(fd, &st) != 0 || st.st_mtime > time(NULL) - YOUNG_SECONDS;
}

/* Copies a file's bytes, mode and times, and waits until they are on the disk. */
static int copy_bytes(int from, int to)
{
    struct stat st;
    char *bytes = malloc(COPY_BYTES);
    int status = bytes == NULL ? -PM_ENOMEM : 0;
    for (off_t at = 0; status == 0;) {
        ssize_t n = pread(from, bytes, COPY_BYTES, at);
        if (n == 0)
            break;
        if (n > 0)
            status = pm_dir_write_all(to, bytes, (size_t)n);
        else if (errno != EINTR)
            status = pm_error_from_errno(errno);
        at += n > 0 ? n : 0;
    }
    free(bytes);
    if (status == 0 && fstat(from, &st) == 0) {
        struct timespec times[2] = {st.st_atim, st.st_mtim};
        (void)fchmod(to, st.st_mode & 0666);
        (void)futimens(to, times);
    }
    if (status == 0 && fsync(to) != 0)
        status = pm_error_from_errno(errno);
    return status;
}

/* Brings one file home; *ret_live: left, since its process runs. Gone already is fine. */
static int move_home(int spool_fd, int records_fd, const char *name, bool *ret_live)
{
    char temporary[NAME_MAX + 1];
    struct stat st;
    int status, to = -1;
    int from = openat(spool_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    *ret_live = false;
    if (from < 0)
        return errno == ENOENT ? 0 : pm_error_from_errno(errno);
    if (fstat(from, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(from);
        return -PM_EFORMAT;
    }
    if (is_live(from)) {
        close(from);
        *ret_live = true;
        return 0;
    }
    pm_dir_temporary_name(name, temporary, sizeof temporary);
    to = openat(records_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    status = to < 0 ? pm_error_from_errno(errno) : copy_bytes(from, to);
    close(from);
    if (to >= 0 && close(to) != 0 && status == 0)
        status = pm_error_from_errno(errno);
    if (status == 0 && renameat(records_fd, temporary, records_fd, name) != 0)
        status = pm_error_from_errno(errno);
    if (status != 0) {
        if (to >= 0)
            (void)unlinkat(records_fd, temporary, 0);
        return status;
    }
    (void)fsync(records_fd);
    return unlinkat(spool_fd, name, 0) == 0 || errno == ENOENT ? 0 : pm_error_from_errno(errno);
}

/* A process's records, or a table beside them. */
static bool is_record_file(const char *name)
{
    size_t bytes = strlen(name), suffix = sizeof PM_BIRTH_SUFFIX - 1;
    _Static_assert(sizeof PM_BIRTH_SUFFIX == sizeof PM_FUNCTION_SUFFIX, "one length");
    return name[0] != '.' && bytes > suffix && bytes <= 128 &&
           (strcmp(name + bytes - suffix, PM_BIRTH_SUFFIX) == 0 ||
            strcmp(name + bytes - suffix, PM_FUNCTION_SUFFIX) == 0);
}

/* Moves everything that can be; the first failure is told, the rest is tried all the same. */
static int move_all(int spool_fd, int records_fd, unsigned *ret_left, struct pm_error *err)
{
    unsigned left = 0;
    int status = 0;
    int fd = openat(spool_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (dir == NULL) {
        status = pm_error_from_errno(errno);
        if (fd >= 0)
            close(fd);
        return pm_error_set(err, status, "the spool cannot be listed: %s", pm_strerror(status));
    }
    for (struct dirent *item; (item = readdir(dir)) != NULL;) {
        bool live;
        if (!is_record_file(item->d_name))
            continue;
        int moved = move_home(spool_fd, records_fd, item->d_name, &live);
        if (moved != 0) {
            left++;
            if (status == 0)
                status = pm_error_set(err, moved, "%s cannot be moved to the session: %s",
                                      item->d_name, pm_strerror(moved));
        }
        left += live;
    }
    closedir(dir);
    *ret_left = left;
    return status;
}

int pm_birth_unspool(const char *session_dir, unsigned *ret_left, struct pm_error *err)
{
    struct pm_birth_file file;
    char place[512], root[48], leaf[LEAF_BYTES];
    int session_fd, records_fd, spool_fd, root_fd;
    unsigned left = 0;

    int status = pm_dir_open(session_dir, &session_fd, NULL);
    if (status != 0)
        return pm_error_set(err, status, "%.300s: %s", session_dir, pm_strerror(status));
    status = pm_birth_read_at(session_fd, &file);
    if (status != 0) {
        close(session_fd);
        return pm_error_set(err, status, "%.300s/" PM_BIRTH_FILE ": %s", session_dir,
                            pm_strerror(status));
    }
    status = open_spool(&file, &spool_fd);
    if (status != 0) {
        close(session_fd);
        if (ret_left != NULL && status == -PM_ENOTFOUND)
            *ret_left = 0;
        return status == -PM_ENOTFOUND
                   ? 0
                   : pm_error_set(err, status, "%.300s: %s", file.spool, pm_strerror(status));
    }
    status = pm_dir_open_child(session_fd, PM_BIRTH_RECORDS, &records_fd);
    if (status != 0) {
        (void)pm_error_set(err, status, "%.300s/" PM_BIRTH_RECORDS ": %s", session_dir,
                           pm_strerror(status));
    } else {
        status = move_all(spool_fd, records_fd, &left, err);
        close(records_fd);
    }
    close(session_fd);
    if (status == 0 && left == 0 && split_path(&file, place, root, leaf)) {
        (void)unlinkat(spool_fd, PM_BIRTH_BUDGET, 0);
        /* rmdir only takes what is empty: whatever else is there stays */
        snprintf(place + strlen(place), sizeof place - strlen(place), "/%s", root);
        if (pm_dir_open(place, &root_fd, NULL) == 0) {
            (void)unlinkat(root_fd, leaf, AT_REMOVEDIR);
            close(root_fd);
        }
    }
    close(spool_fd);
    if (status == 0 && ret_left != NULL)
        *ret_left = left;
    return status;
}
