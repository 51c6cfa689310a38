from __future__ import annotations

from collections import deque

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rince import ranked_info_nce
from rince.models.queue import KeyQueue
from rince.ranks import TableRanks


@given(
    size=st.integers(1, 9),
    batches=st.lists(st.integers(1, 12), max_size=6),
)
def test_holds_the_last_keys_like_a_deque(size: int, batches: list[int]) -> None:
    queue = KeyQueue(size, 2)
    expected: deque[int] = deque(maxlen=size)
    count = 0
    for batch in batches:
        ids = torch.arange(count, count + batch)
        queue.push(torch.stack([ids.float(), -ids.float()], dim=1), ids % 3, ids)
        expected.extend(ids.tolist())
        count += batch
    assert sorted(queue.ids[queue.valid].tolist()) == list(expected)
    kept = queue.ids[queue.valid]
    assert torch.equal(queue.labels[queue.valid], kept % 3)
    assert torch.equal(queue.embeddings[queue.valid][:, 1], -kept.float())


def test_labels_of_any_integer_type() -> None:
    queue = KeyQueue(3, 2)
    queue.push(torch.eye(2), torch.tensor([4, 5], dtype=torch.uint8), torch.tensor([8, 9]).int())
    assert (queue.labels.tolist(), queue.ids.tolist()) == ([4, 5, 0], [8, 9, 0])
    queue.push(torch.eye(2), [6, 7], range(2))
    assert queue.labels.tolist() == [7, 5, 6]


def test_the_content_is_in_the_state_dict() -> None:
    queue = KeyQueue(3, 2)
    queue.push(torch.eye(2), torch.tensor([4, 5]), torch.tensor([8, 9]))
    other = KeyQueue(3, 2)
    other.load_state_dict(queue.state_dict())
    other.push(torch.ones(2, 2), torch.tensor([6, 7]), torch.tensor([10, 11]))
    assert sorted(other.ids.tolist()) == [9, 10, 11]


def test_empty_slots_are_neither_positives_nor_negatives() -> None:
    """The prototype's trap: random vectors in empty slots acted as negatives of class -1 or 0."""
    queue = KeyQueue(64, 2)
    query = torch.tensor([[1.0, 0.0]])
    key = torch.tensor([[0.8, 0.6], [0.0, 1.0]])
    labels = torch.tensor([0, 1])
    table = torch.eye(2, dtype=torch.int8)
    alone = ranked_info_nce(query, key, TableRanks(labels[:1], labels, table), 0.1)
    with_queue = ranked_info_nce(
        query,
        torch.cat([key, queue.embeddings]),
        TableRanks(
            labels[:1],
            torch.cat([labels, queue.labels]),
            table,
            key_valid=torch.cat([torch.ones(2, dtype=torch.bool), queue.valid]),
        ),
        0.1,
    )
    torch.testing.assert_close(with_queue, alone, rtol=0, atol=0)


def test_what_does_not_fit_is_refused() -> None:
    queue = KeyQueue(4, 3)
    with pytest.raises(ValueError, match=r"takes \(B, 3\) embeddings"):
        queue.push(torch.ones(2, 5), torch.arange(2), torch.arange(2))
    with pytest.raises(ValueError, match="labels must be integers"):
        queue.push(torch.ones(2, 3), torch.zeros(2), torch.zeros(2))
    assert not queue.valid.any()
    with pytest.raises(ValueError, match="one slot"):
        KeyQueue(0, 3)
