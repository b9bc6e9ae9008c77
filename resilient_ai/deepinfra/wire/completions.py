"""Text completions: the body of a request, and a whole answer."""

from collections.abc import Mapping
from typing import Any

from resilient_ai.core.operations import Complete
from resilient_ai.core.results import ChatResult, Choice, TokenLogprob
from resilient_ai.deepinfra.wire.chat import sampling_fields
from resilient_ai.deepinfra.wire.choices import read_answer
from resilient_ai.deepinfra.wire.errors import malformed
from resilient_ai.deepinfra.wire.payload import Malformed, as_list, as_object, as_text, load_object, with_extra


def completion_body(operation: Complete) -> dict[str, Any]:
    """Return the body of a text completion.

    Raises:
        InvalidInput: If `extra` changes `stream`.

    >>> completion_body(Complete(model="m", prompt="The capital of France is", max_tokens=3))
    {'model': 'm', 'prompt': 'The capital of France is', 'max_tokens': 3}
    """
    body: dict[str, Any] = {"model": operation.model, "prompt": operation.prompt} | sampling_fields(operation)
    if operation.echo is not None:
        body["echo"] = operation.echo
    if operation.logprobs is not None:
        body["logprobs"] = operation.logprobs
    return with_extra(body, operation.extra)


def read_completion(data: bytes, *, model: str, headers: Mapping[str, str]) -> ChatResult:
    """Return the answer of a text completion; its text is left as it is, tags of reasoning included.

    Args:
        data: The body of an answer with status 200.
        model: The model that was asked.
        headers: Headers of the answer.

    Raises:
        StatusError: If the body tells of a failure in spite of its status.
        InvalidResponse: If it holds no answer that can be read.

    >>> read_completion(b'{"choices": [{"text": " Paris.", "finish_reason": "stop"}]}', model="m", headers={}).text
    ' Paris.'
    """
    body = load_object(data, model=model, headers=headers)
    try:
        return read_answer(body, _choice, model=model, headers=headers)
    except Malformed as error:
        raise malformed(error, body, data, headers, model=model) from error


def _choice(fields: Mapping[str, Any], index: int) -> Choice:
    text = fields.get("text")
    if not isinstance(text, str):
        raise Malformed(f"choice {index} has no text")
    return Choice(
        index=index,
        text=text,
        finish_reason=as_text(fields.get("finish_reason")),
        logprobs=_logprobs(as_object(fields.get("logprobs")) or {}),
    )


def _logprobs(block: Mapping[str, Any]) -> tuple[TokenLogprob, ...] | None:
    # The first token of an echoed prompt has no probability: null, and is left out.
    tops = as_list(block.get("top_logprobs")) or []
    pairs = zip(as_list(block.get("tokens")) or [], as_list(block.get("token_logprobs")) or [], strict=False)
    return (
        tuple(
            TokenLogprob(token=token, logprob=logprob, top=_top(tops[position] if position < len(tops) else None))
            for position, (token, logprob) in enumerate(pairs)
            if isinstance(token, str) and _is_number(logprob)
        )
        or None
    )


def _top(value: Any) -> tuple[tuple[str, float], ...]:
    return tuple((token, float(logprob)) for token, logprob in (as_object(value) or {}).items() if _is_number(logprob))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
