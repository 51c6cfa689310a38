"""Who is how similar to whom: class trees, similarity scores, relevance, time.

Rank 1 = most similar, 2, 3, ... = less and less, 0 = negative, -1 = ignored. The names stand in
``__init__.pyi``; each is imported on its first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
