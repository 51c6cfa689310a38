"""What a search of settings found: the front of fine against coarse, drawn and in a table."""

from __future__ import annotations

from shlex import quote
from typing import Any

from rince.core.files import replacing
from rince.reports.figures import WIDTH, drawing, new_axes, png_of, series_style
from rince.training.halving import Score, pareto_front
from rince.training.tuning import Trial, Tuned

FRONT_FILE = "front.png"
_MARKERS = "osD^v<>P"


def show_tuned(tuned: Tuned, objective: str, fine_weight: float) -> None:
    """Print the front with what was chosen and its alternatives; write the picture beside."""
    others = list(dict.fromkeys(trial.config.objective for trial in tuned.trials))
    chosen = {name: tuned.best(name, fine_weight) for name in others}
    front = tuned.front()
    print(
        f"\nheld-out mAP in per cent after {tuned.epochs} epochs, one seed; * no other is better "
        f"on both\n    {'fine':>6}{'coarse':>8}"
    )
    width = max(len(trial.name) for trial in tuned.finished())
    for trial in sorted(tuned.finished(), key=lambda trial: tuned.score(trial), reverse=True):
        mark = "*" if trial in front else " "
        chose = "->" if trial is chosen[trial.config.objective] else "  "
        fine, coarse = (100 * x for x in tuned.score(trial))
        print(f"{chose}{mark} {fine:6.1f}{coarse:8.1f}  {trial.name:{width}}  {trial.settings()}")
    own = chosen[objective]
    print(
        f"\nchosen (->) with --fine-weight {fine_weight:g}: {own.name}. {_dial(tuned, objective)}"
    )
    better = [x.name for x in tuned.finished() if tuned.score(x).beats(tuned.score(own))]
    if better:
        print(f"better on both: {', '.join(better)}")
    picture = tuned.folder / FRONT_FILE
    with replacing(picture) as part:
        part.write_bytes(png_of(front_figure(tuned, own)))
    seconds = sum(trial.seconds for trial in tuned.trials)
    print(
        f"{len(tuned.trials)} trials took {seconds / 60:.1f} minutes; picture: {picture}\n"
        f"configurations: {', '.join(str(tuned.folder / f'{name}.yaml') for name in others)}\n"
        f"next: rince train --config {quote(f'{tuned.folder / objective}.yaml')}"
    )


def front_figure(tuned: Tuned, chosen: Trial) -> Any:
    """Each trial by its held-out fine and coarse mAP in per cent: large those that were trained to
    the end, with the front of each objective; small and pale the others, after fewer epochs."""
    with drawing():
        figure, axes = new_axes(height=WIDTH * 0.85)
        for i, name in enumerate(dict.fromkeys(x.config.objective for x in tuned.trials)):
            style = {"color": series_style(i)[0], "marker": _MARKERS[i % len(_MARKERS)]}
            mine = [x for x in tuned.trials if x.config.objective == name]
            short = [x.scores[max(x.scores)] for x in mine if x.scores]
            whole = [tuned.score(x) for x in tuned.finished(name)]
            pale = [x for x in short if x not in whole]
            axes.scatter(*_percent(pale), s=12, alpha=0.35, lw=0, **style)
            axes.scatter(*_percent(whole), s=34, lw=0, **style, label=name)
            line = [whole[j] for j in pareto_front(dict(enumerate(whole)))]
            axes.plot(*_percent(line), color=style["color"], lw=1)
        ring = {"facecolors": "none", "edgecolors": "#222222", "label": "chosen"}
        axes.scatter(*_percent([tuned.score(chosen)]), s=110, lw=1.2, **ring)
        axes.set(xlabel="fine mAP, held out, %", ylabel="coarse mAP, held out, %")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.02), ncols=2)  # four would not fit
        return figure


def _percent(scores: list[Score]) -> tuple[list[float], list[float]]:
    return [100 * x.fine for x in scores], [100 * x.coarse for x in scores]


def _dial(tuned: Tuned, objective: str) -> str:
    """Which trial each weight would choose."""
    ranges: dict[str, list[float]] = {}
    for i in range(11):
        ranges.setdefault(tuned.best(objective, i / 10).name, []).append(i / 10)
    if len(ranges) == 1:
        return "Every weight chooses it"
    shown = [f"{name} from {weights[0]:g} to {weights[-1]:g}" for name, weights in ranges.items()]
    return f"By weight: {', '.join(shown)}; another one trains nothing anew"
