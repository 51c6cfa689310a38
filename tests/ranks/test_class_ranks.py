"""The table of ranks between classes as an object: where it lies, and what it shows of itself."""

from __future__ import annotations

import torch

from rince import Taxonomy
from rince.ranks import ClassRanks
from rince.ranks.summary import rare_ranks


def test_a_device_gets_one_copy_of_the_table() -> None:
    ranks = ClassRanks(("a", "b"), torch.eye(2).long(), num_ranks=1)
    assert ranks.table_on(torch.device("cpu")) is ranks.table
    copy = ranks.table_on(torch.device("meta"))
    assert (copy.device.type, copy.shape) == ("meta", (2, 2))
    assert ranks.table_on(torch.device("meta")) is copy
    before = repr(ClassRanks(("a", "b"), torch.eye(2).long(), num_ranks=1))
    assert repr(ranks) == before  # copies are nobody's business


def test_classes_given_as_a_list_are_those_of_a_tree() -> None:
    tree = Taxonomy([("a",), ("b",)])
    assert ClassRanks(["a", "b"], torch.eye(2).long(), num_ranks=1).classes == tree.classes  # type: ignore[arg-type]


def test_ranks_that_batches_hardly_hold_are_named() -> None:
    found = rare_ranks((0, 5, 0, 7), (0.0, 0.9, 0.0, 1.0), 64, "another batch", things="items")
    assert len(found) == 2  # rank 1 has terms of its own view; of rank 4 there is one key
    assert all(fact in found[0] for fact in ("64", "0.9 keys of rank 2", "another batch"))
    assert "no two items have rank 3" in found[1]
    (found,) = rare_ranks((0, 0), (0.0, 0.0), 64, "another batch")
    assert "no two classes have rank 2" in found
