"""Make tiny.gguf: tokenizer, training and export in one command, `python train.py --minutes 80`.

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

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=80, help="training time, over all runs")
    parser.add_argument("--rate", type=float, default=3e-3, help="learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pause", type=Path, help="wait while this file exists")
    parser.add_argument("--only-export", action="store_true", help="export the last checkpoint as it is")
    parser.add_argument("--build", type=Path, default=HERE / "build", help="tokenizer and checkpoint")
    parser.add_argument("--out", type=Path, default=HERE / "tiny.gguf")
    options = parser.parse_args()
    options.build.mkdir(exist_ok=True)
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)

    saved = options.build / "tokenizer.json"
    if not saved.exists():
        make_tokenizer(options.seed + 1).save(str(saved))
    tokenizer = Tokenizer.from_file(str(saved))
    model = Tiny()
    give_head_start(model, tokenizer)
    print(f"{sum(weight.numel() for weight in model.parameters()):,} parameters", flush=True)
    checkpoint = options.build / "checkpoint.pt"
    if options.only_export:
        model.load_state_dict(torch.load(checkpoint)["model"])
    else:
        train(
            model,
            tokenizer,
            Settings(minutes=options.minutes, rate=options.rate, checkpoint=checkpoint, pause=options.pause),
        )
    export(model, tokenizer, options.out)


if __name__ == "__main__":
    main()
