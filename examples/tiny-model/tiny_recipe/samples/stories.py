"""Short stories, told on request or as plain documents."""

from __future__ import annotations

from collections.abc import Sequence

from tiny_recipe.phrases import stories as plots
from tiny_recipe.phrases.asking import STORY
from tiny_recipe.phrases.phrasing import parted
from tiny_recipe.phrases.words import ANIMALS, NAMES
from tiny_recipe.samples.values import Exchange, talk
from tiny_recipe.samples.writer import Writer, with_article


def story_text(w: Writer, animal: str, name: str, place: str) -> str:
    pick = w.rng.choice
    friend = pick([other for other in ANIMALS if other != animal])
    friend_name = w.entry([other for other in NAMES if other != name])
    thing, adjective = pick(plots.THINGS), pick(plots.ADJECTIVES)
    words = {
        "animal": animal,
        "name": name,
        "place": place,
        "friend": friend,
        "friend_name": friend_name,
        "thing": thing,
        "the_thing": "the " + thing.split(" ", 1)[1],
        "adjective": adjective,
    }
    opening, finding, storm, race, end = (
        told(w, plot) for plot in (plots.OPENING, plots.FINDING, plots.STORM, plots.RACE, plots.END)
    )
    return " ".join((opening, pick((finding, storm, race)), end)).format(**words)


def told(w: Writer, plot: Sequence[str]) -> str:
    """The plot with one way chosen for each of its sentences."""
    return " ".join(w.rng.choice(ways) if len(ways) > 1 else ways[0] for ways in map(parted, plot))


def story(w: Writer) -> Exchange:
    animal, name, place = w.rng.choice(ANIMALS), w.name(), w.rng.choice(plots.PLACES)
    question = w.noisy(w.phrase(STORY).format(an=with_article(animal), n=name, p=place))
    return talk(question, story_text(w, animal, name, place), "I tell a short story with a good end.")
