"""The losses as their papers write them: float64 loops over pairs, no shift, no matrix, no mask.

Plain ``exp`` is enough: float64 holds e^700, a cosine over a temperature of 0.01 is at most 100.
A query that has nothing to learn (no term with both a positive and a key less similar than it)
gives ``None`` instead of a number, and takes no part in the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, log

Matrix = Sequence[Sequence[float]]
Ranks = Sequence[Sequence[int]]


def similarities(query: Matrix, key: Matrix) -> list[list[float]]:
    """(Q, K) dot products."""
    return [[sum(a * b for a, b in zip(q, k, strict=True)) for k in key] for q in query]


def rince_terms(
    similarity: Sequence[float],
    ranks: Sequence[int],
    temperatures: Sequence[float],
    variant: str,
    positives: str = "exclusive",
) -> list[float | None]:
    """l_1(q), ..., l_R(q) of one query; None for a term that is skipped."""
    pairs = list(zip(similarity, ranks, strict=True))
    terms: list[float | None] = []
    for i, tau in enumerate(temperatures, start=1):
        wanted = range(1, i + 1) if positives == "cumulative" else [i]
        positive = [exp(s / tau) for s, rank in pairs if rank in wanted]
        # P_{i+1} u ... u P_R u N
        less_similar = [exp(s / tau) for s, rank in pairs if rank == 0 or rank > i]
        if not positive or not less_similar:
            terms.append(None)
        elif variant == "out" or (variant == "out-in" and i == 1):
            each = [-log(p / (p + sum(less_similar))) for p in positive]
            terms.append(sum(each) / len(each))
        else:
            terms.append(-log(sum(positive) / (sum(positive) + sum(less_similar))))
    return terms


def rince(
    query: Matrix,
    key: Matrix,
    ranks: Ranks,
    temperatures: Sequence[float],
    variant: str,
    positives: str = "exclusive",
) -> list[float | None]:
    """L(q) of every query: the sum of its terms."""
    losses: list[float | None] = []
    for similarity, row in zip(similarities(query, key), ranks, strict=True):
        terms = rince_terms(similarity, row, temperatures, variant, positives)
        there = [term for term in terms if term is not None]
        losses.append(sum(there) if there else None)
    return losses


def supcon_out(query: Matrix, key: Matrix, ranks: Ranks, tau: float) -> list[float | None]:
    """-1/|P| sum_p log(e^(s_p/tau) / sum_a e^(s_a/tau)), a over all candidates."""
    return _one_rank(query, key, ranks, tau, lambda p, total: -_mean([log(x / total) for x in p]))


def supcon_in(query: Matrix, key: Matrix, ranks: Ranks, tau: float) -> list[float | None]:
    """-log(1/|P| sum_p e^(s_p/tau) / sum_a e^(s_a/tau)), a over all candidates."""
    return _one_rank(query, key, ranks, tau, lambda p, total: -log(_mean([x / total for x in p])))


def info_nce(query: Matrix, key: Matrix, ranks: Ranks, tau: float) -> list[float | None]:
    """-log(e^(s_p/tau) / sum_k e^(s_k/tau)), p the only positive."""

    def loss(positive: list[float], total: float) -> float:
        (p,) = positive
        return -log(p / total)

    return _one_rank(query, key, ranks, tau, loss)


def himulcon(
    query: Matrix, key: Matrix, ranks: Ranks, tau: float, weights: Sequence[float]
) -> list[float | None]:
    """1/L sum_l w_l/|P_l| sum_p max(l(i, p), M_(l-1)), M_l the worst pair of level l of all."""
    pairs: list[tuple[int, int, float]] = []  # query, rank, -log(e^(s_p/tau) / sum_a e^(s_a/tau))
    for i, (similarity, row) in enumerate(zip(similarities(query, key), ranks, strict=True)):
        candidates = [exp(s / tau) for s, rank in zip(similarity, row, strict=True) if rank >= 0]
        if len(candidates) > 1:
            for s, rank in zip(similarity, row, strict=True):
                if rank >= 1:
                    pairs.append((i, rank, -log(exp(s / tau) / sum(candidates))))
    losses: list[float | None] = []
    for i in range(len(query)):
        own = [pair for pair in pairs if pair[0] == i]
        loss = 0.0
        for level, weight in enumerate(weights, start=1):
            finer = [value for _, rank, value in pairs if rank == level - 1]
            here = [max([value, *finer]) for _, rank, value in own if rank == level]
            if here:
                loss += weight * _mean(here) / len(weights)
        losses.append(loss if own else None)
    return losses


def hierarchical_triplets(
    query: Matrix, key: Matrix, ranks: Ranks, margin: float, num_ranks: int
) -> list[float]:
    """max(0, |q-p|^2 - |q-n|^2 + (j - i) m) of every triplet, p of rank i, n of a worse rank j."""
    losses = []
    for q, row in zip(query, ranks, strict=True):
        level = [num_ranks + 1 if rank == 0 else rank for rank in row]
        far = [sum((a - b) ** 2 for a, b in zip(q, k, strict=True)) for k in key]
        for d_p, i in zip(far, level, strict=True):
            for d_n, j in zip(far, level, strict=True):
                if 1 <= i < j:
                    losses.append(max(0.0, d_p - d_n + (j - i) * margin))
    return losses


def x_clr(
    query: Matrix, key: Matrix, ranks: Ranks, tau: float, target_tau: float, scores: Matrix
) -> list[float | None]:
    """Whoever has two candidates; ``scores`` is the graph."""
    losses: list[float | None] = []
    for similarity, row, graph in zip(similarities(query, key), ranks, scores, strict=True):
        there = [j for j, rank in enumerate(row) if rank >= 0]
        total = sum(exp(similarity[j] / tau) for j in there)
        mass = sum(exp(graph[j] / target_tau) for j in there)
        each = [
            -exp(graph[j] / target_tau) / mass * log(exp(similarity[j] / tau) / total)
            for j in there
        ]
        losses.append(sum(each) if len(there) > 1 else None)
    return losses


def smooth_ap(
    query: Matrix, key: Matrix, ranks: Ranks, tau: float, num_ranks: int, alpha: float = 1.0
) -> list[float | None]:
    """1 - H-AP, a sigmoid for each comparison of two keys."""
    losses: list[float | None] = []
    for similarity, row in zip(similarities(query, key), ranks, strict=True):
        there = {
            j: ((num_ranks + 1 - rank) / num_ranks) ** alpha if rank > 0 else 0.0
            for j, rank in enumerate(row)
            if rank >= 0
        }

        def above(j: int, k: int, similarity: list[float] = similarity) -> float:
            return 1 / (1 + exp(-(similarity[j] - similarity[k]) / tau))

        total = 0.0
        for k, own in there.items():
            others = [j for j in there if j != k]
            met = own + sum(min(own, there[j]) * above(j, k) for j in others)
            total += met / (1 + sum(above(j, k) for j in others)) if own else 0
        if len(set(there.values())) > 1:
            losses.append(1 - total / sum(there.values()))
        else:
            losses.append(None)
    return losses


def supcon_siblings(
    query: Matrix, key: Matrix, ranks: Ranks, tau: float, num_ranks: int
) -> list[list[float | None]]:
    """SupCon-out of each level, on ranks rewritten for it."""
    levels = []
    for level in range(1, num_ranks + 1):
        negative = level + 1 if level < num_ranks else 0
        rewritten = [
            [1 if 1 <= rank <= level else 0 if rank == negative else -1 for rank in row]
            for row in ranks
        ]
        levels.append(supcon_out(query, key, rewritten, tau))
    return levels


def cross_scale(
    query: Matrix, key: Matrix, ranks: Ranks, tau: float, margin: float, num_ranks: int
) -> list[float | None]:
    """A log(1 + ...) for each level and each key of rank 1."""
    losses: list[float | None] = []
    for similarity, row in zip(similarities(query, key), ranks, strict=True):
        pairs = list(zip(similarity, row, strict=True))
        terms = []
        positives = [s for s, rank in pairs if rank == 1]
        for level in range(1, num_ranks + 1):
            worse = [s for s, rank in pairs if rank == 0 or rank > level]
            for p in positives if worse else []:
                total = sum(exp((s - p + level * margin) / tau) for s in worse)
                terms.append(log(1 + total) / len(positives))
        losses.append(sum(terms) if terms else None)
    return losses


def sincere(query: Matrix, key: Matrix, ranks: Ranks, tau: float) -> list[float | None]:
    """Each positive against itself and the negatives; no other positive in its denominator."""
    losses: list[float | None] = []
    for similarity, row in zip(similarities(query, key), ranks, strict=True):
        positives = [exp(s / tau) for s, rank in zip(similarity, row, strict=True) if rank == 1]
        noise = sum(exp(s / tau) for s, rank in zip(similarity, row, strict=True) if rank == 0)
        each = [-log(p / (p + noise)) for p in positives]
        losses.append(_mean(each) if each and noise else None)
    return losses


def mean(losses: Sequence[float | None]) -> float:
    """Mean over the queries that have something to learn; 0 if there are none."""
    there = [loss for loss in losses if loss is not None]
    return _mean(there) if there else 0.0


def central_differences(
    function: Callable[[list[list[float]]], float], at: Matrix, step: float = 1e-6
) -> list[list[float]]:
    """The gradient of a function of a matrix, by moving one entry at a time."""
    point = [list(row) for row in at]
    gradient = [[0.0] * len(row) for row in point]
    for row in range(len(point)):
        for column in range(len(point[row])):
            here = point[row][column]
            point[row][column] = here + step
            above = function(point)
            point[row][column] = here - step
            below = function(point)
            point[row][column] = here
            gradient[row][column] = (above - below) / (2 * step)
    return gradient


def _one_rank(
    query: Matrix,
    key: Matrix,
    ranks: Ranks,
    tau: float,
    loss: Callable[[list[float], float], float],
) -> list[float | None]:
    losses: list[float | None] = []
    for similarity, row in zip(similarities(query, key), ranks, strict=True):
        candidates = [exp(s / tau) for s, rank in zip(similarity, row, strict=True) if rank >= 0]
        positive = [exp(s / tau) for s, rank in zip(similarity, row, strict=True) if rank == 1]
        if positive and len(candidates) > 1:
            losses.append(loss(positive, sum(candidates)))
        else:
            losses.append(None)
    return losses


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def rank_n_contrast(z: Matrix, targets: Matrix, tau: float) -> float:
    """Equations 1 and 2 of the paper, pair by pair."""

    def apart(a: Sequence[float], b: Sequence[float]) -> float:
        return sum(abs(x - y) for x, y in zip(a, b, strict=True))

    def similarity(i: int, j: int) -> float:
        return -(sum((a - b) ** 2 for a, b in zip(z[i], z[j], strict=True)) ** 0.5)

    terms = []
    for i in range(len(z)):
        for j in range(len(z)):
            if i != j:
                wanted = apart(targets[i], targets[j])
                total = sum(
                    exp(similarity(i, k) / tau)
                    for k in range(len(z))
                    if k != i and apart(targets[i], targets[k]) >= wanted
                )
                terms.append(-log(exp(similarity(i, j) / tau) / total))
    return sum(terms) / len(terms)
