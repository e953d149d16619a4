"""A published study's tables follow from its scores, and what does not is named."""

import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import TINY, make, quiet

from trustlib.analysis import claims, compare, rules
from trustlib.analysis.evidence import Evidence
from trustlib.report import protocol, publish, verify
from trustlib.runs import jobs, results, shifted, steps, store
from trustlib.runs.results import Run
from trustlib.stats import resampling

METHODS = TINY["methods"] | {
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


def claim(name, **decided_by):
    said = {"id": name, "claim": "c", "where": "w", "quantity": "q", "section": "s"}
    return rules.Claim.model_validate(said | decided_by)


CLAIMS = [claim(name, tests=tests) for name, tests in RULES.items()]
CLAIMS += [claim(name, fact=fact) for name, fact in {"alike": "iid", "fitted": "normality"}.items()]


@pytest.fixture(scope="module")
def published(trained_with):
    """A tiny study and the folder of what it has published."""
    study, patch = trained_with(methods=METHODS, domains={"judged": ["contrast-3"], "images": 200})
    patch.setattr(resampling, "RESAMPLES", 20)
    patch.setattr(rules, "load", lambda: CLAIMS)
    patch.setattr(resampling, "FEWEST", 1)
    patch.setattr(rules, "FALL", -1.0)
    made = make(steps.planned(study))
    made += make(shifted.planned(study))  # what they depend on is trained by now
    run, at_one_rate, read = Run(study), Evidence.outputs, store.Step.manifest.fget
    folder, clean = store.run_folder(study), {"dirty": False}

    def outputs(self, pair, arm, split="test", tuned=False):
        return at_one_rate(self, pair, arm, split)

    with pytest.MonkeyPatch.context() as making:
        making.setattr(Evidence, "is_untrained", lambda self, pair, arm: arm == "tcp")
        making.setattr(Evidence, "outputs", outputs)
        judged, cells = claims.judge(run)
        for name, table in verify.FROM_SCORES.items():
            store.write_table(study, name, table(run))
        store.write_table(study, "runs", pd.DataFrame([step.row() for step in made])[["run", "status", "key"]])
        store.write_table(study, "claims", judged)
        store.write_table(study, "cells", cells, None)
        (folder / "figures").mkdir()
        (folder / "report.html").write_text("<p>SS</p>")
        store.write_json(folder / "report.json", clean)
        making.setattr(store.Step, "manifest", property(lambda step: read(step) | {"provenance": clean}))
        publish.publish(study)
    return study, store.results() / "tiny"


@pytest.fixture
def copy(published, tmp_path, monkeypatch):
    """The study, and a copy of the published folder that may be damaged."""
    study, folder = published
    monkeypatch.setenv("TRUST_RESULTS", str(tmp_path))
    return study, shutil.copytree(folder, tmp_path / "tiny")


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


@pytest.mark.parametrize(
    ("name", "where", "column", "value", "message"),
    [
        ("comparisons", "arm == 'ss' and metric == 'auroc'", "estimate", "0.51", "row {}, estimate: 0.51, from the sc"),
        ("domains", "metric == 'auroc'", "domain", "contrast-4", "domain: contrast-4, from the scores contrast-3"),
        ("scores", "arm == 'ss' and seed == '1'", "seed", "x", "row {}, seed: x, from the scores 1"),
        ("runs", "run == 'rsn-rsn/ss/seed1'", "key", "0", "rsn-rsn/ss/seed1: key 0, in the manifest "),
        ("claims", "id == 'higher'", "verdict", rules.REPRODUCED, "higher: reproduced, from its comparisons "),
        ("cells", "claim == 'unseen'", "high", "0.95", "row {}, high: 0.95, from the scores "),
        ("cells", "claim == 'unseen'", "high", "0.1x", "row {}, high: 0.1x, from the scores "),
        ("cells", "claim == 'tuned'", "at", "-2.0", "row {}, at: -2.0, from the scores 0.0"),
        ("cells", "outcome == 'neither'", "outcome", "beyond", "row {}, outcome: beyond, from the scores neither"),
        ("cells", "claim == 'higher'", "claim", "other", "higher: 2 comparisons, 3 by today's claims.yaml"),
        ("cells", "margin == 'below'", "margin", "bellow", "not a table of claim, form, metric, "),
    ],
)
def test_a_changed_cell_is_named(copy, name, where, column, value, message):
    study, folder = copy
    path = folder / "tables" / f"{name}.csv"
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    row = frame.query(where).index[0]
    frame.loc[row, column] = value
    frame.to_csv(path, index=False)
    changed, *differing = verify.verify(study, quiet)
    assert changed == f"tables/{name}.csv is not as it was published"
    assert any(message.format(row + 1) in line for line in differing)
    assert all(line.startswith(("tables/cells.csv", "tables/claims.csv", f"tables/{name}.csv")) for line in differing)


def test_other_scores_make_other_tables(copy):
    study, folder = copy
    scores = dict(np.load(folder / "scores.npz"))
    scores["rsn-rsn/ss/seed0.z"] = -scores["rsn-rsn/ss/seed0.z"]
    np.savez_compressed(folder / "scores.npz", **scores)
    changed, *differing = verify.verify(study, quiet)
    assert changed == "scores.npz is not as it was published"
    places = {line.partition(",")[0].partition(":")[0] for line in differing}
    assert places == {f"tables/{name}.csv" for name in ("scores", "comparisons", "cells", "within", "fusion")}


def test_a_rule_that_has_changed_is_named_and_a_new_one_is_not_published_yet(copy, monkeypatch):
    study, _ = copy
    (higher, *others), test = CLAIMS, CLAIMS[0].tests[0]
    fewer = higher.model_copy(update={"tests": [test.model_copy(update={"minus": ["ce"]})]})
    monkeypatch.setattr(rules, "load", lambda: [fewer, *others])
    line = "tables/cells.csv, higher: 3 comparisons, 1 by today's claims.yaml"
    assert set(verify.verify(study, quiet)) == {line}  # of both forms
    monkeypatch.setattr(rules, "load", lambda: [*CLAIMS, claim("younger", tests=RULES["higher"])])
    assert verify.verify(study, quiet) == []


@pytest.fixture
def plan(published):
    """The study's YAML."""
    return published[1].parents[1] / "tiny.yaml"


@pytest.mark.parametrize("name", ["scores.npz", "manifest.json", "tables/claims.csv", "tables/scores.csv"])
def test_what_is_cut_short_is_named(command, copy, plan, name):
    path = copy[1] / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    status, out, err = command("verify", plan)
    assert status == 1
    assert f"{name} is not as it was published" in out or f"{path} is damaged" in err


def test_the_command_says_what_differs_or_why_nothing_can_be_compared(command, copy, plan, tmp_path):
    status, out, _ = command("verify", plan)
    assert (status, out.endswith("nothing differs\n")) == (0, True)
    table = copy[1] / "tables" / "scores.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    status, out, _ = command("verify", plan)
    *_, differing, count = out.splitlines()
    assert (status, count) == (1, "2 differences")
    assert "from the scores" in differing
    changed = tmp_path / "tiny.yaml"
    changed.write_text(plan.read_text().replace("seeds:", "seeds:\n- 2"))
    status, _, err = command("verify", changed)
    assert status == 1
    assert "rsn-rsn/ce-released/seed2.z is asked for and not published; its YAML has changed since" in err
    shutil.rmtree(copy[1])
    status, _, err = command("verify", plan)
    assert status == 1
    assert "study tiny is not published: there is no" in err


def test_published_tables_are_read_and_others_follow_from_the_scores(copy, monkeypatch):
    study, folder = copy
    monkeypatch.setattr(type(study), "images", lambda self: pytest.fail("the images were read"))
    found = results.of(study, "published")
    read = found.table("comparisons", lambda _: pytest.fail("computed"))
    (folder / "tables" / "comparisons.csv").unlink()
    computed = found.table("comparisons", compare.compare_pairs)
    pd.testing.assert_frame_equal(read, computed, rtol=1e-5, check_dtype=False)
    assert found.images["counts"]["test"] == len(found.predictions("rsn-rsn").correct)
    assert found.budget("rsn-rsn", "ss") == {"steps": 8, "epochs": 1, "images": 400}
    assert found.parameters("rsn-rsn", "ss") > 0
    assert len(found.runs()) == 13
    assert "how" in found.shift("domains/contrast-3", "rsn")
    assert "within" in protocol.sections(found)


def test_a_report_that_was_drawn_again_replaces_the_published_one_and_nothing_else(copy):
    study, folder = copy
    with pytest.raises(jobs.JobError, match="nothing to publish"):
        publish.redraw(study)
    drawn = store.run_folder(study)
    (drawn / "figures").mkdir(parents=True)
    (drawn / "figures" / "new.svg").write_text("<svg/>")
    (drawn / "report.html").write_text("<p>new</p>")
    store.write_json(drawn / "report.json", {"dirty": False, "commit": "e"})
    (folder / "figures").mkdir(exist_ok=True)
    (folder / "figures" / "old.svg").write_text("<svg/>")
    publish.redraw(study)
    assert [path.name for path in (folder / "figures").iterdir()] == ["new.svg"]
    assert (folder / "report.html").read_text() == "<p>new</p>"
    assert verify.verify(study, quiet) == []
