"""A stylised domain: images that keep their shape and take another image's texture, to ask about what was never seen.

Three ways to one, the closest to the paper first; say beside every result which it was. The paper uses
Stylized-ImageNet (Geirhos et al., ICLR 2019), AdaIN with one random painting an image: only the first way is that.

- `from_folder` reads Stylized-ImageNet itself, or images laid out like it.
- `stylise` runs a feed-forward style net (Johnson et al., ECCV 2016): one painting for all images.
- `swap_amplitude` needs no weights: it gives an image the fine Fourier amplitudes of an image of another class.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import DataError

# --- Stylized-ImageNet (github.com/rgeirhos/Stylized-ImageNet), ImageNet-C ---

SUFFIXES = (".JPEG", ".jpeg", ".jpg", ".png")


def from_folder(folder: Path, names: Sequence[str], classes: Sequence[str], size: tuple[int, int]) -> Tensor:
    """Versions that others made of ImageNet validation images, from ``folder/<class>/<name>``.

    Parameters
    ----------
    folder : holds a folder a class: ``val`` of Stylized-ImageNet, or one corruption and severity of ImageNet-C.
    names : N file names of the original images; any of `SUFFIXES` will do on disk.
    classes : N WordNet ids such as "n01440764", image i's class folder.
    size : (H, W) the images are squashed to, bicubically.

    Returns
    -------
    uint8 (N, 3, H, W), in the order of `names`.

    Raises
    ------
    DataError : when the folder, a class's folder or an image is missing, or a file is damaged.
    ValueError : when names and classes differ in number.
    """
    from PIL import Image

    if len(names) != len(classes):
        raise ValueError(f"from_folder: {len(names)} names but {len(classes)} classes")
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: expected images there as <WordNet id>/<file>")
    expected, found = sorted(set(classes)), sorted(path.name for path in folder.iterdir() if path.is_dir())
    lacking = [name for name in expected if name not in found]
    if lacking:
        raise DataError(
            f"{folder}: no folder for {len(lacking)} of {len(expected)} classes, such as {', '.join(lacking[:3])}; "
            f"found {len(found)} folders{', such as ' if found else ''}{', '.join(found[:3])}"
        )
    files = {
        (c, path.stem): path for c in expected for path in sorted((folder / c).iterdir()) if path.suffix in SUFFIXES
    }
    wanted = [(c, Path(name).stem) for name, c in zip(names, classes, strict=True)]
    missing = [key for key in wanted if key not in files]
    if missing:
        raise DataError(f"{folder}: {len(missing)} of {len(wanted)} images are missing, first {'/'.join(missing[0])}")
    images = torch.empty(len(wanted), 3, *size, dtype=torch.uint8)
    for image, key in zip(images, wanted, strict=True):
        try:
            with Image.open(files[key]) as file:
                pixels = np.array(file.convert("RGB").resize(size[::-1], Image.Resampling.BICUBIC))  # (H, W, 3)
        except (OSError, SyntaxError, ValueError) as error:  # PIL raises each of them for damaged files
            raise DataError(f"{files[key]} is damaged or no image ({error})") from None
        image.copy_(torch.from_numpy(pixels).permute(2, 0, 1))
    return images


# --- feed-forward style transfer (Johnson et al., ECCV 2016) ---

EPS = 1e-3  # of the instance norms
SMALLEST = 224  # px, shorter side below which an image is enlarged: the strokes are sized for photographs
BT601 = (0.299, 0.587, 0.114)  # what red, green and blue add to the luminance, ITU-R BT.601


def conv_same(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Convolution with TensorFlow's "SAME" padding: ceil(side / stride) outputs a side, odd padding at the far end.

    x float (B, I, H, W), weight float (O, I, k, k); output float (B, O, ceil(H / stride), ceil(W / stride)).
    """
    pads = []
    for side, kernel in ((x.shape[-1], weight.shape[-1]), (x.shape[-2], weight.shape[-2])):  # F.pad: last axis first
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, pads), weight, stride=stride)


def conv_transpose_same(x: Tensor, weight: Tensor) -> Tensor:
    """The gradient of a 3 x 3 `conv_same` of stride 2 with regard to an input of even sides: doubles the sides.

    x float (B, I, H, W), weight float (I, O, 3, 3); output float (B, O, 2 H, 2 W). That convolution pads by one, at the
    far end only, which is the one row and the one column too many here.
    """
    return F.conv_transpose2d(x, weight, stride=2)[..., :-1, :-1]


class Layer(nn.Module):
    """Convolution without bias, then instance norm. Input float (B, I, H, W); output float (B, O, H', W').

    `stride` is 1, 2 (halves the sides) or -2 (doubles them, a transposed convolution). Nothing is drawn: the weights
    are 0 until a file's are read, and torch's global generator stays as it was.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1):
        super().__init__()
        self.stride = stride
        channels = (outputs, inputs) if stride > 0 else (inputs, outputs)
        self.weight = nn.Parameter(torch.zeros(*channels, kernel, kernel))
        self.scale = nn.Parameter(torch.ones(outputs))
        self.shift = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = conv_same(x, self.weight, self.stride) if self.stride > 0 else conv_transpose_same(x, self.weight)
        return F.instance_norm(x, weight=self.scale, bias=self.shift, eps=EPS)


class StyleNet(nn.ModuleDict):
    """Images to images in one painting's style; the network of github.com/reiinakano/fast-style-transfer-deeplearnjs.

    Input float (B, 3, H, W) in [0, 255], any sides; output of the same shape and range. `name` is the painting's.
    """

    def __init__(self, name: str = "style"):
        blocks = {f"res{i}_{half}": Layer(128, 128, 3) for i in range(1, 6) for half in (1, 2)}
        down = {"conv1": Layer(3, 32, 9), "conv2": Layer(32, 64, 3, 2), "conv3": Layer(64, 128, 3, 2)}
        up = {"up1": Layer(128, 64, 3, -2), "up2": Layer(64, 32, 3, -2)}
        super().__init__({**down, **blocks, **up, "conv_out": Layer(32, 3, 9)})
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        # The sides are halved and doubled twice: repeat the last row and column up to multiples of 4, crop at the end.
        x = F.pad(x, (0, -width % 4, 0, -height % 4), mode="replicate")
        for name in ("conv1", "conv2", "conv3"):
            x = self[name](x).relu()
        for i in range(1, 6):
            x = x + self[f"res{i}_2"](self[f"res{i}_1"](x).relu())
        for name in ("up1", "up2"):
            x = self[name](x).relu()
        x = 150 * self["conv_out"](x).tanh() + 127.5
        return x.clamp(0, 255)[..., :height, :width]


def load_style_net(path: Path) -> StyleNet:
    """A style net with the weights of an npz file, in eval mode, named after the file ("scream_fp16.npz": "scream").

    The file holds ``<layer>.weight``, ``.scale`` and ``.shift`` of each layer of `StyleNet` in torch's layout, of any
    float type, read as float32.

    Raises
    ------
    DataError : when the file is missing, is no such archive, or lacks tensors or has them in other shapes.
    """
    path = Path(path)
    net = StyleNet(path.stem.removesuffix("_fp16"))
    shapes = {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}
    if not path.is_file():
        raise DataError(
            f"no style net {path}: put an npz file there with the {len(shapes)} tensors of a net of "
            "github.com/reiinakano/fast-style-transfer-deeplearnjs, conv1.weight to conv_out.shift, in torch's layout"
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key].astype(np.float32) for key in shapes if key in file}
    except Exception as error:  # not a zip, cut short, pickled, a bare array: NumPy and zipfile raise a dozen kinds
        raise DataError(f"{path} is damaged or no npz file ({type(error).__name__}: {error})") from None
    bad = [f"no {key}" for key in shapes if key not in arrays] + [
        f"{key} {array.shape} for {shapes[key]}" for key, array in arrays.items() if array.shape != shapes[key]
    ]
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise DataError(f"{path} holds no style net of this architecture: {', '.join(bad[:5])}{more}")
    net.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
    return net.eval()


@torch.no_grad()
def stylise(images: Tensor, net: StyleNet, *, batch: int = 4, log: Callable[[str], None] = print) -> Tensor:
    """Images in a style net's style.

    An image whose shorter side is under `SMALLEST` is enlarged to it bilinearly, stylised, and reduced again by the
    mean over areas. A grey image is shown to the net as three equal channels, and the luminance of its answer is kept.

    Parameters
    ----------
    images : uint8 (N, C, H, W), C 1 (grey) or 3 (RGB).
    net : of `load_style_net`.
    batch : images the net takes at once, >= 1; on one core 4 is as fast an image as 1, and 8 slower.
    log : takes a line of progress, about every 100 images and at the end.

    Returns
    -------
    uint8 (N, C, H, W).

    Raises
    ------
    ValueError : when the images are not uint8 or not of such a shape.
    """
    _check(images)
    if images.shape[1] not in (1, 3):
        raise ValueError(f"stylise takes grey or RGB images (N, 1 or 3, H, W), found {tuple(images.shape)}")
    size = images.shape[-2:]
    enlarge = max(SMALLEST / min(size), 1)
    luminance = torch.tensor(BT601, device=images.device)[:, None, None]  # (3, 1, 1)
    styled = torch.empty_like(images)
    start, done = time.perf_counter(), 0
    for x, out in zip(images.split(batch), styled.split(batch), strict=True):
        x = x.float().expand(-1, 3, -1, -1)
        if enlarge > 1:
            x = F.interpolate(x, [round(side * enlarge) for side in size], mode="bilinear")
        x = net(x)
        if enlarge > 1:
            x = F.interpolate(x, size, mode="area")
        if images.shape[1] == 1:
            x = (x * luminance).sum(1, keepdim=True)
        out.copy_(x.round())
        before, done = done, done + len(x)
        if done // 100 > before // 100 or done == len(images):
            rate = done / (time.perf_counter() - start)
            log(f"{net.name}: {done}/{len(images)} images, {rate:.1f} images/s")
    return styled


# --- amplitudes of another image ---

COARSE = 3  # cycles an image: up to this frequency an image keeps its own amplitudes


def swap_amplitude(images: Tensor, donors: Tensor) -> Tensor:
    """Images with the phases of their own 2-D Fourier transform and, above `COARSE`, the amplitudes of their donors.

    The phase carries an image's shape (Oppenheim and Lim 1981), the amplitude its texture and contrast. Chen et al.
    (ICCV 2021) swap all amplitudes to train; Yang and Soatto (CVPR 2020) swap the lowest to adapt to a domain. Here the
    lowest stay: where ``hypot(u, v) <= COARSE``, u and v in cycles an image side, both amplitude and phase are the
    image's own, its mean among them. On images of 28 x 28 and 32 x 32 the swap of all leaves the donor's ghost where
    the object was, since the coarse amplitudes say how large and how wide an object is; at 3 cycles, whose half a
    period is the width of a sleeve or a leg, the objects are recognisable by eye and their surface is the donor's.
    COARSE was chosen by eye on Fashion-MNIST and CIFAR-10, with no classifier. Each channel is treated by itself; the
    result is rounded and clipped, which alters the amplitudes a little.

    Parameters
    ----------
    images, donors : uint8 (N, C, H, W); donor i is image i's.

    Returns
    -------
    uint8 (N, C, H, W).

    Raises
    ------
    ValueError : when the two differ in shape or are not uint8 of such a shape.
    """
    _check(images)
    _check(donors)
    if images.shape != donors.shape:
        raise ValueError(f"images {tuple(images.shape)} and donors {tuple(donors.shape)} differ in shape")
    height, width = images.shape[-2:]
    own, other = (torch.fft.rfft2(x.float()) for x in (images, donors))  # (N, C, H, W // 2 + 1)
    u = torch.fft.fftfreq(height, 1 / height, device=images.device)[:, None]
    v = torch.fft.rfftfreq(width, 1 / width, device=images.device)
    coarse = torch.hypot(u, v) <= COARSE
    amplitude = torch.where(coarse, own.abs(), other.abs())
    mixed = torch.fft.irfft2(torch.polar(amplitude, own.angle()), s=(height, width))
    return mixed.clamp(0, 255).round().to(torch.uint8)


def draw_donors(labels: Tensor, donor_labels: Tensor, seed: int) -> Tensor:
    """For each image a donor of another class, each such donor being as likely as any other.

    Image i's donor depends on the seed, its own label and `donor_labels`, not on the images after it: the first n
    images have the same donors however many follow.

    Parameters
    ----------
    labels : int64 (N,), the images' classes.
    donor_labels : int64 (M,), the classes of the images to draw from.
    seed : >= 0.

    Returns
    -------
    int64 (N,) in 0..M-1, positions in `donor_labels`.

    Raises
    ------
    ValueError : when every donor is of an image's class.
    """
    chance = torch.from_numpy(np.random.default_rng(seed).random(len(labels)))  # one number an image, in their order
    drawn = torch.empty(len(labels), dtype=torch.int64)
    for label in labels.unique().tolist():
        others = (donor_labels != label).nonzero().squeeze(-1)
        if len(others) == 0:
            raise ValueError(f"no donor for the images of class {label}: all {len(donor_labels)} are of that class")
        mine = labels == label
        drawn[mine] = others[(chance[mine] * len(others)).long()]
    return drawn


def _check(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(f"expected uint8 images (N, C, H, W), found {images.dtype} {tuple(images.shape)}")
