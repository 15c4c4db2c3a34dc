"""The network: llama (RMSNorm, SwiGLU, interleaved rotary pairs, grouped queries) with tied embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiny_recipe.corpus import LONGEST
from tiny_recipe.tokenizer import VOCABULARY

WIDTH, LAYERS, HEADS, KV_HEADS, HIDDEN = 256, 7, 4, 2, 640
HEAD = WIDTH // HEADS
EPSILON, ROPE_BASE = 1e-5, 100_000.0


class Block(nn.Module):
    """Attention and a gated feed-forward layer; the names are those of llama.cpp's tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.attn_norm, self.ffn_norm = nn.RMSNorm(WIDTH, EPSILON), nn.RMSNorm(WIDTH, EPSILON)
        self.attn_q, self.attn_output = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))
        self.attn_k, self.attn_v = (nn.Linear(WIDTH, KV_HEADS * HEAD, bias=False) for _ in range(2))
        self.ffn_gate, self.ffn_up = (nn.Linear(WIDTH, HIDDEN, bias=False) for _ in range(2))
        self.ffn_down = nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None = None) -> Tensor:
        """The stream after this layer; it attends to all earlier positions, or to those of the mask."""
        rows, length, _ = x.shape
        h = self.attn_norm(x)
        q, k, v = (
            part(h).view(rows, length, -1, HEAD).transpose(1, 2)
            for part in (self.attn_q, self.attn_k, self.attn_v)
        )
        q, k = (rotated(part, cos, sin).to(v.dtype) for part in (q, k))
        k, v = (part.repeat_interleave(HEADS // KV_HEADS, 1) for part in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None)
        x = x + self.attn_output(mixed.transpose(1, 2).reshape(rows, length, WIDTH))
        h = self.ffn_norm(x)
        down: Tensor = self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))
        return x + down


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


class Tiny(nn.Module):
    """The whole network; called with a batch, it gives the mean loss at the learned positions."""

    cos: Tensor
    sin: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.token_embd = nn.Embedding(VOCABULARY, WIDTH)
        self.blk = nn.ModuleList(Block() for _ in range(LAYERS))
        self.output_norm = nn.RMSNorm(WIDTH, EPSILON)
        angles = torch.arange(LONGEST)[:, None] * ROPE_BASE ** (-torch.arange(0, HEAD, 2) / HEAD)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                # Embeddings are small; what a block adds to the stream begins at zero.
                deep = name.endswith(("attn_output.weight", "ffn_down.weight"))
                nn.init.normal_(
                    weight, std=0.02 if "embd" in name else 0.0 if deep else weight.shape[1] ** -0.5
                )

    def forward(self, tokens: Tensor, where: Tensor, wanted: Tensor) -> Tensor:
        length = tokens.shape[1]
        x = self.token_embd(tokens)
        for block in self.blk:
            x = block(x, self.cos[:length], self.sin[:length])
        x = self.output_norm(x).reshape(-1, WIDTH)[where]
        return F.cross_entropy(F.linear(x, self.token_embd.weight).float(), wanted)
