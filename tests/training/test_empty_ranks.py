"""Ranks that no two items have."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rince.cli.main import main
from rince.core.checks import RinceWarning
from rince.core.labels import integers
from rince.data.arrays import TensorImages
from rince.data.items import Marks
from rince.evaluation.levels import empty_ranks
from rince.ranks.taxonomy import Taxonomy
from rince.training.run import _warn_of_empty_ranks

PATHS = st.lists(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(tuple),
    min_size=1,
    max_size=8,
    unique=True,
).filter(lambda paths: not any(a != b and b[: len(a)] == a for a in paths for b in paths))


@given(PATHS, st.data())
def test_empty_ranks_are_those_that_the_table_lacks(paths: list[tuple[str, ...]], data) -> None:  # type: ignore[no-untyped-def]
    tree = Taxonomy(paths)
    classes = st.integers(0, tree.num_classes - 1)
    labels = data.draw(st.lists(classes, min_size=1, max_size=6))
    there = {int(tree.table[a, b]) for a in labels for b in labels}
    wanted = [rank for rank in range(2, tree.num_ranks + 1) if rank not in there]
    assert empty_ranks(tree, integers(labels)) == wanted


def warned_of(levels: tuple[str, ...] | None, rows: list[tuple[str, ...]]) -> list[str]:
    tree = Taxonomy(sorted(set(rows)))
    labels = torch.tensor([tree.paths.index(row) for row in rows])
    pixels = torch.zeros(len(rows), 1, 8, 8, dtype=torch.uint8)
    items = TensorImages(pixels, labels, tree, "pets", marks=Marks(levels=levels))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _warn_of_empty_ranks(tree, items)
    return [str(one.message) for one in caught]


def test_fine_labels_before_coarse_ones_get_the_order_that_was_meant() -> None:
    rows = [("husky", "dog"), ("pug", "dog"), ("manx", "cat")]
    (text,) = warned_of(("breed", "species"), rows)
    assert "rank 2" in text
    assert "did you mean --table.labels species,breed (coarse first)?" in text
    assert warned_of(("species", "breed"), [row[::-1] for row in rows]) == []
    (text,) = warned_of(None, rows)
    assert "from coarse to fine?" in text


def test_levels_that_no_two_classes_share_can_be_left_out() -> None:
    rows = [("animal", "hound", "husky"), ("animal", "lap", "pug"), ("plant", "tree", "oak")]
    (text,) = warned_of(("kingdom", "use", "name"), rows)
    assert "rank 2" in text
    assert "--table.labels kingdom,name leaves such levels out" in text


TRAIN = ["train", "a.npz", "--epochs", "1", "--batch-size", "16"]


@pytest.mark.parametrize(
    ("verb", "option"),
    [
        (["evaluate", "a.npz", "--levels"], "--levels"),
        (["ranks", "a.npz", "--table.labels"], "--table.labels"),
        (["check", "a.npz", "--table.labels"], "--table.labels"),
        (
            [*TRAIN, "--table.labels"],
            "--table.labels",
        ),
        (
            [
                "train",
                "a.npz",
                "--epochs",
                "1",
                "--batch-size",
                "16",
                "--captions",
                "a.npz",
                "--table.labels",
            ],
            None,
        ),
    ],
)
def test_all_verbs_that_take_labels_warn_in_the_same_words(
    verb: list[str], option: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows, generator = np.arange(40) % 8, np.random.default_rng(0)
    embeddings = generator.normal(size=(40, 4)) + rows[:, None]
    np.savez("a.npz", embeddings=embeddings, breed=rows, species=rows // 4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RinceWarning)
        assert main([*verb, "breed,species"]) == 0
    told = [str(x.message) for x in caught if "no two" in str(x.message)]
    side = "" if verb[0] == "evaluate" else "training "
    advice = f"did you mean {option or '--table.labels'} species,breed (coarse first)?"
    assert told == [
        f"no two {side}vectors have rank 2, so nothing is learned or measured of it: {advice}"
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("always", RinceWarning)
        warnings.filterwarnings("error", "no two")
        again = ["--name", "again"] if verb[0] == "train" else []
        assert main([*verb, "[species, breed]", *again]) == 0
