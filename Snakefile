# The graph of a study: one rule for all of its jobs (trustlib.runs.jobs), each a notebook run by papermill, and one for
# the page. `make report` calls it; by hand:
#   snakemake --workflow-profile profiles/default --cores 2 --config study=digits ablations="rate labels" sweep=1
# With source=published the report alone, from what the study has published.
#
# A job runs again when its key changes, or a job it needs has run. What it makes lies in files of its own, the steps:
# it makes only those that are missing or stale. Executed notebooks are logs.

import json
import os
import shlex
import sys

from trustlib.runs import jobs
from trustlib.study import StudyError, load_study

STUDY = config.get("study", "quick")
SOURCE = config.get("source") or "run"
ASKED = str(config.get("ablations") or "").split()
try:
    study = load_study(STUDY)
    ASKED = list(study.ablations.questions) if ASKED == ["all"] else ASKED
    for name in ASKED:
        study.ablation(name)
except StudyError as error:
    sys.exit(f"error: {error}")
RUN = Path(os.path.relpath(Path(os.environ.get("TRUST_RESULTS") or "results") / "runs" / study.name))
GPUS = int(config.get("gpus") or 0)


def done(name):
    return RUN / "jobs" / f"{name}.done"


def executed(name):
    return RUN / "notebooks" / f"{name}.ipynb"


# The report shows the ablations and the sweeps that have been run, and waits for those that are asked for.
ABLATIONS = [name for name in study.ablations.questions if name in ASKED or done(f"ablation-{name}").exists()]
SWEPT = [name for name in study.domains.swept if config.get("sweep") or done(f"sweep-{name}").exists()]
JOBS = jobs.table(study, ABLATIONS, SWEPT, SOURCE)
PAGE, UNFINISHED = RUN / "report.html", RUN / "report-unfinished.html"
os.environ |= {"TRUST_JOBS": " ".join(JOBS), "TRUST_GPUS": str(GPUS)}  # for profiles/job.sh


def command(name):
    """The shell command of a job."""
    path, parameters = executed(name), json.dumps({"study": STUDY} | JOBS[name].parameters)
    return (
        f"OMP_NUM_THREADS={study.threads} profiles/job.sh {name} {path.with_suffix('.log')} papermill -k python3"
        f" --no-progress-bar notebooks/{JOBS[name].notebook}.ipynb {path} -y {shlex.quote(parameters)}"
    )


localrules: report


rule report:
    input:
        [done(name) for name in JOBS],
        template="trustlib/report/report.html.j2",
    output: page=PAGE, record=RUN / "report.json"
    params: sections=[executed(name) for name in jobs.SECTIONS]
    shell: "python -m trustlib render {output.page} {params.sections} --record {output.record} && rm -f {UNFINISHED}"


rule job:
    input: lambda wildcards: [done(name) for name in JOBS[wildcards.job].needs]
    output: done("{job}")  # when: an empty file would be unchanged, and what needs it not run again
    params:
        key=lambda wildcards: JOBS[wildcards.job].key,
        command=lambda wildcards: command(wildcards.job),
    resources:
        cpus_per_task=study.threads + study.workers,
        gpu=lambda wildcards: int(GPUS > 0 and JOBS[wildcards.job].trains),
    message: "{wildcards.job}"
    shell: "{params.command} && date > {output}"


onerror:
    # Show what there is all the same, and what failed; but not after Ctrl-C.
    if not any("Terminating processes on user request" in Path(path).read_text() for path in log):
        complete = all(done(name).exists() for name in JOBS if name not in jobs.SECTIONS)
        for name in jobs.SECTIONS:
            if not (complete and done(name).exists()):
                shell("{made} || true", made=command(name))  # papermill keeps a notebook up to the cell that failed
        sections = [executed(name) for name in jobs.SECTIONS if executed(name).exists()]
        shell("python -m trustlib render {UNFINISHED} {sections}")
        print(f"What there is, and what failed: {UNFINISHED}", file=sys.stderr)


onsuccess:
    print(f"report: {PAGE}")
