"""``rince compare RUN...``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rince.cli.parser import HelpfulParser, with_underscores


def run(arguments: Sequence[str]) -> None:
    """Print the table of several runs and write the report."""
    parser = HelpfulParser(
        prog="rince compare",
        description="Put evaluated runs side by side: a table here, and one self-contained HTML "
        "page. Runs of one method with several seeds are shown as mean ± sd.",
    )
    parser.add_argument("runs", nargs="+", help="folders of evaluated runs")
    parser.add_argument("-o", "--output", type=str, default="report.html", help="the page")
    parser.add_argument("--markdown", type=str, default=None, help="also write the table here")
    parser.add_argument("--title", type=str, default="rince: runs compared", help="of the page")
    found = parser.parse_args(with_underscores(arguments))
    folders = list(dict.fromkeys(Path(name).resolve() for name in found.runs))
    compare_runs(folders, Path(found.output), title=found.title, markdown=found.markdown)


def compare_runs(
    folders: Sequence[Path], output: Path, *, title: str, markdown: str | None = None
) -> None:
    """Print the table, write the page (and the table as Markdown)."""
    from rince.reports.page import write_report
    from rince.reports.run_report import RunReport
    from rince.reports.table import markdown_table, text_table

    runs: list[RunReport] = [read_run(folder) for folder in folders]
    print(text_table(runs))
    if markdown is not None:
        Path(markdown).write_text(markdown_table(runs) + "\n", encoding="utf-8")
    print(f"report: {write_report(runs, output, title=title)}")


def read_run(folder: Path) -> Any:
    """All that a report shows of a run.

    Raises:
        RinceError: not a run, or one that was not evaluated.
    """
    from rince.evaluation.results import load_evaluation
    from rince.reports.run_report import RunReport
    from rince.training.config import to_dict
    from rince.training.folder import ABOUT_FILE, read_config
    from rince.training.history import read_history

    config = read_config(folder)
    about_file = folder / ABOUT_FILE
    about = json.loads(about_file.read_text()) if about_file.exists() else {}
    return RunReport(
        label=config.label(),
        folder=folder,
        evaluation=load_evaluation(folder),
        config=dict(_flat(to_dict(config))),
        history=read_history(folder),
        seconds=about.get("train_seconds"),
        versions=about.get("versions", {}),
    )


def _flat(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in nested.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
