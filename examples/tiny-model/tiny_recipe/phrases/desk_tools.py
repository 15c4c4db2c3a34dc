"""Tools for the desk: search, languages, money, notes, users, files, orders, doors, places, news."""

from __future__ import annotations

from tiny_recipe.phrases.domain import Domain
from tiny_recipe.phrases.phrasing import phrasings

DESK_TOOLS = (
    Domain(
        (
            "web_search",
            "search_web",
            "search",
        ),
        "Search the web",
        {"t": "query|q|terms; text; What to search for"},
        phrasings(
            """Find web pages with {t} | Are there pages about {t} | Please google {t}
            Search the web for {t} | Web search: {t} | Search {t} | Search on the web: {t}
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
            """Give me the {l} word for {w}. | The word {w} in {l}, please.
            Translate {w} into {l}. | Translate {w} to {l}. | {w} in {l} | Say {w} in {l}.
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
            """Give me the price of {s}. | Get the price of the stock {s}.
            What is the price of {s}? | Price of {s}? | How much does {s} cost?
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
            """Get me the user whose id is {i}. | Find the user {i}. | Find me user number {i}.
            The user with id {i}, please.
            Who is user {i}? | user {i} | Tell me about user {i}. | Show user {i}. | Get user {i}.
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
            """I want to be rid of {p} | Get rid of the file {p} {f} | Please get the file {p} deleted
            Make the file {p} go away
            Delete the file {p} | Delete {p} | Remove the file {p} | Remove {p} {f}
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
            """Get us {n} {z} pizzas. | Bring me {n} {z} pizzas.
            Order {n} {z} pizzas. | I would like {n} {z} pizzas. | Please get {n} {z} pizzas.
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
            """Roll something that has {n} sides. | The die has {n} sides. Roll it.
            Roll a die with {n} sides. | Roll a die of {n} sides. | Roll the {n} sided die.
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
            """Go to the {d} door and {o} it. | Can you please {o} the {d} door?
            Please {o} the {d} door. | I want to {o} the {d} door. | Could you {o} the {d} door?
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
            """How many miles lie between {a} and {b}? | How many miles are between {a} and {b}?
            How far is it from {a} to {b}? | What is the distance from {a} to {b}?
            How long is the way from {a} to {b}? | distance from {a} to {b}
            How many miles is it from {a} to {b}? | Get the distance between {a} and {b}.
            How far is it between {a} and {b}? | Tell me the distance from {a} to {b}.
            How far apart are {a} and {b}? | Distance from {a} to {b}?
            Do you know how far {a} lies from {b}? | How far away is {a} from {b}?
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
            """Is {c} big? | How big is the city of {c}? | How big a city is {c}?
            How many people live in {c}? | population of {c} | How many people are in {c}?
            What population does {c} have? | How large is {c}? | Get the population of {c}.
            Number of people in {c}? | How many inhabitants does {c} have?
            Give me the population of {c}. | What number of people live in {c}?
            What is the population of {c}? | Population of {c}? | How big is {c} now? | Tell me how big {c} is.""",
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
            """What news is there about {w}? | What is new with {w}?
            What is the news about {w}? | news about {w} | Give me the news about {w}.
            Tell me the news about {w}. | Any news about {w}? | Find news on {w}.
            Show me news about {w}. | What do the news say about {w}? | I want the news about {w}.
            Is there something new about {w}? | News about {w}, please. | Show me the news on {w}.""",
            "What is new about {w}? | Is there any news about {w}?",
        ),
    ),
)
