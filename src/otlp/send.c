/* See send.h. libcurl is opened when it is needed, not before, so that the program starts without.
 */
#include "otlp/send.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"

#ifdef PM_HAVE_CURL
#include <curl/curl.h>
#include <dlfcn.h>

#define ANSWER_MAX 65536

struct curl {
#undef curl_easy_setopt
#undef curl_easy_getinfo
#define X(name) __typeof__(&curl_##name) name;
#include "otlp/curl.def"
    __typeof__(&curl_global_init) global_init;
};

struct pm_otlp_sender {
    struct pm_otlp_queue *queue;
    struct curl curl;
    CURL *handle;
    struct curl_slist *headers;
    char urls[2][1024]; /* by kind */
    _Atomic bool break_off;
    _Atomic bool ended;
    pthread_t thread;
    uint64_t wait_ms; /* before the next try; 0: the last push went well */
    uint8_t answer[ANSWER_MAX];
    size_t answer_bytes;
};

static int load(struct curl *ret_curl, struct pm_error *err)
{
    static const char *const names[] = {"libcurl.so.4", "libcurl-gnutls.so.4"};
    void *library = NULL;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && library == NULL; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return pm_error_set(err, -PM_EUNSUPPORTED,
                            "--otlp needs libcurl, which is not installed here, install it (Debian "
                            "and Ubuntu: libcurl4)");
#define LOAD(name)                                                                                 \
    {                                                                                              \
        void *found = dlsym(library, "curl_" #name);                                               \
        if (found == NULL)                                                                         \
            return pm_error_set(err, -PM_EUNSUPPORTED,                                             \
                                "libcurl has no curl_" #name ", install release 7.66 or newer");   \
        memcpy(&ret_curl->name, &found, sizeof(found));                                            \
    }
#define X(name) LOAD(name)
#include "otlp/curl.def"
    LOAD(global_init)
    return 0;
}

/* ---- one push ---- */

static size_t take_answer(char *data, size_t size, size_t count, void *arg)
{
    struct pm_otlp_sender *sender = arg;
    const size_t bytes = size * count, room = ANSWER_MAX - sender->answer_bytes;
    memcpy(sender->answer + sender->answer_bytes, data, bytes < room ? bytes : room);
    sender->answer_bytes += bytes < room ? bytes : room;
    return bytes; /* the rest is of no interest */
}

static int watch(void *arg, curl_off_t down_all, curl_off_t down, curl_off_t up_all, curl_off_t up)
{
    const struct pm_otlp_sender *sender = arg;
    (void)down_all, (void)down, (void)up_all, (void)up;
    return atomic_load(&sender->break_off);
}

enum outcome { TAKEN, AGAIN, REFUSED };

static void trouble(struct pm_otlp_sender *sender, const char *format, ...) PM_PRINTF(2, 3);
static void trouble(struct pm_otlp_sender *sender, const char *format, ...)
{
    char text[sizeof(sender->queue->counts.trouble)];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    pthread_mutex_lock(&sender->queue->lock);
    snprintf(sender->queue->counts.trouble, sizeof(sender->queue->counts.trouble), "%s", text);
    pthread_mutex_unlock(&sender->queue->lock);
}

static enum outcome judge(struct pm_otlp_sender *sender, const struct pm_otlp_batch *batch,
                          CURLcode code, uint64_t *ret_after_ms)
{
    long status = 0;
    curl_off_t after_sec = 0;
    char words[176];
    *ret_after_ms = 0;
    if (code != CURLE_OK) {
        trouble(sender, "%s: %s", sender->urls[batch->kind], sender->curl.easy_strerror(code));
        return AGAIN;
    }
    (void)sender->curl.easy_getinfo(sender->handle, CURLINFO_RESPONSE_CODE, &status);
    (void)sender->curl.easy_getinfo(sender->handle, CURLINFO_RETRY_AFTER, &after_sec);
    if (status >= 200 && status < 300) {
        const uint64_t rejected =
            pm_otlp_rejected(sender->answer, sender->answer_bytes, words, sizeof(words));
        trouble(sender, "%s", "");
        pthread_mutex_lock(&sender->queue->lock);
        struct pm_otlp_counts *counts = &sender->queue->counts;
        if (rejected > 0)
            snprintf(counts->partial, sizeof(counts->partial), "%s did not take %llu %s: %s",
                     batch->kind == PM_OTLP_METRICS ? "/v1/metrics" : "/v1/traces",
                     (unsigned long long)rejected,
                     batch->kind == PM_OTLP_METRICS ? "points" : "spans",
                     words[0] != '\0' ? words : "it does not say why");
        counts->sent_pushes += batch->kind == PM_OTLP_METRICS;
        counts->sent_spans += batch->spans;
        if (batch->kind == PM_OTLP_METRICS)
            counts->rejected_points += rejected;
        else
            counts->rejected_spans += rejected;
        pthread_mutex_unlock(&sender->queue->lock);
        return TAKEN;
    }
    trouble(sender, "%s answered %ld", sender->urls[batch->kind], status);
    /* The protocol's list of those that may be tried again. */
    if (status != 429 && status != 502 && status != 503 && status != 504)
        return REFUSED;
    if (after_sec > 0)
        *ret_after_ms = (uint64_t)after_sec * 1000;
    return AGAIN;
}

static enum outcome push(struct pm_otlp_sender *sender, const struct pm_otlp_batch *batch,
                         uint64_t *ret_after_ms)
{
    const struct curl *curl = &sender->curl;
    sender->answer_bytes = 0;
    (void)curl->easy_setopt(sender->handle, CURLOPT_URL, sender->urls[batch->kind]);
    (void)curl->easy_setopt(sender->handle, CURLOPT_POSTFIELDS, batch->body.data);
    (void)curl->easy_setopt(sender->handle, CURLOPT_POSTFIELDSIZE_LARGE,
                            (curl_off_t)batch->body.used);
    return judge(sender, batch, curl->easy_perform(sender->handle), ret_after_ms);
}

/* ---- the thread ---- */

static void lose(struct pm_otlp_sender *sender, struct pm_otlp_batch *batch)
{
    pthread_mutex_lock(&sender->queue->lock);
    sender->queue->counts.dropped_spans += batch->spans;
    sender->queue->counts.dropped_pushes += batch->kind == PM_OTLP_METRICS;
    pthread_mutex_unlock(&sender->queue->lock);
    pm_otlp_batch_free(batch);
}

/* How long to wait before the next try: twice as long each time, a little apart from others that
 * began at the same moment; or what the collector asks for. */
static uint64_t next_wait_ms(struct pm_otlp_sender *sender, uint64_t after_ms)
{
    const uint64_t doubled = sender->wait_ms == 0 ? PM_OTLP_RETRY_FIRST_MS : sender->wait_ms * 2;
    sender->wait_ms = doubled < PM_OTLP_RETRY_MAX_MS ? doubled : PM_OTLP_RETRY_MAX_MS;
    if (after_ms > 0)
        return after_ms < PM_OTLP_GIVE_UP_MS ? after_ms : PM_OTLP_GIVE_UP_MS;
    return sender->wait_ms - sender->wait_ms / 4 +
           pm_clock_vdso_ns() / 1000 % (sender->wait_ms / 4);
}

static void handle(struct pm_otlp_sender *sender, struct pm_otlp_batch *batch)
{
    const uint64_t now_ns = pm_clock_vdso_ns();
    uint64_t after_ms;
    if (batch->first_try_ns == 0)
        batch->first_try_ns = now_ns;
    const enum outcome outcome = push(sender, batch, &after_ms);
    if (outcome == TAKEN) {
        sender->wait_ms = 0;
        pm_otlp_batch_free(batch);
    } else if (outcome == REFUSED || pm_otlp_queue_ending(sender->queue) ||
               now_ns - batch->first_try_ns > PM_OTLP_GIVE_UP_MS * 1000000ull) {
        lose(sender, batch);
    } else {
        pthread_mutex_lock(&sender->queue->lock);
        sender->queue->counts.retries++;
        pthread_mutex_unlock(&sender->queue->lock);
        const uint64_t wait_ms = next_wait_ms(sender, after_ms);
        pm_otlp_queue_back(sender->queue, batch);
        (void)pm_otlp_queue_sleep(sender->queue, wait_ms);
    }
}

static void *send_main(void *arg)
{
    struct pm_otlp_sender *sender = arg;
    struct pm_otlp_batch *batch;
    while ((batch = pm_otlp_queue_take(sender->queue)) != NULL) {
        if (atomic_load(&sender->break_off))
            lose(sender, batch);
        else
            handle(sender, batch);
    }
    atomic_store(&sender->ended, true);
    return NULL;
}

static int set_options(struct pm_otlp_sender *sender)
{
    const struct curl *curl = &sender->curl;
    CURL *handle = sender->handle = curl->easy_init();
    if (handle == NULL)
        return -PM_ENOMEM;
    (void)curl->easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
    (void)curl->easy_setopt(handle, CURLOPT_POST, 1L);
    (void)curl->easy_setopt(handle, CURLOPT_HTTPHEADER, sender->headers);
    (void)curl->easy_setopt(handle, CURLOPT_USERAGENT, "profilemate/" PM_VERSION);
    (void)curl->easy_setopt(handle, CURLOPT_TIMEOUT_MS, (long)PM_OTLP_TIMEOUT_MS);
    (void)curl->easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS, (long)PM_OTLP_TIMEOUT_MS / 2);
    (void)curl->easy_setopt(handle, CURLOPT_FOLLOWLOCATION, 0L);
    (void)curl->easy_setopt(handle, CURLOPT_WRITEFUNCTION, take_answer);
    (void)curl->easy_setopt(handle, CURLOPT_WRITEDATA, sender);
    (void)curl->easy_setopt(handle, CURLOPT_NOPROGRESS, 0L);
    (void)curl->easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, watch);
    (void)curl->easy_setopt(handle, CURLOPT_XFERINFODATA, sender);
    return 0;
}

/* "name=value,name=value" into header lines. */
static void add_headers(struct pm_otlp_sender *sender, const char *text)
{
    char line[1024];
    sender->headers =
        sender->curl.slist_append(sender->headers, "Content-Type: application/x-protobuf");
    while (text != NULL && *text != '\0') {
        const size_t length = strcspn(text, ","), name = strcspn(text, "=");
        if (name > 0 && name < length && length < sizeof(line) - 2 &&
            memchr(text, '\r', length) == NULL && memchr(text, '\n', length) == NULL) {
            snprintf(line, sizeof(line), "%.*s: %.*s", (int)name, text, (int)(length - name - 1),
                     text + name + 1);
            sender->headers = sender->curl.slist_append(sender->headers, line);
        }
        text += length + (text[length] == ',');
    }
}

static bool set_urls(struct pm_otlp_sender *sender, const char *url)
{
    static const char *const paths[] = {
        [PM_OTLP_METRICS] = "/v1/metrics", [PM_OTLP_TRACES] = "/v1/traces"};
    size_t length = strlen(url);
    while (length > 0 && url[length - 1] == '/')
        length--;
    for (size_t i = 0; i < 2; i++)
        if (snprintf(sender->urls[i], sizeof(sender->urls[i]), "%.*s%s", (int)length, url,
                     paths[i]) >= (int)sizeof(sender->urls[i]))
            return false;
    return true;
}

static void sender_free(struct pm_otlp_sender *sender)
{
    if (sender->handle != NULL)
        sender->curl.easy_cleanup(sender->handle);
    if (sender->headers != NULL)
        sender->curl.slist_free_all(sender->headers);
    free(sender);
}

int pm_otlp_sender_start(struct pm_otlp_sender **ret_sender, struct pm_otlp_queue *queue,
                         const struct pm_otlp_options *options, struct pm_error *err)
{
    sigset_t all, old;
    struct pm_otlp_sender *sender = calloc(1, sizeof(*sender));
    if (sender == NULL)
        return pm_error_set(err, -PM_ENOMEM, "out of memory");
    sender->queue = queue;
    int rc = load(&sender->curl, err);
    if (rc == 0 && !set_urls(sender, options->url))
        rc = pm_error_set(err, -PM_EINVALID, "the address %.60s… is too long", options->url);
    if (rc == 0) {
        (void)sender->curl.global_init(CURL_GLOBAL_DEFAULT);
        add_headers(sender, options->headers);
        rc = set_options(sender);
    }
    if (rc == 0) {
        sigfillset(&all);
        (void)pthread_sigmask(SIG_BLOCK, &all, &old);
        if (pthread_create(&sender->thread, NULL, send_main, sender) != 0)
            rc = pm_error_set(err, -PM_ENOMEM, "there is no thread to be had");
        (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    if (rc != 0)
        sender_free(sender);
    else
        *ret_sender = sender;
    return rc;
}

void pm_otlp_sender_stop(struct pm_otlp_sender *sender, unsigned limit_ms)
{
    const struct timespec nap = {.tv_nsec = 5000000};
    for (unsigned waited_ms = 0; waited_ms < limit_ms && !atomic_load(&sender->ended);
         waited_ms += 5)
        (void)nanosleep(&nap, NULL);
    atomic_store(&sender->break_off, true);
    pthread_join(sender->thread, NULL);
    sender_free(sender);
}

#else

int pm_otlp_sender_start(struct pm_otlp_sender **ret_sender, struct pm_otlp_queue *queue,
                         const struct pm_otlp_options *options, struct pm_error *err)
{
    (void)ret_sender, (void)queue, (void)options;
    return pm_error_set(err, -PM_EUNSUPPORTED,
                        "this profilemate was built without libcurl, which --otlp needs");
}

void pm_otlp_sender_stop(struct pm_otlp_sender *sender, unsigned limit_ms)
{
    (void)sender, (void)limit_ms;
}
#endif
