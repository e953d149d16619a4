"""How a network is trained: what a study's YAML says and `trustlib.training.train` takes. It needs no torch."""

from typing import Literal

from pydantic import BaseModel, Field


class Recipe(BaseModel, extra="forbid", frozen=True, strict=True):
    """Length, batch, optimizer and mode of one training.

    Parameters
    ----------
    epochs : passes over the images.
    batch : images a step. The last, smaller batch of an epoch is left out.
    rate : highest learning rate, > 0.
    weight_decay : of the optimizer, >= 0.
    images : how many of the training images are used, drawn by the seed; all by default.
    optimizer : "adamw" warms the learning rate up over the first tenth of all steps, then lowers it along a cosine to
        0. "adam" and "sgd" (momentum 0.9) keep one learning rate, as in ConfidNet. "onecycle" is the authors'
        (``src/train_oracle.py``): SGD under PyTorch's OneCycleLR, which cycles the momentum too, from 0.95 to 0.85 and
        back, warmed up over the same share of all steps as theirs.
    crop : images are padded by so many reflected pixels, and a piece of their size is cut out at random.
    frozen : which layers are in eval mode during training: "nothing"; "norm", batch norm; "noise", dropout as well.
    bfloat16 : bfloat16 autocast on the CPU too, as on a GPU: quicker where it has instructions for that (AVX512_BF16,
        AMX), slower elsewhere.

    Raises
    ------
    pydantic.ValidationError : for an unknown key, another type or a value out of range.
    """

    epochs: int = Field(ge=1)
    batch: int = Field(ge=1)
    rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    images: int | None = Field(default=None, ge=1)
    crop: int = Field(default=0, ge=0)
    optimizer: Literal["adamw", "adam", "sgd", "onecycle"] = "adamw"
    frozen: Literal["nothing", "norm", "noise"] = "nothing"
    bfloat16: bool = False
