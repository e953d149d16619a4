"""A study small enough to train in seconds, and a results folder of its own for every test that writes."""

import pytest
import torch
import yaml

from trustlib import study, training

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
    "arms": {
        "ce": {"label": "CE", "loss": "ce", "head": "linear"},
        "ss": {"label": "SS", "loss": "ss", "head": "distance"},
    },
    "seeds": [0, 1],
}  # fmt: skip


AUDIT = {
    "rates": [1.0e-3, 3.0e-3],
    "seeds": [0, 1],
    "tuning": 400,
    "folds": 2,
    "controls": {
        "labels": {
            "question": "Which labels?",
            "pairs": ["rsn-rsn"],
            "arms": ["ce", "ce-crossfit", "ce-heldout", "ss"],
            "against": "ce",
        }
    },
    "arms": {
        "ce-crossfit": {"label": "CE, cross-fitted", "loss": "ce", "head": "linear", "labels": "crossfit"},
        "ce-heldout": {"label": "CE, held out", "loss": "ce", "head": "linear", "labels": "heldout"},
        "ce-fixed": {"label": "CE, fixed", "loss": "ce", "head": "linear", "training": {"rate": 2.0e-3}},
    },
}


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
