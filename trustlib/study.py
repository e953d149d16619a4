"""A study: a dataset with its networks, pairs, methods and seeds, read from one YAML file and checked."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from . import confidence, data, losses
from .data import ROOT
from .recipe import Recipe
from .settings import Ablation, Ablations, Domains, Method, Network, Strict, nearest
from .shifts import names


class StudyError(ValueError):
    """A study's YAML, or a name that refers to it, is wrong; the message names the key and what was expected."""


class Study(Strict):
    """A dataset with its classifiers, pairs, methods and seeds: one YAML file in studies/."""

    name: str
    note: str = ""  # what a reader of its results has to know, in a sentence
    budget_from: str = ""  # the published study whose ladder speaks for this one, see `trustlib.analysis.budget`
    untested: str = ""  # why its protocol is cut below the paper's, so that it tests none of the paper's claims
    dataset: str
    folder: str | None = None  # of a dataset of image folders, from the data root
    heldout: int | None = Field(default=None, ge=1)  # training images that are held out; the dataset's own by default
    flip: bool  # train on mirrored images too
    preprocessing: Literal["own", "released"] = "own"  # of networks with pretrained weights, see `networks.inputs`
    device: str = "auto"
    tf32: bool = False  # let a GPU round float32 products
    compiled: bool = False  # by torch.compile, while training
    workers: int = Field(default=0, ge=0)  # processes that decode images of a folder
    jobs: Literal["pair", "method", "oracle"] = (
        "pair"  # one job trains the oracles of a pair, of a method of it, or one
    )
    checkpoint_minutes: float = Field(default=10, gt=0)
    threads: int = Field(default=1, ge=1)  # CPU threads of one job
    classifier_seeds: list[int] = Field(default=[0], min_length=1)  # the first is judged, all are the ensemble
    dropout_passes: int = Field(default=0, ge=0)  # of a classifier with dropout left on, for MC dropout
    feature_passes: int = Field(default=0, ge=0)  # such passes that a head learns from, see `extract_features`
    networks: dict[str, Network]
    pairs: list[str]
    oracle: Recipe
    methods: dict[str, Method]
    seeds: list[int] = Field(min_length=1)
    domains: Domains = Domains()
    ablations: Ablations = Ablations()

    @model_validator(mode="after")
    def _check_dataset(self):
        if self.dataset not in (*data.DATASETS, "folder"):
            raise ValueError(f"dataset: unknown dataset {self.dataset!r}{nearest(self.dataset, data.DATASETS)}")
        if (self.dataset == "folder") != (self.folder is not None):
            raise ValueError(f"folder: dataset {self.dataset!r} {'needs one' if self.folder is None else 'has none'}")
        if self.folder is not None and self.heldout is None:
            raise ValueError("heldout: a dataset of folders needs the number of training images that are held out")
        trained = [name for name, network in self.all_networks.items() if network.weights is None]
        if self.folder is not None and trained:
            raise ValueError(f"networks.{trained[0]}: a dataset of folders needs weights, for inputs of a size")
        return self

    @model_validator(mode="after")
    def _check_names(self):
        for own, other in ((self.networks, self.ablations.networks), (self.methods, self.ablations.methods)):
            for name in own.keys() & other.keys():
                raise ValueError(f"ablations: {name!r} is a name of the study's own")
        for name in self.all_networks:
            if "-" in name:
                raise ValueError(f"networks: {name!r} may hold no '-', which parts the names of a pair")
        for name in self.all_methods.keys() & confidence.SCORES.keys():
            raise ValueError(f"methods: {name!r} is a score of the classifier itself and cannot be a method's name")
        lists = {key: getattr(self, key) for key in ("pairs", "seeds", "classifier_seeds")}
        lists |= {f"domains.{key}": getattr(self.domains, key) for key in ("judged", "swept")}
        lists |= {f"ablations.{key}": getattr(self.ablations, key) for key in ("seeds", "rates")}
        for key, values in lists.items():
            if len(set(values)) < len(values):
                raise ValueError(f"{key}: holds something twice: {values}")
        return self

    @model_validator(mode="after")
    def _check_pairs(self):
        self._check_pairs_of("pairs", self.pairs, list(self.networks))
        for name, ablation in self.ablations.questions.items():
            where = f"ablations.questions.{name}"
            self._check_pairs_of(f"{where}.pairs", ablation.pairs, list(self.all_networks))
            for method in filter(None, [*ablation.methods, ablation.against]):
                if method not in self.all_methods:
                    raise ValueError(f"{where}: unknown method {method!r}{nearest(method, self.all_methods)}")
        mixed = [pair for pair in self.all_pairs if len(set(pair.split("-"))) > 1]
        if self.feature_passes and mixed:
            raise ValueError(f"feature_passes: the oracle of {mixed[0]!r} shares no dropout with its classifier")
        return self

    def _check_pairs_of(self, where: str, pairs: list[str], known: list[str]) -> None:
        for pair in pairs:
            if pair.count("-") != 1 or not set(pair.split("-")) <= set(known):
                raise ValueError(f"{where}: {pair!r} is not ORACLE-CLASSIFIER with names from {known}")

    @model_validator(mode="after")
    def _check_methods(self):
        for name, network in self.all_networks.items():
            self._check_recipe(f"networks.{name}.oracle", network.oracle)
        for name, method in self.all_methods.items():
            self._check_recipe(f"methods.{name}.training", method.training)
            self._check_start(name)
            if method.rate_of is not None:
                other = self.all_methods.get(method.rate_of)
                if other is None or other.rate_of:
                    raise ValueError(
                        f"methods.{name}.rate_of: {method.rate_of!r} is no method with a learning rate of its own"
                    )
            if method.labels != "train" and losses.LOSSES[method.loss].target == "p_true":
                raise ValueError(
                    f"methods.{name}: {method.loss} learns a probability and has no labels but those of the training "
                    "set"
                )
        return self

    def _check_recipe(self, where: str, changed: dict[str, Any]) -> None:
        try:
            Recipe.model_validate(self.oracle.model_dump() | changed)
        except ValidationError as error:
            raise ValueError(f"{where}: {_explain(error.errors()[0])}") from None

    def _check_start(self, name: str) -> None:
        """A method starts from another one, in the end from one that starts from a classifier."""
        chain = [name]
        while (start := self.all_methods[chain[-1]].start) is not None:
            if start not in self.all_methods:
                raise ValueError(
                    f"methods.{chain[-1]}.start: unknown method {start!r}{nearest(start, self.all_methods)}"
                )
            if start in chain:
                raise ValueError(f"methods.{name}.start: {' starts from '.join([*chain, start])}")
            chain.append(start)

    @model_validator(mode="after")
    def _check_pretrained(self):
        """Refuse what cannot be done with classifiers that are not trained here."""
        if not any(network.weights for network in self.all_networks.values()):
            return self
        if len(self.classifier_seeds) > 1:
            raise ValueError("classifier_seeds: a network with pretrained weights has one, not an ensemble")
        crossfit = [name for name, method in self.all_methods.items() if method.labels == "crossfit"]
        if crossfit:
            raise ValueError(f"methods.{crossfit[0]}: cross-fitted labels need classifiers that are trained here")
        for name in self.domains.judged:
            kind = names.parse(name).kind
            if kind == names.NORMALISED or (kind == names.RECOLOR and (name != kind or not self.folder)):
                raise ValueError(f"domains: {name} needs networks that see the images standardised as they are")
        return self

    def images(self) -> "data.Images":
        """The study's image set, or the `trustlib.data.folders.Folder` for a large one; read once a process."""
        if self.folder is None:
            return data.load(self.dataset, self.heldout)
        return _folder(data.root() / self.folder, self.heldout, self.workers)

    @property
    def views(self) -> int:
        """How many views of an image networks learn from: the image, and its mirror image where the study flips."""
        return 2 if self.flip else 1

    @property
    def all_networks(self) -> dict[str, Network]:
        """The study's networks and those of its ablations."""
        return self.networks | self.ablations.networks

    @property
    def all_methods(self) -> dict[str, Method]:
        """The study's methods and those of its ablations."""
        return self.methods | self.ablations.methods

    @property
    def one_a_loss(self) -> list[str]:
        """The first of the study's methods for each loss as in the text: for figures without room for all of them."""
        first = {}
        for name, method in self.methods.items():
            if method.form == "corrected":
                first.setdefault(method.loss, name)
        return list(first.values())

    @property
    def all_pairs(self) -> list[str]:
        """The study's pairs and those of its ablations."""
        others = [pair for ablation in self.ablations.questions.values() for pair in ablation.pairs]
        return list(dict.fromkeys(self.pairs + others))

    @property
    def classifiers(self) -> list[str]:
        """The networks that are judged: the classifiers of the study's pairs."""
        return list(dict.fromkeys(pair.split("-")[1] for pair in self.pairs))

    def recipe(self, pair: str, method: str, rate: float | None = None) -> Recipe:
        """How an oracle is trained: the study's recipe, changed by its network, the method, and `rate`, if given."""
        changed = self.all_networks[pair.split("-")[0]].oracle | self.all_methods[method].training
        return Recipe.model_validate(self.oracle.model_dump() | changed | ({} if rate is None else {"rate": rate}))

    def budget(self, pair: str, method: str, count: int) -> dict[str, int]:
        """Steps, epochs, and images, how many are shown in all, of a method's training on a set of `count` images."""
        recipe = self.recipe(pair, method)
        steps = recipe.epochs * ((recipe.images or count) // recipe.batch)
        return {"steps": steps, "epochs": recipe.epochs, "images": steps * recipe.batch}

    def pair(self, pair: str) -> tuple[str, str]:
        """(oracle's, classifier's) network of a pair of this study or its ablations."""
        if pair not in self.all_pairs:
            raise StudyError(f"study {self.name} has no pair {pair!r}{nearest(pair, self.all_pairs)}")
        oracle_name, classifier_name = pair.split("-")
        return oracle_name, classifier_name

    def network(self, name: str) -> Network:
        if name not in self.all_networks:
            raise StudyError(f"study {self.name} has no network {name!r}{nearest(name, self.all_networks)}")
        return self.all_networks[name]

    def method(self, name: str) -> Method:
        if name not in self.all_methods:
            raise StudyError(f"study {self.name} has no method {name!r}{nearest(name, self.all_methods)}")
        return self.all_methods[name]

    def ablation(self, name: str) -> Ablation:
        known = self.ablations.questions
        if name not in known:
            raise StudyError(
                f"study {self.name} has no ablation {name!r}{nearest(name, known) if known else ', nor any'}"
            )
        return known[name]

    def parts_of(self, domain: str) -> list[str]:
        """The parts of a domain by its name; of a corruption without a severity, those of its sweep."""
        known = {name: [part] for name, part in self.domains.parts.items()} | self.domains.sweep
        if domain not in known:
            near = nearest(domain, known) if known else ", nor any"
            raise StudyError(f"study {self.name} has no domain {domain!r}{near}")
        return known[domain]

    def chosen_methods(self, methods: list[str]) -> list[str]:
        """The methods asked for, all when none is."""
        for method in methods:
            if method not in self.methods:
                raise StudyError(f"study {self.name} has no method {method!r}{nearest(method, self.methods)}")
        return list(methods or self.methods)

    def pair_label(self, pair: str) -> str:
        """<O, C> in the paper's words."""
        return "⟨{}, {}⟩".format(*(self.network(name).label for name in pair.split("-")))

    def method_label(self, method: str) -> str:
        """The label of a method, or of a score of the classifier itself, which is a row of every table."""
        return self.all_methods[method].label if method in self.all_methods else confidence.SCORES[method].label

    def group_of(self, method: str) -> str:
        """The group of `confidence.GROUPS` of a method or score; a method's says whether its backbone is frozen."""
        if method not in self.all_methods:
            return confidence.SCORES[method].group
        return "probe" if self.all_methods[method].backbone == "frozen" else "oracle"

    def threshold_of(self, method: str) -> float | None:
        """Above it a prediction is trusted: 0 for ``z`` and log-odds, 0.5 for MCP; None for a score that has none."""
        if method == "mcp":
            return 0.5
        return 0.0 if method in self.all_methods or confidence.SCORES[method].has_zero else None

    def hyper(self, pair: str, method: str) -> dict[str, float]:
        """Hyper-parameters of a method's loss; the slopes of the steep slope loss are those of the oracle's network."""
        settings = self.method(method)
        takes_slopes = losses.LOSSES[settings.loss].slopes
        slopes = self.network(self.pair(pair)[0]).steep_slope.model_dump() if takes_slopes else {}
        return slopes | settings.hyper

    def is_oracle(self, method: str) -> bool:
        """Whether it is an oracle: a method, or a probe, which is an oracle on the classifier's own frozen features."""
        return self.group_of(method) in ("probe", "oracle")

    def line(self, method: str) -> dict[str, Any]:
        """The loss, form and number among the study's methods of that kind, for the colour and dashes of figures."""
        settings = self.all_methods.get(method)
        if settings is None:
            return {"loss": method}
        kind = {"loss": settings.loss, "form": settings.form}
        alike = [name for name, other in self.methods.items() if (other.loss, other.form) == tuple(kind.values())]
        return kind | {"variant": alike.index(method) if method in alike else 0}


@lru_cache(maxsize=1)
def _folder(root: Path, heldout: int, workers: int) -> Any:
    """A `folders.Folder`, which does for `data.Images`."""
    from .data import folders  # here, since torchvision takes a second to import

    return folders.load_folder(root, heldout=heldout, workers=workers)


def study_path(study: str) -> Path:
    """The YAML file of a study, given by name or by path."""
    return Path(study) if study.endswith((".yaml", ".yml")) else ROOT / "studies" / f"{study}.yaml"


def load_study(study: str) -> Study:
    """Read and check a study.

    Parameters
    ----------
    study : a name in studies/, or the path of a YAML file. One that names another as its ``base`` holds just what
        differs from it, key by key; null leaves out what the base has, a method or a network.

    Raises
    ------
    StudyError : when there is no such study, or a key in it is unknown, missing or of the wrong type.
    """
    path = study_path(study)
    settings = _read(path, study)
    try:
        return Study.model_validate(settings | {"name": path.stem})
    except ValidationError as error:
        raise StudyError("\n".join(f"{path.name}: {_explain(e)}" for e in error.errors())) from None


def check_losses(study: Study) -> None:
    """Compute the loss of every method once: what a study's YAML says of it is in the range that the loss takes.

    Reading a study does not, since it takes torch.

    Raises
    ------
    StudyError : naming the method and the value that is out of range.
    """
    import torch

    for name, method in study.all_methods.items():
        counts = losses.LOSSES[method.loss].counted(torch.tensor([True, False]))
        try:
            method.loss_function(torch.zeros(1), torch.ones(1), **method.hyper, **counts)
        except ValueError as error:
            raise StudyError(f"methods.{name}: {error}") from None


def _read(path: Path, name: str) -> dict:
    """A YAML file over its base."""
    if not path.is_file():
        raise StudyError(f"unknown study {name!r}{nearest(name, sorted(p.stem for p in path.parent.glob('*.yaml')))}")
    try:
        settings = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, ValueError) as error:  # the second where bytes are no text, or a date is none
        raise StudyError(f"{path.name} is not valid YAML: {error}") from None
    if not isinstance(settings, dict):
        raise StudyError(f"{path.name}: expected a mapping of keys to values, found {type(settings).__name__}")
    if (base := settings.pop("base", None)) is None:
        return settings
    below = yaml.safe_load(path.with_name(f"{base}.yaml").read_text()) if _is_base(path, base) else None
    if not isinstance(below, dict) or "base" in below:
        raise StudyError(f"{path.name}: base: {base!r} is no study in {path.parent.name}/ that stands by itself")
    return _over(below, settings)


def _is_base(path: Path, base: Any) -> bool:
    return isinstance(base, str) and path.with_name(f"{base}.yaml").is_file()


def _over(below: dict, above: dict) -> dict:
    """Settings with others over them, key by key; a list is replaced as a whole, and null leaves a mapping out."""
    merged = dict(below)
    for key, value in above.items():
        has_keys = isinstance(below.get(key), dict)
        merged[key] = _over(below[key], value) if has_keys and isinstance(value, dict) else value
        if has_keys and value is None:
            del merged[key]
    return merged


def _explain(error: Mapping[str, Any]) -> str:
    """One pydantic error as one line: the key, what is wrong, the nearest known key."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        model = Study
        for part in error["loc"][:-1]:
            field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
            if field is not None:
                model = next(
                    (t for t in (field.annotation, *getattr(field.annotation, "__args__", ())) if _is_model(t)), model
                )
        return f"unknown key {where!r}{nearest(error['loc'][-1], model.model_fields)}"
    if error["type"] == "value_error":
        return f"{where}: {error['ctx']['error']}" if where else str(error["ctx"]["error"])
    found = "" if error["type"] == "missing" else f", found {error['input']!r}"
    return f"{where}: {error['msg'][0].lower()}{error['msg'][1:]}{found}"


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
