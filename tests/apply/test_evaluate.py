"""Your own predictions: their confidences, and the numbers made of these."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import log_loss

import trustlib
from trustlib import confidence, metrics
from trustlib.apply import evaluate, reader
from trustlib.stats import resampling
from trustlib.stats.rates import clopper_pearson

N, K = 60, 3
CLASSES = ("cat", "dog", "eel")
LOGITS = np.random.default_rng(0).normal(size=(N, K))
P = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)


def labels():
    """Right for about two thirds of the rows."""
    rng = np.random.default_rng(1)
    return np.where(rng.random(N) < 0.6, LOGITS.argmax(1), rng.integers(0, K, N))


def judged():
    """A table of two confidences, and a column that is neither."""
    rng = np.random.default_rng(2)
    correct = rng.random(N) < 0.7
    table = {"image": [f"{i}.png" for i in range(N)], "correct": correct.astype(int)}
    return pd.DataFrame(table | {"mine": rng.random(N) + 0.4 * correct, "theirs": rng.random(N)})


LABEL, JUDGED = labels(), judged()
OUTPUTS = pd.DataFrame(LOGITS, columns=[f"logit_{of}" for of in CLASSES]).assign(label=np.array(CLASSES)[LABEL])


def test_labels_and_predictions_say_what_is_right_and_what_is_confused(save):
    table = JUDGED.drop(columns="correct").assign(label=["a", "b", "c"] * 20, prediction=["a", "c", "c"] * 20)
    found = reader.read(save(table))
    assert found.correct.tolist() == [True, False, True] * 20
    kept = np.arange(N) < 30
    (row,) = evaluate.confusions(found, kept).to_dict("records")
    assert row == {"label": "b", "prediction": "c", "count": 10, "share": 0.5}
    assert evaluate.confusions(found, np.zeros(N, bool)).empty


# --- Scores ---


def test_scores_are_those_of_the_study_and_what_is_fitted_is_fitted_on_the_other_half(save):
    scores, left_out = evaluate.scores_of(reader.read(save(OUTPUTS.assign(mine=LOGITS[:, 1]))))
    seen = confidence.Observed(LOGITS, LABEL)
    needless = {s.label: s for s in confidence.SCORES.values() if not s.needs}
    fitted = {"Temperature-scaled MCP", "MaxLogit-pNorm", "Accuracy of the predicted class"}
    assert set(scores) == {*needless, *fitted, "mine"}
    assert left_out == {}
    for name, score in needless.items():
        np.testing.assert_allclose(scores[name], score.function(seen, None, None))
    half = np.random.default_rng(0).permutation(N) < N // 2
    for part in (half, ~half):
        fit = confidence.Observed(LOGITS[~part], LABEL[~part])
        expected = confidence.temperature(confidence.Observed(LOGITS[part], LABEL[part]), fit)
        np.testing.assert_allclose(scores["Temperature-scaled MCP"][part], expected)


def test_a_score_that_cannot_be_fitted_is_left_out_with_the_reason(save):
    right = OUTPUTS.assign(label=np.array(CLASSES)[LOGITS.argmax(1)])
    scores, left_out = evaluate.scores_of(reader.read(save(right)))
    assert "MCP" in scores
    assert "all 30 predictions" in left_out["Temperature-scaled MCP"]
    assert evaluate.scores_of(reader.read(save(right.iloc[:1])))[1]["MaxLogit-pNorm"] == "one row has no halves"


def test_which_confidences_are_probabilities(save):
    found = reader.read(save(OUTPUTS.assign(share=np.abs(np.tanh(LOGITS[:, 0])), other=LOGITS[:, 0])))
    scores, _ = evaluate.scores_of(found)
    probability = {name: evaluate.probability(found, name, values) for name, values in scores.items()}
    assert {name for name, p in probability.items() if p is not None} == {"MCP", "Temperature-scaled MCP", "share"}
    np.testing.assert_allclose(probability["MCP"], P.max(1))


# --- What is made of them ---


def test_metrics_and_differences_are_those_of_one_paired_bootstrap():
    correct = JUDGED["correct"].to_numpy(bool)
    scores = {name: JUDGED[name].to_numpy() for name in ("mine", "theirs")}
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


def test_what_was_fitted_on_the_rows_has_no_guarantee_and_a_column_is_not_taken_for_a_score(save):
    found = reader.read(save(JUDGED.rename(columns={"mine": "Temperature-scaled MCP"})))
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
    assert float(written) == row["threshold"]


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


def test_no_guarantee_says_why():
    values, correct = np.arange(30.0), np.arange(30) % 2 > 0
    found = evaluate.guarantees({"mine": values}, correct, 0.05, 0.01)
    assert not found.loc["mine", "found"]
    assert "at least" in found.loc["mine", "reason"]


# --- What the numbers are ---


def test_risk_at_coverage_and_coverage_at_risk_are_those_of_their_thresholds():
    rng = np.random.default_rng(7)
    values = rng.integers(0, 40, 500) / 40  # with ties
    correct = rng.random(500) < 0.4 + 0.6 * values
    for frame in (evaluate.at_coverages(values, correct), evaluate.at_risks(values, correct, resamples=50)):
        for row in frame.itertuples():
            kept = values > row.threshold
            assert (kept.sum(), (kept & ~correct).sum()) == (row.kept, row.errors)
    risks = evaluate.at_risks(values, correct, resamples=50)
    for row in risks.itertuples():
        assert row.coverage == metrics.coverage_at_risk(metrics.rank(values, correct), row.risk)
        assert row.low <= row.coverage <= row.high
    assert (evaluate.at_coverages(values, correct)["coverage"] >= np.array(evaluate.COVERAGES)).all()


def test_the_interval_of_a_coverage_is_the_bootstraps():
    rng = np.random.default_rng(8)
    values = rng.random(800)
    correct = rng.random(800) < 0.6 + 0.4 * values
    row = evaluate.at_risks(values, correct, (0.15,), resamples=4000).iloc[0]
    draws = [rng.integers(0, 800, 800) for _ in range(1500)]
    drawn = [metrics.coverage_at_risk(metrics.rank(values[rows], correct[rows]), 0.15) for rows in draws]
    np.testing.assert_allclose(np.quantile(drawn, [0.025, 0.975]), [row["low"], row["high"]], atol=0.03)


def test_errors_of_the_class_probabilities_are_scikit_learns():
    found = trustlib.evaluate(LABEL, P, resamples=5).class_errors
    assert found["nll"] == pytest.approx(log_loss(LABEL, P))
    assert found["brier"] == pytest.approx(((P - np.eye(K)[LABEL]) ** 2).sum(1).mean())
    assert found["nll_low"] < found["nll"] < found["nll_high"]


def test_the_worst_errors_are_named_by_row():
    report = trustlib.evaluate(JUDGED, confidences=["mine"], resamples=5)
    numbers = report.to_dict()["worst"]
    errors = np.flatnonzero(JUDGED["correct"] == 0)
    expected = errors[np.argsort(-JUDGED["mine"][errors])][:20]
    assert [row["row"] for row in numbers] == JUDGED["image"][expected].tolist()
    report = trustlib.evaluate(JUDGED.drop(columns="image"), confidences=["mine"], resamples=5)
    assert [row["row"] for row in report.to_dict()["worst"]] == (expected + 1).tolist()
