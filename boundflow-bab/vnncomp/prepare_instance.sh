#!/bin/sh
# prepare_instance.sh VERSION CATEGORY ONNX VNNLIB: says whether there is anything to run; nothing is kept between instances.
set -eu
[ "${1:-}" = v1 ] || { echo "prepare_instance.sh: expected version v1, got '${1:-}'" >&2; exit 1; }
[ $# -ge 4 ] || { echo "usage: prepare_instance.sh v1 CATEGORY ONNX VNNLIB" >&2; exit 1; }
for file in "$3" "$4"; do
    [ -r "$file" ] || { echo "prepare_instance.sh: cannot read $file" >&2; exit 1; }
done
