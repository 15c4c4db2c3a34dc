"""The facts that the model knows by heart, by family: pairs, ways to ask, and the answer."""

from __future__ import annotations

from dataclasses import dataclass

from tiny_recipe.phrases.pairs import (
    CAPITALS,
    CAPITALS_BACK,
    COLOURS,
    DAYS,
    DEFINITIONS,
    KINDS,
    LEGS,
    MONTHS,
    NUMBER_WORDS,
    OPPOSITES,
    ORDINALS,
    PAST,
    PLURALS,
    SIDES,
    SOUNDS,
    YOUNG,
)
from tiny_recipe.phrases.phrasing import Pairs, Phrasings, phrasings


@dataclass(frozen=True, slots=True)
class Family:
    """Facts of one kind; in phrasings and answer {a} and {b} are the pair, {an_a} and {an_b} carry their article."""

    pairs: Pairs
    asked: Phrasings
    answer: str


FAMILIES = (
    Family(
        CAPITALS,
        phrasings(
            """What is the capital of {a}? | {a}: what is its capital? | Which town is the capital of {a}?
            {a} has which capital? | What is {a}'s capital? | Where does the government of {a} sit?
            I need the capital of {a}. | {a} capital | Which city is the capital of {a}?
            Name the capital of {a}. | Tell me the capital of {a}. | capital of {a}
            What's the capital of {a}? | The capital of {a} is which city?
            I forgot the capital of {a}. What is it? | What is the capital city of {a}?
            Give me the capital of {a}. | Do you know the capital of {a}?""",
            "Can you tell me what the capital of {a} is? | What city is the capital of {a}?",
        ),
        "The capital of {a} is {b}.",
    ),
    Family(
        CAPITALS_BACK,
        phrasings(
            """{b} is the capital of which country? | What is the country with the capital {b}?
            To which country does the capital {b} belong? | {b} is which country's capital?
            Find the country that has the capital {b}. | Tell me the country whose capital city is {b}.
            {b} is the capital of which land? | The capital {b}: of what country?
            Name the country that has {b} as its capital.
            The country with the capital {b} is called what? | Which country has {b} as its capital?
            What country is {b} the capital of? | Of which country is {b} the capital?
            {b} is the capital of what land? | {b} is what country's capital? | The capital of what is {b}?
            Say of what {b} is the capital. | {b} is the capital of what country?
            {b} is the capital of what place?""",
            "{b} is the capital of what? | Name the country whose capital is {b}.",
        ),
        "{b} is the capital of {a}.",
    ),
    Family(
        OPPOSITES,
        phrasings(
            """What is the opposite of {a}? | {a}: what is the opposite? | The opposite of {a} is?
            Which word means the opposite of {a}? | I need the opposite of {a}. | Not {a} but what?
            What is the contrary of {a}? | Opposite of {a}? | Tell me the opposite of {a}.
            Name the opposite of {a}. | What's the opposite of {a}? | Give me the opposite of {a}.
            Which word is the opposite of {a}? | What is the opposite of the word {a}?""",
            "Do you know the opposite of {a}? | Can you give me the opposite of {a}?",
        ),
        "The opposite of {a} is {b}.",
    ),
    Family(
        COLOURS,
        phrasings(
            """What colour is {a}? | What color has {a}? | {A} has which colour? | {A} is of what color?
            In which colour do we see {a}? | Tell me what colour {a} is. | color of {a}?
            Give me the colour of {a}. | What color is {a}? | Which colour is {a}?
            Tell me the colour of {a}. | What is the colour of {a}? | colour of {a}
            Which color does {a} have?""",
            "Name the colour of {a}. | What colour does {a} have?",
        ),
        "{A} is {b}.",
    ),
    Family(
        SOUNDS,
        phrasings(
            """What sound does {an_a} make? | {An_a} makes which sound? | What is the sound of {an_a}?
            What noise comes from {an_a}? | Name the sound that {an_a} makes.
            Make the sound of {an_a}. | What does the {a} say? | {a} sound | What does {an_a} say?
            What noise does {an_a} make? | Which sound does {an_a} make? | How does {an_a} sound?""",
            "Tell me the sound of {an_a}. | Which noise does {an_a} make?",
        ),
        "{An_a} says {b}.",
    ),
    Family(
        YOUNG,
        phrasings(
            """What is a young {a} called? | What is the young of {an_a} called?
            The young of {an_a} is called what? | A baby {a} is called what?
            Tell me what a young {a} is called. | What name does a young {a} have?
            Give me the name for a baby {a}. | Which name has a baby {a}? | What is a baby {a} called?
            What do you call a young {a}? | What do you call a baby {a}? | Name for a young {a}?""",
            "How do you call a baby {a}? | What is the name for a young {a}?",
        ),
        "A young {a} is called {an_b}.",
    ),
    Family(
        PLURALS,
        phrasings(
            """What is the plural of {a}? | One {a}, two what? | The plural of {a} is?
            How do you write the plural of {a}? | I need the plural of {a}. | What is {a} in the plural?
            Which word is the plural of {a}? | Plural of {a}? | Tell me the plural of {a}.
            What's the plural of {a}? | Give me the plural of {a}.""",
            "Name the plural of {a}. | What is the plural of the word {a}?",
        ),
        "The plural of {a} is {b}.",
    ),
    Family(
        PAST,
        phrasings(
            """What is the past tense of {a}? | What is {a} in the past tense?
            I need the past tense of {a}. | The past tense of {a} is?
            Which word is the past tense of {a}? | Put {a} into the past tense.
            How do you write the past tense of {a}? | Past tense of {a}?
            Tell me the past tense of {a}. | What's the past tense of {a}?
            Give me the past tense of {a}.""",
            "Name the past tense of {a}. | What is the past tense of the verb {a}?",
        ),
        "The past tense of {a} is {b}.",
    ),
    Family(
        LEGS,
        phrasings(
            """How many legs does {an_a} have? | How many legs are on {an_a}? | Count the legs of {an_a}.
            What is the number of legs of {an_a}? | On how many legs does {an_a} walk? | legs of {an_a}?
            Can you tell me how many legs {an_a} has? | Tell me how many legs {an_a} has.
            {An_a} has how many legs? | What number of legs does {an_a} have?""",
            "How many legs has {an_a}? | Do you know how many legs {an_a} has?",
        ),
        "{An_a} has {b} legs.",
    ),
    Family(
        SIDES,
        phrasings(
            """How many sides does {an_a} have? | How many sides are there in {an_a}?
            Count the sides of {an_a}. | What is the number of sides of {an_a}? | sides of {an_a}?
            Can you tell me how many sides {an_a} has? | {An_a}: how many sides?
            Tell me how many sides {an_a} has. | {An_a} has how many sides?
            What number of sides does {an_a} have?""",
            "How many sides has {an_a}? | Do you know how many sides {an_a} has?",
        ),
        "{An_a} has {b} sides.",
    ),
    Family(
        KINDS,
        phrasings(
            """What kind of thing is {a}? | What type of thing is {a}?
            To which kind of things does {a} belong? | Say what kind of thing {a} is.
            Which sort of thing is {a}? | In which category is {a}?
            Under which category does {a} fall? | Tell me what kind of thing {a} is.
            What is the category of {a}? | What class of things does {a} belong to?
            What sort of thing is {a}? | What category is {a} in? | What kind of thing is the word {a}?""",
            "Which category does {a} belong to? | Which kind of thing is {a}?",
        ),
        "{A} is {an_b}.",
    ),
    Family(
        DEFINITIONS,
        phrasings(
            """What is {a}? | What is meant by {a}? | Describe {a}. | Say what {a} is.
            How do you explain {a}? | What would you call {a}? | I need a definition of {a}.
            How can one define {a}? | Write a definition of {a}. | {a}? | Define {a}. | Explain {a}.
            What does {a} mean? | Tell me what {a} is. | What's {a}? | Explain what {a} is.
            Can you explain {a}? | Please explain what {a} is.""",
            "Give me a definition of {a}. | How would you define {a}?",
        ),
        "{A} is {b}.",
    ),
    Family(
        tuple((DAYS[i], DAYS[(i + 1) % 7]) for i in range(7)),
        phrasings(
            """What day comes after {a}? | After {a} comes which day? | {a} is followed by which day?
            Which day is after {a}? | Name the day after {a}. | What is the next day after {a}?
            If today is {a}, what day is tomorrow? | Which day comes after {a}?
            What is the day after {a}? | Which day follows {a}? | What comes after {a}?""",
            "Tell me the day after {a}. | What day follows {a}?",
        ),
        "The day after {a} is {b}.",
    ),
    Family(
        tuple((DAYS[i], DAYS[i - 1]) for i in range(7)),
        phrasings(
            """What day comes before {a}? | Before {a} comes which day? | Which day is before {a}?
            Name the day before {a}. | What day is before {a}?
            If today is {a}, what day was yesterday? | Say the day before {a}.
            Which day comes before {a}? | What is the day before {a}? | What comes before {a}?""",
            "Tell me the day before {a}. | Which is the day before {a}?",
        ),
        "The day before {a} is {b}.",
    ),
    Family(
        tuple((MONTHS[i], MONTHS[(i + 1) % 12]) for i in range(12)),
        phrasings(
            """What month comes after {a}? | After {a} comes which month? | Name the month after {a}.
            {a} is followed by which month? | What is the next month after {a}?
            Which month is after {a}? | Which month comes after {a}? | What is the month after {a}?
            Which month follows {a}? | What comes after {a}?""",
            "Tell me the month after {a}. | What month follows {a}?",
        ),
        "The month after {a} is {b}.",
    ),
    Family(
        tuple((MONTHS[i], MONTHS[i - 1]) for i in range(12)),
        phrasings(
            """What month comes before {a}? | Before {a} comes which month? | Name the month before {a}.
            What month is before {a}? | Which month is before {a}? | Say the month before {a}.
            Can you tell me the month before {a}? | Which month comes before {a}?
            What is the month before {a}? | What comes before {a}?""",
            "Tell me the month before {a}. | Which is the month before {a}?",
        ),
        "The month before {a} is {b}.",
    ),
    Family(
        tuple(zip(ORDINALS, MONTHS, strict=True)),
        phrasings(
            """What is the {a} month of the year? | What is the {a} month? | The {a} month is which month?
            Give me the {a} month of the year. | Which month comes {a} in the year?
            What month is the {a} of the year? | What month is the {a} one?
            Which month is the {a} month? | Name the {a} month.""",
            "Tell me the {a} month of the year. | Which is the {a} month of the year?",
        ),
        "The {a} month of the year is {b}.",
    ),
    Family(
        tuple(zip(ORDINALS[:7], DAYS, strict=True)),
        phrasings(
            """What is the {a} day of the week? | What is the {a} day in a week?
            The {a} day of the week is which day? | Give me the {a} day of the week.
            Which day comes {a} in the week? | What day is the {a} of the week?
            Which day is the {a} day of the week? | Name the {a} day of the week.""",
            "Tell me the {a} day of the week. | Which is the {a} day of the week?",
        ),
        "The {a} day of the week is {b}.",
    ),
    Family(
        tuple((str(i), str(i + 1)) for i in range(31)),
        phrasings(
            """What number comes after {a}? | After {a} comes which number? | Which number is after {a}?
            Name the number after {a}. | {a} is followed by which number?
            What is the next number after {a}? | Say the number after {a}.
            Which number comes after {a}? | What is the number after {a}? | What comes after {a}?
            Which number follows {a}?""",
            "Tell me the number after {a}. | What number follows {a}?",
        ),
        "The number after {a} is {b}.",
    ),
    Family(
        tuple((str(i), str(i - 1)) for i in range(1, 31)),
        phrasings(
            """What number comes before {a}? | Before {a} comes which number? | Which number is before {a}?
            Name the number before {a}. | What number is before {a}? | Say the number before {a}.
            Can you tell me the number before {a}? | Which number comes before {a}?
            What is the number before {a}? | What comes before {a}?""",
            "Tell me the number before {a}. | Which is the number before {a}?",
        ),
        "The number before {a} is {b}.",
    ),
    Family(
        tuple((str(i), word) for i, word in enumerate(NUMBER_WORDS)),
        phrasings(
            """Write {a} in words. | Write {a} as a word. | Say {a} in words.
            How is {a} written in words? | The number {a} in words? | Put {a} into words.
            Write the number {a} in words. | {a} as a word | Spell the number {a} as a word.
            Write the number {a} as a word. | How do you write {a} in words? | {a} in words
            Spell out {a} in words. | Spell out the number {a} in words. | Spell out {a} as a word. | Spell the number {a} out. | Please spell {a} out as a word.""",
            "Spell out the number {a}. | What is {a} in words?",
        ),
        "{a} in words is {b}.",
    ),
    Family(
        tuple((word, str(i)) for i, word in enumerate(NUMBER_WORDS)),
        phrasings(
            """Write {a} in digits. | Put {a} into digits. | How is {a} written in digits? | {a} in digits
            The number {a} in digits? | Which number is {a} in digits? | Say {a} in digits.
            Give me {a} in digits. | Write the number {a} in digits. | How do you write {a} in digits?
            {a} as a number""",
            "Write {a} as a number. | What is {a} in digits?",
        ),
        "{A} in digits is {b}.",
    ),
)
