/*
 * Maps from a file's schemas to the structs of the step facts (see facts.h). Called by engines.c
 * and steps.c when they open a process; owns nothing.
 */
#include "reader/facts.h"

#include <string.h>

#define MEMBER(type, member) PM_FACT_MEMBER(type, member)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct pm_fact_member sched_members[] = {
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
    MEMBER(pm_sched_step, max_requests),
    MEMBER(pm_sched_step, max_tokens),
};

static const struct pm_fact_member worker_members[] = {
    MEMBER(pm_worker_step, step),           MEMBER(pm_worker_step, start_ns),
    MEMBER(pm_worker_step, gpu_ns),         MEMBER(pm_worker_step, model_ns_at),
    MEMBER(pm_worker_step, pre_ns),         MEMBER(pm_worker_step, model_ns),
    MEMBER(pm_worker_step, post_ns),        MEMBER(pm_worker_step, sample_ns),
    MEMBER(pm_worker_step, total_ns),       MEMBER(pm_worker_step, sync_ns),
    MEMBER(pm_worker_step, requests),       MEMBER(pm_worker_step, tokens),
    MEMBER(pm_worker_step, instance),       MEMBER(pm_worker_step, phase),
    MEMBER(pm_worker_step, runner),         MEMBER(pm_worker_step, flags),
    MEMBER(pm_worker_step, sampler_at_ns),  MEMBER(pm_worker_step, sampler_ns),
    MEMBER(pm_worker_step, bookkeep_at_ns), MEMBER(pm_worker_step, bookkeep_ns),
    MEMBER(pm_worker_step, draft_at_ns),    MEMBER(pm_worker_step, draft_ns),
};

static const struct pm_fact_member sync_members[] = {
    MEMBER(pm_worker_sync, step),
    MEMBER(pm_worker_sync, sync_at_ns),
    MEMBER(pm_worker_sync, instance),
};

static const struct pm_fact_member device_members[] = {
    MEMBER(pm_device_step, step),     MEMBER(pm_device_step, at_ns),
    MEMBER(pm_device_step, gpu_ns),   MEMBER(pm_device_step, wait_ns),
    MEMBER(pm_device_step, after_ns), MEMBER(pm_device_step, sample_ns),
    MEMBER(pm_device_step, device),   MEMBER(pm_device_step, instance),
    MEMBER(pm_device_step, phase),    MEMBER(pm_device_step, flags),
};

static const struct pm_fact_member member_members[] = {
    MEMBER(pm_step_request, step),     MEMBER(pm_step_request, at_ns),
    MEMBER(pm_step_request, request),  MEMBER(pm_step_request, tokens),
    MEMBER(pm_step_request, computed), MEMBER(pm_step_request, instance),
    MEMBER(pm_step_request, event),    MEMBER(pm_step_request, phase),
    MEMBER(pm_step_request, blocks),   MEMBER(pm_step_request, reason),
    MEMBER(pm_step_request, flags),
};

static const struct pm_fact_member update_members[] = {
    MEMBER(pm_update_step, step),          MEMBER(pm_update_step, start_ns),
    MEMBER(pm_update_step, gap_ns),        MEMBER(pm_update_step, dur_ns),
    MEMBER(pm_update_step, instance),      MEMBER(pm_update_step, flags),
    MEMBER(pm_update_step, outputs),       MEMBER(pm_update_step, continued),
    MEMBER(pm_update_step, output_tokens), MEMBER(pm_update_step, finished),
    MEMBER(pm_update_step, drafted),       MEMBER(pm_update_step, accepted),
};

static const struct pm_fact_member queued_members[] = {
    MEMBER(pm_request_queued, at_ns),      MEMBER(pm_request_queued, arrived_ns),
    MEMBER(pm_request_queued, request),    MEMBER(pm_request_queued, prompt_tokens),
    MEMBER(pm_request_queued, max_tokens), MEMBER(pm_request_queued, priority),
    MEMBER(pm_request_queued, instance),   MEMBER(pm_request_queued, turn),
    MEMBER(pm_request_queued, flags),
};

static const struct pm_fact_member request_members[] = {
    MEMBER(pm_request_fact, arrived_ns),
    MEMBER(pm_request_fact, queued_ns),
    MEMBER(pm_request_fact, started_ns),
    MEMBER(pm_request_fact, first_token_ns),
    MEMBER(pm_request_fact, last_token_ns),
    MEMBER(pm_request_fact, finished_ns),
    MEMBER(pm_request_fact, first_preempted_ns),
    MEMBER(pm_request_fact, preempted_ns),
    MEMBER(pm_request_fact, resumed_ns),
    MEMBER(pm_request_fact, away_ns),
    MEMBER(pm_request_fact, longest_gap_ns),
    MEMBER(pm_request_fact, queue_ns),
    MEMBER(pm_request_fact, ttft_ns),
    MEMBER(pm_request_fact, tpot_ns),
    MEMBER(pm_request_fact, e2e_ns),
    MEMBER(pm_request_fact, step),
    MEMBER(pm_request_fact, request),
    MEMBER(pm_request_fact, prompt_tokens),
    MEMBER(pm_request_fact, cached_tokens),
    MEMBER(pm_request_fact, output_tokens),
    MEMBER(pm_request_fact, max_tokens),
    MEMBER(pm_request_fact, recomputed_tokens),
    MEMBER(pm_request_fact, lost_tokens),
    MEMBER(pm_request_fact, lost_blocks),
    MEMBER(pm_request_fact, preemptions),
    MEMBER(pm_request_fact, priority),
    MEMBER(pm_request_fact, instance),
    MEMBER(pm_request_fact, state),
    MEMBER(pm_request_fact, reason),
    MEMBER(pm_request_fact, turns),
    MEMBER(pm_request_fact, giving),
};

_Static_assert(COUNT(sched_members) <= PM_FACT_FIELDS_MAX, "room for every member");
_Static_assert(COUNT(worker_members) <= PM_FACT_FIELDS_MAX, "room for every member");
_Static_assert(COUNT(request_members) <= PM_FACT_FIELDS_MAX, "room for every member");

static const struct pm_field *find_field(const struct pm_schema *schema, const char *name)
{
    for (size_t i = 0; i < schema->n_fields; i++)
        if (strcmp(schema->fields[i].name, name) == 0)
            return &schema->fields[i];
    return NULL;
}

void pm_fact_map_make(struct pm_fact_map *map, const struct pm_process *process, const char *name,
                      uint32_t bytes, const struct pm_fact_member *members, size_t count)
{
    *map = (struct pm_fact_map){.schema = pm_process_schema_find(process, name), .bytes = bytes};
    if (map->schema < 0)
        return;
    const struct pm_schema *schema = pm_process_schema(process, (size_t)map->schema);
    map->same = schema->payload_bytes >= bytes;
    for (size_t i = 0; i < count; i++) {
        const struct pm_field *field = find_field(schema, members[i].name);
        if (field == NULL || field->type == PM_TYPE_F64 ||
            (field->type == PM_TYPE_STR && members[i].bytes != 4)) {
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
    pm_fact_map_make(ret_map, process, "sched_step", sizeof(struct pm_sched_step), sched_members,
                     COUNT(sched_members));
}

void pm_fact_map_worker(struct pm_fact_map *ret_map, const struct pm_process *process)
{
    pm_fact_map_make(ret_map, process, "worker_step", sizeof(struct pm_worker_step), worker_members,
                     COUNT(worker_members));
}

void pm_fact_map_sync(struct pm_fact_map *ret_map, const struct pm_process *process)
{
    pm_fact_map_make(ret_map, process, "worker_sync", sizeof(struct pm_worker_sync), sync_members,
                     COUNT(sync_members));
}

void pm_fact_map_device(struct pm_fact_map *ret_map, const struct pm_process *process)
{
    pm_fact_map_make(ret_map, process, "device_step", sizeof(struct pm_device_step), device_members,
                     COUNT(device_members));
}

void pm_fact_map_member(struct pm_fact_map *ret_map, const struct pm_process *process)
{
    pm_fact_map_make(ret_map, process, "step_request", sizeof(struct pm_step_request),
                     member_members, COUNT(member_members));
}

void pm_fact_map_update(struct pm_fact_map *ret_map, const struct pm_process *process)
{
    pm_fact_map_make(ret_map, process, "update_step", sizeof(struct pm_update_step), update_members,
                     COUNT(update_members));
}

void pm_fact_map_queued(struct pm_fact_map *ret_map, const struct pm_process *process)
{
    pm_fact_map_make(ret_map, process, "request_queued", sizeof(struct pm_request_queued),
                     queued_members, COUNT(queued_members));
}

void pm_fact_map_request(struct pm_fact_map *ret_map, const struct pm_process *process)
{
    pm_fact_map_make(ret_map, process, "request", sizeof(struct pm_request_fact), request_members,
                     COUNT(request_members));
}

void pm_fact_map_open(struct pm_fact_map *ret_map, const struct pm_process *process)
{
    pm_fact_map_make(ret_map, process, "request_open", sizeof(struct pm_request_fact),
                     request_members, COUNT(request_members));
}

void pm_fact_take_fields(const struct pm_fact_map *map, const uint8_t *payload, void *ret_fact)
{
    memset(ret_fact, 0, map->bytes);
    for (size_t i = 0; i < map->n; i++) {
        uint64_t value = pm_field_get(map->fields[i].field, payload);
        const unsigned bytes = map->fields[i].bytes;
        const bool is_signed =
            map->fields[i].field->type == PM_TYPE_I32 || map->fields[i].field->type == PM_TYPE_I64;
        if (!is_signed && bytes < 8 && value >> (8 * bytes) != 0)
            value = (1ull << (8 * bytes)) - 1; /* saturates, as the recorder does */
        memcpy((uint8_t *)ret_fact + map->fields[i].offset, &value, bytes);
    }
}
