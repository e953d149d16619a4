"""Commands: ``python -m trustlib evaluate`` for your own predictions; the others for the Makefile and the Snakefile.

What a command needs is imported by its function: torch alone takes seconds.
"""

import argparse
import sys
from pathlib import Path


def main() -> int:
    args = _parser().parse_args()
    try:
        return args.run(args) or 0
    except Exception as error:
        if not _is_expected(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1


def check(args: argparse.Namespace) -> None:
    from .runs import checks
    from .study import load_study

    checks.check(load_study(args.study))


def publish(args: argparse.Namespace) -> None:
    from .report import publish
    from .study import load_study

    print(*publish.publish(load_study(args.study)), sep="\n")


def redraw(args: argparse.Namespace) -> None:
    from .report import publish
    from .study import load_study

    print(*publish.redraw(load_study(args.study)), sep="\n")


def verify(args: argparse.Namespace) -> int:
    from .report import verify
    from .study import load_study

    differing = verify.verify(load_study(args.study))
    print(*differing, f"{len(differing):,} differences" if differing else "nothing differs", sep="\n")
    return int(bool(differing))


def render(args: argparse.Namespace) -> None:
    from .report import page
    from .runs import store
    from .runs.provenance import provenance

    page.write(args.page, args.notebooks)
    if args.record:
        store.write_json(args.record, provenance())


def readme(args: argparse.Namespace) -> None:
    from .report import readme

    readme.write()


def evaluate(args: argparse.Namespace) -> int:
    import papermill

    from .report import page

    path = args.html or Path(args.predictions.with_suffix(".html").name)
    try:
        page.evaluate(
            args.predictions, path, args.json or path.with_suffix(".json"), confidences=args.confidence,
            group=args.group, method=args.method, max_risk=args.max_risk, delta=args.delta, drop=args.drop,
            resamples=args.resamples,
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        print(f"error: {error.evalue}", file=sys.stderr)
        return 1
    print(f"page: {path.resolve()}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trustlib", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    for function, text in (
        (check, "read a study's YAML and its data; say what is wrong"),
        (publish, "copy a finished study's results to results/STUDY"),
        (redraw, "replace a published report by one that was drawn again from what is published"),
        (verify, "recompute a published study's tables from its scores, and compare"),
    ):
        command = commands.add_parser(function.__name__, help=text)
        command.add_argument("study", help="a name in studies/, or the path of a YAML file")
        command.set_defaults(run=function)
    command = commands.add_parser("render", help="turn executed notebooks into one HTML file")
    command.add_argument("page", type=Path)
    command.add_argument("notebooks", type=Path, nargs="+")
    command.add_argument("--record", type=Path, help="where to write what made the page: commit, versions, machine")
    command.set_defaults(run=render)
    command = commands.add_parser("readme", help="draw the README's figure and tables from the published results")
    command.set_defaults(run=readme)
    _add_evaluate(commands)
    return parser


def _add_evaluate(commands) -> None:
    command = commands.add_parser(
        "evaluate",
        help="which of your own predictions can be trusted: one HTML page and one JSON file",
        description="Runs notebooks/your_model.ipynb on a file of predictions, one row each. It holds either correct "
        "(0 or 1) and a column of numbers for each confidence, or label and, for every class, a column prob_CLASS or "
        "logit_CLASS; an .npz has the arrays labels and probabilities or logits (N, K). A column group is optional.",
    )
    command.add_argument("predictions", type=Path, help="a .csv, .parquet or .npz file")
    command.add_argument("--max-risk", type=float, default=0.05, help="largest acceptable share of errors (0.05)")
    command.add_argument("--delta", type=float, default=0.01, help="how often the guarantee may fail (0.01)")
    command.add_argument("--method", default="", help="the confidence that decides; the first one by default")
    command.add_argument("--confidence", action="append", default=[], metavar="COLUMN", help="one of the confidences")
    command.add_argument("--group", default="", metavar="COLUMN", help="the column of groups")
    command.add_argument("--drop", action="store_true", help="leave out rows in which something is missing")
    command.add_argument("--resamples", type=int, default=2000, help="of the bootstrap (2000)")
    command.add_argument("--html", type=Path, help="the page; by default the file's name with the ending .html, here")
    command.add_argument("--json", type=Path, help="the numbers; by default beside the page")
    command.set_defaults(run=evaluate)


def _is_expected(error: Exception) -> bool:
    """Whether the message is for the person who called: their study, data or run is not what it has to be."""
    from .data import DataError
    from .runs.jobs import JobError
    from .study import StudyError

    return isinstance(error, StudyError | JobError | DataError)


if __name__ == "__main__":
    sys.exit(main())
