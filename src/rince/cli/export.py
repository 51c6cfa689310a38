"""``rince export RUN``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from rince._version import __version__
from rince.cli.parser import HelpfulParser
from rince.core.files import user_path
from rince.models.options import LAYOUTS, is_library_name

if TYPE_CHECKING:
    from rince.models.exported import ImageEncoder
    from rince.models.options import Space

EXAMPLES = """examples:
  rince export runs/latest                       writes runs/latest/export/
  rince export runs/latest -o husky-net --space backbone   the features, elsewhere
  rince embed runs/latest/export photos/         an export serves wherever a run does
  rince export last.pth --layout supcontrast -o theirs     a network that another tool trained
  rince export torchvision/resnet18 -o resnet18            one with its library's weights
  rince evaluate theirs --data photos/           measures any of them on your data
  rince export runs/latest/export --push me/huskies        to the Hugging Face Hub, as it lies there

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


def _parser() -> HelpfulParser:
    parser = HelpfulParser(
        prog="rince export",
        description="Take a trained network out of its run: weights as safetensors, an ONNX file "
        "that was checked against torch, and a model card with the run's measured results. Needs "
        "pip install 'rince[export]'.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "run",
        help="folder of a run; a checkpoint of another tool, with --layout; torchvision/NAME or "
        "timm/NAME; with --push also an export",
    )
    parser.add_argument(
        "-o", "--output", help="a new folder (default: RUN/export; needed where it is not a run)"
    )
    parser.add_argument(
        "--layout",
        choices=list(LAYOUTS),
        help="of a checkpoint: rince-prototype is that of the paper's authors, supcontrast of "
        "SupCon's. Nothing in the file is executed; backbone features only",
    )
    parser.add_argument("--backbone", help="with --layout: what it is of (default: resnet50-3x3)")
    parser.add_argument("--size", type=int, help="side of its images in pixels, if it was no run")
    for name in ("mean", "std"):
        parser.add_argument(
            f"--{name}",
            type=tuple[float, ...],
            nargs=3,
            metavar=("R", "G", "B"),
            help=f"with --layout: {name} that its pixels, 0 to 1, were normalised with (default: "
            "CIFAR-100's)",
        )
    # --space embedding, in scripts of earlier versions.
    parser.add_argument("--head", action="store_true", help=argparse.SUPPRESS)
    parser.add_shared("--space")
    parser.add_argument("--no_onnx", action="store_true", help="leave out the ONNX file")
    parser.add_argument(
        "--push",
        metavar="USER/NAME",
        help="also upload it to the Hugging Face Hub (needs pip install 'rince[hub]' and `hf auth "
        "login`); a new model is private there until you publish it",
    )
    return parser


def run(arguments: Sequence[str]) -> None:
    """Export a run."""
    parser = _parser()
    given = parser.parse_args(arguments)

    from rince.core.checks import require
    from rince.models.encoders import is_export
    from rince.models.hub import check_push
    from rince.reports.export import CARD_FILE, export_run, write_export

    if given.push is not None:
        check_push(given.push)
        folder = user_path(given.run)
        towers = [x for x in (folder, folder / "export") if is_export(x / "text")]
        if is_export(folder) or towers:
            others = [x for x in vars(given) if getattr(given, x) != parser.get_default(x)]
            unread = [f"--{x}" for x in others if x not in ("run", "push")]
            require(not unread, f"{', '.join(unread)}: an export is pushed as it lies there")
            _push(towers[0] if towers else folder, given.push)
            return
    output = None if given.output is None else user_path(given.output)
    of_checkpoint = {n: getattr(given, n) for n in ("backbone", "mean", "std")}
    if given.layout is None:
        unread = [f"--{name}" for name, value in of_checkpoint.items() if value is not None]
        require(not unread, f"{', '.join(unread)}: only with --layout, of a checkpoint")
    library = is_library_name(given.run)
    if library or given.layout is not None:
        from rince.models.layouts import library_encoder, read_checkpoint_of

        require(output is not None, f"{given.run} is no run: say where to write it, -o FOLDER")
        require(given.space != "embedding", "only a run has an embedding: leave out --space")
        encoder = (
            library_encoder(given.run, size=given.size)
            if given.layout is None
            else read_checkpoint_of(given.run, given.layout, size=given.size, **of_checkpoint)
        )
        assert output is not None
        card = _foreign_card(given.run, encoder)
        write_export(encoder, output, lambda _: card, onnx=not given.no_onnx)
        _show(output, given.push)
        here = quote(str(output))
        print(f"next: rince evaluate {here} --data DATA; rince embed {here} DATA")
        return
    require(given.size is None, "--size: a run knows the size of its images")
    space: Space | None = given.space
    if given.head:
        require(space != "backbone", "--head is --space embedding: leave out one of the two")
        space = "embedding"
        print("note: --head is --space embedding now")
    folder = export_run(given.run, output, space=space, onnx=not given.no_onnx)
    _show(folder, given.push)
    print(
        f"next: fill in the licence in {folder / CARD_FILE}; rince embed {quote(str(folder))} DATA"
    )


def _show(folder: Path, name: str | None) -> None:
    print(f"export: {folder}")
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        print(f"  {file.name:36}{file.stat().st_size / 1e6:8.2f} MB")
    if name is not None:
        _push(folder, name)


def _push(folder: Path, name: str) -> None:
    from rince.evaluation.results import ARRAYS_FILE, FOLDER_SUFFIX, RESULTS_FILE
    from rince.models.hub import push

    # Evaluations of the export: thumbnails, names and places of somebody's data.
    results = (RESULTS_FILE, ARRAYS_FILE)
    kept_here = (*results, *(f"*{FOLDER_SUFFIX}/{file}" for file in results))
    print(f"pushed: {push(folder, name, kept_here)}")


def _foreign_card(source: str, encoder: ImageEncoder) -> str:
    """What is known of a network that rince did not train; where it lay is nobody's business."""
    from rince.data.kinds import kind_named
    from rince.models.card import last_part

    name = Path(source).name
    shown = last_part(source) if is_library_name(source) else name
    return (
        f"---\n{kind_named(encoder.noun).card}\n---\n\n"
        f"# {name}\n\nA {last_part(encoder.backbone)} that was trained elsewhere, taken from "
        f"`{shown}` by rince {__version__}; licence and training data are those of its source.\n\n"
        f"{kind_named(encoder.noun).usage(encoder, 'FOLDER')}\n"
    )
