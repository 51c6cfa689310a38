"""RINCE in the Trainer of Hugging Face transformers: python examples/hf_trainer.py [--smoke]

The Trainer wants a model that takes named inputs and returns its loss. (For texts and
sentence-transformers there is rince.adapters.sentence_transformers.)
"""

from __future__ import annotations

import tempfile

import torch
from digits import TEMPERATURES, TREE, Encoder, arguments, evaluate, load, report
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments, set_seed

import rince


class Ranked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.criterion = rince.RankedInfoNCE(TEMPERATURES, variant="out-in")

    def forward(self, pixels: Tensor, labels: Tensor) -> dict[str, Tensor]:
        z = self.encoder(pixels)
        ranks = TREE.ranks(labels, rince.gather(labels), ignore_self=True)
        return {"loss": self.criterion(z, rince.gather(z), ranks), "embedding": z}


def collate(rows: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    pixels, labels = zip(*rows, strict=True)
    return {"pixels": torch.stack(pixels), "labels": torch.stack(labels)}


def main(epochs: int) -> tuple[dict[str, float], dict[str, float]]:
    set_seed(0)
    train, test = load()
    model = Ranked()
    before = evaluate(model.encoder, test)
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder, num_train_epochs=epochs, per_device_train_batch_size=256,
            learning_rate=3e-3, dataloader_drop_last=True, remove_unused_columns=False,
            save_strategy="no", report_to="none", disable_tqdm=True, logging_strategy="no",
            dataloader_pin_memory=torch.cuda.is_available(),
        )  # fmt: skip
        Trainer(model, settings, train_dataset=train, data_collator=collate).train()
    return before, evaluate(model.encoder.cpu(), test)


if __name__ == "__main__":
    report("HF Trainer", *main(arguments(__doc__).epochs))
