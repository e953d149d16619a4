"""The two networks of ConfidNet's experiments (Corbière et al. 2019), which the paper's Table 2 is made with.

Layers, sizes and dropout as in github.com/valeoai/ConfidNet, ``confidnet/models/small_convnet_mnist.py``, ``vgg16.py``.
They are registered with timm and speak as its models do: features, then a head with dropout, then the classifier.
"""

from timm.models import register_model
from torch import Tensor, nn


class ConvNet(nn.Module):
    """Convolutions, then two fully connected layers: images (B, C, H, W) to logits (B, K).

    body : images to what `hidden` takes, (B, m) once flattened
    hidden : penultimate layer, with its ReLU
    drop : dropout after it
    """

    def __init__(self, body: nn.Module, flat: int, hidden: int, drop: float, num_classes: int):
        super().__init__()
        self.body, self.head_hidden_size = body, hidden
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(flat, hidden), nn.ReLU())
        self.drop = nn.Dropout(drop)
        self.classifier: nn.Module = nn.Linear(hidden, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.body(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop(self.hidden(x))  # (B, hidden)
        return x if pre_logits else self.classifier(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        return self.classifier

    def reset_classifier(self, num_classes: int) -> None:
        self.classifier = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()


@register_model
def confidnet_mnist(pretrained: bool = False, num_classes: int = 10, in_chans: int = 1, **_) -> ConvNet:
    """Two 3 x 3 convolutions of 32 and 64 channels, for images of 28 x 28 pixels."""
    body = nn.Sequential(
        nn.Conv2d(in_chans, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25)
    )
    return ConvNet(body, 64 * 12 * 12, 128, 0.5, num_classes)


VGG_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


@register_model
def confidnet_vgg16(
    pretrained: bool = False, num_classes: int = 10, in_chans: int = 3, block_drop: bool = True, **_
) -> ConvNet:
    """VGG16 for images of 32 x 32 pixels: batch norm after each ReLU, dropout between the convolutions of a block.

    block_drop : without it dropout stays after the last block and before the classifier alone, so that no batch norm
        sees another variance with dropout than without (Li et al. 2019).
    """
    layers, channels = [], in_chans
    for number, block in enumerate(VGG_BLOCKS):
        for i, out in enumerate(block):
            layers += [nn.Conv2d(channels, out, 3, padding=1, padding_mode="reflect"), nn.ReLU(), nn.BatchNorm2d(out)]
            if block_drop and i < len(block) - 1:
                layers.append(nn.Dropout(0.4 if number else 0.3))
            channels = out
        layers.append(nn.MaxPool2d(2))
    return ConvNet(nn.Sequential(*layers, nn.Dropout(0.5)), 512, 512, 0.5, num_classes)
