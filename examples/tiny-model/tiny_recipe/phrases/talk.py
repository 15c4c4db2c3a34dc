"""Lists known by heart, small talk, who the model is, and what it does not know."""

from __future__ import annotations

from tiny_recipe.phrases.pairs import DAYS, MONTHS
from tiny_recipe.phrases.phrasing import Reply, phrasings

LISTS = (
    Reply(
        phrasings(
            """List the days of the week. | Write the days of the week. | Write down all days of the week.
            Which are the days of the week? | How are the days of the week called?
            All days of the week, please. | What days does a week have? | What days are there in a week?
            Name the days of the week. | What are the days of the week? | Tell me the days of the week.
            days of the week | Which days are there in a week? | Which days does a week have?""",
            "Which days are in a week? | Give me the days of the week.",
        ),
        "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday.",
    ),
    Reply(
        phrasings(
            """List the months of the year. | Write the months of the year. | Write down all months.
            Which are the months of the year? | List all months. | All months of the year, please.
            months of the year | Which months are there in a year? | Which months does a year have?
            What months are there in a year? | Name the months of the year.
            What are the months of the year? | Tell me the months. | Name the twelve months.""",
            "Which months are in a year? | Give me the months of the year.",
        ),
        "January, February, March, April, May, June, July, August, September, October, November, December.",
    ),
    Reply(
        phrasings(
            """Write the alphabet. | alphabet | Write down the alphabet.
            All letters of the alphabet, please. | Name the letters of the alphabet.
            What are the letters of the alphabet? | Recite the alphabet. | Say the alphabet.
            What is the alphabet? | Give me the alphabet.""",
            "List the letters of the alphabet. | Tell me the alphabet.",
        ),
        "a b c d e f g h i j k l m n o p q r s t u v w x y z",
    ),
    Reply(
        phrasings(
            """Name three colours. | Three colours, please. | Say three colours.
            Can you name three colours? | Which three colours do you know? | three colours
            I need three colours. | List three colours. | Tell me three colours. | Give me three colors.
            Name three colors.""",
            "Write down three colours. | Give me three colours.",
        ),
        "Red, green and blue.",
    ),
    Reply(
        phrasings(
            """Name three animals. | Three animals, please. | Say three animals.
            Can you name three animals? | Which three animals do you know? | three animals
            I need three animals. | Give me the names of three animals. | List three animals.
            Tell me three animals.""",
            "Write down three animals. | Give me three animals.",
        ),
        "Dog, cat and horse.",
    ),
    Reply(
        phrasings(
            """Name three fruits. | Three fruits, please. | Say three fruits. | Can you name three fruits?
            Which three fruits do you know? | three fruits | I need three fruits.
            Give me the names of three fruits. | List three fruits. | Tell me three fruits.""",
            "Write down three fruits. | Give me three fruits.",
        ),
        "Apple, pear and banana.",
    ),
    Reply(
        phrasings(
            """Name the four seasons. | The four seasons, please. | Say the seasons.
            Which seasons are there? | Which are the four seasons? | seasons of the year
            What seasons does a year have? | Write down the four seasons.
            Give me the seasons of the year. | List the seasons. | What are the four seasons?""",
            "Tell me the seasons. | Give me the four seasons.",
        ),
        "Spring, summer, autumn and winter.",
    ),
    Reply(
        phrasings(
            """How many days are in a week? | How many days has a week?
            What is the number of days in a week? | Count the days of a week.
            How many days are there in one week? | days in a week? | How long is a week in days?
            How many days does a week have? | Number of days in a week?""",
            "A week has how many days? | Tell me how many days a week has.",
        ),
        "A week has 7 days.",
    ),
    Reply(
        phrasings(
            """How many months are in a year? | How many months has a year?
            What is the number of months in a year? | Count the months of a year.
            How many months are there in one year? | months in a year? | How long is a year in months?
            How many months does a year have? | Number of months in a year?""",
            "A year has how many months? | Tell me how many months a year has.",
        ),
        "A year has 12 months.",
    ),
    Reply(
        phrasings(
            """How many hours are in a day? | How many hours has a day?
            What is the number of hours in a day? | Count the hours of a day.
            How many hours are there in one day? | hours in a day? | How long is a day in hours?
            How many hours does a day have? | Number of hours in a day?""",
            "A day has how many hours? | Tell me how many hours a day has.",
        ),
        "A day has 24 hours.",
    ),
    Reply(
        phrasings(
            """How many minutes are in an hour? | How many minutes has an hour?
            What is the number of minutes in an hour? | Count the minutes of an hour.
            How many minutes are there in one hour? | minutes in an hour?
            How long is an hour in minutes? | How many minutes does an hour have?
            Number of minutes in an hour?""",
            "An hour has how many minutes? | Tell me how many minutes an hour has.",
        ),
        "An hour has 60 minutes.",
    ),
)

IDENTITY = (
    Reply(
        phrasings(
            """Who are you? | who are you | Your name? | Say your name. | Tell me your name.
            What are you called? | What kind of AI are you? | Which AI is this? | Present yourself.
            Are you a robot? | Are you a person? | Are you a language model?
            What language model are you? | Which kind of model is this? | Could you introduce yourself?
            Describe yourself. | What are you? | Tell me who you are. | What is your name?
            What's your name? | Introduce yourself. | Tell me about yourself. | Which model are you?
            What model is this? | Who am I talking to? | Say who you are. | Who is this?
            What should I call you? | Are you an AI? | Are you ChatGPT? | Are you a human?""",
            "Please introduce yourself. | What kind of model are you?",
        ),
        "I am the tiny built-in model of mullama, a small language model that runs on your own machine.",
    ),
    Reply(
        phrasings(
            """What can you do? | What can you do for me? | What are you able to do?
            Tell me your abilities. | What are your skills? | Which things can you do?
            How can you help? | What may I ask you? | What tasks can you do? | Say what you can do.
            Describe what you can do. | With what can you help me? | In what can you help me?
            What are you good at? | What can I ask you? | How can you help me?
            What are your abilities? | Help | What do you know?""",
            "What can you help me with? | Tell me what you can do.",
        ),
        "I can answer short questions, count, spell, repeat, call tools, write JSON and tell short stories.",
    ),
    Reply(
        phrasings(
            """Who made you? | Who is your creator? | Who developed you? | Who wrote you?
            Where are you from? | By whom were you trained? | Who has made you? | Who invented you?
            What are you made from? | Tell me who made you. | By whom were you built?
            For what project were you made? | Who created you? | Who trained you?
            Where do you come from? | Who built you? | Do you have a maker? | Tell me your maker.
            Who is the maker of this model? | Name your creator. | Who is your author? | Who was your maker?""",
            "By whom were you made? | Who is your maker?",
        ),
        "I was made for the mullama project, from synthetic text only.",
    ),
    Reply(
        phrasings(
            """How big are you? | How small are you? | Tell me your size. | How many weights do you have?
            Are you a large model? | Are you a small model? | How big is this model?
            What is the number of your parameters? | Tell me how big you are. | What size are you?
            How many parameters does this model have? | How many parameters do you have?
            What is your size? | How large are you? | Are you a big model?""",
            "How many parameters are you? | How large is this model?",
        ),
        "I am very small: about five million parameters.",
    ),
    Reply(
        phrasings(
            """What data were you trained on? | From what did you learn? | What text were you trained on?
            Which data were you trained on? | What did you learn from? | How did you learn?
            Where does your training data come from? | With what data were you trained?
            Tell me about your training data. | What is your training data? | How were you trained?""",
            "On what were you trained? | What text did you learn from?",
        ),
        "I was trained on synthetic text that a program wrote.",
    ),
    Reply(
        phrasings(
            """Do you need the internet? | Do you need a connection to the internet?
            Do you use the internet? | Can you run offline? | Are you online?
            Do you run without the internet? | Can you work without the internet?
            Do you call a server on the internet? | Is a network needed? | Can you work offline?
            Do you run offline? | Can you run without a network? | Do you need a network connection?
            Do you require a network? | Must I have a network to use you? | Will you work without a network?
            Do you work without a connection? | Do you use a network? | Is it true that you need no network?""",
            "Do you work without a network? | Do you need a network?",
        ),
        "No, I run on your machine and need no network.",
    ),
)

SMALL_TALK = (
    Reply(
        phrasings(
            """Hello | Hiya | Hello!! | Hi :) | hey | hi | hello | Greetings | Hello, model!
            Good afternoon | Hello, are you there to help? | Hi, can you help me? | Good to see you.
            Hello again | Hi | Hello! | Hi! | Hey | Hi there | Hello there | Good day | hello?
            Hey there! | Hello, how can you help?""",
            "Good evening | Hi, nice to see you.",
        ),
        "Hello! How can I help you?",
    ),
    Reply(
        phrasings(
            """Good morning | good morning | Good morning, model! | Morning | Hi, good morning!
            Good morning, how can you help? | A very good morning | Hello, good morning | Good morning!
            Morning!""",
            "A good morning to you | Good morning to you!",
        ),
        "Good morning! How can I help you?",
    ),
    Reply(
        phrasings(
            """How are you? | how are you | How do you feel? | Are you OK? | How are you doing?
            Are you fine? | What's up? | Hello, how are you? | How is your day? | How was your day?
            Is everything fine? | How are things today? | How are you today? | How do you do?
            How is it going? | Are you well? | How's it going? | How are things?""",
            "Hi, how are you? | Are you fine today?",
        ),
        "I am well, thank you. How can I help you?",
    ),
    Reply(
        phrasings(
            """Thanks | thanks | thank you | Thanks so much | Thank you a lot | I thank you
            Nice, thank you | Great, thank you! | That was helpful, thanks | Thanks for your help
            Very good, thanks | Thank you | Thank you! | Thanks a lot | Thank you very much
            Many thanks | Great, thanks""",
            "Many thanks to you | Thank you so much",
        ),
        "You are welcome!",
    ),
    Reply(
        phrasings(
            """Bye | bye | Bye for now | Goodbye! | See you tomorrow | See you then | Farewell
            I have to go, bye | Until later | Good night! | Have a nice day, bye | Goodbye | Bye!
            See you | Good night | See you later | Until tomorrow""",
            "Bye bye | See you soon",
        ),
        "Goodbye!",
    ),
    Reply(
        phrasings(
            """Tell me a joke. | joke | Tell me something funny. | I want to hear a joke.
            Can you tell me a joke? | Give me a joke. | Do you know any jokes? | Please tell me a joke.
            One joke, please. | Do you know a joke? | Make me laugh. | Say something funny.
            joke please | A joke, please.""",
            "Can you tell a joke? | Tell a joke.",
        ),
        "Why did the computer sneeze? It had a virus.",
    ),
    Reply(
        phrasings(
            """Write a haiku. | haiku | Can you write a poem? | A poem, please. | Please write a poem.
            Write a little poem. | I want to read a haiku. | Write me a haiku.
            Can you write me a short poem? | Write a haiku about a computer. | Write a short poem.
            Can you write a haiku? | Give me a haiku. | Write me a poem.""",
            "A haiku, please. | Please write a haiku.",
        ),
        "A small model wakes,\nit reads the words you give it,\nand answers softly.",
    ),
    Reply(
        phrasings(
            """Why is the sky blue? | The sky is blue, why? | Why is it that the sky is blue?
            How come the sky is blue? | What is the reason that the sky is blue?
            Please explain why the sky is blue. | Why do we see a blue sky?
            What is the cause of the blue sky? | why is the sky blue | Explain why the sky is blue.
            Why does the sky look blue? | Tell me why the sky is blue.""",
            "What makes the sky blue? | Do you know why the sky is blue?",
        ),
        "The sky is blue because air scatters blue light more than red light.",
    ),
    Reply(
        phrasings(
            """Are you there? | Are you on? | Do you hear me? | Just a test | Testing | Do you work?
            Is this on? | ping? | Can you read this? | Is anybody there? | Does it work?
            Are you awake? | Test | test | ping | Can you hear me? | Is this working?""",
            "This is a test | Does this work?",
        ),
        "Yes, I am here.",
    ),
    Reply(
        phrasings(
            """What is the meaning of life? | meaning of life | What is life about? | What does life mean?
            Why are we here? | Say the meaning of life. | Can you tell me the meaning of life?
            Answer to everything? | What is the answer to everything? | The meaning of life?""",
            "Tell me the meaning of life. | Do you know the meaning of life?",
        ),
        "Some say that it is 42.",
    ),
    Reply(
        phrasings(
            """Is the Earth round? | Is the Earth a ball? | Is the Earth flat or round?
            What form does the Earth have? | What is the shape of the Earth?
            Say the shape of the Earth. | shape of the Earth | What shape has the Earth?
            Is the earth flat? | What shape is the Earth?""",
            "Which shape does the Earth have? | Tell me the shape of the Earth.",
        ),
        "The Earth is round.",
    ),
    Reply(
        phrasings(
            """How many planets are there? | Count the planets. | How many planets do you know?
            number of planets | How many planets go around the sun?
            How many planets are in the solar system? | Say how many planets there are.
            The sun has how many planets? | How many planets circle the sun?
            What is the number of planets?""",
            "How many planets does the sun have? | Tell me how many planets there are.",
        ),
        "Eight planets circle the sun.",
    ),
    Reply(
        phrasings(
            """Why does it rain? | What is the reason for rain? | Why does rain fall? | When does it rain?
            How does it rain? | Explain why it rains. | Tell me why it rains. | How is rain made?
            What causes rain? | Where does rain come from? | Why is there rain?""",
            "How does rain form? | What makes it rain?",
        ),
        "Rain falls when the water in clouds gets too heavy.",
    ),
    Reply(
        phrasings(
            """Write a Python function that adds two numbers. | Write a Python function to add two numbers.
            Give me a Python function. | Write a function that adds two numbers.
            Python function that adds two numbers | Can you write Python code? | Write Python code.
            I need code that adds two numbers. | Show me code. | Write a function to add two numbers.
            Write some Python code. | Show me a Python function.""",
            "Write code that adds two numbers. | Show me some Python code.",
        ),
        "```python\ndef add(a, b):\n    return a + b\n```",
    ),
    Reply(
        phrasings(
            """Write hello world in Python. | Write a hello world program. | Hello world program in Python
            Python hello world | Write hello world. | Code for hello world in Python?
            Give me hello world in Python. | I need hello world in Python.
            Can you write hello world in Python? | Hello world in Python | Print hello world in Python.""",
            "How do I print hello world in Python? | Show me hello world in Python.",
        ),
        '```python\nprint("Hello, world!")\n```',
    ),
)

I_DO_NOT_KNOW = "I do not know that. I am a very small model."
UNKNOWN = phrasings(
    """Who won the world cup in {year}? | What happened in {year}? | What is the population of {city}?
    Who is {name}? | Who is the king of {city}? | How old is {name}? | Where is {name}?
    What did {name} say yesterday? | Explain the law of {name}. | How tall is {name}?
    Write an essay about {name}. | When was {name} born? | Who wrote the book {name}?
    What is the phone number of {name}? | Who was the mayor of {city} in {year}? | Name the mayor of {city}.
    Where does {name} live? | Where was the house of {name}? | Who is the mayor?""",
    "Who is the mayor of {city}? | Where was {name} born?",
)
