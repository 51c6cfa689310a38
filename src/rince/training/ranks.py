"""The ranks that RINCE trains on: the folders' superclasses, or scores, with noise; or time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from rince.core.checks import RinceError
from rince.core.files import user_path
from rince.core.tables import composed, read_as
from rince.data.given_tree import GivenTree, read_tree
from rince.data.items import Items
from rince.ranks.class_names import name_scores_by_text, name_scores_by_wordnet
from rince.ranks.class_ranks import ClassRanks
from rince.ranks.noise import forget_ranks, move_classes, noisy_scores
from rince.ranks.options import RankOptions
from rince.ranks.similarity import Similarity, SimilarityRanks
from rince.ranks.taxonomy import Taxonomy
from rince.ranks.time import ItemTimes, TimeRanks
from rince.training.config import TrainConfig, from_dict
from rince.training.step import RankSource


def rank_source(config: TrainConfig, items: Items) -> RankSource:
    """Ranks by the classes of the items, or by their times."""
    ranks = config.ranks
    if ranks.by == "classes":
        with read_as(config.table.encoding):
            return training_ranks(ranks, items.taxonomy, config.seed)
    if items.times is None:
        raise ValueError(f"ranks.by time needs videos, and {config.data} holds none")
    rule = TimeRanks(ranks.near, unit=ranks.unit, shots=ranks.shots, beyond=ranks.beyond)
    return ItemTimes(rule, items.times)


def training_ranks(config: RankOptions, taxonomy: Taxonomy, seed: int) -> ClassRanks | Taxonomy:
    """The ranks of a configuration: a class tree, or a table of its classes."""
    ranks: ClassRanks | Taxonomy
    if config.scores is not None:
        scores = class_scores(config, taxonomy)
        if config.score_noise:
            scores = noisy_scores(scores, config.score_noise, seed)
        ranks = ranks_by_rule(config, scores)
    elif config.move_classes:
        ranks = move_classes(taxonomy, config.move_classes, seed)
    else:
        ranks = taxonomy
    if config.forget:
        if isinstance(ranks, Taxonomy):
            ranks = ranks.class_ranks
        table = forget_ranks(ranks.table, config.forget, seed)
        ranks = ClassRanks(ranks.classes, table, ranks.num_ranks)
    return ranks


def class_scores(config: RankOptions, taxonomy: Taxonomy) -> Similarity:
    """The scores of its classes, in their order."""
    source, classes = str(config.scores), taxonomy.classes
    if source == "wordnet":
        return name_scores_by_wordnet(classes)
    if source == "text":
        # Loading a model draws random numbers: the encoder's first weights are to be the same as
        # with these scores from a file.
        with torch.random.fork_rng():
            return name_scores_by_text(classes, config.text_model)
    scores = Similarity.from_file(user_path(source))
    there = {composed(name) for name in scores.classes}
    try:
        aligned = scores.aligned_to([_name_among(there, taxonomy, i) for i in range(len(classes))])
    except ValueError as error:
        raise RinceError(f"{source}: {error}") from None
    return Similarity(classes, aligned.scores)


def _name_among(names: Collection[str], taxonomy: Taxonomy, label: int) -> str:
    """A class's name; or, where that is not among these names, a longer ending of its path, such as
    the whole: of which two classes are called alike depends on the split."""
    name, path = taxonomy.classes[label], taxonomy.paths[label]
    endings = ["/".join(path[k:]) for k in range(len(path))]
    longer = endings[: endings.index(name)]
    return next((x for x in (name, *longer) if x in names), name)


def ranks_by_rule(config: RankOptions, scores: Similarity) -> SimilarityRanks:
    """Ranks by the one rule that is given."""
    if config.thresholds is not None:
        return scores.by_thresholds(config.thresholds, missing=config.missing)
    if config.quantiles is not None:
        return scores.by_quantiles(config.quantiles, missing=config.missing)
    return scores.by_top_k(config.top_k or (), missing=config.missing)


def to_checkpoint(ranks: RankSource) -> dict[str, Any] | None:
    """As plain data; :func:`kept_ranks` reads it. Times are the data's own."""
    if isinstance(ranks, ItemTimes):
        return None
    if isinstance(ranks, Taxonomy):
        return {"paths": [list(path) for path in ranks.paths]}
    return {"table": ranks.table, "num_ranks": ranks.num_ranks}


def kept_ranks(about: Mapping[str, Any], taxonomy: Taxonomy) -> ClassRanks | Taxonomy:
    """The ranks in a checkpoint; an older rince's holds a table, or none: the taxonomy's."""
    kept = about.get("ranks")
    if kept is None:
        return taxonomy
    if "paths" in kept:
        return Taxonomy(kept["paths"])
    return ClassRanks(taxonomy.classes, kept["table"], kept["num_ranks"])


def _same_ranks(one: ClassRanks | Taxonomy, two: ClassRanks | Taxonomy) -> bool:
    if isinstance(one, Taxonomy) and isinstance(two, Taxonomy):
        return one == two
    return one.num_ranks == two.num_ranks and torch.equal(one.table, two.table)


def resumed_ranks(
    about: Mapping[str, Any], items: Items, config: TrainConfig, folder: Path
) -> RankSource:
    """The ranks that a run was trained on, as its checkpoint holds them; a score file that is still
    there must give the same ones."""
    scores, was = config.ranks.scores, from_dict(about["config"]).ranks
    changed = was != config.ranks
    if "time" in (was.by, config.ranks.by):
        if changed:
            raise other_than_trained("ranks in its config.yaml are", folder)
        return rank_source(config, items)
    before = kept_ranks(about, items.taxonomy)
    if changed or (scores is not None and user_path(scores).is_file()):
        now = rank_source(config, items)
        assert not isinstance(now, ItemTimes)
        if not _same_ranks(now, before):
            what = "ranks in its config.yaml are" if changed else f"scores in {scores} give ranks"
            raise other_than_trained(what, folder)
    return before


def kept_tree(about: Mapping[str, Any]) -> GivenTree | None:
    """The tree of ``ranks.tree`` in a checkpoint, with the classes that the run's data lack."""
    if about.get("tree") is None:
        return None
    return GivenTree(Taxonomy(about["tree"]), about["config"]["ranks"]["tree"], recorded=True)


def resumed_tree(about: Mapping[str, Any], config: TrainConfig) -> GivenTree | None:
    """The tree for a run that goes on: in the file, if it is still there, which must give the
    classes the same superclasses; or in the checkpoint."""
    file = config.ranks.tree
    if file is not None and not user_path(file).is_file() and about.get("tree") is not None:
        return kept_tree(about)
    return read_tree(file, config.table.encoding)


def other_than_trained(what: str, folder: Path) -> RinceError:
    """Of a run that is to go on: the data or ranks are not what they were."""
    return RinceError(
        f"the {what} not those that {folder} was trained on: put them back as they were, or start "
        f"a new run"
    )
