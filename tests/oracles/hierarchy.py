"""Retrieval in a tree by definition: every order of tied items written out, in float64."""

import itertools
import math


def heights(query_levels, item_levels):
    """0 = the same class, ..., L = nothing in common."""
    for level, (a, b) in enumerate(zip(query_levels, item_levels, strict=True)):
        if a == b:
            return level
    return len(query_levels)


def orders(scores):
    """All orders of the items, most similar first, that the scores allow."""
    runs = [
        [i for i, s in enumerate(scores) if s == value]
        for value in sorted(set(scores), reverse=True)
    ]
    for chosen in itertools.product(*(itertools.permutations(run) for run in runs)):
        yield [i for run in chosen for i in run]


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else math.nan


def average_precision(scores, positive, left_out=()):
    items = [i for i in range(len(scores)) if i not in left_out]
    return mean(
        sum(positive[j] for j in items if scores[j] >= scores[i])
        / sum(scores[j] >= scores[i] for j in items)
        for i in items
        if positive[i]
    )


def r_precision(order, positive):
    wanted = sum(positive)
    return sum(positive[i] for i in order[:wanted]) / wanted


def map_at_r(order, positive):
    wanted = sum(positive)
    total = 0.0
    for place in range(wanted):
        if positive[order[place]]:
            total += sum(positive[i] for i in order[: place + 1]) / (place + 1)
    return total / wanted


def hit(scores, positive, k):
    """Negatives first among ties."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], positive[i]))
    return any(positive[i] for i in order[:k])


def h_ap(scores, height, num_levels, alpha):
    rel = [((num_levels - h) / num_levels) ** alpha if h < num_levels else 0.0 for h in height]
    total = 0.0
    for i, own in enumerate(rel):
        if own > 0:
            above = [j for j in range(len(rel)) if scores[j] >= scores[i]]
            total += sum(min(rel[j], own) for j in above) / len(above)
    return total / sum(rel)


def asi(order, height, num_levels):
    ideal = sorted(h for h in height if h < num_levels)
    overlaps = []
    for n in range(1, len(ideal) + 1):
        nearest = [height[i] for i in order[:n]]
        common = sum(min(nearest.count(h), ideal[:n].count(h)) for h in range(num_levels))
        overlaps.append(common / n)
    return mean(overlaps)


def ndcg(order, height, num_levels):
    gains = [2 ** (num_levels - h) - 1 for h in height]
    dcg = sum(gains[i] / math.log2(place + 2) for place, i in enumerate(order))
    best = sorted(gains, reverse=True)
    return dcg / sum(g / math.log2(place + 2) for place, g in enumerate(best))


def hierarchical(scores, query_levels, gallery_levels, ignored, ks, alpha):
    """The figures of a batch of queries: scores (Q, G), ignored (Q, G) bool, levels lists."""
    num_levels = len(query_levels[0])
    levels = [
        {name: [] for name in ("mAP", "r_precision", "map_at_r", "only", *ks)}
        for _ in range(num_levels)
    ]
    whole = {name: [] for name in ("h_ap", "asi", "ndcg", "wrong", "severity", *ks)}
    skipped = 0
    for row, own in enumerate(query_levels):
        items = [j for j in range(len(gallery_levels)) if not ignored[row][j]]
        s = [scores[row][j] for j in items]
        height = [heights(own, gallery_levels[j]) for j in items]
        if not any(h < num_levels for h in height):
            skipped += 1
            continue
        allowed = list(orders(s))
        for level, found in enumerate(levels):
            positive = [h <= level for h in height]
            if not any(positive):
                continue
            found["mAP"].append(average_precision(s, positive))
            found["r_precision"].append(mean(r_precision(o, positive) for o in allowed))
            found["map_at_r"].append(mean(map_at_r(o, positive) for o in allowed))
            exactly = [h == level for h in height]
            if any(exactly):
                finer = [i for i, h in enumerate(height) if h < level]
                found["only"].append(average_precision(s, exactly, finer))
            for k in ks:
                found[k].append(hit(s, positive, k))
        whole["h_ap"].append(h_ap(s, height, num_levels, alpha))
        whole["asi"].append(mean(asi(o, height, num_levels) for o in allowed))
        whole["ndcg"].append(mean(ndcg(o, height, num_levels) for o in allowed))
        whole["wrong"].append(mean(height[o[0]] > 0 for o in allowed))
        whole["severity"].append(mean(height[o[0]] for o in allowed))
        for k in ks:
            whole[k].append(mean(mean(height[i] for i in o[:k]) for o in allowed))
    wrong = sum(whole["wrong"])
    return {
        "levels": [
            {name: mean(values) for name, values in found.items()}
            | {"skipped": len(query_levels) - len(found["mAP"])}
            for found in levels
        ],
        "h_ap": mean(whole["h_ap"]),
        "asi": mean(whole["asi"]),
        "ndcg": mean(whole["ndcg"]),
        "severity": sum(whole["severity"]) / wrong if wrong else math.nan,
        "distance": {k: mean(whole[k]) for k in ks},
        "skipped": skipped,
    }
