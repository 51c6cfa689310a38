from __future__ import annotations

import json

import pytest

from rince.core.input_spec import InputSpec, Preprocessing

SPECS = {
    "colour images of 28 x 28 pixels": InputSpec.images(3, 28),
    "grey images of 8 x 8 pixels": InputSpec.images(1, 8),
    "grey clips of 4 frames of 16 x 16 pixels": InputSpec.clips(1, 4, 16),
    "texts": InputSpec.texts(),
    "windows of shape 3 x 100": InputSpec("windows", (3, 100)),
    "volumes of shape 2 x 4 x 8 x 8": InputSpec("volumes", (2, 4, 8, 8)),
    "paintings of shape 5 x 8 x 8": InputSpec("paintings", (5, 8, 8)),
    "vectors of shape 3": InputSpec("vectors", (3,)),
}


@pytest.mark.parametrize(("words", "spec"), SPECS.items())
def test_it_says_what_it_is_and_comes_back(words: str, spec: InputSpec) -> None:
    assert str(spec) == words
    assert InputSpec.from_dict({"version": "1", **spec.to_dict()}) == spec
    assert sum(spec == other for other in SPECS.values()) == 1


@pytest.mark.parametrize(
    ("stored", "spec"),
    [
        ({"in_channels": 3, "image_size": 32, "frames": None}, InputSpec.images(3, 32)),
        ({"in_channels": 1, "image_size": 28}, InputSpec.images(1, 28)),  # of the first versions
        ({"in_channels": 3, "image_size": 48, "frames": 8}, InputSpec.clips(3, 8, 48)),
        ({"in_channels": 0, "image_size": 0, "frames": None}, InputSpec.texts()),
    ],
)
def test_what_is_on_disk_stays_as_it_was(stored: dict[str, int | None], spec: InputSpec) -> None:
    assert InputSpec.from_dict(stored) == spec
    assert spec.to_dict() == {"frames": None, **stored}


def test_what_a_network_is_fed_with_is_no_part_of_its_shape() -> None:
    plain, fed = InputSpec.images(3, 8), Preprocessing((0.5,), (0.2,), 9)
    assert InputSpec.images(3, 8, bits=12) == plain
    assert InputSpec.images(3, 8, preprocessing=fed) == plain
    assert (fed.interpolation, fed.squash) == ("bilinear", False)


def test_bits_and_preprocessing_come_back_with_every_shape() -> None:
    fed = Preprocessing((0.5,), (0.2,), 9)
    for spec in (
        InputSpec.images(1, 8, 12, fed),
        InputSpec("depth", (1, 8, 8), bits=12, preprocessing=fed),
    ):
        back = InputSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
        assert (back, back.bits, back.preprocessing) == (spec, 12, fed)


def test_the_same_part_of_a_picture_at_another_size() -> None:
    how = Preprocessing((0.5,) * 3, (0.25,) * 3, 256, "bicubic", squash=True)
    assert how.scaled(224, 112) == Preprocessing((0.5,) * 3, (0.25,) * 3, 128, "bicubic", True)
    assert how.scaled(224, 32).resize == 37  # 36.6
    assert how.scaled(224, 224) == how


def test_sizes_where_none_are_given() -> None:
    assert InputSpec.images().shape == (3, 32, 32)
    assert InputSpec.clips().shape == (3, 8, 64, 64)


def test_the_side_of_what_has_none_is_0() -> None:
    sizes = [SPECS[words].size for words in SPECS]
    assert sizes == [28, 8, 16, 0, 100, 8, 8, 0]
    assert InputSpec("images", (3, None, None)).size == 0


def test_shapes_and_layouts() -> None:
    assert InputSpec.images(3, 28).batch_shape() == (1, 3, 28, 28)
    assert InputSpec.clips(3, 8, 28).batch_shape(5) == (5, 3, 8, 28, 28)
    assert InputSpec.texts().batch_shape(2) == (2, 1)
    formats = [SPECS[words].memory_format for words in SPECS]
    assert formats == [
        *("channels_last", "channels_last", "channels_last_3d", "contiguous_format"),
        *("contiguous_format", "channels_last_3d", "channels_last", "contiguous_format"),
    ]
    assert [InputSpec.texts().channels, InputSpec.texts().size, InputSpec.texts().frames] == [
        0, 0, None,
    ]  # fmt: skip


def test_what_is_missing_on_disk_is_named() -> None:
    with pytest.raises(KeyError, match="image_size"):
        InputSpec.from_dict({"in_channels": 3})
