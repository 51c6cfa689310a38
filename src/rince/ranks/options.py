"""How ranks are chosen, as options. No torch here: ``rince --help`` reads this file."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, fields
from pathlib import PurePath
from typing import Literal

from rince.core.checks import require
from rince.core.options import Options, limited

SCORE_FILES = (".csv", ".npy", ".parquet")
RULES = ("thresholds", "quantiles", "top_k")
TIME_OPTIONS = ("near", "unit", "shots", "beyond")


@dataclass
class RankOptions(Options):
    """How similar two items are for RINCE; by default as the superclasses of the data say.

    Runs are always evaluated by the classes and superclasses of the data, or of tree.

    Args:
        by: "classes", or "time": clips of videos by when they were recorded, without any label;
            supcon-in and supcon-out then take all of a video as positives.
        near: by time: the largest gaps of clips of rank 2, 3, ...; [] leaves the ranks "same
            clip" and "same video".
        unit: by time: of near, "seconds" or "fraction" of the video.
        shots: by time: clips of one shot have rank 2, whatever near says (see videos.shots).
        beyond: by time: the rest of the video is one more "rank", "negative", or "ignore"d.
        scores: rank classes by similarity scores: a .csv, .npy or .parquet file of a
            class-by-class matrix with names, or text (a sentence-embedding model on the class
            names), or wordnet (path similarity of the class names); or captions: of
            vectors.captions, their cosines.
        tree: superclasses for the classes of the data, which may have none: a table of the columns
            child and parent, or class, superclass, ... (.csv, .tsv, .jsonl, .parquet). Whatever
            the objective, the run is evaluated by them.
        thresholds: the lowest scores of rank 2, 3, ..., falling.
        quantiles: thresholds at these quantiles of all scores, falling (0.95: the top 5 %).
        top_k: how many of the most similar classes have rank 2, how many of the next ones rank
            3, ...
        missing: pairs of classes without a score are ignored, or negatives.
        text_model: a sentence-transformers model for scores text; None takes all-MiniLM-L6-v2,
            which the extra rince[text] brings along.
        score_noise: add normal noise of this standard deviation to the scores (by the seed).
        move_classes: move this share of the classes into a wrong superclass for RINCE (by the
            seed); not together with scores.
        forget: ignore this share of the pairs of classes (by the seed).
    """

    prefix = "ranks."

    by: Literal["classes", "time"] = "classes"
    near: tuple[float, ...] = limited((10.0,), low=0)
    unit: Literal["seconds", "fraction"] = "seconds"
    shots: bool = False
    beyond: Literal["rank", "negative", "ignore"] = "rank"
    scores: str | None = None
    tree: str | None = None
    thresholds: tuple[float, ...] | None = limited(None, shortest=1)
    quantiles: tuple[float, ...] | None = limited(None, low=0, high=1, shortest=1)
    top_k: tuple[int, ...] | None = limited(None, low=1, shortest=1)
    missing: Literal["ignore", "negative"] = "ignore"
    text_model: str | None = None
    score_noise: float = limited(0.0, low=0)
    move_classes: float = limited(0.0, low=0, high=1)
    forget: float = limited(0.0, low=0, high=1)

    def rules(self) -> list[str]:
        """Which of thresholds, quantiles and top_k are given."""
        return [name for name in RULES if getattr(self, name) is not None]

    def check(self) -> None:
        super().check()
        default, by_time = RankOptions(), self.by == "time"
        for option in fields(self):
            timed = option.name in TIME_OPTIONS
            require(
                timed == by_time
                or option.name == "by"
                or getattr(self, option.name) == getattr(default, option.name),
                f"ranks.{option.name} is for ranks.by {'time' if timed else 'classes'}, but "
                f"ranks.by is {self.by}",
            )
        if self.scores is None:
            for name in (*RULES, "missing", "text_model", "score_noise"):
                require(
                    getattr(self, name) == getattr(default, name),
                    f"ranks.{name} needs scores: give ranks.scores, a file, text or wordnet (with "
                    f"vectors.captions: captions)",
                )
        else:
            require(
                self.scores in ("text", "wordnet", "captions")
                or self.scores.lower().endswith(SCORE_FILES),
                f"ranks.scores must be text, wordnet, a file that ends in "
                f"{', '.join(SCORE_FILES)}, or with vectors.captions captions; got {self.scores!r}",
            )
            require(
                len(self.rules()) == 1,
                f"ranks.scores needs one rule, ranks.thresholds, ranks.quantiles or ranks.top_k; "
                f"got {' and '.join(self.rules()) or 'none'}",
            )
            require(
                self.move_classes == 0,
                "ranks.move_classes moves classes between superclasses, which ranks.scores does "
                "not use: take ranks.score_noise instead",
            )
        require(
            self.text_model is None or self.scores == "text",
            f"ranks.text_model is for ranks.scores text, got {self.scores}",
        )
        require(
            self.unit == "seconds" or max(self.near, default=0) <= 1,
            f"ranks.near in fractions of the video must be at most 1, got {self.near}",
        )
        for name in ("near", "thresholds", "quantiles"):
            given = getattr(self, name) or ()
            up = given if name == "near" else given[::-1]
            require(
                all(a < b for a, b in itertools.pairwise(up)),
                f"ranks.{name} must {'rise' if name == 'near' else 'fall'} from rank 2 on, got "
                f"{', '.join(f'{x:g}' for x in given)}",
            )

    def label(self) -> str:
        """What differs from the default ranks, for a table; "" if nothing does."""
        parts = []
        if self.by == "time":
            near = " ".join(f"{x:g}" for x in self.near)
            parts.append(" ".join(filter(None, ["time", near, "shots" if self.shots else ""])))
            parts += [self.unit] * (self.unit != "seconds")
            parts += [f"beyond {self.beyond}"] * (self.beyond != "rank")
        for name in self.rules():
            shown = " ".join(f"{x:g}" for x in getattr(self, name))
            source = PurePath(self.scores or "").stem
            parts.append(f"{source} {name.replace('_', '-')} {shown}")
        for name in ("score_noise", "move_classes", "forget"):
            if getattr(self, name):
                parts.append(f"{name.replace('_', '-')} {getattr(self, name):g}")
        return ", ".join(parts)

    def slug(self) -> str:
        """The same as a part of a folder's name."""
        return re.sub(r"[^\w.]+", "-", self.label())
