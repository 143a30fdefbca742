#!/usr/bin/env bash
# Measure on the first GPU, in at most 8 minutes: parts that do not need each other, each stopped at a limit of its own. Data and
# graphs are generated on the spot. A part that fails or is stopped says so, and the others go on.
#
#     benchmarks/gpu.sh [FILE]                 writes into FILE (benchmarks/results-gpu.md)
#     DEVICE=cpu benchmarks/gpu.sh FILE        the same parts on tiny sizes, to see that they run
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
output=${1:-$here/results-gpu.md}
device=${DEVICE:-cuda}
python=${PYTHON:-python}
failed=0

part() { # seconds, script, arguments...
    local limit=$(($1 * patience)) begun=$SECONDS
    shift
    timeout --kill-after=5 "$limit" "$python" "$here/$1" --output "$output" "${@:2}" > /dev/null
    local status=$?
    [ $status -ne 0 ] && failed=1
    echo "$* : exit status $status, $((SECONDS - begun)) s of $limit"
}

patience=1 size=() steps=8 sizes=(1e6 1e7 1e8) small=() models=()
if [ "$device" = cpu ]; then
    patience=6 # a processor compiles for minutes
    size=(--users 60 --items 40 --interactions 400 --semantic_dim 16 --batch 64) steps=2 sizes=(4e3 8e3)
    small=(--candidates 45 --widths 8 --masked 10 --square 16) models=(--models LightGCN LightGCN_RLMRecCon)
fi

part 170 epochs.py --device "$device" --amp --rounds 3 --steps "$steps" "${size[@]}" "${models[@]}"
part 60 operations.py --device "$device" --rounds 3 "${size[@]}" "${small[@]}"
part 40 profile_step.py --device "$device" --steps "$steps" "${size[@]}"
part 90 growth.py --device "$device" --only_propagation --sizes "${sizes[@]}"
part 50 compiled.py --device "$device" --rounds 3 --steps "$steps" "${size[@]}"
part 50 compiled.py --device "$device" --rounds 3 --steps "$steps" --mode reduce-overhead "${size[@]}"
exit $failed
