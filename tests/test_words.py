"""The words of the field: what this study calls things, in pages, notebooks, claims and messages."""

import json
import re

import pytest

from trustlib.data import ROOT

NOT = {  # what is not said -> what is
    r"\bright on [0-9⟨<]": "accuracy",
    r"\b(right|wrong) (prediction|one)s?\b": "correct or incorrect predictions, errors",
    r"\b(test|held-out|training) part\b": "test set, validation set, training set",
    r"\ba row a\b|\ba column a\b|\ba line an?\b|\ba second and core\b|\bimages a second\b": "one row per ..., images/s",
    r"\banybody's\b|\bsomebody's\b": "your own",
    r"\bat hand\b": "available",
    r"\bstands? (beside|below|above)\b": "next to, below, compared with",
    r"\b(made|makes|make) anew\b": "recomputed",
    r"\basked (about|of)\b": "evaluated on",
    r"\bcannot be judged\b": "inconclusive, or not tested",
    r"\bbeyond the interval\b|\bleaves? out 0\b": "significantly (the 95 % interval of the difference excludes 0)",
    r"\bown rates?\b|\bbest rate\b": "tuned learning rate",
    r"\bgiven weights\b|\bweights given\b": "pretrained weights",
    r"\bhead alone\b": "frozen backbone",
    r"\blearn(t|s)? from images\b": "trained on",
    r"\bthe audit\b": "the ablations",
    r"\ban? arm\b|\barms\b": "method(s)",
}
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "data" / "claims.yaml"]
PAGES += [*(ROOT / "studies").glob("*.yaml"), *(ROOT / "trustlib").rglob("*.py"), *(ROOT / "notebooks").glob("*.ipynb")]


def prose(path):
    if path.suffix != ".ipynb":
        return path.read_text()
    return "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_says_it_in_the_words_of_the_field(path):
    text = prose(path)
    found = {match[0]: instead for words, instead in NOT.items() for match in re.finditer(words, text, re.IGNORECASE)}
    assert not found
