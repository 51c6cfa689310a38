"""What the results of a run hold already, and where they are kept."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rince.core.checks import RinceError, warn
from rince.core.digests import digest
from rince.core.files import absent, taking_turns, user_path
from rince.data.items import Splits
from rince.evaluation.results import (
    FOLDER_SUFFIX,
    Evaluation,
    load_evaluation,
    recorded_info,
    save_evaluation,
    source_of,
)
from rince.training.checkpoint import TrainedRun
from rince.training.folder import DATA_DIGEST, is_evaluated, run_of


def where_kept(folder: Path, facts: Mapping[str, Any], own: bool) -> Path:
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


def data_facts(splits: Splits, data: str | None) -> dict[str, Any]:
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


def are_own(trained: TrainedRun, splits: Splits, data: str | None) -> bool:
    """Whether data that are given are those of the training: from where they were, or from anywhere
    if they were moved; files of the same names elsewhere may be altered copies."""
    if trained.taxonomy.paths != splits.train.taxonomy.paths:
        return False
    if trained.data_fingerprint != splits.fingerprint():
        return False
    before = user_path(trained.config.data)
    return data is None or user_path(data).resolve() == before.resolve() or not before.exists()


def present_results(folder: Path) -> Evaluation | None:
    """The results of the weights that are there now; None: there are none that can be read."""
    if not is_evaluated(folder):
        return None
    try:
        return load_evaluation(folder, run_of(folder))
    except RinceError as error:
        warn(f"{error}; all is measured anew")
        return None


def of_same_data(
    before: Evaluation | None, facts: Mapping[str, Any], run: Path
) -> Evaluation | None:
    """Earlier results, if they are of the same data."""
    if before is None or _same_data(before.info, facts):
        return before
    print(
        f"note: the results in {run.name} were of other data than its own "
        f"({before.info.get('data')}); they are replaced"
    )
    return None


def options_of_tables(column: str | None, encoding: str | None) -> dict[str, str]:
    """How tables that are not the run's own are read: what is given, in place of the run's."""
    given = {"column": column, "encoding": encoding}
    return {name: value for name, value in given.items() if value is not None}


def unmeasured_outliers(
    found: Evaluation | None, asked: Mapping[str, str], table: Mapping[str, str]
) -> dict[str, str]:
    """Those of the outliers (name -> data) that results do not hold, read as ``table`` says."""
    info = {} if found is None else found.info
    known = dict.fromkeys(info.get("outliers", {}))
    known |= info.get("outlier_data", {})  # of older results only the names are known
    tables = info.get("outlier_tables", {})
    return _others(asked, {name: x for name, x in known.items() if tables.get(name, {}) == table})


def unmeasured_tests(
    found: Evaluation | None,
    asked: Mapping[str, str],
    tree: str | Path | None,
    table: Mapping[str, str],
) -> dict[str, str]:
    """Those of the tests (name -> data) that results do not hold, with the tree given for them, and
    read as ``table`` says.

    Raises:
        RinceError: the tree is not there.
    """
    if not asked:
        return {}
    if tree is not None and not user_path(tree).is_file():
        raise RinceError(absent("file", tree))
    with_tree = None if tree is None else source_of(user_path(tree))
    tests = {} if found is None else found.info.get("tests", {})
    known = {
        name: of.get("data")
        for name, of in tests.items()
        if of.get("tree") == with_tree and of.get("table", {}) == table
    }
    return _others(asked, known)


def _others(asked: Mapping[str, str], known: Mapping[str, str | None]) -> dict[str, str]:
    return {name: path for name, path in asked.items() if known.get(name, "") not in (None, path)}


def save_beside(
    found: Evaluation, folder: Path, started: float, measured: str | None = None
) -> Evaluation:
    """What is measured is kept, whatever goes wrong later; and what other evaluations of the same
    weights and data measured, earlier or meanwhile. ``measured``: the test that is new."""
    found = noted(found, evaluate_seconds=time.perf_counter() - started)
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


def _with_earlier(found: Evaluation, before: Evaluation, measured: str | None) -> Evaluation:
    """And what other evaluations measured beside it; but for a test that was measured anew."""
    old = before.metrics if measured is None else without_test(before.metrics, measured)
    others = {name: x for name, x in old.items() if name not in found.metrics}
    info, roc = noted(before, **found.info).info, {**before.roc, **found.roc}
    return replace(found, metrics={**found.metrics, **others}, info=info, roc=roc)


def _same_data(info: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    known = DATA_DIGEST in info and DATA_DIGEST in other  # an older rince did not record it
    names = [DATA_DIGEST] if known else ["data", "train_images", "test_images"]
    return all(info.get(name) == other.get(name) for name in names)


def noted(found: Evaluation, /, **facts: Any) -> Evaluation:
    """With these facts; of what is kept by name, beside those that are there."""
    info = dict(found.info)
    for name, value in facts.items():
        info[name] = {**info.get(name, {}), **value} if name in _BY_NAME else value
    return replace(found, info=info)


_BY_NAME = ("outliers", "tests", "measured_with", "outlier_data", "outlier_tables")


def without_test(metrics: Mapping[str, float], name: str) -> dict[str, float]:
    of_test = re.compile(rf"(embedding/)?(un)?seen/{re.escape(name)}/")
    return {key: value for key, value in metrics.items() if not of_test.match(key)}
