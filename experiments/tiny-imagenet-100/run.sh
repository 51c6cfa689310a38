#!/usr/bin/env bash
# usage: run.sh TINY_IMAGENET_100 CIFAR10 [OUTPUT] [SEED]
# Trains four methods at one budget, judges them, writes results.md and report.html to OUTPUT.
# Can be started again after a stop: finished runs are kept, a broken-off one is resumed.
# JOBS=2 OMP_NUM_THREADS=1 trains two methods at a time, a core each.
set -euo pipefail
data=$1 cifar10=$2 output=${3:-runs/tiny-imagenet-100} seed=${4:-0}
recipe=$(cd "$(dirname "$0")" && pwd)/recipe.yaml
methods=(rince supcon-out supcon-coarse cross-entropy)

train_one() {
  run=$output/$1-seed$seed
  if [ -e "$run/about.json" ]; then return; fi
  if [ -e "$run/last.ckpt" ]; then rince train --resume "$run"; return; fi
  lr=0.25; [ "$1" = cross-entropy ] && lr=0.4
  rince train "$data" --config "$recipe" --objective "$1" --optim.lr "$lr" \
    --seed "$seed" --output "$output" --name "$1-seed$seed"
}
export -f train_one
export data output seed recipe
printf '%s\n' "${methods[@]}" | xargs -P "${JOBS:-1}" -I {} bash -c 'train_one {}'

runs=("${methods[@]/#/$output/}")
runs=("${runs[@]/%/-seed$seed}")
rince evaluate "${runs[@]}" --ood "near=$data/other" --ood "cifar10=$cifar10/test" --skip-done
rince compare "${runs[@]}" -o "$output/report.html" --markdown "$output/results.md" \
  --title "Tiny-ImageNet-100, seed $seed"
