"""Make tiny-vision.gguf and its projector mmproj-tiny-vision.gguf: `python train_media.py all`.

The parts in this order: `answers` teaches the language model to read the codes of pictures and sounds, `vision` and
`hearing` train encoders that write these codes, `practice` teaches the language model further with what these encoders
write about pictures and sounds, `export` writes both files. Each resumes where it stopped.
With `--start-from`, the parts start with the weights of both files in a folder, and `answers` is left out.
Needs torch, tokenizers, numpy, Pillow, gguf, jinja2, the fonts DejaVu and Liberation, and espeak-ng.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from tiny_recipe.export import export as export_language
from tiny_recipe.media.answering import Codes, Lesson, train_answers
from tiny_recipe.media.encoders import heard_by, picture_examples, seen_by, sounds, train_hearing, train_vision
from tiny_recipe.media.export import FORMS, export
from tiny_recipe.media.hearing import Hearing
from tiny_recipe.media.pictures import Painter
from tiny_recipe.media.speech import Speaker, spoken
from tiny_recipe.media.vision import Vision
from tiny_recipe.media.warm_start import encoder_from, picture_codes_from, sound_codes_from
from tiny_recipe.network import WIDTH, Tiny
from tiny_recipe.warm_start import start_from, tokenizer_in

HERE = Path(__file__).parent
PARTS = ("answers", "vision", "hearing", "practice", "export")
STEPS = {"answers": 113, "vision": 2500, "hearing": 1500, "practice": 300}
RATES = {"answers": 3e-3, "vision": 2e-3, "hearing": 2e-3, "practice": 1.5e-3}
SIZES = {"answers": 16, "vision": 48, "hearing": 48, "practice": 24}
VOICES_EACH, SPEECH_SEED = 80, 1
LANGUAGE, PROJECTOR = "tiny-vision.gguf", "mmproj-tiny-vision.gguf"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=(*PARTS, "all"))
    parser.add_argument("--language", type=Path, default=HERE / "tiny.gguf", help="the file that train.py wrote")
    parser.add_argument("--start-from", type=Path, metavar="FOLDER", help="with both files of an earlier run")
    parser.add_argument("--steps", type=int, help="over all runs of the part")
    parser.add_argument("--rate", type=float, help="learning rate")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--build", type=Path, default=HERE / "build", help="checkpoints and recordings")
    parser.add_argument("--out", type=Path, default=HERE / "build", help="folder of both files")
    options = parser.parse_args()
    options.build.mkdir(exist_ok=True)
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)

    tokenizer, older, language = tokenizer_in(options.language), Tiny(), Tiny()
    start_from(older, options.language)
    start_from(language, options.language)
    codes = Codes(tokenizer, language.token_embd.weight)
    encoders: dict[str, nn.Module] = {"vision": Vision(WIDTH), "hearing": Hearing(WIDTH)}
    checkpoints = {part: options.build / f"{part}.pt" for part in STEPS}
    parts = PARTS if options.part == "all" else (options.part,)

    def plan(part: str) -> Lesson:
        steps, rate = options.steps or STEPS[part], options.rate or RATES[part]
        return Lesson(steps=steps, rate=rate, size=SIZES[part], checkpoint=checkpoints[part])

    def speaker(step: int) -> Speaker:
        return Speaker(spoken(options.build, held_out=False, each=VOICES_EACH, seed=SPEECH_SEED), 100 + step)

    known: set[str] = set()  # the encoders that have learned
    if options.start_from:
        start_from(language, options.start_from / LANGUAGE)
        known = {n for n, one in encoders.items() if encoder_from(options.start_from / PROJECTOR, one, FORMS[n])}
        found = options.build / "codes.pt"
        if not found.exists():
            if "vision" in known:
                picture_codes_from(encoders["vision"], codes, picture_examples(Painter(0, held_out=False)))
            if "hearing" in known:
                sound_codes_from(encoders["hearing"], codes, sounds(speaker(0), SIZES["hearing"]))
            torch.save(codes.state_dict(), found)
        codes.load_state_dict(torch.load(found))
        parts = tuple(part for part in parts if part != "answers")

    for part in parts:
        if part == "answers":
            train_answers(language, older, codes, tokenizer, plan(part))
            continue
        if checkpoints["answers"].exists():
            codes.load_state_dict(torch.load(checkpoints["answers"])["codes"])
        for name, encoder in encoders.items():
            if checkpoints[name].exists():
                encoder.load_state_dict(torch.load(checkpoints[name])["model"])
                known.add(name)
        latest = next((c for p in ("practice", "answers") if (c := checkpoints[p]).exists()), None)
        if latest:
            language.load_state_dict(torch.load(latest)["model"])
        match part:
            case "vision":
                train_vision(encoders[part], codes, plan(part))
            case "hearing":
                train_hearing(encoders[part], codes, speaker, plan(part))
            case "practice":
                seen = seen_by(encoders["vision"]) if "vision" in known else None
                heard = heard_by(encoders["hearing"], speaker) if "hearing" in known else None
                train_answers(language, older, codes, tokenizer, plan(part), seen, heard)
            case _:
                trained = {name: one for name, one in encoders.items() if name in known}
                export(trained.get("vision"), trained.get("hearing"), options.out / PROJECTOR)
                export_language(language, tokenizer, options.out / LANGUAGE, sees=True)


if __name__ == "__main__":
    main()
