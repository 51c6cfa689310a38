"""Text backbones against sentence-transformers itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors
import torch

from rince import RinceError
from rince.core.files import new_folder
from rince.models.texts import PADDING, SentenceModel, text_backbone, tokenise

library = pytest.importorskip("sentence_transformers")
from text_models import tiny_model  # noqa: E402

TEXTS = ["the red sings", "a", "one two three one two three", "unheard of"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_model(tmp_path_factory.mktemp("model"))


def test_nothing_is_printed_while_a_model_is_loaded(
    model: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """And what transformers was told before holds again."""
    from transformers.utils import logging

    logging.enable_progress_bar()
    text_backbone(model)
    assert capfd.readouterr().err == ""
    assert logging.is_progress_bar_enabled()


def test_features_are_the_sentence_embeddings(model: str) -> None:
    backbone = text_backbone(model)
    backbone.module.eval()
    expected = library.SentenceTransformer(model, device="cpu").encode(TEXTS)
    tokens = tokenise(model, TEXTS)
    assert tokens.shape == (4, 8)  # six words and both ends
    assert tokens[1].tolist()[3:] == [PADDING] * 5
    with torch.no_grad():
        found = backbone.module(tokens)
        padded = torch.nn.functional.pad(tokens, (0, 9), value=PADDING)
        assert torch.equal(backbone.module(padded), found)
        alone = backbone.module(tokens[1:2])
    assert backbone.feature_dim == 16
    assert torch.allclose(found, torch.tensor(expected), atol=1e-6)
    assert torch.allclose(alone, found[1:2], atol=1e-6)
    assert tokenise(model, TEXTS, 4).shape == (4, 4)
    assert tokenise(model, ["a " * 40]).shape == (1, 12)  # the model's own bound


def test_two_views_differ_by_dropout_and_padding_is_not_seen(model: str) -> None:
    module = text_backbone(model).module
    assert module.training
    tokens = tokenise(model, TEXTS)
    first, second = module(torch.cat([tokens, tokens])).split(4)
    assert not torch.allclose(first, second, atol=1e-3)


@pytest.mark.parametrize("layers", [None, 0, 1, 2])
def test_which_weights_are_trained(model: str, layers: int | None) -> None:
    module = text_backbone(model, layers).module
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    every = {name for name, _ in module.named_parameters()}
    last = {n for n in every if any(f"layer.{i}." in n for i in range(2 - (layers or 0), 2))}
    unread = {name for name in every if ".pooler." in name}
    assert len(unread) == 2
    assert trained == (every - unread if layers is None else last)
    if trained:
        module(tokenise(model, TEXTS)).sum().backward()
    assert {n for n, p in module.named_parameters() if p.grad is not None} == trained
    assert (len(last) == 0) == (not layers)


def test_what_is_refused(model: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"text\.layers.*\b0 and 2\b.* 3"):
        text_backbone(model, 3)
    with pytest.raises(ValueError, match=r"text\.max_tokens.*\b3\b"):
        tokenise(model, TEXTS, 2)
    with pytest.raises(RinceError, match=r"/none\b"):
        text_backbone(str(tmp_path / "none"))
    static = library.sentence_transformer.modules.StaticEmbedding(
        library.SentenceTransformer(model, device="cpu").tokenizer.backend_tokenizer,
        embedding_dim=4,
    )
    library.SentenceTransformer(modules=[static], device="cpu").save(str(tmp_path / "static"))
    with pytest.raises(RinceError, match="StaticEmbedding"):
        text_backbone(str(tmp_path / "static"))


def test_a_full_disk_is_told_of_the_folder_that_was_asked_for(tmp_path: Path) -> None:
    class Full:
        def save_pretrained(self, *_: object, **__: object) -> None:
            raise safetensors.SafetensorError("No space left on device")

    folder = tmp_path / "export"
    refused = pytest.raises(RinceError, match=f"cannot write {folder}: No space left")
    with refused, new_folder(folder) as part:
        SentenceModel(Full()).save(part)
