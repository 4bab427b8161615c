/*
 * Classes of kernels (see classes.h). One thread.
 */
#include "trace/classes.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX (1024 * 1024)

static const unsigned char builtin[] = {
#include "trace/classes.inc"
};

static const char *const known[PM_CLASS_KNOWN] = {
    [PM_CLASS_ATTENTION] = "attention",
    [PM_CLASS_GEMM] = "gemm",
    [PM_CLASS_MOE] = "moe",
    [PM_CLASS_NORM] = "norm",
    [PM_CLASS_SAMPLING] = "sampling",
    [PM_CLASS_COLLECTIVE] = "collective",
    [PM_CLASS_COPY] = "copy",
    [PM_CLASS_OTHER] = "other",
};

const char *pm_classes_builtin(size_t *ret_bytes)
{
    *ret_bytes = sizeof(builtin) - 1;
    return (const char *)builtin;
}

/* A whole file and a NUL behind it. */
static int read_file(const char *path, char **ret, size_t *ret_bytes, struct pm_error *err)
{
    size_t used = 0;
    ssize_t got = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    char *text = malloc(FILE_MAX + 1);
    if (fd >= 0 && text != NULL) {
        while (used < FILE_MAX && (got = read(fd, text + used, FILE_MAX - used)) > 0)
            used += (size_t)got;
    }
    int code = text == NULL ? -PM_ENOMEM : fd < 0 || got < 0 ? pm_error_from_errno(errno) : 0;
    if (fd >= 0)
        close(fd);
    if (code == 0 && used == FILE_MAX)
        code = -PM_ELIMIT;
    if (code != 0) {
        free(text);
        return pm_error_set(err, code, "cannot read the rules in %.300s, %s", path,
                            pm_strerror(code));
    }
    text[used] = '\0';
    *ret = text;
    *ret_bytes = used;
    return 0;
}

/* The number of the class, which is added if it is new; PM_CLASSES_MAX when there is no room. */
static unsigned find_class(struct pm_classes *classes, const char *name)
{
    for (unsigned i = 0; i < classes->n; i++)
        if (strcmp(classes->names[i], name) == 0)
            return i;
    if (classes->n == PM_CLASSES_MAX || strlen(name) >= PM_CLASS_NAME_MAX)
        return PM_CLASSES_MAX;
    size_t n = strlen(name) + 1;
    memcpy(classes->names[classes->n], name, n);
    return classes->n++;
}

static int add_rule(struct pm_classes *classes, size_t *room, unsigned class, const char *pattern)
{
    if (classes->n_rules == *room) {
        *room = *room == 0 ? 256 : *room * 2;
        struct pm_class_rule *rules = realloc(classes->rules, *room * sizeof(*rules));
        if (rules == NULL)
            return -PM_ENOMEM;
        classes->rules = rules;
    }
    classes->rules[classes->n_rules++] = (struct pm_class_rule){class, pattern};
    return 0;
}

/* The next word of the line, cut out and in lower case; NULL at its end. */
static char *next_word(char **line)
{
    char *p = *line;
    while (*p == ' ' || *p == '\t' || *p == '\r')
        p++;
    if (*p == '\0' || *p == '#')
        return NULL;
    char *word = p;
    for (; *p != '\0' && *p != ' ' && *p != '\t' && *p != '\r'; p++)
        *p = (char)tolower((unsigned char)*p);
    if (*p != '\0')
        *p++ = '\0';
    *line = p;
    return word;
}

static int add_text(struct pm_classes *classes, size_t *room, char *text, const char *path,
                    struct pm_error *err)
{
    unsigned number = 0;
    char *next = text;
    while (next != NULL) {
        char *line = next, *word;
        next = strchr(line, '\n');
        if (next != NULL)
            *next++ = '\0';
        number++;
        char *name = next_word(&line);
        if (name == NULL)
            continue;
        unsigned class = find_class(classes, name);
        if (class == PM_CLASSES_MAX)
            return pm_error_set(err, -PM_EINVALID,
                                "%.300s line %u: there is no room for the class %.60s, use at most "
                                "%d classes of at most %d letters",
                                path, number, name, PM_CLASSES_MAX, PM_CLASS_NAME_MAX - 1);
        bool any = false;
        while ((word = next_word(&line)) != NULL) {
            any = true;
            if (add_rule(classes, room, class, word) != 0)
                return pm_error_set(err, -PM_ENOMEM, "cannot keep the rules, out of memory");
        }
        if (!any)
            return pm_error_set(err, -PM_EINVALID,
                                "%.300s line %u: expected patterns after the class %.60s, as in "
                                "`gemm *gemm* cijk_*`",
                                path, number, name);
    }
    return 0;
}

int pm_classes_init(struct pm_classes *classes, const char *path, struct pm_error *err)
{
    char *own = NULL;
    size_t n_own = 0, n_builtin, room = 0;
    const char *text = pm_classes_builtin(&n_builtin);
    *classes = (struct pm_classes){0};
    for (unsigned i = 0; i < PM_CLASS_KNOWN; i++)
        memcpy(classes->names[i], known[i], strlen(known[i]) + 1);
    classes->n = PM_CLASS_KNOWN;
    int code = path != NULL ? read_file(path, &own, &n_own, err) : 0;
    if (code != 0)
        return code;
    classes->text = malloc(n_own + 1 + n_builtin + 1);
    if (classes->text == NULL) {
        code = pm_error_set(err, -PM_ENOMEM, "cannot keep the rules, out of memory");
    } else {
        char *second = classes->text + n_own + 1;
        if (n_own > 0)
            memcpy(classes->text, own, n_own);
        classes->text[n_own] = '\0';
        memcpy(second, text, n_builtin);
        second[n_builtin] = '\0';
        if (path != NULL)
            code = add_text(classes, &room, classes->text, path, err);
        if (code == 0)
            code = add_text(classes, &room, second, "the built-in rules", err);
    }
    free(own);
    if (code != 0)
        pm_classes_release(classes);
    return code;
}

void pm_classes_release(struct pm_classes *classes)
{
    free(classes->text);
    free(classes->rules);
    *classes = (struct pm_classes){0};
}

/* Shell-like: * and ?. Linear in practice: only the last star is gone back to. */
static bool fits(const char *pattern, const char *name)
{
    const char *star = NULL, *back = NULL;
    while (*name != '\0') {
        char c = (char)tolower((unsigned char)*name);
        if (*pattern == '*') {
            star = ++pattern;
            back = name;
        } else if (*pattern != '\0' && (*pattern == '?' || *pattern == c)) {
            pattern++;
            name++;
        } else if (star != NULL) {
            pattern = star;
            name = ++back;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == '\0';
}

unsigned pm_classes_find(const struct pm_classes *classes, const char *name)
{
    for (size_t i = 0; i < classes->n_rules; i++)
        if (fits(classes->rules[i].pattern, name))
            return classes->rules[i].class;
    return PM_CLASS_OTHER;
}
