"""Commands for the Makefile and the Snakefile: ``python -m trustlib check|controls|render|publish ...``."""

import argparse
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m trustlib", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="read a study's YAML and its data; say what is wrong")
    publish = commands.add_parser("publish", help="copy a finished study's results to results/STUDY")
    listing = commands.add_parser("controls", help="the names of a study's controls, in one line")
    for command in (check, listing, publish):
        command.add_argument("study", help="a name in studies/, or the path of a YAML file")
    check.add_argument("controls", nargs="*", help="controls of its audit that are asked for")
    render = commands.add_parser("render", help="turn executed notebooks into one HTML file")
    render.add_argument("page", type=Path)
    render.add_argument("notebooks", type=Path, nargs="+")
    args = parser.parse_args()

    # Imported where they are needed: torch alone takes seconds.
    if args.command == "render":
        from . import report

        report.write(args.page, args.notebooks)
        return 0

    from . import data, domains, runs
    from .study import StudyError, load_study

    try:
        study = load_study(args.study)
        if args.command == "controls":
            print(*study.audit.controls)
        elif args.command == "check":
            for name in args.controls:
                study.control(name)
            print(f"study {study.name}: data from {data.load(study.dataset).source}")
            for name, part in study.domains.parts.items():  # raises where a file is missing, or images are too few
                domains.origin(study.dataset, name)
                try:
                    domains.check(data.load(study.dataset), name, study.domains.size(part))
                except ValueError as error:
                    raise StudyError(str(error)) from None
        else:
            from . import controls, experiments

            swept = [part for parts in study.domains.sweep.values() for part in parts]
            extra = controls.trainings(study) + experiments.visits(study, swept)
            extra = [row for row in extra if row["status"] == "done"]
            made = experiments.trainings(study) + experiments.visits(study)
            print(*runs.publish(study, made, extra), sep="\n")
    except (StudyError, runs.JobError, data.DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
