#!/usr/bin/env bash
# Makes the pictures of this folder anew: a real server, real requests, and the terminal as it shows the report.
#
# usage: docs/images/make.sh
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
cd "$here"
venv=$(scripts/setup-vllm)
exec "$venv/bin/python" docs/images/make.py
