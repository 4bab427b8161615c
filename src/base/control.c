/* See control.h. Any thread; owns nothing. */
#include "base/control.h"

#include <string.h>

static const struct {
    const char *field, *why;
} rules[] = {
#define L(field) {#field, NULL},
#define F(field, why) {#field, why},
#include "base/control.def"
#undef L
#undef F
};

const char *pm_setting_fixed(const struct pm_setting_row *row)
{
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
        if (strcmp(rules[i].field, row->field) == 0)
            return rules[i].why;
    return "it is read when a session begins";
}

static bool same(const char *name, const char *other)
{
    while (*name != '\0' && (*name == *other || (*name == '-' && *other == '_') ||
                             (*name == '_' && *other == '-'))) {
        name++;
        other++;
    }
    return *name == *other;
}

const struct pm_setting_row *pm_setting_named(const char *name)
{
    for (size_t i = 0; i < pm_setting_rows_count; i++)
        if (same(name, pm_setting_rows[i].field) || same(name, pm_setting_rows[i].option))
            return &pm_setting_rows[i];
    return NULL;
}
