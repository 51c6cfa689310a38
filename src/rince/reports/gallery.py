"""Query images beside their nearest images, each in a frame of the colour of its rank."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rince.core.checks import import_extra
from rince.evaluation.results import Gallery
from rince.reports.figures import data_uri, rank_colour, rank_name
from rince.reports.pieces import chips, class_name, fold, note, table, text

Array = npt.NDArray[Any]

_LONGEST_SIDE = 64  # pixels of an image in the page


def gallery_html(gallery: Gallery, classes: Sequence[str], max_characters: int) -> str:
    """The gallery as HTML; empty text if there are no images.

    Args:
        gallery: images of any size; those above 64 pixels are shrunk, small ones are magnified.
        classes: names of the classes.
        max_characters: where the images take more, only some queries are shown (one at least).
    """
    if gallery.queries.size == 0 or gallery.neighbours.size == 0:
        return ""
    if gallery.queries.dtype.kind == "U":
        return _texts_html(gallery, classes, max_characters)
    total = len(gallery.queries)
    strips = [_strip(gallery.queries[i], gallery.neighbours[i]) for i in range(total)]
    size = sum(map(len, strips))
    shown = total if size <= max_characters else max(1, total * max_characters // size)
    # Spread over all queries, which may be sorted by class.
    chosen = np.linspace(0, total - 1, shown).round().astype(int).tolist()
    height, width = _tile_size(gallery.queries.shape[1:3])
    zoom = max(1, round(_LONGEST_SIDE / _side(height, width)))
    tiles = 1 + gallery.neighbours.shape[1]
    ranks = sorted(set(gallery.ranks.ravel().tolist()), key=lambda rank: (rank < 1, rank))
    return (
        chips(("frame", f"--c:{rank_colour(rank)}", rank_name(rank)) for rank in ranks)
        + f'<div class="scroll" style="--w:{width * zoom}px;--h:{height * zoom}px;--n:{tiles}">'
        + "".join(_query_row(gallery, i, strips[i], classes) for i in chosen)
        + "</div>"
        + (note(f"{shown} of {total} queries") if shown < total else "")
    )


def _texts_html(gallery: Gallery, classes: Sequence[str], max_characters: int) -> str:
    """Each query with its nearest texts behind it, as many queries as there is room for."""
    parts: list[str] = []
    for i, query in enumerate(gallery.queries.tolist()):
        rows = [
            f'<tr><td style="border-left:4px solid {rank_colour(rank)}">'
            f"{text(rank_name(rank))}</td>"
            f"<td>{similarity:.2f}</td><td>{text(words)}</td>"
            f"<td>{text(class_name(classes, label))}</td></tr>"
            for words, rank, similarity, label in zip(
                gallery.neighbours[i].tolist(),
                gallery.ranks[i].tolist(),
                gallery.similarities[i].tolist(),
                gallery.neighbour_labels[i].tolist(),
                strict=True,
            )
        ]
        name = class_name(classes, int(gallery.query_labels[i]))
        parts.append(fold(f"{query} ({name})", table("keys", [], rows)))
        if sum(map(len, parts)) > max_characters:
            break
    return "".join(parts)


def _query_row(gallery: Gallery, i: int, strip: str, classes: Sequence[str]) -> str:
    last = gallery.neighbours.shape[1]
    cells = [
        _tile("query", class_name(classes, int(gallery.query_labels[i])), "", "transparent", 0.0)
    ]
    for j in range(last):
        rank = int(gallery.ranks[i, j])
        name = class_name(classes, int(gallery.neighbour_labels[i, j]))
        similarity = f"{float(gallery.similarities[i, j]):.2f}"
        cells.append(_tile(rank_name(rank), name, similarity, rank_colour(rank), (j + 1) / last))
    return f'<div class="strip" style="--s:url({strip})">{"".join(cells)}</div>'


def _tile(kind: str, name: str, similarity: str, colour: str, place: float) -> str:
    """One image: its place (0 first, 1 last) in the strip, framed and captioned."""
    spoken = text(f"{name}, {kind}" + (f", similarity {similarity}" if similarity else ""))
    return (
        f'<figure class="tile{" query" if kind == "query" else ""}" title="{spoken}">'
        f'<span role="img" aria-label="{spoken}" style="--c:{colour};--x:{100 * place:.2f}%">'
        f"</span><figcaption><b>{text(name)}</b>{kind}<br>{similarity}</figcaption></figure>"
    )


def _tile_size(shape: Sequence[int]) -> tuple[int, int]:
    """(height, width) in the page of an image of (height, width)."""
    height, width = shape
    shrink = min(1.0, _LONGEST_SIDE / _side(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))


def _side(height: int, width: int) -> int:
    """The longer side; of a clip, a strip of frames as high as an image and longer, the height."""
    return height if width >= 2 * height else max(height, width)


def _strip(query: Array, neighbours: Array) -> str:
    """Query and neighbours side by side as one image: PNG or JPEG, whichever is smaller.

    Args:
        query: (H, W, C) uint8; C = 1 is grey. neighbours: (n, H, W, C) uint8.
    """
    image_module = import_extra("PIL.Image", "train")
    height, width = _tile_size(query.shape[:2])
    tiles = []
    for pixels in (query, *neighbours):
        colours = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., 0]
        picture = image_module.fromarray(np.ascontiguousarray(colours))
        if picture.size != (width, height):
            picture = picture.resize((width, height), image_module.Resampling.BOX)
        tiles.append(np.asarray(picture))
    strip = image_module.fromarray(np.concatenate(tiles, axis=1))
    uris = []
    for kind, options in (("PNG", {"optimize": True}), ("JPEG", {"quality": 88})):
        stream = io.BytesIO()
        strip.save(stream, kind, **options)
        uris.append(data_uri(f"image/{kind.lower()}", stream.getvalue()))
    return min(uris, key=len)
