"""``rince compare RUN...``."""

from __future__ import annotations

from collections.abc import Sequence

from rince.cli.parser import HelpfulParser
from rince.core.files import leading_to, user_path


def run(arguments: Sequence[str]) -> None:
    """Print the table of several runs and write the report."""
    parser = HelpfulParser(
        prog="rince compare",
        description="Put evaluated runs side by side: a table here, and one self-contained HTML "
        "page. Runs that differ in their seed alone are one row, as mean ± sd.",
        epilog="""examples:
  rince compare runs/* -o report.html
  rince compare runs/* --baseline supcon-out      is each better, or can it not be told?
  rince compare runs/* --csv results.csv          all numbers, for a program
  rince compare runs/* photos.npz --markdown table.md      beside embeddings made elsewhere

What each number means: docs/evaluation.md.
""",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        help="folders of evaluated runs, or of their results on other data (runs/a/birds.results); "
        "or files of embeddings, evaluated too",
    )
    parser.add_argument("-o", "--output", default="report.html", help="the page")
    parser.add_argument("--markdown", help="also write the table here")
    parser.add_argument(
        "--csv", metavar="FILE", help="also write all metrics and options here, a row a run"
    )
    parser.add_argument(
        "--baseline",
        metavar="RUN",
        help="also show each method minus this one (its name in the table, or one of its runs), "
        "over the seeds that both have, with a 95 % interval: better, worse, or cannot be told",
    )
    parser.add_argument("--title", default="rince: runs compared", help="of the page")
    given = parser.parse_args(arguments)

    from rince.reports.compare import compare_runs

    compare_runs(
        list(leading_to(given.runs)),
        user_path(given.output),
        title=given.title,
        markdown=given.markdown,
        csv=given.csv,
        baseline=given.baseline,
    )
