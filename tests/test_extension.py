"""A loss and a score that are added in one place each are in every table and figure that the notebooks show."""

from collections import Counter

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make, quiet, scores_of
from matplotlib.text import Text
from numpy.typing import NDArray
from test_own_oracle import method, told, trained
from torch import Tensor

import trustlib
from trustlib import confidence, data, losses, metrics, report
from trustlib.analysis import compare
from trustlib.apply import evaluate, reader
from trustlib.confidence import Observed, Score, probes, scores
from trustlib.losses import Loss, _against, _check
from trustlib.report import ablation_tables, figures, study_tables, tables
from trustlib.runs import shifted, steps, store, tuning
from trustlib.runs.results import Run
from trustlib.stats import resampling
from trustlib.study import StudyError

# --- What is added: README shows hinge and logit_gap ---


def hinge(z: Tensor, target: Tensor, *, margin: float = 1.0) -> Tensor:
    """Hinge loss: by how much z lacks the margin on its right side of 0 (Cortes and Vapnik 1995)."""
    _check(z, target)
    return (margin + _against(z, target)).relu()


def weighted_tcp(
    z: Tensor, target: Tensor, *, n_correct: int, n_wrong: int, alpha_pos: float = 1.0, alpha_neg: float = 1.0
) -> Tensor:
    """A loss that needs all that an entry can ask for, and notes what it got."""
    _check(z, target)
    GIVEN.append((target, n_correct, n_wrong, alpha_pos, alpha_neg))
    return (z.sigmoid() - target).square() * (alpha_pos + alpha_neg) * n_wrong / n_correct


GIVEN: list[tuple[Tensor, int, int, float, float]] = []


def logit_gap(part: Observed, *_) -> NDArray:
    """The highest logit less the second highest."""
    logits = np.sort(part.logits.astype(np.float64), axis=1)
    return logits[:, -1] - logits[:, -2]


ADDED = {
    "hinge": Loss(hinge, "Hinge"),
    "weighted_tcp": Loss(weighted_tcp, "Weighted TCP", target="p_true", counts=True, slopes=True),
    "logit_gap": Score("Logit gap", logit_gap),
    "logit_gap_5": Score("Logit gap above 5", lambda part, *_: logit_gap(part) - 5, has_zero=True),
}
BESIDE = {  # what is added -> what it stands beside: a table or figure that lists all of these lists it
    "Hinge": {"CE", "Focal"},
    "Weighted TCP": {"CE", "Focal", "TCP"},
    "rsn-rsn/hinge/seed0": {"rsn-rsn/ce/seed0", "rsn-rsn/focal/seed0"},
    "Logit gap": {"Margin", "Energy", "GEN"},
    "Logit gap above 5": {"Temperature-scaled MCP", "Linear probe, CE", "Linear probe, SS"},
}

RATE = {"training": {"rate": 1.0e-3}}  # the method's own, so that the ablations need not look for one
LABELS = {"ce": "CE", "focal": "Focal", "tcp": "TCP", "ss": "SS", "cb": "Class-balanced"}
METHODS = {loss: {"label": label, "loss": loss, "head": "linear", **RATE} for loss, label in LABELS.items()}
METHODS["hinge"] = {"label": "Hinge", "loss": "hinge", "head": "linear", "hyper": {"margin": 2.0}, **RATE}
METHODS["weighted_tcp"] = {"label": "Weighted TCP", "loss": "weighted_tcp", "head": "linear", **RATE}
ABLATION = {"question": "Which loss?", "pairs": ["rsn-rsn"], "methods": ["ce", "focal", "ss", "hinge"], "against": "ce"}
CHANGES = {
    "methods": METHODS,
    "seeds": [0],
    "domains": {"judged": ["contrast-3"], "images": 100, "swept": ["contrast"], "sweep_images": 60},
    "ablations": {
        "rates": [1.0e-3, 3.0e-3],
        "seeds": [0, 1],
        "tuning": 400,
        "questions": {"rate": ABLATION, "head": ABLATION},
    },
}


@pytest.fixture(scope="module")
def extended(trained_with):
    """A study, trained and evaluated on its domains; while it is there, so are the loss and the scores."""
    _, patch = trained_with()
    patch.setattr(resampling, "RESAMPLES", 20)
    for name, line in ADDED.items():
        patch.setitem(confidence.SCORES if isinstance(line, Score) else losses.LOSSES, name, line)
    study, _ = trained_with(**CHANGES)
    steps.confidences(study, "rsn").path.unlink()  # it lacks the added scores
    make(steps.planned(study))
    for arm in ABLATION["methods"]:
        tuning.train(study, "rsn-rsn", arm, quiet)
    make(shifted.planned(study) + shifted.swept(study))
    return study


@pytest.fixture
def shown_by(monkeypatch):
    """A function that runs a notebook's cells here and returns the texts of each table and figure that it shows."""
    shown, plain = [], tables.plain

    def table(style, **settings):
        frame = style if isinstance(style, pd.DataFrame) else style.data
        levels = [index.get_level_values(level) for index in frame.axes for level in range(index.nlevels)]
        shown.append({str(text) for part in (*levels, frame.to_numpy().ravel()) for text in part})
        return plain(style, **settings)

    def figure(fig, *_, **__):
        ticks = [text for ax in fig.axes for text in ax.get_yticklabels()]
        shown.append({text.get_text() for text in fig.findobj(Text) + ticks})
        plt.close(fig)

    def run(name, **parameters):
        cells = nbformat.read(data.ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
        own, *others = (cell.source for cell in cells if cell.cell_type == "code")
        given = "\n".join(["# Parameters", *(f"{key} = {value!r}" for key, value in parameters.items())])
        names = {"In": [own, given]}
        with mpl.rc_context():
            for source in (own, given, *others):
                exec(compile(source, name, "exec"), names)
        return shown

    for module in (tables, study_tables, ablation_tables):
        monkeypatch.setattr(module, "plain", table)
    monkeypatch.setattr(report, "figure", figure)
    monkeypatch.setattr(tables, "published_form", lambda _: pd.DataFrame().style)  # the paper's tables have its rows
    return run


@pytest.mark.filterwarnings("ignore:No artists with labels:UserWarning")  # no rate was looked for
@pytest.mark.slow
@pytest.mark.parametrize(
    ("notebook", "parameters", "least"),
    [
        ("02_train_oracles", {"pair": "rsn-rsn"}, {"Hinge": 3, "rsn-rsn/hinge/seed0": 1, "Logit gap": 1}),
        ("03_confidence", {"network": "rsn"}, {"Logit gap": 2, "Logit gap above 5": 2}),
        ("04_domains", {"domain": "contrast-3"}, {"Hinge": 2, "Logit gap": 1}),
        ("05_ablation", {"ablation": "rate"}, {"Hinge": 2}),
        ("06_report", {}, {"Hinge": 11, "Logit gap": 2, "Logit gap above 5": 5}),
        ("07_ablations", {}, {"Hinge": 3}),
        ("08_unseen", {}, {"Hinge": 3, "Logit gap": 1}),
        ("10_record", {}, {"rsn-rsn/hinge/seed0": 1}),
    ],
)
def test_what_is_added_is_in_every_table_and_figure(extended, shown_by, notebook, parameters, least):
    shown = shown_by(notebook, study=str(store.results().parent / "tiny.yaml"), **parameters)
    beside = [(name, texts) for name, others in BESIDE.items() for texts in shown if others <= texts]
    lacking = [(name, sorted(t for t in texts if t[:1].isalpha())) for name, texts in beside if name not in texts]
    assert not lacking  # what is missing, where
    listed = Counter(name for name, _ in beside)
    assert all(listed[name] >= number for name, number in least.items()), listed


def test_what_is_added_is_measured_as_the_others_are(extended):
    run = Run(extended)
    compared = compare.compare_pairs(run).query("metric == 'auroc'").set_index("arm")
    right, scores = scores_of(run.predictions("rsn-rsn"))
    found = reader.of_study(extended, quiet)
    np.testing.assert_array_equal(right, found.correct)
    expected = logit_gap(Observed(found.logits, found.label))
    np.testing.assert_allclose(scores["logit_gap", 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(evaluate.scores_of(found)[0]["Logit gap"], expected)
    assert trustlib.evaluate(found, resamples=20).to_html().count(">Logit gap<") >= 2  # every metric, guarantees
    for name in ADDED:
        assert compared.loc[name, "estimate"] == pytest.approx(metrics.evaluate(scores[name, 0], right)["auroc"])
        assert np.isfinite(compared.loc[name, ["low", "high", "difference", "p_holm"]].astype(float)).all()
    one = steps.oracle(extended, "rsn-rsn", "hinge", 0).manifest
    assert one["config"]["arm"]["hyper"] == {"margin": 2.0}


def test_a_loss_is_given_the_target_the_counts_and_the_slopes_that_its_entry_asks_for(extended):
    GIVEN.clear()
    trained = steps.oracle(extended, "rsn-rsn", "weighted_tcp", 0)
    trained.path.unlink()
    index = trained.get(quiet).tensors("train.")["index"]
    seen = steps.classifier(extended, "rsn").tensors("train.")
    n_correct = round(seen["correct"][:, index].float().mean(0).sum().item())
    assert {given[1:] for given in GIVEN} == {(n_correct, len(index) - n_correct, 2.0, 5.0)}
    assert torch.isin(torch.cat([target for target, *_ in GIVEN]), seen["p_true"]).all()


def test_a_probe_learns_by_the_entry_alone(extended):
    draw = np.random.default_rng(0)
    part = Observed(draw.normal(size=(200, 3)), np.arange(200) % 3, draw.normal(size=(200, 4)))
    GIVEN.clear()
    assert probes.linear(part, part, part, loss="weighted_tcp").shape == (200,)
    n_correct = int(part.correct.sum())
    probability = np.exp(scores._log_p(part.logits))[np.arange(200), part.labels]
    assert {given[1:3] for given in GIVEN} == {(n_correct, 200 - n_correct)}
    np.testing.assert_allclose(GIVEN[0][0], probability)


def test_an_oracle_for_your_own_classifier_learns_by_the_entry_alone(extended):
    settings = method("weighted_tcp")
    GIVEN.clear()
    _, outputs, splits, _, _ = trained(told(600), settings, rates=[1e-2], epochs=1)
    n_correct = int(outputs["correct"][splits["train"]].sum())
    assert {given[1:3] for given in GIVEN} == {(n_correct, len(splits["train"]) - n_correct)}
    assert torch.isin(torch.cat([target for target, *_ in GIVEN]), outputs["p_true"]).all()


@pytest.mark.parametrize(
    ("method", "change", "message"),
    [
        ("weighted_tcp", {"labels": "heldout"}, "learns a probability and has no labels but those of the training"),
        ("hinge", {"hyper": {"margn": 2.0}}, "loss 'hinge' has no 'margn'; did you mean 'margin'"),
    ],
)
def test_a_study_that_asks_for_what_the_loss_has_not_is_refused(extended, study_with, method, change, message):
    with pytest.raises(StudyError, match=message):
        study_with(methods={method: METHODS[method] | change})


def test_each_added_loss_has_a_colour_of_its_own(monkeypatch):
    monkeypatch.setitem(losses.LOSSES, "hinge", ADDED["hinge"])
    monkeypatch.setitem(losses.LOSSES, "another", ADDED["weighted_tcp"])
    colours = [figures.line_style(name)["color"] for name in ("mcp", *losses.LOSSES)]
    assert len(set(colours)) == len(colours)
    assert {name: figures.line_style(name)["color"] for name in figures.COLOURS} == figures.COLOURS
