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


def test_the_headline_table_is_that_of_the_committed_result():
    compared = pd.read_csv(ROOT / "results/fashion/tables/comparisons.csv").query("metric == 'auroc'")
    measured = {
        f"{100 * row.estimate:.2f} [{100 * row.low:.2f}, {100 * row.high:.2f}]" for row in compared.itertuples()
    }
    quoted = re.findall(r"\d+\.\d\d \[[^\]]+\]", (ROOT / "README.md").read_text())
    assert len(quoted) == 11 * 4
    assert set(quoted) <= measured


def test_every_module_and_notebook_is_in_the_tree():
    text = (ROOT / "README.md").read_text()
    for folder, pattern in (("trustlib", "*.py"), ("notebooks", "*.ipynb"), ("studies", "*.yaml")):
        for path in (ROOT / folder).glob(pattern):
            if not path.stem.startswith("__"):
                assert re.search(rf"\b{path.stem}\b", text), path.name
