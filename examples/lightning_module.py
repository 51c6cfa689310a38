"""RINCE in your own LightningModule: python examples/lightning_module.py [--smoke]

Over several devices keys are gathered, with gradient: ``Trainer(devices=4)`` needs no other code.
"""

from __future__ import annotations

import lightning
import torch
from digits import TEMPERATURES, TREE, Encoder, arguments, evaluate, load, report
from torch import Tensor

import rince


class Ranked(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.criterion = rince.RankedInfoNCE(TEMPERATURES, variant="out-in")

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        pixels, labels = batch
        z = self.encoder(pixels)
        ranks = TREE.ranks(labels, rince.gather(labels), ignore_self=True)
        loss = self.criterion(z, rince.gather(z), ranks)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main(epochs: int) -> tuple[dict[str, float], dict[str, float]]:
    lightning.seed_everything(0, verbose=False)
    train, test = load()
    loader = torch.utils.data.DataLoader(train, batch_size=256, shuffle=True, drop_last=True)
    module = Ranked()
    before = evaluate(module.encoder, test)
    trainer = lightning.Trainer(
        max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="auto", devices=1,
    )  # fmt: skip
    trainer.fit(module, loader)
    return before, evaluate(module.encoder.cpu(), test)


if __name__ == "__main__":
    report("Lightning", *main(arguments(__doc__).epochs))
