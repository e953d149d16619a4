"""What a classifier was seen to do on one split: what every confidence that needs no oracle is computed of."""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

REFERENCE = 100_000  # training samples looked at, at most: a seeded draw of a larger set


@dataclass(frozen=True, eq=False)
class Observed:
    """What a classifier was seen to do on one part; arrays, or what NumPy makes arrays of: lists, tables, tensors.

    logits : float (N, K), N >= 1, K >= 2
    labels : int (N,) in 0 .. K - 1
    features : float (N, d), penultimate, or None
    passes : float (T, N, K), logits of T passes with dropout left on, or None
    members : float (M, N, K), logits of an ensemble, M >= 2, the classifier itself first, or None

    Raises
    ------
    ValueError : for another rank, lengths that differ, labels out of range, and what is not finite or no number.
    """

    logits: NDArray
    labels: NDArray
    features: NDArray | None = None
    passes: NDArray | None = None
    members: NDArray | None = None

    def __post_init__(self):
        for field in fields(self):
            object.__setattr__(self, field.name, _array(field.name, getattr(self, field.name)))
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


def _array(name: str, values: Any) -> NDArray | None:
    """Numbers as an array; of a torch tensor too, wherever it lies."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values  # which NumPy does not have
    if values is None:
        return None
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"expected {name} to be an array of numbers, found {type(values).__name__} of {array.dtype}")
    return array


def drawn_reference(n: int) -> NDArray[np.int64]:
    """Which of n training samples serve as reference: all, or a seeded draw of `REFERENCE`, ascending."""
    return np.arange(n) if n <= REFERENCE else np.sort(np.random.default_rng(0).choice(n, REFERENCE, replace=False))
