"""Gates: the same rows through a file, without labels, and alarms that are seldom false."""

import json

import numpy as np
import pandas as pd
import pytest

from trustlib.apply import evaluate, gate, reader
from trustlib.stats import selective

N, K = 1200, 4


def drawn(seed=0, n=N, shift=0.0):
    """Logits of calibrated predictions, a column of its own, and labels."""
    rng = np.random.default_rng(seed)
    logits = (2.5 - shift) * rng.normal(size=(n, K)) * rng.random((n, 1))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    label = (rng.random((n, 1)) > p.cumsum(1)).sum(1).clip(max=K - 1)
    return logits, p, label, p.max(1).round(2) + shift / 10


@pytest.fixture(params=["logits", "probabilities", "rounded", "column"])
def case(request, tmp_path):
    """(a labelled file, the same rows without labels, the confidence's name)."""
    logits, p, label, mine = drawn()
    if request.param == "column":
        frame = pd.DataFrame({"id": [f"{i:04}.png" for i in range(N)], "mine": mine})
        labels, name = {"correct": (label == p.argmax(1)).astype(int)}, "mine"
    else:
        p = p.round(2) / p.round(2).sum(1, keepdims=True) if request.param == "rounded" else p
        prefix, values = ("logit_", logits) if request.param == "logits" else ("prob_", p)
        frame = pd.DataFrame(values).rename(columns=lambda k: f"{prefix}c{k}")
        labels, name = {"label": [f"c{k}" for k in label]}, "MCP"
    paths = tmp_path / "labelled.csv", tmp_path / "new.csv"
    frame.assign(**labels).to_csv(paths[0], index=False)
    frame.to_csv(paths[1], index=False)
    return *paths, name


def made(path, name, rule="fixed-sequence", max_risk=0.4):
    table = reader.read(path)
    values = evaluate.scores_of(table)[0][name]
    return gate.of(table, name, selective.guaranteed_threshold(values, table.correct, max_risk, 0.05, rule))


def test_the_same_rows_are_accepted_through_files_and_without_labels(case, tmp_path):
    labelled, new, name = case
    table = reader.read(labelled)
    scores, _ = evaluate.scores_of(table)
    row = evaluate.guarantees({name: scores[name]}, table.correct, 0.4, 0.05, rounded=table.probabilities).loc[name]
    assert 0 < row["kept"] < N
    chosen = gate.of(table, name, row)
    chosen.save(tmp_path / "gate.json")
    again = gate.Gate.load(tmp_path / "gate.json")
    assert again == chosen
    written = gate.apply(again, new, tmp_path / "out.csv")
    expected = scores[name] > selective.guaranteed_threshold(scores[name], table.correct, 0.4, 0.05).threshold
    np.testing.assert_array_equal(written["accepted"], expected)
    np.testing.assert_array_equal(gate.accept(again, table), expected)
    out = pd.read_csv(tmp_path / "out.csv")
    np.testing.assert_array_equal(out["accepted"], expected)
    assert list(out)[: len(pd.read_csv(new).columns)] == list(pd.read_csv(new))
    if name == "MCP":
        np.testing.assert_array_equal(out["MCP"], scores["MCP"])
    with pytest.raises(reader.PredictionsError, match="--force"):
        gate.apply(again, new, tmp_path / "out.csv")


@pytest.mark.parametrize("written", ["per cent", "per cent sign", "one class", "one class in per cent"])
def test_a_column_is_read_as_it_was_where_the_gate_was_made(tmp_path, written):
    rng = np.random.default_rng(0)
    p = rng.random(3000).round(3)
    label, prediction = (rng.random(3000) < p).astype(int), (p > 0.5).astype(int)
    frame = pd.DataFrame({"label": label, "prediction": prediction})
    if "class" in written:
        frame["probability"] = p if written == "one class" else 100 * p
        confidence = np.maximum(p, 1 - p)
    else:
        frame = frame.assign(correct=rng.random(3000) < p).drop(columns=["label", "prediction"])
        frame["confidence"] = [f"{x:.1f}%" for x in 100 * p] if "sign" in written else 100 * p
        confidence = p
    frame.to_csv(tmp_path / "labelled.csv", index=False)
    table = reader.read(tmp_path / "labelled.csv")
    ((name, values),) = table.confidences.items()
    np.testing.assert_allclose(values, confidence, atol=1e-9)
    chosen = made(tmp_path / "labelled.csv", name, max_risk=0.3)
    chosen.save(tmp_path / "gate.json")
    few = frame.iloc[:40][confidence[:40] < 0.7].drop(columns="correct", errors="ignore")  # all below the threshold
    for rows in (few, few.drop(columns=["label", "prediction"], errors="ignore")):
        rows.to_csv(tmp_path / "few.csv", index=False)
        got = gate.apply(gate.Gate.load(tmp_path / "gate.json"), tmp_path / "few.csv", tmp_path / "o.csv", force=True)
        np.testing.assert_array_equal(got["accepted"], confidence[few.index] > chosen.threshold)


def test_a_column_of_another_unit_is_refused(tmp_path):
    def saved(name, values):
        pd.DataFrame({"correct": [1, 0] * 200, "confidence": values}).to_csv(tmp_path / name, index=False)
        return tmp_path / name

    values = np.tile([0.9, 0.3], 200)
    fraction, per_cent = saved("fraction.csv", values), saved("per-cent.csv", 100 * values)
    for one, other in ((fraction, per_cent), (per_cent, fraction)):
        with pytest.raises(reader.PredictionsError, match=r"was (a fraction|in per cent) where the gate was made"):
            gate.apply(made(one, "confidence"), other, tmp_path / "out.csv")
        with pytest.raises(reader.PredictionsError, match="was read otherwise"):
            gate.accept(made(per_cent, "confidence"), reader.read(fraction))


def test_a_gate_that_accepts_everything_is_valid_json(tmp_path):
    path = tmp_path / "all.csv"
    pd.DataFrame({"mine": np.arange(500) / 1000, "correct": 1}).to_csv(path, index=False)
    made(path, "mine").save(tmp_path / "gate.json")
    assert json.loads((tmp_path / "gate.json").read_text())["threshold"] == "-inf"
    assert gate.apply(gate.Gate.load(tmp_path / "gate.json"), path, tmp_path / "out.csv")["accepted"].all()


def test_what_a_gate_needs_is_said_in_one_sentence(case, tmp_path):
    labelled, _, name = case
    chosen = made(labelled, name)
    pd.DataFrame({"theirs": [0.5, 0.6]}).to_csv(tmp_path / "other.csv", index=False)
    needs = "column mine" if name == "mine" else "columns (logit|prob)_CLASS"
    with pytest.raises(reader.PredictionsError, match=f"other.csv: the gate needs (the )?{needs}; found theirs"):
        gate.apply(chosen, tmp_path / "other.csv", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()
    chosen.save(tmp_path / "gate.json")
    content = json.loads((tmp_path / "gate.json").read_text())
    for broken, message in (({**content, "threshold": None}, "threshold"), ({**content, "schema": "x"}, "schema")):
        (tmp_path / "broken.json").write_text(json.dumps(broken))
        with pytest.raises(reader.PredictionsError, match=f"broken.json: .*{message}"):
            gate.Gate.load(tmp_path / "broken.json")


def test_a_fraction_is_not_applied_to_per_cents(tmp_path):
    _, p, label, mine = drawn()
    pd.DataFrame({"mine": mine, "correct": label == p.argmax(1)}).to_csv(tmp_path / "old.csv", index=False)
    pd.DataFrame({"mine": 100 * mine}).to_csv(tmp_path / "new.csv", index=False)
    with pytest.raises(reader.PredictionsError, match="fraction"):
        gate.apply(made(tmp_path / "old.csv", "mine"), tmp_path / "new.csv", tmp_path / "out.csv")


def table_of(values, correct):
    return reader.Table("rows", correct, {"mine": values})


@pytest.mark.parametrize("digits", [9, 1])
@pytest.mark.parametrize("rule", ["sgr", "fixed-sequence"])
def test_alarms_are_seldom_false_and_come_when_something_changes(rule, digits):
    # risk above a threshold t: 0.4 (1 - t); the threshold comes of labels, which the test of the coverage has to bear
    rng, alpha, draws = np.random.default_rng(1), 0.2, 150
    false = {"coverage": 0, "risk": 0}
    for _ in range(draws):

        def rows(n):
            z = rng.random(n)
            return table_of(z.round(digits), rng.random(n) >= 0.8 * (1 - z))

        old = rows(300)
        found = selective.guaranteed_threshold(old.confidences["mine"], old.correct, 0.2, 0.1, rule)
        if not found.found:
            continue
        chosen = gate.of(old, "mine", found)
        seen = gate.monitor(chosen, [rows(60) for _ in range(4)], alpha)
        above = found.threshold + (0.05 if digits == 1 else 0)
        for test in false:
            allowed = test == "coverage" or 0.4 * (1 - above) <= 0.2
            false[test] += allowed and seen["alarm"].str.contains(test).any()
    assert sum(false.values()) / draws <= alpha
    worse = table_of(rng.random(400).round(digits) ** 0.3, rng.random(400) < 0.5)
    assert gate.monitor(chosen, worse)["alarm"].tolist() == ["coverage, risk"]


def test_labels_may_come_in_for_some_rows(tmp_path):
    _, p, label, mine = drawn()
    correct = label == p.argmax(1)
    pd.DataFrame({"mine": mine, "correct": correct}).to_csv(tmp_path / "old.csv", index=False)
    chosen = made(tmp_path / "old.csv", "mine")
    some = pd.Series(correct.astype(float)).where(np.arange(N) % 3 == 0)
    pd.DataFrame({"mine": mine, "correct": some}).to_csv(tmp_path / "new.csv", index=False)
    row = gate.monitor(chosen, tmp_path / "new.csv").iloc[0]
    kept = mine > chosen.threshold
    assert (row["rows"], row["accepted"], row["judged"]) == (N, kept.sum(), (kept & some.notna()).sum())
    assert row["errors"] == (kept & (some == 0)).sum()
    assert row["alarm"] == ""


def test_a_run_fails_unless_the_risk_is_shown(tmp_path):
    z = np.arange(1000)
    found = selective.guaranteed_threshold(z, z >= 300, 0.05, 0.05)
    assert not gate.exceeds(found, 0.05)
    assert gate.exceeds(found, 0.04)
    assert gate.exceeds(selective.guaranteed_threshold(z, z % 2 == 0, 0.05, 0.05), 0.05)
    chosen = gate.of(table_of(z.astype(float), z >= 300), "mine", found)
    for n, fails in ((20, True), (400, False)):  # without an error: 20 labels show little
        new = table_of(np.full(n, 900.0), np.ones(n, bool))
        assert gate.exceeds(gate.monitor(chosen, new), 0.02) == fails
