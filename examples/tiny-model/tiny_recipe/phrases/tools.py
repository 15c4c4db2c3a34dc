"""All known kinds of tools, the parts of made-up ones, and what tools give back."""

from __future__ import annotations

from tiny_recipe.phrases.daily_tools import DAILY_TOOLS
from tiny_recipe.phrases.desk_tools import DESK_TOOLS

DOMAINS = DAILY_TOOLS + DESK_TOOLS
MADE_UP_VERBS = """paint wash move build clean check scan start stop open close mark sort count lift fold send print
heat cool polish rotate measure repair inspect label wrap tune charge reset""".split()
MADE_UP_PARAMETERS = (
    ("size", "int 1 100"),
    ("label", "word"),
    ("colour", "enum red|green|blue|black|white"),
    ("fast", "bool true|false"),
    ("owner", "name"),
    ("city", "city"),
    ("count", "int 1 50"),
    ("mode", "enum auto|manual|off"),
    ("level", "int 0 10"),
    ("quiet", "bool true|false"),
    ("title", "word"),
    ("target", "word"),
    ("speed", "enum slow|normal|quick"),
    ("width", "int 1 500"),
)
NO_TOOL = "I have no tool for that."

# What tools give back: free text ({n} a number, {c} a city, {t} some words, {p} a name), or properties.
RESULTS = (
    "sunny, {n} degrees", "{n} degrees and rainy", "{n}", "done", "ok", "{c} is nice, {n} degrees", "{t}", "{t}",
    "sent to {p}", "cloudy with {n} degrees", "It is {n} degrees.",
)  # fmt: skip
PROBLEMS = ("not found", "no connection", "timeout", "permission denied")
PROPERTIES_TOLD = "temperature condition status price name city time id result title free_seats".split()
CONDITIONS = "sunny rainy cloudy windy snowy".split()
STATES = "ok done sent booked".split()
