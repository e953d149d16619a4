"""What the README shows works as it stands there."""

import html
import inspect
import re

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from test_extension import hinge

from trustlib import losses, published, speed
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
    measured |= set(times_on_a_gpu().values())
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
        area = frame[frame["metric"] == "auroc"].set_index(["pair", "arm"])
        own = [name for name in load_study(study).pairs if len(set(load_study(study).pair(name))) == 1]
        accuracy = frame[frame["metric"] == "accuracy"].set_index(["pair", "arm"])["estimate"]
        (pair,) = (name for name in own if round(100 * accuracy[name, "mcp"], 2) == float(right))
        for arm, cell in zip(("mcp", "ce", "tcp", "ss"), cells, strict=True):
            name = arm + "-frozen" * cell.endswith(" frozen")
            assert cell.removesuffix(" frozen") == in_full(area.loc[pair, name])
        oracles = area[area.index.get_level_values("arm").isin(load_study(study).arms)]
        below, above = (oracles["difference_high"] < 0).sum(), (oracles["difference_low"] > 0).sum()
        assert counts == f"{below} of {len(oracles)}, {above}"


def in_full(row):
    return "{:.2f} [{:.2f}, {:.2f}]".format(*(100 * row[name] for name in ("estimate", "low", "high")))


def test_the_table_of_fashion_is_the_committed_one_cell_by_cell():
    study = load_study("fashion")
    frame = pd.read_csv(ROOT / "results/fashion/tables/comparisons.csv").query("metric == 'auroc'")
    frame = frame.set_index(["arm", frame["pair"].map(study.pair_label)])
    called = {"MCP": "mcp", "Ensemble of three classifiers": "ensemble", "TrustScore": "trust_score"}
    called |= {"Linear oracle on its features, CE": "linear_ce", "Steep slope": "ss", "Class-balanced CE": "cb"}
    called |= {study.arm_label(arm): arm for arm in ("ce", "ce-released", "focal", "focal-released", "tcp")}
    text = (ROOT / "README.md").read_text().partition("### Fashion-MNIST, Table 1 in small")[2]
    table = re.search(r"(^\|.*\|\n)+", text, re.MULTILINE)[0]
    head, _, *rows = ([cell.strip(" *") for cell in row.split("|")[1:-1]] for row in table.splitlines())
    assert len(rows) == 4 + len(study.arms)
    for name, *cells in rows:
        assert cells == [in_full(frame.loc[(called[name], pair)]) for pair in head[1:]], name


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
        r"Of (\d+) claims,.*?(\d+) hold on\s+`fashion`, (\d+) do not hold here, (\d+) do not hold by.*?"
        r"(\d+) holds only as printed, and (\d+) cannot",
        (ROOT / "README.md").read_text(),
        re.DOTALL,
    )
    verdicts = ("holds", "does not hold here", "does not hold", "holds only as printed", "cannot be judged here")
    assert tuple(map(int, quoted)) == (counts.sum(), *(counts[verdict] for verdict in verdicts))


def times_on_a_gpu():
    """How many times as long as here each way takes on each network: (model, way) -> median and quartiles."""
    frame = pd.read_csv(ROOT / "results/speed/gpu.csv", index_col=["model", "way"])
    return {key: "{:.2f} [{:.2f}, {:.2f}]".format(*row) for key, row in frame.filter(like="time ").iterrows()}


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
    speeds = pd.read_csv(ROOT / "results/speed/gpu.csv").query("way == 'here'").set_index("model")
    speeds = speeds[["median", "low", "high"]]
    vit, resnet = ("{:,.0f} [{:,.0f}, {:,.0f}]".format(*speeds.loc[m]) for m in ("vit_base_patch16_384", "resnet50"))
    assert f"from {vit} images a second with ViT-B/16 at 384 pixels and from {resnet} with ResNet-50" in text
    took = times_on_a_gpu()
    gpu = {way: [took[model, way] for model in speeds.index] for way in speed.WAYS}
    for way, quoted in {
        "timm": "timm's own step takes {} and {} times",
        "as released, TF32": "the released way {} and {} with TF32",
        "as released, float32": "{} and {} without;",
        "here, compiled": "`compiled: true` takes {} and {}.",
    }.items():
        assert quoted.format(*gpu[way]) in text
    ours, others = metrics.loc[1_000_000, ["all of metrics.evaluate", "scikit-learn's four"]].astype(float)
    assert f"take {ours:.3f} s on one core" in text
    assert f"take {others / ours:.1f} times as long" in text
    took, ratio = (float(bootstrap.loc[name].iloc[0]) for name in ("bootstrap, seconds", "ratio"))
    assert f"take {took:.1f} s, {ratio:.1f} times less" in text


def per_cent(study, metric, arms, pairs=None, table="comparisons", domain=None, column="estimate"):
    """Figures of a published table, per cent: a row a pair, a column an arm."""
    frame = pd.read_csv(ROOT / f"results/{study}/tables/{table}.csv").query("metric == @metric and arm in @arms")
    if domain:
        frame = frame[frame["domain"] == domain]
    return 100 * frame.pivot(index="pair", columns="arm", values=column).loc[pairs or slice(None), list(arms)]


def span(values, digits=1):
    values = np.asarray(values)
    return f"{values.min():.{digits}f} to {values.max():.{digits}f}"


def of_fashion():
    best = per_cent("fashion", "auroc", ORACLES).max(axis=1)
    yield f"of a pair lies {span(per_cent('fashion', 'auroc', ['mcp'])['mcp'] - best)} points below MCP"
    frame = pd.read_csv(ROOT / "results/fashion/tables/comparisons.csv").query("metric == 'auroc' and arm != 'mcp'")
    others = frame.query("arm not in @ORACLES and pair in ('vit-vit', 'rsn-rsn')")
    assert others.loc[others["difference_low"] > 0, "arm"].tolist() == ["ensemble"] * 2
    yield f"in {(others['difference_high'] < 0).sum()} of the {len(others)} comparisons the interval lies below 0"
    text, released = ["ce", "focal"], ["ce-released", "focal-released"]
    trusted, found = (per_cent("fashion", metric, released).to_numpy() for metric in ("tpr", "tnr"))
    assert (trusted.min(), found.max()) == (100, 0)
    yield f"trust everything: TPR 100, TNR 0, AUC {span(per_cent('fashion', 'auroc', released))}."
    yield f"(TNR at most {per_cent('fashion', 'tnr', text).to_numpy().max():.1f})"
    yield f"far better: {span(per_cent('fashion', 'auroc', text))}."
    rates = {arm: [span(per_cent("fashion", metric, [arm])) for metric in ("tnr", "tpr")] for arm in ("ss", "cb")}
    yield "wrong predictions at z = 0 (TNR {}, TPR {})".format(*rates["ss"])
    yield "class-balanced cross entropy (TNR {}, TPR {})".format(*rates["cb"])
    area = per_cent("fashion", "auroc", ["ss", "ce"], ["vit-vit", "vit-rsn", "rsn-vit", "rsn-rsn"])
    gains = "{:+.1f} and {:+.1f} points with the ViT oracles, {:+.1f} and {:+.1f} with the ResNet ones"
    yield "minus that of cross entropy is " + gains.format(*(area["ss"] - area["ce"]))


def of_mnist():
    area = pd.read_csv(ROOT / "results/mnist/tables/comparisons.csv").query("metric == 'auroc' and arm != 'mcp'")
    area = area.set_index("arm")
    oracles = area.index.isin(load_study("mnist").arms)
    assert not (area.loc[oracles, "difference_low"] > 0).any()
    assert set(area.index[oracles & (area["difference_high"] < 0)]) == {"ce", "ss"}
    assert area.index[area["difference_low"] > 0].tolist() == ["ensemble"]
    right = np.load(ROOT / "results/mnist/scores.npz", allow_pickle=False)["cnn/seed0.correct"]
    assert len(load_study("mnist").seeds) == 5
    yield f"one classifier with {(~right).sum()} mistakes, five seeds"
    paper = published.table2("mnist").query("metric == 'auroc'").set_index("loss")
    figures = (100 * paper.loc[["tcp", "ss", "mcp"], "estimate"]).round(2)
    yield "Table 2 has TCP and steep slope at {} and {}, MCP at {}, of one run each".format(*figures)
    assert paper["low"].drop("mc_dropout").max() < paper["high"].drop("mc_dropout").min()  # and so all overlap


def of_cifar10():
    frame = pd.read_csv(ROOT / "results/cifar10/tables/comparisons.csv").query("metric == 'auroc' and arm != 'mcp'")
    frame, study = frame.set_index("arm"), load_study("cifar10")
    assert (frame.loc[list(study.arms), "difference_high"] < 0).all()
    best = frame.loc[list(study.arms), "estimate"].nlargest(3).index
    assert list(best) == ["tcp-head", "ss-head", "ce-head"]
    correct = np.load(ROOT / "results/cifar10/scores.npz", allow_pickle=False)["vgg/seed0.correct"]
    yield f"VGG16 after five epochs, right on {100 * correct.mean():.2f} %"
    linear = [f"linear_{loss}" for loss in ("ce", "focal", "tcp", "ss", "cb")]
    assert set(frame.index[frame["difference_low"] > 0]) == {"mc_dropout_probs", *linear}
    area = 100 * frame["estimate"]
    cost = [area[f"{loss}-head"] - area[loss] for loss in ("tcp", "ss", "ce")]
    yield f"The fifteen steps cost each of them {span(pd.DataFrame(cost), 0)} points."
    for arm, quoted in (("ss-released", f"TNR {{:.2f}}; AUC {area['ss-released']:.2f} ["), ("ss", "TNR {:.2f}); with")):
        rates = [per_cent("cifar10", metric, [arm]).iat[0, 0] for metric in ("tpr", "tnr")]
        yield f"(TPR {rates[0]:.2f}, {quoted.format(rates[1])}"
    cells = pd.read_csv(ROOT / "results/cifar10/tables/cells.csv").set_index("claim").loc["small-fpr95"]
    rate = (100 * cells[name] for name in ("estimate", "low", "high"))
    yield "of 95 % minus that of the TCP oracle is {:+.2f} [{:+.2f}, {:+.2f}] points".format(*rate)
    yield f"features, {span(area[linear].to_frame(), 2)} (cross entropy"


def of_tiny():
    accuracy = per_cent("tiny", "accuracy", ["mcp"], ["lite0-lite0", "lite2-lite2"])["mcp"]
    yield "right on {:.2f} and {:.2f} % of 10,000 images".format(*accuracy.round(2))
    frozen = [f"{loss}-frozen" for loss in ("ce", "ce-released", "focal", "focal-released", "tcp", "ss", "cb")]
    oracles = [*frozen, "ce", "ss", "ce-distance", "ss-linear"]
    yield f"by {span(-per_cent('tiny', 'auroc', oracles, column='difference'))} points, with its backbone trained"
    assert set(per_cent("tiny", "auroc", oracles).idxmax(axis=1)) == {"tcp-frozen"}
    area = pd.read_csv(ROOT / "results/tiny/tables/comparisons.csv").query("metric == 'auroc'")
    yield f"Four pairs, {area['arm'].isin(oracles).sum()} oracles that learnt from 8,000 images each, one seed"
    above = area[area["difference_low"] > 0]
    assert set(above["arm"]) == {"doctor", "p_norm"}
    assert set(above["pair"]) == {"lite0-lite2", "lite2-lite2"}
    better = per_cent("tiny", "auroc", ["doctor", "p_norm"], ["lite2-lite2"], column="difference").iloc[0]
    yield "on Lite2, by {:.1f} and {:.1f} points.".format(*better)
    area = per_cent("tiny", "auroc", ["ce", "ss", "ss-linear"])
    own, same = span(area["ce"] - area["ss"]), span(area["ce"] - area["ss-linear"])
    yield f"by {own} points with their own heads and by {same} with the same linear one"
    rates = [span(per_cent("tiny", metric, [arm])) for metric in ("tnr", "tpr") for arm in ("ss", "ce")]
    yield "(TNR {}, cross entropy {}) and trusts fewer right ones (TPR {}, cross entropy {})".format(*rates)
    trusted, found = (per_cent("tiny", m, ["ce-released-frozen", "focal-released-frozen"]) for m in ("tpr", "tnr"))
    yield f"do, TPR {trusted.to_numpy().min():.1f} and more, TNR {found.to_numpy().max():.1f} (heads"
    domains = pd.read_csv(ROOT / "results/tiny/tables/domains.csv")
    right = 100 * domains.query("metric == 'accuracy' and arm == 'mcp'")["estimate"]
    area = domains.query("metric == 'auroc' and arm in @oracles")
    assert not (area["difference_low"] > 0).any()
    yield f"the classifiers are right on {span(right)} %"
    yield f"{(area['difference_high'] < 0).sum()} of {len(area)} are worse"


def of_unseen_domains():
    names = {"of the right ones, on grey ones": ("colour", "fashion")}
    for between, studies in names.items():
        rates = [per_cent(s, "tpr", ["ss"], ["vit-vit"], "domains", "defocus_blur-5").iat[0, 0] for s in studies]
        yield f"it then trusts {rates[0]:.0f} % {between} {rates[1]:.0f} %"
    for study, balanced_finds_more in (("fashion", True), ("colour", False)):
        for domain in ("defocus_blur-5", "stylized", "recolor"):
            arms = ["ce", "focal", "tcp", "ss", "cb"]
            found = per_cent(study, "tnr", arms, ["vit-vit"], "domains", domain).iloc[0]
            assert found["ss"] > found[["ce", "focal", "tcp"]].max()
            assert (found["cb"] > found["ss"]) == balanced_finds_more
    fog = per_cent("fashion", "accuracy", ["mcp"], None, "domains", "fog-5")
    yield f"in the fog, where the classifiers are right on {span(fog, 0)} % and"
    scores = np.load(ROOT / "results/colour/scores.npz", allow_pickle=False)
    right = scores["domains/recolor/rsn.correct"]
    yield f"Of the RSN's {len(right):,} attacked images {right.sum()} are right"
    photos = pd.read_csv(ROOT / "results/photos/domains.csv").query("score == 'mcp'").set_index("domain").loc["recolor"]
    yield f"{photos['accuracy'] * photos['images']:.0f} of {photos['images']:.0f} are right and MCP ranks upside down"


def of_the_audit():
    page = re.sub(r"<[^>]+>", " ", (ROOT / "results/fashion/report.html").read_text())
    page = " ".join(html.unescape(page).split())
    cell = r"(\d+\.\d\d) \[[^]]+\]"
    seen = re.search(rf"overfitted RSN {cell} {cell} {cell} {cell}", page)
    yield f"Where that is right on {seen[1]} % of these and on {seen[4]} % of new ones"
    rows = ("CE, threshold at SS's TPR", "SS, z = 0")
    sums = [re.search(rf"{row} {cell} {cell} (\d+\.\d\d)", page)[3] for row in rows]
    yield "TPR + TNR {} against {}".format(*sums)
    apart = re.search(r"⟨overfitted RSN, overfitted RSN⟩: MCP's AUC is (\S+) %, the best arm's [^)]+\) (\S+) %", page)
    yield f"MCP still lies {float(apart[1]) - float(apart[2]):.1f} points higher"
    gains = re.findall(r"that oracle with MCP [\d.]+ \[[^]]+\] \+([\d.]+) \[", page)
    yield "the best oracle adds {} and {} points to MCP's AUC".format(*gains)
    matched = pd.read_csv(ROOT / "results/fashion/tables/claims.csv", index_col="id").loc["matched", "found"]
    assert "at worst (⟨RSN, RSN⟩" in matched
    assert "beyond the margin in 1 of 2" in matched  # and so it is ⟨ViT, ViT⟩ that lies beyond its 2 points
    yield "where the steep slope loss ranks better, it finds fewer, by more than 2 points"
    (nearer,) = re.findall(r"with the confidence not negated in (\d+ of \d+) rows", page)
    yield "Of the {1} rows of the paper's Tables 1 and 3, {0} lie nearer".format(*nearer.split(" of "))
    controls = pd.read_csv(ROOT / "results/fashion/tables/controls.csv")
    found = controls.query("control == 'rate' and pair == 'rsn-rsn' and arm == 'ce' and metric == 'tnr'")
    yield f"cross entropy as in the text has a TNR of {100 * found['estimate'].item():.2f} there too"


@pytest.mark.parametrize("says", [of_fashion, of_mnist, of_cifar10, of_tiny, of_unseen_domains, of_the_audit])
def test_what_the_prose_says_follows_from_the_committed_results(says):
    text = " ".join((ROOT / "README.md").read_text().split())
    for sentence in says():
        assert sentence in text


def test_every_module_and_notebook_is_in_the_tree():
    text = (ROOT / "README.md").read_text()
    for folder, pattern in (("trustlib", "*.py"), ("notebooks", "*.ipynb"), ("studies", "*.yaml")):
        for path in (ROOT / folder).glob(pattern):
            if not path.stem.startswith("__"):
                assert re.search(rf"\b{path.stem}\b", text), path.name
