"""A tiny sentence-transformers model with random weights, and texts for it: nothing is fetched."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import torch

WORDS = ("red", "green", "blue", "one", "two", "three", "sings", "runs", "sleeps", "the", "a")
DOMAINS = {"colour": ("red", "green"), "number": ("one", "two")}  # the class is a word of the text


def tiny_model(folder: Path, layers: int = 2, words: Sequence[str] = WORDS) -> str:
    """Saved in ``folder``: a BERT of 16 dimensions, mean pooling, unit length; ``words``: in the
    order of their tokens."""
    import tokenizers
    import transformers
    from sentence_transformers import SentenceTransformer, models

    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    vocabulary = {word: i for i, word in enumerate((*special, *words))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
        initializer_range=0.3,
    )
    transformers.BertModel(config).save_pretrained(folder / "bert")
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(
        folder / "bert"
    )
    transformer = models.Transformer(str(folder / "bert"), max_seq_length=12)
    parts = [transformer, models.Pooling(16), models.Normalize()]
    SentenceTransformer(modules=parts, device="cpu").save(str(folder / "tiny"))
    return str(folder / "tiny")


def write_table(file: Path, rows: list[tuple[str, ...]]) -> Path:
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return file


def word_table(file: Path) -> Path:
    """text,domain,word: 18 texts of each of four words in two domains."""
    rows = [
        (f"{article} {word} {other} {verb}", domain, word)
        for domain, words in DOMAINS.items()
        for word in words
        for article in ("the", "a")
        for other in ("blue", "three", "")
        for verb in ("sings", "runs", "sleeps")
    ]
    return write_table(file, [("text", "domain", "word"), *rows])
