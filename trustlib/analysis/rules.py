"""The rules of data/claims.yaml: claims, tests with their margins, cells with their intervals, and the verdict on them.

The head of the file says what is measured, where the margins are, and how a verdict follows.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import yaml
from pydantic import Field, model_validator

from .. import data, metrics
from ..settings import Strict
from ..shifts import names
from ..stats import resampling

REPRODUCED, MIXED, CONTRADICTED = "reproduced", "mixed", "contradicted"
INCONCLUSIVE, NOT_TESTED = "inconclusive", "not tested"
VERDICTS = (REPRODUCED, MIXED, CONTRADICTED, INCONCLUSIVE, NOT_TESTED)
PATH = data.ROOT / "data" / "claims.yaml"
LEVEL = 0.95
NOT_RUN, NOT_PLANNED, OTHER_DATA = "not run", "this study has no", "tested on other data"
GREY = "these images have no colour: the attack can only bend their tone curve; results/colour tests it"

# Metrics that are computed from another score, or from others, than those of `metrics`.
TNR_PAPER = "tnr_paper"  # TCP's true negatives at sigmoid(z) <= 1/K (Section 2), the others' at z <= 0
NOT_NEGATED = "aupr_error_released"  # AUPR-Error with the confidence not negated: that of -z
COST = "cost"  # alpha+ FN/N + alpha- FP/N at the threshold that costs least on validation images
FALL = 0.10  # of the accuracy of a classifier, for a distribution shift to count
STRENGTHS = ("strong", "weak")  # in place of a network: that of the highest and of the lowest accuracy

# Facts, computed by `trustlib.analysis.facts`: those that no study can change, and those that follow from test scores.
ARITHMETIC = ("published_aupr_error", "published_collapse", "tcp_capped")
FROM_SCORES = ("normality", "tails")
FACTS = (*ARITHMETIC, *FROM_SCORES, "overfitting", "iid")

SIDES = ("above", "below", "within", "apart")


class Margin(Strict):
    """One of four: where every value must lie; apart is the outside of within."""

    above: float | None = None
    below: float | None = None
    within: float | None = None
    apart: float | None = None

    @property
    def side(self) -> str:
        """Which of the four it is."""
        return next(name for name in SIDES if getattr(self, name) is not None)

    @property
    def at(self) -> float:
        """The margin's value."""
        return getattr(self, self.side)

    @model_validator(mode="after")
    def _one_margin(self):
        if sum(getattr(self, name) is not None for name in SIDES) != 1:
            raise ValueError(f"a test has one of {', '.join(SIDES)}; found {self}")
        return self

    def outcome(self, low: float, high: float) -> bool | None:
        """True where all of [low, high] lies beyond the margin, False where none of it does, None otherwise."""
        at = self.at
        beyond = {"above": low > at, "below": high < at, "within": -at < low and high < at}
        excluded = {"above": high < at, "below": low > at, "within": low > at or high < -at}
        beyond["apart"], excluded["apart"] = excluded["within"], beyond["within"]
        if beyond[self.side]:
            return True
        return False if excluded[self.side] else None


class Test(Margin):
    """A metric of some methods, or its difference from others, against a margin; see the head of data/claims.yaml."""

    metric: str
    methods: list[str]
    minus: list[str] = Field(default=[])
    pairs: list[str] = Field(default=[])
    minus_pairs: list[str] = Field(default=[])
    tuned: bool = False
    domains: list[str] = Field(default=[])

    @model_validator(mode="after")
    def _known(self):
        for name in self.metrics:
            if name not in (*metrics.METRICS, *metrics.SEPARABILITY, TNR_PAPER, NOT_NEGATED, COST):
                raise ValueError(f"unknown metric {name!r}")
        for name in self.domains:
            names.parse(name)
        separability = bool(set(self.metrics) & set(metrics.SEPARABILITY))
        if self.domains and (self.tuned or separability or COST in self.metrics):
            raise ValueError("under distribution shift a test is neither tuned nor of separability or cost")
        if separability and (self.tuned or len(self.metrics) > 1):
            raise ValueError("a test of separability is of one metric, at the study's one learning rate")
        if len(self.metrics) > 1 and {COST, NOT_NEGATED} & set(self.metrics):
            raise ValueError(f"{COST} and {NOT_NEGATED} stand in no sum")
        if self.tuned and TNR_PAPER in self.metrics:
            raise ValueError(f"{TNR_PAPER} is that of the study's one learning rate")
        return self

    @property
    def metrics(self) -> list[str]:
        """The metrics whose sum is tested."""
        return [name.strip() for name in self.metric.split("+")]

    @property
    def is_difference(self) -> bool:
        """Whether the metric of one oracle is compared with that of another."""
        return bool(self.minus or self.minus_pairs)

    @property
    def at_zero(self) -> "Test":
        """The same with every TNR at z = 0."""
        return self.model_copy(update={"metric": self.metric.replace(TNR_PAPER, "tnr")})


class Claim(Strict):
    """One claim, who makes or asks it and where, and what decides it: tests or a fact."""

    id: str
    asked_by: Literal["paper", "study"] = "paper"
    claim: str
    where: str
    quantity: str
    section: str  # of the report, the id of its heading
    colour: bool = False  # whether images of one channel can say nothing of it
    any_budget: bool = False  # whether it is about a recipe, so that its oracles need not be trained to convergence
    jointly: bool = False  # whether one oracle has to pass all of its tests, which are then one cell
    studies: list[str] = Field(default=[])  # the only ones, with their "-full", that test it; all by default
    tests: list[Test] = Field(default=[])
    fact: str = ""

    @model_validator(mode="after")
    def _one_way(self):
        if bool(self.tests) == bool(self.fact) or (self.fact and self.fact not in FACTS):
            raise ValueError(f"claim {self.id}: has one of tests and fact (of {', '.join(FACTS)})")
        return self


# Why a cell decides nothing. The first two are not counted among a claim's cells, the third leaves the claim untested.
MEAN, NO_SHIFT, NOT_TRAINED = "mean over cells", "no shift", "not trained"
ONE_TRAINING, FEW, SMALL_ERROR = "one training", "few predictions", "small error"


@dataclass(frozen=True)
class Cell:
    """One comparison: the mean over seeds and its 95 % interval.

    metric : as in data/claims.yaml, or what a fact measures.
    seeds : training seeds behind it.
    df : degrees of freedom of the variance between seeds, pooled; 0 without one.
    caveat : why it decides nothing, one of the above; else empty.
    """

    metric: str
    name: str
    margin: Margin
    estimate: float
    interval: tuple[float, float]
    seeds: int = 1
    df: int = 0
    caveat: str = ""

    @property
    def outcome(self) -> bool | None:
        """As `Margin.outcome`; None where it decides nothing."""
        return None if self.caveat else self.margin.outcome(*self.interval)

    @property
    def pair(self) -> str:
        """The first part of its name, up to the pair."""
        return self.name[: self.name.find("⟩") + 1] or self.name


class Judgement(NamedTuple):
    """The verdict on a claim, what was measured, and the cells behind both; released: of the losses as released."""

    verdict: str
    found: str
    cells: Sequence[Cell] = ()
    released: Sequence[Cell] = ()


def load() -> list[Claim]:
    """The claims, checked.

    Raises
    ------
    pydantic.ValidationError : when an entry has an unknown key, metric or fact, or not one way to decide it.
    """
    return [Claim.model_validate(entry) for entry in yaml.safe_load(PATH.read_text())]


RELEASED = "as released"  # the form of a cell whose losses are; else it is empty
OUTCOMES = {True: "beyond", False: "excluded", None: "neither"}
CELLS = ["claim", "form", "metric", "comparison", "estimate", "low", "high", "seeds", "df", "caveat"]
CELLS += ["margin", "at", "outcome"]


def tabulated(cells: Sequence[tuple[str, str, Cell]]) -> pd.DataFrame:
    """(claim, form, cell) as a table, one row each, columns `CELLS`; rates are fractions.

    low, high: of the 95 % interval; seeds, df, caveat: as in `Cell`; margin and at: one of `SIDES`, and its value;
    outcome: one of `OUTCOMES`.
    """
    rows = [
        (
            claim, form, cell.metric, cell.name, cell.estimate, *cell.interval, cell.seeds, cell.df, cell.caveat,
            cell.margin.side, cell.margin.at, OUTCOMES[cell.outcome],
        )
        for claim, form, cell in cells
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=CELLS)


def untabulated(rows: pd.DataFrame) -> list[Cell]:
    """The cells of a table of theirs."""
    return [
        Cell(
            row.metric, row.comparison, Margin(**{row.margin: row.at}), row.estimate, (row.low, row.high), row.seeds,
            row.df, row.caveat,
        )
        for row in rows.itertuples()
    ]  # fmt: skip


def verdict(cells: Sequence[Cell], jointly: bool = False) -> str:
    """What follows from a claim's cells, by the rules at the head of data/claims.yaml; from none `NOT_TESTED`."""
    outcomes = _joint(counted(cells)) if jointly else [cell.outcome for cell in counted(cells)]
    if not outcomes or any(cell.caveat == NOT_TRAINED for cell in cells):
        return NOT_TESTED
    if all(outcomes):
        return REPRODUCED
    if False not in outcomes:
        return INCONCLUSIVE
    return MIXED if True in outcomes else CONTRADICTED


def _joint(cells: Iterable[Cell]) -> list[bool | None]:
    """The outcome of each oracle's cells together: of several tests the one that speaks most against the claim."""
    of: dict[str, set[bool | None]] = {}
    for cell in cells:
        of.setdefault(cell.name, set()).add(cell.outcome)
    return [next(outcome for outcome in (False, None, True) if outcome in found) for found in of.values()]


def counted(cells: Iterable[Cell]) -> list[Cell]:
    """The cells that count: no means over others, and none without a shift."""
    return [cell for cell in cells if cell.caveat not in (MEAN, NO_SHIFT)]


def and_more(names: Sequence[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def precision(cells: Sequence[Cell]) -> list[str]:
    """How many seeds and degrees of freedom the intervals have, and which cells decide nothing."""
    deciding = [cell for cell in counted(cells) if cell.seeds > 1]
    notes = []
    if deciding:
        seeds = sorted({cell.seeds for cell in deciding})
        freedom = sorted({cell.df for cell in deciding})
        of_freedom = f"{' or '.join(map(str, freedom))} degree{'' if freedom == [1] else 's'} of freedom"
        notes.append(f"{' or '.join(map(str, seeds))} seeds, {of_freedom}")
    counts = Counter(cell.caveat for cell in cells)
    if counts[ONE_TRAINING]:
        notes.append("one training, which decides nothing")
    if counts[FEW]:
        fewest = f"fewer than {resampling.FEWEST} correct or incorrect predictions"
        notes.append(f"{fewest}, which decide nothing, in {counts[FEW]}")
    if counts[NO_SHIFT]:
        notes.append(f"not counted for a fall of accuracy of less than {100 * FALL:.0f} points: {counts[NO_SHIFT]}")
    return notes


def worst(cells: Sequence[Cell]) -> Cell:
    """The cell that speaks most against the claim, of those that decide anything."""
    favours: dict[str, Callable[[float], float]] = {
        "above": lambda x: x, "below": lambda x: -x, "within": lambda x: -abs(x), "apart": abs,
    }  # fmt: skip
    deciding = [cell for cell in cells if not cell.caveat] or cells
    return min(deciding, key=lambda cell: np.nan_to_num(favours[cell.margin.side](cell.estimate), nan=np.inf))


def formatted(cell: Cell) -> str:
    """A cell's estimate and interval, with a sign if it is a difference; per cent but for what has no upper end."""
    test = cell.margin
    scale = 1 if cell.metric in (*metrics.SEPARABILITY, COST) else 100
    sign = "+" if isinstance(test, Test) and test.is_difference else ""
    numbers = [scale * value for value in (cell.estimate, *cell.interval)]
    digits = 3 if cell.metric == COST else 2
    text = "{:{sign}.{digits}f} [{:{sign}.{digits}f}, {:{sign}.{digits}f}]".format(*numbers, sign=sign, digits=digits)
    return text.replace("-", "−")


def worst_text(cells: Sequence[Cell]) -> str:
    cell = worst(cells)
    text = f"{LABELS.get(cell.metric, cell.metric)} {formatted(cell)}"
    return text if len(cells) == 1 else f"{text} at worst ({cell.name})"


def described(test: Test, cells: Sequence[Cell]) -> str:
    """The cell that speaks most against the claim, the mean, and how many lie on which side."""
    counting = counted(cells)
    if not counting:
        return f"{LABELS.get(test.metric, test.metric)} not counted"
    text = worst_text(counting)
    if len(counting) == 1:
        return text
    means = [cell for cell in cells if cell.caveat == MEAN]
    average = [f"{formatted(mean)} on average" for mean in means if len(counting) == len(cells) - 1]
    return "; ".join([text, *average, tally(counting)])


def tally(cells: Sequence[Cell]) -> str:
    """How many cells lie beyond the margin and on the other side of it, by pair, and which way the others point."""
    beyond, excluded = ([c for c in cells if c.outcome is outcome] for outcome in (True, False))
    text = f"beyond the margin in {len(beyond)} of {len(cells)}{_by_pair(beyond, cells)}"
    text += f", excluded in {len(excluded)}{_by_pair(excluded, cells)}"
    if len(beyond) + len(excluded) < len(cells):
        leaning = sum(cell.margin.outcome(cell.estimate, cell.estimate) is True for cell in cells)
        text += f", {leaning} estimate{'' if leaning == 1 else 's'} on its side"
    return text


def _by_pair(some: Sequence[Cell], cells: Sequence[Cell]) -> str:
    """In which pairs some of the cells are, unless it is none or all of them."""
    if len(some) in (0, len(cells)):
        return ""
    every = Counter(cell.pair for cell in cells)
    return " ({})".format(", ".join(f"{p} {n} of {every[p]}" for p, n in Counter(c.pair for c in some).items()))


LABELS = {
    "auroc": "AUROC", "fpr95": "FPR-95%-TPR", "aupr_success": "AUPR-Success", "aupr_error": "AUPR-Error",
    NOT_NEGATED: "AUPR-Error, not negated", "tpr": "TPR", "tnr": "TNR", TNR_PAPER: "TNR", "aurc": "AURC", "kl": "KL",
    "bhattacharyya": "Bhattacharyya", "tpr + tnr": "TPR + TNR", COST: "cost",
}  # fmt: skip
