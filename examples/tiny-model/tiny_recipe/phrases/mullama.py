"""What the model knows about mullama."""

from __future__ import annotations

from tiny_recipe.phrases.phrasing import Reply, phrasings

MULLAMA = (
    Reply(
        phrasings(
            """What is mullama? | mullama | Describe mullama to me. | What kind of program is mullama?
            What is the mullama project? | Say what mullama is. | Why would I use mullama?
            What can mullama do? | What can I do with mullama? | I want to know what mullama is.
            Tell me about mullama. | Explain mullama. | What does mullama do? | mullama?
            Describe mullama. | What is mullama for?""",
            "What do I use mullama for? | Can you explain what mullama is?",
        ),
        "Mullama is a declarative deployment tool and server for local language models.",
    ),
    Reply(
        phrasings(
            """What is a manifest? | manifest | What is the manifest? | What does a manifest do?
            Describe the manifest. | Tell me about the manifest. | What do I write into mullama.yaml?
            Why is there a manifest? | What is the file mullama.yaml? | What does mullama.yaml do?
            What does a manifest contain? | What is a manifest in mullama? | Explain the manifest.
            What does the manifest do? | What is mullama.yaml? | What is in mullama.yaml?
            Define manifest. | What is the manifest for?""",
            "Tell me what a manifest is. | Can you explain the manifest?",
        ),
        "A manifest is a YAML file that says which models you want to run.",
    ),
    Reply(
        phrasings(
            """What does mullama diff do? | mullama diff | What is the diff command?
            What happens when I run mullama diff? | What is mullama diff for?
            When do I run mullama diff? | What will diff show? | Describe mullama diff.
            What does mullama diff show? | Why should I run diff? | What does `mullama diff` do?
            Explain mullama diff. | What is mullama diff? | What is diff for? | What does diff show?
            Tell me about mullama diff. | What does the diff command do?""",
            "How do I use mullama diff? | What will mullama diff show me?",
        ),
        "The command mullama diff shows what would change, and changes nothing.",
    ),
    Reply(
        phrasings(
            """What does mullama apply do? | mullama apply | What is the apply command?
            What happens when I run mullama apply? | What is mullama apply for?
            When do I run mullama apply? | What will apply do? | Describe mullama apply.
            Why should I run apply? | What does apply change? | What does `mullama apply` do?
            Explain mullama apply. | What is mullama apply? | What is apply for?
            Tell me about mullama apply. | What does the apply command do?""",
            "How do I use mullama apply? | What will mullama apply do?",
        ),
        "The command mullama apply makes the machine match the manifest.",
    ),
    Reply(
        phrasings(
            """What are the exit codes of mullama diff? | exit codes of diff
            What exit codes does diff have? | List the exit codes of mullama diff.
            What do the exit codes of diff mean? | Name the exit codes of diff.
            What codes does mullama diff return? | With which exit code does diff end?
            What does mullama diff return? | What are the exit codes of diff? | What does diff return?
            Which exit codes does mullama diff have? | Explain the exit codes of diff.
            Exit codes of mullama diff? | What is the exit code of diff?
            What exit code does diff give?""",
            "Tell me the exit codes of diff. | Which exit code does mullama diff return?",
        ),
        "The exit code of diff is 0 for nothing to do, 2 for something to do and 1 for an error.",
    ),
    Reply(
        phrasings(
            """What does exit code 0 of diff mean? | Explain exit code 0. | What does diff mean by 0?
            What does the exit code 0 of mullama diff mean? | Why does diff exit with 0?
            diff exited with 0 | When diff exits with 0, what is meant?
            What does it tell me that diff exits with 0? | diff exits with 0
            What if diff returns 0? | diff returns 0, why?
            mullama diff gave exit code 0 | What does exit code 0 mean? | When does diff give 0?""",
            "diff gave 0, what does it mean? | What does it mean when diff exits with 0?",
        ),
        "Exit code 0 of diff means that there is nothing to do.",
    ),
    Reply(
        phrasings(
            """What does exit code 2 of diff mean? | Explain exit code 2. | What does diff mean by 2?
            What does the exit code 2 of mullama diff mean? | Why does diff exit with 2?
            diff exited with 2 | When diff exits with 2, what is meant?
            What does it tell me that diff exits with 2? | diff exits with 2
            What if diff returns 2? | diff returns 2, why?
            mullama diff gave exit code 2 | What does exit code 2 mean? | When does diff give 2?""",
            "diff gave 2, what does it mean? | What does it mean when diff exits with 2?",
        ),
        "Exit code 2 of diff means that there is something to do.",
    ),
    Reply(
        phrasings(
            """What does exit code 1 of diff mean? | Explain exit code 1. | What does diff mean by 1?
            What does the exit code 1 of mullama diff mean? | Why does diff exit with 1?
            diff exited with 1 | When diff exits with 1, what is meant?
            What does it tell me that diff exits with 1? | diff exits with 1
            What if diff returns 1? | diff returns 1, why?
            mullama diff gave exit code 1 | What does exit code 1 mean? | When does diff give 1?""",
            "diff gave 1, what does it mean? | What does it mean when diff exits with 1?",
        ),
        "Exit code 1 of diff means that there was an error.",
    ),
    Reply(
        phrasings(
            """What is hot reload? | hot reload | Describe hot reload. | What is meant by hot reload?
            Do I have to restart after a change? | What happens when the manifest is saved?
            What is hot reload for? | What does mullama do when I save the manifest?
            Say what hot reload is. | What does hot reloading mean? | What does hot reload do?
            Explain hot reload. | How does hot reload work? | What happens when I save the manifest?
            Tell me about hot reload. | Define hot reload.""",
            "What does hot reload mean? | Can you explain hot reload?",
        ),
        "Hot reload means that a saved manifest takes effect while the server runs, and no request is dropped.",
    ),
    Reply(
        phrasings(
            """What is a dialect? | dialects | What does a dialect mean? | Describe the dialects.
            Say what a dialect is. | Which wire formats does mullama speak?
            Which clients can talk to mullama? | What APIs does mullama have?
            What are the dialects of mullama? | Does mullama speak OpenAI? | Name the dialects.
            What are dialects? | Which dialects does mullama speak? | What is a dialect in mullama?
            Explain dialects. | Which APIs does mullama support? | Tell me about the dialects.""",
            "What dialects are there? | Which dialects are supported?",
        ),
        "A dialect is the wire format of one family of clients: mullama speaks Ollama, OpenAI and Anthropic.",
    ),
    Reply(
        phrasings(
            """What does mullama serve do? | mullama serve | What is the serve command?
            What happens when I run mullama serve? | What is mullama serve for?
            How can I start the server? | How do I start mullama? | What will serve do?
            Describe mullama serve. | How do I get the server running? | What does `mullama serve` do?
            Explain mullama serve. | What is mullama serve? | What is serve for?
            How do I start the server?""",
            "What does the serve command do? | How do I run the server?",
        ),
        "The command mullama serve runs the server in the foreground and applies the manifest on every save.",
    ),
    Reply(
        phrasings(
            """What does mullama down do? | mullama down | What is the down command?
            What happens when I run mullama down? | What is mullama down for?
            How can I stop the server? | What is down for? | Describe mullama down.
            How do I shut down the server? | How is the server stopped? | How do I stop mullama?
            What does `mullama down` do? | Explain mullama down. | What is mullama down?
            How do I stop the server?""",
            "What does the down command do? | How can I stop mullama?",
        ),
        "The command mullama down stops the server.",
    ),
    Reply(
        phrasings(
            """What does mullama status do? | mullama status | What is the status command?
            What happens when I run mullama status? | What is mullama status for?
            How can I see the models? | What is status for? | Describe mullama status.
            What will mullama status show me? | Where do I see the condition of a model?
            What does `mullama status` do? | Explain mullama status. | What is mullama status?
            How do I see the models?""",
            "What does the status command do? | What does status show?",
        ),
        "The command mullama status shows every model and its condition.",
    ),
    Reply(
        phrasings(
            """What does mullama lock do? | mullama lock | What is the lock command?
            Describe the lock file. | What does the lock file do? | Why is there a lock file?
            What does mullama.lock hold? | Say what the lock file is. | What does the lock file contain?
            What does the lock file record? | What is the lock file? | What is mullama.lock?
            Explain the lock file. | What is in the lock file?""",
            "Tell me about the lock file. | What is the lock file for?",
        ),
        "The lock file records the exact digest of every file, so that each machine gets the same weights.",
    ),
    Reply(
        phrasings(
            """What is drift? | drift | What is meant by drift? | Describe drift. | Say what drift is.
            What do you call drift? | When is there drift? | What does the word drift mean?
            Can you explain drift? | What does drift mean? | Explain drift. | What is drift in mullama?""",
            "Define drift. | Tell me what drift is.",
        ),
        "Drift is a difference between the machine and the manifest that nobody asked for.",
    ),
    Reply(
        phrasings(
            """What is a plan? | plan | What is meant by a plan? | Describe a plan. | Say what a plan is.
            What is in a plan? | What is the plan? | What does the word plan mean?
            Can you explain the plan? | Tell me about plans. | What does a plan mean?
            Explain the plan. | What is a plan in mullama?""",
            "Define plan. | Tell me what a plan is.",
        ),
        "A plan is an ordered list of the steps that would change the machine.",
    ),
    Reply(
        phrasings(
            """What is a route? | route | What is meant by a route? | Describe a route.
            Say what a route is. | What is a route for? | What does the word route mean?
            Can you explain routes? | Tell me about routes. | Define route. | What does a route do?
            Explain routes. | What is a route in mullama?""",
            "What are routes? | Tell me what a route is.",
        ),
        "A route is a further name under which clients reach a model.",
    ),
    Reply(
        phrasings(
            """What is the store? | store | What is meant by the store? | Describe the store.
            Say what the store is. | What is the store for? | Where are the weights kept?
            Where does mullama keep the files? | Can you explain the store? | What does the store do?
            Where are the models stored? | What does the store hold? | Explain the store.
            What is the store in mullama?""",
            "Where are the files kept? | Tell me what the store is.",
        ),
        "The store is the place on disk where mullama keeps the weights.",
    ),
    Reply(
        phrasings(
            """What are weights? | weights | What is meant by weights? | Describe the weights.
            Say what weights are. | What is in the weights? | Can you explain weights?
            What do weights hold? | Tell me about weights. | What do you call weights?
            Explain weights. | What does the word weights mean? | What are weights in mullama?""",
            "Define weights. | Tell me what weights are.",
        ),
        "Weights are the files that hold the numbers of a model.",
    ),
    Reply(
        phrasings(
            """What is a context? | context | What is meant by a context? | Describe the context.
            Say what a context is. | What is the context for? | Can you explain the context?
            What does the word context mean? | Tell me about the context. | What is the context size?
            Explain the context. | What does context size mean? | What is a context in mullama?""",
            "Define context. | Tell me what a context is.",
        ),
        "A context is the memory in which a loaded model reads and writes its tokens.",
    ),
    Reply(
        phrasings(
            """What is an engine? | engine | What is meant by an engine? | Describe the engine.
            Say what an engine is. | What is the engine for? | Can you explain the engine?
            What does the word engine mean? | Tell me about the engine. | What does an engine do?
            Explain the engine. | What does the engine do? | What is an engine in mullama?""",
            "Define engine. | Tell me what an engine is.",
        ),
        "An engine is the part that runs a model: it turns a prompt into text.",
    ),
    Reply(
        phrasings(
            """What is builtin:tiny? | What is meant by builtin:tiny? | Describe builtin:tiny.
            What is builtin:tiny for? | Say what builtin:tiny is. | Which model is builtin:tiny?
            Tell me what builtin:tiny is. | What is the name builtin:tiny?
            Can you explain builtin:tiny? | What does builtin:tiny mean? | Explain builtin:tiny.
            What is the built-in model? | the name builtin:tiny | builtin:tiny, what is that?
            What about builtin:tiny? | builtin:tiny in mullama""",
            "builtin:tiny | Tell me about builtin:tiny.",
        ),
        "The name builtin:tiny means me: the small model that ships inside mullama.",
    ),
    Reply(
        phrasings(
            """What does undo do? | mullama undo | What is undo for? | How can I undo an apply?
            What happens when I run mullama undo? | How do I go back? | What is mullama undo for?
            Describe mullama undo. | How can I go back to an earlier manifest? | Explain undo.
            What does mullama undo do? | Explain mullama undo. | How do I go back to the last manifest?""",
            "What is mullama undo? | What does the undo command do?",
        ),
        "The command mullama undo goes back to an earlier generation.",
    ),
    Reply(
        phrasings(
            """How do I add a model? | Add a model, how? | How can I add a model? | How is a model added?
            What must I do to add a model? | I want to add a model. | How do I get a new model?
            What do I do to deploy a model? | How can I run a new model?
            How do I make mullama run a model? | How can I add a model to mullama?
            How do I deploy a model? | How do I add a new model?""",
            "How can I deploy a model? | How do I run a model with mullama?",
        ),
        "Write the model into mullama.yaml, look at mullama diff, then run mullama apply.",
    ),
    Reply(
        phrasings(
            """How do I change a model? | How can I change a model? | How can I change the context size?
            How can I change the system prompt? | How do I change a setting?
            I want to change a setting. | How is a setting changed? | What must I do to change a model?
            How can I change the temperature? | How do I edit a setting?
            How do I change the context size? | How do I change the system prompt?""",
            "How can I change a setting? | How do I change the temperature?",
        ),
        "Edit mullama.yaml and save it: hot reload does the rest.",
    ),
    Reply(
        phrasings(
            """What is a profile? | profile | What is meant by a profile? | Describe a profile.
            Say what a profile is. | What is a profile for? | Can you explain profiles?
            What does --profile do? | Tell me about profiles. | How do I use a profile?
            Explain profiles. | What are profiles?""",
            "What is a profile in mullama? | Tell me what a profile is.",
        ),
        "A profile is an overlay of the manifest that you choose with --profile.",
    ),
    Reply(
        phrasings(
            """Which port does mullama use? | port of mullama | What port does mullama use?
            On what port is the server? | What port does the server listen on?
            Which port is the default? | Tell me the port of mullama. | On which port is mullama?
            Where can I reach mullama? | At which port does mullama listen?
            What is the port of mullama? | Where does mullama listen?""",
            "What is the default port? | On which port does mullama listen?",
        ),
        "Mullama listens on port 11434 unless the manifest says otherwise.",
    ),
)
