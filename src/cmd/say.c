/*
 * How the commands speak: complaints, colours, and names that may be hostile made printable.
 */
#include "cmd/cmd.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PM_SENTENCE_MAX 4096

/* Length of a well-formed UTF-8 sequence at s that is no control character, 0 when there is none.
 * Table 3-7 of the Unicode Standard. */
static size_t printable_bytes(const unsigned char *s)
{
    if (s[0] >= 0x20 && s[0] < 0x7f)
        return 1;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    size_t need = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    for (size_t i = 1; i < need; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if (s[0] == 0xc2 && s[1] < 0xa0) /* C1 controls */
        return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    /* Marks that turn the direction of text: U+202A to U+202E, U+2066 to U+2069. */
    if (s[0] == 0xe2 && ((s[1] == 0x80 && s[2] >= 0xaa && s[2] <= 0xae) ||
                         (s[1] == 0x81 && s[2] >= 0xa6 && s[2] <= 0xa9)))
        return 0;
    return need;
}

void pm_print_clean(FILE *stream, const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    while (*s != 0) {
        size_t bytes = printable_bytes(s);
        if (bytes == 0) {
            fputc('?', stream);
            s++;
        } else {
            fwrite(s, 1, bytes, stream);
            s += bytes;
        }
    }
}

static void PM_PRINTF(1, 0) say(const char *format, va_list args)
{
    char sentence[PM_SENTENCE_MAX];
    vsnprintf(sentence, sizeof(sentence), format, args);
    fflush(stdout);
    fprintf(stderr, "%sprofilemate:%s ", pm_style(stderr, PM_RED), pm_style(stderr, PM_PLAIN));
    pm_print_clean(stderr, sentence);
    fputc('\n', stderr);
}

int pm_complain(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(format, args);
    va_end(args);
    return PM_EXIT_FAILED;
}

int pm_misuse(const char *command, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(format, args);
    va_end(args);
    if (command != NULL)
        fprintf(stderr, "See `profilemate %s --help`.\n", command);
    else
        fprintf(stderr, "See `profilemate help`.\n");
    return PM_EXIT_MISUSE;
}

int pm_finish_stdout(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return PM_EXIT_OK;
    if (errno == EPIPE)
        return PM_EXIT_FAILED;
    return pm_complain("cannot write to standard output (%s), free some space or choose another "
                       "place for it",
                       strerror(errno));
}

bool pm_colour(FILE *stream)
{
    const char *no_color = getenv("NO_COLOR");
    const char *term = getenv("TERM");
    if (no_color != NULL && no_color[0] != '\0')
        return false;
    if (term == NULL || strcmp(term, "dumb") == 0)
        return false;
    return isatty(fileno(stream)) == 1;
}

const char *pm_style(FILE *stream, enum pm_style style)
{
    static const char *const sequences[] = {
        [PM_PLAIN] = "\033[0m", [PM_BOLD] = "\033[1m",   [PM_DIM] = "\033[2m",
        [PM_RED] = "\033[31m",  [PM_GREEN] = "\033[32m", [PM_YELLOW] = "\033[33m",
    };
    return pm_colour(stream) ? sequences[style] : "";
}

/* Edit distance in which swapping two neighbours counts as one (optimal string alignment). Words
 * longer than the ceiling are as far as can be. */
#define PM_WORD_MAX 64
static size_t distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    if (n > PM_WORD_MAX || m > PM_WORD_MAX)
        return SIZE_MAX;
    size_t rows[3][PM_WORD_MAX + 1];
    for (size_t j = 0; j <= m; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *two_above = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
            if (above[j] + 1 < best)
                best = above[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                two_above[j - 2] + 1 < best)
                best = two_above[j - 2] + 1;
            row[j] = best;
        }
    }
    return rows[n % 3][m];
}

const char *pm_nearest(const char *typed, const char *(*words)(size_t i, void *arg), void *arg)
{
    size_t limit = (strlen(typed) + 2) / 3;
    if (limit > 3)
        limit = 3;
    const char *best = NULL, *word;
    for (size_t i = 0; (word = words(i, arg)) != NULL; i++) {
        size_t far = distance(typed, word);
        if (far <= limit) {
            best = word;
            if (far == 0)
                break;
            limit = far - 1;
        }
    }
    return best;
}
