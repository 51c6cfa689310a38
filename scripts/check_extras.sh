#!/usr/bin/env bash
# Each extra alone, from the wheel, in a fresh environment: nothing that another extra brings hides
# a missing dependency. An environment takes up to 7 GB while it is there, and minutes.
#
#   scripts/check_extras.sh [EXTRA...]          "base" is the wheel without extras; default: all
#   PYTHON=python3.13 scripts/check_extras.sh base
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
extras=("$@")
if [ ${#extras[@]} = 0 ]; then
	extras=(base train export timm text sentence-transformers parquet search metric-learning)
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/build"
"$work/build/bin/pip" install -q build
"$work/build/bin/python" -m build -o "$work/dist" . >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
wheel=$(echo "$work"/dist/*.whl)
for extra in "${extras[@]}"; do
	rm -rf "$work/venv"
	"$python" -m venv "$work/venv"
	want="$wheel"
	[ "$extra" = base ] || want="$wheel[$extra]"
	"$work/venv/bin/pip" install -q --disable-pip-version-check "$want"
	env -u PYTHONPATH "$work/venv/bin/python" scripts/probe_extra.py "$extra"
done
