"""Your own predictions: what a file may hold, what it must, and the page and numbers made of it."""

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
from scipy.special import expit
from sklearn.metrics import log_loss
from test_page import check_page

import trustlib
from trustlib import __main__ as commands
from trustlib import confidence, metrics
from trustlib.apply import evaluate, reader
from trustlib.apply.groups import groups
from trustlib.data import ROOT
from trustlib.stats import calibration, resampling
from trustlib.stats.rates import clopper_pearson, share_interval

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
    found = groups(values, correct, member, 0.0)
    a, x, right = found.loc["a"], values[:180], correct[:180]
    assert (a["n"], a["errors"]) == (180, (~right).sum())
    assert a["auroc"] == pytest.approx(metrics.evaluate(x, right)["auroc"])
    assert a["risk"] == pytest.approx((~right)[x > 0].mean())
    assert a["coverage"] == pytest.approx((x > 0).mean())
    assert found.loc["b", "note"] == "0 incorrect: too few for an AUROC"
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


def test_without_a_threshold_a_group_has_neither_coverage_nor_risk():
    found = groups(np.arange(40.0), np.arange(40) % 2 > 0, np.repeat(["a", "b"], 20), None)
    assert found[["coverage", "risk_high"]].isna().all(axis=None)
    assert found["accuracy"].tolist() == [0.5, 0.5]


def test_no_guarantee_says_why():
    values, correct = np.arange(30.0), np.arange(30) % 2 > 0
    found = evaluate.guarantees({"mine": values}, correct, 0.05, 0.01)
    assert not found.loc["mine", "found"]
    assert "at least" in found.loc["mine", "reason"]


# --- The page and the command ---


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["trustlib", *map(str, arguments)])
    return commands.main()


SCRIPT, PICTURE = "<script>alert(1)</script>", '<img src=x onerror="alert(2)">'


@pytest.fixture
def hostile(outputs, save):
    """A file whose every name would be markup or a script, were it not shown as text."""
    rng = np.random.default_rng(4)
    table = outputs.sample(400, replace=True, random_state=0).assign(group=rng.choice(["east", "<b>west</b>"], 400))
    table = table.assign(label=table["label"].replace("cat", SCRIPT), **{PICTURE: rng.random(400)})
    table = table.rename(columns={"logit_cat": f"logit_{SCRIPT}"}).assign(**{"<i>unused</i>": "x"})
    return table, save(table, "<u>.csv")


def test_the_command_writes_a_page_and_numbers(hostile, tmp_path, monkeypatch, capfd):
    table, path = hostile
    page = tmp_path / "out" / "page.html"
    settings = {"max-risk": 0.5, "delta": 0.1, "method": "Margin", "resamples": 50, "html": page}
    status = command(monkeypatch, "evaluate", path, *(f"--{name}={value}" for name, value in settings.items()))
    assert status == 0
    assert "Margin: Keep" in capfd.readouterr().out
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


def test_the_command_says_in_one_line_what_is_wrong_with_a_file(save, judged, tmp_path, monkeypatch, capfd):
    path = save(judged.drop(columns="correct"))
    assert command(monkeypatch, "evaluate", path, "--html", tmp_path / "page.html") == 1
    assert capfd.readouterr().err.startswith(f"error: {path}: expected a column correct")
    assert not (tmp_path / "page.html").exists()


def test_a_limit_on_the_risk_is_an_exit_code(save, tmp_path, monkeypatch, capfd):
    table = pd.DataFrame({"correct": np.arange(1000) % 50 > 0, "mine": np.linspace(0, 1, 1000)})
    arguments = ["evaluate", save(table), "--resamples", "20", "--html", tmp_path / "a.html", "--force"]
    assert command(monkeypatch, *arguments, "--fail-if-risk-above", "0.05") == 0
    assert command(monkeypatch, *arguments, "--fail-if-risk-above", "0.02") == 3  # 2 % are errors: no bound is as low
    assert (tmp_path / "a.html").exists()


# --- Called from Python ---


def test_arrays_tables_and_a_classifier_are_one_evaluation(logits, label):
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

    class Classifier:
        classes_ = np.array(CLASSES)

        def predict_proba(self, x):
            return p[x]

    names = np.array(CLASSES)[label]
    table = pd.DataFrame(p, columns=[f"prob_{name}" for name in CLASSES]).assign(label=names)
    kinds = [
        (table,), (names, p), (pd.Series(names), pd.DataFrame(p, columns=CLASSES)), (label, torch.tensor(p)),
        (label.tolist(), p.tolist()), (Classifier(), np.arange(N), names),
    ]  # fmt: skip
    frames = [trustlib.evaluate(*kind, resamples=20).frame() for kind in kinds]
    for frame in frames[1:]:
        pd.testing.assert_frame_equal(frame, frames[0])
    logit = trustlib.evaluate(names, logits, resamples=20)
    assert not logit.table.probabilities
    np.testing.assert_array_equal(logit.table.correct, logits.argmax(1) == label)


def test_whether_correct_and_a_confidence(judged):
    correct = judged["correct"].to_numpy(bool)
    one = trustlib.evaluate(correct, judged["mine"], resamples=20)
    several = trustlib.evaluate(correct, {"mine": judged["mine"], "theirs": judged["theirs"]}, resamples=20)
    assert list(several.scores) == ["mine", "theirs"]
    area = metrics.evaluate(judged["mine"].to_numpy(), correct)["auroc"]
    for report, name in ((one, "confidence"), (several, "mine")):
        frame = report.frame().set_index(["score", "metric"])
        assert frame.loc[(name, "auroc"), "estimate"] == pytest.approx(area)
    with pytest.raises(reader.PredictionsError, match="has to be of booleans"):
        trustlib.evaluate(judged["correct"], judged["mine"])


def test_columns_of_probabilities_need_classes_where_these_do_not_follow(label):
    p = np.full((N, 4), 0.25)
    with pytest.raises(reader.PredictionsError, match="name the class of each column"):
        trustlib.evaluate(np.array(CLASSES)[label], p)
    found = trustlib.evaluate(np.array(CLASSES)[label], p, classes=[*CLASSES, "fox"], resamples=5)
    assert found.table.classes == (*CLASSES, "fox")


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


def test_a_group_that_differs_from_the_rest_is_found_and_one_that_does_not_is_not():
    rng = np.random.default_rng(9)
    member, values = rng.choice(["a", "b", "c"], 3000), rng.normal(size=3000)
    correct = rng.random(3000) < np.where(member == "a", 0.7, 0.9)
    found = groups(values, correct, member, 0.0)
    rest = correct[member != "a"].mean()
    assert found.loc["a", "accuracy_difference"] == pytest.approx(correct[member == "a"].mean() - rest)
    assert found.loc["a", "accuracy_difference_high"] < 0 < found.loc["a", "risk_difference_low"]
    assert found.loc["a", ["accuracy_p_holm", "risk_p_holm"]].max() < 1e-6
    assert (found["auroc_p_holm"] > 0.05).all()


def test_errors_of_the_class_probabilities_are_scikit_learns(logits, label):
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = trustlib.evaluate(label, p, resamples=5).class_errors
    assert found["nll"] == pytest.approx(log_loss(label, p))
    assert found["brier"] == pytest.approx(((p - np.eye(K)[label]) ** 2).sum(1).mean())
    assert found["nll_low"] < found["nll"] < found["nll_high"]


def test_the_worst_errors_are_named_by_row(judged):
    report = trustlib.evaluate(judged, confidences=["mine"], resamples=5)
    numbers = report.to_dict()["worst"]
    errors = np.flatnonzero(judged["correct"] == 0)
    expected = errors[np.argsort(-judged["mine"][errors])][:20]
    assert [row["row"] for row in numbers] == judged["image"][expected].tolist()
    report = trustlib.evaluate(judged.drop(columns="image"), confidences=["mine"], resamples=5)
    assert [row["row"] for row in report.to_dict()["worst"]] == (expected + 1).tolist()


# --- Rows that depend ---


@pytest.fixture
def clustered():
    """Twenty copies of each of 60 rows, as one cluster: no more is known than from the 60."""
    rng = np.random.default_rng(10)
    values = rng.random(60)
    correct = rng.random(60) < 0.3 + 0.7 * values
    return values, correct, np.repeat(values, 20), np.repeat(correct, 20), np.repeat(np.arange(60), 20)


def test_intervals_over_clusters_are_as_wide_as_those_of_one_row_each(clustered):
    one, right, values, correct, cluster = clustered
    single, many = evaluate.at_coverages(one, right), evaluate.at_coverages(values, correct, cluster=cluster)
    naive = evaluate.at_coverages(values, correct)
    wide = {name: (frame["high"] - frame["low"]).to_numpy() for name, frame in
            (("single", single), ("many", many), ("naive", naive))}  # fmt: skip
    np.testing.assert_allclose(wide["many"], wide["single"], rtol=0.1)
    assert (wide["naive"] < 0.5 * wide["many"]).all()
    widths = []
    for p, o, of in ((one, right, None), (values, correct, cluster)):
        found = calibration.with_intervals(p, o, cluster=of)
        widths.append([found[f"{name}_high"] - found[f"{name}_low"] for name in ("brier", "nll", "ece")])
    np.testing.assert_allclose(widths[0], widths[1], rtol=0.1)


def test_a_share_over_clusters_is_covered():
    """A share whose clusters differ: 95 % intervals hold it as often as they say, exact ones do not."""
    rng = np.random.default_rng(11)
    held = {"clusters": 0, "rows": 0}
    for _ in range(300):
        hit = rng.random((40, 25)) < rng.beta(2, 6, (40, 1))
        for name, cluster in (("clusters", np.repeat(np.arange(40), 25)), ("rows", None)):
            low, high = share_interval(hit.ravel(), cluster)
            held[name] += low <= 0.25 <= high
    assert held["clusters"] >= 0.92 * 300
    assert held["rows"] < 0.7 * 300


def test_a_report_of_clusters_says_so(clustered, tmp_path):
    *_, values, correct, cluster = clustered
    report = trustlib.evaluate(correct, values, cluster=cluster, resamples=50)
    assert "95 % intervals over clusters" in report.to_html()
    single = trustlib.evaluate(correct[::20], values[::20], resamples=50)
    auroc = [of.frame().set_index("metric").loc["auroc"] for of in (report, single)]
    assert auroc[0]["estimate"] == pytest.approx(auroc[1]["estimate"])
    assert auroc[0]["high"] - auroc[0]["low"] == pytest.approx(auroc[1]["high"] - auroc[1]["low"], rel=0.5)


# --- Two classifiers ---


def test_a_comparison_is_a_page_numbers_and_a_sentence(logits, label, tmp_path):
    worse = logits + np.random.default_rng(12).normal(size=logits.shape)
    found = trustlib.compare((label, logits), (label, worse), max_risk=0.3, resamples=100)
    page = check_page(found.to_html(tmp_path / "page.html"))
    assert [tag for tag, _ in page.tags].count("h1") == 1
    numbers = json.loads(found.to_json(), parse_constant=pytest.fail)
    assert set(numbers["sources"]) == set(numbers["curves"]) == {"A", "B"}
    frame = found.frame().set_index(["name", "metric"])
    assert frame.loc[("B", "accuracy"), "estimate"] == (worse.argmax(1) == label).mean()
    assert found.sentence in html.unescape(found._repr_html_())
