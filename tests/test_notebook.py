"""The notebook among the examples runs, in a kernel as a reader's, and shows what it should."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "notebook.ipynb"


def test_it_is_kept_without_outputs() -> None:
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_every_cell_runs_and_shows_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    for package in ("ipykernel", "sklearn", "lightning"):
        pytest.importorskip(package)
    source = str(Path(__file__).parents[1] / "src")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3").execute(cwd=tmp_path)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = [output["data"] for output in outputs if "data" in output]
    html = "".join(data.get("text/html", "") for data in shown)
    assert "Taxonomy(10 classes, 2 ranks)" in html
    assert "keys per item, batch 64" in html
    assert "<td>rince out-in</td>" in html  # the run
    assert "<th>retrieval/fine/R@1</th>" in html  # its results
    assert sum("image/png" in data for data in shown) == 4
    written = "".join(output["text"] for output in outputs if output["output_type"] == "stream")
    # The progress bar of an epoch, which no terminal watches: as text, or where there is
    # ipywidgets as a widget.
    widgets = any("application/vnd.jupyter.widget-view+json" in data for data in shown)
    assert widgets or "10/10" in written
    assert not [output for output in outputs if output["output_type"] == "error"]
