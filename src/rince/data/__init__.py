"""Data sets of images, clips of videos and texts, their batches, and kinds of your own."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
