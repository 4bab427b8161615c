/*
 * The ceiling of a session, shared by its processes: records/budget holds the bytes of all segments
 * allocated in the session, mapped by every process and changed by atomic additions. Helper side.
 *
 * What a process had allocated stays counted after its death: the bytes are on the disk. A file
 * that cannot be had only makes the ceiling one of this process alone. Cutting the file short while
 * servers run would make their next access fail with SIGBUS; it lies in a directory of mode 0700.
 */
#include "recorder/internal.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

void pm_rec_budget_open(struct pm_recorder *rec, int records_fd)
{
    rec->budget = &rec->own_budget;
    int fd = openat(records_fd, "budget", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    void *page;
    struct stat st;
    if (fd < 0)
        return;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        goto out;
    /* Allocated on disk before it is mapped, and only by the last byte, which is 0 in every number
     * of bytes that a disk can hold: another process may have counted already. */
    if (st.st_size < (off_t)sizeof(uint64_t) &&
        pm_rec_file_extend(fd, sizeof(uint64_t) - 1, 1) != 0)
        goto out;
    page = mmap(NULL, sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        goto out;
    (void)madvise(page, sizeof(uint64_t), MADV_DONTFORK);
    rec->budget = page;
out:
    close(fd);
}

void pm_rec_budget_close(struct pm_recorder *rec)
{
    if (rec->budget != NULL && rec->budget != &rec->own_budget)
        munmap(rec->budget, sizeof(uint64_t));
    rec->budget = NULL;
}

/* Whether 5 % of the file system stay free after so many more bytes. */
static bool leaves_room(int fd, uint64_t bytes)
{
    struct statvfs fs;
    if (fstatvfs(fd, &fs) != 0 || fs.f_blocks == 0) /* tmpfs without a size says 0 */
        return true;
    uint64_t block = fs.f_frsize != 0 ? fs.f_frsize : fs.f_bsize;
    uint64_t need = (bytes + block - 1) / block + fs.f_blocks / 20;
    return fs.f_bavail >= need;
}

int pm_rec_budget_claim(struct pm_recorder *rec, uint64_t bytes, bool exempt)
{
    if (exempt) {
        atomic_fetch_add_explicit(rec->budget, bytes, memory_order_relaxed);
        return 0;
    }
    uint64_t used = atomic_load_explicit(rec->budget, memory_order_relaxed);
    do {
        if (used >= rec->ceiling_bytes || rec->ceiling_bytes - used < bytes)
            return -PM_ELIMIT;
    } while (!atomic_compare_exchange_weak_explicit(rec->budget, &used, used + bytes,
                                                    memory_order_relaxed, memory_order_relaxed));
    if (!leaves_room(rec->fd, bytes)) {
        pm_rec_budget_return(rec, bytes);
        return -PM_ENOSPACE;
    }
    return 0;
}

void pm_rec_budget_return(struct pm_recorder *rec, uint64_t bytes)
{
    atomic_fetch_sub_explicit(rec->budget, bytes, memory_order_relaxed);
}
