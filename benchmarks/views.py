"""Images/s of the batch augmentation against torchvision's transforms, one image at a time.

    python benchmarks/views.py

Both in one process, in turn, on one thread; medians and the ratio.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from rince.data.views import BatchAugmentation, image_views, view_pixels

COUNT, SIZE, ROUNDS = 512, 32, 7


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (COUNT, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    batch, single = BatchAugmentation(SIZE), image_views(SIZE)
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(seconds(lambda: batch(pixels, generator)))
        theirs.append(seconds(lambda: view_pixels(torch.stack([single(x) for x in pixels]))))
    a, b = (COUNT / statistics.median(times[1:]) for times in (ours, theirs))
    print(f"{COUNT} x 3 x {SIZE} x {SIZE}, one thread, median of {ROUNDS - 1} rounds")
    print(f"BatchAugmentation             {a:10,.0f} images/s")
    print(f"torchvision.transforms.v2     {b:10,.0f} images/s")
    print(f"ratio                         {a / b:10.1f}")


if __name__ == "__main__":
    main()
