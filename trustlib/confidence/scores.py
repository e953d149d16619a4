"""Scores from a classifier's logits, its features, and further passes.

Each is a function ``(part, fit, reference) -> float64 (N,)``, higher = more to be trusted (`table.SCORES` lists them).

Probabilities near 1 are told apart by what they lack: scores are written in log-odds, or from the sum of the *other*
classes' probabilities, so that float64 ties nothing that the logits keep apart. A score in log-odds trusts above 0.

scikit-learn, which takes a second, is imported by the scores that use it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp

from .. import metrics
from .observed import Observed, drawn_reference

NEIGHBOUR = 50  # k of the k-th neighbour, as for CIFAR in Sun et al. 2022, unless the classes are small
P_NORMS = range(1, 11)
GEN_GAMMA, GEN_CLASSES = 0.1, 100
LOG_TEMPERATURES = (-6.0, 6.0)


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
