/* See driver.h. Owns nothing: a library's handle is kept for as long as the process lives. */
#include "gpu/driver.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* A function of the table and its names, in order of preference. */
struct entry {
    size_t offset;
    bool needed;
    const char *cuda[2], *hip;
};

#define AT(member) offsetof(struct pm_driver, member)
/* cuEventDestroy without _v2 is of CUDA 3; of cuEventElapsedTime some libraries may have only the
 * newer one (CUDA 12.8), which takes the same arguments. */
static const struct entry entries[] = {
    {AT(event_create), true, {"cuEventCreate"}, "hipEventCreateWithFlags"},
    {AT(event_record), true, {"cuEventRecord"}, "hipEventRecord"},
    {AT(event_query), true, {"cuEventQuery"}, "hipEventQuery"},
    {AT(event_elapsed),
     true,
     {"cuEventElapsedTime", "cuEventElapsedTime_v2"},
     "hipEventElapsedTime"},
    {AT(event_destroy), true, {"cuEventDestroy_v2"}, "hipEventDestroy"},
    {AT(stream_capturing), true, {"cuStreamIsCapturing"}, "hipStreamIsCapturing"},
    {AT(current_context), true, {"cuCtxGetCurrent"}, NULL},
    {AT(current_device), true, {"cuCtxGetDevice"}, "hipGetDevice"},
    {AT(peek_error), true, {NULL}, "hipPeekAtLastError"},
    {AT(take_error), true, {NULL}, "hipGetLastError"},
    {AT(error_name), false, {"cuGetErrorName"}, NULL},
    {AT(hip_error_name), false, {NULL}, "hipGetErrorName"},
};

static void *find(void *library, const struct entry *entry, enum pm_driver_kind kind)
{
    void *found = NULL;
    if (kind == PM_DRIVER_HIP)
        return entry->hip != NULL ? dlsym(library, entry->hip) : NULL;
    for (size_t i = 0; i < 2 && found == NULL && entry->cuda[i] != NULL; i++)
        found = dlsym(library, entry->cuda[i]);
    return found;
}

static bool fill(struct pm_driver *driver, void *library, enum pm_driver_kind kind)
{
    memset(driver, 0, sizeof *driver);
    driver->kind = kind;
    driver->name = kind == PM_DRIVER_HIP ? "hip" : "cuda";
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
        const struct entry *entry = &entries[i];
        const bool has_name = kind == PM_DRIVER_HIP ? entry->hip != NULL : entry->cuda[0] != NULL;
        void *found = find(library, entry, kind);
        if (found == NULL && has_name && entry->needed)
            return false;
        memcpy((char *)driver + entry->offset, &found, sizeof found);
    }
    return true;
}

int pm_driver_where(const struct pm_driver *driver, void **ret_context, int *ret_device)
{
    void *context = NULL;
    int device = 0, result;

    if (driver->kind == PM_DRIVER_CUDA) {
        result = driver->current_context(&context);
        if (result == PM_GPU_SUCCESS && context != NULL)
            result = driver->current_device(&device);
    } else { /* one context per device */
        result = driver->current_device(&device);
        context = (void *)((uintptr_t)(unsigned)device + 1);
    }
    *ret_context = result == PM_GPU_SUCCESS ? context : NULL;
    *ret_device = device;
    return result;
}

/* Of a library that is loaded, whether this thread has a device in use. */
static bool in_use(const struct pm_driver *driver)
{
    void *context;
    int device;
    return pm_driver_where(driver, &context, &device) == PM_GPU_SUCCESS && context != NULL;
}

int pm_driver_find(struct pm_driver *ret_driver, const char *path)
{
    static const struct {
        const char *file;
        enum pm_driver_kind kind;
    } libraries[] = {
        {"libcuda.so.1", PM_DRIVER_CUDA},    {"libamdhip64.so", PM_DRIVER_HIP},
        {"libamdhip64.so.7", PM_DRIVER_HIP}, {"libamdhip64.so.6", PM_DRIVER_HIP},
        {"libamdhip64.so.5", PM_DRIVER_HIP},
    };
    struct pm_driver driver;

    if (path != NULL) {
        void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (library == NULL ||
            !(fill(&driver, library, PM_DRIVER_CUDA) || fill(&driver, library, PM_DRIVER_HIP)))
            return -PM_ENOTFOUND;
        *ret_driver = driver;
        return 0;
    }
    for (size_t i = 0; i < sizeof libraries / sizeof *libraries; i++) {
        void *library = dlopen(libraries[i].file, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
        if (library != NULL && fill(&driver, library, libraries[i].kind) && in_use(&driver)) {
            *ret_driver = driver;
            return 0;
        }
        if (library != NULL)
            dlclose(library); /* only the reference that NOLOAD added */
    }
    return -PM_ENOTFOUND;
}

bool pm_driver_clean(const struct pm_driver *driver)
{
    return driver->peek_error == NULL || driver->peek_error() == PM_GPU_SUCCESS;
}

int pm_driver_ready(const struct pm_driver *driver, void *event)
{
    const int result = driver->event_query(event);
    if (result == PM_GPU_NOT_READY && driver->take_error != NULL)
        (void)driver->take_error();
    return result;
}

void pm_driver_result_text(const struct pm_driver *driver, int result, char *out, size_t size)
{
    const char *name = NULL;
    if (driver->error_name != NULL && driver->error_name(result, &name) != PM_GPU_SUCCESS)
        name = NULL;
    if (driver->hip_error_name != NULL)
        name = driver->hip_error_name(result);
    if (name != NULL)
        snprintf(out, size, "%s (%d)", name, result);
    else
        snprintf(out, size, "error %d", result);
}
