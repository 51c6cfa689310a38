"""The evaluation of a trained run: its data or others, outliers, and the results in its folder."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import nn

from rince._version import __version__
from rince.core.checks import require, warn
from rince.core.devices import known_device
from rince.core.files import require_folder_of, user_path
from rince.data.given_tree import GivenTree, items_in, read_tree
from rince.data.items import Marks, Splits
from rince.data.kinds import Request, load_outliers, load_test
from rince.evaluation.drawings import roc_curves
from rince.evaluation.evaluate import draw, measure
from rince.evaluation.features import Network
from rince.evaluation.open_world import OpenTest, evaluate_open
from rince.evaluation.options import EvaluationOptions, require_name
from rince.evaluation.results import RESULTS_FILE, Evaluation, source_of
from rince.evaluation.steps import STEPS, Step, outlier_detection
from rince.models.backbones import Backbone
from rince.models.exported import EXPORT_FILE, WEIGHTS_FILE
from rince.training.checkpoint import TrainedRun
from rince.training.config import TrainConfig
from rince.training.evaluated import (
    check_fit,
    given_splits,
    in_size_of,
    network_in,
    of_trained_classes,
    other_splits,
    own_splits,
)
from rince.training.folder import CHECKPOINT_FILE
from rince.training.kept_results import (
    are_own,
    data_facts,
    noted,
    of_same_data,
    options_of_tables,
    present_results,
    save_beside,
    unmeasured_outliers,
    unmeasured_tests,
    where_kept,
    without_test,
)


def evaluate_run(
    folder: str | Path,
    outliers: Mapping[str, str | Path] | None = None,
    *,
    tests: Mapping[str, str | Path] | None = None,
    skip_done: bool = False,
    options: EvaluationOptions | None = None,
    data: str | None = None,
    data_root: str | None = None,
    column: str | None = None,
    labels: str | None = None,
    encoding: str | None = None,
    splits_folder: str | None = None,
    split: int = 1,
    tree: str | Path | None = None,
    skip_unreadable: bool = False,
    device: str = "auto",
    backbone: Backbone | nn.Module | None = None,
    steps: Sequence[Step] = STEPS,
    splits: Splits | None = None,
) -> Evaluation:
    """Evaluate one run and write its results.

    What is asked for is measured; results of the same weights and data that are there already and
    were not asked for stay, with the settings that they were measured with (``measured_with``).
    They are in the run's folder; those of other data than its own are in a folder of their name
    in it, ``photos.results`` (or ``photos-2.results``, where the former are of others of that
    name). An export has no data of its own, so the first that it is measured on stand for them.
    Images that are given in Python are told apart by name, labels and classes, not by their pixels:
    altered copies need another name.

    Args:
        folder: the run's; or an export's, whose network is measured on ``data`` or ``splits``.
        outliers: name (without a slash) -> where they are: a folder, a file of texts, or "digits".
        tests: name -> a folder or file of labelled items of any classes, which are searched among
            each other; see :func:`~rince.evaluation.evaluate_open`.
        skip_done: measure only what the results on these data do not hold yet.
        options: how much to do.
        data: evaluate on these in place of the run's own.
        data_root: where a named data set is now.
        column, encoding: of the items in other tables than the run's own, and of these tables:
            outliers, tests, data; None: as at the training.
        labels: with data that are stored features: the table of their labels; None: in their file,
            or beside it.
        splits_folder, split: with data: the split files of UCF101 or HMDB51, and which split.
        tree: with data or tests: a table of a class tree (see ``RankOptions.tree``) for their
            classes; None: that of the run, as far as it has them.
        skip_unreadable: leave out, with a warning, what cannot be read.
        device: where features are extracted.
        backbone: a module like the one that was trained, if it was your own.
        steps: what measures the metrics; ``[*STEPS, my_step]`` adds one of your own, a function
            of a :class:`~rince.evaluation.context.Context` to name -> number.
        splits: items of your own in place of data, as given to
            :func:`~rince.training.run.train`.

    Returns:
        What the results hold now; ``folder`` says where they are.

    Raises:
        RinceError: no such run or data; or, where ``data`` are not given, data that are no
            longer split as they were when the run was trained.
        ValueError: options out of range or that do not go together, items that the network does
            not take, features that are not finite, or two steps that give one metric.
    """
    folder, started = user_path(folder), time.perf_counter()
    device, options = known_device(device), options or EvaluationOptions()
    options.check()
    outliers, tests = _by_name("outliers", outliers or {}), _by_name("tests", tests or {})
    data_given = data is not None or splits is not None
    require(labels is None or data is not None, f"--labels {labels} needs --data")
    require(splits_folder is None or data is not None, f"--splits {splits_folder} needs --data")
    require(split == 1 or splits_folder is not None, f"--split {split} needs --splits")
    require(
        tree is None or data_given or bool(tests),
        f"--ranks.tree {tree} needs --data or --test: the run's own classes stay in the tree that "
        f"it was trained with",
    )
    exported = (folder / EXPORT_FILE).exists()
    weights = folder / (WEIGHTS_FILE if exported else CHECKPOINT_FILE)
    source = source_of(weights) if weights.is_file() else None  # before they are read
    trained = network_in(folder, backbone)
    require(
        data_given or not exported,
        f"{folder} is an export, which has no data of its own: give --data",
    )
    require_folder_of(folder / RESULTS_FILE)
    # A copy: the run keeps the configuration that it was trained with.
    config = trained.config
    images = replace(
        config.images,
        root=data_root or config.images.root,
        skip_unreadable=config.images.skip_unreadable or skip_unreadable,
    )
    config = replace(config, images=images)
    table = config.table
    table = replace(table, column=column or table.column, encoding=encoding or table.encoding)
    other = replace(config, table=table, vectors=replace(config.vectors, labels=labels))
    other_tree = read_tree(tree, table.encoding) or trained.tree
    as_tables = options_of_tables(column, encoding)
    work = _Work(trained, other, as_tables, other_tree, options, device, steps)
    results, found = folder, None if data_given else present_results(folder)
    if found is None or not skip_done or unmeasured_outliers(found, outliers, as_tables):
        if splits is not None:
            splits = given_splits(trained, splits, other_tree)
        elif data is None:
            splits = own_splits(trained, config)
        else:
            videos = replace(config.videos, splits=splits_folder, split=split)
            splits = other_splits(trained, replace(other, data=data, videos=videos), other_tree)
        own = not data_given or are_own(trained, splits, data)
        splits = of_trained_classes(splits, folder)
        facts = data_facts(splits, None if own else data)
        if data_given:
            results = where_kept(folder, facts, own or exported)
            require_folder_of(results / RESULTS_FILE if results.is_dir() else results)
            found = present_results(results)
        found = of_same_data(found, facts, folder)
        if skip_done:
            outliers = unmeasured_outliers(found, outliers, as_tables)
        if splits.test.times is None and options.near != EvaluationOptions().near:
            warn(f"near has no effect: {splits.test.noun} have no times")
        if found is None or outliers or not skip_done:
            found = work.with_data(splits, outliers, found if skip_done else None)
            found = save_beside(noted(found, source=source, **facts), results, started)
    found = noted(found, source=source)
    if skip_done:
        tests = unmeasured_tests(found, tests, tree, as_tables)
    for name, path in tests.items():
        found = save_beside(work.with_test(found, name, path), results, started, measured=name)
    return replace(found, folder=results)


def _by_name(option: str, given: Mapping[str, str | Path]) -> dict[str, str]:
    """What results can hold: texts by names that their metrics can be called after."""
    expected = f"{option} must map names to data, as {{'digits': 'digits'}}"
    require(isinstance(given, Mapping), f"{expected}, got {given!r}")
    for name, data in given.items():
        require_name(name, expected)
        named = isinstance(data, (str, os.PathLike)) and data != ""
        shown = repr(data) if isinstance(data, str) else type(data).__name__
        require(named, f"{expected}, got {shown} for {name!r}")
    return {name: os.fspath(data) for name, data in given.items()}


@dataclass(frozen=True)
class _Work:
    """What is measured, and how; ``config``: of the run, but for tables that are not its own, which
    are read ``as_tables`` says; ``tree``: of their classes."""

    trained: TrainedRun
    config: TrainConfig
    as_tables: Mapping[str, str]
    tree: GivenTree | None
    options: EvaluationOptions
    device: str
    steps: Sequence[Step]

    def with_data(
        self, splits: Splits, outliers: Mapping[str, str], before: Evaluation | None
    ) -> Evaluation:
        """All on training and test items; or, beside earlier results, these outliers alone."""
        trained, classes = self.trained, splits.train.taxonomy.classes
        workers = self.config.images.workers
        outlying = {
            name: load_outliers(
                path,
                splits.test,
                self.config,
                skip_unreadable=self.config.images.skip_unreadable,
                backbone=self.config.model.backbone,
            )
            for name, path in outliers.items()
        }
        measured = measure(
            Network(trained.backbone.module, trained.head, self.device, workers=workers),
            splits,
            outlying,
            options=self.options,
            classifier=trained.classifier,
            own_classes=trained.taxonomy.classes == classes,
            steps=self.steps if before is None else [outlier_detection],
        )
        parts = [f"ood/{name}" for name in outliers]
        if before is None:
            ranks = trained.ranks if trained.ranks.classes == classes else None
            found = draw(measured.context, measured.metrics, ranks)
            found = noted(found, extract_seconds=measured.seconds)
            parts = ["data", *parts]
        else:
            roc = {**before.roc, **roc_curves(measured.context)}
            found = replace(before, metrics={**before.metrics, **measured.metrics}, roc=roc)
            found = noted(found, outliers={name: len(items) for name, items in outlying.items()})
        found = self._with_settings(found, parts)
        if not outliers:
            return found
        tables = dict.fromkeys(outliers, self.as_tables)
        return noted(found, outlier_data=outliers, outlier_tables=tables)

    def with_test(self, found: Evaluation, name: str, path: str) -> Evaluation:
        """And retrieval among items of any classes."""
        trained, config, spec = self.trained, self.config, self.trained.spec
        request = Request(
            path,
            in_size_of(trained, config),
            channels=spec.channels,
            skip_unreadable=config.images.skip_unreadable,
            backbone=config.model.backbone,
            preprocessing=spec.preprocessing,
        )
        items = items_in(self.tree, load_test(request, spec.noun))
        check_fit(trained, items.spec, path)
        known, paths = set(trained.taxonomy.paths), items.taxonomy.paths
        unseen = sum(tree_path not in known for tree_path in paths)
        print(
            f"note: {name}: {len(items)} {items.noun} of {len(paths)} classes, {unseen} of them "
            f"not trained. Probe, kNN and outliers are not asked of them"
        )
        marks = items.marks or Marks()
        metrics = evaluate_open(
            trained.backbone.module,
            name,
            OpenTest(items, marks.is_query, marks.is_gallery, marks.own_sequences()),
            trained.taxonomy.paths,
            head=trained.head,
            options=self.options,
            device=self.device,
            workers=config.images.workers,
            steps=self.steps,
        )
        kept = without_test(found.metrics, name)
        facts = {"data": path, "items": len(items), "classes": len(paths), "unseen": unseen}
        if self.as_tables:
            facts["table"] = dict(self.as_tables)
        if self.tree is not None and not self.tree.recorded:
            facts["tree"] = source_of(user_path(self.tree.file))
        found = noted(replace(found, metrics=kept | metrics), tests={name: facts})
        return self._with_settings(found, [f"test/{name}"])

    def _with_settings(self, found: Evaluation, parts: Sequence[str]) -> Evaluation:
        settings = {**asdict(self.options), "rince": __version__}
        return noted(found, measured_with=dict.fromkeys(parts, settings))
