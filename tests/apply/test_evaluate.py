"""Your own predictions: what a file may hold, what it must, and the page and numbers made of it."""

import html
import json
import re
import sys

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from test_report import check_page

from trustlib import __main__ as commands
from trustlib import confidence, metrics
from trustlib.apply import evaluate, reader
from trustlib.report import tables
from trustlib.stats import resampling
from trustlib.stats.rates import clopper_pearson

N, K = 60, 3
CLASSES = ("cat", "dog", "eel")


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(size=(N, K))


@pytest.fixture
def label(logits):
    """Right for about two thirds of the rows."""
    rng = np.random.default_rng(1)
    return np.where(rng.random(N) < 0.6, logits.argmax(1), rng.integers(0, K, N))


@pytest.fixture
def outputs(logits, label):
    """A table of logits, with the names of the classes."""
    table = pd.DataFrame(logits, columns=[f"logit_{name}" for name in CLASSES])
    return table.assign(label=np.array(CLASSES)[label])


@pytest.fixture
def judged():
    """A table of two confidences, and a column that is neither."""
    rng = np.random.default_rng(2)
    correct = rng.random(N) < 0.7
    table = {"image": [f"{i}.png" for i in range(N)], "correct": correct.astype(int)}
    return pd.DataFrame(table | {"mine": rng.random(N) + 0.4 * correct, "theirs": rng.random(N)})


@pytest.fixture
def save(tmp_path):
    def save(table, name="found.csv"):
        path = tmp_path / name
        if name.endswith(".csv"):
            table.to_csv(path, index=False)
        elif name.endswith(".parquet"):
            table.to_parquet(path)
        else:
            np.savez(path, **table)
        return path

    return save


def test_labels_and_predictions_say_what_is_right_and_what_is_confused(judged, save):
    table = judged.drop(columns="correct").assign(label=["a", "b", "c"] * 20, prediction=["a", "c", "c"] * 20)
    found = reader.read(save(table))
    assert found.correct.tolist() == [True, False, True] * 20
    kept = np.arange(N) < 30
    (row,) = evaluate.confusions(found, kept).to_dict("records")
    assert row == {"label": "b", "prediction": "c", "count": 10, "share": 0.5}
    assert evaluate.confusions(found, np.zeros(N, bool)).empty


# --- Scores ---


def test_scores_are_those_of_the_study_and_what_is_fitted_is_fitted_on_the_other_half(outputs, logits, label, save):
    scores, left_out = evaluate.scores_of(reader.read(save(outputs.assign(mine=logits[:, 1]))))
    seen = confidence.Observed(logits, label)
    needless = {s.label: s for s in confidence.SCORES.values() if not s.needs}
    fitted = {"Temperature-scaled MCP", "MaxLogit-pNorm", "Accuracy of the predicted class"}
    assert set(scores) == {*needless, *fitted, "mine"}
    assert left_out == {}
    for name, score in needless.items():
        np.testing.assert_allclose(scores[name], score.function(seen, None, None))
    half = np.random.default_rng(0).permutation(N) < N // 2
    for part in (half, ~half):
        fit = confidence.Observed(logits[~part], label[~part])
        expected = confidence.temperature(confidence.Observed(logits[part], label[part]), fit)
        np.testing.assert_allclose(scores["Temperature-scaled MCP"][part], expected)


def test_a_score_that_cannot_be_fitted_is_left_out_with_the_reason(outputs, logits, save):
    right = outputs.assign(label=np.array(CLASSES)[logits.argmax(1)])
    scores, left_out = evaluate.scores_of(reader.read(save(right)))
    assert "MCP" in scores
    assert "all 30 predictions" in left_out["Temperature-scaled MCP"]
    assert evaluate.scores_of(reader.read(save(right.iloc[:1])))[1]["MaxLogit-pNorm"] == "one row has no halves"


def test_which_confidences_are_probabilities(outputs, logits, save):
    found = reader.read(save(outputs.assign(share=np.abs(np.tanh(logits[:, 0])), other=logits[:, 0])))
    scores, _ = evaluate.scores_of(found)
    probability = {name: evaluate.probability(found, name, values) for name, values in scores.items()}
    assert {name for name, p in probability.items() if p is not None} == {"MCP", "Temperature-scaled MCP", "share"}
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(probability["MCP"], softmax.max(1))


# --- What is made of them ---


def test_metrics_and_differences_are_those_of_one_paired_bootstrap(judged):
    correct = judged["correct"].to_numpy(bool)
    scores = {name: judged[name].to_numpy() for name in ("mine", "theirs")}
    lines = []
    frame = evaluate.compare_scores(scores, correct, {"mine": 0.5}, resamples=50, log=lines.append).set_index(
        ["score", "metric"]
    )
    assert lines == ["50 of 50 resamples of 2 scores"]
    boot = resampling.bootstrap(scores, correct, threshold={"mine": 0.5}, resamples=50)
    expected = resampling.intervals(boot)
    for name, values in scores.items():
        found = metrics.evaluate(values, correct, threshold=0.5)
        for metric in metrics.METRICS:
            if name == "theirs" and metric in ("tpr", "tnr"):  # no threshold, and so none of these
                assert frame.loc[(name, metric)].isna().all()
                continue
            assert frame.loc[(name, metric), "estimate"] == pytest.approx(found[metric])
            low = expected.loc[(name, metric), "low"]
            if metric == "accuracy":
                low, _ = clopper_pearson(int(correct.sum()), len(correct))
            assert frame.loc[(name, metric), "low"] == pytest.approx(float(low))
    less = resampling.difference(boot, "theirs", "mine").loc["auroc"]
    row = frame.loc[("theirs", "auroc")]
    assert row[["difference", "difference_low", "difference_high"]].tolist() == pytest.approx(less.iloc[:3].tolist())
    assert frame.loc["mine", "difference"].isna().all()


def test_the_curve_has_exact_intervals_and_ends_at_the_error_rate():
    values, correct = np.arange(1000.0), np.arange(1000) % 10 > 0
    curve = evaluate.curve(values, correct, points=11)
    assert curve["coverage"].is_monotonic_increasing
    last = curve.iloc[-1]
    assert (last["coverage"], last["risk"]) == (1, 0.1)
    assert (last["low"], last["high"]) == pytest.approx(tuple(map(float, clopper_pearson(100, 1000))))


def test_groups_have_exact_shares_and_no_area_where_too_few_are_wrong():
    rng = np.random.default_rng(3)
    values, correct = rng.normal(size=200), rng.random(200) < 0.7
    member = np.repeat(["a", "b"], [180, 20])
    correct[180:] = True
    found = evaluate.groups(values, correct, member, 0.0)
    a, x, right = found.loc["a"], values[:180], correct[:180]
    assert (a["n"], a["wrong"]) == (180, (~right).sum())
    assert a["auroc"] == pytest.approx(metrics.evaluate(x, right)["auroc"])
    assert a["risk"] == pytest.approx((~right)[x > 0].mean())
    assert a["coverage"] == pytest.approx((x > 0).mean())
    assert found.loc["b", "note"] == "0 wrong: too few for an AUC"
    assert np.isnan(found.loc["b", "auroc"])
    assert found.loc["b", "accuracy_low"] == pytest.approx(0.025 ** (1 / 20))


def test_what_was_fitted_on_the_rows_has_no_guarantee_and_a_column_is_not_taken_for_a_score(judged, save):
    found = reader.read(save(judged.rename(columns={"mine": "Temperature-scaled MCP"})))
    assert list(found.confidences) == ["Temperature-scaled MCP (column)", "theirs"]
    values, correct = np.arange(1000.0), np.arange(1000) > 100
    rows = evaluate.guarantees({"MCP": values, "Temperature-scaled MCP": values}, correct, 0.05, 0.01)
    assert rows["found"].tolist() == [True, False]
    assert rows.loc["Temperature-scaled MCP", "reason"].startswith("it was fitted on these rows")


def test_the_guarantee_says_which_probability_log_odds_are():
    values, correct = np.linspace(-1, 9, 1000), np.arange(1000) > 300
    rows = evaluate.guarantees({"MCP": values, "mine": values}, correct, 0.05, 0.01)
    at = float(rows.loc["MCP", "threshold"])
    probability = float(expit(at))
    said = f"Keep a prediction when its confidence is above {at!r}"
    assert rows.loc["MCP", "sentence"].startswith(f"{said} (log-odds; a probability of {probability!r}): that ")
    assert rows.loc["mine", "sentence"].startswith(f"{said}: that ")


def test_whoever_keeps_what_is_above_the_threshold_as_it_is_written_keeps_as_many():
    rng = np.random.default_rng(6)
    values = rng.random(2000)
    row = evaluate.guarantees({"mine": values}, rng.random(2000) < values, 0.2, 0.01).loc["mine"]
    (written,) = re.findall(r"above (\S+):", row["sentence"])
    assert (values > float(written)).sum() == row["kept"]
    assert tables.guarantees_form(row.to_frame().T).data.loc["mine", "threshold"] == written


def test_without_an_error_every_prediction_is_kept_and_numbers_that_are_not_there_are_no_floats():
    scores = {"mine": np.arange(1000.0), "Temperature-scaled MCP": np.arange(1000.0)}
    found = evaluate.guarantees(scores, np.ones(1000, bool), 0.05, 0.01)
    assert found.loc["mine", "sentence"].startswith("Keep every prediction: that keeps 100.00% of these 1,000")
    numbers = evaluate.plain_numbers(found.to_dict("index"))
    assert numbers["mine"]["threshold"] == "-inf"
    assert json.dumps(numbers["mine"]["kept"]) == "1000"
    assert numbers["Temperature-scaled MCP"]["kept"] is None


@pytest.fixture
def votes(save):
    """Probabilities as a forest of ten trees gives them: eleven values, summed in whichever order."""
    rng = np.random.default_rng(5)
    count = rng.multinomial(10, [0.6, 0.2, 0.1, 0.1], 600)
    p = rng.permuted(count, axis=1) / 10 * (1 + 1e-15 * rng.integers(-3, 4, (600, 1)))
    label = np.where(rng.random(600) < p.max(1), p.argmax(1), rng.integers(0, 4, 600))
    return p, save(pd.DataFrame(p.round(15), columns=[f"prob_{i}" for i in range(4)]).assign(label=label))


def test_rows_of_the_same_probabilities_tie(votes):
    p, path = votes
    found = reader.read(path)
    scores, _ = evaluate.scores_of(found)
    highest = len(np.unique(p.max(1).round(9)))
    patterns = len(np.unique(np.sort(p.round(9), axis=1), axis=0))
    pairs = len(np.unique(np.sort(p.round(9), axis=1)[:, :1:-1], axis=0))
    for name, distinct in {"MCP": highest, "Margin": pairs, "Negative entropy": patterns, "DOCTOR": patterns}.items():
        assert len(np.unique(scores[name])) <= distinct
    assert len(np.unique(scores["MCP"])) == highest
    np.testing.assert_allclose(evaluate.probability(found, "MCP", scores["MCP"]), p.max(1), rtol=1e-8)


def test_a_threshold_of_probabilities_keeps_as_many_of_those_in_the_file(votes):
    _, path = votes
    found = reader.read(path)
    scores, _ = evaluate.scores_of(found)
    row = evaluate.guarantees(scores, found.correct, 0.25, 0.1, rounded=True).loc["MCP"]
    assert 0 < row["kept"] < 600
    (written,) = re.findall(r"a probability of (\S+)\)", row["sentence"])
    assert (pd.read_csv(path).filter(like="prob_").max(axis=1) > float(written)).sum() == row["kept"]
    assert (scores["MCP"] > row["threshold"]).sum() == row["kept"]


def test_small_probabilities_are_not_rounded_away():
    wrong = 10.0 ** -np.arange(1, 13)
    found = reader.Table(
        "", np.ones(12, bool), {}, np.log(np.column_stack((1 - wrong, wrong))), True, np.zeros(12, int), None
    )
    scores, _ = evaluate.scores_of(found)
    for name in ("MCP", "Margin", "Negative entropy", "DOCTOR"):
        assert (np.diff(scores[name]) > 0).all()
    np.testing.assert_allclose(evaluate._unit(np.array([0.0, 1e-17, -2.0, 345.6])), [1e-13, 1e-13, 1e-8, 1e-6])


def test_without_a_threshold_a_group_has_neither_coverage_nor_risk():
    found = evaluate.groups(np.arange(40.0), np.arange(40) % 2 > 0, np.repeat(["a", "b"], 20), None)
    assert found[["coverage", "risk_high"]].isna().all(axis=None)
    assert found["accuracy"].tolist() == [0.5, 0.5]


def test_no_guarantee_says_why():
    values, correct = np.arange(30.0), np.arange(30) % 2 > 0
    found = evaluate.guarantees({"mine": values}, correct, 0.05, 0.01)
    assert not found.loc["mine", "found"]
    assert "at least" in found.loc["mine", "reason"]


# --- The page ---


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["trustlib", "evaluate", *map(str, arguments)])
    return commands.main()


SCRIPT, PICTURE = "<script>alert(1)</script>", '<img src=x onerror="alert(2)">'


@pytest.mark.slow
def test_the_command_writes_a_page_and_numbers(outputs, save, tmp_path, monkeypatch, capfd):
    """Of a file whose every name would be markup or a script, were it not shown as text."""
    rng = np.random.default_rng(4)
    table = outputs.sample(400, replace=True, random_state=0).assign(group=rng.choice(["east", "<b>west</b>"], 400))
    table = table.assign(label=table["label"].replace("cat", SCRIPT), **{PICTURE: rng.random(400)})
    table = table.rename(columns={"logit_cat": f"logit_{SCRIPT}"}).assign(**{"<i>unused</i>": "x"})
    page = tmp_path / "out" / "page.html"
    settings = {"max-risk": 0.5, "delta": 0.1, "method": "Margin", "resamples": 50, "html": page}
    status = command(monkeypatch, save(table, "<u>.csv"), *(f"--{name}={value}" for name, value in settings.items()))
    assert status == 0
    printed = capfd.readouterr().out
    assert "50 of 50 resamples of " in printed
    written = check_page(page.read_text())
    assert [tag for tag, _ in written.tags].count("script") == 1  # the frame's own
    assert not [name for _, attributes in written.tags for name in attributes if name.startswith("on")]
    assert {tag for tag, _ in written.tags}.isdisjoint("biu")
    numbers = json.loads(page.with_suffix(".json").read_text(), parse_constant=pytest.fail)  # no NaN
    classes = np.array([SCRIPT, *CLASSES[1:]])
    correct = classes[table.filter(like="logit").to_numpy().argmax(1)] == table["label"]
    assert (numbers["n"], numbers["wrong"]) == (400, (~correct).sum())
    assert numbers["method"] == "Margin"
    assert numbers["guarantees"]["Margin"]["found"]
    assert PICTURE in numbers["guarantees"]
    assert re.search("Keep (every|a) prediction", page.read_text())
    assert "scores resampled" not in page.read_text()  # progress is for those who wait
    assert set(numbers["groups"]) == {"east", "<b>west</b>"}
    text = html.unescape(re.sub("<[^>]*>", "", page.read_text()))
    for name in ("<b>west</b>", SCRIPT, PICTURE, "<i>unused</i>", "<u>.csv"):
        assert name in text


@pytest.mark.slow
def test_the_command_says_in_one_line_what_is_wrong(save, judged, tmp_path, monkeypatch, capfd):
    path = save(judged.drop(columns="correct"))
    assert command(monkeypatch, path, "--html", tmp_path / "page.html") == 1
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: {path}: expected a column correct")
    assert not (tmp_path / "page.html").exists()
