#!/usr/bin/env bash
# usage: run.sh VIDEOS [OUTPUT] [SEED] [more options for every run]
# Ranks from time, and from shots, on the long videos that fetch.py gets; one seed, table and report.
# Can be started again after a stop. JOBS=2 OMP_NUM_THREADS=1 trains two at a time.
set -euo pipefail
data=$1 output=${2:-runs/long-video} seed=${3:-0}
shift $(($# < 3 ? $# : 3))
. "$(dirname "$0")/../methods.sh"
recipe=$(cd "$(dirname "$0")" && pwd)/long-video.yaml
method infonce-easy --objective infonce "$@"        # positives: the same piece
method infonce-hard-out --objective supcon-out "$@" # positives: all of the video
method rince-video --ranks.near "[]" "$@"           # piece, video
method rince-video-out --ranks.near "[]" --loss.variant out "$@"
method rince-near "$@"                              # piece, up to 2 s, video
method rince-shot --ranks.near "[]" --ranks.shots true --videos.shots detect "$@" # piece, shot, video
method untrained --objective infonce --epochs 1 --optim.lr 1e-12 "$@"  # what pixels give
finish "Long videos" --near 2
