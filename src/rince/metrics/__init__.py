"""Metrics of embeddings: plain functions of arrays, which know nothing of models or data.

One order of arguments everywhere: queries before gallery (test before train), features before
labels. All take torch tensors or numpy arrays and need nothing but torch and numpy.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
