"""What an evaluation found, written to and read from a run folder.

``results.json`` holds the numbers (and is meant to be read by people and scripts);
``evaluation.npz`` holds what the report draws: curves, histograms, class similarities, the 2-D
map, the gallery.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import numpy.typing as npt

from rince.core.checks import RinceError, require
from rince.core.digests import file_digest
from rince.core.files import replacing, user_path
from rince.core.notebook import html_table
from rince.metrics.curves import Histograms as Histograms
from rince.metrics.curves import RocCurve as RocCurve
from rince.models.options import Space

RESULTS_FILE = "results.json"
ARRAYS_FILE = "evaluation.npz"
FOLDER_SUFFIX = ".results"
"""Of a folder that holds results alone: ``photos.results``."""
SECONDS = "seconds"
"""In place of a metric: the wall time of the training."""

NumpyArray = npt.NDArray[Any]


@dataclass(frozen=True)
class Map2D:
    """A 2-D map of a sample of the test features."""

    xy: NumpyArray  # (M, 2)
    fine: NumpyArray  # (M,) int, class indices
    coarse: NumpyArray  # (M,) int, coarse groups
    # (M, H, W, C) uint8 of about 32 pixels, or (M,) strings; None in results of an older rince.
    thumbnails: NumpyArray | None = None


@dataclass(frozen=True)
class Gallery:
    """Query images with their nearest gallery images; of texts strings, (G,) and (G, n)."""

    queries: NumpyArray  # (G, H, W, C) uint8
    neighbours: NumpyArray  # (G, n, H, W, C) uint8, nearest first
    ranks: NumpyArray  # (G, n) int, rank of each neighbour for its query (0 = negative)
    similarities: NumpyArray  # (G, n) float, cosine
    query_labels: NumpyArray  # (G,) int
    neighbour_labels: NumpyArray  # (G, n) int


@dataclass(frozen=True)
class TimeCurve:
    """How similar clips of one video are, by the seconds between them."""

    seconds: NumpyArray  # (P,) float, the mean gap of each range of gaps, rising
    similarity: NumpyArray  # (P,) float, its mean cosine
    pairs: NumpyArray  # (P,) int, of which these are the means
    other_videos: float  # mean cosine of clips of two videos; NaN if there are none


@dataclass(frozen=True)
class ClassSimilarity:
    """How similar the classes became, and how similar they were said to be."""

    order: NumpyArray  # (C,) int, class indices in the order of rows and columns, groups together
    groups: NumpyArray  # (C,) int, coarse group of each row
    # (C, C) float16, mean cosine of test images (rows) and training images (columns), or NaN.
    learned: NumpyArray
    given: NumpyArray  # (C, C) int8, ranks: 1 = the class itself, 0 = negative, -1 = ignored


@dataclass(frozen=True)
class Confusion:
    """Of which class is the nearest neighbour of the queries of each class? A row for each pair of
    classes that occurs, equal ones too, each (P,) int."""

    query: NumpyArray
    nearest: NumpyArray
    count: NumpyArray  # of queries
    rank: NumpyArray  # of the two classes in the tree: 1 = the same, 0 = negative


@dataclass(frozen=True)
class Evaluation:
    """Everything measured on one run.

    Args:
        metrics: flat name -> value, all in [0, 1] except correlations in [-1, 1] and levels of the
            class tree (``hierarchy/mistake-severity``, ``hierarchy/distance@k``), 0 or more:
            ``probe/fine``, ``probe/coarse``, ``knn/fine``, ``knn/coarse``,
            ``retrieval/fine/R@1`` ... ``retrieval/coarse/mAP``, ``ordering/1>2``, ...,
            ``ordering/correlation``, ``ood/<set>/<detector>/AUROC`` and ``.../FPR95``; of clips
            also ``retrieval/video/R@1``, ``retrieval/near/R@1``, ``probe/video``, ...; the same of
            the embedding with ``embedding/`` in front
        info: what was measured: sizes, data names, seconds, versions; ``levels``: what a table's
            columns call the levels of the class tree; ``source``: the file of weights or of
            embeddings, and its digest
        classes: (C,) fine class names. groups: names of the coarse groups.
        roc: (outlier set, detector) -> curve.
        time_curve: of clips of videos.
        class_similarity: None for one class, very many, or a run that an older rince evaluated.
        worst_queries: those whose nearest neighbour is of the worst rank, by the greatest margin
            over the best item of rank 1; without queries if no neighbour is wrong.
        confusion: this and ``worst_queries`` are None of a run that an older rince evaluated.
        folder: that the evaluation wrote these results to; None: it did not, or they were read.
    """

    metrics: Mapping[str, float]
    info: Mapping[str, Any]
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    histograms: Histograms
    map_2d: Map2D
    gallery: Gallery
    roc: Mapping[tuple[str, str], RocCurve] = field(default_factory=dict)
    time_curve: TimeCurve | None = None
    class_similarity: ClassSimilarity | None = None
    worst_queries: Gallery | None = None
    confusion: Confusion | None = None
    folder: Path | None = None

    def __repr__(self) -> str:
        """Not the arrays that are drawn, which are pages of numbers."""
        metrics = {name: round(value, 4) for name, value in self.metrics.items()}
        return f"{type(self).__name__}(metrics={metrics}, info={dict(self.info)})"

    def _repr_html_(self) -> str:
        """Every metric; in a second column those of the embedding."""
        spaces = {"features": of_space(self.metrics, "backbone")}
        if embedding := of_space(self.metrics, "embedding"):
            spaces["embedding"] = embedding
        levels = self.info.get("levels", {})
        rows = (
            (
                shown_metric(name, levels),
                *(format_metric(name, of[name]) if name in of else "" for of in spaces.values()),
            )
            for name in dict.fromkeys(name for of in spaces.values() for name in of)
        )
        caption = f"{self.info.get('data', 'evaluation')}, {IN_PER_CENT}"
        return html_table(caption, ("metric", *spaces), rows)


_PARTS: dict[str, tuple[str, Any]] = {
    "map": ("map_2d", Map2D),
    "gallery": ("gallery", Gallery),
    "time": ("time_curve", TimeCurve),
    "classes": ("class_similarity", ClassSimilarity),
    "worst": ("worst_queries", Gallery),
    "confusion": ("confusion", Confusion),
}
"""Before the names of arrays in the file -> the part of an evaluation that they are."""
IN_PER_CENT = "per cent, but for correlations and levels of the class tree"
EMBEDDING = "embedding/"
"""Before the names of metrics of the embedding; those of the backbone's features have nothing."""


def of_space(metrics: Mapping[str, float], space: Space) -> dict[str, float]:
    """The metrics of one space, by their names without it."""
    of_embedding = space == "embedding"
    own = {k: x for k, x in metrics.items() if k.startswith(EMBEDDING) == of_embedding}
    return {k.removeprefix(EMBEDDING): x for k, x in own.items()}


def shown_metric(name: str, levels: Mapping[str, str]) -> str:
    """A metric's name for people, with the data's own name of its level (``info["levels"]``):
    ``retrieval/brand/R@1`` for ``retrieval/coarse/R@1``, where the labels are brand and model."""
    parts = name.split("/")
    for i, part in enumerate(parts[:-1]):
        if part in ("probe", "knn", "classifier", "retrieval"):
            parts[i + 1] = levels.get(parts[i + 1], parts[i + 1])
            break
    return "/".join(parts)


def format_metric(key: str, value: float) -> str:
    """A metric as printed: per cent with one decimal; correlations, levels of the tree and seconds
    as they are.

    >>> format_metric("probe/fine", 0.7825), format_metric("ordering/correlation", -0.5)
    ('78.2', '-0.500')
    >>> format_metric("embedding/hierarchy/distance@10", 1.4)
    '1.40'
    """
    factor, digits = scale_of(key, value)
    # Adding zero turns the "-0.0" of a tiny negative number into "0.0".
    return f"{round(factor * value, digits) + 0.0:,.{digits}f}"


def scale_of(key: str, value: float) -> tuple[float, int]:
    """(factor, decimals) to print a metric with."""
    if key == SECONDS:
        return 1.0, 0 if abs(value) >= 10 else 1
    if re.search(r"hierarchy/(mistake-severity|distance@\d+)$", key):
        return 1.0, 2
    return (1.0, 3) if key.endswith("correlation") else (100.0, 1)


def source_of(file: Path) -> dict[str, str]:
    """What results say of the file that they were measured on."""
    return {"file": file.name, "digest": file_digest(file)}


def recorded_info(folder: Path) -> dict[str, Any]:
    """What the results in a folder say of what was measured; {}: none are there, or damaged."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
        return dict(json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8"))["info"])
    return {}


def recorded_source(folder: Path) -> dict[str, str] | None:
    """:func:`source_of`, as the results in a folder have it; None: they do not say."""
    with contextlib.suppress(LookupError, TypeError):
        source = recorded_info(folder)["source"]
        return {name: str(source[name]) for name in ("file", "digest")}
    return None


def evaluating(folder: Path, made_of: str | Path | None) -> str:
    """The command that makes the results in a folder, for messages; ``made_of``: the file, or the
    run with other data than its own, that they are of."""
    of_other_data = made_of is not None and Path(made_of).is_dir() and Path(made_of) != folder
    data = " --data DATA" if of_other_data else ""
    return f"`rince evaluate {quote(str(made_of or folder))}{data}`"


def save_evaluation(
    evaluation: Evaluation, folder: str | Path, made_of: str | Path | None = None
) -> None:
    """Write ``results.json`` and ``evaluation.npz``; each is replaced whole or not at all.

    Args:
        made_of: what was evaluated, for messages; None: the folder itself.

    Raises:
        RinceError: a file cannot be written.
    """
    folder = user_path(folder)
    numbers = {
        "metrics": dict(evaluation.metrics),
        "info": dict(evaluation.info),
        "classes": list(evaluation.classes),
        "groups": list(evaluation.groups),
    }
    arrays: dict[str, NumpyArray] = {"edges": evaluation.histograms.edges}
    for rank, counts in evaluation.histograms.counts.items():
        arrays[f"counts/{rank}"] = counts
    for (outliers, detector), curve in evaluation.roc.items():
        arrays[f"roc/{outliers}/{detector}"] = np.stack(
            [curve.false_positive_rate, curve.true_positive_rate]
        )
    for place, (name, _) in _PARTS.items():
        drawn = getattr(evaluation, name)
        for array in () if drawn is None else fields(drawn):
            if (stored := getattr(drawn, array.name)) is not None:
                arrays[f"{place}/{array.name}"] = np.asarray(stored)
    text = json.dumps(numbers, indent=2, allow_nan=False) + "\n"  # before a file is replaced
    try:
        with replacing(folder / ARRAYS_FILE) as part, part.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **arrays)
        with replacing(folder / RESULTS_FILE) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RinceError(
            f"could not write the results of {folder} ({error}); what was there before is "
            f"untouched. Fix that, then run {evaluating(folder, made_of)} again"
        ) from error


def load_evaluation(folder: str | Path, made_of: str | Path | None = None) -> Evaluation:
    """Read what :func:`save_evaluation` wrote.

    Args:
        made_of: as there.

    Raises:
        RinceError: the folder has not been evaluated, or a file is damaged.
    """
    folder = user_path(folder)
    again = evaluating(folder, made_of)
    for name in (RESULTS_FILE, ARRAYS_FILE):  # both, or the run was never evaluated to the end
        if not (folder / name).is_file():
            raise RinceError(f"{folder} has no {name}: run {again} first")
    try:
        numbers = json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8"))
        with np.load(folder / ARRAYS_FILE, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return _evaluation(numbers, arrays)
    except (RinceError, ImportError):
        raise
    except Exception as error:  # of damaged files numpy and pyarrow raise anything
        raise RinceError(
            f"the results in {folder} are damaged ({type(error).__name__}: {error}): run {again} "
            f"again"
        ) from error


def _evaluation(numbers: Mapping[str, Any], arrays: Mapping[str, NumpyArray]) -> Evaluation:
    metrics = dict(numbers["metrics"])
    wrong = {name: x for name, x in metrics.items() if not isinstance(x, int | float)}
    require(not wrong, f"metrics that are no numbers: {wrong}")
    counts = {int(n[7:]): a for n, a in arrays.items() if n.startswith("counts/")}
    roc = {}
    for name, array in arrays.items():
        if name.startswith("roc/"):
            outliers, _, detector = name.removeprefix("roc/").rpartition("/")
            roc[outliers, detector] = RocCurve(array[0], array[1])
    parts = {
        name: part_class(
            **{
                f.name: arrays[f"{place}/{f.name}"][()]
                for f in fields(part_class)
                if f.default is MISSING or f"{place}/{f.name}" in arrays
            }
        )
        for place, (name, part_class) in _PARTS.items()
        if place in ("map", "gallery") or any(stored.startswith(f"{place}/") for stored in arrays)
    }
    return Evaluation(
        metrics=metrics,
        info=dict(numbers["info"]),
        classes=tuple(numbers["classes"]),
        groups=tuple(numbers["groups"]),
        histograms=Histograms(arrays["edges"], dict(sorted(counts.items()))),
        roc=roc,
        **parts,
    )
