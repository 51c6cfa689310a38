"""On a GPU: with validate=False nothing is read or copied, and launches are few.

Both are shown on tensors without values; speed is not shown by any of this.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from fake_card import Watch, fake_card, gradients, ranked
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.nn import functional

from rince import RankedInfoNCE, RinceWarning
from rince.losses import (
    both_ways,
    cross_scale,
    himulcon,
    info_nce,
    ranked_info_nce,
    smooth_ap,
    supcon_in,
    supcon_out,
    supcon_siblings,
    x_clr,
)
from rince.losses.blockwise.sizes import Sizes, free_bytes, gpu_sizes, sizes_for
from rince.ranks import (
    DenseRanks,
    IdentityRanks,
    LevelRanks,
    PairRanks,
    ScoreRanks,
    TableRanks,
)
from rince.ranks.class_ranks import ClassRanks
from rince.ranks.time import ItemTimes, TimeRanks

TAUS = (0.1, 0.225, 0.5)
CLASSES = 100


def unit(count: int, dim: int) -> Tensor:
    return functional.normalize(torch.randn(count, dim, device="cuda"), dim=1)


def labels(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.int64, device="cuda")


def class_ranks(num_ranks: int) -> ClassRanks:
    c = torch.arange(CLASSES)
    table = torch.zeros(CLASSES, CLASSES, dtype=torch.int8)
    for rank, group in ((3, 25), (2, 5), (1, 1)):
        if rank <= num_ranks:
            table[c[:, None] // group == c // group] = rank
    return ClassRanks(tuple(map(str, range(CLASSES))), table, num_ranks)


class Sources:
    """Rank sources built from what lies on the device, as in a training step.

    What a program makes once, before its first step, has values and lies on the CPU.
    """

    def __init__(self, num_ranks: int) -> None:
        self.num_ranks = num_ranks
        self.classes = class_ranks(num_ranks)
        number = torch.arange(40)
        rule = TimeRanks(near=(5.0,))
        self.times = ItemTimes(rule, rule.items(number // 10, number * 1.0, number + 1.0))

    def of(self, kind: str, num_queries: int, num_keys: int | None) -> PairRanks | Tensor:
        query = labels(num_queries)
        key = query if num_keys is None else labels(num_keys)
        masks: dict[str, Any] = {"ignore_self": num_keys is None}
        if kind == "queue":
            masks["key_valid"] = torch.ones(len(key), dtype=torch.bool, device="cuda")
        if kind in ("labels", "queue"):
            return self.classes.ranks(query, key, validate=False, **masks)
        if kind == "table":
            table = torch.ones(CLASSES, CLASSES, dtype=torch.int8, device="cuda")
            masks |= {"num_ranks": self.num_ranks, "validate": False}
            return TableRanks(query, key, table, **masks)
        if kind == "ids":
            return IdentityRanks(query, key, **masks)
        if kind == "levels":
            of_query = query[:, None].expand(-1, self.num_ranks)
            of_key = key[:, None].expand(-1, self.num_ranks)
            return LevelRanks(of_query, of_key, finest_first=False, **masks)
        if kind == "time":
            return self.times.ranks(query, key, validate=False, **masks)
        if kind == "scores":
            scores = torch.ones(len(query), len(key), device="cuda")
            thresholds = range(self.num_ranks, 0, -1)
            return ScoreRanks(thresholds).ranks(scores, ignore_self=num_keys is None)
        matrix = torch.ones(len(query), len(key), dtype=torch.int8, device="cuda")
        if kind == "dense":
            return DenseRanks(matrix, self.num_ranks, validate=False)
        return matrix


def step(
    loss: Any,
    kind: str,
    num_queries: int,
    num_keys: int | None,
    dim: int,
    num_ranks: int,
    **options: Any,
) -> Watch:
    """Ranks, loss and gradients of one step, after a first one that fills what is kept."""
    sources = Sources(num_ranks)
    with fake_card() as watch:
        for _ in range(2):
            query = unit(num_queries, dim).requires_grad_()
            key = query if num_keys is None else unit(num_keys, dim).requires_grad_()
            watch.launches.clear()
            watch.copies.clear()
            source = sources.of(kind, num_queries, num_keys)
            made = len(watch.launches)
            value = loss(query, key, source, validate=False, **options)
            found = gradients(value if value.ndim == 0 else value.sum())
            assert found[query].shape == query.shape
            assert found[key].shape == key.shape
        del watch.launches[:made]
    return watch


@pytest.mark.parametrize("engine", ["dense", "streamed"])
@pytest.mark.parametrize(
    ("kind", "num_ranks"),
    [
        ("labels", 3),
        ("queue", 2),
        ("table", 2),
        ("ids", 1),
        ("levels", 3),
        ("time", 3),
        ("scores", 2),
        ("dense", 2),
        ("matrix", 2),
    ],
)
def test_rince_reads_nothing(engine: str, kind: str, num_ranks: int) -> None:
    forms = (
        ("in", "exclusive", "none"),
        ("in", "cumulative", "mean"),
        ("out", "exclusive", "mean"),
        ("out", "cumulative", "none"),
        ("out-in", "exclusive", "none"),
        ("out-in", "cumulative", "sum"),
    )
    # The form of the loss and where its ranks come from know nothing of each other.
    for variant, positives, reduction in forms if kind == "labels" else forms[1::2]:
        options = {"variant": variant, "positives": positives, "reduction": reduction}
        options |= {"engine": engine, "temperatures": TAUS[:num_ranks]}
        for sides in ((96, None), (64, 520)):
            watch = step(ranked_info_nce, kind, *sides, 16, num_ranks, **options)
            assert not watch.copies, (sides, options)


@pytest.mark.parametrize("engine", ["dense", "streamed"])
@pytest.mark.parametrize("loss", [supcon_in, supcon_out, info_nce])
def test_losses_with_one_rank_read_nothing(engine: str, loss: Any) -> None:
    for kind in ("labels", "queue", "ids", "matrix"):
        for sides in ((96, None), (64, 520)):
            watch = step(loss, kind, *sides, 16, 1, temperature=0.1, engine=engine)
            assert not watch.copies, (kind, sides)
    with fake_card() as watch:
        z = unit(64, 16)
        info_nce(z, unit(80, 16), engine=engine, validate=False)
        assert not watch.copies


@pytest.mark.parametrize(
    "loss",
    [
        partial(himulcon, level_weights=(1, 1)),
        partial(x_clr, num_ranks=2),
        partial(smooth_ap, num_ranks=2),
        partial(cross_scale, num_ranks=2),
        partial(supcon_siblings, num_ranks=2),
    ],
)
def test_baselines_read_nothing(loss: Any) -> None:
    for kind in ("labels", "matrix"):
        assert not step(loss, kind, 32, 48, 16, 2).copies


@pytest.mark.parametrize("engine", ["dense", "streamed"])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_no_precision_reads(engine: str, precision: str) -> None:
    options = {"temperatures": TAUS, "engine": engine, "matmul_precision": precision}
    for sides in ((96, None), (64, 520)):
        assert not step(ranked_info_nce, "labels", *sides, 16, 3, **options).copies


@pytest.mark.parametrize("engine", ["dense", "streamed"])
def test_temperatures_on_the_device_are_not_read(engine: str) -> None:
    sources = Sources(2)
    with fake_card() as watch:
        taus = torch.full((2,), 0.2, device="cuda", requires_grad=True)
        z = unit(96, 16).requires_grad_()
        source = sources.of("labels", 96, None)
        watch.copies.clear()
        loss = ranked_info_nce(z, z, source, taus, engine=engine, validate=False)
        found = gradients(loss)
        assert found[taus].shape == (2,)
        assert found[z].shape == z.shape
        assert not watch.copies


def test_a_read_is_found() -> None:
    """The check of the checks: with validate=True values are read, which this card cannot."""
    with fake_card():
        z, ranks = unit(8, 4), torch.ones(8, 8, dtype=torch.int8, device="cuda")
        with pytest.raises(DataDependentOutputException):
            ranked_info_nce(z, z, ranks, 0.1)


@pytest.mark.parametrize(
    ("num_queries", "num_keys", "dim", "num_ranks", "ceiling"),
    [
        (512, 4096, 128, 2, 160),
        (512, 65536, 128, 2, 160),
        (1024, None, 128, 3, 160),
        (8192, None, 256, 3, 160),
        (2048, 131072, 128, 3, 160),
        (32768, None, 256, 3, 800),
    ],
)
def test_launches_are_few(
    num_queries: int, num_keys: int | None, dim: int, num_ranks: int, ceiling: int
) -> None:
    watch = step(
        ranked_info_nce,
        "labels",
        num_queries,
        num_keys,
        dim,
        num_ranks,
        temperatures=TAUS[:num_ranks],
    )
    assert len(watch.launches) <= ceiling
    assert watch.largest <= 2**31


def test_both_ways_read_nothing() -> None:
    loss = RankedInfoNCE(TAUS[:2], validate=False)

    def both(query: Tensor, key: Tensor, ranks: PairRanks | Tensor, validate: bool) -> Tensor:
        return both_ways(loss, query, key, ranks)

    assert step(both, "matrix", 64, 48, 16, 2).copies == []


def test_sizes_follow_the_free_memory() -> None:
    large, small = gpu_sizes(70 * 2**30), gpu_sizes(4 * 2**30)
    assert large.scratch_bytes == 3 * 2**30
    assert large.dense_pairs == 4096 * 4096 + 1
    assert small.scratch_bytes == 4 * 2**30 // 10
    assert small.dense_pairs < large.dense_pairs
    for given in (large, small):
        per_query = 131072 * 4 * 4
        block = given.queries_per_block(per_query)
        assert block * per_query <= given.scratch_bytes
        assert block > Sizes().queries_per_block(per_query)
        assert given.in_batch == 32768
        assert given.samples_per_panel(40000) == 4096


def test_free_memory_is_the_drivers_and_what_torch_holds_unused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Under the compiler, which cannot ask, 16 GB are taken to be free."""
    gb = 2**30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (20 * gb, 80 * gb))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 7 * gb)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 4 * gb)
    device = torch.device("cuda", 99)  # none that another test asks for: the answer is kept
    assert free_bytes(device) == 23 * gb
    assert sizes_for(device) == gpu_sizes(23 * gb)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert sizes_for(device) == gpu_sizes(16 * gb)


def served_by(
    pairs: tuple[int, int], free: int, reason: str | None, by_labels: bool = False, **options: Any
) -> list[str]:
    """Which engine is called, without running it."""
    called: list[str] = []

    class Called(Exception):
        pass

    def note(name: str) -> Any:
        def call(*given: Any, **unused: Any) -> Any:
            called.append(name)
            raise Called

        return call

    with fake_card(free), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranked, "reason_against", lambda *given: reason)
        patch.setattr(ranked, "blockwise_loss", note("streamed"))
        patch.setattr(ranked, "fused_loss", note("fused"))
        patch.setattr(ranked, "rank_terms", note("dense"))
        query, key = unit(pairs[0], 8), unit(pairs[1], 8)
        source: PairRanks = IdentityRanks(labels(pairs[0]), labels(pairs[1]))
        if by_labels:
            table = torch.ones(2, 2, dtype=torch.int8, device="cuda")
            source = TableRanks(
                labels(pairs[0]), labels(pairs[1]), table, num_ranks=1, validate=False
            )
        with pytest.raises(Called):
            ranked_info_nce(query, key, source, 0.1, **{"validate": False, **options})
    return called


def test_auto_takes_the_fused_engine_where_it_is_faster() -> None:
    """Faster: see docs/decisions/0012."""
    large, small = 70 * 2**30, 2**30
    assert served_by((127, 128), large, None) == ["dense"]
    assert served_by((128, 128), large, None) == ["fused"]
    assert served_by((2**15, 2**15), large, None) == ["fused"]  # 8 dimensions
    assert served_by((2**15, 2**15 + 1), large, None) == ["streamed"]
    assert served_by((2**15, 2**15 + 1), large, None, matmul_precision="bf16") == ["fused"]
    assert served_by((4096, 4096), large, "no triton") == ["dense"]
    assert served_by((4096, 4097), large, "no triton") == ["streamed"]
    assert served_by((4096, 4096), small, "no triton") == ["streamed"]
    assert served_by((127, 128), large, "no triton", by_labels=True) == ["dense"]
    assert served_by((128, 128), large, "no triton", by_labels=True) == ["streamed"]


def test_an_engine_that_cannot_serve_says_so_and_another_serves() -> None:
    assert served_by((64, 64), 2**30, None, engine="fused") == ["fused"]
    with pytest.warns(RinceWarning, match=r"streamed.*triton 2\.0"):
        assert served_by((64, 64), 2**30, "triton 2.0 is too old", engine="fused") == ["streamed"]
    assert served_by((8192, 4096), 2**31, None, engine="dense") == ["dense"]
    with pytest.warns(RinceWarning, match=r"0.8 GB for 8192 x 4096 pairs"):
        assert served_by((8192, 4096), 2**29, None, engine="dense") == ["streamed"]


@pytest.mark.parametrize(("free", "reason"), [(2**29, None), (2**33, "1,100 dimensions")])
def test_a_step_after_another_says_so_once(free: int, reason: str | None) -> None:
    ranked._warn_once.cache_clear()
    engine = "dense" if reason is None else "fused"
    with pytest.warns(RinceWarning, match="GB" if reason is None else reason) as seen:
        found = [served_by((8192, 4096), free, reason, engine=engine) for _ in range(3)]
    assert found == [["streamed"]] * 3
    assert len(seen) == 1


def test_both_sides_must_lie_on_one_device() -> None:
    with fake_card():
        z = unit(8, 4)
        ids = IdentityRanks(labels(8), labels(8))
        with pytest.raises(ValueError, match="cuda:0.*key.*cpu"):
            ranked_info_nce(z, torch.zeros(8, 4), ids, 0.1, validate=False)


@pytest.mark.parametrize("engine", ["dense", "streamed"])
def test_ranks_on_the_cpu_go_to_the_embeddings(engine: str) -> None:
    classes = class_ranks(2)
    some = torch.zeros(8, dtype=torch.int64)
    ranks = classes.ranks(some, some, ignore_self=True)
    with fake_card() as watch:
        z = unit(8, 4).requires_grad_()
        watch.copies.clear()
        loss = ranked_info_nce(z, z, ranks, (0.1, 0.2), engine=engine, validate=False)
        assert loss.is_cuda
        assert gradients(loss)[z].is_cuda
        assert len(watch.copies) == 3  # both labels and the table, not a matrix of pairs


def test_on_a_cpu_fused_falls_back_too() -> None:
    z = functional.normalize(torch.randn(6, 4), dim=1)
    ids = IdentityRanks(torch.arange(6) // 2, torch.arange(6) // 2, ignore_self=True)
    with pytest.warns(RinceWarning, match="CUDA card"):
        loss = ranked_info_nce(z, z, ids, 0.1, engine="fused")
    torch.testing.assert_close(loss, ranked_info_nce(z, z, ids, 0.1, engine="dense"))
