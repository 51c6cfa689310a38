#!/usr/bin/env bash
# usage: run.sh CLIPS [OUTPUT] [SEED] [more options for every run]
# The methods of the paper's video study on the surveillance clips, one seed; then table and report.
# CLIPS: surveillance-clips.tar unpacked, with clips.csv beside fight/ and ordinary/. Can be started
# again after a stop. JOBS=2 OMP_NUM_THREADS=1 trains two at a time. The content is violent: the
# report shows frames, so keep it to yourself.
set -euo pipefail
data=$1 output=${2:-runs/video} seed=${3:-0}
shift $(($# < 3 ? $# : 3))
. "$(dirname "$0")/../methods.sh"
recipe=$(cd "$(dirname "$0")" && pwd)/surveillance.yaml
method infonce-easy --objective infonce "$@"        # positives: the same clip
method infonce-hard-in --objective supcon-in "$@"   # positives: all of the video
method infonce-hard-out --objective supcon-out "$@"
for variant in in out out-in; do
  method "rince2-$variant" --loss.variant "$variant" --ranks.near "[]" "$@"
  method "rince3-$variant" --loss.variant "$variant" "$@"
done
method untrained --objective infonce --epochs 1 --optim.lr 1e-12 "$@"  # what pixels give
finish "Surveillance clips, ranks from time"
