from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from rince.core.checks import RinceError
from rince.data.arrays import TensorImages
from rince.data.batches import BatchViews, ImageBatch, TrainLoader, augmented, eval_batches
from rince.data.image.files import FileImages
from rince.data.plan import BatchPlan, batch_seed
from rince.data.sampler import BalancedPlan
from rince.data.views import BatchAugmentation, ViewConfig, eval_transform, evaluation_pixels
from rince.ranks.taxonomy import Taxonomy

SIZE = 12


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> FileImages:
    """22 images of two classes, of different sizes."""
    root = tmp_path_factory.mktemp("files")
    for index in range(22):
        folder = root / "ab"[index % 2]
        folder.mkdir(exist_ok=True)
        pixels = noise(14 + index % 3, 13 + index % 5, 3, seed=index)
        Image.fromarray(pixels.numpy()).save(folder / f"{index:02}.png")
    return replace(FileImages.from_folder(root), image_size=SIZE)


@pytest.fixture(scope="module")
def tensors(files: FileImages) -> TensorImages:
    return files.preload(SIZE)


def loader(
    images: TensorImages | FileImages, *, seed: int = 0, workers: int = 0, process: int = 0
) -> TrainLoader:
    plan = BatchPlan(len(images), 4, seed, process_index=process)
    return TrainLoader(images, plan, workers=workers)


def same(first: list[ImageBatch], second: list[ImageBatch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.views[0], b.views[0])
        and torch.equal(a.views[1], b.views[1])
        and torch.equal(a.labels, b.labels)
        and torch.equal(a.indices, b.indices)
        and a.seed == b.seed
        for a, b in zip(first, second, strict=True)
    )


# ---- the plan ----------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    num_samples=st.integers(1, 60),
    batch_size=st.integers(1, 12),
    world_size=st.integers(1, 4),
    seed=st.integers(-3, 2**40),
    epoch=st.integers(0, 1000),
    drop_last=st.booleans(),
)
def test_shares_are_disjoint_and_cover(
    num_samples: int, batch_size: int, world_size: int, seed: int, epoch: int, drop_last: bool
) -> None:
    share = num_samples // world_size
    if share < (batch_size if drop_last else 1):
        with pytest.raises(ValueError, match="smaller batch_size"):
            BatchPlan(num_samples, batch_size, seed, 0, world_size, drop_last)
        return
    seen: list[int] = []
    for process in range(world_size):
        plan = BatchPlan(num_samples, batch_size, seed, process, world_size, drop_last)
        plan.set_epoch(epoch)
        batches = list(plan)
        sizes = [len(batch) for batch in batches]
        expected = [batch_size] * (share // batch_size)
        if not drop_last and share % batch_size:
            expected.append(share % batch_size)
        assert sizes == expected
        assert len(plan) == len(batches)
        assert len(plan.order(epoch)) == share
        seen += plan.order(epoch).tolist()
        flat = list(itertools.chain.from_iterable(batches))
        assert flat == plan.order(epoch).tolist()[: len(flat)]
    assert len(set(seen)) == len(seen) == share * world_size
    assert set(seen) <= set(range(num_samples))


def test_epochs_and_seeds_differ_and_repeat() -> None:
    orders = {
        (seed, epoch): tuple(BatchPlan(50, 5, seed).order(epoch).tolist())
        for seed in (0, 1, 2)
        for epoch in (0, 1, 2)
    }
    assert len(set(orders.values())) == 9
    assert all(sorted(order) == list(range(50)) for order in orders.values())
    again = BatchPlan(50, 5, 1)
    again.set_epoch(2)
    assert tuple(itertools.chain.from_iterable(again)) == orders[1, 2]


def test_many_processes_see_the_batches_of_one() -> None:
    whole = list(BatchPlan(40, 12, 7))
    parts = [list(BatchPlan(40, 4, 7, process, 3)) for process in range(3)]
    for number, batch in enumerate(whole):
        assert sorted(batch) == sorted(itertools.chain(*(part[number] for part in parts)))


def test_orders_are_uniform() -> None:
    """Every image comes first about equally often: chi-squared below its 99.99 % quantile."""
    counts = torch.zeros(10)
    for epoch in range(2000):
        counts[BatchPlan(10, 1, 0).order(epoch)[0]] += 1
    assert float(((counts - 200) ** 2 / 200).sum()) < 33.7


def test_the_start_is_used_once() -> None:
    plan = BatchPlan(20, 3, 0)
    whole = list(plan)
    plan.set_epoch(0)
    plan.start_batch = 4
    assert len(plan) == 6
    assert list(plan) == whole[4:]
    plan.set_epoch(0)
    assert list(plan) == whole
    plan.start_batch = 6
    assert list(plan) == []
    plan.start_batch = 7
    with pytest.raises(ValueError, match=r"start_batch.*\[0, 6\].* 7\b"):
        list(plan)


def test_impossible_plans_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size 9 .* 8 training"):
        BatchPlan(8, 9, 0)
    with pytest.raises(ValueError, match=r"\b5\b.*\b4\b.*\b2 processes"):
        BatchPlan(8, 5, 0, 0, 2)
    with pytest.raises(ValueError, match=r"batch_size.*\b1\b.* 0$"):
        BatchPlan(8, 0, 0)
    with pytest.raises(ValueError, match=r"process_index.*\[0, 2\).* 2$"):
        BatchPlan(8, 2, 0, 2, 2)
    with pytest.raises(ValueError, match=r"batch_size 2\b.*\b0 "):
        BatchPlan(0, 2, 0)


def test_seeds_are_well_mixed() -> None:
    corners = itertools.product(range(6), range(6), range(6), range(4))
    seeds = [batch_seed(*corner) for corner in corners]
    assert len(set(seeds)) == len(seeds) == 864
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len({seed % 2**32 for seed in seeds}) == len(seeds)  # all that torch's CPU uses
    bits = torch.tensor([[seed >> bit & 1 for bit in range(63)] for seed in seeds]).float()
    assert float((bits.mean(0) - 0.5).abs().max()) < 5 * 0.5 / 864**0.5
    assert batch_seed(0, 0, 0) == batch_seed(0, 0, 0, 0)


# ---- training batches --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["files", "tensors"])
def test_a_batch_holds_two_views(kind: str, request: pytest.FixtureRequest) -> None:
    images = request.getfixturevalue(kind)
    batches = list(loader(images))
    assert len(batches) == len(loader(images)) == 5
    for batch, indices in zip(batches, BatchPlan(22, 4, 0), strict=True):
        assert batch.indices.tolist() == indices
        assert torch.equal(batch.labels, images.labels[indices])
        assert [view.shape for view in batch.views] == [(4, 3, SIZE, SIZE)] * 2
        assert {view.dtype for view in batch.views} == {torch.float32}
        assert not torch.equal(*batch.views)


def test_views_show_their_own_images(tensors: TensorImages, tmp_path: Path) -> None:
    plain = ViewConfig((1.0, 1.0), (1.0, 1.0), 0.0, (0.0, 0.0, 0.0, 0.0), 0.8, 0.0)
    paths = tuple(str(tmp_path / f"{index}.png") for index in range(22))
    for path, pixels in zip(paths, tensors.pixels, strict=True):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
    files = FileImages(paths, tensors.labels, tensors.taxonomy, "squares", image_size=SIZE)
    for images in (tensors, files):
        for batch in TrainLoader(images, BatchPlan(22, 4, 0), config=plain):
            expected = evaluation_pixels(tensors.pixels[batch.indices])
            for view in batch.views:
                torch.testing.assert_close(view, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", ["files", "tensors"])
@pytest.mark.parametrize("start", [0, 1, 3, 5])
def test_resuming_gives_exactly_the_tail(
    kind: str, start: int, request: pytest.FixtureRequest
) -> None:
    images = request.getfixturevalue(kind)
    train = loader(images)
    train.set_epoch(2)
    whole = list(train)
    resumed = loader(images)
    torch.manual_seed(99)
    resumed.set_epoch(2)
    resumed.start_batch = start
    assert len(resumed) == 5
    assert same(list(resumed), whole[start:])
    assert same(list(resumed), whole)  # only once


@pytest.mark.parametrize("kind", ["files", "tensors"])
def test_batches_depend_on_seed_and_epoch_alone(kind: str, request: pytest.FixtureRequest) -> None:
    images = request.getfixturevalue(kind)
    torch.manual_seed(1)
    train = loader(images)
    first = list(train)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert same(list(train), first)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert same(list(loader(images)), first)
    train.set_epoch(1)
    later = list(train)
    other = list(loader(images, seed=1))
    assert not same(later, first)
    assert not same(other, first)
    # Not only the order: the same image looks different in another epoch.
    index = int(first[0].indices[0])
    again = next(
        (batch.views[0][row] for batch in later for row in (batch.indices == index).nonzero()),
        None,
    )
    if again is not None:
        assert not torch.equal(again[0], first[0].views[0][0])


@pytest.mark.parametrize("kind", ["files", "tensors"])
@pytest.mark.parametrize("processes", [1, 2])
def test_an_item_that_is_drawn_again_gets_views_of_its_own(
    kind: str, processes: int, request: pytest.FixtureRequest
) -> None:
    """Packs of four of a class of three, and of one of five: they repeat within a batch, within an
    epoch, and from process to process."""
    images = request.getfixturevalue(kind).subset([0, 1, 2, 11, 12, 13, 14, 15])
    views: dict[int, list[Tensor]] = {}
    repeated = 0
    for process in range(processes):
        share = {"process_index": process, "world_size": processes}
        plan = BalancedPlan(images.labels, None, 8 // processes, 4, seed=0, **share)
        train = TrainLoader(images, plan)
        for epoch in range(4):
            train.set_epoch(epoch)
            for batch in train:
                repeated += len(batch.indices) - len(batch.indices.unique())
                for row, index in enumerate(batch.indices.tolist()):
                    views.setdefault(index, []).extend(view[row] for view in batch.views)
    assert sum(map(len, views.values())) == 2 * 8 * 4
    assert repeated
    for drawn in views.values():
        assert not any(torch.equal(a, b) for a, b in itertools.combinations(drawn, 2))


@pytest.mark.parametrize("balanced", [False, True])
def test_two_processes_draw_the_views_of_one(files: FileImages, balanced: bool) -> None:
    images = files.subset([0, 1, 2, *range(11, 18)])

    def drawn(process: int, count: int) -> list[tuple[int, bytes]]:
        share: dict[str, int] = {"seed": 3, "process_index": process, "world_size": count}
        size = 8 // count
        if balanced:
            plan: BatchPlan = BalancedPlan(images.labels, None, size, 4, **share)
        else:
            plan = BatchPlan(len(images), size, **share)
        (batch,) = TrainLoader(images, plan)
        views = torch.stack(batch.views, dim=1)
        return [(int(i), x.numpy().tobytes()) for i, x in zip(batch.indices, views, strict=True)]

    assert sorted(drawn(0, 1)) == sorted(drawn(0, 2) + drawn(1, 2))


def test_a_pass_with_repeats_may_start_in_the_middle(files: FileImages) -> None:
    images = files.subset([0, 1, 2, *range(11, 18)])
    whole, resumed = (
        TrainLoader(images, BalancedPlan(images.labels, None, 4, 4, seed=3), workers=workers)
        for workers in (0, 2)
    )
    resumed.start_batch = 1
    expected = list(whole)
    assert len({i for batch in expected for i in batch.indices.tolist()}) < 8
    assert same(list(resumed), expected[1:])


def test_the_number_of_workers_changes_nothing(files: FileImages) -> None:
    alone, many = loader(files), loader(files, workers=2)
    for epoch, start in ((0, 0), (1, 2), (2, 0)):  # the workers live on from epoch to epoch
        for train in (alone, many):
            train.set_epoch(epoch)
            train.start_batch = start
        assert same(list(alone), list(many))
    # A pass that is given up leaves nothing behind.
    next(iter(many))
    many.set_epoch(4)
    alone.set_epoch(4)
    assert same(list(alone), list(many))


def test_epoch_and_start_are_read_at_the_first_batch(tensors: TensorImages) -> None:
    train = loader(tensors)
    train.set_epoch(3)
    expected = list(train)[2:]
    late = loader(tensors)
    iterator = iter(late)  # as Lightning does, before it knows the epoch
    late.set_epoch(3)
    late.start_batch = 2
    assert same(list(iterator), expected)


def test_processes_draw_differently(tensors: TensorImages) -> None:
    one_image = TensorImages(
        tensors.pixels[:1].repeat(8, 1, 1, 1), tensors.labels[:8], tensors.taxonomy, "same"
    )
    views = [next(iter(TrainLoader(one_image, BatchPlan(8, 4, 0, p, 2)))).views[0] for p in (0, 1)]
    assert not torch.equal(views[0], views[1])


def test_augmenting_later_is_the_same(tensors: TensorImages) -> None:
    plan = BatchPlan(22, 4, 0)
    raw = list(TrainLoader(tensors, plan, augment="later"))
    for batch in raw:
        assert torch.equal(batch.views[0], tensors.pixels[batch.indices])
    augmentation = BatchAugmentation(SIZE)
    assert same([augmented(batch, augmentation) for batch in raw], list(loader(tensors)))


@pytest.mark.parametrize("autocast", [False, True])
def test_parts_of_the_views_are_those_of_the_whole(tensors: TensorImages, autocast: bool) -> None:
    plan = BatchPlan(22, 22, seed=3)
    (raw,) = TrainLoader(tensors, plan, augment="later")
    augmentation = BatchAugmentation(SIZE)
    whole = augmented(raw, augmentation)
    for batch in (raw, whole):  # augmented part by part, or before
        views = BatchViews(batch, augmentation)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            for view in (1, 0, 1):
                parts = [views.part(view, rows) for rows in (slice(0, 9), slice(9, 22))]
                torch.testing.assert_close(torch.cat(parts), whole.views[view], rtol=0, atol=1e-6)
                assert torch.equal(views.part(view), whole.views[view])


def test_an_unreadable_file_stops_the_training_with_its_name(
    files: FileImages, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    images = FileImages(
        (*files.paths[:7], str(broken)), files.labels[:8], files.taxonomy, files.name
    )
    for workers in (0, 1):
        train = TrainLoader(images, BatchPlan(8, 8, 0), workers=workers)
        for batches in (train, eval_batches(images, 8, workers)):
            with pytest.raises(RinceError, match=r"^cannot read .*broken.png") as caught:
                list(batches)
            assert len(str(caught.value)) < 400  # no traceback of a worker inside


_AUGMENT: tuple[Literal["now", "later"], ...] = ("now", "later")


def test_files_of_different_sizes_cannot_wait(files: FileImages) -> None:
    batches = (next(iter(TrainLoader(files, BatchPlan(22, 4, 0), augment=a))) for a in _AUGMENT)
    now, later = batches
    assert all(view.dtype == torch.uint8 for view in later.views)  # their floats can
    made = augmented(later, None, files.view_inputs)
    assert all(torch.equal(a, b) for a, b in zip(now.views, made.views, strict=True))


def test_impossible_loaders_are_refused(files: FileImages, tensors: TensorImages) -> None:
    with pytest.raises(ValueError, match=r"plan.*\b10\b.*\b22\b"):
        TrainLoader(tensors, BatchPlan(10, 4, 0))
    with pytest.raises(ValueError, match="workers"):
        TrainLoader(files, BatchPlan(22, 4, 0), workers=-1)


# ---- evaluation batches ------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_goes_through_all_images_in_order(files: FileImages, workers: int) -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    found = list(eval_batches(files, 8, workers))
    assert torch.equal(torch.get_rng_state(), state)
    assert [len(labels) for _, labels in found] == [8, 8, 6]
    assert torch.equal(torch.cat([labels for _, labels in found]), files.labels)
    expected = torch.stack([eval_transform(SIZE)(files[i]) for i in range(22)])
    assert torch.equal(torch.cat([x for x, _ in found]), evaluation_pixels(expected))


def test_evaluation_of_images_in_memory(tensors: TensorImages) -> None:
    found = list(eval_batches(tensors, 5))
    assert torch.equal(torch.cat([x for x, _ in found]), evaluation_pixels(tensors.pixels))
    assert torch.equal(torch.cat([labels for _, labels in found]), tensors.labels)
    smaller = torch.cat([x for x, _ in eval_batches(replace(tensors, image_size=8), 5)])
    assert torch.equal(smaller, evaluation_pixels(eval_transform(8)(tensors.pixels)))
    with pytest.raises(ValueError, match=r"batch_size.*\b1\b.* 0$"):
        next(eval_batches(tensors, 0))


def test_grey_images(tensors: TensorImages) -> None:
    grey = TensorImages(tensors.pixels[:, :1], tensors.labels, Taxonomy([("a",), ("b",)]), "grey")
    batch = next(iter(loader(grey)))
    assert batch.views[0].shape == (4, 1, SIZE, SIZE)
    assert next(eval_batches(grey, 3))[0].shape == (3, 1, SIZE, SIZE)
