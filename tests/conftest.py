"""A study small enough to train in seconds, and a results folder of its own for every test that writes."""

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from trustlib import study, training
from trustlib.predictions import Predictions
from trustlib.runs import results

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


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes minutes")


def quiet(line):
    pass


def make(steps):
    """Make every step, and what it needs."""
    return [step.get(quiet) for step in steps]


@pytest.fixture(autouse=True)
def one_thread():
    training.set_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def write_study(tmp_path, monkeypatch):
    """A function that writes TINY, changed as asked, as a study's YAML and returns its path."""
    monkeypatch.setenv("TRUST_RESULTS", str(tmp_path / "results"))

    def write(**changes):
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(TINY | changes, sort_keys=False))
        return str(path)

    return write


@pytest.fixture
def tiny(write_study):
    return study.load_study(write_study())


def scored(n=300, seed=0, gap=1.0):
    """Confidences and whether n predictions are correct: normals `gap` deviations apart, 80 % correct."""
    rng = np.random.default_rng(seed)
    correct = rng.random(n) < 0.8
    return rng.normal(size=n) + gap * correct, correct


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
