#!/usr/bin/env bash
# Tests with the oldest Python and packages that pyproject.toml names, in a fresh environment of
# 6 GB; the extras for texts and exports ask for newer ones, and are left out.
#
#   PYTHON=python3.10 scripts/check_oldest.sh [ARGUMENTS OF PYTEST]
set -euo pipefail
cd "$(dirname "$0")/.."
tests=("$@")
if [ ${#tests[@]} = 0 ]; then
	tests=(tests/losses tests/core tests/ranks tests/metrics
		tests/training/test_{callbacks,checkpoint,resume,stops}.py)
	# They imitate a card, or follow a whole graph, by what newer versions of PyTorch have.
	for test in test_fused.py test_no_waits.py test_compiled.py; do
		tests+=(--ignore "tests/losses/$test")
	done
	tests+=(--deselect tests/losses/test_precision.py::test_tensor_cores_take_products_of_embeddings_and_no_sums)
	tests+=(--deselect tests/losses/test_streamed.py::test_torch_compile_breaks_the_callers_graph_once)
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3.10}" -m venv "$work"
"$work/bin/pip" install -q --disable-pip-version-check -c scripts/oldest.txt \
	-e ".[train,timm,metric-learning,parquet,search,video,pandas]" pytest pytest-xdist hypothesis \
	"pytorch-ood>=0.2"
"$work/bin/python" -m pytest -n 2 --dist loadfile "${tests[@]}"
