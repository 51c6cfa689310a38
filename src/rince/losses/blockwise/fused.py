r"""RINCE in Triton: on the GPU, with no queries-by-keys matrix in memory, forward or backward.

The formula (see :mod:`rince.losses.definition`), of a query with similarities s_k, for rank i:

.. math::
    x_k = s_k / \tau_i, \quad W = \log \sum_{k \,\text{less similar}} e^{x_k}, \quad
    P = \log \sum_{p \,\text{positive}} e^{x_p}, \quad
    l_i^{in} = \log(1 + e^{W - P}), \quad
    l_i^{out} = \frac{1}{n} \sum_p \log(1 + e^{W - x_p})

    \frac{\partial l^{in}}{\partial x_k} = \sigma(W - P)\, e^{x_k - W}, \quad
    \frac{\partial l^{in}}{\partial x_p} = -\sigma(W - P)\, e^{x_p - P}

    \frac{\partial l^{out}}{\partial x_k} = e^{x_k - W} \frac{1}{n} \sum_p \sigma(W - x_p), \quad
    \frac{\partial l^{out}}{\partial x_p} = -\frac{1}{n} \sigma(W - x_p)

The kernels (:mod:`rince.losses.blockwise.fused_kernels`) compute tiles of similarities in each of

- pass 1: W and P of every query and rank, as running maxima and sums;
- pass 2, for ranks of the "out" form only: the sums over p, which need the finished W;
- backward: one kernel for the gradient of the queries, the same with roles swapped for the keys,
  or one for both where a batch stands against itself.

Ranks come as level codes, compared level by level, or as labels and a class table. Nothing here
reads a value from the device.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rince.core.checks import require
from rince.core.pair_ranks import PairCodes, PairRanks
from rince.losses.blockwise.limits import refuse_functorch, refuse_second_derivatives, stacked
from rince.losses.common import Reduction
from rince.losses.definition import RankTerms, form_of_term
from rince.losses.options import MatmulPrecision, Positives, Variant

MOST_RANKS = 8
WIDEST = 1024
OLDEST_TRITON = (3, 6)
OLDEST_CARD = (8, 0)  # compute capability; the first with TF32


class Tiles(NamedTuple):
    """Sizes of a kernel's tile: what fits the registers and the shared memory of a card.

    Args:
        components: of the embeddings, at a time: a power of 2; wider ones take several turns.
        warps, stages: as Triton names them.
        products: their precision, as Triton names it; bf16 embeddings go without.
    """

    rows: int
    columns: int
    components: int
    warps: int
    stages: int
    products: str = "tf32"


def codes_of(ranks: PairRanks) -> PairCodes | None:
    """The codes of a rank source; None if it has none (a matrix of its own)."""
    codes: Callable[[], PairCodes] | None = getattr(ranks, "codes", None)
    return None if codes is None else codes()


def reason_against(query: Tensor, key: Tensor, ranks: PairRanks, num_ranks: int) -> str | None:
    """Why this engine cannot take a case, in half a sentence; None if it can."""
    codes = codes_of(ranks)
    largest = max(query.shape[0], key.shape[0]) * query.shape[1]
    device = query.device
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"  # on the CPU, in Python: for tests
    if device.type != "cuda" and not interpreted:
        return f"it needs a CUDA card, and the embeddings are on {device}"
    if device.type == "cuda" and not torch.cuda.is_available():
        return "it needs a CUDA card, and PyTorch finds none"
    if _capability(device) < OLDEST_CARD:
        return "it needs a card of compute capability 8.0 (A100, RTX 30) or newer"
    if codes is None:
        return f"it takes ranks from labels or levels, not {type(ranks).__name__}"
    most = max(num_ranks, codes.query.shape[1])
    if most > MOST_RANKS:
        return f"it takes up to {MOST_RANKS} ranks and levels, and there are {most}"
    if query.shape[1] > WIDEST:
        return f"it takes embeddings of up to {WIDEST} dimensions, and these have {query.shape[1]}"
    if torch.float64 in (query.dtype, key.dtype):
        return "it sums in float32, and the embeddings are float64"
    if largest >= 2**31:
        return "it counts in 32 bits, and the embeddings hold 2^31 numbers or more"
    return why_no_triton()


def why_no_triton() -> str | None:
    """What is wrong with the installed Triton, and how to fix it; None if nothing is."""
    oldest = ".".join(map(str, OLDEST_TRITON))
    try:
        import triton
    except ImportError:
        return f"it needs triton, which is not installed: pip install 'triton>={oldest}'"
    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < OLDEST_TRITON:
        return f"it needs triton >= {oldest}, and {triton.__version__} is installed"
    return None


def fused_loss(
    query: Tensor,
    key: Tensor,
    ranks: PairRanks,
    taus: Sequence[float | Tensor],
    variant: Variant,
    positives: Positives,
    *,
    reduction: Reduction,
    precision: MatmulPrecision = "fp32",
    tiles: tuple[Tiles, Tiles] | None = None,
    sort_from: int = 2**26,
) -> tuple[Tensor, RankTerms]:
    """The loss, and its terms without a graph.

    Args:
        query: (Q, D), key: (K, D), checked. The same tensor twice halves the backward pass.
        ranks: a source that has codes.
        taus: one temperature per rank; tensors may require a gradient.
        precision: of the products of embeddings. "fp32" is TF32 in three terms, nearly as exact
            as fp32; sums are fp32 in any case.
        tiles: of the forward and of the backward pass; None takes what fits the dimension and
            the precision.
        sort_from: number of pairs from which items are sorted by class: tiles hold few classes.
    """
    reason = reason_against(query, key, ranks, len(taus))
    require(reason is None, f'engine="fused" cannot take this case: {reason}')
    refuse_functorch("fused")
    if torch.compiler.is_compiling():
        # A break in the graph: the compiler would trace every launch, to gain nothing.
        apply = torch.compiler.disable(_Fused.apply)  # type: ignore[no-untyped-call]
    else:
        apply = _Fused.apply
    codes = codes_of(ranks)
    assert codes is not None
    device = query.device
    temperatures = stacked(taus, device, torch.float32)
    own = key is query
    rows = query.to(torch.float32)
    columns = rows if own else key.to(torch.float32)
    out = sum((form_of_term(variant, i + 1) == "out") << i for i in range(len(taus)))
    moved = (x.to(device).contiguous() if isinstance(x, Tensor) else x for x in codes)
    codes = PairCodes._make(moved)
    orders = None
    if len(query) * len(key) >= sort_from and (own or not codes.ignore_self):
        orders, codes = _by_class(codes, own)
    plan = _Plan(
        codes,
        orders,
        out,
        positives == "cumulative",
        torch.bfloat16 if precision == "bf16" else torch.float32,
        tiles or default_tiles(query.shape[1], precision, _capability(device)),
    )
    losses, values, active = apply(rows, None if own else columns, temperatures, plan)
    terms = RankTerms(values, active)
    if reduction == "none":
        return losses, terms
    loss = losses.sum()
    if reduction == "mean":
        loss = loss / active.any(dim=0).sum().clamp(min=1)
    return loss, terms


def _by_class(codes: PairCodes, own: bool) -> tuple[tuple[Tensor, Tensor], PairCodes]:
    """Orders by class, and the codes in them; not where pairs (i, i) of two sides are ignored."""
    of_query = codes.query[:, 0].argsort(stable=True)
    of_key = of_query if own else codes.key[:, 0].argsort(stable=True)
    valid = None if codes.key_valid is None else codes.key_valid[of_key]
    query, key = codes.query[of_query], codes.key[of_key]
    return (of_query, of_key), codes._replace(query=query, key=key, key_valid=valid)


def default_tiles(
    dimension: int, precision: MatmulPrecision, capability: tuple[int, int]
) -> tuple[Tiles, Tiles]:
    """By benchmarks/fused_tiles.py on an H200 and by what Triton 3.6 and 3.8 keep in registers."""
    old, exact = capability < (9, 0), "tf32x3"
    if precision == "fp32":
        if old or dimension > 256:
            forward = Tiles(32, 32, 64, 4, 2, exact) if old else Tiles(64, 32, 64, 8, 2, exact)
            # A loop in a loop takes more registers.
            return forward, forward._replace(components=128 if dimension <= 256 else 64)
        narrow = Tiles(128, 32, 128, 8, 1, exact)
        backward = narrow if dimension <= 128 else Tiles(64, 32, 128, 4, 2, exact)
        return Tiles(128, 64, 64, 8, 2, exact), backward
    fits = dimension > 128 and (precision == "bf16" or dimension <= 256)
    wide = 256 if fits else 128
    if old:
        return Tiles(32, 64, 64, 4, 2), Tiles(32, 32, wide, 8 if fits else 4, 2)
    if precision == "bf16" and fits:
        return Tiles(128, 64, 64, 8, 3), Tiles(128, 32, 256 if dimension <= 256 else 128, 8, 2)
    return Tiles(64, 64, 64, 4, 2), Tiles(64, 32, wide, 8 if fits else 4, 2)


class _Plan(NamedTuple):
    codes: PairCodes  # in the orders, if there are any
    orders: tuple[Tensor, Tensor] | None  # of queries and keys by class
    out: int  # bit i: rank i + 1 has the "out" form
    cumulative: bool
    dtype: torch.dtype  # of the embeddings
    tiles: tuple[Tiles, Tiles]


class _Fused(torch.autograd.Function):
    """key None: the queries are the keys."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor | None, taus: Tensor, plan: _Plan
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.plan = plan
        ctx.own = key is None
        with torch.cuda.device_of(query):  # type: ignore[no-untyped-call]
            if plan.orders is not None:
                query = query[plan.orders[0]]
                key = None if key is None else key[plan.orders[1]]
            values, active, factors = _Launch(query, key, taus, plan).terms()
            if plan.orders is not None:
                values, active = (_restored(x, plan.orders[0], 1) for x in (values, active))
        ctx.save_for_backward(query, query if key is None else key, taus, factors)
        ctx.mark_non_differentiable(values, active)
        return values.sum(dim=0), values, active

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *unused: Any) -> tuple[Tensor | None, ...]:
        refuse_second_derivatives("fused")
        query, key, taus, factors = ctx.saved_tensors
        launch = _Launch(query, None if ctx.own else key, taus, ctx.plan)
        of_query, of_key, of_taus = ctx.needs_input_grad[:3]
        d_query = d_key = d_taus = None
        orders = ctx.plan.orders
        with torch.cuda.device_of(query):  # type: ignore[no-untyped-call]
            upstream = upstream if orders is None else upstream[orders[0]]
            if of_query or of_taus:
                d_query, d_taus = launch.gradient(factors, upstream, True, ctx.own, of_taus)
            if of_key:
                d_key, _ = launch.gradient(factors, upstream, False, True, False)
            if orders is not None:
                d_query = None if d_query is None else _restored(d_query, orders[0])
                d_key = None if d_key is None else _restored(d_key, orders[1])
        return d_query if of_query else None, d_key, d_taus, None


def _rounded(x: Tensor, plan: _Plan) -> Tensor:
    """As the products want it. For TF32 to nearest, as tensor cores cut bits off, which biases."""
    x = x.to(plan.dtype).contiguous()
    if x.dtype == torch.float32 and plan.tiles[0].products == "tf32":
        x = ((x.view(torch.int32) + 2**12) & -(2**13)).view(torch.float32)
    return x


def _restored(x: Tensor, order: Tensor, dim: int = 0) -> Tensor:
    """What ``x.index_select(dim, order)`` gave x, put back."""
    return torch.empty_like(x).index_copy_(dim, order, x)


class _Launch:
    """The kernels on one set of tensors."""

    def __init__(self, query: Tensor, key: Tensor | None, taus: Tensor, plan: _Plan) -> None:
        from rince.losses.blockwise import fused_kernels

        self.query = _rounded(query, plan)
        self.key = self.query if key is None else _rounded(key, plan)
        self.taus, self.plan, self.kernels = taus.contiguous(), plan, fused_kernels
        self.Q, self.K, self.R = len(query), len(self.key), len(taus)
        self.D = query.shape[1]

    def terms(self) -> tuple[Tensor, Tensor, Tensor]:
        """values (R, Q), active (R, Q) bool, factors (3, R, Q)."""
        Q, R, plan = self.Q, self.R, self.plan
        tiles = plan.tiles[0]
        splits = self._splits(Q, self.K, tiles)
        sums = self.taus.new_empty(splits, 2, R, Q)
        each = self.taus.new_empty(splits, 2, R, Q) if plan.out else sums
        grid = (_ceil(Q, tiles.rows), splits)
        self._run(self.kernels.pass_1_sums, tiles, grid, self.taus, sums)
        if plan.out:
            self._run(self.kernels.pass_2_each_positive, tiles, grid, self.taus, sums, each)
        values = self.taus.new_empty(R, Q)
        active = torch.empty_like(values, dtype=torch.int8)
        factors = self.taus.new_empty(3, R, Q)
        finish = self.kernels.finish[(_ceil(Q, tiles.rows),)]
        finish(sums, each, self.taus, values, active, factors, Q, splits, self._constants(tiles))
        return values, active.view(torch.bool), factors

    def gradient(
        self, factors: Tensor, upstream: Tensor, as_query: bool, as_key: bool, want_taus: bool
    ) -> tuple[Tensor, Tensor | None]:
        """(rows, D) of the rows, which are queries or keys or both; and (R,) of temperatures."""
        M, N = (self.Q, self.K) if as_query else (self.K, self.Q)
        tiles = self.plan.tiles[1]
        turns = _ceil(self.D, tiles.components)
        splits = self._splits(M * turns, N, tiles)
        out = self.taus.new_empty(splits, M, self.D)
        of_taus = self.taus.new_empty(splits, self.R, M) if want_taus else None
        self._run(
            self.kernels.gradient,
            tiles,
            (_ceil(M, tiles.rows), splits, turns),
            self.taus,
            factors,
            upstream.contiguous(),
            out,
            out if of_taus is None else of_taus,
            AS_QUERY=as_query,
            AS_KEY=as_key,
            TAUS=want_taus,
        )
        of_rows = out[0] if splits == 1 else out.sum(dim=0)
        # d x / d tau = -s / tau^2, and one tau is in the slope already.
        return of_rows, None if of_taus is None else -of_taus.sum(dim=(0, 2)) / self.taus

    def _splits(self, rows: int, columns: int, tiles: Tiles) -> int:
        """Parts of the columns: enough programs to fill the card, and no part without a tile."""
        of_columns = _ceil(columns, tiles.columns)
        wanted = _ceil(_programs(self.query.device), _ceil(rows, tiles.rows))
        return _ceil(of_columns, _ceil(of_columns, min(wanted, of_columns)))

    def _run(
        self, kernel: Any, tiles: Tiles, grid: tuple[int, ...], *tensors: Tensor, **options: bool
    ) -> None:
        codes = self.plan.codes
        table = codes.query if codes.table is None else codes.table
        valid = codes.query if codes.key_valid is None else codes.key_valid.view(torch.uint8)
        given = (self.query, self.key, codes.query, codes.key, table, valid, *tensors)
        sizes = (self.Q, self.K, table.shape[-1], grid[1])
        constants = self._constants(tiles, **options)
        kernel[grid](
            *given,
            *sizes,
            constants,
            num_warps=tiles.warps,
            num_stages=tiles.stages,
            enable_fp_fusion=True,  # the default until Triton 3.10, which 3.9 warns of
        )

    def _constants(self, tiles: Tiles, **options: bool) -> Any:
        codes = self.plan.codes
        return constants_of(
            D=self.D,
            BD=min(tiles.components, max(16, 1 << (self.D - 1).bit_length())),
            BM=tiles.rows,
            BN=tiles.columns,
            R=self.R,
            OUT=self.plan.out,
            CUMULATIVE=self.plan.cumulative,
            LEVELS=codes.query.shape[1] if codes.table is None else 0,
            OWN=codes.ignore_self,
            VALID=codes.key_valid is not None,
            PRECISION=tiles.products,
            SORTED=self.plan.orders is not None,
            **options,
        )


@cache
def constants_of(**values: Any) -> Any:
    """:class:`~rince.losses.blockwise.fused_kernels.Constants` from plain values."""
    from triton.language import constexpr

    from rince.losses.blockwise.fused_kernels import Constants

    return Constants(**{name: constexpr(value) for name, value in values.items()})


def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else OLDEST_CARD


def _programs(device: torch.device) -> int:
    """Programs that fill the device: two per multiprocessor."""
    if device.type != "cuda":
        return 4
    return 2 * torch.cuda.get_device_properties(device).multi_processor_count


def _ceil(count: int, size: int) -> int:
    return -(-count // size)
