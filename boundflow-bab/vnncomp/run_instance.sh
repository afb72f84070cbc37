#!/bin/sh
# run_instance.sh VERSION CATEGORY ONNX VNNLIB RESULTS TIMEOUT: writes sat, unsat, unknown or timeout to RESULTS.
# BOUNDFLOW names another program than the one that install_tool.sh installed.
set -eu
[ "${1:-}" = v1 ] || { echo "run_instance.sh: expected version v1, got '${1:-}'" >&2; exit 1; }
[ $# -ge 6 ] || { echo "usage: run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS TIMEOUT" >&2; exit 1; }
root=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)
exec "${BOUNDFLOW:-$root/.venv-vnncomp/bin/boundflow}" verify "$3" "$4" --vnncomp --results-file "$5" --timeout "$6"
