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
    page = args.html or Path(f"{_stem(args.predictions)}.html")
    numbers = args.json or page.with_suffix(".json")
    _check_inputs(args.predictions)
    _check_shares(max_risk=args.max_risk, delta=args.delta, fail_if_risk_above=args.fail_if_risk_above)
    _check_counts(resamples=args.resamples)
    _check_outputs([page, numbers, *([args.gate] if args.gate else [])], [args.predictions], args.force)

    from .apply.page import evaluate

    report = evaluate(
        args.predictions, max_risk=args.max_risk, delta=args.delta, guarantee=args.guarantee, cost=args.cost,
        method=args.method, confidences=args.confidence, group=args.group, cluster=args.cluster, drop=args.drop,
        decimal=args.decimal, resamples=args.resamples, log=lambda line: print(line, file=sys.stderr),
    )  # fmt: skip
    if args.gate:
        from .apply import gate

        chosen = gate.of(report.table, report.method, report.guarantees.loc[report.method])
        chosen.save(args.gate, force=args.force)
    report.to_html(page)
    report.to_json(numbers)
    print(f"{report.method}: {report.sentence}\npage: {page}\nnumbers: {numbers}")
    if args.gate:
        print(f"gate: {args.gate}")
    limit = args.fail_if_risk_above
    if limit is not None and not report.bound <= limit:
        return _said(f"the risk of what is kept is not shown to be at most {limit:.2%}", UNMET)
    return 0


def compare(args: argparse.Namespace) -> None:
    first = args.predictions[0]
    page = args.html or Path(f"{_stem(first)}-compared.html")
    numbers = args.json or page.with_suffix(".json")
    _check_inputs(*args.predictions)
    _check_shares(max_risk=args.max_risk)
    _check_counts(resamples=args.resamples)
    if len(args.predictions) < 2:
        raise UsageError("expected two files or more to compare, found one")
    _check_outputs([page, numbers], args.predictions, args.force)

    from .apply.comparison import compare

    compared = compare(
        *args.predictions, max_risk=args.max_risk, method=args.method, group=args.group, cluster=args.cluster,
        drop=args.drop, decimal=args.decimal, resamples=args.resamples,
    )  # fmt: skip
    compared.to_html(page)
    compared.to_json(numbers)
    print(f"{compared.sentence}\npage: {page}\nnumbers: {numbers}")


def apply(args: argparse.Namespace) -> None:
    out = args.out or Path(f"{_stem(args.predictions)}-accepted.csv")
    _check_inputs(args.gate, args.predictions)
    _check_outputs([out], [args.gate, args.predictions], args.force)

    from .apply import gate

    rows = gate.apply(gate.Gate.load(args.gate), args.predictions, out, force=args.force)
    print(f"{int(rows['accepted'].sum()):,} of {len(rows):,} rows are accepted\nrows: {out}")


def monitor(args: argparse.Namespace) -> int:
    _check_inputs(args.gate, *args.predictions)
    _check_shares(alpha=args.alpha, fail_if_risk_above=args.fail_if_risk_above)

    from .apply import gate

    found = gate.monitor(gate.Gate.load(args.gate), args.predictions, args.alpha)
    print(found.to_string())
    if found["alarm"].iloc[-1]:
        return _said(f"alarm: {found['alarm'].iloc[-1]}", UNMET)
    limit = args.fail_if_risk_above
    if limit is not None and gate.exceeds(found, limit):
        return _said(f"the risk of what is accepted is not shown to be at most {limit:.2%}", UNMET)
    return 0


def plan(args: argparse.Namespace) -> None:
    _check_inputs(*([args.pilot] if args.pilot else []))
    _check_shares(max_risk=args.max_risk, delta=args.delta, power=args.power)
    if not 0 < args.coverage <= 1:
        raise UsageError(f"--coverage: expected a share of up to 1, found {args.coverage:g}")

    from .apply import evaluate, reader
    from .stats.planning import labels_needed

    pilot = None
    if args.pilot:
        table = reader.read(args.pilot)
        scores = evaluate.scores_of(table)[0]
        pilot = (scores[args.method or next(iter(scores))], table.correct)
    found = labels_needed(
        args.max_risk, args.delta, args.guarantee, coverage=args.coverage, pilot=pilot, power=args.power
    )
    print(f"possible from {found.fewest:,} labels on, without an error among what is kept")
    if pilot is not None:
        numbers = [f"{number:,}" if number else "more than a million" for number in (found.labels, found.cautious)]
        print(f"at the pilot's risk, {found.risk:.2%}, at this coverage: {numbers[0]} labels")
        print(f"at the upper end of its interval: {numbers[1]} labels")


def _stem(path: Path) -> str:
    """A file's name without its ending, of .csv.gz without both."""
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name


def _check_inputs(*paths: Path) -> None:
    for path in paths:
        if not path.is_file():
            raise UsageError(f"{path}: {'this is a folder' if path.is_dir() else 'there is no such file'}")


def _check_shares(**shares: float | None) -> None:
    for name, value in shares.items():
        if value is not None and not 0 < value < 1:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option}: expected a share between 0 and 1, such as 0.05 for 5 %, found {value:g}")


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise UsageError(f"--{name}: expected at least one, found {value}")


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
    _add_tool(commands)
    return parser


def _add_tool(commands) -> None:
    """The commands for your own predictions."""
    command = commands.add_parser(
        "evaluate",
        help="which of your own predictions can be trusted: one HTML page and one JSON file",
        description="A table of predictions, one row each, becomes one HTML page and one JSON file. It holds either "
        "correct (0 or 1) and a column of numbers for each confidence, or label and, for every class, a column "
        "prob_CLASS or logit_CLASS; docs/tool.md says more. Exit codes: 0 done, 1 the file cannot be used, 2 wrong "
        "arguments or paths, 3 the risk is not shown to be at most --fail-if-risk-above.",
    )
    command.add_argument("predictions", type=Path, help="a file: .csv, .tsv, .parquet, .npz and others")
    _add_reading(command)
    _add_guarantee(command)
    command.add_argument(
        "--cost", type=float, nargs=2, metavar=("ERROR", "ABSTENTION"), help="what each costs: adds a cost curve"
    )
    command.add_argument("--confidence", action="append", default=[], metavar="COLUMN", help="one of the confidences")
    command.add_argument("--gate", type=Path, help="where to write the threshold, for trustlib apply and monitor")
    command.add_argument(
        "--fail-if-risk-above", type=float, metavar="RISK",
        help="exit code 3 unless a threshold is found whose risk is shown to be at most this",
    )  # fmt: skip
    _add_writing(command)
    command.set_defaults(run=evaluate)

    command = commands.add_parser(
        "compare", help="two or more classifiers on the same rows, each with its own errors, against the first"
    )
    command.add_argument("predictions", type=Path, nargs="+", help="files, one per classifier")
    _add_reading(command)
    command.add_argument("--max-risk", type=float, default=0.05, help="largest acceptable share of errors (0.05)")
    _add_writing(command)
    command.set_defaults(run=compare)

    command = commands.add_parser("apply", help="which rows of a file a gate accepts; labels are not needed")
    command.add_argument("gate", type=Path, help="a gate that trustlib evaluate --gate has written")
    command.add_argument("predictions", type=Path)
    command.add_argument("--out", type=Path, help="the rows with a column accepted; by default FILE-accepted.csv, here")
    command.add_argument("--force", action="store_true", help="write over a file that is there")
    command.set_defaults(run=apply)

    command = commands.add_parser(
        "monitor",
        help="whether new rows still are what a gate was made for",
        description="Exact tests of the coverage and, of rows with a label, of the risk, after each file. Exit codes: "
        "0 no alarm, 3 an alarm after the last file, or the risk is not shown to be at most --fail-if-risk-above.",
    )
    command.add_argument("gate", type=Path)
    command.add_argument("predictions", type=Path, nargs="+", help="files of new rows, in the order they came in")
    command.add_argument("--alpha", type=float, default=0.05, help="chance of a false alarm over all files (0.05)")
    command.add_argument("--fail-if-risk-above", type=float, metavar="RISK", help="exit code 3 unless it is shown")
    command.set_defaults(run=monitor)

    command = commands.add_parser("plan", help="how many labels a guarantee needs")
    _add_guarantee(command)
    command.add_argument("--coverage", type=float, default=1.0, help="share that is to be kept (1)")
    command.add_argument("--pilot", type=Path, help="a file of labelled predictions that are not used later")
    command.add_argument("--method", default="", help="of the pilot: the confidence that decides")
    command.add_argument("--power", type=float, default=0.8, help="chance that the guarantee is then found (0.8)")
    command.set_defaults(run=plan)


def _add_reading(command: argparse.ArgumentParser) -> None:
    command.add_argument("--method", default="", help="the confidence that decides; the first one by default")
    command.add_argument("--group", default="", metavar="COLUMN", help="the column of groups")
    command.add_argument("--cluster", default="", metavar="COLUMN", help="rows of one cluster depend on each other")
    command.add_argument("--drop", action="store_true", help="leave out rows in which something is missing")
    command.add_argument("--decimal", default="", choices=["", ".", ","], help="what separates decimals in a CSV")
    command.add_argument("--resamples", type=int, default=2000, help="of the bootstrap (2000)")


def _add_guarantee(command: argparse.ArgumentParser) -> None:
    command.add_argument("--max-risk", type=float, default=0.05, help="largest acceptable share of errors (0.05)")
    command.add_argument("--delta", type=float, default=0.01, help="how often the guarantee may fail (0.01)")
    command.add_argument(
        "--guarantee",
        choices=["sgr", "fixed-sequence", "both"],
        default="sgr",
        help="the rule, chosen beforehand (sgr)",
    )


def _add_writing(command: argparse.ArgumentParser) -> None:
    command.add_argument("--html", type=Path, help="the page; by default named after the file, here")
    command.add_argument("--json", type=Path, help="the numbers; by default beside the page")
    command.add_argument("--force", action="store_true", help="write over files that are there")


if __name__ == "__main__":
    sys.exit(main())
