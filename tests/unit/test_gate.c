/* The gate: a table of command lines, with what each must give, and the order of the rules. */
#include "hook/gate.c"

#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#define MAX_WORDS 16

struct row {
    bool serves;
    const char *argv[MAX_WORDS];
};

/* clang-format off */
static const struct row rows[] = {
    /* servers as modules */
    {true, {"python", "-m", "vllm.entrypoints.openai.api_server", "--model", "m"}},
    {true, {"python", "-m", "vllm.entrypoints.openai.api_server"}},
    {true, {"/usr/bin/python3.12", "-mvllm.entrypoints.openai.api_server", "--model=m"}},
    {true, {"python", "-um", "vllm.entrypoints.openai.api_server"}},
    {true, {"python", "-umvllm.entrypoints.openai.api_server"}},
    {true, {"python", "-X", "importtime", "-m", "vllm.entrypoints.api_server"}},
    {true, {"python", "-Xdev", "-W", "ignore", "-m", "vllm.entrypoints.grpc_server"}},
    {true, {"python", "-Werror", "-OO", "-B", "-m", "vllm.entrypoints.openai.run_batch", "-i", "a"}},
    {true, {"python", "-bW", "ignore", "-m", "vllm.entrypoints.openai.api_server"}},
    {true, {"python", "--check-hash-based-pycs", "never", "-m", "vllm.entrypoints.api_server"}},
    {true, {"python", "-m", "vllm.benchmarks.latency", "--model", "m"}},
    {true, {"python", "-m", "vllm.benchmarks.throughput", "--model=m"}},
    {true, {"python", "-m", "vllm.entrypoints.cli.main", "serve", "m"}},
    {true, {"python", "/x/site-packages/vllm/entrypoints/openai/api_server.py", "--model", "m"}},
    {true, {"python", "vllm/entrypoints/openai/api_server.py"}},
    {true, {"python", "/x/vllm/entrypoints/cli/main.py", "serve", "m"}},
    {false, {"python", "/x/vllm/entrypoints/cli/main.py", "chat"}},
    {false, {"python", "/x/vllm/entrypoints/cli/serve.py", "serve", "m"}},
    {false, {"python", "-m", "vllm.entrypoints.openai.api_server", "--help"}},
    {false, {"python", "-m", "vllm.entrypoints.openai.api_server", "-h"}},
    {false, {"python", "-m", "vllm.entrypoints.cli.main", "chat"}},
    {false, {"python", "-m", "vllm.entrypoints.cli.main"}},
    {false, {"python", "-m", "vllm.benchmarks.latency"}},
    {false, {"python", "-m", "vllm.benchmarks.serve", "--model", "m"}},
    {false, {"python", "-m", "vllm.benchmarks.sweep.serve", "--model", "m"}},
    {true, {"python", "-m", "vllm.benchmarks.served", "--model", "m"}},
    {false, {"python", "-m", "vllm.collect_env"}},
    {false, {"python", "-m", "vllm.model_executor.models.registry"}},
    {false, {"python", "-m", "vllmx.entrypoints.openai.api_server", "--model", "m"}},
    {false, {"python", "-m", "my.vllm.entrypoints.openai.api_server"}},
    {false, {"python", "/x/myvllm/entrypoints/openai/api_server.py"}},
    {false, {"python", "/x/vllm/entrypoints/cli/serve.py"}},

    /* the vllm command */
    {true, {"/venv/bin/python", "/venv/bin/vllm", "serve", "m", "--port", "8000"}},
    {true, {"/venv/bin/python3", "/venv/bin/vllm", "serve", "--config", "c.yaml"}},
    {true, {"python", "vllm", "serve"}},
    {true, {"python", "/venv/bin/vllm", "--omni", "serve", "m"}},
    {true, {"python", "/venv/bin/vllm", "serve", "m", "--", "--help"}},
    {true, {"python", "/venv/bin/vllm", "run-batch", "-i", "in.jsonl", "-o", "out", "--model", "m"}},
    {true, {"python", "/venv/bin/vllm", "bench", "latency", "--model", "m"}},
    {true, {"python", "/venv/bin/vllm", "bench", "throughput", "--model", "m"}},
    {true, {"python", "-u", "--", "/venv/bin/vllm", "serve", "m"}},
    {false, {"python", "/venv/bin/vllm", "bench", "serve", "--model", "m"}},
    {false, {"python", "/venv/bin/vllm", "bench", "sweep", "serve"}},
    {false, {"python", "/venv/bin/vllm", "bench", "startup", "--model", "m"}},
    {false, {"python", "/venv/bin/vllm", "bench"}},
    {false, {"python", "/venv/bin/vllm", "bench", "latency", "--help"}},
    {false, {"python", "/venv/bin/vllm", "chat"}},
    {false, {"python", "/venv/bin/vllm", "complete", "--model-name", "m"}},
    {false, {"python", "/venv/bin/vllm", "collect-env"}},
    {false, {"python", "/venv/bin/vllm", "--help"}},
    {false, {"python", "/venv/bin/vllm", "serve", "--help"}},
    {false, {"python", "/venv/bin/vllm", "serve", "--help=ModelConfig"}},
    {false, {"python", "/venv/bin/vllm", "-v"}},
    {false, {"python", "/venv/bin/vllm", "--version"}},
    {false, {"python", "/venv/bin/vllm"}},
    {false, {"python", "/venv/bin/vllm-doctor", "serve"}},

    /* run by another Python program in its own process */
    {true, {"python", "-m", "cProfile", "-o", "p", "-m", "vllm.entrypoints.openai.api_server"}},
    {true, {"python", "-m", "debugpy", "--listen", "5678", "-m", "vllm.entrypoints.openai.api_server"}},
    {true, {"python", "/venv/bin/coverage", "run", "/venv/bin/vllm", "serve", "m"}},
    {true, {"python", "/venv/bin/viztracer", "-mvllm.entrypoints.openai.api_server"}},
    {false, {"python", "-m", "cProfile", "-o", "p", "train.py", "--model", "m"}},
    {false, {"python", "-m", "pdb", "/venv/bin/vllm", "chat"}},
    {true, {"python", "-m", "cProfile", "/x/vllm/entrypoints/cli/main.py", "serve", "m"}},
    {true, {"python", "-m", "pdb", "vllm/entrypoints/openai/api_server.py", "--model", "m"}},
    {false, {"python", "-m", "pdb", "vllm/entrypoints/cli/main.py", "chat"}},

    /* launchers: their children have command lines of their own */
    {false, {"python", "/venv/bin/torchrun", "--nproc-per-node", "2", "script.py", "--model", "m"}},
    {false, {"python", "-m", "torch.distributed.run", "-m", "vllm.entrypoints.openai.api_server"}},
    {false, {"python", "/usr/bin/uv", "run", "vllm", "serve", "m"}},
    {false, {"python", "/venv/bin/ray", "start", "--head"}},

    /* everything else */
    {false, {"python"}},
    {false, {"python", "-"}},
    {false, {"python", "-c", "pass"}},
    {false, {"python", "-c", "import vllm", "serve", "--model", "m"}},
    {false, {"python", "-cimport vllm"}},
    {false, {"python", "-c", "from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=5)", "--multiprocessing-fork"}},
    {false, {"python", "train.py", "--model", "m"}},
    {false, {"python", "llm_script.py"}},
    {false, {"python", "-m", "pip", "install", "vllm"}},
    {false, {"python", "/venv/bin/pip", "install", "vllm"}},
    {false, {"python", "-m", "pytest", "-m", "vllm.entrypoints.openai.api_server"}},
    {false, {"python", "-m"}},
    {false, {"python", "-X"}},
    {false, {"python", "--version"}},
    {false, {"python", "-V"}},
    {false, {"python", "--help-env"}},
    {false, {NULL}},
};
/* clang-format on */

static size_t count(const struct row *row)
{
    size_t argc = 0;
    while (argc < MAX_WORDS && row->argv[argc])
        argc++;
    return argc;
}

static void test_command_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *row = &rows[i];
        bool serves = pm_gate_command_serves(count(row), row->argv);
        if (serves != row->serves) {
            print_error("row %zu:", i);
            for (size_t word = 0; word < count(row); word++)
                print_error(" %s", row->argv[word]);
            fail_msg(": got %d, expected %d", serves, row->serves);
        }
    }
}

/* Switch before command before session, and off before everything. */
static void test_order_of_rules(void **state)
{
    (void)state;
    static const char *const server[] = {"python", "-m", "vllm.entrypoints.openai.api_server"};
    static const char *const other[] = {"python", "-c", "pass"};
    static const struct {
        bool serves;
        int enable;
        bool session;
        enum pm_gate_reason reason;
    } cases[] = {
        {true, 0, true, PM_GATE_SWITCH_OFF}, {false, 0, true, PM_GATE_SWITCH_OFF},
        {true, 1, false, PM_GATE_SWITCH_ON}, {false, 1, false, PM_GATE_SWITCH_ON},
        {true, -1, true, PM_GATE_COMMAND},   {true, -1, false, PM_GATE_COMMAND},
        {false, -1, true, PM_GATE_SESSION},  {false, -1, false, PM_GATE_NOTHING},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct pm_gate_verdict verdict = pm_gate_decide(&(struct pm_gate_input){
            .argc = 3,
            .argv = cases[i].serves ? server : other,
            .enable = cases[i].enable,
            .session = cases[i].session,
        });
        assert_int_equal(verdict.reason, cases[i].reason);
        assert_int_equal(verdict.active, cases[i].reason >= PM_GATE_SWITCH_ON);
        if (cases[i].enable != 0)
            assert_int_equal(verdict.server, cases[i].serves);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_command_table),
        cmocka_unit_test(test_order_of_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
