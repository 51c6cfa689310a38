"""What a run's folder holds beside its checkpoint and its metrics."""

from __future__ import annotations

import contextlib
import json
import platform
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from shlex import quote
from typing import Any

import yaml

from rince._version import __version__
from rince.core.checks import RinceError, warn
from rince.core.files import absent
from rince.core.tables import read_text, repeated
from rince.evaluation.results import (
    FOLDER_SUFFIX,
    RESULTS_FILE,
    recorded_info,
    recorded_source,
    source_of,
)
from rince.training.config import TrainConfig, from_dict, to_dict

CONFIG_FILE = "config.yaml"
ABOUT_FILE = "about.json"
LOG_FILE = "log.txt"
CHECKPOINT_FILE = "last.ckpt"
DATA_DIGEST = "data_digest"
"""Of ``Evaluation.info``: tells the data that a run or an export was measured on from others."""


def warn_if_unfinished(folder: Path, where: str = "") -> None:
    """Of a run; ``where`` it stopped, as far as that is known."""
    if (folder / CHECKPOINT_FILE).exists() and not (folder / ABOUT_FILE).exists():
        warn(
            f"{folder.name} is not finished: it stopped{where}, or is still at work. If it "
            f"stopped, `rince train --resume {quote(str(folder))}` goes on with it"
        )


def instead_of_run(folder: Path) -> str:
    """For a message that a folder is no run: what it is, or that it holds some."""
    from rince.models.encoders import export_in  # torch, which `rince train --help` leaves out
    from rince.models.exported import towers_in

    if inside := towers_in(folder) or export_in(folder) or results_in(folder):
        return inside
    some = any(folder.glob(f"*/{CONFIG_FILE}"))
    return f"; the runs in it are {quote(str(folder))}/*" if some else ""


def results_in(folder: Path) -> str:
    """For a message that a folder is no run: that it holds results of one on other data."""
    run = run_of(folder)
    return "" if run == folder else f"; it holds results of {run} on other data: give that folder"


def read_config(folder: Path) -> TrainConfig:
    """A run's configuration."""
    file = folder / CONFIG_FILE
    if not folder.is_dir():
        raise RinceError(absent("folder", folder))
    if not file.is_file():
        raise RinceError(
            f"{folder} is not the folder of a run: it holds no {CONFIG_FILE}"
            f"{instead_of_run(folder)}"
        )
    try:
        return from_dict(plain_yaml(read_text(file, "configuration", "utf-8")))
    except ValueError as error:
        raise RinceError(f"{file} is damaged: {error}") from error


def read_about(folder: Path) -> dict[str, Any]:
    """What a run noted at its end: seconds, versions, options; {} of one that is not finished."""
    file = folder / ABOUT_FILE
    if not file.exists():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise RinceError(f"{file} is damaged ({error}): remove it, or copy it again") from error


def trained_config(folder: Path, about: Mapping[str, Any]) -> TrainConfig:
    """What a finished run was trained with, whatever was edited since, by :func:`read_about`; of
    one that is not finished, or of an older rince, its configuration."""
    if "config" not in about:
        return read_config(folder)
    try:
        return from_dict(about["config"])
    except ValueError as error:
        raise RinceError(f"{folder / ABOUT_FILE} is damaged: {error}") from error


def versions() -> dict[str, str]:
    """Of Python and of what a result depends on."""
    by_package = {"rince": __version__, "python": platform.python_version()}
    for name in ("torch", "torchvision", "lightning", "timm", "scikit-learn", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            by_package[name] = metadata.version(name)
    return by_package


def plain_yaml(text: str) -> Any:
    """Options as they are written: their types say what is a number, and what a name. YAML would
    make a text of 1e-3, 7 of a run's name 007, and a date of 2024-05-01."""
    try:
        return yaml.load(text, _AsWritten)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error)) from error


def config_yaml(config: TrainConfig) -> str:
    """A configuration that :func:`plain_yaml` reads."""
    return yaml.dump(to_dict(config), Dumper=_InQuotes, sort_keys=False)


class _InQuotes(yaml.SafeDumper):
    """Puts texts into quotes that would be read as none: a column of this name is no other."""


class _AsWritten(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012, as PyYAML has it

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = (name.value for name, _ in node.value if isinstance(name, yaml.ScalarNode))
        if twice := repeated(names):  # YAML would take the last one, in silence
            raise ValueError(f"{twice[0]} is given twice, at line {node.start_mark.line + 1} below")
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


_NONE = re.compile("(~|null|Null|NULL|None|)$")
for way in (_AsWritten, _InQuotes):
    way.add_implicit_resolver("tag:yaml.org,2002:null", _NONE, ["~", "n", "N", ""])


def run_of(results: Path) -> Path:
    """The run or export that a folder of results is of: of ``RUN/photos.results``, which are of
    other data than its own, the folder above; else the folder itself."""
    from rince.models.exported import EXPORT_FILE  # torch, which `rince train --help` leaves out

    files = (results.parent / name for name in (CONFIG_FILE, CHECKPOINT_FILE, EXPORT_FILE))
    if results.suffix != FOLDER_SUFFIX or not any(file.exists() for file in files):
        return results
    info = recorded_info(results)  # of embeddings in the folder of a run it is without a digest
    return results.parent if not info or DATA_DIGEST in info else results


def is_evaluated(folder: Path) -> bool:
    """Whether results are there, and of the weights that are there."""
    return (folder / RESULTS_FILE).exists() and not outdated(folder)


def outdated(folder: Path, made_of: Path | None = None) -> str:
    """What tells that the results in a folder are of something else than is there now; "": nothing.

    ``made_of``: the file of embeddings that they are of; None: the weights of :func:`run_of`.
    """
    from rince.models.exported import WEIGHTS_FILE  # torch, which `rince train --help` leaves out

    run = run_of(folder)
    weights = (run / CHECKPOINT_FILE, run / WEIGHTS_FILE)
    files = [x for x in ((made_of,) if made_of else weights) if x.exists()]
    recorded = recorded_source(folder)
    if recorded is not None:
        same = (source_of(x) == recorded for x in files if x.name == recorded["file"])
        return "" if all(same) else "are not of what it holds now"
    measured = (folder / RESULTS_FILE).stat().st_mtime
    if all(measured >= file.stat().st_mtime for file in files):
        return ""
    return "are older than it is, by the times of the files; if it was changed and not only copied"
