# Sourced by run.sh of the studies, with data, recipe, output and seed set.
# JOBS=2 trains two methods at a time. DRY=1 prints the commands and runs none.
runs=() commands=()

# method NAME [options]: to be trained; left out if it is trained, gone on with if it was broken off.
method() {
  local run=$output/$1-seed$seed command=(${LAUNCH:-rince} train)
  runs+=("$run")
  if [ -e "$run/about.json" ]; then return; fi
  if [ -e "$run/last.ckpt" ]; then
    command+=(--resume "$run")
  else
    command+=("$data" --config "$recipe" --seed "$seed" --output "$output" --name "$1-seed$seed")
    command+=("${@:2}")
  fi
  commands+=("$(printf '%q ' "${command[@]}")")
}

# finish TITLE [options of rince evaluate]: train and evaluate all; one table and one report.
finish() {
  local run_it=(bash -c)
  if [ -n "${DRY:-}" ]; then run_it=(echo); fi
  if [ ${#commands[@]} -gt 0 ]; then
    printf '%s\0' "${commands[@]}" | xargs -0 -P "${JOBS:-1}" -n 1 "${run_it[@]}"
  fi
  ${DRY:+echo} rince evaluate "${runs[@]}" --skip_done "${@:2}"
  ${DRY:+echo} rince compare "${runs[@]}" -o "$output/report.html" \
    --markdown "$output/results.md" --title "$1, seed $seed"
}
