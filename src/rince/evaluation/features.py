"""Features of a data set, extracted once and shared by every metric."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from rince._version import __version__
from rince.core.checks import require
from rince.core.devices import sent
from rince.core.digests import content_digest, digest
from rince.core.files import file_stamps
from rince.core.shared_work import in_parts, parts_folder
from rince.data.batches import eval_batches
from rince.data.items import Items
from rince.evaluation.results import EMBEDDING
from rince.metrics.arrays import check_features, sample_labels
from rince.models.weights import fingerprint


@dataclass(frozen=True)
class FeatureSet:
    """The features of a data set.

    Args:
        features: (N, D) float32, finite, as the backbone gives them (not normalised).
        labels: (N,) int64.

    Raises:
        ValueError: wrong shapes or dtypes, no sample, or a value that is not finite.
    """

    features: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        check_features(self.features, "features")
        require(
            self.features.dtype == torch.float32,
            f"features must be float32, got {self.features.dtype}",
        )
        labels = sample_labels(self.labels, len(self.features), "labels")
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True)
class Network:
    """A network that is evaluated, and how items are fed to it.

    Args:
        backbone: inputs to features. head: features to embeddings; None: there is none.
        device: where the backbone runs. batch_size: items at a time.
        workers: processes that read items; no effect for items in memory.
    """

    backbone: nn.Module
    head: nn.Module | None = None
    device: torch.device | str = "cpu"
    batch_size: int = 512
    workers: int = 0

    def features(self, items: Items) -> FeatureSet:
        """Those of a data set; several processes share the work (:mod:`rince.core.shared_work`) in
        the batches of one."""
        parts = parts_folder()
        if parts is None:
            return self._extracted(items)
        self.backbone.cpu()  # from where it travels to whatever device the others have
        content = io.BytesIO()
        # All that they are: pixels, or names of files, which may have been replaced; labels; sizes.
        torch.save(items, content)
        facts = (__version__, self.batch_size, str(self.device), fingerprint((), self.backbone))
        files = file_stamps(items.read_from())
        key = digest([*facts, content_digest(content.getvalue()), *files])
        encode = partial(replace(self, head=None)._part, items)
        of_parts = in_parts(parts, key, len(items), self.batch_size, encode)
        return FeatureSet(torch.cat(of_parts), items.labels)

    def spaces(self, features: Tensor) -> dict[str, Tensor]:
        """The features, and where there is a head its embeddings of them: what stands before the
        names of the metrics of a space -> (N, D) float32."""
        if self.head is None:
            return {"": features}
        head = copy.deepcopy(self.head).cpu().eval()
        with torch.no_grad():
            parts = [head(part) for part in torch.split(features, 4096)]
        return {"": features, EMBEDDING: torch.cat(parts).float()}

    def _extracted(self, items: Items) -> FeatureSet:
        batches = eval_batches(items, self.batch_size, self.workers, self.device)
        return extract_features(self.backbone, batches, self.device)

    def _part(self, items: Items, rows: slice) -> Tensor:
        return self._extracted(items.subset(torch.arange(len(items))[rows])).features


def extract_features(
    backbone: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device | str,
) -> FeatureSet:
    """Run the backbone over a data set, in evaluation mode and without gradients.

    Args:
        backbone: gives (B, D) floats for a batch of inputs. It is moved to ``device`` and stays
            there; the training flag of each of its modules is put back afterwards.
        batches: pairs of inputs (B, ...) and labels (B,) int64. Labels are only carried along.
        device: where the backbone runs. The features come back to the CPU.

    Returns:
        The features of all batches, in their order.

    Raises:
        ValueError: there is no batch, the backbone does not give one row per sample, or the
            features are not finite.

    >>> backbone = nn.Linear(2, 3)
    >>> extract_features(backbone, [(torch.ones(4, 2), torch.arange(4))], "cpu").features.shape
    torch.Size([4, 3])
    """
    backbone.to(device)
    # Module by module: a batch norm frozen in an otherwise training backbone must stay frozen.
    modes = [(module, module.training) for module in backbone.modules()]
    features: list[Tensor] = []
    labels: list[Tensor] = []
    backbone.eval()
    try:
        with torch.no_grad():
            for inputs, batch_labels in batches:
                if features:  # not before the next batch is at hand: a GPU computes in between
                    features[-1] = features[-1].cpu()
                output = backbone(sent(inputs, device))
                shape = tuple(output.shape) if isinstance(output, Tensor) else type(output)
                require(
                    isinstance(output, Tensor) and output.shape[:1] == batch_labels.shape,
                    "the backbone must give one row of features for each of the "
                    f"{len(batch_labels)} samples of a batch, got {shape}",
                )
                # Copies: a tensor of a loader's worker would keep a file open each.
                features.append(output.float().clone())
                labels.append(batch_labels.cpu().clone())
    finally:
        for module, mode in modes:
            module.training = mode
    require(bool(features), "there is nothing to extract features from: no batch was given")
    features[-1] = features[-1].cpu()
    return FeatureSet(torch.cat(features), torch.cat(labels))
