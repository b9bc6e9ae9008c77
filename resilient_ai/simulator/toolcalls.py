"""Which tool a simulated model calls, and with which arguments."""

import json
import re
from dataclasses import dataclass
from typing import Any

from resilient_ai.simulator.ids import tool_call_id
from resilient_ai.simulator.instances import instance
from resilient_ai.simulator.jsonlike import is_object
from resilient_ai.simulator.profiles import Profile
from resilient_ai.simulator.schemas import ChatRequest, FunctionDefinition, NamedTool
from resilient_ai.simulator.words import Hints, content_words

_LIST = re.compile(r"\b([A-Z][\w-]+(?:, [A-Z][\w-]+)*,? and [A-Z][\w-]+)")
_MOST_CALLS = 4


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a tool."""

    id: str
    name: str
    arguments: str

    def wire(self) -> dict[str, Any]:
        """The call as it stands in a message."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


def calls(request: ChatRequest, profile: Profile, prompt: str) -> list[Call]:
    """The calls a model makes in answer to a prompt: none, one, or one for each name in a list such as "A, B and C".

    A tool is called when the caller insists, or when the last message comes from the user and the choice is free.
    """
    if not request.tools or request.tool_choice == "none":
        return []
    insisted = request.tool_choice == "required" or isinstance(request.tool_choice, NamedTool)
    if not insisted and request.messages[-1].role != "user":
        return []
    chosen = _chosen(request, prompt)
    made = [_arguments(chosen, text) for text in _one_prompt_per_call(chosen, prompt)]
    return [
        Call(id=tool_call_id(profile.call_ids, chosen.name, index), name=chosen.name, arguments=arguments)
        for index, arguments in enumerate(made)
    ]


def pseudo_call(call: Call) -> str:
    """How a model writes a call that cannot make one."""
    return f"```tool_call\n{call.name}({call.arguments})\n```"


def _chosen(request: ChatRequest, prompt: str) -> FunctionDefinition:
    functions = [tool.function for tool in request.tools or []]
    if isinstance(request.tool_choice, NamedTool):
        wanted = request.tool_choice.function.name
        return next((f for f in functions if f.name == wanted), functions[0])
    asked = _stems(prompt)
    return max(functions, key=lambda f: len(asked & _stems(_description(f))))


def _description(function: FunctionDefinition) -> str:
    properties: dict[str, Any] = (function.parameters or {}).get("properties", {})
    return " ".join([re.sub(r"[_-]", " ", function.name), function.description or "", *properties])


def _stems(text: str) -> set[str]:
    return {word.lower()[:5].rstrip("s") for word in content_words(text)}


def _one_prompt_per_call(function: FunctionDefinition, prompt: str) -> list[str]:
    properties: dict[str, Any] = (function.parameters or {}).get("properties", {})
    kinds = [p.get("type") for p in properties.values() if is_object(p)]
    named = _LIST.search(prompt)
    # A single text field cannot take a list, so the list becomes parallel calls.
    if named is None or "array" in kinds or kinds.count("string") != 1:
        return [prompt]
    names = re.split(r", and |, | and ", named[1])[:_MOST_CALLS]
    return [prompt.replace(named[1], name) for name in names]


def _arguments(function: FunctionDefinition, prompt: str) -> str:
    schema = {"type": "object", **(function.parameters or {"properties": {}})}
    made = instance(schema, Hints(prompt))
    return json.dumps(made, ensure_ascii=False)
