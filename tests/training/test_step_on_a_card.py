"""A training step on a GPU without values: nothing is read, and nothing is copied that waits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_runs import splits_of
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException

from losses.fake_card import Watch, fake_card, gradients
from rince import Taxonomy
from rince.core.pixels import normalisation
from rince.data.arrays import TensorImages
from rince.data.batches import BatchViews, ImageBatch, TrainLoader, eval_batches
from rince.data.image.files import FileImages
from rince.data.plan import BatchPlan
from rince.data.views import view_pixels
from rince.models.backbones import Backbone
from rince.models.exported import ImageEncoder
from rince.ranks.time import ItemTimes, TimeRanks
from rince.training.config import BatchOptions, LossOptions, ModelOptions, TrainConfig
from rince.training.module import RankedModule
from rince.training.objectives import OBJECTIVES
from rince.training.step import RankSource

TREE = Taxonomy([("dog", "husky"), ("dog", "pug"), ("cat", "manx"), ("cat", "siamese")])
WIDE = Taxonomy([(f"group {i // 3}", f"class {i}") for i in range(3000)])  # no table of ranks
CARD = torch.device("cuda:0")
BATCH = 8
READ_BY_THEIR_LIBRARY = ("triplet-hierarchical", "fastap")
OWN = [name for name in OBJECTIVES if name not in READ_BY_THEIR_LIBRARY]
CONFIG = TrainConfig("x", batch_size=BATCH, log_every=1000, validate_every=1000)
MOMENTUM = ModelOptions(momentum=0.9, queue_size=40, embedding_dim=8)


def times() -> ItemTimes:
    number = torch.arange(100)
    rule = TimeRanks(near=(5.0,))
    return ItemTimes(rule, rule.items(number // 10, number * 1.0, number + 1.0))


class Images(TensorImages):
    """Whose views may come as bytes, from workers."""

    def view_inputs(self, views: Tensor) -> Tensor:
        return view_pixels(views)


@contextmanager
def on_card(
    config: TrainConfig, tree: Taxonomy = TREE, ranks: RankSource | None = None, steps: int = 20
) -> Iterator[tuple[RankedModule, Watch]]:
    """A module on the card, after so many steps; what is made before the first one has values."""
    some = torch.zeros(1, dtype=torch.int64)
    tree.ranks(some, some)
    for level in (1, 2):
        tree.same_group(level, some, some)
    splits = splits_of(tree, Images)
    with fake_card() as watch:
        with torch.device(CARD):
            layers = nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(4 * 14 * 14, 6)
            module = RankedModule(
                Backbone(nn.Sequential(*layers), 6),
                splits,
                config,
                rank_source=ranks,
            )
        module._device = CARD  # what .to(CARD) notes, which these weights cannot follow
        module.trainer = SimpleNamespace(global_step=steps, is_last_batch=False, loggers=[])  # type: ignore[assignment]
        yield module, watch


def batch(kept: bool) -> ImageBatch:
    """On the CPU, as it comes from the loader: images as they are kept, or both views as bytes."""
    views = tuple(
        torch.zeros(BATCH, 3, 20 if kept else 16, 16, dtype=torch.uint8)
        for _ in range(1 if kept else 2)
    )
    labels = torch.zeros(BATCH, dtype=torch.int64)
    return ImageBatch(views, labels, labels, seed=0)


def two_steps(module: RankedModule, watch: Watch, kept: bool = True) -> Tensor:
    """The second is watched: the first fills what is kept."""
    for _ in range(2):
        watch.copies.clear()
        moved = module.transfer_batch_to_device(batch(kept), CARD, 0)
        assert all(x.is_cuda for x in (*moved.views, moved.labels, moved.indices))
        loss = module.training_step(moved, 0)
        found = gradients(loss)
        assert all(p in found for p in module.encoder.parameters())
    assert not watch.copies
    return loss


@pytest.mark.parametrize("objective", OWN)
@pytest.mark.parametrize("model", [ModelOptions(embedding_dim=8), MOMENTUM])
def test_a_step_reads_nothing(objective: str, model: ModelOptions) -> None:
    config = replace(CONFIG, objective=objective, model=model)
    with on_card(config) as (module, watch):
        two_steps(module, watch)


@pytest.mark.parametrize("objective", ["rince", "supcon-coarse", "infonce"])
@pytest.mark.parametrize(
    ("tree", "ranks"), [(WIDE, None), (TREE, times())], ids=["many-classes", "time"]
)
def test_other_ranks_are_not_read(objective: str, tree: Taxonomy, ranks: RankSource | None) -> None:
    if ranks is not None and OBJECTIVES[objective].by_time is None:
        pytest.skip("not by time")
    temperatures = (0.1, 0.2, 0.3) if ranks is not None else None
    config = replace(CONFIG, objective=objective, loss=LossOptions(temperatures=temperatures))
    with on_card(config, tree, ranks) as (module, watch):
        two_steps(module, watch)


@pytest.mark.parametrize(
    "changes",
    [
        {"batches": BatchOptions(images_per_class=2), "objective": "infonce"},
        {"loss": LossOptions(matmul_precision="bf16")},
        {"loss": LossOptions(smoothing=0.2), "objective": "cross-entropy"},
    ],
    ids=["balanced", "bf16", "smoothing"],
)
def test_options_do_not_read(changes: Mapping[str, Any]) -> None:
    with on_card(replace(CONFIG, **changes)) as (module, watch):
        two_steps(module, watch)


def test_views_made_by_workers_arrive_as_bytes() -> None:
    with on_card(CONFIG) as (module, watch):
        two_steps(module, watch, kept=False)


def test_a_micro_batch_is_sent_when_it_is_encoded() -> None:
    with on_card(replace(CONFIG, micro_batch=3)) as (module, watch):
        watch.copies.clear()
        given = batch(kept=True)
        moved = module.transfer_batch_to_device(given, CARD, 0)
        assert not moved.views[0].is_cuda
        views = BatchViews(moved, module.augmentation)
        parts = [part() for part in module._parts(moved, views, 0, 1)]
        assert [len(x) for x in parts] == [4, 6, 6]
        assert all(x.is_cuda for x in parts)
        assert not watch.copies


@pytest.mark.parametrize("ranks", [None, times()], ids=["classes", "time"])
@pytest.mark.parametrize("tree", [TREE, WIDE], ids=["few-classes", "many-classes"])
def test_what_is_logged_is_read_at_once(
    ranks: RankSource | None, tree: Taxonomy, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[list[str]] = []
    logged: dict[str, float] = {}

    def read(self: RankedModule, shown: Mapping[str, Tensor]) -> dict[str, float]:
        assert all(x.is_cuda and x.ndim == 0 for x in shown.values())
        reads.append(list(shown))
        return dict.fromkeys(shown, 0.5)

    monkeypatch.setattr(RankedModule, "_read", read)
    monkeypatch.setattr(RankedModule, "_current_lr", lambda self: 0.25)
    monkeypatch.setattr(RankedModule, "log", lambda *given, **options: None)
    loss = LossOptions(temperatures=(0.1, 0.2, 0.3) if ranks is not None else (0.1, 0.2))
    config = replace(CONFIG, log_every=1, model=MOMENTUM, loss=loss)
    with on_card(config, tree, ranks) as (module, watch):
        tracker = SimpleNamespace(log_metrics=lambda values, _: logged.update(values))
        module.trainer.loggers = [tracker]
        two_steps(module, watch)
    assert len(reads) == 2
    assert {"loss", "loss_rank_1", "similarity_rank_0", "positives_rank_2"} <= set(reads[1])
    assert set(logged) == {f"train/{name}" for name in [*reads[1], "lr"]}


@pytest.mark.parametrize(("steps", "every"), [(0, 1000), (9, 1000), (24, 25)])
def test_checks_read(steps: int, every: int) -> None:
    """And so this test would fail if the others could not find a read."""
    with on_card(replace(CONFIG, validate_every=every), steps=steps) as (module, _):
        moved = module.transfer_batch_to_device(batch(True), CARD, 0)
        with pytest.raises(DataDependentOutputException):
            module.training_step(moved, 0)


def test_an_evaluation_sends_bytes() -> None:
    pixels = torch.zeros(10, 3, 16, 16, dtype=torch.uint8)
    images = TensorImages(pixels, torch.zeros(10, dtype=torch.int64), TREE, "ten")
    with fake_card() as watch:
        for inputs, labels in eval_batches(images, 4, device=CARD):
            assert inputs.is_cuda
            assert inputs.dtype == torch.float32
            assert not labels.is_cuda
        encoder = ImageEncoder(
            nn.Flatten(), None, 768, None, 1, images.spec, *normalisation(3), TREE.paths
        )
        encoder.encode(pixels, device=CARD, batch_size=4)
        sent = [x for x in watch.launches if x == "_to_copy"]
        assert len(sent) >= 6
        assert not watch.copies


@pytest.mark.parametrize("pin", [False, True])
def test_what_workers_read_is_pinned_for_a_card(pin: bool) -> None:
    files = FileImages(("none.png",) * 4, torch.zeros(4, dtype=torch.int64), TREE, "four")
    loader = TrainLoader(files, BatchPlan(4, 2, 0), workers=1, pin_memory=pin)
    assert loader._workers is not None
    assert loader._workers.pin_memory is pin
