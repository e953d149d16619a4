"""What a study needs before anything is trained: its losses, images, weights, and files of distribution shifts."""

from collections.abc import Callable
from functools import partial
from typing import Any

from ..data import DataError, Images
from ..models import pretrained
from ..shifts import domains
from ..study import Study, StudyError, check_losses
from . import shifted


def check(study: Study) -> None:
    """Read what a study names, and print where its images come from.

    Raises
    ------
    StudyError : when a loss refuses its settings, a classifier does not fit the images, or a shift cannot be made.
    data.DataError : when images, weights or files are missing.
    """
    check_losses(study)
    images = _present(study)
    print(f"study {study.name}: data from {images.source}")
    misfits = [text for name in study.all_networks if (text := _misfit(study, name, images))]
    if misfits:
        raise StudyError("\n".join(misfits))
    for name, part in study.domains.parts.items():
        domains.origin(shifted.dataset(study), name)  # raises where a file is missing
        try:
            domains.check(images, name, study.domains.size(part))
        except ValueError as error:
            raise StudyError(str(error)) from None


def _present(study: Study) -> Images:
    """The images, where they and all weights are to be had; else an error that names everything that is missing."""
    given = [network for network in study.all_networks.values() if network.weights]
    weights = [partial(pretrained.checksum, network.model, network.weights) for network in given]
    found: list[Any] = []
    missing = []
    reads: list[Callable[[], Any]] = [study.images, *weights]
    for read in reads:
        try:
            found.append(read())
        except DataError as error:
            missing.append(str(error))
    if missing:
        raise DataError("\n".join(missing))
    return found[0]


def _misfit(study: Study, name: str, images: Images) -> str:
    """Why a network cannot classify the images; an empty text where it can."""
    network = study.network(name)
    why = pretrained.misfit(network.model, network.args, bool(network.weights), images.classes, images.wnids)
    return f"networks.{name}: {why}" if why else ""
