/*
 * Sizes, times and ranges as people write them on a command line. Pure, any thread.
 */
#ifndef PM_CMD_AMOUNTS_H
#define PM_CMD_AMOUNTS_H

#include <stdbool.h>
#include <stdint.h>

/* "200M", "1.5G", "64k", "4096", with or without B or iB behind: binary multiples, at least 1. */
bool pm_parse_size(const char *text, uint64_t *ret_bytes);

/* "90s", "5m", "1.5h", "250ms", "2d"; a number alone is seconds; above 0. */
bool pm_parse_duration(const char *text, uint64_t *ret_ms);

/* "10:20", "10:" (no end: *ret_to 0), ":20" and "20" (from 0); from below to. */
bool pm_parse_range(const char *text, uint64_t *ret_from, uint64_t *ret_to);

#endif
