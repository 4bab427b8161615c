/*
 * Facts of the step probe as C structs, by field names: a file whose schema has other offsets,
 * fewer or more fields gives the same struct, with zeros for what it does not have. Inside the
 * reader.
 */
#ifndef PM_READER_FACTS_H
#define PM_READER_FACTS_H

#include "session/device_facts.h"
#include "session/step_facts.h"
#include "session/request_facts.h"
#include "reader/reader.h"

#define PM_FACT_FIELDS_MAX 48

/* How one schema's payload becomes one of the structs of session/step_facts.h or
 * session/request_facts.h. */
struct pm_fact_map {
    int schema;     /* number in the process; -1: the process has no such facts */
    bool same;      /* laid out as the struct is: one memcpy */
    uint32_t bytes; /* of the struct */
    size_t n;
    struct {
        const struct pm_field *field;
        uint16_t offset; /* in the struct */
        uint8_t bytes;
    } fields[PM_FACT_FIELDS_MAX];
};

/* A member of such a struct, by the name of the field that fills it. */
struct pm_fact_member {
    const char *name;
    uint16_t offset;
    uint8_t bytes;
};
#define PM_FACT_MEMBER(type, member)                                                               \
    {                                                                                              \
        .name = #member, .offset = offsetof(struct type, member),                                  \
        .bytes = sizeof(((struct type *)0)->member)                                                \
    }

/* The map from the schema of this name to a struct of so many bytes and members; the functions
 * below make those of the steps and requests. */
void pm_fact_map_make(struct pm_fact_map *ret_map, const struct pm_process *process,
                      const char *name, uint32_t bytes, const struct pm_fact_member *members,
                      size_t count);

void pm_fact_map_sched(struct pm_fact_map *ret_map, const struct pm_process *process);
void pm_fact_map_worker(struct pm_fact_map *ret_map, const struct pm_process *process);
void pm_fact_map_sync(struct pm_fact_map *ret_map, const struct pm_process *process);
void pm_fact_map_device(struct pm_fact_map *ret_map, const struct pm_process *process);
void pm_fact_map_member(struct pm_fact_map *ret_map, const struct pm_process *process);
void pm_fact_map_update(struct pm_fact_map *ret_map, const struct pm_process *process);
void pm_fact_map_queued(struct pm_fact_map *ret_map, const struct pm_process *process);
void pm_fact_map_request(struct pm_fact_map *ret_map, const struct pm_process *process);
void pm_fact_map_open(struct pm_fact_map *ret_map, const struct pm_process *process);

/* The slow way of pm_fact_take. */
void pm_fact_take_fields(const struct pm_fact_map *map, const uint8_t *payload, void *ret_fact);

static inline void pm_fact_take(const struct pm_fact_map *map, const uint8_t *payload,
                                void *ret_fact)
{
    if (__builtin_expect(map->same, 1))
        __builtin_memcpy(ret_fact, payload, map->bytes);
    else
        pm_fact_take_fields(map, payload, ret_fact);
}

#endif
