#!/usr/bin/env bash
# Everything that needs a CUDA device, in ten minutes at most:
#     tests/benchmarks/on_cuda.sh OUT [--device cpu] [--toys FOLDER]
# OUT       folder for the results: a JSON file and logs for each stage, and tables.md at the end. What is done there is not done
#           again: after an interruption call it again with the same folder.
# --device  cuda (default), or cpu: a dry run of every stage with small sizes.
# --toys    Toys_and_Games as `athwe prepare` reads it, or its folder of prepared versions; without it this stage is left out.
# The machine has Python 3.12, torch 2.11 or newer and numpy, and no network. Other packages come from wheels.tar.xz beside this
# script, or in the folder WHEELS, which collect_wheels.sh makes. Without that file the packages must be installed.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out="" device=cuda toys=""
while [ $# -gt 0 ]; do
  case $1 in
    --device) device=${2:?--device needs a value}; shift 2 ;;
    --toys) toys=$(cd "${2:?--toys needs a folder}" && pwd) || exit 2; shift 2 ;;
    -*) sed -n '2,10p' "$0" >&2; exit 2 ;;
    *) out=$1; shift ;;
  esac
done
if [ -z "$out" ]; then sed -n '2,10p' "$0" >&2; exit 2; fi
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2
python=${PYTHON:-python3}
if [[ $python == */* ]]; then python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python"); fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
wheels=${WHEELS:-$here/wheels}
if [ -f "$wheels/wheels.tar.xz" ]; then
  "$python" "$here/wheel_archive.py" unpack "$wheels" "$work/wheels" &&
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$work/site" "$work"/wheels/*.whl || exit 1
fi
export PYTHONPATH=$root:$work/site${PYTHONPATH:+:$PYTHONPATH}
cd "$out" || exit 1

all_done=true
stage() { # stage NAME SECONDS COMMAND...: run a command within a time limit, unless it is done; its result is NAME.json
  local name=$1 limit=$2 code=0 status=done began
  shift 2
  if grep -qs '"status": "done"' "$out/$name.json"; then echo "== $name: done before"; return; fi
  echo "== $name, at most $limit s"
  began=$(date +%s%N)
  timeout --kill-after=10 "$limit" "$@" >"$out/$name.out" 2>"$out/$name.log" || code=$?
  case $code in
    0) ;;
    124 | 137) status="out of time" ;;
    *) status=failed ;;
  esac
  if [ "$status" != done ]; then all_done=false; tail -n 5 "$out/$name.log"; fi
  printf '{"stage": "%s", "status": "%s", "exit_code": %d, "seconds": %d, "limit_seconds": %d, "date": "%s"}\n' "$name" \
    "$status" "$code" "$((($(date +%s%N) - began) / 1000000000))" "$limit" "$(date -u +%Y-%m-%d)" >"$out/$name.json"
}
athwe=("$python" -m athwe_cli)
pytest=("$python" -m pytest -o addopts= --import-mode=importlib -p no:cacheprovider --rootdir "$root" -c "$root/pyproject.toml" -v)

if [ "$device" = cpu ]; then
  marker="not gpu" tests=("$root/tests/cuda/test_step.py") presets=(hm4sr)
  sizes=(--users 200 --items 300 --steps 1 --only "hm4sr packed fp32") many=(--items 2000 --users 1000 --steps 2)
  training=(--batch-targets 256 --epochs 1 --set model.hidden_size=8)
else
  marker="gpu and not slow" presets=(hm4sr athwe) sizes=(--steps 20) many=(--items 1000000) training=()
  tests=("$root"/tests/{cuda,losses/test_residual_kernel.py,test_batch.py})
  tests+=("$root"/tests/training/test_{recorded,no_waiting,compiled}.py)
fi

stage machine 30 "$python" "$here/cuda_machine.py" "$device"
export CUBLAS_WORKSPACE_CONFIG=:4096:8 # the test of exact resume needs it before the first product
stage tests 90 "${pytest[@]}" -m "$marker" -W default "${tests[@]}"
unset CUBLAS_WORKSPACE_CONFIG
stage suite 150 "${athwe[@]}" bench --suite --device "$device" --to suite "${sizes[@]}"
if [ -z "$toys" ] && [ "$device" = cpu ]; then
  dataset=demo
  stage prepare 40 "${athwe[@]}" prepare --dataset demo --users 200 --items 150
elif [ -n "$toys" ] && compgen -G "$toys/*/manifest.json" >/dev/null; then
  dataset=$(basename "$toys")
  export ATHWE_PREPARED=${toys%/*}
elif [ -n "$toys" ]; then
  dataset=$(basename "$toys")
  stage prepare 40 "${athwe[@]}" prepare --dataset "$dataset" --data "${toys%/*}"
fi
for preset in "${presets[@]}"; do
  [ -n "${dataset:-}" ] || continue
  begin=(--dataset "$dataset" --preset "$preset" --name on-cuda --device "$device" "${training[@]}")
  if [ -d "runs/$dataset/$preset/on-cuda" ]; then begin=(--resume "$dataset/$preset/on-cuda"); fi
  stage "train_$preset" 110 "${athwe[@]}" train "${begin[@]}" --runs runs --json
done
stage million 50 "$python" "$here/million_items.py" "${many[@]}" --device "$device"

"$python" "$here/cuda_tables.py" "$out" | tee "$out/tables.md"
$all_done
