from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest

from rince.core.checks import RinceWarning
from rince.ranks.options import RankOptions
from rince.training.config import (
    BatchOptions,
    ImageOptions,
    LossOptions,
    ModelOptions,
    OptimOptions,
    TrainConfig,
    from_dict,
    to_dict,
)


def test_a_configuration_survives_yaml() -> None:
    config = TrainConfig(data="x", loss=LossOptions(temperatures=(0.1, 0.3)), seed=7)
    config.batches = BatchOptions(4, 2)
    assert from_dict(to_dict(config)) == config
    with pytest.raises(ValueError, match="epoch: .*epochs"):
        from_dict({"data": "x", "epoch": 3})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "^epochs .*0"),
        ({"model": ModelOptions(queue_size=8)}, "model.queue_size .*model.momentum"),
        ({"model": ModelOptions(momentum=1.5)}, "model.momentum .*1.5"),
        ({"optim": OptimOptions(lr=-1)}, "optim.lr .*-1"),
        (
            {"optim": OptimOptions(warmup_epochs=20), "epochs": 20},
            r"warmup_epochs .*\(20\).*20",
        ),
        ({"optim": OptimOptions(warmup_epochs=1), "epochs": 1}, r"optim.warmup_epochs .*\(1\).*1"),
        ({"batches": BatchOptions(0)}, "batches.images_per_class .*0"),
        (
            {"batches": BatchOptions(classes_per_superclass=2)},
            "batches.classes_per_superclass .*batches.images_per_class",
        ),
        (
            {"batches": BatchOptions(3, 2), "batch_size": 16},
            "batch_size .*6 .*16",
        ),
        (
            {"ranks": RankOptions(by="time"), "batches": BatchOptions(2, 2)},
            "batches.classes_per_superclass .*by classes.* by time",
        ),
        ({"loss": LossOptions(margin=0)}, "loss.margin .*0"),
        ({"loss": LossOptions(smoothing=1)}, "loss.smoothing .*1, got 1"),
        (
            {"objective": "fastap", "model": ModelOptions(momentum=0.9)},
            "fastap .*model.momentum",
        ),
        ({"loss": LossOptions(temperature=0)}, "loss.temperature .*0"),
        ({"loss": LossOptions(temperature=float("nan"))}, "loss.temperature .*nan"),
        (
            {"loss": LossOptions(temperatures=(0.1, -0.2))},
            r"loss.temperatures .*0.1, -0.2",
        ),
        # As the losses take them, which would say so at the first step.
        ({"loss": LossOptions(temperature=1e-42)}, r"loss.temperature .*1e-30.*1e\+30, got 1e-42"),
        ({"loss": LossOptions(temperature=1e31)}, r"loss.temperature .*1e-30.*1e\+30, got 1e\+31"),
        ({"loss": LossOptions(temperatures=(1e-42, 0.1))}, "loss.temperatures .*1e-30.*1e-42"),
        ({"loss": LossOptions(target_temperature=1e-31)}, "loss.target_temperature .*1e-30"),
        ({"loss": LossOptions(step_width=1e-42)}, "loss.step_width .*1e-30"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, object], message: str) -> None:
    config = TrainConfig(data="x", **changes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        config.check()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"objective": "simclr"},
            "objective .*rince, .*two-heads.*'simclr'",
        ),
        ({"precision": "16"}, "precision .*32-true, .*16-mixed.*'16'"),
        (
            {"videos": {"decoder": "gif"}},
            r"videos\.decoder.*pyav, torchcodec.*'gif'",
        ),
        (
            {"optim": {"optimizer": "adam"}},
            "optim.optimizer .*auto, sgd, adamw.*'adam'",
        ),
        ({"loss": {"variant": "inout"}}, "loss.variant .*in, out, out-in.*'inout'"),
        ({"images": {"augmentation": "no"}}, "images.augmentation .*strong, weak.*'no'"),
        ({"loss": {"positives": "all"}}, "loss.positives .*exclusive, cumulative.*'all'"),
    ],
)
def test_a_wrong_word_is_answered_with_the_right_ones(
    changes: dict[str, object], message: str
) -> None:
    config = from_dict({"data": "x", **changes})
    with pytest.raises(ValueError, match=message):
        config.check()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"objective": "supcon-out", "loss": LossOptions("in", temperatures=(0.1, 0.2))},
            "^loss.variant, loss.temperatures .*supcon-out",
        ),
        ({"objective": "infonce", "loss": LossOptions(positives="cumulative")}, "^loss.positives"),
        ({"loss": LossOptions(margin=0.3, smoothing=0.1)}, "^loss.margin, loss.smoothing .*rince"),
        (
            {"objective": "triplet-hierarchical", "loss": LossOptions(temperature=0.2)},
            "^loss.temperature .*triplet-hierarchical",
        ),
        ({"loss": LossOptions(temperature=0.2)}, "^loss.temperature .*rince"),
        (
            {"objective": "cross-entropy", "model": ModelOptions(momentum=0.9, queue_size=8)},
            "^model.momentum, model.queue_size .*cross-entropy",
        ),
        *(
            (
                {"objective": name, "model": ModelOptions(embedding_dim=64, head="linear")},
                f"^model.embedding_dim, model.head have no effect with objective {name}",
            )
            for name in ("cross-entropy", "cross-entropy-two-heads")
        ),
    ],
)
def test_options_without_effect_are_warned_of_once(
    changes: dict[str, object], message: str
) -> None:
    with warnings.catch_warnings():  # building warns of nothing; nor does a run that goes on
        warnings.simplefilter("error")
        config = TrainConfig(data="x", **changes)  # type: ignore[arg-type]
        assert from_dict(to_dict(config)) == config
        config.check_values()
    with pytest.warns(RinceWarning, match=message) as found:
        config.check()
    assert len(found) == 1


def test_options_with_effect_are_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TrainConfig(data="x", loss=LossOptions("in", "cumulative", (0.1, 0.2))).check()
        TrainConfig(data="x", objective="himulcon", loss=LossOptions(temperature=0.2)).check()
        TrainConfig(
            data="x", objective="triplet-hierarchical", loss=LossOptions(margin=0.3)
        ).check()
        TrainConfig(data="x", objective="cross-entropy", loss=LossOptions(smoothing=0.2)).check()
        TrainConfig(data="x", objective="infonce", loss=LossOptions(temperature=0.2)).check()
        model = ModelOptions(embedding_dim=64, head="linear")
        TrainConfig(data="x", objective="rince-and-cross-entropy", model=model).check()
        TrainConfig(
            data="x", objective="supcon-in", model=ModelOptions(momentum=0.9, queue_size=8)
        ).check()


def test_variants_of_a_method_have_their_own_names() -> None:
    weak = ImageOptions(augmentation="weak")
    smoothed = LossOptions(smoothing=0.2)
    configs = [
        TrainConfig(data="a/x", objective="cross-entropy"),
        TrainConfig(data="a/x", objective="cross-entropy", images=weak),
        TrainConfig(data="a/x", objective="cross-entropy", loss=smoothed),
        TrainConfig(data="a/x", objective="cross-entropy-two-heads", loss=smoothed, images=weak),
        TrainConfig(data="a/x", images=weak),
    ]
    for data in ("a/x.csv", "a/x.CSV", "a/x.Npz"):
        assert replace(configs[0], data=data).run_name() == configs[0].run_name()
    assert [(c.run_name(), c.label()) for c in configs] == [
        ("x-cross-entropy-seed0", "cross-entropy"),
        ("x-cross-entropy-weak-seed0", "cross-entropy, weak augmentation"),
        ("x-cross-entropy-smoothed-seed0", "cross-entropy smoothed"),
        (
            "x-cross-entropy-two-heads-smoothed-weak-seed0",
            "cross-entropy-two-heads smoothed, weak augmentation",
        ),
        ("x-rince-out-in-weak-seed0", "rince out-in, weak augmentation"),
    ]


def test_warm_up_fits_short_runs() -> None:
    for epochs, warmup in ((1, 0.1), (8, 0.8), (1000, 1)):
        assert OptimOptions().warmup(epochs) == warmup
    assert OptimOptions(warmup_epochs=10).warmup(1000) == 10


def test_help_need_not_wait_for_torch() -> None:
    code = (
        "import sys, rince.training as t; t.TrainConfig('x').check(); t.Objective('mine'); "
        "print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("given", "expected"),
    [([0, 1], "0,1"), ((3,), "3,"), ("[0, 1]", "0,1"), ("[2]", "2,"), (2, "2"), ("auto", "auto")],
)
def test_a_list_of_devices(given: object, expected: str) -> None:
    """A list of one is the device of that number, as Lightning reads "2,"."""
    config = TrainConfig("photos", devices=given)  # type: ignore[arg-type]
    assert config.devices == expected
    config.check_values()
    assert from_dict(to_dict(config)).devices == expected


def test_texts_of_numpy_are_texts() -> None:
    config = TrainConfig(np.str_("photos"), name=np.str_("run"))
    assert type(config.data) is type(config.name) is str
