"""The convolutions of experiments/cifar100 on a CPU give the gradients of PyTorch's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

STUDY = Path(__file__).parents[1] / "experiments" / "cifar100"


@pytest.fixture(scope="module")
def small_maps() -> Iterator[Any]:
    sys.path.insert(0, str(STUDY))
    import small_maps  # type: ignore[import-not-found]

    yield small_maps
    sys.path.remove(str(STUDY))


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (3, 1)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize("side", [1, 2, 5])
def test_weight_gradient_is_autograds(
    small_maps: Any, kernel: tuple[int, int], stride: tuple[int, int], side: int
) -> None:
    torch.manual_seed(0)
    padding = (kernel[0] // 2, kernel[1] // 2)
    images = torch.randn(4, 3, side, side + 1)
    weight = torch.randn(5, 3, *kernel, requires_grad=True)
    result = functional.conv2d(images, weight, None, stride, padding)
    gradient = torch.randn_like(result)
    (expected,) = torch.autograd.grad(result, weight, gradient)
    found = small_maps.weight_gradient(images, gradient, weight.shape, stride, padding)
    torch.testing.assert_close(found, expected)


def _gradients(network: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    with torch.autocast("cpu", torch.bfloat16):
        result = network(images)
    assert result.dtype == torch.bfloat16
    learning = dict(network.named_parameters()) | {"images": images}
    gradients = torch.autograd.grad(result.float().square().mean(), list(learning.values()))
    return result, dict(zip(learning, gradients, strict=True))


def test_network_learns_as_before(small_maps: Any) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),  # of 4 x 4: matmuls
        nn.Conv2d(8, 8, 3, stride=2, padding=1),  # has a bias: as it was
        nn.Conv2d(8, 16, 1, stride=2, bias=False),
    )
    images = torch.randn(16, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    before, expected = _gradients(network, images)
    calls: list[str] = []
    small_maps.with_quick_gradients(network)[0].register_forward_hook(
        lambda layer, _, result: calls.append(type(result.grad_fn).__name__)
    )
    after, found = _gradients(network, images)
    assert calls == ["_ConvolutionBackward"]
    torch.testing.assert_close(after, before)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        distance = (gradient - expected[name]).norm() / expected[name].norm()
        assert distance < 0.01, name


def test_only_under_autocast_and_on_small_maps(small_maps: Any) -> None:
    network = small_maps.with_quick_gradients(nn.Conv2d(3, 4, 3, padding=1, bias=False))
    small, large = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 8, 8)
    name = "_ConvolutionBackward"
    assert type(network(small).grad_fn).__name__ != name
    with torch.autocast("cpu", torch.bfloat16):
        assert type(network(small).grad_fn).__name__ == name
        assert type(network(large).grad_fn).__name__ != name
