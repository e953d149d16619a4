"""A study small enough to train in seconds, trained once for all tests, and a results folder of its own for each."""

import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy.stats import rankdata

from trustlib import __main__ as commands
from trustlib import study, training
from trustlib.analysis.evidence import Evidence
from trustlib.predictions import Predictions
from trustlib.runs import results, steps, store

TINY = {
    "dataset": "digits",
    "flip": True,
    "networks": {
        "rsn": {
            "label": "RSN",
            "model": "resnet18",
            "args": {
                "in_chans": 1, "num_classes": 10, "layers": [1, 1, 1, 1], "channels": [4, 8, 8, 8],
                "stem_type": "deep", "stem_width": 4,
            },
            "training": {"epochs": 1, "batch": 50, "rate": 4.0e-3, "weight_decay": 0.0},
            "steep_slope": {"alpha_pos": 2.0, "alpha_neg": 5.0},
        }
    },
    "pairs": ["rsn-rsn"],
    "oracle": {"epochs": 1, "images": 400, "batch": 50, "rate": 1.0e-3, "weight_decay": 0.0},
    "methods": {
        "ce": {"label": "CE", "loss": "ce", "head": "linear"},
        "ss": {"label": "SS", "loss": "ss", "head": "distance"},
    },
    "seeds": [0, 1],
}  # fmt: skip


ABLATIONS = {
    "rates": [1.0e-3, 3.0e-3],
    "seeds": [0, 1],
    "tuning": 400,
    "folds": 2,
    "questions": {
        "labels": {
            "question": "Which labels?",
            "pairs": ["rsn-rsn"],
            "methods": ["ce", "ce-crossfit", "ce-heldout", "ss"],
            "against": "ce",
        }
    },
    "methods": {
        "ce-crossfit": {"label": "CE, cross-fitted", "loss": "ce", "head": "linear", "labels": "crossfit"},
        "ce-heldout": {"label": "CE, held out", "loss": "ce", "head": "linear", "labels": "heldout"},
        "ce-fixed": {"label": "CE, fixed", "loss": "ce", "head": "linear", "training": {"rate": 2.0e-3}},
    },
}


def quiet(line):
    pass


def make(steps):
    """Make every step, and what it needs."""
    return [step.get(quiet) for step in steps]


@pytest.fixture(autouse=True)
def one_thread():
    training.set_threads(1)
    torch.manual_seed(0)


def written(folder, patch, /, **changes):
    """The path of TINY, changed as asked, as a study's YAML; its results lie in the folder too."""
    patch.setenv("TRUST_RESULTS", str(folder / "results"))
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY | changes, sort_keys=False))
    return str(path)


@pytest.fixture
def write_study(tmp_path, monkeypatch):
    """A function that writes TINY, changed as asked, and returns its path."""
    return lambda **changes: written(tmp_path, monkeypatch, **changes)


@pytest.fixture
def study_with(write_study):
    """A function that reads TINY, changed as asked."""
    return lambda **changes: study.load_study(write_study(**changes))


@pytest.fixture
def tiny(study_with):
    return study_with()


@pytest.fixture(scope="session")
def trainings(tmp_path_factory):
    """The folder of a run in which every step of TINY is made; to be copied, and not to be changed."""
    training.set_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        of = study.load_study(written(tmp_path_factory.mktemp("trainings"), patch))
        make(steps.planned(of))
        return store.run_folder(of)


@pytest.fixture
def trained(tiny, trainings):
    """TINY with its trainings, in a results folder of its own: a study that differs makes only what differs."""
    shutil.copytree(trainings, store.run_folder(tiny))
    return tiny


@pytest.fixture(scope="module")
def trained_with(tmp_path_factory, trainings):
    """A function that reads TINY, changed as asked, for all tests of a file, with all that it shares with TINY made.

    It returns the study and a monkeypatch that lasts as long.
    """
    with pytest.MonkeyPatch.context() as patch:

        def read(**changes):
            of = study.load_study(written(tmp_path_factory.mktemp("trained"), patch, **changes))
            shutil.copytree(trainings, store.run_folder(of))
            return of, patch

        yield read


@pytest.fixture
def all_trained(monkeypatch):
    """Every oracle counts as trained."""
    monkeypatch.setattr(Evidence, "is_untrained", lambda *_: False)


@pytest.fixture
def save(tmp_path):
    """A function that writes a table, arrays, text or bytes to a file, and returns its path."""

    def save(content, name="a.csv"):
        path = tmp_path / name
        if isinstance(content, dict):
            np.savez(path, **content)
        elif isinstance(content, pd.DataFrame):
            content.to_csv(path, index=False)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return save


@pytest.fixture
def command(monkeypatch, capsys):
    """A function that runs ``python -m trustlib`` with some words in this process: (exit status, stdout, stderr)."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["trustlib", *map(str, words)])
        return commands.main(), *capsys.readouterr()

    return run


def scored(n=300, seed=0, gap=1.0):
    """Confidences and whether n predictions are correct: normals `gap` deviations apart, 80 % correct."""
    rng = np.random.default_rng(seed)
    correct = rng.random(n) < 0.8
    return rng.normal(size=n) + gap * correct, correct


def auroc(z, correct):
    """By ranks, which takes a hundredth of scikit-learn's time."""
    ranks, correct = rankdata(z), np.asarray(correct, bool)  # SciPy resamples the labels as numbers
    return (ranks[correct].mean() - (correct.sum() + 1) / 2) / (~correct).sum()


class Given:
    """Results made of arrays, in place of `runs.results.Run`: (pair, split) -> `Predictions`."""

    classes, channels, steps = 10, 1, None

    def __init__(self, of, predictions=None, fitted=None, labels=None):
        self.study, self.given, self.fitted, self.labels = of, predictions or {}, fitted, labels
        self.curves = pd.DataFrame(columns=results.CURVES)

    def predictions(self, pair, split="test"):
        return self.given.get((pair, split))

    def resample(self, predictions, *, tnr_threshold=None):
        return results.bootstrap(predictions, tnr_threshold)

    def on_training(self, pair, arm):
        return self.fitted

    def label_sources(self, classifier):
        return self.labels

    def tuned_outputs(self, pair, arm, split="test"):
        return None

    def budget(self, pair, arm):
        return self.steps and {"steps": self.steps}


def given(of, correct, split="test", pair="rsn-rsn", **z):
    """`Given` with one split: method -> z (S, N), MCP 0.9 everywhere unless it is given."""
    scores = {"mcp": np.full((1, len(correct)), 0.9)} | z
    thresholds = {name: of.threshold_of(name) for name in scores}
    return Given(of, {(pair, split): Predictions(correct, scores, thresholds, dict.fromkeys(z, tuple(of.seeds)))})


def scores_of(predictions):
    """(correct, (name, seed) -> confidence (N,)) of `Predictions`."""
    return predictions.correct, {(name, seed): row for name, seed, row in predictions.rows()}
