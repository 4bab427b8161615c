/* The target file of `serve --sd-file`; see sd_file.h. Called by serve.c, before and after it
 * serves. */
#include "cmd/sd_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/cmd.h"

#define MODE 0644 /* Prometheus runs as a user of its own */
#define TEXT_MAX 1024

static bool is_name(const char *text)
{
    return text[0] != '\0' &&
           text[strspn(text,
                       "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:[]")] ==
               '\0';
}

void pm_sd_target_of(const char *address, bool every, uint16_t port,
                     struct pm_sd_target *ret_target)
{
    if (gethostname(ret_target->host, sizeof(ret_target->host) - 1) != 0 ||
        !is_name(ret_target->host))
        snprintf(ret_target->host, sizeof(ret_target->host), "localhost");
    ret_target->host[sizeof(ret_target->host) - 1] = '\0';
    snprintf(ret_target->address, sizeof(ret_target->address), "%s:%u",
             every ? ret_target->host : address, port);
}

bool pm_sd_target_given(const char *text, struct pm_sd_target *ret_target)
{
    const char *colon = strrchr(text, ':');
    char *end = NULL;

    if (colon == NULL || colon == text || !is_name(text) || strlen(text) > 255)
        return false;
    const unsigned long port = strtoul(colon + 1, &end, 10);
    if (end == colon + 1 || *end != '\0' || port == 0 || port > 65535)
        return false;
    snprintf(ret_target->address, sizeof(ret_target->address), "%s", text);
    snprintf(ret_target->host, sizeof(ret_target->host), "%.*s", (int)(colon - text), text);
    return true;
}

static int text_of(const struct pm_sd_target *target, char out[TEXT_MAX])
{
    return snprintf(out, TEXT_MAX, "[{\"targets\": [\"%s\"], \"labels\": {\"host\": \"%s\"}}]\n",
                    target->address, target->host);
}

int pm_sd_file_write(const char *path, const struct pm_sd_target *target)
{
    char text[TEXT_MAX], temporary[PATH_MAX];
    const int bytes = text_of(target, text);
    int number = 0;

    if (snprintf(temporary, sizeof(temporary), "%s.%ld.tmp", path, (long)getpid()) >=
        (int)sizeof(temporary))
        return pm_complain("%.100s…: the name is too long", path);
    (void)unlink(temporary);
    const int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, MODE);
    if (fd < 0)
        return pm_complain("%s: cannot be written, %s", path, strerror(errno));
    (void)fchmod(fd, MODE);
    const ssize_t written = write(fd, text, (size_t)bytes);
    if (written != bytes)
        number = written < 0 ? errno : ENOSPC;
    if (close(fd) != 0 && number == 0)
        number = errno;
    if (number == 0 && rename(temporary, path) != 0)
        number = errno;
    if (number == 0)
        return PM_EXIT_OK;
    (void)unlink(temporary);
    return pm_complain("%s: cannot be written, %s", path, strerror(number));
}

void pm_sd_file_remove(const char *path, const struct pm_sd_target *target)
{
    char text[TEXT_MAX], found[TEXT_MAX];
    const int bytes = text_of(target, text);
    const int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0)
        return;
    const ssize_t got = read(fd, found, sizeof(found));
    close(fd);
    if (got == bytes && memcmp(text, found, (size_t)bytes) == 0)
        (void)unlink(path);
}
