/*
 * The setting VLLM_PROFILING_CUSTOM (see custom.h). Pure, any thread.
 */
#include "base/custom.h"

#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/utf8.h"

#define SHOWN_MAX 80 /* bytes of a bad entry that a warning shows */

struct warner {
    pm_settings_warn_fn fn;
    void *arg;
};

/* The entry as a terminal may see it, cut at a character's boundary. */
static void show(const char *entry, size_t bytes, char out[SHOWN_MAX + 4])
{
    size_t used = 0, at = 0;
    while (at < bytes) {
        size_t length = pm_utf8_length(entry + at, bytes - at);
        const bool plain = length > 1 || (length == 1 && entry[at] >= ' ' && entry[at] != 0x7f);
        if (used + (plain ? length : 1) > SHOWN_MAX) {
            memcpy(out + used, "…", 3);
            used += 3;
            break;
        }
        if (plain)
            memcpy(out + used, entry + at, length);
        else
            out[used] = '?';
        used += plain ? length : 1;
        at += length > 0 ? length : 1;
    }
    out[used] = '\0';
}

static void PM_PRINTF(4, 5)
    warn(const struct warner *warner, const char *entry, size_t bytes, const char *format, ...)
{
    char shown[SHOWN_MAX + 4], why[256], sentence[512];
    va_list args;
    if (warner->fn == NULL)
        return;
    va_start(args, format);
    (void)vsnprintf(why, sizeof(why), format, args);
    va_end(args);
    show(entry, bytes, shown);
    snprintf(sentence, sizeof(sentence), "VLLM_PROFILING_CUSTOM: '%s' %s", shown, why);
    warner->fn(sentence, warner->arg);
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* Whether these bytes are names separated by single points. What is beyond ASCII is Python's to
 * judge. */
static bool is_dotted(const char *text, size_t bytes)
{
    bool begins = true; /* a name has to begin here */
    for (size_t at = 0; at < bytes;) {
        const size_t length = pm_utf8_length(text + at, bytes - at);
        const char c = text[at];
        if (length == 0)
            return false;
        if (c == '.') {
            if (begins)
                return false;
            begins = true;
        } else if (length > 1 || is_letter(c) || (!begins && c >= '0' && c <= '9')) {
            begins = false;
        } else {
            return false;
        }
        at += length;
    }
    return !begins;
}

enum verdict { ALLOW, REFUSE };

static void judge(struct pm_custom_hook *hook)
{
    static const struct {
        enum verdict verdict;
        const char *pattern, *reason;
    } rules[] = {
#define X(verdict, pattern, reason) {verdict, pattern, reason},
#include "base/custom.def"
#undef X
    };
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        if (fnmatch(rules[i].pattern, hook->name, 0) != 0)
            continue;
        hook->allowed = rules[i].verdict == ALLOW;
        hook->refused = rules[i].verdict == REFUSE ? rules[i].reason : NULL;
        return;
    }
}

static bool is_listed(const struct pm_custom *custom, const char *entry, size_t bytes)
{
    for (size_t i = 0; i < custom->count; i++)
        if (strlen(custom->hooks[i].name) == bytes &&
            memcmp(custom->hooks[i].name, entry, bytes) == 0)
            return true;
    return false;
}

static void take(struct pm_custom *custom, const char *entry, size_t bytes,
                 const struct warner *warner)
{
    const char *colon = memchr(entry, ':', bytes);
    const size_t module = colon != NULL ? (size_t)(colon - entry) : 0;
    if (colon == NULL || !is_dotted(entry, module) || !is_dotted(colon + 1, bytes - module - 1)) {
        warn(warner, entry, bytes,
             "names no callable, pkg.mod:Class.method or pkg.mod:function is expected; left out");
        return;
    }
    if (bytes > PM_CUSTOM_NAME_MAX) {
        warn(warner, entry, bytes, "is longer than %d bytes; left out", PM_CUSTOM_NAME_MAX);
        return;
    }
    if (is_listed(custom, entry, bytes)) {
        warn(warner, entry, bytes, "is named twice; once is enough");
        return;
    }
    struct pm_custom_hook *hook = &custom->hooks[custom->count++];
    memset(hook, 0, sizeof(*hook));
    memcpy(hook->name, entry, bytes);
    memcpy(hook->module, entry, module);
    memcpy(hook->qualname, colon + 1, bytes - module - 1);
    judge(hook);
    if (hook->refused != NULL)
        warn(warner, entry, bytes, "is refused: %s", hook->refused);
}

void pm_custom_parse(const char *text, struct pm_custom *ret_custom, pm_settings_warn_fn warn_fn,
                     void *warn_arg)
{
    static const char blanks[] = " \t\r\n";
    const struct warner warner = {warn_fn, warn_arg};
    ret_custom->count = 0;
    while (*text != '\0') {
        const char *entry = text + strspn(text, blanks);
        size_t bytes = strcspn(entry, ",");
        text = entry + bytes + (entry[bytes] == ',');
        while (bytes > 0 && strchr(blanks, entry[bytes - 1]) != NULL)
            bytes--;
        if (bytes == 0)
            continue;
        if (ret_custom->count == PM_CUSTOM_MAX) {
            warn(&warner, entry, bytes, "and what follows is left out: %d hooks are the most",
                 PM_CUSTOM_MAX);
            return;
        }
        take(ret_custom, entry, bytes, &warner);
    }
}
