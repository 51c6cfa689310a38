"""The Triton kernels behind :mod:`rince.losses.blockwise.fused`: read that module first.

Every kernel walks over tiles of BM rows by BN columns. A program owns its rows and one of
``num_splits`` equal parts of the columns, and writes its results to a place of its own: nothing
is added atomically, so the same input gives the same bits.

Words: ``m`` are places of rows (BM,), ``n`` of columns (BN,); ``q`` and ``k`` are places of queries
and keys, shaped to broadcast over a tile: (BM, 1) and (1, BN), or (1, BN) and (BM, 1) where the
rows are the keys. A rank tile holds 1..R as usual, R + 1 for a negative, below 1 for no pair, so
that "less similar than rank i" is ``rank > i``. Logarithms and exponentials have base 2, the one
that the hardware has; ``x = s / tau * LOG2E``.
"""

from __future__ import annotations

# ruff: noqa: RUF005, B007 - Triton knows tuples and their sum, not unpacking, and has no "_"
from typing import Any, NamedTuple

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
# A batch of another size must not compile anew.
SIZES = ["Q", "K", "C", "num_splits"]
LOW = tl.constexpr(-1e30)  # log2 of an empty sum; finite, so that LOW - LOW is 0 and not NaN


class Constants(NamedTuple):
    """What a kernel is compiled for; each a tl.constexpr.

    Args:
        D, BD: components of embeddings, and how many at a time. BM, BN: rows, columns of a tile.
        R: ranks. OUT: bit i is set where rank i + 1 has the "out" form. CUMULATIVE: positives.
        LEVELS: of the codes; 0: labels and a table. OWN: pair (i, i) is ignored. VALID: some keys
            may be ignored. PRECISION: of products, as Triton names it. SORTED: items come by class.
        AS_QUERY, AS_KEY, TAUS: see gradient.
    """

    D: Any
    BD: Any
    BM: Any
    BN: Any
    R: Any
    OUT: Any
    CUMULATIVE: Any
    LEVELS: Any
    OWN: Any
    VALID: Any
    PRECISION: Any
    SORTED: Any
    AS_QUERY: Any = tl.constexpr(True)
    AS_KEY: Any = tl.constexpr(False)
    TAUS: Any = tl.constexpr(False)


@triton.jit
def _embeddings(ptr, places, count, start, c: tl.constexpr):
    """(B, BD): components ``start`` on of some rows; zeros outside."""
    d = start + tl.arange(0, c.BD)
    inside = (places < count)[:, None]
    if c.D % c.BD != 0:
        inside = inside & (d < c.D)[None, :]
    return tl.load(ptr + places[:, None] * c.D + d[None, :], mask=inside, other=0.0)


@triton.jit
def _similarities(a, rows, columns, m, n, M, N, c: tl.constexpr):
    """(BM, BN) dot products; and (BN, BD), the columns' first components. a: those of the rows."""
    b = _embeddings(columns, n, N, 0, c)
    s = tl.dot(a, tl.trans(b), input_precision=c.PRECISION)
    if c.D <= 2 * c.BD:
        for start in tl.static_range(c.BD, c.D, c.BD):
            more = tl.trans(_embeddings(columns, n, N, start, c))
            s = tl.dot(_embeddings(rows, m, M, start, c), more, s, input_precision=c.PRECISION)
    else:  # unrolled, each turn would have a buffer of its own
        for start in range(c.BD, c.D, c.BD):
            more = tl.trans(_embeddings(columns, n, N, start, c))
            s = tl.dot(_embeddings(rows, m, M, start, c), more, s, input_precision=c.PRECISION)
    return s, b


@triton.jit
def _ranks(q_codes, k_codes, table, key_valid, q, k, Q, K, C, c: tl.constexpr):
    """The rank tile, from a table or (LEVELS > 0) codes: the finest level that all above share."""
    pair = (q < Q) & (k < K)
    if c.OWN:
        pair = pair & (q != k)
    if c.VALID:
        pair = pair & (tl.load(key_valid + k, mask=k < K, other=0) != 0)
    if c.LEVELS == 0:
        a = tl.load(q_codes + q, mask=q < Q, other=0).to(tl.int32)
        b = tl.load(k_codes + k, mask=k < K, other=0).to(tl.int32)
        rank = tl.load(table + a * C + b, mask=pair, other=-1).to(tl.int32)
        rank = tl.where(rank == 0, c.R + 1, rank)
    else:
        rank = tl.full(pair.shape, c.R + 1, tl.int32)
        same = pair
        for finer in tl.static_range(c.LEVELS):
            level = c.LEVELS - 1 - finer
            a = tl.load(q_codes + q * c.LEVELS + level, mask=q < Q, other=0)
            b = tl.load(k_codes + k * c.LEVELS + level, mask=k < K, other=0)
            same = same & (a == b)
            rank = tl.where(same, level + 1, rank)
    return tl.where(pair, rank, 0)


@triton.jit
def _sides(rank, i: tl.constexpr, c: tl.constexpr):
    """Which pairs are less similar than rank i, and which are the positives of its term."""
    if c.CUMULATIVE:
        positive = (rank >= 1) & (rank <= i)
    else:
        positive = rank == i
    return rank > i, positive


@triton.jit
def _softplus_and_sigmoid(x):
    """log2(1 + 2^x) and 2^x / (1 + 2^x)."""
    e = tl.exp2(-tl.abs(x))  # in [0, 1]: nothing overflows
    return tl.maximum(x, 0.0) + tl.log2(1.0 + e), tl.where(x >= 0, 1.0, e) / (1.0 + e)


@triton.jit
def _scale(taus, i: tl.constexpr):
    """x = s * scale."""
    return LOG2E / tl.load(taus + i)


@triton.jit
def _part(columns, num_splits, c: tl.constexpr):
    """First and last column of this program's part."""
    width = tl.cdiv(tl.cdiv(columns, c.BN), num_splits) * c.BN
    start = tl.program_id(1) * width
    return start, tl.minimum(start + width, columns)


@triton.jit
def _merged(ptr, m, count, num_splits, stride):
    """log2 of the sum over all parts, of their log2 sums."""
    top = tl.full(m.shape, LOW, tl.float32)
    total = tl.zeros(m.shape, tl.float32)
    for part in range(num_splits):
        x = tl.load(ptr + part * stride + m, mask=m < count, other=LOW)
        new = tl.maximum(top, x)
        total = total * tl.exp2(top - new) + tl.exp2(x - new)
        top = new
    return top + tl.log2(total)


@triton.jit
def _added(ptr, m, count, num_splits, stride):
    """Sum over all parts."""
    total = tl.zeros(m.shape, tl.float32)
    for part in range(num_splits):
        total += tl.load(ptr + part * stride + m, mask=m < count, other=0.0)
    return total


@triton.jit(do_not_specialize=SIZES)
def pass_1_sums(
    query, key, q_codes, k_codes, table, key_valid, taus, sums, Q, K, C, num_splits,
    c: tl.constexpr,
):  # fmt: skip
    """sums (num_splits, 2, R, Q): log2 sum of the less similar keys, and of the positives.

    For ranks of the "out" form (bits of OUT) the second is the number of positives.
    """
    m = tl.program_id(0) * c.BM + tl.arange(0, c.BM)
    start, stop = _part(K, num_splits, c)
    nothing = tl.zeros((c.BM,), tl.float32)
    state = ()
    for i in tl.static_range(c.R):
        state = state + ((nothing + LOW, nothing, nothing + LOW, nothing),)
    a = _embeddings(query, m, Q, 0, c)
    for first in range(start, stop, c.BN):
        n = first + tl.arange(0, c.BN)
        s, _columns = _similarities(a, query, key, m, n, Q, K, c)
        rank = _ranks(q_codes, k_codes, table, key_valid, m[:, None], n[None, :], Q, K, C, c)
        grown = ()
        for i in tl.static_range(c.R):
            less_top, less_sum, positive_top, positive_sum = state[i]
            less, positive = _sides(rank, i + 1, c)
            x = s * _scale(taus, i)
            new_less = tl.maximum(less_top, tl.max(tl.where(less, x, LOW), 1))
            if (c.OUT >> i) & 1:
                e = tl.exp2(x - new_less[:, None])
                new_positive = positive_top
                positive_sum += tl.sum(positive.to(tl.float32), 1)
            else:
                new_positive = tl.maximum(positive_top, tl.max(tl.where(positive, x, LOW), 1))
                e = tl.exp2(x - tl.where(less, new_less[:, None], new_positive[:, None]))
                positive_sum *= tl.exp2(positive_top - new_positive)
                positive_sum += tl.sum(tl.where(positive, e, 0.0), 1)
            less_sum = less_sum * tl.exp2(less_top - new_less)
            less_sum += tl.sum(tl.where(less, e, 0.0), 1)
            grown = grown + ((new_less, less_sum, new_positive, positive_sum),)
        state = grown
    for i in tl.static_range(c.R):
        less_top, less_sum, positive_top, positive_sum = state[i]
        place = sums + (tl.program_id(1) * 2 * c.R + i) * Q + m
        # "!= 0" is true of NaN, which must come through.
        less_log = tl.where(less_sum != 0, less_top + tl.log2(less_sum), LOW)
        tl.store(place, less_log, mask=m < Q)
        if (c.OUT >> i) & 1:
            tl.store(place + c.R * Q, positive_sum, mask=m < Q)
        else:
            positive_log = tl.where(positive_sum != 0, positive_top + tl.log2(positive_sum), LOW)
            tl.store(place + c.R * Q, positive_log, mask=m < Q)


@triton.jit(do_not_specialize=SIZES)
def pass_2_each_positive(
    query, key, q_codes, k_codes, table, key_valid, taus, sums, each, Q, K, C, num_splits,
    c: tl.constexpr,
):  # fmt: skip
    """each (num_splits, 2, R, Q): sums over positives of log2(1 + less / positive), its sigmoid."""
    m = tl.program_id(0) * c.BM + tl.arange(0, c.BM)
    start, stop = _part(K, num_splits, c)
    state = ()
    for i in tl.static_range(c.R):
        if (c.OUT >> i) & 1:
            less_log = _merged(sums + i * Q, m, Q, num_splits, 2 * c.R * Q)
            nothing = tl.zeros((c.BM,), tl.float32)
            state = state + ((less_log, nothing, nothing),)
        else:
            state = state + (0,)
    a = _embeddings(query, m, Q, 0, c)
    for first in range(start, stop, c.BN):
        n = first + tl.arange(0, c.BN)
        rank = _ranks(q_codes, k_codes, table, key_valid, m[:, None], n[None, :], Q, K, C, c)
        wanted = tl.zeros(rank.shape, tl.int1)
        for i in tl.static_range(c.R):
            if (c.OUT >> i) & 1:
                _less, positive = _sides(rank, i + 1, c)
                wanted = wanted | positive
        # Sorted by class, most tiles hold no positive; unsorted, to ask costs more than it saves.
        if not c.SORTED or tl.max(tl.max(wanted.to(tl.int32), 1), 0) > 0:
            s, _columns = _similarities(a, query, key, m, n, Q, K, c)
            grown = ()
            for i in tl.static_range(c.R):
                if (c.OUT >> i) & 1:
                    less_log, value, weight = state[i]
                    _less, positive = _sides(rank, i + 1, c)
                    log_odds = less_log[:, None] - s * _scale(taus, i)
                    softplus, sigmoid = _softplus_and_sigmoid(log_odds)
                    value += tl.sum(tl.where(positive, softplus, 0.0), 1)
                    weight += tl.sum(tl.where(positive, sigmoid, 0.0), 1)
                    grown = grown + ((less_log, value, weight),)
                else:
                    grown = grown + (0,)
            state = grown
    for i in tl.static_range(c.R):
        if (c.OUT >> i) & 1:
            _, value, weight = state[i]
            place = each + (tl.program_id(1) * 2 * c.R + i) * Q + m
            tl.store(place, value, mask=m < Q)
            tl.store(place + c.R * Q, weight, mask=m < Q)


@triton.jit(do_not_specialize=SIZES)
def finish(
    sums, each, taus, values, active, factors, Q, num_splits, c: tl.constexpr,
):  # fmt: skip
    """values, active (R, Q); factors (3, R, Q): what _slopes needs of each query.

    The weight w of a share goes into its exponent: w e^x / e^W = e^(x - (W - log w)).
    """
    m = tl.program_id(0) * c.BM + tl.arange(0, c.BM)
    inside = m < Q
    for i in tl.static_range(c.R):
        tau = tl.load(taus + i)
        less_log = _merged(sums + i * Q, m, Q, num_splits, 2 * c.R * Q)
        if (c.OUT >> i) & 1:
            count = _added(sums + (c.R + i) * Q, m, Q, num_splits, 2 * c.R * Q)
            learns = (less_log > LOW / 2) & (count != 0)
            count = tl.maximum(count, 1.0)
            value = _added(each + i * Q, m, Q, num_splits, 2 * c.R * Q) / count
            push = _added(each + (c.R + i) * Q, m, Q, num_splits, 2 * c.R * Q) / count
            positive_log = less_log
            pull = 1.0 / (count * tau)
        else:
            positive_log = _merged(sums + (c.R + i) * Q, m, Q, num_splits, 2 * c.R * Q)
            learns = (less_log > LOW / 2) & (positive_log > LOW / 2)
            value, push = _softplus_and_sigmoid(less_log - positive_log)
            positive_log -= tl.log2(push / tau)
            pull = push
        less_log -= tl.log2(push / tau)
        # Not learning: logarithms above every x, so that exponentials are 0 and never infinite.
        place = factors + i * Q + m
        tl.store(place, tl.where(learns, less_log, -LOW), mask=inside)
        tl.store(place + c.R * Q, tl.where(learns, positive_log, -LOW), mask=inside)
        tl.store(place + 2 * c.R * Q, tl.where(learns, pull, 0.0), mask=inside)
        tl.store(values + i * Q + m, tl.where(learns, value / LOG2E, 0.0), mask=inside)
        tl.store(active + i * Q + m, learns.to(tl.int8), mask=inside)


@triton.jit
def _slopes(s, rank, factors, upstream, taus, q, Q, slope_times_s, c: tl.constexpr):
    """d loss / d s of a tile; and, if slope_times_s holds any, its row sums times s, by rank."""
    slope = tl.zeros_like(s)
    up = tl.load(upstream + q, mask=q < Q, other=0.0)
    grown = ()
    for i in tl.static_range(c.R):
        less, positive = _sides(rank, i + 1, c)
        less_log = tl.load(factors + i * Q + q, mask=q < Q, other=-LOW)
        positive_log = tl.load(factors + (c.R + i) * Q + q, mask=q < Q, other=-LOW)
        e = tl.exp2(s * _scale(taus, i) - tl.where(less, less_log, positive_log))
        if (c.OUT >> i) & 1:
            pull = tl.load(factors + (2 * c.R + i) * Q + q, mask=q < Q, other=0.0)
            of_rank = tl.where(less, e, tl.where(positive, -pull / (1.0 + e), 0.0))
        else:
            of_rank = tl.where(less, e, tl.where(positive, -e, 0.0))
        slope += of_rank
        if len(slope_times_s) > 0:
            grown = grown + (slope_times_s[i] + tl.sum(of_rank * up * s, 1),)
    return slope * up, grown


@triton.jit(do_not_specialize=SIZES)
def gradient(
    query, key, q_codes, k_codes, table, key_valid, taus, factors, upstream, out, out_taus,
    Q, K, C, num_splits, c: tl.constexpr,
):  # fmt: skip
    """out (num_splits, rows, D): sum over columns of d loss / d s times the column's embedding.

    Rows are queries (AS_QUERY), keys (AS_KEY), or both at once: a batch against itself, whose tile
    of similarities serves both, G z + G^T z. out_taus (num_splits, R, Q): sum of slope times s.
    """
    m = tl.program_id(0) * c.BM + tl.arange(0, c.BM)
    if c.AS_QUERY:
        rows, columns, M, N = query, key, Q, K
    else:
        rows, columns, M, N = key, query, K, Q
    start, stop = _part(N, num_splits, c)
    first_out = tl.program_id(2) * c.BD
    a = _embeddings(rows, m, M, 0, c)
    total = tl.zeros((c.BM, c.BD), tl.float32)
    slope_times_s = ()
    if c.TAUS:
        for i in tl.static_range(c.R):
            slope_times_s = slope_times_s + (tl.zeros((c.BM,), tl.float32),)
    for first in range(start, stop, c.BN):
        n = first + tl.arange(0, c.BN)
        s, b = _similarities(a, rows, columns, m, n, M, N, c)
        slope = tl.zeros((c.BM, c.BN), tl.float32)
        if c.AS_QUERY:
            rank = _ranks(q_codes, k_codes, table, key_valid, m[:, None], n[None, :], Q, K, C, c)
            slope, slope_times_s = _slopes(
                s, rank, factors, upstream, taus, m[:, None], Q, slope_times_s, c
            )
        if c.AS_KEY:
            rank = _ranks(q_codes, k_codes, table, key_valid, n[None, :], m[:, None], Q, K, C, c)
            as_key, _ = _slopes(s, rank, factors, upstream, taus, n[None, :], Q, (), c)
            slope += as_key
        if c.D > c.BD:
            b = _embeddings(columns, n, N, first_out, c)
        total = tl.dot(slope.to(b.dtype), b, total, input_precision=c.PRECISION)
    d = first_out + tl.arange(0, c.BD)
    place = out + (tl.program_id(1) * M + m)[:, None] * c.D + d[None, :]
    tl.store(place, total, mask=(m < M)[:, None] & (d < c.D)[None, :])
    if c.TAUS:  # noqa: SIM102 (when it compiles, the next one when it runs)
        if first_out == 0:  # every block of components gives the same
            for i in tl.static_range(c.R):
                of_rank = out_taus + (tl.program_id(1) * c.R + i) * Q + m
                tl.store(of_rank, slope_times_s[i], mask=m < M)
