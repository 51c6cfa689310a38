"""Modules that do what rince's own do not: cached, followed by momentum, resumed, exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from small_runs import STEPS, small_config
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rince import cached_encode, load_exported
from rince.core.input_spec import InputSpec
from rince.models.backbones import as_backbone
from rince.models.momentum import MomentumEncoder
from rince.models.weights import load_strictly
from rince.training.cached import micro_batches
from rince.training.checkpoint import load_run, read_checkpoint, trained_encoder
from rince.training.config import ModelOptions
from rince.training.run import resume, train

SPEC = InputSpec.images(size=16)
WIDTH = 3 * 16 * 16


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.first, self.second, self.reentrant = nn.Linear(WIDTH, 8), nn.Linear(8, 6), reentrant

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = checkpoint(self.second, self.first(x.flatten(1)), use_reentrant=self.reentrant)
        return z


class Growing(nn.Module):
    """Its buffers grow with what it has seen, and what it gives depends on them."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, 6)
        self.register_buffer("means", torch.zeros(0))
        self.register_buffer("first", None)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.means = torch.cat([self.means, x.detach().mean().reshape(1)])
        if self.training and self.first is None:
            self.first = torch.ones(6, dtype=x.dtype)
        offset = self.means.sum() if len(self.means) else 0
        z: Tensor = self.linear(x.flatten(1)) * (1 + offset)
        return z


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.first, self.second = nn.Linear(WIDTH, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.second(torch.relu(self.first(self.down(x.flatten(1)))))
        return z


def flat(layer: nn.Module, *more: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), layer, *more)


MODULES: dict[str, Callable[[], nn.Module]] = {
    "checkpointed": lambda: Checkpointed(reentrant=False),
    "checkpointed, reentrant": lambda: Checkpointed(reentrant=True),
    "old weight_norm": lambda: flat(nn.utils.weight_norm(nn.Linear(WIDTH, 6))),
    "old spectral_norm": lambda: flat(nn.utils.spectral_norm(nn.Linear(WIDTH, 6))),
    "weight_norm": lambda: flat(nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, 6))),
    "spectral_norm": lambda: flat(nn.utils.parametrizations.spectral_norm(nn.Linear(WIDTH, 6))),
    "growing buffers": Growing,
    "tied": Tied,
    "DataParallel": lambda: nn.DataParallel(flat(nn.Linear(WIDTH, 6))),
    "lazy": lambda: flat(nn.LazyLinear(6)),
}


def built(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(3)
    module = MODULES[name]()
    if name == "lazy":
        module(torch.zeros(2, 3, 16, 16))
    return module.to(dtype)


def images(count: int = 11) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(count, 3, 16, 16, generator=generator, dtype=torch.float64)


def backward(module: nn.Module, encode: Callable[[nn.Module], Tensor]) -> dict[str, Any]:
    encode(module).square().sum().backward()
    return {name: p.grad for name, p in module.named_parameters()}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", MODULES)
def test_cached_gradients(name: str) -> None:
    x = images()
    plain, cached = built(name), built(name)
    expected = backward(
        plain, lambda m: torch.cat([m(x[rows]) for rows in micro_batches(len(x), 4)])
    )
    given = backward(cached, lambda m: cached_encode(m, x, 4))
    assert given.keys() == expected.keys()
    for parameter, gradient in expected.items():
        torch.testing.assert_close(given[parameter], gradient, rtol=1e-10, atol=1e-12)
    for entry, value in plain.state_dict().items():
        assert torch.equal(cached.state_dict()[entry], value), entry


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("called_before", [False, True])
def test_momentum_follows(name: str, called_before: bool) -> None:
    online, x = built(name), images()
    if called_before:
        online(x).sum().backward()  # leaves graphs behind in some
    follower = MomentumEncoder(online, 0.75)
    old = [p.clone() for p in follower.module.parameters()]
    with torch.no_grad():
        for p in online.parameters():
            p.add_(torch.randn_like(p))
    follower.update(online)
    by_hand = built(name)
    load_strictly(by_hand, follower.module.state_dict(), Path("by hand"))
    with torch.no_grad():
        for p, was, new in zip(by_hand.parameters(), old, online.parameters(), strict=True):
            p.copy_(0.75 * was + 0.25 * new)
        torch.testing.assert_close(follower.eval()(x), by_hand.eval()(x))
    assert not any(p.requires_grad for p in follower.parameters())


class Stopped(nn.Module):
    """A backbone at whose given call the user presses Ctrl-C."""

    def __init__(self, module: nn.Module, call: int | None) -> None:
        super().__init__()
        self.module, self.call, self.calls = module, call, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.call:
            raise KeyboardInterrupt
        z: Tensor = self.module(x)
        return z


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", MODULES)
def test_stopped_resumed_read_and_exported(name: str, image_tree: Path, tmp_path: Path) -> None:
    def own(call: int | None = None) -> nn.Module:
        torch.manual_seed(3)
        return Stopped(MODULES[name](), call)

    def config(run: str) -> Any:
        return small_config(
            image_tree, tmp_path, name=run, epochs=2, knn_every=0, micro_batch=16,
            model=ModelOptions(momentum=0.9, embedding_dim=8),
        )  # fmt: skip

    whole = train(config("whole"), own())
    # A step encodes two micro-batches, there and back; a blank input comes before.
    with pytest.raises(KeyboardInterrupt):
        train(config("cut"), own(call=2 + 4 * (STEPS + 1)))
    resumed = resume(tmp_path / "cut", backbone=own(), progress=False)
    expected, given = (read_checkpoint(run)["state_dict"] for run in (whole, resumed))
    assert expected.keys() == given.keys()
    for entry, value in expected.items():
        assert torch.equal(given[entry], value), entry

    encoder = trained_encoder(load_run(resumed, own()))
    (tmp_path / "export").mkdir()
    encoder.save(tmp_path / "export")
    read = load_exported(tmp_path / "export", own())
    pixels = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(read.encode(pixels), encoder.encode(pixels))


class Loose(NamedTuple):
    pooled: Tensor


@pytest.mark.parametrize(
    ("wrap", "kind"),
    [
        (lambda z: (z, z), "tuple"),
        (lambda z: {"pooled": z}, "dict"),
        (Loose, "Loose"),
        (lambda z: z.sum(), r"shape \(\)"),
    ],
)
@pytest.mark.parametrize("micro_batch", [3, 100])
def test_an_output_that_is_no_tensor_is_named(wrap: Any, kind: str, micro_batch: int) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(WIDTH, 6)

        def forward(self, x: Tensor) -> Any:
            return wrap(self.linear(x.flatten(1)))

    with pytest.raises(ValueError, match=f"Wrapped.*one tensor.*{kind}.*picks"):
        cached_encode(Wrapped().double(), images(), micro_batch)
    if kind[0] != "s":
        with pytest.raises(ValueError, match=f"Wrapped.*features.*{kind}.*picks"):
            as_backbone(Wrapped(), SPEC)


def test_weights_without_a_shape_are_refused() -> None:
    lazy = flat(nn.LazyLinear(6))
    with pytest.raises(ValueError, match=r"\(1\.weight, 1\.bias\).*once"):
        cached_encode(lazy, images().float(), 4)
    with pytest.raises(ValueError, match="without a shape"):
        MomentumEncoder(lazy)


def test_a_wrapper_over_devices_is_taken_off() -> None:
    inner = flat(nn.Linear(WIDTH, 6))
    assert as_backbone(nn.DataParallel(inner), SPEC).module is inner


@pytest.mark.parametrize("how", ["numpy", "counter", "mode"])
def test_a_second_pass_that_gives_other_embeddings_is_refused(how: str) -> None:
    """Its gradient would belong to embeddings that the loss never saw."""

    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.dropout = nn.Linear(WIDTH, 6), nn.Dropout(0.5)
            self.generator, self.calls = torch.Generator().manual_seed(0), 0

        def forward(self, x: Tensor) -> Tensor:
            z: Tensor = self.linear(x.flatten(1).float())
            self.calls += 1
            if how == "numpy":
                return z * torch.rand(z.shape, generator=self.generator)
            return self.dropout(z) if how == "mode" else z * self.calls

    module = Other()
    z = cached_encode(module, images(), 4)
    module.train(how != "mode")
    with pytest.raises(RuntimeError, match="other embeddings"):
        z.sum().backward()
    assert all(p.grad is None for p in module.parameters())


def test_no_gradient_at_all_is_refused() -> None:
    """A reentrant checkpoint over images, which ask for none, cuts the graph."""

    class Cut(Checkpointed):
        def forward(self, x: Tensor) -> Tensor:
            z: Tensor = checkpoint(super().forward, x, use_reentrant=True)
            return z

    with pytest.raises(ValueError, match="use_reentrant=False"):
        cached_encode(Cut(reentrant=False).double(), images(), 4).sum().backward()
