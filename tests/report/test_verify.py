"""A published study's tables follow from its scores, and what does not is named."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import TINY, make, quiet

from trustlib import __main__ as commands
from trustlib.analysis import claims, rules
from trustlib.analysis.evidence import Evidence
from trustlib.report import publish, verify
from trustlib.runs import jobs, shifted, steps, store
from trustlib.runs.results import Run
from trustlib.stats import resampling
from trustlib.study import load_study

METHODS = {
    "tcp": {"label": "TCP", "loss": "tcp", "head": "linear"},
    "ce-released": {"label": "CE, as released", "loss": "ce", "form": "released", "head": "linear"},
}
AGAINST = {"metric": "auroc", "methods": ["ss"], "minus": ["ce", "mcp"]}
RULES = {  # claim -> its tests; two cells each, but for the ablations', whose scores are not published
    "higher": [AGAINST | {"above": 0.9}],
    "unseen": [AGAINST | {"above": 0.9, "domains": ["contrast-3"]}],
    "apart": [{"metric": "kl", "methods": ["ce", "tcp"], "below": 1e9}],
    "negatives": [{"metric": "tnr_paper", "methods": ["tcp", "ss"], "below": 0.9}],
    "tuned": [{"metric": "auroc", "methods": ["ss"], "minus": ["ce"], "above": 0.0, "tuned": True}],
}
SAID = {"claim": "c", "where": "w", "quantity": "q", "section": "s"}
CLAIMS = [rules.Claim.model_validate(SAID | {"id": name, "tests": tests}) for name, tests in RULES.items()]
FACTS = {"alike": "iid", "fitted": "normality"}
CLAIMS += [rules.Claim.model_validate(SAID | {"id": name, "fact": fact}) for name, fact in FACTS.items()]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A tiny study's YAML, settings and folder of what it has published."""
    home = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUST_RESULTS", str(home / "results"))
        patch.setattr(resampling, "RESAMPLES", 20)
        patch.setattr(rules, "load", lambda: CLAIMS)
        patch.setattr(resampling, "FEWEST", 1)
        patch.setattr(rules, "FALL", -1.0)
        patch.setattr(Evidence, "is_untrained", lambda self, pair, arm: arm == "tcp")
        plan = TINY | {"methods": TINY["methods"] | METHODS, "domains": {"judged": ["contrast-3"], "images": 200}}
        (home / "tiny.yaml").write_text(json.dumps(plan))
        study = load_study(str(home / "tiny.yaml"))
        make(steps.planned(study))
        make(shifted.planned(study))
        made = [step.row() for step in steps.planned(study) + shifted.planned(study)]
        run, at_one_rate = Run(study), Evidence.outputs

        def outputs(self, pair, arm, split="test", tuned=False):
            return at_one_rate(self, pair, arm, split)

        patch.setattr(Evidence, "outputs", outputs)
        judged, cells = claims.judge(run)
        folder = store.run_folder(study)
        frames = {name: table(run) for name, table in verify.FROM_SCORES.items()}
        frames["runs"] = pd.DataFrame(made)[["run", "status", "key"]]
        frames |= {"claims": judged, "cells": cells}
        (folder / "tables").mkdir()
        (folder / "figures").mkdir()
        for name, frame in frames.items():
            digits = None if name == "cells" else verify.DIGITS
            frame.to_csv(folder / "tables" / f"{name}.csv", index=False, float_format=digits)
        (folder / "report.html").write_text("<p>SS</p>")
        read, clean = store.Step.manifest.fget, {"dirty": False}
        patch.setattr(
            store.Step, "manifest", property(lambda step: (found := read(step)) and found | {"provenance": clean})
        )
        store.write_json(folder / "report.json", clean)
        publish.publish(study)
        published = store.results() / "tiny"
    return home / "tiny.yaml", study, published


@pytest.fixture
def copy(published, tmp_path, monkeypatch):
    """The published folder, in a results folder where it may be damaged."""
    _, study, folder = published
    monkeypatch.setenv("TRUST_RESULTS", str(tmp_path))
    monkeypatch.setattr(resampling, "RESAMPLES", 20)
    monkeypatch.setattr(rules, "load", lambda: CLAIMS)
    monkeypatch.setattr(resampling, "FEWEST", 1)
    monkeypatch.setattr(rules, "FALL", -1.0)
    for path in folder.rglob("*.*"):
        target = tmp_path / "tiny" / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return study, tmp_path / "tiny"


def test_what_follows_from_the_scores_needs_no_data(copy, monkeypatch):
    study, folder = copy
    monkeypatch.setattr(type(study), "images", lambda self: pytest.fail("the images were read"))
    said = []
    assert verify.verify(study, said.append) == []
    text = "\n".join(said)
    assert "files: 10 with their checksums" in text
    cells = pd.read_csv(folder / "tables" / "cells.csv")
    unpublished = cells["claim"].isin(["tuned", "alike"])
    assert 2 <= unpublished.sum() < len(cells) / 2
    (line,) = (line for line in said if "comparisons recomputed" in line)
    assert line.startswith(f"tables/cells.csv: {(~unpublished).sum()} of {len(cells)} comparisons recomputed, ")
    assert "claims.csv: 7 of 7 verdicts recomputed, the others rest on no comparison" in text
    for name in ("scores", "comparisons", "domains", "cells", "within", "fusion"):
        *_, line = (line for line in said if line.startswith(f"tables/{name}.csv"))
        same, of = line.split(": ")[1].split(" cells")[0].split(" of ")
        assert same == of
    assert "runs.csv: 13 of 13 finished runs" in text


def test_a_changed_number_is_named(copy):
    study, folder = copy
    path = folder / "tables" / "comparisons.csv"
    frame = pd.read_csv(path)
    row = frame.index[(frame["arm"] == "ss") & (frame["metric"] == "auroc")][0]
    frame.loc[row, "estimate"] += 1e-4
    frame.to_csv(path, index=False, float_format=verify.DIGITS)
    checksum, number = verify.verify(study, quiet)
    assert checksum == "tables/comparisons.csv is not as it was published"
    assert number.startswith(f"tables/comparisons.csv, row {row + 1}, estimate: {frame.loc[row, 'estimate']:.6g}")


def test_other_scores_make_other_tables(copy):
    study, folder = copy
    with np.load(folder / "scores.npz") as file:
        scores = dict(file)
    scores["rsn-rsn/ss/seed0.z"] = -scores["rsn-rsn/ss/seed0.z"]
    np.savez_compressed(folder / "scores.npz", **scores)
    differing = verify.verify(study, quiet)
    assert differing[0] == "scores.npz is not as it was published"
    places = [line.partition(",")[0].partition(":")[0] for line in differing[1:]]
    assert set(places) == {f"tables/{name}.csv" for name in ("scores", "comparisons", "cells", "within", "fusion")}


def test_a_verdict_that_its_comparisons_do_not_make_is_named(copy):
    study, folder = copy
    path = folder / "tables" / "claims.csv"
    frame = pd.read_csv(path)
    said = frame.loc[frame["id"] == "higher", "verdict"].item()
    assert said != rules.REPRODUCED
    frame.loc[frame["id"] == "higher", "verdict"] = rules.REPRODUCED
    frame.to_csv(path, index=False)
    _, differing = verify.verify(study, quiet)
    assert differing == f"tables/claims.csv, higher: reproduced, from its comparisons {said}"


def test_a_comparison_that_does_not_follow_is_named(copy):
    study, folder = copy
    path = folder / "tables" / "cells.csv"
    frame = pd.read_csv(path)
    row = frame.index[frame["claim"] == "unseen"][0]
    for damaged in (0.95, "0.1x"):
        frame["high"] = frame["high"].astype(object)
        frame.loc[row, "high"] = damaged
        frame.to_csv(path, index=False)
        _, number = verify.verify(study, quiet)
        assert number.startswith(f"tables/cells.csv, row {row + 1}, high: {damaged}, from the scores ")


def test_a_rule_that_has_changed_is_named_even_where_its_scores_are_not_published(copy, monkeypatch):
    study, _ = copy

    def changed(name, **change):
        return [
            entry.model_copy(update={"tests": [entry.tests[0].model_copy(update=change)]})
            if entry.id == name
            else entry
            for entry in CLAIMS
        ]

    monkeypatch.setattr(rules, "load", lambda: changed("higher", minus=["ce"]))
    line = "tables/cells.csv, higher: 3 comparisons, 1 by today's claims.yaml"
    assert set(verify.verify(study, quiet)) == {line}  # of both forms
    monkeypatch.setattr(rules, "load", lambda: changed("tuned", above=-2.0))
    at, *_ = verify.verify(study, quiet)
    assert at.endswith(", at: 0.0, from the scores -2.0")
    younger = rules.Claim.model_validate(SAID | {"id": "younger", "tests": RULES["higher"]})
    monkeypatch.setattr(rules, "load", lambda: [*CLAIMS, younger])
    assert verify.verify(study, quiet) == []


def test_a_verdict_is_that_of_the_form_of_the_text():
    margin = rules.Margin(above=0.0)
    below = rules.Cell("auroc", "SS − CE", margin, -0.2, (-0.3, -0.1), 3, 2)
    beyond = rules.Cell("auroc", "SS − CE, as released", margin, 0.2, (0.1, 0.3), 3, 2)
    rows = rules.tabulated([("a", "", below), ("a", rules.RELEASED, beyond)])
    assert verify._verdicts(pd.Series({"a": rules.CONTRADICTED}), rows, {}, quiet) == []
    (line,) = verify._verdicts(pd.Series({"a": rules.REPRODUCED}), rows, {}, quiet)
    assert line.endswith("claims.csv, a: reproduced, from its comparisons contradicted")


@pytest.mark.parametrize("older", ["no cells", "no asked_by"])
def test_verdicts_by_older_rules_are_not_compared(copy, older):
    study, folder = copy
    if older == "no cells":
        (folder / "tables" / "cells.csv").unlink()
    else:
        frame = pd.read_csv(folder / "tables" / "claims.csv").drop(columns="asked_by")
        frame.assign(verdict="holds").to_csv(folder / "tables" / "claims.csv", index=False)
    said = []
    (changed,) = verify.verify(study, said.append)
    assert changed.endswith("is not as it was published")
    assert "tables/claims.csv: its verdicts are by older rules (CHANGELOG.md) and are not compared" in said


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("report.html", "SS", "S5", "report.html is not as it was published"),
        ("tables/runs.csv", "rsn-rsn/ss/seed1,done,", "rsn-rsn/ss/seed1,done,0", "in the manifest"),
        ("tables/domains.csv", "contrast-3", "contrast-4", "from the scores contrast-3"),
        ("tables/scores.csv", "rsn-rsn,ss,1,", "rsn-rsn,ss,x,", "seed: x, from the scores 1"),
        ("tables/cells.csv", ",below,", ",bellow,", "tables/cells.csv: not a table of claim, form, metric, "),
        ("tables/cells.csv", "claim,form", "claim,from", "tables/cells.csv: not a table of claim, form, metric, "),
        ("tables/cells.csv", ",above,0.9,", ",above,0.8,", "at: 0.8, from the scores 0.9"),
        ("tables/cells.csv", "neither", "beyond", "outcome: beyond, from the scores neither"),
        ("tables/cells.csv", "\nhigher,", "\nother,", "claims.csv, other: nothing, from its comparisons"),
    ],
)
def test_what_is_damaged_is_named(copy, name, old, new, message):
    study, folder = copy
    path = folder / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert any(message in line for line in verify.verify(study, quiet))


@pytest.mark.parametrize("cut", [0, 0.5, 1])
@pytest.mark.parametrize(
    "name", ["scores.npz", "manifest.json", "report.html", "tables/claims.csv", "tables/scores.csv"]
)
def test_what_cannot_be_read_is_named(published, copy, name, cut, monkeypatch, capsys):
    (path, *_), (_, folder) = published, copy
    written = (folder / name).read_bytes()
    (folder / name).write_bytes(written[: int(cut * len(written))] + b"\xff" * (cut == 1))
    monkeypatch.setattr(sys, "argv", ["trustlib", "verify", str(path)])
    assert commands.main() == 1
    said = capsys.readouterr()
    assert f"{name} is not as it was published" in said.out or f"{folder / name} is damaged" in said.err


@pytest.mark.parametrize("key", ["classes", "runs", "sha256"])
def test_a_manifest_that_lacks_what_it_should_hold_is_one_error(copy, key):
    study, folder = copy
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in manifest.items() if name != key}))
    with pytest.raises(jobs.JobError, match=r"manifest.json is damaged \(expected classes, runs, sha256 in it\)"):
        verify.verify(study, quiet)


def test_a_run_without_its_key_is_named(copy):
    study, folder = copy
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"key"', '"kex"', 1))
    (differing,) = verify.verify(study, quiet)
    assert differing.endswith(", in the manifest nothing")


def test_the_command_says_what_differs(published, copy, monkeypatch, capsys):
    path, _, _ = published
    monkeypatch.setattr(sys, "argv", ["trustlib", "verify", str(path)])
    assert commands.main() == 0
    assert capsys.readouterr().out.endswith("nothing differs\n")
    table = copy[1] / "tables" / "scores.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    assert commands.main() == 1
    *_, differing, count = capsys.readouterr().out.splitlines()
    assert "from the scores" in differing
    assert count == "2 differences"


def test_a_study_that_has_changed_or_is_not_published_is_one_line(published, tmp_path, monkeypatch, capsys):
    path, _, folder = published
    changed = tmp_path / "tiny.yaml"
    changed.write_text(path.read_text().replace('"seeds": [0, 1]', '"seeds": [0, 1, 2]'))
    monkeypatch.setattr(sys, "argv", ["trustlib", "verify", str(changed)])
    monkeypatch.setenv("TRUST_RESULTS", str(folder.parent))
    assert commands.main() == 1
    assert (
        "rsn-rsn/ce-released/seed2.z is asked for and not published; its YAML has changed since"
        in capsys.readouterr().err
    )
    monkeypatch.setenv("TRUST_RESULTS", str(tmp_path))
    assert commands.main() == 1
    assert "study tiny is not published: there is no" in capsys.readouterr().err
