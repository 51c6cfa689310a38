#!/usr/bin/env bash
# usage: run.sh [OUTPUT] [SEED] [more options for every run]
# All methods of the paper's superclass study on CIFAR-100, then one table and report. NOT RUN by
# us: 18 runs of about a GPU-day each. Can be started again after a stop.
# OOD="tiny=FOLDER" names images of no known class.
set -euo pipefail
data=cifar100 output=${1:-runs/cifar100} seed=${2:-0}
shift $(($# < 2 ? $# : 2))
. "$(dirname "$0")/../methods.sh"
recipe=$(cd "$(dirname "$0")" && pwd)/paper.yaml
in_batch="--model.momentum null --model.queue_size 0"
classifier="--optim.lr 0.8 --epochs 500 $in_batch"
for variant in out-in in out; do
  method "rince-$variant" --objective rince --loss.variant "$variant" "$@"
  method "rince-$variant-exclusive" --objective rince --loss.variant "$variant" \
    --loss.positives exclusive "$@"
done
for objective in supcon-in supcon-out supcon-coarse supcon-sum supcon-two-heads himulcon; do
  method "$objective" --objective "$objective" "$@"
done
method triplet-hierarchical --objective triplet-hierarchical "$@"
method fastap --objective fastap $in_batch "$@"
method cross-entropy --objective cross-entropy $classifier "$@"
method cross-entropy-weak --objective cross-entropy --images.augmentation weak $classifier "$@"
method cross-entropy-smoothed --objective cross-entropy --loss.smoothing 0.2 $classifier "$@"
method cross-entropy-two-heads --objective cross-entropy-two-heads $classifier "$@"
finish "CIFAR-100 with superclasses" ${OOD:+--ood "$OOD"}
