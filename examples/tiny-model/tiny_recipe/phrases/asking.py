"""How the small exercises are asked for: sums, counting, repeating, spelling, saying, JSON, stories."""

from __future__ import annotations

from tiny_recipe.phrases.phrasing import Phrasings, parted, phrasings

BIGGER = phrasings(
    """Which is bigger, {a} or {b}? | Which number is bigger: {a} or {b}? | Is {a} or {b} bigger?
    What is larger, {a} or {b}? | Bigger: {a} or {b}? | Which of {a} and {b} is bigger? | What is bigger, {a} or {b}?
    Which one is larger, {a} or {b}? | Tell me which number is bigger, {a} or {b}. | {a} or {b}: which is bigger?
    Compare {a} and {b}.""",
    "Which is larger, {a} or {b}? | Which number is larger, {a} or {b}?",
)
SUM = phrasings(
    """What is {a} {s} {b}? | {a} {s} {b} | {a} {s} {b} = | What is {a} {w} {b}? | How much is {a} {w} {b}?
    Calculate {a} {s} {b}. | How much is {a} {s} {b}? | {a} {w} {b}? | Tell me what {a} {s} {b} is.
    Work out {a} {s} {b}. | Solve {a} {s} {b}. | Evaluate {a} {s} {b}. | The result of {a} {s} {b}?
    What is the result of {a} {w} {b}? | {a} {s} {b}, please | {a} {s} {b} is what? | What do you get for {a} {w} {b}?
    What comes out of {a} {s} {b}? | What does {a} {s} {b} give? | What does {a} {w} {b} equal? | Do the sum {a} {s} {b}.
    {a} {w} {b} | Give me {a} {s} {b}. | Find {a} {s} {b}. | How much does {a} {w} {b} make?""",
    "Compute {a} {s} {b}. | What does {a} {w} {b} make?",
)
COUNT_DOWN = phrasings(
    """Count down from {a} to {b}. | Count backwards from {a} to {b}. | Count down {a} to {b}.
    Can you count down from {a} to {b}? | Count back from {a} to {b}. | Write the numbers down from {a} to {b}.
    Say the numbers from {a} down to {b}. | A countdown from {a} to {b}, please. | Do a countdown from {a} to {b}.""",
    "Count from {a} down to {b}. | Please count down from {a} to {b}.",
)
COUNT_TO = phrasings(
    """Count to {b}. | Count up to {b}. | Can you count to {b}? | Count till {b}. | Count as far as {b}.
    Count for me to {b}. | Start to count and stop at {b}. | Count the numbers to {b}. | Count on until you reach {b}.""",
    "Please count to {b}. | Count until {b}.",
)
COUNT_FROM = phrasings(
    """Count from {a} to {b}. | Count up from {a} to {b}. | Please count from {a} to {b}.
    Write the numbers from {a} to {b}. | List the numbers from {a} to {b}. | count {a} to {b}
    Say the numbers from {a} to {b}. | Give me the numbers from {a} to {b}. | Numbers from {a} to {b}, please.
    All numbers from {a} to {b}. | Show the numbers from {a} to {b}. | Start at {a} and count to {b}.
    Can you count up from {a} to {b}? | Can you count {a} to {b}? | Would you count from {a} to {b}?
    Print all numbers from {a} to {b}. | Put down the numbers from {a} to {b}. | Could you count from {a} to {b}? | Which numbers go from {a} to {b}?""",
    "Can you count from {a} to {b}? | Print the numbers from {a} to {b}.",
)
REPEAT = phrasings(
    """Repeat after me: {x} | Repeat: {x} | Say {x} | Say: {x} | Echo {x} | Repeat this: {x}
    Repeat the following: {x} | Say exactly: {x} | Please repeat: {x} | Write {x} | Reply with {x}
    Answer with {x} | Please repeat this: {x} | Say this: {x} | Repeat these words: {x} | Copy this: {x} | Copy: {x}
    Can you say: {x} | Please echo: {x} | Now say: {x} | Say after me: {x} | Repeat after me {x} | Write: {x}
    Please write: {x} | Say it back: {x} | Please repeat after me: {x}""",
    "Repeat after me, please: {x} | Please say: {x}",
)
UPPER = phrasings(
    """Write this in upper case: {x} | Put this in upper case: {x} | In capital letters: {x} | Upper case: {x}
    Say this in capital letters: {x} | Write in capitals: {x} | Make this upper case: {x} | In upper case, please: {x}""",
    "Change this to upper case: {x} | Please write in capital letters: {x}",
)
LOWER = phrasings(
    """Write this in lower case: {x} | Put this in lower case: {x} | In small letters: {x} | Lower case: {x}
    Say this in small letters: {x} | Write without capitals: {x} | Make this lower case: {x} | In lower case, please: {x}""",
    "Change this to lower case: {x} | Please write in small letters: {x}",
)
SPELL = phrasings(
    """Spell {x}. | Spell {x} | Spell the word {x}. | How do you spell {x}? | Spell {x} for me. | spell {x}
    Please spell {x}. | How is {x} spelled? | Spell this word: {x} | Could you spell {x}? | How do I spell {x}?
    Spell out {x}. | Please spell this word: {x} | Spell the letters of {x}. | The word {x}: spell it. | {x}, spelled?
    I want you to spell {x}. | Tell me how to spell {x}. | Can you spell the word {x}?""",
    "Can you spell {x}? | Please spell the word {x}.",
)
SAY_TIMES = phrasings(
    """Say {x} {n} times. | Say {x} {n} times | Repeat {x} {n} times. | Write {x} {n} times.
    Please say {x} {n} times. | Say the word {x} {n} times. | Can you say {x} {n} times? | {n} times {x}
    Write the word {x} {n} times. | Please repeat {x} {n} times. | {n} times the word {x}, please. | Echo {x} {n} times.
    I want to hear {x} {n} times. | Print {x} {n} times. | Please say the word {x} {n} times. | Type {x} {n} times.""",
    "Repeat the word {x} {n} times. | Please write {x} {n} times.",
)
JSON_OF_PERSON = phrasings(
    """Describe {n}, {a}, from {c} as JSON. | JSON for {n}, {a} years old, from {c}.
    Give me JSON for a person called {n}, aged {a}, who lives in {c}.
    As JSON: {n} is {a} years old and lives in {c}. | {n} is {a} and lives in {c}. Write that as JSON.
    Write JSON: {n} is {a} years old and lives in {c}. | Make JSON of this: {n} is {a} and lives in {c}.
    Make this JSON: {n}, {a} years old, from {c}. | {n}, {a}, {c} as JSON | Give me this as JSON: {n} is {a} and lives in {c}.
    Convert to JSON: {n} is {a} years old and lives in {c}. | JSON of a person: {n}, {a}, from {c}.""",
    """Put this into JSON: {n} is {a} and lives in {c}.
    Turn this into JSON: {n} is {a} years old and lives in {c}.""",
)
JSON_OPENINGS = Phrasings(
    parted(
        """Give me a JSON object | Write a JSON object | Return a JSON object | Make a JSON object
        Give me JSON | I need a JSON object | JSON object | Please write JSON | I want a JSON object
        Can you give me a JSON object | Please make a JSON object | Show me a JSON object"""
    ),
    ("Please give me a JSON object",),
)
STORY = phrasings(
    """Tell me a story. | Tell me a story about {an}. | Write a short story about {an}.
    Write a story about {an} called {n}. | Tell me a story about {an} in {p}. | A story about {an}, please.
    Tell me a short story. | I want to hear a story about {an}. | Write a story about {an} called {n} in {p}.
    story about {an} | Write a story. | Tell me about {an} called {n}. | Tell a story about {an}.
    Tell me a story about {an} called {n}. | A short story about {an} named {n}. | Write me a story about {an}.
    I want a story about {an} named {n}. | Invent a story about {an}. | Make up a story about {an}.
    Could you tell me a story about {an}? | Please tell me a story about {an} named {n}. | Tell the story of {an} called {n}.""",
    "Can you tell me a story about {an}? | Make up a story about {an} named {n}.",
)
USE_TOOL = phrasings(
    """Please {v} the {n} with {d}. | {V} the {n} with {d}. | Call {t} with {d}. | Use {t} with {d}.
    Use the tool {t} with {d}. | I want you to {v} the {n} with {d}. | {V} {an} with {d} | Run {t}: {d}
    Could you {v} the {n} with {d}? | Now {v} the {n} with {d}. | Please call {t} with {d}. | {t} with {d}
    {V} the {n}: {d} | {V} the {n}, {d}. | I need you to {v} the {n} with {d}. | Please run {t} with {d}.""",
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
