"""Make mmproj-tiny.gguf, and a tiny.gguf that answers about pictures and sounds: `python train_media.py all`.

Each part resumes where it stopped: `vision`, `hearing` and `answers` can be trained at the same time, and `export`
writes both files. Needs torch, tokenizers, numpy, Pillow, gguf, jinja2, the fonts DejaVu and Liberation, and espeak-ng.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from tiny_recipe.export import export as export_language
from tiny_recipe.media.answering import train_answers
from tiny_recipe.media.encoders import Embeddings, train_hearing, train_vision
from tiny_recipe.media.export import export
from tiny_recipe.media.hearing import Hearing
from tiny_recipe.media.speech import Speaker, spoken
from tiny_recipe.media.vision import Vision
from tiny_recipe.network import WIDTH, Tiny
from tiny_recipe.warm_start import start_from, tokenizer_in

HERE = Path(__file__).parent
PARTS = ("vision", "hearing", "answers", "export")
STEPS = {"vision": 1800, "hearing": 1000, "answers": 205}
RATES = {"vision": 2e-3, "hearing": 2e-3, "answers": 6e-4}
SIZES = {"vision": 48, "hearing": 32, "answers": 40}
VOICES_EACH, SPEECH_SEED = 60, 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=(*PARTS, "all"))
    parser.add_argument("--language", type=Path, default=HERE / "tiny.gguf", help="the file that train.py wrote")
    parser.add_argument("--steps", type=int, help="over all runs of the part")
    parser.add_argument("--rate", type=float, help="learning rate")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--build", type=Path, default=HERE / "build", help="checkpoints and recordings")
    parser.add_argument("--out", type=Path, default=HERE / "build", help="folder of both files")
    options = parser.parse_args()
    options.build.mkdir(exist_ok=True)
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)

    tokenizer, language = tokenizer_in(options.language), Tiny()
    start_from(language, options.language)
    embeddings = Embeddings(language.token_embd.weight.detach().clone(), tokenizer.get_vocab())
    vision, hearing = Vision(WIDTH), Hearing(WIDTH)
    checkpoints = {part: options.build / f"{part}.pt" for part in STEPS}

    def plan(part: str) -> tuple[int, float, int, Path]:
        return options.steps or STEPS[part], options.rate or RATES[part], SIZES[part], checkpoints[part]

    def speaker(step: int) -> Speaker:
        return Speaker(spoken(options.build, held_out=False, each=VOICES_EACH, seed=SPEECH_SEED), 100 + step)

    for part in PARTS if options.part == "all" else (options.part,):
        match part:
            case "vision":
                train_vision(vision, embeddings, *plan(part))
            case "hearing":
                train_hearing(hearing, embeddings, speaker, *plan(part))
            case "answers":
                train_answers(language, tokenizer, *plan(part))
            case _:
                networks = {"vision": vision, "hearing": hearing, "answers": language}
                trained = [name for name in networks if checkpoints[name].exists()]
                for name in trained:
                    networks[name].load_state_dict(torch.load(checkpoints[name])["model"])
                heard = hearing if "hearing" in trained else None
                export(vision, heard, options.out / "mmproj-tiny.gguf")
                export_language(language, tokenizer, options.out / "tiny.gguf")


if __name__ == "__main__":
    main()
