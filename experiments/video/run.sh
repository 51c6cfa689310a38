#!/bin/sh
# All methods and seeds on the surveillance clips, then one table.
#
#   sh experiments/video/run.sh CLIPS [OUTPUT [SEEDS [EPOCHS]]]
#
# CLIPS: surveillance-clips.tar unpacked, with clips.csv beside fight/ and ordinary/. The content
# is violent: the report of `rince compare` shows frames, so keep it to yourself.
set -eu
clips=$1
output=${2:-runs/video}
seeds=${3:-0 1 2}
epochs=${4:-20}
here=$(dirname "$0")
rince="${PYTHON:-python} -m rince"

one() {  # NAME OPTIONS...
  name=$1
  shift
  for seed in $seeds; do
    run=$output/$name-seed$seed
    [ -f "$run/about.json" ] || $rince train "$clips" --config "$here/surveillance.yaml" \
      --output "$output" --name "$name-seed$seed" --seed "$seed" --epochs "$epochs" "$@"
    [ -f "$run/results.json" ] || $rince evaluate "$run"
  done
}

one infonce-easy --objective infonce                       # positives: the same clip
one infonce-hard-in --objective supcon-in                  # positives: all of the video
one infonce-hard-out --objective supcon-out
for variant in in out out-in; do
  one "rince2-$variant" --loss.variant "$variant" --ranks.near "[]"
  one "rince3-$variant" --loss.variant "$variant"
done
$rince compare "$output"/*-seed* -o "$output/report.html" --markdown "$output/table.md"
