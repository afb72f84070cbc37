#!/bin/sh
# install_tool.sh VERSION: installs BoundFlow for the VNN competition into a virtual environment beside this repository.
set -eu
[ "${1:-}" = v1 ] || { echo "install_tool.sh: expected version v1, got '${1:-}'" >&2; exit 1; }
root=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)
python3 -m venv "$root/.venv-vnncomp"
"$root/.venv-vnncomp/bin/pip" install --quiet onnxruntime "$root/boundflow-core[torch]" "$root/boundflow-interval" \
    "$root/boundflow-onnx" "$root/boundflow-crown" "$root/boundflow-bab"
"$root/.venv-vnncomp/bin/boundflow" verify --help > "$root/.venv-vnncomp/help.txt"
