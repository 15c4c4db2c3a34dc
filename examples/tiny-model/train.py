"""Make tiny.gguf: tokenizer, training and export in one command, `python train.py --steps 5000`.

Resumes where it stopped. Needs torch, tokenizers, numpy, gguf, jinja2 and a C++ compiler (for torch.compile).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tokenizers import Tokenizer

from tiny_recipe.export import export
from tiny_recipe.head_start import give_head_start
from tiny_recipe.network import Tiny
from tiny_recipe.tokenizer import make_tokenizer
from tiny_recipe.training import Settings, train
from tiny_recipe.warm_start import blend, start_from, tokenizer_in

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=5000, help="of 8192 tokens, over all runs")
    parser.add_argument("--rate", type=float, default=3e-3, help="learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--start-from", type=Path, help="take vocabulary and weights from this tiny.gguf")
    parser.add_argument(
        "--keep", type=float, default=0.0, help="share of the weights of --start-from in the exported file"
    )
    parser.add_argument("--only-export", action="store_true", help="export the last checkpoint as it is")
    parser.add_argument("--build", type=Path, default=HERE / "build", help="tokenizer and checkpoint")
    parser.add_argument("--out", type=Path, default=HERE / "tiny.gguf")
    options = parser.parse_args()
    options.build.mkdir(exist_ok=True)
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)

    tokenizer = kept_tokenizer(options.build / "tokenizer.json", options.start_from, options.seed)
    model = Tiny()
    give_head_start(model, tokenizer)
    if options.start_from:
        start_from(model, options.start_from)
    print(f"{sum(weight.numel() for weight in model.parameters()):,} parameters", flush=True)
    checkpoint = options.build / "checkpoint.pt"
    if options.only_export:
        model.load_state_dict(torch.load(checkpoint)["model"])
    else:
        settings = Settings(steps=options.steps, rate=options.rate, checkpoint=checkpoint)
        train(model, tokenizer, settings)
    if options.start_from:
        blend(model, options.start_from, options.keep)
    export(model, tokenizer, options.out)


def kept_tokenizer(path: Path, older: Path | None, seed: int) -> Tokenizer:
    """The tokenizer of this build; the first run makes it, or takes it from an older model."""
    if not path.exists():
        tokenizer = tokenizer_in(older) if older else make_tokenizer(seed + 1)
        tokenizer.save(str(path))
    return Tokenizer.from_file(str(path))


if __name__ == "__main__":
    main()
