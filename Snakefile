# The graph of a study: one rule a notebook, run by papermill. `make report` calls it; by hand:
#   snakemake --workflow-profile profiles/default --cores 2 --config study=digits audit="rate labels"
#
# A job's output is its manifest, written last. What it trained lies in files of its own, which Snakemake does not
# know and so does not delete: a job that runs again makes only what is missing or stale (trustlib.runs.cached).
# Whether a job must run again is asked of those files, not of Snakemake: see the loop below.
# Executed notebooks are logs.

import sys
from types import SimpleNamespace

from trustlib import controls, experiments, runs
from trustlib.provenance import job_digest
from trustlib.study import load_study, study_path

STUDY = config.get("study", "fashion")
plan = load_study(STUDY)
RUN = Path(os.path.relpath(runs.run_folder(plan)))


def job_path(name):
    return RUN / "jobs" / f"{name}.json"


JOBS = [f"{kind}-{name}" for kind in ("classifier", "confidence") for name in plan.networks]
JOBS += [f"oracles-{pair}" for pair in plan.pairs]
# A job is done when all its trainings are, whatever its manifest says: made with today's settings and source.
for row in experiments.trainings(plan) + controls.trainings(plan):
    if row["status"] not in ("done", "diverged"):
        job_path(row["job"]).unlink(missing_ok=True)

# The report shows the controls that have been run, and waits for those that are asked for.
ASKED = [plan.control(name) and name for name in str(config.get("audit") or "").split()]
CONTROLS = [f"control-{name}" for name in plan.audit.controls if name in ASKED or job_path(f"control-{name}").exists()]
JOBS += CONTROLS

NUMBER = {name: f"[{i}/{len(JOBS) + 1}] {name}" for i, name in enumerate([*JOBS, "report"], 1)}

PAPERMILL = (
    f"OMP_NUM_THREADS={plan.threads} profiles/job.sh '{{params.name}}' {{log.text}} papermill -k python3 --no-progress-bar"
)
REPORT = (
    f"{PAPERMILL} notebooks/06_report.ipynb {{log.notebook}} -p study {STUDY} -p make_missing False"
    " && python -m trustlib render {log.notebook} {output}"
)


rule report:
    input:
        [job_path(name) for name in JOBS],
        study_path(STUDY),
        "trustlib/report.html.j2",
        "trustlib/trustlib.mplstyle",
        "data/published/table1.csv",
    output:
        RUN / "report.html",
    log:
        notebook=RUN / "notebooks/report.ipynb",
        text=RUN / "notebooks/report.log",
    params:
        name=NUMBER["report"],
        code=job_digest("06_report", ["calibration", "confidence", "evaluation", "experiments", "figures", "metrics", "report", "resampling", "statistics", "tables"]),
    shell:
        REPORT


rule classifier:
    input:
        ancient("notebooks/01_train_classifier.ipynb"),
    output:
        job_path("classifier-{network}"),
    log:
        notebook=RUN / "notebooks/classifier-{network}.ipynb",
        text=RUN / "notebooks/classifier-{network}.log",
    params:
        name=lambda wildcards: NUMBER[f"classifier-{wildcards.network}"],
    shell:
        PAPERMILL + " notebooks/01_train_classifier.ipynb {log.notebook} -p study {STUDY} -p network {wildcards.network}"


rule confidence:
    input:
        ancient("notebooks/03_confidence.ipynb"),
        job_path("classifier-{network}"),
    output:
        job_path("confidence-{network}"),
    log:
        notebook=RUN / "notebooks/confidence-{network}.ipynb",
        text=RUN / "notebooks/confidence-{network}.log",
    params:
        name=lambda wildcards: NUMBER[f"confidence-{wildcards.network}"],
    shell:
        PAPERMILL + " notebooks/03_confidence.ipynb {log.notebook} -p study {STUDY} -p network {wildcards.network}"


rule oracles:
    input:
        ancient("notebooks/02_train_oracles.ipynb"),
        lambda wildcards: [job_path(f"classifier-{name}") for name in dict.fromkeys(plan.pair(wildcards.pair))],
    output:
        job_path("oracles-{pair}"),
    log:
        notebook=RUN / "notebooks/oracles-{pair}.ipynb",
        text=RUN / "notebooks/oracles-{pair}.log",
    params:
        name=lambda wildcards: NUMBER[f"oracles-{wildcards.pair}"],
    shell:
        PAPERMILL + " notebooks/02_train_oracles.ipynb {log.notebook} -p study {STUDY} -p pair {wildcards.pair}"


rule control:
    input:
        ancient("notebooks/05_controls.ipynb"),
        [job_path(f"classifier-{name}") for name in plan.networks],
    output:
        job_path("control-{control}"),
    log:
        notebook=RUN / "notebooks/control-{control}.ipynb",
        text=RUN / "notebooks/control-{control}.log",
    params:
        name=lambda wildcards: NUMBER[f"control-{wildcards.control}"],
    shell:
        PAPERMILL + " notebooks/05_controls.ipynb {log.notebook} -p study {STUDY} -p control {wildcards.control}"


onerror:
    # A job failed, and so the report's rule did not run: report what there is all the same.
    if not all(job_path(name).exists() for name in JOBS):
        log_files = SimpleNamespace(notebook=RUN / "notebooks/report.ipynb", text=RUN / "notebooks/report.log")
        log_files.text.parent.mkdir(parents=True, exist_ok=True)
        shell(REPORT, log=log_files, output=RUN / "report.html", params=SimpleNamespace(name=NUMBER["report"]))
        print(f"The report shows what failed: {RUN / 'report.html'}", file=sys.stderr)


onsuccess:
    print(f"report: {RUN / 'report.html'}")
