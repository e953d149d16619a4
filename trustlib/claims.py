"""The verdict on every claim of data/claims.yaml, by its own rule and from this study's results.

The file says what is measured and where the margins are; its head says how a verdict follows. Nothing is judged by
hand: what has not been run cannot be judged.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.special import expit
from scipy.stats import norm

from . import audit, data, domains, evaluation, metrics, resampling, runs, statistics, tables
from .study import Strict, Study

HOLDS, FAILS, UNKNOWN = "holds", "does not hold here", "cannot be judged here"
ONLY_RELEASED, REFUTED = "holds only as released", "does not hold"  # the last: of arithmetic and of published figures
PATH = data.ROOT / "data" / "claims.yaml"
LEVEL = 0.95
NOT_RUN, OTHER_DATA = "not run", "asked of other data"
GREY = "these images have no colour: the attack can only bend their tone curve; results/colour judges it"
UNANSWERED = (NOT_RUN, OTHER_DATA, GREY)  # how the findings begin that say why nothing was measured


class Test(Strict):
    """A metric of some arms, or its difference from others, against a margin; see the head of data/claims.yaml."""

    metric: str
    arms: list[str]
    minus: list[str] = Field(default=[])
    pairs: list[str] = Field(default=[])
    minus_pairs: list[str] = Field(default=[])
    tuned: bool = False
    domains: list[str] = Field(default=[])
    above: float | None = None
    below: float | None = None
    within: float | None = None

    @model_validator(mode="after")
    def _one_margin(self):
        if sum(margin is not None for margin in (self.above, self.below, self.within)) != 1:
            raise ValueError(f"a test has one of above, below, within; found {self}")
        for name in self.metrics:
            if name not in (*metrics.METRICS, *metrics.SEPARABILITY):
                raise ValueError(f"unknown metric {name!r}")
        for name in self.domains:
            domains.parse(name)
        if self.domains and (self.tuned or set(self.metrics) & set(metrics.SEPARABILITY)):
            raise ValueError("on unseen domains a test is neither tuned nor of separability")
        return self

    @property
    def metrics(self) -> list[str]:
        """The metrics whose sum is tested."""
        return [name.strip() for name in self.metric.split("+")]


class Claim(Strict):
    """One claim, where it is made, and what decides it: tests, a fact, or the reason why nothing does."""

    id: str
    claim: str
    where: str
    quantity: str
    section: str  # of the report, the id of its heading
    added: str = ""  # when and why, if the rule is younger than the runs
    colour: bool = False  # whether images of one channel can say nothing of it
    datasets: list[str] = Field(default=[])  # the only ones that say something of it; all by default
    tests: list[Test] = Field(default=[])
    fact: str = ""
    unjudged: str = ""

    @model_validator(mode="after")
    def _one_way(self):
        if (bool(self.tests) + bool(self.fact) + bool(self.unjudged)) != 1 or (self.fact and self.fact not in FACTS):
            raise ValueError(f"claim {self.id}: has one of tests, fact (of {', '.join(FACTS)}) and unjudged")
        return self


@dataclass(frozen=True)
class Cell:
    """One comparison: the mean over seeds, its 95 % interval, and the wider one that a refutation needs."""

    name: str
    estimate: float
    interval: tuple[float, float]
    wide: tuple[float, float]


def load() -> list[Claim]:
    """The claims, checked.

    Raises
    ------
    pydantic.ValidationError : when an entry has an unknown key, metric or fact, or not one way to decide it.
    """
    return [Claim.model_validate(entry) for entry in yaml.safe_load(PATH.read_text())]


def judge(study: Study, entries: list[Claim] | None = None) -> pd.DataFrame:
    """Every claim, or some of them, with what was found and the verdict.

    Returns
    -------
    A row a claim: id, claim, where, quantity, found, verdict, section; last those that nothing was measured for.
    """
    seen, grey = _Seen(study), study.images().channels == 1
    rows, unanswered = [], []
    for claim in load() if entries is None else entries:
        if claim.unjudged:
            verdict, found = UNKNOWN, claim.unjudged
        elif claim.colour and grey:
            verdict, found = UNKNOWN, GREY
        elif claim.datasets and study.dataset not in claim.datasets:
            verdict, found = UNKNOWN, f"{OTHER_DATA}: {', '.join(f'results/{name}' for name in claim.datasets)}"
        elif claim.fact:
            verdict, found = FACTS[claim.fact](study)
        else:
            verdict, found = _verdict(seen, claim.tests)
        shown = claim.model_dump(include={"id", "claim", "where", "quantity"})
        if claim.added:
            shown["where"] += f"; added {claim.added}"
        (unanswered if claim.unjudged or found.startswith(UNANSWERED) else rows).append(
            shown | {"found": found, "verdict": verdict, "section": claim.section}
        )
    return pd.DataFrame(rows + unanswered)


def _verdict(seen: "_Seen", tests: list[Test]) -> tuple[str, str]:
    holds, found = _decide(seen, tests)
    released = [_as_released(seen.study, test) for test in tests]
    also, found_released = _decide(seen, released) if released != tests and not holds else (None, "")
    if holds:
        return HOLDS, found
    if also:
        return (ONLY_RELEASED if holds is False else UNKNOWN), f"{found}. As released: {found_released}"
    return (FAILS if holds is False else UNKNOWN), found


def _decide(seen: "_Seen", tests: list[Test]) -> tuple[bool | None, str]:
    """(True where all intervals lie beyond the margins, False where one excludes its own, else None; what was found)"""
    cells = [(test, name, seen.difference(test, *way)) for test in tests for name, way in _ways(seen.study, test)]
    if missing := [name for _, name, values in cells if values is None]:
        return None, f"{NOT_RUN}: {missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
    wide = 1 - (1 - LEVEL) / len(cells)
    verdicts, texts = [], []
    for test in tests:
        own = [_cell(test, name, *values, wide) for of, name, values in cells if of is test]
        outcomes = [_outcome(test, cell) for cell in own]
        verdicts += outcomes
        texts.append(_text(test, own, outcomes))
    decided = False if False in verdicts else True if all(verdicts) else None
    return decided, "; ".join(texts)


def _cell(test: Test, name: str, estimate: NDArray, samples: NDArray, wide: float) -> Cell:
    ends = (-1.0 if test.minus or test.minus_pairs else 0.0, 1.0)  # of a metric or a difference, but for what follows
    ends = ends if test.metric in metrics.METRICS else (-np.inf, np.inf)
    both = [np.clip(resampling.crossed(estimate, samples, level)[1:3], *ends) for level in (LEVEL, wide)]
    inner, outer = ((float(low), float(high)) for low, high in both)
    return Cell(name, estimate.mean(), inner, outer)


def _outcome(test: Test, cell: Cell) -> bool | None:
    (low, high), (wide_low, wide_high) = cell.interval, cell.wide
    if test.above is not None:
        return True if low > test.above else False if wide_high < test.above else None
    if test.below is not None:
        return True if high < test.below else False if wide_low > test.below else None
    if -test.within < low and high < test.within:
        return True
    return False if wide_low > test.within or wide_high < -test.within else None


def _text(test: Test, cells: list[Cell], outcomes: list[bool | None]) -> str:
    """The cell that speaks most against the claim, and how the others went."""
    against = {"above": lambda c: c.estimate, "below": lambda c: -c.estimate, "within": lambda c: -abs(c.estimate)}
    kind = next(name for name in against if getattr(test, name) is not None)
    worst = min(cells, key=lambda cell: np.nan_to_num(against[kind](cell), nan=np.inf))
    scale = 1 if set(test.metrics) <= set(metrics.SEPARABILITY) else 100
    sign = "+" if test.minus or test.minus_pairs else ""
    found = "{:{sign}.2f} [{:{sign}.2f}, {:{sign}.2f}]".format(
        *(scale * x for x in (worst.estimate, *worst.interval)), sign=sign
    )
    text = f"{LABELS.get(test.metric, test.metric)} {found}"
    if len(cells) == 1:
        return text
    held, excluded = outcomes.count(True), outcomes.count(False)
    return f"{text} at worst ({worst.name}); beyond the margin in {held} of {len(cells)}, excluded in {excluded}"


LABELS = {
    "auroc": "AUC", "fpr95": "FPR-95%-TPR", "aupr_success": "AUPR-Success", "aupr_error": "AUPR-Error", "tpr": "TPR",
    "tnr": "TNR", "aurc": "AURC", "kl": "KL", "bhattacharyya": "Bhattacharyya", "tpr + tnr": "TPR + TNR",
}  # fmt: skip


def _ways(study: Study, test: Test) -> list[tuple[str, tuple]]:
    """(name, ((pair, arm, part), what it is compared with, the same three, or None)) of every cell."""
    ways = []
    parts = {domains.parse(name).label: f"domains/{name}" for name in test.domains} or {"": "test"}
    for (where, part), pair, arm in product(parts.items(), test.pairs or study.pairs, test.arms):
        others = [(pair, other, part) for other in test.minus] + [(other, arm, part) for other in test.minus_pairs]
        for other in others or [None]:
            name = f"{where}: " if where else ""
            name += f"{_pair_label(study, pair)} {_label(study, arm)}"
            if other:
                name += f" − {_label(study, other[1])}" if other[0] == pair else f" − {_pair_label(study, other[0])}"
            ways.append((name, ((pair, arm, part), other)))
    return ways


def _pair_label(study: Study, pair: str) -> str:
    return study.pair_label(pair) if set(pair.split("-")) <= study.all_networks.keys() else pair


def _label(study: Study, arm: str) -> str:
    if arm.endswith("+mcp"):
        return f"{_label(study, arm.removesuffix('+mcp'))} with MCP"
    if arm.endswith("-matched"):
        return f"{_label(study, arm.removesuffix('-matched'))} at SS's TPR"
    if arm.endswith("-moved"):
        return f"{_label(study, arm.removesuffix('-moved'))}, threshold moved"
    return study.arm_label(arm) if arm == "mcp" or arm in study.all_arms else arm


def _as_released(study: Study, test: Test) -> Test:
    """The same test with the released form of every arm that has one."""
    forms = {(arm.loss, arm.form): name for name, arm in study.arms.items()}

    def released(names: list[str]) -> list[str]:
        return [forms.get((study.arms[n].loss, "released"), n) if n in study.arms else n for n in names]

    return test.model_copy(update={"arms": released(test.arms), "minus": released(test.minus)})


class _Seen:
    """The metrics of any arm and their resamples, looked up once."""

    def __init__(self, study: Study):
        self.study, self._boots, self._distances = study, {}, {}

    def difference(self, test: Test, of: tuple, other: tuple | None) -> tuple[NDArray, NDArray] | None:
        """(estimate (S,), samples (R, S)) of one cell; None where something that it takes has not been run."""
        own = self._values(test, *of)
        theirs: tuple[Any, Any] | None = self._values(test, *other) if other else (0.0, 0.0)
        return None if own is None or theirs is None else (own[0] - theirs[0], own[1] - theirs[1])

    def _values(self, test: Test, pair: str, arm: str, part: str) -> tuple[NDArray, NDArray] | None:
        planned = pair in self.study.all_pairs and part in ("test", *self.study.domains.parts.values())
        if not planned or not evaluation.has_classifier(self.study, pair, part):
            return None
        if set(test.metrics) <= set(metrics.SEPARABILITY):
            found = self._separability(pair).get(arm)
            return found and (found[0][test.metric], found[1][test.metric])
        key = (pair, arm, part, test.tuned)
        if key not in self._boots:
            self._boots[key] = self._boot(*key)
        if (boot := self._boots[key]) is None:
            return None
        (estimate,), (samples,) = boot.estimate.values(), boot.samples.values()
        columns = [metrics.METRICS.index(name) for name in test.metrics]
        return estimate[:, columns].sum(-1), samples[:, :, columns].sum(-1)

    def _boot(self, pair: str, arm: str, part: str, tuned: bool) -> resampling.Bootstrap | None:
        study, right = self.study, evaluation.correct(self.study, pair, part)
        oracle_name, classifier_name = study.pair(pair)
        folder = "" if part == "test" else f"{part}/"
        if arm == "mcp":
            score = evaluation.own_scores(study, classifier_name, part)["mcp"]
            return evaluation.resampled(study, f"{folder}{classifier_name}/mcp", score, right, 0.5)
        if arm.endswith("-matched"):
            score = audit.matched(study, pair, arm.removesuffix("-matched"), "ss")
            return None if score is None else evaluation.resampled(study, f"{pair}/tuned/{arm}", score, right)
        if part != "test" and arm not in study.arms:
            return None
        base = arm.removesuffix("+mcp").removesuffix("-moved")
        if base not in study.all_arms:
            return None
        if arm.endswith("+mcp"):
            score = audit.with_mcp(study, pair, base)
            return None if score is None else evaluation.resampled(study, f"{pair}/tuned/{arm}", score, right)
        if tuned:
            moved = audit.moved_threshold(study, oracle_name) if arm.endswith("-moved") else 0.0
            return audit.resampled(study, pair, base, moved)
        z = list(evaluation.outputs(study, pair, arm, study.seeds, part).values())
        if len(z) < len(study.seeds):
            return None
        return evaluation.resampled(study, f"{folder}{pair}/{arm}", np.stack(z), right)

    def _separability(self, pair: str) -> dict:
        if pair not in self._distances:
            found = {arm: evaluation.outputs(self.study, pair, arm, self.study.seeds) for arm in self.study.arms}
            z = {
                arm: np.stack(list(rows.values())) for arm, rows in found.items() if len(rows) == len(self.study.seeds)
            }
            confidences = {arm: expit(rows.astype(float)) for arm, rows in z.items()}
            right = evaluation.correct(self.study, pair)
            self._distances[pair] = (
                resampling.separability(confidences, right, resamples=evaluation.RESAMPLES) if confidences else {}
            )
        return self._distances[pair]


# --- Facts: what follows from the published figures, from arithmetic, or from a distance without seeds ---


def published(table: str) -> pd.DataFrame:
    """A table of data/published, one row a row of the paper, metrics as columns, fractions."""
    frame = pd.read_csv(data.ROOT / "data" / "published" / f"{table}.csv")
    first = frame.columns[0]
    order = list(dict.fromkeys(zip(frame[first], frame["loss"], strict=True)))
    wide = frame.pivot(index=[first, "loss"], columns="metric", values="mean").div(100).reindex(order)
    return wide.rename_axis(index=["group", "loss"])


TABLE_2: dict[str, str | None] = {  # row of the paper's Table 2 -> what this study has for it, if anything
    "mcp": "mcp", "mc_dropout": "mc_dropout_logits", "trust_score": "trust_score", "tcp": "tcp", "tcp-dagger": None,
    "ss": "ss-released",
}  # fmt: skip
TESTED = 10_000  # test images of MNIST and of CIFAR-10
ROUNDED = 0.5001e-4  # half a unit of the last digit of a published rate


def published_table2(dataset: str) -> pd.DataFrame:
    """The paper's Table 2 on one data set, with the 95 % intervals that its own counts allow.

    One run on 10,000 test images: rates get exact intervals (Clopper-Pearson) from their counts, which follow from the
    accuracy; the AUC gets Hanley and McNeil's; areas under precision-recall curves get none. Nor does a row with a rate
    that is no count of these images: MC dropout's, whose FPR of 5.26 % on MNIST is 5 of 95 where the others have 90.

    Returns
    -------
    A row a row of the table and metric: loss, metric, estimate, low, high; fractions.
    """
    rows = []
    for (group, loss), row in published("table2").iterrows():
        if group != dataset:
            continue
        right = round(row["accuracy"] * TESTED)
        counts = {"accuracy": TESTED, "fpr95": TESTED - right, "tnr": TESTED - right, "tpr": right}
        rates = {metric: value for metric, value in row.dropna().items() if metric in counts}
        counted = all(abs(round(v * counts[m]) / counts[m] - v) <= ROUNDED for m, v in rates.items())
        for metric, value in row.dropna().items():
            ends = (np.nan, np.nan)
            if metric in rates and counted:
                ends = statistics.clopper_pearson(round(value * counts[metric]), counts[metric])
            elif metric == "auroc" and counted:
                ends = statistics.hanley_mcneil(value, right, TESTED - right)
            rows.append(
                {"loss": loss, "metric": metric, "estimate": value, **dict(zip(("low", "high"), ends, strict=True))}
            )
    return pd.DataFrame(rows)


def binormal_check() -> pd.DataFrame:
    """Tables 1 and 3 beside what a binormal model of each row's accuracy and AUC predicts for its areas, fractions.

    Returns
    -------
    A row a row of the tables (index table, group, loss): accuracy, auroc; aupr_success, success_model, the control;
    aupr_error, negated_model, not_negated_model; fits: "negated", "not negated", "both" or "neither", by
    `statistics.binormal_aupr` within `FIT`.
    """
    rows = pd.concat({name: published(name) for name in ("table1", "table3")}, names=["table"])
    model = pd.DataFrame([statistics.binormal_aupr(row.accuracy, row.auroc) for row in rows.itertuples()], rows.index)
    names = {"aupr_success": "success_model", "aupr_error": "negated_model"}
    model = model.rename(columns=names | {"aupr_error_released": "not_negated_model"})
    frame = pd.concat([rows[["accuracy", "auroc", "aupr_success", "aupr_error"]], model], axis=1)
    near = {
        sign: (frame["aupr_error"] - frame[f"{sign.replace(' ', '_')}_model"]).abs() <= FIT
        for sign in ("negated", "not negated")
    }
    choices = [near["negated"] & near["not negated"], near["negated"], near["not negated"]]
    return frame.assign(fits=np.select(choices, ["both", "negated", "not negated"], "neither"))


FIT = 0.02  # how near a published area must lie to the model's to fit it; the report shows how well the control does


def _published_aupr_error(study: Study) -> tuple[str, str]:
    frame = binormal_check()
    negated, other = ((frame["aupr_error"] - frame[f"{sign}_model"]).abs() for sign in ("negated", "not_negated"))
    fits = frame["fits"].value_counts()
    counts = ", ".join(f"{fits.get(name, 0)} {name}" for name in ("negated", "not negated", "both", "neither"))
    return UNKNOWN, (
        "the published AUPR-Error lies nearer to the model with the confidence not negated in "
        f"{(other < negated).sum()} of {len(frame)} rows (within {100 * FIT:.0f} points: {counts}); consistent with a "
        "missing sign, no proof of it"
    )


def _published_collapse(study: Study) -> tuple[str, str]:
    table = published("table1")
    baselines = table[table.index.get_level_values("loss") != "ss"]
    so = (baselines["tpr"] > 0.99) & (baselines["tnr"] < 0.01)
    return (HOLDS if so.all() else REFUTED), (
        f"in {so.sum()} of {len(baselines)} rows of the published table; not in "
        + ", ".join(f"{tables.paper_pair(pair)} {tables.PAPER_NAMES[loss]}" for pair, loss in so.index[~so])
    )


def _normality(study: Study) -> tuple[str, str]:
    """The distance of a distribution from the normal fitted to it, and its lower bound by the DKW inequality."""
    worst = (-1.0, 0.0, "")
    for pair, (arm, settings) in product(study.pairs, study.arms.items()):
        if settings.loss != "ss" or not evaluation.has_classifier(study, pair):
            continue
        right = evaluation.correct(study, pair)
        for z in evaluation.outputs(study, pair, arm, study.seeds[:1]).values():
            for group, name in ((right, "right"), (~right, "wrong")):
                values = np.sort(expit(z[group].astype(float)))
                ranks = np.arange(len(values) + 1) / len(values)
                fitted = norm.cdf(values, values.mean(), values.std(ddof=1))
                distance = max(np.abs(fitted - ranks[1:]).max(), np.abs(fitted - ranks[:-1]).max())
                error = np.sqrt(np.log(2 / (1 - LEVEL)) / (2 * len(values)))
                worst = max(worst, (distance - error, distance + error, f"{study.pair_label(pair)}, {name}"))
    low, high, where = worst
    if not where:
        return UNKNOWN, NOT_RUN
    verdict = HOLDS if high < 0.05 else FAILS if low > 0.05 else UNKNOWN
    return verdict, f"{50 * (low + high):.1f} [{100 * low:.1f}, {100 * high:.1f}] points at worst ({where} predictions)"


def _iid(study: Study) -> tuple[str, str]:
    gaps = {}
    for name in study.classifiers:
        if evaluation.has_classifier(study, next(p for p in study.pairs if p.endswith(f"-{name}"))):
            rates = audit.label_shift(study, name)
            train, test = rates.loc["train"], rates.loc["test"]
            gaps[study.network(name).label] = (train.rate - test.rate, train.low - test.high, train.high - test.low)
    if not gaps:
        return UNKNOWN, NOT_RUN
    text = "; ".join(
        f"{label} {100 * gap:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]" for label, (gap, low, high) in gaps.items()
    )
    if any(low > 0.01 or high < -0.01 for _, low, high in gaps.values()):
        return FAILS, text
    return (HOLDS if all(low > -0.01 and high < 0.01 for _, low, high in gaps.values()) else UNKNOWN), text


PAPER_ORACLES = {  # parameters (ViT-B/16 at 384 pixels, ResNet-50 without its classes) and slopes of the paper
    "ViT": (86_090_000, 1.0, 3.0),
    "RSN": (23_510_000, 2.0, 5.0),
}
PAPER_IMAGES, BITS = 1_281_167, 32


def bounds(study: Study, delta: float = 0.05) -> pd.DataFrame:
    """Theorem 3.1 for the paper's oracles and the study's: index label; parameters, images, largest, bound.

    The paper does not count its finite set F: 32 bits a parameter is a choice of this study.
    """
    sizes = {f"{name}, the paper's": (*size, PAPER_IMAGES) for name, size in PAPER_ORACLES.items()}
    sizes["a head of 769 parameters, the paper's images"] = (769, 1.0, 3.0, PAPER_IMAGES)
    for name in dict.fromkeys(pair.split("-")[0] for pair in study.pairs):
        network, pair = study.networks[name], next(pair for pair in study.pairs if pair.startswith(f"{name}-"))
        arm = next((arm for arm, settings in study.arms.items() if settings.loss == "ss"), None)
        manifest = arm and runs.read_manifest(runs.oracle_path(study, pair, arm, study.seeds[0]))
        if manifest:
            slopes, images = network.steep_slope, study.oracle.images or len(study.images().labels["train"])
            sizes[f"{network.label}, this study's"] = (
                manifest["parameters"], slopes.alpha_pos, slopes.alpha_neg, images,
            )  # fmt: skip
    rows = {}
    for name, (parameters, pos, neg, images) in sizes.items():
        largest = max(np.exp(a) - np.exp(-a) for a in (pos, neg))
        bound = statistics.hoeffding_bound(largest, BITS * parameters * np.log(2), images, delta)
        rows[name] = {"parameters": parameters, "images": images, "largest": largest, "bound": bound}
    return pd.DataFrame(rows).T


def _bound(study: Study) -> tuple[str, str]:
    row = bounds(study).loc["ViT, the paper's"]
    verdict = HOLDS if row["bound"] < row["largest"] else REFUTED
    return verdict, f"the bound is {row['bound']:.0f}, the largest value of the loss {row['largest']:.2f}"


def _tcp_capped(study: Study) -> tuple[str, str]:
    return REFUTED, "at most 1: sigmoid(z) and p lie in [0, 1], so that Hoeffding's inequality applies to it as well"


FALL = 0.10  # of the accuracy, to be called much lower


def _domain_accuracy(study: Study) -> tuple[str, str]:
    """Whether every classifier's accuracy falls by more than `FALL` on every domain: the same images, clean and not."""
    tasks = []
    grey = study.images().channels == 1
    for domain, part in study.domains.parts.items():
        if not (grey and domains.parse(domain).kind == domains.RECOLOR):
            tasks += [(domain, part, name) for name in study.classifiers]
    cells = {}
    for domain, part, name in tasks:
        pair = next(pair for pair in study.pairs if pair.endswith(f"-{name}"))
        if not evaluation.has_classifier(study, pair, part):
            return UNKNOWN, f"{NOT_RUN}: {domains.parse(domain).label}"
        right = evaluation.correct(study, pair, part)
        fall = evaluation.correct(study, pair)[: len(right)].astype(float) - right
        error = fall.std(ddof=1) / np.sqrt(len(fall))
        levels = LEVEL, 1 - (1 - LEVEL) / len(tasks)
        intervals = [fall.mean() + error * norm.ppf([(1 - level) / 2, (1 + level) / 2]) for level in levels]
        cells[f"{domains.parse(domain).label}, {study.network(name).label}"] = (fall.mean(), *intervals)
    if not cells:
        return UNKNOWN, "no unseen domain is part of this study"
    held = [low > FALL for _, (low, _), _ in cells.values()]
    failed = [high < FALL for _, _, (_, high) in cells.values()]
    where, (fall, (low, high), _) = min(cells.items(), key=lambda cell: cell[1][0])
    verdict = HOLDS if all(held) else FAILS if any(failed) else UNKNOWN
    found = f"lower by {100 * fall:.2f} [{100 * low:.2f}, {100 * high:.2f}] points at worst ({where})"
    return verdict, f"{found}; beyond the margin in {sum(held)} of {len(cells)}, excluded in {sum(failed)}"


FACTS: dict[str, Callable[[Study], tuple[str, str]]] = {
    "published_aupr_error": _published_aupr_error,
    "published_collapse": _published_collapse,
    "normality": _normality,
    "iid": _iid,
    "bound": _bound,
    "tcp_capped": _tcp_capped,
    "domain_accuracy": _domain_accuracy,
}
