/*
 * Makes a session of a made-up server (made_server.h) through the real recorder: a day, a minute, a
 * fleet's share. Prints its folder, then how much is in it.
 *
 *   make_day BASE [hours=24] [requests_per_s=23] [wave=0.5] [prompt=300] [output=180]
 *            [kv_blocks=1600] [max_requests=256] [max_tokens=2048] [max_mb=65536] [seed=1]
 *            [start=EPOCH_SECONDS] [host=…] [model=…] [served=…] [vllm=…] [end=close|kill]
 *            [moe_layers=0] [moe_experts=32] [moe_top_k=4] [moe_hot=3] [moe_seed=1]
 *            [slow_schedule=1.0] [slow_pre=1.0] [slow_model=1.0] [slow_sample=1.0]
 * [slow_update=1.0]
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "made_server.h"
#include "recorder/birth.h"
#include "session/attrs.h"

#define START_MONO 1000000000ull

static int n_args;
static char **args;

static const char *text(const char *key, const char *otherwise)
{
    const size_t bytes = strlen(key);
    for (int i = 2; i < n_args; i++)
        if (strncmp(args[i], key, bytes) == 0 && args[i][bytes] == '=')
            return args[i] + bytes + 1;
    return otherwise;
}

static double number(const char *key, double otherwise)
{
    const char *given = text(key, NULL);
    return given != NULL ? strtod(given, NULL) : otherwise;
}

static void die(const char *what, const char *why)
{
    fprintf(stderr, "make_day: %s: %s\n", what, why);
    exit(1);
}

static void say_attributes(struct pm_recorder *rec, const struct made_options *options)
{
    char value[32];
    pm_recorder_attr(rec, PM_ATTR_PROFILEMATE, PM_VERSION);
    pm_recorder_attr(rec, PM_ATTR_VLLM, text("vllm", "0.32.0"));
    pm_recorder_attr(rec, PM_ATTR_MODEL, text("model", "made-up/model"));
    if (text("served", NULL) != NULL)
        pm_recorder_attr(rec, "served_model_name", text("served", NULL));
    pm_recorder_attr(rec, PM_ATTR_HOST, text("host", "made-up"));
    pm_recorder_attr(rec, PM_ATTR_DEVICE, "cpu");
    pm_recorder_attr(rec, PM_ATTR_FORWARD_CLOCK, "wall");
    pm_recorder_attr(rec, "setting.preset", "full");
    snprintf(value, sizeof value, "%u", options->max_requests);
    pm_recorder_attr(rec, PM_ATTR_CONFIG_PREFIX "max_num_seqs", value);
    snprintf(value, sizeof value, "%u", options->max_tokens);
    pm_recorder_attr(rec, PM_ATTR_CONFIG_PREFIX "max_num_batched_tokens", value);
    snprintf(value, sizeof value, "%u", options->kv_blocks);
    pm_recorder_attr(rec, PM_ATTR_CONFIG_PREFIX "num_gpu_blocks", value);
    pm_recorder_attr(rec, PM_ATTR_CONFIG_PREFIX "block_size", "16");
}

/* The newest moment in a segment's facts. */
static uint64_t newest_of(const uint8_t *segment, size_t bytes)
{
    uint64_t newest = 0, head;
    for (size_t at = sizeof(struct pm_segment_head); at + 8 <= bytes;) {
        memcpy(&head, segment + at, sizeof head);
        const size_t record = pm_record_words(head) * 8, number = pm_record_schema(head);
        if (head == 0 || record == 0 || at + record > bytes)
            break;
        const struct pm_schema *schema =
            number >= PM_SCHEMA_FIRST && number - PM_SCHEMA_FIRST < made_n_schemas
                ? made_schemas[number - PM_SCHEMA_FIRST]
                : NULL;
        for (size_t i = 0; schema != NULL && i < schema->n_fields; i++) {
            const struct pm_field *field = &schema->fields[i];
            const uint64_t when =
                field->kind == PM_KIND_TIME ? pm_field_get(field, segment + at + 8) : 0;
            newest = when > newest ? when : newest;
        }
        at += record;
    }
    return newest;
}

/* When each segment was begun: after all that is in those before it. */
static void set_segments(int fd, const struct pm_file_head *file)
{
    uint8_t *segment = malloc(file->segment_bytes);
    uint64_t newest = START_MONO;
    if (segment == NULL)
        die("segments", "no memory");
    for (off_t at = file->header_bytes;; at += file->segment_bytes) {
        const ssize_t got = pread(fd, segment, file->segment_bytes, at);
        const size_t clock = offsetof(struct pm_segment_head, clock.mono_ns);
        if (got < (ssize_t)sizeof(struct pm_segment_head))
            break;
        if (pwrite(fd, &newest, sizeof newest, at + (off_t)clock) != (ssize_t)sizeof newest)
            die("segments", "cannot be written");
        const uint64_t mine = newest_of(segment, (size_t)got);
        newest = mine > newest ? mine : newest;
    }
    free(segment);
}

/* The file's times are those of the machine that made it: put the server's in their place. */
static void set_times(const char *dir, uint64_t start_real_ns, uint64_t end_ns, pid_t pid,
                      bool closed)
{
    char records[4200], file[4600] = "";
    struct pm_file_head head;
    snprintf(records, sizeof records, "%s/records", dir);
    DIR *list = opendir(records);
    for (const struct dirent *entry; list != NULL && (entry = readdir(list)) != NULL;)
        if (strstr(entry->d_name, ".pmrec") != NULL)
            snprintf(file, sizeof file, "%.4200s/%.255s", records, entry->d_name);
    if (list == NULL || closedir(list) != 0)
        die(records, "cannot be read");
    const int fd = open(file, O_RDWR);
    if (fd < 0 || pread(fd, &head, sizeof head, 0) != (ssize_t)sizeof head)
        die(file, "cannot be read");
    set_segments(fd, &head);
    head.pid = (uint32_t)pid;
    head.opened.mono_ns = START_MONO;
    head.opened.real_ns = start_real_ns;
    atomic_store(&head.heartbeat_ns, end_ns);
    atomic_store(&head.closed_ns, closed ? end_ns : 0);
    if (pwrite(fd, &head, sizeof head, 0) != (ssize_t)sizeof head || close(fd) != 0)
        die(file, "cannot be written");
}

int main(int argc, char **argv)
{
    n_args = argc;
    args = argv;
    if (argc < 2)
        die("usage", "make_day BASE [key=value …]");
    const struct made_options options = {
        .hours = number("hours", 24),
        .requests_per_s = number("requests_per_s", 23),
        .wave = number("wave", 0.5),
        .prompt_mean = number("prompt", 300),
        .output_mean = number("output", 180),
        .kv_blocks = (uint32_t)number("kv_blocks", 1600),
        .max_requests = (uint32_t)number("max_requests", 256),
        .max_tokens = (uint32_t)number("max_tokens", 2048),
        .seed = (uint64_t)number("seed", 1),
        .factors = {number("slow_schedule", 1), number("slow_pre", 1), number("slow_model", 1),
                    number("slow_sample", 1), number("slow_update", 1)},
        .moe_layers = (uint32_t)number("moe_layers", 0),
        .moe_experts = (uint32_t)number("moe_experts", 32),
        .moe_top_k = (uint32_t)number("moe_top_k", 4),
        .moe_hot = number("moe_hot", 3),
        .moe_seed = (uint64_t)number("moe_seed", 1),
    };
    if (options.moe_layers > 0 && options.moe_experts < 2)
        die("moe_experts", "at least 2");
    struct pm_birth birth;
    struct pm_error err = {""};
    char dir[4096];
    bool made, fallback;
    pm_clock_init();
    pm_birth_reserve(&birth);
    birth.root = true;
    birth.start_mono_ns = START_MONO;
    birth.start_real_ns = (uint64_t)number("start", 1795422301) * 1000000000ull;
    const time_t start = (time_t)(birth.start_real_ns / 1000000000);
    struct tm local;
    localtime_r(&start, &local);
    strftime(birth.name, sizeof birth.name, "session_%Y%m%d_%H%M%S", &local);
    if (pm_birth_directory(&birth, argv[1], dir, sizeof dir, &made, &fallback, &err) != 0)
        die("cannot make the session", err.text);

    /* The server is a process of its own, so that it can be killed. */
    int pipe_of[2];
    struct made_counts counts = {0};
    if (pipe(pipe_of) != 0)
        die("pipe", "cannot be made");
    const bool killed = strcmp(text("end", "close"), "kill") == 0;
    const pid_t pid = fork();
    if (pid == 0) {
        struct pm_recorder *rec;
        const struct pm_recorder_options recorder = {
            .session_dir = dir,
            .token = birth.token,
            .schemas = made_schemas,
            .n_schemas = options.moe_layers > 0 ? made_n_schemas : made_n_schemas - MADE_OF_MOE,
            .ceiling_bytes = (uint64_t)number("max_mb", 65536) << 20,
            .file_mode = 0600,
        };
        if (pm_recorder_open(&rec, &recorder, &err) != 0)
            die("cannot open the recorder", err.text);
        pm_recorder_identify(rec, PM_ROLE_ENGINE | PM_ROLE_WORKER, 0, 0);
        say_attributes(rec, &options);
        made_serve(rec, &options, START_MONO, &counts);
        pm_recorder_round(rec);
        if (write(pipe_of[1], &counts, sizeof counts) != (ssize_t)sizeof counts)
            _exit(1);
        if (killed)
            kill(getpid(), SIGKILL);
        pm_recorder_close(rec);
        _exit(0);
    }
    int status;
    close(pipe_of[1]);
    if (pid < 0 || read(pipe_of[0], &counts, sizeof counts) != (ssize_t)sizeof counts ||
        waitpid(pid, &status, 0) != pid)
        die(dir, "the server failed");
    set_times(dir, birth.start_real_ns, counts.end_ns, pid, !killed);
    printf("%s\n", dir);
    fprintf(stderr,
            "%llu steps, %llu requests, %llu preemptions, %llu output tokens, %llu records\n",
            (unsigned long long)counts.steps, (unsigned long long)counts.requests,
            (unsigned long long)counts.preemptions, (unsigned long long)counts.output_tokens,
            (unsigned long long)counts.records);
    return 0;
}
