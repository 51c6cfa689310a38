"""What one input of a network is: its shape, and what people call it. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

# In checkpoints and exports; texts have 0 channels there. A kind of a user's own adds "input".
_KEYS = ("in_channels", "image_size", "frames")


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes an input of S x S pixels, as weights from a library were trained.

    Args:
        mean, std: C numbers each, of pixels in [0, 1]; grey images take the mean of three.
        resize: pixels that the shorter side is scaled to before the central S x S are cut out.
        interpolation: bilinear, bicubic or nearest; antialiased.
        squash: scale to ``resize`` x ``resize``, whatever the proportions.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int
    interpolation: str = "bilinear"
    squash: bool = False

    def scaled(self, own_size: int, size: int) -> Preprocessing:
        """The same part of a picture in inputs of another size than their own."""
        return replace(self, resize=round(self.resize * size / own_size))


@dataclass(frozen=True)
class InputSpec:
    """One input of a network, without the batch.

    Args:
        noun: what inputs of this kind are called, plural: "images", "clips", "texts", or a word of
            your own.
        shape: (C, S, S) of images, (C, T, S, S) of clips; None where any length will do: (None,)
            of tokens.
        dtype: name of the dtype that the network takes.
        bits: that are used in image files of 16 bits which do not say so themselves; None: there
            were none at the training.
        preprocessing: of pictures; None: rince's own, which scales the shorter side to S.

    Two specs that differ in bits or preprocessing alone are equal.

    Example:
        >>> spec = InputSpec.clips(channels=3, frames=8, size=64)
        >>> spec.shape, spec.memory_format, str(spec)
        ((3, 8, 64, 64), 'channels_last_3d', 'colour clips of 8 frames of 64 x 64 pixels')
        >>> InputSpec.from_dict(spec.to_dict()) == spec
        True
    """

    noun: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"
    bits: int | None = field(default=None, compare=False)
    preprocessing: Preprocessing | None = field(default=None, compare=False)

    @classmethod
    def images(
        cls,
        channels: int = 3,
        size: int = 32,
        bits: int | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> InputSpec:
        """Square images: 3 (RGB) or 1 (grey) channels, ``size`` pixels a side."""
        return cls("images", (channels, size, size), bits=bits, preprocessing=preprocessing)

    @classmethod
    def clips(cls, channels: int = 3, frames: int = 8, size: int = 64) -> InputSpec:
        """Clips of ``frames`` square frames."""
        return cls("clips", (channels, frames, size, size))

    @classmethod
    def texts(cls) -> InputSpec:
        """Tokens of a text, -1 behind its end."""
        return cls("texts", (None,), "int64")

    @property
    def channels(self) -> int:
        """C; 0 of texts."""
        return self.shape[0] or 0

    @property
    def size(self) -> int:
        """Pixels of the side S; 0 of texts and vectors."""
        return (self.shape[-1] or 0) if len(self.shape) > 1 else 0

    @property
    def frames(self) -> int | None:
        """T of clips; None of all others."""
        return self.shape[1] if len(self.shape) == 4 else None

    @property
    def memory_format(self) -> str:
        """Name of torch's memory format in which convolutions on such inputs are fastest."""
        return {3: "channels_last", 4: "channels_last_3d"}.get(len(self.shape), "contiguous_format")

    def batch_shape(self, count: int = 1) -> tuple[int, ...]:
        """Shape of a batch; where any length will do, 1."""
        return (count, *(1 if length is None else length for length in self.shape))

    def __str__(self) -> str:
        """For people: "colour images of 32 x 32 pixels"."""
        if None in self.shape:
            return self.noun
        color = {1: "grey", 3: "colour"}.get(self.channels)
        if len(self.shape) not in (3, 4) or color is None:
            return f"{self.noun} of shape {' x '.join(map(str, self.shape))}"
        frames = "" if len(self.shape) == 3 else f"{self.shape[1]} frames of "
        return f"{color} {self.noun} of {frames}{self.shape[-2]} x {self.shape[-1]} pixels"

    def to_dict(self) -> dict[str, Any]:
        """As checkpoints and exports keep it: in_channels, image_size, frames; bits if known."""
        plain: dict[str, Any] = dict(
            zip(_KEYS, (self.channels, self.size, self.frames), strict=True)
        )
        if self.bits is not None:
            plain["bits"] = self.bits
        if self.preprocessing is not None:
            plain["preprocessing"] = asdict(self.preprocessing)
        if self == _by_keys(plain):
            return plain
        own = {"noun": self.noun, "shape": list(self.shape), "dtype": self.dtype}
        return {**plain, "input": own}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> InputSpec:
        """Back from :meth:`to_dict`; older files lack ``frames``. Other entries are not looked at.

        Raises:
            KeyError, TypeError: an entry that is missing, or something else.
        """
        own = stored.get("input")
        if own is not None:
            shape, bits = tuple(own["shape"]), stored.get("bits")
            return cls(own["noun"], shape, own["dtype"], bits, _preprocessing(stored))
        return _by_keys(stored)


def _by_keys(stored: Mapping[str, Any]) -> InputSpec:
    channels, size, frames = stored["in_channels"], stored["image_size"], stored.get("frames")
    if channels == 0:
        return InputSpec.texts()
    if frames is None:
        return InputSpec.images(channels, size, stored.get("bits"), _preprocessing(stored))
    return InputSpec.clips(channels, frames, size)


def _preprocessing(stored: Mapping[str, Any]) -> Preprocessing | None:
    given = stored.get("preprocessing")
    if given is None:
        return None
    numbers = {name: tuple(map(float, given[name])) for name in ("mean", "std")}  # lists in JSON
    return Preprocessing(**{**given, **numbers})
