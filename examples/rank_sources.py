"""Where else do ranks come from? Four kinds of scores between items, each on real data.

python examples/rank_sources.py [--smoke]
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from digits import arguments

import rince
from rince.ranks.score_ranks import PairSummary


def graph() -> PairSummary:
    """Zachary's karate club (1977): members one and two friendships apart."""
    import networkx

    club = networkx.karate_club_graph()
    nodes = torch.arange(len(club))
    edges = torch.tensor(list(club.edges)).T
    hops = rince.ranks.graph_closeness(edges, len(club), nodes, nodes, max_hops=2)
    return rince.ScoreRanks([-1, -2]).describe(hops, ignore_self=True)


def targets() -> PairSummary:
    """Diabetes progression of 442 patients (Efron et al., 2004): near in their target."""
    from sklearn.datasets import load_diabetes

    y = torch.tensor(load_diabetes().target)
    return rince.ScoreRanks([-10, -50, -100]).describe(
        rince.ranks.target_closeness(y, y), ignore_self=True
    )


def label_sets() -> PairSummary:
    """18 women and the 14 events they went to (Davis et al., 1941): how many in common."""
    import networkx
    from networkx.algorithms import bipartite

    women_and_events = networkx.davis_southern_women_graph()
    women = women_and_events.graph["top"]
    went = torch.tensor(bipartite.biadjacency_matrix(women_and_events, women).toarray())
    return rince.ScoreRanks([0.6, 0.3]).describe(
        rince.ranks.label_overlap(went, went), ignore_self=True
    )


def teacher() -> PairSummary:
    """A text model's opinion of the names of CIFAR-100; thresholds by quantile."""
    scores = rince.ranks.name_scores_by_text(rince.Taxonomy.cifar100().classes).scores.clone()
    scores.fill_diagonal_(torch.nan)
    return rince.ScoreRanks.from_quantiles(scores, [0.99, 0.95]).describe(scores)


def main() -> Iterator[tuple[str, PairSummary]]:
    for source in (graph, targets, label_sets, teacher):
        try:
            yield source.__doc__ or "", source()
        except ImportError as error:
            print(f"{source.__name__}: left out, {error}\n")


if __name__ == "__main__":
    arguments(__doc__)
    for title, summary in main():
        print(f"{title}\n{summary}\n")
