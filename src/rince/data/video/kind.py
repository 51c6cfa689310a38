"""The row of clips of videos."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rince.core.checks import warn
from rince.core.files import VIDEO_SUFFIXES
from rince.data.kind import DataOptions, Kind, Request, TrainedNetwork, require_no_column
from rince.data.networks import build_pixel_backbone, pixel_encoder, pixel_usage
from rince.data.table import is_table, listed_files

if TYPE_CHECKING:
    from rince.data.items import Items, Splits
    from rince.models.encoders import Encoder


def recognise(data: str, by_time: bool) -> bool:
    """Whether a folder or a table holds videos."""
    from rince.data.video.files import holds_videos

    return holds_videos(data, by_time)


def load(request: Request) -> Splits:
    """Clips of the videos for training and for the test."""
    from rince.data.video.sources import load_videos

    return load_videos(request.data, **_options(request))


def _options(request: Request) -> dict[str, Any]:
    images, videos = request.options.images, asdict(request.options.videos)
    if videos.pop("decoder", "pyav") != "pyav":  # an option of earlier versions
        warn("videos.decoder torchcodec is no more: PyAV decodes the same frames")
    return videos | {
        "image_size": images.image_size,
        "skip_unreadable": images.skip_unreadable,
        "channels": request.channels,
        "root": images.root,
        "column": request.options.table.column,
        "labels": request.labels,
        "empty": request.options.table.empty,
    }


def load_test(request: Request) -> Items:
    """All clips of the videos of a table or below a folder."""
    from rince.data.video.sources import load_test_clips

    options = _options(request) | {"skip_unreadable": request.skip_unreadable}
    # Of the training's data alone.
    return load_test_clips(request.data, **options | {"shots": None, "splits": None})


def load_outliers(request: Request, items: Items) -> Items:
    """All clips of all videos below a folder."""
    from rince.data.arrays import unlabelled
    from rince.data.video.sources import load_clip_outliers

    spec, videos = items.spec, request.options.videos
    assert spec.frames is not None
    pixels = load_clip_outliers(
        request.data,
        frames=spec.frames,
        stride=videos.stride,
        frame_size=videos.frame_size or spec.size,
        channels=spec.channels,
        skip_unreadable=request.skip_unreadable,
    )
    return unlabelled(pixels, items.taxonomy, spec.size)


def embedding_names(encoder: Encoder, data: str, column: str | None) -> list[str]:
    """The videos of a table, one alone, or all below a folder."""
    from rince.data.video.files import video_files

    if is_table(data):
        return listed_files(data, VIDEO_SUFFIXES, column)
    require_no_column(encoder, column)
    return video_files(data)


def embedding_inputs(
    encoder: Any, names: Sequence[str], batch_size: int, skip: bool
) -> Iterator[tuple[list[str], Any]]:
    """All clips of videos, each where the last one ends, decoded as at evaluation."""
    import torch

    from rince.data.video.cuts import decoded_clips
    from rince.data.views import eval_transform

    spec, size = encoder.spec, encoder.frame_size or encoder.spec.size
    fit = eval_transform(spec.size)
    clips = decoded_clips(names, spec.frames, encoder.stride, size, spec.channels, skip=skip)
    while batch := list(itertools.islice(clips, batch_size)):
        yield [name for name, _ in batch], fit(torch.stack([clip for _, clip in batch]))


def encoder(network: TrainedNetwork, options: DataOptions) -> Encoder:
    """With how its clips are cut out of a video."""
    videos = options.videos
    size = videos.frame_size or network.spec.size
    return pixel_encoder(network, options, stride=videos.stride, frame_size=size)


def usage(encoder: Any) -> str:
    """How to feed an encoder of clips."""
    spec = encoder.spec
    return pixel_usage(
        encoder,
        f"{spec.frames} frames, every {encoder.stride}. of the file; shorter side scaled to "
        f"{encoder.frame_size} pixels, central square, scaled to {spec.size}",
    )


CLIPS = Kind(
    noun="clips",
    suffixes=VIDEO_SUFFIXES,
    recognise=recognise,
    load=load,
    load_test=load_test,
    load_outliers=load_outliers,
    embedding_names=embedding_names,
    embedding_inputs=embedding_inputs,
    build_backbone=build_pixel_backbone,
    encoder=encoder,
    usage=usage,
    backbone="small-resnet3d",
    group="videos",
    unread=("per_class", "test_per_class", "cache", "drop_duplicates"),
    card="library_name: rince\ntags: [rince, contrastive-learning, video-retrieval]",
)
