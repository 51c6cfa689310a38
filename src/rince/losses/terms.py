"""Where ``RankTerms`` and the words of its options were; see :mod:`rince.losses`."""

from rince.core.moved import moved_names

__getattr__ = moved_names(
    __name__,
    {
        "RankTerms": "rince.losses.RankTerms",
        "Positives": "rince.losses.options.Positives",
        "Variant": "rince.losses.options.Variant",
    },
)
