"""The prose the simulated models write: short, deterministic, about what was asked."""

import re
import zlib
from typing import Any

import orjson

from resilient_ai.simulator.jsonlike import is_list, is_object
from resilient_ai.simulator.tokens import split
from resilient_ai.simulator.words import Hints, content_words

_KNOWN = {
    ("capital", "france"): "The capital of France is Paris.",
    ("capital", "germany"): "The capital of Germany is Berlin.",
    ("capital", "switzerland"): "The federal city of Switzerland, often called its capital, is Bern.",
    ("capital", "japan"): "The capital of Japan is Tokyo.",
    ("capital", "italy"): "The capital of Italy is Rome.",
    ("circuit", "breaker"): "A circuit breaker counts failures and, once there are too many, refuses calls for a "
    "while so that the service behind it can recover.",
    ("exponential", "backoff"): "Exponential backoff doubles the wait after every failed attempt, up to a cap, so that "
    "a struggling service is not hit harder each time.",
    ("tide",): "Tides rise and fall about twice a day, because the Moon and the Sun pull on the sea while the Earth "
    "turns beneath them.",
    ("lighthouse",): "A lighthouse marks a dangerous coast with a light whose rhythm tells sailors where they are.",
    ("photosynthesis",): "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    ("embedding",): "An embedding is a list of numbers for a text; texts of similar meaning lie close to each other.",
    ("cache",): "A cache keeps the result of costly work, so that the next request for it is answered at once.",
    ("retry",): "A retry repeats a call that failed for a passing reason, after a wait that grows with each attempt.",
    ("rainbow",): "A rainbow appears when sunlight is bent and mirrored inside drops of rain.",
    ("sky", "blue"): "The sky is blue because air scatters the short waves of sunlight more than the long ones.",
}
_FRAMES = (
    "Here is a short answer about {subject}: it depends on a few conditions, and the first of them is {last}.",
    "In brief, {subject} is best understood by starting with {first} and then looking at {last}.",
    "The main point about {subject} is this: begin with {first}, keep it simple, and check {last} at the end.",
)
_FILLERS = (
    "The subject of {subject} has several sides worth a closer look.",
    "One of them is {first}, which most people meet early on.",
    "Another is {last}, which is easily overlooked at first.",
    "Both belong together, and neither is complete without the other.",
    "Those who have worked with {subject} for long tend to agree on that.",
)
_ARITHMETIC = re.compile(r"(-?\d+)\s*([-+*/x])\s*(-?\d+)")
_REPEAT = re.compile(
    r"^\s*(?:please\s+)?(?:say|repeat|reply with|answer with|echo)(?: exactly)?[:,]?\s+(.+)$", re.IGNORECASE | re.DOTALL
)
_LENGTH = re.compile(r"\b(\d{1,6})[- ](words?|tokens?)\b", re.IGNORECASE)
_CODE = re.compile(r"\b(function|program|script|code|method|regex|sql|class)\b", re.IGNORECASE)


def answer(prompt: str, *, code: bool = False, salt: int = 0) -> str:
    """What a model says to a prompt; the same prompt and salt give the same words.

    Sums are worked out, "say X" is obeyed, "N words" and "N tokens" are honoured, requests for code get a function, a
    few subjects are known, and anything else gets a sentence about the words of the prompt.

    >>> answer("What is 17 * 23?")
    '17 * 23 = 391.'
    """
    length = _LENGTH.search(prompt)
    if (
        length
        and int(length[1]) >= 5
        and re.search(r"\b(write|about|story|essay|exactly|in|of)\b", prompt, re.IGNORECASE)
    ):
        return _of_length(prompt, int(length[1]), length[2].lower())
    return _short(prompt, code=code, salt=salt)


def _short(prompt: str, *, code: bool, salt: int) -> str:
    repeat = _REPEAT.match(prompt)
    if repeat:
        return repeat[1].strip().strip("\"'")
    arithmetic = _ARITHMETIC.search(prompt)
    if arithmetic and re.search(r"what|how much|compute|calculate|sum|^\s*-?\d", prompt, re.IGNORECASE):
        return _worked_out(arithmetic)
    if code or _CODE.search(prompt):
        return _function(prompt)
    return _known(prompt, salt) or _frame(prompt, salt)


def _worked_out(sum_: re.Match[str]) -> str:
    left, sign, right = int(sum_[1]), sum_[2], int(sum_[3])
    if sign == "/" and right == 0:
        return "A division by zero has no result."
    results = {"+": left + right, "-": left - right, "/": left / right if right else 0}
    return (
        f"{left} {sign} {right} = {results.get(sign, left * right):g}."
        if sign == "/"
        else (f"{left} {sign} {right} = {results.get(sign, left * right)}.")
    )


def _known(prompt: str, salt: int) -> str | None:
    lowered = prompt.lower()
    for words, sentence in _KNOWN.items():
        if all(word in lowered for word in words):
            return sentence if not salt % 4 else f"In other words: {sentence[0].lower()}{sentence[1:]}"
    return None


def _frame(prompt: str, salt: int) -> str:
    frame = _FRAMES[(zlib.crc32(prompt.encode()) + salt) % len(_FRAMES)]
    return frame.format(**_slots(prompt))


def _slots(prompt: str) -> dict[str, str]:
    words = content_words(prompt) or ["the question"]
    return {"subject": " ".join(words[:3]), "first": words[0], "last": words[-1]}


def _of_length(prompt: str, size: int, unit: str) -> str:
    slots = _slots(_LENGTH.sub("", prompt))
    paragraph = " ".join(filler.format(**slots) for filler in _FILLERS)
    cut = split if unit.startswith("token") else _words
    text = " ".join([paragraph] * (size // len(cut(paragraph)) + 1))
    return "".join(cut(text)[:size])


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+", text)


def _function(prompt: str) -> str:
    words = [w.lower() for w in content_words(_CODE.sub("", prompt)) if w.isascii() and w.isalpha()]
    words = [w for w in words if w not in {"python", "javascript", "small", "simple", "returns", "return"}]
    name = "_".join(words[:3]) or "solve"
    about = " ".join(words[:5]) or "the task"
    return f'```python\ndef {name}(value):\n    """Work on {about}."""\n    return value\n```'


def thoughts(prompt: str, effort: str) -> str:
    """What a reasoning model thinks before it answers; more of it with more effort, nothing with `none`."""
    slots = _slots(prompt)
    steps = (
        "The question is about {subject}.",
        "First I recall what is known of {first}.",
        "Then I check how {last} fits in.",
        "A short and plain answer serves best here.",
        "Is there an exception to think of?",
        "None that matters for {subject}.",
    )
    number = {"none": 0, "minimal": 1, "low": 2, "medium": 4}.get(effort, 6)
    return " ".join(steps[:number]).format(**slots)


def tool_report(results: list[tuple[str, str]]) -> str:
    """Prose that quotes the results of tools, given as pairs of tool name and content."""
    return " ".join(f"According to {name or 'the tool'}: {_quoted(content)}." for name, content in results)


def _quoted(content: str) -> str:
    try:
        value: Any = orjson.loads(content)
    except orjson.JSONDecodeError:
        return content.strip().rstrip(".")
    if is_object(value):
        return ", ".join(f"{k} {_inline(v)}" for k, v in value.items()) or "nothing"
    return ", ".join(_inline(item) for item in value) if is_list(value) else _inline(value)


def _inline(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def loose_object(prompt: str) -> dict[str, Any]:
    """An object for JSON mode without a schema; quoted words of the prompt become its keys."""
    keys = re.findall(r"[\"'`](\w+)[\"'`]", prompt)
    hints = Hints(re.sub(r"[\"'`]\w+[\"'`]", "", prompt))
    return {key: hints.phrase(key) for key in keys} if keys else {"answer": _short(prompt, code=False, salt=0)}
