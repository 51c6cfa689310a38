"""Batches for the tests on a card, and what is right for them: float64 on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from rince.core.pair_ranks import ALL, DenseRanks, TableRanks
from rince.losses.blockwise.fused import fused_loss
from rince.losses.definition import rank_terms
from rince.losses.ranked_info_nce import ranked_info_nce
from rince.ranks.level_ranks import LevelRanks

CLASSES = 40


class Outcome(NamedTuple):
    loss: Tensor
    gradients: list[Tensor]  # of the query, the key if it is another tensor, the temperatures


@dataclass(frozen=True)
class Problem:
    """40 classes in groups of 4 (rank 2) and 8 (rank 3), a fifth of the keys not valid."""

    queries: int = 200
    keys: int | None = 1000  # None: the queries are the keys
    dimension: int = 64
    taus: tuple[float, ...] = (0.1, 0.225, 0.5)
    variant: Any = "out-in"
    positives: Any = "exclusive"

    def tensors(self, device: torch.device | str) -> tuple[Tensor, Tensor, TableRanks]:
        """Query, key (with gradients) and ranks; the same numbers on every device."""
        generator = torch.Generator().manual_seed(0)
        query = self._unit(self.queries, generator).to(device).requires_grad_()
        labels = torch.randint(0, CLASSES, (self.queries,), generator=generator).to(device)
        c = torch.arange(CLASSES)
        table = torch.zeros(CLASSES, CLASSES, dtype=torch.int8)
        for rank, group in ((3, 8), (2, 4), (1, 1)):
            if rank <= len(self.taus):
                table[c[:, None] // group == c // group] = rank
        given: Any = {"num_ranks": len(self.taus), "validate": False}
        if self.keys is None:
            ranks = TableRanks(labels, labels, table.to(device), ignore_self=True, **given)
            return query, query, ranks
        key = self._unit(self.keys, generator).to(device).requires_grad_()
        others = torch.randint(0, CLASSES, (self.keys,), generator=generator).to(device)
        valid = (torch.rand(self.keys, generator=generator) > 0.2).to(device)
        return query, key, TableRanks(labels, others, table.to(device), key_valid=valid, **given)

    def levels(self, device: torch.device | str) -> LevelRanks:
        """The same ranks from the groups of each level."""
        ranks = self.tensors(device)[2]
        groups = torch.tensor([1, 4, 8][: len(self.taus)], device=device)
        return LevelRanks(
            ranks.query_labels[:, None] // groups,
            ranks.key_labels[:, None] // groups,
            finest_first=True,
            ignore_self=ranks.ignore_self,
            key_valid=ranks.key_valid,
        )

    def expected(self) -> Outcome:
        query, key, ranks = self.tensors("cpu")
        wide = query.detach().double().requires_grad_()
        other = wide if key is query else key.detach().double().requires_grad_()
        taus = torch.tensor(self.taus, dtype=torch.float64, requires_grad=True)
        matrix = ranks.tile(ALL, ALL)
        terms = rank_terms(wide @ other.T, matrix, list(taus), self.variant, self.positives)
        loss = terms.values.sum() / terms.active.any(dim=0).sum().clamp(min=1)
        leaves = [wide, taus] if key is query else [wide, other, taus]
        return Outcome(loss.detach(), list(torch.autograd.grad(loss, leaves)))

    def _unit(self, count: int, generator: torch.Generator) -> Tensor:
        x = torch.randn(count, self.dimension, generator=generator)
        return functional.normalize(x, dim=1)


Engine = Callable[[Problem, Tensor, Tensor, Any, Any], Tensor]


def by_name(engine: str) -> Engine:
    """The mean loss by an engine: dense, streamed (ranks from labels), streamed-pairs (a matrix),
    or fused-fp32, fused-tf32, fused-bf16, the same with level codes: fused-levels, and sorted by
    class: fused-fp32-sorted."""

    def of_fused(problem: Problem, query: Tensor, key: Tensor, ranks: Any, taus: Any) -> Tensor:
        precision: Any = engine.split("-")[1]
        if precision == "levels":
            ranks, precision = problem.levels(query.device), "fp32"
        return fused_loss(
            query, key, ranks, taus, problem.variant, problem.positives,
            reduction="mean", precision=precision, sort_from=0 if "sorted" in engine else 2**40,
        )[0]  # fmt: skip

    def of_pytorch(problem: Problem, query: Tensor, key: Tensor, ranks: Any, taus: Any) -> Tensor:
        name: Any = engine
        if engine == "streamed-pairs":
            matrix = ranks.tile(ALL, ALL)
            ranks, name = DenseRanks(matrix, num_ranks=len(taus), validate=False), "streamed"
        return ranked_info_nce(
            query, key, ranks, taus, variant=problem.variant, positives=problem.positives,
            engine=name, validate=False,
        )  # fmt: skip

    return of_fused if engine.startswith("fused") else of_pytorch


def outcome(
    problem: Problem, engine: str, device: torch.device | str, *, learn_taus: bool = False
) -> Outcome:
    query, key, ranks = problem.tensors(device)
    taus = torch.tensor(problem.taus, device=device, requires_grad=learn_taus)
    given: Any = taus if learn_taus and not engine.startswith("fused") else list(taus)
    if not learn_taus:
        given = problem.taus
    loss = by_name(engine)(problem, query, key, ranks, given)
    leaves = [query] if key is query else [query, key]
    leaves += [taus] if learn_taus else []
    return Outcome(loss.detach(), list(torch.autograd.grad(loss, leaves)))


def error(found: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the norm; infinite for NaN."""
    difference = (found.detach().cpu().double() - wanted).norm() / wanted.norm()
    return float(difference) if bool(torch.isfinite(difference)) else float("inf")


def launches(work: Callable[[], object]) -> int:
    """Kernels, copies and fills that some work starts on the card, once it is warm."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    work()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        work()
        torch.cuda.synchronize()
    return sum(event.device_type == DeviceType.CUDA for event in seen.events())


def peak_bytes(work: Callable[[], object]) -> int:
    """Most memory that some work takes from the allocator above what there was before."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
