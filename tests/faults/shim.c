/* Injects faults into a process that writes files. Load it with LD_PRELOAD.
 *
 * It counts every call that changes a file under one folder. It can let the Nth call and those after it fail, or kill
 * the process there. It can also write each call with its bytes to a journal. From the journal, power.py makes the
 * state of the disk after a power loss, in which changes that were not synced are lost or survive in part.
 *
 * A journal record is the line "WHAT INODE OFFSET LENGTH NAME\n", then LENGTH bytes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OFF, FAIL, KILL, TEAR };
enum { OPENS = 1, WRITES = 2, SYNCS = 4, TRUNCATES = 8, NAMES = 16 };

static char folder[4096];
static int mode, failure, kinds, journal = -1;
static long at, times, count;
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

void fault_arm(const char *where, int what, long nth, long how_often, int error, int which) {
    pthread_mutex_lock(&lock);
    snprintf(folder, sizeof folder, "%s/", where);
    mode = what, at = nth, times = how_often, failure = error, kinds = which, count = 0;
    pthread_mutex_unlock(&lock);
}

long fault_disarm(void) {
    mode = OFF;
    return count;
}

int fault_journal(const char *where, const char *path) {
    snprintf(folder, sizeof folder, "%s/", where);
    journal = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    return journal;
}

/* Return whether a path, or the file of a descriptor, is in the folder; if so, `path` holds its path. */
static int ours(const char *path) { return folder[0] && path && !strncmp(path, folder, strlen(folder)); }

static int ours_fd(int fd, char *path, size_t size) {
    char link[64];
    if (!folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 2);
    if (length < 0) return 0;
    path[length] = '/', path[length + 1] = 0; /* the folder itself counts too */
    if (!ours(path)) return 0;
    path[length] = 0;
    return 1;
}

static void record(char what, int fd, long long offset, const void *data, size_t length, const char *name) {
    struct stat found = {0};
    char head[8300];
    if (journal < 0) return;
    if (fd >= 0) fstat(fd, &found);
    else lstat(name, &found);
    int size = snprintf(head, sizeof head, "%c %lu %lld %zu %s\n", what, found.st_ino, offset, length, name);
    char *all = malloc(size + length);
    memcpy(all, head, size);
    if (length) memcpy(all + size, data, length);
    syscall(SYS_write, journal, all, size + length);
    free(all);
}

/* Add an acknowledgement of the program to the journal. */
void fault_note(const char *text) {
    pthread_mutex_lock(&lock);
    record('A', -1, 0, text, strlen(text), ".");
    pthread_mutex_unlock(&lock);
}

/* Count a call before it is made. Return 0 to make it, 1 to let it fail, 2 to write half of it and die. */
static int inject(int kind) {
    if (mode == OFF || !(kinds & kind)) return 0;
    count++;
    if (mode == FAIL && count >= at && count < at + times) {
        errno = failure;
        return 1;
    }
    if (mode != TEAR || count != at) return 0;
    if (kind != WRITES) kill(getpid(), SIGKILL);
    return 2;
}

static void kill_if_due(int kind) {
    if (mode == KILL && (kinds & kind) && count == at) kill(getpid(), SIGKILL);
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define BEGIN pthread_mutex_lock(&lock)
#define END pthread_mutex_unlock(&lock)

static ssize_t on_write(int fd, const void *data, size_t length, long long offset) {
    char path[4200];
    int known = ours_fd(fd, path, sizeof path);
    ssize_t done;
    if (!known)
        return offset < 0 ? syscall(SYS_write, fd, data, length) : syscall(SYS_pwrite64, fd, data, length, offset);
    BEGIN;
    int fate = inject(WRITES);
    if (fate == 1) {
        END;
        return -1;
    }
    if (fate == 2) length /= 2;
    long long place = offset < 0 ? lseek(fd, 0, SEEK_CUR) : offset;
    if (offset < 0 && fcntl(fd, F_GETFL) & O_APPEND) place = lseek(fd, 0, SEEK_END);
    done = offset < 0 ? syscall(SYS_write, fd, data, length) : syscall(SYS_pwrite64, fd, data, length, offset);
    if (done > 0) record('W', fd, place, data, done, path);
    if (fate == 2) kill(getpid(), SIGKILL);
    kill_if_due(WRITES);
    END;
    return done;
}

ssize_t write(int fd, const void *data, size_t length) { return on_write(fd, data, length, -1); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return on_write(fd, data, length, offset); }
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) { return on_write(fd, data, length, offset); }

static int on_fd(int fd, int kind, char what, long long size, int (*call)(int, long long)) {
    char path[4200];
    if (!ours_fd(fd, path, sizeof path)) return call(fd, size);
    BEGIN;
    if (inject(kind)) {
        END;
        return -1;
    }
    int done = call(fd, size);
    if (!done) record(what, fd, size, NULL, 0, path);
    kill_if_due(kind);
    END;
    return done;
}

static int call_fsync(int fd, long long size) { (void)size; return syscall(SYS_fsync, fd); }
static int call_fdatasync(int fd, long long size) { (void)size; return syscall(SYS_fdatasync, fd); }
static int call_ftruncate(int fd, long long size) { return syscall(SYS_ftruncate, fd, size); }
int fsync(int fd) { return on_fd(fd, SYNCS, 'S', 0, call_fsync); }
int fdatasync(int fd) { return on_fd(fd, SYNCS, 'S', 0, call_fdatasync); }
int ftruncate(int fd, off_t size) { return on_fd(fd, TRUNCATES, 'T', size, call_ftruncate); }
int ftruncate64(int fd, off64_t size) { return on_fd(fd, TRUNCATES, 'T', size, call_ftruncate); }

static int on_open(int where, const char *path, int flags, mode_t permissions) {
    if (!ours(path)) return syscall(SYS_openat, where, path, flags, permissions);
    BEGIN;
    if (inject(OPENS)) {
        END;
        return -1;
    }
    struct stat found;
    int fresh = flags & O_CREAT && lstat(path, &found);
    int fd = syscall(SYS_openat, where, path, flags, permissions);
    if (fd >= 0 && fresh) record('C', fd, 0, NULL, 0, path);
    if (fd >= 0 && !fresh && flags & O_TRUNC) record('T', fd, 0, NULL, 0, path);
    if (fd >= 0) kill_if_due(OPENS);
    END;
    return fd;
}

#define WITH_MODE                                                                                                      \
    mode_t permissions = 0;                                                                                            \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                                               \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        permissions = va_arg(more, mode_t);                                                                            \
        va_end(more);                                                                                                  \
    }
int open(const char *path, int flags, ...) { WITH_MODE return on_open(AT_FDCWD, path, flags, permissions); }
int open64(const char *path, int flags, ...) { WITH_MODE return on_open(AT_FDCWD, path, flags, permissions); }
int openat(int where, const char *path, int flags, ...) { WITH_MODE return on_open(where, path, flags, permissions); }
int openat64(int where, const char *path, int flags, ...) { WITH_MODE return on_open(where, path, flags, permissions); }

int unlink(const char *path) {
    REAL(unlink);
    if (!ours(path)) return real(path);
    BEGIN;
    if (inject(NAMES)) {
        END;
        return -1;
    }
    int done = real(path);
    if (!done) record('U', -1, 0, NULL, 0, path);
    kill_if_due(NAMES);
    END;
    return done;
}

int rename(const char *from, const char *to) {
    REAL(rename);
    if (!ours(to)) return real(from, to);
    BEGIN;
    if (inject(NAMES)) {
        END;
        return -1;
    }
    int done = real(from, to);
    if (!done) record('R', -1, 0, from, strlen(from), to);
    kill_if_due(NAMES);
    END;
    return done;
}
