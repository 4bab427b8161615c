#!/usr/bin/env bash
# Serves with vLLM, with a line of JSON per finished request, a file per task. All arguments go to `vllm serve`:
#
#   ./start_vllm_with_per_request_logging.sh MODEL --port 8000
#
#   REQUEST_LOG_DIR   where the logs go (default: request_logs/)
#   PROFILE_OPTIONS   further options of `profilemate run`, such as "--task nightly"
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
profilemate=$(command -v profilemate || echo "$here/../build/release/bin/profilemate")
read -ra options <<<"${PROFILE_OPTIONS:-}"
exec "$profilemate" run --request-log "${REQUEST_LOG_DIR:-request_logs}" ${options[@]+"${options[@]}"} -- vllm serve "$@"
