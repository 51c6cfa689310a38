"""A warning of a training that has come to one embedding for everything."""

from __future__ import annotations

from rince.core.checks import warn

# Negatives nearer than this are told from positives by at most 0.01, a logit of 0.1 at the
# temperature of the paper: the loss is what it is where all similarities are equal.
_COLLAPSED = 0.99
# Fewer steps prove nothing: untrained, an encoder may give all items nearly one embedding too.
_STEPS_TO_LEARN = 20


def warn_if_collapsed(similarity: float, steps: int, noun: str, advice: str) -> None:
    """Warn where all items are nearly one after a training.

    Args:
        similarity: mean cosine in the last epoch, of negatives too.
        steps: that were trained. noun: of the items. advice: what to change.
    """
    if steps >= _STEPS_TO_LEARN and similarity > _COLLAPSED:
        warn(
            f"the training has collapsed: in the last epoch all {noun} had nearly the same "
            f"embedding, whatever their rank (mean similarity {similarity:.3f} or more, 1 is "
            f"equal), so nothing is told apart. {advice}"
        )
