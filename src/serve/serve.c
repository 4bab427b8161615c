/* The sessions that `serve` tells of, and what they are called (serve.h). */
#include "serve/serve.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"

void pm_serve_refresh(struct pm_serve *serve, uint64_t at_most_ns)
{
    const uint64_t now_ns = pm_clock_vdso_ns();
    if (serve->refreshed_ns != 0 && now_ns - serve->refreshed_ns < at_most_ns)
        return;
    serve->source.refresh(serve->source.arg);
    serve->refreshed_ns = now_ns;
    if (serve->refreshed != NULL)
        serve->refreshed(serve->refreshed_arg, serve);
}

size_t pm_serve_count(const struct pm_serve *serve)
{
    return serve->source.count(serve->source.arg);
}

const struct pm_live *pm_serve_at(const struct pm_serve *serve, size_t i)
{
    return serve->source.at(serve->source.arg, i);
}

/* FNV-1a (http://www.isthe.com/chongo/tech/comp/fnv/). */
static uint32_t digest(const char *text)
{
    uint32_t hash = 2166136261u;
    for (; *text != '\0'; text++)
        hash = (hash ^ (unsigned char)*text) * 16777619u;
    return hash;
}

void pm_serve_id(const struct pm_serve *serve, size_t i, char *out, size_t size)
{
    const struct pm_session_info *info = pm_live_view(pm_serve_at(serve, i))->info;
    for (size_t n = 0; n < i; n++)
        if (strcmp(pm_live_view(pm_serve_at(serve, n))->info->name, info->name) == 0) {
            snprintf(out, size, "%.200s.%08x", info->name, digest(info->path));
            return;
        }
    snprintf(out, size, "%.200s", info->name);
}

bool pm_serve_find(const struct pm_serve *serve, const char *id, size_t *ret_i)
{
    char ours[256];
    for (size_t i = 0; i < pm_serve_count(serve); i++) {
        pm_serve_id(serve, i, ours, sizeof(ours));
        if (strcmp(ours, id) == 0) {
            *ret_i = i;
            return true;
        }
    }
    return false;
}
