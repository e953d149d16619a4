"""What a study's results say to the tests of a claim: every comparison as a `rules.Cell`.

`Evidence` looks up metrics and their resamples, each once; `measured` makes the cells.
"""

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from .. import data, metrics
from ..predictions import Predictions
from ..shifts import names
from ..stats import resampling, separation
from ..stats.combination import with_mcp
from ..stats.rates import clopper_pearson
from ..study import Study
from . import ablations, budget, compare, rules
from .paper import PAPER_NAMES


def measured(evidence: "Evidence", tests: list[rules.Test], any_budget: bool = False) -> list[rules.Cell | None]:
    """The cell of each of the `comparisons`; None for one where something that it takes is not there."""
    compared = comparisons(evidence, tests)
    values = [_mean_difference(evidence, test, ways) for test, _, ways in compared]
    single: dict[tuple[str, bool], dict] = {}  # metric, and whether tuned -> its distinct comparisons
    for (test, _, ways), value in zip(compared, values, strict=True):
        if value is not None and len(ways) == 1:
            single.setdefault((test.metric, test.tuned), {})[ways[0]] = value[0]
    pooled = {key: resampling.pooled_variance(found.values()) for key, found in single.items()}
    return [
        None
        if value is None
        else _cell(evidence, test, name, ways, value, pooled.get((test.metric, test.tuned)), any_budget)
        for (test, name, ways), value in zip(compared, values, strict=True)
    ]


def comparisons(evidence: "Evidence", tests: list[rules.Test]) -> list[tuple[rules.Test, str, tuple]]:
    """All that a claim's tests compare: the test, the comparison's name, and its sides (`_ways`).

    One comparison has one pair of sides; the mean of several, which follows on them, has theirs.
    """
    found: list[tuple[rules.Test, str, tuple]] = []
    for test in tests:
        ways = _ways(evidence, test)
        found += [(test, name, (way,)) for name, way in ways]
        if len(ways) > 1:
            found.append((test, f"mean of {len(ways)}", tuple(way for _, way in ways)))
    return found


def _mean_difference(evidence: "Evidence", test: rules.Test, ways: tuple) -> tuple[NDArray, NDArray] | None:
    """(estimate (S,), samples (R, S)), the mean over some comparisons; None where one cannot be made."""
    values = [evidence.difference(test, *way) for way in ways]
    if any(value is None for value in values):
        return None
    estimates, samples = zip(*values, strict=True)
    return np.mean(estimates, axis=0), np.mean(samples, axis=0)


def _cell(
    evidence: "Evidence", test: rules.Test, name: str, ways: tuple, value: tuple, pooled: tuple | None, any_budget: bool
) -> rules.Cell:
    """The mean over seeds with its interval, cut where the metric ends."""
    estimate, samples = value
    several = len(ways) > 1  # cells that share trainings: their mean has the variance that it shows between seeds
    counts = [evidence.counts(*of) for way in ways for of in way if of]
    mean = float(estimate.mean())
    low, high = resampling.crossed(estimate, samples, rules.LEVEL, None if several else pooled)[1:3]
    if len(test.metrics) == 1 and test.metric not in (*metrics.SEPARABILITY, rules.COST):
        low, high = np.clip([low, high], -1.0 if test.is_difference else 0.0, 1.0)
    if test.metric in RATES and not test.is_difference and mean in (0, 1):  # no resample has another rate
        n = counts[0][RATES[test.metric]]
        exact = clopper_pearson(round(mean * n), n, rules.LEVEL)
        low, high = min(low, exact[0]), max(high, exact[1])
    caveat = rules.MEAN if several else _caveat(evidence, ways[0], counts, len(estimate), any_budget)
    freedom = len(estimate) - 1 if several or pooled is None else pooled[1]
    interval = (float(low), float(high))
    return rules.Cell(test.metric, name, test, mean, interval, len(estimate), freedom, caveat)


def _caveat(evidence: "Evidence", way: tuple, counts: list[tuple[int, int]], seeds: int, any_budget: bool) -> str:
    """Why a comparison decides nothing, or nothing."""
    sides = [of for of in way if of]
    if not any_budget and any(evidence.is_untrained(pair, arm) for pair, arm, _ in sides):
        return rules.NOT_TRAINED
    pair, _, part = sides[0]
    if part != "test" and evidence.fall(pair, part) < rules.FALL:
        return rules.NO_SHIFT
    if seeds == 1:
        return rules.ONE_TRAINING
    return rules.FEW if min(map(min, counts)) < resampling.FEWEST else ""


RATES = {"tpr": 0, "tnr": 1, rules.TNR_PAPER: 1}  # of the correct or of the incorrect predictions


def _ways(evidence: "Evidence", test: rules.Test) -> list[tuple[str, tuple]]:
    """(name, ((pair, arm, part), what it is compared with, the same three, or None)) of every cell."""
    ways, study = [], evidence.study
    parts = {names.parse(name).label: f"domains/{name}" for name in test.domains} or {"": "test"}
    pairs, minus_pairs = _by_strength(evidence, test.pairs), _by_strength(evidence, test.minus_pairs)
    for (where, part), pair, arm in product(parts.items(), pairs or study.pairs, test.methods):
        if test.tuned:
            arm = evidence.own_budget(pair, arm)
        minus = [evidence.own_budget(pair, other) for other in test.minus] if test.tuned else test.minus
        others = [(pair, other, part) for other in minus] + [(other, arm, part) for other in minus_pairs]
        for other in others or [None]:
            name = f"{where}: " if where else ""
            name += f"{_pair_label(study, pair)} {label_of(study, arm)}"
            if other:
                name += f" − {label_of(study, other[1])}" if other[0] == pair else f" − {_pair_label(study, other[0])}"
            ways.append((name, ((pair, arm, part), other)))
    return ways


def _by_strength(evidence: "Evidence", pairs: list[str]) -> list[str]:
    """Pairs with networks in place of `STRENGTHS`, by accuracy on the test set; as they are where it is not known."""
    if not any(name in rules.STRENGTHS for pair in pairs for name in pair.split("-")):
        return pairs
    judged = {pair.split("-")[1]: pair for pair in evidence.study.pairs}
    if len(judged) < 2 or not all(evidence.has(pair) for pair in judged.values()):
        return pairs
    accuracy = {name: evidence.correct(pair).mean() for name, pair in judged.items()}
    weak, *_, strong = sorted(accuracy, key=accuracy.__getitem__)
    named = dict(zip(rules.STRENGTHS, (strong, weak), strict=True))
    return ["-".join(named.get(name, name) for name in pair.split("-")) for pair in pairs]


def missing(study: Study, ways: list[tuple[rules.Test, str, tuple]]) -> str:
    """Why comparisons could not be made: what the study has not, or what of it has not run."""
    single = [(test, name, sides[0]) for test, name, sides in ways if len(sides) == 1]
    absent = dict.fromkeys(_absent(study, test.tuned, *of) for test, _, way in single for of in way if of)
    if lacking := list(filter(None, absent)):
        return f"{rules.NOT_PLANNED} {' and no '.join(lacking)}"
    return f"{rules.NOT_RUN}: {rules.and_more([name for _, name, _ in single])}"


def _absent(study: Study, tuned: bool, pair: str, arm: str, part: str) -> str:
    """What of one side of a comparison is not part of the study, or nothing."""
    if set(pair.split("-")) <= set(rules.STRENGTHS):
        return "" if len(study.classifiers) > 1 else "second network"
    if pair not in study.all_pairs:
        return f"{_pair_label(study, pair)} pair"
    if (base := _base(arm)) != "mcp" and base not in study.all_methods:
        return f"method {label_of(study, base)!r}"
    if part not in ("test", *study.domains.parts.values()):
        return f"domain {names.parse(part.removeprefix('domains/')).label!r}"
    return "tuned learning rates" if tuned and not study.ablations.questions else ""


NAMES = PAPER_NAMES | {  # of networks and methods that a study has not
    "strong": "stronger", "weak": "weaker", "ce-weighted": "weighted CE",
    "ss-linear": "SS, linear", "ss-released": "SS from TCP, as released",
    "ss-continued": "SS from TCP, last layer kept",
    **{f"ss-1-{slope}": f"SS 1, {slope}" for slope in (1, 2, 4, 6)},
}  # fmt: skip


def _pair_label(study: Study, pair: str) -> str:
    networks = study.all_networks
    return "⟨{}, {}⟩".format(*(networks[n].label if n in networks else NAMES.get(n, n) for n in pair.split("-")))


SUFFIXES = {"": "", "+mcp": " with MCP", "-matched": " at SS's TPR"}  # of a method's name


def _base(arm: str) -> str:
    """The arm that a score rests on."""
    for suffix in SUFFIXES:
        arm = arm.removesuffix(suffix)
    return arm


def label_of(study: Study, arm: str) -> str:
    base = _base(arm)
    label = study.method_label(base) if base == "mcp" or base in study.all_methods else NAMES.get(base, base)
    return label + SUFFIXES[arm.removeprefix(base)]


class Evidence:
    """Metrics of any method and their resamples, each looked up once, from the results of a study.

    results : `runs.results.Run` or `.Published`.
    """

    def __init__(self, results: Any):
        self.results, self.study = results, results.study
        self._boots: dict[tuple, resampling.Bootstrap | None] = {}
        self._all: dict[tuple[str, str], resampling.Bootstrap] = {}
        self._distances: dict[str, dict] = {}
        self._states: dict[tuple[str, str], str] = {}

    @property
    def grey(self) -> bool:
        """Whether the images have one channel."""
        return self.results.channels == 1

    def has(self, pair: str, split: str = "test") -> bool:
        """Whether there are predictions of the pair's classifier."""
        return self.results.predictions(pair, split) is not None

    def correct(self, pair: str, split: str = "test") -> NDArray[np.bool_]:
        """Whether each prediction of the pair's classifier is correct, bool (N,)."""
        return self.results.predictions(pair, split).correct

    def outputs(self, pair: str, arm: str, split: str = "test", tuned: bool = False) -> NDArray | None:
        """The ``z`` of a method's oracles, float (S, N), or MCP, (1, N); None where one of the seeds is not there."""
        predictions, study = self.results.predictions(pair, split), self.study
        if predictions is None:
            return None
        if arm == "mcp":
            return predictions.confidence["mcp"]
        if arm not in study.all_methods:
            return None
        if tuned or (arm in study.ablations.methods and not study.ablations.rates):
            return self.results.tuned_outputs(pair, arm, split) if split in data.PARTS else None
        z = predictions.confidence.get(arm) if arm in study.methods else None
        return z if z is not None and len(z) == len(study.seeds) else None

    def is_untrained(self, pair: str, arm: str) -> bool:
        """Whether `budget.state` calls the oracles of a method not trained; never of MCP or of a released form."""
        base = _base(arm)
        if base == "mcp" or self.study.method(base).form == "released":
            return False
        if (pair, base) not in self._states:
            self._states[pair, base] = budget.state(self.results, pair, base)
        return self._states[pair, base] == rules.NOT_TRAINED

    def own_budget(self, pair: str, arm: str) -> str:
        """A method with the training budget that is best for it, see `budget.best`."""
        base = _base(arm)
        return arm if base == "mcp" else budget.best(self.results, pair, base) + arm.removeprefix(base)

    def counts(self, pair: str, arm: str, split: str) -> tuple[int, int]:
        """How many predictions of the pair's classifier are correct, and incorrect."""
        correct = self.correct(pair, split)
        return int(correct.sum()), int((~correct).sum())

    def fall(self, pair: str, split: str) -> float:
        """The accuracy of the pair's classifier on the same images of the test set minus that on the split."""
        shifted = self.correct(pair, split)
        return float(self.correct(pair)[: len(shifted)].mean() - shifted.mean())

    def difference(self, test: rules.Test, of: tuple, other: tuple | None) -> tuple[NDArray, NDArray] | None:
        """(estimate (S,), samples (R, S)) of one cell; None where something that it takes is not there."""
        first = self._values(test, *of)
        if other is None or first is None:
            return first
        second = self._values(test, *other)
        return None if second is None else (first[0] - second[0], first[1] - second[1])

    def _values(self, test: rules.Test, pair: str, arm: str, split: str) -> tuple[NDArray, NDArray] | None:
        planned = pair in self.study.all_pairs and split in ("test", *self.study.domains.parts.values())
        if not planned or not self.has(pair, split):
            return None
        if set(test.metrics) <= set(metrics.SEPARABILITY):
            distances = self._separability(pair).get(arm)
            return distances and (distances[0][test.metric], distances[1][test.metric])
        return self.values(test.metrics, pair, arm, split, test.tuned)

    def values(
        self, names: list[str], pair: str, arm: str, split: str = "test", tuned: bool = False
    ) -> tuple[NDArray, NDArray] | None:
        """(estimate (S,), samples (R, S)) of a sum of metrics; None where the oracles are not there."""
        kind = next((name for name in names if name in (rules.COST, rules.NOT_NEGATED)), "")
        if rules.TNR_PAPER in names and compare.counts_at_chance(self.study, arm):
            kind = rules.TNR_PAPER
        key = (pair, arm, split, tuned, kind)
        if key not in self._boots:
            self._boots[key] = self._boot(*key)
        if (boot := self._boots[key]) is None:
            return None
        estimate, samples = boot.estimate[arm], boot.samples[arm]
        if kind == rules.COST:
            return self._cost(pair, estimate), self._cost(pair, samples)
        same = {rules.TNR_PAPER: "tnr", rules.NOT_NEGATED: "aupr_error"}
        columns = [metrics.METRICS.index(same.get(name, name)) for name in names]
        return estimate[..., columns].sum(-1), samples[..., columns].sum(-1)

    def _cost(self, pair: str, values: NDArray) -> NDArray:
        """alpha+ FN/N + alpha- FP/N of metrics (..., len(METRICS))."""
        slopes = self.study.network(self.study.pair(pair)[0]).steep_slope
        accuracy, tpr, tnr = (values[..., metrics.METRICS.index(name)] for name in ("accuracy", "tpr", "tnr"))
        return slopes.alpha_pos * accuracy * (1 - tpr) + slopes.alpha_neg * (1 - accuracy) * (1 - tnr)

    def _boot(self, pair: str, arm: str, split: str, tuned: bool, kind: str) -> resampling.Bootstrap | None:
        """Resampled metrics of a score: a method's, MCP, or one made of them on validation images."""
        if not kind and not tuned and (arm == "mcp" or arm in self.study.methods):
            return None if self.outputs(pair, arm, split) is None else self._resampled(pair, split)
        score = self._score(pair, arm, split, tuned, kind)
        if score is None:
            return None
        threshold = 0.5 if arm == "mcp" and kind != rules.COST else 0.0
        tnr_threshold = compare.negative_tcp(self.results.classes) if kind == rules.TNR_PAPER else None
        predictions = Predictions(self.correct(pair, split), {arm: score}, {arm: threshold})
        return self.results.resample(predictions, tnr_threshold=tnr_threshold)

    def _resampled(self, pair: str, split: str) -> resampling.Bootstrap:
        """Resampled metrics of all confidences of a pair."""
        if (pair, split) not in self._all:
            self._all[pair, split] = self.results.resample(self.results.predictions(pair, split))
        return self._all[pair, split]

    def _score(self, pair: str, arm: str, split: str, tuned: bool, kind: str) -> NDArray | None:
        """The score (S, N) that `_boot` resamples."""
        base = _base(arm)
        score = self.outputs(pair, base, split, tuned)
        if score is None:
            return None
        if kind == rules.NOT_NEGATED:
            return -score
        if base == arm and kind != rules.COST:
            return score
        validation = self.outputs(pair, base, "heldout", tuned)
        if validation is None:
            return None
        correct = self.correct(pair, "heldout")
        if arm.endswith("-matched"):
            to = self.outputs(pair, "ss", "heldout", tuned)
            return None if to is None else ablations.matched(score, validation, to, correct)
        if arm.endswith("+mcp"):
            mcp = {of: self.outputs(pair, "mcp", of)[0] for of in ("heldout", "test")}
            return with_mcp({"heldout": validation, "test": score}, mcp, correct)
        slopes = self.study.network(self.study.pair(pair)[0]).steep_slope
        return ablations.cheapest(score, validation, correct, slopes)

    def _separability(self, pair: str) -> dict:
        if pair not in self._distances:
            z = {arm: self.outputs(pair, arm) for arm in self.study.methods}
            confidences = {arm: expit(rows.astype(float)) for arm, rows in z.items() if rows is not None}
            self._distances[pair] = (
                separation.separability(confidences, self.correct(pair), resamples=resampling.RESAMPLES)
                if confidences
                else {}
            )
        return self._distances[pair]
