"""rince: contrastive learning with ranked positives (RINCE, AAAI 2022, arXiv 2201.11736).

Names are imported on first use, so that ``rince --help`` and a program that needs one loss do
not pay for everything else. They are listed in ``__init__.pyi``.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
