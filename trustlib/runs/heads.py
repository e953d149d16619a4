"""Heads on what a trained classifier's file caches, and a simulation: which step costs a learned oracle its ranking.

A head maps the classifier's penultimate features, or its sorted log-probabilities, to z; the backbone does not move.
All heads learn with the cross entropy, so that two of them differ in form, labels or data alone.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from .. import confidence, losses, metrics, oracle
from ..confidence import Observed
from ..stats import resampling, statistics
from ..stats.combination import combined
from ..study import Study
from . import outputs, steps
from .provenance import source_digest
from .store import Log, Made, Step, run_folder

HEADS = {
    "linear": "linear",
    "distance": "signed distance (Eq. 7)",
    "class": "hyperplane per predicted class",
    "mlp": "two-layer MLP",
    "sorted": "linear on sorted log-probabilities",
}
LABELS = {
    "train": "training images",
    "crossfit": "training images, cross-fitted",
    "heldout": "validation images",
}
SIZES = (250, 1000, 4000, 16_000)  # and all there are
SEEDS = range(5)  # of the subset and of what a head starts from
FEWEST = 10  # correct and incorrect predictions each, expected in a subset
DECAYS = (1e-4, 1e-3, 1e-2, 1e-1)  # of a convex head, on the mean loss; the validation images choose
STEPS = (50, 100, 200, 400, 800, 1600, 3200)  # of the MLP, in batches of `BATCH`; the validation images choose
PASSES = 100  # over the images, at most
BATCH, HIDDEN, RATE = 256, 128, 2e-3
LARGEST, LEAST = 10, -30.0  # log-probabilities kept, and their floor
ROW, MEAN = ("seed", "auroc", "difference"), ("seeds", "auroc", "difference", "low", "high")


def fitted(study: Study, name: str) -> Step:
    """Every head of `HEADS` on every source of `LABELS` that exists, at every size.

    In the file, float32 (S, N): ``LABELS/HEAD/n``, z of the test images for S seeds (one where nothing depends on the
    seed), and ``LABELS/HEAD/n/fused``, the same combined with MCP (`combined`). The last ``study.ablations.tuning``
    validation images, or half where the study has none or all, choose what a head's fit leaves open and fit the
    combination. The labels of cross-fitting are used where all folds are trained.
    """
    trained, folds = steps.classifier(study, name), _trained_folds(study, name)

    def make(step: Step, log: Log) -> Made:
        images = study.images()
        seen = {part: steps.observation(trained, images, part) for part in ("train", "heldout", "test")}
        count = len(seen["heldout"].labels)
        last = study.ablations.tuning if 0 < study.ablations.tuning < count else count // 2
        valid, test = _among(seen["heldout"], slice(-last, None)), seen["test"]
        sources = {"train": (seen["train"], seen["train"].correct)}
        if folds:
            index = trained.tensors("reference.")["index"]
            sources["crossfit"] = seen["train"], outputs.crossfit_labels(folds)[index].numpy()
        first = _among(seen["heldout"], slice(None, -last))
        sources["heldout"] = first, first.correct
        tensors = {}
        for labels, (part, target) in sources.items():
            for head in HEADS:
                for n in sizes(target):
                    z, fused = _over_seeds(head, part, target, n, valid, test)
                    tensors[f"{labels}/{head}/{n}"] = torch.from_numpy(z.astype(np.float32))
                    tensors[f"{labels}/{head}/{n}/fused"] = torch.from_numpy(fused.astype(np.float32))
        return tensors, {}

    settings = {"tuning": study.ablations.tuning, "threads": study.threads}
    source = source_digest("confidence", "losses", "metrics", "oracle", "runs.heads")
    return Step(run_folder(study), f"heads/{name}", "heads", settings, source, make, (trained, *folds))


def against_mcp(study: Study, name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """AUROC of the fitted heads of a classifier on the test images, fractions: (every fit, means over seeds).

    Returns
    -------
    fits : one row per fit: classifier, labels, head, n (images learned from), fused (bool), seed, auroc, difference
        (from MCP).
    means : one row per classifier, labels, head, n and fused: seeds; auroc; difference with low and high, its 95 %
        interval over test images (DeLong) and seeds (`resampling.with_seeds`).
    """
    test = steps.classifier(study, name).tensors("test.")
    correct, logits = test["correct"].numpy(), test["logits"].numpy()
    mcp = confidence.mcp(Observed(logits, logits.argmax(1)))
    base = metrics.evaluate(mcp, correct)["auroc"]
    fits, means = [], []
    for key, z in fitted(study, name).tensors().items():
        labels, head, n, *fused = key.split("/")
        row = {"classifier": name, "labels": labels, "head": head, "n": int(n), "fused": bool(fused)}
        each = np.array([statistics.delong_difference(one, mcp, correct).difference for one in z.numpy()])
        fits += [row | {"seed": i, "auroc": base + value, "difference": value} for i, value in enumerate(each)]
        mean = statistics.delong_difference(z.numpy(), mcp, correct)
        low, high = resampling.with_seeds(each, mean.low, mean.high)
        row |= {"seeds": len(each), "auroc": base + mean.difference, "difference": mean.difference}
        means.append(row | {"low": low, "high": high})
    return _ordered(fits, ROW), _ordered(means, MEAN)


def sizes(target: NDArray[np.bool_]) -> list[int]:
    """Numbers of images to learn from: of `SIZES` those in which `FEWEST` of each kind are expected, and all."""
    rarer = min(target.mean(), 1 - target.mean())
    return [*(n for n in SIZES if n < len(target) and n * rarer >= FEWEST), len(target)] if rarer else []


def fit_head(
    head: str, part: Observed, target: NDArray[np.bool_], subsets: list[NDArray], valid: Observed, test: Observed
) -> tuple[NDArray, NDArray]:
    """Fit one head on S subsets; return z, float64, of the validation and the test images: (S, M), (S, N).

    Parameters
    ----------
    head : a key of `HEADS`. z is w.x + b on features standardised over `part` ("linear"), the same with ||w|| = 1
        ("distance"), w_k.x + b_k with k the predicted class ("class"), two layers with `HIDDEN` units between ("mlp"),
        or linear in the `LARGEST` log-probabilities in descending order and MCP's log-odds ("sorted").
    part, target : what it learns from, and whether each prediction counts as correct, bool.
    subsets : of their rows, int (n,) each; the s-th starts from seed s where the start matters.
    valid : chooses the weight decay or the MLP's number of steps of each, by AUROC.
    """
    x = _inputs(head, part)
    mean, scale = x.mean(0), np.maximum(x.std(0), 1e-6)
    x, *others = ((_inputs(head, seen) - mean) / scale for seen in (part, valid, test))
    if head == "class":
        classes = part.logits.shape[1]
        seen = zip((x, *others), (part, valid, test), strict=True)
        x, *others = (_by_class(rows, split.predicted, classes) for rows, split in seen)
    fits = {"distance": _distance, "mlp": _mlp}.get(head, _convex)(x, target, subsets, others)
    chosen = []
    for seed in range(len(subsets)):
        z = [(of_valid[seed], of_test[seed]) for of_valid, of_test in fits]
        chosen.append(max(z, key=lambda z: metrics.evaluate(z[0], valid.correct)["auroc"]))
    z_valid, z_test = zip(*chosen, strict=True)
    return np.stack(z_valid), np.stack(z_test)


def simulate(classes: int, n: int, seed: int) -> dict:
    """AUROC of scores of a Bayes classifier of K Gaussian classes at the vertices of a simplex, in K - 1 dimensions.

    x = s (e_y - 1/K) + noise, the noise normal and centred over its K coordinates, s = 1.3 sqrt(2 ln K), so that the
    accuracy hardly depends on K. Both hyperplanes minimise the cross entropy on n images; all are measured on n others.

    Returns
    -------
    classes, n, seed, accuracy; AUROC of mcp, of hyperplane (w.x + b), of own (the coordinate of the predicted class,
    which orders as the risk-minimising hyperplane per predicted class does) and of relu (w.max(x, 0) + b); tpr and tnr
    of the hyperplane at z = 0, and spread, the standard deviation of its z. Fractions.
    """
    rng = np.random.default_rng(seed)
    part, test = _simplex(classes, n, rng), _simplex(classes, n, rng)
    x, unseen = part.features, test.features
    head = LogisticRegression(C=1e4 / n, max_iter=1000)  # weight decay 1e-4: x is centred, w is not unique
    z = head.fit(x, part.correct).decision_function(unseen)
    relu = head.fit(x.clip(0), part.correct).decision_function(unseen.clip(0))
    scores = {"mcp": confidence.mcp(test), "hyperplane": z, "own": unseen.max(1), "relu": relu}
    found = {name: metrics.evaluate(score, test.correct) for name, score in scores.items()}
    row = {"classes": classes, "n": n, "seed": seed, "accuracy": test.correct.mean()}
    row |= {name: value["auroc"] for name, value in found.items()}
    return row | {key: found["hyperplane"][key] for key in ("tpr", "tnr")} | {"spread": z.std()}


def simulate_losses(classes: int, n: int, seed: int) -> list[dict]:
    """The hyperplane of `simulate` that each loss of the paper leads to, convex in z or not, by L-BFGS.

    Returns
    -------
    One row per loss: classes, n, seed, loss; auroc, tpr and tnr at z = 0 (fractions), spread (standard deviation of z)
    on n other images. The slopes of the steep slope loss are 1 and 3.
    """
    rng, rows = np.random.default_rng(seed), []
    part, test = _simplex(classes, n, rng), _simplex(classes, n, rng)
    targets = {"correct": part.correct, "p_true": softmax(part.logits, axis=1)[np.arange(n), part.labels]}
    for loss in ("ce", "focal", "tcp", "ss"):
        entry = losses.LOSSES[loss]
        head = _minimised(oracle.Linear, entry.function, part.features, targets[entry.target], seed)
        z = head(torch.from_numpy(test.features)).numpy()
        found = metrics.evaluate(z, test.correct)
        row = {"classes": classes, "n": n, "seed": seed, "loss": loss}
        rows.append(row | {key: found[key] for key in ("auroc", "tpr", "tnr")} | {"spread": z.std()})
    return rows


def _simplex(classes: int, n: int, rng: np.random.Generator) -> Observed:
    """Images of the classes of `simulate`, as their Bayes classifier sees them."""
    separation = 1.3 * np.sqrt(2 * np.log(classes))
    labels = rng.integers(classes, size=n)
    x = rng.normal(size=(n, classes)) + separation * np.eye(classes)[labels]
    x -= x.mean(1, keepdims=True)
    return Observed(separation * x, labels, x)


def _over_seeds(
    head: str, part: Observed, target: NDArray[np.bool_], n: int, valid: Observed, test: Observed
) -> tuple[NDArray, NDArray]:
    """z of the test images, and z combined with MCP, float64 (S, N) each; one seed where none matters."""
    alike = n == len(target) and head not in ("distance", "mlp")
    seeds = SEEDS[:1] if alike else SEEDS
    subsets = [np.random.default_rng(seed).permutation(len(target))[:n] for seed in seeds]
    z_valid, z = fit_head(head, part, target, subsets, valid, test)
    odds = [confidence.mcp(seen) for seen in (valid, test)]
    pairs = zip(z_valid, z, strict=True)
    return z, np.stack([combined([a, odds[0]], valid.correct, [b, odds[1]]) for a, b in pairs])


def _among(part: Observed, index: NDArray | slice) -> Observed:
    return Observed(part.logits[index], part.labels[index], part.features[index])


def _ordered(rows: list[dict], columns: Sequence[str]) -> pd.DataFrame:
    by = {"labels": list(LABELS), "head": list(HEADS), "n": None, "fused": None}
    frame = pd.DataFrame(rows, columns=["classifier", *by, *columns])
    return frame.sort_values([*by], key=lambda c: c.map(by[c.name].index) if by[c.name] else c, ignore_index=True)


def _trained_folds(study: Study, name: str) -> list[Step]:
    """All folds of a classifier where all are trained, else none."""
    folds = steps.folds(study, name)
    return folds if all(step.is_done for step in folds) else []


def _inputs(head: str, part: Observed) -> NDArray[np.float64]:
    """What a head sees, (N, p): the features, or the sorted log-probabilities with MCP's log-odds."""
    if head != "sorted":
        return part.features.astype(np.float64)
    log_p = np.sort(log_softmax(part.logits.astype(np.float64), axis=1), axis=1)[:, ::-1][:, :LARGEST]
    return np.column_stack([np.maximum(log_p, LEAST), confidence.mcp(part)])


def _by_class(x: NDArray, predicted: NDArray, classes: int) -> csr_array:
    """(N, K (d + 1)): x and a 1 in the block of the predicted class, 0 elsewhere."""
    n, d = x.shape
    values = np.column_stack([x, np.ones(n)])
    columns = predicted[:, None] * (d + 1) + np.arange(d + 1)
    return csr_array((values.ravel(), columns.ravel(), np.arange(n + 1) * (d + 1)), shape=(n, classes * (d + 1)))


Fits = list[list[NDArray]]  # z of the validation images (S, M) and of the test images (S, N), one pair per setting


def _convex(x: NDArray | csr_array, target: NDArray, subsets: list[NDArray], others: list) -> Fits:
    """Linear in x, one setting for each of `DECAYS`."""
    fits = []
    for decay in DECAYS:
        models = [LogisticRegression(C=1 / (decay * len(index)), max_iter=300) for index in subsets]
        for model, index in zip(models, subsets, strict=True):
            model.fit(x[index], target[index])
        fits.append([np.stack([model.decision_function(rows) for model in models]) for rows in others])
    return fits


def _distance(x: NDArray, target: NDArray, subsets: list[NDArray], others: list) -> Fits:
    """A signed distance: one setting, since its weights have no length that a decay could shrink."""
    nets = [
        _minimised(oracle.SignedDistance, losses.cross_entropy, x[index], target[index], seed)
        for seed, index in enumerate(subsets)
    ]
    return [[np.stack([net(torch.from_numpy(rows)).numpy() for net in nets]) for rows in others]]


def _mlp(x: NDArray, target: NDArray, subsets: list[NDArray], others: list) -> Fits:
    """Two layers, all subsets side by side; one setting for each of `STEPS`, by Adam."""
    torch.manual_seed(0)
    rows, correct, index = torch.from_numpy(x).float(), torch.from_numpy(target), torch.from_numpy(np.stack(subsets))
    seeds, n = index.shape
    shapes = {(x.shape[1], HIDDEN): x.shape[1], (1, HIDDEN): x.shape[1], (HIDDEN, 1): HIDDEN, (1, 1): HIDDEN}
    weights = [(torch.rand(seeds, *shape) * 2 - 1) / size**0.5 for shape, size in shapes.items()]  # as nn.Linear's
    optimizer, fits = torch.optim.Adam([w.requires_grad_() for w in weights], lr=RATE), []

    def net(batch: Tensor) -> Tensor:  # (S, B, d) or (B, d) to (S, B)
        return ((batch @ weights[0] + weights[1]).relu() @ weights[2] + weights[3]).squeeze(-1)

    steps = [step for step in STEPS if step <= max(STEPS[0], PASSES * n // BATCH)]
    for step in range(1, steps[-1] + 1):
        chosen = index.gather(1, torch.randint(n, (seeds, BATCH)))  # (S, B)
        optimizer.zero_grad()
        losses.cross_entropy(net(rows[chosen]).flatten(), correct[chosen].flatten()).mean().backward()
        optimizer.step()
        if step in steps:
            with torch.no_grad():
                fits.append([net(torch.from_numpy(seen).float()).double().numpy() for seen in others])
    return fits


def _minimised(
    head: Callable[[int], nn.Module], loss: Callable[..., Tensor], x: NDArray, target: NDArray, seed: int
) -> nn.Module:
    """A head of float64 whose mean loss L-BFGS has minimised from a seeded start."""
    torch.manual_seed(seed)
    net, rows, wanted = head(x.shape[1]).double(), torch.from_numpy(x), torch.from_numpy(target)
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(net(rows), wanted).mean()
        value.backward()
        return value

    optimizer.step(closure)
    return net.requires_grad_(False)
