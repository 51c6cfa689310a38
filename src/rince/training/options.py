"""The optimizer, and a search of configurations. No torch here: ``rince --help`` reads this."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from rince.core.checks import require
from rince.core.options import Options, limited
from rince.training.objectives import ObjectiveName

DEFAULT_LR = {"sgd": 0.5, "adamw": 1e-3}
_PAPERS_BATCH = 512


@dataclass
class OptimOptions(Options):
    """The optimizer: SGD with warm-up and cosine, as in the paper, or AdamW.

    Args:
        optimizer: "sgd" (momentum 0.9) or "adamw"; "auto" is sgd, and adamw for texts.
        lr: peak learning rate; None takes for sgd the paper's 0.5 for batches of 512, in
            proportion to the batch, and 0.001 for adamw. Lower it if the loss is not finite.
        weight_decay: that of the optimizer.
        warmup_epochs: epochs over which the learning rate rises linearly (the paper: 10 of 1000);
            None takes 1, or a tenth of a run of fewer than 10 epochs.
        final_lr_ratio: the cosine ends at lr times this.
        layer_decay: the learning rate of the backbone's last block is lr times this, of the one
            before times its square, and so on to the first; None: lr for all.
        clip: largest norm of the gradient; None does not clip.
    """

    prefix = "optim."

    optimizer: Literal["auto", "sgd", "adamw"] = "auto"
    lr: float | None = limited(None, above=0)
    weight_decay: float = limited(1e-4, low=0)
    warmup_epochs: float | None = limited(None, low=0)
    final_lr_ratio: float = limited(1e-3, low=0, high=1)
    layer_decay: float | None = limited(None, above=0, high=1)
    clip: float | None = limited(None, above=0)

    def warmup(self, epochs: int) -> float:
        """Epochs of warm-up: those given, or else 1, or a tenth of a short run."""
        return min(1.0, epochs / 10) if self.warmup_epochs is None else self.warmup_epochs

    def for_batches(self, size: int) -> OptimOptions:
        """The same, with a learning rate for batches of this size, all processes together, where
        it was left open."""
        if self.lr is not None:
            return self
        share = size / _PAPERS_BATCH if self.optimizer == "sgd" else 1.0
        return replace(self, lr=DEFAULT_LR[self.optimizer] * share)

    def check_warmup(self, epochs: int) -> None:
        """Refuse a warm-up that fills the run.

        Raises:
            ValueError: the message names the option.
        """
        require(
            self.warmup(epochs) < epochs,
            f"optim.warmup_epochs must be below epochs ({epochs}), got {self.warmup_epochs}",
        )


Searched = Literal["lr", "temperatures", "variant", "batches"]


@dataclass
class TuneOptions(Options):
    """How much to search, and what to take of what was found.

    Args:
        trials: configurations of each objective. The first is what `rince train` would do; the
            better quarter of them is trained for all epochs, the others for a quarter only.
        baselines: objectives that get as many trials, to compare with; [] for none.
        search: what differs between trials: optim.lr, the temperatures, loss.variant and batches.*
            (classes x images of a batch). What you set yourself stays as you set it.
        fine_weight: weight of the fine mAP against the coarse in the choice: 1 is fine alone, 0 is
            coarse alone. Trials do not depend on it: with another weight nothing is trained anew.
    """

    prefix = "tune."

    trials: int = limited(12, low=1)
    baselines: tuple[ObjectiveName, ...] = ("supcon-out", "cross-entropy")
    search: tuple[Searched, ...] = limited(get_args(Searched), shortest=1)
    fine_weight: float = limited(0.5, low=0, high=1)
