/*
 * NVTX by injection (nvtx.h). Owns the tables that the tool fills in, for as long as the process
 * lives: a tool's library is never unloaded.
 */
#include "gpu/nvtx.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERSION 3

/* Export tables, by their number. */
enum { TABLE_CALLBACKS = 1, TABLE_VERSION = 3 };

/* Modules, and how many functions each has, the unused first one included. */
enum { MODULE_CORE = 1, MODULE_CORE2 = 5, MODULES = 7, SLOTS = 16 };
static const unsigned module_slots[MODULES] = {0, 16, 9, 15, 7, 16, 7};

/* Functions of the modules CORE and CORE2. */
enum { CORE_RANGE_PUSH_A = 9, CORE_RANGE_POP = 11 };
enum { CORE2_RANGE_PUSH_EX = 4, CORE2_RANGE_POP = 5, CORE2_DOMAIN_CREATE_A = 12 };

/* What a range is told by, version 3. */
struct attributes {
    uint16_t version, size;
    uint32_t category;
    int32_t color_type;
    uint32_t color;
    int32_t payload_type, reserved;
    uint64_t payload;
    int32_t message_type;
    const char *message;
};
_Static_assert(sizeof(struct attributes) == 48, "as the tools expect it");
enum { COLOR_ARGB = 1, PAYLOAD_UNSIGNED_64 = 1, MESSAGE_ASCII = 1 };

typedef void (*function)(void);
typedef void *(*domain_create_fn)(const char *name);
typedef int (*push_ex_fn)(void *domain, const struct attributes *attributes);
typedef int (*domain_pop_fn)(void *domain);
typedef int (*push_a_fn)(const char *message);
typedef int (*pop_fn)(void);

struct callbacks {
    size_t struct_size;
    int (*get_module_table)(unsigned module, function ***ret_table, unsigned *ret_size);
};

struct version {
    size_t struct_size;
    uint32_t version, reserved;
    void (*set_injection_version)(uint32_t version);
};

static struct {
    bool tried;
    char why[512]; /* "": a tool is open */
    function functions[MODULES][SLOTS];
    function *slots[MODULES][SLOTS + 1]; /* pointers to them, NULL at both ends */
    void *domain;
    push_ex_fn push_ex;
    domain_pop_fn pop_ex;
    push_a_fn push_a;
    pop_fn pop;
} nvtx;

static int get_module_table(unsigned module, function ***ret_table, unsigned *ret_size)
{
    if (module == 0 || module >= MODULES)
        return 0;
    for (unsigned i = 1; i < module_slots[module]; i++)
        nvtx.slots[module][i] = &nvtx.functions[module][i];
    if (ret_size)
        *ret_size = module_slots[module];
    if (ret_table)
        *ret_table = nvtx.slots[module];
    return 1;
}

static void set_injection_version(uint32_t version)
{
    (void)version;
}

static const void *get_export_table(uint32_t number)
{
    static const struct callbacks callbacks = {sizeof callbacks, get_module_table};
    static const struct version version = {sizeof version, VERSION, 0, set_injection_version};
    return number == TABLE_CALLBACKS ? (const void *)&callbacks
           : number == TABLE_VERSION ? (const void *)&version
                                     : NULL;
}

bool pm_nvtx_wanted(void)
{
    const char *path = getenv(PM_NVTX_PATH);
    return path && path[0];
}

/* What the tool has put there. */
static bool take_functions(void)
{
    const domain_create_fn create =
        (domain_create_fn)nvtx.functions[MODULE_CORE2][CORE2_DOMAIN_CREATE_A];
    nvtx.push_ex = (push_ex_fn)nvtx.functions[MODULE_CORE2][CORE2_RANGE_PUSH_EX];
    nvtx.pop_ex = (domain_pop_fn)nvtx.functions[MODULE_CORE2][CORE2_RANGE_POP];
    nvtx.push_a = (push_a_fn)nvtx.functions[MODULE_CORE][CORE_RANGE_PUSH_A];
    nvtx.pop = (pop_fn)nvtx.functions[MODULE_CORE][CORE_RANGE_POP];
    if (create && nvtx.push_ex && nvtx.pop_ex)
        nvtx.domain = create("ProfileMate");
    return nvtx.domain || (nvtx.push_a && nvtx.pop);
}

static void open_tool(void)
{
    typedef int (*initialize_fn)(const void *(*get_export_table)(uint32_t));
    const char *path = getenv(PM_NVTX_PATH);
    if (!path || !path[0]) {
        snprintf(nvtx.why, sizeof nvtx.why, "no tool is attached (%s is not set)", PM_NVTX_PATH);
        return;
    }
    void *library = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
    if (!library) {
        const char *said = dlerror();
        snprintf(nvtx.why, sizeof nvtx.why, "the tool's library cannot be loaded: %.400s",
                 said ? said : path);
        return;
    }
    initialize_fn initialize;
    *(void **)&initialize = dlsym(library, "InitializeInjectionNvtx2");
    if (!initialize)
        snprintf(nvtx.why, sizeof nvtx.why, "%.400s has no InitializeInjectionNvtx2", path);
    else if (!initialize(get_export_table))
        snprintf(nvtx.why, sizeof nvtx.why, "%.400s refused", path);
    else if (!take_functions())
        snprintf(nvtx.why, sizeof nvtx.why, "%.400s takes no ranges", path);
}

bool pm_nvtx_open(char *why, size_t size)
{
    if (!nvtx.tried) {
        nvtx.tried = true;
        open_tool();
    }
    snprintf(why, size, "%s", nvtx.why);
    return nvtx.why[0] == '\0';
}

void pm_nvtx_push(const char *label, uint32_t argb, uint64_t payload)
{
    if (nvtx.domain) {
        const struct attributes attributes = {
            .version = VERSION,
            .size = sizeof attributes,
            .color_type = COLOR_ARGB,
            .color = argb,
            .payload_type = PAYLOAD_UNSIGNED_64,
            .payload = payload,
            .message_type = MESSAGE_ASCII,
            .message = label,
        };
        (void)nvtx.push_ex(nvtx.domain, &attributes);
    } else if (nvtx.push_a) {
        (void)nvtx.push_a(label);
    }
}

void pm_nvtx_pop(void)
{
    if (nvtx.domain)
        (void)nvtx.pop_ex(nvtx.domain);
    else if (nvtx.pop)
        (void)nvtx.pop();
}
