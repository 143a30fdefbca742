#!/usr/bin/env bash
# By hand: the whole suite and README's training with several Pythons and libraries, each in a virtual environment of its own.
#
#     tests/matrix.sh [STACK...]        such as: tests/matrix.sh python3.11-oldest python3.13
#
# A stack is an interpreter on the PATH, with what pip takes for it by itself; with -oldest, with the oldest that setup.cfg
# admits; with -ci, with what CI installs. PyTorch's builds with CUDA take gigabytes. Each stack prints one line, which also goes
# to results/python/matrix.tsv, in place of the stack's former line: date, versions, seconds of installation, training and
# tests, test Recall@20 and NDCG@20 of the aligned model (one thread), tests.
set -uo pipefail
cd "$(dirname "$0")/.."
table=results/python/matrix.tsv
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONDONTWRITEBYTECODE

run_stack() { # stack
    local stack=$1 interpreter=${1%%-*} python="$work/$1/bin/python" constraints=()
    case $stack in
        *-oldest) constraints=(--constraint .ci/oldest.txt torch==2.4.0) ;;
        *-ci) constraints=(--constraint .ci/newest.txt) ;;
    esac
    local begun=$SECONDS
    "$interpreter" -m venv "$work/$stack" || return 1
    "$python" -m pip install --quiet "${constraints[@]}" --editable '.[test]' || return 1
    "$python" -m pip check || return 1
    local installed=$((SECONDS - begun))
    OMP_NUM_THREADS=1 "$python" run_recbole_rlmrec.py --model=LightGCN_RLMRecCon --dataset=ml-100k --checkpoint_dir="$work/saved" \
        --result_file="$work/$stack.json" > "$work/$stack.log" 2>&1 || { tail -n 20 "$work/$stack.log"; return 1; }
    local trained=$((SECONDS - begun - installed))
    "$python" -m pytest -q -n 2 --dist worksteal > "$work/$stack.tests" 2>&1
    local tests=$(tail -n 1 "$work/$stack.tests" | sed 's/ in .*//') tested=$((SECONDS - begun - installed - trained))
    grep '^FAILED\|^ERROR' "$work/$stack.tests" >&2
    "$python" - "$stack" "$work/$stack.json" "$installed" "$trained" "$tested" "$tests" <<'PYTHON'
import datetime, importlib.metadata, json, platform, sys
stack, result, *figures = sys.argv[1:]
names = "torch", "numpy", "pandas", "scipy", "scikit-learn", "recbole", "ray"
versions = [f"{name} {importlib.metadata.version(name)}" for name in names]
aligned = json.load(open(result))["aligned"]["test"]
print(stack, datetime.date.today(), platform.python_version(), ", ".join(versions), *figures[:3],
      *(f"{aligned[metric]:.4f}" for metric in ("recall@20", "ndcg@20")), figures[3], sep="\t")
PYTHON
}

mkdir -p "$(dirname "$table")"
for stack in "${@:-python3}"; do
    if line=$(run_stack "$stack"); then
        line=$(tail -n 1 <<< "$line")
        { grep -v "^$stack	" "$table" 2> /dev/null; echo "$line"; } > "$work/table"
        mv "$work/table" "$table"
        echo "$line"
    else
        echo "$line"
        echo "$stack: failed" >&2
    fi
done
