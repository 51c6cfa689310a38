"""Small models of Hugging Face in a folder, with random weights; and pictures for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn


def stand_in_weights(name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Random weights where torchvision keeps what it downloads of a model, which is returned."""
    models = pytest.importorskip("torchvision.models")
    monkeypatch.setenv("TORCH_HOME", str(home))
    torch.manual_seed(0)
    further = {"aux_logits": True, "init_weights": True} if name == "googlenet" else {}
    module: nn.Module = models.get_model(name, **further)
    url = models.get_model_weights(name).DEFAULT.url
    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(module.state_dict(), folder / Path(url).name)
    return module


def pixels(height: int, width: int) -> Tensor:
    rng = np.random.default_rng(height)
    smooth = rng.integers(0, 256, (3, height // 8 + 1, width // 8 + 1)).astype(np.float32)
    large = torch.nn.functional.interpolate(torch.from_numpy(smooth)[None], (height, width))
    return large[0].to(torch.uint8)


def tiny_folder(kind: str, folder: Path) -> Path:
    """A model of Hugging Face with random weights, and its image processor."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    small |= {"intermediate_size": 32, "image_size": 32, "patch_size": 8}
    if kind == "resnet":
        wide = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
        model = transformers.ResNetModel(transformers.ResNetConfig(**wide, layer_type="basic"))
        model.eval().save_pretrained(folder)
        transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
        return folder
    if kind == "clip":
        text = transformers.CLIPTextConfig(
            vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, max_position_embeddings=8, eos_token_id=1,
        )  # fmt: skip
        config = transformers.CLIPConfig(
            text_config=text.to_dict(), vision_config=small, projection_dim=12
        )
        model = transformers.CLIPModel(config)
        processor = transformers.CLIPImageProcessor(
            size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}
        )
    elif kind in ("siglip", "siglip-vision"):
        text = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1}
        text |= {"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 8}
        text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
        if kind == "siglip":
            config = transformers.SiglipConfig(text_config=text, vision_config=small)
            model = transformers.SiglipModel(config)
        else:
            model = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**small))
        processor = transformers.SiglipImageProcessor(size={"height": 32, "width": 32})
    elif kind == "dinov3":
        model = transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**small))
        processor = transformers.DINOv3ViTImageProcessor(size={"height": 32, "width": 32})
    elif kind == "vit":
        model = transformers.ViTModel(transformers.ViTConfig(**small))
        processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    else:
        model = transformers.Dinov2Model(transformers.Dinov2Config(**small))
        processor = transformers.BitImageProcessor(
            size={"shortest_edge": 40},
            crop_size={"height": 32, "width": 32},
            image_mean=[0.4, 0.5, 0.6],
            image_std=[0.2, 0.25, 0.3],
        )
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
