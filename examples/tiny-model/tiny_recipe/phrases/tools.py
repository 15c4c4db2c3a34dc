"""Tools: what they are called, what they take, and how a user asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from collections.abc import Mapping

from tiny_recipe.phrases.phrasing import Phrasings, phrasings


@dataclass(frozen=True, slots=True)
class Domain:
    """One kind of tool. A parameter is "slot": "possible names; kind; description"; a slot that ends in "?" is optional.

    Kinds: city, name, word, text, path, symbol, int LOW HIGH, enum A|B, bool WHEN_TRUE|WHEN_FALSE.
    """

    names: tuple[str, ...]
    description: str
    parameters: Mapping[str, str]
    requests: Phrasings


DOMAINS = (
    Domain(
        (
            "get_weather",
            "get_current_weather",
            "weather_lookup",
            "fetch_weather",
            "weather",
        ),
        "Get the weather for a city",
        {
            "c": "city|location|place|town; city; The name of the city",
            "u?": "unit|units; enum celsius|fahrenheit; The unit of the temperature",
        },
        phrasings(
            """What is the weather in {c}? | How is the weather in {c} today? | Weather for {c}?
            weather in {c} | Does it rain in {c}? | Is it cold in {c}? | Is it sunny in {c}?
            How hot is it in {c}? | Get me the weather in {c}. | I want to know the weather in {c}.
            What weather does {c} have? | Give me the weather of {c} in {u}.
            Do I need an umbrella in {c}? | Look at the weather in {c}.
            Show me the weather for {c} in {u}. | What's the weather like in {c}?
            How is the weather in {c}? | Weather in {c}, please. | What is the weather in {c} in {u}?
            Tell me the weather in {c} in {u}. | Is it raining in {c}? | How warm is it in {c} in {u}?
            I am going to {c}. How is the weather there? | Check the weather in {c}.""",
            "What is the weather like today in {c}? | Please look up the weather in {c}.",
        ),
    ),
    Domain(
        (
            "get_forecast",
            "forecast",
            "weather_forecast",
        ),
        "Get the weather forecast for the next days",
        {"c": "city|location|place; city; The city", "n": "days|day_count; int 1 14; How many days"},
        phrasings(
            """What is the forecast for {c} for {n} days? | Weather forecast for {c}, {n} days.
            I need the forecast for {c} for the next {n} days. | Forecast {n} days for {c}.
            Get the forecast for {n} days in {c}.
            What will the weather be in {c} in the next {n} days?
            How is the forecast for {c} for {n} days?
            Tell me the forecast of {c} for the next {n} days.
            Please show the {n} day forecast of {c}. | Give me a {n} day forecast for {c}.
            Forecast for the next {n} days in {c}, please.""",
            "How will the weather be in {c} over {n} days? | Show me the forecast of {c} for {n} days.",
        ),
    ),
    Domain(
        (
            "get_time",
            "current_time",
            "get_current_time",
            "clock",
        ),
        "Get the current time in a city",
        {"c": "city|timezone|place|location; city; The city"},
        phrasings(
            """What time is it in {c}? | time in {c} | What is the current time in {c}?
            Give me the time in {c}. | I want to know the time in {c}. | What does the clock say in {c}?
            What's the time in {c}? | Tell me what time it is in {c}. | Show the time in {c}.
            Time in {c}, please. | Tell me the time in {c}. | What is the time in {c}?
            Current time in {c}?""",
            "How late is it in {c}? | Do you know what time it is in {c}?",
        ),
    ),
    Domain(
        (
            "add",
            "add_numbers",
            "sum",
            "calculate_sum",
        ),
        "Add two numbers",
        {"a": "a|x|first; int 0 9999; The first number", "b": "b|y|second; int 0 9999; The second number"},
        phrasings(
            """Add {a} and {b}. | {a} plus {b} | Sum {a} and {b}. | What is the sum of {a} and {b}?
            {a} + {b} | What is {a} + {b}? | Add the numbers {a} and {b}. | Add up {a} and {b}.
            I want to add {a} and {b}. | What is {a} plus {b}? | Calculate {a} + {b}.
            Use the tool to add {a} and {b}.""",
            "Please sum {a} and {b}. | How much is {a} plus {b}?",
        ),
    ),
    Domain(
        (
            "multiply",
            "multiply_numbers",
            "product",
        ),
        "Multiply two numbers",
        {"a": "a|x|first; int 0 999; The first number", "b": "b|y|second; int 0 999; The second number"},
        phrasings(
            """Multiply {a} by {b}. | {a} times {b} | {a} * {b} | What is the product of {a} and {b}?
            What is {a} * {b}? | Multiply {a} and {b}. | Multiply the numbers {a} and {b}.
            I want to multiply {a} by {b}. | Please multiply {a} by {b}. | What is {a} times {b}?
            Calculate {a} * {b}.""",
            "Use the tool to multiply {a} and {b}. | How much is {a} times {b}?",
        ),
    ),
    Domain(
        (
            "send_message",
            "send_email",
            "mail",
            "notify",
        ),
        "Send a message to a person",
        {
            "n": "to|recipient|person; name; Who gets the message",
            "t": "text|body|message; text; The text of the message",
        },
        phrasings(
            """Send a message to {n} saying {t} | Send a message to {n}: {t}
            Send {n} a message with the text {t} | Text {n}: {t} | Email {n}: {t} | Let {n} know: {t}
            Message to {n}: {t} | Send this to {n}: {t} | Mail {n} the text {t}
            I want to send {n} the message {t} | Drop {n} a message: {t} | Send {n} the message {t}
            Write to {n}: {t} | Tell {n}: {t}""",
            "Please send {n} this message: {t} | Message {n} with the text {t}",
        ),
    ),
    Domain(
        (
            "set_alarm",
            "create_alarm",
            "alarm",
        ),
        "Set an alarm",
        {
            "h": "hour|time; int 0 23; The hour",
            "d?": "daily|repeat; bool every day|once; Whether it repeats every day",
        },
        phrasings(
            """Set an alarm for {h} o'clock. | Alarm at {h} o'clock. | Alarm for {h}, please.
            Set the alarm to {h} o'clock {d}. | I have to get up at {h} o'clock.
            Wake me up at {h} o'clock. | I want an alarm at {h} o'clock {d}.
            Make an alarm for {h} o'clock. | Please set an alarm for {h}. | Wake me at {h}.
            Set an alarm for {h} o'clock {d}.""",
            "I need an alarm at {h} o'clock. | Please wake me up at {h} o'clock.",
        ),
    ),
    Domain(
        (
            "set_timer",
            "start_timer",
            "timer",
        ),
        "Start a timer",
        {"m": "minutes|duration; int 1 120; How many minutes"},
        phrasings(
            """Set a timer for {m} minutes. | Set the timer to {m} minutes. | Timer: {m} minutes
            {m} minutes timer | Start the timer for {m} minutes. | Tell me when {m} minutes are over.
            I want a timer of {m} minutes. | Please set a timer for {m} minutes.
            Make a timer of {m} minutes. | Start a timer of {m} minutes.
            Timer for {m} minutes, please.""",
            "Count {m} minutes for me. | I need a timer for {m} minutes.",
        ),
    ),
    Domain(
        (
            "play_music",
            "play_song",
            "music_player",
        ),
        "Play music by an artist",
        {"n": "artist|musician|by; name; The artist"},
        phrasings(
            """Play something by {n}. | Play {n}. | I want music by {n}. | Play the music of {n}.
            Let me hear {n}. | Play songs by {n}. | Start some music by {n}. | Put on {n}.
            I would like to hear music by {n}. | Play me something from {n}. | Play music by {n}.
            I want to hear {n}.""",
            "Put on some music by {n}. | Please play a song by {n}.",
        ),
    ),
    Domain(
        (
            "book_table",
            "reserve_table",
            "restaurant_booking",
        ),
        "Book a table in a restaurant",
        {
            "c": "city|location|place; city; The city",
            "n": "people|guests|seats; int 1 12; How many people",
            "o?": "outside|terrace; bool outside|inside; Whether to sit outside",
        },
        phrasings(
            """Book a table for {n} in {c}. | Table for {n} in {c}. | Book a table in {c} for {n} people.
            I want a table for {n} people in {c}. | Please reserve a table in {c} for {n}.
            Get me a table for {n} in {c}. | We are {n} people and want to eat in {c}.
            Reserve a table {o} in {c} for {n} people. | Find a table for {n} in {c}.
            Reserve a table for {n} people in {c}. | Book a table {o} for {n} people in {c}.""",
            "I need a table in {c} for {n} people. | A table for {n} in {c}, please.",
        ),
    ),
    Domain(
        (
            "find_hotel",
            "search_hotels",
            "book_hotel",
        ),
        "Find a hotel",
        {"c": "city|location|place; city; The city", "n": "nights|stay; int 1 21; How many nights"},
        phrasings(
            """Find a hotel in {c} for {n} nights. | Hotel in {c} for {n} nights.
            Book a hotel in {c} for {n} nights. | I want to stay {n} nights in {c}.
            Search for a hotel in {c} for {n} nights. | I want to sleep in {c} for {n} nights.
            Get me a hotel for {n} nights in {c}. | A hotel in {c}, {n} nights, please.
            Is there a hotel in {c} for {n} nights? | I need a hotel in {c} for {n} nights.
            Book me a hotel for {n} nights in {c}.""",
            "Search a hotel in {c}, {n} nights. | Where can I sleep in {c} for {n} nights?",
        ),
    ),
    Domain(
        (
            "book_flight",
            "find_flight",
            "search_flights",
        ),
        "Find a flight between two cities",
        {
            "a": "origin|from|departure; city; Where the flight starts",
            "b": "destination|to|arrival; city; Where the flight ends",
        },
        phrasings(
            """Book a flight from {a} to {b}. | Flight from {a} to {b}. | Flights from {a} to {b}, please.
            I need a flight from {a} to {b}. | Search flights from {a} to {b}.
            Get me a flight from {a} to {b}. | How can I fly from {a} to {b}?
            Which flights go from {a} to {b}? | Look for a flight from {a} to {b}.
            Find a flight from {a} to {b}. | I want to fly from {a} to {b}.""",
            "Is there a flight from {a} to {b}? | Show me flights from {a} to {b}.",
        ),
    ),
    Domain(
        (
            "set_light",
            "switch_light",
            "light_control",
        ),
        "Switch the light in a room",
        {
            "r": "room|where|area; enum kitchen|bedroom|bathroom|garage|hall; The room",
            "o": "on|power|enabled; bool on|off; Whether the light is on",
        },
        phrasings(
            """Turn {o} the light in the {r}. | Light in the {r} {o}
            Please switch {o} the light in the {r}. | Turn the {r} light {o}.
            Switch the light in the {r} {o}. | Turn {o} the {r} light, please.
            Make the light in the {r} go {o}. | The light in the {r} should be {o}.
            Put the {r} light {o}. | Switch {o} the {r} light. | Please turn the light in the {r} {o}.""",
            "{r} light {o} | I want the light in the {r} {o}.",
        ),
    ),
    Domain(
        (
            "set_temperature",
            "heating",
            "thermostat",
        ),
        "Set the temperature of a room",
        {
            "r": "room|where|area; enum kitchen|bedroom|bathroom|office|hall; The room",
            "d": "degrees|temperature|value; int 10 30; The temperature in degrees",
        },
        phrasings(
            """Set the {r} to {d} degrees. | {r} to {d} degrees | Please heat the {r} to {d} degrees.
            Set the heating in the {r} to {d} degrees. | The {r} should have {d} degrees.
            Warm the {r} to {d} degrees. | Bring the {r} to {d} degrees. | Turn the {r} to {d} degrees.
            It should be {d} degrees in the {r}. | Heat the {r} to {d} degrees.
            Make it {d} degrees in the {r}.""",
            "Set the temperature in the {r} to {d}. | I want {d} degrees in the {r}.",
        ),
    ),
    Domain(
        (
            "web_search",
            "search_web",
            "search",
        ),
        "Search the web",
        {"t": "query|q|terms; text; What to search for"},
        phrasings(
            """Search the web for {t} | Web search: {t} | Search {t} | Search on the web: {t}
            Find {t} on the web | I want to search the web for {t} | Look for {t}
            What does the web say about {t} | Find something about {t} | Google {t} | Look up {t}
            Search for {t}""",
            "Find pages about {t} | Please search the web for {t}",
        ),
    ),
    Domain(
        (
            "translate",
            "translate_word",
            "translator",
        ),
        "Translate a word",
        {
            "w": "word|text|term; word; The word",
            "l": "language|target|lang; enum french|german|spanish|italian|polish; The language",
        },
        phrasings(
            """Translate {w} into {l}. | Translate {w} to {l}. | {w} in {l} | Say {w} in {l}.
            What does {w} mean in {l}? | Put {w} into {l}. | How is {w} said in {l}?
            I need {w} in {l}. | What is the {l} word for {w}? | Please translate the word {w} into {l}.
            What is {w} in {l}? | How do you say {w} in {l}?""",
            "Translate the word {w} to {l}. | Give me {w} in {l}.",
        ),
    ),
    Domain(
        (
            "convert_currency",
            "exchange_rate",
            "convert_money",
        ),
        "Convert money",
        {
            "n": "amount|value|sum; int 1 999; How much",
            "a": "from|source|from_currency; enum EUR|USD|GBP|JPY|CHF; The currency to convert from",
            "b": "to|target|to_currency; enum PLN|SEK|NOK|CAD|AUD; The currency to convert to",
        },
        phrasings(
            """Convert {n} {a} to {b}. | {n} {a} in {b} | Convert {n} {a} into {b}.
            What is {n} {a} in {b}? | Exchange {n} {a} to {b}. | I want {n} {a} in {b}.
            How many {b} are {n} {a}? | How many {b} do I get for {n} {a}?
            Please change {n} {a} to {b}. | How much is {n} {a} in {b}? | What are {n} {a} in {b}?""",
            "Change {n} {a} into {b}. | Please convert {n} {a} into {b}.",
        ),
    ),
    Domain(
        (
            "get_stock_price",
            "stock_price",
            "quote",
        ),
        "Get the price of a stock",
        {"s": "symbol|ticker|stock; symbol; The symbol of the stock"},
        phrasings(
            """What is the price of {s}? | Price of {s}? | How much does {s} cost?
            What does one {s} share cost? | Show the stock price of {s}.
            What is the stock price of {s}? | Tell me the price of the stock {s}. | What is {s} worth?
            How is the stock {s}? | Stock price of {s}? | How much is one share of {s}?""",
            "Give me the stock price of {s}. | Get the stock price of {s}.",
        ),
    ),
    Domain(
        (
            "add_note",
            "create_note",
            "remember",
            "add_todo",
        ),
        "Save a note",
        {"t": "text|note|content; text; The text of the note"},
        phrasings(
            """Note: {t} | Make a note: {t} | Note down {t} | Please note: {t} | Add a note: {t}
            Save this note: {t} | Keep a note that says {t} | Write a note: {t} | Please write down {t}
            Put this on my notes: {t} | New note: {t} | Save the note {t} | Write down {t}""",
            "Add a note that says {t} | Please make a note: {t}",
        ),
    ),
    Domain(
        (
            "get_user",
            "lookup_user",
            "find_user",
        ),
        "Look up a user by number",
        {"i": "id|user_id|number; int 1 9999; The number of the user"},
        phrasings(
            """Who is user {i}? | user {i} | Tell me about user {i}. | Show user {i}. | Get user {i}.
            Which user has the number {i}? | Look for user number {i}. | Find the user with number {i}.
            I need user {i}. | Who has the user id {i}? | Look up user {i}. | Show me user number {i}.""",
            "Get the user with the id {i}. | Find user {i}.",
        ),
    ),
    Domain(
        (
            "read_file",
            "open_file",
            "cat_file",
        ),
        "Read a file",
        {"p": "path|file|filename; path; The path of the file"},
        phrasings(
            """Read the file {p} | Read {p} | Open the file {p} | Show me {p} | Let me see {p}
            What does {p} contain? | I want to read {p} | Print the file {p} | Get the content of {p}
            Display {p} | What does the file {p} say? | Open {p} | What is in {p}?""",
            "Show me the file {p} | Show the content of {p}",
        ),
    ),
    Domain(
        (
            "delete_file",
            "remove_file",
        ),
        "Delete a file",
        {
            "p": "path|file|filename; path; The path of the file",
            "f?": "force|forced; bool by force|gently; Whether to ignore errors",
        },
        phrasings(
            """Delete the file {p} | Delete {p} | Remove the file {p} | Remove {p} {f}
            I want to delete {p} | Erase {p} | Throw away {p} | Delete the file {p} {f}
            The file {p} must go | I do not need {p} any more, delete it | Remove {p} | Delete {p} {f}""",
            "Please delete {p} | Get rid of {p}",
        ),
    ),
    Domain(
        (
            "order_pizza",
            "pizza",
        ),
        "Order pizza",
        {"z": "size; enum small|medium|large; The size", "n": "count|number|quantity; int 1 9; How many"},
        phrasings(
            """Order {n} {z} pizzas. | I would like {n} {z} pizzas. | Please get {n} {z} pizzas.
            We need {n} {z} pizzas. | Can I have {n} {z} pizzas? | {n} {z} pizzas | Order pizza: {n} {z}
            I want to order {n} {z} pizzas. | Bring {n} {z} pizzas. | I want {n} {z} pizzas.
            {n} {z} pizzas, please.""",
            "Please order {n} {z} pizzas. | Get me {n} {z} pizzas.",
        ),
    ),
    Domain(
        (
            "roll_dice",
            "throw_dice",
        ),
        "Roll a die",
        {"n": "sides|faces; int 4 100; How many sides the die has"},
        phrasings(
            """Roll a die with {n} sides. | Roll a die of {n} sides. | Roll the {n} sided die.
            Throw a die with {n} sides. | Roll dice with {n} sides.
            I want to roll a die with {n} sides. | Please throw a {n} sided die. | {n} sided die, please
            Can you roll a {n} sided die? | Throw a {n} sided die. | Roll a {n} sided die.""",
            "Throw a die that has {n} sides. | Please roll a die with {n} sides.",
        ),
    ),
    Domain(
        (
            "lock_door",
            "door_lock",
        ),
        "Lock or unlock a door",
        {
            "d": "door|which; enum front|back|garage|cellar; The door",
            "o": "locked|closed; bool lock|unlock; Whether the door is locked",
        },
        phrasings(
            """Please {o} the {d} door. | I want to {o} the {d} door. | Could you {o} the {d} door?
            {d} door: {o} it | You should {o} the {d} door. | Please {o} the door at the {d}.
            {o} the door at the {d}. | Now {o} the {d} door. | I need you to {o} the {d} door.
            {o} the {d} door | I want you to {o} the {d} door.""",
            "Can you {o} the {d} door? | Go and {o} the {d} door.",
        ),
    ),
    Domain(
        (
            "get_distance",
            "distance",
            "route_length",
        ),
        "Get the distance between two cities",
        {"a": "start|from|origin; city; The first city", "b": "end|to|destination; city; The second city"},
        phrasings(
            """How far is it from {a} to {b}? | What is the distance from {a} to {b}?
            How long is the way from {a} to {b}? | distance from {a} to {b}
            How many miles is it from {a} to {b}? | Get the distance between {a} and {b}.
            How far is it between {a} and {b}? | Tell me the distance from {a} to {b}.
            How far apart are {a} and {b}? | Distance from {a} to {b}?
            What is the distance between {a} and {b}?""",
            "How many miles are there from {a} to {b}? | Tell me how far {a} is from {b}.",
        ),
    ),
    Domain(
        (
            "get_population",
            "population",
        ),
        "Get the number of people in a city",
        {"c": "city|place|town; city; The city"},
        phrasings(
            """How many people live in {c}? | population of {c} | How many people are in {c}?
            What population does {c} have? | How large is {c}? | Get the population of {c}.
            Number of people in {c}? | How many inhabitants does {c} have?
            Give me the population of {c}. | What number of people live in {c}?
            What is the population of {c}? | Population of {c}?""",
            "How big is {c}? | Tell me the population of {c}.",
        ),
    ),
    Domain(
        (
            "get_news",
            "news",
            "headlines",
        ),
        "Get the news about a topic",
        {"w": "topic|subject|about; word; The topic"},
        phrasings(
            """What is the news about {w}? | news about {w} | Give me the news about {w}.
            Tell me the news about {w}. | Any news about {w}? | Find news on {w}.
            Show me news about {w}. | What do the news say about {w}? | I want the news about {w}.
            Is there something new about {w}? | News about {w}, please. | Show me the news on {w}.""",
            "What is new about {w}? | Is there any news about {w}?",
        ),
    ),
)
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
