"""Several confidences as one: a logistic regression fitted on validation images."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit


def combined(fitted: Sequence[NDArray], correct: NDArray[np.bool_], scores: Sequence[NDArray]) -> NDArray[np.float64]:
    """Log-odds of a logistic regression on several scores, standardised.

    Parameters
    ----------
    fitted : scores, float (M,) each, of the images that the regression is fitted on.
    correct : bool (M,), of these images.
    scores : the same scores of the images to be scored, float (N,) each.

    Returns
    -------
    float64 (N,)
    """
    from sklearn.linear_model import LogisticRegression  # here, since scikit-learn takes seconds
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression())
    return model.fit(np.stack(fitted, axis=1), correct).decision_function(np.stack(scores, axis=1))


def with_mcp(z: Mapping[str, NDArray], mcp: Mapping[str, NDArray], correct: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Log-odds of a logistic regression on an oracle's ``z`` and MCP's log-odds, float64 (S, N).

    Fitted on the validation set, seed by seed; each input is standardised there, the penalty is scikit-learn's. If it
    ranks better than MCP, the oracle knows something that MCP does not.

    Parameters
    ----------
    z, mcp : of the validation set, "heldout", and of "test"; float (S, N), and (N,) in [0, 1].
    correct : bool (N,), of the predictions on the validation set; both kinds.
    """
    z = {split: values.astype(np.float64) for split, values in z.items()}
    odds = {split: logit(values.astype(np.float64).clip(1e-15, 1 - 1e-15)) for split, values in mcp.items()}
    seeds = zip(z["heldout"], z["test"], strict=True)
    return np.stack([combined([a, odds["heldout"]], correct, [b, odds["test"]]) for a, b in seeds])
