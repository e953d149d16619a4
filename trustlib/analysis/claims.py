"""The verdict on every claim of data/claims.yaml, by its own rule and from this study's results.

The file says what is measured and where the margins are; its head says how a verdict follows. Verdicts that depend on
no measurement follow here from arithmetic or from the published tables, and their finding says so.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.special import expit
from scipy.stats import norm

from .. import data, metrics
from ..report import tables
from ..runs import controls, store
from ..shifts import domains
from ..stats import resampling
from ..stats.rates import clopper_pearson
from ..study import Strict, Study
from . import ablations, budget, evaluation, paper

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
STRENGTHS = ("strong", "weak")  # in place of a network: that of the highest and of the lowest accuracy

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
    """A metric of some arms, or its difference from others, against a margin; see the head of data/claims.yaml."""

    metric: str
    arms: list[str]
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
            domains.parse(name)
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


def judge(study: Study, entries: list[Claim] | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every claim, or some of them, with what was measured and the verdict; and every comparison behind a verdict.

    Returns
    -------
    claims : one row per claim: id, asked_by, claim, where, quantity, found, verdict, section; the paper's first, then
        the study's own, of each those that are not tested last.
    cells : as `tabulated`, in the order of data/claims.yaml.
    """
    seen = Seen(study)
    rows, cells = [], []
    for claim in load() if entries is None else entries:
        judged = _judged_claim(seen, claim)
        shown = claim.model_dump(include={"id", "asked_by", "claim", "where", "quantity"})
        rows.append(shown | {"found": judged.found, "verdict": judged.verdict, "section": claim.section})
        cells += [(claim.id, "", cell) for cell in judged.cells]
        cells += [(claim.id, RELEASED, cell) for cell in judged.released]
    rows.sort(key=lambda row: (row["asked_by"], row["verdict"] == NOT_TESTED))
    return pd.DataFrame(rows), tabulated(cells)


def _judged_claim(seen: "Seen", claim: Claim) -> Judgement:
    """The verdict on one claim, where the study can test it."""
    study = seen.study
    arithmetic = claim.fact in ARITHMETIC
    if claim.asked_by == "paper" and not arithmetic and (reason := study.untested):
        return Judgement(NOT_TESTED, reason)
    if claim.colour and seen.grey:
        return Judgement(NOT_TESTED, GREY)
    if claim.studies and study.name.removesuffix("-full") not in claim.studies:
        return Judgement(NOT_TESTED, f"{OTHER_DATA}: {', '.join(f'results/{name}' for name in claim.studies)}")
    if claim.fact:
        return FACTS[claim.fact](seen)
    return _judged(seen, claim.tests, claim.any_budget)


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


def verdict(cells: Sequence[Cell]) -> str:
    """What follows from a claim's cells, by the rules at the head of data/claims.yaml; from none `NOT_TESTED`."""
    outcomes = [cell.outcome for cell in _counted(cells)]
    if not outcomes or any(cell.caveat == NOT_TRAINED for cell in cells):
        return NOT_TESTED
    if all(outcomes):
        return REPRODUCED
    if False not in outcomes:
        return INCONCLUSIVE
    return MIXED if True in outcomes else CONTRADICTED


def _counted(cells: Iterable[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.caveat not in (MEAN, NO_SHIFT)]


def _judged(seen: "Seen", tests: list[Test], any_budget: bool = False) -> Judgement:
    """The verdict of the losses of the text; the finding adds that of the released forms where it is another.

    A claim is about the loss that the paper's text defines, so that the released forms do not change its verdict.
    """
    cells, found = _found(seen, tests, any_budget)
    said, also = verdict(cells), as_released(seen.study, tests)
    if said == REPRODUCED or also == tests:
        return Judgement(said, found, cells)
    released, found_released = _found(seen, also, any_budget)
    if verdict(released) not in (said, NOT_TESTED):
        found = f"{found}. As released {verdict(released)}: {found_released}"
    return Judgement(said, found, cells, released)


def _found(seen: "Seen", tests: list[Test], any_budget: bool = False) -> tuple[list[Cell], str]:
    """The cells, and what was measured; no cell where one cannot be made."""
    compared, made = comparisons(seen, tests), measured(seen, tests, any_budget)
    if missing := [way for way, cell in zip(compared, made, strict=True) if cell is None]:
        return [], _missing(seen.study, missing)
    cells = [cell for cell in made if cell is not None]
    if untrained := [cell.name for cell in cells if cell.caveat == NOT_TRAINED]:
        reason = "an oracle has not converged, or ranks its own training images worse than MCP does"
        return cells, f"not trained: {_and_more(untrained)}; {reason}"
    if not _counted(cells):
        unshifted = dict.fromkeys(cell.name.split(": ")[0] for cell in cells if cell.caveat == NO_SHIFT)
        return cells, f"accuracy falls by less than {100 * FALL:.0f} points: {', '.join(unshifted)}"
    texts = []
    for test in tests:
        texts.append(_text(test, [cell for cell in cells if cell.margin is test]))
        at_zero = measured(seen, [test.at_zero], any_budget) if TNR_PAPER in test.metrics else []
        if shown := _counted(cell for cell in at_zero if cell is not None):
            texts.append(f"with TCP's at z = 0, {_worst_text(shown)}")
    return cells, "; ".join([*texts, *_precision(cells)])


def _and_more(names: Sequence[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _precision(cells: Sequence[Cell]) -> list[str]:
    """How many seeds and degrees of freedom the intervals have, and which cells decide nothing."""
    deciding = [cell for cell in _counted(cells) if cell.seeds > 1]
    notes = []
    if deciding:
        seeds = sorted({cell.seeds for cell in deciding})
        freedom = sorted({cell.df for cell in deciding})
        notes.append(f"{' or '.join(map(str, seeds))} seeds, {' or '.join(map(str, freedom))} degrees of freedom")
    counts = Counter(cell.caveat for cell in cells)
    if counts[ONE_TRAINING]:
        notes.append("one training, which decides nothing")
    if counts[FEW]:
        fewest = f"fewer than {resampling.FEWEST} correct or incorrect predictions"
        notes.append(f"{fewest}, which decide nothing, in {counts[FEW]}")
    if counts[NO_SHIFT]:
        notes.append(f"not counted for a fall of accuracy of less than {100 * FALL:.0f} points: {counts[NO_SHIFT]}")
    return notes


def measured(seen: "Seen", tests: list[Test], any_budget: bool = False) -> list[Cell | None]:
    """The cell of each of the `comparisons`; None for one where something that it takes is not there."""
    compared = comparisons(seen, tests)
    values = [_mean_difference(seen, test, ways) for test, _, ways in compared]
    single: dict[tuple[str, bool], dict] = {}  # metric, and whether tuned -> its distinct comparisons
    for (test, _, ways), value in zip(compared, values, strict=True):
        if value is not None and len(ways) == 1:
            single.setdefault((test.metric, test.tuned), {})[ways[0]] = value[0]
    pooled = {key: resampling.pooled_variance(found.values()) for key, found in single.items()}
    return [
        None
        if value is None
        else _cell(seen, test, name, ways, value, pooled.get((test.metric, test.tuned)), any_budget)
        for (test, name, ways), value in zip(compared, values, strict=True)
    ]


def comparisons(seen: "Seen", tests: list[Test]) -> list[tuple[Test, str, tuple]]:
    """All that a claim's tests compare: the test, the comparison's name, and its sides (`_ways`).

    One comparison has one pair of sides; the mean of several, which follows on them, has theirs.
    """
    found: list[tuple[Test, str, tuple]] = []
    for test in tests:
        ways = _ways(seen, test)
        found += [(test, name, (way,)) for name, way in ways]
        if len(ways) > 1:
            found.append((test, f"mean of {len(ways)}", tuple(way for _, way in ways)))
    return found


def _mean_difference(seen: "Seen", test: Test, ways: tuple) -> tuple[NDArray, NDArray] | None:
    """(estimate (S,), samples (R, S)), the mean over some comparisons; None where one cannot be made."""
    values = [seen.difference(test, *way) for way in ways]
    if any(value is None for value in values):
        return None
    estimates, samples = zip(*values, strict=True)
    return np.mean(estimates, axis=0), np.mean(samples, axis=0)


def _cell(
    seen: "Seen", test: Test, name: str, ways: tuple, value: tuple, pooled: tuple | None, any_budget: bool
) -> Cell:
    """The mean over seeds with its interval, cut where the metric ends."""
    estimate, samples = value
    several = len(ways) > 1  # cells that share trainings: their mean has the variance that it shows between seeds
    counts = [seen.counts(*of) for way in ways for of in way if of]
    mean = float(estimate.mean())
    low, high = resampling.crossed(estimate, samples, LEVEL, None if several else pooled)[1:3]
    if len(test.metrics) == 1 and test.metric not in (*metrics.SEPARABILITY, COST):
        low, high = np.clip([low, high], -1.0 if test.is_difference else 0.0, 1.0)
    if test.metric in RATES and not test.is_difference and mean in (0, 1):  # no resample has another rate
        n = counts[0][RATES[test.metric]]
        exact = clopper_pearson(round(mean * n), n, LEVEL)
        low, high = min(low, exact[0]), max(high, exact[1])
    caveat = MEAN if several else _caveat(seen, ways[0], counts, len(estimate), any_budget)
    freedom = len(estimate) - 1 if several or pooled is None else pooled[1]
    interval = (float(low), float(high))
    return Cell(test.metric, name, test, mean, interval, len(estimate), freedom, caveat)


def _caveat(seen: "Seen", way: tuple, counts: list[tuple[int, int]], seeds: int, any_budget: bool) -> str:
    """Why a comparison decides nothing, or nothing."""
    sides = [of for of in way if of]
    if not any_budget and any(seen.is_untrained(pair, arm) for pair, arm, _ in sides):
        return NOT_TRAINED
    pair, _, part = sides[0]
    if part != "test" and seen.fall(pair, part) < FALL:
        return NO_SHIFT
    if seeds == 1:
        return ONE_TRAINING
    return FEW if min(map(min, counts)) < resampling.FEWEST else ""


RATES = {"tpr": 0, "tnr": 1, TNR_PAPER: 1}  # of the correct or of the incorrect predictions
FALL = 0.10  # of the classifier's accuracy, for a domain to be a shift


def _worst(cells: Sequence[Cell]) -> Cell:
    """The cell that speaks most against the claim, of those that decide anything."""
    favours: dict[str, Callable[[float], float]] = {
        "above": lambda x: x, "below": lambda x: -x, "within": lambda x: -abs(x), "apart": abs,
    }  # fmt: skip
    deciding = [cell for cell in cells if not cell.caveat] or cells
    return min(deciding, key=lambda cell: np.nan_to_num(favours[cell.margin.side](cell.estimate), nan=np.inf))


def _number(cell: Cell) -> str:
    """A cell's estimate and interval, with a sign if it is a difference; per cent but for what has no upper end."""
    test = cell.margin
    scale = 1 if cell.metric in (*metrics.SEPARABILITY, COST) else 100
    sign = "+" if isinstance(test, Test) and test.is_difference else ""
    numbers = [scale * value for value in (cell.estimate, *cell.interval)]
    digits = 3 if cell.metric == COST else 2
    return "{:{sign}.{digits}f} [{:{sign}.{digits}f}, {:{sign}.{digits}f}]".format(*numbers, sign=sign, digits=digits)


def _worst_text(cells: Sequence[Cell]) -> str:
    worst = _worst(cells)
    text = f"{LABELS.get(worst.metric, worst.metric)} {_number(worst)}"
    return text if len(cells) == 1 else f"{text} at worst ({worst.name})"


def _text(test: Test, cells: Sequence[Cell]) -> str:
    """The cell that speaks most against the claim, the mean, and how many lie on which side."""
    counted = _counted(cells)
    if not counted:
        return f"{LABELS.get(test.metric, test.metric)} not counted"
    text = _worst_text(counted)
    if len(counted) == 1:
        return text
    means = [cell for cell in cells if cell.caveat == MEAN]
    average = [f"{_number(mean)} on average" for mean in means if len(counted) == len(cells) - 1]
    return "; ".join([text, *average, _counts(counted)])


def _counts(cells: Sequence[Cell]) -> str:
    """How many cells lie beyond the margin and on the other side of it, by pair, and which way the others point."""
    beyond, excluded = ([c for c in cells if c.outcome is outcome] for outcome in (True, False))
    text = f"beyond the margin in {len(beyond)} of {len(cells)}{_by_pair(beyond, cells)}"
    text += f", excluded in {len(excluded)}{_by_pair(excluded, cells)}"
    if len(beyond) + len(excluded) < len(cells):
        leaning = sum(cell.margin.outcome(cell.estimate, cell.estimate) is True for cell in cells)
        text += f", {leaning} estimates on its side"
    return text


def _by_pair(some: Sequence[Cell], cells: Sequence[Cell]) -> str:
    """In which pairs some of the cells are, unless it is none or all of them."""
    if len(some) in (0, len(cells)):
        return ""
    every = Counter(cell.pair for cell in cells)
    return " ({})".format(", ".join(f"{p} {n} of {every[p]}" for p, n in Counter(c.pair for c in some).items()))


LABELS = {
    "auroc": "AUC", "fpr95": "FPR-95%-TPR", "aupr_success": "AUPR-Success", "aupr_error": "AUPR-Error",
    NOT_NEGATED: "AUPR-Error, not negated", "tpr": "TPR", "tnr": "TNR", TNR_PAPER: "TNR", "aurc": "AURC", "kl": "KL",
    "bhattacharyya": "Bhattacharyya", "tpr + tnr": "TPR + TNR", COST: "cost",
}  # fmt: skip


def _ways(seen: "Seen", test: Test) -> list[tuple[str, tuple]]:
    """(name, ((pair, arm, part), what it is compared with, the same three, or None)) of every cell."""
    ways, study = [], seen.study
    parts = {domains.parse(name).label: f"domains/{name}" for name in test.domains} or {"": "test"}
    pairs, minus_pairs = _by_strength(seen, test.pairs), _by_strength(seen, test.minus_pairs)
    for (where, part), pair, arm in product(parts.items(), pairs or study.pairs, test.arms):
        if test.tuned:
            arm = seen.own_budget(pair, arm)
        minus = [seen.own_budget(pair, other) for other in test.minus] if test.tuned else test.minus
        others = [(pair, other, part) for other in minus] + [(other, arm, part) for other in minus_pairs]
        for other in others or [None]:
            name = f"{where}: " if where else ""
            name += f"{_pair_label(study, pair)} {_label(study, arm)}"
            if other:
                name += f" − {_label(study, other[1])}" if other[0] == pair else f" − {_pair_label(study, other[0])}"
            ways.append((name, ((pair, arm, part), other)))
    return ways


def _by_strength(seen: "Seen", pairs: list[str]) -> list[str]:
    """Pairs with networks in place of `STRENGTHS`, by accuracy on the test set; as they are where it is not known."""
    if not any(name in STRENGTHS for pair in pairs for name in pair.split("-")):
        return pairs
    judged = {pair.split("-")[1]: pair for pair in seen.study.pairs}
    if len(judged) < 2 or not all(seen.has(pair) for pair in judged.values()):
        return pairs
    accuracy = {name: seen.correct(pair).mean() for name, pair in judged.items()}
    weak, *_, strong = sorted(accuracy, key=accuracy.__getitem__)
    named = dict(zip(STRENGTHS, (strong, weak), strict=True))
    return ["-".join(named.get(name, name) for name in pair.split("-")) for pair in pairs]


def _missing(study: Study, ways: list[tuple[Test, str, tuple]]) -> str:
    """Why comparisons could not be made: what the study has not, or what of it has not run."""
    single = [(test, name, sides[0]) for test, name, sides in ways if len(sides) == 1]
    absent = dict.fromkeys(_absent(study, test.tuned, *of) for test, _, way in single for of in way if of)
    if lacking := list(filter(None, absent)):
        return f"{NOT_PLANNED} {' and no '.join(lacking)}"
    return f"{NOT_RUN}: {_and_more([name for _, name, _ in single])}"


def _absent(study: Study, tuned: bool, pair: str, arm: str, part: str) -> str:
    """What of one side of a comparison is not part of the study, or nothing."""
    if set(pair.split("-")) <= set(STRENGTHS):
        return "" if len(study.classifiers) > 1 else "second network"
    if pair not in study.all_pairs:
        return f"{_pair_label(study, pair)} pair"
    if (base := _base(arm)) != "mcp" and base not in study.all_arms:
        return f"method {_label(study, base)!r}"
    if part not in ("test", *study.domains.parts.values()):
        return f"domain {domains.parse(part.removeprefix('domains/')).label!r}"
    return "tuned learning rates" if tuned and not study.audit.controls else ""


NAMES = tables.PAPER_NAMES | {  # of networks and methods that a study has not
    "strong": "stronger", "weak": "weaker", "cb": "Class-balanced", "ce-weighted": "weighted CE",
    "ss-linear": "SS, linear", "ss-released": "SS from TCP, as released",
    "ss-continued": "SS from TCP, last layer kept",
    **{f"ss-1-{slope}": f"SS 1, {slope}" for slope in (1, 2, 4, 6)},
}  # fmt: skip


def _pair_label(study: Study, pair: str) -> str:
    networks = study.all_networks
    return "⟨{}, {}⟩".format(*(networks[n].label if n in networks else NAMES.get(n, n) for n in pair.split("-")))


SUFFIXES = {"": "", "+mcp": " with MCP", "-matched": " at SS's TPR"}  # of an arm's name


def _base(arm: str) -> str:
    """The arm that a score rests on."""
    for suffix in SUFFIXES:
        arm = arm.removesuffix(suffix)
    return arm


def _label(study: Study, arm: str) -> str:
    base = _base(arm)
    label = study.arm_label(base) if base == "mcp" or base in study.all_arms else NAMES.get(base, base)
    return label + SUFFIXES[arm.removeprefix(base)]


def as_released(study: Study, tests: list[Test]) -> list[Test]:
    """The same tests with the released form of every arm that has one: an arm that differs in its form alone."""

    def twin(name: str) -> str:
        if name not in study.arms:
            return name
        asked = study.arms[name].model_copy(update={"form": "released", "label": ""})
        return next((n for n, arm in study.arms.items() if arm.model_copy(update={"label": ""}) == asked), name)

    return [
        test.model_copy(update={"arms": [*map(twin, test.arms)], "minus": [*map(twin, test.minus)]}) for test in tests
    ]


class Seen:
    """The metrics of any method and their resamples, looked up once: those of a study's trainings."""

    def __init__(self, study: Study):
        self.study, self._boots, self._distances, self._states = study, {}, {}, {}

    @property
    def grey(self) -> bool:
        """Whether the images have one channel."""
        return self.study.images().channels == 1

    @property
    def classes(self) -> int:
        """How many classes the predictions are of."""
        return len(self.study.images().classes)

    def has(self, pair: str, part: str = "test") -> bool:
        """As `evaluation.has_classifier`."""
        return evaluation.has_classifier(self.study, pair, part)

    def correct(self, pair: str, part: str = "test") -> NDArray[np.bool_]:
        """As `evaluation.correct`."""
        return evaluation.correct(self.study, pair, part)

    def outputs(self, pair: str, arm: str, part: str = "test", tuned: bool = False) -> NDArray | None:
        """The ``z`` of a method's oracles, float (S, N), or MCP, (1, N); None where one of the seeds is not there."""
        study = self.study
        if arm == "mcp":
            return evaluation.own_scores(study, study.pair(pair)[1], part)["mcp"][None]
        if arm not in (study.all_arms if part in data.PARTS else study.arms):
            return None
        if tuned:
            return controls.outputs(study, pair, arm, part)
        found = evaluation.outputs(study, pair, arm, study.seeds, part)
        return np.stack(list(found.values())) if len(found) == len(study.seeds) else None

    def is_untrained(self, pair: str, arm: str) -> bool:
        """Whether `budget.state` calls the oracles of a method not trained; never of MCP or of a released form."""
        base = _base(arm)
        if base == "mcp" or self.study.arm(base).form == "released":
            return False
        if (pair, base) not in self._states:
            self._states[pair, base] = budget.state(self.study, pair, base, self.curves)
        return self._states[pair, base] == NOT_TRAINED

    def own_budget(self, pair: str, arm: str) -> str:
        """A method with the training budget that is best for it, see `budget.best`."""
        base = _base(arm)
        return arm if base == "mcp" else budget.best(self.study, pair, base, self.curves) + arm.removeprefix(base)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """As `budget.curves`."""
        return budget.curves(self.study)

    def on_training(self, pair: str, arm: str) -> dict[str, NDArray] | None:
        """As `evaluation.on_training`."""
        return evaluation.on_training(self.study, pair, arm)

    def counts(self, pair: str, arm: str, part: str) -> tuple[int, int]:
        """How many predictions of the pair's classifier are correct, and incorrect."""
        correct = self.correct(pair, part)
        return int(correct.sum()), int((~correct).sum())

    def fall(self, pair: str, part: str) -> float:
        """The accuracy of the pair's classifier on the same images of the test set minus that on the part."""
        shifted = self.correct(pair, part)
        return float(self.correct(pair)[: len(shifted)].mean() - shifted.mean())

    def difference(self, test: Test, of: tuple, other: tuple | None) -> tuple[NDArray, NDArray] | None:
        """(estimate (S,), samples (R, S)) of one cell; None where something that it takes is not there."""
        own = self._values(test, *of)
        theirs: tuple[Any, Any] | None = self._values(test, *other) if other else (0.0, 0.0)
        return None if own is None or theirs is None else (own[0] - theirs[0], own[1] - theirs[1])

    def _values(self, test: Test, pair: str, arm: str, part: str) -> tuple[NDArray, NDArray] | None:
        planned = pair in self.study.all_pairs and part in ("test", *self.study.domains.parts.values())
        if not planned or not self.has(pair, part):
            return None
        if set(test.metrics) <= set(metrics.SEPARABILITY):
            found = self._separability(pair).get(arm)
            return found and (found[0][test.metric], found[1][test.metric])
        return self.values(test.metrics, pair, arm, part, test.tuned)

    def values(
        self, names: list[str], pair: str, arm: str, part: str = "test", tuned: bool = False
    ) -> tuple[NDArray, NDArray] | None:
        """(estimate (S,), samples (R, S)) of a sum of metrics; None where the oracles are not there."""
        kind = next((name for name in names if name in (COST, NOT_NEGATED)), "")
        if TNR_PAPER in names and arm in self.study.arms and self.study.arms[arm].loss == "tcp":
            kind = TNR_PAPER
        key = (pair, arm, part, tuned, kind)
        if key not in self._boots:
            self._boots[key] = self._boot(*key)
        if (boot := self._boots[key]) is None:
            return None
        (estimate,), (samples,) = boot.estimate.values(), boot.samples.values()
        if kind == COST:
            return self._cost(pair, estimate), self._cost(pair, samples)
        columns = [metrics.METRICS.index({TNR_PAPER: "tnr", NOT_NEGATED: "aupr_error"}.get(n, n)) for n in names]
        return estimate[..., columns].sum(-1), samples[..., columns].sum(-1)

    def _cost(self, pair: str, values: NDArray) -> NDArray:
        """alpha+ FN/N + alpha- FP/N of metrics (..., len(METRICS))."""
        slopes = self.study.network(self.study.pair(pair)[0]).steep_slope
        accuracy, tpr, tnr = (values[..., metrics.METRICS.index(name)] for name in ("accuracy", "tpr", "tnr"))
        return slopes.alpha_pos * accuracy * (1 - tpr) + slopes.alpha_neg * (1 - accuracy) * (1 - tnr)

    def _boot(self, pair: str, arm: str, part: str, tuned: bool, kind: str) -> resampling.Bootstrap | None:
        """Resampled metrics of a score: a method's, MCP, or one made of them on validation images."""
        study, base = self.study, _base(arm)

        def outputs(_: Study, pair: str, arm: str, part: str = "test") -> NDArray | None:
            return self.outputs(pair, arm, part, tuned)

        if arm.endswith("-matched"):
            score = ablations.matched(study, pair, base, "ss", outputs)
        elif arm.endswith("+mcp"):
            score = ablations.with_mcp(study, pair, base, outputs)
        elif kind == COST:
            score = ablations.cheapest(study, pair, arm, outputs)
        else:
            score = self.outputs(pair, arm, part, tuned)
        if score is None:
            return None
        if kind == NOT_NEGATED:
            score = -score
        folder = "" if part == "test" else f"{part}/"
        where = study.pair(pair)[1] if arm == "mcp" and not kind else pair
        name = "/".join(filter(None, [f"{folder}{where}", "tuned" * tuned, kind, arm]))
        threshold = 0.5 if arm == "mcp" and kind != COST else 0.0
        tnr_threshold = evaluation.negative_tcp(self.classes) if kind == TNR_PAPER else None
        return self.resampled(name, score, self.correct(pair, part), threshold, tnr_threshold)

    def resampled(
        self, name: str, score: NDArray, correct: NDArray, threshold: float, tnr_threshold: float | None
    ) -> resampling.Bootstrap:
        """As `evaluation.resampled`."""
        return evaluation.resampled(self.study, name, score, correct, threshold, tnr_threshold)

    def _separability(self, pair: str) -> dict:
        if pair not in self._distances:
            z = {arm: self.outputs(pair, arm) for arm in self.study.arms}
            confidences = {arm: expit(rows.astype(float)) for arm, rows in z.items() if rows is not None}
            correct = self.correct(pair)
            self._distances[pair] = (
                resampling.separability(confidences, correct, resamples=evaluation.RESAMPLES) if confidences else {}
            )
        return self._distances[pair]


# --- Facts: what follows from the published figures, from arithmetic, or from a distance without seeds ---


def _published_aupr_error(seen: Seen) -> Judgement:
    excludes = paper.aupr_error_bounds()["excludes"]
    negated, tied = excludes.str.startswith("negated").sum(), (excludes == "negated, whatever the ties").sum()
    other = len(excludes) - (excludes == "not negated").sum()
    return Judgement(
        CONTRADICTED if negated else INCONCLUSIVE,
        f"by arithmetic, {negated} of {len(excludes)} rows cannot, {tied} of them whatever the ties: the column is not "
        f"the average precision of errors ranked by the negated confidence; {other} rows are compatible with the "
        "confidence not negated, as in the released code, where lower is better: the natural reading, which the "
        "figures do not prove",
    )


def _published_collapse(seen: Seen) -> Judgement:
    table = paper.table("table1")
    baselines = table[table.index.get_level_values("loss") != "ss"]
    so = (baselines["tpr"] > 0.99) & (baselines["tnr"] < 0.01)
    return Judgement(
        REPRODUCED if so.all() else CONTRADICTED,
        f"by arithmetic: in {so.sum()} of {len(baselines)} rows of the published table; not in "
        + ", ".join(f"{tables.paper_pair(pair)} {tables.PAPER_NAMES[loss]}" for pair, loss in so.index[~so]),
    )


def _normality(seen: Seen) -> Judgement:
    """The distance of a distribution from the normal fitted to it, mean over the seeds.

    Its interval is that of the DKW inequality for the images, crossed with the seeds' as in `resampling.crossed`.
    """
    study = seen.study
    distances: dict[tuple[str, str, str], NDArray] = {}
    counts = {}
    for pair, (arm, settings) in product(study.pairs, study.arms.items()):
        if settings.loss not in FIGURE_3 or settings.form != "corrected" or not seen.has(pair):
            continue
        correct, z = seen.correct(pair), seen.outputs(pair, arm)
        for group, name in ((correct, "correct"), (~correct, "incorrect")) if z is not None else ():
            distances[pair, arm, name] = np.array([_from_normal(expit(row[group].astype(float))) for row in z])
            counts[pair, arm, name] = int(group.sum())
    if not distances:
        return Judgement(NOT_TESTED, NOT_RUN)
    cells, pooled = [], resampling.pooled_variance(distances.values())
    for (pair, arm, name), found in distances.items():
        mean, images = found.mean(), np.sqrt(np.log(2 / (1 - LEVEL)) / (2 * counts[pair, arm, name]))
        half = np.sqrt(images**2 + resampling.seed_error(found, LEVEL, pooled) ** 2)
        label = f"{study.pair_label(pair)} {study.arm_label(arm)}, {name}"
        ends = (mean - half, mean + half)
        caveat = _training_caveat(seen, pair, [arm], len(found))
        freedom = pooled[1] if pooled else 0
        cells.append(
            Cell("distance from the normal", label, Margin(below=0.05), mean, ends, len(found), freedom, caveat)
        )
    return _of_cells(cells, lambda worst: f"{_number(worst)} points at worst ({worst.name} predictions)")


FIGURE_3 = ("tcp", "ss")  # of the losses whose histograms it shows, those whose confidences are not collapsed


def _from_normal(values: NDArray) -> float:
    """The largest distance of the distribution function of values (N,) from that of the normal fitted to them."""
    values = np.sort(values)
    ranks = np.arange(len(values) + 1) / len(values)
    fitted = norm.cdf(values, values.mean(), values.std(ddof=1))
    return float(max(np.abs(fitted - ranks[1:]).max(), np.abs(fitted - ranks[:-1]).max()))


def _training_caveat(seen: Seen, pair: str, arms: Sequence[str], seeds: int) -> str:
    """Why what is measured of some methods' oracles decides nothing, or nothing."""
    if any(seen.is_untrained(pair, arm) for arm in arms):
        return NOT_TRAINED
    return ONE_TRAINING if seeds == 1 else ""


def _of_cells(cells: Sequence[Cell], text: Callable[[Cell], str]) -> Judgement:
    """The verdict on a fact's cells, and what the one that speaks most against the claim says."""
    if untrained := [cell.name for cell in cells if cell.caveat == NOT_TRAINED]:
        return Judgement(NOT_TESTED, f"not trained: {_and_more(untrained)}", cells)
    notes = [_counts(cells)] if len(cells) > 1 else []
    return Judgement(verdict(cells), "; ".join([text(_worst(cells)), *notes, *_precision(cells)]), cells)


def _overfitting(seen: Seen) -> Judgement:
    """AUC and TNR on an oracle's own training images minus those on test images (`evaluation.on_training`).

    The sampling error on the training images is taken to be that on the test images, independent of it.
    """
    study, order = seen.study, np.random.default_rng(0).permutation(evaluation.RESAMPLES)
    arms = [arm for arm in ("ce", "focal", "tcp") if arm in study.arms]
    if not arms:
        return Judgement(NOT_TESTED, f"{NOT_PLANNED} method 'CE'")
    gaps: dict[tuple[str, str, str], tuple[NDArray, NDArray]] = {}
    for pair, arm in product(study.pairs, arms):
        trained = seen.on_training(pair, arm) if seen.has(pair) else None
        for metric in OVERFITTED if trained else ():
            estimate, samples = seen.values([metric], pair, arm)
            noise = samples - estimate
            gap = trained[metric] - estimate
            gaps[metric, pair, arm] = gap, gap + noise[order] - noise
    if len(gaps) < len(study.pairs) * len(arms) * len(OVERFITTED):
        return Judgement(NOT_TESTED, f"{NOT_RUN}: outputs on training images")
    cells = []
    for metric, margin in OVERFITTED.items():
        pooled = resampling.pooled_variance(gap for (m, *_), (gap, _) in gaps.items() if m == metric)
        for (_, pair, arm), (gap, samples) in ((key, gaps[key]) for key in gaps if key[0] == metric):
            mean, low, high, seeds = resampling.crossed(gap, samples, LEVEL, pooled)
            label = f"{study.pair_label(pair)} {study.arm_label(arm)}"
            caveat = _training_caveat(seen, pair, [arm], seeds)
            freedom = pooled[1] if pooled else 0
            cells.append(Cell(metric, label, Margin(above=margin), mean, (low, high), seeds, freedom, caveat))

    def text(_: Cell) -> str:
        worst = [_worst([cell for cell in cells if cell.metric == metric]) for metric in OVERFITTED]
        return "; ".join(
            f"{LABELS[cell.metric]}, training − test, {_number(cell)} at worst ({cell.name})" for cell in worst
        )

    return _of_cells(cells, text)


OVERFITTED = {"auroc": 0.02, "tnr": 0.05}  # metric -> by how much it is higher on training images than on test images


def _iid(seen: Seen) -> Judgement:
    """A classifier whose error is within the margin decides nothing: its gap could not be beyond it."""
    study, cells, texts = seen.study, [], []
    for name in study.classifiers:
        if evaluation.has_classifier(study, next(p for p in study.pairs if p.endswith(f"-{name}"))):
            rates, label = ablations.label_shift(study, name), study.network(name).label
            train, test = rates.loc["train"], rates.loc["test"]
            ends, small = (train.low - test.high, train.high - test.low), 1 - test.rate < SHIFT
            caveat = SMALL_ERROR if small else ""
            gap = train.rate - test.rate
            cells.append(Cell("accuracy, train − test", label, Margin(within=SHIFT), gap, ends, caveat=caveat))
            low, high = ends
            text = f"{label} {100 * gap:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"
            texts.append(f"{text}, of an error of {100 * (1 - test.rate):.2f} that decides nothing" if small else text)
    if not cells:
        return Judgement(NOT_TESTED, NOT_RUN)
    return Judgement(verdict(cells), "; ".join(texts), cells)


SHIFT = 0.01  # of the accuracy, up to which labels are called alike


def _tails(seen: Seen) -> Judgement:
    """The tails of z under the signed distance less those under the linear head, paired by seed.

    The range of the middle 99 % in units of the interquartile range; 3.82 for a normal.
    """
    study, arms = seen.study, ["ss", "ss-linear"]
    if lacking := [arm for arm in arms if arm not in study.arms]:
        return Judgement(NOT_TESTED, f"{NOT_PLANNED} method {_label(study, lacking[0])!r}")
    longer = {}
    for pair in study.pairs:
        z = [seen.outputs(pair, arm) if seen.has(pair) else None for arm in arms]
        if any(rows is None for rows in z):
            return Judgement(NOT_TESTED, f"{NOT_RUN}: {study.pair_label(pair)}")
        ranges = [np.quantile(rows, (0.005, 0.25, 0.75, 0.995), axis=1) for rows in z]
        distance, linear = ((high - low) / (third - first) for low, first, third, high in ranges)
        longer[pair] = distance - linear
    cells, pooled = [], resampling.pooled_variance(longer.values())
    for pair, values in longer.items():
        mean, low, high, seeds = resampling.crossed(values, values[None], LEVEL, pooled)
        caveat = _training_caveat(seen, pair, arms, seeds)
        freedom = pooled[1] if pooled else 0
        margin, label = Margin(above=0.0), study.pair_label(pair)
        cells.append(Cell("tails, SS − SS, linear", label, margin, mean, (low, high), seeds, freedom, caveat))

    def text(worst: Cell) -> str:
        numbers = "{:+.2f} [{:+.2f}, {:+.2f}]".format(worst.estimate, *worst.interval)
        return f"longer by {numbers} interquartile ranges ({worst.name})"

    return _of_cells(cells, text)


PAPER_ORACLES = {  # parameters (ViT-B/16 at 384 pixels, ResNet-50 without its classes) and slopes of the paper
    "ViT": (86_090_000, 1.0, 3.0),
    "RSN": (23_510_000, 2.0, 5.0),
}
PAPER_IMAGES, BITS = 1_281_167, 32


def bounds(study: Study, delta: float = 0.05) -> pd.DataFrame:
    """Theorem 3.1 for the paper's oracles and the study's: index label; parameters, images, largest, bound.

    The paper does not count its finite set F: 32 bits a parameter is a choice of this study. Of each of the study's
    oracle networks it is the first steep slope arm, by its name, since the head alone may learn.
    """
    sizes = {f"{name}, the paper's": (*size, PAPER_IMAGES) for name, size in PAPER_ORACLES.items()}
    sizes["a head of 769 parameters, the paper's images"] = (769, 1.0, 3.0, PAPER_IMAGES)
    for name in dict.fromkeys(pair.split("-")[0] for pair in study.pairs):
        network, pair = study.networks[name], next(pair for pair in study.pairs if pair.startswith(f"{name}-"))
        arm = next((arm for arm, settings in study.arms.items() if settings.loss == "ss"), None)
        manifest = arm and store.read_manifest(store.oracle_path(study, pair, arm, study.seeds[0]))
        if manifest:
            slopes, images = network.steep_slope, study.recipe(pair, arm).images or len(study.images().labels["train"])
            sizes[f"{network.label}, this study's {study.arm_label(arm)}"] = (
                manifest["parameters"], slopes.alpha_pos, slopes.alpha_neg, images,
            )  # fmt: skip
    rows = {}
    for name, (parameters, pos, neg, images) in sizes.items():
        largest = max(np.exp(a) - np.exp(-a) for a in (pos, neg))
        bound = paper.hoeffding_bound(largest, BITS * parameters * np.log(2), images, delta)
        rows[name] = {"parameters": parameters, "images": images, "largest": largest, "bound": bound}
    return pd.DataFrame(rows).T


def _tcp_capped(seen: Seen) -> Judgement:
    return Judgement(
        MIXED,
        "by arithmetic: reproduced for Eq. 6 as printed, (z − p)² of any real z, which is unbounded; contradicted for "
        "the sigmoid of the released code, with which it is at most 1, since σ(z) and p lie in [0, 1], and "
        "Hoeffding's inequality applies to it as well",
    )


FACTS: dict[str, Callable[[Seen], Judgement]] = {
    "published_aupr_error": _published_aupr_error,
    "published_collapse": _published_collapse,
    "overfitting": _overfitting,
    "normality": _normality,
    "iid": _iid,
    "tails": _tails,
    "tcp_capped": _tcp_capped,
}
ARITHMETIC = ("published_aupr_error", "published_collapse", "tcp_capped")  # facts that no study can change
FROM_SCORES = ("normality", "tails")  # facts that follow from the scores of the test set
