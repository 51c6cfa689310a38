"""The table of ranks between classes as an object: where it lies, and what it shows of itself."""

from __future__ import annotations

import torch

from rince.ranks import ClassRanks


def test_a_device_gets_one_copy_of_the_table() -> None:
    ranks = ClassRanks(("a", "b"), torch.eye(2).long(), num_ranks=1)
    assert ranks.table_on(torch.device("cpu")) is ranks.table
    copy = ranks.table_on(torch.device("meta"))
    assert (copy.device.type, copy.shape) == ("meta", (2, 2))
    assert ranks.table_on(torch.device("meta")) is copy
    before = repr(ClassRanks(("a", "b"), torch.eye(2).long(), num_ranks=1))
    assert repr(ranks) == before  # copies are nobody's business
