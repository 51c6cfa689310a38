#!/usr/bin/env bash
# usage: run.sh TINY_IMAGENET_100 CIFAR10 [OUTPUT] [SEED]
# Trains four methods at one budget, judges them, writes results.md and report.html to OUTPUT.
# Can be started again after a stop: finished runs are kept, a broken-off one is resumed.
set -euo pipefail
data=$1 cifar10=$2 output=${3:-runs/tiny-imagenet-100} seed=${4:-0}
here=$(cd "$(dirname "$0")" && pwd)
runs=()
for objective in rince supcon-out supcon-coarse cross-entropy; do
  run=$output/$objective-seed$seed
  runs+=("$run")
  if [ -e "$run/about.json" ]; then continue; fi
  if [ -e "$run/last.ckpt" ]; then rince train --resume "$run"; continue; fi
  lr=0.25; [ "$objective" = cross-entropy ] && lr=0.4
  rince train "$data" --config "$here/recipe.yaml" --objective "$objective" --optim.lr "$lr" \
    --seed "$seed" --output "$output" --name "$(basename "$run")"
done
rince evaluate "${runs[@]}" --ood "near=$data/other" --ood "cifar10=$cifar10/test" --skip-done
rince compare "${runs[@]}" -o "$output/report.html" --markdown "$output/results.md" \
  --title "Tiny-ImageNet-100, seed $seed"
