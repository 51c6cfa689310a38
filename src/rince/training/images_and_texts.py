"""Features of images beside features of texts: which text is of which image, and how near."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from operator import gt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rince.core.checks import RinceError, require
from rince.core.files import user_path
from rince.core.labels import as_array, integers
from rince.core.pair_ranks import PairRanks
from rince.core.tables import composed, repeated
from rince.data.datasets import from_vectors
from rince.data.items import Indices, positions_of
from rince.data.table import ItemTable, split_rows
from rince.data.vector_files import read_labelled, read_vectors
from rince.data.vectors import Vectors
from rince.evaluation.levels import tree_levels
from rince.ranks.level_ranks import LevelRanks
from rince.ranks.readers import some_names
from rince.ranks.score_ranks import ScoreRanks
from rince.ranks.taxonomy import Taxonomy

_OWN = 2.0  # the score of an image and its own text, above every cosine


@dataclass(frozen=True, eq=False)
class ImagesAndTexts:
    """Images and texts as vectors of two networks, in one class tree.

    Either each text is a caption of one image (:meth:`captioned` makes that), or it describes a
    class: any text of a class is then as good for any image of it.

    Args:
        images: N, of any width. texts: M, of any other; in the class tree of the images.
        caption_of: (M,) integers: the position of the image that each text is a caption of; None:
            texts describe classes.

    Raises:
        ValueError: two class trees, a position of no image, or a caption of another class than
            its image.

    Example:
        >>> from rince.data import from_vectors
        >>> images = from_vectors(torch.eye(3), [("pet", "cat"), ("pet", "dog"), ("boat", "boat")])
        >>> data = ImagesAndTexts.captioned(images, torch.eye(4, 5), of=[2, 0, 0, 1])
        >>> data.ranks().tile(slice(None), slice(None)).tolist()  # 1: own, 2: of class, 3: of pets
        [[0, 1, 1, 3], [0, 3, 3, 1], [1, 0, 0, 0]]
        >>> list(data.levels), list(data.levels["image"])
        (['image', 'fine', 'coarse'], [tensor([0, 1, 2]), tensor([2, 0, 0, 1])])
    """

    images: Vectors
    texts: Vectors
    caption_of: Tensor | None = None

    def __post_init__(self) -> None:
        trees = [side.taxonomy.paths for side in (self.images, self.texts)]
        require(
            trees[0] == trees[1],
            f"images and texts must be in one class tree, but these have "
            f"{len(trees[0])} and {len(trees[1])} classes"
            + (", others" if len(trees[0]) == len(trees[1]) else "")
            + ": give both the same taxonomy",
        )
        if self.caption_of is None:
            return
        of = _positions(self.caption_of, len(self.texts), len(self.images))
        other = (self.images.labels[of] != self.texts.labels).nonzero()[:, 0]
        if len(other):
            raise ValueError(
                f"{len(other)} captions are of another class than their image, the first is "
                f"caption {int(other[0])} (from 0)"
            )
        object.__setattr__(self, "caption_of", of)

    @classmethod
    def captioned(cls, images: Vectors, captions: Any, of: Any = None) -> ImagesAndTexts:
        """Captions of images, one or several an image.

        Args:
            images: with their class tree (:func:`~rince.data.from_vectors`; labels of one word
                alone are no level).
            captions: (M, D) numbers, a tensor or an array.
            of: M names of images, which then have names; or M integers, positions of images. None:
                caption i is of image i.

        Raises:
            ValueError: not one name for each caption, names or positions of no image, or as
                :func:`~rince.data.from_vectors`.
        """
        count = len(captions)
        if of is None:
            require(
                count == len(images),
                f"without names caption i is of image i, but there are {count} captions and "
                f"{len(images)} images: say which image each is of",
            )
            of = torch.arange(count)
        elif as_array(of, "of").dtype.kind in "OU":
            of = _found(list(map(str, as_array(of))), images.names)
        of = _positions(of, count, len(images))
        texts = from_vectors(
            captions,
            torch.zeros(count, dtype=torch.int64),
            taxonomy=Taxonomy([("caption",)]),  # integers may be names of images.taxonomy
            dropout=images.dropout,
            name="captions",
            names=[images.names[i] for i in of.tolist()] if images.names else (),
        )
        marks = images.marks and images.marks.of(of)
        texts = replace(texts, labels=images.labels[of], taxonomy=images.taxonomy, marks=marks)
        return cls(images, texts, of)

    @cached_property
    def levels(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Name -> (N,) and (M,) int64 groups of images and texts, finest first: rank 1 is a text
        of the same group at the first level, rank 2 at the second, and so on.

        "image" of captions, then those of :func:`~rince.evaluation.tree_levels` ("fine" is the
        class, "coarse" the top level), without a level at which all is one group. It is what
        :func:`rince.metrics.retrieval_by_level` takes, too, for vectors that are in one space.
        """
        tree = self.images.taxonomy
        levels = {}
        if self.caption_of is not None:
            levels["image"] = (torch.arange(len(self.images)), self.caption_of)
        for name, groups in tree_levels(tree).items():
            if bool((groups != groups[0]).any()):
                levels[name] = (groups[self.images.labels], groups[self.texts.labels])
        require(bool(levels), "all images and texts are of one class: there is nothing to compare")
        return levels

    def ranks(self, images: Tensor | None = None, texts: Tensor | None = None) -> LevelRanks:
        """How near texts are to images: the first level at which a pair is of one group.

        Args:
            images, texts: positions, (Q,) and (K,) int64; None: all.
        """
        sides = zip(zip(*self.levels.values(), strict=True), (images, texts), strict=True)
        # Chosen first: all of them side by side would be copied for each batch.
        chosen = [[x if i is None else x[i] for x in groups] for groups, i in sides]
        return LevelRanks(*(torch.stack(x, dim=1) for x in chosen), finest_first=True)

    def ranks_by_texts(
        self, thresholds: float | Sequence[float]
    ) -> Callable[[Tensor, Tensor], PairRanks]:
        """Ranks from how similar the texts are to each other, in place of the class tree.

        Rank 1 is a text of the image's own (of its finest level), rank 2 one whose cosine with the
        image's own text in the batch is at least the first threshold, rank 3 the second, and so on.

        Args:
            thresholds: falling, cosines of the vectors of the texts as they were given; or one.

        Returns:
            A function of (B,) positions of images and (B,) positions of texts, one of each image's
            own, as :func:`rince.training.train_towers` takes it.

        Raises:
            ValueError: thresholds that do not fall, or lie outside [-1, 1].
        """
        cuts = np.atleast_1d(thresholds).tolist()
        require(
            all(-1 <= t <= 1 for t in cuts) and all(map(gt, cuts, cuts[1:])),
            f"thresholds of cosines must lie in [-1, 1] and fall, got {cuts}",
        )
        source = ScoreRanks([_OWN, *cuts])

        def ranks(images: Tensor, texts: Tensor) -> PairRanks:
            own_images, own_texts = next(iter(self.levels.values()))
            # Rounded to float32 once, so that the cosine of two copies of a text is 1.
            # eps: below the length of any float32, as the default is not.
            unit = functional.normalize(self.texts.vectors[texts].double(), dim=1, eps=1e-100)
            cosine = (unit @ unit.T).float()
            own = own_images[images][:, None] == own_texts[texts]
            return source.ranks(cosine.masked_fill(own, _OWN))

        return ranks

    def subset(self, images: Indices) -> ImagesAndTexts:
        """The images at these positions with their captions; of classes all texts stay."""
        kept = positions_of(images, len(self.images))
        if self.caption_of is None:
            return replace(self, images=self.images.subset(kept))
        place = torch.full((len(self.images),), -1)
        place[kept] = torch.arange(len(kept))
        captions = (place[self.caption_of] >= 0).nonzero()[:, 0]
        of = place[self.caption_of[captions]]
        return ImagesAndTexts(self.images.subset(kept), self.texts.subset(captions), of)


def read_images_and_captions(
    images: str | Path,
    captions: str | Path,
    labels: str | Path | None = None,
    levels: Sequence[str] | None = None,
    *,
    dropout: float = 0.3,
    option: str = "levels",
) -> tuple[ImagesAndTexts, ImagesAndTexts]:
    """Training and test images of one file of vectors with their captions of another.

    The images are read as ``rince train IMAGES --labels LABELS`` does, and split as a column
    ``split`` says, or else by their names (their numbers, if they have none). Captions go with
    their images.

    Args:
        images: .npz, .npy or .parquet, see docs/embeddings.md.
        captions: another. Its names (``paths``, or the column ``path``) are those of the images,
            one for each caption; without names caption i is of image i.
        labels: table of the images' labels; None: inside the file, or beside it, or else all
            images are of one class, and "image" is the only level.
        levels: columns of the labels, from coarse to fine; None: all that may be.
        dropout: share of the numbers of a vector that are set to 0 in training, in [0, 1).
        option: what messages call ``levels``.

    Raises:
        RinceError: a file that is missing or damaged, a table that does not fit, or captions of
            no image.
    """
    images, captions = user_path(images), user_path(captions)
    labelled = read_labelled(images, labels, levels, option=option, one_class=True)
    vectors, of = read_vectors(captions)
    if of is None:
        if len(vectors) != len(labelled.vectors):
            raise RinceError(
                f"{captions} has no names, so that its {len(vectors)} captions must be in the "
                f"order of the {len(labelled.vectors)} images of {images}: store the name of its "
                f"image with each (an array or a column of names, 'paths')"
            )
        # Beside each other, so that they are split together.
        names = labelled.names or tuple(map(str, range(len(vectors))))
        both = torch.cat([labelled.vectors, vectors], dim=1)
        labelled = replace(labelled, names=names, vectors=both)
    elif not labelled.names:
        raise RinceError(f"{captions} names the images of its captions, but {images} has no names")
    else:
        try:
            _found(of, labelled.names)  # or one is of no image
        except ValueError as error:
            raise RinceError(f"{captions}: {error}") from None
    make: Callable[[ItemTable, Taxonomy | None], Vectors] = partial(labelled.items, dropout=dropout)
    sides = []
    for part in split_rows(labelled.table, make):
        if of is None:
            image, text = part.vectors.tensor_split([-vectors.shape[1]], dim=1)
            part = replace(part, vectors=image.contiguous())
            sides.append(ImagesAndTexts.captioned(part, text))
            continue
        there = set(map(composed, part.names))
        chosen = [i for i, name in enumerate(of) if composed(name) in there]
        own = [of[i] for i in chosen]
        sides.append(ImagesAndTexts.captioned(part, vectors[chosen], own))
    return sides[0], sides[1]


def _found(of: Sequence[str], names: Sequence[str]) -> Tensor:
    """The position of each name, however their accents are stored."""
    of, names = list(map(composed, of)), list(map(composed, names))
    require(len(names) > 0, "captions go by names, but the images have none: give positions")
    twice = repeated(names)
    require(
        not twice,
        f"captions go by the names of the images, but more than one is called {some_names(twice)}",
    )
    place = {name: i for i, name in enumerate(names)}
    unknown = [name for name in dict.fromkeys(of) if name not in place]
    require(
        not unknown,
        f"captions name {len(unknown)} images that are not there: {some_names(unknown)}; "
        f"images are called such as {some_names(names[:3])}",
    )
    return torch.tensor([place[name] for name in of], dtype=torch.int64)


def _positions(of: Any, count: int, num_images: int) -> Tensor:
    positions = integers(of, "positions of the captions' images").cpu()
    require(
        positions.shape == (count,),
        f"each of {count} captions needs its image, got {tuple(positions.shape)} positions",
    )
    outside = (positions < 0) | (positions >= num_images)
    if bool(outside.any()):
        raise ValueError(
            f"captions must be of images 0 to {num_images - 1}, but one is of "
            f"{int(positions[outside][0])}"
        )
    return positions
