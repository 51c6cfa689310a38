"""Embeddings made elsewhere, and a table of their labels: measured as those of a run are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from rince.core.checks import require
from rince.core.files import require_folder_of, taking_turns, user_path
from rince.data.given_tree import items_in, read_tree
from rince.data.items import Marks, Splits
from rince.data.vector_files import LabelledVectors, read_labelled
from rince.data.vectors import Vectors
from rince.evaluation.evaluate import draw, evaluate_backbone
from rince.evaluation.levels import warn_of_empty_levels
from rince.evaluation.open_world import OpenTest, has_positives, warn_unanswered
from rince.evaluation.options import EvaluationOptions
from rince.evaluation.results import (
    FOLDER_SUFFIX,
    RESULTS_FILE,
    Evaluation,
    recorded_source,
    save_evaluation,
    source_of,
)
from rince.evaluation.steps import STEPS, measured


def results_folder(file: str | Path) -> Path:
    """Where the results of a file of embeddings are: ``photos.npz`` has ``photos.results``; or
    ``photos.npz.results``, where the former are those of another file, such as ``photos.npy``."""
    file = user_path(file)
    own, short = file.with_name(file.name + FOLDER_SUFFIX), file.with_suffix(FOLDER_SUFFIX)
    source = recorded_source(short)
    others = source is not None and source["file"] != file.name
    return own if others or own.is_dir() else short


def evaluate_embeddings(
    file: str | Path,
    labels: str | Path | None = None,
    *,
    levels: Sequence[str] | None = None,
    tree: str | Path | None = None,
    options: EvaluationOptions | None = None,
) -> Evaluation:
    """Evaluate embeddings and write the results beside them, see :func:`results_folder`.

    A table with a column ``split`` of train and test (or val) is evaluated as a run is: training
    items are the gallery and train the probe. Otherwise all items are searched among each other,
    leave-one-out, or those of ``is_query`` among those of ``is_gallery``.

    Args:
        file: .npy of (N, D) floats; .npz with ``embeddings`` (or one array) and perhaps ``paths``;
            .parquet with ``embedding`` and perhaps ``path``.
        labels: a table with a row for each of them: in their order; or in any, with a column
            ``path``, ``text`` or ``name``, where the embeddings have names; None: what the file
            holds beside them, or the table of the same name. Columns of labels from
            coarse to fine, and optional ``split``, ``is_query``, ``is_gallery``, ``sequence``.
        levels: names of the columns of labels, from coarse to fine; None: all others.
        tree: a table of a class tree, with superclasses for labels that have none: see
            ``RankOptions.tree``.
        options: how much to do.

    Raises:
        RinceError: a file that is missing or damaged, a table that does not fit.
        ValueError: labels that are no tree, values that are not finite, nothing to measure.
    """
    started = time.perf_counter()
    options, file = options or EvaluationOptions(), user_path(file)
    options.check()
    source = source_of(file) if file.is_file() else None  # before it is read
    folder = results_folder(file)
    require_folder_of(folder / RESULTS_FILE if folder.is_dir() else folder)
    labelled = read_labelled(file, labels, levels, option="--levels")
    items = items_in(read_tree(tree), labelled.items(labelled.table))
    warn_of_empty_levels(items, option="--levels")
    parts = _splits(labelled, items)
    if parts is not None:
        found = evaluate_backbone(nn.Identity(), parts, {}, options=options)
    else:
        marks = items.marks or Marks()
        test = OpenTest(items, marks.is_query, marks.is_gallery, marks.own_sequences())
        context = test.context(items.vectors, options)
        require(
            has_positives(context),
            f"{labels or file}: no query has another item of its class or group in the gallery, so "
            f"retrieval cannot be asked",
        )
        metrics = measured(context, STEPS)
        warn_unanswered(context, metrics, str(file))
        found = draw(context, metrics)
        print("note: no row is for training, so probe, kNN and outlier detection are left out")
    seconds = time.perf_counter() - started
    info = {**found.info, "evaluate_seconds": seconds, "source": source}
    found = replace(found, info=info, folder=folder)
    folder.mkdir(exist_ok=True)
    with taking_turns(folder):
        save_evaluation(found, folder, file)
    return found


def _splits(labelled: LabelledVectors, items: Vectors) -> Splits | None:
    """By the column split; None if no row is for training."""
    table = labelled.table
    if "train" not in (table.splits() or ()):
        return None
    sides = table.sides() or []
    train, test = ([i for i, x in enumerate(sides) if x is side] for side in (False, True))
    parts = Splits(items.subset(train), items.subset(test))
    unseen = parts.never_trained
    require(
        not bool(unseen.any()),
        f"{table.table.file}: {int(unseen.sum())} of {len(unseen)} rows of the test are of classes "
        f"that no row for training has, which a probe and kNN cannot tell: leave them out, or "
        f"leave out the column split to search all items among each other",
    )
    return parts
