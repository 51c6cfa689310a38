"""How well do scores from class names know the superclasses of CIFAR-100?

    python experiments/class-names/compare.py

Prints, for WordNet and for the default text model, the share of (pair of one superclass, pair of
two) in which the first has the higher score; ties count half. Deterministic, seconds on a CPU.
Needs `pip install '.[text]'` and WordNet (Debian: wordnet-base). Two of the names are not in
WordNet; their pairs are left out there.
"""

from __future__ import annotations

import torch

from rince import Similarity, Taxonomy
from rince.ranks import name_scores_by_text, name_scores_by_wordnet
from rince.ranks.class_names import readable_names
from rince.ranks.wordnet import WordNetNouns


def first_senses(classes: tuple[str, ...]) -> Similarity:
    """WordNet with the most frequent sense of each name alone."""
    wordnet = WordNetNouns()
    senses = [wordnet.senses(words)[:1] for words in readable_names(classes)]
    known = torch.tensor([i for i, of_name in enumerate(senses) if of_name])
    scores = torch.full((len(classes), len(classes)), float("nan"), dtype=torch.float64)
    edges = wordnet.distances([sense for of_name in senses for sense in of_name])
    scores[known[:, None], known] = 1 / (1 + edges.double())
    return Similarity(classes, scores)


def agreement(similarity: Similarity, tree: Taxonomy) -> float:
    scores, scored = similarity.scores, ~similarity.scores.isnan()
    siblings = scores[(tree.table == 2) & scored][:, None]
    negatives = scores[(tree.table == 0) & scored]
    higher, tied = siblings > negatives, siblings == negatives
    return float((higher.double() + tied.double() / 2).mean())


if __name__ == "__main__":
    cifar = Taxonomy.cifar100()
    for name, similarity in (
        ("WordNet, nearest senses", name_scores_by_wordnet(cifar.classes)),
        ("WordNet, first senses", first_senses(cifar.classes)),
        ("all-MiniLM-L6-v2", name_scores_by_text(cifar.classes)),
    ):
        print(f"{name:25} {100 * agreement(similarity, cifar):.1f} %")
