"""What the network is given before it learns: forms of a word that look alike, and a weak circuit for copying."""

from __future__ import annotations

import re

import torch
from tokenizers import Tokenizer
from torch import Tensor

from tiny_recipe.network import HEAD, HEADS, KV_HEADS, ROPE_BASE, WIDTH, Block, Tiny
from tiny_recipe.tokenizer import SPACE

LOOK_BACK = 0.05  # strength of queries and keys of heads that look a fixed way back
SHARPNESS = 2.2  # of the comparison of what stands here with what stood there
NOTE, REPEAT = 0.042, 0.06  # how loud a note and a repeated token are in the stream


@torch.no_grad()
def give_head_start(model: Tiny, tokenizer: Tokenizer) -> None:
    start_alike(model, tokenizer)
    start_copying(model)


def start_alike(model: Tiny, tokenizer: Tokenizer) -> None:
    """The forms of a word (`Paris`, ` paris`, `PARIS`, `-p` and `p`) begin with embeddings that are much alike."""
    words: dict[str, Tensor] = {}
    for token, i in tokenizer.get_vocab().items():
        word = re.sub(rf"^({SPACE}|\W)(?=[A-Za-z])", "", token).lower()
        base = words.setdefault(word, torch.randn(WIDTH) * 0.02)
        model.token_embd.weight[i] = 0.8 * base + 0.6 * model.token_embd.weight[i]


def start_copying(model: Tiny) -> None:
    """Begin with a circuit that continues text as it went before: most abilities rest on copying, and chance is slow
    to find it.

    In the first block three heads look one, two and three tokens back and note what they see; in the second block
    two pairs of heads look for a place whose notes are the last tokens, and repeat what stands there. All embeddings
    get a common part, from which queries and keys make constants.
    """
    model.token_embd.weight += 0.02
    noise = torch.randn(WIDTH, WIDTH - 1)
    directions = torch.linalg.qr(torch.cat([torch.ones(WIDTH, 1), noise], 1)).Q.T
    seen, one, two, three = directions[1:129].split(32)
    contents = directions[129:192], directions[192:255]
    first, second = model.blk[0], model.blk[1]
    assert isinstance(first, Block) and isinstance(second, Block)
    note_what_was_before(first, seen, (one, two, three))
    now = torch.cat([seen[:20], one[:12]]), torch.cat([seen[20:], one[12:24], two[:8]])
    then = torch.cat([one[:20], two[:12]]), torch.cat([one[20:], two[12:24], three[:8]])
    for group in range(KV_HEADS):
        repeat_what_followed(second, group, now[group], then[group], contents[group])


def note_what_was_before(block: Block, seen: Tensor, notes: tuple[Tensor, ...]) -> None:
    """Head n looks n + 1 tokens back and writes what it sees along the n-th note's directions."""
    angle = ROPE_BASE ** (-torch.arange(0, 16, 2) / HEAD)
    for group in range(KV_HEADS):
        k = block.attn_k.weight[group * HEAD : (group + 1) * HEAD]
        k.zero_()
        k[0:16:2] = LOOK_BACK
        block.attn_v.weight[group * HEAD : group * HEAD + 32] = seen
    for head, note in enumerate(notes):
        q = block.attn_q.weight[head * HEAD : (head + 1) * HEAD]
        q.zero_()
        turn = angle * (head + 1)
        q[0:16:2] = LOOK_BACK * turn.cos()[:, None]
        q[1:16:2] = -LOOK_BACK * turn.sin()[:, None]
        block.attn_output.weight[:, head * HEAD : head * HEAD + 32] = NOTE * note.T


def repeat_what_followed(block: Block, group: int, now: Tensor, then: Tensor, content: Tensor) -> None:
    """The heads of a group look for notes that match, in the slow half of the rotary pairs, which hardly turns."""
    k = block.attn_k.weight[group * HEAD : (group + 1) * HEAD]
    k[:32], k[32:] = 0.0, SHARPNESS * then
    block.attn_v.weight[group * HEAD : group * HEAD + len(content)] = content
    for head in range(group * HEADS // KV_HEADS, (group + 1) * HEADS // KV_HEADS):
        q = block.attn_q.weight[head * HEAD : (head + 1) * HEAD]
        q[:32], q[32:] = 0.0, SHARPNESS * now
        block.attn_output.weight[:, head * HEAD : head * HEAD + len(content)] = REPEAT * content.T
