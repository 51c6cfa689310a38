"""How similar are two items? Pure functions whose scores :class:`rince.ScoreRanks` makes ranks of.

A teacher needs none of these: its scores, say the cosines of its embeddings, are scores already.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rince.core.checks import require
from rince.core.labels import integers, numbers


def target_closeness(query_targets: Any, key_targets: Any) -> Tensor:
    """Minus the distance of continuous targets: 0 = equal, falling.

    ``ScoreRanks([-1, -5])`` then makes targets at most 1 apart rank 1, at most 5 apart rank 2. As
    the steps get fine this becomes the order that :func:`rince.losses.rank_n_contrast` learns.

    Args:
        query_targets: (Q,) or (Q, T) numbers of any type, in a tensor, an array or lists.
        key_targets: (K,) or (K, T).

    Returns:
        (Q, K): minus the L1 distance; NaN where a target is NaN. In float32, or in float64 where
        a side is of integers (years, Unix times) or of float64. Summed in float64, so that equal
        distances of float32 targets are equal scores.

    Targets are compared as given, without a tolerance. Most decimals are none in binary: 20.4 and
    20.3 are a little more than 0.1 apart, and miss a threshold of -0.1, which 20.3 and 20.2 reach.
    Set thresholds between the distances that occur (-0.15), or give integers (tenths).

    Example:
        >>> target_closeness(torch.tensor([20.0]), torch.tensor([20.0, 23.5, 60.0]))
        tensor([[ -0.0000,  -3.5000, -40.0000]])
    """
    query_targets = numbers(query_targets, "query_targets")
    key_targets = numbers(key_targets, "key_targets")
    query, key = (x[:, None] if x.ndim == 1 else x for x in (query_targets, key_targets))
    require(
        query.ndim == 2 and key.ndim == 2 and query.shape[1] == key.shape[1],
        f"targets must be (count,) or (count, targets), with as many targets on both sides, got "
        f"{tuple(query_targets.shape)} and {tuple(key_targets.shape)}",
    )
    small = all(x.dtype in (torch.float16, torch.bfloat16, torch.float32) for x in (query, key))
    dtype = torch.float32 if small else torch.float64
    return -torch.cdist(query.double(), key.double(), p=1).to(dtype)


def label_overlap(query_labels: Any, key_labels: Any) -> Tensor:
    """Jaccard index of label sets: labels in common / labels in either.

    Of probabilities the sum of the smaller ones / the sum of the larger ones, which for 0 and 1 is
    the same (Ruzicka's index). A label that is unknown of one of the two does not count for them.

    Args:
        query_labels: (Q, C), key_labels: (K, C): bool, 0/1, or probabilities in [0, 1]: which of C
            labels an item has; -1 and NaN: not known. Tensors, arrays or lists.

    Returns:
        (Q, K) float32 in [0, 1]; NaN for two items without any label, of which nothing is known.

    Raises:
        ValueError: another shape, or values that are none of these.

    Example:
        >>> label_overlap(torch.tensor([[1, 1, 0]]), torch.tensor([[1, 1, 0], [0, 1, -1]]))
        tensor([[1.0000, 0.5000]])
    """
    query_labels = numbers(query_labels, "query_labels")
    key_labels = numbers(key_labels, "key_labels")
    require(
        query_labels.ndim == 2
        and key_labels.ndim == 2
        and query_labels.shape[1] == key_labels.shape[1],
        f"labels must be (count, classes) indicators, of as many classes on both sides, got "
        f"{tuple(query_labels.shape)} and {tuple(key_labels.shape)}",
    )
    (query, query_known, query_soft), (key, key_known, key_soft) = (
        _indicators(side, labels) for side, labels in (("query", query_labels), ("key", key_labels))
    )
    # Of pairs, the sums over labels that are known of both; exact in float64, also under autocast.
    either = query @ key_known.T + query_known @ key.T
    if query_soft or key_soft:
        both = torch.zeros_like(either)
        for a, b in zip(query.T, key.T, strict=True):  # 0 where one is not known
            both += torch.minimum(a[:, None], b)
    else:
        both = query @ key.T
    return (both / (either - both)).float()


def _indicators(side: str, labels: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Which labels an item has, 0 where unknown; which are known; whether any is a probability."""
    values = labels.double()
    unknown = values.isnan() | (values == -1)
    values = values.masked_fill(unknown, 0)
    wrong = ~((values >= 0) & (values <= 1))
    if bool(wrong.any()):
        raise ValueError(
            f"{side} labels must be 0, 1, a probability between them, or -1 or NaN where not "
            f"known; got {float(values[wrong][0]):g}"
        )
    return values, (~unknown).double(), bool(((values != 0) & (values != 1)).any())


def graph_closeness(
    edges: Any, num_nodes: int, query_nodes: Any, key_nodes: Any, max_hops: int
) -> Tensor:
    """Minus the hops between nodes: 0 = the node itself, -1 = a neighbour, and so on.

    ``ScoreRanks([-1, -2])`` is neighbourhood ranking: neighbours have rank 1, nodes two hops away
    rank 2, all others are negatives. Nearer nodes are more similar overall, in graphs whose labels
    agree less and less with distance (Ning et al., "Graph Soft-Contrastive Learning via
    Neighborhood Ranking", arXiv 2209.13964).

    Args:
        edges: (2, E) integers, pairs of nodes in [0, num_nodes); taken in both directions. A
            tensor, an array or lists, as the nodes are.
        num_nodes: N.
        query_nodes: (Q,) integers. key_nodes: (K,) integers.
        max_hops: how far to look, at least 1. A breadth-first search from all queries at once
            holds (N, Q) numbers and takes max_hops sparse products.

    Returns:
        (Q, K) float32: minus the hops; -inf beyond ``max_hops``.

    Raises:
        ValueError: wrong shapes, or a node that does not exist.

    Example:
        >>> path = torch.tensor([[0, 1, 2], [1, 2, 3]])  # 0 - 1 - 2 - 3
        >>> graph_closeness(path, 4, torch.tensor([0]), torch.arange(4), max_hops=2)
        tensor([[ 0., -1., -2., -inf]])
    """
    require(max_hops >= 1, f"max_hops must be at least 1, got {max_hops}")
    edges = integers(edges, "edges")
    query_nodes = integers(query_nodes, "query_nodes")
    key_nodes = integers(key_nodes, "key_nodes")
    require(
        edges.ndim == 2 and edges.shape[0] == 2,
        f"edges must be (2, number of edges), a row of nodes and one of their neighbours (of pairs "
        f"the transpose), got {tuple(edges.shape)}",
    )
    for name, nodes in (("edges", edges), ("query_nodes", query_nodes), ("key_nodes", key_nodes)):
        require(
            nodes.numel() == 0 or (int(nodes.min()) >= 0 and int(nodes.max()) < num_nodes),
            f"{name} must name nodes in [0, {num_nodes})",
        )
    both_ways = torch.cat([edges, edges.flip(0)], dim=1)
    ones = torch.ones(both_ways.shape[1], dtype=torch.float32, device=edges.device)
    neighbours = torch.sparse_coo_tensor(
        both_ways,
        ones,
        (num_nodes, num_nodes),
        device=edges.device,
        check_invariants=False,  # checked above
    )
    reached = ones.new_zeros(num_nodes, len(query_nodes))
    reached[query_nodes, torch.arange(len(query_nodes), device=edges.device)] = 1
    closeness = torch.where(reached > 0, reached - 1, -torch.inf)  # (N, Q)
    for hops in range(1, max_hops + 1):
        reached = (torch.sparse.mm(neighbours, reached) > 0).float()
        closeness[(reached > 0) & closeness.isinf()] = -hops
    return closeness[key_nodes].T
