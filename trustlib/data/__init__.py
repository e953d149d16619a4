"""Image sets: what a network is trained on and evaluated on."""

from .images import PARTS, ROOT, Batches, DataError, Features, Images, Inputs, mirrored, root
from .small import DATASETS, TINY, cifar10, digits, fashion, load, mnist, tiny

__all__ = [
    "DATASETS", "PARTS", "ROOT", "TINY", "Batches", "DataError", "Features", "Images", "Inputs", "cifar10", "digits",
    "fashion", "load", "mirrored", "mnist", "root", "tiny",
]  # fmt: skip
