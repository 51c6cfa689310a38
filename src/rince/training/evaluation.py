"""The evaluation of a trained run: its data or others, outliers, and the results in its folder."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

from torch import nn

from rince._version import __version__
from rince.core.checks import RinceError, require, warn
from rince.core.devices import known_device
from rince.core.digests import digest
from rince.core.files import require_folder_of, taking_turns, user_path
from rince.core.input_spec import InputSpec, Preprocessing
from rince.data.given_tree import GivenTree, items_in, read_tree, splits_in
from rince.data.items import Items, Marks, Splits
from rince.data.kinds import (
    NAMED_TREES,
    Request,
    kind_named,
    load_outliers,
    load_test,
    require_kind,
)
from rince.evaluation.drawings import roc_curves
from rince.evaluation.evaluate import draw, measure
from rince.evaluation.features import Network
from rince.evaluation.open_world import OpenTest, evaluate_open
from rince.evaluation.options import EvaluationOptions
from rince.evaluation.results import (
    FOLDER_SUFFIX,
    RESULTS_FILE,
    Evaluation,
    load_evaluation,
    recorded_info,
    save_evaluation,
    source_of,
)
from rince.evaluation.steps import STEPS, Step, outlier_detection
from rince.models.backbones import Backbone, as_backbone
from rince.models.exported import EXPORT_FILE, WEIGHTS_FILE, load_exported
from rince.models.texts import SENTENCE_FILE
from rince.ranks.taxonomy import Taxonomy
from rince.training.checkpoint import TrainedRun, load_run
from rince.training.config import TrainConfig
from rince.training.folder import (
    CHECKPOINT_FILE,
    DATA_DIGEST,
    is_evaluated,
    run_of,
    warn_if_unfinished,
)
from rince.training.objectives import OBJECTIVES
from rince.training.splits import load_splits, or_given_in_python

UNKNOWN_CLASSES = (("unknown",),)
"""Of a network that was trained elsewhere."""


def evaluate_run(
    folder: str | Path,
    outliers: Mapping[str, str] | None = None,
    *,
    tests: Mapping[str, str] | None = None,
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
        outliers: name -> where they are: a folder, a file of texts, or "digits".
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
    for name, given in (("outliers", outliers), ("tests", tests)):
        require(
            isinstance(given or {}, Mapping),
            f"{name} must map names to data, as {{'digits': 'digits'}}, got {given!r}",
        )
    require(labels is None or data is not None, f"--labels {labels} needs --data")
    require(splits_folder is None or data is not None, f"--splits {splits_folder} needs --data")
    require(split == 1 or splits_folder is not None, f"--split {split} needs --splits")
    require(
        tree is None or data is not None or splits is not None or bool(tests),
        f"--ranks.tree {tree} needs --data or --test: the run's own classes stay in the tree that "
        f"it was trained with",
    )
    exported = (folder / EXPORT_FILE).exists()
    if (folder / SENTENCE_FILE).exists() and not (folder / CHECKPOINT_FILE).exists():
        raise RinceError(
            f"{folder} is an export of texts, which is not evaluated by itself: evaluate the run "
            f"that it is of; or embed texts with it (rince embed) and evaluate the file"
        )
    weights = folder / (WEIGHTS_FILE if exported else CHECKPOINT_FILE)
    source = source_of(weights) if weights.is_file() else None  # before they are read
    trained = _of_export(folder, backbone) if exported else load_run(folder, backbone)
    if exported:
        require(
            splits is not None or data is not None,
            f"{folder} is an export, which has no data of its own: give --data",
        )
    else:
        warn_if_unfinished(folder, f" at step {trained.step}")
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
    work = _Work(trained, other, other_tree, options, device, steps)
    outliers, tests, results = outliers or {}, tests or {}, folder
    data_given = data is not None or splits is not None
    found = None if data_given else present_results(folder)
    if found is None or not skip_done or not_measured(found, outliers, {})[0]:
        how = trained.spec.preprocessing
        if splits is not None:
            splits = Splits(splits.train.preprocessed(how), splits.test.preprocessed(how))
            _check_fit(trained, splits.spec, "splits")
            splits = splits_in(other_tree, splits)
        elif data is None:
            splits = _own_splits(trained, config)
        else:
            videos = replace(config.videos, splits=splits_folder, split=split)
            splits = other_splits(trained, replace(other, data=data, videos=videos), other_tree)
        own = not data_given or _are_own(trained, splits, data)
        splits = _of_trained_classes(splits, folder)
        facts = _facts(splits, None if own else data)
        if data_given:
            results = _results_folder(folder, facts, own or exported)
            require_folder_of(results / RESULTS_FILE if results.is_dir() else results)
            found = present_results(results)
        found = _of_these(found, facts, folder)
        if skip_done:
            outliers, _ = not_measured(found, outliers, {})
        outlying = {
            name: load_outliers(
                path,
                splits.test,
                other,
                skip_unreadable=skip_unreadable,
                backbone=config.model.backbone,
            )
            for name, path in outliers.items()
        }
        if splits.test.times is None and options.near != EvaluationOptions().near:
            warn(f"near has no effect: {splits.test.noun} have no times")
        if found is None or outlying or not skip_done:
            found = work.with_data(splits, outlying, found if skip_done else None)
            if outliers:
                found = _noted(found, outlier_data=outliers)
            found = _saved(_noted(found, source=source, **facts), results, started)
    found = _noted(found, source=source)
    if skip_done:
        _, tests = not_measured(found, {}, tests, tree)
    for name, path in tests.items():
        found = _saved(work.with_test(found, name, path), results, started, measured=name)
    return replace(found, folder=results)


@dataclass(frozen=True)
class _Work:
    """What is measured, and how; ``config``: of the run, but for tables that are not its own;
    ``tree``: of their classes."""

    trained: TrainedRun
    config: TrainConfig
    tree: GivenTree | None
    options: EvaluationOptions
    device: str
    steps: Sequence[Step]

    def with_data(
        self, splits: Splits, outliers: Mapping[str, Items], before: Evaluation | None
    ) -> Evaluation:
        """All on training and test items; or, beside earlier results, these outliers alone."""
        trained, classes = self.trained, splits.train.taxonomy.classes
        workers = self.config.images.workers
        measured = measure(
            Network(trained.backbone.module, trained.head, self.device, workers=workers),
            splits,
            outliers,
            options=self.options,
            classifier=trained.classifier,
            own_classes=trained.taxonomy.classes == classes,
            steps=self.steps if before is None else [outlier_detection],
        )
        parts = [f"ood/{name}" for name in outliers]
        if before is None:
            ranks = trained.ranks if trained.ranks.classes == classes else None
            drawn = draw(measured.context, measured.metrics, ranks)
            drawn = _noted(drawn, extract_seconds=measured.seconds)
            return self._with_settings(drawn, ["data", *parts])
        roc = {**before.roc, **roc_curves(measured.context)}
        found = replace(before, metrics={**before.metrics, **measured.metrics}, roc=roc)
        found = _noted(found, outliers={name: len(items) for name, items in outliers.items()})
        return self._with_settings(found, parts)

    def with_test(self, found: Evaluation, name: str, path: str) -> Evaluation:
        """And retrieval among items of any classes."""
        trained, config, spec = self.trained, self.config, self.trained.spec
        request = Request(
            path,
            _sized_for(trained, config),
            channels=spec.channels,
            skip_unreadable=config.images.skip_unreadable,
            backbone=config.model.backbone,
            preprocessing=spec.preprocessing,
        )
        items = items_in(self.tree, load_test(request, spec.noun))
        _check_fit(trained, items.spec, path)
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
        kept = _without_test(found.metrics, name)
        facts = {"data": path, "items": len(items), "classes": len(paths), "unseen": unseen}
        if self.tree is not None and not self.tree.recorded:
            facts["tree"] = source_of(user_path(self.tree.file))
        found = _noted(replace(found, metrics=kept | metrics), tests={name: facts})
        return self._with_settings(found, [f"test/{name}"])

    def _with_settings(self, found: Evaluation, parts: Sequence[str]) -> Evaluation:
        settings = {**asdict(self.options), "rince": __version__}
        return _noted(found, measured_with=dict.fromkeys(parts, settings))


def _noted(found: Evaluation, /, **facts: Any) -> Evaluation:
    """With these facts; of what is kept by name, beside those that are there."""
    info = dict(found.info)
    for name, value in facts.items():
        info[name] = {**info.get(name, {}), **value} if name in _BY_NAME else value
    return replace(found, info=info)


_BY_NAME = ("outliers", "tests", "measured_with", "outlier_data")


def _without_test(metrics: Mapping[str, float], name: str) -> dict[str, float]:
    of_test = re.compile(rf"(embedding/)?(un)?seen/{re.escape(name)}/")
    return {key: value for key, value in metrics.items() if not of_test.match(key)}


def _saved(
    found: Evaluation, folder: Path, started: float, measured: str | None = None
) -> Evaluation:
    """What is measured is kept, whatever goes wrong later; and what other evaluations of the same
    weights and data measured, earlier or meanwhile. ``measured``: the test that is new."""
    found = _noted(found, evaluate_seconds=time.perf_counter() - started)
    folder.mkdir(exist_ok=True)
    with taking_turns(folder):
        with contextlib.suppress(RinceError):
            there = load_evaluation(folder) if is_evaluated(folder) else None
            info = {} if there is None else there.info
            same_weights = info.get("source") in (None, found.info["source"])
            if there and same_weights and _same_data(info, found.info):
                found = _with_earlier(found, there, measured)
        save_evaluation(found, folder, run_of(folder))
    return found


def not_measured(
    found: Evaluation | None,
    outliers: Mapping[str, str],
    tests: Mapping[str, str],
    tree: str | Path | None = None,
) -> tuple[dict[str, str], dict[str, str]]:
    """Those of the outliers and tests that results do not hold, by name and path; and of the tests
    by the tree that was given for them."""
    info = {} if found is None else found.info
    known_outliers = dict.fromkeys(info.get("outliers", {}))
    known_outliers |= info.get("outlier_data", {})  # of older results only the names are known
    with_tree = source_of(user_path(tree)) if tests and tree is not None else None
    known_tests = {
        name: facts.get("data")
        for name, facts in info.get("tests", {}).items()
        if facts.get("tree") == with_tree
    }

    def missing(asked: Mapping[str, str], known: Mapping[str, str | None]) -> dict[str, str]:
        return {n: path for n, path in asked.items() if known.get(n, "") not in (None, path)}

    return missing(outliers, known_outliers), missing(tests, known_tests)


def present_results(folder: Path) -> Evaluation | None:
    """The results of the weights that are there now; None: there are none that can be read."""
    if not is_evaluated(folder):
        return None
    try:
        return load_evaluation(folder, run_of(folder))
    except RinceError as error:
        warn(f"{error}; all is measured anew")
        return None


def _facts(splits: Splits, data: str | None) -> dict[str, Any]:
    """What results record of the data that they are of. ``data``: other data than the run's own, as
    given; where they lie tells them from others, as fingerprints do not look into files."""
    name, classes = splits.train.name, splits.train.taxonomy.paths
    place = "" if data is None else str(data)
    if data is not None and user_path(data).exists():  # not the name of a data set
        place = str(user_path(data).resolve())
    facts = {
        "data": name,
        "train_images": len(splits.train),
        "test_images": len(splits.test),
        DATA_DIGEST: digest([name, place, classes, splits.fingerprint()]),
    }
    return facts if data is None else facts | {"data_path": str(data)}


def _are_own(trained: TrainedRun, splits: Splits, data: str | None) -> bool:
    """Whether data that are given are those of the training: from where they were, or from anywhere
    if they were moved; files of the same names elsewhere may be altered copies."""
    if trained.taxonomy.paths != splits.train.taxonomy.paths:
        return False
    if trained.data_fingerprint != splits.fingerprint():
        return False
    before = user_path(trained.config.data)
    return data is None or user_path(data).resolve() == before.resolve() or not before.exists()


def _results_folder(folder: Path, facts: Mapping[str, Any], own: bool) -> Path:
    """Where the results of some data are: the folder of the run, if they may be its own and no
    others are there; or else the first of ``photos.results``, ``photos-2.results``, ... that is
    theirs, or free."""
    there = recorded_info(folder)
    if own and (not there or _same_data(there, facts)):
        return folder
    name = re.sub(r"[^\w.+-]+", "-", facts["data"]).strip("-.")[:60] or "data"
    results, number = folder / f"{name}{FOLDER_SUFFIX}", 1
    while (there := recorded_info(results)) and there.get(DATA_DIGEST) != facts[DATA_DIGEST]:
        number += 1
        results = folder / f"{name}-{number}{FOLDER_SUFFIX}"
    return results


def _of_these(before: Evaluation | None, facts: Mapping[str, Any], run: Path) -> Evaluation | None:
    """Earlier results, if they are of the same data."""
    if before is None or _same_data(before.info, facts):
        return before
    print(
        f"note: the results in {run.name} were of other data than its own "
        f"({before.info.get('data')}); they are replaced"
    )
    return None


def _same_data(info: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    known = DATA_DIGEST in info and DATA_DIGEST in other  # an older rince did not record it
    names = [DATA_DIGEST] if known else ["data", "train_images", "test_images"]
    return all(info.get(name) == other.get(name) for name in names)


def _with_earlier(found: Evaluation, before: Evaluation, measured: str | None) -> Evaluation:
    """And what other evaluations measured beside it; but for a test that was measured anew."""
    old = before.metrics if measured is None else _without_test(before.metrics, measured)
    others = {name: x for name, x in old.items() if name not in found.metrics}
    info, roc = _noted(before, **found.info).info, {**before.roc, **found.roc}
    return replace(found, metrics={**found.metrics, **others}, info=info, roc=roc)


def _sized_for(trained: TrainedRun, config: TrainConfig) -> TrainConfig:
    """Other items are taken in the size that the run's backbone knows."""
    return replace(config, images=replace(config.images, image_size=trained.spec.size or None))


def other_splits(trained: TrainedRun, config: TrainConfig, tree: GivenTree | None = None) -> Splits:
    """Other data, in the size and colours that the run's backbone knows; or other texts."""
    data = config.data
    require_kind(data, trained.spec.noun, config.ranks.by == "time", config.table.encoding)
    spec, config = trained.spec, _sized_for(trained, config)
    splits = load_splits(config, spec.channels, preprocessing=spec.preprocessing)
    splits = splits_in(tree, splits)
    if trained.taxonomy.paths not in (UNKNOWN_CLASSES, splits.train.taxonomy.paths):
        print(f"note: {data} has other classes than {trained.folder.name} was trained on")
    _check_fit(trained, splits.spec, data)
    return splits


def _own_splits(trained: TrainedRun, config: TrainConfig) -> Splits:
    """The data that the run was trained on, if they are still the same."""
    data, name = config.data, trained.folder.name
    with or_given_in_python(data, f"evaluate_run({str(trained.folder)!r}, splits=...)"):
        splits = load_splits(config, preprocessing=trained.spec.preprocessing)
    splits = splits_in(trained.tree, splits)
    changed = splits.train.taxonomy.paths != trained.taxonomy.paths
    if trained.data_fingerprint:
        changed = changed or splits.fingerprint() != trained.data_fingerprint
    elif data not in NAMED_TREES:
        warn(
            f"{name} was trained by an older rince, which did not record its data: if "
            f"{data} has no val/ or test/ of its own, test items may have been trained on"
        )
    if changed:
        raise RinceError(
            f"{data} no longer holds the {trained.spec.noun} that {name} was trained with (now "
            f"{len(splits.train)} for training and {len(splits.test)} for the test), so test "
            f"items may have been trained on. Put the data back as they were, train again, or "
            f"give other data with --data"
        )
    _check_fit(trained, splits.spec, data)
    return splits


def _of_trained_classes(splits: Splits, folder: Path) -> Splits:
    """Without test items of classes that no training item is of, where there are others."""
    test, unseen = splits.test, splits.test.labels >= splits.train.taxonomy.num_classes
    if not unseen.any() or unseen.all():
        return splits
    warn(
        f"{int(unseen.sum())} of {len(test)} test {test.noun} are of classes that were never "
        f"trained, which a probe and kNN cannot tell: they are left out here, and "
        f"`rince evaluate {quote(str(folder))} --test DATA` measures them"
    )
    return Splits(splits.train, test.subset((~unseen).nonzero()[:, 0]))


def _of_export(folder: Path, backbone: Backbone | nn.Module | None) -> TrainedRun:
    """The network of an export of images or clips, as if it were that of a run."""
    module = backbone.module if isinstance(backbone, Backbone) else backbone
    encoder = load_exported(folder, module)
    features, head = encoder.module, None
    if encoder.embedding_dim is not None:
        head = encoder.module.get_submodule("head")
        features = encoder.module.get_submodule("backbone")
    spec = encoder.spec
    if spec.preprocessing is None and encoder.mean:  # of an older rince, or as ours
        how = Preprocessing(encoder.mean, encoder.std, spec.size)
        spec = replace(spec, preprocessing=how)
    config = TrainConfig("").with_defaults(kind_named(encoder.noun))
    videos = replace(
        config.videos,
        frames=encoder.spec.frames or config.videos.frames,
        stride=encoder.stride or config.videos.stride,
        frame_size=encoder.frame_size,
    )
    config = replace(config, videos=videos, model=replace(config.model, backbone=encoder.backbone))
    taxonomy = Taxonomy(encoder.class_paths or UNKNOWN_CLASSES)
    return TrainedRun(
        folder=folder,
        config=config,
        taxonomy=taxonomy,
        backbone=as_backbone(features, spec),
        spec=spec,
        step=0,
        objective=OBJECTIVES[config.objective],
        head=head,
        ranks=taxonomy,
        own_backbone=encoder.backbone is None,
    )


def _check_fit(trained: TrainedRun, spec: InputSpec, data: str) -> None:
    if spec != trained.spec:
        raise RinceError(
            f"{data} holds {spec}, but {trained.folder.name} was trained on "
            f"{trained.spec}; evaluate it on data of its own kind"
        )
