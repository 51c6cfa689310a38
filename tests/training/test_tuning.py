from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_runs import small_config

from rince.cli.main import main
from rince.cli.train import parse_with_seeds
from rince.core.checks import RinceError, RinceWarning
from rince.data.arrays import TensorImages
from rince.data.items import Marks, Splits
from rince.ranks.taxonomy import Taxonomy
from rince.training import TrainConfig, Trial, Tuned, TuneOptions, train, tune, tuning
from rince.training.checkpoint import CHECKPOINT_FILE
from rince.training.config import (
    BatchOptions,
    ImageOptions,
    LossOptions,
    ModelOptions,
    OptimOptions,
    RankOptions,
)
from rince.training.folder import read_config
from rince.training.halving import Score, planned_epochs

TREE = Taxonomy([("warm", "red"), ("warm", "orange"), ("cold", "blue"), ("cold", "green")])
pytestmark = pytest.mark.filterwarnings("ignore:.*are held out, fewer than")


@dataclass
class Untouched:
    """In place of test items: their classes may be known, and how they are fed may be noted;
    nothing may be read."""

    taxonomy: Taxonomy

    def preprocessed(self, how: object) -> object:
        return self

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"the test set was asked for its {name}")


def images(per_class: int = 10, tree: Taxonomy = TREE, seed: int = 0) -> Splits:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(tree.num_classes).repeat(per_class)
    pixels = torch.randint(0, 256, (len(labels), 3, 8, 8), generator=generator)
    items = TensorImages(pixels.to(torch.uint8), labels, tree, "colours", source=f"files {seed}")
    return Splits(items, Untouched(tree))  # type: ignore[arg-type]


def config(output: Path, **changes: object) -> TrainConfig:
    values = {"optim": OptimOptions(), "epochs": 8, "batch_size": 16, **changes}
    pixels = ImageOptions(image_size=8)  # as those of images()
    return replace(small_config(Path("colours"), output, **values), images=pixels)


class FakeTrainer:
    """Knows the scores: the higher the learning rate the better the fine side; counts epochs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trained: list[tuple[str, int]] = []  # folder, epochs
        self.happens: Callable[[Trial], object] = lambda trial: None
        monkeypatch.setattr(tuning._Work, "_run", lambda _, *given: self.run(*given))
        monkeypatch.setattr(tuning._Work, "_measured", lambda _, trial, folder: self.score(trial))

    def run(self, trial: Trial, epochs: int) -> None:
        self.happens(trial)
        self.trained.append((trial.folder.name, epochs))

    @staticmethod
    def score(trial: Trial) -> Score:
        lr = trial.config.optim.lr or 0
        return Score(lr / (1 + lr), 1 / (1 + lr))

    @property
    def epochs(self) -> int:
        return sum(epochs for _, epochs in self.trained)


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> FakeTrainer:
    return FakeTrainer(monkeypatch)


def scores(tuned: Tuned) -> list[tuple[str, dict[int, Score]]]:
    return [(trial.folder.name, trial.scores) for trial in tuned.trials]


def test_a_warm_up_that_fills_the_short_round_is_refused_before_anything_is_trained(
    trainer: FakeTrainer, tmp_path: Path
) -> None:
    """It failed every trial, with the epochs of the round as if they had been asked for."""
    for epochs, warmup in ((20, 5), (4, 1.5)):
        asked = config(tmp_path, epochs=epochs, optim=OptimOptions(warmup_epochs=warmup))
        with pytest.raises(ValueError, match=rf"warmup_epochs .*\b{epochs}\b.*{warmup:g}"):
            tune(asked, TuneOptions(trials=1, baselines=()), splits=images())
    assert not trainer.trained
    assert not list(tmp_path.iterdir())
    fits = config(tmp_path, epochs=20, optim=OptimOptions(warmup_epochs=4.5))
    tune(fits, TuneOptions(trials=1, baselines=()), splits=images())
    assert {epochs for _, epochs in trainer.trained} == {5, 20}


def test_the_budget_is_spent_once_and_the_dial_turns(trainer: FakeTrainer, tmp_path: Path) -> None:
    options = TuneOptions(trials=8, baselines=("supcon-out",))
    tuned = tune(config(tmp_path), options, splits=images())
    assert trainer.epochs == 2 * planned_epochs(8, [2, 8]) == 64
    assert [trial.name for trial in tuned.trials[:9:4]] == ["rince 1", "rince 5", "supcon-out 1"]
    rates = [trial.config.optim.lr or 0 for trial in tuned.trials[:8]]
    assert len(set(rates)) == 8
    assert tuned.best("rince", 1).config.optim.lr == max(rates)
    assert tuned.best("rince", 0).config.optim.lr == min(rates)
    assert {trial.name for trial in tuned.front()} >= {tuned.best("rince", w).name for w in (0, 1)}
    # Again, with another weight: nothing is trained.
    again = tune(config(tmp_path), replace(options, fine_weight=1), splits=images())
    assert trainer.epochs == 64
    assert scores(again) == scores(tuned)
    written = parse_with_seeds(["--config", str(again.folder / "rince.yaml")])[0]
    assert written == again.best("rince", 1).config
    assert (written.epochs, written.name, written.output) == (8, None, str(tmp_path))
    # More trials are further ones.
    more = tune(config(tmp_path), replace(options, trials=12), splits=images())
    assert [t.config for t in more.trials[:8]] == [t.config for t in tuned.trials[:8]]
    short = [name for name, epochs in trainer.trained if epochs == 2]
    assert len(set(short)) == len(short) == 24
    assert len(set(trainer.trained)) == len(trainer.trained)
    # Other images: all anew.
    before = trainer.epochs
    tune(config(tmp_path), options, splits=images(seed=1))
    assert trainer.epochs == before + 64


@pytest.mark.parametrize("stops_at", [0, 4, 7])
def test_after_a_stop_nothing_is_spent_twice(
    trainer: FakeTrainer, tmp_path: Path, stops_at: int
) -> None:
    def stop(trial: Trial) -> None:
        if len(trainer.trained) == stops_at:
            raise KeyboardInterrupt

    trainer.happens = stop
    options = TuneOptions(trials=4, baselines=("supcon-out",))
    with pytest.raises(KeyboardInterrupt) as stopped:
        tune(config(tmp_path), options, splits=images())
    assert f"after {trainer.epochs} of 32 epochs" in str(stopped.value)
    trainer.happens = lambda trial: None
    tuned = tune(config(tmp_path), options, splits=images())
    assert trainer.epochs == 2 * planned_epochs(4, [2, 8])
    assert len(set(trainer.trained)) == len(trainer.trained) == 10
    undisturbed = tune(config(tmp_path / "other"), options, splits=images())
    assert scores(undisturbed) == scores(tuned)


def test_a_trial_that_diverges_is_left_out_and_not_tried_again(
    trainer: FakeTrainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def diverge(trial: Trial) -> None:
        if trial.number in diverging:
            raise FloatingPointError("the loss is nan at step 3")

    trainer.happens = diverge
    diverging = {1}
    options = TuneOptions(trials=3, baselines=())
    shown = config(tmp_path, progress=True)
    for _ in range(2):
        tuned = tune(shown, options, splits=images())
        assert len(trainer.trained) == 2 + 1
        assert tuned.trials[0].failed == "the loss is nan at step 3"
        assert [trial.number for trial in tuned.finished()] in ([2], [3])
    assert capsys.readouterr().out.count("nan at step 3") == 1
    diverging = {1, 2, 3}
    with pytest.raises(RinceError, match=r"rince 1: .*nan at step 3.*tune-colours"):
        tune(replace(shown, seed=1), options, splits=images())


def test_a_baseline_that_fails_is_left_out(trainer: FakeTrainer, tmp_path: Path) -> None:
    def diverge(trial: Trial) -> None:
        if trial.config.objective == failing:
            raise FloatingPointError("the loss is nan at step 3")

    trainer.happens, failing = diverge, "supcon-out"
    options = TuneOptions(trials=2, baselines=("supcon-out", "cross-entropy"))
    said = r"left out: no trial of supcon-out .*; supcon-out 1: .*nan at step 3"
    with pytest.warns(UserWarning, match=said) as warned:
        tuned = tune(config(tmp_path), options, splits=images())
    assert {trial.config.objective for trial in tuned.trials} == {"rince", "cross-entropy"}
    written = {file.name for file in tuned.folder.glob("*.yaml")}
    assert written == {"rince.yaml", "cross-entropy.yaml"}
    # What is to be removed is of the trials that failed alone.
    (text,) = (str(w.message) for w in warned if "left out" in str(w.message))
    removed = text.partition("again, remove ")[2].split()
    assert [Path(x).name[:13] for x in removed] == ["supcon-out-01", "supcon-out-02"]
    for folder in removed:
        shutil.rmtree(folder)
    trainer.happens, before = lambda trial: None, trainer.epochs
    again = tune(config(tmp_path), options, splits=images())
    assert trainer.epochs == before + planned_epochs(2, [2, 8])
    assert (again.folder / "supcon-out.yaml").is_file()
    # The objective itself is what was asked for.
    trainer.happens, failing = diverge, "rince"
    with pytest.raises(RinceError, match=r"no trial of rince .*again, remove \S*/rince-01-"):
        tune(replace(config(tmp_path), seed=1), options, splits=images())


def test_what_is_found_is_written_before_the_next_objective(
    trainer: FakeTrainer, tmp_path: Path
) -> None:
    def stop(trial: Trial) -> None:
        if trial.config.objective != "rince":
            raise KeyboardInterrupt

    trainer.happens = stop
    with pytest.raises(KeyboardInterrupt):
        tune(config(tmp_path), TuneOptions(trials=2, baselines=("supcon-out",)), splits=images())
    assert [file.name for file in tmp_path.glob("*/*.yaml")] == ["rince.yaml"]


def test_no_setting_is_tried_twice(
    trainer: FakeTrainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = TuneOptions(trials=12, baselines=("supcon-out", "cross-entropy"), search=("variant",))
    tuned = tune(config(tmp_path, progress=True), options, splits=images())
    assert [(x.name, x.config.loss.variant) for x in tuned.trials[:1]] == [("rince 1", "out-in")]
    assert {x.config.loss.variant for x in tuned.trials[:3]} == {"in", "out-in", "out"}
    names = ["rince 1", "rince 2", "rince 3", "supcon-out 1", "cross-entropy 1"]
    assert [x.name for x in tuned.trials] == names
    planned = planned_epochs(3, [2, 8]) + 2 * planned_epochs(1, [2, 8])
    assert trainer.epochs == planned
    shown = capsys.readouterr().out
    each = "trials x epochs 1 x 2, then the best 1 x 8"
    assert "rince: trials x epochs 3 x 2, then the best 1 x 8\n" in shown
    assert f"supcon-out, cross-entropy: {each}\n{planned} epochs in all" in shown
    assert f"epoch {planned - 7}/{planned} | cross-entropy 1 of 1, 8 epochs" in shown


def test_the_devices_are_those_that_were_given(trainer: FakeTrainer, tmp_path: Path) -> None:
    options = TuneOptions(trials=1, baselines=())
    for devices in ("auto", "1"):
        tuned = tune(config(tmp_path, devices=devices), options, splits=images())
        written = parse_with_seeds(["--config", str(tuned.folder / "rince.yaml")])[0]
        assert written.devices == tuned.trials[0].config.devices == devices
    assert trainer.epochs == 2 + 8  # all are trained on one, so nothing anew


def test_trials_differ_in_what_is_searched_alone(trainer: FakeTrainer, tmp_path: Path) -> None:
    splits = images(per_class=20)
    tuned = tune(config(tmp_path), TuneOptions(trials=40, baselines=()), splits=splits)
    usual, *others = [trial.config for trial in tuned.trials]
    assert (usual.loss.temperatures, usual.loss.variant) == ((0.1, 0.225), "out-in")
    assert (usual.optim.lr, usual.batches) == (0.5 * 16 / 512, BatchOptions())
    assert {x.loss.variant for x in others} == {"in", "out-in", "out"}
    make_ups = {(x.batches.images_per_class, x.batches.classes_per_superclass) for x in others}
    assert make_ups == {(None, None), (2, None), (4, None), (8, None), (2, 2), (4, 2)}
    for one in others:
        one.check()
        assert one.optim.lr is not None
        assert usual.optim.lr is not None
        assert usual.optim.lr / 4.01 < one.optim.lr < usual.optim.lr * 4.01
        first, second = one.loss.temperatures or ()
        assert 0.0499 < first < 0.2001
        assert 1.24 * first < second < 10.1 * first
    assert len(set(map(str, others))) == 39

    set_here = config(
        tmp_path, optim=OptimOptions(lr=0.07), loss=LossOptions(variant="in", margin=0.2)
    )
    options = TuneOptions(trials=9, baselines=("cross-entropy",), search=("lr", "variant"))
    with pytest.raises(ValueError, match="nothing to search"):
        tune(set_here, options, splits=splits)
    options = replace(options, search=("lr", "variant", "batches"))
    tuned = tune(set_here, options, splits=splits)
    of_rince, others_of = (
        [t for t in tuned.trials if t.config.objective == name]
        for name in ("rince", "cross-entropy")
    )
    assert {(t.config.optim.lr, t.config.loss.temperatures) for t in of_rince} == {
        (0.07, (0.1, 0.225))
    }
    assert {t.config.loss for t in map(frozen, others_of)} == {str(LossOptions())}
    assert len({str(t.config.batches) for t in tuned.trials}) > 2


@pytest.mark.parametrize(
    ("command", "in_file", "searched"),
    [
        ("", "", "lr, temperatures, variant, batches"),
        ("--loss.variant out-in", "", "lr, temperatures, batches"),
        ("--loss.temperature 0.1", "", "lr, variant, batches"),
        ("--optim.lr null", "batches.images_per_class: null", "temperatures, variant"),
        ("--seed 0", "loss: {variant: out-in, temperatures: null}", "lr, batches"),
        ("--loss.variant out-in --search lr,variant", "", "lr"),
    ],
)
def test_what_is_set_to_its_default_is_not_searched(
    command: str,
    in_file: str,
    searched: str,
    trainer: FakeTrainer,
    image_tree: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(in_file or "seed: 0")
    fixed = f"tune {image_tree} --config {file} --images.image-size 16 --batch-size 16 --epochs 8"
    fixed += f" --trials 1 --baselines [] --accelerator cpu --output {tmp_path}"
    assert main([*fixed.split(), *command.split()]) == 0
    assert f"searched: {searched}\n" in capsys.readouterr().out


def test_given_names_what_is_set(trainer: FakeTrainer, tmp_path: Path) -> None:
    options = TuneOptions(trials=9, baselines=())
    names = ["loss.variant", "batches.images_per_class"]
    tuned = tune(config(tmp_path), options, splits=images(), given=names)
    assert {(t.config.loss.variant, str(t.config.batches)) for t in tuned.trials} == {
        ("out-in", str(BatchOptions()))
    }
    assert len({t.config.optim.lr for t in tuned.trials}) == 9
    with pytest.raises(ValueError, match=r"given must .*loss\.variant.* got variant"):
        tune(config(tmp_path), options, splits=images(), given=["variant"])


def frozen(trial: Trial) -> Trial:
    """With its loss as text, which hashes."""
    settled = replace(trial.config.loss, matmul_precision=None)
    trial.config.loss = str(settled)  # type: ignore[assignment]
    return trial


def test_what_cannot_be_tuned_is_refused(trainer: FakeTrainer, tmp_path: Path) -> None:
    one = config(tmp_path)
    for splits, error, message in (
        (images(tree=Taxonomy([("red",), ("blue",)])), ValueError, "superclasses.*flat"),
        (images(per_class=1), RinceError, "no class has two"),
    ):
        with pytest.raises(error, match=message):
            tune(one, splits=splits)
    for options, message in (
        (TuneOptions(baselines=("supcon-ou",)), "baselines.*'supcon-ou'.*mean.*supcon-out"),
        (TuneOptions(search=()), r"search must .*lr, temperatures.*\(\)"),
        (TuneOptions(search=("rate",)), "search.*lr, temperatures.*'rate'"),
        (TuneOptions(trials=0), "trials.*at least 1.*0"),
        (TuneOptions(fine_weight=2), "fine_weight.*at most 1.*2"),
    ):
        with pytest.raises(ValueError, match=message):
            tune(one, options, splits=images())
    for changes, message in (
        ({"devices": "2"}, "one device"),
        ({"ranks": RankOptions(by="time")}, "ranks.by"),
    ):
        with pytest.raises(ValueError, match=message):
            tune(replace(one, **changes), splits=images())  # type: ignore[arg-type]
    assert not trainer.trained


def test_few_held_out_images_are_warned_of(trainer: FakeTrainer, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="8 images are held out, fewer than 200"):
        tune(config(tmp_path), TuneOptions(trials=1, baselines=()), splits=images())


def test_a_class_that_is_held_out_whole_is_left_out() -> None:
    """Its items are all of one sequence, with an item of another class."""
    items = images(tree=Taxonomy([("warm", "red"), ("cold", "blue"), ("cold", "green")])).train
    sequence = torch.arange(len(items))
    reds = (items.labels == 0).nonzero()[:, 0].tolist()
    for red in reds:
        of_one = torch.where(items.labels == 2, red, sequence)
        marked = replace(items, marks=Marks(of_one))  # type: ignore[type-var]
        if bool(marked.held_out()[items.labels == 2].all()):
            with pytest.warns(RinceWarning, match="10 of 1[45] test images .*never trained"):
                parts = tuning._parts(marked)
            assert 2 not in parts.test.labels
            break
    else:
        raise AssertionError("no sequence of a red item is held out")


def test_damaged_scores_are_named(trainer: FakeTrainer, tmp_path: Path) -> None:
    options = TuneOptions(trials=1, baselines=())
    tuned = tune(config(tmp_path), options, splits=images())
    file = tuned.trials[0].folder / tuning.SCORES_FILE
    file.write_text(file.read_text()[:20])
    with pytest.raises(RinceError, match=r"scores\.json is damaged"):
        tune(config(tmp_path), options, splits=images())


def test_the_last_round_measures_the_run_that_its_configuration_gives(tmp_path: Path) -> None:
    splits = images()
    small = config(tmp_path, epochs=2, model=ModelOptions(backbone="tiny-resnet"))
    tuned = tune(small, TuneOptions(trials=1, baselines=()), splits=splits)
    parts = tuning._parts(splits.train)
    anew = train(replace(tuned.trials[0].config, name="anew"), splits=parts)
    assert read_config(tuned.trials[0].folder / "2-epochs").devices == "1"
    searched, whole = (
        torch.load(folder / CHECKPOINT_FILE)["state_dict"]
        for folder in (tuned.trials[0].folder / "2-epochs", anew)
    )
    torch.testing.assert_close(searched, whole, rtol=0, atol=0)


def test_a_real_search_from_the_command_line(
    image_tree: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = f"tune {image_tree} --images.image-size 16 --model.backbone tiny-resnet --epochs 2"
    command += " --trials 2 --baselines [cross-entropy] --batch-size 32 --accelerator cpu"
    measure, measured = tuning.measure, []

    def stopping(*given: object, **options: object) -> object:
        measured.append(given)
        if len(measured) == 3:
            raise KeyboardInterrupt
        return measure(*given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(tuning, "measure", stopping)
    arguments = [*command.split(), "--output", str(tmp_path / "runs")]
    assert main(arguments) == 130
    assert "2 of 8 epochs" in capsys.readouterr().err
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert len(measured) == 1 + 2 * (2 + 1)  # the one that was broken off
    assert "60 images to train on, 16 held out" in out
    folder = tmp_path / "runs" / f"tune-{image_tree.name}"
    picture = Image.open(io.BytesIO((folder / "front.png").read_bytes()))
    assert picture.width > 300
    # Killed after the last step, before anything was noted.
    (short,) = (
        x
        for x in folder.rglob("scores.json")
        if '"1"' in x.read_text() and '"2"' not in x.read_text() and "rince" in x.parent.name
    )
    for file in (short, short.parent / "1-epochs" / "about.json"):
        file.unlink()
    assert main(arguments) == 0
    whole = tmp_path / "whole"
    assert main([*command.split(), "--output", str(whole)]) == 0
    kept, undisturbed = (
        {p.parent.name[:-9]: p.read_text().split('"seconds"')[0] for p in x.rglob("scores.json")}
        for x in (folder, whole)
    )
    assert kept == undisturbed
    assert len(kept) == 4
    # The chosen one is taken by rince train as it is.
    last = str(folder / "rince.yaml")
    assert main(["train", "--config", last, "--epochs", "1", "--progress", "false"]) == 0
    (trained,) = (tmp_path / "runs").glob(f"{image_tree.name}-rince-*")
    assert f"on {image_tree.name}: 76 images" in (trained / "log.txt").read_text()
