"""RINCE as a thin module: it holds the options, nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from rince.core.pair_ranks import PairRanks
from rince.losses.masked import Reduction
from rince.losses.ranked_info_nce import Engine, ranked_info_nce
from rince.losses.temperatures import check_temperatures
from rince.losses.terms import Positives, Variant


class RankedInfoNCE(nn.Module):
    """:func:`rince.ranked_info_nce` with its options held; see there for their meaning.

    Example:
        >>> import torch, rince
        >>> criterion = rince.RankedInfoNCE(temperatures=(0.1, 0.225), variant="out-in")
        >>> z = torch.nn.functional.normalize(torch.randn(8, 4), dim=1)
        >>> ranks = rince.Taxonomy.from_dict({"dog": ["husky", "malamute"], "cat": ["manx"]}).ranks(
        ...     torch.arange(8) % 3, torch.arange(8) % 3, ignore_self=True)
        >>> criterion(z, z, ranks).shape
        torch.Size([])
    """

    def __init__(
        self,
        temperatures: float | Sequence[float] | Tensor = (0.1, 0.225),
        *,
        variant: Variant = "out-in",
        positives: Positives = "exclusive",
        reduction: Reduction = "mean",
        engine: Engine = "auto",
        block_size: int | None = None,
        validate: bool = True,
    ) -> None:
        super().__init__()
        check_temperatures(temperatures, validate)
        self.temperatures = temperatures
        self.variant: Variant = variant
        self.positives: Positives = positives
        self.reduction: Reduction = reduction
        self.engine: Engine = engine
        self.block_size = block_size
        self.validate = validate

    def forward(self, query: Tensor, key: Tensor, ranks: PairRanks | Tensor) -> Tensor:
        return ranked_info_nce(
            query,
            key,
            ranks,
            self.temperatures,
            variant=self.variant,
            positives=self.positives,
            reduction=self.reduction,
            engine=self.engine,
            block_size=self.block_size,
            validate=self.validate,
        )

    def extra_repr(self) -> str:
        return (
            f"temperatures={self.temperatures}, variant={self.variant!r}, "
            f"positives={self.positives!r}, reduction={self.reduction!r}, engine={self.engine!r}"
        )
