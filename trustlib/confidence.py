"""How sure a classifier is of its own predictions: every confidence that needs no oracle.

A score is a function ``(part, fit, reference) -> float64 (N,)``, higher = more to be trusted, of three `Observed`:
the part to score, the validation set, on which a temperature or a norm's order is fitted, and the training set, whose
features serve as reference. To add one, write its function and its line in `SCORES`: every table then has it.

Probabilities near 1 are told apart by what they lack: scores are written in log-odds, or from the sum of the *other*
classes' probabilities, so that float64 ties nothing that the logits keep apart. A score in log-odds trusts above 0.

torch and scikit-learn, which take seconds, are imported by the scores that use them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp

from . import losses, metrics
from .data import Features
from .recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

REFERENCE = 100_000  # training samples looked at, at most: a seeded draw of a larger part
NEIGHBOUR = 50  # k of the k-th neighbour, as for CIFAR in Sun et al. 2022, unless the classes are small
P_NORMS = range(1, 11)
GEN_GAMMA, GEN_CLASSES = 0.1, 100
WEIGHT_DECAYS = (1e-5, 1e-3, 1e-1)  # of a linear probe, chosen by AUROC on the validation set
MLP_WIDTHS = (128, 64)
MLP_WEIGHT_DECAYS = (1e-2, 1.0)  # of AdamW, chosen in the same way
MLP_EPOCHS, MLP_BATCH, MLP_LEARNING_RATE = 15, 512, 3e-3
LOG_TEMPERATURES = (-6.0, 6.0)


@dataclass(frozen=True, eq=False)
class Observed:
    """What a classifier was seen to do on one part.

    logits : float (N, K), N >= 1, K >= 2
    labels : int (N,) in 0 .. K - 1
    features : float (N, d), penultimate, or None
    passes : float (T, N, K), logits of T passes with dropout left on, or None
    members : float (M, N, K), logits of an ensemble, M >= 2, the classifier itself first, or None

    Raises
    ------
    ValueError : for another rank, lengths that differ, labels out of range, and what is not finite.
    """

    logits: NDArray
    labels: NDArray
    features: NDArray | None = None
    passes: NDArray | None = None
    members: NDArray | None = None

    def __post_init__(self):
        if self.logits.ndim != 2 or self.logits.shape[0] < 1 or self.logits.shape[1] < 2:
            raise ValueError(f"expected logits (N, K) with N >= 1 and K >= 2, found {self.logits.shape}")
        n, k = self.logits.shape
        if self.labels.shape != (n,) or self.labels.min() < 0 or self.labels.max() >= k:
            raise ValueError(
                f"expected {n} labels in 0..{k - 1}, found {self.labels.shape}: {np.unique(self.labels)[:9]}"
            )
        if self.features is not None and (self.features.ndim != 2 or len(self.features) != n):
            raise ValueError(f"expected features ({n}, d), found {self.features.shape}")
        for name in ("passes", "members"):
            value = getattr(self, name)
            if value is not None and (value.ndim != 3 or value.shape[1:] != (n, k) or len(value) < 1):
                raise ValueError(f"expected {name} (T, {n}, {k}), found {value.shape}")
        for name in ("logits", "features", "passes", "members"):
            value = getattr(self, name)
            if value is not None and not np.isfinite(value).all():
                raise ValueError(f"{name}: {(~np.isfinite(value)).sum()} of {value.size} values are not finite")

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        return self.logits.argmax(1)

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        return self.predicted == self.labels


def drawn_reference(n: int) -> NDArray[np.int64]:
    """Which of n training samples serve as reference: all, or a seeded draw of `REFERENCE`, ascending."""
    return np.arange(n) if n <= REFERENCE else np.sort(np.random.default_rng(0).choice(n, REFERENCE, replace=False))


# --- From the logits ---


def mcp(part: Observed, *_) -> NDArray:
    """Maximum class probability as log-odds, log p - log(1 - p): its order, 0 at 0.5 (Hendrycks and Gimpel 2017)."""
    return _log_odds(part.logits[None], part.predicted)


def temperature(part: Observed, fit: Observed, *_) -> NDArray:
    """MCP of the logits over a temperature, fitted by NLL on the validation set (Guo et al. 2017), as log-odds."""
    return _log_odds(part.logits[None] / fitted_temperature(fit), part.predicted)


def margin(part: Observed, *_) -> NDArray:
    """Difference of the two highest probabilities, as -log(1 - (p1 - p2)): 1 - p1 + p2 is a sum of small numbers."""
    log_p = np.sort(_log_p(part.logits), axis=1)
    return -np.logaddexp(logsumexp(log_p[:, :-1], axis=1), log_p[:, -2])


def entropy(part: Observed, *_) -> NDArray:
    """Negative entropy of the probabilities, nats, in [-log K, 0]."""
    return _negative_entropy(_log_p(part.logits))


def max_logit(part: Observed, *_) -> NDArray:
    """The highest logit (Hendrycks et al. 2022)."""
    return part.logits.astype(np.float64).max(1)


def energy(part: Observed, *_) -> NDArray:
    """Negative free energy, log sum exp of the logits (Liu et al. 2020, at temperature 1)."""
    return logsumexp(part.logits.astype(np.float64), axis=1)


def p_norm(part: Observed, fit: Observed, *_) -> NDArray:
    """Highest of the centred logits over their p-norm (Cattelan and Silva 2024, MaxLogit-pNorm).

    p is that of `P_NORMS` with the highest AUROC on the validation set; MCP where none is better there, as they advise.
    """
    p = _fitted_norm(fit)
    return mcp(part) if p is None else _normed(part, p)


def doctor(part: Observed, *_) -> NDArray:
    """log g - log(1 - g), g the sum of squared probabilities: the order of D_alpha (Granese et al. 2021)."""
    log_p = _log_p(part.logits)
    return logsumexp(2 * log_p, axis=1) - logsumexp(log_p + _log_not(log_p), axis=1)


def gen(part: Observed, *_) -> NDArray:
    """Minus the sum of (p (1 - p))^0.1 over at most the 100 most probable classes (Liu, Lochman and Zach 2023)."""
    log_p = _log_p(part.logits)
    terms = np.exp(GEN_GAMMA * (log_p + _log_not(log_p)))
    top = np.argsort(-log_p, axis=1)[:, :GEN_CLASSES]
    return -np.take_along_axis(terms, top, axis=1).sum(1)


def class_accuracy(part: Observed, fit: Observed, *_) -> NDArray:
    """Accuracy on the validation set of the class that is predicted, in [0, 1]: a lookup table of K numbers.

    With n_k validation predictions of class k, r_k of them correct, and accuracy a over all classes,

        (r_k + a) / (n_k + 1)

    that is, one further prediction at the overall accuracy: a class that is never predicted gets a, and a class with 1
    correct prediction of 1 is not ranked above a class with 20 of 20. It knows which classes are difficult and
    nothing about single images: its AUROC within a predicted class is 50 %.
    """
    classes = fit.logits.shape[1]
    count = np.bincount(fit.predicted, minlength=classes)
    correct = np.bincount(fit.predicted, weights=fit.correct, minlength=classes)
    return ((correct + fit.correct.mean()) / (count + 1))[part.predicted]


# --- From the features ---


def trust_score(part: Observed, _, reference: Observed) -> NDArray:
    """log of the distance to the nearest other class over that to the predicted class (Jiang et al. 2018).

    Nearest training samples by label, unfiltered (alpha 0), as ConfidNet runs it; at most `REFERENCE` of them.
    """
    chosen = drawn_reference(len(reference.labels))
    features, labels = reference.features[chosen], reference.labels[chosen]
    distance = np.full((len(part.labels), part.logits.shape[1]), np.inf)
    for label in np.unique(labels):
        distance[:, label] = _neighbours(features[labels == label], part.features, 1)
    own = np.take_along_axis(distance, part.predicted[:, None], 1)[:, 0]
    np.put_along_axis(distance, part.predicted[:, None], np.inf, 1)
    tiny = np.finfo(float).tiny  # a copy of a training sample has distance 0
    return np.log(np.maximum(distance.min(1), tiny)) - np.log(np.maximum(own, tiny))


def knn(part: Observed, _, reference: Observed) -> NDArray:
    """Minus the distance to the k-th nearest training sample, features scaled to length 1 (Sun et al. 2022).

    Among at most `REFERENCE` samples. k is 50, or a quarter of the samples of the smallest class where that is fewer:
    beyond the size of a class, the k-th neighbour of a typical image belongs to another class, and the distance to it
    says how crowded the surroundings are instead of how typical the image is.
    """
    chosen = drawn_reference(len(reference.labels))
    sizes = np.unique(reference.labels[chosen], return_counts=True)[1]
    k = max(1, min(NEIGHBOUR, sizes.min() // 4))
    return -_neighbours(_unit(reference.features[chosen]), _unit(part.features), k)


def mahalanobis(part: Observed, _, reference: Observed) -> NDArray:
    """Minus the squared Mahalanobis distance to the nearest class mean, one covariance (Lee et al. 2018).

    The covariance is shrunk by Ledoit and Wolf's rule, so that it can be inverted; at most `REFERENCE` samples.
    """
    from sklearn.metrics import pairwise_distances_argmin_min

    means, whiten = _class_normals(reference)
    _, squared = pairwise_distances_argmin_min(part.features @ whiten, means @ whiten, metric="sqeuclidean")
    return -squared


# --- From further passes ---


def mc_dropout_logits(part: Observed, *_) -> NDArray:
    """Negative entropy of the softmax of the mean logits over dropout passes, as ConfidNet computes it.

    It is evaluated on the prediction made without dropout, as every other score is. ConfidNet evaluates it on the
    prediction of the mean over the passes, whose accuracy is another.
    """
    return _negative_entropy(_log_p(part.passes.mean(0, dtype=np.float64)))


def mc_dropout_probs(part: Observed, *_) -> NDArray:
    """Mean probability over dropout passes of the prediction made without dropout, as log-odds.

    Gal and Ghahramani 2016; there the prediction is that of the mean over the passes.
    """
    return _log_odds(part.passes, part.predicted)


def ensemble(part: Observed, *_) -> NDArray:
    """The mean probability that the members give to the first one's prediction, as log-odds (Lakshminarayanan 2017)."""
    return _log_odds(part.members, part.predicted)


# --- Learned on the features ---


def linear(part: Observed, fit: Observed, reference: Observed, *, loss: str, **hyper: float) -> NDArray:
    """z of a linear probe on the standardised features, trained with one of the losses (z > 0: trusted).

    This is an oracle with a frozen backbone, the classifier's own. The head is the paper's: signed distance (Eq. 7) for
    the steep slope loss (slopes 1 and 3), else linear with a weight decay of `WEIGHT_DECAYS`. Full batch, L-BFGS, at
    most `REFERENCE` samples. The steep slope loss is not convex: it starts from the solution of cross entropy as well
    as from a small random weight. Of the weight decays, or of these two starts, the one with the highest AUROC on the
    validation set is kept.

    A low AUROC of the steep slope loss need not be a failure of the minimisation. With a weight of length 1 the spread
    of z is fixed, and where the share e of incorrect predictions is low, the loss is lowest as the bias grows without
    bound: all are trusted, the loss is e (exp(alpha_neg) - exp(-alpha_neg)), and the order of z is arbitrary.
    """
    mean, scale, weight, bias = _fitted_linear(loss, fit, reference, **hyper)
    return (part.features.astype(np.float64) - mean) / scale @ weight + bias


def mlp(part: Observed, fit: Observed, reference: Observed) -> NDArray:
    """z of an MLP probe on the standardised features, trained with cross entropy (z > 0: trusted).

    Two hidden layers of `MLP_WIDTHS` with ReLU, trained by AdamW for `MLP_EPOCHS` epochs of at most `REFERENCE` samples
    from a fixed seed; the weight decay is that of `MLP_WEIGHT_DECAYS` with the highest AUROC on the validation set.
    """
    mean, scale, net = _fitted_mlp(fit, reference)
    return _z_of(net, (part.features.astype(np.float64) - mean) / scale)


# --- The table ---


@dataclass(frozen=True)
class Score:
    """An entry of `SCORES`.

    label : its name in tables
    function : ``(part, fit, reference) -> float64 (N,)``
    needs : what must be there: "passes" and "members" of the part, "features" of all, correct and incorrect
        predictions in the validation ("heldout_errors") or the training set ("train_errors"), a temperature that fits
        the former
    group : of `GROUPS`, what it is made of
    has_zero : whether 0 is a threshold, a prediction above it being more likely right than wrong
    log_odds : whether it is the log-odds of a probability of being right
    of_softmax : whether the class probabilities alone determine it, whichever logits they are of
    """

    label: str
    function: Callable[..., NDArray]
    needs: tuple[str, ...] = ()
    group: str = "softmax"
    has_zero: bool = False
    log_odds: bool = False
    of_softmax: bool = False

    def missing(self, part: Observed, fit: Observed, reference: Observed) -> str:
        """Why it cannot be computed of these, or an empty text."""
        for need in self.needs:
            if need.endswith("_errors"):
                name, seen = ("validation", fit) if need == "heldout_errors" else ("training", reference)
                if seen.correct.all() or not seen.correct.any():
                    return f"all {len(seen.correct)} predictions on the {name} set are of one kind"
            elif need == "temperature":
                try:
                    fitted_temperature(fit)
                except ValueError as error:
                    return str(error)
            elif any(
                getattr(seen, need) is None for seen in ([part, fit, reference] if need == "features" else [part])
            ):
                return f"there are no {need}"
        return ""


GROUPS = {  # of the rows of a table, in their order
    "softmax": "Softmax and logits",
    "features": "Features",
    "ensemble": "Ensembles",
    "probe": "Oracles, backbone frozen",
    "oracle": "Oracles, fine-tuned",  # of a study; no score is one
}
LEARNED = ("features", "heldout_errors", "train_errors")

SCORES = {
    "mcp": Score("MCP", mcp, has_zero=True, log_odds=True, of_softmax=True),
    "temperature": Score(
        "Temperature-scaled MCP",
        temperature,
        ("heldout_errors", "temperature"),
        has_zero=True,
        log_odds=True,
        of_softmax=True,
    ),
    "margin": Score("Margin", margin, of_softmax=True),
    "entropy": Score("Negative entropy", entropy, of_softmax=True),
    "max_logit": Score("Max logit", max_logit),
    "energy": Score("Energy", energy),
    "p_norm": Score("MaxLogit-pNorm", p_norm, ("heldout_errors",)),
    "doctor": Score("DOCTOR", doctor, of_softmax=True),
    "gen": Score("GEN", gen, of_softmax=True),
    "class_accuracy": Score("Accuracy of the predicted class", class_accuracy, ("heldout_errors",), of_softmax=True),
    "trust_score": Score("TrustScore", trust_score, ("features",), "features"),
    "knn": Score("k nearest neighbours", knn, ("features",), "features"),
    "mahalanobis": Score("Mahalanobis", mahalanobis, ("features",), "features"),
    "mc_dropout_logits": Score("MC dropout, mean logits", mc_dropout_logits, ("passes",), "ensemble"),
    "mc_dropout_probs": Score(
        "MC dropout, mean probability", mc_dropout_probs, ("passes",), "ensemble", has_zero=True, log_odds=True
    ),
    "ensemble": Score("Ensemble", ensemble, ("members",), "ensemble", has_zero=True, log_odds=True),
    "linear_ce": Score("Linear probe, CE", partial(linear, loss="ce"), LEARNED, "probe", has_zero=True),
    "linear_focal": Score("Linear probe, focal", partial(linear, loss="focal"), LEARNED, "probe", has_zero=True),
    "linear_tcp": Score("Linear probe, TCP", partial(linear, loss="tcp"), LEARNED, "probe", has_zero=True),
    "linear_ss": Score("Linear probe, SS", partial(linear, loss="ss"), LEARNED, "probe", has_zero=True),
    "linear_cb": Score(
        "Linear probe, class-balanced", partial(linear, loss="cb", beta=0.99999), LEARNED, "probe", has_zero=True
    ),
    "mlp_ce": Score("MLP probe, CE", mlp, LEARNED, "probe", has_zero=True),
}


def all_scores(part: Observed, fit: Observed, reference: Observed) -> dict[str, NDArray]:
    """Every score of `SCORES` whose inputs are there, in its order."""
    return {
        name: score.function(part, fit, reference)
        for name, score in SCORES.items()
        if not score.missing(part, fit, reference)
    }


# --- Fits, each made once for a part ---


@lru_cache(maxsize=4)
def fitted_temperature(fit: Observed) -> float:
    """The temperature > 0 that minimises the NLL of the labels.

    Raises
    ------
    ValueError : when there is none between exp(-6) and exp(6): a classifier that is always right, or no better than
        chance.
    """

    def nll(log_t: float) -> float:
        log_p = log_softmax(fit.logits.astype(np.float64) * np.exp(-log_t), axis=1)
        return -np.take_along_axis(log_p, fit.labels[:, None], 1).mean()

    found = minimize_scalar(nll, bounds=LOG_TEMPERATURES, method="bounded", options={"xatol": 1e-6})
    if fit.correct.all() or not found.success or min(abs(found.x - end) for end in LOG_TEMPERATURES) < 1e-3:
        raise ValueError(
            f"temperature: no finite temperature minimises the NLL of these {len(fit.labels)} samples "
            f"({fit.correct.mean():.2%} right; log T ran to {found.x:.2f})"
        )
    return float(np.exp(found.x))


@lru_cache(maxsize=4)
def _fitted_norm(fit: Observed) -> int | None:
    auroc = {p: metrics.evaluate(_normed(fit, p), fit.correct)["auroc"] for p in P_NORMS}
    best = max(auroc, key=auroc.get)
    return best if auroc[best] > metrics.evaluate(mcp(fit), fit.correct)["auroc"] else None


@lru_cache(maxsize=4)
def _class_normals(reference: Observed) -> tuple[NDArray, NDArray]:
    """Class means (classes, d) and a matrix (d, d) that makes their common covariance the identity."""
    from sklearn.covariance import LedoitWolf

    chosen = drawn_reference(len(reference.labels))
    x, labels = reference.features[chosen].astype(np.float64), reference.labels[chosen]
    classes, member = np.unique(labels, return_inverse=True)
    means = np.stack([x[member == k].mean(0) for k in range(len(classes))])
    precision = np.linalg.inv(LedoitWolf(assume_centered=True).fit(x - means[member]).covariance_)
    return means, np.linalg.cholesky(precision)


@lru_cache(maxsize=16)
def _fitted_linear(
    loss: str, fit: Observed, reference: Observed, **hyper: float
) -> tuple[NDArray, NDArray, NDArray, float]:
    """(mean (d,), scale (d,), weight (d,), bias) of the linear probe that ranks the validation set best."""
    from torch import from_numpy

    chosen = drawn_reference(len(reference.labels))
    x = reference.features[chosen].astype(np.float64)
    mean, scale = x.mean(0), np.maximum(x.std(0), 1e-6)
    correct = from_numpy(reference.correct[chosen])
    entry = losses.LOSSES[loss]
    target = correct
    if entry.target == "p_true":
        log_p = _log_p(reference.logits[chosen])
        target = from_numpy(np.exp(np.take_along_axis(log_p, reference.labels[chosen][:, None], 1)[:, 0]))
    function = partial(entry.function, **hyper, **entry.counted(correct))
    x = from_numpy((x - mean) / scale)
    heldout = (fit.features.astype(np.float64) - mean) / scale
    if entry.head == "distance":  # a signed distance does not know the weight's length: no decay
        *_, of_ce, bias = _fitted_linear("ce", fit, reference)
        small = _small_start(x.shape[1])
        fits = [_minimise(function, x, target, 0.0, start, distance=True) for start in (small, (of_ce, bias))]
    else:
        start = _small_start(x.shape[1])
        fits = [_minimise(function, x, target, decay, start) for decay in WEIGHT_DECAYS]
    aurocs = [metrics.evaluate(heldout @ weight + bias, fit.correct)["auroc"] for weight, bias in fits]
    return mean, scale, *fits[int(np.argmax(aurocs))]


def _small_start(features: int) -> tuple[NDArray, float]:
    """A weight (d,) near 0, the same every time, and a bias of 0."""
    import torch

    draw = torch.Generator().manual_seed(0)
    return 0.01 * torch.randn(features, generator=draw, dtype=torch.float64).numpy(), 0.0


def _minimise(
    loss: Callable,
    x: Tensor,
    target: Tensor,
    decay: float,
    start: tuple[NDArray, float],
    *,
    distance: bool = False,
) -> tuple[NDArray, float]:
    """Weight (d,) and bias that minimise the mean loss of z plus decay ||weight||^2 / 2, by L-BFGS from a start."""
    import torch

    weight, bias = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in start)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def head() -> tuple[Tensor, Tensor]:
        length = weight.norm() if distance else 1.0
        return weight / length, bias / length

    def closure() -> Tensor:
        optimizer.zero_grad()
        w, b = head()
        value = loss(x @ w + b, target).mean() + decay / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(closure)
    w, b = head()
    return w.detach().numpy(), b.item()


@lru_cache(maxsize=4)
def _fitted_mlp(fit: Observed, reference: Observed) -> tuple[NDArray, NDArray, nn.Module]:
    """(mean (d,), scale (d,), network) of the MLP probe that ranks the validation set best."""
    import torch
    from torch import nn

    from . import training

    chosen = drawn_reference(len(reference.labels))
    x, target = reference.features[chosen].astype(np.float64), torch.from_numpy(reference.correct[chosen])
    mean, scale = x.mean(0), np.maximum(x.std(0), 1e-6)
    seen = Features({"train": torch.from_numpy((x - mean) / scale).float()[None]}, {"train": target})
    heldout, nets, aurocs = (fit.features.astype(np.float64) - mean) / scale, [], []
    for decay in MLP_WEIGHT_DECAYS:
        torch.manual_seed(0)
        first, second = MLP_WIDTHS
        net = nn.Sequential(
            nn.Linear(x.shape[1], first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 1),
            nn.Flatten(0),
        )  # fmt: skip
        recipe = Recipe(
            epochs=MLP_EPOCHS, batch=min(MLP_BATCH, len(chosen)), rate=MLP_LEARNING_RATE, weight_decay=decay
        )
        training.train(net, seen, target, losses.cross_entropy, recipe, log=lambda _: None)
        nets.append(net.eval())
        aurocs.append(metrics.evaluate(_z_of(net, heldout), fit.correct)["auroc"])
    return mean, scale, nets[int(np.argmax(aurocs))]


def _z_of(net: nn.Module, x: NDArray) -> NDArray[np.float64]:
    import torch

    with torch.inference_mode():
        return net(torch.from_numpy(x).float()).double().numpy()


# --- Pieces ---


def _log_p(logits: NDArray) -> NDArray[np.float64]:
    return log_softmax(logits.astype(np.float64), axis=-1)


def _log_not(log_p: NDArray) -> NDArray:
    """log(1 - p) of each class (N, K); of the most probable one as the sum of the others."""
    small = np.log1p(-np.exp(np.minimum(log_p, -0.5)))  # only the most probable can exceed -0.5, and is replaced
    top = log_p.argmax(1)[:, None]
    others = log_p.copy()
    np.put_along_axis(others, top, -np.inf, 1)
    rest = logsumexp(others, axis=1)
    np.put_along_axis(small, top, rest[:, None], 1)
    return small


def _log_odds(logits: NDArray, predicted: NDArray) -> NDArray:
    """log of the mean probability of a class over that of all others: logits (T, N, K), classes (N,) to (N,)."""
    log_p = _log_p(logits)
    index = np.broadcast_to(predicted[:, None], (*log_p.shape[:2], 1))
    own = np.take_along_axis(log_p, index, -1)[..., 0]
    others = log_p.copy()
    np.put_along_axis(others, index, -np.inf, -1)
    return logsumexp(own, axis=0) - logsumexp(others, axis=(0, 2))


def _negative_entropy(log_p: NDArray) -> NDArray:
    return (np.exp(log_p) * log_p).sum(-1)


def _normed(part: Observed, p: int) -> NDArray:
    z = part.logits.astype(np.float64)
    z = z - z.mean(1, keepdims=True)
    return z.max(1) / np.maximum(np.linalg.norm(z, ord=p, axis=1), np.finfo(float).tiny)


def _unit(x: NDArray) -> NDArray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _neighbours(reference: NDArray, queries: NDArray, k: int) -> NDArray[np.float64]:
    """Distance from each query to its k-th nearest of the reference; scikit-learn works through it in chunks."""
    from sklearn.neighbors import NearestNeighbors

    if k > len(reference):
        raise ValueError(f"knn: the {k}-th neighbour is asked for, there are {len(reference)} samples")
    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(reference)
    return search.kneighbors(queries)[0][:, -1].astype(np.float64)
