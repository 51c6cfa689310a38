"""The row of clips of videos."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from rince.core.files import VIDEO_SUFFIXES
from rince.data.kind import DataOptions, Kind, TrainedNetwork, later
from rince.data.networks import (
    build_pixel_backbone,
    embedding_files,
    pixel_encoder,
    pixel_usage,
)

if TYPE_CHECKING:
    from rince.models.encoders import Encoder
    from rince.models.exported import ImageEncoder


_SOURCES = "rince.data.video.sources"


def embedding_inputs(
    encoder: Encoder, names: Sequence[str], batch_size: int, skip_unreadable: bool
) -> Iterator[tuple[list[str], Any]]:
    """All clips of videos, each where the last one ends, decoded as at evaluation."""
    import torch

    from rince.data.video.cuts import decoded_clips
    from rince.data.views import eval_transform

    encoder = cast("ImageEncoder", encoder)
    spec, size = encoder.spec, encoder.frame_size or encoder.spec.size
    assert spec.frames is not None
    assert encoder.stride is not None
    fit = eval_transform(spec.size)
    clips = decoded_clips(
        names,
        spec.frames,
        encoder.stride,
        size,
        spec.channels,
        skip_unreadable=skip_unreadable,
    )
    while batch := list(itertools.islice(clips, batch_size)):
        yield [name for name, _ in batch], fit(torch.stack([clip for _, clip in batch]))


def encoder(network: TrainedNetwork, options: DataOptions) -> Encoder:
    """With how its clips are cut out of a video."""
    videos = options.videos
    size = videos.frame_size or network.spec.size
    return pixel_encoder(network, options, stride=videos.stride, frame_size=size)


def usage(encoder: Encoder, folder: str) -> str:
    encoder = cast("ImageEncoder", encoder)
    spec = encoder.spec
    return pixel_usage(
        encoder,
        folder,
        f"{spec.frames} frames, every {encoder.stride}. of the file; shorter side scaled to "
        f"{encoder.frame_size} pixels, central square, scaled to {spec.size}",
    )


CLIPS = Kind(
    noun="clips",
    suffixes=VIDEO_SUFFIXES,
    recognise=later("rince.data.video.files:holds_videos"),
    load=later(f"{_SOURCES}:load_videos"),
    load_test=later(f"{_SOURCES}:load_test_clips"),
    load_outliers=later(f"{_SOURCES}:load_clip_outliers"),
    embedding_names=embedding_files(VIDEO_SUFFIXES, "rince.data.video.files:video_files"),
    embedding_inputs=embedding_inputs,
    build_backbone=build_pixel_backbone,
    encoder=encoder,
    usage=usage,
    backbone="small-resnet3d",
    group="videos",
    unread=("per_class", "test_per_class", "cache", "drop_duplicates", "bits"),
    card="library_name: rince\ntags: [rince, contrastive-learning, video-retrieval]",
)
