/*
 * Names of scopes (scope_names.h).
 */
#include "probe/scope_names.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

const struct pm_scope_name pm_scopes[PM_SCOPES] = {
    [PM_SCOPE_STEP] = {"step", 0xff4c78a8},
    [PM_SCOPE_MODEL] = {"model_forward", 0xff54a24b},
    [PM_SCOPE_ATTENTION] = {"attention", 0xffe45756},
    [PM_SCOPE_SAMPLING] = {"sampling", 0xfff58518},
    [PM_SCOPE_SCHEDULING] = {"scheduling", 0xffb279a2},
    [PM_SCOPE_OUTPUT] = {"output_processing", 0xff9d755d},
};

static bool is(const char *text, size_t length, const char *name)
{
    return strlen(name) == length && memcmp(name, text, length) == 0;
}

unsigned pm_scopes_parse(const char *text, char *unknown, size_t size)
{
    unsigned found = 0;
    while (*text) {
        const size_t span = strcspn(text, ",");
        const char *name = text;
        size_t length = span;
        for (; length > 0 && *name == ' '; length--)
            name++;
        while (length > 0 && name[length - 1] == ' ')
            length--;
        unsigned bits = is(name, length, "all") ? PM_SCOPE_BIT(PM_SCOPES) - 1 : 0;
        for (unsigned s = 0; s < PM_SCOPES; s++)
            if (is(name, length, pm_scopes[s].name))
                bits |= PM_SCOPE_BIT(s);
        if (bits == 0 && length > 0 && unknown[0] == '\0')
            snprintf(unknown, size, "%.*s", (int)length, name);
        found |= bits;
        text += span + (text[span] == ',');
    }
    return found;
}
