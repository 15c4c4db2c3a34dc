"""Questions about a picture or a sound, and their answers. One phrasing of each kind is held out for the evaluation."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tiny_recipe.media.reading import NONE, Reading, Thing
from tiny_recipe.phrases.phrasing import Phrasings, phrasings

DESCRIBE = phrasings(
    """What is in this picture? | What is in the picture? | Describe this picture. | Describe the image. | Describe it.
    What do you see? | What can you see in this picture? | What is in this image? | What does the picture show?
    Describe this image. | Tell me what you see. | What is this? | What is shown here? | Describe the picture.
    Describe what is in the picture. | Describe what the image shows. | Say what is in this picture.""",
    "What does this image show? | Describe what you see. | What is on this picture?",
)
COLOUR = phrasings(
    """What colour is it? | What color is it? | Which colour is it? | Name the colour. | What is the colour?
    What colour does it have? | Tell me the colour. | What is its colour? | Which color does it have?""",
    "Which colour does it have? | What is the color? | Name its colour.",
)
SHAPE = phrasings(
    """What shape is it? | Which shape is it? | Name the shape. | What shape do you see? | What shape is this?
    Which shape is in the picture? | Tell me the shape. | What is the shape?""",
    "Which shape do you see? | What shape is in the picture? | Which shape is this?",
)
COUNT = phrasings(
    """How many shapes are there? | How many are there? | How many shapes do you see? | Count the shapes.
    How many things are in the picture? | How many do you see? | How many shapes are in this picture?""",
    "How many shapes are in the picture? | How many things do you see? | How many things are there?",
)
WHERE = phrasings(
    """Where is the {x}? | Where do you see the {x}? | In which place is the {x}? | Where in the picture is the {x}?
    On which side is the {x}? | Where is the {x} in the picture?""",
    "Where in this picture is the {x}? | Where is the {x} in this image?",
)
COLOUR_OF = phrasings(
    """What colour is the {x}? | What color is the {x}? | Which colour is the {x}? | Tell me the colour of the {x}.
    Which colour does the {x} have? | What is the colour of the {x}?""",
    "Name the colour of the {x}. | What colour does the {x} have?",
)
SHAPE_AT = phrasings(
    """What is {p}? | What shape is {p}? | Which shape is {p}? | What do you see {p}? | What can you see {p}?
    Which of the shapes is {p}? | Name the shape {p}. | What stands {p}?""",
    "Which shape do you see {p}? | What is there {p}?",
)
NUMBER = phrasings(
    """What number is it? | Which number is it? | Read the number. | What is the number? | Which number do you see?
    What number is in the picture? | Tell me the number. | What does it say? | Read it.""",
    "What number do you see? | Which number is in the picture? | Read the number in the picture.",
)
WORD = phrasings(
    """What word is it? | Which word is it? | Read the word. | What is the word? | Which word do you see?
    What word is in the picture? | Tell me the word. | What does it say? | Read it.""",
    "What word do you see? | Which word is in the picture? | Read the word in the picture.",
)
HEARD = phrasings(
    """What do you hear? | What can you hear? | What is in this recording? | Write down what you hear. | What is this?
    Which word do you hear? | What was said? | Write down the words. | What does the voice say? | What did I say?
    Tell me what you hear. | Which words do you hear? | Which word is this? | Which word is it? | What word is this?
    What word do you hear? | Which word was said? | Write down the word. | What is the word? | Listen. What is it?
    Transcribe the audio. | Transcribe the audio to text. Write only the words that are spoken.""",
    "What do you hear in this recording? | What is said here? | Write what you hear.",
)
HEARD_NOTHING = "I hear nothing."  # the answer about a sound without a word
AT = {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom",
      "middle": "in the middle"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    ability: str
    question: str
    answer: str


def ask(rng: random.Random, reading: Reading, *, held_out: bool, ability: str | None = None) -> Asked:
    """A question that fits the picture: of that ability, or of one that it has."""
    choices = {
        "one": ("describe", "describe", "colour", "shape", "count", "place"),
        "two": ("describe", "count", "colour", "colour", "colour", "shape", "shape", "shape", "place"),
        "number": ("describe", "read", "read", "colour"),
        "word": ("describe", "read", "read", "colour"),
        "nothing": ("describe",),
    }.get(reading.kind, ("describe", "colour", "shape", "count", "count"))
    if reading.kind == "two" and len(reading.things) == 1:
        choices = ("describe", "colour", "shape", "count", "count")
    ability = ability or rng.choice(choices)
    phrasings_of, x, answer = answered(rng, ability, reading)
    question = rng.choice(phrasings_of.held_out if held_out else phrasings_of.learned)
    question = question.format(x=x, p=x)
    if not held_out and rng.random() < 0.15:
        question = rng.choice((question.lower(), question.rstrip(".?"), f"Please: {question}"))
    return Asked(ability, question, answer)


def answered(rng: random.Random, ability: str, reading: Reading) -> tuple[Phrasings, str, str]:
    """The phrasings, what stands in their gap, and the answer."""
    things = reading.things
    thing = rng.choice(things) if things else Thing()
    other = next((one for one in things if one != thing), None)
    match ability:
        case "describe":
            return DESCRIBE, "", described(reading)
        case "count":
            return COUNT, "", f"I see {reading.kind}."
        case "place":
            return WHERE, named(thing, other), f"It is {AT[thing.place]}."
        case "read":
            return (NUMBER if reading.kind == "number" else WORD), "", reading.text
        case "colour":
            asked = COLOUR if other is None else COLOUR_OF
            at = "shape " + AT.get(thing.place, "")
            name = thing.shape if other and other.shape != thing.shape and rng.random() < 0.6 else at
            return asked, name, f"It is {thing.colour}."
        case _:
            return (SHAPE if other is None else SHAPE_AT), AT.get(thing.place, ""), f"It is {a(thing.shape)}."


def described(reading: Reading) -> str:
    match reading.kind:
        case "nothing":
            return "I see nothing."
        case "number" | "word":
            return f"I see the {reading.kind} {reading.text}."
    parts = [f"{a(thing.colour)} {thing.shape} {AT.get(thing.place, '')}".strip() for thing in reading.things]
    times = f" {reading.kind} times" if len(parts) == 1 and reading.kind != "one" else ""
    return f"I see {' and '.join(parts)}{times}."


def named(thing: Thing, other: Thing | None) -> str:
    """The shape, by its colour where there are two of that shape."""
    return thing.shape if other is None or other.shape != thing.shape else f"{thing.colour} {thing.shape}"


def a(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def random_kind(rng: random.Random) -> str:
    """The kind of a picture to ask about; most of the questions are about two different shapes."""
    kinds = {"one": 16, "alike": 12, "two": 50, "number": 11, "word": 9, "nothing": 2}
    return rng.choices(list(kinds), list(kinds.values()))[0]


def random_reading(rng: random.Random) -> Reading:
    """What a picture could show, without the picture."""
    from tiny_recipe.media.reading import COLOURS, COUNTS, SHAPES, WORDS

    def thing(place: str = NONE) -> Thing:
        return Thing(rng.choice(COLOURS), rng.choice(SHAPES), place)

    match random_kind(rng):
        case "one":
            return Reading("one", (thing(rng.choice(tuple(AT))),))
        case "alike":
            return Reading(rng.choice(COUNTS[1:]), (thing(),))
        case "two":
            places = rng.choice((("left", "right"), ("top", "bottom")))
            while True:
                first, second = map(thing, places)
                if (first.colour, first.shape) != (second.colour, second.shape):
                    return Reading("two", (first, second))
        case "number":
            return Reading("number", (Thing(rng.choice(COLOURS)),), str(rng.randint(0, 99)))
        case "word":
            return Reading("word", (Thing(rng.choice(COLOURS)),), rng.choice(WORDS))
        case _:
            return Reading("nothing")
