/*
 * Reads the setting of function tracing and answers for one function at a time (see the header).
 * Called by the probe, once per code object.
 */
#include "base/function_filter.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

struct reading {
    struct pm_function_filter *filter;
    size_t used; /* of texts */
};

static void add_name(struct reading *r, const char *text, size_t bytes)
{
    struct pm_function_filter *filter = r->filter;
    const bool exclude = bytes > 0 && text[0] == '-';
    if (exclude)
        text++, bytes--;
    if (bytes == 0)
        return;
    if (filter->count == PM_FUNCTION_NAMES || r->used + bytes + 1 > sizeof filter->texts) {
        filter->beyond++;
        return;
    }
    char *kept = filter->texts + r->used;
    memcpy(kept, text, bytes);
    kept[bytes] = '\0';
    r->used += bytes + 1;
    char *colon = strchr(kept, ':');
    if (colon != NULL)
        *colon = '.';
    filter->names[filter->count].text = kept;
    filter->names[filter->count].exclude = exclude;
    filter->names[filter->count].pattern = strchr(kept, '*') != NULL;
    filter->count++;
}

/* Calls add for each name of a list. */
static void each_name(const char *text, void (*add)(void *arg, const char *name, size_t bytes),
                      void *arg)
{
    static const char blanks[] = " \t\r\n\"'";
    while (*text != '\0') {
        size_t bytes = strcspn(text, ",");
        const char *name = text, *next = text + bytes + (text[bytes] == ',');
        while (bytes > 0 && strchr(blanks, name[0]) != NULL)
            name++, bytes--;
        while (bytes > 0 && strchr(blanks, name[bytes - 1]) != NULL)
            bytes--;
        if (bytes > 0)
            add(arg, name, bytes);
        text = next;
    }
}

static void add_custom(void *arg, const char *name, size_t bytes)
{
    add_name(arg, name, bytes);
}

struct setting {
    struct reading reading;
    const char *custom;
    bool any;
};

static bool is_word(const char *text, size_t bytes, const char *word)
{
    return bytes == strlen(word) && strncasecmp(text, word, bytes) == 0;
}

static void add_one(void *arg, const char *name, size_t bytes)
{
    struct setting *setting = arg;
    struct pm_function_filter *filter = setting->reading.filter;
    if (strspn(name, "+-0123456789_") >= bytes)
        return; /* a number is vLLM's own switch */
    setting->any = true;
    if (is_word(name, bytes, "all")) {
        filter->all = true;
    } else if (is_word(name, bytes, "custom")) {
        const size_t before = filter->count;
        each_name(setting->custom, add_custom, &setting->reading);
        if (filter->count == before) {
            add_name(&setting->reading, "vllm", 4);
            filter->custom = true;
        }
    } else {
        add_name(&setting->reading, name, bytes);
    }
}

void pm_function_filter_parse(const char *text, const char *custom,
                              struct pm_function_filter *ret_filter)
{
    struct setting setting = {.reading.filter = ret_filter, .custom = custom};
    memset(ret_filter, 0, sizeof *ret_filter);
    each_name(text, add_one, &setting);
    ret_filter->on = setting.any;
    bool only_excludes = setting.any && !ret_filter->all;
    for (size_t i = 0; i < ret_filter->count; i++)
        only_excludes = only_excludes && ret_filter->names[i].exclude;
    if (only_excludes)
        ret_filter->all = true;
}

/* `*` stands for any text, also none. Linear in practice: goes back to the last star only. */
static bool matches_pattern(const char *pattern, const char *text)
{
    const char *star = NULL, *again = NULL;
    while (*text != '\0') {
        if (*pattern == '*') {
            star = pattern++;
            again = text;
        } else if (*pattern == *text) {
            pattern++, text++;
        } else if (star != NULL) {
            pattern = star + 1;
            text = ++again;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == '\0';
}

/* Whether name is full, or a part of it from its begin to a point. */
static bool is_within(const char *name, const char *full)
{
    const size_t bytes = strlen(name);
    return strncmp(name, full, bytes) == 0 && (full[bytes] == '\0' || full[bytes] == '.');
}

static bool matches(const char *name, bool pattern, const char *full, const char *qualname)
{
    if (pattern)
        return matches_pattern(name, full);
    if (is_within(name, full))
        return true;
    /* anywhere in the qualified name: Class, Class.method, method */
    for (const char *at = qualname; at != NULL; at = strchr(at, '.')) {
        at += *at == '.';
        if (is_within(name, at))
            return true;
    }
    return false;
}

bool pm_function_filter_wants(const struct pm_function_filter *filter, const char *module,
                              const char *qualname)
{
    char full[2048];
    bool wanted = filter->all;
    if (!filter->on)
        return false;
    if (filter->count == 0)
        return wanted;
    snprintf(full, sizeof full, "%s.%s", module, qualname);
    for (size_t i = 0; i < filter->count && !wanted; i++)
        wanted = !filter->names[i].exclude &&
                 matches(filter->names[i].text, filter->names[i].pattern, full, qualname);
    for (size_t i = 0; wanted && i < filter->count; i++)
        wanted = !filter->names[i].exclude ||
                 !matches(filter->names[i].text, filter->names[i].pattern, full, qualname);
    return wanted;
}
