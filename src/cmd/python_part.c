/*
 * The seam between the program and the Python package: which interpreter, what it is given, and the
 * sentence where it, the package or what the package needs is not there. Called by the commands
 * that are done in Python; does not come back when it works.
 */
#include "cmd/python_part.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/cmd.h"

/* argv: module, what was asked for, what it needs, what pip installs for that, words… */
static const char script[] =
    "import importlib, sys\n"
    "sys.path = [p for p in sys.path if p]\n"
    "module, asked, needed, pip = sys.argv[1:5]\n"
    "exe = sys.executable\n"
    "try:\n"
    "    main = importlib.import_module(module).main\n"
    "except ModuleNotFoundError as error:\n"
    "    if (error.name or '').split('.')[0] == 'profilemate':\n"
    "        remedy = f'install it there, or give the --python EXE that has it ({error})'\n"
    "    else:\n"
    "        remedy = f'run: {exe} -m pip install {pip}'\n"
    "    needed = f' with {needed}' if needed else ''\n"
    "    sys.exit(f'profilemate: {asked} needs the Python package profilemate{needed} in {exe}, "
    "{remedy}')\n"
    "except ImportError as error:\n"
    "    sys.exit(f'profilemate: the Python package profilemate does not work in {exe}: {error}')\n"
    "sys.exit(main(sys.argv[5:]))\n";

/* The interpreter of the environment that this program was installed into, "" where there is none.
 */
static void beside(char *out, size_t size)
{
    char exe[PATH_MAX];
    const ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    out[0] = '\0';
    if (n <= 0)
        return;
    exe[n] = '\0';
    char *slash = strrchr(exe, '/');
    if (slash == NULL)
        return;
    *slash = '\0';
    const int used = snprintf(out, size, "%s/python3", exe);
    if (used < 0 || (size_t)used >= size || access(out, X_OK) != 0)
        out[0] = '\0';
}

int pm_python_part(const struct pm_python_part *part, const char *const *words, size_t n_words)
{
    char found[PATH_MAX + 16];
    const char *with = part->with != NULL ? part->with : "";

    if (n_words > PM_PYTHON_WORDS_MAX)
        return pm_complain("%s: more than %d words", part->asked, PM_PYTHON_WORDS_MAX);
    beside(found, sizeof(found));
    const char *python = part->python != NULL ? part->python : found[0] != '\0' ? found : "python3";
    const char *const head[] = {python,
                                "-c",
                                script,
                                part->module,
                                part->asked,
                                with,
                                part->pip != NULL ? part->pip : with};
    const size_t n_head = sizeof(head) / sizeof(head[0]);
    char **argv = calloc(n_head + n_words + 1, sizeof(*argv));
    if (argv == NULL)
        return pm_complain("%s", pm_strerror(-PM_ENOMEM));
    int code = 0;
    for (size_t i = 0; i < n_head + n_words && code == 0; i++) {
        argv[i] = strdup(i < n_head ? head[i] : words[i - n_head]);
        if (argv[i] == NULL)
            code = pm_complain("%s", pm_strerror(-PM_ENOMEM));
    }
    if (code == 0) {
        execvp(python, argv);
        code = pm_complain("%s is done by Python, which cannot be started as %s (%s), give "
                           "--python EXE",
                           part->asked, python, strerror(errno));
    }
    for (size_t i = 0; i < n_head + n_words; i++)
        free(argv[i]);
    free(argv);
    return code;
}
