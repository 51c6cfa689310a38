"""``rince search QUERY``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rince.cli.parser import HelpfulParser, add_space, with_underscores

EXAMPLES = """examples:
  rince embed runs/latest photos/ -o photos.npz         once
  rince search husky.jpg --gallery photos.npz --run runs/latest
  rince search a.jpg b.jpg c.jpg --top-k 3 --gallery photos.npz --run runs/latest
  rince search clip.mp4 --gallery videos/ --run runs/on-videos       all in one
  rince search "where is my card" --gallery questions.csv --run runs/on-texts
"""


def run(arguments: Sequence[str]) -> None:
    """Print what is most similar to each query in a gallery."""
    parser = HelpfulParser(
        prog="rince search",
        description="Find the images, clips or texts of a gallery that are most similar to one or "
        "more queries, by the cosine of their embeddings (1: the same direction).",
        epilog=EXAMPLES,
    )
    parser.add_argument("queries", nargs="+", help="image files, videos or texts")
    parser.add_argument(
        "--gallery",
        type=str,
        required=True,
        help="a .npz or .parquet file of `rince embed`, or what it would embed",
    )
    parser.add_argument(
        "--run", type=str, required=True, help="the run or export that the gallery was made with"
    )
    add_space(parser)
    parser.add_argument("-k", "--top_k", type=int, default=10, help="number of results per query")
    parser.add_argument(
        "--text.column", dest="column", default=None, help="column of the gallery's texts"
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, mps")
    given = parser.parse_args(with_underscores(arguments))

    from rince.core.checks import RinceError, require
    from rince.core.devices import known_device
    from rince.data.kinds import require_queries
    from rince.evaluation.embeddings import embed, load_embeddings, nearest
    from rince.training.encoders import embed_data, load_encoder

    require(given.top_k >= 1, f"--top_k must be at least 1, got {given.top_k}")
    device, file = known_device(given.device), Path(given.gallery)
    kept = load_embeddings(file) if file.suffix in (".npz", ".parquet") else None
    encoder = load_encoder(Path(given.run), given.space)
    require_queries(encoder, given.queries)
    queries = embed(encoder, given.queries, device=device)
    gallery = embed_data(encoder, given.gallery, given.column, device) if kept is None else kept
    if queries.model != gallery.model:
        raise RinceError(
            f"{given.gallery} was made by another network than {given.run} (or by other weights of "
            f"it, if it was trained on since, or in its other space: earlier versions embedded by "
            f"the features, --space backbone), and their embeddings do not compare: make it again, "
            f"rince embed {given.run} DATA -o {given.gallery}"
        )
    cosines, positions = nearest(gallery, queries.vectors, given.top_k)
    for query in given.queries:
        # A film is one query, however many clips it is cut into: its best hits are those of any.
        own = [i for i, x in enumerate(queries.paths) if x == query or x.startswith(f"{query}@")]
        found: dict[int, float] = {}
        for i in own:
            for value, index in zip(cosines[i].tolist(), positions[i].tolist(), strict=True):
                found[index] = max(value, found.get(index, value))
        best = sorted(found.items(), key=lambda hit: -hit[1])[: given.top_k]
        print(_shown(query) + (f" ({len(own)} {encoder.noun})" if len(own) > 1 else ""))
        for place, (index, value) in enumerate(best, 1):
            print(f"{place:5}  {value:6.3f}  {_shown(gallery.paths[index])}")


def _shown(path: str) -> str:
    """On one line; a file name need not be valid Unicode, and what is printed must be."""
    shown = os.fsencode(path).decode(errors="replace")
    return "".join(c if c.isprintable() else " " for c in shown)
