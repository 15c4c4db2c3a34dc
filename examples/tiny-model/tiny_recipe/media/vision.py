"""The vision encoder and its projector, as libmtmd builds them for the projector type `janus_pro`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiny_recipe.media.pictures import SIDE

PATCH, WIDTH, LAYERS, HEADS, HIDDEN, MIDDLE = 8, 96, 4, 3, 320, 192
PATCHES = (SIDE // PATCH) ** 2
EPSILON = 1e-6


class Layer(nn.Module):
    """Attention to all positions and a feed-forward layer; the names are those of libmtmd's tensors."""

    def __init__(self, width: int, heads: int, hidden: int, epsilon: float, *, tanh: bool, key_bias: bool = True) -> None:
        super().__init__()
        self.heads, self.gelu = heads, "tanh" if tanh else "none"
        self.ln1, self.ln2 = nn.LayerNorm(width, epsilon), nn.LayerNorm(width, epsilon)
        self.attn_q, self.attn_v, self.attn_out = (nn.Linear(width, width) for _ in range(3))
        self.attn_k = nn.Linear(width, width, bias=key_bias)
        self.ffn_up, self.ffn_down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor, count: int | None = None) -> Tensor:
        """The stream after this layer; with a count, only at that many first positions."""
        rows, _, width = x.shape
        h = self.ln1(x)
        q, k, v = (
            part(source).view(rows, source.shape[1], self.heads, -1).transpose(1, 2)
            for part, source in ((self.attn_q, h[:, :count]), (self.attn_k, h), (self.attn_v, h))
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        x = x[:, :count] + self.attn_out(mixed.reshape(rows, -1, width))
        down: Tensor = self.ffn_down(F.gelu(self.ffn_up(self.ln2(x)), approximate=self.gelu))
        return x + down


class Vision(nn.Module):
    """Pictures (rows x 3 x SIDE x SIDE, from -1 to 1) to vectors of the language model (rows x PATCHES x its width)."""

    def __init__(self, language_width: int) -> None:
        super().__init__()
        self.patch_embd = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.position_embd = nn.Parameter(torch.randn(PATCHES, WIDTH) * 0.02)
        self.blk = nn.ModuleList(Layer(WIDTH, HEADS, HIDDEN, EPSILON, tanh=True) for _ in range(LAYERS))
        self.post_ln = nn.LayerNorm(WIDTH, EPSILON)
        self.mm = nn.ModuleList((nn.Linear(WIDTH, MIDDLE), nn.Linear(MIDDLE, language_width)))

    def forward(self, pictures: Tensor, count: int = PATCHES) -> Tensor:
        """The first `count` vectors of each picture."""
        x = self.patch_embd(pictures).flatten(2).transpose(1, 2) + self.position_embd
        for layer in self.blk[:-1]:
            x = layer(x)
        x = self.post_ln(self.blk[-1](x, count))
        vectors: Tensor = self.mm[1](F.gelu(self.mm[0](x), approximate="tanh"))
        return vectors
