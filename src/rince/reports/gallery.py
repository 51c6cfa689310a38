"""Queries beside their nearest images or texts, each with its class, rank and cosine."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from rince.core.checks import import_extra
from rince.evaluation.results import Gallery, NumpyArray
from rince.metrics.ordering import similar_first
from rince.reports.figures import data_uri
from rince.reports.run_report import class_name

_LONGEST_SIDE = 64  # pixels of an image as it is stored in the page
_SHOWN_SIDE = 48  # CSS pixels, of which a phone has two or three of its own


def gallery_view(
    gallery: Gallery, classes: Sequence[str], max_characters: int
) -> dict[str, Any] | None:
    """The gallery to show; None if it is empty. Where all items take more than ``max_characters``,
    only some queries are shown (one at least).

    ``queries``, nearest item first, of ``total`` stored; the ``ranks`` that occur; ``tiles``, the
    images in a strip (0 for texts), ``width`` and ``height``, of an image, in CSS pixels.
    """
    if gallery.queries.size == 0 or gallery.neighbours.size == 0:
        return None
    # Thumbnails are images, or strings for items that have no picture.
    has_texts = gallery.queries.dtype.kind == "U"
    total = len(gallery.queries)
    queries = [_query(gallery, i, classes, has_texts) for i in range(total)]
    size = sum(
        len(query["strip"] + query["text"]) + sum(len(key["text"]) for key in query["neighbours"])
        for query in queries
    )
    shown = total if size <= max_characters else max(1, total * max_characters // size)
    # Spread over all queries, which may be sorted by class.
    chosen = [queries[i] for i in np.linspace(0, total - 1, shown).round().astype(int).tolist()]
    ranks = sorted(set(gallery.ranks.ravel().tolist()), key=similar_first)
    shown_of_all: dict[str, Any] = {"queries": chosen, "total": total, "ranks": ranks, "tiles": 0}
    if has_texts:
        return shown_of_all
    height, width = _tile_size(gallery.queries.shape[1:3])
    zoom = _SHOWN_SIDE / _side(height, width)
    tiles = 1 + gallery.neighbours.shape[1]
    shown_of_all |= {"width": round(width * zoom), "height": round(height * zoom)}
    return shown_of_all | {"tiles": tiles}


def _query(gallery: Gallery, i: int, classes: Sequence[str], has_texts: bool) -> dict[str, Any]:
    """Its class, and the text itself or a strip: a data URI of one image, the query's and its
    neighbours' side by side."""
    count = gallery.neighbours.shape[1]
    texts = gallery.neighbours[i].tolist() if has_texts else [""] * count
    return {
        "name": class_name(classes, int(gallery.query_labels[i])),
        "text": str(gallery.queries[i]) if has_texts else "",
        "strip": "" if has_texts else _strip(gallery.queries[i], gallery.neighbours[i]),
        "neighbours": [
            {
                "name": class_name(classes, int(gallery.neighbour_labels[i, j])),
                "rank": int(gallery.ranks[i, j]),
                "similarity": float(gallery.similarities[i, j]),
                "text": texts[j],
            }
            for j in range(count)
        ],
    }


def _tile_size(shape: Sequence[int]) -> tuple[int, int]:
    """(height, width) in the page of an image of (height, width)."""
    height, width = shape
    shrink = min(1.0, _LONGEST_SIDE / _side(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))


def _side(height: int, width: int) -> int:
    """The longer side; of a clip, a strip of frames as high as an image and longer, the height."""
    return height if width >= 2 * height else max(height, width)


def _strip(query: NumpyArray, neighbours: NumpyArray) -> str:
    """Query and neighbours side by side as one image: PNG or JPEG, whichever is smaller."""
    height, width = _tile_size(query.shape[:2])
    box = import_extra("PIL.Image", "train").Resampling.BOX
    tiles = [_picture(pixels).resize((width, height), box) for pixels in (query, *neighbours)]
    strip = np.concatenate([np.asarray(tile) for tile in tiles], axis=1)
    return image_uri(strip.reshape(*strip.shape[:2], -1), quality=88)


def _picture(pixels: NumpyArray) -> Any:
    """A picture of Pillow's from (H, W, C) uint8."""
    colours = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., 0]
    return import_extra("PIL.Image", "train").fromarray(np.ascontiguousarray(colours))


def image_uri(pixels: NumpyArray, *, quality: int) -> str:
    """(H, W, C) uint8 as PNG or JPEG, whichever is smaller."""
    picture = _picture(pixels)
    uris = []
    for kind, options in (("PNG", {"optimize": True}), ("JPEG", {"quality": quality})):
        stream = io.BytesIO()
        picture.save(stream, kind, **options)
        uris.append(data_uri(f"image/{kind.lower()}", stream.getvalue()))
    return min(uris, key=len)
