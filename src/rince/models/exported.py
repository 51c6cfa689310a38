"""A trained network in a folder of its own: safetensors, and what it takes to feed it.

``model.safetensors`` holds the weights, ``export.json`` the rest, and ``backbone/config.json`` what
transformers builds its model by. Nothing here needs Lightning, or runs code from the folder.
Networks of texts are kept otherwise: :mod:`rince.models.texts`.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass, field, fields
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from torch import Tensor, nn

from rince._version import __version__
from rince.core.checks import RinceError, import_extra, require
from rince.core.devices import sent
from rince.core.files import user_path
from rince.core.input_spec import InputSpec
from rince.core.labels import shortest_endings
from rince.core.pixels import normalised
from rince.models.backbones import VisionFeatures, as_backbone, build_backbone
from rince.models.card import last_part
from rince.models.heads import projection_head
from rince.models.hub import is_hub_name, pull
from rince.models.texts import SENTENCE_FILE
from rince.models.weights import fingerprint, load_strictly

EXPORT_FILE = "export.json"
WEIGHTS_FILE = "model.safetensors"
BACKBONE_FOLDER = "backbone"
_CONFIG_FILE = "config.json"  # the name that transformers looks for
FORMAT = 1  # of export.json; a reader refuses those it does not know


@dataclass(frozen=True, eq=False)
class ImageEncoder:
    """A network with all that it takes to feed it an image, a clip of a video, or a vector.

    Args:
        module: (B, C, S, S) float32 from :meth:`normalised`, of clips (B, C, T, S, S), of vectors
            (B, D), -> (B, output_dim) float32; in evaluation mode, on the CPU.
        backbone: its name for :func:`~rince.models.backbones.build_backbone`; None: the user's own.
        output_dim: width of what the module gives.
        embedding_dim: width of the projection head, if the module ends with one: then it gives
            embeddings of length 1. None: it gives the backbone's features, of any length.
        num_heads: projection heads side by side.
        spec: what it takes; the shorter side is scaled to S (bilinear, antialiased), and the
            central square kept.
        mean, std: C numbers each, for pixels in [0, 1]; () of vectors, which are fed as they are.
        class_paths: the classes that it was trained on, each from its top group down; a
            ``rince.Taxonomy`` takes them.
        stride: of clips: every stride-th frame of a file. frame_size: side of the square that is
            decoded and then scaled to S.
        partner: of two towers, :meth:`fingerprint` of the other: its outputs are in the same space.
    """

    module: nn.Module = field(repr=False)
    backbone: str | None
    output_dim: int
    embedding_dim: int | None
    num_heads: int
    spec: InputSpec
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_paths: tuple[tuple[str, ...], ...] = field(repr=False)
    stride: int | None = None
    frame_size: int | None = None
    partner: str | None = None

    @property
    def noun(self) -> str:
        """What the module takes: "images", "clips" or "vectors"."""
        return self.spec.noun

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in label order."""
        return shortest_endings(self.class_paths)

    def normalised(self, pixels: Tensor) -> Tensor:
        """What the module takes, (B, C, [T,] S, S) float32, from pixels as bytes; (B, D) float32
        of vectors.

        Raises:
            ValueError: inputs of another dtype, size or number of channels.
        """
        dtype = torch.uint8 if self.mean else getattr(torch, self.spec.dtype)
        require(
            pixels.dtype == dtype and pixels.shape[1:] == self.spec.shape,
            f"{'pixels' if self.mean else self.noun} must be {str(dtype).removeprefix('torch.')} "
            f"(B, {', '.join(map(str, self.spec.shape))}), got {tuple(pixels.shape)} and "
            f"{pixels.dtype}",
        )
        return normalised(pixels, self.mean, self.std) if self.mean else pixels

    def encode(
        self, inputs: Any, *, device: torch.device | str = "cpu", batch_size: int = 64
    ) -> Tensor:
        """(N, output_dim) float32 on the CPU, from what :meth:`normalised` takes, or an array of
        it. The module stays on ``device``."""
        module = self.module.to(device).eval()
        with torch.no_grad():
            moved = (sent(x, device) for x in torch.split(torch.as_tensor(inputs), batch_size))
            parts = [module(self.normalised(x)) for x in moved]
        return torch.cat(parts).float().cpu()

    def fingerprint(self) -> str:
        """The same for two encoders that give the same numbers for the same file."""
        spec = self.spec
        facts = (last_part(self.backbone), spec.channels, spec.size, self.mean, self.std)
        optional = (spec.frames, self.stride, self.frame_size, spec.bits, spec.preprocessing)
        return fingerprint((*facts, *(x for x in optional if x is not None)), self.module)

    def save(self, folder: str | Path) -> None:
        """Write weights and facts into a folder that is there; :func:`load_exported` reads them."""
        safetensors, folder = import_extra("safetensors.torch", "export"), user_path(folder)
        facts = {"format": FORMAT, "rince": __version__, **self.spec.to_dict()}
        facts |= {name: getattr(self, name) for name in FACTS}
        if self.partner is None:
            del facts["partner"]
        vision = next((x for x in self.module.modules() if isinstance(x, VisionFeatures)), None)
        if self.backbone is not None and vision is not None:
            facts["backbone"] = last_part(self.backbone)  # where it lay is nobody's business
            kept = json.loads(vision.configuration.to_json_string())
            kept.pop("_name_or_path", None)
            (folder / BACKBONE_FOLDER).mkdir(exist_ok=True)
            config_file = folder / BACKBONE_FOLDER / _CONFIG_FILE
            config_file.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        (folder / EXPORT_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        # Cloned: safetensors refuses tensors that share their memory.
        state = self.module.state_dict()
        weights = {name: x.cpu().contiguous().clone() for name, x in state.items()}
        # Not save_file, whose files are for their owner alone.
        stored = safetensors.save(weights, metadata={"format": "pt"})
        (folder / WEIGHTS_FILE).write_bytes(stored)

    def write_onnx(self, file: Path) -> float | None:
        """:func:`rince.models.onnx_file.write_onnx`."""
        from rince.models.onnx_file import write_onnx

        return write_onnx(self, file)


FACTS = tuple(f.name for f in fields(ImageEncoder) if f.name not in ("module", "spec"))
_LATER = ("stride", "frame_size", "partner")  # not in the exports of earlier versions


def load_exported(folder: str | Path, backbone: nn.Module | None = None) -> ImageEncoder:
    """Read what ``rince export`` wrote; every weight must be there and fit.

    Args:
        folder: the export's; or ``user/name`` of a model on the Hugging Face Hub, if there is no
            such folder (the extra ``hub``).
        backbone: a module built as it was for training, if that was one of your own; the weights
            are loaded into it.

    Raises:
        RinceError: no export, a damaged one, one of a newer rince, a backbone that is missing or
            does not fit, or a model that cannot be fetched.
        ImportError: safetensors, or the library of the backbone, is not installed.

    Example::

        encoder = rince.load_exported("runs/latest/export")
        features = encoder.module(encoder.normalised(pixels))  # pixels: (B, C, [T,] S, S) uint8
    """
    if is_hub_name(folder):
        needed = [EXPORT_FILE, WEIGHTS_FILE, f"{BACKBONE_FOLDER}/{_CONFIG_FILE}"]
        folder = pull(str(folder), needed)
    folder = user_path(folder)
    facts = _read_facts(folder / EXPORT_FILE)
    if backbone is not None:
        built = as_backbone(backbone, facts["spec"])
    elif facts["backbone"] is not None:
        here = folder / BACKBONE_FOLDER  # not in the exports of earlier versions
        try:
            built = build_backbone(
                f"hf/{here}" if here.is_dir() else facts["backbone"], facts["spec"]
            )
        except ValueError as error:
            raise RinceError(f"{folder / EXPORT_FILE} is damaged: {error}") from error
    else:
        raise RinceError(
            f"{folder} was trained with a module of your own, which an export does not hold: "
            f"build it as it was built for training and pass it, load_exported({str(folder)!r}, "
            f"backbone=...)"
        )
    safetensors = import_extra("safetensors.torch", "export")
    file = folder / WEIGHTS_FILE
    try:
        weights = safetensors.load_file(file)
    except Exception as error:  # SafetensorError, which is no OSError, and whatever reading raises
        raise RinceError(
            f"cannot read {file}, perhaps cut short while it was copied ({error}): copy it again, "
            f"or export the run again"
        ) from error
    module = built.module
    if facts["embedding_dim"] is not None:
        head = projection_head(
            built.feature_dim,
            facts["embedding_dim"],
            facts["num_heads"],
            linear=not any(n.startswith("head.") and ".layers.2." in f".{n}" for n in weights),
        )
        module = nn.Sequential(OrderedDict(backbone=module, head=head))
    load_strictly(module, weights, file)
    return ImageEncoder(module=module.eval(), **facts)


def towers_in(folder: Path) -> str:
    """For a message that a folder is no run or export: where its two towers are, if it has some."""
    place = folder / "export" if (folder / "export").is_dir() else folder
    there = (place / "text" / EXPORT_FILE).exists()
    used = f"{place / 'image'} and {place / 'text'} are used one by one"
    return f"; it holds two towers, measured as they were trained: {used}" if there else ""


def other_tower(folder: str | Path) -> str:
    """Where the other of two towers is, as a command is to name it."""
    folder = user_path(folder)
    other = folder.parent / {"image": "text", "text": "image"}.get(folder.name, "none")
    return quote(str(other)) if (other / EXPORT_FILE).exists() else "OTHER-TOWER"


def _read_facts(file: Path) -> dict[str, Any]:
    """The fields of an :class:`ImageEncoder` but its module."""
    if not file.is_file():
        texts = (file.parent / SENTENCE_FILE).is_file()
        raise RinceError(
            f"{file.parent} holds a model of texts: read it with sentence_transformers."
            f"SentenceTransformer({str(file.parent)!r})"
            if texts
            else f"{file.parent} is not an export: it holds no {EXPORT_FILE}"
            + (towers_in(file.parent) or " (`rince export RUN` makes one)")
        )
    try:
        facts = dict(json.loads(file.read_text(encoding="utf-8")))
        if facts["format"] != FORMAT:
            raise RinceError(
                f"{file} is of format {facts['format']}, written by rince {facts['rince']}; this "
                f"rince {__version__} reads format {FORMAT}: install that one, or export again"
            )
        facts = dict.fromkeys(_LATER) | facts
        read = {name: facts[name] for name in FACTS} | {"spec": InputSpec.from_dict(facts)}
        read["class_paths"] = tuple(map(tuple, read["class_paths"]))
        return read | {name: tuple(map(float, read[name])) for name in ("mean", "std")}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise RinceError(
            f"{file} is damaged ({type(error).__name__}: {error}): export the run again"
        ) from error
