/*
 * The structural scan: where in a piece of JSON its quotes and brackets are.
 *
 * 64 bytes at a time (AVX2, SSE2, or plain C, chosen when the program runs) become bit masks; a
 * prefix exclusive-or over the unescaped quotes tells which brackets lie inside strings, and the
 * positions of what remains are written out. The parser (parse.h) then walks the positions and
 * never looks at most of the bytes. Pure, any thread.
 *
 *   {"a b": [1, 2]}   ->   { " " [ ] }   =   0 1 5 8 13 14
 */
#ifndef PM_TRACE_SCAN_H
#define PM_TRACE_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Readable bytes behind the text, whatever they hold, and free entries behind the positions. */
#define PM_SCAN_PADDING 64

enum pm_scan_kind {
    PM_SCAN_BEST, /* the fastest that this processor has */
    PM_SCAN_PLAIN,
    PM_SCAN_SSE2,
    PM_SCAN_AVX2,
};

struct pm_scan {
    uint32_t *at;   /* positions, ascending: room for n_bytes + PM_SCAN_PADDING */
    size_t n;       /* how many */
    bool backslash; /* there is a backslash somewhere */
    bool in_string; /* the text ends inside a string */
};

/* Fills scan->at with the positions of every unescaped `"` and of every `{}[]` outside strings.
 * The text starts outside strings; it is shorter than 4 GiB. kind must be available here. */
void pm_scan_text(struct pm_scan *scan, const uint8_t *text, size_t n_bytes,
                  enum pm_scan_kind kind);

/* What PM_SCAN_BEST stands for on this processor. */
enum pm_scan_kind pm_scan_best(void);
bool pm_scan_available(enum pm_scan_kind kind);
const char *pm_scan_name(enum pm_scan_kind kind);

#endif
