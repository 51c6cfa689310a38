"""Encoding in micro-batches: the gradient of the whole batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from processes import run_in_processes
from rince import Taxonomy, cached_encode, ranked_info_nce
from rince.core.distributed import gather
from rince.losses import info_nce, supcon_out
from rince.ranks import TableRanks
from rince.training.cached import encode_parts, micro_batches

TREE = Taxonomy([("dog", "husky"), ("dog", "malamute"), ("cat", "manx"), ("cat", "siamese")])
COUNT = 23
LABELS = torch.arange(COUNT) % 4
Loss = Callable[[Tensor], Tensor]


def rince_out_in(z: Tensor) -> Tensor:
    z = functional.normalize(z, dim=1)
    return ranked_info_nce(z, z, TREE.ranks(LABELS, LABELS, ignore_self=True), (0.1, 0.3))


def rince_in(z: Tensor) -> Tensor:
    z = functional.normalize(z, dim=1)
    ranks = TREE.ranks(LABELS, LABELS, ignore_self=True)
    return ranked_info_nce(z, z, ranks, (0.1, 0.3), variant="in", engine="streamed")


def supcon(z: Tensor) -> Tensor:
    z = functional.normalize(z, dim=1)
    return supcon_out(z, z, TableRanks(LABELS, LABELS, TREE.flat_table(1), ignore_self=True), 0.1)


def infonce(z: Tensor) -> Tensor:
    z = functional.normalize(z, dim=1)
    return info_nce(z, z.roll(1, dims=0), torch.eye(COUNT, dtype=torch.int8), 0.2)


def encoder(*extra: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), *extra, nn.ReLU(), nn.Flatten(), nn.Linear(8 * 9, 6)
    ).to(dtype)


def images(dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(COUNT, 3, 8, 8, generator=generator, dtype=dtype)


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def step(module: nn.Module, x: Tensor, loss: Loss, micro_batch: int | None) -> Tensor:
    torch.manual_seed(5)
    z = module(x) if micro_batch is None else cached_encode(module, x, micro_batch)
    value = loss(z)
    value.backward()
    return value.detach()


def same_step(
    plain: nn.Module, cached: nn.Module, x: Tensor, loss: Loss, micro_batch: int, tolerance: float
) -> None:
    expected, found = step(plain, x, loss, None), step(cached, x, loss, micro_batch)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert gradients(plain).keys() == gradients(cached).keys()
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(
            gradients(cached)[name], gradient, rtol=tolerance, atol=tolerance, msg=name
        )


@pytest.mark.parametrize("loss", [rince_out_in, rince_in, supcon, infonce])
@pytest.mark.parametrize("micro_batch", [1, 5, 22])
def test_loss_and_gradient_are_those_of_the_batch(loss: Loss, micro_batch: int) -> None:
    plain = encoder()
    same_step(plain, copy.deepcopy(plain), images(), loss, micro_batch, 1e-10)


@pytest.mark.parametrize("micro_batch", [COUNT, 1000])
def test_one_part_is_the_plain_step_to_the_bit(micro_batch: int) -> None:
    plain = encoder(nn.BatchNorm2d(8), nn.Dropout(0.3))
    cached = copy.deepcopy(plain)
    same_step(plain, cached, images(), rince_out_in, micro_batch, 0)
    for name, value in plain.state_dict().items():
        assert torch.equal(cached.state_dict()[name], value), name


def by_parts(module: nn.Module, x: Tensor, micro_batch: int) -> Tensor:
    """What a cached step must equal: the same micro-batches, all activations kept."""
    return torch.cat([module(x[rows]) for rows in micro_batches(len(x), micro_batch)])


@pytest.mark.parametrize(
    "extra",
    [
        nn.Dropout(0.3),
        nn.BatchNorm2d(8),
        nn.BatchNorm2d(8, momentum=None),  # a cumulative mean: the count of batches matters
        nn.utils.spectral_norm(nn.Conv2d(8, 8, 1)),  # a buffer that the next output depends on
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 8, 1)),
    ],
    ids=["dropout", "batch-norm", "cumulative", "spectral-norm", "parametrized"],
)
def test_the_second_pass_repeats_the_first(extra: nn.Module) -> None:
    """Fails without restored generators, and without restored buffers."""
    plain = encoder(extra)
    cached = copy.deepcopy(plain)
    torch.manual_seed(5)
    expected = rince_out_in(by_parts(plain, images(), 5))
    expected.backward()
    after = torch.get_rng_state()
    found = step(cached, images(), rince_out_in, 5)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=0)
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(cached)[name], gradient, rtol=1e-10, atol=1e-12)
    # Taken in once: running statistics, the count of batches, and the random numbers.
    for name, value in plain.state_dict().items():
        assert torch.equal(cached.state_dict()[name], value), name
    assert torch.equal(torch.get_rng_state(), after)


def test_random_numbers_of_a_loss_are_drawn_once() -> None:
    def noisy(z: Tensor) -> Tensor:
        return (z * torch.randn(z.shape, dtype=z.dtype)).sum()

    plain = encoder()
    cached = copy.deepcopy(plain)
    same_step(plain, cached, images(), noisy, 4, 1e-10)
    after = torch.randn(3)
    step(plain, images(), noisy, None)
    assert torch.equal(torch.randn(3), after)


class Shared(nn.Module):
    """A tied weight, a module under two names, a frozen weight and one that is not used."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.first, self.second = nn.Linear(12, 12), nn.Linear(12, 12)
        self.second.weight = self.first.weight
        self.norm = self.again = nn.BatchNorm1d(12)
        self.frozen = nn.Linear(12, 12).requires_grad_(False)
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(self.again(self.second(torch.relu(self.norm(self.first(x))))))


def test_shared_frozen_and_unused_weights() -> None:
    plain = Shared().double()
    cached = copy.deepcopy(plain)
    x = images().flatten(1)[:, :12]
    rince_out_in(by_parts(plain, x, 5)).backward()
    step(cached, x, rince_out_in, 5)
    assert gradients(cached).keys() == gradients(plain).keys()
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(cached)[name], gradient, rtol=1e-10, atol=1e-12)
    for name, value in plain.state_dict().items():
        assert torch.equal(cached.state_dict()[name], value), name
    assert cached.norm is cached.again
    assert cached.first.weight is cached.second.weight


class Counting(nn.Module):
    """Its output depends on how often it, or its twin with the same buffer, was called."""

    def __init__(self, calls: Tensor) -> None:
        super().__init__()
        self.register_buffer("calls", calls)
        self.weight = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return x * (self.weight + self.calls)


def test_a_shared_buffer_stays_shared() -> None:
    calls = torch.zeros((), dtype=torch.float64)
    plain = nn.Sequential(Counting(calls), Counting(calls))
    cached = copy.deepcopy(plain)
    x = images().flatten(1)
    _sum_of_squares(by_parts(plain, x, 6)).backward()
    step(cached, x, _sum_of_squares, 6)
    assert float(cached[0].calls) == 8
    assert cached[0].calls is cached[1].calls
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(cached)[name], gradient, rtol=1e-12, atol=0)


def test_a_recurrent_encoder() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(64, 6, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(x)[0][:, -1]  # type: ignore[no-any-return]

    torch.manual_seed(0)
    plain = Last().double()
    same_step(plain, copy.deepcopy(plain), images().flatten(2), _sum_of_squares, 4, 1e-10)


def _sum_of_squares(z: Tensor) -> Tensor:
    return z.square().sum()


def test_gradients_add_up_and_take_a_scale() -> None:
    """Accumulation over batches, GradScaler's factor, and a graph that is gone through twice."""
    plain = encoder(nn.Dropout(0.3), nn.utils.spectral_norm(nn.Conv2d(8, 8, 1)))
    cached = copy.deepcopy(plain)
    torch.manual_seed(5)
    expected = rince_out_in(by_parts(plain, images(), 6))
    (expected * (1 + 1024 + 3)).backward()
    torch.manual_seed(5)
    loss = rince_out_in(cached_encode(cached, images(), 6))
    loss.backward(retain_graph=True)
    (loss * 1024).backward(retain_graph=True)
    (loss * 3).backward()
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(cached)[name], gradient, rtol=1e-10, atol=1e-10)


def test_two_batches_before_one_backward_pass() -> None:
    """Each goes back with its own buffers, and the encoder keeps those of the last."""
    plain = encoder(nn.BatchNorm2d(8), nn.Dropout(0.2))
    cached = copy.deepcopy(plain)
    x, other = images(), images().flip(0) * 2
    torch.manual_seed(1)
    (by_parts(plain, x, 6) * by_parts(plain, other, 6)).sum().backward()
    torch.manual_seed(1)
    (cached_encode(cached, x, 6) * cached_encode(cached, other, 6)).sum().backward()
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(cached)[name], gradient, rtol=1e-10, atol=1e-9)
    for name, value in plain.state_dict().items():
        assert torch.equal(cached.state_dict()[name], value), name


def test_autocast_holds_in_both_passes_and_leaves_no_casts_behind() -> None:
    plain = encoder(nn.Dropout(0.3), dtype=torch.float32)
    cached = copy.deepcopy(plain)
    x = images(torch.float32)
    dtypes: list[torch.dtype] = []
    cached.register_forward_hook(lambda _, inputs, z: dtypes.append(z.dtype))

    def squares(z: Tensor) -> Tensor:
        assert z.dtype == torch.bfloat16
        return z.float().square().sum()

    torch.manual_seed(5)
    with torch.autocast("cpu", torch.bfloat16):
        expected = squares(by_parts(plain, x, 6)) + squares(plain(x))
    expected.backward()
    torch.manual_seed(5)
    with torch.autocast("cpu", torch.bfloat16):
        # The plain call after it needs casts with a graph, which the first pass has none of.
        found = squares(cached_encode(cached, x, 6)) + squares(cached(x))
    found.backward()  # outside of autocast, as always
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(cached)[name], gradient, rtol=0.02, atol=0.02)
    assert dtypes == [torch.bfloat16] * 9  # 4 parts twice, and the plain call


def test_activations_of_one_part_at_a_time(tmp_path: Path) -> None:
    """Bytes that autograd holds: at most those of a part, where the plain step holds them all."""
    held = {"now": 0, "most": 0}

    class Watch(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            if torch.is_grad_enabled() or x.requires_grad:
                held["now"] += len(x)
                held["most"] = max(held["most"], held["now"])
            return x.clone()

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            held["now"] -= len(gradient)
            return gradient

    class Watched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            watched: Tensor = Watch.apply(x)
            return watched

    module = encoder(Watched())
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/all", rank=0, world_size=1)
    try:
        for encoder_given in (module, nn.parallel.DistributedDataParallel(module)):
            step(encoder_given, images(), rince_out_in, 5)
            assert held == {"now": 0, "most": 5}
    finally:
        dist.destroy_process_group()
    step(module, images(), rince_out_in, None)
    assert held == {"now": 0, "most": COUNT}


def test_parts_are_made_anew_with_the_same_random_numbers() -> None:
    module, x = encoder(), images()
    made: list[tuple[int, Tensor]] = []

    def part(number: int) -> Tensor:
        made.append((number, torch.rand(())))
        return x[4 * number : 4 * number + 4]

    z = encode_parts(module, [lambda: part(0), lambda: part(1)], made_from=(x,))
    z.sum().backward()
    assert [number for number, _ in made] == [0, 1, 0, 1]
    assert made[:2] == made[2:]
    assert made[0][1] != made[1][1]


def test_without_a_graph_there_is_one_pass() -> None:
    module = encoder()
    calls: list[int] = []
    module.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        z = cached_encode(module, images(), 8)
    assert not z.requires_grad
    assert len(calls) == 3
    torch.testing.assert_close(z, encoder()(images()).detach())
    frozen = cached_encode(module.requires_grad_(False), images(), 8)
    assert not frozen.requires_grad


def test_a_hook_of_a_weight_sees_the_sum_once() -> None:
    plain = encoder()
    cached = copy.deepcopy(plain)
    seen: list[Tensor] = []
    for module in (plain, cached):
        module[0].weight.register_hook(lambda gradient: seen.append(gradient) or gradient.sign())
    same_step(plain, cached, images(), rince_out_in, 4, 1e-10)
    torch.testing.assert_close(*seen)


@pytest.mark.parametrize("what", ["weight", "inputs"])
def test_a_change_before_the_backward_pass_is_noticed(what: str) -> None:
    module, x = encoder(), images()
    z = cached_encode(module, x, 8)
    with torch.no_grad():
        (x if what == "inputs" else module[0].weight).mul_(2)  # type: ignore[union-attr]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def test_what_is_refused() -> None:
    module, x = encoder(), images()
    with pytest.raises(ValueError, match="micro_batch .*0"):
        cached_encode(module, x, 0)
    with pytest.raises(ValueError, match="one row"):
        cached_encode(module, x[:0], 4)
    with pytest.raises(ValueError, match="Module and one tensor, got function and Tensor"):
        cached_encode(lambda rows: module(rows), x, 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="got .* and dict"):
        cached_encode(module, {"pixels": x}, 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"inputs.detach\(\)"):
        cached_encode(module, x.requires_grad_(), 4)
    total = cached_encode(module, images(), 4).sum()
    with pytest.raises(RuntimeError, match="second derivatives"):
        torch.autograd.grad(total, list(module.parameters()), create_graph=True)


@given(count=st.integers(1, 300), size=st.integers(1, 400))
def test_micro_batches_are_few_and_alike(count: int, size: int) -> None:
    parts = micro_batches(count, size)
    assert [i for rows in parts for i in range(count)[rows]] == list(range(count))
    lengths = {rows.stop - rows.start for rows in parts}
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) <= 1
    assert len(parts) == -(-count // size)


# ---- two processes -----------------------------------------------------------------------------


class Step(nn.Module):
    """What DistributedDataParallel wraps: encoder and loss, keys from all processes."""

    def __init__(self, micro_batch: int | None) -> None:
        super().__init__()
        self.encoder = encoder(nn.Dropout(0.25))
        self.micro_batch = micro_batch

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        if self.micro_batch is None:
            z = by_parts(self.encoder, x, 3)
        else:
            z = cached_encode(self.encoder, x, self.micro_batch)
        return ranked(z, labels)


def ranked(z: Tensor, labels: Tensor) -> Tensor:
    z = functional.normalize(z, dim=1)
    ranks = TREE.ranks(labels, gather(labels), ignore_self=True)
    return ranked_info_nce(z, gather(z), ranks, (0.1, 0.3))


def counted(module: nn.Module) -> tuple[nn.Module, list[int]]:
    """In DistributedDataParallel, and a list that grows with each reduction."""
    wrapped, reductions = nn.parallel.DistributedDataParallel(module), list[int]()

    def reduce(counter, bucket):  # type: ignore[no-untyped-def]  # DDP reads annotations
        counter.append(1)
        work = dist.all_reduce(bucket.buffer(), async_op=True)
        return work.get_future().then(lambda done: done.value()[0] / 2)

    wrapped.register_comm_hook(reductions, reduce)
    return wrapped, reductions


def _worker(index: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=index, world_size=2
    )
    rows = slice(8 * index, 8 * index + 8)
    x, labels = images()[rows], LABELS[rows]
    found = {}
    for way in ("whole", "inside", "around"):  # where cached_encode stands: inside of DDP, around
        inner = Step(3 if way == "inside" else None)
        module, reductions = counted(inner.encoder if way == "around" else inner)
        torch.manual_seed(10 + index)
        for _ in range(2):  # DDP settles its buckets in the first step
            module.zero_grad()
            reductions.clear()
            if way == "around":
                loss = ranked(cached_encode(module, x, 3), labels)
            else:
                loss = module(x, labels)
            loss.backward()
        found[way] = (loss.detach(), gradients(inner), len(reductions))
    with pytest.raises(ValueError, match="DistributedDataParallel"):
        cached_encode(nn.Sequential(module), x, 3)
    torch.save(found, f"{folder}/found{index}.pt")
    dist.destroy_process_group()


def test_two_processes_reduce_once(tmp_path: Path) -> None:
    run_in_processes(_worker, str(tmp_path), count=2)
    first, second = (torch.load(tmp_path / f"found{i}.pt") for i in (0, 1))
    for way in ("inside", "around"):
        for found in (first, second):
            torch.testing.assert_close(found[way][0], found["whole"][0], rtol=1e-12, atol=0)
            for name, gradient in found["whole"][1].items():
                torch.testing.assert_close(found[way][1][name], gradient, rtol=1e-10, atol=1e-12)
                assert torch.equal(first[way][1][name], second[way][1][name]), name
            assert found[way][2] == found["whole"][2] == 1
