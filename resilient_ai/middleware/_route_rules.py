"""Rules: which models may serve which calls."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from resilient_ai.core.call import Call
from resilient_ai.core.checks import check_count, check_kind, check_names
from resilient_ai.core.errors import InvalidInput
from resilient_ai.core.kinds import KINDS, covered
from resilient_ai.core.operation import Kind
from resilient_ai.core.operations import Operation
from resilient_ai.middleware._tokens import prompt_tokens

AUTO = "auto"
_ANY = "*"

# The ids of models, or what returns those that an operation may go to, such as a query of the catalogue.
Models = Sequence[str] | Callable[[Operation[Any]], Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Says which models serve the calls that it is about; of several rules the first that is about a call decides.

    Its models are what "auto" stands for, before all others, which stay behind them as a last resort. A `strict` rule leaves
    them out, and holds for calls that name models themselves as well: of a list what it does not name is left out, and a call
    that names nothing else is refused.

    Args:
        models: The models, each once, or a function of the operation that returns them.
        tags: The call has all of these tags; none is every call. The value "*" is any value.
        kinds: Kinds of operations it is about: "chat", "stream", "complete", "embed", "image"; none is every kind. "chat" is
            about chats that are streamed as well, "stream" about these alone.
        max_prompt_tokens: The prompt is not longer, as far as its length tells (4 characters to a token); None for every prompt.
        strict: Whether no other model may serve.

    Raises:
        ValueError: If it names no model or one twice, an unknown kind, or a tag that is no text or has a "*" in its value.

    >>> Rule(models=["small"], max_prompt_tokens=500)
    Rule(models=('small',), tags={}, kinds=(), max_prompt_tokens=500, strict=False)
    """

    models: Models
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    kinds: Sequence[Kind] = ()
    max_prompt_tokens: int | None = None
    strict: bool = False
    _covered: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", checked_models(self.models))
        if not self.models:
            raise ValueError("models must name at least one model, got ()")
        check_kind("tags", self.tags, Mapping)
        check_names("tags", [*self.tags, *self.tags.values()])
        if any(_ANY in value for value in self.tags.values() if value != _ANY):
            raise ValueError(f"tags must have whole values, or '*' for any value, got {self.tags!r}")
        object.__setattr__(self, "tags", dict(self.tags))
        check_names("kinds", self.kinds)
        object.__setattr__(self, "kinds", tuple(self.kinds))
        if not set(KINDS).issuperset(self.kinds):
            raise ValueError(f"kinds must be of {', '.join(KINDS)}, got {self.kinds!r}")
        object.__setattr__(self, "_covered", frozenset(kind for named in self.kinds for kind in covered(named)))
        if self.max_prompt_tokens is not None:
            check_count("max_prompt_tokens", self.max_prompt_tokens, 1)
        check_kind("strict", self.strict, bool)

    def is_about(self, call: Call[Any]) -> bool:
        """Return whether the rule is about a call."""
        tags = call.tags
        if any(name not in tags or value not in {tags[name], _ANY} for name, value in self.tags.items()):
            return False
        if self._covered and call.operation.kind not in self._covered:
            return False
        return self.max_prompt_tokens is None or prompt_tokens(call.operation) <= self.max_prompt_tokens


def checked_models(models: Models) -> Models:
    """Return `models` as a tuple, unless they are a function; raise `ValueError` where they cannot be the models of a route."""
    if callable(models):
        return models
    check_names("models", models)
    names = tuple(models)
    if len(set(names)) != len(names):
        raise ValueError(f"models must name each model once, got {names!r}")
    if AUTO in names:
        raise ValueError(f"models must not name {AUTO!r}, which stands for them, got {names!r}")
    return names


def models_for(models: Models, operation: Operation[Any]) -> Sequence[str]:
    """Return the models that an operation may go to.

    Raises:
        InvalidInput: If a function returned something else.
    """
    if not callable(models):
        return models
    found = models(operation)
    try:
        check_names("models", found)
    except ValueError as error:
        raise InvalidInput(f"{error} from {_name_of(models)}", field="model", value=AUTO) from None
    return found


def rule_for(rules: Sequence[Rule], call: Call[Any]) -> Rule | None:
    """Return the first of the rules that is about a call."""
    return next((rule for rule in rules if rule.is_about(call)), None)


def candidates_of(models: Models, rule: Rule | None, operation: Operation[Any]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the models that may serve, each once, and those among them that a rule puts before the others.

    Raises:
        InvalidInput: If there are none.
    """
    if AUTO in operation.fallbacks:
        raise InvalidInput(
            f"model: {AUTO!r} stands for the models of the stack and comes first, got {list(operation.models)!r}",
            field="model",
            value=AUTO,
        )
    is_auto, is_strict = operation.model == AUTO, rule is not None and rule.strict
    preferred = () if rule is None or not (is_auto or is_strict) else tuple(models_for(rule.models, operation))
    if is_strict:
        names = preferred if is_auto else tuple(name for name in operation.models if name in preferred)
    elif is_auto:
        names = tuple(dict.fromkeys((*preferred, *models_for(models, operation), *operation.fallbacks)))
    else:
        names = operation.models
    if names:
        return names, preferred
    if is_strict:
        raise InvalidInput(
            f"model: {', '.join(operation.models)} may not serve this call by {rule!r}",
            field="model",
            value=operation.model,
        )
    if callable(models):
        raise InvalidInput(
            f"model: 'auto' stands for no model, as {_name_of(models)} found none", field="model", value=AUTO
        )
    raise InvalidInput(
        "model: 'auto' needs Routing(models=[...]), or the setting auto_models", field="model", value=AUTO
    )


def _name_of(models: object) -> str:
    return getattr(models, "__qualname__", repr(models))
