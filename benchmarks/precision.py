"""What rounded matrix products cost: errors of RINCE against float64, by emulation on a CPU.

    python benchmarks/precision.py [--batch 1024]

The factors of every product, in the forward and in the backward pass, are rounded to the mantissa
of the format, and multiplied and summed in float32, as tensor cores do. Nothing here says how
fast a GPU is.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rince.losses.common import reduce_over_queries
from rince.losses.definition import rank_terms
from rince.losses.options import Variant

MANTISSA_BITS = {"fp32": 23, "tf32": 10, "bf16": 7}
TEMPERATURES = ((0.02, 0.045, 0.1), (0.1, 0.225, 0.5))


def rounded(x: Tensor, bits: int) -> Tensor:
    """float32 to the nearest number with `bits` bits of mantissa, ties to even."""
    dropped = 23 - bits
    if dropped == 0:
        return x
    whole = x.view(torch.int32)
    last_kept = (whole >> dropped) & 1
    whole = whole + (1 << (dropped - 1)) - 1 + last_kept
    return (whole & -(1 << dropped)).view(torch.float32)


class Product(torch.autograd.Function):
    """``a @ b``, its factors and those of its gradients rounded."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, bits: int) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.bits = bits
        return rounded(a, bits) @ rounded(b, bits)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        a, b, g = (rounded(x, ctx.bits) for x in (*ctx.saved_tensors, upstream[0].contiguous()))
        return g @ b.T, a.T @ g, None


def batch(size: int) -> tuple[Tensor, Tensor]:
    """Unit vectors around the centres of 100 classes in groups of 5 and 25, and their ranks."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 100, (size,), generator=generator)
    z = torch.randn(size, 128, generator=generator)
    for group, weight in ((25, 0.3), (5, 0.4), (1, 0.6)):
        z += weight * torch.randn(100, 128, generator=generator)[labels // group]
    ranks = torch.zeros(size, size, dtype=torch.int8)
    for rank, group in ((3, 25), (2, 5), (1, 1)):
        ranks[labels[:, None] // group == labels // group] = rank
    return functional.normalize(z, dim=1), ranks.fill_diagonal_(-1)


def loss_and_gradient(
    z: Tensor, ranks: Tensor, taus: tuple[float, ...], variant: Variant, bits: int | None
) -> tuple[float, Tensor]:
    """bits None: float64, exact."""
    z = (z.double() if bits is None else z.clone()).requires_grad_()
    similarity = z @ z.T if bits is None else Product.apply(z, z.T, bits)
    terms = rank_terms(similarity, ranks, taus, variant, "exclusive")
    loss = reduce_over_queries(terms.values.sum(dim=0), terms.active.any(dim=0), "mean")
    (gradient,) = torch.autograd.grad(loss, z)
    return float(loss.detach()), gradient.double()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1024)
    z, ranks = batch(parser.parse_args().batch)
    print("| temperatures | variant | precision | loss | gradient, largest | gradient, norm |")
    print("|:---|:---|:---|---:|---:|---:|")
    for taus in TEMPERATURES:
        for variant in ("in", "out-in", "out"):
            exact, exact_gradient = loss_and_gradient(z, ranks, taus, variant, None)
            for name, bits in MANTISSA_BITS.items():
                loss, gradient = loss_and_gradient(z, ranks, taus, variant, bits)
                error = gradient - exact_gradient
                largest = float(error.abs().max() / exact_gradient.abs().max())
                norm = float(error.norm() / exact_gradient.norm())
                print(
                    f"| {', '.join(map(str, taus))} | {variant} | {name} "
                    f"| {abs(loss / exact - 1):.0e} | {largest:.0e} | {norm:.0e} |"
                )


if __name__ == "__main__":
    main()
