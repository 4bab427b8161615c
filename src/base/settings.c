/*
 * The settings parser: walks the table of settings.def over an environment. Called once per process
 * by the extension, and by `profilemate run` and `env`; any thread, no state of its own.
 *
 * One value goes through one path: trim, parse by the row's type, warn in one sentence if it is not
 * well-formed. The row's own default is parsed by the same code.
 */
#include "base/settings.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define VLLM_PREFIX "VLLM_PROFILING_"
#define OWN_PREFIX "PROFILEMATE_"
#define NAME_MAX_BYTES 96
#define SENTENCE_MAX 512
#define SHOWN_MAX 64 /* bytes of a bad value that a warning repeats */

const struct pm_setting_row pm_setting_rows[] = {
#define X(field, type, env, option, def, min, max, metavar, doc)                                   \
    {#field, #type, env, option, def, metavar, doc, min, max},
#include "base/settings.def"
#undef X
};
const size_t pm_setting_rows_count = sizeof pm_setting_rows / sizeof pm_setting_rows[0];

/* Where each row's value lies in struct pm_settings. */
static const size_t field_offsets[] = {
#define X(field, type, env, option, def, min, max, metavar, doc)                                   \
    offsetof(struct pm_settings, field),
#include "base/settings.def"
#undef X
};

/* A row's type as a number; the spelling in the table is the one in settings.def. */
enum type { BOOL, INT, TEXT, PRESET, MODE, REQUEST_IDS, TRISTATE };

static const enum type field_types[] = {
#define X(field, type, env, option, def, min, max, metavar, doc) type,
#include "base/settings.def"
#undef X
};

/* ---- values ---- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* The value without blanks around it, as start and length. */
static const char *trimmed(const char *value, size_t *ret_bytes)
{
    while (is_blank(*value))
        value++;
    size_t bytes = strlen(value);
    while (bytes > 0 && is_blank(value[bytes - 1]))
        bytes--;
    *ret_bytes = bytes;
    return value;
}

static bool is_word(const char *text, size_t bytes, const char *word)
{
    return bytes == strlen(word) && strncasecmp(text, word, bytes) == 0;
}

static bool parse_bool(const char *text, size_t bytes, int *ret_value)
{
    static const char *const words[2][4] = {{"0", "false", "no", "off"},
                                            {"1", "true", "yes", "on"}};
    for (int on = 0; on < 2; on++)
        for (size_t i = 0; i < 4; i++)
            if (is_word(text, bytes, words[on][i])) {
                *ret_value = on;
                return true;
            }
    return false;
}

/* Decimal digits with an optional sign, nothing else. */
static bool parse_int(const char *text, size_t bytes, long min, long max, int *ret_value)
{
    char digits[24];
    if (bytes == 0 || bytes >= sizeof digits)
        return false;
    memcpy(digits, text, bytes);
    digits[bytes] = '\0';
    size_t first = digits[0] == '-' || digits[0] == '+' ? 1 : 0;
    if (first == bytes || strspn(digits + first, "0123456789") != bytes - first)
        return false;
    errno = 0;
    long number = strtol(digits, NULL, 10);
    if (errno != 0 || number < min || number > max)
        return false;
    *ret_value = (int)number;
    return true;
}

/* An octal file mode that the owner can read and write, nobody can execute: 0600 to 0666. */
static bool parse_mode(const char *text, size_t bytes, int *ret_value)
{
    if (bytes > 2 && text[0] == '0' && (text[1] == 'o' || text[1] == 'O')) {
        text += 2;
        bytes -= 2;
    }
    if (bytes < 3 || bytes > 6)
        return false;
    int mode = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] < '0' || text[i] > '7')
            return false;
        mode = mode * 8 + (text[i] - '0');
    }
    if ((mode & ~0666) != 0 || (mode & 0600) != 0600)
        return false;
    *ret_value = mode;
    return true;
}

/* One of two words: 0 for the first, 1 for the second. */
static bool parse_choice(const char *text, size_t bytes, const char *zero, const char *one,
                         int *ret_value)
{
    if (is_word(text, bytes, zero))
        *ret_value = 0;
    else if (is_word(text, bytes, one))
        *ret_value = 1;
    else
        return false;
    return true;
}

/* Every type but TEXT. */
static bool parse_number(size_t row, const char *value, int *ret_value)
{
    size_t bytes;
    const char *text = trimmed(value, &bytes);
    switch (field_types[row]) {
    case BOOL:
        return parse_bool(text, bytes, ret_value);
    case INT:
        return parse_int(text, bytes, pm_setting_rows[row].min, pm_setting_rows[row].max,
                         ret_value);
    case PRESET:
        return parse_choice(text, bytes, "simple", "full", ret_value);
    case REQUEST_IDS:
        return parse_choice(text, bytes, "plain", "hash", ret_value);
    case MODE:
        return parse_mode(text, bytes, ret_value);
    case TRISTATE:
        if (is_word(text, bytes, "auto")) {
            *ret_value = -1;
            return true;
        }
        return parse_bool(text, bytes, ret_value);
    case TEXT:
        break;
    }
    return false;
}

_Static_assert(PM_PRESET_SIMPLE == 0 && PM_PRESET_FULL == 1, "parse_choice counts on it");
_Static_assert(PM_REQUEST_IDS_PLAIN == 0 && PM_REQUEST_IDS_HASH == 1, "parse_choice counts on it");

/* "a whole number from 1 to 9": what a good value of this row is. */
static void describe(size_t row, char *out, size_t size)
{
    switch (field_types[row]) {
    case BOOL:
        snprintf(out, size, "0 or 1");
        break;
    case TRISTATE:
        snprintf(out, size, "auto, 0 or 1");
        break;
    case INT:
        snprintf(out, size, "a whole number from %ld to %ld", pm_setting_rows[row].min,
                 pm_setting_rows[row].max);
        break;
    case PRESET:
        snprintf(out, size, "simple or full");
        break;
    case REQUEST_IDS:
        snprintf(out, size, "plain or hash");
        break;
    case MODE:
        snprintf(out, size, "an octal file mode such as 0600, 0640 or 0666");
        break;
    case TEXT:
        snprintf(out, size, "at most %d bytes", PM_SETTING_TEXT_MAX - 1);
        break;
    }
}

static bool well_formed(size_t row, const char *value)
{
    int number;
    if (field_types[row] == TEXT)
        return strlen(value) < PM_SETTING_TEXT_MAX;
    return parse_number(row, value, &number);
}

bool pm_setting_check(const struct pm_setting_row *row, const char *value, char *expected,
                      size_t size)
{
    size_t i = (size_t)(row - pm_setting_rows);
    if (well_formed(i, value))
        return true;
    if (expected != NULL && size > 0)
        describe(i, expected, size);
    return false;
}

/* ---- the environment ---- */

/* Where values come from and complaints go. */
struct source {
    pm_settings_get_fn get;
    void *get_arg;
    pm_settings_warn_fn warn;
    void *warn_arg;
};

/* A variable's value, NULL where it is unset, empty or blank. */
static const char *look_up(const struct source *source, const char *name)
{
    const char *value = source->get != NULL ? source->get(name, source->get_arg) : getenv(name);
    size_t bytes;
    if (value == NULL)
        return NULL;
    trimmed(value, &bytes);
    return bytes > 0 ? value : NULL;
}

/* The value made safe for one line of a terminal: cut, and anything unprintable as '?'. */
static void shown(const char *value, char *out, size_t size)
{
    size_t i = 0;
    for (; value[i] != '\0' && i + 4 < size; i++)
        out[i] = (unsigned char)value[i] < 0x20 || value[i] == 0x7f ? '?' : value[i];
    const char *tail = value[i] != '\0' ? "..." : "";
    /* do not cut a UTF-8 character in two */
    while (tail[0] != '\0' && i > 0 && ((unsigned char)value[i] & 0xc0) == 0x80)
        i--;
    snprintf(out + i, size - i, "%s", tail);
}

static void complain(const struct source *source, const char *name, const char *value,
                     const char *expected, const char *used)
{
    char sentence[SENTENCE_MAX], bad[SHOWN_MAX], good[SHOWN_MAX];
    if (source->warn == NULL)
        return;
    shown(value, bad, sizeof bad);
    shown(used, good, sizeof good);
    snprintf(sentence, sizeof sentence, "%s=%s is not %s; using %s", name, bad, expected, good);
    source->warn(sentence, source->warn_arg);
}

/* Decides one row: the first name's good value, else the second's, else the default; for switches
 * an off in either wins. Warns after the decision, so that the sentence can tell the value used. */
static const char *decide(size_t row, const struct source *source)
{
    char names[2][NAME_MAX_BYTES];
    const char *values[2], *used = NULL;
    bool bad[2] = {false, false};
    bool is_switch = field_types[row] == BOOL || field_types[row] == TRISTATE;

    snprintf(names[0], sizeof names[0], VLLM_PREFIX "%s", pm_setting_rows[row].env);
    snprintf(names[1], sizeof names[1], OWN_PREFIX "%s", pm_setting_rows[row].env);
    for (size_t i = 0; i < 2; i++) {
        int number = -1;
        values[i] = look_up(source, names[i]);
        if (values[i] == NULL)
            continue;
        bad[i] = !well_formed(row, values[i]);
        if (bad[i])
            continue;
        if (is_switch)
            (void)parse_number(row, values[i], &number);
        if (used == NULL || (is_switch && number == 0))
            used = values[i];
    }
    if (used == NULL)
        used = pm_setting_rows[row].def;
    for (size_t i = 0; i < 2; i++)
        if (bad[i]) {
            char expected[128];
            describe(row, expected, sizeof expected);
            complain(source, names[i], values[i], expected, used);
        }
    return used;
}

void pm_settings_read(struct pm_settings *ret_settings, pm_settings_get_fn get, void *get_arg,
                      pm_settings_warn_fn warn, void *warn_arg)
{
    const struct source source = {get, get_arg, warn, warn_arg};
    memset(ret_settings, 0, sizeof *ret_settings);
    for (size_t row = 0; row < pm_setting_rows_count; row++) {
        char *field = (char *)ret_settings + field_offsets[row];
        const char *value = decide(row, &source);
        if (field_types[row] == TEXT) {
            snprintf(field, PM_SETTING_TEXT_MAX, "%s", value);
        } else {
            int number = 0;
            (void)parse_number(row, value, &number);
            memcpy(field, &number, sizeof number);
        }
    }
}

int pm_settings_enable(pm_settings_get_fn get, void *get_arg, pm_settings_warn_fn warn,
                       void *warn_arg)
{
    static const char *const names[2] = {"VLLM_ENABLE_PROFILING", OWN_PREFIX "ENABLE"};
    const struct source source = {get, get_arg, warn, warn_arg};
    const char *values[2];
    bool bad[2] = {false, false};
    int result = -1;

    for (size_t i = 0; i < 2; i++) {
        size_t bytes;
        int on;
        values[i] = look_up(&source, names[i]);
        if (values[i] == NULL)
            continue;
        const char *text = trimmed(values[i], &bytes);
        bad[i] = !parse_bool(text, bytes, &on);
        if (!bad[i] && result != 0)
            result = on;
    }
    for (size_t i = 0; i < 2; i++)
        if (bad[i])
            complain(&source, names[i], values[i], "0 or 1",
                     result < 0    ? "the rule for commands, as if it were unset"
                     : result == 0 ? "0"
                                   : "1");
    return result;
}

bool pm_settings_owns(const char *env_name)
{
    static const char *const others[] = {"VLLM_ENABLE_PROFILING", VLLM_PREFIX "SESSION",
                                         OWN_PREFIX "ENABLE"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (strcmp(env_name, others[i]) == 0)
            return true;

    const char *suffix;
    if (strncmp(env_name, VLLM_PREFIX, sizeof VLLM_PREFIX - 1) == 0)
        suffix = env_name + sizeof VLLM_PREFIX - 1;
    else if (strncmp(env_name, OWN_PREFIX, sizeof OWN_PREFIX - 1) == 0)
        suffix = env_name + sizeof OWN_PREFIX - 1;
    else
        return false;
    for (size_t row = 0; row < pm_setting_rows_count; row++)
        if (strcmp(suffix, pm_setting_rows[row].env) == 0)
            return true;
    return false;
}
