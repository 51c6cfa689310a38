from __future__ import annotations

import pytest
import torch
from torch import nn

from rince.models.momentum import MomentumEncoder


def small_encoder() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def test_a_copy_not_an_alias() -> None:
    online = small_encoder()
    follower = MomentumEncoder(online, 0.9)
    before = [p.clone() for p in follower.module.parameters()]
    with torch.no_grad():
        for p in online.parameters():
            p.add_(1)
    for mine, old in zip(follower.module.parameters(), before, strict=True):
        assert torch.equal(mine, old)
        assert not mine.requires_grad


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.99, 1.0])
def test_weights_follow_by_the_formula(momentum: float) -> None:
    online = small_encoder()
    follower = MomentumEncoder(online, momentum)
    old = [p.clone() for p in follower.module.parameters()]
    with torch.no_grad():
        for p in online.parameters():
            p.mul_(-2).add_(0.5)
    follower.update(online)
    for mine, was, new in zip(follower.module.parameters(), old, online.parameters(), strict=True):
        torch.testing.assert_close(mine, momentum * was + (1 - momentum) * new.detach())


def test_no_gradient_reaches_either_side() -> None:
    online = small_encoder()
    follower = MomentumEncoder(online, 0.5)
    keys = follower(torch.randn(4, 1, 4, 4))
    assert not keys.requires_grad


def test_batch_norm_statistics_are_its_own() -> None:
    online = small_encoder()
    follower = MomentumEncoder(online, 0.5)
    follower.train()
    images = torch.randn(16, 1, 4, 4) + 3
    follower(images)
    norm = follower.module[1]
    expected = 0.1 * follower.module[0](images).mean(dim=(0, 2, 3))  # torch's update rate is 0.1
    torch.testing.assert_close(norm.running_mean, expected.detach())
    assert torch.equal(online[1].running_mean, torch.zeros(2))
    follower.update(online)
    torch.testing.assert_close(norm.running_mean, expected.detach())


def test_momentum_outside_its_range() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\], got 1.5"):
        MomentumEncoder(small_encoder(), 1.5)
