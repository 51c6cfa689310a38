"""How large a block is, and from where on which path pays, on a CPU and on a GPU.

CPU: blocks fit into caches. GPU: blocks are as large as memory allows, so that launches are few.
What was measured of both: docs/decisions/0012.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch

MB = 2**20
DENSE_BYTES = 24  # of the dense engine for a pair and a rank: benchmarks/losses.py --memory


@dataclass(frozen=True)
class Sizes:
    """Sizes that suit a device; the defaults are a CPU's. Pairs are queries x keys.

    Args:
        dense_pairs: number of pairs below which ``engine="auto"`` takes the dense engine.
        dense_pairs_of_labels: the same for ranks from labels.
        dense_pairs_of_one_rank: the same for info_nce, supcon_in and supcon_out.
        fused_pairs: number of pairs from which "auto" takes the fused engine, if it can serve;
            None: never.
        fused_products: number of pairs x dimensions up to which it does so in fp32.
        scratch_bytes: memory for the buffers of a block.
        block: queries per block, or samples per panel; None: as many as fit scratch_bytes.
        largest_block: upper limit of queries per block if ``block`` is None; None: no limit.
        by_class_pairs: number of pairs from which sums per class are faster.
        class_mask_bytes: maximum memory for the masks of all pairs of classes; None: they are made
            for as many pairs of classes as a quarter of the batch's.
        in_batch: number of samples from which half of the similarities is faster.
        in_batch_mask_bytes: maximum memory for the masks of all pairs of classes there.
        smallest_panel, largest_panel: limits of samples per panel; an eighth of the batch between.
        most_positives: maximum share of all pairs that is looked at pair by pair there.
        positive_pairs: number of these pairs looked at together.
        queries_per_run: number of queries of one class looked at together.
        pairs_of_a_check: number of ranks that a check of values reads at once.
    """

    dense_pairs: int = 128 * 128
    dense_pairs_of_labels: int = 128 * 128
    dense_pairs_of_one_rank: int = 2**22 + 1
    fused_pairs: int | None = None
    fused_products: int = 2**33
    scratch_bytes: int = 16 * MB
    block: int | None = None
    largest_block: int | None = 512
    by_class_pairs: int = 2**17
    class_mask_bytes: int | None = None
    in_batch: int = 2048
    in_batch_mask_bytes: int = 16 * MB
    smallest_panel: int = 256
    largest_panel: int = 512
    most_positives: float = 1 / 16
    positive_pairs: int = 2**18
    queries_per_run: int = 64
    pairs_of_a_check: int = 2**22

    def with_block(self, block: int | None) -> Sizes:
        """The same, but for blocks of a size that a user asks for."""
        return self if block is None else replace(self, block=block)

    def queries_per_block(self, bytes_per_query: int) -> int:
        """As many as fit the scratch, a multiple of 16, at least 16."""
        if self.block is not None:
            return self.block
        block = max(16, self.scratch_bytes // bytes_per_query // 16 * 16)
        return block if self.largest_block is None else min(self.largest_block, block)

    def samples_per_panel(self, count: int) -> int:
        """Few tiles on the diagonal, which are computed whole, but large tiles."""
        return self.block or max(self.smallest_panel, min(self.largest_panel, count // 8))


CPU_SIZES = Sizes()


def sizes_for(device: torch.device) -> Sizes:
    """The sizes that suit a device, by its free memory when it was first asked for."""
    if device.type != "cuda":
        return CPU_SIZES
    if torch.compiler.is_compiling():  # to ask for the free memory would break the graph
        return gpu_sizes(16 * 1024 * MB)
    return _sizes_of_gpu(device)


@cache
def _sizes_of_gpu(device: torch.device) -> Sizes:
    return gpu_sizes(free_bytes(device))


def gpu_sizes(free: int) -> Sizes:
    """Sizes for a GPU, by its free memory in bytes.

    A tenth of it, and no more than makes launches few: 3 GB serve 2,048 queries and 131,072 keys
    in two blocks.
    """
    scratch = min(3072 * MB, free // 10)
    dense = min(4096 * 4096, scratch // (3 * DENSE_BYTES))
    return Sizes(
        dense_pairs=dense + 1,
        dense_pairs_of_one_rank=dense + 1,
        fused_pairs=128 * 128,
        scratch_bytes=scratch,
        largest_block=None,
        by_class_pairs=0,
        class_mask_bytes=scratch // 4,
        in_batch=32768,
        in_batch_mask_bytes=scratch // 4,
        smallest_panel=4096,
        largest_panel=4096,
        positive_pairs=2**24,
        pairs_of_a_check=2**26,
    )


def free_bytes(device: torch.device) -> int:
    """Memory of a GPU that a new tensor could take: the driver's, and what torch holds unused."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
