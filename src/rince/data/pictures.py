"""Images that are augmented one at a time, as each is decoded."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from rince.core.input_spec import Preprocessing
from rince.data.items import Items
from rince.data.views import ViewConfig, evaluation_pixels, image_views, view_pixels


class Pictures(Items):
    """What all of them do alike once the pixels are there."""

    channels: int
    image_size: int
    preprocessing: Preprocessing | None

    def network_inputs(self, fitted: Tensor) -> Tensor:
        return evaluation_pixels(fitted, self.preprocessing)

    def item_views(self, config: ViewConfig) -> Callable[[Tensor], Tensor]:
        return image_views(self.image_size, self.channels, config)

    def view_inputs(self, views: Tensor) -> Tensor:
        return view_pixels(views, self.preprocessing)
