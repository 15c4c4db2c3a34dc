"""The built-in model with a projector: the whole way from a file to an answer.

Each picture and sound is far from any border of what the model tells apart, so another processor's rounding changes no
answer.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mullama.audio import RATE
from mullama.chat.media.wav import wav_file
from tests.cli.pty_session import pty_session
from tests.e2e.stack import Stack, stack_in

pytestmark = pytest.mark.timeout(120)
EXAMPLES = Path(__file__).parents[2] / "examples"
SHAPES, WORD = EXAMPLES / "shapes.png", EXAMPLES / "word.wav"
SIDE = 96
RED, GREEN, BLUE = (215, 35, 35), (40, 160, 60), (45, 75, 210)
SPOKEN = "hello"
SEEN = "I see a red circle on the left and a green triangle on the right."
Colour = tuple[int, int, int]


def png(colour_at: Callable[[int, int], Colour]) -> bytes:
    """A picture of SIDE x SIDE pixels."""
    rows = b"".join(b"\0" + bytes(part for x in range(SIDE) for part in colour_at(x, y)) for y in range(SIDE))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def circle(colour: Colour, cx: float, cy: float, radius: float = 17) -> bytes:
    return png(lambda x, y: colour if (x - cx) ** 2 + (y - cy) ** 2 <= radius**2 else (255, 255, 255))


def square(colour: Colour, cx: float, cy: float, half: float = 15) -> bytes:
    return png(lambda x, y: colour if max(abs(x - cx), abs(y - cy)) <= half else (255, 255, 255))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack_in(tmp_path_factory.mktemp("built-in")) as made:
        made.write(
            {
                "eyes": {"from": "builtin:tiny-vision", "requires": ["vision", "audio"]},
                "text": {"from": "builtin:tiny-vision", "mmproj": "none"},
            }
        )
        made.apply()
        yield made


def asked(stack: Stack, question: str, *media: bytes, model: str = "eyes") -> str:
    images = [base64.b64encode(medium).decode() for medium in media]
    return answered(stack, [{"role": "user", "content": question, "images": images}], model=model)


def answered(stack: Stack, messages: list[dict[str, Any]], model: str = "eyes") -> str:
    body = {"model": model, "messages": messages, "stream": False, "options": {"temperature": 0}}
    answer = httpx.post(f"{stack.url}/api/chat", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["message"]["content"]
    return text.strip()


def test_the_command_line_shows_it_the_shapes_of_the_example(stack: Stack) -> None:
    done = stack.run("run", "eyes", "What is in this picture?", "-i", str(SHAPES), "-t", "0")
    assert done.stdout.strip() == SEEN


def test_the_command_line_plays_it_the_word_of_the_example(stack: Stack) -> None:
    done = stack.run("run", "eyes", "Which word is this?", "-i", str(WORD), "-t", "0")
    assert done.stdout.strip() == SPOKEN


def test_it_writes_down_the_word_of_a_sound(stack: Stack) -> None:
    done = stack.run("transcribe", str(WORD), "-m", "eyes")
    assert done.stdout.strip() == SPOKEN


def test_a_terminal_shows_the_conversation_about_a_sound(stack: Stack) -> None:
    word, pause = WORD.read_bytes()[44:], bytes(2 * RATE)
    (stack.home / "twice.wav").write_bytes(wav_file(pause + word + pause + word))
    with pty_session(["listen", "-f", stack.name, "-m", "eyes", "twice.wav"], stack.home, **stack.env) as session:
        for _ in range(2):
            session.read_until("eyes: ")
            session.read_until(SPOKEN)
        assert session.finish() == 0


def test_it_hears_nothing_in_silence(stack: Stack) -> None:
    silence = wav_file(bytes(2 * RATE))
    assert asked(stack, "What do you hear?", silence) == "I hear nothing."


def test_it_answers_a_second_question_about_the_same_picture(stack: Stack) -> None:
    picture = base64.b64encode(circle(BLUE, 72, 48)).decode()
    turns = [
        {"role": "user", "content": "What shape is it?", "images": [picture]},
        {"role": "assistant", "content": "It is a circle."},
        {"role": "user", "content": "What colour is it?"},
    ]
    assert answered(stack, turns) == "It is blue."


@pytest.mark.parametrize(
    ("picture", "question", "answer"),
    [
        (circle(RED, 24, 48), "What colour is it?", "It is red."),
        (circle(BLUE, 72, 48), "What shape is it?", "It is a circle."),
        (square(GREEN, 48, 24), "Where is the square?", "It is at the top."),
        (square(BLUE, 48, 48), "What is in this picture?", "I see a blue square in the middle."),
    ],
    ids=["colour", "shape", "place", "all"],
)
def test_it_answers_about_a_shape(stack: Stack, picture: bytes, question: str, answer: str) -> None:
    assert asked(stack, question, picture) == answer


def test_it_still_answers_text_and_without_the_projector_refuses_a_picture(stack: Stack) -> None:
    for model in ("eyes", "text"):
        assert "Paris" in asked(stack, "What is the capital of France?", model=model)
    message = {"role": "user", "content": "What?", "images": [base64.b64encode(circle(RED, 48, 48)).decode()]}
    refused = httpx.post(f"{stack.url}/api/chat", json={"model": "text", "messages": [message]}, timeout=60)
    assert refused.status_code == 400
