#!/usr/bin/env bash
# usage: run.sh IMAGENET100 [OUTPUT] [SEED] [more options for every run]
# The methods of the paper's study with noisy scores, then one table and report. NOT RUN by us.
# Can be started again after a stop. Several GPUs: LAUNCH="torchrun --nproc-per-node 8 -m rince"
# (and batch_size / 8, which is images a process).
set -euo pipefail
data=$1 output=${2:-runs/imagenet100} seed=${3:-0}
shift $(($# < 3 ? $# : 3))
. "$(dirname "$0")/../methods.sh"
recipe=$(cd "$(dirname "$0")" && pwd)/paper.yaml
method rince-out-in --objective rince "$@"
method rince-in --objective rince --loss.variant in "$@"
method rince-out --objective rince --loss.variant out "$@"
method supcon-out --objective supcon-out --optim.lr 0.325 "$@"
method supcon-in --objective supcon-in "$@"
method cross-entropy --objective cross-entropy "$@"
finish "ImageNet-100, ranks from class names" ${OOD:+--ood "$OOD"}
