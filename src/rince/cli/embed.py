"""``rince embed RUN FOLDER``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rince.cli.evaluate import known_device
from rince.cli.parser import HelpfulParser, with_underscores

if TYPE_CHECKING:
    from rince.models.exported import ImageEncoder

EXAMPLES = """examples:
  rince embed runs/latest photos/                       writes embeddings.npz
  rince embed runs/latest/export photos/ -o photos.parquet
  rince search one.jpg --gallery embeddings.npz --run runs/latest

in Python:
  found = numpy.load("embeddings.npz")
  found["paths"]        N file names, below FOLDER as it was given here
  found["embeddings"]   (N, D) float32, each row of length 1: a product of two rows is a cosine
a parquet file has the columns path and embedding.
"""


def run(arguments: Sequence[str]) -> None:
    """Embed all images of a folder and write them to a file."""
    parser = HelpfulParser(
        prog="rince embed",
        description="Embed any folder of images, labels not needed, by a trained run or an export: "
        "one vector of length 1 an image. Of a run these are the backbone's features, which "
        "`rince evaluate` judges; an export gives what it was exported with.",
        epilog=EXAMPLES,
    )
    parser.add_argument("run", help="folder of a run, or of an export")
    parser.add_argument("folder", help="folder of images, whatever its structure")
    parser.add_argument(
        "-o", "--output", type=str, default="embeddings.npz", help="a .npz or .parquet file"
    )
    parser.add_argument("--batch_size", type=int, default=256, help="images at a time")
    parser.add_argument(
        "--skip_unreadable",
        action="store_true",
        help="leave out images that cannot be read, with a warning",
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, mps")
    found = parser.parse_args(with_underscores(arguments))

    from rince.core.checks import require
    from rince.data.images import image_files
    from rince.evaluation.embeddings import embed_images, require_writable, save_embeddings

    output = Path(found.output)
    require(found.batch_size >= 1, f"--batch_size must be at least 1, got {found.batch_size}")
    require_writable(output)
    device = known_device(found.device)
    encoder = load_encoder(Path(found.run))
    files = image_files(found.folder)
    started = time.perf_counter()
    embeddings = embed_images(
        encoder,
        files,
        device=device,
        batch_size=found.batch_size,
        on_unreadable="skip" if found.skip_unreadable else "error",
    )
    save_embeddings(embeddings, output)
    size, seconds = embeddings.vectors.shape[1], time.perf_counter() - started
    print(
        f"{output}: {len(embeddings)} images in {size} dimensions ({seconds:.1f} s)\n"
        f"next: rince search IMAGE --gallery {output} --run {found.run}"
    )


def load_encoder(folder: Path) -> ImageEncoder:
    """The network of a run (its backbone) or of an export.

    Raises:
        RinceError: the folder is neither, or damaged.
    """
    from rince.core.checks import RinceError
    from rince.models.exported import EXPORT_FILE, load_exported

    if (folder / EXPORT_FILE).exists():
        return load_exported(folder)
    from rince.training.checkpoint import CHECKPOINT_FILE, image_encoder, load_run

    if not (folder / CHECKPOINT_FILE).exists():
        raise RinceError(
            f"{folder} is neither a run (it holds no {CHECKPOINT_FILE}) nor an export (no "
            f"{EXPORT_FILE})"
        )
    return image_encoder(load_run(folder))
