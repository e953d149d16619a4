"""The table of scores: what each is called, what it needs, what it can say."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from numpy.typing import NDArray

from . import probes, scores
from .observed import Observed


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
                    scores.fitted_temperature(fit)
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
    "mcp": Score("MCP", scores.mcp, has_zero=True, log_odds=True, of_softmax=True),
    "temperature": Score(
        "Temperature-scaled MCP",
        scores.temperature,
        ("heldout_errors", "temperature"),
        has_zero=True,
        log_odds=True,
        of_softmax=True,
    ),
    "margin": Score("Margin", scores.margin, of_softmax=True),
    "entropy": Score("Negative entropy", scores.entropy, of_softmax=True),
    "max_logit": Score("Max logit", scores.max_logit),
    "energy": Score("Energy", scores.energy),
    "p_norm": Score("MaxLogit-pNorm", scores.p_norm, ("heldout_errors",)),
    "doctor": Score("DOCTOR", scores.doctor, of_softmax=True),
    "gen": Score("GEN", scores.gen, of_softmax=True),
    "class_accuracy": Score(
        "Accuracy of the predicted class", scores.class_accuracy, ("heldout_errors",), of_softmax=True
    ),
    "trust_score": Score("TrustScore", scores.trust_score, ("features",), "features"),
    "knn": Score("k nearest neighbours", scores.knn, ("features",), "features"),
    "mahalanobis": Score("Mahalanobis", scores.mahalanobis, ("features",), "features"),
    "mc_dropout_logits": Score("MC dropout, mean logits", scores.mc_dropout_logits, ("passes",), "ensemble"),
    "mc_dropout_probs": Score(
        "MC dropout, mean probability", scores.mc_dropout_probs, ("passes",), "ensemble", has_zero=True, log_odds=True
    ),
    "ensemble": Score("Ensemble", scores.ensemble, ("members",), "ensemble", has_zero=True, log_odds=True),
    "linear_ce": Score("Linear probe, CE", partial(probes.linear, loss="ce"), LEARNED, "probe", has_zero=True),
    "linear_focal": Score("Linear probe, focal", partial(probes.linear, loss="focal"), LEARNED, "probe", has_zero=True),
    "linear_tcp": Score("Linear probe, TCP", partial(probes.linear, loss="tcp"), LEARNED, "probe", has_zero=True),
    "linear_ss": Score("Linear probe, SS", partial(probes.linear, loss="ss"), LEARNED, "probe", has_zero=True),
    "linear_cb": Score(
        "Linear probe, class-balanced", partial(probes.linear, loss="cb", beta=0.99999), LEARNED, "probe", has_zero=True
    ),
    "mlp_ce": Score("MLP probe, CE", probes.mlp, LEARNED, "probe", has_zero=True),
}


def all_scores(part: Observed, fit: Observed, reference: Observed) -> dict[str, NDArray]:
    """Every score of `SCORES` whose inputs are there, in its order."""
    return {
        name: score.function(part, fit, reference)
        for name, score in SCORES.items()
        if not score.missing(part, fit, reference)
    }
