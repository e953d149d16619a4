"""What the README shows works as it stands there."""

import re

import pandas as pd

from trustlib.data import ROOT


def test_the_example_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "'auroc': 0.8" in printed
    assert "Keep a prediction when its confidence is above" in printed


def test_every_figure_with_an_interval_is_that_of_a_committed_result():
    results = ROOT / "results"
    files = [results / f"fashion/tables/{name}.csv" for name in ("comparisons", "controls", "domains")]
    files += [results / "colour/tables/domains.csv", results / "imagenet/domains.csv"]
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
    text = " ".join((ROOT / "README.md").read_text().split())  # a line may end within an interval
    quoted = re.findall(r"[+-]?\d+\.\d\d \[[^\]]+\]", text)
    assert len(quoted) >= 11 * 4 + 7 + 8
    assert set(quoted) <= measured


def test_the_readme_counts_the_verdicts_as_the_committed_result_does():
    counts = pd.read_csv(ROOT / "results/fashion/tables/claims.csv")["verdict"].value_counts()
    (quoted,) = re.findall(
        r"Of (\d+) claims,.*?(\d+) hold on\s+`fashion`, (\d+) do not hold here, (\d+) do not hold by.*?(\d+) cannot",
        (ROOT / "README.md").read_text(),
        re.DOTALL,
    )
    verdicts = ("holds", "does not hold here", "does not hold", "cannot be judged here")
    assert tuple(map(int, quoted)) == (counts.sum(), *(counts[verdict] for verdict in verdicts))


def test_every_module_and_notebook_is_in_the_tree():
    text = (ROOT / "README.md").read_text()
    for folder, pattern in (("trustlib", "*.py"), ("notebooks", "*.ipynb"), ("studies", "*.yaml")):
        for path in (ROOT / folder).glob(pattern):
            if not path.stem.startswith("__"):
                assert re.search(rf"\b{path.stem}\b", text), path.name
