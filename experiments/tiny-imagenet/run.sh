#!/usr/bin/env bash
# usage: run.sh TINY_IMAGENET [OUTPUT] [SEED] [more options for every run]
# Tiny-ImageNet-200 at full size, then one table and report. NOT RUN by us. Can be started again
# after a stop. OOD="name=FOLDER" names images of no known class.
set -euo pipefail
data=$1 output=${2:-runs/tiny-imagenet} seed=${3:-0}
shift $(($# < 3 ? $# : 3))
. "$(dirname "$0")/../methods.sh"
recipe=$(cd "$(dirname "$0")" && pwd)/full.yaml
two="--loss.temperatures [0.1,0.225]"
method rince-wordnet --objective rince "$@"
method rince-wordnet-two-ranks --objective rince --ranks.top_k "[4]" $two "$@"
method rince-text --objective rince --ranks.scores text "$@"
method rince-text-in --objective rince --ranks.scores text --loss.variant in "$@"
method supcon-out --objective supcon-out "$@"
method supcon-in --objective supcon-in "$@"
method cross-entropy --objective cross-entropy --optim.lr 0.8 --model.momentum null \
  --model.queue_size 0 "$@"
finish "Tiny-ImageNet-200" ${OOD:+--ood "$OOD"}
