"""Images and texts in one space: Fashion-MNIST's pixels and sentences of a language model.

Two heads are trained on 10,000 images (as 784 numbers) and four descriptions of each class
(all-MiniLM-L6-v2, 384 numbers); tested on 10,000 other images and two descriptions of each class
that were not trained on. "groups" are queries for a whole group, such as shoes, which were never
trained on either.

    pip install 'rince[train,text]'
    python examples/images_and_texts.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

import rince
from rince.core.pair_ranks import ALL
from rince.core.text_models import load_text_model
from rince.data import Vectors, from_vectors, load_splits
from rince.losses import info_nce, supcon_out
from rince.metrics import retrieval_by_level
from rince.ranks import PairRanks
from rince.training import ImageOptions, ImagesAndTexts, Towers, TrainConfig, train_towers

WORDS = {
    "T-shirt/top": ("t-shirt", "short-sleeved top"),
    "Trouser": ("pair of trousers", "pair of long pants"),
    "Pullover": ("pullover", "knitted sweater"),
    "Dress": ("dress", "one-piece garment for women"),
    "Coat": ("coat", "warm jacket"),
    "Sandal": ("sandal", "open summer shoe"),
    "Shirt": ("shirt", "blouse with a collar"),
    "Sneaker": ("sneaker", "running shoe"),
    "Bag": ("bag", "handbag"),
    "Ankle boot": ("ankle boot", "short leather boot"),
}
TRAINED = ("a photo of a {}", "a {} in an online shop")  # with both words of each class
NEW = ("a small grey picture that shows a {0}, or {1}", "I am looking for a {1} or a {0}")
GROUPS = {"something to wear on the feet": "Sandal", "clothing for the upper body": "Coat"}


def of_rank_1(ranks: PairRanks) -> Tensor:
    """(Q, K): 1 for the same class, 0 for any other."""
    return (ranks.tile(ALL, ALL) == 1).to(torch.int8)


LOSSES: dict[str, Callable[[Tensor, Tensor, PairRanks], Tensor]] = {
    "InfoNCE (CLIP)": lambda image, text, ranks: info_nce(image, text, temperature=0.1),
    "SupCon": lambda image, text, ranks: supcon_out(image, text, of_rank_1(ranks), 0.1),
    "RINCE": rince.RankedInfoNCE((0.1, 0.225)),
}


def load(per_class: int | None) -> tuple[ImagesAndTexts, ImagesAndTexts, Vectors]:
    """Training, test, and the sentences about groups."""
    options = ImageOptions(per_class=per_class, test_per_class=per_class)
    splits = load_splits("fashion-mnist", TrainConfig("fashion-mnist", images=options))
    tree = splits.train.taxonomy
    model = load_text_model(None)

    def texts(labelled: list[tuple[str, str]]) -> Vectors:
        sentences, classes = zip(*labelled, strict=True)
        vectors = model.encode(list(sentences), show_progress_bar=False)
        return from_vectors(vectors, list(classes), taxonomy=tree, names=sentences)

    trained = [
        (sentence.format(word), name)
        for name, words in WORDS.items()
        for sentence in TRAINED
        for word in words
    ]
    new = [(sentence.format(*words), name) for name, words in WORDS.items() for sentence in NEW]
    sides = []
    for items, sentences in ((splits.train, trained), (splits.test, new)):
        pixels = items.batch(torch.arange(len(items))).flatten(1) / 255
        images = from_vectors(pixels, items.labels, taxonomy=tree)
        sides.append(ImagesAndTexts(images, texts(sentences)))
    return sides[0], sides[1], texts(list(GROUPS.items()))


def measure(towers: Towers, test: ImagesAndTexts, groups: Vectors) -> dict[str, float]:
    """R@1 of images, mAP of texts, per level; and mAP of the groups' sentences."""
    found = towers.evaluate(test)
    table = {f"image->text R@1 {n}": x.recall[1] for n, x in found["image->text"].items()}
    table |= {
        f"text->image mAP {n}": x.mean_average_precision for n, x in found["text->image"].items()
    }
    images, asked = towers.image.encode(test.images.vectors), towers.text.encode(groups.vectors)
    coarse = ImagesAndTexts(test.images, groups).levels["coarse"][::-1]
    result = retrieval_by_level(asked, images, {"coarse": coarse})["coarse"]
    return table | {"groups->image mAP coarse": result.mean_average_precision}


def main(epochs: int, seeds: int, per_class: int | None) -> dict[str, dict[str, list[float]]]:
    """Method -> measure -> a value a seed."""
    train, test, groups = load(per_class)
    results: dict[str, dict[str, list[float]]] = {}
    for name, loss in LOSSES.items():
        began = time.process_time()
        for seed in range(seeds):
            towers = train_towers(train, loss, epochs=epochs, seed=seed)
            for measured, value in measure(towers, test, groups).items():
                results.setdefault(name, {}).setdefault(measured, []).append(value)
        print(f"{name}: {(time.process_time() - began) / seeds:.0f} s of CPU time a seed")
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="a small run, as the tests do")
    given = parser.parse_args()
    results = main(*((2, 1, 60) if given.smoke else (given.epochs, given.seeds, 1000)))
    for name, table in results.items():
        for measured, values in table.items():
            spread = f" +- {torch.tensor(values).std():.3f}" if len(values) > 1 else ""
            mean = sum(values) / len(values)
            print(f"{name:16}{measured:28}{mean:.3f}{spread}")
