"""What a row of :mod:`rince.data.kinds` says of a kind of data. No torch here."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from rince.core.checks import RinceError
from rince.core.files import user_path
from rince.data.options import (
    ImageOptions,
    TableOptions,
    TextOptions,
    VectorOptions,
    VideoOptions,
)
from rince.data.table import ItemTable, needed_path_column, read_items

if TYPE_CHECKING:
    from torch import nn

    from rince.core.input_spec import InputSpec, Preprocessing
    from rince.data.items import Items, Splits
    from rince.models.backbones import Backbone
    from rince.models.encoders import Encoder
    from rince.models.options import ModelOptions


class DataOptions(Protocol):
    """The groups of options by which data are loaded and networks of them are built; a
    ``TrainConfig`` has them."""

    images: ImageOptions  # of all kinds: size, augmentation, which of them
    videos: VideoOptions
    text: TextOptions
    table: TableOptions
    vectors: VectorOptions
    model: ModelOptions  # how much of a backbone is trained


@dataclass(frozen=True)
class Request:
    """What is to be loaded, and how.

    Args:
        data: a path, or a name.
        options: of the configuration.
        seed: of the choice of images.per_class items. by_time: ranks are made from time.
        channels: that files are decoded to, 3 (RGB) or 1 (grey).
        backbone: whose tokens texts are given; None: none.
        skip_unreadable: leave out, with a warning, what cannot be read.
        preprocessing: how pictures are to be fed to the network; None: as rince's own.

    Raises:
        ValueError: an option out of its range.
    """

    data: str
    options: DataOptions
    seed: int = 0
    by_time: bool = False
    channels: int = 3
    backbone: str | None = None
    skip_unreadable: bool = False
    preprocessing: Preprocessing | None = None

    def __post_init__(self) -> None:
        given = self.options
        for group in (given.images, given.videos, given.text, given.table, given.vectors):
            group.check()

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The columns of a table's labels."""
        table, text = self.options.table, self.options.text
        return text.labels if table.labels is None else table.labels

    @property
    def text_column(self) -> str:
        """The column of a table's texts."""
        return column_of_texts(self.options)

    def item_table(self, suffixes: frozenset[str] | None, only_class: str = "") -> ItemTable:
        """The data, a table of files of these suffixes; None: of texts. ``only_class``: as of
        :func:`~rince.data.table.read_items`."""
        table = self.options.table
        if suffixes is None:
            column = self.text_column
        else:
            column = table.column or needed_path_column(self.data, suffixes)
        items = read_items(user_path(self.data), column, self.labels, table.empty, only_class)
        if suffixes is not None:
            items.refuse_other_media(suffixes)
        return items


def column_of_texts(options: DataOptions) -> str:
    """``table.column``, or its older name."""
    return options.table.column or options.text.column


EmbeddingInputs: TypeAlias = Callable[
    [Any, Sequence[str], int, bool], Iterator[tuple[list[str], Any]]
]


def later(place: str) -> Callable[..., Any]:
    """The function at ``"rince.data.text.sources:load_texts"``, imported when it is called."""

    def call(*given: Any) -> Any:
        return pkgutil.resolve_name(place)(*given)

    return call


def _not_given(name: str) -> Callable[..., Any]:
    """In place of a function that a kind's row does not name."""

    def refuse(*_: Any) -> Any:
        raise RinceError(f"this kind of data has no {name}: give one to its row (Kind)")

    return refuse


@dataclass(frozen=True)
class Kind:
    """A kind of data. To train and evaluate a module of your own, the first three are enough.

    Args:
        noun: what its items are called, plural; the same as in their
            :class:`~rince.core.input_spec.InputSpec`.
        recognise: (data, by_time) -> whether these data are of this kind. ``by_time``: ranks are
            to be made from time.
        load: a request -> both splits.
        load_test: a request -> all items of a test with labels of their own.
        load_outliers: (a request, the known items) -> items of no known class, fed alike.
        embedding_names: (encoder, data, column) -> what ``rince embed`` is to embed, a name each.
        embedding_inputs: (encoder, names, batch_size, skip_unreadable) -> names and what
            ``encoder.encode`` takes, some at a time; ``skip_unreadable``: leave out, with a
            warning, what cannot be read.
        build_backbone: (name, spec, options, pretrained) -> a backbone.
        encoder: (trained network, options) -> what is exported and embeds.
        usage: (encoder, its folder) -> how to feed it, in code and in a table: Markdown for a
            model card.
        preprocessing: (name of a backbone, another size or None) -> size of its pictures and how
            they are made, as its library says; None: all backbones are fed alike.
        backbone: name of the default backbone. optimizer: the default one.
        files: whether a query of ``rince search`` is a file. files_of_queries: such a file holds
            several, each a query; if not, all that is embedded of a file is one.
        suffixes: of its files in a folder; None: they are none.
        group: of the options that are for this kind. unread: names of options ``images.*`` that
            have no effect on it, and are refused.
        advice: (data, options) -> what a user had better know before a training; "" if nothing.
        card: first lines of a model card, YAML.
    """

    noun: str
    recognise: Callable[[str, bool], bool]
    load: Callable[[Request], Splits]
    load_test: Callable[[Request], Items] = field(default=_not_given("load_test"))
    load_outliers: Callable[[Request, Items], Items] = field(default=_not_given("load_outliers"))
    embedding_names: Callable[[Encoder, str, str | None], Sequence[Any]] = field(
        default=_not_given("embedding_names")
    )
    embedding_inputs: EmbeddingInputs = field(default=_not_given("embedding_inputs"))
    build_backbone: Callable[[str, InputSpec, DataOptions, bool], Backbone] = field(
        default=_not_given("build_backbone")
    )
    encoder: Callable[[TrainedNetwork, DataOptions], Encoder] = field(default=_not_given("encoder"))
    usage: Callable[[Encoder, str], str] = field(default=_not_given("usage"))
    preprocessing: Callable[[str, int | None], tuple[int, Preprocessing]] | None = None
    backbone: str = ""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    files: bool = True
    files_of_queries: bool = False
    suffixes: frozenset[str] | None = None
    group: str = "images"
    unread: tuple[str, ...] = ()
    advice: Callable[[str, DataOptions], str] = lambda data, options: ""
    card: str = "library_name: rince\ntags: [rince, contrastive-learning]"


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A trained backbone, in evaluation mode, with what an encoder is made of.

    ``name``: None of a user's own backbone. ``class_paths``: of the training, each from its top
    group down. ``head``: features to embeddings, if the encoder is to end with it.
    """

    module: nn.Module
    name: str | None
    feature_dim: int
    spec: InputSpec
    class_paths: tuple[tuple[str, ...], ...]
    head: nn.Module | None = None
    embedding_dim: int | None = None
    num_heads: int = 1
