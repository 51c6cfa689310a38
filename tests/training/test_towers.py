"""Heads on stored features of images and texts: their data, their training, their retrieval."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal
from unicodedata import normalize

import numpy as np
import pytest
import torch
from torch import Tensor

import rince
from rince import RinceError
from rince.cli.main import main
from rince.data import BalancedPlan, BatchPlan, from_vectors
from rince.evaluation.embeddings import load_embeddings
from rince.losses import info_nce
from rince.metrics import retrieval_by_level
from rince.training import ImagesAndTexts, Towers, read_images_and_captions, train_towers

ALL = slice(None)
FORMS: tuple[Literal["NFC"], Literal["NFD"]] = ("NFC", "NFD")
LABELS = [("pet", "cat"), ("pet", "dog"), ("pet", "cat"), ("boat", "boat")]


def ranks_of(data: ImagesAndTexts) -> Tensor:
    return data.ranks().tile(ALL, ALL)


def captioned(count: int = 60, captions: int = 2, seed: int = 0) -> ImagesAndTexts:
    """Images and captions of different widths, near points of their classes and of their own."""
    rng = np.random.default_rng(seed)
    labels = [(f"g{i % 6 // 3}", f"c{i % 6}") for i in range(count)]
    centres, own = 2 * rng.normal(size=(6, 8)), 0.7 * rng.normal(size=(count, 8))
    content = centres[np.arange(count) % 6] + own
    of = rng.permutation(np.repeat(np.arange(count), captions))
    image = content @ rng.normal(size=(8, 12)) + 0.1 * rng.normal(size=(count, 12))
    text = content[of] @ rng.normal(size=(8, 10)) + 0.1 * rng.normal(size=(len(of), 10))
    names = [f"{i}.jpg" for i in range(count)]
    images = from_vectors(image, labels, names=names, dropout=0.1)
    return ImagesAndTexts.captioned(images, text, of)


# ---- data ---------------------------------------------------------------------------------------


def test_ranks_are_own_class_superclass() -> None:
    """Against the definition, pair by pair."""
    images = from_vectors(np.eye(4), LABELS, names=list("abcd"))
    of = ["c", "a", "a", "d", "b"]
    data = ImagesAndTexts.captioned(images, np.eye(5, 7), of)

    def rank(image: int, caption: int) -> int:
        other = "abcd".index(of[caption])
        same = [
            image == other,
            LABELS[image] == LABELS[other],
            LABELS[image][0] == LABELS[other][0],
        ]
        return same.index(True) + 1 if any(same) else 0

    assert ranks_of(data).tolist() == [[rank(i, t) for t in range(5)] for i in range(4)]
    assert list(data.levels) == ["image", "fine", "coarse"]


def test_the_ranks_of_a_batch_cost_what_the_batch_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    data = captioned(600)
    images, texts = torch.tensor([5, 17, 300]), torch.tensor([9, 800, 2, 4])
    expected = ranks_of(data)[images][:, texts]
    rows: list[int] = []
    stack = torch.stack

    def counted(parts: Any, dim: int = 0) -> Tensor:
        rows.extend(map(len, parts))
        return stack(parts, dim)

    monkeypatch.setattr(torch, "stack", counted)
    assert torch.equal(data.ranks(images, texts).tile(ALL, ALL), expected)
    assert max(rows) == 4


def test_positions_names_and_order_say_the_same() -> None:
    images = from_vectors(np.eye(4), LABELS, names=list("abcd"))
    by_order = ImagesAndTexts.captioned(images, np.eye(4))
    for of in (list("abcd"), np.array(list("abcd")), [0, 1, 2, 3], torch.arange(4)):
        other = ImagesAndTexts.captioned(images, np.eye(4), of)
        assert torch.equal(ranks_of(other), ranks_of(by_order))


def test_permuted_captions_permute_the_ranks() -> None:
    data = captioned(12)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    assert data.caption_of is not None
    permuted = ImagesAndTexts.captioned(
        data.images, data.texts.vectors[order], data.caption_of[order]
    )
    assert torch.equal(ranks_of(permuted), ranks_of(data)[:, order])


def test_descriptions_of_classes_have_no_level_of_images() -> None:
    images = from_vectors(np.eye(4), LABELS)
    texts = from_vectors(np.eye(3, 5), LABELS[1:], taxonomy=images.taxonomy)
    data = ImagesAndTexts(images, texts)
    assert list(data.levels) == ["fine", "coarse"]
    assert ranks_of(data).tolist() == [[2, 1, 0], [1, 2, 0], [2, 1, 0], [0, 0, 1]]


def test_images_without_classes_have_the_level_of_images_alone() -> None:
    images = from_vectors(np.eye(3), ["image"] * 3)
    assert ranks_of(ImagesAndTexts.captioned(images, np.eye(3))).tolist() == np.eye(3).tolist()
    texts = from_vectors(np.eye(3), ["image"] * 3)
    with pytest.raises(ValueError, match="one class"):
        ImagesAndTexts(images, texts).ranks()


def test_ranks_by_the_similarity_of_captions() -> None:
    images = from_vectors(np.eye(3), ["image"] * 3)
    captions = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 2.0], [5.0, 0.0]])
    data = ImagesAndTexts.captioned(images, captions, [0, 1, 2, 1])
    positions = torch.arange(3)
    found = data.ranks_by_texts([0.7, 0.5])(positions, positions)
    assert found.num_ranks == 3
    assert found.tile(ALL, ALL).tolist() == [[1, 2, 0], [2, 1, 3], [0, 3, 1]]
    # Image 1 by its other caption, which is the same as that of image 0 but for its length.
    other = data.ranks_by_texts([0.7])(positions, torch.tensor([0, 3, 2])).tile(ALL, ALL)
    assert other.tolist() == [[1, 2, 0], [2, 1, 0], [0, 0, 1]]
    with pytest.raises(ValueError, match=r"\[-1, 1\].*1\.2"):
        data.ranks_by_texts([1.2])
    one = data.ranks_by_texts(0.7)(positions, positions)  # a number alone
    assert one.tile(ALL, ALL).tolist() == [[1, 2, 0], [2, 1, 0], [0, 0, 1]]
    tiny = ImagesAndTexts.captioned(images, 1e-20 * captions, [0, 1, 2, 1])
    same = tiny.ranks_by_texts([0.7, 0.5])(positions, positions).tile(ALL, ALL)
    assert torch.equal(same, found.tile(ALL, ALL))


def test_the_cosine_of_two_copies_of_a_caption_is_1() -> None:
    """In float32 the products of a vector of length 1 with itself are a little more or less."""
    images = from_vectors(np.eye(40), ["image"] * 40)
    captions = np.random.default_rng(0).normal(size=(20, 7)).repeat(2, axis=0)
    data = ImagesAndTexts.captioned(images, captions)
    found = data.ranks_by_texts([1.0])(torch.arange(40), torch.arange(40)).tile(ALL, ALL)
    assert (found == 2).sum(dim=1).tolist() == [1] * 40


def test_a_subset_of_images_keeps_their_captions() -> None:
    data = captioned(12)
    kept = [7, 2, 5]
    part = data.subset(kept)
    assert part.caption_of is not None
    assert data.caption_of is not None
    own = torch.isin(data.caption_of, torch.tensor(kept))
    assert torch.equal(part.texts.vectors, data.texts.vectors[own])
    assert torch.equal(ranks_of(part), ranks_of(data)[kept][:, own])
    images = from_vectors(np.eye(4), LABELS)
    of_classes = ImagesAndTexts(images, images).subset([3])
    assert (len(of_classes.images), len(of_classes.texts)) == (1, 4)


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (None, "3 captions and 4 images"),
        (["a", "x.jpg", "d"], "1 images.*x.jpg"),
        ([0, 1, 4], "0 to 3.*4"),
        ([0, 1, -1], "0 to 3.*-1"),
        ([0, 1], "3 captions.*(2,)"),
        ([0.5, 1, 2], "integers"),
    ],
)
def test_captions_of_no_image_are_refused(of: Any, message: str) -> None:
    images = from_vectors(np.eye(4), LABELS, names=list("abcd"))
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        ImagesAndTexts.captioned(images, np.eye(3), of)


def test_names_that_cannot_be_matched_are_refused() -> None:
    with pytest.raises(ValueError, match="images have none"):
        ImagesAndTexts.captioned(from_vectors(np.eye(4), LABELS), np.eye(1), ["a"])
    twice = from_vectors(np.eye(4), LABELS, names=list("abca"))
    with pytest.raises(ValueError, match="more than one is called a$"):
        ImagesAndTexts.captioned(twice, np.eye(1), ["a"])


def test_two_trees_and_captions_of_another_class_are_refused() -> None:
    images = from_vectors(np.eye(4), LABELS)
    with pytest.raises(ValueError, match="3 and 2 classes"):
        ImagesAndTexts(images, from_vectors(np.eye(2), LABELS[:2]))
    with pytest.raises(ValueError, match="1 captions.*caption 2"):
        ImagesAndTexts(images, images, torch.tensor([0, 1, 1, 3]))


# ---- files --------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> Path:
    data = captioned(40)
    assert data.caption_of is not None
    names = np.array(data.images.names)
    np.savez(tmp_path / "images.npz", embeddings=data.images.vectors, paths=names)
    of = names[data.caption_of]
    np.savez(tmp_path / "captions.npz", embeddings=data.texts.vectors, paths=of)
    rows = [
        f"{name},{','.join(data.images.taxonomy.paths[label])}"
        for name, label in zip(names, data.images.labels.tolist(), strict=True)
    ]
    (tmp_path / "images.csv").write_text("\n".join(["path,group,class", *rows[::-1]]))
    return tmp_path


def test_files_are_matched_by_name_and_captions_go_with_their_image(files: Path) -> None:
    whole = captioned(40)
    assert whole.caption_of is not None
    sides = read_images_and_captions(files / "images.npz", files / "captions.npz", dropout=0.2)
    assert [len(side.images) for side in sides] == [34, 6]  # one of each class of 6 or 7
    seen = []
    for side in sides:
        assert side.caption_of is not None
        assert side.texts.dropout == side.images.dropout == 0.2
        for vector, i in zip(side.texts.vectors, side.caption_of.tolist(), strict=True):
            name = side.images.names[i]
            (caption,) = (whole.texts.vectors == vector).all(dim=1).nonzero()[:, 0].tolist()
            assert whole.images.names[int(whole.caption_of[caption])] == name
            seen.append(caption)
    assert sorted(seen) == list(range(80))
    # A column split decides, where there is one.
    table = (files / "images.csv").read_text().splitlines()
    split = [f"{line},{'test' if i % 4 == 0 else 'train'}" for i, line in enumerate(table[1:])]
    (files / "split.csv").write_text("\n".join([f"{table[0]},split", *split]))
    labels = str(files / "split.csv")
    sides = read_images_and_captions(files / "images.npz", files / "captions.npz", labels)
    assert [len(side.images) for side in sides] == [30, 10]


def test_files_without_names_are_matched_by_order(files: Path) -> None:
    images_of_files = captioned(40).images
    captions = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    np.save(files / "captions.npy", captions)
    np.save(files / "images.npy", images_of_files.vectors)
    paths = images_of_files.taxonomy.paths
    rows = [",".join(paths[label]) for label in images_of_files.labels.tolist()]
    (files / "labels.csv").write_text("\n".join(["group,class", *rows]))
    for images, labels in (("images.npy", "labels.csv"), ("images.npz", "images.csv")):
        train, test = read_images_and_captions(
            files / images, files / "captions.npy", files / labels
        )
        for side in (train, test):
            assert side.caption_of is not None
            for image, text in zip(
                side.images.vectors[side.caption_of], side.texts.vectors, strict=True
            ):
                (place,) = (images_of_files.vectors == image).all(dim=1).nonzero()[:, 0].tolist()
                assert torch.equal(captions[place], text)


def test_names_match_however_their_accents_are_stored(files: Path) -> None:
    one, other = ([normalize(form, f"caf\u00e9 {i}.jpg") for i in range(40)] for form in FORMS)
    assert set(one).isdisjoint(other)
    data = captioned(40)
    assert data.caption_of is not None
    of = [other[i] for i in data.caption_of.tolist()]
    images = from_vectors(data.images.vectors, ["image"] * 40, names=one)
    found = ImagesAndTexts.captioned(images, data.texts.vectors, of)
    assert found.caption_of is not None
    assert torch.equal(found.caption_of, data.caption_of)
    np.savez(files / "accents.npz", embeddings=data.images.vectors, paths=one)
    np.savez(files / "captions.npz", embeddings=data.texts.vectors, paths=of)
    sides = read_images_and_captions(files / "accents.npz", files / "captions.npz")
    assert sum(len(side.texts) for side in sides) == 80


def test_captions_without_names_go_by_order_whatever_images_are_called(files: Path) -> None:
    images = captioned(40).images
    np.savez(files / "twice.npz", embeddings=images.vectors, paths=[f"{i // 2}" for i in range(40)])
    captions = torch.arange(40.0)[:, None] + torch.tensor([1.0, 0.5, 0.25])
    np.save(files / "captions.npy", captions)
    for side in read_images_and_captions(files / "twice.npz", files / "captions.npy"):
        assert side.caption_of is not None
        assert side.caption_of.tolist() == list(range(len(side.images)))
        places = (side.texts.vectors[:, 0] - 1).long()
        assert torch.equal(side.images.vectors, images.vectors[places])
        assert torch.equal(side.texts.vectors, captions[places])


def test_files_that_do_not_fit_are_refused_by_name(files: Path) -> None:
    images, captions = files / "images.npz", files / "captions.npz"
    vectors = captioned(40).texts.vectors
    np.savez(files / "other.npz", embeddings=vectors[:2], paths=["0.jpg", "1.jpeg"])
    with pytest.raises(RinceError, match=r"other\.npz.*1 images.*1\.jpeg"):
        read_images_and_captions(images, files / "other.npz")
    np.save(files / "captions.npy", vectors)
    with pytest.raises(RinceError, match=r"captions\.npy.*80 captions.*40 images"):
        read_images_and_captions(images, files / "captions.npy")
    np.savez(files / "nameless.npz", embeddings=captioned(40).images.vectors)
    (files / "nameless.csv").write_text("class\n" + "\n".join(f"c{i % 6}" for i in range(40)))
    with pytest.raises(RinceError, match=r"nameless\.npz has no names"):
        read_images_and_captions(files / "nameless.npz", captions)


# ---- training -----------------------------------------------------------------------------------


def quick(data: ImagesAndTexts, loss: Any = None, **changes: Any) -> Towers:
    values: dict[str, Any] = {"batches": 30, "epochs": 60, "embedding_dim": 16, **changes}
    return train_towers(data, loss or rince.RankedInfoNCE((0.1, 0.2, 0.4)), **values)


def test_from_files_to_a_search(files: Path, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    train, test = read_images_and_captions(files / "images.npz", files / "captions.npz")
    untrained, towers = (quick(train, batches=16, lr=lr, epochs=30) for lr in (1e-9, 1e-2))
    assert len(towers.losses) == 30
    assert towers.losses[-1] < towers.losses[0]
    before, after = untrained.evaluate(test, ks=(1,)), towers.evaluate(test, ks=(1,))
    for way in ("image->text", "text->image"):
        assert list(after[way]) == ["image", "fine", "coarse"]
        gained = [
            after[way][x].mean_average_precision - before[way][x].mean_average_precision
            for x in after[way]
        ]
        assert min(gained) > 0.05, (way, gained)
    assert towers.evaluate(train)["text->image"]["fine"].recall[1] > 0.9

    towers.save(tmp_path / "towers", after, Notes="made up")
    with pytest.raises(RinceError, match="towers"):
        towers.save(tmp_path / "towers")
    share = 100 * after["text->image"]["fine"].recall[1]
    for place in ("", "image", "text"):  # each may be published alone
        card = (tmp_path / "towers" / place / "README.md").read_text(encoding="utf-8")
        assert f"\n| text->image/retrieval/fine/R@1 | {share:.1f} |\n" in card
        assert "## Notes\n\nmade up\n" in card
        assert ('load_exported("FOLDER")' in card) is bool(place)
    untrained.save(tmp_path / "bare")
    assert "Not evaluated." in (tmp_path / "bare" / "README.md").read_text(encoding="utf-8")
    embedded = {}
    for side, file in (("image", "images.npz"), ("text", "captions.npz")):
        folder = tmp_path / "towers" / side
        output = tmp_path / f"{side}.npz"
        assert main(["embed", str(folder), str(files / file), "-o", str(output)]) == 0
        embedded[side] = load_embeddings(output)
        assert rince.load_exported(folder).class_paths == train.images.taxonomy.paths
    with pytest.raises(RinceError, match="towers is not an export.*towers/image and .*towers/text"):
        rince.load_exported(tmp_path / "towers")
    whole = captioned(40)
    torch.testing.assert_close(embedded["image"].vectors, towers.image.encode(whole.images.vectors))
    found = retrieval_by_level(
        embedded["text"].vectors,
        embedded["image"].vectors,
        {"image": (whole.levels["image"][1], whole.levels["image"][0])},
    )
    assert found["image"].recall[5] > 0.5


def test_batches_may_be_a_number_of_numpy() -> None:
    data = captioned(30)
    losses = [quick(data, batches=size, epochs=1).losses for size in (10, np.int64(10))]
    assert losses[0] == losses[1]


def test_evaluation_is_retrieval_by_hand() -> None:
    data = captioned(30)
    towers = quick(data, epochs=2)
    images, texts = towers.image.encode(data.images.vectors), towers.text.encode(data.texts.vectors)
    found = towers.evaluate(data, ks=(1, 3))
    for name, (of_images, of_texts) in data.levels.items():
        there = rince.metrics.retrieval(images, texts, of_images, of_texts, ks=(1, 3))
        back = rince.metrics.retrieval(texts, images, of_texts, of_images, ks=(1, 3))
        assert (found["image->text"][name], found["text->image"][name]) == (there, back)


def test_the_same_seed_gives_the_same_towers_and_leaves_torch_alone() -> None:
    data = captioned(30)
    state = torch.get_rng_state()
    prints = [quick(data, epochs=1, seed=seed).image.fingerprint() for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_batch_holds_one_of_the_own_texts_of_each_image() -> None:
    data = captioned(30, captions=3)
    assert data.caption_of is not None
    pairs: set[tuple[int, int]] = set()

    def ranks(images: Tensor, texts: Tensor) -> Any:
        pairs.update(zip(images.tolist(), texts.tolist(), strict=True))
        return data.ranks(images, texts)

    quick(data, ranks=ranks, epochs=30)
    assert pairs == set(zip(data.caption_of.tolist(), range(90), strict=True))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_loss_is_given_embeddings_of_views_both_ways(dropout: float) -> None:
    """In the first step, as computed from the heads of a run whose lr is about 0."""
    data = captioned(30, captions=1)
    for side in (data.images, data.texts):
        object.__setattr__(side, "dropout", dropout)
    given: list[tuple[Tensor, Tensor]] = []

    def loss(query: Tensor, key: Tensor, ranks: Any) -> Tensor:
        given.append((query.detach(), key.detach()))
        return info_nce(query, key)

    order: list[tuple[Tensor, Tensor]] = []

    def ranks(images: Tensor, texts: Tensor) -> Any:
        order.append((images, texts))
        return data.ranks(images, texts)

    towers = quick(data, loss, ranks=ranks, epochs=1, lr=1e-12)
    images = towers.image.encode(data.images.vectors[order[0][0]])
    texts = towers.text.encode(data.texts.vectors[order[0][1]])
    for (query, key), expected in zip(given, ((images, texts), (texts, images)), strict=True):
        for found, clean in zip((query, key), expected, strict=True):
            difference = float((found - clean).norm(dim=1).min())
            assert difference < 1e-5 if dropout == 0 else difference > 0.05


def test_options_reach_the_training() -> None:
    data = captioned(60)
    linear = quick(data, epochs=1, head="linear")
    assert [x.shape for x in linear.text.module.parameters()] == [(16, 10), (16,)]
    temperatures = rince.RankedInfoNCE((0.1, 0.2, 0.4), learn_temperatures=True)
    quick(data, temperatures, epochs=1)
    assert temperatures.temperatures.tolist() != pytest.approx([0.1, 0.2, 0.4], abs=1e-5)
    seen: list[Tensor] = []

    def ranks(images: Tensor, texts: Tensor) -> Any:
        seen.append(data.images.labels[images])
        return data.ranks(images, texts)

    plan = BalancedPlan(data.images.labels, None, 20, 5, seed=0)
    quick(data, ranks=ranks, batches=plan, epochs=1)
    assert len(seen) == len(plan) == 3
    assert all(sorted(x.bincount(minlength=6).tolist()) == [0, 0, 5, 5, 5, 5] for x in seen)


def test_what_cannot_be_trained_is_refused() -> None:
    data = captioned(30)
    for changes, message in (
        ({"epochs": 0}, "epochs.*0"),
        ({"embedding_dim": 0}, "embedding_dim.*0"),
        ({"head": "deep"}, "deep"),
        ({"lr": 0.0}, "lr.*0"),
        ({"batches": 31}, "31.*30"),
        ({"batches": BatchPlan(31, 10, seed=0)}, "31 images.*30"),
        ({"loss": rince.RankedInfoNCE((0.1, 0.2))}, "3 temperatures.*2"),
    ):
        with pytest.raises(ValueError, match=message):
            quick(data, **changes)
    assert data.caption_of is not None
    most = data.caption_of > 1
    bare = ImagesAndTexts.captioned(data.images, data.texts.vectors[most], data.caption_of[most])
    with pytest.raises(ValueError, match=r"2 of 30 images.*0\.jpg, 1\.jpg"):
        quick(bare)


def test_a_training_that_has_failed_is_told() -> None:
    data = captioned(30)

    def broken(image: Tensor, text: Tensor, ranks: Any) -> Tensor:
        return (image * text).sum() / 0

    with pytest.raises(FloatingPointError, match=r"inf in epoch 1.*lr, now 0\.001"):
        quick(data, broken, epochs=1)

    def attracting(image: Tensor, text: Tensor, ranks: Any) -> Tensor:
        return -(image @ text.T).mean()

    with pytest.warns(rince.RinceWarning, match="collapsed.*images and texts.*mean similarity"):
        quick(data, attracting, epochs=60, lr=0.05)
    quick(data, attracting, epochs=1, lr=0.05)  # too short to tell
