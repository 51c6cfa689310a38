"""How ranks are chosen, as options. No torch here: ``rince --help`` reads this file."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from pathlib import PurePath
from typing import Literal

from rince.core.checks import require
from rince.core.options import check_choices

SCORE_FILES = (".csv", ".npy", ".parquet")
RULES = ("thresholds", "quantiles", "top_k")
TIME_OPTIONS = ("near", "unit", "shots", "beyond")


@dataclass
class RankOptions:
    """How similar RINCE takes images to be; by default as the folders' superclasses say.

    What a run is judged by (fine and coarse labels, rank order) is always the folders' own.

    Args:
        by: "classes", or "time": clips of videos by when they were recorded, without any label;
            supcon-in and supcon-out then take all of a video as positives.
        near: by time: clips at most so far apart have rank 2, 3, ...; [] leaves the ranks "same
            clip" and "same video".
        unit: by time: of near, "seconds" or "fraction" of the video.
        shots: by time: clips of one shot have rank 2, whatever near says (see videos.shots).
        beyond: by time: the rest of the video is one more "rank", "negative", or "ignore"d.
        scores: rank classes by similarity scores: a .csv, .npy or .parquet file of a
            class-by-class matrix with names, or text (a sentence-embedding model on the class
            names), or wordnet (path similarity of the class names).
        thresholds: falling scores from which on classes have rank 2, 3, ...
        quantiles: thresholds at these quantiles of all scores, falling (0.95: the top 5 %).
        top_k: so many most similar classes have rank 2, so many next ones rank 3, ...
        missing: pairs of classes without a score are ignored, or negatives.
        text_model: a sentence-transformers model for scores text; None takes all-MiniLM-L6-v2,
            which the extra rince[text] brings along.
        score_noise: disturb the scores by normal noise of this standard deviation (by the seed).
        move_classes: move this share of the classes into a wrong superclass for RINCE (by the
            seed); not together with scores.
        forget: ignore this share of the pairs of classes (by the seed).
    """

    by: Literal["classes", "time"] = "classes"
    near: tuple[float, ...] = (10.0,)
    unit: Literal["seconds", "fraction"] = "seconds"
    shots: bool = False
    beyond: Literal["rank", "negative", "ignore"] = "rank"
    scores: str | None = None
    thresholds: tuple[float, ...] | None = None
    quantiles: tuple[float, ...] | None = None
    top_k: tuple[int, ...] | None = None
    missing: Literal["ignore", "negative"] = "ignore"
    text_model: str | None = None
    score_noise: float = 0.0
    move_classes: float = 0.0
    forget: float = 0.0

    def rules(self) -> list[str]:
        """Which of thresholds, quantiles and top_k are given."""
        return [name for name in RULES if getattr(self, name) is not None]

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            ValueError: scores without exactly one rule, an option that needs what is not given,
                or noise out of range.
        """
        check_choices(self, "ranks.")
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
                    f"ranks.{name} needs scores: give ranks.scores, a file, text or wordnet",
                )
        else:
            require(
                self.scores in ("text", "wordnet") or self.scores.endswith(SCORE_FILES),
                f"ranks.scores must be text, wordnet, or a file that ends in "
                f"{', '.join(SCORE_FILES)}; got {self.scores!r}",
            )
            require(
                len(self.rules()) == 1,
                f"ranks.scores needs one rule, ranks.thresholds, ranks.quantiles or ranks.top_k; "
                f"got {' and '.join(self.rules()) or 'none'}",
            )
            require(
                self.move_classes == 0,
                "ranks.move_classes moves classes between the folders' superclasses, which have no "
                "part in ranks by ranks.scores: disturb those with ranks.score_noise",
            )
        require(
            self.text_model is None or self.scores == "text",
            f"ranks.text_model is for ranks.scores text, got {self.scores}",
        )
        require(
            math.isfinite(self.score_noise) and self.score_noise >= 0,
            f"ranks.score_noise must be at least 0, got {self.score_noise}",
        )
        for name in ("move_classes", "forget"):
            share = getattr(self, name)
            require(0 <= share <= 1, f"ranks.{name} is a share in [0, 1], got {share}")

    def label(self) -> str:
        """What differs from the folders' ranks, for a table; "" if nothing does."""
        parts = []
        if self.by == "time":
            near = " ".join(f"{x:g}" for x in self.near)
            parts.append(" ".join(filter(None, ["time", near, "shots" if self.shots else ""])))
            parts += [self.unit] * (self.unit != "seconds")
            parts += [f"beyond {self.beyond}"] * (self.beyond != "rank")
        for name in self.rules():
            shown = " ".join(f"{x:g}" for x in getattr(self, name))
            parts.append(f"{self._source()} {name.replace('_', '-')} {shown}")
        for name in ("score_noise", "move_classes", "forget"):
            if getattr(self, name):
                parts.append(f"{name.replace('_', '-')} {getattr(self, name):g}")
        return ", ".join(parts)

    def slug(self) -> str:
        """The same as a part of a folder's name."""
        return re.sub(r"[^\w.]+", "-", self.label())

    def _source(self) -> str:
        return PurePath(self.scores or "").stem
