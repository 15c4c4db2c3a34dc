"""Exchanges that are worked out: sums, counting, repeating, spelling, saying a word some times."""

from __future__ import annotations

from tiny_recipe.phrases import asking
from tiny_recipe.phrases.pairs import NUMBER_WORDS
from tiny_recipe.samples.knowledge import facts
from tiny_recipe.samples.values import Exchange, talk
from tiny_recipe.samples.writer import Writer, capital

SUMS = {"+": "plus", "-": "minus", "*": "times"}
TIMES = (2, 2, 3, 3, 3, 4, 4, 5, 5, 6)


def arithmetic(w: Writer) -> Exchange:
    """Sums and differences of numbers up to 12, products of numbers up to 10, which number up to 20 is bigger."""
    kind = w.rng.choice("+++++---**<")
    most = {"<": 20, "*": 10}.get(kind, 12)
    a, b = w.rng.randint(0, most), w.rng.randint(0, most)
    if kind == "-" and a < b:
        a, b = b, a
    if kind == "<" and a != b:
        question = w.noisy(w.phrase(asking.BIGGER).format(a=a, b=b))
        return talk(question, f"{max(a, b)} is bigger than {min(a, b)}.", f"I compare {a} and {b}.")
    sign = "+" if kind == "<" else kind
    result = {"+": a + b, "-": a - b, "*": a * b}[sign]
    question = w.noisy(w.phrase(asking.SUM).format(a=a, b=b, s=sign, w=SUMS[sign]))
    return talk(question, f"{a} {sign} {b} = {result}", f"I need {a} {sign} {b}. That is {result}.")


def count(w: Writer) -> Exchange:
    """Three to twenty numbers in a row, up or down, that start at 100 or below."""
    start = w.rng.choice([0, 1, 1, 1, w.rng.randint(0, 30), w.rng.randint(0, 100)])
    length = w.weighted([(w.rng.randint(3, 12), 80), (w.rng.randint(8, 20), 20)])
    numbers = list(range(start, start + length))
    if w.chance(0.2):
        numbers.reverse()
        question = w.phrase(asking.COUNT_DOWN)
    elif start == 1 and w.chance(0.5):
        question = w.phrase(asking.COUNT_TO)
    else:
        question = w.phrase(asking.COUNT_FROM)
    return talk(
        w.noisy(question.format(a=numbers[0], b=numbers[-1])),
        ", ".join(map(str, numbers)),
        f"I count from {numbers[0]} to {numbers[-1]}, one step at a time.",
    )


def repeat(w: Writer) -> Exchange:
    text = words_to_repeat(w)
    question = w.phrase(asking.REPEAT)
    if ":" not in question:
        text = text.rstrip(".")
    plain = text.isascii() and not set("'\".!?") & set(text)
    return talk(question.format(x=w.quoted(text) if plain else text), text, "I repeat the words exactly.")


def words_to_repeat(w: Writer) -> str:
    """One to six words, numbers, names and odd signs, or a sentence."""
    draws = (
        w.word,
        w.word,
        w.word,
        w.name,
        lambda: str(w.rng.randint(0, 9999)),
        lambda: w.rng.choice(asking.ODD_WORDS),
        lambda: w.word().upper(),
    )
    words = [w.any_of(*draws) for _ in range(w.rng.choice([1, 1, 2, 3, 4, 6]))]
    while not w.held_out and w.chance(0.5):
        w.muddled(words)
    spaced = " ".join(words)
    sentence = capital(spaced) + w.rng.choice(".!?")
    return w.rng.choice([spaced, spaced, ", ".join(words), sentence, facts(w).reply])


def change_case(w: Writer) -> Exchange:
    """Words or a sentence in upper or in lower case: practice for the rules of system prompts."""
    text = w.any_of(w.word, w.name, w.city, w.text, lambda: facts(w).reply, lambda: facts(w).reply)
    upper = w.chance(0.6)
    question = w.phrase(asking.UPPER if upper else asking.LOWER).format(x=text)
    changed = text.upper() if upper else text.lower()
    return talk(question, changed, f"I write it in {'upper' if upper else 'lower'} case.")


def spell(w: Writer) -> Exchange:
    word = w.any_of(
        w.word,
        w.word,
        w.name,
        lambda: w.pseudo(w.rng.randint(1, 3)),
        lambda: w.pseudo(w.rng.randint(1, 4)),
    )
    question = w.phrase(asking.SPELL)
    shown = w.quoted(word) if w.chance(0.3) else word
    return talk(question.format(x=shown), "-".join(word), f"I spell {word} letter by letter.")


def say_times(w: Writer) -> Exchange:
    """A word two to six times, the small numbers more often."""
    word, times = w.word(), w.rng.choice(TIMES)
    phrase = w.phrase(asking.SAY_TIMES)
    shown = w.quoted(word) if w.chance(0.3) else word
    question = phrase.format(x=shown, n=times if w.chance(0.7) else NUMBER_WORDS[times])
    return talk(question, " ".join([word] * times), f"I say {word} {times} times.")
