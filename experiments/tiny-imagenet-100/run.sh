#!/usr/bin/env bash
# usage: run.sh TINY_IMAGENET_100 CIFAR10 [OUTPUT] [SEED] [more options for every run]
# Trains the methods of this study at one budget, evaluates them, writes results.md and report.html.
# Can be started again after a stop. JOBS=2 OMP_NUM_THREADS=1 trains two at a time, a core each.
# METHODS="rince-out-in supcon-out" trains only these.
set -euo pipefail
data=$1 cifar10=$2 output=${3:-runs/tiny-imagenet-100} seed=${4:-0}
shift $(($# < 4 ? $# : 4))
. "$(dirname "$0")/../methods.sh"
recipe=$(cd "$(dirname "$0")" && pwd)/recipe.yaml
wanted() { [ -z "${METHODS:-}" ] || [[ " $METHODS " == *" $1 "* ]]; }
one() { if wanted "$1"; then method "$@"; fi; }
one rince-out-in --objective rince "$@"
one supcon-out --objective supcon-out "$@"
one cross-entropy --objective cross-entropy --optim.lr 0.4 "$@"
one rince-out --objective rince --loss.variant out "$@"
one supcon-coarse --objective supcon-coarse "$@"
one supcon-two-heads --objective supcon-two-heads "$@"
one rince-text --objective rince --ranks.scores text --ranks.top_k "[4]" "$@"
one rince-wordnet --objective rince --ranks.scores wordnet --ranks.top_k "[4]" "$@"
# The control for the superclasses: every class in a wrong one.
one rince-shuffled --objective rince --ranks.move_classes 1 "$@"
one rince-in --objective rince --loss.variant in "$@"
one rince-balanced --objective rince --batches.images_per_class 4 \
  --batches.classes_per_superclass 4 "$@"
one cross-entropy-smoothed --objective cross-entropy --loss.smoothing 0.2 --optim.lr 0.4 "$@"
finish "Tiny-ImageNet-100" --ood "near=$data/other" --ood "cifar10=$cifar10/test"
