/* The spool: records of a session on a network file system lie on a local disk and come home. The
 * seam pm_birth_is_remote says which folder is the network. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>

#include "birth_world.h"
#include "torture.h"

static struct pm_birth birth;
static char path[PATH_MAX], spool[PATH_MAX];
static bool made, fallback;
static char places[2][PATH_MAX];

/* Everything below <world>/net is remote. */
static bool below_net(int dir_fd)
{
    char link[64], target[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", dir_fd);
    ssize_t n = readlink(link, target, sizeof target - 1);
    if (n < 0)
        return false;
    target[n] = '\0';
    return strncmp(target, at("net"), strlen(at("net"))) == 0;
}

static int begin(void **state)
{
    if (world_begin(state) != 0)
        return -1;
    pm_birth_reserve(&birth);
    pm_birth_is_remote = below_net;
    snprintf(places[0], PATH_MAX, "%s", at("first"));
    snprintf(places[1], PATH_MAX, "%s", at("second"));
    pm_birth_spool_places[0] = places[0];
    pm_birth_spool_places[1] = places[1];
    return mkdir(at("net"), 0755) | mkdir(at("first"), 0755) | mkdir(at("second"), 0755);
}

static int directory(void)
{
    return pm_birth_directory(&birth, at("net/base"), path, sizeof path, &made, &fallback, NULL);
}

static void born(void)
{
    assert_int_equal(directory(), 0);
    assert_false(fallback);
    assert_int_equal(pm_birth_records_dir(path, spool, sizeof spool), 0);
}

/* A record file, with the bytes of an ended process's. */
static void make_record(const char *name, size_t bytes)
{
    static const uint64_t magic = PM_FILE_MAGIC;
    static char data[700000];
    assert_true(bytes <= sizeof data);
    for (size_t i = 0; i < bytes; i++)
        data[i] = (char)(i * 7);
    memcpy(data, &magic, sizeof magic);
    write_file(in(spool, name), data, bytes);
}

static void lies_locally(void **state)
{
    (void)state;
    char root[64];
    struct pm_birth_file file;
    born();
    snprintf(root, sizeof root, "first/profilemate-spool-%u", (unsigned)geteuid());
    char hex[PM_BIRTH_HEX], want[PATH_MAX];
    pm_birth_token_hex(birth.token, hex);
    assert_true(snprintf(want, sizeof want, "%s/%s-%.8s", at(root), birth.name, hex) > 0);
    assert_string_equal(spool, want);
    assert_int_equal(mode_of(at(root)), 0700);
    assert_int_equal(mode_of(spool), 0700);
    assert_int_equal(mode_of(in(spool, "budget")), 0600);
    assert_true(exists(in(path, "records/budget")));
    assert_int_equal(pm_birth_read(path, &file), 0);
    assert_string_equal(file.spool, spool);
    /* another process of the same machine */
    assert_int_equal(directory(), 0);
    assert_false(made);
    /* and one of another, which has no such spool yet */
    assert_int_equal(unlink(in(spool, "budget")), 0);
    assert_int_equal(rmdir(spool), 0);
    char home[PATH_MAX];
    assert_int_equal(pm_birth_records_dir(path, home, sizeof home), 0);
    assert_string_equal(home, in(path, "records"));
    assert_int_equal(directory(), 0);
    assert_true(exists(in(spool, "budget")));
}

static void stays_local(void **state)
{
    (void)state;
    assert_int_equal(
        pm_birth_directory(&birth, at("base"), path, sizeof path, &made, &fallback, NULL), 0);
    assert_int_equal(pm_birth_records_dir(path, spool, sizeof spool), 0);
    assert_string_equal(spool, in(path, "records"));
    unsigned left = 7;
    assert_int_equal(pm_birth_unspool(path, &left, NULL), 0);
    assert_int_equal(left, 0);
}

static void other_places(void **state)
{
    (void)state;
    char root[64];
    /* something planted in the first place: the second is taken */
    snprintf(root, sizeof root, "first/profilemate-spool-%u", (unsigned)geteuid());
    assert_int_equal(mkdir(at("elsewhere"), 0700), 0);
    assert_int_equal(symlink(at("elsewhere"), at(root)), 0);
    born();
    assert_memory_equal(spool, places[1], strlen(places[1]));
    assert_int_equal(count_entries(at("elsewhere"), ""), 2);
    if (geteuid() == 0) {
        assert_int_equal(unlink(at(root)), 0);
        assert_int_equal(mkdir(at(root), 0700), 0);
        assert_int_equal(chown(at(root), STRANGER, STRANGER), 0);
        pm_birth_reserve(&birth);
        born();
        assert_memory_equal(spool, places[1], strlen(places[1]));
        assert_int_equal(count_entries(at(root), ""), 2);
    }
    /* no place at all: better on the network than nowhere */
    snprintf(places[1], PATH_MAX, "%s", at("net"));
    pm_birth_reserve(&birth);
    born();
    assert_string_equal(spool, in(path, "records"));
    /* our own, but open to others: closed again */
    snprintf(places[0], PATH_MAX, "%s", at("third"));
    assert_int_equal(mkdir(at("third"), 0755), 0);
    snprintf(root, sizeof root, "third/profilemate-spool-%u", (unsigned)geteuid());
    assert_int_equal(mkdir(at(root), 0777), 0);
    assert_int_equal(chmod(at(root), 0777), 0);
    pm_birth_reserve(&birth);
    born();
    assert_memory_equal(spool, places[0], strlen(places[0]));
    assert_int_equal(mode_of(at(root)), 0700);
}

static void comes_home(void **state)
{
    (void)state;
    struct pm_error err;
    unsigned left = 9;
    static char bytes[700000];
    born();
    make_record("p1-00000001.pmrec", 600001);
    make_record("p2-00000002.pmrec", 8);
    make_record("p2-00000002.pmfun", 300); /* its table of functions */
    assert_int_equal(chmod(in(spool, "p2-00000002.pmrec"), 0640), 0);
    write_file(in(spool, "note.txt"), "x", 1); /* none of ours */
    assert_int_equal(symlink("/etc/passwd", in(spool, ".p3.pmrec")), 0);
    /* a repeat after a crash between rename and unlink: home already, overwritten whole */
    write_file(in(path, "records/p2-00000002.pmrec"), "old", 3);
    assert_int_equal(pm_birth_unspool(path, &left, &err), 0);
    assert_int_equal(left, 0);
    assert_int_equal(read_file(in(path, "records/p1-00000001.pmrec"), bytes, sizeof bytes), 600001);
    for (size_t i = 8; i < 600001; i++)
        assert_true(bytes[i] == (char)(i * 7));
    assert_int_equal(read_file(in(path, "records/p2-00000002.pmrec"), bytes, sizeof bytes), 8);
    assert_int_equal(mode_of(in(path, "records/p2-00000002.pmrec")), 0640);
    assert_int_equal(read_file(in(path, "records/p2-00000002.pmfun"), bytes, sizeof bytes), 300);
    assert_int_equal(count_entries(in(path, "records"), "."), 2);
    assert_int_equal(count_entries(spool, "p"), 0);
    assert_true(exists(in(spool, "note.txt")));
    assert_int_equal(pm_birth_unspool(path, &left, &err), 0);
    assert_int_equal(unlink(in(spool, "note.txt")), 0);
    assert_int_equal(unlink(in(spool, ".p3.pmrec")), 0);
    assert_int_equal(pm_birth_unspool(path, &left, &err), 0);
    assert_false(exists(spool)); /* empty: gone */
    assert_int_equal(pm_birth_unspool(path, &left, &err), 0);
    assert_int_equal(pm_birth_records_dir(path, spool, sizeof spool), 0);
    assert_string_equal(spool, in(path, "records"));
}

static void leaves_the_living(void **state)
{
    (void)state;
    unsigned left = 0;
    int ready[2], end[2];
    char byte;
    born();
    make_record("p1-00000001.pmrec", 100);
    make_record("p2-00000002.pmrec", 100);
    write_file(in(spool, "p3-00000003.pmrec"), "", 0); /* in the making */
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(end), 0);
    pid_t child = fork();
    if (child == 0) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
        int fd = open(in(spool, "p1-00000001.pmrec"), O_RDWR);
        if (fd < 0 || fcntl(fd, F_SETLK, &lock) != 0)
            _exit(1);
        close(end[1]);
        (void)!write(ready[1], "x", 1);
        (void)!read(end[0], &byte, 1);
        _exit(0);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(pm_birth_unspool(path, &left, NULL), 0);
    assert_int_equal(left, 2);
    assert_true(exists(in(spool, "p1-00000001.pmrec")));
    assert_true(exists(in(spool, "p3-00000003.pmrec")));
    assert_true(exists(in(path, "records/p2-00000002.pmrec")));
    assert_true(exists(in(spool, "budget")));
    close(ready[0]);
    close(ready[1]);
    close(end[0]);
    close(end[1]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    make_record("p3-00000003.pmrec", 8);
    assert_int_equal(pm_birth_unspool(path, &left, NULL), 0);
    assert_int_equal(left, 0);
    assert_false(exists(spool));
    assert_int_equal(count_entries(in(path, "records"), "."), 2);
}

/* A session from elsewhere may name any path as its spool: only its own is ever touched. */
static void foreign_spool(void **state)
{
    (void)state;
    static const char *const named[] = {"/etc", "/tmp/../etc", "relative", "/", ""};
    char text[PM_BIRTH_TEXT_MAX], changed[2 * PM_BIRTH_TEXT_MAX], out[PATH_MAX];
    born();
    (void)read_file(in(path, "session"), text, sizeof text);
    char *line = strstr(text, "\nspool ");
    assert_non_null(line);
    line[1] = '\0';
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++) {
        int n = snprintf(changed, sizeof changed, "%sspool %s\n", text, named[i]);
        write_file(in(path, "session"), changed, (size_t)n);
        int status = pm_birth_records_dir(path, out, sizeof out);
        assert_true(status == -PM_ECORRUPT ||
                    (status == 0 && strcmp(out, in(path, "records")) == 0));
        assert_true(pm_birth_unspool(path, NULL, NULL) != 0);
    }
    /* that of another session, of the same user even */
    char other[PATH_MAX];
    snprintf(other, sizeof other, "%s", spool);
    memcpy(other + strlen(other) - 8, "deadbeef", 8);
    assert_int_equal(mkdir(other, 0700), 0);
    int n = snprintf(changed, sizeof changed, "%sspool %s\n", text, other);
    write_file(in(path, "session"), changed, (size_t)n);
    assert_int_equal(pm_birth_unspool(path, NULL, NULL), -PM_EPERMISSION);
    assert_int_equal(pm_birth_unspool(at("nothing"), NULL, NULL), -PM_ENOTFOUND);
    if (geteuid() != 0)
        return;
    /* the right path, made by a stranger */
    n = snprintf(changed, sizeof changed, "%sspool %s\n", text, spool);
    write_file(in(path, "session"), changed, (size_t)n);
    assert_int_equal(chown(spool, STRANGER, STRANGER), 0);
    assert_int_equal(pm_birth_unspool(path, NULL, NULL), -PM_EPERMISSION);
    assert_int_equal(pm_birth_records_dir(path, out, sizeof out), 0);
    assert_string_equal(out, in(path, "records"));
}

static void home_is_full(void **state)
{
    (void)state;
    struct pm_error err = {""};
    unsigned left = 5;
    born();
    make_record("p1-00000001.pmrec", 100);
    make_record("p2-00000002.pmrec", 100);
    /* a folder of the same name in the way: the file stays, the others come home */
    assert_int_equal(mkdir(in(path, "records/p1-00000001.pmrec"), 0700), 0);
    assert_true(pm_birth_unspool(path, &left, &err) != 0);
    assert_int_equal(left, 5);
    assert_non_null(strstr(err.text, "p1-00000001.pmrec cannot be moved to the session"));
    assert_true(exists(in(spool, "p1-00000001.pmrec")));
    assert_true(exists(in(path, "records/p2-00000002.pmrec")));
    assert_int_equal(count_entries(in(path, "records"), "."), 2);
    assert_int_equal(rmdir(in(path, "records/p1-00000001.pmrec")), 0);
    assert_int_equal(pm_birth_unspool(path, &left, &err), 0);
    assert_false(exists(spool));
}

static void no_memory(void **state)
{
    (void)state;
    born();
    TORTURE(n)
    {
        if (!exists(spool))
            assert_int_equal(directory(), 0);
        make_record("p1-00000001.pmrec", 100);
        int status = pm_birth_unspool(path, NULL, NULL);
        assert_true(status == 0 || status == -PM_ENOMEM);
        assert_true(exists(in(spool, "p1-00000001.pmrec")) ||
                    exists(in(path, "records/p1-00000001.pmrec")));
    }
    assert_true(exists(in(path, "records/p1-00000001.pmrec")));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, world_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(lies_locally),      TEST(stays_local),   TEST(other_places), TEST(comes_home),
        TEST(leaves_the_living), TEST(foreign_spool), TEST(home_is_full), TEST(no_memory),
    };
    return cmocka_run_group_tests_name("spool", tests, NULL, NULL);
}
