"""The results of a study as `Predictions`: of its run, or of what it has published.

`Run` and `Published` answer the same questions, so that every table of the report is computed from either by the same
functions (`trustlib.analysis`). Neither needs a model, and nothing is trained.
"""

import hashlib
from collections.abc import Callable
from functools import cached_property
from itertools import product

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import confidence, data
from ..predictions import Predictions
from ..stats import resampling
from ..study import Study
from . import outputs, shifted, steps, store, tuning
from .jobs import JobError
from .provenance import source_digest
from .publication import CURVES, check_oracles, published_curves, published_manifest
from .store import Log, Made, Step

SPLITS = ("train", "heldout", "test")


def of(study: Study, source: str) -> "Run | Published":
    """The results of a study: of its "run", or those that it has "published"."""
    return Published(study) if source == "published" else Run(study)


class Run:
    """What a study's run has made so far."""

    is_published = False

    def __init__(self, study: Study):
        self.study = study
        self._predictions: dict[tuple[str, str], Predictions | None] = {}

    @property
    def classes(self) -> int:
        """How many classes the predictions are of."""
        return len(self.study.images().classes)

    @property
    def channels(self) -> int:
        """Of the images: 1 where they are grey."""
        return self.study.images().channels

    @property
    def images(self) -> dict:
        """Of the image set: source, where it is from; counts, images by split; sha256 of its files."""
        images = self.study.images()
        counts = {split: len(labels) for split, labels in images.labels.items()}
        return {"source": images.source, "counts": counts, "sha256": images.checksums}

    def table(self, name: str, compute: Callable[["Run"], pd.DataFrame], digits: str | None = "%.6g") -> pd.DataFrame:
        """A table of the report, computed and written as tables/NAME.csv; digits: of a number, None for all."""
        frame = compute(self).reset_index(drop=True)
        store.write_table(self.study, name, frame, digits)
        return frame

    def runs(self) -> list[dict]:
        """`Step.row` of every training of the study, its ablations and its distribution shifts, each once."""
        own = [step.row() for step in steps.planned(self.study)]
        named = {row["run"] for row in own}
        others = [row for row in tuning.rows(self.study) if row["run"] not in named]
        return own + others + [step.row() for step in shifted.planned(self.study)]

    def provenances(self) -> list[dict]:
        """What made the trainings, each kind once (`provenance.provenance`)."""
        made = [row["provenance"] for row in self.runs() if row["status"] == "done"]
        return [one for i, one in enumerate(made) if one not in made[:i]]

    def shift(self, part: str, network: str) -> dict:
        """What is recorded of how the images of a distribution shift were made, empty where they were not."""
        return shifted.images(self.study, part, network).manifest or {}

    def predictions(self, pair: str, split: str = "test") -> Predictions | None:
        """The predictions of a pair's classifier with every confidence of them that exists; None without a classifier.

        The classifier's own scores come first, MCP before all, then the oracles of the study's methods.
        """
        if (pair, split) not in self._predictions:
            self._predictions[pair, split] = self._read(pair, split)
        return self._predictions[pair, split]

    def _read(self, pair: str, split: str) -> Predictions | None:
        study = self.study
        if not outputs.has_classifier(study, pair, split):
            return None
        own = outputs.own_scores(study, study.pair(pair)[1], split)
        predicted = outputs.predicted(study, pair, split) if split in data.PARTS else None
        z = outputs.of_all_oracles(study, pair, split)
        return assembled(study, outputs.correct(study, pair, split), own, z, predicted)

    has_heads = True  # on cached features, `runs.heads`: they are fitted where they are missing

    def tuned_outputs(self, pair: str, method: str, split: str = "test") -> NDArray | None:
        """As `tuning.tuned_outputs`."""
        return tuning.tuned_outputs(self.study, pair, method, split)

    def learning_rate(self, pair: str, method: str) -> float | None:
        """The learning rate chosen for a method, see `tuning.tuning`."""
        return tuning.tuning(self.study, pair, method).rate

    def budget(self, pair: str, method: str) -> dict[str, int] | None:
        """As `Study.budget`."""
        return self.study.budget(pair, method, len(self.study.images().labels["train"]))

    def parameters(self, pair: str, method: str) -> int | None:
        """How many parameters of the method's oracles are trained; None until the first one is."""
        manifest = self.manifest(pair, method, self.study.seeds[0])
        return manifest["parameters"] if manifest else None

    def on_training(self, pair: str, method: str) -> dict[str, NDArray] | None:
        """`outputs.fit` on the training images for every seed: name -> float64 (S,); None until all are trained.

        At the study's one learning rate for its own methods, at the tuned one for those of an ablation alone.
        """
        ablations = self.study.ablations
        seeds, rate = self.study.seeds, None
        if method in ablations.methods:
            seeds, rate = ablations.seeds, self.learning_rate(pair, method)
        rows = [outputs.fit(self.study, pair, method, seed, "train", rate=rate) for seed in seeds]
        complete = [row for row in rows if row is not None]
        if len(complete) < len(rows):
            return None
        return {name: np.array([row[name] for row in complete]) for name in complete[0]}

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Every method and budget of the budget ablations whose seeds are all trained, on each split.

        One row per pair, method, seed and split ("train": up to 10,000 of the oracle's own training images): loss,
        lr, steps, epochs, images; auroc, and tpr and tnr at z = 0, fractions; mcp, the AUROC of MCP on the same
        images. Of a study without the ablation, the published one that its ``budget_from`` names; empty where there
        is none. The study's own methods are a rung of its ladder where all are trained at the study's learning rate.
        """
        study = self.study
        ladder = [ablation for name, ablation in study.ablations.questions.items() if name.startswith("budget")]
        if not ladder:
            return published_curves(study, study.budget_from)
        methods = [(pair, arm) for ablation in ladder for pair in ablation.pairs for arm in ablation.methods]
        if not study.ablations.rates:
            compared = {study.method(arm).loss for _, arm in methods}
            own = [arm for arm in study.one_a_loss if study.method(arm).loss in compared]
            methods += product(dict.fromkeys(pair for pair, _ in methods), own)
        rows = [row for pair, arm in methods for row in self._rungs(pair, arm)]
        return pd.DataFrame(rows, columns=CURVES).sort_values("pair", kind="stable", ignore_index=True)

    def _rungs(self, pair: str, method: str) -> list[dict]:
        """The rows of `curves` of one method and budget; none until all its seeds are trained."""
        study, lr = self.study, self.learning_rate(pair, method)
        shared = {"pair": pair, "loss": study.method(method).loss, "arm": method, "lr": lr, **self.budget(pair, method)}
        rows = []
        for seed, split in product(study.ablations.seeds, SPLITS):
            fit = None if lr is None else outputs.fit(study, pair, method, seed, split, rate=lr)
            if fit is None:
                return []
            rows.append(shared | {"seed": seed, "split": split, **fit})
        return rows

    def manifest(self, pair: str, method: str, seed: int, *, rate: float | None = None) -> dict | None:
        """What is recorded of the training of an oracle; None until it is trained."""
        return steps.oracle(self.study, pair, method, seed, rate).manifest

    def head_weights(self, pair: str, method: str) -> dict[int, Tensor]:
        """The last layer's weights of a method's oracles at its learning rate, seed -> float32 (1, F)."""
        rate = self.learning_rate(pair, method)
        seeds = self.study.ablations.seeds if rate else []
        trained = {seed: steps.oracle(self.study, pair, method, seed, rate) for seed in seeds}
        return {seed: step.tensors("weights.head.linear.")["weight"] for seed, step in trained.items() if step.is_done}

    def label_sources(self, classifier: str) -> dict[str, NDArray[np.bool_]] | None:
        """As `outputs.label_sources`; None until the classifier is trained."""
        pair = next(pair for pair in self.study.all_pairs if pair.endswith(f"-{classifier}"))
        has = outputs.has_classifier(self.study, pair)
        return outputs.label_sources(self.study, classifier) if has else None

    def resample(self, predictions: Predictions, *, tnr_threshold: float | None = None) -> resampling.Bootstrap:
        """The resampled metrics of all confidences (`resampling.bootstrap`), each computed once and kept on disk.

        All are resampled with one seed, so that confidences of the same images stay paired.
        """
        parts = [self._resampled(one, tnr_threshold) for one in separated(predictions)]
        return resampling.merged(parts)

    def _resampled(self, one: Predictions, tnr_threshold: float | None) -> resampling.Bootstrap:
        (name,) = one.confidence
        content = content_digest(one, tnr_threshold)

        def make(step: Step, log: Log) -> Made:
            boot = bootstrap(one, tnr_threshold)
            tensors = {"estimate": boot.estimate[name], "samples": boot.samples[name]}
            return {key: torch.from_numpy(values) for key, values in tensors.items()}, {}

        settings = {"content": content, "resamples": resampling.RESAMPLES}
        source = source_digest("metrics", "stats.resampling")
        step = Step(store.run_folder(self.study), f"bootstraps/{content}", "bootstrap", settings, source, make)
        tensors = {key: tensor.numpy() for key, tensor in step.get().tensors().items()}
        return resampling.Bootstrap({name: tensors["estimate"]}, {name: tensors["samples"]})


class Published:
    """What a study has published, results/<study>: scores and tables, no trainings.

    manifest : what is recorded of it, results/<study>/manifest.json.

    Raises
    ------
    JobError : when nothing is published, its manifest is damaged, or today's YAML names other oracles.
    """

    is_published = True

    def __init__(self, study: Study):
        self.study, self.manifest = study, published_manifest(study)
        path = store.results() / study.name / "scores.npz"
        if not path.exists():
            raise JobError(f"study {study.name} is not published: there is no {path}")
        with np.load(path, allow_pickle=False) as file:
            self._scores = {name: file[name] for name in file.files}
        check_oracles(study, self._scores)
        self._resamples: dict[str, resampling.Bootstrap] = {}
        self._predictions: dict[tuple[str, str], Predictions | None] = {}

    @property
    def classes(self) -> int:
        """As `Run.classes`."""
        return self.manifest["classes"]

    @property
    def channels(self) -> int:
        """As `Run.channels`."""
        return self.manifest["channels"]

    @property
    def images(self) -> dict:
        """As `Run.images`."""
        return self.manifest["images"]

    def table(
        self, name: str, compute: Callable[["Published"], pd.DataFrame], digits: str | None = None
    ) -> pd.DataFrame:
        """A published table, tables/NAME.csv; where there is none, what follows of it from the published scores."""
        path = store.results() / self.study.name / "tables" / f"{name}.csv"
        if not path.exists():
            return compute(self)
        frame = pd.read_csv(path)
        texts = frame.columns[[not pd.api.types.is_numeric_dtype(values) for values in frame.dtypes]]
        return frame.assign(**{column: frame[column].fillna("") for column in texts})

    def runs(self) -> list[dict]:
        """As `Run.runs`, from tables/runs.csv."""
        return self.table("runs", lambda _: pd.DataFrame()).to_dict("records")

    def provenances(self) -> list[dict]:
        """As `Run.provenances`."""
        return self.manifest["provenance"]

    def shift(self, part: str, network: str) -> dict:
        """As `Run.shift`."""
        names = (f"{part}/images/{network}", f"{part}/images/all")
        return next((self.manifest["runs"][name] for name in names if name in self.manifest["runs"]), {})

    def predictions(self, pair: str, split: str = "test") -> Predictions | None:
        """As `Run.predictions`; None for a split that is not published."""
        if (pair, split) not in self._predictions:
            self._predictions[pair, split] = self._read(pair, split)
        return self._predictions[pair, split]

    def _read(self, pair: str, split: str) -> Predictions | None:
        name, scores = self.study.pair(pair)[1], self._scores
        if split in data.PARTS:
            under = "" if split == "test" else f"{split}."
            of_classifier = f"{name}/seed{self.study.classifier_seeds[0]}.{under}"
            own, z = f"{name}/confidences.{under}", f"{pair}/{{}}/seed{{}}.{under}z"
        else:
            of_classifier = own = f"{split}/{name}."
            z = f"{split}/{pair}.{{}}/seed{{}}"
        if f"{of_classifier}correct" not in scores:
            return None
        confidences = {"mcp": scores[f"{of_classifier}mcp"]}
        others = [key for key in confidence.SCORES if key != "mcp" and own + key in scores]
        confidences |= {key: scores[own + key] for key in others}
        names = {(arm, seed): z.format(arm, seed) for arm, seed in product(self.study.methods, self.study.seeds)}
        oracles = {key: scores[name] for key, name in names.items() if name in scores}
        predicted = scores.get(f"{of_classifier}predicted")
        return assembled(self.study, scores[f"{of_classifier}correct"], confidences, oracles, predicted)

    def tuned_outputs(self, pair: str, method: str, split: str = "test") -> NDArray | None:
        """None: the outputs of ablations are not published."""

    @property
    def has_heads(self) -> bool:
        """As `Run.has_heads`."""
        return (store.results() / self.study.name / "tables" / "heads.csv").exists()

    def budget(self, pair: str, method: str) -> dict[str, int] | None:
        """As `Run.budget`."""
        return self.study.budget(pair, method, self.images["counts"]["train"])

    def parameters(self, pair: str, method: str) -> int | None:
        """As `Run.parameters`."""
        run = self.manifest["runs"].get(f"{pair}/{method}/seed{self.study.seeds[0]}", {})
        return run.get("parameters")

    def on_training(self, pair: str, method: str) -> dict[str, NDArray] | None:
        """None: outputs on training images are not published."""

    def label_sources(self, classifier: str) -> dict[str, NDArray[np.bool_]] | None:
        """None: labels of training images are not published."""

    @cached_property
    def curves(self) -> pd.DataFrame:
        """As `Run.curves`."""
        own = published_curves(self.study, self.study.name)
        return own if len(own) else published_curves(self.study, self.study.budget_from)

    def resample(self, predictions: Predictions, *, tnr_threshold: float | None = None) -> resampling.Bootstrap:
        """As `Run.resample`, kept in memory."""
        key = content_digest(predictions, tnr_threshold)
        if key not in self._resamples:
            self._resamples[key] = bootstrap(predictions, tnr_threshold)
        return self._resamples[key]


def assembled(
    study: Study,
    correct: NDArray[np.bool_],
    own: dict[str, NDArray],
    z: dict[tuple[str, int], NDArray],
    predicted: NDArray | None,
) -> Predictions:
    """The predictions of a classifier from its own scores, name -> (N,), and its oracles', (method, seed) -> (N,)."""
    seeds = {arm: tuple(seed for name, seed in z if name == arm) for arm in dict.fromkeys(arm for arm, _ in z)}
    scores = {name: values[None] for name, values in own.items()}
    scores |= {arm: np.stack([z[arm, seed] for seed in of_arm]) for arm, of_arm in seeds.items()}
    thresholds = {name: study.threshold_of(name) for name in scores}
    known = {name: threshold for name, threshold in thresholds.items() if threshold is not None}
    return Predictions(correct, scores, known, seeds, predicted)


def separated(predictions: Predictions) -> list[Predictions]:
    """One `Predictions` per confidence."""
    return [
        Predictions(predictions.correct, {name: values}, {name: predictions.threshold_of(name)})
        for name, values in predictions.confidence.items()
    ]


def bootstrap(predictions: Predictions, tnr_threshold: float | None = None) -> resampling.Bootstrap:
    """`resampling.bootstrap` of all confidences."""
    scores = {name: values.astype(np.float64) for name, values in predictions.confidence.items()}
    return resampling.bootstrap(
        scores,
        predictions.correct,
        threshold={name: predictions.threshold_of(name) for name in scores},
        tnr_threshold=tnr_threshold,
        resamples=resampling.RESAMPLES,
    )


def content_digest(predictions: Predictions, tnr_threshold: float | None) -> str:
    """SHA-256 of all that resampled metrics depend on, 16 hex digits."""
    digest = hashlib.sha256(predictions.correct.tobytes())
    for name, values in predictions.confidence.items():
        at = f"{name} {values.dtype} {values.shape} {predictions.threshold_of(name)} {tnr_threshold}"
        digest.update(at.encode() + values.tobytes())
    return digest.hexdigest()[:16]
