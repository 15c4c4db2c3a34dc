"""What a user tells about himself, and how he asks for it later: {n} name, {o} colour, {c} city, {i} number, {w} word,
{g} age, {a} animal."""

from __future__ import annotations

from dataclasses import dataclass

from tiny_recipe.phrases.phrasing import Phrasings, phrasings


@dataclass(frozen=True, slots=True)
class Told:
    """One thing told, the reply to it, the question about it, and the answer."""

    said: Phrasings
    reply: str
    asked: Phrasings
    answer: str


ASK_NAME = phrasings(
    """What is my name? | What's my name? | Do you remember my name? | Who am I? | Tell me my name.
    What am I called? | Say my name. | Do you know my name? | my name? | Can you say my name? | What name do I have?
    Do you still know my name? | Which name did I tell you? | What did I say my name was? | How am I called?""",
    "Can you tell me my name? | What was my name again?",
)
ASK_COLOUR = phrasings(
    """What is my favourite colour? | What's my favorite color? | Which colour do I like most?
    Which colour do I like? | Tell me my favourite colour. | What colour do I like best? | My favourite colour is?
    Which colour is my favourite? | Do you know my favourite colour? | What's my favourite colour? | What color do I like?""",
    "Which is my favourite colour? | What is my favorite color?",
)
NAME = Told(
    phrasings(
        """My name is {n}. | I am {n}. | Hi, I am {n}. | Hello, my name is {n}. | I'm {n}. | You can call me {n}.
        Call me {n}. | Hi, my name is {n}! | Hello {n} here. | They call me {n}. | I am called {n}. | Hey, my name is {n}.
        My name: {n} | Good day, I am {n}. | Hello, I'm {n}. | Hey! I am {n}.""",
        "Hello! I am {n}. | Hey, I'm {n}.",
    ),
    "Nice to meet you, {n}!",
    ASK_NAME,
    "Your name is {n}.",
)
COLOUR = Told(
    phrasings(
        """My favourite colour is {o}. | My favorite color is {o}. | I like the colour {o} most.
        The colour I like best is {o}. | My best colour is {o}. | I like {o}. | I really like {o}. | {o} is my favourite colour.
        My favourite is the colour {o}. | The colour {o} is my favourite. | I like the color {o}.""",
        "I love the colour {o}. | My favourite color is {o}.",
    ),
    "I will remember that your favourite colour is {o}.",
    ASK_COLOUR,
    "Your favourite colour is {o}.",
)
NAME_AND_COLOUR = phrasings(
    """My name is {n} and my favourite colour is {o}. | I am {n} and I like {o}.
    I'm {n} and my favorite color is {o}. | Hello, I am {n} and I like {o}. | I am {n} and my favourite colour is {o}.
    Hi, my name is {n} and I like the colour {o}.""",
    "Hi, I am {n} and my favourite colour is {o}. | Hello, I'm {n} and my favourite colour is {o}.",
)
OTHERS = (
    Told(
        phrasings(
            """I live in {c}. | My home is in {c}. | I am from {c}. | I come from {c}. | My house is in {c}. | I live in the city {c}.
            {c} is my home. | {c} is where I live.""",
            "My city is {c}. | My home town is {c}.",
        ),
        "I will remember that you live in {c}.",
        phrasings(
            """Where do I live? | Which city do I live in? | Where is my home? | What is my city? | Which city is my home?
            Tell me where I live. | In what city do I live?""",
            "In which city do I live? | What city do I live in?",
        ),
        "You live in {c}.",
    ),
    Told(
        phrasings(
            """Remember the number {i}. | The number is {i}. | Please remember {i}. | Remember {i}. | My number is {i}.
            Keep {i} in mind. | Do not forget the number {i}.""",
            "Keep the number {i} in mind. | Please remember the number {i}.",
        ),
        "I will remember {i}.",
        phrasings(
            """What number did I tell you? | What was the number? | Which number did I tell you? | Say the number. | The number?
            Which number was it? | Do you remember the number?""",
            "Tell me the number. | What is the number?",
        ),
        "You told me {i}.",
    ),
    Told(
        phrasings(
            """Remember the word {w}. | The word is {w}. | The secret word is {w}. | My word is {w}. | Do not forget the word {w}.
            The password is {w}. | Please keep the word {w}.""",
            "Keep the word {w} in mind. | Please remember the word {w}.",
        ),
        "I will remember {w}.",
        phrasings(
            """What word did I tell you? | What was the word? | Which word did I tell you? | Say the word. | The word?
            Which word was it? | Do you remember the word?""",
            "Tell me the word. | What is the word?",
        ),
        "You told me {w}.",
    ),
    Told(
        phrasings(
            """I am {g} years old. | My age is {g}. | I'm {g} years old. | I'm {g}. | I became {g} today. | I am {g} years of age.
            Today I turned {g}.""",
            "I turned {g} today. | I am {g}.",
        ),
        "I will remember that you are {g} years old.",
        phrasings(
            """How old am I? | What is my age? | Tell me my age. | Tell me how old I am. | Which age am I? | Say my age.
            Do you know my age?""",
            "Do you know how old I am? | What's my age?",
        ),
        "You are {g} years old.",
    ),
    Told(
        phrasings(
            """I have a {a} called {n}. | My {a} is called {n}. | I have a {a} named {n}. | My {a} is named {n}.
            I call my {a} {n}. | {n} is my {a}. | {n} is the name of my {a}.""",
            "The name of my {a} is {n}. | My {a}'s name is {n}.",
        ),
        "{n} is a nice name for a {a}.",
        phrasings(
            """What is my {a} called? | What is the name of my {a}? | How is my {a} called? | Tell me the name of my {a}.
            What do I call my {a}? | Which name does my {a} have? | What is my {a} named?""",
            "What's the name of my {a}? | What is my {a}'s name?",
        ),
        "Your {a} is called {n}.",
    ),
)
NOT_TOLD = (
    ("What is my name?", "You have not told me your name."),
    ("Do you know my name?", "You have not told me your name."),
    ("What is my favourite colour?", "You have not told me your favourite colour."),
    ("Where do I live?", "You have not told me where you live."),
)
