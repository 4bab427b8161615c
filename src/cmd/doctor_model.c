/*
 * doctor, the model and the front end of a command: whether the model is of a kind that vLLM does
 * not run, so that there will be nothing to profile, and whether vLLM's Rust front end serves,
 * which has no hooks. Looks at config.json in the model's folder, or in the local cache of Hugging
 * Face; asks no network.
 */
#include "cmd/doctor.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "view/common.h"

#define CONFIG_MAX (1u << 20)

/* Encoder-decoder models that vLLM's engine does not run, from its registry (vllm/model_executor/
 * models/registry.py): never known to it, taken out with the older engine, or left to a plug-in. */
static const struct {
    const char *architecture, *since;
    bool plugin;
} unsupported[] = {
    {"T5ForConditionalGeneration", NULL, false},
    {"MT5ForConditionalGeneration", NULL, false},
    {"UMT5ForConditionalGeneration", NULL, false},
    {"LongT5ForConditionalGeneration", NULL, false},
    {"SwitchTransformersForConditionalGeneration", NULL, false},
    {"PegasusForConditionalGeneration", NULL, false},
    {"MarianMTModel", NULL, false},
    {"M2M100ForConditionalGeneration", NULL, false},
    {"LEDForConditionalGeneration", NULL, false},
    {"EncoderDecoderModel", NULL, false},
    {"VisionEncoderDecoderModel", NULL, false},
    {"SpeechEncoderDecoderModel", NULL, false},
    {"BartModel", "0.10.2", true},
    {"BartForConditionalGeneration", "0.10.2", true},
    {"MBartForConditionalGeneration", "0.10.2", true},
    {"Florence2ForConditionalGeneration", "0.10.2", true},
    {"DonutForConditionalGeneration", "0.10.2", false},
    {"MllamaForConditionalGeneration", "0.10.2", false},
};

/* The word that names the model; NULL where there is none. */
static const char *model_of(const struct pm_subject *subject)
{
    for (size_t i = 0; i < subject->count; i++) {
        const char *word = subject->command[i];
        const char *next = i + 1 < subject->count ? subject->command[i + 1] : NULL;
        if (strncmp(word, "--model=", 8) == 0)
            return word + 8;
        if ((strcmp(word, "--model") == 0 || strcmp(word, "serve") == 0) && next != NULL &&
            next[0] != '-')
            return next;
    }
    return NULL;
}

/* A file as text, malloc'ed; NULL where it is none, or too long. */
static char *read_text(const char *path, size_t *ret_bytes)
{
    struct stat st;
    char *text = NULL;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size < (off_t)CONFIG_MAX)
        text = malloc((size_t)st.st_size + 1);
    ssize_t got = text != NULL ? read(fd, text, (size_t)st.st_size) : -1;
    close(fd);
    if (got < 0) {
        free(text);
        return NULL;
    }
    text[got] = '\0';
    *ret_bytes = (size_t)got;
    return text;
}

/* Where the Hugging Face libraries keep what they have fetched. */
static bool cache_folder(char *out, size_t size)
{
    const char *hub = getenv("HF_HUB_CACHE"), *home = getenv("HF_HOME"), *user = getenv("HOME");
    int n = hub != NULL    ? snprintf(out, size, "%s", hub)
            : home != NULL ? snprintf(out, size, "%s/hub", home)
            : user != NULL ? snprintf(out, size, "%s/.cache/huggingface/hub", user)
                           : -1;
    return n > 0 && (size_t)n < size;
}

/* The text of the model's config.json; NULL where it is not on this machine. */
static char *read_config(const char *model, size_t *ret_bytes)
{
    char path[PATH_MAX], cache[PATH_MAX / 2], folder[256];
    const char *slash = strchr(model, '/');
    int n = snprintf(path, sizeof(path), "%s/config.json", model);
    char *text = n > 0 && (size_t)n < sizeof(path) ? read_text(path, ret_bytes) : NULL;
    if (text != NULL || slash == NULL || strchr(slash + 1, '/') != NULL ||
        !cache_folder(cache, sizeof(cache)))
        return text;
    n = snprintf(folder, sizeof(folder), "models--%.*s--%s", (int)(slash - model), model,
                 slash + 1);
    if (n < 0 || (size_t)n >= sizeof(folder))
        return NULL;
    size_t bytes;
    snprintf(path, sizeof(path), "%s/%s/refs/main", cache, folder);
    char *revision = read_text(path, &bytes);
    if (revision == NULL)
        return NULL;
    revision[strcspn(revision, " \r\n")] = '\0';
    n = snprintf(path, sizeof(path), "%s/%s/snapshots/%s/config.json", cache, folder, revision);
    free(revision);
    return n > 0 && (size_t)n < sizeof(path) ? read_text(path, ret_bytes) : NULL;
}

/* The first of config.json's `architectures`. */
struct wanted {
    char architecture[96];
};

static void take_member(const char *key, size_t key_bytes, const char *value, size_t value_bytes,
                        void *arg)
{
    struct wanted *wanted = arg;
    if (key_bytes != strlen("architectures") || memcmp(key, "architectures", key_bytes) != 0)
        return;
    const char *begin = memchr(value, '"', value_bytes);
    const char *end =
        begin != NULL ? memchr(begin + 1, '"', value_bytes - (size_t)(begin + 1 - value)) : NULL;
    if (end != NULL && (size_t)(end - begin) <= sizeof(wanted->architecture))
        snprintf(wanted->architecture, sizeof(wanted->architecture), "%.*s", (int)(end - begin - 1),
                 begin + 1);
}

static void tell(struct pm_findings *findings, const char *model, size_t i)
{
    const char *architecture = unsupported[i].architecture;
    if (unsupported[i].plugin)
        pm_find(findings, PM_MARK_WARNING, "model-unsupported",
                "install the plug-in https://github.com/vllm-project/bart-plugin into vLLM's "
                "environment",
                "%s is a %s: vLLM ran those up to %s, and since then with a plug-in only", model,
                architecture, unsupported[i].since);
    else if (unsupported[i].since != NULL)
        pm_find(findings, PM_MARK_PROBLEM, "model-unsupported", "choose another model",
                "%s is a %s: vLLM ran those up to %s, none that ProfileMate knows does", model,
                architecture, unsupported[i].since);
    else
        pm_find(findings, PM_MARK_PROBLEM, "model-unsupported", "choose another model",
                "%s is a %s: no vLLM that ProfileMate knows runs those; of encoder-decoder "
                "models it runs Whisper and its like",
                model, architecture);
}

void pm_doctor_model(struct pm_findings *findings, const struct pm_subject *subject)
{
    const char *model = model_of(subject);
    size_t bytes = 0;
    char *config = model != NULL ? read_config(model, &bytes) : NULL;
    struct wanted wanted = {""};
    if (config == NULL)
        return;
    findings->section = "Model";
    if (pm_json_members(config, bytes, take_member, &wanted) != 0)
        pm_find(findings, PM_MARK_WARNING, "model-config", "see whether vLLM can read it",
                "the config.json of %s is no JSON object", model);
    for (size_t i = 0; i < sizeof(unsupported) / sizeof(unsupported[0]); i++)
        if (strcmp(wanted.architecture, unsupported[i].architecture) == 0)
            tell(findings, model, i);
    free(config);
}

void pm_doctor_frontend(struct pm_findings *findings)
{
    const char *rust = getenv("VLLM_USE_RUST_FRONTEND");
    if (rust == NULL || strtol(rust, NULL, 10) == 0)
        return;
    findings->section = "Front end";
    pm_find(findings, PM_MARK_NOTE, "frontend-rust", NULL,
            "VLLM_USE_RUST_FRONTEND is set: where vLLM's Rust front end serves, tokenization, "
            "detokenization and admission are not seen; all the rest is");
}
