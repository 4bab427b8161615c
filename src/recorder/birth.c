/*
 * Who a session is: name, token and start; its line in the environment; its file `session`. Called
 * at activation and at the first fact, on any one thread. Owns nothing; the directory is the work
 * of birth_dir.c.
 */
#include "recorder/birth_internal.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/dir.h"

#define NAME_FORMAT "session_%Y%m%d_%H%M%S"
#define BOOT_ID "/proc/sys/kernel/random/boot_id"

void pm_birth_reserve(struct pm_birth *ret_birth)
{
    struct pm_birth birth = {.root = true, .file_mode = 0600};
    struct tm local;
    birth.start_mono_ns = pm_clock_vdso_ns();
    birth.start_real_ns = pm_clock_real_ns();
    birth.root_pid = (uint32_t)getpid();
    pm_dir_random(birth.token, sizeof birth.token);

    time_t seconds = (time_t)(birth.start_real_ns / 1000000000u);
    if (localtime_r(&seconds, &local) == NULL ||
        strftime(birth.name, sizeof birth.name, NAME_FORMAT, &local) == 0 ||
        !pm_birth_name_ok(birth.name))
        snprintf(birth.name, sizeof birth.name, "session_19700101_000000");
    *ret_birth = birth;
}

/* ---- the line in the environment ---- */

void pm_birth_token_hex(const uint8_t *token, char out[PM_BIRTH_HEX])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < PM_TOKEN_BYTES; i++) {
        out[2 * i] = digits[token[i] >> 4];
        out[2 * i + 1] = digits[token[i] & 15];
    }
    out[PM_BIRTH_HEX - 1] = '\0';
}

bool pm_birth_name_ok(const char *text)
{
    static const char shape[] = "session_00000000_000000";
    if (strlen(text) != sizeof shape - 1)
        return false;
    for (size_t i = 0; shape[i] != '\0'; i++)
        if (shape[i] == '0' ? text[i] < '0' || text[i] > '9' : text[i] != shape[i])
            return false;
    return true;
}

void pm_birth_format(const struct pm_birth *birth, char *out, size_t size)
{
    char hex[PM_BIRTH_HEX];
    pm_birth_token_hex(birth->token, hex);
    int length = snprintf(out, size, "%s:%s:%llu:%llu:%u", birth->name, hex,
                          (unsigned long long)birth->start_mono_ns,
                          (unsigned long long)birth->start_real_ns, birth->root_pid);
    if (size > 0 && (length < 0 || (size_t)length >= size))
        out[0] = '\0'; /* half a line is worse than none */
}

static bool parse_token(const char *hex, uint8_t token[PM_TOKEN_BYTES])
{
    if (strlen(hex) != PM_BIRTH_HEX - 1 || strspn(hex, "0123456789abcdef") != PM_BIRTH_HEX - 1)
        return false;
    for (size_t i = 0; i < PM_TOKEN_BYTES; i++) {
        unsigned value = 0;
        for (size_t j = 0; j < 2; j++) {
            char c = hex[2 * i + j];
            value = value * 16 + (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
        }
        token[i] = (uint8_t)value;
    }
    return true;
}

/* A decimal number as printf writes it: no sign, no zero in front. */
static bool parse_number(const char *text, uint64_t max, uint64_t *ret_number)
{
    uint64_t number = 0;
    if (*text == '\0' || (text[0] == '0' && text[1] != '\0'))
        return false;
    for (; *text != '\0'; text++) {
        unsigned digit = (unsigned)(*text - '0');
        if (digit > 9 || number > (UINT64_MAX - digit) / 10)
            return false;
        number = number * 10 + digit;
    }
    if (number > max)
        return false;
    *ret_number = number;
    return true;
}

int pm_birth_parse(const char *text, struct pm_birth *ret_birth)
{
    struct pm_birth birth = {.file_mode = 0600};
    char copy[256];
    const char *parts[5];
    size_t count = 0;
    uint64_t pid;

    if (strlen(text) >= sizeof copy)
        return -PM_EINVALID;
    memcpy(copy, text, strlen(text) + 1);
    for (char *at = copy; at != NULL;) {
        char *end = strchr(at, ':');
        if (end != NULL)
            *end++ = '\0';
        if (count == 5)
            return -PM_EINVALID;
        parts[count++] = at;
        at = end;
    }
    if (count != 5 || !pm_birth_name_ok(parts[0]) || !parse_token(parts[1], birth.token) ||
        !parse_number(parts[2], UINT64_MAX, &birth.start_mono_ns) ||
        !parse_number(parts[3], UINT64_MAX, &birth.start_real_ns) ||
        !parse_number(parts[4], UINT32_MAX, &pid))
        return -PM_EINVALID;
    snprintf(birth.name, sizeof birth.name, "%s", parts[0]);
    birth.root_pid = (uint32_t)pid;
    *ret_birth = birth;
    return 0;
}

/* ---- the file `session` ---- */

/* A line must stay one line. */
static void make_printable(char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
}

size_t pm_birth_file_text(const struct pm_birth *birth, const char *spool,
                          char out[PM_BIRTH_TEXT_MAX])
{
    char hex[PM_BIRTH_HEX], host[256] = "", boot[64] = "";
    pm_birth_token_hex(birth->token, hex);
    if (gethostname(host, sizeof host - 1) != 0)
        host[0] = '\0';
    make_printable(host);
    if (pm_dir_read_file(AT_FDCWD, BOOT_ID, boot, sizeof boot, NULL) == 0)
        boot[strcspn(boot, "\n")] = '\0';
    make_printable(boot);

    int length = snprintf(
        out, PM_BIRTH_TEXT_MAX,
        "version %u\nname %s\ntoken %s\nstart_mono_ns %llu\nstart_real_ns %llu\nroot_pid %u\n"
        "uid %u\n%s%s%shost %s\n%s%.512s%s",
        PM_FORMAT_VERSION, birth->name, hex, (unsigned long long)birth->start_mono_ns,
        (unsigned long long)birth->start_real_ns, birth->root_pid, (unsigned)geteuid(),
        boot[0] != '\0' ? "boot_id " : "", boot, boot[0] != '\0' ? "\n" : "", host,
        spool[0] != '\0' ? "spool " : "", spool, spool[0] != '\0' ? "\n" : "");
    return length > 0 && length < PM_BIRTH_TEXT_MAX ? (size_t)length : 0;
}

/* Which lines there were; all but the last three must be. */
enum line {
    LINE_VERSION = 1,
    LINE_NAME = 2,
    LINE_TOKEN = 4,
    LINE_MONO = 8,
    LINE_REAL = 16,
    LINE_PID = 32,
    LINE_NEEDED = 63,
};

static bool fits(const char *value, char *out, size_t size)
{
    return (size_t)snprintf(out, size, "%s", value) < size;
}

/* Takes one line; false where its value is malformed. Unknown keys are of a later version. */
static bool take_line(const char *key, const char *value, struct pm_birth_file *file,
                      unsigned *lines)
{
    uint64_t number = 0;
    if (strcmp(key, "version") == 0) {
        *lines |= LINE_VERSION;
        if (!parse_number(value, UINT32_MAX, &number))
            return false;
        file->version = (uint32_t)number;
    } else if (strcmp(key, "name") == 0) {
        *lines |= LINE_NAME;
        return pm_birth_name_ok(value) && fits(value, file->birth.name, sizeof file->birth.name);
    } else if (strcmp(key, "token") == 0) {
        *lines |= LINE_TOKEN;
        return parse_token(value, file->birth.token);
    } else if (strcmp(key, "start_mono_ns") == 0) {
        *lines |= LINE_MONO;
        return parse_number(value, UINT64_MAX, &file->birth.start_mono_ns);
    } else if (strcmp(key, "start_real_ns") == 0) {
        *lines |= LINE_REAL;
        return parse_number(value, UINT64_MAX, &file->birth.start_real_ns);
    } else if (strcmp(key, "root_pid") == 0) {
        *lines |= LINE_PID;
        if (!parse_number(value, UINT32_MAX, &number))
            return false;
        file->birth.root_pid = (uint32_t)number;
    } else if (strcmp(key, "uid") == 0) {
        if (!parse_number(value, UINT32_MAX, &number))
            return false;
        file->uid = (uint32_t)number;
    } else if (strcmp(key, "boot_id") == 0) {
        return fits(value, file->boot_id, sizeof file->boot_id);
    } else if (strcmp(key, "host") == 0) {
        return fits(value, file->host, sizeof file->host);
    } else if (strcmp(key, "spool") == 0) {
        return value[0] == '/' && fits(value, file->spool, sizeof file->spool);
    }
    return true;
}

int pm_birth_read_at(int dir_fd, struct pm_birth_file *ret_file)
{
    struct pm_birth_file file = {.birth.file_mode = 0600};
    char text[PM_BIRTH_TEXT_MAX];
    size_t bytes;
    unsigned lines = 0;

    int status = pm_dir_read_file(dir_fd, PM_BIRTH_FILE, text, sizeof text, &bytes);
    if (status == -PM_ENOTFOUND)
        return -PM_EFORMAT;
    if (status == -PM_ELIMIT)
        return -PM_ECORRUPT;
    if (status != 0)
        return status;
    if (bytes == 0 || text[bytes - 1] != '\n' || strlen(text) != bytes)
        return -PM_ECORRUPT;
    for (char *line = text; *line != '\0';) {
        char *end = strchr(line, '\n'), *value = strchr(line, ' ');
        *end = '\0';
        if (value == NULL || value > end)
            return -PM_ECORRUPT;
        *value++ = '\0';
        if (!take_line(line, value, &file, &lines))
            return -PM_ECORRUPT;
        line = end + 1;
    }
    if ((lines & LINE_NEEDED) != LINE_NEEDED)
        return -PM_ECORRUPT;
    *ret_file = file;
    return 0;
}

int pm_birth_read(const char *session_dir, struct pm_birth_file *ret_file)
{
    struct pm_birth_file file;
    int fd, status = pm_dir_open(session_dir, &fd, NULL);
    if (status != 0)
        return status == -PM_ENOTFOUND ? -PM_EFORMAT : status;
    status = pm_birth_read_at(fd, &file);
    close(fd);
    if (status == 0 && file.version > PM_FORMAT_VERSION)
        status = -PM_EVERSION;
    if (status == 0)
        *ret_file = file;
    return status;
}

int pm_birth_write_file(const char *session_dir, const char *name, const void *bytes, size_t n,
                        uint32_t mode)
{
    int fd;
    if (name[0] == '\0' || strchr(name, '/') != NULL || strlen(name) > 200)
        return -PM_EINVALID;
    int status = pm_dir_open(session_dir, &fd, NULL);
    if (status != 0)
        return status;
    status = pm_dir_replace_file(fd, name, bytes, n, mode);
    close(fd);
    return status;
}
