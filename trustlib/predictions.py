"""Predictions of one classifier: which are correct, and how much each of several confidences trusts each of them.

Every analysis takes them, whoever made them: the run of a study, what a study has published, or a file of your own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Predictions:
    """N predictions and their confidences.

    correct : bool (N,)
    confidence : name -> float (S, N), one row per training seed, higher = more trusted; MCP is the baseline of
        comparisons. A confidence that is not trained has one row.
    threshold : name -> a prediction is trusted where its confidence lies above; a confidence without one is left out
    seeds : name -> the S training seeds; left out where there is one row
    predicted : the class of each prediction, int (N,), where it is known
    """

    correct: NDArray[np.bool_]
    confidence: dict[str, NDArray]
    threshold: Mapping[str, float] = field(default_factory=dict)
    seeds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    predicted: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.correct)

    @property
    def has_both(self) -> bool:
        """Whether some predictions are correct and some are not; else there is nothing to rank."""
        return bool(self.correct.any() and not self.correct.all())

    def threshold_of(self, name: str) -> float:
        """The threshold of a confidence, NaN without one."""
        return self.threshold.get(name, np.nan)

    def seeds_of(self, name: str) -> tuple[int, ...]:
        """The training seed of each row of a confidence; 0 of one that is not trained."""
        return self.seeds.get(name, (0,))

    def rows(self) -> Iterable[tuple[str, int, NDArray]]:
        """(name, seed, confidence (N,)), one after the other."""
        for name, values in self.confidence.items():
            yield from ((name, seed, row) for seed, row in zip(self.seeds_of(name), values, strict=True))

    def of_seed(self, seed: int) -> dict[str, NDArray]:
        """name -> confidence (N,), of one training seed and of all that is not trained."""
        return {name: row for name, of, row in self.rows() if of == seed or name not in self.seeds}

    def first(self, count: int | None) -> "Predictions":
        """Those of the first `count` images; all of them for None."""
        confidence = {name: values[:, :count] for name, values in self.confidence.items()}
        predicted = None if self.predicted is None else self.predicted[:count]
        return replace(self, correct=self.correct[:count], confidence=confidence, predicted=predicted)
