"""A GPU that holds no values, so that whoever reads one is found, on any machine.

Tensors of FakeTensorMode say "cuda" and know shapes only: an operation whose result depends on
values raises. :class:`Watch` counts what a GPU would launch, and notes copies that make the host
wait.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rince.losses import by_query, contrastive
from rince.losses.blockwise import sizes

# The function of the same name hides the module.
ranked = importlib.import_module("rince.losses.ranked_info_nce")

FREE = 70 * 2**30  # bytes, as on a card of 80 GB with a model on it


class Watch(TorchDispatchMode):
    """Counts operations on the device that give a new tensor or write into one."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: list[str] = []
        self.copies: list[str] = []
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        made = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        if any(x.is_cuda for x in made) and not func.is_view:
            name = func.overloadpacket.__name__
            waits_not = all(hasattr(x, "pinned") for x in given) and kwargs.get("non_blocking")
            if given and not any(x.is_cuda for x in given) and not waits_not:
                self.copies.append(name)
            if "empty" not in name:
                self.launches.append(name)
            self.largest = max(self.largest, *(x.numel() * x.element_size() for x in made))
        return result


@contextmanager
def fake_card(free: int = FREE) -> Iterator[Watch]:
    """Inside, ``device="cuda"`` works without a card, until somebody wants a value."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sizes, "sizes_for", lambda device: sizes.gpu_sizes(free))
        for module in (ranked, contrastive, by_query):
            patch.setattr(module, "sizes_for", sizes.sizes_for)
        patch.setattr(ranked, "free_bytes", lambda device: free)
        patch.setattr(ranked, "reason_against", lambda *given: "a fake card runs no kernels")
        patch.setattr(Tensor, "pin_memory", _pinned)
        with FakeTensorMode(allow_non_fake_inputs=True), Watch() as watch:
            yield watch


def _pinned(x: Tensor) -> Tensor:
    """A copy that is marked: no driver, no pinned memory."""
    assert not x.is_cuda
    copy = x.clone()
    copy.pinned = True  # type: ignore[attr-defined]
    return copy


def gradients(loss: Tensor) -> dict[Tensor, Tensor]:
    """By leaf, node by node: ``backward()`` itself would ask the driver for a stream."""
    order = _from_leaves_to(loss.grad_fn)
    upstream: dict[Any, dict[int, Tensor]] = {loss.grad_fn: {0: torch.ones_like(loss)}}
    of_leaf: dict[Tensor, Tensor] = {}
    for node in reversed(order):
        given = upstream.pop(node, None)
        if given is None:
            continue
        if hasattr(node, "variable"):
            of_leaf[node.variable] = given[0]
            continue
        with torch.no_grad():
            call = getattr(node, "apply", node)
            results = call(*(given.get(i) for i in range(len(node._input_metadata))))
        results = results if isinstance(results, tuple) else (results,)
        # A Function of ours also answers for its inputs that are no tensors, which come last.
        for (following, place), result in zip(node.next_functions, results, strict=False):
            if following is None or result is None:
                continue
            slots = upstream.setdefault(following, {})
            result = result.sum_to_size(following._input_metadata[place].shape)
            slots[place] = slots[place] + result if place in slots else result
    return of_leaf


def _from_leaves_to(root: Any) -> list[Any]:
    order: list[Any] = []
    seen: set[Any] = set()
    stack = [(root, False)]
    while stack:
        node, is_done = stack.pop()
        if is_done:
            order.append(node)
        elif node is not None and node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(following, False) for following, _ in node.next_functions]
    return order
