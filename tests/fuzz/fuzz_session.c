/*
 * libFuzzer target: the input is a record file of a session; everything of it is read and shown.
 *
 *   cmake -S . -B build/fuzz -G Ninja -DCMAKE_C_COMPILER=clang -DPM_SANITIZE=address,undefined \
 *         -DPM_FUZZ=ON && cmake --build build/fuzz --target fuzz_session
 *   build/fuzz/tests/fuzz_session -max_total_time=60 -max_len=140000 CORPUS     (any .pmrec files)
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devour.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[256];

static void remove_folder(void)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/records/p1-0.pmrec", folder);
    unlink(path);
    snprintf(path, sizeof(path), "%s/records", folder);
    rmdir(path);
    snprintf(path, sizeof(path), "%s/session", folder);
    unlink(path);
    rmdir(folder);
}

static void make_folder(void)
{
    static const char text[] = "start_mono_ns 1000000000\nstart_real_ns 1795422301000000000\n";
    char path[512];
    const char *base = getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp";

    snprintf(folder, sizeof(folder), "%s/pmfuzz-XXXXXX", base);
    if (mkdtemp(folder) == NULL || atexit(remove_folder) != 0)
        abort();
    snprintf(path, sizeof(path), "%s/records", folder);
    if (mkdir(path, 0700) != 0)
        abort();
    snprintf(path, sizeof(path), "%s/session", folder);
    FILE *file = fopen(path, "w");
    if (file == NULL || fputs(text, file) < 0 || fclose(file) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pm_session *session;
    struct devoured eaten = {0};
    struct pm_error err = {""};
    char path[512];

    if (folder[0] == '\0')
        make_folder();
    snprintf(path, sizeof(path), "%s/records/p1-0.pmrec", folder);
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    close(fd);
    if (pm_session_open(&session, folder, &err) != 0)
        abort(); /* the folder is sound */
    if (devour_reader(session, &eaten) != 0 || devour_views(session) != 0)
        abort(); /* damage is noted, never a failure */
    /* The same through a window, where there is anything to see in it. */
    const struct pm_span span = {
        .by_steps = true, .to_ns = UINT64_MAX, .from_step = 1, .to_step = 5};
    if (pm_session_see(session, &span) == 0 && devour_views(session) != 0)
        abort();
    pm_session_close(session);
    return 0;
}
