"""`rince train --compile`: the same run, the same names of weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import STEPS, flat_backbone, small_config
from torch import nn

from rince.core.checks import RinceError
from rince.core.input_spec import InputSpec
from rince.models.backbones import Backbone, as_backbone
from rince.training import pair_losses
from rince.training.cached import cached_encode
from rince.training.checkpoint import load_run, read_checkpoint, trained_encoder
from rince.training.config import ModelOptions, TrainConfig
from rince.training.run import resume, train

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="inductor needs a C++ compiler (g++), and there is none"
)
BACKENDS = ("eager", pytest.param("inductor", marks=[pytest.mark.slow, needs_compiler]))
CASES: dict[str, dict[str, Any]] = {
    "in-batch": {},
    "momentum": {"model": ModelOptions(momentum=0.9, queue_size=40, embedding_dim=8)},
    "micro-batch": {"micro_batch": 8},
    "classifier": {"objective": "cross-entropy", "epochs": 1},
    "supcon-out": {"objective": "supcon-out"},
    "infonce": {"objective": "infonce"},
}


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Choose a backend; what is called are the names of the losses that were compiled."""
    monkeypatch.setattr("rince.training.module._CHECKED_FIRST", 1)
    names: list[str] = []
    whole = torch.compile

    def note(model: Any, *given: Any, **options: Any) -> Any:
        if options.get("fullgraph"):
            names.append(model.__name__)
        return whole(model, *given, **options)

    def choose(backend: str) -> list[str]:
        torch.compiler.reset()
        pair_losses._compiled.cache_clear()
        monkeypatch.setattr(torch, "compile", partial(note, backend=backend))
        return names

    return choose


def backbone() -> Backbone:
    """With what a second pass must not draw or count anew: dropout and batch norm."""
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(3 * 16 * 16, 16), nn.BatchNorm1d(16), nn.Dropout(0.2)
    return as_backbone(nn.Sequential(*layers), InputSpec.images(size=16))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_a_compiled_run_is_the_same_run(
    case: str,
    backend: str,
    image_tree: Path,
    tmp_path: Path,
    compiled: Callable[[str], list[str]],
) -> None:
    def config(name: str, **changes: Any) -> TrainConfig:
        given = {"knn_every": 0, "epochs": 2, **CASES[case], **changes}
        return small_config(image_tree, tmp_path, name=name, **given)

    # The compiler draws dropout in its own way.
    made = backbone if backend == "eager" else flat_backbone
    expected = read_checkpoint(train(config("plain"), made()))["state_dict"]
    names = compiled(backend)
    folder = train(config("compiled", compile=True), made())
    assert len(names) == (case != "classifier")
    found = read_checkpoint(folder)["state_dict"]
    assert list(found) == list(expected)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=1e-5)
    encoder = trained_encoder(load_run(folder, made()))
    assert not any("_orig_mod" in name for name in encoder.module.state_dict())


def test_a_compiled_run_goes_on(
    image_tree: Path, tmp_path: Path, compiled: Callable[[str], list[str]]
) -> None:
    compiled("eager")
    config = small_config(image_tree, tmp_path, name="run", knn_every=0, compile=True, epochs=2)
    folder = train(config, flat_backbone())
    (folder / "about.json").unlink()
    resume(folder, progress=False, backbone=flat_backbone())
    assert read_checkpoint(folder)["global_step"] == 2 * STEPS


def test_without_a_compiler_it_says_so(
    image_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any, **options: Any) -> Any:
        raise RuntimeError("no working C++ compiler\nlong story")

    monkeypatch.setattr(torch, "compile", broken)
    config = small_config(image_tree, tmp_path, compile=True)
    with pytest.raises(RinceError, match="--compile.*no working C.. compiler.*leave out") as caught:
        train(config, flat_backbone())
    assert "long story" not in str(caught.value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_both_passes_of_a_micro_batch_drop_the_same(
    backend: str, compiled: Callable[[str], list[str]]
) -> None:
    """The first pass has no graph for gradients, and so is compiled apart."""
    compiled(backend)
    torch.manual_seed(0)
    layers = nn.Linear(8, 32), nn.Dropout(0.5), nn.ReLU(), nn.Linear(32, 4), nn.Dropout(0.3)
    encoder, x = nn.Sequential(*layers), torch.randn(6, 8)
    encoder.compile()
    found = []
    for encode in (
        lambda: cached_encode(encoder, x, 3),
        lambda: torch.cat([encoder(x[:3]), encoder(x[3:])]),
    ):
        torch.manual_seed(1)
        z = encode()
        found.append((z.detach(), *torch.autograd.grad(z.square().sum(), encoder.parameters())))
    torch.testing.assert_close(*found)


def test_many_trainings_in_one_process(
    image_tree: Path, tmp_path: Path, compiled: Callable[[str], list[str]], monkeypatch: Any
) -> None:
    """Each compiles its loss anew: torch refuses more than some sets of options."""
    monkeypatch.setattr("torch._dynamo.config.recompile_limit", 2)
    compiled("eager")
    for number in range(4):
        given = small_config(image_tree, tmp_path, name=str(number), epochs=1, compile=True)
        given.objective, given.loss.temperature = "supcon-out", 0.1 + number / 100
        train(given, flat_backbone())
