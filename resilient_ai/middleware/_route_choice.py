"""The choice of a route: what could serve a call, in which order it is asked, and why."""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from resilient_ai.core.call import Call
from resilient_ai.core.errors import InvalidInput
from resilient_ai.core.log import Log
from resilient_ai.core.operations import Operation
from resilient_ai.core.protocols import Abilities
from resilient_ai.core.results import Considered
from resilient_ai.middleware._machines.pins import Pins
from resilient_ai.middleware._machines.turns import Turns
from resilient_ai.middleware._route_measures import Measures
from resilient_ai.middleware._route_ranking import (
    Candidate,
    Entry,
    OwnOrder,
    Preference,
    explored,
    rank,
    reason,
    with_price,
)
from resilient_ai.middleware._route_rules import AUTO
from resilient_ai.middleware._route_size import tier_of

OperationT = TypeVar("OperationT")
KnownT = TypeVar("KnownT")

# Conversations that are remembered, and the seconds of silence after which one is forgotten.
_MOST_PINS = 10_000
_SILENCE = 3600.0

_log = Log()


@dataclass(frozen=True, slots=True)
class Choice:
    """The models of a call in the order in which they are asked, and what is told of it.

    Args:
        models: Those that are passed over last.
        unfit: What each model lacks that is passed over; None where a function left it out.
        considered: What is told of each.
        left_out_by: The function that wanted none of those that are fit.
    """

    models: Sequence[str]
    unfit: Mapping[str, str | None]
    considered: tuple[Considered, ...] = ()
    left_out_by: str | None = None


class Order:
    """Finds the order in which models are asked; the options are those of `Routing`."""

    def __init__(
        self,
        *,
        abilities: Abilities | None,
        prefer: Preference | OwnOrder | None,
        explore: float,
        pin: str | None,
        measures: Measures,
    ) -> None:
        self._abilities = abilities
        self._prefer: Preference | None = None if callable(prefer) else prefer
        self._own_order = prefer if callable(prefer) else None
        self._explore = explore
        self._pin = pin
        self._measures = measures
        self._pins = Pins(most=_MOST_PINS, silence=_SILENCE)
        self._turns = Turns()

    def choice(self, call: Call[Any], models: Sequence[str], preferred: Collection[str], *, is_sent: bool) -> Choice:
        """Return the models of a call in their order.

        Args:
            call: The call.
            models: What could serve it, at least two.
            preferred: Those that a rule puts before the others.
            is_sent: Whether it is sent then, and it may be the turn of a model that is to be measured anew. Else no chance is
                drawn, and all is told that is known.
        """
        operations = {model: call.operation.on(model) for model in models}
        unfit = unfit_of(self._abilities, operations)
        is_auto = call.operation.model == AUTO
        if is_sent and not is_auto:
            return Choice(models, unfit)
        pinned, tier = (self._pinned(call), tier_of(call.operation)) if is_auto else (None, None)
        entries = [
            Entry(
                model,
                place,
                against=self._against(call, operation, tier) if is_auto else None,
                is_preferred=model in preferred,
                is_pinned=model == pinned,
            )
            for place, (model, operation) in enumerate(operations.items())
            if model not in unfit
        ]
        left_out = [Entry(model) for model in unfit]
        own_order, prefer = (self._own_order, self._prefer) if is_auto else (None, None)
        is_plain = own_order is None and prefer is None and not unfit and not any(entry.moves for entry in entries)
        if is_sent and is_plain:
            return Choice(models, unfit)
        self._measures.estimate(call, entries if is_sent else [*entries, *left_out])
        unsuited = [entry.considered(None, f"lacks {unfit[entry.model]}") for entry in left_out]
        if own_order is not None:
            return _in_own_order(own_order, entries, unfit, unsuited)
        ranked = rank(entries, prefer) if is_auto else entries
        if is_sent and prefer is not None and len(ranked) > 1 and self._explore and call.clock.random() < self._explore:
            _put_first(explored(ranked), ranked)
        told = [entry.considered(place, reason(entry, prefer)) for place, entry in enumerate(ranked, 1)]
        return Choice([*(entry.model for entry in ranked), *unfit], unfit, (*told, *unsuited))

    def alone(self, call: Call[Any], model: str, why: str, lacks: str | None = None) -> Considered:
        """Return what is to be told of a model beside which there is no other, and of what it lacks."""
        entry = Entry(model)
        self._measures.estimate(call, [entry])
        if lacks is not None:
            return entry.considered(None, f"lacks {lacks}")
        return entry.considered(1, with_price(why, entry))

    def lacks(self, operation: Operation[Any]) -> str | None:
        """Return what the model of an operation is known to lack for it."""
        return None if self._abilities is None else known(self._abilities.lacks, operation)

    def served(self, call: Call[Any], model: str) -> None:
        """Take note that a model has served a call, to which its conversation keeps."""
        conversation = self._conversation(call)
        if conversation is not None:
            now = call.clock.monotonic()
            with self._turns:
                self._pins.keep(conversation, model, now)

    def _pinned(self, call: Call[Any]) -> str | None:
        conversation = self._conversation(call)
        if conversation is None:
            return None
        now = call.clock.monotonic()
        with self._turns:
            return self._pins.get(conversation, now)

    def _conversation(self, call: Call[Any]) -> str | None:
        name = None if self._pin is None else call.tags.get(self._pin)
        if name is None:
            return None
        # A streamed turn of a conversation reads the same prompt cache as one that is not; a vector or picture does not.
        kind = call.operation.kind
        return f"{'chat' if kind == 'stream' else kind}:{name}"

    def _against(self, call: Call[Any], operation: Operation[Any], tier: str | None) -> str | None:
        """Return what is sure to refuse the call on a model, or to let it wait."""
        if call.objections:
            there = call.replace(operation=operation)
            for objection in call.objections:
                against = known(objection, there)
                if against is not None:
                    return against
        return None if tier is None else self._tier_against(operation.model, tier)

    def _tier_against(self, model: str, tier: str) -> str | None:
        tiers_of: Callable[[str], Collection[str] | None] | None = getattr(self._abilities, "service_tiers", None)
        tiers = None if tiers_of is None else known(tiers_of, model)
        return None if tiers is None or tier in tiers else f"does not offer the service tier {tier!r}"


def unfit_of(abilities: Abilities | None, operations: Mapping[str, Operation[Any]]) -> dict[str, str]:
    """Return what each model lacks that is known to lack something."""
    if abilities is None:
        return {}
    lacks = abilities.lacks
    return {model: lack for model, operation in operations.items() if (lack := known(lacks, operation)) is not None}


def known(ask: Callable[[OperationT], KnownT | None], about: OperationT) -> KnownT | None:
    """Return what is known; None where whoever is asked raises, as not to know must never fail a call."""
    try:
        return ask(about)
    except Exception as error:  # noqa: BLE001 - see above
        name = getattr(ask, "__name__", "")
        _log.warning("%s raised %s", "abilities" if name in {"lacks", "dimensions"} else name, type(error).__name__)
        return None


def _put_first(entry: Entry | None, ranked: list[Entry]) -> None:
    if entry is not None:
        entry.why = "to measure it anew"
        ranked.remove(entry)
        ranked.insert(0, entry)


def _in_own_order(
    own_order: OwnOrder, entries: Sequence[Entry], unfit: Mapping[str, str], unsuited: Sequence[Considered]
) -> Choice:
    """Return the order that a function gives; what it leaves out is not asked.

    Raises:
        InvalidInput: If it gives something else; what the function raises is the caller's.
    """
    name = getattr(own_order, "__name__", type(own_order).__name__)
    by_model = {entry.model: entry for entry in entries}
    given = _candidates(name, own_order([entry.candidate() for entry in entries]))
    asked = {candidate.model: by_model[candidate.model] for candidate in given if candidate.model in by_model}
    told = [entry.considered(place, f"chosen by {name}") for place, entry in enumerate(asked.values(), 1)]
    others = [entry.considered(None, f"left out by {name}") for entry in entries if entry.model not in asked]
    considered = (*told, *others, *unsuited)
    if asked:
        return Choice([*asked, *unfit], unfit, considered)
    return Choice([*by_model, *unfit], {**dict.fromkeys(by_model), **unfit}, considered, left_out_by=name)


def _candidates(name: str, given: object) -> list[Candidate]:
    """Return what a function has given, as a list."""
    if inspect.iscoroutine(given):
        given.close()  # else Python warns that nobody has waited for it
    is_row = isinstance(given, Iterable)
    found = list(cast("Iterable[object]", given)) if is_row else None
    if found is None or not all(isinstance(one, Candidate) for one in found):
        raise InvalidInput(
            f"prefer: {name} must return a list of those candidates it was given, without waiting, got {given!r:.200}",
            field="prefer",
            value=given,
        )
    return cast("list[Candidate]", found)
