"""How the small exercises are asked for: sums, counting, repeating, spelling, saying, JSON, stories."""

from __future__ import annotations

from tiny_recipe.phrases.phrasing import Phrasings, parted, phrasings

BIGGER = phrasings(
    """Which is bigger, {a} or {b}? | Which number is bigger: {a} or {b}? | Is {a} or {b} bigger?
    What is larger, {a} or {b}?""",
    "Which is larger, {a} or {b}? | Which number is larger, {a} or {b}?",
)
SUM = phrasings(
    """What is {a} {s} {b}? | {a} {s} {b} | {a} {s} {b} = | What is {a} {w} {b}? | How much is {a} {w} {b}?
    Calculate {a} {s} {b}. | How much is {a} {s} {b}? | {a} {w} {b}? | Tell me what {a} {s} {b} is.
    Work out {a} {s} {b}.""",
    "Compute {a} {s} {b}. | What does {a} {w} {b} make?",
)
COUNT_DOWN = phrasings(
    "Count down from {a} to {b}. | Count backwards from {a} to {b}.",
    "Count from {a} down to {b}. | Please count down from {a} to {b}.",
)
COUNT_TO = phrasings(
    "Count to {b}. | Count up to {b}. | Can you count to {b}?", "Please count to {b}. | Count until {b}."
)
COUNT_FROM = phrasings(
    """Count from {a} to {b}. | Count up from {a} to {b}. | Please count from {a} to {b}.
    Write the numbers from {a} to {b}. | List the numbers from {a} to {b}. | count {a} to {b}
    Say the numbers from {a} to {b}. | Give me the numbers from {a} to {b}.""",
    "Can you count from {a} to {b}? | Print the numbers from {a} to {b}.",
)
REPEAT = phrasings(
    """Repeat after me: {x} | Repeat: {x} | Say {x} | Say: {x} | Echo {x} | Repeat this: {x}
    Repeat the following: {x} | Say exactly: {x} | Please repeat: {x} | Write {x} | Reply with {x}
    Answer with {x}""",
    "Repeat after me, please: {x} | Please say: {x}",
)
SPELL = phrasings(
    """Spell {x}. | Spell {x} | Spell the word {x}. | How do you spell {x}? | Spell {x} for me. | spell {x}
    Please spell {x}. | How is {x} spelled?""",
    "Can you spell {x}? | Please spell the word {x}.",
)
SAY_TIMES = phrasings(
    """Say {x} {n} times. | Say {x} {n} times | Repeat {x} {n} times. | Write {x} {n} times.
    Please say {x} {n} times. | Say the word {x} {n} times.""",
    "Repeat the word {x} {n} times. | Please write {x} {n} times.",
)
JSON_OF_PERSON = phrasings(
    """Describe {n}, {a}, from {c} as JSON. | JSON for {n}, {a} years old, from {c}.
    Give me JSON for a person called {n}, aged {a}, who lives in {c}.
    As JSON: {n} is {a} years old and lives in {c}.""",
    """Put this into JSON: {n} is {a} and lives in {c}.
    Turn this into JSON: {n} is {a} years old and lives in {c}.""",
)
JSON_OPENINGS = Phrasings(
    parted(
        """Give me a JSON object | Write a JSON object | Return a JSON object | Make a JSON object
        Give me JSON | I need a JSON object"""
    ),
    ("Please give me a JSON object",),
)
STORY = phrasings(
    """Tell me a story. | Tell me a story about {an}. | Write a short story about {an}.
    Write a story about {an} called {n}. | Tell me a story about {an} in {p}. | A story about {an}, please.
    Tell me a short story. | I want to hear a story about {an}. | Write a story about {an} called {n} in {p}.
    story about {an} | Write a story. | Tell me about {an} called {n}.""",
    "Can you tell me a story about {an}? | Make up a story about {an} named {n}.",
)
USE_TOOL = phrasings(
    """Please {v} the {n} with {d}. | {V} the {n} with {d}. | Call {t} with {d}. | Use {t} with {d}.
    Use the tool {t} with {d}. | I want you to {v} the {n} with {d}. | {V} {an} with {d} | Run {t}: {d}""",
    "Can you {v} the {n} with {d}? | Please use {t} with {d}.",
)
SENTENCES = parted(
    """I am late | dinner is ready | the train leaves at {n} | see you in {c} | happy birthday {p}
    buy {n} eggs | call {p} at {n} | meet me at {n} in {c} | how to cook {w} | the {w} is broken | good luck {p}"""
)
ODD_WORDS = parted(
    "é | ü | ß | 你好 | 🙂 | ñ | 日本 | Привет | → | € | @ | #7 | x=1 | a/b | 3.14 | {} | <b> | I'm | don't"
)
POLITE_OPENINGS = (
    "Please: ", "Hey, ", "Hi! ", "Quick question: ", "OK, ", "And ", "Now: ", "One more question: ", "So, ",
)  # fmt: skip
POLITE_ENDS = (" Thanks!", " please", " Please.", "  ", "?")
