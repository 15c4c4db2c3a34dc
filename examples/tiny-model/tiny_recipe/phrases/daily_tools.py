"""Tools for the day: weather, time, sums, messages, alarms, music, tables, journeys, the home."""

from __future__ import annotations

from tiny_recipe.phrases.domain import Domain
from tiny_recipe.phrases.phrasing import phrasings

DAILY_TOOLS = (
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
            """How does the weather go on in {c} over the next {n} days? |
            What is the forecast for {c} for {n} days? | Weather forecast for {c}, {n} days.
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
            """Is it late in {c}? | How early is it in {c} now? | Is it late or early in {c}?
            What time is it in {c}? | time in {c} | What is the current time in {c}?
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
            Write to {n}: {t} | Tell {n}: {t} | Message {n}: {t} | Please message {n}: {t}
            Message {n} that {t} | Message {n} the text {t} | Send {n} this: {t}
            Please send {n} this text: {t}""",
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
            """I need to wake up at {h}. | I need to get up at {h}.
            Set an alarm for {h} o'clock. | Alarm at {h} o'clock. | Alarm for {h}, please.
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
            """Count down {m} minutes. | Count {m} minutes, please. | Start to count {m} minutes.
            Set a timer for {m} minutes. | Set the timer to {m} minutes. | Timer: {m} minutes
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
            """A song by {n}, please. | Put a song by {n} on. | I need a song by {n}.
            Play something by {n}. | Play {n}. | I want music by {n}. | Play the music of {n}.
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
            """Where in {c} can we stay for {n} nights? | Where can I stay {n} nights in {c}?
            Find a hotel in {c} for {n} nights. | Hotel in {c} for {n} nights.
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
            """Are there flights from {a} to {b}? | Is there a plane from {a} to {b}?
            Book a flight from {a} to {b}. | Flight from {a} to {b}. | Flights from {a} to {b}, please.
            I need a flight from {a} to {b}. | Search flights from {a} to {b}.
            Get me a flight from {a} to {b}. | How can I fly from {a} to {b}?
            Which flights go from {a} to {b}? | Look for a flight from {a} to {b}.
            Is there any flight from {a} to {b}? | Is a flight there from {a} to {b}?
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
            """I need {d} degrees in the {r}. | The temperature of the {r} should be {d}.
            Set the {r} to {d} degrees. | {r} to {d} degrees | Please heat the {r} to {d} degrees.
            Set the heating in the {r} to {d} degrees. | The {r} should have {d} degrees.
            Warm the {r} to {d} degrees. | Bring the {r} to {d} degrees. | Turn the {r} to {d} degrees.
            It should be {d} degrees in the {r}. | Heat the {r} to {d} degrees.
            Make it {d} degrees in the {r}.""",
            "Set the temperature in the {r} to {d}. | I want {d} degrees in the {r}.",
        ),
    ),
)
