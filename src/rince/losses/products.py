"""Matrix products in a precision that is chosen, not inherited from a global switch.

- "fp32": exact products, whatever ``torch.set_float32_matmul_precision`` says.
- "tf32": operands rounded to 10 bits of mantissa by an NVIDIA GPU's tensor cores; a CPU has no
  such products and computes fp32.
- "bf16": operands rounded to 7 bits of mantissa; a CPU computes fp32 products of them.

Sums are fp32 in all three. What the roundings cost: docs/precision.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

import torch
from torch import Tensor

from rince.core.checks import require
from rince.losses.options import MatmulPrecision

_PRECISIONS = get_args(MatmulPrecision)


def check_precision(precision: str, dtype: torch.dtype) -> None:
    """Refuse an unknown word, and a rounding of what would be summed in float64."""
    require(
        precision in _PRECISIONS,
        f"matmul_precision must be one of {_PRECISIONS}, got {precision!r}",
    )
    require(
        precision == "fp32" or dtype == torch.float32,
        f'matmul_precision="{precision}" is for sums in float32, but these embeddings are '
        f'{dtype}: pass them as float32, or take matmul_precision="fp32", which never rounds',
    )


def product(a: Tensor, b: Tensor, precision: MatmulPrecision) -> Tensor:
    """``a @ b``, differentiable any number of times, each product in this precision."""
    if precision == "fp32" and not _needs_switch(a.device):
        return a @ b
    result: Tensor = _product(a, b, precision)
    return result


def mm(a: Tensor, b: Tensor, precision: MatmulPrecision, out: Tensor | None = None) -> Tensor:
    """``a @ b`` without a graph; in fp32 to be called inside ``products_in("fp32", ...)``."""
    if precision == "fp32":
        return torch.mm(a, b, out=out)
    with products_in(precision, a.device):
        if precision == "tf32":
            return torch.mm(a, b, out=out)
        if a.is_cuda and hasattr(torch.ops.aten.mm, "dtype"):  # since torch 2.8
            a, b = a.bfloat16(), b.bfloat16()
            if out is None:
                return torch.mm(a, b, out_dtype=torch.float32)
            return torch.mm(a, b, out_dtype=torch.float32, out=out)
        # bf16 numbers lose nothing by TF32.
        return torch.mm(a.bfloat16().to(a.dtype), b.bfloat16().to(b.dtype), out=out)


def add_mm(total: Tensor, a: Tensor, b: Tensor, precision: MatmulPrecision) -> None:
    """``total += a @ b``, as :func:`mm`."""
    if precision == "fp32":
        total.addmm_(a, b)
    elif precision == "bf16":
        total += mm(a, b, precision)
    else:
        with products_in(precision, a.device):
            total.addmm_(a, b)


@contextmanager
def products_in(precision: MatmulPrecision, device: torch.device) -> Iterator[None]:
    """Inside, fp32 products on the device are exact, or but for "fp32" on a GPU by tensor cores."""
    wanted = "ieee" if precision == "fp32" or device.type != "cuda" else "tf32"
    before = _switch(device)
    if before == wanted or (before == "none" and wanted == "ieee"):
        yield
        return
    _set_switch(device, wanted)
    try:
        yield
    finally:
        _set_switch(device, before)


def _needs_switch(device: torch.device) -> bool:
    # The compiler looks at switches when it compiles; an operation of its own looks when it runs.
    if torch.compiler.is_compiling():
        return device.type == "cuda"
    return _switch(device) not in ("none", "ieee")


def _backend(device: torch.device) -> Any:
    backends: Any = torch.backends
    return backends.cuda.matmul if device.type == "cuda" else backends.mkldnn.matmul


def _switch(device: torch.device) -> str:
    """What fp32 products on the device are computed in: "ieee" or "none" is exact."""
    if _has_switch_per_device():
        return str(_backend(device).fp32_precision)
    names = {"highest": "ieee", "high": "tf32"}
    return names.get(torch.get_float32_matmul_precision(), "medium")


def _set_switch(device: torch.device, value: str) -> None:
    if _has_switch_per_device():
        inherited = value == torch.backends.fp32_precision  # type: ignore[attr-defined]
        _backend(device).fp32_precision = "none" if inherited else value
    else:
        names = {"ieee": "highest", "tf32": "high"}
        torch.set_float32_matmul_precision(names.get(value, value))


def _has_switch_per_device() -> bool:
    """Since torch 2.9."""
    return hasattr(torch.backends.cuda.matmul, "fp32_precision")


# With its schema: torch 2.4 reads none from annotations that are text.
@torch.library.custom_op(
    "rince::product", mutates_args=(), schema="(Tensor a, Tensor b, str precision) -> Tensor"
)
def _product(a: Tensor, b: Tensor, precision: str) -> Tensor:
    with products_in("fp32", a.device):
        return mm(a, b, precision)  # type: ignore[arg-type]


@_product.register_fake
def _(a: Tensor, b: Tensor, precision: str) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[1])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    a, b, ctx.precision = inputs
    ctx.save_for_backward(a, b)


def _gradients(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None]:
    a, b = ctx.saved_tensors
    return (
        _product(upstream, b.T, ctx.precision),
        _product(a.T, upstream, ctx.precision),
        None,
    )


_product.register_autograd(_gradients, setup_context=_keep)
