/*
 * Folders that other users may have had a hand in (/tmp): opening them without following what
 * somebody else planted, and writing files into them that appear whole or not at all. Pure, any
 * thread, no state. Descriptors are close-on-exec.
 */
#ifndef PM_BASE_DIR_H
#define PM_BASE_DIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/error.h"

/* Opens a folder by its path, one component at a time. A symbolic link on the way is followed only
 * if it belongs to root or to this user. ret_parent (may be NULL): the folder that holds the last
 * component. *ret_fd is to be closed. Error: that of the system (-PM_ENOTFOUND, -PM_EPERMISSION
 * also for somebody's link). */
PM_MUST_USE int pm_dir_open(const char *path, int *ret_fd, struct stat *ret_parent);

/* Opens the folder that a new entry of this path would lie in; *ret_name is the entry's name within
 * path's own bytes (path has no trailing slash, the name is neither "." nor ".."). */
PM_MUST_USE int pm_dir_open_parent(const char *path, int *ret_fd, const char **ret_name);

/* A child folder that is itself no link. */
PM_MUST_USE int pm_dir_open_child(int dir_fd, const char *name, int *ret_fd);

/* Makes a file with these bytes and mode (whatever the umask is). The name must be free:
 * -PM_EEXISTS. Half a file is removed. */
PM_MUST_USE int pm_dir_create_file(int dir_fd, const char *name, const void *bytes, size_t n,
                                   uint32_t mode);

/* The same under a hidden temporary name, then put in the place of name, whatever was there. */
PM_MUST_USE int pm_dir_replace_file(int dir_fd, const char *name, const void *bytes, size_t n,
                                    uint32_t mode);

/* Reads a small regular file that is itself no link: at most size - 1 bytes, NUL-terminated.
 * -PM_ELIMIT if there are more. */
PM_MUST_USE int pm_dir_read_file(int dir_fd, const char *name, char *out, size_t size,
                                 size_t *ret_bytes);

/* Writes all n bytes, however often it takes. */
PM_MUST_USE int pm_dir_write_all(int fd, const void *bytes, size_t n);

/* "." + name + "." + pid + "." + 8 random hex digits, cut to size: a name for something unfinished.
 */
void pm_dir_temporary_name(const char *name, char *out, size_t size);

/* Fills out with random bytes; weaker ones (clocks, pid, addresses) if the kernel has none ready.
 */
void pm_dir_random(void *out, size_t n);

#endif
