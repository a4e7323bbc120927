"""ResNet-18 and ResNet-34 for small images (He et al. 2015, arXiv:1512.03385, table 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
"""Blocks in each of the four stages, by model."""

WIDTH = 32
"""Channels of the first stage; every later one has twice as many at half the side.

The paper's is 64. Half of it takes a third of the time, and a few hundred images repay more epochs
better than more channels."""


class ResNet(nn.Module):
    """Stem, four stages of blocks, the mean over all positions, and a linear head.

    The stem has a 3×3 convolution where the paper has 7×7: leaves of 96×96 pixels have spots of
    three or four, and the paper's images were of 224×224.
    """

    def __init__(self, blocks: tuple[int, ...], classes: int, width: int) -> None:
        super().__init__()
        widths = [width * 2**stage for stage in range(len(blocks))]
        self.stem = nn.Sequential(
            _convolution(3, width, stride=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, padding=1)
        )
        self.stages = nn.Sequential(
            *(
                _stage(count, widths[max(stage - 1, 0)], widths[stage], 1 if stage == 0 else 2)
                for stage, count in enumerate(blocks)
            )
        )
        self.head = nn.Linear(widths[-1], classes)
        self.apply(_start)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[N, C]`` of images ``[N, 3, H, W]``."""
        features: Tensor = self.stages(self.stem(images))  # [N, F, H/32, W/32]
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


class Block(nn.Module):
    """Two 3×3 convolutions that compute what is to be added to their input."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _convolution(inside, outside, stride=stride),
            nn.ReLU(inplace=True),
            _convolution(outside, outside),
        )
        same = inside == outside and stride == 1
        self.shortcut = nn.Identity() if same else _convolution(inside, outside, 1, stride)

    def forward(self, features: Tensor) -> Tensor:
        """Features ``[N, outside, H/stride, W/stride]`` of ``[N, inside, H, W]``."""
        return torch.relu(self.shortcut(features) + self.residual(features))


def resnet(model: str, classes: int) -> ResNet:
    """The model of this name, with fresh weights from torch's global generator.

    Args:
        model: ``"resnet18"`` or ``"resnet34"``.
        classes: logits of each image.
    """
    return ResNet(BLOCKS[model], classes, WIDTH)


def _stage(count: int, inside: int, outside: int, stride: int) -> nn.Sequential:
    first = Block(inside, outside, stride)
    return nn.Sequential(first, *(Block(outside, outside, 1) for _ in range(count - 1)))


def _convolution(inside: int, outside: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    """A convolution and its batch norm, whose shift is the bias."""
    convolution = nn.Conv2d(inside, outside, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outside))


def _start(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
