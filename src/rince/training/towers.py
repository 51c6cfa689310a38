"""Two heads that put stored features of images and of texts into one space.

The layout of CLIP (Radford et al. 2021, arXiv 2103.00020), with encoders that stay as they are and
any loss of queries, keys and ranks in place of its own.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from rince.core.checks import RinceError, require
from rince.core.files import new_folder, user_path
from rince.core.notebook import is_watched, progress_bar
from rince.core.pair_ranks import PairRanks
from rince.data.kinds import kind_named
from rince.data.plan import BatchPlan, batch_seed
from rince.data.vectors import Vectors
from rince.data.views import ViewConfig
from rince.evaluation.steps import named_retrieval
from rince.losses.both_ways import PairLoss, both_ways
from rince.metrics.recall import RetrievalResult, retrieval_by_level
from rince.models.backbones import build_backbone
from rince.models.card import CARD_FILE, card_text
from rince.models.exported import ImageEncoder
from rince.models.heads import ProjectionHead
from rince.ranks.readers import some_names
from rince.training.collapse import warn_if_collapsed
from rince.training.images_and_texts import ImagesAndTexts


@dataclass(frozen=True, eq=False)
class Towers:
    """What :func:`train_towers` gives.

    Args:
        image, text: encoders of vectors, (B, width) float32 -> (B, embedding_dim) of length 1, in
            one space: ``towers.text.encode(vectors)``.
        losses: mean loss of each epoch.
    """

    image: ImageEncoder
    text: ImageEncoder
    losses: tuple[float, ...]

    def evaluate(
        self, data: ImagesAndTexts, ks: Sequence[int] = (1, 5, 10)
    ) -> dict[str, dict[str, RetrievalResult]]:
        """Retrieval both ways at each level of the data.

        Args:
            data: images and texts, as wide as those of the training.
            ks: as of :func:`rince.metrics.retrieval`.

        Returns:
            ``"image->text"`` and ``"text->image"`` -> level, as in :attr:`ImagesAndTexts.levels`
            -> result.

        Raises:
            ValueError: vectors of another width, or a level at which no query has an answer.
        """
        images = self.image.encode(data.images.vectors, batch_size=1024)
        texts = self.text.encode(data.texts.vectors, batch_size=1024)
        back = {name: (of_texts, of_images) for name, (of_images, of_texts) in data.levels.items()}
        return {
            "image->text": retrieval_by_level(images, texts, data.levels, ks=ks),
            "text->image": retrieval_by_level(texts, images, back, ks=ks),
        }

    def save(
        self,
        folder: str | Path,
        results: Mapping[str, Mapping[str, RetrievalResult]] | None = None,
        **sections: str,
    ) -> None:
        """Write exports ``FOLDER/image`` and ``FOLDER/text``, which :func:`rince.load_exported` and
        ``rince embed`` read, and model cards, ``README.md``: of both, and of each in its own.

        Args:
            folder: a new one.
            results: of :meth:`evaluate`, for the card.
            sections: more of the card, heading -> Markdown.

        Raises:
            RinceError: the folder is there already.
            ImportError: safetensors is not installed.
        """
        folder = user_path(folder)
        if folder.exists():
            raise RinceError(f"{folder} is there already: give a new folder")
        kind, towers = kind_named(self.image.noun), {"image": self.image, "text": self.text}
        classes = f"Products of both are cosines. Classes: {some_names(self.image.classes)}"
        rows = [f"| {n} | {100 * x:.1f} |" for n, x in retrieval_metrics(results or {}).items()]
        shown = "\n".join(["Per cent.", "", "| metric | |", "|:---|---:|", *rows])

        def write_card(folder: Path, about: str, *use: str) -> None:
            text = card_text(
                "Images and texts in one space",
                about,
                {
                    "Use": "\n\n".join((*use, classes)),
                    "Results": shown if rows else "Not evaluated.",
                    **sections,
                },
                head=kind.card,
                inputs="features and networks",
            )
            (folder / CARD_FILE).write_text(text, encoding="utf-8")

        with new_folder(folder) as part:
            use = []
            for name, encoder in towers.items():
                (part / name).mkdir()
                encoder.save(part / name)
                # For whoever has, or publishes, this one alone.
                about = f"The head on features of {name}s, of two that rince trained together."
                write_card(part / name, about, kind.usage(encoder, "FOLDER"))
                use.append(f"Of {name}s:\n\n{kind.usage(encoder, f'FOLDER/{name}')}")
            about = "Two heads on features of images and of texts, trained by rince."
            write_card(part, about, *use)


def retrieval_metrics(
    results: Mapping[str, Mapping[str, RetrievalResult]],
) -> dict[str, float]:
    """Of :meth:`Towers.evaluate`, flat: ``image->text/retrieval/fine/R@1``, ... -> value."""
    return {
        f"{way}/{name}": value
        for way, levels in results.items()
        for level, result in levels.items()
        for name, value in named_retrieval(level, result).items()
    }


def train_towers(
    data: ImagesAndTexts,
    loss: PairLoss,
    *,
    ranks: Callable[[Tensor, Tensor], PairRanks] | None = None,
    batches: int | BatchPlan = 256,
    epochs: int = 10,
    embedding_dim: int = 128,
    head: Literal["mlp", "linear"] = "mlp",
    lr: float = 1e-3,
    weight_decay: float = 0.01,
    seed: int = 0,
    progress: bool = False,
) -> Towers:
    """Train two heads on the CPU: an image finds its texts, and a text its images.

    A batch is B images, and for each one of its own texts, drawn anew each epoch: a caption of it,
    or a description of its class. The loss is :func:`rince.losses.both_ways`. Vectors are scaled to
    length 1, and the share ``dropout`` of their numbers is 0. AdamW, the learning rate falls to 0
    as a cosine.

    Args:
        data: of the training.
        loss: of (query, key, ranks), such as ``rince.RankedInfoNCE((0.1, 0.2, 0.3))``, a
            temperature for each of ``data.levels``. In a batch text i is image i's own, so
            ``lambda image, text, ranks: rince.losses.info_nce(image, text)`` is CLIP's loss. What
            it has to learn, such as temperatures, is learned too.
        ranks: of the B positions of images and B of texts; None: ``data.ranks``, the class tree.
        batches: images in one; or a plan of them, such as a :class:`~rince.data.BalancedPlan`, so
            that every query meets texts of its class that are not its own.
        epochs: at least 1.
        embedding_dim: of the space.
        head: "mlp" has a hidden layer, "linear" is one matrix a side.
        lr, weight_decay: of AdamW.
        seed: of weights, batches, texts and dropout.
        progress: show a bar, where somebody sees it (the extra ``train``).

    Raises:
        ValueError: an option out of its range, images without a text, fewer images than a batch, a
            plan of another number of images, or as the loss.
        FloatingPointError: a loss that is not finite.
    """
    for name, value in (("epochs", epochs), ("embedding_dim", embedding_dim)):
        require(value >= 1, f"{name} must be at least 1, got {value}")
    require(head in ("mlp", "linear"), f"head must be 'mlp' or 'linear', got {head!r}")
    require(lr > 0, f"lr must be above 0, got {lr}")
    plan = batches if isinstance(batches, BatchPlan) else BatchPlan(len(data.images), batches, seed)
    require(
        plan.num_samples == len(data.images),
        f"the plan is for {plan.num_samples} images, but there are {len(data.images)}",
    )
    texts_of = OwnTexts(data)
    ranks_of = ranks or data.ranks
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        towers = [_tower(side, embedding_dim, head) for side in (data.images, data.texts)]
    learned = [*towers, loss] if isinstance(loss, nn.Module) else towers
    optimizer = torch.optim.AdamW(
        [p for module in learned for p in module.parameters()], lr, weight_decay=weight_decay
    )
    steps = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(plan))
    losses = []
    show = progress and is_watched()
    bar = progress_bar("training", epochs * len(plan), hidden=False) if show else None
    similarity = 0.0
    for epoch in range(epochs):
        plan.set_epoch(epoch)
        total = similarity = 0.0
        for number, images in plan.take():
            generator = torch.Generator().manual_seed(batch_seed(seed, epoch, number))
            texts = texts_of.drawn(images, generator)
            embedded = [
                tower(_view(side, positions, generator))
                for tower, side, positions in zip(
                    towers, (data.images, data.texts), (images, texts), strict=True
                )
            ]
            of_batch = both_ways(loss, embedded[0], embedded[1], ranks_of(images, texts))
            optimizer.zero_grad()
            torch.autograd.backward(of_batch)
            optimizer.step()
            steps.step()
            total += float(of_batch.detach())
            means = [side.detach().mean(dim=0) for side in embedded]
            similarity += float(means[0] @ means[1]) / len(plan)  # of every pair of the batch
            if bar is not None:
                bar.update()
        if not math.isfinite(total):
            raise FloatingPointError(
                f"the loss is {total} in epoch {epoch + 1}: lower lr, now {lr}"
            )
        losses.append(total / len(plan))
    advice = f"Lower lr, now {lr}, or raise the temperatures of the loss"
    warn_if_collapsed(similarity, epochs * len(plan), "images and texts", advice)
    image, text = (
        _encoder(tower, side, embedding_dim)
        for tower, side in zip(towers, (data.images, data.texts), strict=True)
    )
    prints = image.fingerprint(), text.fingerprint()
    image, text = replace(image, partner=prints[1]), replace(text, partner=prints[0])
    return Towers(image, text, tuple(losses))


class OwnTexts:
    """The texts of each image at the finest level, a range of them in the order of their groups."""

    def __init__(self, data: ImagesAndTexts) -> None:
        level, (of_images, of_texts) = next(iter(data.levels.items()))
        groups, self.order = of_texts.sort(stable=True)
        self.start = torch.searchsorted(groups, of_images)
        self.count = torch.searchsorted(groups, of_images, right=True) - self.start
        bare = (self.count == 0).nonzero()[:, 0].tolist()
        names = [data.images.names[i] if data.images.names else str(i) for i in bare]
        require(
            not bare,
            f"{len(bare)} of {len(data.images)} images have no text of their own ({level}): "
            f"{some_names(names)}; give them one, or leave them out (subset)",
        )

    def drawn(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """(B,) one text of each image."""
        share = torch.rand(len(images), generator=generator, dtype=torch.float64)
        place = (share * self.count[images]).long()
        return self.order[self.start[images] + place]


def _tower(vectors: Vectors, embedding_dim: int, head: str) -> nn.Sequential:
    backbone = build_backbone("identity", vectors.spec)
    projection = ProjectionHead(backbone.feature_dim, embedding_dim, linear=head == "linear")
    return nn.Sequential(OrderedDict(backbone=backbone.module, head=projection))


def _view(vectors: Vectors, positions: Tensor, generator: torch.Generator) -> Tensor:
    batch = vectors.batch(positions)
    dropout = vectors.augmentation(ViewConfig())
    return batch if dropout is None else dropout.apply(batch, dropout.draw(batch, generator))


def _encoder(tower: nn.Sequential, vectors: Vectors, embedding_dim: int) -> ImageEncoder:
    return ImageEncoder(
        module=tower.eval(),
        backbone="identity",
        output_dim=embedding_dim,
        embedding_dim=embedding_dim,
        num_heads=1,
        spec=vectors.spec,
        mean=(),
        std=(),
        class_paths=vectors.taxonomy.paths,
    )
