"""A search of the settings that trade fine against coarse, on a held-out part of the training."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from rince.core.checks import RinceError, require, warn
from rince.core.devices import known_device
from rince.core.digests import digest
from rince.core.distributed import launched_processes
from rince.core.files import replacing
from rince.data.given_tree import read_tree
from rince.data.items import Items, NothingToHoldOut, Splits, split_by_hash
from rince.evaluation.evaluate import measure
from rince.evaluation.features import Network
from rince.evaluation.results import EMBEDDING
from rince.evaluation.steps import class_retrieval
from rince.training.checkpoint import load_run
from rince.training.config import TrainConfig, to_dict
from rince.training.evaluated import of_trained_classes
from rince.training.folder import CHECKPOINT_FILE, config_yaml, read_about
from rince.training.halving import (
    Score,
    pareto_front,
    planned_epochs,
    round_lengths,
    successive_halving,
    survivors,
)
from rince.training.objectives import OBJECTIVES
from rince.training.options import TuneOptions
from rince.training.run import Stopped, prepared, resume, train_prepared
from rince.training.search_space import open_options, trial_configs
from rince.training.splits import warn_of_choices, with_data
from rince.training.step import superclass_level

SCORES_FILE = "scores.json"
FEW = 200  # held-out items, below which chance decides between trials


@dataclass
class Trial:
    """One configuration, and what it was measured at.

    Args:
        number: from 1, which is what ``rince train`` would do.
        config: to train it on all training items, for the whole number of epochs.
        folder: of its runs, on a part of them: ``20-epochs`` and so on.
        scores: epochs -> held-out mAP; of classifiers in the backbone's features, of all others in
            the embedding.
        seconds: that its training and measuring took.
        failed: why it was given up, such as a loss that is not finite; "": it was not.
    """

    number: int
    config: TrainConfig
    folder: Path
    scores: dict[int, Score] = field(default_factory=dict)
    seconds: float = 0.0
    failed: str = ""

    @property
    def name(self) -> str:
        """Its objective and number."""
        return f"{self.config.objective} {self.number}"

    def settings(self) -> str:
        """What it was tried with, for people."""
        config, parts = self.config, [f"lr {self.config.optim.lr:g}"]
        reads = OBJECTIVES[config.objective].reads
        if "loss.variant" in reads:
            parts.insert(0, config.loss.variant)
        if "loss.temperatures" in reads:
            parts.append(f"temperatures {' '.join(map(str, config.loss.temperatures or ()))}")
        if "loss.temperature" in reads:
            parts.append(f"temperature {config.loss.temperature:g}")
        images, classes = config.batches.images_per_class, config.batches.classes_per_superclass
        if images is None:
            parts.append("random batches")
        else:
            of_each = "" if classes is None else f" x {classes} classes"
            parts.append(f"batches of {images} images{of_each}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Tuned:
    """A search that is done.

    Args:
        folder: holds the chosen configurations, ``OBJECTIVE.yaml``, and the runs.
        trials: all of them, those of the objective first and then those of each baseline, but of
            baselines of which none could be trained.
        epochs: of those that were trained to the end.
    """

    folder: Path
    trials: tuple[Trial, ...]
    epochs: int

    def finished(self, objective: str | None = None) -> list[Trial]:
        """Trials that were trained to the end: of all objectives, or of one."""
        return [
            trial
            for trial in self.trials
            if self.epochs in trial.scores and objective in (None, trial.config.objective)
        ]

    def front(self) -> list[Trial]:
        """Of the finished trials those to which no other is better on both measures, from the best
        coarse to the best fine."""
        trials = self.finished()
        return [trials[i] for i in pareto_front({i: self.score(x) for i, x in enumerate(trials)})]

    def score(self, trial: Trial) -> Score:
        """Of a finished trial."""
        return trial.scores[self.epochs]

    def best(self, objective: str, fine_weight: float) -> Trial:
        """The finished trial of an objective with the highest :meth:`Score.weighted`."""
        return max(
            self.finished(objective), key=lambda trial: self.score(trial).weighted(fine_weight)
        )


def tune(
    config: TrainConfig,
    options: TuneOptions | None = None,
    *,
    splits: Splits | None = None,
    given: Collection[str] = (),
) -> Tuned:
    """Search the settings that trade fine against coarse, and write those that are chosen.

    By successive halving: all trials are trained for a quarter of ``config.epochs``, the better
    quarter anew for all of them, from the start, as the chosen one will be. They are trained on
    four fifths of the training items and measured on the last fifth, by the rule that holds out a
    test. The test items are not used.

    The scores are kept: after a stop the same call goes on, and trains nothing twice. ``OUTPUT/
    tune-DATA/OBJECTIVE.yaml`` is the best configuration of each objective by
    ``options.fine_weight``, to be trained on all training items.

    Args:
        config: what all trials share. What is not at its default here is not searched.
        options: how much to search.
        splits: in place of the data that ``config.data`` names, as of :func:`train`.
        given: names of options that are not searched either, though they may be at their defaults,
            such as ``["loss.variant"]``: on the command line all that are given.

    Raises:
        RinceError: data that cannot be read, or of which none can be held out; all trials of
            ``config.objective`` failed (a baseline is then left out, with a warning).
        ValueError: classes without superclasses; an option out of range, or nothing to search.
        KeyboardInterrupt: by Ctrl-C.
    """
    require(
        isinstance(config, TrainConfig),
        f"config must be a TrainConfig, got {type(config).__name__}",
    )
    options = options or TuneOptions()
    options.check()
    config.check()
    require(config.vectors.captions is None, "rince tune has no search for vectors.captions")
    lengths = round_lengths(config.epochs)
    warmup, short = config.optim.warmup(lengths[0]), lengths[0]
    require(
        warmup < short,
        f"optim.warmup_epochs must be below {short}, the epochs of the short round of rince tune "
        f"with epochs {config.epochs}, got {warmup:g}: lower it, or give more epochs",
    )
    require(config.ranks.by == "classes", "rince tune is for ranks by classes: ranks.by is time")
    require(
        config.devices in ("auto", "1") and config.num_nodes == 1 and launched_processes() is None,
        "rince tune trains on one device, in one process: leave out devices, num_nodes and "
        "torchrun (CUDA_VISIBLE_DEVICES chooses a GPU)",
    )
    objectives = list(dict.fromkeys((config.objective, *options.baselines)))
    for name in objectives:
        OBJECTIVES[name].function()  # or a package is missing, which is said now
    folder = replace(config, name=config.name or f"tune-{config.data_name()}").folder()
    if splits is not None:
        warn_of_choices(config)
    tree = read_tree(config.ranks.tree, config.table.encoding)
    config, splits = with_data(config, splits, tree=tree)
    parts = _parts(splits.train)
    searched = open_options(config, options, given)
    shared = replace(config, name=None).sized(len(parts.train), 1)
    configs = {
        name: trial_configs(shared.of_objective(name), parts.train, searched, options.trials)
        for name in objectives
    }
    planned = sum(planned_epochs(len(of_one), lengths) for of_one in configs.values())
    work = _Work(parts, parts.fingerprint(), lengths, planned, config.progress)
    if config.progress:
        print(
            f"{folder}: {len(parts.train)} {parts.train.noun} to train on, {len(parts.test)} held "
            f"out of the training; the test is not used\n"
            f"{_plan(configs, lengths)}\n{planned} epochs in all; searched: {', '.join(searched)}",
            flush=True,
        )
    tuned = Tuned(folder, (), config.epochs)
    for name in objectives:
        trials = [_trial(x, i, folder, work) for i, x in enumerate(configs[name], 1)]
        if problem := work.search(trials):
            if name == config.objective:
                raise RinceError(problem)
            warn(f"left out: {problem}")
            continue
        tuned = replace(tuned, trials=(*tuned.trials, *trials))
        _write_best(tuned, name, options.fine_weight)
    return tuned


def _plan(configs: Mapping[str, Sequence[TrainConfig]], lengths: Sequence[int]) -> str:
    """A line for the objectives that have as many different trials."""
    alike: dict[int, list[str]] = {}
    for name, of_one in configs.items():
        alike.setdefault(len(of_one), []).append(name)
    lines = []
    for count, names in alike.items():
        counts = zip(survivors(count, len(lengths)), lengths, strict=True)
        rounds = ", then the best ".join(f"{n} x {length}" for n, length in counts)
        lines.append(f"{', '.join(names)}: trials x epochs {rounds}")
    return "\n".join(lines)


def _parts(items: Items) -> Splits:
    superclass_level(items.taxonomy, "rince tune")  # or there is no coarse side
    try:
        train, held_out = split_by_hash(items)
    except NothingToHoldOut:
        raise RinceError(
            f"{items.name}: rince tune holds out a part of the training {items.noun}, but no class "
            f"has two of them: give more of each class"
        ) from None
    if len(held_out) < FEW:
        warn(
            f"{len(held_out)} {items.noun} are held out, fewer than {FEW}: trials that differ by a "
            f"few points may differ by chance. Give more, or train the chosen ones with some seeds"
        )
    return of_trained_classes(Splits(train, held_out))


@dataclass
class _Work:
    """What all trials share, and how far the work is."""

    parts: Splits
    fingerprint: str
    lengths: Sequence[int]
    planned: int  # epochs
    show: bool
    done: int = 0  # epochs, those of an earlier call among them
    trained: int = 0  # epochs of this call
    seconds: float = 0.0  # that they took

    def search(self, trials: Sequence[Trial]) -> str:
        """Give them their scores; what is to be told if none was trained to the end, else ""."""
        count = len(trials)
        end = self.done + planned_epochs(count, self.lengths)
        finished = successive_halving(
            count, self.lengths, lambda i, epochs: self._score(trials[i], count, epochs)
        )
        self.done = end  # of trials that failed fewer may be in the last round
        if finished:
            return ""
        failed = [trial for trial in trials if trial.failed]
        return (
            f"no trial of {failed[0].config.objective} could be trained to the end; "
            f"{failed[0].name}: {failed[0].failed}. To try them again, remove "
            f"{shlex.join(str(trial.folder) for trial in failed)}"
        )

    def _score(self, trial: Trial, count: int, epochs: int) -> Score | None:
        new = epochs not in trial.scores and not trial.failed
        if new:
            if self.show:
                where = f"epoch {self.done + 1}/{self.planned} | {trial.name} of {count}, "
                print(f"{where}{epochs} epochs: {trial.settings()}", end="", flush=True)
            self._train(trial, epochs)
            self.trained += epochs
        self.done += epochs
        score = trial.scores.get(epochs)
        if new and self.show:
            left = timedelta(
                seconds=round(self.seconds / self.trained * (self.planned - self.done))
            )
            result = f"failed: {trial.failed}"
            if score is not None:
                result = f"fine {100 * score.fine:.1f}, coarse {100 * score.coarse:.1f}"
            print(f" | {result} | about {left} left", flush=True)
        return score

    def _train(self, trial: Trial, epochs: int) -> None:
        """Train it to this length and measure it, and keep what was found."""
        started = time.perf_counter()
        try:
            # What a run says is in its log.
            with contextlib.redirect_stdout(io.StringIO()):
                trial.scores[epochs] = self._measured(trial, self._run(trial, epochs))
        except (KeyboardInterrupt, Stopped) as stop:
            print("\n" * self.show, end="", flush=True)
            raise type(stop)(
                f"stopped after {self.done} of {self.planned} epochs: the same command goes on"
            ) from None
        except (FloatingPointError, ValueError) as error:  # it has diverged
            trial.failed = str(error)
        seconds = time.perf_counter() - started
        trial.seconds += seconds
        self.seconds += seconds
        trial.folder.mkdir(parents=True, exist_ok=True)
        with replacing(trial.folder / SCORES_FILE) as part:
            facts = {name: getattr(trial, name) for name in ("scores", "seconds", "failed")}
            part.write_text(json.dumps(facts, indent=1) + "\n")

    def _run(self, trial: Trial, epochs: int) -> Path:
        """The folder of its run of this length, which is trained, or goes on after a stop."""
        folder = trial.folder / f"{epochs}-epochs"
        if not (folder / CHECKPOINT_FILE).exists():
            run = replace(trial.config, epochs=epochs, progress=False, knn_every=0)
            run = replace(run, output=str(trial.folder), name=folder.name, devices="1")
            run.check_values()
            train_prepared(prepared(run, folder, self.parts))
        elif not read_about(folder):
            resume(folder, progress=False, splits=self.parts)
        return folder

    def _measured(self, trial: Trial, folder: Path) -> Score:
        run = load_run(folder)
        device = known_device("cpu" if trial.config.accelerator == "cpu" else "auto")
        workers = trial.config.images.workers
        network = Network(run.backbone.module, run.head, device, workers=workers)
        metrics = measure(network, self.parts, {}, steps=[class_retrieval]).metrics
        space = "" if run.head is None else EMBEDDING
        return Score(*(metrics[f"{space}retrieval/{level}/mAP"] for level in Score._fields))


def _trial(config: TrainConfig, number: int, folder: Path, work: _Work) -> Trial:
    """With the scores that it has already, if it was trained with these settings on these data."""
    plain = to_dict(replace(config, output="", name=None, progress=True, devices="1"))
    key = digest([plain, work.fingerprint])[:8]
    trial = Trial(number, config, folder / "trials" / f"{config.objective}-{number:02}-{key}")
    file = trial.folder / SCORES_FILE
    if not file.exists():
        return trial
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        trial.scores = {int(n): Score(*map(float, x)) for n, x in facts["scores"].items()}
        trial.seconds, trial.failed = float(facts["seconds"]), str(facts["failed"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RinceError(f"{file} is damaged ({error}): remove {trial.folder}") from error
    return trial


def _write_best(tuned: Tuned, objective: str, fine_weight: float) -> None:
    trial = tuned.best(objective, fine_weight)
    fine, coarse = tuned.score(trial)
    head = (
        f"# rince tune: trial {trial.number} of {objective}, the best of its {tuned.epochs} epochs "
        f"with fine_weight {fine_weight:g}.\n"
        f"# Held-out mAP: fine {100 * fine:.1f}, coarse {100 * coarse:.1f} %, one seed. The test "
        f"set was not used.\n"
    )
    with replacing(tuned.folder / f"{objective}.yaml") as part:
        part.write_text(head + config_yaml(trial.config))
