"""What the README and the pages in docs/ show works as it stands there."""

import inspect
import re
import sys

import pandas as pd
import pytest
import torch
import yaml
from test_extension import hinge

import trustlib
from trustlib import losses
from trustlib.__main__ import main
from trustlib.data import ROOT
from trustlib.report import readme
from trustlib.study import load_study

PAGES = "\n".join(path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])


def fragments(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGES, re.DOTALL)


def test_the_results_are_those_of_the_committed_tables(tmp_path):
    for folder in ("docs", "results", "data/example"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "README.md").write_text((ROOT / "README.md").read_text())
    readme.write(tmp_path)
    # the drawing itself may differ between versions of matplotlib
    for name in ("README.md", "results/index.html", "data/example/predictions.csv"):
        drawn, committed = (re.sub(r'src="data:[^"]*"', "", (of / name).read_text()) for of in (tmp_path, ROOT))
        assert drawn == committed
    assert len((ROOT / "README.md").read_bytes()) <= 9_216


def test_links_lead_to_files():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("https://") or (page.parent / target).exists(), target


def test_every_link_of_the_index_leads_to_a_page_and_to_the_claim():
    links = set(re.findall(r'href="(?!https:)([^"#]+)#?([^"]*)"', (ROOT / "results" / "index.html").read_text()))
    assert links
    pages = {page: (ROOT / "results" / page).read_text() for page, _ in links}
    assert not [(page, claim) for page, claim in links if claim and f'id="{claim}"' not in pages[page]]


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    (example,) = (text for text in fragments("python") if text.startswith("import"))
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs", "exec"), {})
    printed = capsys.readouterr().out
    assert "Keep a prediction when its confidence is above" in printed
    assert "Temperature-scaled MCP" in printed
    assert (tmp_path / "digits.html").exists()


def test_the_commands_of_the_tool_run(tmp_path, monkeypatch, capsys):
    example = pd.read_csv(ROOT / "data" / "example" / "predictions.csv")
    first = example[["correct", "max_probability"]].assign(image=[f"{i}.png" for i in range(len(example))])
    files = {"predictions": example, "first": first, "second": first.iloc[::-1], "monday": example[:900]}
    files |= {"tuesday": example[900:], "new": example.drop(columns="correct")}
    for name, frame in files.items():
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    monkeypatch.chdir(tmp_path)
    commands = "".join(fragments("sh")).splitlines()
    assert {command.split()[1] for command in commands} == {"evaluate", "compare", "apply", "monitor", "plan"}
    for command in commands:
        monkeypatch.setattr(sys, "argv", command.split())
        assert main() == 0, (command, capsys.readouterr().err)
    made = {"predictions.html", "predictions.json", "first-compared.html", "gate.json", "new-accepted.csv"}
    assert made <= {path.name for path in tmp_path.iterdir()}


def test_the_json_files_keys_are_documented(tmp_path):
    report = trustlib.evaluate(ROOT / "data" / "example" / "predictions.csv", resamples=5, cost=(10, 1))
    text = (ROOT / "docs" / "tool.md").read_text().partition("## The JSON file")[2]
    documented = {
        name for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in re.findall("`(.*?)`", row)
    }
    assert documented == set(report.to_dict())


def test_the_loss_that_it_adds_is_the_one_that_is_tested(monkeypatch, write_study):
    (fragment,) = (text for text in fragments("python") if "LOSSES" in text)
    assert fragment.startswith(inspect.getsource(hinge))
    names = dict(vars(losses))
    exec(f"from __future__ import annotations\n{fragment}", names)  # as if it stood at the end of the module
    monkeypatch.setitem(losses.LOSSES, "hinge", names["LOSSES"]["hinge"])
    (methods,) = fragments("yaml")
    arm = load_study(write_study(**yaml.safe_load(methods))).method("hinge")
    z, correct = torch.tensor([0.5, 0.5]), torch.tensor([True, False])
    assert arm.loss_function(z, correct, **arm.hyper).tolist() == [1.5, 2.5]
    assert '"logit_gap": Score("Logit gap", logit_gap)' in PAGES


INTERVAL = r"[+−]?\d+\.\d+ \[[^\]]+\]"


def test_every_figure_with_an_interval_is_that_of_a_committed_result():
    results = ROOT / "results"
    files = [*results.glob("*/tables/comparisons.csv"), *results.glob("*/tables/domains.csv")]
    files += [
        *results.glob("*/tables/ablations.csv"),
        *results.glob("*/tables/fusion.csv"),
        *results.glob("*/tables/classifiers.csv"),
    ]
    measured = set()
    for file in files:
        frame = pd.read_csv(file).rename(columns={"auroc": "estimate"})
        measured |= {in_full(row) for row in frame.to_dict("records")}
        less = frame[["difference", "difference_low", "difference_high"]] if "difference" in frame else frame[:0]
        measured |= {"{:+.1f} [{:+.1f}, {:+.1f}]".format(*row) for row in (100 * less).itertuples(index=False)}
    for row in pd.read_csv(results / "speed/steps.csv").itertuples():
        measured.add(f"{row.median:.2f} [{row.low:.2f}, {row.high:.2f}]")
    measured |= set(times_on_a_gpu().values())
    for file in results.glob("*/tables/heads.csv"):
        heads = 100 * pd.read_csv(file)[["difference", "low", "high"]]
        measured |= {"{:+.1f} [{:+.1f}, {:+.1f}]".format(*row) for row in heads.itertuples(index=False)}
    for file in results.glob("*/tables/claims.csv"):
        measured |= set(re.findall(INTERVAL, " ".join(pd.read_csv(file)["found"])))
    text = " ".join(PAGES.split())  # a line may end within an interval
    quoted = re.findall(INTERVAL, text)
    assert len(quoted) >= 8
    assert set(quoted) <= {text.replace("-", "−") for text in measured}


def test_what_table_1_costs_follows_from_measured_steps():
    step = pd.read_csv(ROOT / "results/speed/gpu.csv", index_col=["model", "way"])["median"]
    batch = pd.read_csv(ROOT / "results/speed/batches.csv", index_col=["model", "batch"])["median"]
    study, images, test = load_study("imagenet"), 1_281_167, 50_000
    trained = [arm for arm, method in study.methods.items() if method.backbone == "trained"]
    oracles = len(study.pairs) // 2 * len(trained) * len(study.seeds)  # on each network
    learned, looks = images - study.heldout, test + study.heldout + 10_000
    shifted = 3 * study.domains.images + study.domains.attacked
    rows, total = [], 0.0
    for model in ("vit_base_patch16_384", "resnet50"):
        rate, answers = batch[model, 32], 4 * step[model, "as released, TF32"]
        counts = (2 * images + test, 2 * (2 * images + test), oracles * looks, oracles * shifted)
        first, features, z, shift = (count / answers / 3600 for count in counts)
        training = oracles * learned / rate / 3600
        total += first + features + training + z + shift
        rows.append([f"{rate:.0f}", f"{answers:,.0f}", *(f"{x:.1f}" for x in (first, features, training, z, shift))])
        rows[-1].append(f"{training / oracles:.2f}")
        assert f"{oracles * learned / batch[model, 128] / 3600:.1f}" in PAGES
    text = (ROOT / "docs/cluster.md").read_text()
    told = [[cell.strip() for cell in line.split("|")[2:4]] for line in text.splitlines() if line.count("|") == 4]
    assert all(list(cells) in told for cells in zip(*rows, strict=True))
    assert f"In all {total:.1f} hours" in text
    assert f"{2 * oracles} oracles for one epoch of {learned:,} images, {oracles} on each" in text


def times_on_a_gpu():
    """How many times as long as here each way takes on each network: (model, way) -> median and quartiles."""
    frame = pd.read_csv(ROOT / "results/speed/gpu.csv", index_col=["model", "way"])
    return {key: "{:.2f} [{:.2f}, {:.2f}]".format(*row) for key, row in frame.filter(like="time ").iterrows()}


def test_the_times_it_quotes_are_the_committed_ones():
    text = " ".join(PAGES.split())
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
    assert f"from {vit} images/s with ViT-B/16 at 384 pixels and from {resnet} with ResNet-50" in text
    took = times_on_a_gpu()
    for way, quoted in {
        "timm": "timm's own step takes {} and {} times",
        "as released, TF32": "the released way {} and {} with TF32",
        "as released, float32": "{} and {} without;",
        "here, compiled": "`compiled: true` takes {} and {}.",
    }.items():
        assert quoted.format(*(took[model, way] for model in speeds.index)) in text
    ours, others = metrics.loc[1_000_000, ["all of metrics.evaluate", "scikit-learn's four"]].astype(float)
    assert f"take {ours:.3f} s on one core" in text
    assert f"take {others / ours:.1f} times as long" in text
    took, ratio = (float(bootstrap.loc[name].iloc[0]) for name in ("bootstrap, seconds", "ratio"))
    assert f"take {took:.1f} s, {ratio:.1f} times less" in text


def in_full(row):
    return "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * row[name] for name in ("estimate", "low", "high")))


def table(heading):
    """The cells of the first table below a heading, row by row, without its head."""
    text = PAGES.partition(heading)[2]
    found = re.search(r"(^\|.*\|\n)+", text, re.MULTILINE)[0]
    return [[cell.strip(" *`") for cell in row.split("|")[1:-1]] for row in found.splitlines()[2:]]


def test_the_ladder_of_budgets_is_the_committed_one_cell_by_cell():
    curves = pd.read_csv(ROOT / "results/budget/tables/budget.csv")
    mean = curves.groupby(["pair", "loss", "steps", "split"])[["auroc", "mcp"]].mean().mul(100)
    study = load_study("budget")
    called = {study.pair_label(pair): pair for pair in study.pairs}
    names = {study.method_label(arm): settings.loss for arm, settings in study.methods.items()}
    rows = table("## How long must an oracle train?")
    assert len(rows) == len(called) * (len(names) + 1)
    steps = sorted(curves["steps"].unique())
    for pair, method, *cells in rows:
        of = mean.loc[called[pair]]
        if method == "MCP":
            level = of["mcp"].groupby("split").mean()
            assert cells[-1] == f"{level['train']:.1f}"
            assert set(cells[:-1]) == {f"{level['test']:.1f}"}
        else:
            at = [of.loc[(names[method], n, "test"), "auroc"] for n in steps if (names[method], n, "test") in of.index]
            assert cells[: len(at)] == [f"{value:.1f}" for value in at]
            assert cells[-1] == f"{of.loc[(names[method], steps[-1], 'train'), 'auroc']:.1f}"


@pytest.mark.parametrize(
    ("name", "heading", "images"),
    [("fashion", "## Do trained oracles rank above MCP?", 50_000), ("colour", "## The same on CIFAR-10", 40_000)],
)
def test_the_table_of_trained_oracles_is_the_committed_one(name, heading, images):
    study, folder = load_study(name), ROOT / "results" / name / "tables"
    compared = pd.read_csv(folder / "comparisons.csv").set_index(["metric", "pair", "arm"]).loc["auroc"]
    curves = pd.read_csv(folder / "budget.csv").query("split == 'train'").groupby(["pair", "arm"])
    called = {study.pair_label(pair): pair for pair in study.pairs}
    names = {study.method_label(arm): arm for arm in study.methods} | {"MCP": "mcp"}
    rows = table(heading)
    assert len(rows) == len(called) * 6
    for label, method, steps, trained, tested, less in rows:
        pair, arm = called[label], names[method]
        row = compared.loc[pair, arm]
        assert tested == in_full(row)
        if arm == "mcp":
            assert trained == f"{100 * curves['mcp'].mean()[pair].mean():.1f}"
            continue
        difference = row[["difference", "difference_low", "difference_high"]]
        assert less == "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * difference)).replace("-", "−")
        recipe = study.recipe(pair, arm)
        assert steps == f"{recipe.epochs * (images // recipe.batch):,}"
        if arm != "focal":  # of which there is no ladder
            assert trained == f"{100 * curves['auroc'].mean()[pair, arm]:.1f}"


def test_table_2_is_that_of_the_paper_and_of_the_committed_results():
    paper = pd.read_csv(ROOT / "data/published/table2.csv").set_index(["dataset", "loss", "metric"])["mean"]
    theirs = {
        "mcp": "mcp",
        "mc_dropout_probs": "mc_dropout",
        "trust_score": "trust_score",
        "tcp": "tcp",
        "ss-released": "ss",
    }
    named = {"MCP": "mcp", "MC dropout": "mc_dropout_probs", "TrustScore": "trust_score"}
    named |= {method.label: name for name, method in load_study("mnist").methods.items()}
    rows = table("## Table 2")
    assert len(rows) == 12
    for column, study in ((1, "mnist"), (3, "cifar10")):
        (pair,) = load_study(study).pairs
        ours = pd.read_csv(ROOT / f"results/{study}/tables/comparisons.csv").set_index(["pair", "arm", "metric"])
        for label, *cells in rows:
            is_accuracy = label == "classifier's accuracy"
            arm, metric = ("mcp", "accuracy") if is_accuracy else (named[label], "auroc")
            published = f"{paper[study, theirs[arm], metric]:.1f}" if arm in theirs else "–"
            assert cells[column - 1 : column + 1] == [published, in_full(ours.loc[pair, arm, metric])]


def test_every_module_and_notebook_is_in_the_tree():
    text = (ROOT / "docs" / "architecture.md").read_text()
    for folder, pattern in (("trustlib", "*.py"), ("notebooks", "*.ipynb"), ("studies", "*.yaml")):
        for path in (ROOT / folder).rglob(pattern):
            if not path.stem.startswith("__") and ".ipynb_checkpoints" not in path.parts:
                assert re.search(rf"\b{path.stem}\b", text), path.name
