"""Commands: ``trustlib evaluate`` for your own predictions; others for the Makefile and the Snakefile.

What a command needs is imported by its function, after its arguments and paths were checked. Exit codes: 0 done; 1 what
was given cannot be used, in one line; 2 wrong arguments or paths, before anything is read; 3 done, and a condition that
was set, such as --fail-if-risk-above, is not met.
"""

import argparse
import sys
from pathlib import Path

from . import __version__

EXPECTED = {"ClassifierError", "DataError", "GateError", "JobError", "PredictionsError", "StudyError"}  # for who called
UNMET = 3


class UsageError(Exception):
    """Arguments or paths with which a command cannot be run."""


def main() -> int:
    args = _parser().parse_args()
    try:
        return args.run(args) or 0
    except UsageError as error:
        return _said(error, 2)
    except ModuleNotFoundError as error:
        if (error.name or "trustlib").partition(".")[0] == "trustlib":
            raise
        return _said(f"{error}: this command needs more than the tool does: uv pip install 'steepslope[study]'", 1)
    except Exception as error:
        if EXPECTED.isdisjoint(kind.__name__ for kind in type(error).__mro__):
            raise
        return _said(error, 1)


def _said(error: object, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


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
    stem = args.predictions.name.removesuffix(".gz").rpartition(".")[0] or args.predictions.name
    page = args.html or Path(f"{stem}.html")
    numbers = args.json or page.with_suffix(".json")
    _check_inputs(args.predictions)
    _check_shares(max_risk=args.max_risk, delta=args.delta, fail_if_risk_above=args.fail_if_risk_above)
    if args.resamples < 1:
        raise UsageError(f"--resamples: expected at least one, found {args.resamples}")
    _check_outputs([page, numbers], [args.predictions], args.force)

    from .apply.page import evaluate

    report = evaluate(
        args.predictions, max_risk=args.max_risk, delta=args.delta, method=args.method, confidences=args.confidence,
        group=args.group, drop=args.drop, resamples=args.resamples, log=lambda line: print(line, file=sys.stderr),
    )  # fmt: skip
    report.to_html(page)
    report.to_json(numbers)
    print(f"{report.method}: {report.sentence}\npage: {page}\nnumbers: {numbers}")
    limit = args.fail_if_risk_above
    if limit is not None and report.risk > limit:
        print(f"the risk of what is kept, {report.risk:.2%}, is above {limit:.2%}", file=sys.stderr)
        return UNMET
    return 0


def _check_inputs(*paths: Path) -> None:
    for path in paths:
        if not path.is_file():
            raise UsageError(f"{path}: {'this is a folder' if path.is_dir() else 'there is no such file'}")


def _check_shares(**shares: float | None) -> None:
    for name, value in shares.items():
        if value is not None and not 0 < value < 1:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option}: expected a share between 0 and 1, such as 0.05 for 5 %, found {value:g}")


def _check_outputs(outputs: list[Path], inputs: list[Path], force: bool) -> None:
    taken = {path.resolve() for path in inputs}
    for path in outputs:
        if path.is_dir():
            raise UsageError(f"{path}: this is a folder, expected a file to write to")
        if path.resolve() in taken:
            raise UsageError(f"{path}: this file would be written over another one of this command")
        if path.exists() and not force:
            raise UsageError(f"{path} is there already: --force writes over it")
        taken.add(path.resolve())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trustlib", description=__doc__.partition("\n")[0])
    parser.add_argument("--version", action="version", version=f"trustlib {__version__}")
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
        description="A table of predictions, one row each, becomes one HTML page and one JSON file. It holds either "
        "correct (0 or 1) and a column of numbers for each confidence, or label and, for every class, a column "
        "prob_CLASS or logit_CLASS; docs/tool.md says more. Exit codes: 0 done, 1 the file cannot be used, 2 wrong "
        "arguments or paths, 3 the risk is above --fail-if-risk-above.",
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
    command.add_argument("--force", action="store_true", help="write over files that are there")
    command.add_argument(
        "--fail-if-risk-above", type=float, metavar="RISK", help="exit code 3 where the share of errors is above: of "
        "the predictions that the threshold keeps, of all where there is none",
    )  # fmt: skip
    command.set_defaults(run=evaluate)


if __name__ == "__main__":
    sys.exit(main())
