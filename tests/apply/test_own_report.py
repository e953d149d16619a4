"""A report on your own predictions: its page and numbers, made by the command or from Python."""

import html
import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from test_evaluate import CLASSES, JUDGED, LABEL, LOGITS, OUTPUTS, N, P
from test_page import check_page

import trustlib
from trustlib import metrics
from trustlib.apply import reader
from trustlib.data import ROOT

SCRIPT, PICTURE = "<script>alert(1)</script>", '<img src=x onerror="alert(2)">'


# --- The page and the command ---


@pytest.fixture
def hostile(save):
    """A file whose every name would be markup or a script, were it not shown as text."""
    rng = np.random.default_rng(4)
    table = OUTPUTS.sample(400, replace=True, random_state=0).assign(group=rng.choice(["east", "<b>west</b>"], 400))
    table = table.assign(label=table["label"].replace("cat", SCRIPT), **{PICTURE: rng.random(400)})
    table = table.rename(columns={"logit_cat": f"logit_{SCRIPT}"}).assign(**{"<i>unused</i>": "x"})
    return table, save(table, "<u>.csv")


def test_the_command_writes_a_page_and_numbers(hostile, tmp_path, command):
    table, path = hostile
    page = tmp_path / "out" / "page.html"
    settings = {"max-risk": 0.5, "delta": 0.1, "method": "Margin", "resamples": 50, "html": page}
    status, out, _ = command("evaluate", path, *(f"--{name}={value}" for name, value in settings.items()))
    assert status == 0
    assert "Margin: Keep" in out
    written = check_page(page.read_text())
    tags = [tag for tag, _ in written.tags]
    assert tags.count("h1") == 1
    scripts = [attributes.get("type") for tag, attributes in written.tags if tag == "script"]
    assert scripts == ["application/json", None]  # the explorer's data, and the frame's own
    assert not [name for _, attributes in written.tags for name in attributes if name.startswith("on")]
    text = html.unescape(re.sub("<[^>]*>", "", page.read_text()))
    for name in ("<b>west</b>", SCRIPT, PICTURE, "<i>unused</i>", "<u>.csv"):
        assert name in text
    numbers = json.loads(page.with_suffix(".json").read_text(), parse_constant=pytest.fail)  # no NaN
    classes = np.array([SCRIPT, *CLASSES[1:]])
    correct = classes[table.filter(like="logit").to_numpy().argmax(1)] == table["label"]
    assert (numbers["n"], numbers["errors"]) == (400, (~correct).sum())
    assert numbers["method"] == "Margin"
    assert numbers["guarantees"]["Margin"]["found"]
    assert set(numbers["groups"]) == {"east", "<b>west</b>"}


def test_the_same_predictions_make_the_same_page_and_numbers(hostile):
    first, second = (trustlib.evaluate(hostile[1], max_risk=0.5, delta=0.1, resamples=20) for _ in range(2))
    assert first.to_html() == second.to_html()
    assert first.to_json() == second.to_json()
    assert first._repr_html_() == second._repr_html_()


@pytest.mark.parametrize(
    "arguments",
    [
        ["none.csv"],
        ["a.csv", "--max-risk", "5"],
        ["a.csv", "--delta", "0"],
        ["a.csv", "--html", "out.json"],  # page and numbers in one file
        ["a.csv", "--html", "folder"],
        ["a.csv", "--html", "a.csv", "--force"],
        ["a.csv", "--html", "there.html"],
    ],
)
def test_what_cannot_be_run_is_refused_at_once_and_nothing_is_written(tmp_path, arguments):
    (tmp_path / "a.csv").write_text("correct,confidence\n" + "1,0.9\n0,0.1\n" * 50)
    (tmp_path / "there.html").write_text("mine")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    code = "import sys; sys.argv[0] = 'trustlib'; from trustlib.__main__ import main; status = main()"
    code += "; assert 'numpy' not in sys.modules; sys.exit(status)"  # which is what takes time
    run = [sys.executable, "-c", code, "evaluate", *arguments]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 2
    assert re.fullmatch(r"error: .+\n", done.stderr)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "there.html").read_text() == "mine"


def test_the_command_says_in_one_line_what_is_wrong_with_a_file(save, tmp_path, command):
    path = save(JUDGED.drop(columns="correct"))
    status, _, err = command("evaluate", path, "--html", tmp_path / "page.html")
    assert status == 1
    assert err.startswith(f"error: {path}: expected a column correct")
    assert not (tmp_path / "page.html").exists()


def test_a_limit_on_the_risk_is_an_exit_code(save, tmp_path, command):
    table = pd.DataFrame({"correct": np.arange(1000) % 50 > 0, "mine": np.linspace(0, 1, 1000)})
    arguments = ["evaluate", save(table), "--resamples", "20", "--html", tmp_path / "a.html", "--force"]
    assert command(*arguments, "--fail-if-risk-above", "0.05")[0] == 0
    assert command(*arguments, "--fail-if-risk-above", "0.02")[0] == 3  # 2 % are errors: no bound is as low
    assert (tmp_path / "a.html").exists()


# --- Called from Python ---


def test_arrays_tables_and_a_classifier_are_one_evaluation():
    class Classifier:
        classes_ = np.array(CLASSES)

        def predict_proba(self, x):
            return P[x]

    names = np.array(CLASSES)[LABEL]
    table = pd.DataFrame(P, columns=[f"prob_{name}" for name in CLASSES]).assign(label=names)
    kinds = [
        (table,), (names, P), (pd.Series(names), pd.DataFrame(P, columns=CLASSES)), (LABEL, torch.tensor(P)),
        (LABEL.tolist(), P.tolist()), (Classifier(), np.arange(N), names),
    ]  # fmt: skip
    frames = [trustlib.evaluate(*kind, resamples=20).frame() for kind in kinds]
    for frame in frames[1:]:
        pd.testing.assert_frame_equal(frame, frames[0])
    logit = trustlib.evaluate(names, LOGITS, resamples=20)
    assert not logit.table.probabilities
    np.testing.assert_array_equal(logit.table.correct, LOGITS.argmax(1) == LABEL)


def test_whether_correct_and_a_confidence():
    correct = JUDGED["correct"].to_numpy(bool)
    one = trustlib.evaluate(correct, JUDGED["mine"], resamples=20)
    several = trustlib.evaluate(correct, {"mine": JUDGED["mine"], "theirs": JUDGED["theirs"]}, resamples=20)
    assert list(several.scores) == ["mine", "theirs"]
    area = metrics.evaluate(JUDGED["mine"].to_numpy(), correct)["auroc"]
    for report, name in ((one, "confidence"), (several, "mine")):
        frame = report.frame().set_index(["score", "metric"])
        assert frame.loc[(name, "auroc"), "estimate"] == pytest.approx(area)
    with pytest.raises(reader.PredictionsError, match="has to be of booleans"):
        trustlib.evaluate(JUDGED["correct"], JUDGED["mine"])


def test_columns_of_probabilities_need_classes_where_these_do_not_follow():
    p = np.full((N, 4), 0.25)
    with pytest.raises(reader.PredictionsError, match="name the class of each column"):
        trustlib.evaluate(np.array(CLASSES)[LABEL], p)
    found = trustlib.evaluate(np.array(CLASSES)[LABEL], p, classes=[*CLASSES, "fox"], resamples=5)
    assert found.table.classes == (*CLASSES, "fox")


# --- Two classifiers ---


def test_a_comparison_is_a_page_numbers_and_a_sentence(tmp_path):
    worse = LOGITS + np.random.default_rng(12).normal(size=LOGITS.shape)
    found = trustlib.compare((LABEL, LOGITS), (LABEL, worse), max_risk=0.3, resamples=100)
    page = check_page(found.to_html(tmp_path / "page.html"))
    assert [tag for tag, _ in page.tags].count("h1") == 1
    numbers = json.loads(found.to_json(), parse_constant=pytest.fail)
    assert set(numbers["sources"]) == set(numbers["curves"]) == {"A", "B"}
    frame = found.frame().set_index(["name", "metric"])
    assert frame.loc[("B", "accuracy"), "estimate"] == (worse.argmax(1) == LABEL).mean()
    assert found.sentence in html.unescape(found._repr_html_())
