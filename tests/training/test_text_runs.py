"""Training on texts with a tiny model: learning, resuming, evaluating, and polite refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rince.cli.evaluate import named_outliers
from rince.cli.main import main
from rince.cli.train import parse_with_seeds
from rince.core.checks import RinceError, RinceWarning
from rince.core.input_spec import InputSpec
from rince.data import Splits, from_texts
from rince.data.kinds import kind_of
from rince.data.text.texts import Texts
from rince.evaluation.results import load_evaluation
from rince.models.texts import TextEncoder, text_backbone
from rince.training.checkpoint import backbone_to_train, load_run, read_checkpoint
from rince.training.config import (
    ImageOptions,
    ModelOptions,
    OptimOptions,
    RankOptions,
    TextOptions,
    TrainConfig,
)
from rince.training.evaluation import evaluate_run
from rince.training.history import read_history
from rince.training.run import resume, train
from rince.training.splits import as_fed, load_splits

pytest.importorskip("sentence_transformers")
from text_models import WORDS, tiny_model, word_table, write_table


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return word_table(tmp_path_factory.mktemp("texts") / "words.csv")


def _config(words: Path, network: str, output: Path, **changes: object) -> TrainConfig:
    values: dict[str, object] = {
        "data": str(words),
        "model": ModelOptions(backbone=network, embedding_dim=8),
        "text": TextOptions(layers=None),
        "optim": OptimOptions(lr=3e-3),
        "epochs": 2,
        "batch_size": 14,
        "output": str(output),
        "accelerator": "cpu",
        "log_every": 1,
        "progress": False,
        **changes,
    }
    return TrainConfig(**values)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(words: Path, model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(_config(words, model, tmp_path_factory.mktemp("runs"), name="run", epochs=15))


def test_it_learns_and_is_evaluated(
    run: Path, words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history = read_history(run)
    losses = [value for _, value in history["train/loss"]]
    assert len(losses) == 15 * 4
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    # Two views of a text are one positive, and dropout alone tells them apart.
    assert history["train/similarity_rank_1"][0][1] < 0.999
    rows: list[tuple[str, ...]] = [("text", "ignored"), ("sleeps sleeps", ""), ("runs", "x")]
    outliers = write_table(tmp_path / "odd.csv", rows)
    given = [str(run), "--ood", str(outliers), "--device", "cpu", "--probe-epochs", "20"]
    assert main(["evaluate", *given, "--verbose"]) == 0
    assert "ood/odd/knn/AUROC" in capsys.readouterr().out
    found = load_evaluation(run)
    assert found.metrics["knn/fine"] > 0.9  # the class is a word of the text
    assert found.metrics["retrieval/coarse/R@1"] > 0.9
    assert found.metrics["ordering/2>0"] > 0.6
    assert found.info["outliers"] == {"odd": 2}
    assert (found.info["train_images"], found.info["test_images"]) == (56, 16)
    splits = load_splits(load_run(run).config)
    assert isinstance(splits.train, Texts)
    assert set(found.gallery.queries.tolist()) <= set(splits.test.texts)  # type: ignore[union-attr]
    assert set(found.gallery.neighbours[0].tolist()) <= set(splits.train.texts)
    report = tmp_path / "report.html"
    assert main(["compare", str(run), "-o", str(report)]) == 0
    page = report.read_text()
    assert found.gallery.queries[0] in page
    assert found.gallery.neighbours[0, 0] in page
    # Features of a run that is read back are those of the same texts.
    network = load_run(run).backbone.module
    with torch.no_grad():
        features = network(splits.test.tokens)  # type: ignore[union-attr]
    assert features.shape == (16, 16)
    # It is a model of sentence-transformers, and can be saved as one.
    from sentence_transformers import SentenceTransformer

    network.model.save(str(tmp_path / "saved"))  # type: ignore[union-attr, operator]
    saved = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    encoded = torch.tensor(saved.encode(list(splits.test.texts)))  # type: ignore[union-attr]
    assert torch.allclose(encoded, features, atol=1e-6)


def test_other_texts_and_other_data(
    run: Path, words: Path, image_tree: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = [("text", "kind"), *[(f"{w} {v}", w) for w in ("red", "blue", "one")
                                for v in ("runs", "sings", "sleeps", "the", "a")]]  # fmt: skip
    other = str(write_table(tmp_path / "other.csv", rows))
    quick = ["--device", "cpu", "--probe-epochs", "1", "--map-points", "0"]
    assert main(["evaluate", str(run), "--data", other, *quick]) == 0
    assert "note: " in capsys.readouterr().out
    body = str(write_table(tmp_path / "body.csv", [("id", "body"), ("1", "a cat"), ("2", "b")]))
    assert main(["evaluate", str(run), "--ood", body, "--text.column", "body", *quick]) == 0
    assert "OOD" in capsys.readouterr().out
    for given, message in (
        (["--ood", body], "table.column"),
        (["--data", "nowhere.csv"], "there is no file or folder nowhere.csv"),
        (["--test", "nowhere"], "there is no file or folder nowhere"),
        (["--data", str(image_tree)], f"{image_tree} holds no texts"),
        (["--ood", "digits"], "column 'text'"),
        (["--ood", str(tmp_path / "none.csv")], "none.csv"),
        (["--data-root", "x"], "images.root"),
    ):
        assert main(["evaluate", str(run), *given, *quick]) == 1
        assert message in capsys.readouterr().err


def test_another_column_is_measured_although_results_are_there(run: Path, tmp_path: Path) -> None:
    """With ``skip_done``, for outliers and tests."""
    rows = [("domain", "text", "body")]  # the classes are the texts of the other column
    for colour in ("red", "blue"):
        rows += [
            ("colour", f"the {colour} runs", f"four {dogs} sleep") for dogs in ("dogs", "cats")
        ]
    file = str(write_table(tmp_path / "both.csv", rows))

    def measured(column: str | None) -> dict[str, float]:
        given = {"odd": file}
        found = evaluate_run(run, given, tests=given, skip_done=True, column=column)
        return {k: v for k, v in found.metrics.items() if "/odd/" in k}

    texts, bodies = measured(None), measured("body")
    assert texts.keys() == bodies.keys()
    for part in ("ood/odd/", "unseen/odd/"):
        assert any(texts[key] != bodies[key] for key in texts if key.startswith(part)), part
    results = (run / "results.json").read_bytes()
    assert measured("body") == bodies
    assert (run / "results.json").read_bytes() == results  # nothing was measured
    assert measured(None) == pytest.approx(texts)


def test_classes_that_were_not_trained(run: Path, tmp_path: Path) -> None:
    rows = [("text", "domain", "word")]
    for word, domain in (("red", "colour"), ("blue", "colour"), ("three", "number")):
        rows += [(f"{article} {word} runs", domain, word) for article in ("the", "a")]
    file = write_table(tmp_path / "new.csv", rows)
    few = write_table(tmp_path / "few.csv", rows[:2] + rows[5:])
    with pytest.warns(RinceWarning, match="no query.*seen"):  # "red", whose others are unseen
        evaluate_run(run, tests={"few": str(few)})
    found = evaluate_run(run, tests={"new": str(file)}, skip_done=True)
    assert found.info["tests"]["new"]["unseen"] == 2
    for name in ("unseen", "seen", "embedding/unseen"):
        assert 0 <= found.metrics[f"{name}/new/hierarchy/H-AP"] <= 1


def test_changed_texts_are_refused(words: Path, model: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text(words.read_text())
    folder = train(_config(mine, model, tmp_path, epochs=1))
    mine.write_text(words.read_text().replace("the red  sings", "the red sings a"))
    with pytest.raises(RinceError, match="texts in .*mine.csv"):
        resume(folder, progress=False)


@pytest.mark.parametrize("queue", [False, True])
def test_resumed_equals_uninterrupted(
    words: Path, model: str, tmp_path: Path, queue: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in mid-epoch; dropout then goes on as it would have."""
    options: dict[str, Any] = {"epochs": 3, "checkpoint_every": 1}
    if queue:
        options["model"] = ModelOptions(model, embedding_dim=8, momentum=0.9, queue_size=20)
    train(_config(words, model, tmp_path, name="whole", **options))
    forward, calls = TextEncoder.forward, []

    def stopping(self: TextEncoder, tokens: torch.Tensor) -> torch.Tensor:
        calls.extend([1] * self.training)
        if len(calls) == (13 if queue else 7):  # the momentum encoder is called as well
            raise KeyboardInterrupt
        return forward(self, tokens)

    monkeypatch.setattr(TextEncoder, "forward", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(_config(words, model, tmp_path, name="stopped", **options))
    monkeypatch.undo()
    assert read_checkpoint(tmp_path / "stopped")["global_step"] == 6  # of 4 an epoch
    resume(tmp_path / "stopped", progress=False)
    expected, found = (read_checkpoint(tmp_path / n)["state_dict"] for n in ("whole", "stopped"))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_micro_batches_and_frozen_layers(words: Path, model: str, tmp_path: Path) -> None:
    text = TextOptions(layers=1)
    folder = train(_config(words, model, tmp_path, epochs=1, micro_batch=4, text=text))
    before = text_backbone(model).module.state_dict()
    changed = {
        name for name, x in load_run(folder).backbone.module.state_dict().items()
        if not torch.equal(x, before[name])
    }  # fmt: skip
    assert changed
    assert all("layer.1." in name for name in changed)
    frozen = train(
        _config(words, model, tmp_path, epochs=1, objective="cross-entropy", name="frozen",
                model=ModelOptions(backbone=model), text=TextOptions(layers=0, max_tokens=4))
    )  # fmt: skip
    assert load_splits(load_run(frozen).config).train.tokens.shape == (56, 4)  # type: ignore
    after = load_run(frozen).backbone.module.state_dict()
    assert all(torch.equal(x, before[name]) for name, x in after.items())


def test_scores_of_classes(words: Path, model: str, tmp_path: Path) -> None:
    rows = [("", "red", "green", "one", "two"), ("red", "1", "0", "0.9", "0"),
            ("green", "0", "1", "0", "0.9"), ("one", "0.9", "0", "1", "0"),
            ("two", "0", "0.9", "0", "1")]  # fmt: skip
    scores = str(write_table(tmp_path / "scores.csv", rows))
    ranks = RankOptions(scores=scores, thresholds=(0.5,))
    folder = train(_config(words, model, tmp_path, epochs=1, ranks=ranks))
    found = load_run(folder)
    red, one = found.taxonomy.index("red"), found.taxonomy.index("one")
    assert found.ranks.table[red, one] == 2


def test_what_does_not_go_together(words: Path, model: str, tmp_path: Path) -> None:
    for images, option in (
        (ImageOptions(augmentation="weak"), "augmentation"),
        (ImageOptions(image_size=32), "image_size"),
        (ImageOptions(cache=True), "cache"),
        (ImageOptions(skip_unreadable=True), "skip_unreadable"),
    ):
        with pytest.raises(ValueError, match=rf"images.{option} .*texts"):
            train(_config(words, model, tmp_path, images=images))
    with pytest.raises(ValueError, match="ranks.by time .*videos"):
        train(_config(words, model, tmp_path, ranks=RankOptions(by="time")))
    rows = [("text", "label"), ("the red", "x"), ("a red", "x"), ("one", "x")]
    one = write_table(tmp_path / "one.csv", rows)
    with pytest.raises(ValueError, match=r"one class \(x\)"):
        train(_config(one, model, tmp_path, batch_size=2))


def test_the_command_line(words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = parse_with_seeds(
        [str(words), "--text.labels", "[domain, word]", "--text.layers", "3"]
    )[0]
    assert (config.text.labels, config.text.layers) == (("domain", "word"), 3)
    run = config.with_defaults(kind_of(config.data)).sized(10_000, 2)
    assert run.model.backbone == "all-MiniLM-L6-v2"
    assert (run.optim.optimizer, run.optim.lr) == ("adamw", 1e-3)
    assert parse_with_seeds(["a/b.csv"])[0].run_name() == "b-rince-out-in-seed0"
    images = kind_of("photos/")
    run = (
        parse_with_seeds(["photos/", "--optim.lr", "0.1"])[0].with_defaults(images).sized(10_000, 2)
    )
    assert (run.optim.optimizer, run.optim.lr) == ("sgd", 0.1)
    # The paper's 0.5 for 512 images a step, of all processes.
    by_batch = [
        parse_with_seeds(["photos/", "--batch-size", size])[0]
        .with_defaults(images)
        .sized(10_000, processes)
        for size, processes in (("256", 1), ("256", 2), ("64", 1))
    ]
    assert [run.optim.lr for run in by_batch] == [0.25, 0.5, 0.0625]
    assert main(["ranks", str(words), "--batch-size", "8", "--names"]) == 0
    out = capsys.readouterr().out
    assert "56 training texts" in out
    assert "classes: 4, ranks: 2" in out
    assert "colour > red" in out
    classes = write_table(tmp_path / "classes.csv", [("class", "up"), ("a", "x"), ("b", "x")])
    assert main(["ranks", str(classes)]) == 0
    assert "classes: 2, ranks: 2" in capsys.readouterr().out
    with pytest.warns(RinceWarning, match="14 of 14 test texts are training texts too"):
        status = main(["ranks", str(words), "--text.column", "word", "--text.labels", "[domain]"])
    assert status == 0
    assert "classes: 2, ranks: 1" in capsys.readouterr().out
    assert named_outliers(["a/oos.csv", "far=b.jsonl"]) == {"oos": "a/oos.csv", "far": "b.jsonl"}


def test_an_export_of_texts_is_said_not_to_be_evaluated(tmp_path: Path, words: Path) -> None:
    (tmp_path / "modules.json").write_text("[]")  # by which sentence-transformers knows its own
    with pytest.raises(RinceError, match="export of texts, which is not evaluated by itself"):
        evaluate_run(tmp_path, data=str(words))


def test_rates_fall_from_layer_to_layer(words: Path, model: str, tmp_path: Path) -> None:
    """Embeddings, two layers, and the head: the pooler, which nothing reads, is no block."""
    optim = OptimOptions(lr=0.01, warmup_epochs=0, layer_decay=0.5)
    folder = train(_config(words, model, tmp_path, name="decay", optim=optim, epochs=1))
    (state,) = read_checkpoint(folder)["optimizer_states"]
    rates = [group["initial_lr"] for group in state["param_groups"]]
    assert rates == pytest.approx([0.00125, 0.0025, 0.005, 0.01])


@pytest.mark.parametrize(
    ("tuning", "layers", "message"),
    [
        ({"layers": 1}, 2, r"text\.layers .* in place of model\.layers 1"),
        ({"layers": 0}, None, r"text\.layers .* in place of model\.layers 0"),
        ({"lora": 4}, 0, r"model\.lora 4 .* text\.layers 0"),
    ],
)
def test_text_layers_alone_say_what_is_trained(
    tuning: dict[str, int],
    layers: int | None,
    message: str,
    words: Path,
    model: str,
    tmp_path: Path,
) -> None:
    asked = ModelOptions(backbone=model, **tuning)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        train(_config(words, model, tmp_path, model=asked, text=TextOptions(layers=layers)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layers", [TextOptions().layers, None])
def test_low_rank_updates_of_texts(model: str, layers: int | None) -> None:
    pytest.importorskip("peft", reason="needs the extra lora")
    asked = ModelOptions(backbone=model, lora=2)
    given = TrainConfig("words.csv", model=asked, text=TextOptions(layers=layers))
    module = backbone_to_train(given, InputSpec.texts()).module
    trained = [name for name, x in module.named_parameters() if x.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)


def _given(words: Path, backbone: str, max_tokens: int | None) -> Splits:
    """Every other text of the table is a test text."""
    rows = [line.split(",") for line in words.read_text().splitlines()[1:]]
    labels = [(domain, word) for _, domain, word in rows]
    items = from_texts(
        [text for text, *_ in rows], labels, backbone=backbone, max_tokens=max_tokens
    )
    return Splits(*(items.subset(range(start, len(items), 2)) for start in (0, 1)))


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = read_checkpoint(folder)["state_dict"]
    return found


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(x, other[n]) for n, x in one.items())


def test_given_texts_have_the_tokens_of_the_configuration(
    words: Path, model: str, tmp_path: Path
) -> None:
    """Whatever backbone and length they were made for."""
    other = tiny_model(tmp_path, words=WORDS[::-1])
    right, wrong = _given(words, model, 4), _given(words, other, None)
    assert not torch.equal(right.train.batch(torch.arange(2)), wrong.train.batch(torch.arange(2)))
    text = TextOptions(layers=None, max_tokens=4)
    folders = [
        train(
            _config(words, model, tmp_path, data="mine", name=name, text=text, epochs=1),
            splits=splits,
        )
        for name, splits in (("right", right), ("wrong", wrong))
    ]
    assert _equal(*map(_weights, folders))
    found = [
        evaluate_run(folders[0], splits=splits, device="cpu").metrics for splits in (right, wrong)
    ]
    assert found[0] == found[1]
    for folder, splits in zip(folders, (right, wrong), strict=True):
        resume(folder, epochs=2, progress=False, splits=splits)
    assert _equal(*map(_weights, folders))


def test_what_is_left_open_is_as_texts_were_given(words: Path, model: str, tmp_path: Path) -> None:
    other = tiny_model(tmp_path, words=WORDS[::-1])
    splits = _given(words, other, 4)
    open_ = ModelOptions(embedding_dim=8)
    folder = train(
        _config(words, model, tmp_path, data="mine", name="open", model=open_, epochs=1),
        splits=splits,
    )
    config = load_run(folder).config
    assert (config.model.backbone, config.text.max_tokens) == (other, 4)
    own = torch.arange(14).view(7, 2)  # made by hand: nothing is known of them
    tree = splits.train.taxonomy
    hand = Texts(tuple("abcdefg"), own, torch.arange(7) % 4, tree, "mine")
    assert as_fed(Splits(hand, hand), config, None).train.batch(torch.arange(7)).equal(own)
