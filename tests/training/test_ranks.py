"""RINCE on ranks from scores and on noisy ones; what the checkpoint keeps of them."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

import pytest
import torch
import yaml
from small_runs import disturbed, flat_backbone, small_config

from rince import RinceError, RinceWarning, Similarity, Taxonomy
from rince.ranks.noise import forget_ranks, move_classes, noisy_scores
from rince.training.checkpoint import CHECKPOINT_FILE, load_run, read_checkpoint
from rince.training.config import RankOptions, TrainConfig, from_dict, to_dict
from rince.training.folder import CONFIG_FILE
from rince.training.history import read_history
from rince.training.ranks import class_scores, training_ranks
from rince.training.run import resume, train

# Not in the order of the folders (cold/blue, cold/green, warm/orange, warm/red).
NAMES = ["red", "green", "orange", "blue", "purple"]
SCORES = [
    [1.0, 0.1, 0.7, 0.2, 0.5],
    [0.1, 1.0, 0.3, 0.6, 0.1],
    [0.7, 0.3, 1.0, 0.1, 0.2],
    [0.2, 0.6, 0.1, 1.0, 0.8],
    [0.5, 0.1, 0.2, 0.8, 1.0],
]
TREE = Taxonomy([("cold", "blue"), ("cold", "green"), ("warm", "orange"), ("warm", "red")])
THREE_RANKS = [[1, 2, 0, 3], [2, 1, 3, 0], [0, 3, 1, 2], [3, 0, 2, 1]]  # at 0.6 and 0.2


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    Similarity.from_matrix(SCORES, NAMES).to_csv(tmp_path / "scores.csv")
    return tmp_path / "scores.csv"


def _ranks(**options: object) -> RankOptions:
    return RankOptions(**options)  # type: ignore[arg-type]


def test_ranks_of_a_configuration(scores: Path) -> None:
    file, seed = str(scores), 5
    assert training_ranks(_ranks(), TREE, seed).table.tolist() == TREE.table.tolist()
    found = training_ranks(_ranks(scores=file, thresholds=(0.6, 0.2)), TREE, seed)
    assert (found.classes, found.num_ranks) == (TREE.classes, 3)
    assert found.table.tolist() == THREE_RANKS
    aligned = Similarity.from_matrix(SCORES, NAMES).aligned_to(TREE.classes)
    for options, expected in (
        ({"scores": file, "quantiles": (0.7,)}, aligned.by_quantiles([0.7])),
        ({"scores": file, "top_k": (1, 1)}, aligned.by_top_k([1, 1])),
        (
            {"scores": file, "thresholds": (0.3,), "score_noise": 0.4},
            noisy_scores(aligned, 0.4, seed).by_thresholds([0.3]),
        ),
        ({"move_classes": 0.5}, move_classes(TREE, 0.5, seed).class_ranks),
    ):
        found = training_ranks(_ranks(**options), TREE, seed)
        assert torch.equal(found.table, expected.table), options
        assert found.num_ranks == expected.num_ranks
        forgotten = training_ranks(_ranks(**options, forget=0.5), TREE, seed)
        assert torch.equal(forgotten.table, forget_ranks(expected.table, 0.5, seed))


def test_scores_of_classes_by_longer_names_than_they_have_here(tmp_path: Path) -> None:
    """Names of the whole data, in which men/shirts is not the only one of shirts."""
    names = ["men/ties", "ties", "uk/men/shirts", "women/shirts", "men/shirts", "boat"]
    values = torch.arange(36.0).reshape(6, 6)
    Similarity.from_matrix(values, names).to_csv(tmp_path / "s.csv")
    options = _ranks(scores=str(tmp_path / "s.csv"), top_k=(1,))
    for paths, taken in (
        ([("men", "ties"), ("men", "shirts"), ("boat",)], [1, 4, 5]),  # its own name comes first
        ([("x", "women", "shirts"), ("x", "women", "ties")], [3, 1]),
        ([("uk", "men", "shirts"), ("uk", "women", "shirts")], [4, 3]),
        ([("uk", "men", "shirts"), ("uk", "men", "ties")], [2, 1]),  # then the whole
    ):
        tree = Taxonomy(paths)
        found = class_scores(options, tree)
        assert found.classes == tree.classes
        assert found.scores.tolist() == values[taken][:, taken].tolist()
    with pytest.raises(RinceError, match="1 of 2 classes have no scores: shirts; "):
        class_scores(options, Taxonomy([("pets", "shirts"), ("boat",)]))
    # A shorter ending is of two classes.
    with pytest.raises(RinceError, match="2 of 2 classes have no scores: a/ties, b/ties; "):
        class_scores(options, Taxonomy([("a", "ties"), ("b", "ties")]))


def test_a_missing_score(tmp_path: Path) -> None:
    rows = [[float("nan") if (a, b) == (0, 3) else x for b, x in enumerate(row)]
            for a, row in enumerate(SCORES)]  # fmt: skip
    Similarity.from_matrix(rows, NAMES).to_csv(tmp_path / "s.csv")
    for missing, code in (("ignore", -1), ("negative", 0)):
        options = _ranks(scores=str(tmp_path / "s.csv"), thresholds=(0.6, 0.2), missing=missing)
        assert training_ranks(options, TREE, 0).table[3].tolist() == [code, 0, 2, 1]


def test_scores_of_other_classes_are_refused(tmp_path: Path) -> None:
    Similarity.from_matrix([[1.0, 0.0], [0.0, 1.0]], ["reds", "blue"]).to_csv(tmp_path / "s.csv")
    options = _ranks(scores=str(tmp_path / "s.csv"), thresholds=(0.5,))
    with pytest.raises(RinceError, match=r"s.csv: 3 of 4 .*'red' .*'reds'"):
        training_ranks(options, TREE, 0)


def _weights(folder: Path) -> torch.Tensor:
    weights: torch.Tensor = read_checkpoint(folder)["state_dict"]["encoder.backbone.1.weight"]
    return weights


def test_rince_trains_on_the_scores_and_on_nothing_else(
    image_tree: Path, scores: Path, tmp_path: Path
) -> None:
    """Scores that say what the folders say lead to the same weights; others do not."""
    folders = {}
    for name, options in (
        ("folders", _ranks()),
        ("same", _ranks(scores=str(scores), thresholds=(0.6,))),
        ("other", _ranks(scores=str(scores), thresholds=(0.15,))),
        ("three", _ranks(scores=str(scores), thresholds=(0.6, 0.2))),
        ("moved", _ranks(move_classes=0.5)),
    ):
        config = small_config(image_tree, tmp_path, name=name, ranks=options, epochs=1)
        folders[name] = train(config, flat_backbone())
    found = {name: _weights(folder) for name, folder in folders.items()}
    assert torch.equal(found["same"], found["folders"])
    for one, two in itertools.combinations(("folders", "other", "three", "moved"), 2):
        assert not torch.equal(found[one], found[two]), (one, two)
    history = read_history(folders["three"])
    assert {"train/loss_rank_3", "train/positives_rank_3", "train/similarity_rank_3"} <= set(
        history
    )
    kept = read_checkpoint(folders["three"])["rince"]["ranks"]
    assert (kept["table"].tolist(), kept["num_ranks"]) == (THREE_RANKS, 3)
    # It is judged by the folders' own classes all the same.
    assert load_run(folders["three"], flat_backbone()).taxonomy == TREE


class _Stop(Exception):
    pass


def test_a_resumed_run_keeps_its_ranks_without_the_file(
    image_tree: Path, scores: Path, tmp_path: Path
) -> None:
    options = _ranks(scores=str(scores), thresholds=(0.6, 0.2), score_noise=0.05)

    def stop() -> None:
        raise _Stop

    def run(name: str, step: int) -> Path:
        config = small_config(image_tree, tmp_path, name=name, ranks=options, knn_every=0)
        torch.manual_seed(3)
        with contextlib.suppress(_Stop):
            train(config, disturbed(step, stop))
        return tmp_path / name

    whole, stopped = run("whole", -1), run("stopped", 4)
    assert read_checkpoint(stopped)["global_step"] < read_checkpoint(whole)["global_step"]
    scores.unlink()
    resume(stopped, progress=False, backbone=disturbed(-1, stop))
    weights = [read_checkpoint(f)["state_dict"]["encoder.backbone.linear.weight"]
               for f in (whole, stopped)]  # fmt: skip
    assert torch.equal(*weights)


def test_ranks_that_changed_are_refused(image_tree: Path, scores: Path, tmp_path: Path) -> None:
    options = _ranks(scores=str(scores), thresholds=(0.6,))
    config = small_config(image_tree, tmp_path, name="run", ranks=options, epochs=1, knn_every=0)
    folder = train(config, flat_backbone())

    def again() -> None:
        resume(folder, progress=False, backbone=flat_backbone())

    again()
    # Another file that gives the same ranks is as good; one that does not is not.
    Similarity.from_matrix([[x + 0.01 for x in row] for row in SCORES], NAMES).to_csv(scores)
    again()
    Similarity.from_matrix([[x - 0.05 for x in row] for row in SCORES], NAMES).to_csv(scores)
    with pytest.raises(RinceError, match=r"scores.csv .*ranks"):
        again()
    scores.unlink()
    again()
    Similarity.from_matrix(SCORES, NAMES).to_csv(scores)
    said = yaml.safe_load((folder / CONFIG_FILE).read_text())
    for changed in ({"thresholds": [0.15]}, {"thresholds": None, "scores": None, "forget": 0.5}):
        edited = {**said, "ranks": {**said["ranks"], **changed}}
        (folder / CONFIG_FILE).write_text(yaml.safe_dump(edited))
        with pytest.raises(RinceError, match=r"ranks .*config.yaml"):
            again()


def test_a_checkpoint_from_before_there_were_scores(image_tree: Path, tmp_path: Path) -> None:
    config = small_config(image_tree, tmp_path, name="run", epochs=1, knn_every=0)
    folder = train(config, flat_backbone())
    checkpoint = torch.load(folder / CHECKPOINT_FILE)
    del checkpoint["rince"]["ranks"], checkpoint["rince"]["config"]["ranks"]
    torch.save(checkpoint, folder / CHECKPOINT_FILE)
    resume(folder, progress=False, backbone=flat_backbone())
    said = yaml.safe_load((folder / CONFIG_FILE).read_text())
    said["ranks"]["move_classes"] = 0.5
    (folder / CONFIG_FILE).write_text(yaml.safe_dump(said))
    with pytest.raises(RinceError, match=r"ranks .*config.yaml"):
        resume(folder, progress=False, backbone=flat_backbone())


def test_a_wrong_number_of_temperatures_for_the_ranks(
    image_tree: Path, scores: Path, tmp_path: Path
) -> None:
    options = _ranks(scores=str(scores), thresholds=(0.8, 0.6, 0.2))
    config = small_config(image_tree, tmp_path, ranks=options)
    config.loss.temperatures = (0.1, 0.2, 0.3)
    with pytest.raises(ValueError, match="loss.temperatures holds 3.* 4 rank"):
        train(config, flat_backbone())


def test_names_and_yaml() -> None:
    ranks = _ranks(scores="a/mine.csv", thresholds=(0.8, 0.5), forget=0.1)
    config = TrainConfig(data="photos/", ranks=ranks)
    assert config.label() == "rince out-in, mine thresholds 0.8 0.5, forget 0.1"
    assert config.run_name() == "photos-rince-out-in-mine-thresholds-0.8-0.5-forget-0.1-seed0"
    assert from_dict(yaml.safe_load(yaml.safe_dump(to_dict(config)))) == config
    other = TrainConfig(data="photos/", objective="infonce", ranks=_ranks(forget=0.1))
    with pytest.warns(RinceWarning, match="^ranks.forget .*infonce"):
        other.check()
    assert (other.label(), other.run_name()) == ("infonce", "photos-infonce-seed0")
