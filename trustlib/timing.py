"""How long a study's work takes on this machine: some batches of the real thing, by `training.train` and `predict`."""

import time
from collections.abc import Callable
from contextlib import suppress

import torch

from . import data, experiments, losses, networks, oracle, training
from .study import Study

BATCHES = 20  # of features, which are drawn, to time a head


class Enough(Exception):
    """Raised where a timing has run long enough."""


class Clock:
    """The time after each batch, from the first on; does for a `training.Keeper`, which is asked after each step."""

    def __init__(self, limit: float):
        self.limit, self.start, self.times = limit, time.perf_counter(), []

    def latest(self) -> None:
        return None

    def due(self, steps: int) -> bool:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())
        if len(self.times) > 2 and self.times[-1] - self.times[0] > self.limit:
            raise Enough
        return False

    def save(self, state: dict) -> None:
        """Never asked for, since none is due."""

    def mean(self) -> float:
        """Seconds a batch; what came before the first, such as starting workers, is no part of it."""
        if len(self.times) < 2:
            return self.times[-1] - self.start
        return (self.times[-1] - self.times[0]) / (len(self.times) - 1)


def seconds(study: Study, what: str, whom: str, world: int, limit: float) -> float:
    """Seconds an image, of one of the processes that share the work, on batches as large as the time allows.

    what : "ask" (a network is asked), "fit" (it is trained) or "head" (it is trained alone, on features).
    whom : a network of the study, or a pair, whose oracle it is.
    limit : seconds that it may take, where a few batches of two images do not take longer.

    Raises
    ------
    What the work itself raises: for an image that is damaged, a batch that is too large for a GPU.
    """
    work, largest = _doing(study, what, whom, world)
    mean, batch = 0.0, min(2, largest)
    for part in (limit / 8, limit / 8, limit / 2):  # a GPU takes hardly longer for a dozen images than for two
        clock = Clock(part)
        with suppress(Enough):
            work(batch, clock)
        mean = clock.mean() / batch
        if batch == largest:
            break
        batch = min(largest, max(2, int(limit / 6 / mean)))
    return mean


def _doing(study: Study, what: str, whom: str, world: int) -> tuple[Callable[[int, Clock], object], int]:
    """(the real work, in batches of a size, until a clock stops it; the size that the study will use)."""
    images, device = experiments.setup(study)
    (name, _, judged), target = whom.partition("-"), images.labels["train"]
    network, loss = study.network(name), experiments._classification_loss
    net: oracle.Timm = oracle.build_backbone(network.model, network.args)
    recipe = network.training
    seen = images.seen_by(networks.inputs(study, name, judged or None))
    if what == "ask":
        net.to(device).eval()

        def ask(batch: int, clock: Clock) -> None:
            training.predict(lambda x: (net(x), clock.due(0))[0], seen, "train", batch=batch)

        return ask, min(training._fitting(seen, "train"), len(target))
    if judged:
        backbone = "frozen" if what == "head" else "trained"
        arm = next(arm for arm, settings in study.arms.items() if settings.backbone == backbone)
        net, recipe = oracle.Oracle(net, study.arms[arm].head), study.recipe(whom, arm)
        target, loss = target > 0, losses.cross_entropy
    share, views = max(2, recipe.batch // world), study.views
    if what == "head":
        views = study.feature_passes or views
        target = target[: BATCHES * share]
        features = torch.randn(views, len(target), net.backbone.head_hidden_size).half()
        net, seen = net.head, data.Features({"train": features}, {"train": target}, device)
    net.to(device)

    def fit(batch: int, clock: Clock) -> None:
        training.train(  # plain SGD for OneCycle: it costs the same, and a step or two are no cycle
            net, seen, target, loss, views=views, epochs=1, batch=batch, rate=1e-9, keeper=clock,
            optimizer=recipe.optimizer.replace("onecycle", "sgd"), frozen=recipe.frozen, log=lambda _: None,
        )  # fmt: skip

    return fit, share
