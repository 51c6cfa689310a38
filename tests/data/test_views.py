from __future__ import annotations

import colorsys
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from rince.core.pixels import NORMALISATION
from rince.data.crops_and_colors import adjusted_colors, resized_crops
from rince.data.views import (
    BatchAugmentation,
    ViewConfig,
    eval_transform,
    evaluation_pixels,
    image_views,
    view_pixels,
)

NEUTRAL = (1.0, 1.0, 1.0, 0.0)
PLAIN = ViewConfig(
    crop_scale=(1.0, 1.0),
    crop_ratio=(1.0, 1.0),
    flip=0.0,
    jitter=(0.0, 0.0, 0.0, 0.0),
    grayscale=0.0,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded(seed))


def unnormalised(pixels: Tensor) -> Tensor:
    mean, std = (torch.tensor(x)[:, None, None] for x in NORMALISATION[pixels.shape[1]])
    return pixels * std + mean


def recoloured(pixels: Tensor, *colors: float, grayscale: bool = False) -> Tensor:
    """The colour map with the same factors for every image, back in [0, 1]."""
    count = len(pixels)
    return unnormalised(
        adjusted_colors(
            pixels.float(), torch.tensor([colors] * count), torch.full((count,), grayscale)
        )
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_to_change_gives_the_image(channels: int) -> None:
    pixels = noise(5, channels, 12, 12)
    views = BatchAugmentation(12, channels, PLAIN)(pixels, seeded())
    torch.testing.assert_close(views, evaluation_pixels(pixels), atol=1e-4, rtol=0)
    assert views.dtype == torch.float32


def test_a_flip_is_torch_flip() -> None:
    pixels = noise(4, 3, 9, 9)
    always = ViewConfig(**{**vars(PLAIN), "flip": 1.0})
    flipped = BatchAugmentation(9, 3, always)(pixels, seeded())
    expected = evaluation_pixels(torch.flip(pixels, [3]))
    torch.testing.assert_close(flipped, expected, atol=1e-4, rtol=0)


@settings(max_examples=60, deadline=None)
@given(height=st.integers(4, 24), width=st.integers(4, 24), size=st.integers(2, 30), data=st.data())
def test_crops_are_those_of_torchvision(
    height: int, width: int, size: int, data: st.DataObject
) -> None:
    box_height = data.draw(st.integers(1, height))
    box_width = data.draw(st.integers(1, width))
    top = data.draw(st.integers(0, height - box_height))
    left = data.draw(st.integers(0, width - box_width))
    pixels = noise(2, 3, height, width).float()
    boxes = torch.tensor([[top, left, box_height, box_width], [0, 0, height, width]])
    found = resized_crops(pixels, boxes, torch.tensor([True, False]), size)
    crop = tv.resized_crop(
        pixels[0], top, left, box_height, box_width, [size, size], antialias=True
    )
    whole = tv.resize(pixels[1], [size, size], antialias=True)
    torch.testing.assert_close(found[0], crop.flip(2), atol=0.02, rtol=0)
    torch.testing.assert_close(found[1], whole, atol=0.02, rtol=0)


def test_nothing_outside_the_box_leaks_in() -> None:
    for size in (6, 20):  # shrinking and enlarging
        pixels = torch.full((1, 1, 16, 16), 200.0)
        pixels[:, :, 4:12, 3:10] = 7.0
        box = torch.tensor([[4, 3, 8, 7]])
        found = resized_crops(pixels, box, torch.tensor([False]), size)
        torch.testing.assert_close(found, torch.full_like(found, 7.0))


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.4])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_factors_are_those_of_torchvision(name: str, factor: float) -> None:
    pixels = noise(3, 3, 8, 8)
    colors = list(NEUTRAL)
    colors[("brightness", "contrast", "saturation").index(name)] = factor
    adjust = getattr(tv, f"adjust_{name}")
    expected = torch.stack([adjust(image / 255, factor) for image in pixels])
    # torchvision's luma weights sum to 0.9999; ours are the same.
    torch.testing.assert_close(recoloured(pixels, *colors), expected, atol=2e-4, rtol=0)


def test_grayscale_is_that_of_torchvision() -> None:
    pixels = noise(3, 3, 8, 8)
    expected = tv.rgb_to_grayscale(pixels / 255, num_output_channels=3)
    found = recoloured(pixels, *NEUTRAL, grayscale=True)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)


def test_factors_work_together_as_one_after_the_other() -> None:
    pixels = 100 + noise(2, 3, 8, 8) % 40  # far from 0 and 255: no clamping in between
    image = pixels / 255
    for step, factor in (("brightness", 1.2), ("contrast", 0.7), ("saturation", 1.3)):
        image = getattr(tv, f"adjust_{step}")(image, factor)
    torch.testing.assert_close(recoloured(pixels, 1.2, 0.7, 1.3, 0.0), image, atol=5e-4, rtol=0)
    gray = recoloured(pixels, 1.2, 0.7, 1.3, 0.0, grayscale=True)
    expected = tv.rgb_to_grayscale(image, num_output_channels=3)
    torch.testing.assert_close(gray, expected, atol=5e-4, rtol=0)


def test_a_third_of_a_turn_of_hue_moves_the_channels_on() -> None:
    pixels = noise(2, 3, 6, 6)
    expected = torch.roll(pixels, 1, dims=1) / 255  # red becomes green becomes blue
    torch.testing.assert_close(recoloured(pixels, 1, 1, 1, 1 / 3), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(tv.adjust_hue(pixels / 255, 1 / 3), expected, atol=1e-4, rtol=0)


def test_hue_keeps_greys_and_turns_as_hsv_does() -> None:
    grey = torch.full((1, 3, 4, 4), 90, dtype=torch.uint8)
    torch.testing.assert_close(recoloured(grey, 1, 1, 1, 0.1), grey / 255, atol=1e-5, rtol=0)
    colour = torch.tensor([150, 110, 100], dtype=torch.uint8).view(1, 3, 1, 1)
    before = colorsys.rgb_to_hsv(*(colour.flatten() / 255).tolist())[0]
    after = colorsys.rgb_to_hsv(*recoloured(colour, 1, 1, 1, 0.1).flatten().tolist())[0]
    assert math.isclose(after - before, 0.1, abs_tol=0.02)


def test_each_image_has_its_own_factors() -> None:
    pixels = noise(1, 3, 6, 6).repeat(3, 1, 1, 1)
    colors = torch.tensor([NEUTRAL, (0.5, 1, 1, 0), (1, 1, 0, 0)])
    found = unnormalised(
        adjusted_colors(pixels.float(), colors, torch.tensor([False, False, False]))
    )
    torch.testing.assert_close(found[0], pixels[0] / 255, atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], pixels[1] / 510, atol=1e-5, rtol=0)
    torch.testing.assert_close(found[2, 0], found[2, 1], atol=1e-5, rtol=0)


def test_colours_are_clamped() -> None:
    found = recoloured(noise(4, 3, 8, 8), 3.0, 2.0, 2.0, 0.2)
    assert -1e-5 <= float(found.min()) < 1e-5
    assert 1 - 1e-5 < float(found.max()) <= 1 + 1e-5


def test_the_generator_alone_decides() -> None:
    pixels = noise(8, 3, 16, 16)
    augmentation = BatchAugmentation(16)
    torch.manual_seed(1)
    first = augmentation(pixels, seeded(3))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(augmentation(pixels, seeded(3)), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(augmentation(pixels, seeded(4)), first)
    generator = seeded(3)
    assert torch.equal(augmentation(pixels, generator), first)
    assert not torch.equal(augmentation(pixels, generator), first)  # the second view
    # No image influences another one.
    changed = pixels.clone()
    changed[0] = 0
    assert torch.equal(augmentation(changed, seeded(3))[1:], first[1:])


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 64)])
def test_drawn_boxes_keep_to_the_bounds(height: int, width: int) -> None:
    config = ViewConfig()
    blank = torch.zeros((), dtype=torch.uint8).expand(4000, 1, height, width)
    box = BatchAugmentation(8, 1, config).draw(blank, seeded()).box
    top, left, box_height, box_width = box.unbind(1)
    assert torch.equal(box, box.round())
    assert bool(((box >= 0).all(1) & (box_height >= 1) & (box_width >= 1)).all())
    assert bool((top + box_height <= height).all())
    assert bool((left + box_width <= width).all())
    scale = box_height * box_width / (height * width)
    ratio = box_width / box_height
    slack = 1.5 / min(height, width)  # sides are whole pixels
    assert bool((scale > config.crop_scale[0] - slack).all())
    assert bool((ratio > config.crop_ratio[0] * (1 - 4 * slack)).all())
    assert bool((ratio < config.crop_ratio[1] * (1 + 4 * slack)).all())
    if height == width:  # elsewhere large crops do not fit
        assert scale.min() < 0.23
        assert scale.max() > 0.95
        assert math.isclose(float(ratio.log().mean()), 0, abs_tol=0.02)
    # All places are equally likely: with room for r steps, each of the r + 1 in 1 / (r + 1).
    for start, room in ((top, height - box_height), (left, width - box_width)):
        start, room = start[room > 0], room[room > 0]
        for end in (torch.zeros_like(room), room):
            expected = (1 / (room + 1)).sum()
            assert abs(float((start == end).sum() - expected)) < 5 * float(expected.sqrt())


def test_drawn_factors_keep_to_the_bounds() -> None:
    config = ViewConfig(jitter=(0.4, 0.3, 1.5, 0.1), jitter_probability=0.8)
    blank = torch.zeros((), dtype=torch.uint8).expand(20000, 1, 32, 32)
    draw = BatchAugmentation(8, 1, config).draw(blank, seeded())
    colors = draw.colors
    for column, (low, high) in enumerate([(0.6, 1.4), (0.7, 1.3), (0.0, 2.5), (-0.1, 0.1)]):
        assert low <= colors[:, column].min() < low + 0.01 * (high - low)
        assert high >= colors[:, column].max() > high - 0.01 * (high - low)
    untouched = (colors == torch.tensor(NEUTRAL)).all(1).float().mean()
    for share, expected in (
        (untouched, 0.2),
        (draw.flip.float().mean(), 0.5),
        (draw.grayscale.float().mean(), 0.2),
    ):
        assert abs(float(share) - expected) < 5 * math.sqrt(0.25 / 20000)
    table = torch.corrcoef(torch.cat([colors, draw.box, draw.flip[:, None].float()], 1).T)
    others = [4, 5, 6, 7, 8]  # drawn independently of the four factors
    assert float(table[:4, others].abs().max()) < 0.04


def test_both_ways_draw_from_the_same_distribution() -> None:
    """Mean and spread of the pixels over many views of one image, batch-wise and one by one."""
    image = noise(3, 24, 24, seed=5)
    image[:, :12] //= 3
    count = 800
    batch = BatchAugmentation(12)(image.repeat(count, 1, 1, 1), seeded())
    torch.manual_seed(0)
    single = image_views(12)
    one_by_one = view_pixels(torch.stack([single(image) for _ in range(count)]))
    # Clamping once or after each step, and the hue, make a small difference.
    means = (batch.mean((0, 2, 3)) - one_by_one.mean((0, 2, 3))).abs()
    assert float(means.max()) < 0.1
    for statistic in (lambda x: x.mean((2, 3)).std(0), lambda x: x.std((2, 3)).mean(0)):
        ratio = statistic(batch) / statistic(one_by_one)
        assert float((ratio - 1).abs().max()) < 0.1


@pytest.mark.parametrize("channels", [1, 3])
def test_single_image_views(channels: int) -> None:
    image = noise(channels, 40, 30)
    view = image_views(16, channels)(image)
    assert view.shape == (channels, 16, 16)
    assert view.dtype == torch.uint8
    square = noise(channels, 16, 16)
    plain = image_views(16, channels, PLAIN)(square)
    assert torch.equal(plain, square)


@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_normalised_as_torchvision_does(channels: int) -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, channels, 16, 16)
    to_float = v2.Compose(
        [v2.ToDtype(torch.float32, scale=True), v2.Normalize(*NORMALISATION[channels])]
    )
    assert torch.equal(view_pixels(pixels), torch.stack([to_float(x) for x in pixels]))
    torch.testing.assert_close(view_pixels(pixels), evaluation_pixels(pixels))
    with pytest.raises(ValueError, match="uint8"):
        view_pixels(pixels.float())


def test_evaluation_pixels_are_normalised() -> None:
    pixels = noise(2, 3, 4, 4)
    for channel, (mean, std) in enumerate(zip(*NORMALISATION[3], strict=True)):
        expected = (pixels[:, channel].double() / 255 - mean) / std
        found = evaluation_pixels(pixels)[:, channel].double()
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_evaluation_keeps_the_central_square() -> None:
    image = torch.arange(20, dtype=torch.uint8).expand(3, 10, 20).contiguous()
    assert torch.equal(eval_transform(10)(image), image[:, :, 5:15])
    assert eval_transform(10)(image[:, :, 5:15]).data_ptr() == image[:, :, 5:15].data_ptr()
    assert eval_transform(5)(noise(2, 1, 10, 20)).shape == (2, 1, 5, 5)
    board = torch.tensor([0, 200], dtype=torch.uint8).repeat(8).expand(1, 16, 16)
    assert int((eval_transform(4)(board).int() - 100).abs().max()) <= 15  # antialiased


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop_scale": (0.0, 1.0)}, "crop_scale .*0.*1.*0.0, 1.0"),
        ({"crop_scale": (0.5, 0.4)}, "crop_scale"),
        ({"crop_ratio": (2.0, 1.0)}, "crop_ratio"),
        ({"flip": 1.5}, "flip .*1.5"),
        ({"jitter": (0.4, 0.4, 0.4, 0.6)}, "hue .*0.5.*0.6"),
        ({"grayscale": -0.1}, "grayscale .*-0.1"),
    ],
)
def test_impossible_configurations_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViewConfig(**change).check()  # type: ignore[arg-type]


def test_wrong_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"uint8.*\(B, 3, H, W\).*\(2, 1, 8, 8\)"):
        BatchAugmentation(8)(noise(2, 1, 8, 8), seeded())
    with pytest.raises(ValueError, match="float32"):
        BatchAugmentation(8)(noise(2, 3, 8, 8).float(), seeded())
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        evaluation_pixels(noise(1, 2, 8, 8))
