"""The names of distribution shifts, taken apart without torch; a name says how the domain is made.

- ``CORRUPTION-SEVERITY``, such as ``defocus_blur-5``: `shifts.corruptions`, or the released files of CIFAR-10-C and
  ImageNet-C where the data root has them
- ``mnist_c-NAME``: the released files of MNIST-C (Mu and Gilmer 2019), for MNIST; they have one severity
- ``stylized``: of ImageNet's images, Stylized-ImageNet where the data root has it; else the fine Fourier amplitudes of
  another image (`stylize.swap_amplitude`), which needs no weights and is not Stylized-ImageNet
- ``recolor``: ReColorAdv on the classifier (`shifts.recolor`); ``recolor-released``: the same, with the networks'
  inputs normalised by ImageNet's mean and deviation in place of their own, as in the released script; ``normalised``:
  that normalisation alone, without an attack
"""

from dataclasses import dataclass
from typing import Any

from . import corruptions

CORRUPTED, STYLIZED, RECOLOR, NORMALISED, MNIST_C = "corruption", "stylized", "recolor", "normalised", "mnist_c"


@dataclass(frozen=True)
class Domain:
    """A domain's name, taken apart.

    kind : one of `CORRUPTED`, `STYLIZED`, `RECOLOR`, `NORMALISED`, `MNIST_C`
    what : the corruption, "released", or nothing
    severity : 1 to 5, of a corruption; else 0
    """

    name: str
    kind: str
    what: str = ""
    severity: int = 0

    @property
    def label(self) -> str:
        """As tables and figures name it."""
        words = self.what.replace("_", " ")
        return {
            CORRUPTED: f"{corruption_label(self.what)}, severity {self.severity}",
            MNIST_C: f"MNIST-C {words}",
            STYLIZED: "Stylised",
            RECOLOR: "Recoloured, released normalisation" if words else "Recoloured",
            NORMALISED: "Released normalisation",
        }[self.kind]


def corruption_label(name: str) -> str:
    """A corruption as tables and figures name it."""
    return name.replace("_", " ").capitalize().replace("Jpeg", "JPEG")


def parse(name: str) -> Domain:
    """A domain by its name.

    Raises
    ------
    ValueError : when no domain is named so.
    """
    first, _, rest = name.partition("-")
    if first in corruptions.CORRUPTIONS + corruptions.EXTRA and rest:
        severity: Any = int(rest) if rest.isdecimal() else rest  # a text is refused
        corruptions.check(first, severity)
        return Domain(name, CORRUPTED, first, severity)
    plain = (RECOLOR, f"{RECOLOR}-released", NORMALISED, STYLIZED)
    if name in plain or (first == MNIST_C and rest):
        return Domain(name, first, rest)
    raise ValueError(
        f"unknown domain {name!r}: expected CORRUPTION-SEVERITY, such as defocus_blur-5, with one of "
        f"{', '.join(corruptions.CORRUPTIONS + corruptions.EXTRA)}; stylized; recolor; recolor-released; normalised; "
        "or mnist_c-NAME"
    )
