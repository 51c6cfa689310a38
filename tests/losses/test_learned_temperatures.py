"""Temperatures as parameters of the module: trained, saved, moved, and kept in range."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from losses_helpers import unit
from torch import Tensor, nn

from rince import RankedInfoNCE, ranked_info_nce

RANKS = torch.tensor([[1, 2, 0, 0, 1], [2, 1, 0, 1, 0], [0, 0, 1, 2, 2]])


def batch() -> tuple[Tensor, Tensor]:
    return unit(0, 3, 4), unit(1, 5, 4)


@pytest.mark.parametrize("engine", ["dense", "streamed"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: RankedInfoNCE((0.1, 0.225), learn_temperatures=True),
        lambda: RankedInfoNCE(nn.Parameter(torch.tensor([0.1, 0.225]))),
        lambda: RankedInfoNCE(torch.tensor([0.1, 0.225], requires_grad=True)),
        lambda: RankedInfoNCE(torch.tensor([0.1, 0.225]), learn_temperatures=True),
    ],
)
def test_they_are_trained_saved_and_moved(make: Any, engine: str) -> None:
    module = make()
    module.engine = engine
    (parameter,) = module.parameters()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.001)
    loss = module(*batch(), RANKS)
    loss.backward()
    exact = torch.tensor([0.1, 0.225], dtype=torch.float64, requires_grad=True)
    query, key = (x.double() for x in batch())
    ranked_info_nce(query, key, RANKS, exact, engine="dense", validate=False).backward()
    torch.testing.assert_close(parameter.grad.double(), exact.grad, rtol=1e-5, atol=1e-5)
    optimizer.step()
    assert not torch.equal(parameter, torch.tensor([0.1, 0.225]))
    other = make()
    other.load_state_dict(module.state_dict())
    assert torch.equal(other.temperatures, parameter)
    assert torch.equal(copy.deepcopy(module).temperatures, parameter)
    assert module.to("meta").temperatures.device.type == "meta"


def test_a_parameter_stays_the_object_that_the_optimizer_knows() -> None:
    parameter = nn.Parameter(torch.tensor([0.1, 0.225]))
    assert RankedInfoNCE(parameter).temperatures is parameter


def test_numbers_are_no_state() -> None:
    for temperatures in (0.1, (0.1, 0.2), torch.tensor([0.1, 0.2])):
        module = RankedInfoNCE(temperatures)
        assert not module.state_dict()
        assert not list(module.parameters())
    assert RankedInfoNCE(torch.tensor([0.25, 0.5])).temperatures == (0.25, 0.5)


@pytest.mark.parametrize("engine", ["dense", "streamed"])
def test_they_never_fall_below_the_minimum(engine: str) -> None:
    module = RankedInfoNCE(
        (0.1, 0.2), learn_temperatures=True, min_temperature=0.05, engine=engine, validate=False
    )
    module.temperatures.data[:] = torch.tensor([-3.0, 0.2])
    loss = module(*batch(), RANKS)
    expected = ranked_info_nce(*batch(), RANKS, (0.05, 0.2))
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert module.temperatures.grad[0] != 0  # or it would stay there for ever
    torch.testing.assert_close(module.temperatures.data, torch.tensor([0.05, 0.2]))


def test_two_losses_of_one_step_keep_their_graphs() -> None:
    module = RankedInfoNCE((0.1, 0.2), learn_temperatures=True, engine="dense")
    first = module(*batch(), RANKS)
    second = module(*batch(), RANKS)
    (first + second).backward()
    assert torch.isfinite(module.temperatures.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_they_stay_float32_and_their_gradient_fits_a_loss_scale(dtype: torch.dtype) -> None:
    module = RankedInfoNCE((0.02, 0.05), learn_temperatures=True).to(dtype)
    assert module.temperatures.dtype == torch.float32
    query, key = (x.to(dtype) for x in batch())
    (module(query, key, RANKS) * 65536).backward()
    assert torch.isfinite(module.temperatures.grad).all()
    assert module.temperatures.grad.abs().max() > torch.finfo(torch.float16).max
    # Nor are the numbers those of half precision, or their gradient is of it.
    module = module.to(dtype)
    assert torch.equal(module.temperatures, torch.tensor([0.02, 0.05]))
    assert module.temperatures.grad.dtype == torch.float32
    assert module.double().temperatures.dtype == torch.float64
    assert module.to(dtype).temperatures.dtype == torch.float32


def test_they_leave_the_meta_device() -> None:
    module = RankedInfoNCE((0.1, 0.225), learn_temperatures=True).to("meta")
    assert module.to_empty(device="cpu").temperatures.device.type == "cpu"


@pytest.mark.parametrize("engine", ["dense", "streamed"])
def test_a_gradient_scaler_trains_them(engine: str) -> None:
    """The same step as without a loss scale; one that overflows is left out."""
    taus, steps = [], []
    for scale in (1.0, 2.0**16):
        module = RankedInfoNCE((0.1, 0.225), learn_temperatures=True, engine=engine).half()
        optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        query, key = (x.half() for x in batch())
        scaler.scale(module(query, key, RANKS)).backward()
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == scale
        taus.append(module.temperatures.detach().clone())
        before, module.temperatures.grad = taus[-1], torch.tensor([torch.inf, 1.0])
        scaler.step(optimizer)
        scaler.update()
        steps.append(scaler.get_scale() / scale)
        assert torch.equal(module.temperatures, before)
    assert not torch.equal(taus[0], torch.tensor([0.1, 0.225]))
    assert torch.equal(*taus)  # a power of 2 rounds nothing
    assert steps == [0.5, 0.5]


@pytest.mark.parametrize(
    ("make", "facts"),
    [
        (lambda: nn.Parameter(torch.tensor([-2.3, -1.5])).exp(), "parameter itself"),
        (lambda: nn.Parameter(torch.tensor([0.1, 0.2], dtype=torch.float16)), "float16"),
    ],
)
def test_what_cannot_be_learned_is_refused(make: Any, facts: str) -> None:
    with pytest.raises(ValueError, match=facts):
        RankedInfoNCE(make())


def test_a_minimum_that_is_no_temperature_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        RankedInfoNCE(0.1, min_temperature=-1.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RankedInfoNCE((0.005, 0.2), learn_temperatures=True),
        lambda: RankedInfoNCE(nn.Parameter(torch.tensor([0.005, 0.2])), validate=False),
        lambda: RankedInfoNCE(torch.tensor(0.005), learn_temperatures=True),
        lambda: RankedInfoNCE((0.1, 0.2), learn_temperatures=True, min_temperature=0.15),
    ],
)
def test_to_start_below_the_minimum_is_refused(make: Any) -> None:
    """They would be raised in silence at the first step."""
    with pytest.raises(ValueError, match=r"min_temperature, 0\.\d+, .*start at 0\.\d+.*lower"):
        make()
    assert RankedInfoNCE((0.005, 0.01)).temperatures == (0.005, 0.01)
    start = RankedInfoNCE((0.01, 0.02), learn_temperatures=True)  # 0.01 is less in float32
    start(*batch(), RANKS)
    assert torch.equal(start.temperatures, torch.tensor([0.01, 0.02]))
    low = RankedInfoNCE((0.005, 0.01), learn_temperatures=True, min_temperature=0.005)
    assert torch.equal(low.temperatures, torch.tensor([0.005, 0.01]))


def test_temperatures_that_are_learned_one_by_one_get_their_gradient() -> None:
    z = unit(0, 6, 4)
    ranks = torch.tensor([[-1, 1, 2, 2, 0, 0], [1, -1, 2, 2, 0, 0]])
    together = torch.nn.Parameter(torch.tensor([0.1, 0.2]))
    ranked_info_nce(z[:2], z, ranks, together).backward()
    for shape in ((), (1,)):
        first = torch.nn.Parameter(torch.full(shape, 0.1))
        second = torch.nn.Parameter(torch.full(shape, 0.2))
        ranked_info_nce(z[:2], z, ranks, [first, second]).backward()
        torch.testing.assert_close(torch.stack([first.grad, second.grad]).flatten(), together.grad)
    alone = torch.nn.Parameter(torch.tensor(0.2))
    ranked_info_nce(z[:2], z, ranks, [0.1, alone]).backward()
    torch.testing.assert_close(alone.grad, together.grad[1])
    with pytest.raises(ValueError, match=r"one number per rank.*\(2,\)"):
        ranked_info_nce(z[:2], z, ranks, [alone, together])


def test_a_module_says_how_to_learn_temperatures_that_come_one_by_one() -> None:
    learned = torch.nn.Parameter(torch.tensor(0.2))
    with pytest.raises(ValueError, match="in one tensor.*learn_temperatures"):
        RankedInfoNCE([0.1, learned])
    assert RankedInfoNCE([0.1, learned.detach()]).temperatures == pytest.approx((0.1, 0.2))
