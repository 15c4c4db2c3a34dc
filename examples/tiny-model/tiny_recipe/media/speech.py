"""Says words with espeak-ng, puts them into noise, and turns sound into what the encoder hears, as libmtmd does."""

from __future__ import annotations

import io
import random
import subprocess
import wave
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiny_recipe.media.reading import NONE, SPOKEN

RATE = 16_000  # samples per second
WINDOW, HOP, BANDS = 400, 160, 48
CHUNK = 100  # frames of a second, which give FRAMES vectors
ACCENTS = ("en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc")
VOICES = (
    "m1", "m2", "m3", "m5", "m7", "f1", "f2", "f4", "klatt", "klatt3", "Alex", "Andy", "Annie", "belinda", "ed",
    "Gene", "john", "linda", "max", "Mike", "paul", "rob", "steph", "Hugo", "Lee", "quincy",
)  # fmt: skip
HELD_OUT_VOICES = ("m4", "f3", "Michael", "Alicia", "edward", "steph2", "robert", "Andrea")
WORDLESS = 0.04  # share of the recordings without a word
Sound = NDArray[np.float32]


def say(word: str, voice: str, speed: int, pitch: int) -> Sound:
    """The word at 16 kHz from -1 to 1, without the silence around it. Needs the program espeak-ng."""
    command = ["espeak-ng", "--stdout", "-v", voice, "-s", str(speed), "-p", str(pitch), word]
    made = subprocess.run(command, capture_output=True, check=True).stdout
    with wave.open(io.BytesIO(made)) as file:
        rate = file.getframerate()
        sound = np.frombuffer(made[44:], dtype="<i2")[: len(made[44:]) // 2].astype(np.float32) / 32768
    loud = np.flatnonzero(np.abs(sound) > 0.02 * np.abs(sound).max())
    sound = sound[loud[0] : loud[-1] + 1]
    at = np.arange(0, len(sound), rate / RATE)
    return np.interp(at, np.arange(len(sound)), sound).astype(np.float32)


def spoken(folder: Path, *, held_out: bool, each: int, seed: int) -> dict[str, list[Sound]]:
    """`each` recordings of every word by different voices; they are kept in the folder for the next run."""
    path = folder / f"speech-{'held-out' if held_out else 'learned'}-{each}-{seed}.npz"
    if not path.exists():
        rng = random.Random(seed)
        kept = {}
        for word in SPOKEN:
            for i in range(each):
                voice = f"{rng.choice(ACCENTS)}+{rng.choice(HELD_OUT_VOICES if held_out else VOICES)}"
                sound = say(word, voice, rng.randint(120, 190), rng.randint(25, 80))
                kept[f"{word}-{i}"] = (sound * 20000 / np.abs(sound).max()).astype(np.int16)
        np.savez_compressed(path, **kept)
    found: dict[str, list[Sound]] = {word: [] for word in SPOKEN}
    with np.load(path) as file:
        for name in file.files:
            found[name.split("-")[0]].append(file[name].astype(np.float32) / 32768)
    return found


class Speaker:
    """A seeded source of recordings with what is said in them."""

    def __init__(self, words: dict[str, list[Sound]], seed: int) -> None:
        self.words = words
        self.rng, self.noise = random.Random(seed), np.random.default_rng(seed)

    def recording(self, seconds: int) -> tuple[Sound, str]:
        """A sound of at most that many seconds, and the word in it. Noise is before, in and after the word.

        A few have no word (`NONE`): silence, or noise alone.
        """
        rng = self.rng
        room = seconds * RATE - HOP
        if rng.random() < WORDLESS:
            quiet = np.zeros(rng.randint(room // 3, room), dtype=np.float32)
            return (quiet + self.coloured(len(quiet)) * 10 ** -rng.uniform(1.3, 5)).astype(np.float32), NONE
        word = rng.choice(SPOKEN)
        while True:
            sound = rng.choice(self.words[word])
            if rng.random() < 0.6:  # another speed, and with it another pitch
                stretched = np.arange(0, len(sound) - 1, rng.uniform(0.88, 1.14))
                sound = np.interp(stretched, np.arange(len(sound)), sound).astype(np.float32)
            if len(sound) < room:
                break
        sound = self.equalised(sound)
        free = room - len(sound)
        length = len(sound) + round(free * rng.choice((1, 1, rng.random())))
        start = round((length - len(sound)) * rng.random())
        whole = np.zeros(length, dtype=np.float32)
        level = np.sqrt(np.mean(sound**2)) * 10 ** -rng.uniform(0.6, 2.0)  # 12 to 40 dB below the speech
        whole[start : start + len(sound)] = sound
        whole = (whole + self.coloured(length) * level) * 10 ** rng.uniform(-1.2, 0.2)
        return np.clip(whole, -1, 1).astype(np.float32), word

    def equalised(self, sound: Sound) -> Sound:
        """The sound of another microphone: each of its bands up to 8 dB louder or quieter, in half of the cases."""
        if self.rng.random() < 0.5:
            return sound
        spectrum = np.fft.rfft(sound)
        points = [self.rng.uniform(-8, 8) for _ in range(6)]
        decibels = np.interp(np.linspace(0, 1, len(spectrum)), np.linspace(0, 1, len(points)) ** 2, points)
        filtered = np.fft.irfft(spectrum * 10 ** (decibels / 20), len(sound))
        return (filtered * (np.abs(sound).max() / (np.abs(filtered).max() + 1e-9))).astype(np.float32)

    def coloured(self, length: int) -> Sound:
        """Noise with the mean square 1: white, or with more of the low tones."""
        white = self.noise.standard_normal(length)
        if self.rng.random() < 0.5:
            spectrum = np.fft.rfft(white)
            spectrum /= np.sqrt(1 + np.arange(len(spectrum)) * 20 / len(spectrum))
            white = np.fft.irfft(spectrum, length)
        return (white / (np.sqrt(np.mean(white**2)) + 1e-9)).astype(np.float32)


@cache
def filterbank() -> NDArray[np.float32]:
    """Bands x frequencies: triangles on Slaney's mel scale, each with the area of its width."""
    linear, step = 3 / 200, np.log(6.4) / 27
    edge = 1000 * linear

    def mel(hertz: float) -> float:
        return hertz * linear if hertz < 1000 else edge + np.log(hertz / 1000) / step

    points = np.linspace(mel(0), mel(RATE / 2), BANDS + 2)
    hertz = np.where(points < edge, points / linear, 1000 * np.exp((points - edge) * step))
    bins = np.arange(WINDOW // 2 + 1) * RATE / WINDOW
    left, centre, right = (hertz[i : i + BANDS, None] for i in range(3))
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return (np.maximum(0, np.minimum(rising, falling)) * 2 / (right - left)).astype(np.float32)


def heard(sound: Sound, seconds: int) -> NDArray[np.float32]:
    """Bands x frames: the logarithm of the power in each band, with zeros after the end of the sound."""
    pad = WINDOW // 2
    padded = np.pad(sound, pad, mode="reflect")
    count = min((len(padded) - WINDOW) // HOP + 1, len(sound) // HOP + 1)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
    bands = np.log10(np.maximum(filterbank() @ power.T.astype(np.float32), 2.0**-24))
    bands = (np.maximum(bands, bands.max() - 8) + 4) / 4
    whole = np.zeros((BANDS, seconds * CHUNK), dtype=np.float32)
    whole[:, :count] = bands[:, :count][:, : seconds * CHUNK]
    return whole
