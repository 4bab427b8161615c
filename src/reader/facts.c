/*
 * Maps from a file's schemas to the structs of the step facts (see facts.h). Called by engines.c
 * and steps.c when they open a process; owns nothing.
 */
#include "reader/facts.h"

#include <string.h>

struct member {
    const char *name;
    uint16_t offset;
    uint8_t bytes;
};

#define MEMBER(type, member)                                                                       \
    {                                                                                              \
#member, offsetof(struct type, member), sizeof(((struct type *)0)->member)                 \
    }
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct member sched_members[] = {
    MEMBER(pm_sched_step, step),
    MEMBER(pm_sched_step, start_ns),
    MEMBER(pm_sched_step, dur_ns),
    MEMBER(pm_sched_step, instance),
    MEMBER(pm_sched_step, phase),
    MEMBER(pm_sched_step, flags),
    MEMBER(pm_sched_step, requests),
    MEMBER(pm_sched_step, tokens),
    MEMBER(pm_sched_step, prefill_requests),
    MEMBER(pm_sched_step, prefill_tokens),
    MEMBER(pm_sched_step, recompute_requests),
    MEMBER(pm_sched_step, recompute_tokens),
    MEMBER(pm_sched_step, decode_requests),
    MEMBER(pm_sched_step, decode_tokens),
    MEMBER(pm_sched_step, spec_requests),
    MEMBER(pm_sched_step, spec_tokens),
    MEMBER(pm_sched_step, running),
    MEMBER(pm_sched_step, waiting),
    MEMBER(pm_sched_step, joined),
    MEMBER(pm_sched_step, left),
};

static const struct member worker_members[] = {
    MEMBER(pm_worker_step, step),     MEMBER(pm_worker_step, start_ns),
    MEMBER(pm_worker_step, gpu_ns),   MEMBER(pm_worker_step, model_ns_at),
    MEMBER(pm_worker_step, pre_ns),   MEMBER(pm_worker_step, model_ns),
    MEMBER(pm_worker_step, post_ns),  MEMBER(pm_worker_step, sample_ns),
    MEMBER(pm_worker_step, total_ns), MEMBER(pm_worker_step, sync_ns),
    MEMBER(pm_worker_step, requests), MEMBER(pm_worker_step, tokens),
    MEMBER(pm_worker_step, instance), MEMBER(pm_worker_step, phase),
    MEMBER(pm_worker_step, runner),   MEMBER(pm_worker_step, flags),
};

static const struct member sync_members[] = {
    MEMBER(pm_worker_sync, step),
    MEMBER(pm_worker_sync, sync_at_ns),
    MEMBER(pm_worker_sync, instance),
};

_Static_assert(COUNT(sched_members) <= PM_FACT_FIELDS_MAX, "room for every member");

static const struct pm_field *find_field(const struct pm_schema *schema, const char *name)
{
    for (size_t i = 0; i < schema->n_fields; i++)
        if (strcmp(schema->fields[i].name, name) == 0)
            return &schema->fields[i];
    return NULL;
}

static void make_map(struct pm_fact_map *map, const struct pm_process *process, const char *name,
                     uint32_t bytes, const struct member *members, size_t count)
{
    *map = (struct pm_fact_map){.schema = pm_process_schema_find(process, name), .bytes = bytes};
    if (map->schema < 0)
        return;
    const struct pm_schema *schema = pm_process_schema(process, (size_t)map->schema);
    map->same = schema->payload_bytes >= bytes;
    for (size_t i = 0; i < count; i++) {
        const struct pm_field *field = find_field(schema, members[i].name);
        if (field == NULL || field->type == PM_TYPE_F64 || field->type == PM_TYPE_STR) {
            map->same = false;
            continue;
        }
        if (field->offset != members[i].offset || pm_type_bytes(field->type) != members[i].bytes)
            map->same = false;
        map->fields[map->n].field = field;
        map->fields[map->n].offset = members[i].offset;
        map->fields[map->n].bytes = members[i].bytes;
        map->n++;
    }
}

void pm_fact_map_sched(struct pm_fact_map *ret_map, const struct pm_process *process)
{
    make_map(ret_map, process, "sched_step", sizeof(struct pm_sched_step), sched_members,
             COUNT(sched_members));
}

void pm_fact_map_worker(struct pm_fact_map *ret_map, const struct pm_process *process)
{
    make_map(ret_map, process, "worker_step", sizeof(struct pm_worker_step), worker_members,
             COUNT(worker_members));
}

void pm_fact_map_sync(struct pm_fact_map *ret_map, const struct pm_process *process)
{
    make_map(ret_map, process, "worker_sync", sizeof(struct pm_worker_sync), sync_members,
             COUNT(sync_members));
}

void pm_fact_take_fields(const struct pm_fact_map *map, const uint8_t *payload, void *ret_fact)
{
    memset(ret_fact, 0, map->bytes);
    for (size_t i = 0; i < map->n; i++) {
        uint64_t value = pm_field_get(map->fields[i].field, payload);
        const unsigned bytes = map->fields[i].bytes;
        if (bytes < 8 && value >> (8 * bytes) != 0)
            value = (1ull << (8 * bytes)) - 1; /* saturates, as the recorder does */
        memcpy((uint8_t *)ret_fact + map->fields[i].offset, &value, bytes);
    }
}
