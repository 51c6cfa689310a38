"""Class-balanced batches (PK sampling): M superclasses x P classes x K images."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from rince.core.checks import require
from rince.core.labels import integers, require_no_unknown
from rince.data.plan import BatchPlan, mixed_seed, repeats

# Items x bins up to which bins are filled one by one, a second of work. It stays as it is: a run
# that goes on must find its batches again.
_ONE_BY_ONE = 20_000_000


class BalancedPlan(BatchPlan):
    """Which images are in which batch: a chosen number of positives per rank for every query.

    A batch is made of packs, each of ``images_per_class`` different images of one class; packs of
    ``classes_per_superclass`` different classes of one superclass make a slot, and slots of as
    many different superclasses as there are make a batch. In it every query meets n - 1 other
    images of its class and (m - 1) n of its superclass, or more, where a batch has more slots
    than there are superclasses.

    It is a function of (seed, epoch) like :class:`~rince.data.plan.BatchPlan`, with as many
    batches, and processes share out the slots of one plan: P of them with batches of B see the
    batches of one with P * B.

    How often an image is seen. Superclasses get slots in proportion to their images, rounded up
    or down by chance, so that over the epochs nothing is lost. In a superclass the classes get
    packs in proportion to their images too, as far as m *different* classes a slot allow it: with
    m classes in all, each has as many packs as the other. In a class every image comes once before
    any comes again. A class of fewer than n images repeats them in its pack. Superclasses
    of fewer than m classes are treated as one: their slots hold m classes of different ones, if
    together they have m, and the same classes several times if not.

    Args:
        labels: (N,) integers in [0, C), the class of each image: a tensor, an array, a list.
        superclasses: (C,) integers, the superclass of each class (of a class tree
            ``tree.labels_at(2)``); None takes every class for its own.
        batch_size: B, images in a batch of one process; a multiple of m n.
        images_per_class: n, at least 1.
        classes_per_superclass: m, at least 1.
        seed, process_index, world_size: as in :class:`~rince.data.plan.BatchPlan`.

    Raises:
        ValueError: a number out of its range, a batch size that packs do not fill, fewer images
            than a batch needs, or a label without a superclass.

    Example:
        >>> labels = torch.arange(80) % 8  # 8 classes in 4 superclasses
        >>> plan = BalancedPlan(labels, torch.arange(8) // 2, 12, 3, 2, seed=0)
        >>> [sorted(labels[batch].bincount(minlength=8).tolist()) for batch in list(plan)[:2]]
        [[0, 0, 0, 0, 3, 3, 3, 3], [0, 0, 0, 0, 3, 3, 3, 3]]
    """

    def __init__(
        self,
        labels: Any,
        superclasses: Any,
        batch_size: int,
        images_per_class: int,
        classes_per_superclass: int = 1,
        *,
        seed: int,
        process_index: int = 0,
        world_size: int = 1,
    ) -> None:
        labels = integers(labels).cpu()
        require_no_unknown(labels)
        super().__init__(len(labels), batch_size, seed, process_index, world_size)
        for name, value in (
            ("images_per_class", images_per_class),
            ("classes_per_superclass", classes_per_superclass),
        ):
            require(value >= 1, f"{name} must be at least 1, got {value}")
        slot = images_per_class * classes_per_superclass
        require(
            batch_size % slot == 0,
            f"batch_size must be a multiple of {slot}, the images of a superclass "
            f"({classes_per_superclass} classes x {images_per_class} images), got {batch_size}: "
            f"take {max(1, batch_size // slot) * slot}",
        )
        self.images_per_class = images_per_class
        self.classes_per_superclass = classes_per_superclass
        groups = torch.unique(labels)
        self._images = positions_by_value(labels)  # of each class that has any
        if superclasses is not None:
            table = integers(superclasses, "superclasses").cpu()
            require(
                int(groups[-1]) < len(table),
                f"superclasses must hold one for each class, but there are {len(table)}, and "
                f"labels up to {int(groups[-1])}",
            )
            groups = table[groups]
        members = [positions.tolist() for positions in positions_by_value(groups)]
        whole = [m for m in members if len(m) >= classes_per_superclass]
        small = [c for m in members if len(m) < classes_per_superclass for c in m]
        self._groups: list[list[int]] = [*whole, small] if small else whole
        self._drawn: dict[int, tuple[Tensor, Tensor]] = {}  # epoch -> order, earlier draws

    def order(self, epoch: int) -> Tensor:
        """(len(self) * B,) int64: the images of this process in an epoch, batch after batch."""
        return self._draws(epoch)[0].clone()

    def earlier_draws(self, epoch: int) -> Tensor:
        """(len(self) * B,) int64: how often each image of :meth:`order` came before in the epoch,
        in any process."""
        return self._draws(epoch)[1].clone()

    def _draws(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Of the last epoch they are kept: of a million images they take a minute."""
        if epoch not in self._drawn:
            self._drawn = {epoch: self._drawn_anew(epoch)}
        return self._drawn[epoch]

    def _drawn_anew(self, epoch: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(mixed_seed("balanced", self.seed, epoch))
        m, n = self.classes_per_superclass, self.images_per_class
        slots_per_batch = self.world_size * self.batch_size // (m * n)
        sizes = [float(sum(len(self._images[c]) for c in group)) for group in self._groups]
        counts = proportional(sizes, len(self) * slots_per_batch, None, generator)
        slots = spread(counts, len(self), slots_per_batch, generator)  # groups of each batch
        classes = [
            self._classes_of_slots(group, count, generator)
            for group, count in zip(self._groups, counts, strict=True)
        ]
        packs = self._packs(classes, generator)
        # All processes walk through all slots, and keep their own.
        chosen = [classes[g].pop() for groups in slots for g in groups]
        images = torch.cat([packs[c].pop() for slot in chosen for c in slot])
        both = torch.stack([images, repeats(images)]).view(2, len(self), slots_per_batch, m * n)
        own = both[:, :, self.process_index :: self.world_size].flatten(2)
        # Mixed, or a micro-batch would hold few classes, and batch norm would tell them apart.
        mixed = [x[:, torch.randperm(x.shape[1], generator=generator)] for x in own.unbind(1)]
        order, earlier = torch.cat(mixed, 1)
        return order, earlier

    def _classes_of_slots(
        self, group: list[int], count: int, generator: torch.Generator
    ) -> list[list[int]]:
        """The m classes of each of the ``count`` slots of a group."""
        m = self.classes_per_superclass
        sizes = [float(len(self._images[c])) for c in group]
        # A class is at most once in a slot, if there are enough of them.
        most = count if len(group) >= m else None
        packs = proportional(sizes, m * count, most, generator)
        return [[group[i] for i in slot] for slot in spread(packs, count, m, generator)]

    def _packs(
        self, classes: list[list[list[int]]], generator: torch.Generator
    ) -> list[list[Tensor]]:
        """The packs of each class, (n,) images each, as many as the slots ask for."""
        wanted = Counter(c for slots in classes for slot in slots for c in slot)
        return [
            list(draws_in_packs(images, wanted[c], self.images_per_class, generator))
            for c, images in enumerate(self._images)
        ]


def proportional(
    sizes: list[float], total: int, most: int | None, generator: torch.Generator
) -> list[int]:
    """Whole numbers that add up to ``total``, in proportion to sizes, rounded by chance.

    Each is its exact share rounded up or down, and on average that share (systematic sampling).
    None is above ``most``; what is cut off goes to the others, by their sizes.
    """
    counts = [0] * len(sizes)
    left, open_ = total, list(range(len(sizes)))
    if most is not None:
        while True:  # each round fixes at least one, or ends
            whole = sum(sizes[i] for i in open_)
            capped = [i for i in open_ if left * sizes[i] >= most * whole]
            if not capped:
                break
            for i in capped:
                counts[i] = most
            left -= most * len(capped)
            open_ = [i for i in open_ if counts[i] == 0]
            if not open_ or left == 0:
                return counts
    # In a random order, or neighbours would always be rounded in opposite directions.
    order = [open_[i] for i in torch.randperm(len(open_), generator=generator).tolist()]
    shares = torch.tensor([sizes[i] for i in order], dtype=torch.float64)
    offset = torch.rand((), generator=generator, dtype=torch.float64)
    edges = (left * shares.cumsum(0) / shares.sum() + offset).floor().long()
    edges[-1] = left  # the last share ends at left + offset, but for rounding
    numbers = torch.diff(edges, prepend=torch.zeros(1, dtype=torch.int64))
    for i, number in zip(order, numbers.tolist(), strict=True):
        counts[i] = number
    return counts


def spread(counts: list[int], bins: int, size: int, generator: torch.Generator) -> list[list[int]]:
    """``bins`` lists of ``size`` items, item i ``counts[i]`` times, evenly over the bins.

    An item is in a bin ``counts[i] // bins`` times, or once more: never twice, if it is there no
    more often than there are bins. The counts add up to ``bins * size``.
    """
    if len(counts) * bins > _ONE_BY_ONE:
        return dealt(counts, bins, size, generator)
    always = [i for i, count in enumerate(counts) for _ in range(count // bins)] if bins else []
    left = torch.tensor([count % bins for count in counts] if bins else [])
    filled = []
    for remaining in range(bins, 0, -1):
        # Without replacement, by how often each is left: the smallest of exponential draws.
        draw = torch.rand(len(left), generator=generator, dtype=torch.float64)
        place = -torch.log1p(-draw) / left  # inf (or NaN, for a draw of 0) where none is left
        place[left == 0] = torch.inf
        place[left == remaining] = -1.0  # now and always, or there are not enough bins for it
        chosen = place.argsort()[: size - len(always)]
        left[chosen] -= 1
        filled.append([*always, *chosen.tolist()])
    # Above, what is there often comes late rather than early.
    return [filled[i] for i in torch.randperm(bins, generator=generator).tolist()]


def dealt(counts: list[int], bins: int, size: int, generator: torch.Generator) -> list[list[int]]:
    """:func:`spread` in time linear in what is dealt: a round gives each bin one, at random."""
    order = torch.randperm(len(counts), generator=generator)
    copies = torch.tensor(counts)[order]
    rounds = torch.repeat_interleave(order, copies).view(size, bins)
    filled = torch.empty_like(rounds)
    taken = torch.empty(0, dtype=torch.int64)  # bins that got the item which goes on
    for number, items in enumerate(rounds):
        places = torch.randperm(bins, generator=generator)
        before = taken if number and items[0] == rounds[number - 1, -1] else taken[:0]
        places = torch.cat([places[~torch.isin(places, before)], before])
        filled[number, places] = items
        same = items == items[-1]
        taken = before if bool(same.all()) else places[same]
    return filled.T.tolist()


def positions_by_value(values: Tensor) -> list[Tensor]:
    """Where each value that occurs stands, in rising order of the values.

    Example:
        >>> positions_by_value(torch.tensor([7, 3, 7]))
        [tensor([1]), tensor([0, 2])]
    """
    counts = torch.unique(values, return_counts=True)[1]
    return list(torch.split(values.argsort(stable=True), counts.tolist()))


def draws_in_packs(
    images: Tensor, packs: int, size: int, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """``packs`` packs of ``size`` of the images, each image once before any comes again.

    No pack holds an image twice, unless there are fewer than ``size``.
    """
    drawn = images[:0]
    while len(drawn) < packs * size:
        again = images[torch.randperm(len(images), generator=generator)]
        begun = drawn[len(drawn) - len(drawn) % size :]  # of the pack that goes on
        repeated = torch.isin(again, begun)
        drawn = torch.cat([drawn, again[~repeated], again[repeated]])
    return torch.split(drawn[: packs * size], size) if packs else ()
