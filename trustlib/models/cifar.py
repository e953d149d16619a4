"""ResNet-18 for images of 32 x 32 pixels, registered with timm."""

from timm.models import register_model
from timm.models.resnet import ResNet, resnet18
from torch import nn


@register_model
def resnet18_cifar(pretrained: bool = False, in_chans: int = 3, **kwargs) -> ResNet:
    """timm's with a first convolution of 3 x 3 at stride 1 and no pooling after it (He et al. 2016, Section 4.2)."""
    net = resnet18(in_chans=in_chans, **kwargs)
    net.conv1 = nn.Conv2d(in_chans, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")  # as timm's other convolutions
    net.maxpool = nn.Identity()
    return net
