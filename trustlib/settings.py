"""The parts of a study's YAML, each checked: networks, methods, ablations, distribution shifts (`trustlib.study`)."""

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from . import data, losses, released
from .recipe import Recipe
from .shifts import corruptions, names


class Strict(BaseModel):
    """Settings without surprises: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Slides(Strict):
    """The steep slope loss's two slopes."""

    alpha_pos: float = Field(gt=0)
    alpha_neg: float = Field(gt=0)

    @property
    def chance(self) -> float:
        """Of being right, above which the loss's minimiser is positive (`losses.steep_slope_optimum`)."""
        return self.alpha_neg / (self.alpha_pos + self.alpha_neg)


class Network(Strict):
    """A backbone: as a classifier, how it is trained or where its weights are; as an oracle, its steep slopes."""

    label: str  # as in the paper: ViT, RSN
    model: str  # a name in timm, or of `models.confidnet` or `models.cifar`
    args: dict[str, Any] = {}
    seed: int = 0  # added to the seeds of its classifiers: networks that are alike in all else are trainings of one
    training: Recipe | None = None
    weights: str | None = None  # instead of a training, see `trustlib.models.pretrained`
    inputs: dict[str, Any] = {}  # with weights: what differs from the model's own, see `trustlib.data.Inputs`
    steep_slope: Slides
    oracle: dict[str, Any] = {}  # what differs from the study's recipe in the training of its oracles

    @model_validator(mode="after")
    def _either(self):
        if (self.training is None) == (self.weights is None):
            raise ValueError("a network has either training, a recipe, or weights, a place to find them")
        known = [field.name for field in dataclasses.fields(data.Inputs)]
        for name in self.inputs:
            if self.weights is None or name not in known:
                raise ValueError(
                    f"inputs: a trained network has no {name!r}{nearest(name, known)}"
                    if self.weights
                    else "inputs go with weights; a network that is trained here sees the images standardised"
                )
        return self


class Method(Strict):
    """One way to train an oracle: a loss, its form, a head."""

    label: str
    loss: str
    head: Literal["linear", "distance", "mlp", "mlp-distance"]
    form: Literal["corrected", "released"] = "corrected"
    hyper: dict[str, float] = {}
    labels: Literal["train", "heldout", "crossfit"] = "train"  # see `runs.steps.oracle`
    training: dict[str, Any] = {}  # what differs from the study's recipe; a rate given here is not tuned
    backbone: Literal["trained", "frozen"] = "trained"  # frozen: the backbone is frozen, from cached features
    start: str | None = None  # the method whose oracle, of the same seed, it starts from; by default its classifier
    keep_last: bool = True  # of the oracle it starts from, the last layer too
    rate_of: str | None = None  # the method whose tuned learning rate it takes, in an ablation; its own by default

    @model_validator(mode="after")
    def _known(self):
        if self.loss not in losses.LOSSES:
            raise ValueError(f"unknown loss {self.loss!r}{nearest(self.loss, losses.LOSSES)}")
        if self.form == "released" and self.loss not in released.LOSSES:
            raise ValueError(f"loss {self.loss!r} has no released form; those that have: {', '.join(released.LOSSES)}")
        counts = ("n_correct", "n_wrong") if losses.LOSSES[self.loss].counts else ()
        _, _, *known = (name for name in inspect.signature(self.loss_function).parameters if name not in counts)
        for name in self.hyper:
            if name not in known:
                raise ValueError(f"hyper: loss {self.loss!r} has no {name!r}{nearest(name, known or ['none'])}")
        return self

    @property
    def loss_function(self) -> Callable[..., Any]:
        """The loss in the method's form, ``(z, target, **hyper) -> tensor``."""
        return released.LOSSES[self.loss] if self.form == "released" else losses.LOSSES[self.loss].function


class Ablation(Strict):
    """One question of the ablations, and the methods whose comparison answers it."""

    question: str
    pairs: list[str] = Field(min_length=1)
    methods: list[str] = Field(min_length=1)
    against: str | None = None  # the method that the others are compared with


class Ablations(Strict):
    """Ablations: methods trained at the study's learning rate, or each at its own, chosen on validation images."""

    rates: list[float] = []  # tried for every method with the first seed, more where the best is at an edge; or none
    seeds: list[int] = []
    tuning: int = Field(default=0, ge=0)  # the last validation images choose a rate; the others may teach an oracle
    folds: int = Field(default=5, ge=2)  # of the training set, for cross-fitted labels
    networks: dict[str, Network] = {}  # beside the study's
    methods: dict[str, Method] = {}  # beside the study's
    questions: dict[str, Ablation] = {}

    @model_validator(mode="after")
    def _enough(self):
        if self.questions and (len(self.seeds) < 2 or len(self.rates) == 1 or not self.tuning):
            raise ValueError("ablations need seeds, at least two, rates, two or none, and tuning, a number of images")
        return self


class Domains(Strict):
    """Distribution shifts (`trustlib.shifts.names`), all made of the first images of the test set."""

    judged: list[str] = []  # those the report speaks of
    images: int = Field(default=2000, ge=1)
    attacked: int = Field(default=1000, ge=1)  # of them, where an attack takes a hundred steps an image
    swept: list[str] = []  # corruptions that are made at every severity, for the curves against it
    sweep_images: int = Field(default=1000, ge=1)

    @model_validator(mode="after")
    def _known(self):
        for name in self.judged:
            names.parse(name)
        for name in self.swept:
            corruptions.check(name, corruptions.SEVERITIES[0])
        return self

    @property
    def sweep(self) -> dict[str, list[str]]:
        """corruption -> its part at every severity, mildest first."""
        return {name: [f"sweeps/{name}-{s}" for s in corruptions.SEVERITIES] for name in self.swept}

    @property
    def parts(self) -> dict[str, str]:
        """Domain -> its part, as the files and the results of `runs` name it."""
        return {name: f"domains/{name}" for name in self.judged}

    def size(self, part: str) -> int:
        """How many images a part has."""
        folder, _, name = part.partition("/")
        if folder == "sweeps":
            return self.sweep_images
        return min(self.attacked, self.images) if names.parse(name).kind == names.RECOLOR else self.images


def nearest(name: str, known: Iterable[str]) -> str:
    """What to add to "unknown X": the nearest known name, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
