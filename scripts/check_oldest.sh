#!/usr/bin/env bash
# Tests with the oldest Python and packages that pyproject.toml names, in a fresh environment of
# 6 GB; the extras for texts and exports ask for newer ones, and are left out.
#
#   PYTHON=python3.10 scripts/check_oldest.sh [ARGUMENTS OF PYTEST]
set -euo pipefail
cd "$(dirname "$0")/.."
tests=("$@")
if [ ${#tests[@]} = 0 ]; then
	tests=(tests/losses tests/core tests/ranks tests/metrics tests/training/test_cli_runs.py)
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3.10}" -m venv "$work"
"$work/bin/pip" install -q --disable-pip-version-check -c scripts/oldest.txt \
	-e ".[train,timm,metric-learning,parquet,search,video,pandas]" pytest pytest-xdist hypothesis \
	"pytorch-ood>=0.2"
"$work/bin/python" -m pytest -n 2 --dist loadfile "${tests[@]}"
