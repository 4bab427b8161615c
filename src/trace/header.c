/*
 * The facts about the whole file that stand beside traceEvents: whose rank it is, which devices
 * there were, what was recorded (see parse.h). One thread.
 */
#include "trace/parse.h"

#include <string.h>

static bool is(const struct pm_parse *parse, struct pm_span key, const char *name)
{
    return key.len == strlen(name) && memcmp(parse->text + key.at, name, key.len) == 0;
}

static int64_t whole_number(struct pm_parse *parse)
{
    int64_t value = 0;
    uint64_t odd = 0; /* not counted: what is not whole yet is read again */
    const uint8_t *p = parse->text + parse->p;
    if (pm_value_int(*p == '"' ? p + 1 : p, &value, &odd) == NULL)
        return 0;
    return value;
}

static int32_t small(int64_t value)
{
    return value < 0 || value > INT32_MAX ? -1 : (int32_t)value;
}

/* The string at p, 0 where it is none. */
static enum pm_parse_result string(struct pm_parse *parse, uint32_t *ret)
{
    uint32_t begin = parse->p;
    enum pm_parse_result result = pm_parse_skip_value(parse);
    if (result != PM_PARSE_OK || parse->text[begin] != '"')
        return result;
    parse->status = pm_store_string(parse, (struct pm_span){begin + 1, parse->p - begin - 2}, ret);
    return parse->status != 0 ? PM_PARSE_FAILED : PM_PARSE_OK;
}

typedef enum pm_parse_result (*member_fn)(struct pm_parse *parse, struct pm_span key, void *arg);

/* Every member of the object at p; the function must leave p behind the value. */
static enum pm_parse_result each_member(struct pm_parse *parse, member_fn fn, void *arg)
{
    bool closed;
    parse->i++;
    parse->p++;
    pm_parse_skip_space(parse);
    if (parse->text[parse->p] == '}') {
        parse->i++;
        parse->p++;
        return PM_PARSE_OK;
    }
    for (;;) {
        struct pm_span key;
        enum pm_parse_result result = pm_parse_key(parse, &key);
        if (result == PM_PARSE_OK)
            result = fn(parse, key, arg);
        if (result == PM_PARSE_OK)
            result = pm_parse_next(parse, '}', &closed);
        if (result != PM_PARSE_OK)
            return result;
        if (closed)
            return PM_PARSE_OK;
    }
}

static enum pm_parse_result distributed_member(struct pm_parse *parse, struct pm_span key,
                                               void *arg)
{
    (void)arg;
    if (is(parse, key, "rank"))
        parse->trace->rank = small(whole_number(parse));
    else if (is(parse, key, "world_size"))
        parse->trace->world_size = small(whole_number(parse));
    return pm_parse_skip_value(parse);
}

static enum pm_parse_result gpu_member(struct pm_parse *parse, struct pm_span key, void *arg)
{
    struct pm_trace_gpu *gpu = arg;
    if (is(parse, key, "name"))
        return string(parse, &gpu->name);
    if (is(parse, key, "id"))
        gpu->id = small(whole_number(parse));
    else if (is(parse, key, "totalGlobalMem"))
        gpu->memory_bytes = (uint64_t)whole_number(parse);
    else if (is(parse, key, "numSms"))
        gpu->multiprocessors = (uint32_t)small(whole_number(parse));
    return pm_parse_skip_value(parse);
}

static enum pm_parse_result devices(struct pm_parse *parse)
{
    struct pm_trace *trace = parse->trace;
    bool closed;
    trace->n_gpus = 0;
    parse->i++;
    parse->p++;
    pm_parse_skip_space(parse);
    if (parse->text[parse->p] == ']') {
        parse->i++;
        parse->p++;
        return PM_PARSE_OK;
    }
    for (;;) {
        enum pm_parse_result result;
        if (parse->text[parse->p] == '{' && trace->n_gpus < PM_TRACE_MAX_GPUS) {
            struct pm_trace_gpu *gpu = &trace->gpus[trace->n_gpus];
            *gpu = (struct pm_trace_gpu){.id = -1};
            result = each_member(parse, gpu_member, gpu);
            trace->n_gpus += result == PM_PARSE_OK;
        } else {
            result = pm_parse_skip_value(parse);
        }
        if (result == PM_PARSE_OK)
            result = pm_parse_next(parse, ']', &closed);
        if (result != PM_PARSE_OK)
            return result;
        if (closed)
            return PM_PARSE_OK;
    }
}

enum pm_parse_result pm_parse_header(struct pm_parse *parse, struct pm_span key, bool *ret_taken)
{
    struct pm_trace *trace = parse->trace;
    uint8_t first = parse->text[parse->p];
    bool on = first != '0' && first != 'f' && first != 'n';
    *ret_taken = true;
    if (first == '{' && is(parse, key, "distributedInfo"))
        return each_member(parse, distributed_member, NULL);
    if (first == '[' && is(parse, key, "deviceProperties"))
        return devices(parse);
    if (is(parse, key, "traceName"))
        return string(parse, &trace->trace_name);
    if (is(parse, key, "baseTimeNanoseconds"))
        trace->base_ns = whole_number(parse);
    else if (is(parse, key, "with_stack"))
        trace->with_stack = on;
    else if (is(parse, key, "record_shapes"))
        trace->record_shapes = on;
    else if (is(parse, key, "profile_memory"))
        trace->profile_memory = on;
    else if (is(parse, key, "with_flops"))
        trace->with_flops = on;
    *ret_taken = false; /* the value is skipped by the caller */
    return PM_PARSE_OK;
}
