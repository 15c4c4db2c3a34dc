"""Pass rates of a model on held-out probes, with greedy decoding: `python evaluate.py tiny.gguf`.

Needs llama-cpp-python and jinja2. A probe passes only if the model also stops by itself. With `--failures` every
wrong answer is printed; with `--tokenizer` the file that train.py wrote is first compared with llama.cpp's reading.
With `--ask` there are no probes: each question is answered, with the least lead of a token over the next best one
(in logits; a lead below 1 may go the other way in another build of llama.cpp).
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
from llama_cpp import Llama

from tiny_recipe.rendering import prompt_of, rendered
from tiny_recipe.samples.mix import samples
from tiny_recipe.samples.probes import MOST_PROBES, probes
from tiny_recipe.samples.values import Probe
from tiny_recipe.samples.writer import Writer
from tiny_recipe.scoring import names_called, passes

HERE = Path(__file__).parent
ODD_TEXTS = (
    "", " ", "  two  spaces ", "tab\tnew\n\nlines \n x", "I'm you'LL we'd", "naïve café 你好 🙂 Привет",
    "a=1;b[2]={3}", "<think>\n\n</think>\n\nHi<|im_end|>\n", "\r\n\r\n x", "12345 6.7", "x" * 300, "ÿ\u00a0\u2003 .",
    "<tool_call>{}</tool_call>", "h-e-l-l-o Ünïcode STRASSE", "    def f():\n        pass",
)  # fmt: skip


def compare_tokenizers(llm: Llama, path: Path) -> None:
    """Print how many texts llama.cpp and the tokenizer's own library split alike."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    texts = [rendered(sample) for sample in islice(samples(99), 3000)]
    texts += [Writer(i, held_out=True).text(5, 20) for i in range(300)]
    texts += ODD_TEXTS
    different = [
        t for t in texts if tokenizer.encode(t).ids != llm.tokenize(t.encode(), add_bos=False, special=True)
    ]
    print(f"tokenisation: {len(texts) - len(different)} of {len(texts)} texts alike", different[:3])


def answer(llm: Llama, probe: Probe) -> tuple[str, bool]:
    """The greedy answer, and whether the model ended it by itself."""
    prompt = llm.tokenize(prompt_of(probe).encode(), add_bos=False, special=True)
    room = 150 + len(json.dumps(probe.want))  # in tokens: plenty, and an end for answers that run away
    made = llm.create_completion(prompt, max_tokens=room, temperature=0.0)
    assert not hasattr(made, "__next__")
    choice = made["choices"][0]
    return choice["text"], choice["finish_reason"] == "stop"


def answer_and_lead(llm: Llama, question: str) -> tuple[str, float]:
    """The greedy answer, and by how much the most doubtful of its tokens leads over the next best one."""
    probe = Probe(ability="", messages=[{"role": "user", "content": question}], want={})
    llm.n_tokens = 0
    llm.eval(llm.tokenize(prompt_of(probe).encode(), add_bos=False, special=True))
    said: list[int] = []
    lead = float("inf")
    while len(said) < 200:
        logits = llm.scores[llm.n_tokens - 1]
        second, first = np.argsort(logits)[-2:]
        lead = min(lead, float(logits[first] - logits[second]))
        if first == llm.token_eos():
            break
        said.append(int(first))
        llm.eval(said[-1:])
    return llm.detokenize(said).decode(errors="replace"), lead


def report_failure(probe: Probe, text: str) -> None:
    system = next((m["content"] for m in probe.messages if m["role"] == "system"), "")
    tools = [tool["function"]["name"] for tool in probe.tools]
    wanted = probe.want.get("tool_calls") or probe.want["content"]
    print(f"{probe.ability}: {system!r} {tools} {probe.question!r}\n  want {wanted!r}\n  got  {text!r}")


def examine(llm: Llama, chosen: Iterable[Probe], *, failures: bool) -> None:
    """Print the table of pass rates, and how many of the tool names that were written are those of offered tools."""
    passed: dict[str, list[bool]] = defaultdict(list)
    names: list[bool] = []
    for probe in chosen:
        text, ended = answer(llm, probe)
        good = ended and passes(probe, text)
        passed[probe.ability].append(good)
        offered = {tool["function"]["name"] for tool in probe.tools}
        names += [name in offered for name in names_called(text)]
        if failures and not good:
            report_failure(probe, text)
    print("| ability | passed | of |\n|---|---|---|")
    for ability, results in [*passed.items(), ("all", [good for each in passed.values() for good in each])]:
        print(f"| {ability} | {100 * sum(results) / len(results):.0f} % | {len(results)} |")
    print(f"{sum(names)} of {len(names)} tool names written are those of offered tools")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?", default=HERE / "tiny.gguf")
    parser.add_argument("--probes", type=int, default=MOST_PROBES, help="how many per ability")
    parser.add_argument("--only", default="", help="abilities that start with this")
    parser.add_argument("--failures", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--ask", nargs="+", metavar="QUESTION", default=[])
    options = parser.parse_args()

    every_place = bool(options.ask)  # whether llama.cpp keeps the logits of all tokens
    llm = Llama(
        str(options.model), n_ctx=1024, n_threads=options.threads, logits_all=every_place, verbose=False
    )
    if options.tokenizer:
        compare_tokenizers(llm, options.tokenizer)
    for question in options.ask:
        said, lead = answer_and_lead(llm, question)
        print(f"{lead:6.1f}  {question}  ->  {said!r}")
    if not options.ask:
        chosen = (probe for probe in probes(options.probes) if probe.ability.startswith(options.only))
        examine(llm, chosen, failures=options.failures)


if __name__ == "__main__":
    main()
