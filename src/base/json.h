/*
 * A streaming JSON writer (RFC 8259) into a pm_buf. Used by the views, metadata.json and --json;
 * one thread at a time. Borrows the buffer.
 *
 * Members come in the order of the calls; commas, indentation and escapes are its own business.
 * Text that is no UTF-8 gets U+FFFD for each bad byte. Failures stick in the buffer. Misuse (a
 * member without a key in an object, an end too many, deeper than PM_JSON_DEPTH) sticks as
 * -PM_EINVALID and is reported by pm_json_finish.
 *
 *   struct pm_json json;
 *   pm_json_init(&json, &buf, 2);
 *   pm_json_object(&json);
 *   pm_json_key(&json, "count"), pm_json_u64(&json, 3);
 *   pm_json_end(&json);
 *   err = pm_json_finish(&json);
 */
#ifndef PM_BASE_JSON_H
#define PM_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

#define PM_JSON_DEPTH 64

struct pm_json {
    struct pm_buf *buf;
    unsigned indent; /* blanks per level; 0: one line */
    unsigned depth;
    int status;                 /* 0 or -PM_EINVALID */
    bool has_key;               /* a key waits for its value */
    bool done;                  /* the one top value is complete */
    bool object[PM_JSON_DEPTH]; /* what each open level is */
    bool filled[PM_JSON_DEPTH]; /* has members already */
};

void pm_json_init(struct pm_json *json, struct pm_buf *buf, unsigned indent);

/* Ends the text with a newline. 0, the buffer's failure, or -PM_EINVALID (misuse, something left
 * open). To write several values one after another (JSON Lines), init again. */
PM_MUST_USE int pm_json_finish(struct pm_json *json);

void pm_json_object(struct pm_json *json);
void pm_json_array(struct pm_json *json);
void pm_json_end(struct pm_json *json); /* of the innermost object or array */
void pm_json_key(struct pm_json *json, const char *key);

void pm_json_null(struct pm_json *json);
void pm_json_bool(struct pm_json *json, bool value);
void pm_json_u64(struct pm_json *json, uint64_t value);
void pm_json_i64(struct pm_json *json, int64_t value);
void pm_json_text(struct pm_json *json, const char *text); /* NULL: null */
void pm_json_text_bytes(struct pm_json *json, const char *text, size_t bytes);

/* value / 10^scale with fixed decimals (base/number.h). */
void pm_json_fixed(struct pm_json *json, uint64_t value, unsigned scale, unsigned decimals);
void pm_json_fixed_signed(struct pm_json *json, int64_t value, unsigned scale, unsigned decimals);
/* ns as seconds with 6 decimals, as milliseconds with 3. */
void pm_json_sec6(struct pm_json *json, uint64_t ns);
void pm_json_ms3(struct pm_json *json, uint64_t ns);
/* numerator * factor / denominator; null where the denominator is 0. */
void pm_json_ratio(struct pm_json *json, uint64_t numerator, uint64_t factor, uint64_t denominator,
                   unsigned decimals);
/* null where the value is no number, or of a magnitude of 10^28 or more. */
void pm_json_double(struct pm_json *json, double value, unsigned decimals);

/* Bytes that are JSON already: one value, trusted. */
void pm_json_raw(struct pm_json *json, const char *bytes, size_t n);

#endif
