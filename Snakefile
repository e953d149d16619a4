# The graph of a study: one rule a notebook, run by papermill. `make report` calls it; by hand:
#   snakemake --workflow-profile profiles/default --cores 2 --config study=digits ablations="rate labels" sweep=1
#
# A job's output is its manifest, written last. What it trained lies in files of its own, which Snakemake does not
# know and so does not delete: a job that runs again makes only what is missing or stale (trustlib.runs.store.cached).
# Whether a job must run again is asked of those files, not of Snakemake: see the loop below.
# Executed notebooks are logs.

import sys
from types import SimpleNamespace

from trustlib.runs import experiments, store, tuning, unseen
from trustlib.runs.provenance import job_digest
from trustlib.study import load_study, study_path

STUDY = config.get("study", "quick")
plan = load_study(STUDY)
RUN = Path(os.path.relpath(store.run_folder(plan)))


def job_path(name):
    return RUN / "jobs" / f"{name}.json"


JOBS = [f"{kind}-{name}" for kind in ("classifier", "confidence") for name in plan.networks]
JOBS += dict.fromkeys(plan.oracle_job(pair, arm) for pair in plan.pairs for arm in plan.methods)
TRAINED = list(JOBS)  # evaluated under distribution shift once all are there; where one has failed, the report says "not made yet"
JOBS += [f"domain-{name}" for name in plan.domains.judged]
SWEPT = [part for parts in plan.domains.sweep.values() for part in parts]
# A job is done when all its trainings are, whatever its manifest says: made with today's settings and source.
# On a cluster every job reads this file again, while others write their manifests: none of them may remove any.
if workflow.is_main_process:
    visits = unseen.visits(plan) + unseen.visits(plan, SWEPT)
    for row in experiments.trainings(plan) + tuning.trainings(plan) + visits:
        if row["status"] not in ("done", "diverged"):
            job_path(row["job"]).unlink(missing_ok=True)

# The report shows the ablations and the sweeps that have been run, and waits for those that are asked for.
ASKED = [plan.ablation(name) and name for name in str(config.get("ablations") or "").split()]
ABLATIONS = [f"ablation-{name}" for name in plan.ablations.questions if name in ASKED or job_path(f"ablation-{name}").exists()]
JOBS += ABLATIONS
JOBS += [f"sweep-{name}" for name in plan.domains.swept if config.get("sweep") or job_path(f"sweep-{name}").exists()]

# Snakemake takes a page for finished whose jobs' manifests are gone, as after a failure: it has to look older than they.
# What still does when they are there shows a part that failed.
if workflow.is_main_process:
    complete = all(job_path(name).exists() for name in JOBS)
    for path in [RUN / "report.html", *(RUN / "sections").glob("*.ipynb")]:
        if path.exists() and not complete:
            os.utime(path, (1, 1))  # 0 would mean no time at all
        elif path.exists() and path.stat().st_mtime == 1:
            path.unlink()

CPUS = plan.threads + plan.workers  # of a job of a cluster
os.environ["TRUST_JOBS"] = " ".join(JOBS)  # for the numbers on the terminal: as a parameter, a new job would make all stale

PAPERMILL = (
    f"OMP_NUM_THREADS={plan.threads} profiles/job.sh '{{params.name}}' {{log.text}} papermill -k python3 --no-progress-bar"
)
# The page is made of these notebooks, one after the other; each is run again when its code or what it uses changes.
SECTIONS = {
    "06_report": f"notebooks/06_report.ipynb {{output}} -p study {STUDY} -p make_missing False",
    "07_ablations": f"notebooks/07_ablations.ipynb {{output}} -p study {STUDY}",
    "11_reasons": f"notebooks/11_reasons.ipynb {{output}} -p study {STUDY} -p make_missing False",
    "08_unseen": f"notebooks/08_unseen.ipynb {{output}} -p study {STUDY}",
    "09_published": f"notebooks/09_published.ipynb {{output}} -p study {STUDY}",
    "10_record": f"notebooks/10_record.ipynb {{output}} -p study {STUDY}",
}
PUBLISHED = [f"data/published/{name}.csv" for name in ("table1", "table2", "table3", "msp_imagenet")]


def section_path(name):
    return RUN / "sections" / f"{name}.ipynb"


localrules:
    report,


rule report:
    input:
        [section_path(name) for name in SECTIONS],
        page="trustlib/report/report.html.j2",
    output:
        page=RUN / "report.html",
        record=RUN / "report.json",
    params:
        sections=[str(section_path(name)) for name in SECTIONS],
    shell:
        "python -m trustlib render {output.page} {params.sections} --record {output.record}"


rule section:
    input:
        [job_path(name) for name in JOBS],
        study_path(STUDY),
        "trustlib/report/trustlib.mplstyle",
        "data/claims.yaml",
        PUBLISHED,
    output:
        section_path("{section}"),
    log:
        text=RUN / "notebooks/{section}.log",
    params:
        name="{section}",
        code=lambda wildcards: job_digest(wildcards.section),
        call=lambda wildcards, output: SECTIONS[wildcards.section].format(output=output),
    resources:
        cpus_per_task=CPUS,
    message:
        "{params.name}"
    shell:
        PAPERMILL + " {params.call}"


rule classifier:
    input:
        ancient("notebooks/01_train_classifier.ipynb"),
    output:
        job_path("classifier-{network}"),
    log:
        notebook=RUN / "notebooks/classifier-{network}.ipynb",
        text=RUN / "notebooks/classifier-{network}.log",
    params:
        name="classifier-{network}",
    resources:
        cpus_per_task=CPUS,
    message:
        "{params.name}"
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
        name="confidence-{network}",
    resources:
        cpus_per_task=CPUS,
    message:
        "{params.name}"
    shell:
        PAPERMILL + " notebooks/03_confidence.ipynb {log.notebook} -p study {STUDY} -p network {wildcards.network}"


def of_oracles(wildcards):
    """The pair of a job that trains oracles, and its methods; none where it trains them all."""
    oracle, classifier, *method = wildcards.oracles.split("-", 2)
    return f"{oracle}-{classifier}", method


def before_oracles(wildcards):
    """The classifiers of a pair, and the job of the method that this one starts from."""
    pair, methods = of_oracles(wildcards)
    starts = [plan.oracle_job(pair, plan.methods[arm].start) for arm in methods if plan.methods[arm].start]
    return [job_path(name) for name in [*(f"classifier-{name}" for name in dict.fromkeys(plan.pair(pair))), *starts]]


rule oracles:
    input:
        ancient("notebooks/02_train_oracles.ipynb"),
        before_oracles,
    output:
        job_path("oracles-{oracles}"),
    log:
        notebook=RUN / "notebooks/oracles-{oracles}.ipynb",
        text=RUN / "notebooks/oracles-{oracles}.log",
    params:
        name="oracles-{oracles}",
        pair=lambda wildcards: of_oracles(wildcards)[0],
        methods=lambda wildcards: f"{{methods: [{', '.join(of_oracles(wildcards)[1])}]}}",
    resources:
        cpus_per_task=CPUS,
    message:
        "{params.name}"
    shell:
        PAPERMILL + " notebooks/02_train_oracles.ipynb {log.notebook} -p study {STUDY} -p pair {params.pair}"
        " -p by_hand 0 -y '{params.methods}'"


rule ablation:
    input:
        ancient("notebooks/05_ablation.ipynb"),
        [job_path(f"classifier-{name}") for name in plan.networks],
    output:
        job_path("ablation-{ablation}"),
    log:
        notebook=RUN / "notebooks/ablation-{ablation}.ipynb",
        text=RUN / "notebooks/ablation-{ablation}.log",
    params:
        name="ablation-{ablation}",
    resources:
        cpus_per_task=CPUS,
    message:
        "{params.name}"
    shell:
        PAPERMILL + " notebooks/05_ablation.ipynb {log.notebook} -p study {STUDY} -p ablation {wildcards.ablation}"


rule domain:
    input:
        ancient("notebooks/04_domains.ipynb"),
        [job_path(name) for name in TRAINED],
    output:
        job_path("domain-{domain}"),
    log:
        notebook=RUN / "notebooks/domain-{domain}.ipynb",
        text=RUN / "notebooks/domain-{domain}.log",
    params:
        name="domain-{domain}",
    resources:
        cpus_per_task=CPUS,
    message:
        "{params.name}"
    shell:
        PAPERMILL + " notebooks/04_domains.ipynb {log.notebook} -p study {STUDY} -p domain {wildcards.domain} -p pair all"


use rule domain as sweep with:
    output:
        job_path("sweep-{domain}"),
    log:
        notebook=RUN / "notebooks/sweep-{domain}.ipynb",
        text=RUN / "notebooks/sweep-{domain}.log",
    params:
        name="sweep-{domain}",


onerror:
    # A job or a part of the report failed: show what there is all the same, tracebacks too; but not after Ctrl-C.
    if not any("Terminating processes on user request" in Path(path).read_text() for path in log):
        complete = all(job_path(name).exists() for name in JOBS)
        missing = [name for name in SECTIONS if not (complete and section_path(name).exists())]
        for name in missing:
            text, path = RUN / f"notebooks/{name}.log", section_path(name)
            for folder in (text.parent, path.parent):
                folder.mkdir(parents=True, exist_ok=True)
            settings = SimpleNamespace(name=name, call=SECTIONS[name].format(output=path))
            # papermill keeps a notebook up to the cell that failed
            shell(PAPERMILL + " {params.call} || true", log=SimpleNamespace(text=text), params=settings)
        sections = [str(section_path(name)) for name in SECTIONS if section_path(name).exists()]
        shell("python -m trustlib render {page} {sections}", page=RUN / "report.html", sections=sections)
        for path in [RUN / "report.html", *map(section_path, missing)]:
            if path.exists():
                os.utime(path, (1, 1))  # made again by the next run, see above
        print(f"The report shows what failed: {RUN / 'report.html'}", file=sys.stderr)


onsuccess:
    print(f"report: {RUN / 'report.html'}")
