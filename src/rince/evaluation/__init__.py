"""The evaluation of a backbone on a data set: features, a list of steps, results on disk."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
