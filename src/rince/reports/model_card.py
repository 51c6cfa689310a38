"""A model card: what an exported network is, how to feed it, and what was measured of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from rince._version import __version__
from rince.data.kinds import kind_named
from rince.evaluation.results import IN_PER_CENT, Evaluation, format_metric, of_space, shown_metric
from rince.models.card import card_text, last_part, recipe
from rince.models.encoders import Encoder
from rince.models.options import Space
from rince.ranks.readers import some_names
from rince.ranks.taxonomy import Taxonomy
from rince.reports.run_report import one_line
from rince.reports.table import markdown_escape
from rince.training.checkpoint import TrainedRun
from rince.training.config import to_dict, without_machine


def model_card(
    trained: TrainedRun,
    encoder: Encoder,
    *,
    about: Mapping[str, Any],
    evaluation: Evaluation | None,
    onnx_difference: float | None,
) -> str:
    """The text of a card; ``about``: about.json of a finished run, empty for another. Of
    paths in the configuration that begin elsewhere only the last part is shown, as cards are
    published and folders tell of people."""
    config, label = to_dict(trained.config), trained.config.label(trained.objective)
    features = encoder.embedding_dim is None
    kind = kind_named(encoder.noun)
    what = "the backbone's features" if features else "the embeddings of its projection head"
    data = PurePath(config["data"]).name
    # A name, of a model of texts perhaps a folder.
    made_of = (
        f"`{last_part(encoder.backbone)}`" if encoder.backbone else "network of its makers' own"
    )
    onnx = ""
    if onnx_difference is not None:
        onnx = (
            f"| ONNX | `model.onnx`, input `{encoder.noun}`, output `{_output(encoder)}`, "
            f"batches of any size; ONNX Runtime and torch differ by {onnx_difference:.0e} of the "
            f"largest output |\n"
        )
    outputs = f"| output | {_output(encoder)}, {encoder.output_dim} numbers{_length(encoder)} |"
    classes = f"Trained on {len(encoder.classes)} classes: {some_names(encoder.classes)}"
    versions = about.get("versions") or {"rince": __version__}
    made_by = recipe(without_machine(config), versions)
    return card_text(
        trained.folder.name,
        f"A {made_of} trained with {one_line(label)} on {data}; it gives {what}.",
        {
            "Use": f"{kind.usage(encoder, 'FOLDER')}\n{outputs}\n{onnx}\n{classes}",
            "Results": _results(evaluation, features, encoder.noun),
            "Ranks": _ranks(trained, label),
            "Training": f"{_training(trained.step, about)}\n\n{made_by}",
        },
        head=kind.card,
        inputs=encoder.noun,
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
        f"{IN_PER_CENT.capitalize()}; FPR95 is better when lower.",
        "",
        "| metric | |",
        "|:---|---:|",
    ]
    lines += [
        f"| {markdown_escape(shown_metric(key, levels))} | {format_metric(key, value)} |"
        for key, value in (metrics or evaluation.metrics).items()
    ]
    return "\n".join(lines)


def _ranks(trained: TrainedRun, label: str) -> str:
    """Pairs of different classes by rank; on the diagonal all are rank 1."""
    ranks = trained.ranks
    if "ranks" not in trained.objective.reads:
        return f"{label} does not read `ranks`."
    if trained.config.ranks.by == "time":
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
