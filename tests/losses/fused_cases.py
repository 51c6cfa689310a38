"""Run the fused engine in Triton's interpreter and print how far it is from the float64 oracle.

    TRITON_INTERPRET=1 python tests/losses/fused_cases.py

A process of its own, as the variable must be set before triton is imported. One line of JSON per
case: the largest error of losses, terms and each gradient, over the largest expected number.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))

from oracles import losses as oracle
from rince.core.pair_ranks import ALL, IdentityRanks, PairRanks, TableRanks
from rince.losses.blockwise.fused import Tiles, fused_loss
from rince.losses.definition import rank_terms
from rince.ranks.level_ranks import LevelRanks


@dataclass(frozen=True)
class Case:
    variant: str = "out-in"
    positives: str = "exclusive"
    num_ranks: int = 2
    levels: bool = False  # level codes instead of a table
    own: bool = False  # a batch against itself
    twins: bool = False  # of two sides: query i and key i are the same item, and ignored
    queries: int = 7
    keys: int = 37  # three tiles, the last one not full
    dimension: int = 5
    tau: float = 0.1
    reduction: str = "none"
    precision: str = "fp32"
    sort: bool = False  # by class
    wants: str = "query key taus"  # a gradient
    all_valid: bool = False
    nested: bool = True  # codes of levels: a finer group lies in one coarser group

    @property
    def name(self) -> str:
        default = Case()
        changed = {k: v for k, v in vars(self).items() if v != getattr(default, k)}
        return ",".join(f"{k}={v}" for k, v in changed.items()) or "default"


CASES = [
    *(
        Case(variant, positives, num_ranks, levels=levels, own=own)
        for (variant, positives), (num_ranks, levels, own) in product(
            product(("in", "out", "out-in"), ("exclusive", "cumulative")),
            ((1, True, False), (2, False, True), (3, True, True), (3, False, False)),
        )
    ),
    *(Case(wants=wants) for wants in ("query", "key", "taus", "query key", "key taus")),
    *(Case(num_ranks=3, all_valid=True, levels=levels) for levels in (False, True)),
    Case(num_ranks=1, all_valid=True, levels=True, own=True),
    Case(num_ranks=3, levels=True, nested=False),
    Case(num_ranks=8),
    Case("out", "cumulative", 8, levels=True, queries=3, keys=18),
    *(Case(variant, tau=0.01, num_ranks=3) for variant in ("in", "out", "out-in")),
    *(Case(variant, tau=0.01, num_ranks=2, own=True) for variant in ("in", "out-in")),
    *(Case(reduction=reduction, own=own) for reduction in ("mean", "sum") for own in (False, True)),
    Case(queries=33, keys=17, dimension=17),
    Case(queries=33, keys=17, dimension=150),  # more than one block of components
    Case(queries=18, keys=18, dimension=129, own=True),
    Case(queries=3, keys=17, dimension=300),  # more than two: not unrolled
    *(Case(queries=1, keys=1, reduction=reduction) for reduction in ("none", "mean")),
    Case(queries=1, reduction="mean"),
    *(Case(variant, num_ranks=3, queries=20, sort=True) for variant in ("in", "out", "out-in")),
    Case("out", num_ranks=2, levels=True, own=True, queries=40, sort=True),
    Case(num_ranks=3, queries=20, sort=True, twins=True),  # which must not be sorted
    Case(precision="tf32"),  # only the embeddings are rounded: the interpreter multiplies in fp32
]


def main() -> None:
    for case in CASES:
        print(json.dumps({"case": case.name, **errors(case)}), flush=True)


def errors(case: Case) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(len(case.name))
    ranks, codes = _ranks(case, generator)
    query = _unit(case.queries, case.dimension, generator)
    key = query if case.own else _unit(case.keys, case.dimension, generator)
    taus = [case.tau * (1 + 0.5 * i) for i in range(case.num_ranks)]
    matrix = ranks.tile(ALL, ALL)
    weight = torch.randn(len(query), generator=generator) if case.reduction == "none" else None

    wants = [name for name in case.wants.split() if name != "key" or not case.own]
    learnt = torch.tensor(taus, requires_grad="taus" in wants)
    q = query.clone().requires_grad_("query" in wants)
    k = q if case.own else key.clone().requires_grad_("key" in wants)
    leaves = {"query": q, "key": k, "taus": learnt}
    products = "tf32x3" if case.precision == "fp32" else "tf32"
    tiles = Tiles(rows=16, columns=16, components=128, warps=4, stages=1, products=products)
    loss, terms = fused_loss(
        q, k, codes, list(learnt), case.variant, case.positives,  # type: ignore[arg-type]
        reduction=case.reduction, precision=case.precision, tiles=(tiles, tiles),
        sort_from=0 if case.sort else 2**40,  # type: ignore[arg-type]
    )  # fmt: skip
    wanted_of = [leaves[name] for name in wants]
    got = torch.autograd.grad(loss if weight is None else (loss * weight).sum(), wanted_of)

    wanted_terms = [
        oracle.rince_terms(s, row, taus, case.variant, case.positives)
        for s, row in zip(
            oracle.similarities(query.tolist(), key.tolist()), matrix.tolist(), strict=True
        )
    ]
    active = torch.tensor([[x is not None for x in row] for row in wanted_terms]).T
    values = torch.tensor([[x or 0.0 for x in row] for row in wanted_terms], dtype=torch.float64).T
    per_query = values.sum(dim=0)
    count = max(1, int(active.any(dim=0).sum()))
    wanted = {"none": per_query, "sum": per_query.sum(), "mean": per_query.sum() / count}
    names = ["query", "taus"] if case.own else ["query", "key", "taus"]
    expected = _expected_gradients(case, query, key, matrix, taus, weight)
    expected = [gradient for name, gradient in zip(names, expected, strict=True) if name in wants]
    return {
        "active": bool((terms.active == active).all()) and not terms.values.requires_grad,
        "some": int(active.sum()),
        "loss": _error(loss, wanted[case.reduction]),
        "terms": _error(terms.values, values),
        **{name: _error(a, b) for name, a, b in zip(wants, got, expected, strict=True)},
    }


def _ranks(case: Case, generator: torch.Generator) -> tuple[PairRanks, PairRanks]:
    """The rank source, and what the engine gets of it."""
    K = case.queries if case.own else case.keys
    valid = None if case.all_valid else torch.rand(K, generator=generator) > 0.2
    if case.levels and case.num_ranks == 1:
        ids = [torch.randint(0, 4, (n,), generator=generator) * 2**40 for n in (case.queries, K)]
        if case.own:
            ids[1] = ids[0]
        source = IdentityRanks(*ids, ignore_self=case.own, key_valid=valid)
        return source, source
    if case.levels:
        # A tree: class c has group c // 2 at level 2, c // 4 at level 3, ...
        classes = torch.arange(2 ** (case.num_ranks + 1))
        groups = torch.stack([classes // 2**level for level in range(case.num_ranks)], dim=1)
        same = groups[:, None] == groups[None, :]  # (C, C, L)
        table = torch.where(same.any(dim=2), same.int().argmax(dim=2) + 1, 0)
    else:
        # Any table: neither a tree nor symmetric, with classes that ignore each other.
        table = torch.randint(-1, case.num_ranks + 1, (9, 9), generator=generator)
        table[0] = 0  # queries of this class have no positives
        table[1] = 1  # and these have no less similar keys
    if not case.nested:
        codes = [
            torch.randint(0, 3, (n, case.num_ranks), generator=generator) for n in (case.queries, K)
        ]
        levels = LevelRanks(*codes, finest_first=True, key_valid=valid)
        return levels, levels
    labels = torch.randint(0, len(table), (case.queries,), generator=generator)
    others = labels if case.own else torch.randint(0, len(table), (K,), generator=generator)
    source = TableRanks(
        labels,
        others,
        table,
        ignore_self=case.own or case.twins,
        key_valid=valid,
        num_ranks=case.num_ranks,
    )
    if case.levels:
        levels = LevelRanks(
            groups[labels], groups[others], finest_first=True, ignore_self=case.own, key_valid=valid
        )
        return source, levels
    return source, source


def _expected_gradients(
    case: Case, query: Tensor, key: Tensor, matrix: Tensor, taus: list[float], weight: Tensor | None
) -> list[Tensor]:
    """By central differences of the oracle; for wide embeddings by the definition in float64."""
    if case.dimension > 5:
        q = query.double().requires_grad_()
        k = q if case.own else key.double().requires_grad_()
        t = torch.tensor(taus, dtype=torch.float64, requires_grad=True)
        found = rank_terms(q @ k.T, matrix, list(t), case.variant, case.positives)  # type: ignore[arg-type]
        assert weight is not None
        total = (found.values.sum(dim=0) * weight).sum()
        return list(torch.autograd.grad(total, [q, t] if case.own else [q, k, t]))
    q0, k0 = query.tolist(), key.tolist()
    rows = matrix.tolist()

    def total_of(q: list[list[float]], k: list[list[float]], t: list[float]) -> float:
        losses = oracle.rince(q, k, rows, t, case.variant, case.positives)
        if case.reduction == "mean":
            return oracle.mean(losses)
        weights = [1.0] * len(losses) if weight is None else weight.tolist()
        return sum(w * (x or 0.0) for w, x in zip(weights, losses, strict=True))

    def slope(function: Any, at: list[list[float]]) -> Tensor:
        return torch.tensor(oracle.central_differences(function, at), dtype=torch.float64)

    of_taus = slope(lambda t: total_of(q0, k0, t[0]), [taus])[0]
    if case.own:
        return [slope(lambda z: total_of(z, z, taus), q0), of_taus]
    return [
        slope(lambda q: total_of(q, k0, taus), q0),
        slope(lambda k: total_of(q0, k, taus), k0),
        of_taus,
    ]


def _error(got: Tensor, wanted: Tensor) -> float:
    scale = max(float(wanted.abs().max()), 1e-6)
    difference = float((got.detach().double() - wanted).abs().max())
    return difference / scale if difference == difference else float("inf")


def _unit(count: int, dimension: int, generator: torch.Generator) -> Tensor:
    return functional.normalize(torch.randn(count, dimension, generator=generator), dim=1)


if __name__ == "__main__":
    main()
