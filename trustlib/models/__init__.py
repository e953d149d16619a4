"""Networks: backbones from timm, ConfidNet's two, and pretrained weights."""
