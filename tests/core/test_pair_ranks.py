from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rince.core.pair_ranks import ALL, as_pair_ranks, is_batched, require_queries_first
from rince.ranks import DenseRanks, IdentityRanks, PairRanks, TableRanks

TABLE = torch.tensor([[1, 2, 0, -1], [3, 1, 2, 0], [0, 0, 1, 3], [2, 2, 0, 1]], dtype=torch.int8)


def slices(size: int) -> st.SearchStrategy[slice]:
    """Any slice that a tensor takes: torch knows no negative steps."""
    return st.slices(size).filter(lambda s: s.step is None or s.step > 0)


@st.composite
def sides(draw: st.DrawFn) -> tuple[list[int], list[int], bool, list[bool] | None]:
    """Labels of queries and keys, whether the first keys are the queries, which keys are valid."""
    query = draw(st.lists(st.integers(0, 3), min_size=1, max_size=6))
    ignore_self = draw(st.booleans())
    fewest = len(query) if ignore_self else 1
    key = draw(st.lists(st.integers(0, 3), min_size=fewest, max_size=fewest + 5))
    valid = draw(st.none() | st.lists(st.booleans(), min_size=len(key), max_size=len(key)))
    return query, key, ignore_self, valid


def tile_by_loops(
    rank_of: Any, query: list[int], key: list[int], ignore_self: bool, valid: list[bool] | None
) -> Tensor:
    rows = []
    for i, a in enumerate(query):
        row = []
        for j, b in enumerate(key):
            if (valid is not None and not valid[j]) or (ignore_self and i == j):
                row.append(-1)
            else:
                row.append(rank_of(a, b))
        rows.append(row)
    return torch.tensor(rows, dtype=torch.int8)


@given(st.data(), sides())
def test_a_tile_of_table_ranks_is_that_part_of_the_matrix(
    data: st.DataObject, drawn: tuple[list[int], list[int], bool, list[bool] | None]
) -> None:
    query, key, ignore_self, valid = drawn
    source = TableRanks(
        torch.tensor(query),
        torch.tensor(key),
        TABLE,
        ignore_self=ignore_self,
        key_valid=None if valid is None else torch.tensor(valid),
    )
    expected = tile_by_loops(lambda a, b: TABLE[a, b], query, key, ignore_self, valid)
    check_tiles(data, source, expected)
    assert source.num_ranks == 3


@given(st.data(), sides())
def test_a_tile_of_identity_ranks_is_that_part_of_the_matrix(
    data: st.DataObject, drawn: tuple[list[int], list[int], bool, list[bool] | None]
) -> None:
    query, key, ignore_self, valid = drawn
    source = IdentityRanks(
        torch.tensor(query) - 2,  # ids may be any integers
        torch.tensor(key) - 2,
        ignore_self=ignore_self,
        key_valid=None if valid is None else torch.tensor(valid),
    )
    expected = tile_by_loops(lambda a, b: int(a == b), query, key, ignore_self, valid)
    check_tiles(data, source, expected)
    assert source.num_ranks == 1


@given(st.data(), st.sampled_from([torch.int8, torch.int16, torch.int32, torch.int64]))
def test_a_tile_of_dense_ranks_is_that_part_of_the_matrix(
    data: st.DataObject, dtype: torch.dtype
) -> None:
    shape = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    codes = st.lists(st.integers(-1, 127), min_size=shape[1], max_size=shape[1])
    rows = data.draw(st.lists(codes, min_size=shape[0], max_size=shape[0]))
    source = DenseRanks(torch.tensor(rows, dtype=dtype))
    check_tiles(data, source, torch.tensor(rows, dtype=torch.int8))
    assert source.num_ranks is None
    assert DenseRanks(torch.tensor(rows, dtype=dtype), num_ranks=127).num_ranks == 127


def check_tiles(data: st.DataObject, source: PairRanks, expected: Tensor) -> None:
    assert isinstance(source, PairRanks)
    assert source.shape == tuple(expected.shape)
    assert torch.equal(source.tile(ALL, ALL), expected)
    rows = data.draw(slices(expected.shape[0]))
    cols = data.draw(slices(expected.shape[1]))
    tile = source.tile(rows, cols)
    assert tile.dtype == torch.int8
    assert torch.equal(tile, expected[rows, cols])


def test_ignore_self_with_a_queue_behind_the_batch() -> None:
    """Keys are the batch and then the queue: only the batch's diagonal is a sample and itself."""
    batch, queue = torch.tensor([0, 1]), torch.tensor([1, 0, 1])
    ranks = TableRanks(batch, torch.cat([batch, queue]), TABLE, ignore_self=True).tile(ALL, ALL)
    assert ranks.tolist() == [[-1, 2, 2, 1, 2], [3, -1, 1, 3, 1]]


def test_every_tile_ignores_the_true_diagonal() -> None:
    labels = torch.tensor([0, 1, 0, 2])
    source = TableRanks(labels, labels, TABLE, ignore_self=True)
    whole = source.tile(ALL, ALL)
    assert (whole.diagonal() == -1).all()
    for row in range(4):
        for start in range(4):
            cols = slice(start, 4)
            assert torch.equal(source.tile(slice(row, row + 1), cols), whole[row : row + 1, cols])


def test_the_table_is_read_as_query_class_then_key_class() -> None:
    ranks = TableRanks(torch.tensor([0]), torch.tensor([1]), TABLE)
    assert ranks.tile(ALL, ALL).tolist() == [[int(TABLE[0, 1])]]
    assert TABLE[0, 1] != TABLE[1, 0]


# ---- traps of the prototype ----------------------------------------------------------------


def test_trap_number_of_ranks_must_not_depend_on_what_is_in_the_batch() -> None:
    alone = TableRanks(torch.tensor([2]), torch.tensor([2]), TABLE)
    assert alone.tile(ALL, ALL).tolist() == [[1]]
    assert alone.num_ranks == 3
    assert TableRanks(torch.tensor([2]), torch.tensor([2]), TABLE, num_ranks=5).num_ranks == 5


@pytest.mark.parametrize("label_of_empty_slot", [-1, 0, 1, 99])
def test_trap_empty_queue_slots_are_ignored_whatever_their_label(label_of_empty_slot: int) -> None:
    query = torch.tensor([0, 1])
    key = torch.tensor([0, label_of_empty_slot])
    valid = torch.tensor([True, False])
    assert TableRanks(query, key, TABLE, key_valid=valid).tile(ALL, ALL).tolist() == [
        [1, -1],
        [3, -1],
    ]
    assert IdentityRanks(query, key, key_valid=valid).tile(ALL, ALL).tolist() == [[1, -1], [0, -1]]


def test_trap_a_users_label_minus_one_is_refused_and_matches_no_empty_slot() -> None:
    unknown, known = torch.tensor([0, -1]), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"query_labels.*\[0, 4\).* -1"):
        TableRanks(unknown, known, TABLE)
    with pytest.raises(ValueError, match=r"key_labels.*\[0, 4\).* -1"):
        TableRanks(known, unknown, TABLE)
    with pytest.raises(ValueError, match=r"query_labels.*\[0, 4\).* -1"):
        TableRanks(unknown, unknown, TABLE, key_valid=torch.tensor([True, False]))
    # Ids have no such limits, and -1 is an id like any other; the empty slot matches it no more.
    ids = IdentityRanks(unknown, torch.tensor([-1, -1]), key_valid=torch.tensor([True, False]))
    assert ids.tile(ALL, ALL).tolist() == [[0, -1], [1, -1]]


# ---- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize("side", ["query", "key"])
@pytest.mark.parametrize("label", [4, 100, -2])
def test_a_label_outside_the_table_is_refused(side: str, label: int) -> None:
    labels = {"query": torch.tensor([0, 1]), "key": torch.tensor([0, 1])}
    labels[side] = torch.tensor([0, label])
    with pytest.raises(ValueError, match=rf"{side}_labels.*\[0, 4\).* {label}$"):
        TableRanks(labels["query"], labels["key"], TABLE)


@pytest.mark.parametrize("make", [lambda q, k, **o: TableRanks(q, k, TABLE, **o), IdentityRanks])
def test_wrong_sides_are_refused(make: Any) -> None:
    labels = torch.tensor([0, 1, 2])
    for wrong in (labels.float(), labels.bool(), labels[None], torch.tensor(1)):
        with pytest.raises(ValueError, match="query labels.*integers"):
            make(wrong, labels)
        with pytest.raises(ValueError, match="key labels.*integers"):
            make(labels, wrong)
    with pytest.raises(ValueError, match=r"3 queries.*\b2 keys"):
        make(labels, labels[:2], ignore_self=True)
    for valid in (torch.tensor([True, False]), torch.tensor([1, 0, 1])):
        with pytest.raises(ValueError, match=r"boolean vector.*\(\d"):
            make(labels, labels, key_valid=valid)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
@pytest.mark.parametrize("valid", [None, torch.tensor([True, True, False])])
def test_labels_of_any_integer_type_mean_the_same(dtype: torch.dtype, valid: Tensor | None) -> None:
    """To torch a uint8 index is a mask and an int16 one an error."""
    labels = torch.tensor([0, 2, 1])
    expected = TableRanks(labels, labels, TABLE, key_valid=valid).tile(ALL, ALL)
    narrow = labels.to(dtype)
    assert torch.equal(TableRanks(narrow, narrow, TABLE, key_valid=valid).tile(ALL, ALL), expected)


def test_wrong_matrices_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(queries, keys\).*\(2,\)"):
        DenseRanks(torch.tensor([1, 0]))
    with pytest.raises(ValueError, match=r"got torch.float32"):
        DenseRanks(torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"torch\.bool\b.*\.to"):
        DenseRanks(torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"-1\b.*\b127\b.* -2 to 1"):
        DenseRanks(torch.tensor([[-2, 1]]))
    with pytest.raises(ValueError, match=r"-1\b.*\b127\b.* 0 to 128"):
        DenseRanks(torch.tensor([[0, 128]]))
    with pytest.raises(ValueError, match=r"-1\b.*\b127\b.* 0 to 200"):  # nor with more ranks
        DenseRanks(torch.tensor([[0, 200]]), num_ranks=200)
    with pytest.raises(ValueError, match=r"-1\b.* 2\b.* 0 to 3"):
        DenseRanks(torch.tensor([[0, 3]]), num_ranks=2)
    with pytest.raises(ValueError, match="num_ranks must be at least 1, got 0"):
        DenseRanks(torch.tensor([[0, -1]]), num_ranks=0)
    assert DenseRanks(torch.tensor([[0, 1]]), num_ranks=1).num_ranks == 1
    assert DenseRanks(torch.tensor([[-1, 2]]), num_ranks=2).tile(ALL, ALL).tolist() == [[-1, 2]]
    assert DenseRanks(torch.zeros(0, 3, dtype=torch.int8)).shape == (0, 3)


@pytest.mark.parametrize("highest", [-1, 0, 1])
def test_a_table_without_positives_does_not_say_how_many_ranks_there_are(highest: int) -> None:
    ranks = TableRanks([0], [0], [[highest]])
    known = "1 rank" if highest == 1 else "ranks not known"
    assert ranks.num_ranks == (1 if highest == 1 else None)
    assert repr(ranks).splitlines()[0] == f"TableRanks: 1 queries x 1 keys, {known}"


def test_a_class_alone() -> None:
    """A key that takes no part may have any label, and there is one class to read it as."""
    ranks = TableRanks([0], [0, 5], torch.eye(1).long(), key_valid=torch.tensor([True, False]))
    assert ranks.tile(ALL, ALL).tolist() == [[1, -1]]


def test_values_are_read_on_any_device_unless_they_may_not() -> None:
    """Tensors of the device meta have none."""
    labels, matrix = (torch.empty(shape, dtype=torch.int8, device="meta") for shape in (2, (2, 2)))
    for build in (DenseRanks, as_pair_ranks, lambda x, **may: TableRanks(labels, labels, x, **may)):
        build(matrix, validate=False)
        with pytest.raises(RuntimeError):
            build(matrix)


def test_wrong_tables_are_refused() -> None:
    labels = torch.tensor([0])
    with pytest.raises(ValueError, match=r"\(classes, classes\).*\(3, 4\)"):
        TableRanks(labels, labels, TABLE[:3])
    with pytest.raises(ValueError, match="rank table.*empty"):
        TableRanks(labels, labels, TABLE[:0, :0])
    with pytest.raises(ValueError, match=r"ranks.*integers.*torch\.float32"):
        TableRanks(labels, labels, TABLE.float())
    with pytest.raises(ValueError, match=r"and 127, got 0 to 200"):  # int8 would make it -56
        TableRanks(labels, labels, torch.tensor([[1, 200], [0, 1]]))
    with pytest.raises(ValueError, match=r"and 2, got -1 to 3"):
        TableRanks(labels, labels, TABLE, num_ranks=2)


def test_a_tensor_is_as_good_as_a_source_and_anything_else_is_refused() -> None:
    matrix = torch.tensor([[1, 0, -1]])
    assert torch.equal(as_pair_ranks(matrix).tile(ALL, ALL), matrix.to(torch.int8))
    source = DenseRanks(matrix)
    assert as_pair_ranks(source) is source
    for held in (matrix.numpy(), matrix.tolist()):
        assert torch.equal(as_pair_ranks(held).tile(ALL, ALL), matrix.to(torch.int8))
    for wrong in ("ranks", 3, None):
        with pytest.raises(ValueError, match=f"rank source .* got {type(wrong).__name__}"):
            as_pair_ranks(wrong)  # type: ignore[arg-type]


def test_sources_move_by_what_they_are_made_of() -> None:
    labels, valid = torch.arange(4) % 2, torch.tensor([True, True, False, True])
    meta, cpu = torch.device("meta"), torch.device("cpu")
    for source in (
        DenseRanks(torch.eye(4, dtype=torch.int8), 1),
        TableRanks(labels, labels, torch.eye(2, dtype=torch.int8), ignore_self=True),
        TableRanks(labels, labels, torch.eye(2, dtype=torch.int8), key_valid=valid),
        IdentityRanks(labels, labels, key_valid=valid),
    ):
        moved = as_pair_ranks(source, meta)
        assert type(moved) is type(source)
        assert moved.tile(ALL, ALL).device == meta
        assert source.tile(ALL, ALL).device == cpu
        assert moved.num_ranks == source.num_ranks
        assert as_pair_ranks(source, cpu) is source
        assert as_pair_ranks(source) is source


def test_the_tiles_of_a_source_that_cannot_move_are_moved() -> None:
    class Mine:
        shape = (2, 3)
        num_ranks = 1

        def tile(self, rows: slice, cols: slice) -> torch.Tensor:
            return torch.ones(2, 3, dtype=torch.int8)[rows, cols]

    moved = as_pair_ranks(Mine(), torch.device("meta"))
    assert (moved.shape, moved.num_ranks) == ((2, 3), 1)
    assert moved.tile(slice(1), ALL).device.type == "meta"
    assert moved.tile(slice(1), ALL).shape == (1, 3)


def test_on_a_cpu_labels_are_checked_even_without_validate() -> None:
    table = torch.eye(2, dtype=torch.int8)
    with pytest.raises(ValueError, match="hold 2"):
        TableRanks(torch.tensor([2]), torch.tensor([0]), table, validate=False)
    with pytest.raises(ValueError, match="-2 to 1"):
        DenseRanks(torch.tensor([[-2, 1]]), validate=False)
    assert TableRanks(torch.tensor([1]), torch.tensor([0]), table, validate=False).num_ranks == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_codes_may_be_of_types_without_a_sign(dtype: Any) -> None:
    rows = np.array([[1, 0], [0, 2]], dtype=dtype)
    for codes in (rows, torch.from_numpy(rows)):
        assert DenseRanks(codes).tile(ALL, ALL).tolist() == rows.tolist()
        assert TableRanks([0, 1], [0, 1], codes).tile(ALL, ALL).tolist() == rows.tolist()
    with pytest.raises(ValueError, match="0 to 200"):
        DenseRanks(rows * dtype(100))
    highest = np.iinfo(dtype).max  # of 64 bits it would wrap to -1, an ignored pair
    with pytest.raises(ValueError, match=f"0 to {min(highest, 2**63 - 1)}$"):
        DenseRanks(np.array([[0, highest]], dtype=dtype))


@pytest.mark.parametrize("given", [torch.tensor, np.array, list, tuple])
def test_a_matrix_of_any_kind_is_a_rank_source(given: Any) -> None:
    rows = [[1, 0], [-1, 2]]
    found = as_pair_ranks(given(rows))
    assert isinstance(found, DenseRanks)
    assert found.tile(ALL, ALL).tolist() == rows


def test_tensors_that_stand_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def total(x: Tensor) -> Tensor:
        seen.append(is_batched(x))
        return x.sum()

    x = torch.ones(3, 2)
    total(x)
    torch.func.grad(total)(x)
    assert seen == [False, False]
    torch.func.vmap(total)(x)
    torch.func.vmap(torch.func.grad(total))(x)
    assert seen == [False, False, True, True]
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # it cannot be asked for
    torch.func.vmap(total)(x)
    assert seen[-1] is False


def test_fewer_keys_than_queries_cannot_begin_with_them() -> None:
    require_queries_first(2, 2)
    with pytest.raises(ValueError) as error:
        require_queries_first(3, 2)
    said = "{}=True says that the first {} are the queries themselves, but there are 3 queries and "
    assert str(error.value) == said.format("ignore_self", "keys") + "only 2 keys"
    with pytest.raises(ValueError) as error:
        require_queries_first(3, 2, "exclude_self", "gallery items")
    expected = said.format("exclude_self", "gallery items") + "only 2 gallery items"
    assert str(error.value) == expected
