"""Make tiny-vision.gguf and its projector mmproj-tiny-vision.gguf: `python train_media.py all`.

The parts in this order: `answers` teaches the language model to read the codes of pictures and sounds, `vision`
and `hearing` train encoders that write these codes, `export` writes both files. Each resumes where it stopped.
Needs torch, tokenizers, numpy, Pillow, gguf, jinja2, the fonts DejaVu and Liberation, and espeak-ng.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from tiny_recipe.export import export as export_language
from tiny_recipe.media.answering import Codes, train_answers
from tiny_recipe.media.encoders import train_hearing, train_vision
from tiny_recipe.media.export import export
from tiny_recipe.media.hearing import Hearing
from tiny_recipe.media.speech import Speaker, spoken
from tiny_recipe.media.vision import Vision
from tiny_recipe.network import WIDTH, Tiny
from tiny_recipe.warm_start import start_from, tokenizer_in

HERE = Path(__file__).parent
PARTS = ("answers", "vision", "hearing", "export")
STEPS = {"answers": 113, "vision": 2500, "hearing": 1500}
RATES = {"answers": 3e-3, "vision": 2e-3, "hearing": 2e-3}
SIZES = {"answers": 16, "vision": 48, "hearing": 48}
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
    codes = Codes(tokenizer, language.token_embd.weight)
    encoders = {"vision": Vision(WIDTH), "hearing": Hearing(WIDTH)}
    checkpoints = {part: options.build / f"{part}.pt" for part in STEPS}

    def plan(part: str) -> tuple[int, float, int, Path]:
        return options.steps or STEPS[part], options.rate or RATES[part], SIZES[part], checkpoints[part]

    def speaker(step: int) -> Speaker:
        return Speaker(spoken(options.build, held_out=False, each=VOICES_EACH, seed=SPEECH_SEED), 100 + step)

    for part in PARTS if options.part == "all" else (options.part,):
        if part == "answers":
            train_answers(language, codes, tokenizer, *plan(part))
            continue
        learned = torch.load(checkpoints["answers"])
        language.load_state_dict(learned["model"])
        codes.load_state_dict(learned["codes"])
        match part:
            case "vision":
                train_vision(encoders[part], codes, *plan(part))
            case "hearing":
                train_hearing(encoders[part], codes, speaker, *plan(part))
            case _:
                trained = {name: one for name, one in encoders.items() if checkpoints[name].exists()}
                for name, encoder in trained.items():
                    encoder.load_state_dict(torch.load(checkpoints[name])["model"])
                export(trained.get("vision"), trained.get("hearing"), options.out / "mmproj-tiny-vision.gguf")
                export_language(language, tokenizer, options.out / "tiny-vision.gguf", sees=True)


if __name__ == "__main__":
    main()
