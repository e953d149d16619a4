"""Is a report the same whatever becomes of the machine? Not part of `make test`; run it as root for the mounts:

    python tests/kill_trial.py [--study digits] [--kills 20] [--only killed,full,...]

It makes a study's report undisturbed, in two fresh clones with one job and two at a time, and then while it kills the
whole process group at random moments, fills the disk, takes away the right to write, starts the job twice, kills
kernels, and damages what is finished, all of which has to be named. Every trial ends with a run to the end: its arrays
and tables have to be those of the undisturbed run to the bit, nothing that was finished may be made twice, and no
half-written file may bear a finished one's name (but for executed notebooks, which papermill writes as it goes:
Snakemake marks them as incomplete). Prints a table in Markdown.
"""

import argparse
import base64
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import nbformat
from safetensors import SafetensorError, safe_open

from trustlib.runs import store

ROOT = Path(__file__).resolve().parent.parent


def start(study: str, results: Path, checkout: Path = ROOT, jobs: int = 2) -> subprocess.Popen:
    environment = {key: value for key, value in os.environ.items() if key != "MAKEFLAGS"}
    environment["TRUST_RESULTS"] = str(results)
    return subprocess.Popen(
        ["make", "report", f"STUDY={study}", f"JOBS={jobs}"], cwd=checkout, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def finish(study: str, results: Path, *where: Path | int, fails: bool = False) -> str:
    """Run to the end and return what was printed."""
    while "already running" in (printed := (process := start(study, results, *where)).communicate()[0]):
        time.sleep(1)  # a kernel outlives its parent by a second
    assert (process.returncode != 0) == fails, printed
    return printed


def trainings(results: Path) -> dict[str, int]:
    """Every finished training's file, and when it was made; each has to be whole."""
    found = {}
    for path in results.rglob("[!.]*.safetensors"):
        with safe_open(path, "pt") as file:
            json.loads(file.metadata()["manifest"])
        found[str(path.relative_to(results))] = path.stat().st_mtime_ns
    return found


def finished(results: Path) -> dict[str, int]:
    """Trainings and jobs, and when each was done.

    A job is done once Snakemake has noted it: one killed after its notebook wrote its result, and before that, is run
    again, and reads its trainings from their files.
    """
    marks = ROOT / ".snakemake" / "incomplete"  # empty files, named by the result's path, in folders where it is long
    names = ["".join(mark.relative_to(marks).parts).replace("@", "") for mark in marks.rglob("*") if mark.is_file()]
    cut = {(ROOT / base64.urlsafe_b64decode(name).decode()).resolve() for name in names}
    jobs = [path for path in results.rglob("jobs/*.json") if path.resolve() not in cut]
    return trainings(results) | {str(path.relative_to(results)): path.stat().st_mtime_ns for path in jobs}


def half_written(results: Path, leave_out: tuple[str, ...] = ("notebooks", "sections")) -> list[str]:
    """Files that bear a finished one's name and are not whole."""
    checks = {
        ".safetensors": lambda path: trainings(path.parent), ".json": lambda path: json.loads(path.read_text()),
        ".ipynb": lambda path: nbformat.read(path, as_version=4),
        ".html": lambda path: path.read_text().index("</html>"), ".svg": lambda path: path.read_text().index("</svg>"),
    }  # fmt: skip
    found = []
    for path in results.rglob("[!.]*.*"):
        if path.suffix in checks and not set(leave_out) & set(path.parts):
            try:
                checks[path.suffix](path)
            except (ValueError, KeyError, SafetensorError, nbformat.reader.NotJSONError):
                found.append(str(path.relative_to(results)))
    return found


def answer(results: Path, study: str) -> dict[str, bytes]:
    """All that a run says: the arrays of its trainings, its tables but for times, to the bit."""
    found = {}
    for name in trainings(results):
        with safe_open(results / name, "np") as file:
            found |= {f"{name}:{key}": file.get_tensor(key).tobytes() for key in file.keys()}  # noqa: SIM118
    for path in (results / "runs" / Path(study).stem / "tables").glob("*.csv"):
        if path.stem != "runs":
            found[path.name] = path.read_bytes()
    return found


class Trial:
    """One disturbance after another, each in a results folder of its own, against an undisturbed run."""

    def __init__(self, study: str, home: Path):
        self.study, self.home, self.rows = study, home, []
        begin = time.monotonic()
        finish(study, home / "undisturbed")
        self.seconds = time.monotonic() - begin
        self.expected = answer(home / "undisturbed", study)
        self.note("undisturbed", f"{self.seconds:.0f} s", len(trainings(home / "undisturbed")), 0, 0, True)

    def note(self, *row: object) -> None:
        self.rows.append(row)
        print("|", " | ".join(map(str, row)), "|", flush=True)

    def go_on(self, name: str, what: str, results: Path, before: dict[str, int], half: int = 0) -> None:
        """Run to the end and compare; `before`: what must not be made again."""
        finish(self.study, results)
        self.compare(name, what, results, before, half)

    def compare(self, name: str, what: str, results: Path, before: dict[str, int], half: int = 0) -> None:
        after = finished(results)
        twice = [path for path, made in before.items() if after.get(path) != made]
        half += len(half_written(results, ("notebooks",)))
        run = results / "runs" / Path(self.study).stem
        same = answer(results, self.study) == self.expected and bool(store.sealed(run)) and not store.damaged(run)
        self.note(name, what, len(before), half, len(twice), same)

    def again(self) -> None:
        """The same in fresh clones with environments of their own, one job at a time and two."""
        for jobs in (1, 2):
            clone, results = self.home / f"clone{jobs}", self.home / f"again{jobs}"
            subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
            finish(self.study, results, clone, jobs)
            self.compare("fresh clone", f"JOBS={jobs}", results, {})

    def killed(self, kills: int) -> None:
        """SIGKILL to the process group at random moments."""
        results, half, draw = self.home / "killed", 0, random.Random(0)
        for number in range(kills):
            before = finished(results)
            process, moment = start(self.study, results), draw.uniform(1, self.seconds / 3)
            try:
                printed = process.communicate(timeout=moment)[0]
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                printed = process.communicate()[0]
            time.sleep(2)
            after = finished(results)
            half += len(half_written(results))
            twice = sum(after.get(path) != made for path, made in before.items())
            last = [line for line in printed.splitlines() if line][-1:] or [""]
            self.note(f"kill {number + 1}", f"after {moment:.1f} s: {last[0][:60]}", len(after), half, twice, "")
            if process.returncode == 0:  # finished before: from the beginning
                assert answer(results, self.study) == self.expected
                shutil.rmtree(results)
        self.go_on("killed", f"{kills} times, then to the end", results, finished(results), half)

    def full(self) -> None:
        """A disk that is full, then has room."""
        with mounted(self.home / "full", "size=3m") as results:
            printed = finish(self.study, results, fails=True)
            said = telling(printed, "space")
            before, half = finished(results), len(half_written(results))
            subprocess.run(["mount", "-o", "remount,size=2g", results], check=True)
            self.go_on("disk full", said, results, before, half)

    def read_only(self) -> None:
        """A results folder that nothing can be written to."""
        with mounted(self.home / "readonly", "size=2g") as results:
            subprocess.run(["mount", "-o", "remount,ro", results], check=True)
            printed = finish(self.study, results, fails=True)
            subprocess.run(["mount", "-o", "remount,rw", results], check=True)
            self.go_on("read-only", telling(printed, "Read-only"), results, {})

    def twice(self) -> None:
        """The job started while it runs."""
        results = self.home / "twice"
        first = start(self.study, results)
        time.sleep(20)
        second = start(self.study, results)
        said = telling(second.communicate()[0], "already running")
        assert second.returncode != 0, said
        printed = first.communicate()[0]
        assert first.returncode == 0, printed
        self.go_on("two at once", said, results, finished(results))

    def kernel(self) -> None:
        """SIGKILL to kernels in the middle of their notebooks: of the first job, and later of others."""
        results, half, draw, failures = self.home / "kernel", 0, random.Random(2), []
        for wait in (3, draw.uniform(20, self.seconds / 3), draw.uniform(20, self.seconds / 3)):
            process, began = start(self.study, results), time.monotonic()
            while process.poll() is None:
                kernels = children(process.pid, "ipykernel_launcher")
                if kernels and time.monotonic() > began + wait:
                    with suppress(ProcessLookupError):
                        os.kill(draw.choice(kernels), signal.SIGKILL)
                    break
                time.sleep(0.2)
            printed = process.communicate()[0]
            half += len(half_written(results))
            failures += [line for line in printed.splitlines() if "FAILED" in line]
            self.note("kernel killed", telling(printed, "FAILED"), len(finished(results)), half, "", "")
        self.go_on("kernels killed", "then to the end", results, finished(results), half)
        assert failures, "no run had a kernel to kill"

    def damaged(self) -> None:
        """A byte flipped, or a file cut, in trainings, a table, a figure, parts of the report, the page, its seal."""
        results = self.home / "damaged"
        shutil.copytree(self.home / "undisturbed", results)
        draw = random.Random(1)
        files = sorted(trainings(results))
        chosen = [results / name for name in draw.sample(files, 3)]
        run = results / "runs" / Path(self.study).stem
        chosen += [run / "tables" / "scores.csv", run / "sections" / "06_report.ipynb", run / "report.html"]
        chosen += [run / "figures" / "risk-coverage.svg", run / "sections" / "09_published.ipynb"]
        for number, path in enumerate(chosen):
            content = bytearray(path.read_bytes())
            at = draw.randrange(len(content))
            content[at] ^= 1
            path.write_bytes(content if number % 2 else content[:at])
        before = {name: made for name, made in trainings_that_open(results).items() if results / name not in chosen}
        printed = finish(self.study, results)
        lines = [line for line in printed.splitlines() if "is damaged" in line or "not as the report left it" in line]
        named = sum(any(str(path.relative_to(results)) in line for line in lines) for path in chosen)
        self.compare("damaged", f"{len(chosen)} files, {named} named", results, before)
        seal, before = run / "seal.json", finished(results)
        seal.write_bytes(seal.read_bytes()[: draw.randrange(seal.stat().st_size)])
        said = telling(finish(self.study, results), "seal.json is missing or damaged")
        self.compare("seal damaged", said, results, before)
        assert named == len(chosen), lines
        assert not said.startswith("nothing of"), said


def telling(printed: str, word: str) -> str:
    return next((line.strip()[:90] for line in printed.splitlines() if word in line), f"nothing of {word!r}")


def trainings_that_open(results: Path) -> dict[str, int]:
    found = {}
    for path in results.rglob("[!.]*.safetensors"):
        try:
            found |= {str(path.relative_to(results)): path.stat().st_mtime_ns} if safe_open(path, "pt") else {}
        except SafetensorError:
            continue
    return found


def children(group: int, text: str) -> list[int]:
    """Processes that descend from the group's first and have a text in their command line."""
    found, parents = [], {group}
    listing = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = (line.split(None, 2) for line in listing.splitlines())
    rows = sorted((int(pid), int(parent), args) for pid, parent, args in rows)
    for pid, parent, args in rows:
        if parent in parents:
            parents.add(pid)
            found += [pid] if text in args else []
    return found


@contextmanager
def mounted(folder: Path, options: str):
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def main() -> None:
    trials = ("again", "killed", "full", "read_only", "twice", "kernel", "damaged")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="digits")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--only", default=",".join(trials))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        print("| trial | what happened | finished before | half-written | made twice | the same |")
        print("|---|---|---|---|---|---|")
        trial = Trial(args.study, Path(home))
        for name in args.only.split(","):
            if name == "killed":
                trial.killed(args.kills)
            else:
                getattr(trial, name)()
    sys.exit(any(row[3] or row[4] or row[5] is False for row in trial.rows))


if __name__ == "__main__":
    main()
