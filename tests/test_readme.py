"""What the README shows works as it stands there."""

import inspect
import re

import numpy as np
import pandas as pd
import torch
import yaml
from test_extension import hinge

from trustlib import losses
from trustlib.corruptions import CORRUPTIONS
from trustlib.data import ROOT
from trustlib.study import load_study


def fragments(language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_example_runs(capsys):
    (example,) = (text for text in fragments("python") if text.startswith("import"))
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "'auroc': 0.8" in printed
    assert "Keep a prediction when its confidence is above" in printed


def test_the_loss_that_it_adds_is_the_one_that_is_tested(monkeypatch, write_study):
    (fragment,) = (text for text in fragments("python") if "LOSSES" in text)
    assert fragment.startswith(inspect.getsource(hinge))
    names = dict(vars(losses))
    exec(fragment, names)  # as if it stood at the end of the module
    monkeypatch.setitem(losses.LOSSES, "hinge", names["LOSSES"]["hinge"])
    (arms,) = fragments("yaml")
    arm = load_study(write_study(**yaml.safe_load(arms))).arm("hinge")
    z, correct = torch.tensor([0.5, 0.5]), torch.tensor([True, False])
    assert losses.LOSSES[arm.loss](z, correct, **arm.hyper).tolist() == [1.5, 2.5]
    assert '"logit_gap": Score("Logit gap", logit_gap)' in (ROOT / "README.md").read_text()


INTERVAL = r"[+-]?\d+\.\d\d \[[^\]]+\]"


def test_every_figure_with_an_interval_is_that_of_a_committed_result():
    results = ROOT / "results"
    files = [*results.glob("*/tables/comparisons.csv"), *results.glob("*/tables/domains.csv")]
    files += [results / "fashion/tables/controls.csv", results / "photos/domains.csv"]
    measured = set()
    for file in files:
        frame = pd.read_csv(file)
        for row in frame.itertuples():
            measured.add(f"{100 * row.estimate:.2f} [{100 * row.low:.2f}, {100 * row.high:.2f}]")
            less = (100 * value for value in (row.difference, row.difference_low, row.difference_high))
            measured.add("{:+.2f} [{:+.2f}, {:+.2f}]".format(*less))
        if "accuracy_low" in frame:
            for row in frame.itertuples():
                low, high = 100 * row.accuracy_low, 100 * row.accuracy_high
                measured.add(f"{100 * row.accuracy:.2f} [{low:.2f}, {high:.2f}]")
    for row in pd.read_csv(results / "speed/steps.csv").itertuples():
        measured.add(f"{row.median:.2f} [{row.low:.2f}, {row.high:.2f}]")
    for file in results.glob("*/tables/claims.csv"):
        measured |= set(re.findall(INTERVAL, " ".join(pd.read_csv(file)["found"])))
    text = " ".join((ROOT / "README.md").read_text().split())  # a line may end within an interval
    quoted = re.findall(INTERVAL, text)
    assert len(quoted) >= 11 * 4 + 7 + 8
    assert set(quoted) <= measured


def test_the_first_table_has_a_row_for_each_published_study():
    rows = re.findall(r"^\| `(\w+)` \|.*, ([\d.]+) % \|(.*)\|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    published = {path.parent.parent.name for path in ROOT.glob("results/*/tables/comparisons.csv")}
    assert {study for study, *_ in rows} == published
    for study, right, rest in rows:
        *cells, counts = (cell.strip() for cell in rest.split("|"))
        frame = pd.read_csv(ROOT / f"results/{study}/tables/comparisons.csv")
        pair = frame.loc[frame["metric"].eq("accuracy") & frame["estimate"].mul(100).round(2).eq(float(right)), "pair"]
        area = frame[frame["metric"] == "auroc"].set_index(["pair", "arm"])
        for arm, cell in zip(("mcp", "ce", "tcp", "ss"), cells, strict=True):
            arm += "-frozen" * cell.endswith("frozen")
            found = {f"{100 * area.loc[(name, arm), 'estimate']:.2f}" for name in pair.unique()}
            assert cell.split(" [")[0] in found
        oracles = area[area.index.get_level_values("arm").isin(load_study(study).arms)]
        below, above = (oracles["difference_high"] < 0).sum(), (oracles["difference_low"] > 0).sum()
        assert counts == f"{below} of {len(oracles)}, {above}"


ORACLES = ("ce", "ce-released", "focal", "focal-released", "tcp", "ss", "cb")


def test_what_the_readme_counts_on_unseen_domains_is_in_the_committed_results():
    text = " ".join((ROOT / "README.md").read_text().split())
    frames = {name: pd.read_csv(ROOT / f"results/{name}/tables/domains.csv") for name in ("fashion", "colour")}
    area = {name: frame.query("metric == 'auroc' and arm in @ORACLES") for name, frame in frames.items()}
    below, above = (area["fashion"]["difference_high"] < 0).sum(), area["fashion"]["difference_low"] > 0
    assert (
        f"in {below} of {len(area['fashion'])} comparisons and better in {above.sum()}, all of them in the fog" in text
    )
    assert set(area["fashion"].loc[above, "domain"]) == {"fog-5"}
    both = area["colour"].query("domain in ['stylized', 'defocus_blur-5']")
    assert f"in all {len(both)} comparisons the oracle lies below MCP" in text
    assert (both["difference_high"] < 0).all()
    assert (area["colour"].query("domain == 'recolor' and pair == 'vit-vit'")["difference_low"] > 0).all()

    sweep = pd.read_csv(ROOT / "results/fashion/tables/sweep.csv")
    mean = (
        sweep[sweep["corruption"].isin(CORRUPTIONS)]
        .groupby(["pair", "severity", "arm"])["auroc"]
        .mean()
        .unstack("arm")
        .query("severity > 0")
    )
    lead = 100 * (mean["mcp"] - mean[list(ORACLES)].max(axis=1))
    assert f"above that of every oracle, by {lead.min():.1f} to {lead.max():.1f} points" in text

    right = frames["colour"].query("arm == 'mcp' and metric == 'accuracy' and domain == 'recolor'")
    wrong = 100 - 100 * right.set_index("pair")["estimate"]
    assert f"wrong on {wrong['vit-vit']:.1f} % (ViT) and {wrong['rsn-rsn']:.1f} % (RSN)" in text
    scores = np.load(ROOT / "results/colour/scores.npz", allow_pickle=False)
    fall = {
        n: 100 * (scores[f"{n}/seed0.correct"][:2000].mean() - scores[f"domains/normalised/{n}.correct"].mean())
        for n in ("rsn", "vit")
    }
    assert f"{fall['rsn']:.2f} (RSN) and {fall['vit']:.2f} points (ViT)" in text

    photos = pd.read_csv(ROOT / "results/photos/domains.csv").query("score == 'mcp'").set_index("domain")
    others = 100 * photos.drop(["clean", "recolor"])[["accuracy", "estimate"]]
    low, high = others.min(), others.max()
    assert f"In {len(others)} domains" in text
    assert f"between {low['accuracy']:.1f} and {high['accuracy']:.1f} %" in text
    assert f"AUC to between {low['estimate']:.1f} and {high['estimate']:.1f};" in text


def test_the_readme_counts_the_verdicts_as_the_committed_result_does():
    counts = pd.read_csv(ROOT / "results/fashion/tables/claims.csv")["verdict"].value_counts()
    (quoted,) = re.findall(
        r"Of (\d+) claims,.*?(\d+) hold on\s+`fashion`, (\d+) do not hold here, (\d+) do not hold by.*?(\d+) cannot",
        (ROOT / "README.md").read_text(),
        re.DOTALL,
    )
    verdicts = ("holds", "does not hold here", "does not hold", "cannot be judged here")
    assert tuple(map(int, quoted)) == (counts.sum(), *(counts[verdict] for verdict in verdicts))


def test_the_times_it_quotes_are_the_committed_ones():
    text = " ".join((ROOT / "README.md").read_text().split())
    steps, loading, metrics, bootstrap = (
        pd.read_csv(ROOT / f"results/{name}.csv", index_col=0)
        for name in ("speed/steps", "speed/loading", "benchmark/metrics", "benchmark/bootstrap")
    )
    ratio = {pair: f"{row['median']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" for pair, row in steps.iterrows()}
    for quoted in (
        f"takes {ratio['⟨ViT, ViT⟩']} times as long",
        f"on ⟨ViT, ViT⟩, {ratio['⟨RSN, RSN⟩']} on ⟨RSN, RSN⟩ and {ratio['⟨Lite0, Lite0⟩']} with EfficientNet-Lite0",
        f"a core turns {loading[loading['pixels'] == 224].loc['made here', 'median']:.0f} photographs of 100 kB",
    ):
        assert quoted in text
    ours, others = metrics.loc[1_000_000, ["all of metrics.evaluate", "scikit-learn's four"]].astype(float)
    assert f"take {ours:.3f} s on one core" in text
    assert f"take {others / ours:.1f} times as long" in text
    took, ratio = (float(bootstrap.loc[name].iloc[0]) for name in ("bootstrap, seconds", "ratio"))
    assert f"take {took:.1f} s, {ratio:.1f} times less" in text


def test_every_module_and_notebook_is_in_the_tree():
    text = (ROOT / "README.md").read_text()
    for folder, pattern in (("trustlib", "*.py"), ("notebooks", "*.ipynb"), ("studies", "*.yaml")):
        for path in (ROOT / folder).glob(pattern):
            if not path.stem.startswith("__"):
                assert re.search(rf"\b{path.stem}\b", text), path.name
