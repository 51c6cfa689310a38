"""Which data, and how they are cut, sized and drawn. No torch here: ``rince --help`` reads this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rince.core.checks import require
from rince.core.options import Options, limited


@dataclass
class ImageOptions(Options):
    """Images: size, augmentation, and which of them.

    Args:
        root: folder where named data sets are kept or downloaded to, None looks in the usual
            places; or where the relative paths of a table begin, None: at the table's folder.
        image_size: side of the square images that the backbone is fed, in pixels; None keeps 28
            (Fashion-MNIST) or 32 (CIFAR-100), and takes 32 for a folder.
        augmentation: of the views: "strong" crops, flips and changes colours (the paper's),
            "weak" crops and flips only.
        per_class: largest number of training images of each class, chosen by the seed; None: all.
        test_per_class: the same for the test images.
        cache: keep all images in memory as bytes, at image_size, and augment whole batches: much
            faster for small images. None does so up to 64 pixels.
        skip_unreadable: leave out images and videos that cannot be read, with a warning;
            otherwise all of them are listed in an error, before any training. --skip-unreadable
            for short.
        bits: that are used in files of 16 bits which do not say so themselves, such as 12; None:
            the fewest of 8, 10, 12, 14 and 16 that hold the highest value of all images.
        drop_duplicates: leave out training images that are byte for byte among the test images, or
            twice in the training images.
        workers: processes that decode images when they are not kept in memory.
    """

    prefix = "images."

    root: str | None = None
    image_size: int | None = limited(None, low=8)
    augmentation: Literal["strong", "weak"] = "strong"
    per_class: int | None = limited(None, low=1)
    test_per_class: int | None = limited(None, low=1)
    cache: bool | None = None
    skip_unreadable: bool = False
    drop_duplicates: bool = False
    bits: int | None = limited(None, low=8, high=16)
    workers: int = limited(2, low=0)


@dataclass
class VideoOptions(Options):
    """Folders of videos: how they are cut into clips.

    Args:
        frames: number of frames of a clip.
        stride: frames of the video between two frames of a clip.
        hop: seconds between the starts of two clips; None: each starts where the last one ends.
        per_video: maximum number of clips per video, evenly spaced; None: all.
        frame_size: side of the decoded frames, in pixels; None takes images.image_size.
        shots: "detect" (needs the extra shots), or a csv file of video, start_s, end_s.
        splits: folder with the split files of UCF101 or HMDB51.
        split: which of their three splits.
        cache: folder of decoded clips; None takes ~/.cache/rince/clips.
        cache_gb: largest size of the decoded clips of this data set, in GB; 0 decodes each clip
            each time.
        decoder: pyav; torchcodec, of earlier versions, is read as pyav, which decodes the same
            frames.
    """

    prefix = "videos."

    frames: int = limited(8, low=1)
    stride: int = limited(4, low=1)
    hop: float | None = limited(None, above=0)
    per_video: int | None = limited(None, low=1)
    frame_size: int | None = limited(None, low=1)
    shots: str | None = None
    splits: str | None = None
    split: int = limited(1, low=1, high=3)
    cache: str | None = None
    cache_gb: float = limited(2.0, low=0)
    decoder: Literal["pyav", "torchcodec"] = "pyav"

    def check(self) -> None:
        super().check()
        require(
            self.split == 1 or self.splits is not None,
            f"videos.split {self.split} is one of the splits in videos.splits: give their folder",
        )


@dataclass
class TableOptions(Options):
    """Tables of items: a csv, tsv, jsonl or parquet file with a row an item.

    Args:
        column: the column of the items: texts, or paths to images or videos; None: "text", or the
            first one that holds paths.
        labels: columns of the labels, from coarse to fine; None: all others but split, is_query,
            is_gallery, sequence, start_s, end_s and source_video, in the order of the file.
        empty: what to do about rows without an item or a class: "refuse" all of them in one
            message, "skip" them, call an empty class "unknown", or "fill" empty labels from the
            row above. How many there are is said.
        encoding: of these and all other files of text that the command reads: cp1252, shift_jis,
            gb18030; None: UTF-8. A byte order mark says more than this option.
    """

    prefix = "table."

    column: str | None = None
    labels: tuple[str, ...] | None = None
    empty: Literal["refuse", "skip", "unknown", "fill"] = "refuse"
    encoding: str | None = None


@dataclass
class VectorOptions(Options):
    """Stored features: where their labels are, and how two views of one differ.

    Args:
        labels: table with a row for each; --labels for short. None: arrays beside the features in
            their file, or else the table of the same name (photos.csv of photos.npz).
        captions: features of the images' captions, of any width, with the name of its image for
            each (paths); --captions for short. Trains two heads, which put images and captions into
            one space: an image's own captions are rank 1, those of its class rank 2, and so on.
        dropout: share of the numbers of a vector that a view sets to 0.
    """

    prefix = "vectors."

    labels: str | None = None
    captions: str | None = None
    dropout: float = limited(0.3, low=0, high=0.95)


@dataclass
class TextOptions(Options):
    """Texts: how much of the text model to train.

    Args:
        column: table.column by its older name, for texts only.
        labels: table.labels by its older name.
        layers: number of final transformer layers to fine-tune, and the projection with them;
            None: all layers and the token embeddings.
        max_tokens: longer texts are cut to this many tokens; None: as the model does.
    """

    prefix = "text."

    column: str = "text"
    labels: tuple[str, ...] | None = None
    layers: int | None = limited(2, low=0)
    max_tokens: int | None = limited(None, low=1)


@dataclass
class BatchOptions(Options):
    """Class-balanced batches (PK sampling): M superclasses x P classes x K images.

    By default batches are drawn at random. M is batch_size / (P x K).

    Args:
        images_per_class: K: different images of each class in a batch; with ranks by time, clips of
            each recording.
        classes_per_superclass: P: different classes of each superclass in a batch; None: classes
            are drawn whatever their superclass. batch_size must be a multiple of P x K.
    """

    prefix = "batches."

    images_per_class: int | None = limited(None, low=1)
    classes_per_superclass: int | None = limited(None, low=1)

    @property
    def slot(self) -> int:
        """What the batch size must be a multiple of."""
        return (self.images_per_class or 1) * (self.classes_per_superclass or 1)

    def multiple_below(self, count: int) -> int:
        """The largest batch size of at most this many items."""
        return count // self.slot * self.slot

    def check_batch(self, batch_size: int) -> None:
        """Refuse batches that do not divide.

        Raises:
            ValueError: the message names the option.
        """
        images, classes = self.images_per_class, self.classes_per_superclass
        require(
            classes is None or images is not None,
            "batches.classes_per_superclass needs batches.images_per_class: how many images of "
            "each of these classes?",
        )
        require(
            batch_size % self.slot == 0,
            f"batch_size must be a multiple of {self.slot} (batches.images_per_class x "
            f"batches.classes_per_superclass), got {batch_size}",
        )
