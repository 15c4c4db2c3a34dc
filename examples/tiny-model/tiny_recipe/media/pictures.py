"""Draws pictures to learn from: one shape and its place, several alike, two that differ, numbers, words, nothing."""

from __future__ import annotations

import math
import random
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from tiny_recipe.media.reading import COLOURS, COUNTS, SHAPES, WORDS, Reading, Thing

SIDE = 48  # of the picture that the encoder sees, in pixels
PAD = (127, 127, 127)  # what libmtmd puts beside a picture that is not square
INKS = {
    "red": (215, 35, 35), "green": (40, 160, 60), "blue": (45, 75, 210), "yellow": (245, 220, 40),
    "orange": (245, 135, 25), "purple": (135, 45, 165), "black": (15, 15, 15), "white": (248, 248, 248),
}  # fmt: skip
FONT_FOLDER = Path("/usr/share/fonts/truetype")
FONTS = (
    "dejavu/DejaVuSans.ttf", "dejavu/DejaVuSans-Bold.ttf", "dejavu/DejaVuSerif.ttf", "dejavu/DejaVuSansMono-Bold.ttf",
    "liberation/LiberationSans-Bold.ttf", "liberation/LiberationSerif-Bold.ttf",
    "liberation/LiberationSerif-Regular.ttf", "liberation/LiberationSerif-Italic.ttf", "liberation/LiberationMono-Bold.ttf",
    "liberation/LiberationMono-Regular.ttf", "dejavu/DejaVuSansCondensed-Bold.ttf", "dejavu/DejaVuSans-Oblique.ttf",
)  # fmt: skip
HELD_OUT_FONTS = (
    "liberation/LiberationSans-Regular.ttf", "dejavu/DejaVuSerif-Bold.ttf", "dejavu/DejaVuSansMono.ttf",
)  # fmt: skip
KINDS = (("one", 12), ("alike", 28), ("two", 16), ("number", 14), ("word", 28), ("nothing", 2))
Rgb = tuple[int, int, int]


class Painter:
    """A seeded source of pictures with what they show. A painter of held-out pictures uses fonts that none has learned."""

    def __init__(self, seed: int, *, held_out: bool) -> None:
        self.rng = random.Random(seed)
        self.fonts = HELD_OUT_FONTS if held_out else FONTS
        self.bolder = 0.0 if held_out else 0.25  # share of the texts whose strokes are wider than those of the font

    def picture(self, kind: str | None = None) -> tuple[Image.Image, Reading]:
        """A picture of any size (48 to 250 pixels a side), and what it shows."""
        rng = self.rng
        kind = kind or rng.choices([name for name, _ in KINDS], [weight for _, weight in KINDS])[0]
        self.ground = self.background()
        width = height = rng.choice((48, 48, 96, 144, 192))
        if rng.random() < 0.2:
            longer = round(width * rng.uniform(1.0, 1.3))
            width, height = rng.choice(((longer, height), (width, longer)))
        self.scale = 1 if min(width, height) > 150 else 2
        self.image = Image.new("RGB", (width * self.scale, height * self.scale), self.ground)
        self.pen = ImageDraw.Draw(self.image)
        reading: Reading = getattr(self, f"draw_{kind}")()
        image = self.image if self.scale == 1 else self.image.resize((width, height), Image.Resampling.BOX)
        if rng.random() < 0.15:
            image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.8) * min(width, height) / 64))
        return image, reading

    def background(self) -> Rgb:
        rng = self.rng
        match rng.choices(("white", "light", "dark", "grey"), (45, 30, 17, 8))[0]:
            case "white":
                return (255, 255, 255)
            case "light":
                return tuple(rng.randint(215, 255) for _ in range(3))  # type: ignore[return-value]
            case "dark":
                return tuple(rng.randint(0, 45) for _ in range(3))  # type: ignore[return-value]
            case _:
                return (rng.randint(110, 175),) * 3

    def ink(self, colour: str) -> Rgb:
        return tuple(max(0, min(255, part + self.rng.randint(-14, 14))) for part in INKS[colour])  # type: ignore[return-value]

    def colour(self) -> str:
        """A colour that stands out from the background."""
        while True:
            colour = self.rng.choice(COLOURS)
            parts = zip(INKS[colour], self.ground, strict=True)
            if math.dist(*zip(*parts, strict=True)) > 115:
                return colour

    def shape(self, shape: str, colour: str, x: float, y: float, radius: float) -> None:
        """Draw it with its centre at x and y; all are shares of the picture, the radius one of its shorter side."""
        width, height = self.image.size
        cx, cy, r = x * width, y * height, radius * min(width, height)
        ink = self.ink(colour)
        turn = self.rng.uniform(-0.15, 0.15)
        match shape:
            case "circle":
                self.pen.ellipse((cx - r, cy - r, cx + r, cy + r), fill=ink)
                return
            case "square":
                radii, start, turn = [r * 1.2] * 4, math.pi / 4, turn * 0.3
            case "triangle":
                radii, start = [r * 1.2] * 3, -math.pi / 2
            case _:
                radii, start = [r * 1.25, r * 0.55] * 5, -math.pi / 2
        step = 2 * math.pi / len(radii)
        corners = [
            (cx + size * math.cos(start + turn + i * step), cy + size * math.sin(start + turn + i * step))
            for i, size in enumerate(radii)
        ]
        self.pen.polygon(corners, fill=ink)

    def draw_nothing(self) -> Reading:
        return Reading("nothing")

    def draw_one(self) -> Reading:
        rng = self.rng
        place = rng.choice(("left", "right", "top", "bottom", "middle"))
        radius = rng.uniform(0.14, 0.2) if place != "middle" else rng.uniform(0.14, 0.34)
        near, far, mid = rng.uniform(0.2, 0.28), rng.uniform(0.72, 0.8), rng.uniform(0.42, 0.58)
        x = {"left": near, "right": far}.get(place, mid)
        y = {"top": near, "bottom": far}.get(place, rng.uniform(0.42, 0.58))
        thing = Thing(self.colour(), rng.choice(SHAPES), place)
        self.shape(thing.shape, thing.colour, x, y, radius)
        return Reading("one", (thing,))

    def draw_alike(self) -> Reading:
        """Two to five, not closer to each other than they are large."""
        rng = self.rng
        count = rng.randint(2, 5)
        thing = Thing(self.colour(), rng.choice(SHAPES))
        radius = rng.uniform(0.1, 0.13 if count < 4 else 0.115)
        spots: list[tuple[float, float]] = []
        while len(spots) < count:
            spot = rng.uniform(0.14, 0.86), rng.uniform(0.14, 0.86)
            if all(math.dist(spot, other) > 2.4 * radius for other in spots):
                spots.append(spot)
            elif rng.random() < 0.02:
                spots = []
        for spot in spots:
            self.shape(thing.shape, thing.colour, *spot, radius)
        return Reading(COUNTS[count - 1], (thing,))

    def draw_two(self) -> Reading:
        rng = self.rng
        places = rng.choice((("left", "right"), ("top", "bottom")))
        while True:
            first, second = (Thing(self.colour(), rng.choice(SHAPES), place) for place in places)
            if (first.colour, first.shape) != (second.colour, second.shape):
                break
        for thing, along in zip((first, second), (rng.uniform(0.2, 0.29), rng.uniform(0.71, 0.8)), strict=True):
            across = rng.uniform(0.38, 0.62)
            x, y = (along, across) if places[0] == "left" else (across, along)
            self.shape(thing.shape, thing.colour, x, y, rng.uniform(0.14, 0.2))
        return Reading("two", (first, second))

    def draw_number(self) -> Reading:
        text = str(self.rng.randint(0, 99))
        return Reading("number", (Thing(self.write(text, 0.5, 0.8)),), text)

    def draw_word(self) -> Reading:
        word = self.rng.choice(WORDS)
        shown = self.rng.choice((word, word.upper()))
        return Reading("word", (Thing(self.write(shown, 0.84, 0.92)),), word)

    def write(self, text: str, least: float, most: float) -> str:
        """Print the text about that wide (but at most half as high as the picture), and return its colour."""
        rng = self.rng
        width, height = self.image.size
        name = rng.choice(self.fonts)
        left, top, right, bottom = font(name, 64).getbbox(text)
        size = 64 * min(rng.uniform(least, most) * width / (right - left), 0.5 * height / (bottom - top))
        chosen = font(name, max(8, round(size)))
        left, top, right, bottom = chosen.getbbox(text)
        room_x, room_y = width - (right - left), height - (bottom - top)
        x = room_x * 0.5 - left + width * rng.uniform(-0.03, 0.03)
        y = room_y * 0.5 - top + height * rng.uniform(-0.04, 0.04)
        colour = self.colour()
        stroke = 1 if size > 28 and rng.random() < self.bolder else 0
        self.pen.text((x, y), text, fill=self.ink(colour), font=chosen, stroke_width=stroke)
        return colour


@cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(FONT_FOLDER / name), size)


def seen(image: Image.Image) -> Image.Image:
    """The picture as libmtmd shows it to the encoder: fitted into a square, with grey beside it."""
    width, height = image.size
    if (width, height) == (SIDE, SIDE):
        return image
    scale = min(SIDE / width, SIDE / height)
    size = min(math.ceil(width * scale), SIDE), min(math.ceil(height * scale), SIDE)
    square = Image.new("RGB", (SIDE, SIDE), PAD)
    resized = image.resize(size, Image.Resampling.BICUBIC)
    square.paste(resized, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return square
