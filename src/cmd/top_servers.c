/* The servers that `profilemate top` follows: found, kept, forgotten (see top.h). */
#include "cmd/top.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "cmd/cmd.h"
#include "cmd/place.h"
#include "session/attrs.h"

#define LOOK_NS 2000000000ull    /* the host is looked through this often */
#define FORGET_NS 60000000000ull /* one that has ended is shown for so long */

const struct pm_live_view *pm_top_view(const struct pm_top *top)
{
    return top->selected < top->n_servers ? pm_live_view(top->servers[top->selected].live) : NULL;
}

static bool known(const struct pm_top *top, dev_t device, ino_t inode)
{
    for (size_t i = 0; i < top->n_servers; i++)
        if (top->servers[i].inode == inode && top->servers[i].device == device)
            return true;
    return false;
}

int pm_top_add(struct pm_top *top, const char *path, bool pinned, struct pm_error *err)
{
    struct pm_live *live;
    struct stat st;
    if (stat(path, &st) != 0)
        return pm_error_set(err, -PM_ENOTFOUND, "%s: is not there", path);
    if (known(top, st.st_dev, st.st_ino))
        return 0;
    if (top->n_servers == PM_TOP_SERVERS)
        return pm_error_set(err, -PM_ELIMIT, "more than %d servers", PM_TOP_SERVERS);
    int rc = pm_live_open(&live, path, top->at_ns, err);
    if (rc != 0)
        return rc;
    struct pm_top_server *server = &top->servers[top->n_servers++];
    *server = (struct pm_top_server){
        .live = live, .device = st.st_dev, .inode = st.st_ino, .pinned = pinned};
    snprintf(server->path, sizeof(server->path), "%s", path);
    return 0;
}

static void forget(struct pm_top *top, size_t i)
{
    pm_live_close(top->servers[i].live);
    memmove(&top->servers[i], &top->servers[i + 1],
            (top->n_servers - i - 1) * sizeof(top->servers[0]));
    top->n_servers--;
    if (top->selected > i || (top->selected == i && top->selected == top->n_servers))
        top->selected -= top->selected > 0;
}

/* Whether a server serves what the one that has ended served. */
static bool succeeds(const struct pm_live_view *now, const struct pm_live_view *before)
{
    const char *a = pm_session_attr(now->session, PM_ATTR_MODEL);
    const char *b = pm_session_attr(before->session, PM_ATTR_MODEL);
    return now->running && now->info->start_real_ns > before->info->start_real_ns &&
           (a == NULL || b == NULL || strcmp(a, b) == 0);
}

/* The server shown has ended, and another one like it runs. */
static void follow_restart(struct pm_top *top)
{
    const struct pm_live_view *shown = pm_top_view(top);
    if (!top->follow || shown == NULL || shown->running)
        return;
    for (size_t i = 0; i < top->n_servers; i++) {
        const struct pm_live_view *view = pm_live_view(top->servers[i].live);
        if (i == top->selected || !succeeds(view, shown))
            continue;
        const size_t old = top->selected;
        snprintf(top->note, sizeof(top->note), "The server was started again: %.100s",
                 view->info->name);
        top->selected = i;
        forget(top, old);
        return;
    }
}

/* Adds one that was come by; where that fails it is tried again with the next look. */
static void add_quietly(struct pm_top *top, const char *path)
{
    if (pm_top_add(top, path, false, NULL) != 0)
        return;
}

/* Sessions of the folders in which sessions go, of which a process runs. */
static void look_in_places(struct pm_top *top, const char *dir)
{
    struct pm_place *places;
    size_t count;
    if (pm_places(dir, &places, &count) != 0)
        return;
    for (size_t i = 0; i < count; i++)
        if (!known(top, places[i].device, places[i].inode) && pm_live_runs(places[i].path))
            add_quietly(top, places[i].path);
    free(places);
}

/* Those that processes of this host have open, wherever they lie. */
static void look_at_host(struct pm_top *top)
{
    const struct pm_found *found;
    size_t count;
    if (top->discover == NULL && pm_discover_open(&top->discover) != 0)
        return;
    if (pm_discover_round(top->discover, &found, &count) != 0)
        return;
    for (size_t i = 0; i < count; i++)
        if (!known(top, found[i].device, found[i].inode))
            add_quietly(top, found[i].path);
}

void pm_top_look(struct pm_top *top)
{
    const uint64_t now_ns = pm_clock_vdso_ns();
    const struct pm_live_view *shown = pm_top_view(top);
    const bool orphan = shown != NULL && !shown->running && top->follow;
    if (!top->all && !orphan)
        return;
    if (top->looked_ns != 0 && now_ns - top->looked_ns < LOOK_NS)
        return;
    top->looked_ns = now_ns;
    if (top->all) {
        look_in_places(top, top->dir);
        if (top->dir == NULL)
            look_at_host(top);
    } else { /* the next one of the same server is born beside it */
        char beside[4096];
        snprintf(beside, sizeof(beside), "%s", shown->info->path);
        char *slash = strrchr(beside, '/');
        if (slash != NULL && slash > beside)
            *slash = '\0';
        look_in_places(top, beside);
    }
    follow_restart(top);
    while (!top->all && top->n_servers > 1) /* one was asked for */
        forget(top, top->selected == 0 ? top->n_servers - 1 : 0);
}

void pm_top_refresh(struct pm_top *top)
{
    const uint64_t now_ns = pm_clock_vdso_ns();
    for (size_t i = 0; i < top->n_servers;) {
        struct pm_top_server *server = &top->servers[i];
        const bool gone = pm_live_refresh(server->live, top->at_ns, NULL) != 0;
        const bool running = !gone && pm_live_view(server->live)->running;
        if (running)
            server->ended_at_ns = 0;
        else if (server->ended_at_ns == 0)
            server->ended_at_ns = now_ns;
        if (gone || (!running && !server->pinned && i != top->selected &&
                     now_ns - server->ended_at_ns > FORGET_NS)) {
            forget(top, i);
            continue;
        }
        i++;
    }
}

/* ---- which server a person means ---- */

static bool all_digits(const char *text)
{
    return text[0] != '\0' && text[strspn(text, "0123456789")] == '\0' && strlen(text) < 10;
}

static int add_pid(struct pm_top *top, const char *meant)
{
    struct pm_found found;
    struct pm_error err = {""};
    const int rc = pm_discover_pid((uint32_t)strtoul(meant, NULL, 10), &found);
    if (rc == -PM_EPERMISSION)
        return pm_complain(
            "process %s may not be looked at, it is another user's, try as that user "
            "or as root",
            meant);
    if (rc != 0)
        return pm_complain("no process %s records a session, nor one below it, see `profilemate "
                           "sessions` for those that are there",
                           meant);
    return pm_top_add(top, found.path, true, &err) == 0 ? PM_EXIT_OK : pm_complain("%s", err.text);
}

int pm_top_choose(struct pm_top *top, const char *dir, const char *meant)
{
    struct pm_place place;
    struct pm_error err = {""};
    top->dir = dir;
    top->follow = true;
    if (meant == NULL) {
        top->all = true;
        pm_top_look(top);
        return PM_EXIT_OK;
    }
    if (all_digits(meant))
        return add_pid(top, meant);
    if (pm_place_resolve(dir, meant, &place, &err) != 0 ||
        pm_top_add(top, place.path, true, &err) != 0)
        return pm_complain("%s", err.text);
    return PM_EXIT_OK;
}

void pm_top_release(struct pm_top *top)
{
    for (size_t i = 0; i < top->n_servers; i++)
        pm_live_close(top->servers[i].live);
    pm_discover_close(top->discover);
}
