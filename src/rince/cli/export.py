"""``rince export RUN``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rince.cli.parser import HelpfulParser, add_space, with_underscores

if TYPE_CHECKING:
    from rince.models.options import Space

EXAMPLES = """examples:
  rince export runs/latest                       writes runs/latest/export/
  rince export runs/latest -o husky-net --space backbone   the features, elsewhere
  rince embed runs/latest/export photos/         an export serves wherever a run does

what it writes of a run on images or videos:
  model.safetensors  the weights
  export.json        what it takes to feed the network: size, channels, normalisation, classes
  model.onnx         the same network for ONNX Runtime, checked against torch; any batch size
  README.md          a model card with what `rince evaluate` measured; the licence is yours to add

in Python:
  rince.export_run("runs/latest")                the same, from a program
  encoder = rince.load_exported("runs/latest/export")
  features = encoder.module(encoder.normalised(pixels))    pixels: (B, C, [T,] S, S) uint8

of a run on texts it writes a model of sentence-transformers and the card, no ONNX file:
  SentenceTransformer("runs/latest/export").encode(["some words"])
"""


def run(arguments: Sequence[str]) -> None:
    """Export a run."""
    parser = HelpfulParser(
        prog="rince export",
        description="Take a trained network out of its run: weights as safetensors, an ONNX file "
        "that was checked against torch, and a model card with the run's measured results. Needs "
        "pip install 'rince[export]'.",
        epilog=EXAMPLES,
    )
    parser.add_argument("run", help="folder of a run")
    parser.add_argument(
        "-o", "--output", type=str, default=None, help="a new folder (default: RUN/export)"
    )
    parser.add_argument(
        "--head",
        action="store_true",
        help="the same as --space embedding; kept for scripts of earlier versions",
    )
    add_space(parser)
    parser.add_argument("--no_onnx", action="store_true", help="leave out the ONNX file")
    given = parser.parse_args(with_underscores(arguments))

    from rince.core.checks import require
    from rince.reports.export import CARD_FILE, export_run

    output = None if given.output is None else Path(given.output)
    space: Space | None = given.space
    if given.head:
        require(space != "backbone", "--head is --space embedding: leave out one of the two")
        space = "embedding"
        print("note: --head is --space embedding now")
    folder = export_run(given.run, output, space=space, onnx=not given.no_onnx)
    print(f"export: {folder}")
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        print(f"  {file.name:36}{file.stat().st_size / 1e6:8.2f} MB")
    print(f"next: fill in the licence in {folder / CARD_FILE}; rince embed {folder} DATA")
