/* See members.h. */
#include "probe/members.h"

#include <stdlib.h>
#include <string.h>

static uint32_t hash_of(const PyObject *key, uint32_t mask)
{
    uint64_t bits = (uint64_t)(uintptr_t)key >> 4;
    return (uint32_t)((bits * 0x9e3779b97f4a7c15ull) >> 32) & mask;
}

static void index_put(struct pm_members *members, uint32_t slot)
{
    uint32_t mask = members->capacity * 2 - 1;
    uint32_t at = hash_of(members->slots[slot].key, mask);
    while (members->index[at] != 0)
        at = (at + 1) & mask;
    members->index[at] = slot + 1;
}

static void index_rebuild(struct pm_members *members)
{
    memset(members->index, 0, sizeof *members->index * members->capacity * 2);
    for (uint32_t slot = 0; slot < members->n_slots; slot++) {
        if (members->slots[slot].key != NULL)
            index_put(members, slot);
    }
}

static bool grow(struct pm_members *members)
{
    uint32_t capacity = members->capacity == 0 ? 256 : members->capacity * 2;
    if (capacity > PM_MEMBERS_MAX)
        return false;
    uint32_t *index = malloc(sizeof *index * capacity * 2);
    if (index == NULL)
        return false;
    struct pm_member *slots = realloc(members->slots, sizeof *slots * capacity);
    if (slots == NULL) {
        free(index);
        return false;
    }
    members->slots = slots;
    if (members->with_lives) {
        struct pm_life *lives = realloc(members->lives, sizeof *lives * capacity);
        if (lives == NULL) {
            free(index);
            return false;
        }
        members->lives = lives;
    }
    memset(slots + members->capacity, 0, sizeof *slots * (capacity - members->capacity));
    free(members->index);
    members->index = index;
    members->capacity = capacity;
    index_rebuild(members);
    return true;
}

void pm_members_clear(struct pm_members *members)
{
    for (uint32_t slot = 0; slot < members->n_slots; slot++)
        Py_XDECREF(members->slots[slot].key);
    free(members->slots);
    free(members->lives);
    free(members->index);
    free(members->order);
    free(members->next_order);
    free(members->keys);
    memset(members, 0, sizeof *members);
}

struct pm_member *pm_members_find(const struct pm_members *members, const PyObject *key)
{
    if (members->capacity == 0)
        return NULL;
    uint32_t mask = members->capacity * 2 - 1;
    for (uint32_t at = hash_of(key, mask); members->index[at] != 0; at = (at + 1) & mask) {
        struct pm_member *member = &members->slots[members->index[at] - 1];
        if (member->key == key)
            return member;
    }
    return NULL;
}

struct pm_member *pm_members_add(struct pm_members *members, PyObject *key)
{
    uint32_t slot;
    if (members->free_head != 0) {
        slot = members->free_head - 1;
        members->free_head = members->slots[slot].string;
    } else {
        if (members->n_slots == members->capacity && !grow(members))
            return NULL;
        slot = members->n_slots++;
    }
    struct pm_member *member = &members->slots[slot];
    memset(member, 0, sizeof *member);
    member->key = Py_NewRef(key);
    if (members->lives != NULL)
        memset(&members->lives[slot], 0, sizeof *members->lives);
    index_put(members, slot);
    return member;
}

void pm_members_remove(struct pm_members *members, struct pm_member *member)
{
    PyObject *key = member->key;
    uint32_t mask = members->capacity * 2 - 1;
    uint32_t slot = (uint32_t)(member - members->slots);
    uint32_t at = hash_of(key, mask);
    while (members->index[at] != slot + 1)
        at = (at + 1) & mask;

    /* Close the gap: move back every entry of the run that could no longer be reached past it. */
    for (uint32_t hole = at;;) {
        at = (at + 1) & mask;
        if (members->index[at] == 0) {
            members->index[hole] = 0;
            break;
        }
        uint32_t home = hash_of(members->slots[members->index[at] - 1].key, mask);
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            members->index[hole] = members->index[at];
            hole = at;
        }
    }
    member->key = NULL;
    member->string = members->free_head;
    members->free_head = slot + 1;
    Py_DECREF(key);
}

bool pm_members_reserve_order(struct pm_members *members, uint32_t n)
{
    if (n <= members->order_room)
        return true;
    uint32_t room = (n + 1023) / 1024 * 1024;
    uint32_t *order = realloc(members->order, sizeof *order * room);
    if (order == NULL)
        return false;
    members->order = order;
    uint32_t *next = realloc(members->next_order, sizeof *next * room);
    if (next == NULL)
        return false;
    members->next_order = next;
    PyObject **keys = realloc(members->keys, sizeof *keys * room);
    if (keys == NULL)
        return false;
    members->keys = keys;
    members->order_room = room;
    return true;
}
