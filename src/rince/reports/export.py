"""A run's network taken out of it: weights, facts, ONNX and model card in a folder of their own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from rince.core.checks import RinceError, warn
from rince.core.files import leading_to, new_folder, user_path
from rince.evaluation.results import load_evaluation
from rince.models.card import CARD_FILE as CARD_FILE
from rince.models.encoders import Encoder
from rince.models.onnx_file import ONNX_FILE
from rince.models.options import Space

if TYPE_CHECKING:
    from rince.training.checkpoint import TrainedRun


def export_run(
    run: str | Path | TrainedRun,
    folder: str | Path | None = None,
    *,
    space: Space | None = None,
    onnx: bool = True,
) -> Path:
    """Write weights, facts, ONNX and model card into a new folder, all of them or none.

    Args:
        run: its folder, or from :func:`rince.training.load_run`, as it must be with a backbone of
            your own.
        folder: to make; None: ``export`` in the run's.
        space: embedding, with the projection head, or backbone; None: the run's own.
        onnx: write the ONNX file, too; of texts there is none.

    Returns:
        The folder.

    Raises:
        RinceError: something is there already; a run without such a head; a network that cannot
            be written as ONNX, or gives other numbers there.
        ImportError: a library of the extra ``export`` is not installed.
    """
    from rince.training.checkpoint import load_run, trained_encoder

    # runs/latest may soon be another run
    trained = load_run(next(iter(leading_to([run])))) if isinstance(run, (str, Path)) else run
    folder = trained.folder / "export" if folder is None else user_path(folder)
    encoder = trained_encoder(trained, space)
    return write_export(encoder, folder, partial(_card, trained, encoder), onnx=onnx)


def write_export(
    encoder: Encoder, folder: Path, card: Callable[[float | None], str], *, onnx: bool = True
) -> Path:
    """Write an encoder into a new folder, whole or not at all; ``card``: the text of its model
    card, from the largest difference of the ONNX file to torch."""
    if folder.exists():  # a licence may have been written into its card
        raise RinceError(
            f"{folder} is there already: remove it, choose another -o FOLDER, or push it as it is "
            f"(rince export {quote(str(folder))} --push USER/NAME)"
        )
    with new_folder(folder) as part:
        encoder.save(part)
        difference = encoder.write_onnx(part / ONNX_FILE) if onnx else None
        (part / CARD_FILE).write_text(card(difference), encoding="utf-8")
    return folder


def _card(trained: TrainedRun, encoder: Encoder, onnx_difference: float | None) -> str:
    from rince.reports.model_card import model_card
    from rince.training.folder import is_evaluated, read_about

    folder = trained.folder
    evaluation = load_evaluation(folder) if is_evaluated(folder) else None
    if evaluation is None:
        warn(
            f"{folder.name} has no results, or was trained on since: the model card has none. Run "
            f"`rince evaluate {quote(str(folder))}`, then export again"
        )
    about = read_about(folder)
    return model_card(
        trained, encoder, about=about, evaluation=evaluation, onnx_difference=onnx_difference
    )
