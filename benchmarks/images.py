"""Small networks of images and volumes, as they are built everywhere, with random weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Made = tuple[nn.Module, tuple[Tensor, ...]]


def double_conv(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions of volumes, each with instance norm and leaky ReLU."""
    parts: list[nn.Module] = []
    for channels in (inputs, outputs):
        parts += [nn.Conv3d(channels, outputs, 3, padding=1, bias=False)]
        parts += [nn.InstanceNorm3d(outputs, affine=True), nn.LeakyReLU(0.01)]
    return nn.Sequential(*parts)


class UNet3d(nn.Module):
    """A U-Net of volumes: strides of two down, transposed convolutions up, skips joined."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 128), classes: int = 3) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            double_conv(i, o) for i, o in zip((1, *widths[:-1]), widths, strict=True)
        )
        ways = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose3d(i, o, 2, 2) for i, o in ways)
        self.join = nn.ModuleList(double_conv(2 * o, o) for _, o in ways)
        self.head = nn.Conv3d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 1, d, h, w], sizes multiples of 8 -> [batch, classes, d, h, w]."""
        skips = []
        for level, down in enumerate(self.down):
            x = down(functional.max_pool3d(x, 2) if level else x)
            skips.append(x)
        for up, join, skip in zip(self.up, self.join, skips[-2::-1], strict=True):
            x = join(torch.cat([up(x), skip], 1))
        out: Tensor = self.head(x)
        return out


class Residual(nn.Module):
    """Two convolutions and a sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """An image of the same shape."""
        y: Tensor = self.second(functional.relu(self.first(x)))
        return x + y


class SuperResolution(nn.Module):
    """Four times the resolution by two pixel shuffles."""

    def __init__(self, width: int = 64, blocks: int = 8) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(*(Residual(width) for _ in range(blocks)))
        self.up = nn.Sequential(
            nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2),
            nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2),
        )  # fmt: skip
        self.tail = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 3, h, w] -> [batch, 3, 4 h, 4 w]."""
        x = self.head(x)
        out: Tensor = self.tail(self.up(self.body(x) + x))
        return out


class ResnetBlock(nn.Module):
    """Group norm, SiLU and convolution, twice, with the time's embedding between."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(32, c) for c in (inputs, outputs))
        self.convs = nn.ModuleList(nn.Conv2d(c, outputs, 3, padding=1) for c in (inputs, outputs))
        self.time = nn.Linear(512, outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """An image [batch, inputs, h, w] and an embedding [batch, 512]."""
        y = self.convs[0](functional.silu(self.norms[0](x)))
        y = y + self.time(functional.silu(time))[:, :, None, None]
        out: Tensor = self.skip(x) + self.convs[1](functional.silu(self.norms[1](y)))
        return out


class UNetBlock(nn.Module):
    """Residual blocks, attention between pixels, nearest upsampling and a convolution."""

    def __init__(self, inputs: int = 256, width: int = 128, heads: int = 4) -> None:
        super().__init__()
        self.first, self.second = ResnetBlock(inputs, width), ResnetBlock(width, width)
        self.norm, self.heads = nn.GroupNorm(32, width), heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """[batch, inputs, h, w] -> [batch, width, 2 h, 2 w]."""
        x = self.first(x, time)
        batch, width, rows, columns = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        parts = self.qkv(tokens).view(batch, -1, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        seen = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.out(seen).transpose(1, 2).reshape(batch, width, rows, columns)
        x = functional.interpolate(self.second(x, time), scale_factor=2.0)
        out: Tensor = self.conv(x)
        return out


MODELS: dict[str, Callable[[int], Made]] = {
    "unet3d": lambda batch: (UNet3d(), (torch.randn(batch, 1, 32, 64, 64),)),
    "super-resolution": lambda batch: (SuperResolution(), (torch.randn(batch, 3, 64, 64),)),
    "unet-block": lambda batch: (
        UNetBlock(), (torch.randn(batch, 256, 32, 32), torch.randn(batch, 512))
    ),
}  # fmt: skip
