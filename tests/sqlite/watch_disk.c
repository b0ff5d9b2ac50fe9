/* Loaded before the C library: notes what is written to a store's files, cut from them and synced.
 *
 * The file named by SAYIIR_DISK_LOG gets one record for each call, in order: a line
 * `KIND NAME OFFSET SIZE MICROSECONDS`, and for a write its bytes and a line feed. Kinds: `w` a
 * write, `t` a truncation to OFFSET, `s` a sync, `d` a deletion. The calls themselves are not changed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static void note(const char *path, char kind, long long offset, const void *data, size_t size)
{
    static int log_fd = -1;
    const char *name = strrchr(path, '/');
    char line[512];
    struct timespec now;
    struct iovec parts[3];
    int count;

    name = name == NULL ? path : name + 1;
    if (strstr(name, ".db") == NULL || strstr(name, "-shm") != NULL)
        return;
    if (log_fd < 0) {
        const char *where = getenv("SAYIIR_DISK_LOG");
        if (where == NULL)
            return;
        log_fd = open(where, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (log_fd < 0)
            abort();
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    count = snprintf(line, sizeof line, "%c %s %lld %zu %lld\n", kind, name, offset, size,
                     (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
    parts[0].iov_base = line;
    parts[0].iov_len = (size_t)count;
    parts[1].iov_base = (void *)data;
    parts[1].iov_len = size;
    parts[2].iov_base = "\n";
    parts[2].iov_len = 1;
    if (writev(log_fd, parts, kind == 'w' ? 3 : 1) < 0)
        abort();
}

static void note_fd(int fd, char kind, long long offset, const void *data, size_t size)
{
    char link[64], path[4096];
    ssize_t length;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return;
    path[length] = '\0';
    note(path, kind, offset, data, size);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    ssize_t done;

    if (real == NULL)
        real = (ssize_t(*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    done = real(fd, data, size, offset);
    if (done > 0)
        note_fd(fd, 'w', (long long)offset, data, (size_t)done);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return pwrite64(fd, data, size, (off64_t)offset);
}

int ftruncate64(int fd, off64_t size)
{
    int (*real)(int, off64_t) = (int (*)(int, off64_t))dlsym(RTLD_NEXT, "ftruncate64");
    int done = real(fd, size);

    if (done == 0)
        note_fd(fd, 't', (long long)size, "", 0);
    return done;
}

int ftruncate(int fd, off_t size)
{
    return ftruncate64(fd, (off64_t)size);
}

int unlink(const char *path)
{
    int (*real)(const char *) = (int (*)(const char *))dlsym(RTLD_NEXT, "unlink");
    int done = real(path);

    if (done == 0)
        note(path, 'd', 0, "", 0);
    return done;
}

static int synced(int fd, const char *name)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int done = real(fd);

    if (done == 0)
        note_fd(fd, 's', 0, "", 0);
    return done;
}

int fsync(int fd)
{
    return synced(fd, "fsync");
}

int fdatasync(int fd)
{
    return synced(fd, "fdatasync");
}
