/*
 * The attributes of this process: kept in memory, and written into each recorder that is opened, so
 * that what was learned before the birth, or before a fork, is in every file. GIL held; owns the
 * texts, as long as the process lives.
 */
#include "hook/session.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "probe/probe.h"

#define ATTRIBUTES_MAX 1024
#define VALUE_MAX 4096

struct attribute {
    char *key, *value;
};

static struct pm_recorder *recorder;
static struct attribute *attributes; /* ATTRIBUTES_MAX of them, once there is one */
static size_t count;

static struct attribute *find(const char *key)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(attributes[i].key, key) == 0)
            return &attributes[i];
    }
    return NULL;
}

/* A new one, with an empty value; NULL where there is no room. */
static struct attribute *add(const char *key)
{
    if (!attributes)
        attributes = calloc(ATTRIBUTES_MAX, sizeof *attributes);
    if (!attributes || count == ATTRIBUTES_MAX)
        return NULL;
    struct attribute *added = &attributes[count];
    added->key = strdup(key);
    added->value = added->key ? strdup("") : NULL;
    if (!added->value) {
        free(added->key);
        return NULL;
    }
    count++;
    return added;
}

void pm_facts_attr(const char *key, const char *value)
{
    struct attribute *attribute = find(key);
    if (attribute && strcmp(attribute->value, value) == 0)
        return;
    if (!attribute)
        attribute = add(key);
    char *copy = attribute ? strndup(value, VALUE_MAX) : NULL;
    if (!copy)
        return;
    free(attribute->value);
    attribute->value = copy;
    if (recorder)
        pm_recorder_attr(recorder, key, copy);
}

void pm_attributes_set(const char *key, const char *format, ...)
{
    char value[VALUE_MAX];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(value, sizeof value, format, args);
    va_end(args);
    if (length >= 0)
        pm_facts_attr(key, value);
}

void pm_attributes_forget(const char *prefix)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (strncmp(attributes[i].key, prefix, strlen(prefix)) == 0) {
            free(attributes[i].key);
            free(attributes[i].value);
        } else {
            attributes[kept++] = attributes[i];
        }
    }
    count = kept;
}

const char *pm_attributes_value(const char *key)
{
    const struct attribute *attribute = find(key);
    return attribute ? attribute->value : NULL;
}

void pm_attributes_attach(struct pm_recorder *rec)
{
    recorder = rec;
    for (size_t i = 0; rec && i < count; i++)
        pm_recorder_attr(rec, attributes[i].key, attributes[i].value);
}
