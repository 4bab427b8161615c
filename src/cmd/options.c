/*
 * The parser of the commands' options. See options.h for what it accepts.
 */
#include "cmd/options.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct pm_settings) > 0, "settings.def has rows");

/* One option as found by name: either an own one or a row of the settings. */
struct found {
    const struct pm_option *option;
    const struct pm_setting_row *row;
    const char **row_value;
    bool negated; /* --no-NAME of a setting */
};

static bool is_bool(const struct pm_setting_row *row)
{
    return strcmp(row->type, "BOOL") == 0;
}

static bool find(const struct pm_usage *usage, const char *name, size_t bytes, struct found *ret)
{
    struct found found = {0};
    for (size_t i = 0; i < usage->n_options; i++)
        if (strlen(usage->options[i].name) == bytes &&
            memcmp(usage->options[i].name, name, bytes) == 0) {
            found.option = &usage->options[i];
            *ret = found;
            return true;
        }
    for (size_t i = 0; i < pm_setting_rows_count; i++) {
        const struct pm_setting_row *row = &pm_setting_rows[i];
        if (usage->settings != NULL)
            found.row_value = &usage->settings->value[i];
        else if (usage->setting != NULL && strcmp(usage->setting, row->option) == 0)
            found.row_value = usage->setting_value;
        else
            continue;
        size_t skip = is_bool(row) && bytes > 3 && memcmp(name, "no-", 3) == 0 &&
                              strlen(row->option) == bytes - 3
                          ? 3
                          : 0;
        if (strlen(row->option) == bytes - skip &&
            memcmp(row->option, name + skip, bytes - skip) == 0) {
            found.row = row;
            found.negated = skip != 0;
            *ret = found;
            return true;
        }
    }
    return false;
}

/* The i-th long name of a command's options, for suggestions. */
static const char *option_name(size_t i, void *arg)
{
    const struct pm_usage *usage = arg;
    if (i == 0)
        return "help";
    i--;
    if (i < usage->n_options)
        return usage->options[i].name;
    i -= usage->n_options;
    if (usage->settings != NULL)
        return i < pm_setting_rows_count ? pm_setting_rows[i].option : NULL;
    return i == 0 ? usage->setting : NULL;
}

static int unknown(const struct pm_usage *usage, const char *word)
{
    char name[128];
    size_t bytes = strcspn(word + 2, "=");
    if (word[1] == '-' && bytes < sizeof(name)) {
        memcpy(name, word + 2, bytes);
        name[bytes] = '\0';
        union {
            const struct pm_usage *in;
            void *out;
        } arg = {.in = usage};
        const char *near = pm_nearest(name, option_name, arg.out);
        if (near != NULL)
            return pm_misuse(usage->command, "%s has no option --%s, did you mean --%s?",
                             usage->command, name, near);
    }
    return pm_misuse(usage->command, "%s has no option %.200s", usage->command, word);
}

static bool take(const struct pm_usage *usage, const struct found *found, const char *value)
{
    if (found->row != NULL) {
        char expected[256];
        if (!pm_setting_check(found->row, value, expected, sizeof(expected))) {
            pm_misuse(usage->command, "--%s=%.200s is not valid, give %s", found->row->option,
                      value, expected);
            return false;
        }
        *found->row_value = value;
        return true;
    }
    const struct pm_option *option = found->option;
    if (option->kind == PM_OPTION_TEXT) {
        *(const char **)option->dest = value;
        return true;
    }
    if (option->kind == PM_OPTION_MORE) {
        struct pm_option_words *words = option->dest;
        if (words->n == PM_OPTION_WORDS_MAX) {
            pm_misuse(usage->command, "--%s more than %d times", option->name, PM_OPTION_WORDS_MAX);
            return false;
        }
        words->at[words->n++] = value;
        return true;
    }
    char *end;
    errno = 0;
    long number = strtol(value, &end, 10);
    if (value[0] < '0' || value[0] > '9' || *end != '\0' || errno != 0) {
        pm_misuse(usage->command, "--%s=%.200s is not valid, give a whole number", option->name,
                  value);
        return false;
    }
    *(long *)option->dest = number;
    return true;
}

/* One long option at argv[*i]; may take the next word as its value. */
static bool parse_long(const struct pm_usage *usage, int argc, char **argv, int *i)
{
    const char *name = argv[*i] + 2;
    size_t bytes = strcspn(name, "=");
    const char *value = name[bytes] == '=' ? name + bytes + 1 : NULL;
    struct found found;
    if (!find(usage, name, bytes, &found)) {
        unknown(usage, argv[*i]);
        return false;
    }
    bool flag = found.option != NULL ? found.option->kind == PM_OPTION_FLAG : is_bool(found.row);
    if (flag && value != NULL && (found.option != NULL || found.negated)) {
        pm_misuse(usage->command, "--%.*s takes no value", (int)bytes, name);
        return false;
    }
    if (flag && found.option != NULL) {
        *(bool *)found.option->dest = true;
        return true;
    }
    if (flag && value == NULL) {
        *found.row_value = found.negated ? "0" : "1";
        return true;
    }
    if (value == NULL) {
        if (*i + 1 >= argc || strcmp(argv[*i + 1], "--") == 0) {
            pm_misuse(usage->command, "--%s needs a value, give --%s=%s", name, name,
                      found.option != NULL ? found.option->metavar : found.row->metavar);
            return false;
        }
        value = argv[++*i];
    }
    return take(usage, &found, value);
}

/* A word of short options; may take the next word as a value. 0 fine, 1 help, -1 misuse. */
static int parse_short(const struct pm_usage *usage, int argc, char **argv, int *i)
{
    for (const char *letter = argv[*i] + 1; *letter != '\0'; letter++) {
        if (*letter == 'h')
            return 1;
        struct found found = {0};
        for (size_t k = 0; k < usage->n_options; k++)
            if (usage->options[k].letter == *letter)
                found.option = &usage->options[k];
        if (found.option == NULL) {
            pm_misuse(usage->command, "%s has no option -%c", usage->command, *letter);
            return -1;
        }
        if (found.option->kind == PM_OPTION_FLAG) {
            *(bool *)found.option->dest = true;
            continue;
        }
        const char *value = letter + 1;
        if (*value == '\0') {
            if (*i + 1 >= argc || strcmp(argv[*i + 1], "--") == 0) {
                pm_misuse(usage->command, "-%c needs a value, give -%c %s", *letter, *letter,
                          found.option->metavar);
                return -1;
            }
            value = argv[++*i];
        }
        return take(usage, &found, value) ? 0 : -1;
    }
    return 0;
}

/* Moves argv[from] to argv[to], to <= from, keeping the order of the rest. */
static void move(char **argv, int from, int to)
{
    char *word = argv[from];
    memmove(&argv[to + 1], &argv[to], (size_t)(from - to) * sizeof(argv[0]));
    argv[to] = word;
}

enum pm_parsed pm_options_parse(const struct pm_usage *usage, int argc, char **argv, int *ret_first,
                                int *ret_dashes)
{
    int first = 1; /* options and their values so far end here, operands begin */
    int i = 1, dashes = argc;
    while (i < argc) {
        const char *word = argv[i];
        if (strcmp(word, "--") == 0) {
            move(argv, i, first++);
            dashes = i + 1;
            break;
        }
        if (word[0] != '-' || word[1] == '\0') {
            if (usage->stop_at_operand)
                break;
            i++;
            continue;
        }
        int begin = i, done;
        if (strcmp(word, "--help") == 0)
            done = 1;
        else if (word[1] == '-')
            done = parse_long(usage, argc, argv, &i) ? 0 : -1;
        else
            done = parse_short(usage, argc, argv, &i);
        if (done < 0)
            return PM_PARSED_MISUSE;
        if (done > 0) {
            pm_usage_print(usage);
            return PM_PARSED_HELP;
        }
        for (i++; begin < i; begin++)
            move(argv, begin, first++);
    }
    size_t operands = (size_t)(argc - first);
    if (operands < usage->min_operands) {
        pm_misuse(usage->command, "%s needs %s", usage->command, usage->synopsis[0]);
        return PM_PARSED_MISUSE;
    }
    if (operands > usage->max_operands) {
        pm_misuse(usage->command, "%s does not know what to do with %.200s", usage->command,
                  argv[first + (int)usage->max_operands]);
        return PM_PARSED_MISUSE;
    }
    *ret_first = first;
    if (ret_dashes != NULL)
        *ret_dashes = dashes;
    return PM_PARSED_OK;
}

static void print_option(char letter, const char *name, const char *value, const char *doc)
{
    char left[96];
    if (letter != 0)
        snprintf(left, sizeof(left), "-%c, --%s%s%s", letter, name, value[0] != '\0' ? "=" : "",
                 value);
    else
        snprintf(left, sizeof(left), "    --%s%s%s", name, value[0] != '\0' ? "=" : "", value);
    if (strlen(left) > 34)
        printf("  %s\n%38s%s\n", left, "", doc);
    else
        printf("  %-34s  %s\n", left, doc);
}

static void print_setting(const struct pm_setting_row *row)
{
    char doc[512];
    const char *none = row->def[0] == '\0' ? "none" : row->def;
    if (is_bool(row)) {
        char name[96];
        snprintf(name, sizeof(name), "[no-]%s", row->option);
        snprintf(doc, sizeof(doc), "%s (default: %s)", row->doc,
                 strcmp(row->def, "1") == 0 ? "on" : "off");
        print_option(0, name, "", doc);
    } else {
        snprintf(doc, sizeof(doc), "%s (default: %s)", row->doc, none);
        print_option(0, row->option, row->metavar, doc);
    }
}

static void heading(const char *text)
{
    printf("\n%s%s%s\n", pm_style(stdout, PM_BOLD), text, pm_style(stdout, PM_PLAIN));
}

void pm_usage_print(const struct pm_usage *usage)
{
    for (size_t i = 0; usage->synopsis[i] != NULL; i++)
        printf("%s profilemate %s %s\n", i == 0 ? "usage:" : "      ", usage->command,
               usage->synopsis[i]);
    printf("\n%s\n", usage->intro);
    heading("Options");
    for (size_t i = 0; i < usage->n_options; i++)
        print_option(usage->options[i].letter, usage->options[i].name, usage->options[i].metavar,
                     usage->options[i].doc);
    for (size_t i = 0; i < pm_setting_rows_count && usage->settings == NULL; i++)
        if (usage->setting != NULL && strcmp(usage->setting, pm_setting_rows[i].option) == 0)
            print_setting(&pm_setting_rows[i]);
    print_option('h', "help", "", "show this");
    if (usage->settings != NULL) {
        heading("Settings, each also an environment variable (see profilemate-run(1))");
        for (size_t i = 0; i < pm_setting_rows_count; i++)
            print_setting(&pm_setting_rows[i]);
    }
    if (usage->examples != NULL) {
        heading("Examples");
        for (size_t i = 0; usage->examples[i] != NULL; i += 2)
            printf("  %s\n      %s\n", usage->examples[i], usage->examples[i + 1]);
    }
    if (usage->outro != NULL)
        printf("\n%s\n", usage->outro);
}
