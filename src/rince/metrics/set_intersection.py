"""Average set intersection: how the nearest items overlap with the first of an ideal order."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from rince.metrics.ordered_items import OrderedItems


def average_set_intersection(items: OrderedItems) -> Tensor:
    """(rows,) expected ASI; NaN without a positive.

    Up to place n the overlap is the sum over the levels of min(how many of its positives are among
    the n nearest, how many among the first n of the ideal order).
    """
    totals = torch.stack([count[:, -1] for count in items.counts])  # (L, rows)
    width = int(totals[-1].max())
    n = torch.arange(1, width + 1, device=totals.device)
    first, last = items.first[:, :width].long(), items.last[:, :width].long()
    overlap = below = ideal_below = torch.zeros_like(first).double()
    for count, total in zip(items.counts, totals, strict=True):
        before, after = count.gather(1, first), count.gather(1, last)
        # Evenly over the places of a run of tied items.
        near = before + (n - first).double() / (last - first) * (after - before)
        ideal = torch.minimum(n, total[:, None]).double()
        overlap = overlap + torch.minimum(near - below, ideal - ideal_below)
        below, ideal_below = near, ideal
    _correct_tied_runs(overlap, items, totals)
    share = (overlap / n).masked_fill(n > totals[-1][:, None], 0)
    return share.sum(dim=1) / totals[-1]


def _correct_tied_runs(overlap: Tensor, items: OrderedItems, totals: Tensor) -> None:
    """The expectation of a minimum is not the minimum of expectations: put the former in place.

    Of up to three tied items the number drawn is one of two neighbours: there the two are the same.
    """
    width = overlap.shape[1]
    first, last = items.first[:, :width], items.last[:, :width]
    begins = (last - first > 3) & (first == torch.arange(width, device=first.device))
    row, start = begins.nonzero(as_tuple=True)  # (N,) runs
    end = last[row, start].long()
    finer_total = finer_before = finer_inside = torch.zeros_like(end)
    for count, total in zip(items.counts, totals[:, row].long(), strict=True):
        before = count[row, start].long()
        inside = count[row, end].long() - before
        low, high = start.maximum(finer_total), end.minimum(total)
        for size in torch.unique((end - start)[low < high]).tolist():
            # Places low + 1 .. high of the ideal order belong to this level.
            of_size = ((end - start == size) & (low < high)).nonzero()  # (M, 1), as those below
            seen = (before - finer_before)[of_size]
            spare = start[of_size] - finer_total[of_size] - seen
            nearest = _expected_minima(size, (inside - finer_inside)[of_size], spare)
            drawn = torch.arange(1, size + 1, device=end.device)
            share = finer_inside[of_size].double() / size
            expected = finer_before[of_size] + drawn * share + seen + nearest  # (M, size)
            place = start[of_size] + drawn - 1
            there = (place >= low[of_size]) & (place < high[of_size])
            overlap[row[of_size].expand_as(place)[there], place[there]] = expected[there]
        finer_total, finer_before, finer_inside = total, before, inside


def _expected_minima(size: int, marked: Tensor, spare: Tensor) -> Tensor:
    """(M, size): :func:`_expected_minimum` for n from 1 on, of each (M, 1); of few different ones.

    From no spare on it is that of 0; with less than minus the others, n + spare.
    """
    lowest = marked - size - 1
    bounded = spare.clamp(max=0).maximum(lowest)
    pairs = torch.cat([marked, bounded], dim=1)
    different, which = torch.unique(pairs, dim=0, return_inverse=True)
    tables = torch.stack([_expected_minimum(size, *pair) for pair in different.tolist()])
    return tables.to(spare.device)[which, 1:] + (spare - bounded).clamp(max=0)


@lru_cache(maxsize=64)
def _expected_minimum(size: int, marked: int, spare: int) -> Tensor:
    """(size + 1,): E[min(X, n + spare)] for n = 0 .. size, X the marked ones among n drawn items.

    With Y = n - X the others, it is n - E[max(Y, -spare)], and E[Y; Y >= j] is n others / size
    times the probability that of n - 1 from one item and one other less at least j - 1 are others.
    """
    drawn = torch.arange(size + 1, dtype=torch.float64)
    others, least = size - marked, -spare
    if least <= 0:
        return drawn * (marked / size)
    at_least = _at_least(size, others, least)
    within = torch.zeros_like(drawn)
    if others:
        within[1:] = drawn[1:] * (others / size) * _at_least(size - 1, others - 1, least - 1)
    return drawn - within - least * (1 - at_least)


def _at_least(size: int, others: int, least: int) -> Tensor:
    """(size + 1,): the probability that n = 0 .. size drawn items hold at least so many others."""
    if least <= 0:
        return torch.ones(size + 1, dtype=torch.float64)
    if least > others:
        return torch.zeros(size + 1, dtype=torch.float64)
    # The least-th other one is drawn at place e: least - 1 of them before, the rest after.
    place = torch.arange(1, size + 1, dtype=torch.float64)
    log_share = _log_choose(place - 1, least - 1) + _log_choose(size - place, others - least)
    share = (log_share - _log_choose(torch.tensor(float(size)).double(), others)).exp()
    return torch.cat([share.new_zeros(1), share.cumsum(0)])


def _log_choose(total: Tensor, chosen: int) -> Tensor:
    """log of the binomial coefficient; -inf where fewer than ``chosen`` are there, as lgamma is
    infinite at 0 and below."""
    rest = torch.lgamma(total - chosen + 1)
    return torch.lgamma(total + 1) - math.lgamma(chosen + 1) - rest
