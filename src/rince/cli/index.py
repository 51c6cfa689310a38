"""``rince index EMBEDDINGS``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from shlex import quote

from rince.cli.parser import HelpfulParser
from rince.core.files import user_path

EXAMPLES = """examples:
  rince embed runs/latest photos/ -o photos.npz         once
  rince index photos.npz -o photos.faiss                once
  rince search one.jpg --gallery photos.faiss --run runs/latest
  rince index photos.npz -o photos.faiss --form hnsw    if its recall is too low
"""


def run(arguments: Sequence[str]) -> None:
    """Build an index and print its recall."""
    parser = HelpfulParser(
        prog="rince index",
        description="Put embeddings into an index of faiss, for galleries so large that comparing "
        "a query with all of them takes too long (pip install 'rince[search]'). Prints which share "
        "of the 10 nearest the index finds.",
        epilog=EXAMPLES,
    )
    parser.add_argument("embeddings", help="a .npz or .parquet file of `rince embed`")
    parser.add_argument("-o", "--output", required=True, help="the .faiss file to write")
    parser.add_argument(
        "--form",
        choices=["flat", "hnsw", "ivf-pq"],
        help="flat: exact; hnsw: a graph, nearly exact; ivf-pq: compressed, about an eighth of "
        "the memory. By default the first up to 50,000 items, the second up to a million",
    )
    given = parser.parse_args(arguments)

    from rince.evaluation.embeddings import load_embeddings
    from rince.evaluation.index import build_index, index_recall, require_index_file, save_index

    output = user_path(given.output)
    require_index_file(output)
    embeddings = load_embeddings(given.embeddings)
    started = time.perf_counter()
    index = build_index(embeddings, given.form)
    seconds = time.perf_counter() - started
    recall, k = index_recall(index, embeddings)
    save_index(index, output)
    print(
        f"{output}: {len(embeddings)} items in {embeddings.vectors.shape[1]} dimensions, "
        f"{index.form}, {output.stat().st_size / 2**20:.1f} MB ({seconds:.1f} s)\n"
        f"recall@{k} against the exact search: {recall:.4f}\n"
        f"next: rince search QUERY --gallery {quote(str(output))} --run RUN"
    )
