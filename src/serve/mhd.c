/* libmicrohttpd's functions by their names (mhd.h). */
#ifdef PM_HAVE_MHD
#include "serve/mhd.h"

#include <dlfcn.h>
#include <string.h>

/* The sonames whose functions are those of the header: 12 has been it since 0.9.60. */
static const char *const names[] = {"libmicrohttpd.so.12"};

static void *open_library(void)
{
    void *library = NULL;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && library == NULL; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    return library;
}

int pm_mhd_load(struct pm_mhd *ret_mhd, struct pm_error *err)
{
    struct pm_mhd mhd;
    void *library = open_library();

    if (library == NULL)
        return pm_error_set(err, -PM_EUNSUPPORTED,
                            "`serve` needs libmicrohttpd, which is not installed here, install it "
                            "(Debian and Ubuntu: libmicrohttpd12)");
#define X(name)                                                                                    \
    {                                                                                              \
        void *found = dlsym(library, "MHD_" #name);                                                \
        if (found == NULL)                                                                         \
            return pm_error_set(err, -PM_EUNSUPPORTED,                                             \
                                "libmicrohttpd has no MHD_" #name ", install release 0.9.60 or "   \
                                "newer");                                                          \
        memcpy(&mhd.name, &found, sizeof(found));                                                  \
    }
#include "serve/mhd.def"
    *ret_mhd = mhd;
    return 0;
}
#else
typedef int pm_mhd_is_absent; /* a file of C has something in it */
#endif
