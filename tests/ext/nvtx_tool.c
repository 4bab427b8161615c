/*
 * A tool for NVTX ranges, as the tests' stand-in for Nsight Systems: a library that
 * NVTX_INJECTION64_PATH names. Writes a line per call into the file that NVTX_TOOL_LOG names:
 * "domain NAME", "push DOMAIN COLOR PAYLOAD LABEL", "pop DOMAIN", with the thread in front.
 * NVTX_TOOL_MODE: "refuse" (the initialisation fails), "core" (only functions without a domain are
 * taken), "none" (nothing is taken).
 *
 * Written from NVTX's documents alone: it shares no line with src/gpu/nvtx.c.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef void (*slot)(void);

struct callbacks_table {
    size_t bytes;
    int (*module)(uint32_t number, slot ***table, uint32_t *count);
};

struct event {
    uint16_t version, bytes;
    uint32_t category;
    int32_t color_kind;
    uint32_t color;
    int32_t payload_kind, unused;
    uint64_t payload;
    int32_t message_kind;
    const char *message;
};

static void say(const char *line)
{
    const char *path = getenv("NVTX_TOOL_LOG");
    FILE *log = path != NULL ? fopen(path, "a") : NULL;
    if (log == NULL)
        return;
    fprintf(log, "%ld %s\n", (long)syscall(SYS_gettid), line);
    fclose(log);
}

static void *domain_create(const char *name)
{
    static char names[4][64];
    static int n;
    char line[96];
    char *own = names[n++ % 4];
    snprintf(own, sizeof(names[0]), "%s", name);
    snprintf(line, sizeof(line), "domain %s", own);
    say(line);
    return own;
}

static int domain_push(void *domain, const struct event *event)
{
    char line[512];
    if (event->version != 3 || event->bytes != 48 || event->color_kind != 1 ||
        event->payload_kind != 1 || event->message_kind != 1)
        say("odd attributes");
    snprintf(line, sizeof(line), "push %s %08x %llu %s", (const char *)domain, event->color,
             (unsigned long long)event->payload, event->message);
    say(line);
    return 0;
}

static int domain_pop(void *domain)
{
    char line[96];
    snprintf(line, sizeof(line), "pop %s", (const char *)domain);
    say(line);
    return 0;
}

static int push(const char *message)
{
    char line[512];
    snprintf(line, sizeof(line), "push - - - %s", message);
    say(line);
    return 0;
}

static int pop(void)
{
    say("pop -");
    return 0;
}

__attribute__((visibility("default"))) int
InitializeInjectionNvtx2(const void *(*export_table)(uint32_t number));

int InitializeInjectionNvtx2(const void *(*export_table)(uint32_t number))
{
    const char *mode = getenv("NVTX_TOOL_MODE");
    const struct callbacks_table *callbacks = export_table(1);
    slot **table;
    uint32_t count;
    if (mode == NULL)
        mode = "";
    if (callbacks == NULL || callbacks->bytes < sizeof(*callbacks) || export_table(77) != NULL)
        return 0;
    if (strcmp(mode, "refuse") == 0)
        return 0;
    if (strcmp(mode, "none") == 0)
        return 1;
    if (!callbacks->module(1, &table, &count) || count < 12)
        return 0;
    *table[9] = (slot)push;
    *table[11] = (slot)pop;
    if (strcmp(mode, "core") == 0)
        return 1;
    for (uint32_t number = 2; number <= 6; number++) /* of all modules there is a table */
        if (!callbacks->module(number, &table, &count) || table[1] == NULL)
            return 0;
    if (callbacks->module(0, &table, &count) || !callbacks->module(5, &table, &count) ||
        count != 16)
        return 0;
    *table[4] = (slot)domain_push;
    *table[5] = (slot)domain_pop;
    *table[12] = (slot)domain_create;
    return 1;
}
