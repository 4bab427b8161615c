/*
 * The orders of the key_averages table (see keys.h). Pure.
 */
#include "trace/keys.h"

#include <stdlib.h>
#include <string.h>

/* Own words first; torch's after them, with cuda, xpu or device for the accelerator. */
static const struct {
    const char *word;
    enum pm_key_sort sort;
} words[] = {
    {"self_cpu", PM_SORT_SELF_CPU},
    {"cpu", PM_SORT_CPU},
    {"cpu_mean", PM_SORT_CPU_MEAN},
    {"self_device", PM_SORT_SELF_DEVICE},
    {"device", PM_SORT_DEVICE},
    {"device_mean", PM_SORT_DEVICE_MEAN},
    {"calls", PM_SORT_CALLS},
    {"self_cpu_memory", PM_SORT_SELF_CPU_BYTES},
    {"cpu_memory", PM_SORT_CPU_BYTES},
    {"self_device_memory", PM_SORT_SELF_DEVICE_BYTES},
    {"device_memory", PM_SORT_DEVICE_BYTES},
    {"flops", PM_SORT_FLOPS},
    {"name", PM_SORT_NAME},
    {"time", PM_SORT_NONE},
    {"self_cpu_time_total", PM_SORT_SELF_CPU},
    {"cpu_time_total", PM_SORT_CPU},
    {"cpu_time", PM_SORT_CPU_MEAN},
    {"self_device_time_total", PM_SORT_SELF_DEVICE},
    {"device_time_total", PM_SORT_DEVICE},
    {"device_time", PM_SORT_DEVICE_MEAN},
    {"count", PM_SORT_CALLS},
    {"self_cpu_memory_usage", PM_SORT_SELF_CPU_BYTES},
    {"cpu_memory_usage", PM_SORT_CPU_BYTES},
    {"self_device_memory_usage", PM_SORT_SELF_DEVICE_BYTES},
    {"device_memory_usage", PM_SORT_DEVICE_BYTES},
};

const char *pm_key_sort_word(size_t i)
{
    return i < sizeof(words) / sizeof(words[0]) ? words[i].word : NULL;
}

bool pm_key_sort_find(const char *text, enum pm_key_sort *ret)
{
    static const char *const devices[] = {"cuda", "xpu", "privateuse1"};
    char word[64];
    size_t n = strlen(text);
    if (n >= sizeof(word))
        return false;
    memcpy(word, text, n + 1);
    for (size_t k = 0; k < sizeof(devices) / sizeof(devices[0]); k++) {
        const char *at = strstr(text, devices[k]);
        if (at == NULL)
            continue;
        size_t head = (size_t)(at - text), name = strlen(devices[k]);
        if (n - name + 6 >= sizeof(word))
            return false;
        memcpy(word + head, "device", 6);
        memcpy(word + head + 6, at + name, n - head - name + 1);
        break;
    }
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (strcmp(word, words[i].word) == 0) {
            *ret = words[i].sort;
            return true;
        }
    return false;
}

static double value(const struct pm_key *row, enum pm_key_sort by)
{
    double calls = row->calls > 0 ? (double)row->calls : 1;
    switch (by) {
    case PM_SORT_SELF_CPU:
        return (double)row->self_cpu_ns;
    case PM_SORT_CPU:
        return (double)row->cpu_ns;
    case PM_SORT_CPU_MEAN:
        return (double)row->cpu_ns / calls;
    case PM_SORT_SELF_DEVICE:
        return (double)row->self_device_ns;
    case PM_SORT_DEVICE:
        return (double)row->device_ns;
    case PM_SORT_DEVICE_MEAN:
        return (double)row->device_ns / calls;
    case PM_SORT_CALLS:
        return (double)row->calls;
    case PM_SORT_SELF_CPU_BYTES:
        return (double)row->self_cpu_bytes;
    case PM_SORT_CPU_BYTES:
        return (double)row->cpu_bytes;
    case PM_SORT_SELF_DEVICE_BYTES:
        return (double)row->self_device_bytes;
    case PM_SORT_DEVICE_BYTES:
        return (double)row->device_bytes;
    case PM_SORT_FLOPS:
        return (double)row->flops;
    case PM_SORT_NONE:
    case PM_SORT_NAME:
        return 0;
    }
    return 0;
}

struct order {
    const struct pm_keys *keys;
    enum pm_key_sort by;
};

static int compare(const void *a, const void *b, void *arg)
{
    const struct order *order = arg;
    const struct pm_key *x = a, *y = b;
    if (order->by == PM_SORT_NAME) {
        int names = strcmp(pm_key_text(order->keys, x->name), pm_key_text(order->keys, y->name));
        if (names != 0)
            return names;
    } else {
        double left = value(x, order->by), right = value(y, order->by);
        if (left != right)
            return left < right ? 1 : -1;
    }
    if (x->first_ns != y->first_ns)
        return x->first_ns < y->first_ns ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

void pm_keys_sort(struct pm_keys *keys, enum pm_key_sort by)
{
    struct order order = {keys, by};
    if (keys->n > 0)
        qsort_r(keys->rows, keys->n, sizeof(*keys->rows), compare, &order);
    memset(keys->table, 0, ((size_t)keys->mask + 1) * sizeof(*keys->table));
}
