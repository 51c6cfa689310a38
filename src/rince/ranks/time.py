"""Ranks from time alone: near in time is similar, another recording is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rince.core.checks import require, warn
from rince.core.labels import as_array, integers
from rince.core.notebook import as_html
from rince.core.pair_ranks import (
    ALL,
    IGNORED,
    MAX_RANK,
    NEGATIVE,
    IdentityRanks,
    check_pair_labels,
    mask_pairs,
    may_read,
    pairs_as_text,
)
from rince.ranks.summary import rare_ranks

Unit = Literal["seconds", "fraction"]
Beyond = Literal["rank", "negative", "ignore"]

MICROSECONDS = 1_000_000
MAX_SECONDS = 2.0**32  # Unix times up to 2106; a float64 still tells microseconds apart
NO_SHOT = -1
VIDEO, START, END, SHOT, LENGTH = range(5)
_BLOCK = 2**22  # pairs looked at together by describe()
_FAR = 2**62  # microseconds, beyond all times


@dataclass(frozen=True)
class TimeRanks:
    """How similar two clips are by when they were recorded; any time series will do.

    - rank 1: the same clip (same video, same start and end), so its other view;
    - rank 2: at most ``near[0]`` apart, or in the same shot; rank 3: at most ``near[1]``; ...;
    - then what ``beyond`` says: the rest of the video, by default one more rank;
    - negative: other videos.

    Two clips are apart by the gap between them, 0 where they overlap or touch. With ``near=()``
    and the default ``beyond`` there are the two ranks "same clip" and "same video". One long
    recording has no other videos to learn from: ``beyond="negative"`` makes its far parts so.

    Items are tensors (N, 5) int64, made by :meth:`items`: they can be sliced, gathered and
    queued as labels can. Source: the video study of RINCE (AAAI 2022, arXiv 2201.11736).

    Args:
        near: rising gaps, at least 0, one for each rank from 2 on.
        unit: of ``near``: "seconds", or "fraction" of the query's video.
        shots: clips of one shot have rank 2, whatever the gap. Clips of unknown shot share none.
        beyond: what the rest of the same video is: one more "rank", "negative", or "ignore".

    Raises:
        ValueError: gaps that are negative, not finite or do not rise; an unknown word.

    Example:
        >>> items = TimeRanks.items([7, 7, 7, 8], start=[0, 3, 90, 0], end=[2, 5, 92, 2])
        >>> TimeRanks(near=[10]).ranks(items, items).tile(slice(None), slice(None)).tolist()
        [[1, 2, 3, 0], [2, 1, 3, 0], [3, 3, 1, 0], [0, 0, 0, 1]]
    """

    near: Sequence[float] = (10.0,)
    unit: Unit = "seconds"
    shots: bool = False
    beyond: Beyond = "rank"

    def __post_init__(self) -> None:
        near = tuple(float(x) for x in np.atleast_1d(self.near).tolist())
        shown = ", ".join(f"{x:g}" for x in near)
        require(
            all(0 <= x < float("inf") for x in near)
            and all(a < b for a, b in zip(near, near[1:], strict=False)),
            f"near must be finite gaps of at least 0 that rise from rank 2 on, got {shown}",
        )
        require(
            self.unit in ("seconds", "fraction"),
            f"unit must be 'seconds' or 'fraction', got {self.unit!r}",
        )
        require(
            self.beyond in ("rank", "negative", "ignore"),
            f"beyond must be 'rank', 'negative' or 'ignore', got {self.beyond!r}",
        )
        require(
            self.unit == "seconds" or all(x <= 1 for x in near),
            f"near in fractions of the video must be at most 1, got {shown}",
        )
        object.__setattr__(self, "near", near)
        require(
            self.num_ranks <= MAX_RANK,
            f"{len(near)} gaps make {self.num_ranks} ranks, more than {MAX_RANK}: give fewer",
        )

    @property
    def num_ranks(self) -> int:
        """The highest rank there can be."""
        return 1 + max(len(self.near), int(self.shots)) + (self.beyond == "rank")

    @staticmethod
    def items(
        video: Any,
        start: Any,
        end: Any,
        *,
        shot: Any | None = None,
        length: Any | None = None,
    ) -> Tensor:
        """When each item was recorded, as the rows that :meth:`ranks` takes.

        Times are kept to the microsecond, as integers: what is exactly 10 seconds apart is so on
        every device.

        Args:
            video: (N,) integers, which video (recording, sensor, ...) an item is from. This and the
                others: tensors, numpy arrays, lists, pandas columns.
            start, end: (N,) seconds into it, 0 <= start <= end; a moment has start = end.
            shot: (N,) integers, which shot of the video, -1 where unknown; None: all unknown.
            length: (N,) seconds, of the whole video, at least ``end``; only fractions need it.

        Returns:
            (N, 5) int64: video, start, end, shot, length (0: unknown).

        Raises:
            ValueError: lengths that differ, a time that is negative, not finite or too large, an
                end before its start or beyond the video; with the first item that is wrong.
        """
        ids = _integers("video", video)
        count = len(ids)
        no_shot, no_length = np.full(count, NO_SHOT), np.zeros(count)
        shots = _integers("shot", no_shot if shot is None else shot)
        times = {
            "start": _seconds("start", start),
            "end": _seconds("end", end),
            "length": _seconds("length", no_length if length is None else length),
        }
        for name, values in (("shot", shots), *times.items()):
            require(len(values) == count, f"{name} has {len(values)} items, but video has {count}")
        _refuse(times["end"] < times["start"], "ends before it starts", times)
        if length is not None:
            _refuse(times["length"] < times["end"], "ends after its video does", times)
        _refuse(shots < NO_SHOT, "has a shot below -1 (unknown)", {"shot": shots})
        whole = {k: (t * MICROSECONDS).round().to(torch.int64) for k, t in times.items()}
        return torch.stack([ids, whole["start"], whole["end"], shots, whole["length"]], dim=1)

    def ranks(
        self,
        query_items: Tensor,
        key_items: Tensor,
        *,
        ignore_self: bool = False,
        ignore_overlaps: bool = False,
        key_valid: Tensor | None = None,
        validate: bool = True,
    ) -> TimePairRanks:
        """The ranks between two sides of items: what a ranked loss takes.

        Args:
            query_items: (Q, 5) int64. key_items: (K, 5) int64; see :meth:`items`.
            ignore_self: the first Q keys are the queries themselves; those pairs are ignored.
            ignore_overlaps: pairs that share a part of their time are ignored. For evaluation:
                such pairs are similar whatever was learned.
            key_valid: (K,) bool; False marks keys to ignore, such as an empty slot of a queue.
            validate: also check items on a GPU, which is waited for.

        Raises:
            ValueError: wrong shapes; fractions of a video whose length is not known.
        """
        reads_lengths = self.unit == "fraction" and may_read(query_items, validate)
        _check_items(query_items, "query_items", reads_lengths)
        _check_items(key_items, "key_items")
        check_pair_labels(query_items[:, VIDEO], key_items[:, VIDEO], ignore_self, key_valid)
        masks = ignore_self, ignore_overlaps, key_valid
        return TimePairRanks(self, query_items, key_items, *masks)

    def describe(self, items: Tensor, batch_size: int = 256) -> TimeSummary:
        """What the ranks of a data set look like before any training.

        Args:
            items: (N, 5), N at least 2; see :meth:`items`.
            batch_size: B, items in a batch drawn at random (one view each).

        Raises:
            ValueError: wrong shapes, or fewer items than a batch.
        """
        _check_items(items, "items", self.unit == "fraction")
        require(
            2 <= batch_size <= len(items),
            f"a batch of {batch_size} cannot be drawn from {len(items)} items: it takes 2 to "
            f"{len(items)}",
        )
        codes = (*range(1, self.num_ranks + 1), NEGATIVE, IGNORED)
        pairs, covered = items.new_zeros(2, len(codes))
        for tile in self._blocks(items):
            for place, code in enumerate(codes):
                of_code = (tile == code).sum(dim=1)
                pairs[place] += of_code.sum()
                covered[place] += (of_code > 0).sum()
        total, count = int(pairs.sum()), len(items)
        elsewhere = count * count - total  # pairs of two videos, which were not looked at
        pairs[-2] += elsewhere
        videos = torch.unique(items[:, VIDEO])
        if len(videos) > 1:
            covered[-2] = count
        return TimeSummary(
            rules=(*self._rules(), "all else" if self.beyond == "negative" else "another video"),
            num_items=count,
            num_videos=len(videos),
            batch_size=batch_size,
            pairs=tuple(x // 2 for x in pairs[:-1].tolist()),
            covered=tuple(covered[:-1].tolist()),
            expected=tuple(
                (batch_size - 1) * x / (count * (count - 1)) for x in pairs[:-1].tolist()
            ),
        )

    def empty_ranks(self, items: Tensor) -> list[str]:
        """Ranks from 2 on that no two items have: "rank 3 (up to 10 s apart)".

        Args:
            items: (N, 5), see :meth:`items`.
        """
        _check_items(items, "items", self.unit == "fraction")
        found = self._ranks_among(items)
        rules = enumerate(self._rules()[1:], 2)
        return [f"rank {rank} ({rule})" for rank, rule in rules if rank not in found]

    def _ranks_among(self, items: Tensor) -> set[int]:
        """The ranks from 2 on that two items have. Each is looked for where it begins and ends in
        time: the pairs of a long recording are too many."""
        videos, start, end, shots, _ = items.T
        video, clip = _numbered(videos), _numbered(videos, start, end)
        # An unknown shot is one of the clip's own.
        known = (shots != NO_SHOT) & self.shots
        shot = _numbered(videos, torch.where(known, shots, NO_SHOT - clip))
        found = {2} if bool(_several(shot, clip).any()) else set()
        gaps = self.ranks(items, items)._gaps
        limits = [x.flatten() if isinstance(x, Tensor) else torch.full_like(start, x) for x in gaps]
        if not limits:
            apart = _several(video, clip) & _several(video, shot)
            if self.beyond == "rank" and bool(apart.any()):
                found.add(self.num_ranks)
            return found
        near = video.bincount()[video] - clip.bincount()[clip]  # less those that are farther
        for began, ended in ((start, end), (-end, -start)):  # of others before, and behind
            order = _by_video(video, ended)
            in_order = shot[order]
            run = (in_order.diff(prepend=in_order[:1]) != 0).cumsum(dim=0)  # of one shot
            limits_and_all = [*limits, torch.full_like(start, _FAR)]
            edges = [_places(video, ended, began - limit) for limit in limits_and_all]
            near -= edges[0] - edges[-1]
            for rank, (after, first) in enumerate(zip(edges, edges[1:], strict=False), 3):
                some = (first < after).nonzero()[:, 0]
                first, last = first[some], after[some] - 1
                other = (in_order[first] != shot[some]) | (run[first] != run[last])
                if rank <= self.num_ranks and bool(other.any()):
                    found.add(rank)
        if bool((near > 0).any()):
            found.add(2)
        return found

    def _blocks(self, items: Tensor) -> Iterator[Tensor]:
        """Ranks of each item to the items of its video, int8, some rows at a time; to itself -1."""
        order = items[:, VIDEO].argsort()
        sizes = torch.unique(items[:, VIDEO], return_counts=True)[1].tolist()
        for own in torch.split(items[order], sizes):
            own_ranks = self.ranks(own, own, ignore_self=True)
            for start in range(0, len(own), step := max(1, _BLOCK // len(own))):
                yield own_ranks.tile(slice(start, start + step), ALL)

    def _rules(self) -> list[str]:
        """Of rank 1 to R, in words."""
        unit = "s" if self.unit == "seconds" else "of the video"
        rules = [f"up to {x:g} {unit} apart" for x in self.near]
        if self.shots:
            rules[0:1] = [" or ".join(["same shot", *rules[0:1]])]
        return ["same clip, other view", *rules, *(["same video"] if self.beyond == "rank" else [])]


@dataclass(frozen=True, eq=False, repr=False)
class TimePairRanks:
    """What :meth:`TimeRanks.ranks` gives: the ranks between two sides, computed tile by tile."""

    rule: TimeRanks
    query_items: Tensor
    key_items: Tensor
    ignore_self: bool
    ignore_overlaps: bool
    key_valid: Tensor | None

    __repr__ = pairs_as_text

    @cached_property
    def _gaps(self) -> list[int | Tensor]:
        """Microseconds; fractions of each query's video (Q, 1)."""
        # Integers, made once: float64 is not known on every device.
        device = self.query_items.device
        lengths = self.query_items[:, LENGTH].to("cpu" if device.type == "mps" else device)
        return [
            round(x * MICROSECONDS)
            if self.rule.unit == "seconds"
            else (lengths.double() * x).round().long().to(device)[:, None]
            for x in self.rule.near
        ]

    @property
    def shape(self) -> tuple[int, int]:
        return (len(self.query_items), len(self.key_items))

    @property
    def num_ranks(self) -> int:
        return self.rule.num_ranks

    def tile(self, rows: slice, cols: slice) -> Tensor:
        query, key = self.query_items[rows, :, None], self.key_items.T[None, :, cols]
        same_video = query[:, VIDEO] == key[:, VIDEO]  # (rows, cols), as all below
        apart = _apart(query, key)
        codes = {"rank": self.num_ranks, "negative": NEGATIVE, "ignore": IGNORED}
        ranks = torch.full_like(same_video, codes[self.rule.beyond], dtype=torch.int8)
        for i in reversed(range(len(self._gaps))):  # the best rank is written last
            limit = self._gaps[i]
            limit = limit[rows] if isinstance(limit, Tensor) else limit
            ranks.masked_fill_(apart <= limit, i + 2)
        if self.rule.shots:
            ranks.masked_fill_((query[:, SHOT] == key[:, SHOT]) & (query[:, SHOT] != NO_SHOT), 2)
        ranks.masked_fill_((query[:, START] == key[:, START]) & (query[:, END] == key[:, END]), 1)
        ranks = ranks.masked_fill(~same_video, NEGATIVE)
        if self.ignore_overlaps:
            ranks = ranks.masked_fill(same_video & (apart < 0), IGNORED)
        return mask_pairs(ranks, self.shape, rows, cols, self.ignore_self, self.key_valid)


class ItemTimes:
    """:class:`TimeRanks` over the (N, 5) items of a data set, of which a batch, or a queue of past
    keys, holds only the indices."""

    def __init__(self, rule: TimeRanks, items: Tensor) -> None:
        _check_items(items, "items", rule.unit == "fraction")
        self.rule, self.items = rule, items

    @property
    def num_ranks(self) -> int:
        """The highest rank there can be."""
        return self.rule.num_ranks

    def ranks(self, query_ids: Tensor, key_ids: Tensor, **masks: Any) -> TimePairRanks:
        """As :meth:`TimeRanks.ranks`, of items (Q,) and (K,) int64 in [0, N)."""
        return self.rule.ranks(self._of(query_ids), self._of(key_ids), **masks)

    def same_video(self, query_ids: Tensor, key_ids: Tensor, **masks: Any) -> IdentityRanks:
        """One rank: rank 1 for all of the same video; ``masks``: as of :class:`IdentityRanks`."""
        return IdentityRanks(self._of(query_ids)[:, VIDEO], self._of(key_ids)[:, VIDEO], **masks)

    def _of(self, ids: Tensor) -> Tensor:
        self.items = self.items.to(ids.device)  # moves once
        return self.items[ids]


@dataclass(frozen=True)
class TimeSummary:
    """The ranks of a data set's items in numbers; ``str()`` is a table to read.

    Args:
        rules: (R + 1,) what rank 1 to R, then negatives are, in words.
        num_items: N. num_videos: of which they are. batch_size: B.
        pairs: (R + 1,) unordered pairs of different items of rank 1 to R, then of negatives.
        covered: (R + 1,) items that have at least one such partner.
        expected: (R + 1,) other items of a batch that have this rank to an item, on average; an
            item's own second view, always there, comes on top of rank 1.
    """

    rules: tuple[str, ...]
    num_items: int
    num_videos: int
    batch_size: int
    pairs: tuple[int, ...]
    covered: tuple[int, ...]
    expected: tuple[float, ...]

    @property
    def num_ranks(self) -> int:
        """R, the number of ranks, without negatives."""
        return len(self.rules) - 1

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is probably a mistake, one sentence each."""
        sentences = []
        if self.pairs[-1] == 0:
            sentences.append(
                "there are no negatives, so nothing can be learned: give more than one video, or "
                "let what is far apart in time be negative (beyond='negative')"
            )
        remedy = "batches of several items per video"
        pairs, expected = self.pairs[:-1], self.expected[:-1]
        return (*sentences, *rare_ranks(pairs, expected, self.batch_size, remedy, "items"))

    def __str__(self) -> str:
        width = max(map(len, self.rules)) + 2
        lines = [
            f"items: {self.num_items}, videos: {self.num_videos}, ranks: {self.num_ranks}",
            f"{'rank':<6}{'what':<{width}}{'pairs':>12}{'items':>9}"
            f"{f'per item, batch {self.batch_size}':>24}",
        ]
        for place, rule in enumerate(self.rules):
            rank = (place + 1) % len(self.rules)
            lines.append(
                f"{rank:<6}{rule:<{width}}{self.pairs[place]:>12}{self.covered[place]:>9}"
                f"{self.expected[place]:>24.2f}"
            )
        return "\n".join(lines + [f"warning: {warning}" for warning in self.warnings])

    _repr_html_ = as_html


def seconds_apart(query_items: Tensor, key_items: Tensor) -> Tensor:
    """The gap between items (Q, 5) and (K, 5): (Q, K) float64 seconds, inf between two videos."""
    query, key = query_items[:, :, None], key_items.T[None]
    apart = _apart(query, key).clamp(min=0).double() / MICROSECONDS
    return apart.masked_fill(query[:, VIDEO] != key[:, VIDEO], float("inf"))


def _apart(query: Tensor, key: Tensor) -> Tensor:
    """Microseconds between items of one video, (Q, 5, 1) and (1, 5, K); below 0 they overlap."""
    last_start = torch.maximum(query[:, START], key[:, START])
    return last_start - torch.minimum(query[:, END], key[:, END])


def _numbered(*columns: Tensor) -> Tensor:
    """(N,) int64: the same number, from 0 on, for all rows of the same values."""
    numbers: Tensor = torch.unique(torch.stack(columns, dim=1), dim=0, return_inverse=True)[1]
    return numbers


def _several(group: Tensor, number: Tensor) -> Tensor:
    """(groups,) bool: which hold more than one number; both (N,), from 0 on."""
    several: Tensor = torch.unique(torch.stack([group, number], dim=1), dim=0)[:, 0].bincount() > 1
    return several


def _by_video(video: Tensor, times: Tensor) -> Tensor:
    """The order of items by video, and in each by these times, (N,)."""
    order = times.argsort(stable=True)
    return order[video[order].argsort(stable=True)]


def _places(video: Tensor, times: Tensor, bounds: Tensor) -> Tensor:
    """In the order of :func:`_by_video`, the first place in an item's own video whose time is not
    below the item's bound; all (N,)."""
    order = _by_video(video.repeat(2), torch.cat([bounds, times]))
    places = torch.empty_like(order)
    places[order] = (order >= len(video)).cumsum(dim=0)
    return places[: len(video)]


def _integers(name: str, values: Any) -> Tensor:
    numbers = integers(values, name).cpu()
    require(
        numbers.ndim == 1,
        f"{name} must be a vector of integers, one per item, got shape {tuple(numbers.shape)}",
    )
    return numbers


def _seconds(name: str, values: Any) -> Tensor:
    array = as_array(values, name)
    require(
        array.ndim == 1 and (array.dtype.kind in "iuf" or array.size == 0),
        f"{name} must be a vector of seconds, one per item, got shape {array.shape} and values of "
        f"the type {array.dtype}",
    )
    seconds = torch.from_numpy(array.astype(np.float64))
    outside = ~((seconds >= 0) & (seconds < MAX_SECONDS))
    _refuse(outside, f"has a {name} outside [0, 2^32)", {name: seconds})
    coarse = array.size > 0 and array.dtype.kind == "f"
    if coarse and (step := float(np.spacing(array.max()))) > 0.01:
        warn(f"{name} is {array.dtype}, which keeps such times to {step:g} s only: give float64")
    return seconds


def _refuse(wrong: Tensor, problem: str, shown: Mapping[str, Tensor]) -> None:
    if bool(wrong.any()):
        first = int(wrong.nonzero()[0])
        values = ", ".join(f"{name} {x[first]:g}" for name, x in shown.items())
        more = f" (and {int(wrong.sum()) - 1} more)" if int(wrong.sum()) > 1 else ""
        raise ValueError(f"item {first}{more} {problem}: {values}")


def _check_items(items: Tensor, name: str, needs_length: bool = False) -> None:
    require(
        isinstance(items, Tensor)
        and items.ndim == 2
        and items.shape[1] == LENGTH + 1
        and items.dtype == torch.int64,
        f"{name} must be an (items, {LENGTH + 1}) int64 tensor made by TimeRanks.items(...), got "
        + (
            f"shape {tuple(items.shape)} and {items.dtype}"
            if isinstance(items, Tensor)
            else type(items).__name__
        ),
    )
    require(
        not needs_length or bool((items[:, LENGTH] > 0).all()),
        f"near in fractions needs the length of the videos, but {name} do not have it: "
        f"TimeRanks.items(..., length=...)",
    )
