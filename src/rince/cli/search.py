"""``rince search QUERY``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from shlex import quote

from rince.cli.parser import HelpfulParser, add_table
from rince.core.files import user_path

EXAMPLES = """examples:
  rince embed runs/latest photos/ -o photos.npz         once
  rince search husky.jpg --gallery photos.npz --run runs/latest
  rince search a.jpg b.jpg c.jpg --top-k 3 --gallery photos.npz --run runs/latest
  rince search clip.mp4 --gallery videos/ --run runs/on-videos       all in one
  rince search clip.mp4@2.5 --gallery clips.faiss --run runs/on-videos
  rince search "where is my card" --gallery questions.csv --run runs/on-texts
  rince search text.npy --gallery images-embedded.npz --run RUN/export/text     across two towers
"""


def _parser() -> HelpfulParser:
    parser = HelpfulParser(
        prog="rince search",
        description="Find the images, clips or texts of a gallery that are most similar to one or "
        "more queries, by the cosine of their embeddings (1: the same direction).",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "queries", nargs="+", help="image files, videos, parts of them (FILE@SECONDS) or texts"
    )
    parser.add_argument(
        "--gallery",
        required=True,
        help="a .npz or .parquet file of `rince embed`, a .faiss file of `rince index`, or what "
        "`rince embed` would embed",
    )
    parser.add_argument(
        "--run",
        required=True,
        help="the run or export that the gallery was made with; of two towers that of the queries",
    )
    parser.add_shared("--space", "--skip_unreadable")
    parser.add_argument("-k", "--top_k", type=int, default=10, help="number of results per query")
    add_table(parser, "column of the gallery's texts or paths, where it is a table")
    parser.add_shared("--device")
    return parser


def run(arguments: Sequence[str]) -> None:
    """Print what is most similar to each query in a gallery."""
    given = _parser().parse_args(arguments)

    from rince.core.checks import RinceError, require
    from rince.core.devices import known_device
    from rince.data.kinds import embedding_names, holds_vectors, require_queries, same_file
    from rince.evaluation.embeddings import (
        Embeddings,
        embed,
        embed_queries,
        load_embeddings,
        nearest,
    )
    from rince.evaluation.index import INDEX_SUFFIX, VectorIndex, load_index
    from rince.models.exported import other_tower
    from rince.training.checkpoint import load_encoder

    require(given.top_k >= 1, f"--top_k must be at least 1, got {given.top_k}")
    device, skip = known_device(given.device), given.skip_unreadable
    suffix = Path(given.gallery).suffix.lower()
    kept: Embeddings | VectorIndex | None = None
    if suffix == INDEX_SUFFIX:
        kept = load_index(given.gallery)
    elif suffix == ".npz" or (suffix == ".parquet" and holds_vectors(given.gallery)):
        kept = load_embeddings(given.gallery)
    encoder = load_encoder(user_path(given.run), given.space)
    require_queries(encoder, given.queries)
    queries, groups = embed_queries(encoder, given.queries, device=device, skip_unreadable=skip)
    if kept is None:
        names = embedding_names(encoder, given.gallery, given.column, given.encoding)
        kept = embed(encoder, names, device=device, skip_unreadable=skip)
    gallery = kept
    if gallery.model not in (queries.model, getattr(encoder, "partner", None)):
        raise RinceError(
            f"{given.gallery} was made by another network than {given.run} (or by other weights of "
            f"it, if it was trained on since, or in its other space: earlier versions embedded by "
            f"the features, --space backbone), and their embeddings do not compare: make it again, "
            f"rince embed {quote(given.run)} DATA -o FILE"
        )
    if gallery.model == queries.model and getattr(encoder, "partner", None) is not None:
        print(
            f"note: gallery and queries are of one tower, {given.run}; queries of the other side "
            f"take --run {other_tower(given.run)}"
        )
    # More than asked, as a query may be in the gallery, a film with as many clips.
    most = given.top_k + max(len(own) for _, own in groups)
    find = gallery.nearest if isinstance(gallery, VectorIndex) else partial(nearest, gallery)
    cosines, positions = find(queries.vectors, most)
    for query, own in groups:
        # A film is one query, however many clips it is cut into: its best hits are those of any.
        hits: dict[int, float] = {}
        for i in own:
            for value, row in zip(cosines[i].tolist(), positions[i].tolist(), strict=True):
                itself = row < 0 or any(
                    same_file(encoder, name, gallery.paths[row])
                    for name in (query, queries.paths[i])
                )
                if not itself:
                    hits[row] = max(value, hits.get(row, value))
        best = sorted(hits.items(), key=lambda hit: -hit[1])[: given.top_k]
        print(_shown(query) + (f" ({len(own)} {encoder.noun})" if len(own) > 1 else ""))
        for place, (row, value) in enumerate(best, 1):
            print(f"{place:5}  {value:6.3f}  {_shown(gallery.paths[row])}")


def _shown(path: str) -> str:
    """On one line; a file name need not be valid Unicode, and what is printed must be."""
    shown = os.fsencode(path).decode(errors="replace")
    return "".join(c if c.isprintable() else " " for c in shown)
