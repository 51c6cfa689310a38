"""``rince embed RUN DATA``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rince.cli.parser import HelpfulParser, with_underscores

EXAMPLES = """examples:
  rince embed runs/latest photos/                       writes embeddings.npz
  rince embed runs/latest/export photos/ -o photos.parquet
  rince search one.jpg --gallery embeddings.npz --run runs/latest
  rince embed runs/on-videos videos/                    one vector a clip
  rince embed runs/on-texts questions.csv               one vector a text

in Python:
  found = numpy.load("embeddings.npz")
  found["paths"]        N file names, below DATA as it was given here; of clips FILE@SECONDS; or
                        the texts
  found["embeddings"]   (N, D) float32, each row of length 1: a product of two rows is a cosine
a parquet file has the columns path and embedding.
"""


def run(arguments: Sequence[str]) -> None:
    """Embed all images or videos of a folder, or the texts of a file, and write them to a file."""
    parser = HelpfulParser(
        prog="rince embed",
        description="Embed any images, videos or texts, whichever the network was trained on, by a "
        "trained run or an export; labels are not needed. One vector of length 1 an image, text, "
        "or clip of a video (clips follow each other). Of a run these are the backbone's features, "
        "which `rince evaluate` judges; an export gives what it was exported with.",
        epilog=EXAMPLES,
    )
    parser.add_argument("run", help="folder of a run, or of an export")
    parser.add_argument(
        "data",
        help="folder of images or videos, whatever its structure; a video; or texts: a .csv or "
        ".jsonl file, or a .txt file with one a line",
    )
    parser.add_argument(
        "-o", "--output", type=str, default="embeddings.npz", help="a .npz or .parquet file"
    )
    parser.add_argument("--batch_size", type=int, default=64, help="so many at a time")
    parser.add_argument(
        "--skip_unreadable",
        action="store_true",
        help="leave out images and videos that cannot be read, with a warning",
    )
    parser.add_argument(
        "--text.column",
        dest="column",
        default=None,
        help="column of the texts (default: as at the training, of an export: text)",
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, mps")
    found = parser.parse_args(with_underscores(arguments))

    from rince.core.checks import require
    from rince.core.devices import known_device
    from rince.evaluation.embeddings import require_writable, save_embeddings
    from rince.training.encoders import embed_data, load_encoder

    output = Path(found.output)
    require(found.batch_size >= 1, f"--batch_size must be at least 1, got {found.batch_size}")
    require_writable(output)
    device = known_device(found.device)
    encoder = load_encoder(Path(found.run))
    started = time.perf_counter()
    embeddings = embed_data(
        encoder, found.data, found.column, device, found.batch_size, skip=found.skip_unreadable
    )
    save_embeddings(embeddings, output)
    size, seconds = embeddings.vectors.shape[1], time.perf_counter() - started
    print(
        f"{output}: {len(embeddings)} {encoder.noun} in {size} dimensions ({seconds:.1f} s)\n"
        f"next: rince search QUERY --gallery {output} --run {found.run}"
    )
