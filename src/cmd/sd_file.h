/*
 * A file of Prometheus's file_sd_configs that names one target: `serve --sd-file`. Each `serve` of
 * a fleet writes its own, into a folder that Prometheus watches, and takes it away when it ends.
 */
#ifndef PM_CMD_SD_FILE_H
#define PM_CMD_SD_FILE_H

#include <stdbool.h>
#include <stdint.h>

/* HOST:PORT of what a Prometheus elsewhere has to ask: the name of this machine where all addresses
 * are listened on, else the address. */
struct pm_sd_target {
    char address[320];
    char host[256]; /* the label `host` */
};

/* address: as it is listened on, without the port. */
void pm_sd_target_of(const char *address, bool every, uint16_t port,
                     struct pm_sd_target *ret_target);

/* Takes HOST:PORT as it is given; false where it is none. */
bool pm_sd_target_given(const char *text, struct pm_sd_target *ret_target);

/* Writes the file whole, in the place of one that was there; an exit code, after one sentence. */
int pm_sd_file_write(const char *path, const struct pm_sd_target *target);

/* Removes it, if it still is the one that was written. */
void pm_sd_file_remove(const char *path, const struct pm_sd_target *target);

#endif
