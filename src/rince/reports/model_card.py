"""A model card: what an exported network is, how to feed it, and what was measured of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from rince._version import __version__
from rince.core.checks import import_extra
from rince.data.kinds import kind_named
from rince.evaluation.results import Evaluation, format_metric, of_space, shown_metric
from rince.models.encoders import Encoder
from rince.models.options import Space
from rince.ranks.class_ranks import ClassRanks
from rince.ranks.readers import some_names
from rince.ranks.taxonomy import Taxonomy
from rince.reports.run_report import one_line
from rince.reports.table import markdown_escape
from rince.training.objectives import Objective

# Of the machine and the people that trained it, not of the network.
_PRIVATE = ("name", "output", "progress", "accelerator", "devices")

_CARD = """---
{head}
# license: for you to choose; the {inputs} it was trained on may set terms
---

# {name}

{about}

## Use

{use}
| output | {output}, {dim} numbers{length} |
{onnx}
Trained on {num_classes} classes: {classes}

## Results

{results}

## Ranks

{ranks}

## Training

{training}

```yaml
{config}```

| version | |
|:---|:---|
{versions}

## Licence, intended use, limits

For you to fill in before you publish this: the licence of the weights, the terms of the {inputs},
what it is for, and what it must not be used for. Nothing but the results above was measured.
"""


def model_card(
    encoder: Encoder,
    *,
    name: str,
    label: str,
    objective: Objective,
    config: Mapping[str, Any],
    step: int,
    ranks: ClassRanks | Taxonomy,
    about: Mapping[str, Any],
    evaluation: Evaluation | None,
    onnx_difference: float | None,
) -> str:
    """The text of a card; ``about``: about.json of a finished run, empty for another. Of absolute
    paths in ``config`` only the last part is shown, as cards are published and folders tell of
    people."""
    features = encoder.embedding_dim is None
    kind = kind_named(encoder.noun)
    what = "the backbone's features" if features else "the embeddings of its projection head"
    data = PurePath(config["data"]).name
    # A name, of a model of texts perhaps a folder.
    made_of = (
        f"`{_last_part(encoder.backbone)}`" if encoder.backbone else "network of its makers' own"
    )
    onnx = ""
    if onnx_difference is not None:
        onnx = (
            f"| ONNX | `model.onnx`, input `{encoder.noun}`, output `{_output(encoder)}`, "
            f"batches of any size; ONNX Runtime and torch differ by {onnx_difference:.0e} of the "
            f"largest output |\n"
        )
    return _CARD.format(
        name=one_line(name),
        about=f"A {made_of} trained with {one_line(label)} on {data}; it gives {what}.",
        head=kind.card,
        inputs=encoder.noun,
        use=kind.usage(encoder),
        output=_output(encoder),
        dim=encoder.output_dim,
        length=_length(encoder),
        onnx=onnx,
        num_classes=len(encoder.classes),
        classes=some_names(encoder.classes),
        results=_results(evaluation, features, encoder.noun),
        ranks=_ranks(ranks, config, objective, label),
        training=_training(step, about),
        config=import_extra("yaml", "train").safe_dump(_publishable(config), sort_keys=False),
        versions="\n".join(
            f"| {package} | {version} |"
            for package, version in (about.get("versions") or {"rince": __version__}).items()
        ),
    )


def _length(encoder: Encoder) -> str:
    if encoder.embedding_dim is None:
        return ", of any length: compare by the cosine"
    if encoder.num_heads > 1:
        return f": {encoder.num_heads} embeddings of length 1, side by side"
    return ", of length 1"


def _output(encoder: Encoder) -> str:
    return "features" if encoder.embedding_dim is None else "embeddings"


def _results(evaluation: Evaluation | None, features: bool, inputs: str) -> str:
    if evaluation is None:
        return "Not evaluated."
    info = evaluation.info
    levels = info.get("levels", {})
    space: Space = "backbone" if features else "embedding"
    metrics = of_space(evaluation.metrics, space)
    elsewhere = not metrics  # an older rince measured the features alone
    lines = [
        f"By `rince evaluate` on {info['data']}: {info['train_images']} training and "
        f"{info['test_images']} test {inputs}, one run"
        + (", of the backbone's features, not of the embeddings given here." if elsewhere else "."),
        "Per cent, but for the correlation; FPR95 is better when lower.",
        "",
        "| metric | |",
        "|:---|---:|",
    ]
    lines += [
        f"| {markdown_escape(shown_metric(key, levels))} | {format_metric(key, value)} |"
        for key, value in (metrics or evaluation.metrics).items()
    ]
    return "\n".join(lines)


def _ranks(
    ranks: ClassRanks | Taxonomy, config: Mapping[str, Any], objective: Objective, label: str
) -> str:
    """Pairs of different classes by rank; on the diagonal all are rank 1."""
    if "ranks" not in objective.reads:
        return f"{label} does not read `ranks`."
    if config["ranks"]["by"] == "time":
        return "By time: rank 1 is the same clip; see `ranks` in the configuration below."
    if isinstance(ranks, Taxonomy):  # counted by groups, of any number of classes
        pairs = ranks.describe().pairs
        counts = {i + 1: 2 * pairs[i] for i in range(1, ranks.num_ranks)}
        counts[0] = 2 * pairs[-1]
    else:
        table = ranks.table.clone().fill_diagonal_(-2)
        counts = {i: int((table == i).sum()) for i in (*range(1, ranks.num_ranks + 1), 0, -1)}
    names = {0: "0 (negative)", -1: "-1 (ignored)"}
    rows = [f"| {names.get(i, i)} | {n} |" for i, n in counts.items() if n or i > 1]
    head = ["| rank | ordered pairs of different classes |", "|:---|---:|"]
    return "\n".join([f"{ranks.num_ranks}, rank 1: the same class.", "", *head, *rows])


def _training(step: int, about: Mapping[str, Any]) -> str:
    if not about:
        return f"{step} steps; **not finished** when it was exported."
    where = f"{about['train_seconds']:.0f} s on {about['machine']}"
    return f"{step} steps in {where}, seed {about['seed']}."


def _publishable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without the machine's own settings, and of absolute paths the last part."""
    return {name: _last_part(value) for name, value in config.items() if name not in _PRIVATE}


def _last_part(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _last_part(inside) for name, inside in value.items()}
    absolute = isinstance(value, str) and value.startswith(("/", "~"))
    return PurePath(value).name if absolute else value
