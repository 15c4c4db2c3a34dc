"""Exchanges that are worked out: sums, counting, repeating, spelling, changing case, saying a word some times."""

from __future__ import annotations

from tiny_recipe.phrases import asking
from tiny_recipe.phrases.facts import FAMILIES
from tiny_recipe.phrases.mullama import MULLAMA
from tiny_recipe.phrases.pairs import NUMBER_WORDS
from tiny_recipe.phrases.talk import IDENTITY, LISTS, SMALL_TALK
from tiny_recipe.samples.knowledge import facts
from tiny_recipe.samples.values import Exchange, talk
from tiny_recipe.samples.writer import Writer, capital

SUMS = {"+": "plus", "-": "minus", "*": "times"}
TIMES = (2, 2, 3, 3, 3, 4, 4, 5, 5, 6, 7, 8, 9, 10)


def known_words() -> list[str]:
    """The words of all facts and answers: they are one token each, and how they are spelled is learned by heart."""
    texts = [part for family in FAMILIES for pair in family.pairs for part in pair]
    texts += [reply.answer for group in (LISTS, IDENTITY, MULLAMA, SMALL_TALK) for reply in group]
    words = {word.strip(".,:;!?'\"`()") for text in texts for word in text.split()}
    return sorted(word for word in words if word.isalpha() and word.isascii())


KNOWN_WORDS = known_words()


def arithmetic(w: Writer) -> Exchange:
    """Sums and differences of numbers up to 20, products of numbers up to 10, and which number is bigger."""
    kind = w.rng.choice("+++++---**<")
    a, b = w.rng.randint(0, 20), w.rng.randint(0, 20)
    if kind == "-" and a < b:
        a, b = b, a
    if kind == "*":
        a, b = a % 11, b % 11
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
    """One to nine words, numbers, names and odd signs, or a sentence."""
    draws = (
        w.word,
        w.word,
        w.word,
        w.name,
        lambda: str(w.rng.randint(0, 9999)),
        lambda: w.rng.choice(asking.ODD_WORDS),
        lambda: w.word().upper(),
    )
    words = [w.any_of(*draws) for _ in range(w.rng.choice([1, 1, 2, 3, 4, 6, 9]))]
    spaced = " ".join(words)
    sentence = capital(spaced) + w.rng.choice(".!?")
    return w.rng.choice([spaced, spaced, ", ".join(words), sentence, facts(w).reply])


def known(w: Writer) -> str:
    """A word from the answers, or when held out a word of the table."""
    return w.word() if w.held_out else w.rng.choice(KNOWN_WORDS).lower()


def spell(w: Writer) -> Exchange:
    word = w.any_of(
        w.word,
        w.word,
        w.name,
        lambda: w.pseudo(w.rng.randint(1, 3)),
        lambda: w.pseudo(w.rng.randint(1, 4)),
        lambda: known(w),
    )
    question = w.phrase(asking.SPELL)
    shown = w.quoted(word) if w.chance(0.3) else word
    return talk(question.format(x=shown), "-".join(word), f"I spell {word} letter by letter.")


def cased(w: Writer) -> Exchange:
    """One to three words in upper or in lower case."""
    count = w.rng.choice([1, 1, 2, 3])
    words = " ".join(w.any_of(w.word, w.name, lambda: known(w)) for _ in range(count))
    upper = w.chance(0.6)
    if not upper:
        words = w.rng.choice([words.title(), words.upper(), capital(words)])
    phrase = w.phrase(asking.CASE)
    question = phrase.format(x=w.quoted(words) if w.chance(0.3) else words, c="upper" if upper else "lower")
    return talk(question, words.upper() if upper else words.lower(), "I change the case of every letter.")


def say_times(w: Writer) -> Exchange:
    """A word two to ten times, the small numbers more often."""
    word, times = w.word(), w.rng.choice(TIMES)
    phrase = w.phrase(asking.SAY_TIMES)
    shown = w.quoted(word) if w.chance(0.3) else word
    question = phrase.format(x=shown, n=times if w.chance(0.7) else NUMBER_WORDS[times])
    return talk(question, " ".join([word] * times), f"I say {word} {times} times.")
