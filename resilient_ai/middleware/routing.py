"""Ask the next model where one cannot serve, and choose by price, speed and health which is asked first."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar, cast

from resilient_ai.core.call import Call, Next
from resilient_ai.core.checks import check_able, check_between, check_count, check_kind
from resilient_ai.core.errors import InvalidInput, ModelUnfit, NoModelAvailable
from resilient_ai.core.operations import Embed, Operation
from resilient_ai.core.pipeline import WorstCase
from resilient_ai.core.protocols import Abilities, PriceBook
from resilient_ai.core.results import Considered
from resilient_ai.middleware._route import Route, note_refused
from resilient_ai.middleware._route_choice import Choice, Order, known
from resilient_ai.middleware._route_measures import Measures
from resilient_ai.middleware._route_ranking import PREFERENCES, Candidate, OwnOrder, Preference
from resilient_ai.middleware._route_rules import AUTO, Models, Rule, candidates_of, checked_models, rule_for

R = TypeVar("R")

_BY_RULE, _ONLY = "by a rule", "the only one"


@dataclass(frozen=True, kw_only=True)
class Routing:
    """Ask the models of an operation in turn until one serves, and choose the turn by price, speed and health.

    The next model is asked where another may do better: after failures that may pass, where a model is gone, lacks a
    feature or is not allowed to this key, where its circuit is open or its limit reached, and where a budget has too little left
    for it, as a cheaper one may fit. It is not asked where it would refuse as well, or where it would be wrong to: bad requests,
    wrong keys, no balance, the deadline, cancellation, a stream that broke after content had been handed over. Which model
    answered is `served_by`, and why others did not is `refused`. Where budgets alone refused every model that was asked, the
    call raises the `BudgetExceeded` of the model for which there may be room the soonest, of equals the last; where there were
    other reasons as well, `NoModelAvailable`.

    A list that a call names is asked in the caller's order. What "auto" stands for is asked in the order of `prefer`:

    - None: as given.
    - "cheapest": by what the call is expected to cost, `list price * drift`, where drift is what the service billed lately,
      divided by the list price of the same tokens. Without list prices the price of a token is what was billed for one.
    - "fastest": by the mean time lately to the first token of a stream, or to a whole answer. One that was never timed goes
      first, once.
    - "balanced": by cost times seconds, so that a model that is twice as dear must be twice as fast.
    - a function: given every `Candidate` in the order as given, it returns those that may serve, in the order it wants.

    Whatever is preferred, models against which something stands go behind the others. First come those in trouble, of whose last
    calls more than half failed or were slow: it takes five bad ones in a row, or two where little is known. A call is slow that
    takes three times as long as is usual for its model and the length of its answer (longer where that varies:
    `max(3 * mean, mean + 3 * deviation)`), and a quarter of a second longer; also while it is still under way. Without a
    preference nothing is measured, and none is in trouble. At the end go models that would refuse the call now or let it wait,
    because of their circuit, limit, rate or budget, and those known not to offer its service tier. What is left of a budget
    others share is known from the requests of this process, and from `Budgets.state`.

    What was measured of a model counts half after a minute (health, speed) or an hour (price). A share of the calls, `explore`,
    goes first to the model that was asked the longest ago, if it costs at most twice as much as the first. So one that has
    recovered, or has become cheaper, is found.

    Which models were considered, and why in this order, is `considered` in the answer, unless they were asked in the order given
    and nothing was to say; `explain` says it without sending.

    A model of a list, or of those that "auto" stands for, that is known to lack what the call needs is passed over without being
    asked, also where a rule leaves no other. A model that a call names alone is always asked, and so is one of which nothing is
    known.

    Where the circuits of all models are open and nothing has been sent, the one that is nearest to its probe is asked once
    more, so that the breaker may probe it ahead of time.

    Vectors of different models cannot be compared. An `Embed` may name several where all are known to give vectors of one
    length; one call never mixes them, and `served_by` tells whose they are.

    Model n of N may send `max(1, max_sends - sends so far - (N - n))` requests, of which every try is one.

    Args:
        models: What the model "auto" stands for, each once: ids in order, or a function of the operation that returns them.
        abilities: What models can do; None passes over none, and an `Embed` then names one model.
        max_sends: Requests of a call over all models of its list, at least 1; every model gets one at least. Ignored where a
            call names one model, and where an `Embed` has several texts, which may go out in many batches.
        embed_across_models: Whether an `Embed` may fall back to any other model all the same.
        prefer: The order of what "auto" stands for; see above.
        prices: List prices; None knows none.
        explore: The share of calls that measure a model anew, 0 to 1; with 0 none does. Ignored without a `prefer` by name.
        rules: Say which models may serve which calls; the first that is about a call decides.
        pin: The name of a tag, such as "conversation". Calls to "auto" with the same value of it keep to the model that served
            the last of them, so that the provider's prompt cache helps, while it is fit and nothing stands against it. After
            an hour of silence, or 10,000 others, a conversation is forgotten.

    Raises:
        ValueError: If a model is named twice, "auto" stands for itself, or an option is out of its range.

    >>> Routing(models=["large", "small"], prefer="cheapest")  # doctest: +ELLIPSIS
    Routing(models=('large', 'small'), abilities=None, max_sends=6, embed_across_models=False, prefer='cheapest', ...)
    """

    inside_of: ClassVar[Mapping[str, str]] = {
        "Resume": "a stream that broke may be served by another model of the list",
        "Cache": "the key holds the route that was asked for, not the model that happened to serve",
    }

    models: Models = ()
    abilities: Abilities | None = None
    max_sends: int = 6
    embed_across_models: bool = False
    prefer: Preference | OwnOrder | None = None
    prices: PriceBook | None = None
    explore: float = 0.02
    rules: Sequence[Rule] = ()
    pin: str | None = None
    _order: Order = field(init=False, repr=False, compare=False)
    _measures: Measures = field(init=False, repr=False, compare=False)
    _binds_all: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", checked_models(self.models))
        check_able("abilities", self.abilities, "lacks", "dimensions")
        check_count("max_sends", self.max_sends, 1)
        check_kind("embed_across_models", self.embed_across_models, bool)
        given = cast("object", self.prefer)
        if not callable(given) and given is not None and not (isinstance(given, str) and given in PREFERENCES):
            raise ValueError(f"prefer must be of {sorted(PREFERENCES)!r}, a function or None, got {self.prefer!r}")
        check_able("prices", self.prices, "chat_cost", "embedding_cost", "image_cost")
        check_between("explore", self.explore, 0, 1)
        check_kind("rules", self.rules, list, tuple)
        for rule in self.rules:
            check_kind("rules", rule, Rule)
        object.__setattr__(self, "rules", tuple(self.rules))
        pin = cast("object", self.pin)
        if pin is not None and not (isinstance(pin, str) and pin):
            raise ValueError(f"pin must be the name of a tag or None, got {pin!r}")
        measures = Measures(self.prices)
        order = Order(
            abilities=self.abilities, prefer=self.prefer, explore=self.explore, pin=self.pin, measures=measures
        )
        object.__setattr__(self, "_order", order)
        object.__setattr__(self, "_measures", measures)
        object.__setattr__(self, "_binds_all", any(rule.strict for rule in self.rules))

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        """Send the call to one model after the other, until one serves."""
        operation = call.operation
        if operation.model != AUTO and not operation.fallbacks and not self._binds_all:
            return await proceed(call)
        models, preferred = self._models_of(call)
        if len(models) == 1:
            return await self._ask_only(models[0], call, proceed, is_ruled=models[0] in preferred)
        choice = self._order.choice(call, models, preferred, is_sent=True)
        if choice.considered:
            call.record.considered = choice.considered
        route = Route(
            call,
            proceed,
            choice.models,
            unfit=choice.unfit,
            left_out_by=choice.left_out_by,
            max_sends=self.max_sends,
            dimensions=self._dimensions(operation, choice),
            measures=None if self.prefer is None else self._measures,
        )
        result = await route.run()
        if self.pin is not None and operation.model == AUTO:
            self._order.served(call, route.served_by)
        return result

    def explain(self, call: Call[Any]) -> tuple[Considered, ...]:
        """Return what would be considered for a call if it were sent now, in the order in which it would be asked.

        Nothing is sent, changed or left to chance, so no model stands first only to be measured anew.

        Raises:
            InvalidInput: As the call would.
        """
        models, preferred = self._models_of(call)
        if len(models) == 1:
            model, operation = models[0], call.operation
            if operation.models == (model,):
                return (self._order.alone(call, model, _ONLY),)
            lacks = self._order.lacks(operation.on(model))
            return (self._order.alone(call, model, _BY_RULE if model in preferred else _ONLY, lacks),)
        choice = self._order.choice(call, models, preferred, is_sent=False)
        self._dimensions(call.operation, choice)
        return choice.considered

    def would_ask(self, call: Call[Any]) -> str:
        """Return the model that would be asked first for a call if it were sent now, as `explain` has it.

        Raises:
            InvalidInput: As the call would.
        """
        if call.operation.model != AUTO and not self._binds_all:
            return call.model
        models, preferred = self._models_of(call)
        if len(models) == 1:
            return models[0]
        choice = self._order.choice(call, models, preferred, is_sent=False)
        return next((model for model in choice.models if model not in choice.unfit), models[0])

    def ruled_by(self, call: Call[Any]) -> str:
        """Return the models of the rule that is about a call, as a text; empty where none is, or where it changes nothing."""
        rule = rule_for(self.rules, call) if self.rules else None
        if rule is None or not (rule.strict or call.operation.model == AUTO):
            return ""
        return f"{'only' if rule.strict else 'first'} {rule.models!r}"

    def worst_case(self, inner: WorstCase) -> WorstCase:
        """Every model in turn, as slow as can be, and `max_sends` requests unless there are more models."""
        if inner.models == 1:
            return inner
        sends = max(inner.models, min(self.max_sends, inner.sends * inner.models))
        return replace(inner, sends=sends, seconds=inner.seconds * inner.models)

    async def _ask_only(self, model: str, call: Call[R], proceed: Next[R], *, is_ruled: bool) -> R:
        """Send the call to the only model that may serve it; one that it names alone is asked whatever it lacks."""
        if call.operation.models == (model,):
            return await proceed(call)
        call, record = call.replace(operation=call.operation.on(model)), call.record
        lacks = self._order.lacks(call.operation)
        if lacks is not None:
            error = ModelUnfit(model=model, lacks=lacks)
            note_refused(call, model, error)
            raise NoModelAvailable({model: error}) from error
        if is_ruled:
            record.considered = (self._order.alone(call, model, _BY_RULE),)
        return await proceed(call)

    def _models_of(self, call: Call[Any]) -> tuple[Sequence[str], Collection[str]]:
        rule = rule_for(self.rules, call) if self.rules else None
        return candidates_of(self.models, rule, call.operation)

    def _dimensions(self, operation: Operation[Any], choice: Choice) -> int | None:
        """Return the length that vectors of fallbacks must have, None where any will do."""
        if not isinstance(operation, Embed):
            return None
        book = self.abilities
        models = [model for model in choice.models if model not in choice.unfit]
        if self.embed_across_models or len(models) < 2:
            return operation.dimensions
        lengths = {model: None if book is None else known(book.dimensions, operation.on(model)) for model in models}
        first = lengths[models[0]]
        if first is not None and set(lengths.values()) == {first}:
            return operation.dimensions or first
        told = ", ".join(f"{model!r} gives {length or 'unknown'} dimensions" for model, length in lengths.items())
        if operation.model == AUTO:
            raise InvalidInput(
                f"model: {AUTO!r} stands for models whose vectors cannot be compared: {told};"
                " name one of them, or have Rule(models=[one], kinds=['embed'], strict=True)",
                field="model",
                value=AUTO,
            )
        raise InvalidInput(
            f"Embed: fallbacks: vectors of different models cannot be compared, and {told};"
            " Routing(embed_across_models=True) allows it",
            field="fallbacks",
            value=models[1:],
        )


__all__ = ["Candidate", "Models", "Routing", "Rule"]
