#!/bin/bash
# Prints the commands behind this folder, one a line, in the order in which they depend on each other:
#
#     bash results/steam-tuned/commands.sh bases | xargs -P 2 -d '\n' -n 1 sh -c
#     bash results/steam-tuned/commands.sh aligned | xargs -P 2 -d '\n' -n 1 sh -c
#     bash results/steam-tuned/commands.sh runs | xargs -P 2 -d '\n' -n 1 sh -c
#
# Run from the top of the repository, with dataset/steam-text/ in place and OMP_NUM_THREADS=1. What is there already is
# not made again: a search goes on with the trials it lacks, a run that has its file is left out (benchmarks/searches.py
# --runs names those to remove after a search has found something better). More arguments (--data_path=FOLDER) are passed on.
set -eu
part=${1:-}
[ $# -eq 0 ] || shift
here=results/steam-tuned
common="--dataset=steam-text --show_progress=False $*"
fixed="--defaults=published --eval_protocol=paper --tuned=False --train_batch_size=4096 --epochs=3000 --seed=2023 --leakage=warn"
backbones="LightGCN SGL SimGCL GCCF DCCF AutoCF"

# Model, settings files, further settings, space.
search() {
  echo "python run_recbole_rlmrec.py --model=$1 ${2:+--config_files='$2'} $common $fixed $3 --tune=$4 --max_evals=6" \
    "--tune_output=$here"
}

structure() {
  case $1 in
    DCCF) echo --item_contrast_divisor=items ;;
    AutoCF) echo --decoder_rows=exact ;;
    BPR) echo --embedding_size=32 ;;
  esac
}

published() { [ "$1" = BPR ] || echo "properties/tuned/steam/$1.yaml"; }

case $part in
  bases)
    for base in $backbones; do
      search "$base" "$(published "$base")" "$(structure "$base")" "properties/tune/$base.hyper"
    done
    search BPR "" "$(structure BPR)" properties/tune/GeneralRecommender.hyper
    search AlphaRec "" "" properties/tune/AlphaRec.hyper
    for base in LightGCN SGL; do
      search "${base}_KAR" "$(published "$base")" "" "properties/tune/${base}_KAR.hyper"
    done
    ;;
  aligned)
    for ending in Con Gen; do
      for base in $backbones $([ $ending = Gen ] || echo BPR); do
        files="$(published "$base") $here/steam-text/$base/best.yaml"
        search "${base}_RLMRec$ending" "${files# }" "$(structure "$base")" "$here/spaces/$ending.hyper"
      done
    done
    ;;
  runs)
    for seed in 2023 2024 2025; do
      for folder in "$here"/steam-text/*/; do
        model=$(basename "$folder")
        result=$here/runs/$model-$seed.json
        [ -f "$result" ] || echo "python run_recbole_rlmrec.py --model=$model --defaults=published $common --config_files=${folder}best.yaml" \
          "--seed=$seed --checkpoint_dir=saved/steam-tuned/$model-$seed --result_file=$result"
      done
    done
    ;;
  *)
    echo "'$part': expected bases, aligned or runs" >&2
    exit 2
    ;;
esac
