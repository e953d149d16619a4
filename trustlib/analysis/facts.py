"""Verdicts on claims that no test of data/claims.yaml decides: facts of arithmetic, of the published figures, or of a
distance between distributions.
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm

from ..stats import resampling
from . import ablations, paper, rules
from .evidence import Evidence, label_of
from .paper import PAPER_NAMES, paper_pair


def _published_aupr_error(evidence: Evidence) -> rules.Judgement:
    excludes = paper.aupr_error_bounds()["excludes"]
    negated, tied = excludes.str.startswith("negated").sum(), (excludes == "negated, whatever the ties").sum()
    other = len(excludes) - (excludes == "not negated").sum()
    return rules.Judgement(
        rules.CONTRADICTED if negated else rules.INCONCLUSIVE,
        f"by arithmetic, {negated} of {len(excludes)} rows cannot, {tied} of them whatever the ties: the column is not "
        f"the average precision of errors ranked by the negated confidence; {other} rows are compatible with the "
        "confidence not negated, as in the released code, where lower is better: the natural reading, which the "
        "figures do not prove",
    )


def _published_collapse(evidence: Evidence) -> rules.Judgement:
    table = paper.table("table1")
    baselines = table[table.index.get_level_values("loss") != "ss"]
    so = (baselines["tpr"] > 0.99) & (baselines["tnr"] < 0.01)
    return rules.Judgement(
        rules.REPRODUCED if so.all() else rules.CONTRADICTED,
        f"by arithmetic: in {so.sum()} of {len(baselines)} rows of the published table; not in "
        + ", ".join(f"{paper_pair(pair)} {PAPER_NAMES[loss]}" for pair, loss in so.index[~so]),
    )


def _normality(evidence: Evidence) -> rules.Judgement:
    """The distance of a distribution from the normal fitted to it, mean over the seeds.

    Its interval is that of the DKW inequality for the images, crossed with the seeds' as in `resampling.crossed`.
    """
    study = evidence.study
    distances: dict[tuple[str, str, str], NDArray] = {}
    counts = {}
    for pair, (arm, settings) in product(study.pairs, study.methods.items()):
        if settings.loss not in FIGURE_3 or settings.form != "corrected" or not evidence.has(pair):
            continue
        correct, z = evidence.correct(pair), evidence.outputs(pair, arm)
        for group, name in ((correct, "correct"), (~correct, "incorrect")) if z is not None else ():
            distances[pair, arm, name] = np.array([_from_normal(expit(row[group].astype(float))) for row in z])
            counts[pair, arm, name] = int(group.sum())
    if not distances:
        return rules.Judgement(rules.NOT_TESTED, rules.NOT_RUN)
    cells, pooled = [], resampling.pooled_variance(distances.values())
    for (pair, arm, name), found in distances.items():
        mean, images = found.mean(), np.sqrt(np.log(2 / (1 - rules.LEVEL)) / (2 * counts[pair, arm, name]))
        half = np.sqrt(images**2 + resampling.seed_error(found, rules.LEVEL, pooled) ** 2)
        label = f"{study.pair_label(pair)} {study.method_label(arm)}, {name}"
        ends = (mean - half, mean + half)
        caveat = _training_caveat(evidence, pair, [arm], len(found))
        freedom = pooled[1] if pooled else 0
        cells.append(
            rules.Cell(
                "distance from the normal", label, rules.Margin(below=0.05), mean, ends, len(found), freedom, caveat
            )
        )
    return _of_cells(cells, lambda cell: f"{rules.formatted(cell)} points at worst ({cell.name} predictions)")


FIGURE_3 = ("tcp", "ss")  # of the losses whose histograms it shows, those whose confidences are not collapsed


def _from_normal(values: NDArray) -> float:
    """The largest distance of the distribution function of values (N,) from that of the normal fitted to them."""
    values = np.sort(values)
    ranks = np.arange(len(values) + 1) / len(values)
    fitted = norm.cdf(values, values.mean(), values.std(ddof=1))
    return float(max(np.abs(fitted - ranks[1:]).max(), np.abs(fitted - ranks[:-1]).max()))


def _training_caveat(evidence: Evidence, pair: str, methods: Sequence[str], seeds: int) -> str:
    """Why what is measured of some methods' oracles decides nothing, or nothing."""
    if any(evidence.is_untrained(pair, arm) for arm in methods):
        return rules.NOT_TRAINED
    return rules.ONE_TRAINING if seeds == 1 else ""


def _of_cells(cells: Sequence[rules.Cell], text: Callable[[rules.Cell], str]) -> rules.Judgement:
    """The verdict on a fact's cells, and what the one that speaks most against the claim says."""
    if untrained := [cell.name for cell in cells if cell.caveat == rules.NOT_TRAINED]:
        return rules.Judgement(rules.NOT_TESTED, f"not trained: {rules.and_more(untrained)}", cells)
    notes = [rules.tally(cells)] if len(cells) > 1 else []
    return rules.Judgement(
        rules.verdict(cells), "; ".join([text(rules.worst(cells)), *notes, *rules.precision(cells)]), cells
    )


def _overfitting(evidence: Evidence) -> rules.Judgement:
    """AUROC and TNR on an oracle's own training images minus those on test images (`runs.results.Run.on_training`).

    The sampling error on the training images is taken to be that on the test images, independent of it.
    """
    study, order = evidence.study, np.random.default_rng(0).permutation(resampling.RESAMPLES)
    methods = [arm for arm in ("ce", "focal", "tcp") if arm in study.methods]
    if not methods:
        return rules.Judgement(rules.NOT_TESTED, f"{rules.NOT_PLANNED} method 'CE'")
    gaps: dict[tuple[str, str, str], tuple[NDArray, NDArray]] = {}
    for pair, arm in product(study.pairs, methods):
        trained = evidence.results.on_training(pair, arm) if evidence.has(pair) else None
        for metric in OVERFITTED if trained else ():
            estimate, samples = evidence.values([metric], pair, arm)
            noise = samples - estimate
            gap = trained[metric] - estimate
            gaps[metric, pair, arm] = gap, gap + noise[order] - noise
    if len(gaps) < len(study.pairs) * len(methods) * len(OVERFITTED):
        return rules.Judgement(rules.NOT_TESTED, f"{rules.NOT_RUN}: outputs on training images")
    cells = []
    for metric, margin in OVERFITTED.items():
        pooled = resampling.pooled_variance(gap for (m, *_), (gap, _) in gaps.items() if m == metric)
        for (_, pair, arm), (gap, samples) in ((key, gaps[key]) for key in gaps if key[0] == metric):
            mean, low, high, seeds = resampling.crossed(gap, samples, rules.LEVEL, pooled)
            label = f"{study.pair_label(pair)} {study.method_label(arm)}"
            caveat = _training_caveat(evidence, pair, [arm], seeds)
            freedom = pooled[1] if pooled else 0
            cells.append(
                rules.Cell(metric, label, rules.Margin(above=margin), mean, (low, high), seeds, freedom, caveat)
            )

    def text(_: rules.Cell) -> str:
        lowest = [rules.worst([cell for cell in cells if cell.metric == metric]) for metric in OVERFITTED]
        return "; ".join(
            f"{rules.LABELS[cell.metric]}, training − test, {rules.formatted(cell)} at worst ({cell.name})"
            for cell in lowest
        )

    return _of_cells(cells, text)


OVERFITTED = {"auroc": 0.02, "tnr": 0.05}  # metric -> by how much it is higher on training images than on test images


def _iid(evidence: Evidence) -> rules.Judgement:
    """A classifier whose error is within the margin decides nothing: its gap could not be beyond it."""
    study, cells, texts = evidence.study, [], []
    for name in study.classifiers:
        sources = evidence.results.label_sources(name)
        if sources is None:
            continue
        rates, label = ablations.label_shift(sources), study.network(name).label
        train, test = rates.loc["train"], rates.loc["test"]
        low, high = train.low - test.high, train.high - test.low
        gap, is_small = train.rate - test.rate, 1 - test.rate < SHIFT
        caveat = rules.SMALL_ERROR if is_small else ""
        cells.append(
            rules.Cell("accuracy, train − test", label, rules.Margin(within=SHIFT), gap, (low, high), caveat=caveat)
        )
        text = label + f" {100 * gap:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]".replace("-", "−")
        note = f", of an error of {100 * (1 - test.rate):.2f} that decides nothing" if is_small else ""
        texts.append(text + note)
    if not cells:
        return rules.Judgement(rules.NOT_TESTED, rules.NOT_RUN)
    return rules.Judgement(rules.verdict(cells), "; ".join(texts), cells)


SHIFT = 0.01  # of the accuracy, up to which labels are called alike


def _tails(evidence: Evidence) -> rules.Judgement:
    """The tails of z under the signed distance less those under the linear head, paired by seed.

    The range of the middle 99 % in units of the interquartile range; 3.82 for a normal.
    """
    study, methods = evidence.study, ["ss", "ss-linear"]
    if lacking := [arm for arm in methods if arm not in study.methods]:
        return rules.Judgement(rules.NOT_TESTED, f"{rules.NOT_PLANNED} method {label_of(study, lacking[0])!r}")
    longer = {}
    for pair in study.pairs:
        z = [evidence.outputs(pair, arm) if evidence.has(pair) else None for arm in methods]
        if any(rows is None for rows in z):
            return rules.Judgement(rules.NOT_TESTED, f"{rules.NOT_RUN}: {study.pair_label(pair)}")
        ranges = [np.quantile(rows, (0.005, 0.25, 0.75, 0.995), axis=1) for rows in z]
        distance, linear = ((high - low) / (third - first) for low, first, third, high in ranges)
        longer[pair] = distance - linear
    cells, pooled = [], resampling.pooled_variance(longer.values())
    for pair, values in longer.items():
        mean, low, high, seeds = resampling.crossed(values, values[None], rules.LEVEL, pooled)
        caveat = _training_caveat(evidence, pair, methods, seeds)
        freedom = pooled[1] if pooled else 0
        margin, label = rules.Margin(above=0.0), study.pair_label(pair)
        cells.append(rules.Cell("tails, SS − SS, linear", label, margin, mean, (low, high), seeds, freedom, caveat))

    def text(cell: rules.Cell) -> str:
        numbers = "{:+.2f} [{:+.2f}, {:+.2f}]".format(cell.estimate, *cell.interval).replace("-", "−")
        return f"longer by {numbers} interquartile ranges ({cell.name})"

    return _of_cells(cells, text)


PAPER_ORACLES = {  # parameters (ViT-B/16 at 384 pixels, ResNet-50 without its classes) and slopes of the paper
    "ViT": (86_090_000, 1.0, 3.0),
    "RSN": (23_510_000, 2.0, 5.0),
}
PAPER_IMAGES, BITS = 1_281_167, 32


def bounds(run: Any, delta: float = 0.05) -> pd.DataFrame:
    """Theorem 3.1 for the paper's oracles and the study's: index label; parameters, images, largest, bound.

    The paper does not count its finite set F: 32 bits a parameter is a choice of this study. Of each of the study's
    oracle networks it is the first steep slope method, by its name, since only the head may be trained.
    """
    study = run.study
    sizes = {f"{name}, the paper's": (*size, PAPER_IMAGES) for name, size in PAPER_ORACLES.items()}
    sizes["a head of 769 parameters, the paper's images"] = (769, 1.0, 3.0, PAPER_IMAGES)
    for name in dict.fromkeys(pair.split("-")[0] for pair in study.pairs):
        network, pair = study.networks[name], next(pair for pair in study.pairs if pair.startswith(f"{name}-"))
        arm = next((arm for arm, settings in study.methods.items() if settings.loss == "ss"), None)
        parameters = arm and run.parameters(pair, arm)
        if parameters:
            slopes, images = network.steep_slope, study.recipe(pair, arm).images or run.images["counts"]["train"]
            sizes[f"{network.label}, this study's {study.method_label(arm)}"] = (
                parameters, slopes.alpha_pos, slopes.alpha_neg, images,
            )  # fmt: skip
    rows = {}
    for name, (parameters, pos, neg, images) in sizes.items():
        largest = max(np.exp(a) - np.exp(-a) for a in (pos, neg))
        bound = paper.hoeffding_bound(largest, BITS * parameters * np.log(2), images, delta)
        rows[name] = {"parameters": parameters, "images": images, "largest": largest, "bound": bound}
    return pd.DataFrame(rows).T


def _tcp_capped(evidence: Evidence) -> rules.Judgement:
    return rules.Judgement(
        rules.MIXED,
        "by arithmetic: reproduced for Eq. 6 as printed, (z − p)² of any real z, which is unbounded; contradicted for "
        "the sigmoid of the released code, with which it is at most 1, since σ(z) and p lie in [0, 1], and "
        "Hoeffding's inequality applies to it as well",
    )


COMPUTED: dict[str, Callable[[Evidence], rules.Judgement]] = {  # as named in `rules.FACTS`
    "published_aupr_error": _published_aupr_error,
    "published_collapse": _published_collapse,
    "overfitting": _overfitting,
    "normality": _normality,
    "iid": _iid,
    "tails": _tails,
    "tcp_capped": _tcp_capped,
}
