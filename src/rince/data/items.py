"""What every kind of data answers for itself, and the rules that all of them share.

:class:`Items` is a labelled data set of one kind: images, clips, texts, or a user's own. Which
items are held out for the test, and how a data set is told from another, is decided here alone.
"""

from __future__ import annotations

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from rince.core.checks import BadItems, RinceError, require, warn
from rince.core.digests import content_digest, short_digest
from rince.core.files import by_suffix, passed_over, splits_below
from rince.core.input_spec import InputSpec, Preprocessing
from rince.core.labels import as_array, integers, require_classes
from rince.data.views import Augmentation, ViewConfig
from rince.ranks.taxonomy import Taxonomy

if TYPE_CHECKING:
    from typing_extensions import Self

    from rince.data.options import ImageOptions

SPLIT_SEED = 0  # one for all: runs that differ in their seed must share the test items
_OUT = "them, or leave them out (--skip-unreadable)"
_SHOWN = 300  # characters of a text: an array of strings is as wide as its longest
Indices = Tensor | Sequence[int]  # positions, or a mask
AnyItems = TypeVar("AnyItems", bound="Items")
Thumbnails = np.ndarray[tuple[int, ...], np.dtype[Any]]


def positions_of(indices: Indices, count: int) -> Tensor:
    """Positions of some of ``count`` items, as int64; of a mask those where it is true.

    Raises:
        ValueError: numbers that are not whole, a mask of another length.

    Example:
        >>> positions_of([2, 0], 3), positions_of([True, False, True], 3)
        (tensor([2, 0]), tensor([0, 2]))
    """
    mask = indices if isinstance(indices, Tensor) else as_array(indices, "positions")
    if mask.dtype not in (torch.bool, np.bool_):
        return integers(indices, "positions")
    require(
        tuple(mask.shape) == (count,),
        f"a mask must say of each of {count} items whether it is chosen, got {tuple(mask.shape)}",
    )
    return torch.as_tensor(mask).nonzero()[:, 0]


@dataclass(frozen=True, eq=False)
class Marks:
    """What a table says of its items beside their labels; None: nothing.

    Args:
        sequence: (N,) int64: items of one burst or one object's photo series, which are never
            each other's answer, and are held out together; -1: of none.
        is_query, is_gallery: (N,) bool: at evaluation.
        levels: what the levels of the class tree are called, from coarse to fine.
    """

    sequence: Tensor | None = None
    is_query: Tensor | None = None
    is_gallery: Tensor | None = None
    levels: tuple[str, ...] | None = None

    def own_sequences(self) -> Tensor | None:
        """The sequences, where an item of none is one of its own."""
        if self.sequence is None:
            return None
        single = int(self.sequence.amax()) + 1 + torch.arange(len(self.sequence))
        return torch.where(self.sequence < 0, single, self.sequence)

    def of(self, indices: Tensor) -> Marks:
        """Those of the items at these positions."""
        values: dict[str, Any] = {
            name: x[indices] for name, x in vars(self).items() if isinstance(x, Tensor)
        }
        return replace(self, **values)


def linked(first: Tensor, second: Tensor) -> Tensor:
    """(N,) int64: the same number for all items that are in one video or sequence, by either of two
    (N,) columns, or in a chain of these."""
    own, before = first, None
    while before is None or not torch.equal(own, before):
        before = own
        for column in (second, first):
            of = torch.unique(column, return_inverse=True)[1]
            own = own.new_zeros(len(own)).scatter_reduce(0, of, own, "amin", include_self=False)[of]
    return own


class Unreadable(RinceError):
    """An item that cannot be read, or not be used.

    ``problem``: what is wrong with it. ``hint``: what is to be fixed or removed; ``of_all``: also
    where there are several, and other than leaving them out.
    """

    def __init__(self, problem: str, hint: str = "", *, of_all: bool = False) -> None:
        super().__init__(f"{problem}. Fix or remove {hint}" if hint else problem)
        self.problem, self.hint, self.of_all = problem, hint, of_all


class NothingToHoldOut(RinceError):
    """Every class has one item only; ``items``: all of them."""

    def __init__(self, message: str, items: Items) -> None:
        super().__init__(message)
        self.items = items


class Items(ABC):
    """A labelled data set of one kind. A kind of your own is a class below this one.

    Attributes:
        labels: (N,) int64 in [0, classes of the taxonomy).
        taxonomy: the class tree; of one class if nothing is labelled.
        name: what to call the data set in reports.
        marks: what a table says of them at evaluation.
        preprocessing: of pictures, how a network is fed them; None: as rince's own.
        tokens_of: of texts, the backbone and the ``text.max_tokens`` that their tokens were made
            with; None: there are none, or of the user's own.
        in_memory: whether :meth:`batch` serves whole batches; otherwise loader workers decode one
            item at a time.
    """

    labels: Tensor
    taxonomy: Taxonomy
    name: str
    in_memory: bool = False
    marks: Marks | None = None
    preprocessing: Preprocessing | None = None
    tokens_of: tuple[str, int | None] | None = None

    @property
    @abstractmethod
    def spec(self) -> InputSpec:
        """What one item is to a network."""

    @abstractmethod
    def __getitem__(self, index: int) -> Tensor:
        """One item as it is kept, before any augmentation.

        Raises:
            RinceError: it cannot be read.
        """

    @abstractmethod
    def subset(self, indices: Indices) -> Self:
        """The items at these positions, in this order; or those that a mask of all chooses."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A hex digest that tells whether two data sets are the same items in the same order."""

    def _with(self, name: str, value: Any) -> Self:
        other = copy.copy(self)
        object.__setattr__(other, name, value)  # they may be frozen
        return other

    def _rows(self, indices: Indices, *names: str) -> Self:
        """A copy with the rows at these positions of the attributes of these names."""
        chosen = positions_of(indices, len(self))
        other = copy.copy(self)
        for name in names:
            value = getattr(self, name)
            if isinstance(value, Tensor):
                value = value[chosen]
            elif isinstance(value, Marks):
                value = value.of(chosen)
            elif value is not None and len(value):  # a tuple, or a user's list
                value = tuple(value[i] for i in chosen.tolist())
            object.__setattr__(other, name, value)  # they may be frozen
        return other

    def _check_labels(self, count: int) -> None:
        """Refuse labels that are not one class of the tree for each of ``count`` items; integers of
        any type become int64."""
        numbers = integers(self.labels)
        require(
            numbers.shape == (count,),
            f"labels must be one for each of the {count} items, got shape {tuple(numbers.shape)}",
        )
        classes = "the classes of the taxonomy"
        require_classes(numbers, self.taxonomy.num_classes, "labels", classes)
        object.__setattr__(self, "labels", numbers)  # they may be frozen

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        classes = self.taxonomy.num_classes
        return f"{type(self).__name__}({len(self)} items of {classes} classes, {self.name!r})"

    @property
    def noun(self) -> str:
        """What the items are called: images, clips, texts."""
        return self.spec.noun

    @property
    def size(self) -> str:
        """How large one is, for people: "32 px"; of a kind of your own its shape."""
        shape = self.spec.shape
        return f"{shape[-1]} px" if len(shape) in (3, 4) else " x ".join(map(str, shape))

    @property
    def times(self) -> Tensor | None:
        """(N, 5) int64, see :meth:`TimeRanks.items <rince.TimeRanks.items>`: from which recording
        each item is, and when; None: not known."""
        return None

    def read_from(self) -> Sequence[str]:
        """The files that are opened when an item is asked for; (): none, or none that are known."""
        return ()

    def keys(self) -> list[str] | None:
        """N names that are the same wherever the data lie, by which items are chosen; None: they
        have none, and are chosen by their positions."""
        return None

    def with_labels(self, labels: Tensor) -> Self:
        """The same with other labels, (N,) int64."""
        return self._with("labels", labels)

    def with_taxonomy(self, taxonomy: Taxonomy, name: str) -> Self:
        """The same in another class tree, which has the same labels, under another name."""
        return self._with("taxonomy", taxonomy)._with("name", name)

    def preprocessed(self, preprocessing: Preprocessing | None) -> Self:
        """The same, fed to a network as its weights were trained; what are no pictures are fed as
        ever."""
        if preprocessing == self.preprocessing:
            return self
        return self._with("preprocessing", preprocessing)

    def tokenised(self, backbone: str, max_tokens: int | None = None) -> Self:
        """Texts with the tokens of a backbone; what are no texts stay as they are."""
        return self

    def by_recording(self) -> Self:
        """The same with the numbers of their recordings, from 0 on, as labels.

        Raises:
            ValueError: their times are not known.
        """
        if self.times is None:
            raise ValueError(f"the times of these {self.noun} are not known")
        return self.with_labels(torch.unique(self.times[:, 0], return_inverse=True)[1])

    def held_out(self) -> Tensor:
        """(N,) bool: which items the split rule holds out, of each class its share.

        Items of one sequence stay together, as if they were one item of the class of the first.
        """
        sequences = None if self.marks is None else self.marks.own_sequences()
        own = range(len(self)) if sequences is None else sequences.tolist()
        together: dict[int, list[int]] = {}
        chosen: list[int] = []
        for _, members in _mixed_by_class(self, "split", SPLIT_SEED):
            firsts = []  # in the order of their hashes, so that others move none of them
            for i in members:
                if own[i] not in together:
                    firsts.append(own[i])
                together.setdefault(own[i], []).append(i)
            chosen += held_out(firsts)
        test = torch.zeros(len(self), dtype=torch.bool)
        test[[i for sequence in chosen for i in together[sequence]]] = True
        return test

    def content_hashes(self) -> Iterator[bytes]:
        """A digest of each item's content: the same for items that are the same byte for byte.

        Raises:
            RinceError: an item cannot be read; or this kind cannot tell duplicates.
        """
        raise RinceError(
            f"duplicates of {self.noun} are not known: leave out images.drop_duplicates"
        )

    def thumbnails(self, indices: Indices, size: int) -> Thumbnails:
        """What a report shows of some items: (n, H, W, C) uint8 of at most about ``size`` pixels,
        or (n,) strings."""
        keys = self.keys() or [f"{self.noun} {i}" for i in range(len(self))]
        return np.array([keys[int(i)][:_SHOWN] for i in indices], dtype=np.str_)

    def read_all(self) -> None:
        """Read what loading has not read yet, for ``rince check``.

        Raises:
            BadItems: some cannot be read.
        """
        return

    # How batches are made of the items (rince.data.batches).

    def batch(self, indices: Tensor) -> Tensor:
        """(B, ...) items as they are kept; only asked where :attr:`in_memory`."""
        return torch.stack([self[i] for i in indices.tolist()])

    def fitted(self, rows: slice) -> Tensor:
        """(B, ...) consecutive items at the size that a network is fed, not yet normalised."""
        return self.batch(torch.arange(len(self))[rows])

    def network_inputs(self, fitted: Tensor) -> Tensor:
        """What a network takes at evaluation, (B, *spec.shape), from :meth:`fitted`."""
        return fitted

    def augmentation(self, config: ViewConfig) -> Augmentation | None:
        """Makes random views of a batch of items as they are kept, on any device; None: both views
        are the items themselves (dropout makes them differ)."""
        return None

    def item_views(self, config: ViewConfig) -> Callable[[Tensor], Tensor] | None:
        """Makes a random view of one item in a loader worker, from torch's global generator; for
        items of different sizes, which make no batch. None: :meth:`augmentation` does it."""
        return None

    def view_inputs(self, views: Tensor) -> Tensor:
        """What a network takes at training, (B, *spec.shape), of views that :meth:`item_views` has
        made; on the device, where bytes arrive sooner than floats."""
        return views


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set in two parts.

    Args:
        train: items to train on; at evaluation the gallery.
        test: items held out; at evaluation the queries. Its class tree begins with the classes of
            the training, in their order; further ones were never trained.

    Raises:
        ValueError: another order of the classes, as their labels would be of other classes.
    """

    train: Items
    test: Items

    def __post_init__(self) -> None:
        trained, tested = self.train.taxonomy, self.test.taxonomy
        if tested is not trained and tested.paths[: trained.num_classes] != trained.paths:
            raise ValueError(
                f"labels 0, 1, ... are {', '.join(tested.classes[:5])} in the test and "
                f"{', '.join(trained.classes[:5])} in the training: make both with one class "
                f"tree, from_arrays(..., taxonomy=train.taxonomy) and the like"
            )

    @property
    def spec(self) -> InputSpec:
        """What one item is to a network."""
        return self.train.spec

    @property
    def never_trained(self) -> Tensor:
        """(N,) bool: test items of classes that no training item is of, in the training's tree or
        not: a class may be in it whose items all lie in sequences or videos held out."""
        return ~torch.isin(self.test.labels, self.train.labels)

    def fingerprint(self) -> str:
        """A hex digest that tells whether these are the items of another time, split alike."""
        both = f"{self.train.fingerprint()} {self.test.fingerprint()}"
        return content_digest(both.encode()).hex()


def split_folders(folder: Path) -> tuple[Path, Path] | None:
    """``train/`` and the first of the test splits that is there, in capitals or not; None: there
    are no splits."""
    sides = splits_below(folder)
    if "train" not in sides or len(sides) == 1:
        return None
    train, test, *_ = sides.values()
    names = [side.name for side in sides.values()]
    if len(sides) > 2:
        warn(f"{folder} holds {' and '.join(names[1:])}: {test.name} is used for testing")
    rest = [folder / x for x in sorted(os.listdir(folder)) if not passed_over(x)]
    others = [x for x in rest if x.name not in names]
    beside = [f"{x.name}/" for x in others if x.is_dir()][:5]
    beside += filter(None, [by_suffix(x for x in others if not x.is_dir())])
    if beside:
        warn(f"{folder} holds splits; left out beside them: {', '.join(beside)}")
    return train, test


def class_root(folder: Path) -> Path:
    """Where the class folders lie that :func:`split_folders` finds no splits in: in ``train/``, in
    capitals or not, where there is no other folder. A ``train/`` among others is a class of
    vehicles."""
    inside = [f for f in folder.iterdir() if f.is_dir() and not passed_over(f.name)]
    return inside[0] if [f.name.lower() for f in inside] == ["train"] else folder


_T = TypeVar("_T", bound=Hashable)
TEST_FRACTION = 0.2  # of each class, where the data have no test of their own


def held_out(members: Sequence[_T]) -> Sequence[_T]:
    """The split rule: of the members of a class, in the order of their hashes, which are for the
    test. At least one, and never all: a class of one member stays in training.

    One member more moves one of its neighbours over the border at most.

    Example:
        >>> held_out("abcde"), held_out("abcdefghij"), held_out("a")
        ('a', 'ab', '')
    """
    count = min(len(members) - 1, max(1, round(TEST_FRACTION * len(members))))
    return members[: max(0, count)]


def split_by_hash(
    items: AnyItems, instead: str = "train/ and val/ folders"
) -> tuple[AnyItems, AnyItems]:
    """Split every class by :meth:`Items.held_out` (training, test); ``instead``: what a user can
    give in place of this, for the message."""
    together = items.marks is not None and items.marks.sequence is not None
    or_sequences = " (of one sequence each)" * together
    test = items.held_out()
    if not bool(test.any()):
        raise NothingToHoldOut(
            f"{items.name}: no class has two members{or_sequences}, so none can be held out for "
            f"the test: give {instead}, or more data",
            items,
        )
    tested = set(items.labels[test].tolist())
    single = [items.taxonomy.classes[i] for i in sorted(set(items.labels.tolist()) - tested)]
    if single:
        warn(
            f"{len(single)} classes have one member{or_sequences} and are not tested: "
            f"{', '.join(single[:5])}"
        )
    return items.subset((~test).nonzero()[:, 0]), items.subset(test.nonzero()[:, 0])


def chosen_items(
    train: AnyItems, test: AnyItems, images: ImageOptions, seed: int
) -> tuple[AnyItems, AnyItems]:
    """Without duplicates and with so many items of each class, where the options say so."""
    if images.drop_duplicates:
        train = drop_duplicates(train, test)
    return at_most(train, images.per_class, seed), at_most(test, images.test_per_class, seed)


def at_most(items: AnyItems, per_class: int | None, seed: int) -> AnyItems:
    """At most ``per_class`` items of each class, chosen by the seed, in their old order."""
    if per_class is None:
        return items
    classes = _mixed_by_class(items, "choice", seed)
    return items.subset(sorted(i for _, members in classes for i in members[:per_class]))


def drop_duplicates(items: AnyItems, against: Items | None = None) -> AnyItems:
    """Leave out items whose content occurs earlier in ``items``, or anywhere in ``against``.

    ``drop_duplicates(train, test)`` keeps the test split as it is. Files are compared as files,
    images in memory by their pixels; the two do not match each other. Texts are duplicates
    whatever their labels.
    """
    seen = set() if against is None else set(against.content_hashes())
    kept: list[int] = []
    for index, content in enumerate(items.content_hashes()):
        if content not in seen:
            kept.append(index)
        seen.add(content)
    return items.subset(kept)


def report_unreadable(
    failures: Sequence[RinceError], total: int, what: str, skip_unreadable: bool
) -> None:
    """Refuse what cannot be read, all of it at once; or warn of what is left out, and why."""
    if not failures:
        return
    # What to do is said once, at the end.
    short = [x.problem if isinstance(x, Unreadable) else str(x) for x in failures]
    if skip_unreadable and len(short) == total:
        raise BadItems(f"none of the {total} {what} can be read; the first: {short[0]}", short)
    most = 3 if skip_unreadable else 10
    more = f" (and {len(short) - most} more)" if len(short) > most else ""
    shown = f"{'; '.join(short[:most])}{more}"
    if skip_unreadable:
        warn(f"{len(short)} of {total} {what} are left out: {shown}")
    elif len(failures) == 1:
        raise BadItems(str(failures[0]), short)
    else:
        hints = (x.hint for x in failures if isinstance(x, Unreadable) and x.of_all)
        problem = f"{len(short)} of {total} {what} cannot be read: {shown}"
        raise BadItems(str(Unreadable(problem, next(hints, _OUT))), short)


def _mixed_by_class(items: Items, use: str, seed: int) -> list[tuple[int, list[int]]]:
    """Each label that occurs, with the positions of its items in the order of the hashes of their
    keys, so that those that come or go move no other; without keys in random order."""
    keys, labels = items.keys(), items.labels.tolist()
    if keys is None:
        generator = torch.Generator().manual_seed(seed)
        places = torch.randperm(len(labels), generator=generator).tolist()
    else:
        pairs = enumerate(zip(keys, labels, strict=True))
        places = [i for _, i in sorted((short_digest(use, seed, key), i) for i, (key, _) in pairs)]
    members: dict[int, list[int]] = {}
    for i in places:
        members.setdefault(labels[i], []).append(i)
    return sorted(members.items())
