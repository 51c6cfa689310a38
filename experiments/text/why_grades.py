"""What the grades do on Cranfield: is a relevant abstract found, and is a better one ahead?

    python experiments/text/why_grades.py DATA/cranfield [FOLDS]

Seed 0, the first two of graded.py's folds (90 questions). For each method NDCG@10 with grades and
without, the share of (judged, other) pairs of abstracts in the right order, and of (better grade,
worse grade) pairs. "two ranks" takes grades 4 and 3 together, and 2 and 1; "soft" doubles the first
temperature.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import graded
from common import encode

from rince.metrics import ndcg

GRADES = {
    "rince grades": ([4, 3, 2, 1], (0.05, 0.08, 0.12, 0.2)),
    "rince grades, two ranks": ([3, 1], (0.05, 0.1)),
    "rince grades, soft": ([4, 3, 2, 1], (0.1, 0.13, 0.17, 0.2)),
}


def main(folder: Path, folds: int) -> None:
    queries, corpus, judged = graded.load(folder)
    for method in ("frozen", "rince binary", *GRADES):
        shares: dict[str, list[float]] = {"NDCG@10": [], "binary": [], "judged": [], "grades": []}
        for fold in range(folds):
            test, rest = graded.split(list(queries), 0, fold, graded.FOLDS)
            if method in GRADES:
                graded.GRADES, graded.TEMPERATURES = GRADES[method]  # type: ignore[assignment]
            model, _ = graded.fit(
                "rince grades" if method in GRADES else method, queries, corpus, judged, rest, 0,
                graded.EPOCHS, graded.LAYERS, graded.MAX_LENGTH,
            )  # fmt: skip
            z, c = encode(model, [queries[q] for q in test]), encode(model, list(corpus.values()))
            gains = graded.gains_of(corpus, judged, test)
            shares["NDCG@10"] += ndcg(z, c, gains)[10].tolist()
            shares["binary"] += ndcg(z, c, (gains > 0).float())[10].tolist()
            for similarity, gain in zip(z @ c.T, gains, strict=True):
                own, grades, others = similarity[gain > 0], gain[gain > 0], similarity[gain == 0]
                shares["judged"].append(float((own[:, None] > others).float().mean()))
                better = grades[:, None] > grades
                if better.any():
                    ahead = (own[:, None] > own)[better]
                    shares["grades"].append(float(ahead.float().mean()))
        means = {name: round(100 * statistics.fmean(values), 1) for name, values in shares.items()}
        print(method, means, flush=True)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) == 3 else 2)
