"""``rince embed RUN DATA``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from rince.cli.parser import HelpfulParser, add_table
from rince.core.files import require_not_read, user_path

EXAMPLES = """examples:
  rince embed runs/latest photos/                       writes embeddings.npz
  rince embed runs/latest/export photos/ -o photos.parquet
  rince search one.jpg --gallery embeddings.npz --run runs/latest
  rince embed runs/on-videos videos/                    one vector per clip
  rince embed runs/on-texts questions.csv               one vector per text
  rince embed --backbone timm/resnet50 photos/ -o features.npz   of a pretrained backbone
  torchrun --nproc-per-node 8 -m rince embed runs/latest photos/   several GPUs

in Python:
  file = numpy.load("embeddings.npz")
  file["embeddings"]    (N, D) float32, each row of length 1: a product of two rows is a cosine
  json.loads(bytes(file["paths_json"]))    N file names, below DATA as it was given here; of clips
                        FILE@SECONDS; or the texts
a parquet file has the columns path and embedding.
"""


def _parser() -> HelpfulParser:
    parser = HelpfulParser(
        prog="rince embed",
        description="Embed any images, videos or texts, whichever the network was trained on, by a "
        "trained run or an export; labels are not needed. One vector of length 1 per image, "
        "text, or clip of a video.",
        epilog=EXAMPLES,
    )
    parser.add_argument("run", help="folder of a run, or of an export; or as --backbone")
    parser.add_argument(
        "data",
        help="folder of images or videos, whatever its structure; a video; or texts: a .csv or "
        ".jsonl file, or a .txt file with one per line",
    )
    parser.add_argument("-o", "--output", default="embeddings.npz", help="a .npz or .parquet file")
    parser.add_shared("--space")
    parser.add_argument(
        "--batch_size",
        type=int,
        default=64,
        help="images, clips or texts encoded at a time; lower it if memory runs out",
    )
    parser.add_shared("--skip_unreadable")
    add_table(
        parser,
        "column of the texts (default: as at the training, of an export: text), or of the paths",
    )
    parser.add_shared("--device")
    parser.add_argument(
        "--backbone",
        default=argparse.SUPPRESS,
        metavar="NAME",
        help="in place of a run: a pretrained backbone, torchvision/NAME, timm/NAME or hf/NAME (of "
        "Hugging Face, or a folder), fed as its library says",
    )
    return parser


def run(arguments: Sequence[str]) -> None:
    """Embed all images or videos of a folder, or the texts of a file, and write them to a file."""
    given = _parser().parse_args(_with_backbone_first(arguments))

    from rince.core.checks import require
    from rince.core.devices import known_device
    from rince.core.shared_work import parts_in
    from rince.core.tables import TABLE_SUFFIXES
    from rince.data.kinds import embedding_names, require_embeddable
    from rince.evaluation.embeddings import embed, require_writable, save_embeddings
    from rince.models.encoders import Encoder
    from rince.models.exported import other_tower
    from rince.models.layouts import library_encoder
    from rince.models.options import is_library_name
    from rince.training.checkpoint import load_encoder

    output = user_path(given.output)
    require(given.batch_size >= 1, f"--batch_size must be at least 1, got {given.batch_size}")
    require_writable(output)
    require_not_read(output, [given.data])
    device = known_device(given.device)
    encoder: Encoder
    if is_library_name(given.run):
        require(given.space != "embedding", "only a run has an embedding: leave out --space")
        require_embeddable(given.data, "images")
        encoder = library_encoder(given.run)
    else:
        encoder = load_encoder(user_path(given.run), given.space)
    started = time.perf_counter()
    with parts_in(output.with_name(output.name + ".parts")):
        embeddings = embed(
            encoder,
            embedding_names(encoder, given.data, given.column, given.encoding),
            device=device,
            batch_size=given.batch_size,
            skip_unreadable=given.skip_unreadable,
        )
        save_embeddings(embeddings, output)
    size, seconds = embeddings.vectors.shape[1], time.perf_counter() - started
    alone = getattr(encoder, "partner", None) is None
    space = "the features of the backbone" if encoder.embedding_dim is None else "the embedding"
    print(
        f"{output}: {len(embeddings)} {encoder.noun} in {size} dimensions, "
        f"{space} ({seconds:.1f} s)\n"
        + (
            f"next: rince train {quote(str(output))} --labels "
            + (quote(given.data) if Path(given.data).suffix.lower() in TABLE_SUFFIXES else "FILE")
            if is_library_name(given.run)
            else f"next: rince search QUERY --gallery {quote(str(output))} --run {quote(given.run)}"
            + ("" if given.space is None else f" --space {given.space}")
            + ("" if alone else f"\n      or --run {other_tower(given.run)}, of the other side")
        )
    )


def _with_backbone_first(arguments: Sequence[str]) -> Sequence[str]:
    """``--backbone NAME DATA`` means ``NAME DATA``.

    Example:
        >>> _with_backbone_first(["photos/", "--backbone", "timm/x", "-o", "a.npz"])
        ['timm/x', 'photos/', '-o', 'a.npz']
    """
    for i, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--backbone" and (equals or arguments[i + 1 :]):
            rest = arguments[i + 1 :] if equals else arguments[i + 2 :]
            return [value if equals else arguments[i + 1], *arguments[:i], *rest]
    return arguments
