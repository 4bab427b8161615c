/*
 * Masking of command lines (see mask.h). Pure, no state.
 *
 * The line is read once from left to right. An argument is a flag if it looks like one to argparse
 * and has a plausible name; the value slots that a flag opens are kept or masked by mask.def; what
 * fills no slot is the program's own: the script, the subcommand, the model of `serve`, or masked.
 */
#include "base/mask.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define VALUE_MAX 256
#define FLAG_MAX 64
#define MASK "***"
#define CUT " ..."

/* ---- text out ---- */

struct line {
    char *out;
    size_t size, used;
    bool cut;
};

/* Adds one argument made of two pieces, or cuts the line there. */
static void put(struct line *line, const char *head, size_t head_bytes, const char *tail)
{
    size_t gap = line->used > 0 ? 1 : 0, tail_bytes = strlen(tail);
    if (line->cut)
        return;
    if (line->used + gap + head_bytes + tail_bytes + sizeof CUT > line->size) {
        line->cut = true;
        memcpy(line->out + line->used, CUT, sizeof CUT - 1);
        line->used += sizeof CUT - 1;
        return;
    }
    if (gap > 0)
        line->out[line->used] = ' ';
    memcpy(line->out + line->used + gap, head, head_bytes);
    memcpy(line->out + line->used + gap + head_bytes, tail, tail_bytes);
    line->used += gap + head_bytes + tail_bytes;
}

/* A URL that may carry a secret: user and password, a query, a fragment. */
static bool has_secret_url(const char *value)
{
    const char *rest = strstr(value, "://");
    return rest != NULL && strpbrk(rest, "@?#") != NULL;
}

static bool may_show(const char *value)
{
    size_t bytes = strlen(value);
    if (bytes > VALUE_MAX || has_secret_url(value))
        return false;
    for (size_t i = 0; i < bytes; i++)
        if ((unsigned char)value[i] < 0x20 || value[i] == 0x7f)
            return false;
    return true;
}

/* A value as the shell would need it to be written. */
static const char *quoted(const char *value, char out[4 * VALUE_MAX + 3])
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                                "_-+=./:,@%";
    if (value[0] != '\0' && value[strspn(value, plain)] == '\0')
        return value;
    size_t used = 0;
    out[used++] = '\'';
    for (; *value != '\0'; value++) {
        if (*value == '\'') {
            memcpy(out + used, "'\\''", 4);
            used += 4;
        } else {
            out[used++] = *value;
        }
    }
    out[used++] = '\'';
    out[used] = '\0';
    return out;
}

/* Adds a value, kept or masked; head is what it is joined to ("--port="). */
static void put_value(struct line *line, const char *head, size_t head_bytes, const char *value,
                      bool keep)
{
    char text[4 * VALUE_MAX + 3];
    put(line, head, head_bytes, keep && may_show(value) ? quoted(value, text) : MASK);
}

/* ---- flags ---- */

/* How many values a flag takes that may be kept: 0, 1, 2 for any number; -1 for an unknown flag. */
static int known_values(const char *name, size_t bytes)
{
    static const struct {
        const char *name;
        int values;
    } flags[] = {
#define X(name, values) {name, values},
#include "base/mask.def"
#undef X
    };
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        const char *known = flags[i].name;
        size_t j = 0;
        while (j < bytes && known[j] != '\0' &&
               (name[j] == known[j] || (name[j] == '_' && known[j] == '-')))
            j++;
        if (j == bytes && known[j] == '\0')
            return flags[i].values;
    }
    return -1;
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Whether arg is a flag, with the length of its name without dashes and of the dashes. "-5" is a
 * value; so is a dash with anything that is no name. */
static bool is_flag(const char *arg, size_t *ret_dashes, size_t *ret_name)
{
    size_t dashes = arg[0] != '-' ? 0 : arg[1] == '-' ? 2 : 1, name = 0;
    if (dashes == 0 || !is_letter(arg[dashes]))
        return false;
    while (is_letter(arg[dashes + name]) ||
           (arg[dashes + name] >= '0' && arg[dashes + name] <= '9') || arg[dashes + name] == '-' ||
           arg[dashes + name] == '_' || arg[dashes + name] == '.')
        name++;
    if (name > FLAG_MAX || (arg[dashes + name] != '\0' && arg[dashes + name] != '='))
        return false;
    *ret_dashes = dashes;
    *ret_name = name;
    return true;
}

/* ---- the program's own words ---- */

/* What stands at the head of a line, before the program's own arguments. */
struct program {
    size_t words; /* arguments read so far */
    bool is_vllm; /* vLLM's command: subcommands follow */
};

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

static bool is_vllm_module(const char *module)
{
    return strcmp(module, "vllm") == 0 || strncmp(module, "vllm.entrypoints.cli", 20) == 0;
}

/* The interpreter's options up to its script or module: none of them is secret but -c's text. */
static struct program read_interpreter(size_t argc, const char *const *argv, struct line *line)
{
    struct program program = {.words = 1};
    const char *name = base_name(argv[0]);
    if (strncmp(name, "python", 6) != 0 && strncmp(name, "pypy", 4) != 0) {
        program.is_vllm = strcmp(name, "vllm") == 0;
        return program;
    }
    while (program.words < argc) {
        const char *arg = argv[program.words++];
        bool has_next = program.words < argc;
        if (arg[0] != '-' || arg[1] == '\0') {
            put_value(line, "", 0, arg, true);
            program.is_vllm = strcmp(base_name(arg), "vllm") == 0;
            break;
        }
        if (strcmp(arg, "-m") == 0) {
            put(line, arg, 2, "");
            if (has_next) {
                put_value(line, "", 0, argv[program.words], true);
                program.is_vllm = is_vllm_module(argv[program.words++]);
            }
            break;
        }
        if (strcmp(arg, "-X") == 0 || strcmp(arg, "-W") == 0) {
            put(line, arg, 2, "");
            if (has_next)
                put_value(line, "", 0, argv[program.words++], true);
            continue;
        }
        const char *text = strchr(arg, 'c');
        if (arg[1] != '-' && arg[1] != 'X' && arg[1] != 'W' && text != NULL) {
            /* -c or -Ic, with the text joined to it or after it */
            put(line, arg, (size_t)(text - arg) + 1, text[1] != '\0' ? MASK : "");
            if (text[1] == '\0' && has_next) {
                put(line, MASK, sizeof MASK - 1, "");
                program.words++;
            }
            break;
        }
        put(line, arg, strcspn(arg, "="), "");
        if (strcmp(arg, "--check-hash-based-pycs") == 0 && has_next)
            put_value(line, "", 0, argv[program.words++], true);
    }
    return program;
}

/* vLLM's own words: its subcommand, and the model after `serve`. */
enum expect { EXPECT_NOTHING, EXPECT_COMMAND, EXPECT_BENCH, EXPECT_MODEL };

/* Whether a word that is no flag and no value may be kept, and what may follow. */
static bool keep_word(const char *word, enum expect *expect)
{
    static const char *const commands[] = {"serve",    "run-batch",   "chat",
                                           "complete", "collect-env", "launch"};
    static const char *const benches[] = {"latency", "throughput", "serve", "startup", "sweep"};
    enum expect at = *expect;
    *expect = EXPECT_NOTHING;
    if (at == EXPECT_MODEL)
        return true;
    if (at == EXPECT_BENCH)
        for (size_t i = 0; i < sizeof benches / sizeof benches[0]; i++)
            if (strcmp(word, benches[i]) == 0)
                return true;
    if (at != EXPECT_COMMAND)
        return false;
    if (strcmp(word, "bench") == 0) {
        *expect = EXPECT_BENCH;
        return true;
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(word, commands[i]) == 0) {
            if (strcmp(word, "serve") == 0)
                *expect = EXPECT_MODEL;
            return true;
        }
    return false;
}

size_t pm_mask_command(size_t argc, const char *const *argv, char *out, size_t size)
{
    struct line line = {.out = out, .size = size};
    /* values that the last flag still takes: 0 none, 1 one, 2 any number, and whether to keep them;
     * an unknown flag takes any number, all masked */
    int slots = 0;
    bool keep = false, flags_ended = false;

    if (argc > 0) {
        put_value(&line, "", 0, argv[0], true);
        struct program program = read_interpreter(argc, argv, &line);
        enum expect expect = program.is_vllm ? EXPECT_COMMAND : EXPECT_NOTHING;
        for (size_t i = program.words; i < argc; i++) {
            const char *arg = argv[i];
            size_t dashes, name;
            if (strcmp(arg, "--") == 0) {
                put(&line, arg, 2, "");
                flags_ended = true;
                slots = 0;
            } else if (!flags_ended && is_flag(arg, &dashes, &name)) {
                int values = known_values(arg + dashes, name);
                bool joined = arg[dashes + name] == '=';
                /* "-O.mode" names a part of "-O" */
                size_t stem = 0;
                while (stem < name && arg[dashes + stem] != '.')
                    stem++;
                if (dashes == 1 && name > 3 && known_values(arg + dashes, stem) < 0) {
                    /* a short flag with its value joined to it, or a value that looks like one */
                    put(&line, arg, 2, MASK);
                    slots = 0;
                    continue;
                }
                if (joined)
                    put_value(&line, arg, dashes + name + 1, arg + dashes + name + 1, values > 0);
                else
                    put(&line, arg, dashes + name, "");
                slots = joined ? 0 : values < 0 ? 2 : values;
                keep = values > 0;
            } else if (slots > 0) {
                put_value(&line, "", 0, arg, keep);
                slots = slots == 1 ? 0 : slots;
            } else {
                put_value(&line, "", 0, arg, keep_word(arg, &expect));
            }
        }
    }
    out[line.used] = '\0';
    return line.used;
}
