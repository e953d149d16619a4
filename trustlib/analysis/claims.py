"""The verdict on every claim of data/claims.yaml, by its own rule and from a study's results.

Verdicts that depend on no measurement follow from arithmetic or from the published tables, and their finding says so.
"""

from typing import Any

import pandas as pd

from ..study import Study
from . import rules
from .evidence import Evidence, comparisons, measured, missing
from .facts import COMPUTED


def judge(results: Any, entries: list[rules.Claim] | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every claim, or some of them, with what was measured and the verdict; and every comparison behind a verdict.

    Parameters
    ----------
    results : `runs.results.Run` or `.Published`.
    entries : all of them by default.

    Returns
    -------
    claims : one row per claim: id, asked_by, claim, where, quantity, found, verdict, section; the paper's first, then
        the study's own, of each those that are not tested last.
    cells : as `tabulated`, in the order of data/claims.yaml.
    """
    evidence = Evidence(results)
    rows, cells = [], []
    for claim in rules.load() if entries is None else entries:
        judged = _judged_claim(evidence, claim)
        shown = claim.model_dump(include={"id", "asked_by", "claim", "where", "quantity"})
        rows.append(shown | {"found": judged.found, "verdict": judged.verdict, "section": claim.section})
        cells += [(claim.id, "", cell) for cell in judged.cells]
        cells += [(claim.id, rules.RELEASED, cell) for cell in judged.released]
    rows.sort(key=lambda row: (row["asked_by"], row["verdict"] == rules.NOT_TESTED))
    return pd.DataFrame(rows), rules.tabulated(cells)


def _judged_claim(evidence: Evidence, claim: rules.Claim) -> rules.Judgement:
    """The verdict on one claim, where the study can test it."""
    study = evidence.study
    arithmetic = claim.fact in rules.ARITHMETIC
    if claim.asked_by == "paper" and not arithmetic and (reason := study.untested):
        return rules.Judgement(rules.NOT_TESTED, reason)
    if claim.colour and evidence.grey:
        return rules.Judgement(rules.NOT_TESTED, rules.GREY)
    if claim.studies and study.name.removesuffix("-full") not in claim.studies:
        where = ", ".join(f"results/{name}" for name in claim.studies)
        return rules.Judgement(rules.NOT_TESTED, f"{rules.OTHER_DATA}: {where}")
    if claim.fact:
        return COMPUTED[claim.fact](evidence)
    return _judged(evidence, claim.tests, claim.any_budget, claim.jointly)


def _judged(
    evidence: Evidence, tests: list[rules.Test], any_budget: bool = False, jointly: bool = False
) -> rules.Judgement:
    """The verdict of the losses of the text; the finding adds that of the released forms where it is another.

    A claim is about the loss that the paper's text defines, so that the released forms do not change its verdict.
    """
    cells, found = _found(evidence, tests, any_budget)
    said, also = rules.verdict(cells, jointly), as_released(evidence.study, tests)
    if said == rules.REPRODUCED or also == tests:
        return rules.Judgement(said, found, cells)
    released, found_released = _found(evidence, also, any_budget)
    if (another := rules.verdict(released, jointly)) not in (said, rules.NOT_TESTED):
        found = f"{found}. As released {another}: {found_released}"
    return rules.Judgement(said, found, cells, released)


def _found(evidence: Evidence, tests: list[rules.Test], any_budget: bool = False) -> tuple[list[rules.Cell], str]:
    """The cells, and what was measured; no cell where one cannot be made."""
    compared, made = comparisons(evidence, tests), measured(evidence, tests, any_budget)
    if lacking := [way for way, cell in zip(compared, made, strict=True) if cell is None]:
        return [], missing(evidence.study, lacking)
    cells = [cell for cell in made if cell is not None]
    if untrained := [cell.name for cell in cells if cell.caveat == rules.NOT_TRAINED]:
        reason = "an oracle has not converged, or ranks its own training images worse than MCP does"
        return cells, f"not trained: {rules.and_more(untrained)}; {reason}"
    if not rules.counted(cells):
        unshifted = dict.fromkeys(cell.name.split(": ")[0] for cell in cells if cell.caveat == rules.NO_SHIFT)
        return cells, f"accuracy falls by less than {100 * rules.FALL:.0f} points: {', '.join(unshifted)}"
    texts = []
    for test in tests:
        texts.append(rules.described(test, [cell for cell in cells if cell.margin is test]))
        at_zero = measured(evidence, [test.at_zero], any_budget) if rules.TNR_PAPER in test.metrics else []
        if shown := rules.counted(cell for cell in at_zero if cell is not None):
            texts.append(f"with TCP's at z = 0, {rules.worst_text(shown)}")
    return cells, "; ".join([*texts, *rules.precision(cells)])


def as_released(study: Study, tests: list[rules.Test]) -> list[rules.Test]:
    """The same tests with the released form of every arm that has one: a method that differs in its form alone."""

    def twin(name: str) -> str:
        if name not in study.methods:
            return name
        asked = study.methods[name].model_copy(update={"form": "released", "label": ""})
        return next((n for n, arm in study.methods.items() if arm.model_copy(update={"label": ""}) == asked), name)

    return [
        test.model_copy(update={"methods": [*map(twin, test.methods)], "minus": [*map(twin, test.minus)]})
        for test in tests
    ]
