/*
 * What a record of a probe looks like: name, fields, units. Probes declare these as const data; the
 * recorder writes them into every file as text, and the reader follows the text, never the probe's
 * source.
 *
 * The text, one line each, fields separated by one tab, no other control characters:
 *   schema <TAB> name <TAB> stream <TAB> payload_bytes <TAB> classes <TAB> sentence
 *   field  <TAB> name <TAB> type <TAB> offset <TAB> unit <TAB> kind <TAB> agg <TAB> sentence
 * stream: keep, core, blocks, custom; type: U8 … STR; kind: id, time, duration, count, gauge,
 * flags; agg: none, sum, hist (which includes the sum), class. Names are letters, digits and
 * underlines, at most 64, unique in their schema.
 */
#ifndef PM_SESSION_SCHEMA_H
#define PM_SESSION_SCHEMA_H

#include <stddef.h>
#include <stdint.h>

#include "session/layout.h"

/* Types of fields. STR is a u32: the id of a STRING record of the same stream; 0 is the empty
 * string. */
#define PM_TYPES(X) X(U8, 1) X(U16, 2) X(U32, 4) X(U64, 8) X(I32, 4) X(I64, 8) X(F64, 8) X(STR, 4)
enum pm_type {
#define PM_TYPE_ENUM(name, bytes) PM_TYPE_##name,
    PM_TYPES(PM_TYPE_ENUM)
#undef PM_TYPE_ENUM
        PM_TYPE_COUNT
};

/* What a field means, which is all that a view needs to know to show it. */
enum pm_kind {
    PM_KIND_ID,       /* a label: ordinal, rank, request id */
    PM_KIND_TIME,     /* a moment, CLOCK_MONOTONIC ns */
    PM_KIND_DURATION, /* ns */
    PM_KIND_COUNT,    /* how many in this record: may be added up over records */
    PM_KIND_GAUGE,    /* a level at this moment: may not be added up */
    PM_KIND_FLAGS,    /* bits */
    PM_KIND_COUNT_
};

/* How the live totals follow a field. */
enum pm_agg {
    PM_AGG_NONE = 0,
    PM_AGG_SUM = 1,
    PM_AGG_HIST = 2, /* sum and histogram */
    PM_AGG_CLASS = 4 /* a u8 that selects the series: 0..classes-1; at most one field of a schema */
};

struct pm_field {
    const char *name;
    enum pm_type type;
    uint16_t offset;  /* in the payload */
    const char *unit; /* "ns", "tokens", "requests", "blocks", "bytes", "" */
    enum pm_kind kind;
    unsigned agg; /* enum pm_agg bits */
    const char *doc;
};

struct pm_schema {
    const char *name; /* table name: "sched_step" */
    enum pm_stream stream;
    uint16_t payload_bytes;
    uint8_t classes; /* 1 where no field is marked PM_AGG_CLASS */
    const char *doc;
    const struct pm_field *fields;
    size_t n_fields;
};

/* A row of fields: PM_FIELD(struct pm_sched_step, dur_ns, U64, "ns", DURATION, PM_AGG_HIST, "…") */
#define PM_FIELD(record, member, type_, unit_, kind_, agg_, doc_)                                  \
    {                                                                                              \
        .name = #member, .type = PM_TYPE_##type_, .offset = offsetof(record, member),              \
        .unit = (unit_), .kind = PM_KIND_##kind_, .agg = (agg_), .doc = (doc_)                     \
    }

/* Bytes of a type; 0 for a value that is none. */
size_t pm_type_bytes(enum pm_type type);

/* Writes the schema's text (see above), NUL-terminated, into out; returns its length without the
 * NUL, or the length it would need if that is >= size (as snprintf). */
size_t pm_schema_to_text(const struct pm_schema *schema, char *out, size_t size);

/* Parses a schema's text into one malloc'ed block (free with free()): *ret_schema and all its
 * strings lie in it. Total on any bytes. 0, -PM_ENOMEM, -PM_ECORRUPT (bad text, fields beyond the
 * payload, more than 64 fields, two classes, a sum over text or floating point). */
int pm_schema_from_text(const char *text, size_t bytes, struct pm_schema **ret_schema);

/* How many values (counts and sums) and histograms one schema contributes to a live copy. */
void pm_schema_series(const struct pm_schema *schema, uint32_t *ret_values, uint32_t *ret_hists);

/* Adds one payload to the series: values and hists point at this schema's first ones. A class value
 * beyond the last counts in the last; sums wrap; negative values fall into bucket 0. Payloads
 * shorter than the schema says are the caller's bug. */
void pm_schema_accumulate(const struct pm_schema *schema, const void *payload, uint64_t *values,
                          struct pm_hist *hists);

/* A field's value as u64 (I32/I64 sign-extended, F64 by bits). */
uint64_t pm_field_get(const struct pm_field *field, const void *payload);

#endif
