"""The sound encoder and its projector, as libmtmd builds them for the projector type `qwen3a`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiny_recipe.media.reading import FRAMES
from tiny_recipe.media.speech import BANDS, CHUNK
from tiny_recipe.media.vision import Layer

CHANNELS, WIDTH, LAYERS, HEADS, HIDDEN, MIDDLE = 32, 96, 2, 3, 320, 192
EPSILON = 1e-5


class Hearing(nn.Module):
    """Bands of sound (rows x BANDS x frames, whole chunks) to vectors of the language model."""

    def __init__(self, language_width: int) -> None:
        super().__init__()
        channels = (1, CHANNELS, CHANNELS, CHANNELS)
        self.conv2d = nn.ModuleList(nn.Conv2d(channels[i], CHANNELS, 3, 2, 1) for i in range(3))
        self.conv_out = nn.Linear(CHANNELS * (BANDS // 8), WIDTH, bias=False)
        self.position_embd = nn.Parameter(torch.randn(FRAMES, WIDTH) * 0.02)
        self.blk = nn.ModuleList(Layer(WIDTH, HEADS, HIDDEN, EPSILON, tanh=False) for _ in range(LAYERS))
        self.post_ln = nn.LayerNorm(WIDTH, EPSILON)
        self.mlp = nn.ModuleList((nn.Linear(WIDTH, MIDDLE), nn.Linear(MIDDLE, language_width)))

    def forward(self, bands: Tensor) -> Tensor:
        rows, count, frames = bands.shape
        chunks = bands.view(rows, count, frames // CHUNK, CHUNK).transpose(1, 2).reshape(-1, 1, count, CHUNK)
        for conv in self.conv2d:
            chunks = F.gelu(conv(chunks))
        x = chunks.permute(0, 3, 1, 2).flatten(2)  # chunks x FRAMES x (channels x bands)
        x = (self.conv_out(x) + self.position_embd).view(rows, -1, WIDTH)
        for layer in self.blk:
            x = layer(x)
        vectors: Tensor = self.mlp[1](F.gelu(self.mlp[0](self.post_ln(x))))
        return vectors
