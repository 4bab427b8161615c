/* A session's birth: its line in the environment, its directory among processes that race and users
 * who plant things, its fallbacks. The spool has its own test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/mman.h>
#include <time.h>
#include <utime.h>

#include "birth_world.h"
#include "torture.h"

static struct pm_birth birth;
static char path[PATH_MAX];
static bool made, fallback;
static struct pm_error err;

static int directory(const char *base)
{
    return pm_birth_directory(&birth, base, path, sizeof path, &made, &fallback, &err);
}

static const char *under(const char *base, const char *suffix)
{
    static char text[4][PATH_MAX];
    static unsigned next;
    char *out = text[next++ % 4];
    if (snprintf(out, PATH_MAX, "%s/%s%s", base, birth.name, suffix) >= PATH_MAX)
        abort();
    return out;
}

static int begin(void **state)
{
    pm_birth_reserve(&birth);
    memset(&err, 0, sizeof err);
    made = fallback = false;
    path[0] = '\0';
    return world_begin(state);
}

/* ---- the line in the environment ---- */

static void line(void **state)
{
    (void)state;
    struct pm_birth back, other;
    char text[256];
    assert_true(birth.root);
    assert_true(pm_birth_name_ok(birth.name));
    assert_int_equal(birth.root_pid, getpid());
    pm_birth_reserve(&other);
    assert_memory_not_equal(birth.token, other.token, PM_TOKEN_BYTES);

    pm_birth_format(&birth, text, sizeof text);
    assert_int_equal(pm_birth_parse(text, &back), 0);
    assert_false(back.root);
    back.root = true;
    assert_memory_equal(&back, &birth, sizeof birth);
    for (size_t size = 0; size <= strlen(text); size++) {
        char small[256];
        memset(small, 'x', sizeof small);
        pm_birth_format(&birth, small, size);
        assert_int_equal(small[0], size == 0 ? 'x' : '\0');
        assert_int_equal(small[size], 'x');
    }
    birth.start_mono_ns = birth.start_real_ns = UINT64_MAX;
    birth.root_pid = UINT32_MAX;
    pm_birth_format(&birth, text, sizeof text);
    assert_int_equal(pm_birth_parse(text, &back), 0);
    assert_true(back.start_real_ns == UINT64_MAX && back.root_pid == UINT32_MAX);
}

static void line_refused(void **state)
{
    (void)state;
#define NAME "session_20261123_082501"
#define TOKEN "00112233445566778899aabbccddeeff"
    static const char *const bad[] = {
        "",
        NAME,
        NAME ":" TOKEN ":1:2",
        NAME ":" TOKEN ":1:2:3:4",
        NAME ":" TOKEN ":1:2:",
        NAME ":" TOKEN "::2:3",
        NAME ":" TOKEN ":01:2:3",
        NAME ":" TOKEN ":+1:2:3",
        NAME ":" TOKEN ":-1:2:3",
        NAME ":" TOKEN ":1:2: 3",
        NAME ":" TOKEN ":1:2:4294967296",
        NAME ":" TOKEN ":18446744073709551616:2:3",
        NAME ":00112233445566778899AABBCCDDEEFF:1:2:3",
        NAME ":00112233445566778899aabbccddee:1:2:3",
        NAME ":00112233445566778899aabbccddeeff0:1:2:3",
        "session_20261123_08250:" TOKEN ":1:2:3",
        "session_20261123-082501:" TOKEN ":1:2:3",
        "../sion_20261123_082501:" TOKEN ":1:2:3",
        NAME "_2:" TOKEN ":1:2:3",
        NAME ":" TOKEN ":1:2:3\n",
    };
    struct pm_birth before, back;
    memset(&back, 0x5a, sizeof back);
    before = back;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(pm_birth_parse(bad[i], &back), -PM_EINVALID);
        assert_memory_equal(&before, &back, sizeof back);
    }
    assert_int_equal(pm_birth_parse(NAME ":" TOKEN ":1:2:3", &back), 0);
    static char large[1000];
    memset(large, ':', sizeof large - 1);
    assert_int_equal(pm_birth_parse(large, &back), -PM_EINVALID);
}

/* ---- made and found ---- */

static void makes_and_finds(void **state)
{
    (void)state;
    struct pm_birth_file file;
    char text[PM_BIRTH_TEXT_MAX], session[PATH_MAX];
    mode_t mask = umask(077);
    assert_int_equal(directory(at("base")), 0);
    umask(mask);
    assert_true(made);
    assert_false(fallback);
    assert_string_equal(path, under(at("base"), ""));
    assert_int_equal(mode_of(at("base")), 01777);
    assert_int_equal(mode_of(path), 0700);
    assert_int_equal(count_entries(at("base"), "."), 2); /* nothing hidden is left */
    snprintf(session, sizeof session, "%s", path);

    assert_int_equal(mode_of(in(path, "records")), 0700);
    assert_int_equal(mode_of(in(path, "records/budget")), 0600);
    char budget[32];
    assert_int_equal(read_file(in(path, "records/budget"), budget, sizeof budget), 8);
    assert_memory_equal(budget, "\0\0\0\0\0\0\0\0", 8);
    assert_int_equal(pm_birth_records_dir(path, text, sizeof text), 0);
    assert_string_equal(text + strlen(path), "/records");
    assert_int_equal(pm_birth_records_dir(path, text, strlen(path)), -PM_ELIMIT);

    assert_int_equal(pm_birth_read(path, &file), 0);
    assert_int_equal(file.version, PM_FORMAT_VERSION);
    assert_memory_equal(file.birth.token, birth.token, PM_TOKEN_BYTES);
    assert_string_equal(file.birth.name, birth.name);
    assert_true(file.birth.start_mono_ns == birth.start_mono_ns &&
                file.birth.start_real_ns == birth.start_real_ns);
    assert_int_equal(file.birth.root_pid, birth.root_pid);
    assert_int_equal(file.uid, geteuid());
    assert_true(strlen(file.boot_id) == 36 || file.boot_id[0] == '\0');
    assert_string_equal(file.spool, "");

    /* another process of the server has only the line; trailing slashes make no difference */
    pm_birth_format(&birth, text, sizeof text);
    assert_int_equal(pm_birth_parse(text, &birth), 0);
    char slashes[PATH_MAX];
    snprintf(slashes, sizeof slashes, "%s///", at("base"));
    assert_int_equal(directory(slashes), 0);
    assert_false(made);
    assert_string_equal(path, session);

    /* a relative base */
    char here[PATH_MAX];
    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(chdir(world), 0);
    assert_int_equal(directory("base"), 0);
    assert_int_equal(chdir(here), 0);
    assert_string_equal(path, session);
}

static void group_mode(void **state)
{
    (void)state;
    birth.file_mode = 0640;
    assert_int_equal(directory(at("base")), 0);
    assert_int_equal(mode_of(path), 0750);
    assert_int_equal(mode_of(in(path, "session")), 0640);
    assert_int_equal(mode_of(in(path, "records")), 0750);
}

static void one_second(void **state)
{
    (void)state;
    struct pm_birth first = birth;
    assert_int_equal(directory(at("base")), 0);
    pm_birth_reserve(&birth);
    memcpy(birth.name, first.name, sizeof birth.name);
    assert_int_equal(directory(at("base")), 0);
    assert_true(made);
    assert_string_equal(path, under(at("base"), "_2"));
    struct pm_birth second = birth;
    pm_birth_reserve(&birth);
    memcpy(birth.name, first.name, sizeof birth.name);
    assert_int_equal(directory(at("base")), 0);
    assert_string_equal(path, under(at("base"), "_3"));
    /* each finds its own again, also when an earlier name became free */
    birth = second;
    assert_int_equal(rename(under(at("base"), ""), at("base/elsewhere")), 0);
    assert_int_equal(directory(at("base")), 0);
    assert_false(made);
    assert_string_equal(path, under(at("base"), "_2"));
}

/* Eight processes at once: one makes the directory, all end in it. */
static void races(void **state)
{
    (void)state;
    struct result {
        int status;
        bool made;
        char path[PATH_MAX];
    } *results =
        mmap(NULL, 8 * sizeof *results, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(results != MAP_FAILED);
    for (int round = 0; round < 40; round++) {
        char base[PATH_MAX];
        pid_t children[8];
        int gate[2], makers = 0;
        snprintf(base, sizeof base, "%s%d", at("race"), round);
        if (round % 2) { /* also with a name that is taken */
            assert_int_equal(mkdir(base, 0755), 0);
            write_file(under(base, ""), "x", 1);
        }
        assert_int_equal(pipe(gate), 0);
        for (int i = 0; i < 8; i++)
            if ((children[i] = fork()) == 0) {
                char byte;
                close(gate[1]);
                (void)!read(gate[0], &byte, 1); /* all start when the gate closes */
                results[i].status = directory(base);
                results[i].made = made;
                memcpy(results[i].path, path, sizeof path);
                _exit(0);
            }
        close(gate[0]);
        close(gate[1]);
        for (int i = 0; i < 8; i++)
            assert_int_equal(waitpid(children[i], NULL, 0), children[i]);
        for (int i = 0; i < 8; i++) {
            assert_int_equal(results[i].status, 0);
            assert_string_equal(results[i].path, under(base, round % 2 ? "_2" : ""));
            makers += results[i].made;
        }
        assert_int_equal(makers, 1);
        assert_int_equal(count_entries(base, "session_"), round % 2 ? 2 : 1);
        assert_int_equal(count_entries(base, ".session_"), 0);
    }
    munmap(results, 8 * sizeof *results);
}

/* ---- things in the way ---- */

static void in_the_way(void **state)
{
    (void)state;
    assert_int_equal(mkdir(at("base"), 0755), 0);
    assert_int_equal(mkdir(at("target"), 0755), 0);
    assert_int_equal(symlink(at("target"), under(at("base"), "")), 0); /* a link to a folder */
    write_file(under(at("base"), "_2"), "x", 1);                       /* a file */
    assert_int_equal(mkdir(under(at("base"), "_3"), 0755), 0);         /* an empty folder */
    assert_int_equal(symlink("nowhere", under(at("base"), "_4")), 0);  /* a dangling link */
    assert_int_equal(mkfifo(under(at("base"), "_5"), 0600), 0);
    assert_int_equal(mkdir(under(at("base"), "_6"), 0755), 0); /* `session` is a pipe: no waiting */
    assert_int_equal(mkfifo(in(under(at("base"), "_6"), "session"), 0600), 0);
    assert_int_equal(directory(at("base")), 0);
    assert_true(made);
    assert_string_equal(path, under(at("base"), "_7"));
    assert_int_equal(count_entries(at("target"), ""), 2);
    assert_int_equal(directory(at("base")), 0);
    assert_false(made);
}

static void damaged_sessions(void **state)
{
    (void)state;
    struct pm_birth_file file;
    char text[PM_BIRTH_TEXT_MAX], session[PATH_MAX];
    assert_int_equal(directory(at("base")), 0);
    snprintf(session, sizeof session, "%s", in(path, "session"));
    size_t bytes = read_file(session, text, sizeof text);
    assert_true(bytes > 100);
    /* cut off anywhere: never half a value taken for a whole one */
    for (size_t length = 0; length < bytes; length++) {
        write_file(session, text, length);
        int status = pm_birth_read(path, &file);
        if (status == 0)
            assert_memory_equal(file.birth.token, birth.token, PM_TOKEN_BYTES);
        else
            assert_int_equal(status, -PM_ECORRUPT);
        assert_true(status != 0 || text[length - 1] == '\n');
    }
    /* every byte changed: the sanitizers watch */
    for (size_t i = 0; i < bytes; i++)
        for (int bit = 0; bit < 8; bit++) {
            text[i] = (char)(text[i] ^ 1 << bit);
            write_file(session, text, bytes);
            (void)!pm_birth_read(path, &file);
            text[i] = (char)(text[i] ^ 1 << bit);
        }
    static char large[PM_BIRTH_TEXT_MAX + 1];
    memset(large, 'x', sizeof large);
    write_file(session, large, sizeof large);
    assert_int_equal(pm_birth_read(path, &file), -PM_ECORRUPT);
    /* a later version: told from damage, but still our session */
    text[strlen("version ")] = '9';
    write_file(session, text, bytes);
    assert_int_equal(pm_birth_read(path, &file), -PM_EVERSION);
    assert_int_equal(directory(at("base")), 0);
    assert_false(made);
    assert_int_equal(unlink(session), 0);
    assert_int_equal(pm_birth_read(path, &file), -PM_EFORMAT);
    assert_int_equal(pm_birth_read(at("nothing"), &file), -PM_EFORMAT);
    assert_int_equal(symlink("/etc/passwd", session), 0);
    assert_int_equal(pm_birth_read(path, &file), -PM_EPERMISSION);
}

static void stale_leftovers(void **state)
{
    (void)state;
    char old[PATH_MAX], young[PATH_MAX];
    assert_int_equal(mkdir(at("base"), 0755), 0);
    snprintf(old, sizeof old, "%s/base/.%s.1.00000000", world, birth.name);
    snprintf(young, sizeof young, "%s/base/.%s.2.00000000", world, birth.name);
    for (int i = 0; i < 2; i++) {
        const char *dir = i ? young : old;
        assert_int_equal(mkdir(dir, 0700), 0);
        assert_int_equal(mkdir(in(dir, "records"), 0700), 0);
        write_file(in(dir, "records/budget"), "", 0);
    }
    struct utimbuf past = {time(NULL) - 7200, time(NULL) - 7200};
    assert_int_equal(utime(old, &past), 0);
    assert_int_equal(directory(at("base")), 0);
    assert_false(exists(old));
    assert_true(exists(young));
}

/* ---- bases that cannot be used ---- */

static void falls_back(void **state)
{
    (void)state;
    /* a file where the base should be */
    write_file(at("base"), "x", 1);
    assert_int_equal(directory(at("base")), 0);
    assert_true(fallback);
    assert_string_equal(path, under(at("home/.local/state/profilemate"), ""));
    assert_int_equal(mode_of(at("home/.local")), 0700);
    assert_int_equal(mode_of(at("home/.local/state/profilemate")), 0700);
    assert_non_null(strstr(err.text, at("base")));
    assert_non_null(strstr(err.text, "cannot be used"));

    /* the others of this session find it there, even when the base could be used again */
    assert_int_equal(unlink(at("base")), 0);
    assert_int_equal(directory(at("base")), 0);
    assert_false(made);
    assert_true(fallback);
    assert_false(exists(at("base")));

    /* a parent that is missing: is it a typo, or a volume that is not mounted? */
    pm_birth_reserve(&birth);
    setenv("XDG_STATE_HOME", at("state"), 1);
    assert_int_equal(directory(at("missing/base")), 0);
    assert_true(fallback);
    assert_string_equal(path, under(at("state/profilemate"), ""));
    assert_false(exists(at("missing")));

    /* no home at all */
    char uid[32];
    snprintf(uid, sizeof uid, "base-%u", (unsigned)geteuid());
    pm_birth_reserve(&birth);
    unsetenv("XDG_STATE_HOME");
    setenv("HOME", "relative/home", 1);
    write_file(at("base"), "x", 1);
    assert_int_equal(directory(at("base")), 0);
    assert_true(fallback);
    assert_string_equal(path, under(at(uid), ""));
    assert_int_equal(mode_of(at(uid)), 0700);
}

static void nowhere(void **state)
{
    (void)state;
    char uid[32], before[] = "untouched";
    setenv("HOME", at("spot/file"), 1);
    write_file(at("spot/file"), "x", 1);
    write_file(at("base"), "x", 1);
    snprintf(uid, sizeof uid, "base-%u", (unsigned)geteuid());
    write_file(at(uid), "x", 1);
    snprintf(path, sizeof path, "%s", before);
    assert_int_equal(directory(at("base")), -PM_ENOTFOUND);
    assert_string_equal(path, before);
    assert_non_null(strstr(err.text, "cannot be used"));
    assert_int_equal(directory(""), -PM_ENOTFOUND);
    birth.name[0] = '\0';
    assert_int_equal(directory(at("fine")), -PM_EINVALID);
    assert_false(exists(at("fine")));
}

static void short_buffer(void **state)
{
    (void)state;
    char small[16];
    assert_int_equal(
        pm_birth_directory(&birth, at("base"), small, sizeof small, &made, &fallback, &err),
        -PM_ELIMIT);
    assert_int_equal(count_entries(at("base"), "session_"), 0);
}

static void links(void **state)
{
    (void)state;
    assert_int_equal(mkdir(at("real"), 0755), 0);
    /* one's own link is one's own choice */
    assert_int_equal(symlink("real", at("base")), 0);
    assert_int_equal(directory(at("base")), 0);
    assert_false(fallback);
    assert_int_equal(count_entries(at("real"), "session_"), 1);
    /* links that go round */
    assert_int_equal(symlink("round", at("round")), 0);
    pm_birth_reserve(&birth);
    assert_int_equal(directory(at("round")), 0);
    assert_true(fallback);
    if (geteuid() != 0)
        return; /* the rest needs a second user */
    assert_int_equal(symlink(at("real"), at("spot/planted")), 0);
    assert_int_equal(lchown(at("spot/planted"), STRANGER, STRANGER), 0);
    pm_birth_reserve(&birth);
    assert_int_equal(directory(at("spot/planted")), 0);
    assert_true(fallback);
    pm_birth_reserve(&birth);
    assert_int_equal(directory(at("spot/planted/base")), 0); /* on the way */
    assert_true(fallback);
    assert_int_equal(count_entries(at("real"), ""), 3); /* nothing of theirs */
}

/* ---- other users (as root) ---- */

static void strangers_base(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    /* made first by a stranger in a place open to all */
    assert_int_equal(mkdir(at("spot/base"), 0777), 0);
    assert_int_equal(chmod(at("spot/base"), 0777), 0);
    assert_int_equal(chown(at("spot/base"), STRANGER, STRANGER), 0);
    assert_int_equal(directory(at("spot/base")), 0);
    assert_true(fallback);
    assert_non_null(strstr(err.text, "it belongs to user 12345"));
    /* sticky, as we make it ourselves: shared */
    assert_int_equal(chmod(at("spot/base"), 01777), 0);
    pm_birth_reserve(&birth);
    assert_int_equal(directory(at("spot/base")), 0);
    assert_false(fallback);
    /* a volume that root mounted where nobody else can put anything */
    assert_int_equal(mkdir(at("volume"), 0755), 0);
    assert_int_equal(chown(at("volume"), STRANGER, STRANGER), 0);
    pm_birth_reserve(&birth);
    assert_int_equal(directory(at("volume")), 0);
    assert_false(fallback);
    /* base-<uid> must be ours, sticky or not */
    char uid[32];
    snprintf(uid, sizeof uid, "spot/x-%u", (unsigned)geteuid());
    write_file(at("spot/x"), "x", 1);
    assert_int_equal(mkdir(at(uid), 0777), 0);
    assert_int_equal(chmod(at(uid), 01777), 0);
    assert_int_equal(chown(at(uid), STRANGER, STRANGER), 0);
    unsetenv("HOME");
    pm_birth_reserve(&birth);
    assert_true(directory(at("spot/x")) != 0);
}

static void strangers_session(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    /* a stranger who knows even the token gets nobody into a directory of theirs */
    assert_int_equal(directory(at("base")), 0);
    assert_int_equal(chown(path, STRANGER, STRANGER), 0);
    assert_int_equal(directory(at("base")), 0);
    assert_true(made);
    assert_string_equal(path, under(at("base"), "_2"));
}

static int unwritable_body(void)
{
    setenv("HOME", at("spot/home"), 1);
    if (directory(at("base")) != 0 || !fallback || !made)
        return 1;
    if (strcmp(path, under(at("spot/home/.local/state/profilemate"), "")) != 0)
        return 2;
    if (strstr(err.text, "permission denied") == NULL)
        return 3;
    /* nor a home: beside the base */
    pm_birth_reserve(&birth);
    setenv("HOME", at("home"), 1);
    if (directory(at("spot/shut")) != 0 || strcmp(path, under(at("spot/shut-12345"), "")) != 0)
        return 4;
    return 0;
}

static void unwritable_base(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    assert_int_equal(mkdir(at("base"), 0755), 0);
    assert_int_equal(mkdir(at("spot/shut"), 0755), 0);
    assert_int_equal(as_user(STRANGER, unwritable_body), 0);
    assert_int_equal(count_entries(at("base"), ""), 2);
}

/* ---- files of a session ---- */

static void whole_files(void **state)
{
    (void)state;
    char file[PATH_MAX], text[64];
    assert_int_equal(directory(at("base")), 0);
    snprintf(file, sizeof file, "%s", in(path, "metadata.json"));
    mode_t mask = umask(077);
    assert_int_equal(pm_birth_write_file(path, "metadata.json", "one", 3, 0644), 0);
    umask(mask);
    assert_int_equal(mode_of(file), 0644);
    assert_int_equal(pm_birth_write_file(path, "metadata.json", "two", 3, 0600), 0);
    assert_int_equal(read_file(file, text, sizeof text), 3);
    assert_string_equal(text, "two");
    assert_int_equal(mode_of(file), 0600);
    /* a link in the way is replaced, not written through */
    write_file(at("victim"), "safe", 4);
    assert_int_equal(unlink(file), 0);
    assert_int_equal(symlink(at("victim"), file), 0);
    assert_int_equal(pm_birth_write_file(path, "metadata.json", "three", 5, 0600), 0);
    assert_int_equal(read_file(at("victim"), text, sizeof text), 4);
    assert_int_equal(read_file(file, text, sizeof text), 5);
    /* a folder in the way is not; nothing is left behind */
    assert_int_equal(pm_birth_write_file(path, "records", "x", 1, 0600), -PM_EIO);
    assert_int_equal(count_entries(path, "."), 2);
    assert_int_equal(pm_birth_write_file(path, "../x", "x", 1, 0600), -PM_EINVALID);
    assert_int_equal(pm_birth_write_file(path, "", "x", 1, 0600), -PM_EINVALID);
    assert_int_equal(pm_birth_write_file(at("gone"), "x", "x", 1, 0600), -PM_ENOTFOUND);
}

static void no_memory(void **state)
{
    (void)state;
    assert_int_equal(directory(at("base")), 0);
    int failures = 0;
    TORTURE(n)
    {
        int status = directory(at("base"));
        assert_true(status == 0 || status == -PM_ENOMEM);
        failures += status != 0;
    }
    /* a search that fails never ends in a second directory */
    assert_int_equal(failures, 1);
    assert_false(exists(at("home/.local")));
    assert_int_equal(count_entries(at("base"), "session_"), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, world_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(line),
        TEST(line_refused),
        TEST(makes_and_finds),
        TEST(group_mode),
        TEST(one_second),
        TEST(races),
        TEST(in_the_way),
        TEST(damaged_sessions),
        TEST(falls_back),
        TEST(nowhere),
        TEST(short_buffer),
        TEST(links),
        TEST(strangers_base),
        TEST(strangers_session),
        TEST(unwritable_base),
        TEST(stale_leftovers),
        TEST(whole_files),
        TEST(no_memory),
    };
    return cmocka_run_group_tests_name("birth", tests, NULL, NULL);
}
