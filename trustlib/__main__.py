"""Commands: ``python -m trustlib evaluate`` for your own predictions; the others for the Makefile and the Snakefile."""

import argparse
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m trustlib", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="read a study's YAML and its data; say what is wrong")
    publish = commands.add_parser("publish", help="copy a finished study's results to results/STUDY")
    verify = commands.add_parser("verify", help="make a published study's tables anew from its scores, and compare")
    for command in (check, publish, verify):
        command.add_argument("study", help="a name in studies/, or the path of a YAML file")
    render = commands.add_parser("render", help="turn executed notebooks into one HTML file")
    render.add_argument("page", type=Path)
    render.add_argument("notebooks", type=Path, nargs="+")
    render.add_argument("--record", type=Path, help="where to write what made the page: commit, versions, machine")
    commands.add_parser("readme", help="draw the README's figure and tables from the published results")
    evaluate = commands.add_parser(
        "evaluate",
        help="which of your own predictions can be trusted: one HTML page and one JSON file",
        description="Runs notebooks/your_model.ipynb on a file of predictions, one row each. It holds either correct "
        "(0 or 1) and a column of numbers for each confidence, or label and, for every class, a column prob_CLASS or "
        "logit_CLASS; an .npz has the arrays labels and probabilities or logits (N, K). A column group is optional.",
    )
    evaluate.add_argument("predictions", type=Path, help="a .csv, .parquet or .npz file")
    evaluate.add_argument("--max-risk", type=float, default=0.05, help="largest acceptable share of errors (0.05)")
    evaluate.add_argument("--delta", type=float, default=0.01, help="how often the guarantee may fail (0.01)")
    evaluate.add_argument("--method", default="", help="the confidence that decides; the first one by default")
    evaluate.add_argument("--confidence", action="append", default=[], metavar="COLUMN", help="one of the confidences")
    evaluate.add_argument("--group", default="", metavar="COLUMN", help="the column of groups")
    evaluate.add_argument("--drop", action="store_true", help="leave out rows in which something is missing")
    evaluate.add_argument("--resamples", type=int, default=2000, help="of the bootstrap (2000)")
    evaluate.add_argument("--html", type=Path, help="the page; by default the file's name with the ending .html, here")
    evaluate.add_argument("--json", type=Path, help="the numbers; by default beside the page")
    args = parser.parse_args()

    # Imported where they are needed: torch alone takes seconds.
    if args.command == "render":
        from .report import page
        from .runs import store
        from .runs.provenance import provenance

        page.write(args.page, args.notebooks)
        if args.record:
            store.write_json(args.record, provenance())
        return 0

    if args.command == "evaluate":
        return _evaluate(args)

    if args.command == "readme":
        from .report import readme

        readme.write()
        return 0

    from . import data
    from .models import pretrained
    from .report.publish import publish as copy_results
    from .runs import jobs, shifted
    from .shifts import domains
    from .study import StudyError, check_losses, load_study

    try:
        study = load_study(args.study)
        if args.command == "verify":
            from .report.verify import verify as compare

            differing = compare(study)
            print(*differing, f"{len(differing):,} differences" if differing else "nothing differs", sep="\n")
            return int(bool(differing))
        elif args.command == "check":
            check_losses(study)
            images, wrong = study.images(), []
            print(f"study {study.name}: data from {images.source}")
            for name, network in study.all_networks.items():
                why = pretrained.misfit(
                    network.model, network.args, bool(network.weights), images.classes, images.wnids
                )
                wrong += [f"networks.{name}: {why}"] if why else []
                if network.weights and not why:  # raises where they are not to be had
                    pretrained.checksum(network.model, network.weights)
            if wrong:
                raise StudyError("\n".join(wrong))
            for name, part in study.domains.parts.items():  # raises where a file is missing, or images are too few
                domains.origin(shifted.dataset(study), name)
                try:
                    domains.check(images, name, study.domains.size(part))
                except ValueError as error:
                    raise StudyError(str(error)) from None
        else:
            print(*copy_results(study), sep="\n")
    except (StudyError, jobs.JobError, data.DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _evaluate(args: argparse.Namespace) -> int:
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


if __name__ == "__main__":
    sys.exit(main())
