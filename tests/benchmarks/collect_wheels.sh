#!/usr/bin/env bash
# Fill a folder with what on_cuda.sh needs on a machine that has only Python 3.12, torch with CUDA and numpy, and no network:
#     tests/benchmarks/collect_wheels.sh [FOLDER]        (default: the folder wheels beside this script)
# Wheels are compressed again with xz, which takes more than a third off them: the size is printed and must be under 40 MB.
# Not needed for train, evaluate, recommend and bench: scipy, scikit-learn, matplotlib, Pillow, Jinja2, pytorch-wavelets.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
folder=${1:-$here/wheels}
packages=(
  annotated-doc annotated-types beartype filelock hypothesis iniconfig jaxtyping markdown-it-py mdurl packaging pluggy polars
  polars-runtime-32 pydantic pydantic-core pygments pytest PyWavelets PyYAML rich safetensors shellingham sortedcontainers
  typer typing-extensions typing-inspection wadler-lindig
)
mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
platforms=()
for glibc in 1 _2_5 2010 2014 _2_17 _2_24 _2_27 _2_28; do platforms+=(--platform "manylinux${glibc}_x86_64"); done
"${PYTHON:-python3}" -m pip download --quiet --no-deps --only-binary :all: --python-version 3.12 --implementation cp \
  "${platforms[@]}" --constraint "$root/constraints.txt" --dest "$work" "${packages[@]}"
"${PYTHON:-python3}" "$here/wheel_archive.py" pack "$work" "$folder"
