#!/usr/bin/env bash
# Serves with vLLM, with request logs and a window of torch's profiler. All arguments go to `vllm serve`:
#
#   ./start_vllm_with_profiling.sh MODEL --port 8000
#
# Traces are in profiler_output/, or where VLLM_TORCH_PROFILER_DIR says; request logs in request_logs/.
#
#   PROFILE_MODE      light (default), detailed or deep; the variables VLLM_TORCH_PROFILER_… refine it
#   PROFILE_OPTIONS   further options of `profilemate run`, such as "--requests 10:20" or "--every 5m"
#   REQUEST_LOG_DIR   where the request logs go
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
profilemate=$(command -v profilemate || echo "$here/../build/release/bin/profilemate")
read -ra options <<<"${PROFILE_OPTIONS:-}"
exec "$profilemate" run --torch-profile "${PROFILE_MODE:-light}" --request-log "${REQUEST_LOG_DIR:-request_logs}" \
    ${options[@]+"${options[@]}"} -- vllm serve "$@"
