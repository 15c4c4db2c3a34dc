"""Pass rates of a served model on held-out pictures and voices: `python evaluate_media.py http://127.0.0.1:11434 tiny`.

It asks a running server of mullama, so pictures and sounds go the whole way: through the API, libmtmd and the projector.
Pictures have other seeds and fonts than the learned ones, sounds other voices, and the phrasings are held out, too. An
answer passes if it is exactly the expected one. Needs Pillow and numpy, and espeak-ng for sounds.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import random
import urllib.request
import wave
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tiny_recipe.media.pictures import Painter
from tiny_recipe.media.questions import HEARD, HEARD_NOTHING, ask
from tiny_recipe.media.reading import NONE, SPOKEN
from tiny_recipe.media.speech import RATE, Sound, Speaker, spoken

HERE = Path(__file__).parent
PICTURES = {  # the kind of picture, and what is asked about it
    "one": ("describe", "colour", "shape", "place"),
    "alike": ("describe", "count", "colour", "shape"),
    "two": ("describe", "count", "colour", "shape", "place"),
    "number": ("read", "describe"),
    "word": ("read", "describe"),
}
SOUNDS = {  # the kind of sound, and what is said in it; "alone" is a sound without a question
    "digit": SPOKEN[:10],
    "word": SPOKEN[10:],
    "nothing": (NONE,),
    "alone": SPOKEN,
}
SECONDS = (1, 2)  # the length of a sound
SEED = 20_000
Probe = tuple[str, bytes, str, str]  # its name in the table, the file, the question, the answer


def picture_probes(each: int) -> Iterator[Probe]:
    painter, rng = Painter(SEED, held_out=True), random.Random(SEED)
    for kind, abilities in PICTURES.items():
        for ability in abilities:
            for _ in range(each):
                image, reading = painter.picture(kind)
                asked = ask(rng, reading, held_out=True, ability=ability)
                file = io.BytesIO()
                image.save(file, "PNG")
                yield f"{kind}: {ability}", file.getvalue(), asked.question, asked.answer


def sound_probes(each: int, folder: Path) -> Iterator[Probe]:
    speaker, rng = Speaker(spoken(folder, held_out=True, each=15, seed=2), SEED), random.Random(SEED)
    for kind, words in SOUNDS.items():
        found = 0
        while found < each:
            sound, word = speaker.recording(rng.choice(SECONDS))
            if word not in words:
                continue
            found += 1
            question = "" if kind == "alone" else rng.choice(HEARD.held_out)
            yield f"sound: {kind}", wav(sound), question, HEARD_NOTHING if word == NONE else word


def wav(sound: Sound) -> bytes:
    """A WAV file of 16 bits."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE)
        writer.writeframes((sound * 32767).astype("<i2").tobytes())
    return file.getvalue()


def answer(url: str, model: str, medium: bytes, question: str) -> str:
    """What the server answers, with greedy decoding."""
    message = {"role": "user", "content": question, "images": [base64.b64encode(medium).decode()]}
    options = {"temperature": 0, "num_predict": 60}
    body = {"model": model, "messages": [message], "stream": False, "options": options}
    request = urllib.request.Request(f"{url}/api/chat", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        text: str = json.load(reply)["message"]["content"]
    return text.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--probes", type=int, default=40, help="of each ability")
    parser.add_argument("--only", choices=("pictures", "sounds"), help="ask about these alone")
    parser.add_argument("--failures", action="store_true", help="print every wrong answer")
    parser.add_argument("--build", type=Path, default=HERE / "build", help="where recordings are kept")
    options = parser.parse_args()
    probes = [] if options.only == "sounds" else list(picture_probes(options.probes))
    if options.only != "pictures":
        options.build.mkdir(exist_ok=True)
        probes += sound_probes(options.probes, options.build)
    results: dict[str, list[bool]] = defaultdict(list)
    for name, medium, question, wanted in probes:
        given = answer(options.url, options.model, medium, question)
        results[name].append(given == wanted)
        if given != wanted and options.failures:
            print(f"{name}: {question!r} -> {given!r}, not {wanted!r}", flush=True)
    for name, passed in results.items():
        print(f"| {name} | {np.mean(passed):.0%} | {len(passed)} |")
    everything = [one for passed in results.values() for one in passed]
    print(f"| all | {np.mean(everything):.0%} | {len(everything)} |")


if __name__ == "__main__":
    main()
