"""The verdict on every claim of data/claims.yaml, by its own rule and from this study's results.

The file says what is measured and where the margins are; its head says how a verdict follows. What is measured is
judged by its rule alone, and what has not been run cannot be judged. Two verdicts depend on no measurement and stand
here: what Eq. 6 says as it is printed (`_tcp_capped`), and what follows from published figures alone
(`_published_aupr_error`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.special import expit
from scipy.stats import norm

from . import audit, data, domains, evaluation, metrics, published, resampling, runs, statistics, tables
from .study import Strict, Study

HOLDS, FAILS, UNKNOWN = "holds", "does not hold here", "cannot be judged here"
ONLY_RELEASED, ONLY_PRINTED = "holds only as released", "holds only as printed"
REFUTED = "does not hold"  # of arithmetic and of published figures
VERDICTS = {True: HOLDS, False: FAILS, None: UNKNOWN}
PATH = data.ROOT / "data" / "claims.yaml"
LEVEL = 0.95
NOT_RUN, NOT_PLANNED, OTHER_DATA = "not run", "this study has no", "asked of other data"
GREY = "these images have no colour: the attack can only bend their tone curve; results/colour judges it"
UNANSWERED = (NOT_RUN, NOT_PLANNED, OTHER_DATA, GREY)  # how the findings begin that say why nothing was measured


TNR_PAPER = "tnr_paper"  # a metric: TCP's true negatives at sigmoid(z) <= 1/K (Section 2), the others' at z <= 0
STRENGTHS = ("strong", "weak")  # in place of a network: that of the highest and of the lowest accuracy


SIDES = ("above", "below", "within")


class Margin(Strict):
    """One of three: where every value must lie."""

    above: float | None = None
    below: float | None = None
    within: float | None = None

    @property
    def side(self) -> str:
        """Which of the three it is."""
        return next(name for name in SIDES if getattr(self, name) is not None)

    @model_validator(mode="after")
    def _one_margin(self):
        if sum(getattr(self, name) is not None for name in SIDES) != 1:
            raise ValueError(f"a test has one of {', '.join(SIDES)}; found {self}")
        return self


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
            if name not in (*metrics.METRICS, *metrics.SEPARABILITY, TNR_PAPER):
                raise ValueError(f"unknown metric {name!r}")
        for name in self.domains:
            domains.parse(name)
        separability = bool(set(self.metrics) & set(metrics.SEPARABILITY))
        if self.domains and (self.tuned or separability):
            raise ValueError("on unseen domains a test is neither tuned nor of separability")
        if separability and (self.tuned or len(self.metrics) > 1):
            raise ValueError("a test of separability is of one metric, at the study's one rate")
        if self.tuned and TNR_PAPER in self.metrics:
            raise ValueError(f"{TNR_PAPER} is that of the study's one rate")
        return self

    @property
    def metrics(self) -> list[str]:
        """The metrics whose sum is tested."""
        return [name.strip() for name in self.metric.split("+")]

    @property
    def at_zero(self) -> "Test":
        """The same with every TNR at z = 0."""
        return self.model_copy(update={"metric": self.metric.replace(TNR_PAPER, "tnr")})


class Claim(Strict):
    """One claim, where it is made, and what decides it: tests or a fact."""

    id: str
    claim: str
    where: str
    quantity: str
    section: str  # of the report, the id of its heading
    added: str = ""  # when and why, if the rule is younger than the runs
    colour: bool = False  # whether images of one channel can say nothing of it
    studies: list[str] = Field(default=[])  # the only ones, with their "-full", that it is asked of; all by default
    tests: list[Test] = Field(default=[])
    fact: str = ""

    @model_validator(mode="after")
    def _one_way(self):
        if bool(self.tests) == bool(self.fact) or (self.fact and self.fact not in FACTS):
            raise ValueError(f"claim {self.id}: has one of tests and fact (of {', '.join(FACTS)})")
        return self


@dataclass(frozen=True)
class Cell:
    """One comparison: the mean over seeds, its 95 % interval, and the wider one that a refutation needs.

    metric : as in data/claims.yaml, or what a fact measures.
    seeds : training seeds behind it.
    few : too few right or wrong predictions (`resampling.FEWEST`), so that it decides nothing.
    """

    metric: str
    name: str
    margin: Margin
    estimate: float
    interval: tuple[float, float]
    wide: tuple[float, float]
    seeds: int = 1
    few: bool = False

    @property
    def outcome(self) -> bool | None:
        """True where the interval lies beyond the margin, False where the wider one excludes it."""
        (low, high), (wide_low, wide_high) = self.interval, self.wide
        at = getattr(self.margin, self.margin.side)
        if self.few:
            return None
        if self.margin.side == "above":
            return True if low > at else False if wide_high < at else None
        if self.margin.side == "below":
            return True if high < at else False if wide_low > at else None
        return True if -at < low and high < at else False if wide_low > at or wide_high < -at else None


class Judgement(NamedTuple):
    """The verdict on a claim, what was found, and the cells behind both; released: of the losses as released."""

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
    """Every claim, or some of them, with what was found and the verdict; and every comparison behind a verdict.

    Returns
    -------
    claims : a row a claim: id, claim, where, quantity, found, verdict, section; last those that nothing was measured
        for.
    cells : as `tabulated`, in the order of the claims.
    """
    seen = Seen(study)
    rows, unanswered, cells = [], [], []
    for claim in load() if entries is None else entries:
        if claim.colour and seen.grey:
            judged = Judgement(UNKNOWN, GREY)
        elif claim.studies and study.name.removesuffix("-full") not in claim.studies:
            judged = Judgement(UNKNOWN, f"{OTHER_DATA}: {', '.join(f'results/{name}' for name in claim.studies)}")
        else:
            judged = FACTS[claim.fact](seen) if claim.fact else _judged(seen, claim.tests)
        shown = claim.model_dump(include={"id", "claim", "where", "quantity"})
        if claim.added:
            shown["where"] += f"; added {claim.added}"
        (unanswered if judged.found.startswith(UNANSWERED) else rows).append(
            shown | {"found": judged.found, "verdict": judged.verdict, "section": claim.section}
        )
        cells += [(claim.id, "", cell) for cell in judged.cells]
        cells += [(claim.id, RELEASED, cell) for cell in judged.released]
    return pd.DataFrame(rows + unanswered), tabulated(cells)


RELEASED = "as released"  # the form of a cell whose losses are; else it is empty
OUTCOMES = {True: "beyond", False: "excluded", None: "neither"}
CELLS = ["claim", "form", "metric", "comparison", "estimate", "low", "high", "wide_low", "wide_high"]
CELLS += ["seeds", "few", "margin", "at", "outcome"]


def tabulated(cells: Sequence[tuple[str, str, Cell]]) -> pd.DataFrame:
    """(claim, form, cell) as a table, a row each, columns `CELLS`; rates are fractions.

    low, high: of the 95 % interval; wide_low, wide_high: of the one that a refutation needs; margin and at: "above",
    "below" or "within" what; outcome: one of `OUTCOMES`.
    """
    rows = [
        (
            claim, form, cell.metric, cell.name, cell.estimate, *cell.interval, *cell.wide, cell.seeds, cell.few,
            cell.margin.side, getattr(cell.margin, cell.margin.side), OUTCOMES[cell.outcome],
        )
        for claim, form, cell in cells
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=CELLS)


def untabulated(rows: pd.DataFrame) -> list[Cell]:
    """The cells of a table of theirs."""
    return [
        Cell(
            row.metric, row.comparison, Margin(**{row.margin: row.at}), row.estimate, (row.low, row.high),
            (row.wide_low, row.wide_high), row.seeds, row.few,
        )
        for row in rows.itertuples()
    ]  # fmt: skip


def verdict(cells: Sequence[Cell], released: Sequence[Cell] = ()) -> str:
    """What follows from a claim's cells, by the rules at the head of data/claims.yaml; from none `UNKNOWN`."""
    holds = _decided(cells)
    return ONLY_RELEASED if holds is False and _decided(released) else VERDICTS[holds]


def _decided(cells: Sequence[Cell]) -> bool | None:
    outcomes = [cell.outcome for cell in cells]
    return False if False in outcomes else True if outcomes and all(outcomes) else None


def _judged(seen: "Seen", tests: list[Test]) -> Judgement:
    cells, found = _found(seen, tests)
    also = as_released(seen.study, tests)
    if _decided(cells) or also == tests:
        return Judgement(verdict(cells), found, cells)
    released, found_released = _found(seen, also)
    if _decided(released):
        found = f"{found}. As released: {found_released}"
    return Judgement(verdict(cells, released), found, cells, released)


def _found(seen: "Seen", tests: list[Test]) -> tuple[list[Cell], str]:
    """The cells, and what was found; no cell where one cannot be made."""
    compared, made = comparisons(seen, tests), measured(seen, tests)
    if missing := [way for way, cell in zip(compared, made, strict=True) if cell is None]:
        return [], _missing(seen.study, missing)
    cells = [cell for cell in made if cell is not None]
    texts = []
    for test in tests:
        texts.append(_text(test, [cell for cell in cells if cell.margin is test]))
        if TNR_PAPER in test.metrics:
            texts.append(f"with TCP's at z = 0, {_worst_text(test.at_zero, _found(seen, [test.at_zero])[0])}")
    if 1 in [cell.seeds for cell in cells]:
        texts.append(ONE_TRAINING)
    return cells, "; ".join(texts)


ONE_TRAINING = "one training, images only"


def measured(seen: "Seen", tests: list[Test]) -> list[Cell | None]:
    """The cell of each of the `comparisons`; None for one where something that it takes is not there."""
    compared = comparisons(seen, tests)
    wide = 1 - (1 - LEVEL) / len(compared)
    return [_cell(seen, *way, wide) for way in compared]


def comparisons(seen: "Seen", tests: list[Test]) -> list[tuple[Test, str, tuple]]:
    """All that a claim's tests ask for: the test, the comparison's name, and its two sides (`_ways`)."""
    return [(test, name, way) for test in tests for name, way in _ways(seen, test)]


def _cell(seen: "Seen", test: Test, name: str, way: tuple, wide: float) -> Cell | None:
    if (found := seen.difference(test, *way)) is None:
        return None
    estimate, samples = found
    counts = [seen.counts(*of) for of in way if of]
    mean, difference = float(estimate.mean()), bool(test.minus or test.minus_pairs)
    bounded = len(test.metrics) == 1 and test.metric not in metrics.SEPARABILITY
    ends = (-1.0 if difference else 0.0, 1.0) if bounded else (-np.inf, np.inf)

    def interval(level: float) -> tuple[float, float]:
        low, high = np.clip(resampling.crossed(estimate, samples, level)[1:3], *ends)
        if test.metric in RATES and not difference and mean in (0, 1):  # no resample has another rate
            n = counts[0][RATES[test.metric]]
            exact = statistics.clopper_pearson(round(mean * n), n, level)
            low, high = min(low, exact[0]), max(high, exact[1])
        return float(low), float(high)

    few = min(map(min, counts)) < resampling.FEWEST
    return Cell(test.metric, name, test, mean, interval(LEVEL), interval(wide), len(estimate), few)


RATES = {"tpr": 0, "tnr": 1, TNR_PAPER: 1}  # of the right or of the wrong predictions


def _worst(cells: Sequence[Cell]) -> Cell:
    """The cell that speaks most against the claim, of those that decide anything."""
    against = {"above": lambda c: c.estimate, "below": lambda c: -c.estimate, "within": lambda c: -abs(c.estimate)}
    deciding = [cell for cell in cells if not cell.few] or cells
    return min(deciding, key=lambda cell: np.nan_to_num(against[cell.margin.side](cell), nan=np.inf))


def _worst_text(test: Test, cells: Sequence[Cell]) -> str:
    worst = _worst(cells)
    scale = 1 if set(test.metrics) <= set(metrics.SEPARABILITY) else 100
    sign = "+" if test.minus or test.minus_pairs else ""
    found = "{:{sign}.2f} [{:{sign}.2f}, {:{sign}.2f}]".format(
        *(scale * x for x in (worst.estimate, *worst.interval)), sign=sign
    )
    text = f"{LABELS.get(test.metric, test.metric)} {found}"
    return text if len(cells) == 1 else f"{text} at worst ({worst.name})"


def _text(test: Test, cells: Sequence[Cell]) -> str:
    """The cell that speaks most against the claim, and how the others went."""
    text, few = _worst_text(test, cells), sum(cell.few for cell in cells)
    if len(cells) > 1:
        text += f"; {_counts(cells)}"
    if few:
        text += f"; fewer than {resampling.FEWEST} right or wrong predictions, which decide nothing, in {few}"
    return text


def _counts(cells: Sequence[Cell]) -> str:
    outcomes = [cell.outcome for cell in cells]
    return f"beyond the margin in {outcomes.count(True)} of {len(outcomes)}, excluded in {outcomes.count(False)}"


LABELS = {
    "auroc": "AUC", "fpr95": "FPR-95%-TPR", "aupr_success": "AUPR-Success", "aupr_error": "AUPR-Error", "tpr": "TPR",
    "tnr": "TNR", TNR_PAPER: "TNR", "aurc": "AURC", "kl": "KL", "bhattacharyya": "Bhattacharyya",
    "tpr + tnr": "TPR + TNR",
}  # fmt: skip


def _ways(seen: "Seen", test: Test) -> list[tuple[str, tuple]]:
    """(name, ((pair, arm, part), what it is compared with, the same three, or None)) of every cell."""
    ways, study = [], seen.study
    parts = {domains.parse(name).label: f"domains/{name}" for name in test.domains} or {"": "test"}
    pairs, minus_pairs = _by_strength(seen, test.pairs), _by_strength(seen, test.minus_pairs)
    for (where, part), pair, arm in product(parts.items(), pairs or study.pairs, test.arms):
        others = [(pair, other, part) for other in test.minus] + [(other, arm, part) for other in minus_pairs]
        for other in others or [None]:
            name = f"{where}: " if where else ""
            name += f"{_pair_label(study, pair)} {_label(study, arm)}"
            if other:
                name += f" − {_label(study, other[1])}" if other[0] == pair else f" − {_pair_label(study, other[0])}"
            ways.append((name, ((pair, arm, part), other)))
    return ways


def _by_strength(seen: "Seen", pairs: list[str]) -> list[str]:
    """Pairs with networks in place of `STRENGTHS`, by accuracy on the test part; as they are where it is not known."""
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
    absent = dict.fromkeys(_absent(study, test.tuned, *of) for test, _, way in ways for of in way if of)
    if lacking := list(filter(None, absent)):
        return f"{NOT_PLANNED} {' and no '.join(lacking)}"
    return f"{NOT_RUN}: {ways[0][1]}" + (f" and {len(ways) - 1} more" if len(ways) > 1 else "")


def _absent(study: Study, tuned: bool, pair: str, arm: str, part: str) -> str:
    """What of one side of a comparison is not part of the study, or nothing."""
    if set(pair.split("-")) <= set(STRENGTHS):
        return "" if len(study.classifiers) > 1 else "second network"
    if pair not in study.all_pairs:
        return f"{_pair_label(study, pair)} pair"
    if (base := _base(arm)) != "mcp" and base not in study.all_arms:
        return f"{_label(study, base)} arm"
    if part not in ("test", *study.domains.parts.values()):
        return f"domain {domains.parse(part.removeprefix('domains/')).label!r}"
    return "audit" if tuned and not study.audit.controls else ""


NAMES = tables.PAPER_NAMES | {  # of networks and arms that a study has not
    "strong": "stronger", "weak": "weaker", "cb": "Class-balanced", "ce-weighted": "weighted CE",
    "ss-linear": "SS, linear", "ss-released": "SS from TCP, as released",
    "ss-continued": "SS from TCP, last layer kept",
    **{f"ss-1-{slope}": f"SS 1, {slope}" for slope in (1, 2, 4, 6)},
}  # fmt: skip


def _pair_label(study: Study, pair: str) -> str:
    networks = study.all_networks
    return "⟨{}, {}⟩".format(*(networks[n].label if n in networks else NAMES.get(n, n) for n in pair.split("-")))


SUFFIXES = {"": "", "+mcp": " with MCP", "-moved": ", threshold moved", "-matched": " at SS's TPR"}  # of an arm's name


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
    """The metrics of any arm and their resamples, looked up once: those of a study's trainings."""

    def __init__(self, study: Study):
        self.study, self._boots, self._distances = study, {}, {}

    @property
    def grey(self) -> bool:
        """Whether the images have one channel."""
        return self.study.images().channels == 1

    def has(self, pair: str, part: str = "test") -> bool:
        """As `evaluation.has_classifier`."""
        return evaluation.has_classifier(self.study, pair, part)

    def correct(self, pair: str, part: str = "test") -> NDArray[np.bool_]:
        """As `evaluation.correct`."""
        return evaluation.correct(self.study, pair, part)

    def outputs(self, pair: str, arm: str, part: str = "test") -> NDArray | None:
        """The ``z`` of an arm's oracles, float (S, N); None where one of the study's seeds is not there."""
        found = evaluation.outputs(self.study, pair, arm, self.study.seeds, part)
        return np.stack(list(found.values())) if len(found) == len(self.study.seeds) else None

    def counts(self, pair: str, arm: str, part: str) -> tuple[int, int]:
        """How many predictions of the pair's classifier are right, and wrong."""
        right = self.correct(pair, part)
        return int(right.sum()), int((~right).sum())

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
        paper = TNR_PAPER in test.metrics and arm in self.study.arms and self.study.arms[arm].loss == "tcp"
        key = (pair, arm, part, test.tuned, paper)
        if key not in self._boots:
            self._boots[key] = self._boot(*key)
        if (boot := self._boots[key]) is None:
            return None
        columns = [metrics.METRICS.index(name) for name in test.at_zero.metrics]
        (estimate,), (samples,) = boot.estimate.values(), boot.samples.values()
        return estimate[:, columns].sum(-1), samples[:, :, columns].sum(-1)

    def _boot(self, pair: str, arm: str, part: str, tuned: bool, paper: bool) -> resampling.Bootstrap | None:
        if arm == "mcp":
            return self.of_mcp(pair, part)
        if tuned or arm != _base(arm):
            return self.of_audit(pair, arm, tuned) if part == "test" else None
        return self.of_arm(pair, arm, part, paper)

    def of_mcp(self, pair: str, part: str) -> resampling.Bootstrap:
        """Resampled metrics of the classifier's MCP."""
        name = self.study.pair(pair)[1]
        score, folder = evaluation.own_scores(self.study, name, part)["mcp"], _folder(part)
        return evaluation.resampled(self.study, f"{folder}{name}/mcp", score, self.correct(pair, part), 0.5)

    def of_arm(self, pair: str, arm: str, part: str, paper: bool) -> resampling.Bootstrap | None:
        """Resampled metrics of an arm at the study's one rate; paper: its TNR as the paper counts TCP's."""
        study = self.study
        if arm not in (study.all_arms if part == "test" else study.arms):
            return None
        z, right = self.outputs(pair, arm, part), self.correct(pair, part)
        if z is None:
            return None
        if paper:
            tnr_at = evaluation.negative_tcp(len(study.images().classes))
            name = f"{_folder(part)}{pair}/{TNR_PAPER}/{arm}"
            return evaluation.resampled(study, name, z, right, tnr_threshold=tnr_at)
        return evaluation.resampled(study, f"{_folder(part)}{pair}/{arm}", z, right)

    def of_audit(self, pair: str, arm: str, tuned: bool) -> resampling.Bootstrap | None:
        """Resampled metrics of an arm at its own best rate, or of a score made of it there; the test part's."""
        study, right = self.study, self.correct(pair)
        if arm.endswith("-matched"):
            score = audit.matched(study, pair, arm.removesuffix("-matched"), "ss")
            return None if score is None else evaluation.resampled(study, f"{pair}/tuned/{arm}", score, right)
        base = _base(arm)
        if base not in study.all_arms:
            return None
        if arm.endswith("+mcp"):
            score = audit.with_mcp(study, pair, base)
            return None if score is None else evaluation.resampled(study, f"{pair}/tuned/{arm}", score, right)
        moved = audit.moved_threshold(study, study.pair(pair)[0]) if arm.endswith("-moved") else 0.0
        return audit.resampled(study, pair, base, moved)

    def _separability(self, pair: str) -> dict:
        if pair not in self._distances:
            z = {arm: self.outputs(pair, arm) for arm in self.study.arms}
            confidences = {arm: expit(rows.astype(float)) for arm, rows in z.items() if rows is not None}
            right = self.correct(pair)
            self._distances[pair] = (
                resampling.separability(confidences, right, resamples=evaluation.RESAMPLES) if confidences else {}
            )
        return self._distances[pair]


def _folder(part: str) -> str:
    """Of a part's resampled metrics."""
    return "" if part == "test" else f"{part}/"


# --- Facts: what follows from the published figures, from arithmetic, or from a distance without seeds ---


def _published_aupr_error(seen: Seen) -> Judgement:
    excludes = published.aupr_error_bounds()["excludes"]
    negated, tied = excludes.str.startswith("negated").sum(), (excludes == "negated, whatever the ties").sum()
    other = len(excludes) - (excludes == "not negated").sum()
    return Judgement(
        REFUTED if negated else UNKNOWN,
        f"{negated} of {len(excludes)} rows cannot, {tied} of them whatever the ties: the column is not the average "
        f"precision of errors ranked by the negated confidence; {other} rows are compatible with the confidence not "
        "negated, as in the released code, where lower is better: the natural reading, which the figures do not prove",
    )


def _published_collapse(seen: Seen) -> Judgement:
    table = published.table("table1")
    baselines = table[table.index.get_level_values("loss") != "ss"]
    so = (baselines["tpr"] > 0.99) & (baselines["tnr"] < 0.01)
    return Judgement(
        HOLDS if so.all() else REFUTED,
        f"in {so.sum()} of {len(baselines)} rows of the published table; not in "
        + ", ".join(f"{tables.paper_pair(pair)} {tables.PAPER_NAMES[loss]}" for pair, loss in so.index[~so]),
    )


def _normality(seen: Seen) -> Judgement:
    """The distance of a distribution from the normal fitted to it, with its interval by the DKW inequality."""
    study, found = seen.study, []
    for pair, (arm, settings) in product(study.pairs, study.arms.items()):
        if settings.loss not in FIGURE_3 or settings.form != "corrected" or not seen.has(pair):
            continue
        right, z = seen.correct(pair), seen.outputs(pair, arm)
        for group, name in ((right, "right"), (~right, "wrong")) if z is not None else ():
            values = np.sort(expit(z[0, group].astype(float)))  # of the first seed
            ranks = np.arange(len(values) + 1) / len(values)
            fitted = norm.cdf(values, values.mean(), values.std(ddof=1))
            distance = max(np.abs(fitted - ranks[1:]).max(), np.abs(fitted - ranks[:-1]).max())
            found.append((f"{study.pair_label(pair)} {study.arm_label(arm)}, {name}", distance, len(values)))
    if not found:
        return Judgement(UNKNOWN, NOT_RUN)
    cells, margin = [], Margin(below=0.05)
    for name, distance, n in found:
        errors = [np.sqrt(np.log(2 / alpha) / (2 * n)) for alpha in (1 - LEVEL, (1 - LEVEL) / len(found))]
        inner, outer = ((distance - error, distance + error) for error in errors)
        cells.append(Cell("distance from the normal", name, margin, distance, inner, outer))
    worst = _worst(cells)
    low, high = worst.interval
    text = f"{100 * worst.estimate:.1f} [{100 * low:.1f}, {100 * high:.1f}] points at worst ({worst.name} predictions)"
    return Judgement(verdict(cells), f"{text}; {_counts(cells)}", cells)


FIGURE_3 = ("ce", "focal", "tcp", "ss")  # the losses whose histograms it shows


def _iid(seen: Seen) -> Judgement:
    """A classifier whose error is within the margin decides nothing: its gap could not be beyond it."""
    study, cells, texts = seen.study, [], []
    for name in study.classifiers:
        if evaluation.has_classifier(study, next(p for p in study.pairs if p.endswith(f"-{name}"))):
            rates, label = audit.label_shift(study, name), study.network(name).label
            train, test = rates.loc["train"], rates.loc["test"]
            ends, few = (train.low - test.high, train.high - test.low), bool(1 - test.rate < SHIFT)
            cells.append(
                Cell("accuracy, train − test", label, Margin(within=SHIFT), train.rate - test.rate, ends, ends, few=few)
            )
            gap, low, high = (100 * value for value in (cells[-1].estimate, *ends))
            text = f"{label} {gap:+.2f} [{low:+.2f}, {high:+.2f}]"
            texts.append(f"{text}, of an error of {100 * (1 - test.rate):.2f} that decides nothing" if few else text)
    if not cells:
        return Judgement(UNKNOWN, NOT_RUN)
    return Judgement(verdict(cells), "; ".join(texts), cells)


SHIFT = 0.01  # of the accuracy, up to which labels are called alike


def _tails(seen: Seen) -> Judgement:
    """The tails of z (`audit.tails`) under the signed distance less those under the linear head, paired by seed."""
    study = seen.study
    control = study.audit.controls.get("head")
    if control is None or not {"ss", "ss-linear"} <= set(control.arms):
        return Judgement(UNKNOWN, f"{NOT_PLANNED} control of the head")
    cells = []
    for pair in control.pairs:
        found = audit.tails(study, pair, ["ss", "ss-linear"])
        if len(found) < 2 * len(study.audit.seeds):
            return Judgement(UNKNOWN, f"{NOT_RUN}: {study.pair_label(pair)}")
        by_seed = found.pivot(index="seed", columns="arm", values="tails")
        longer = (by_seed["ss"] - by_seed["ss-linear"]).to_numpy()
        levels = LEVEL, 1 - (1 - LEVEL) / len(control.pairs)
        inner, outer = (resampling.crossed(longer, longer[None], level)[1:3] for level in levels)
        name, margin = study.pair_label(pair), Margin(above=0.0)
        cells.append(Cell("tails, SS − SS, linear", name, margin, longer.mean(), inner, outer, len(longer)))
    worst = _worst(cells)
    text = "longer by {:+.2f} [{:+.2f}, {:+.2f}] interquartile ranges".format(worst.estimate, *worst.interval)
    return Judgement(verdict(cells), f"{text} ({worst.name})", cells)


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
        manifest = arm and runs.read_manifest(runs.oracle_path(study, pair, arm, study.seeds[0]))
        if manifest:
            slopes, images = network.steep_slope, study.recipe(arm).images or len(study.images().labels["train"])
            sizes[f"{network.label}, this study's {study.arm_label(arm)}"] = (
                manifest["parameters"], slopes.alpha_pos, slopes.alpha_neg, images,
            )  # fmt: skip
    rows = {}
    for name, (parameters, pos, neg, images) in sizes.items():
        largest = max(np.exp(a) - np.exp(-a) for a in (pos, neg))
        bound = statistics.hoeffding_bound(largest, BITS * parameters * np.log(2), images, delta)
        rows[name] = {"parameters": parameters, "images": images, "largest": largest, "bound": bound}
    return pd.DataFrame(rows).T


def _bound(seen: Seen) -> Judgement:
    row = bounds(seen.study).loc["ViT, the paper's"]
    holds = row["bound"] < row["largest"]
    return Judgement(
        HOLDS if holds else REFUTED,
        f"the bound is {row['bound']:.0f}, the largest value of the loss {row['largest']:.2f}",
    )


def _tcp_capped(seen: Seen) -> Judgement:
    return Judgement(
        ONLY_PRINTED,
        "Eq. 6 as printed, (z − p)² of any real z, is unbounded; with the sigmoid of the released code it is at most "
        "1, since σ(z) and p lie in [0, 1], and Hoeffding's inequality applies to it as well",
    )


FALL = 0.10  # of the accuracy, to be called much lower


def _domain_accuracy(seen: Seen) -> Judgement:
    """Whether every classifier's accuracy falls by more than `FALL` on every domain: the same images, clean and not.

    What stands beside a domain as its control is none: ImageNet's normalisation, alone or with the attack.
    """
    study, tasks, cells = seen.study, [], []
    for name, part in study.domains.parts.items():
        domain = domains.parse(name)
        attack = domain.kind == domains.RECOLOR
        if domain.kind != domains.NORMALISED and not (attack and (seen.grey or domain.what)):
            tasks += [(domain.label, part, classifier) for classifier in study.classifiers]
    if not tasks:
        return Judgement(UNKNOWN, f"{NOT_PLANNED} unseen domain")
    for label, part, name in tasks:
        pair = next(pair for pair in study.pairs if pair.endswith(f"-{name}"))
        if not seen.has(pair, part):
            return Judgement(UNKNOWN, f"{NOT_RUN}: {label}")
        right = seen.correct(pair, part)
        fall = seen.correct(pair)[: len(right)].astype(float) - right
        error = fall.std(ddof=1) / np.sqrt(len(fall))
        levels = LEVEL, 1 - (1 - LEVEL) / len(tasks)
        halves = [error * norm.isf((1 - level) / 2) for level in levels]
        inner, outer = ((fall.mean() - half, fall.mean() + half) for half in halves)
        cells.append(
            Cell(
                "accuracy lost", f"{label}, {study.network(name).label}", Margin(above=FALL), fall.mean(), inner, outer
            )
        )
    worst = _worst(cells)
    text = "lower by {:.2f} [{:.2f}, {:.2f}]".format(*(100 * value for value in (worst.estimate, *worst.interval)))
    text += f" points at worst ({worst.name})"
    return Judgement(verdict(cells), f"{text}; {_counts(cells)}", cells)


FACTS: dict[str, Callable[[Seen], Judgement]] = {
    "published_aupr_error": _published_aupr_error,
    "published_collapse": _published_collapse,
    "normality": _normality,
    "iid": _iid,
    "tails": _tails,
    "bound": _bound,
    "tcp_capped": _tcp_capped,
    "domain_accuracy": _domain_accuracy,
}
FROM_SCORES = ("normality", "domain_accuracy")  # facts that follow from the scores of the test part and of domains
