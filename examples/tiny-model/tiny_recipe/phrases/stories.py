"""The sentences of the stories: an opening, one of three plots, an end. Bars part the ways to say one sentence.

{name} is the hero, {animal} what it is, {friend} and {friend_name} whom it meets, {thing} what is found.
"""

from __future__ import annotations

PLACES = (
    "a green forest", "a small village", "a quiet valley", "an old castle", "a house by the sea", "a deep cave",
    "a sunny garden", "a little town", "a snowy mountain", "a farm near the river",
)  # fmt: skip
ADJECTIVES = "little brave curious clever shy cheerful gentle lazy hungry kind".split()
THINGS = (
    "a golden key", "a red balloon", "an old map", "a shiny stone", "a lost letter", "a silver bell",
    "a small lamp", "a wooden box", "a blue feather", "a broken clock",
)  # fmt: skip
OPENING = (
    "Once upon a time there was a {adjective} {animal} called {name}.",
    "{name} lived in {place}. | {name} had a home in {place}, and liked it very much.",
    """Every morning {name} went for a walk. | {name} loved to explore.
    Every day was calm and quiet, and {name} was often bored.""",
)
FINDING = (
    "One day {name} found {thing}. | One morning {name} saw {thing} on the ground.",
    '"Who may have lost it?" asked {name}. | "I wonder whose it is," said {name}.',
    "{name} took {the_thing} and went to look for the owner.",
    "On the way {name} met a {friend} called {friend_name}.",
    '"Is {the_thing} yours?" asked {name}.',
    """"Yes! I have looked for it everywhere," said {friend_name}.
    "Oh, thank you! I lost it last night," said {friend_name}.""",
    """{friend_name} was so happy that they danced together.
    {friend_name} smiled and gave {name} a big hug.""",
)
STORM = (
    "One day a big storm came. | One night the wind began to blow very hard.",
    "The rain fell and fell, and {name} was afraid.",
    "Then {name} heard a small voice. It was a {friend} called {friend_name}.",
    '"Please help me," it said. "I cannot find my way home."',
    """{name} was still afraid, but opened the door at once.
    {name} took a lamp and went out into the dark.""",
    "They sat by the fire and drank hot milk until the storm was over.",
    'In the morning the sun was shining, and {friend_name} said, "Thank you, {name}. You are very brave."',
)
RACE = (
    "One day a {friend} called {friend_name} came by. | One morning {name} met a {friend} called {friend_name}.",
    '"I am the fastest of all," said {friend_name}. "Let us run to the old bridge!"',
    "They ran over the hill and along the river, and {friend_name} was far ahead.",
    "But then {friend_name} fell into a hole and could not get out.",
    "{name} could have won the race, but stopped to help.",
    '"Why did you stop?" asked {friend_name}.',
    '"Because a friend is worth more than a race," said {name}.',
)
END = (
    """From that day on {name} and {friend_name} were best friends.
    Since then {name} and {friend_name} have met every day.""",
    "And they lived happily ever after. | The end.",
)
