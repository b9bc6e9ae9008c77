"""Routing by price, speed and health: which of the models that "auto" stands for is asked first, and what the answer tells."""

import asyncio
import gc
import re
from decimal import Decimal

import pytest

from resilient_ai.core.deltas import TextDelta
from resilient_ai.core.errors import (
    BadRequest,
    BudgetExceeded,
    CircuitOpen,
    InvalidInput,
    ModelUnfit,
    NoModelAvailable,
    RateLimited,
    ServerFailed,
    StreamInterrupted,
)
from resilient_ai.core.ledger import SendClosed
from resilient_ai.core.operations import Chat, Embed, Image, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Cost, Usage
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware.budget import Budget
from resilient_ai.middleware.budgets import Budgets
from resilient_ai.middleware.circuit_breaker import CircuitBreaker
from resilient_ai.middleware.cost import CostAccounting
from resilient_ai.middleware.routing import Candidate, Routing, Rule
from resilient_ai.stores.memory_budgets import MemoryBudgets
from resilient_ai.testing import FakeClock, ScriptedProvider, ScriptedSource, answer_to, chat_result, stream_of

pytestmark = pytest.mark.anyio

AUTO = Chat(model="auto", messages="hi")
BOOM = ServerFailed("boom", status=500)


class Prices:
    """A price per token of each model, the same for input and output; per picture a thousand times that."""

    def __init__(self, **dollars):
        self.dollars = {model: Decimal(str(amount)) for model, amount in dollars.items()}

    def _times(self, model, units):
        price = self.dollars.get(model)
        return None if price is None else price * units

    def chat_cost(self, model, *, input_tokens, output_tokens, service_tier=None, **more):
        return self._times(model, input_tokens + output_tokens)

    def embedding_cost(self, model, *, input_tokens, service_tier=None):
        return self._times(model, input_tokens)

    def image_cost(self, model, *, images, width=None, height=None, steps=None):
        return self._times(model, 1000 * images)


class Broken:
    """A price book, and abilities, that cannot be asked."""

    def fail(self, *given, **named):
        raise RuntimeError

    chat_cost = embedding_cost = image_cost = lacks = dimensions = fail


class Book:
    """Abilities as a test wants them."""

    def __init__(self, *, lacks=(), dimensions=(), tiers=()):
        self._lacks, self._dimensions, self._tiers = dict(lacks), dict(dimensions), dict(tiers)

    def lacks(self, operation):
        return self._lacks.get(operation.model)

    def dimensions(self, operation):
        return self._dimensions.get(operation.model)

    def service_tiers(self, model):
        return self._tiers.get(model)


class Service(ScriptedProvider):
    """Takes `seconds` for each model, bills `bills` dollars for each of the thirteen tokens of a chat, and fails where told."""

    def __init__(self, *, seconds=(), bills=(), fails=()):
        super().__init__()
        self.seconds, self.bills, self.fails = dict(seconds), dict(bills), dict(fails)

    async def __call__(self, call):
        self.calls.append(call)
        call.send_started()
        await asyncio.sleep(self.seconds.get(call.model, 0.1))
        if call.model in self.fails:
            raise self.fails[call.model]
        result = answer_to(call.operation)
        if not isinstance(result, StreamResult):
            result = result.model_copy(update={"served_by": call.model})
        bill = self.bills.get(call.model)
        if bill is not None and not isinstance(result, StreamResult):
            amount = 13 * Decimal(str(bill))
            result = result.model_copy(update={"cost": Cost(amount=amount, source="provider")})
        return result

    @property
    def asked(self):
        return [call.model for call in self.calls]


def pipeline_of(service, *inner, clock=None, **options):
    options = {"models": ["a", "b", "c"], "prefer": "cheapest", "explore": 0} | options
    return Pipeline(service, [Routing(**options), *inner, CostAccounting()], clock=clock or FakeClock())


async def asked_of(pipeline, times=1, operation=AUTO, **options):
    """Send some calls and return the models that served."""
    served = []
    for _ in range(times):
        answer = await pipeline.send(operation, **options)
        served.append(answer.served_by if not isinstance(answer, StreamResult) else (await answer.result()).served_by)
    return served


def told(answer):
    return [(one.model, one.place, one.why) for one in answer.considered]


class TestOrder:
    async def test_the_cheapest_by_the_list_is_asked_first(self):
        """Until something is measured the list price decides; the answer says so."""
        pipeline = pipeline_of(Service(), prices=Prices(a=3, b=1, c=2))
        answer = await pipeline.send(AUTO)
        assert answer.served_by == "b"
        assert told(answer) == [(model, place, "by price, as listed") for place, model in enumerate("bca", 1)]
        # One token of the prompt, and a thousand of an answer of which nothing is known.
        assert [one.cost for one in answer.considered] == [1001, 2002, 3003]

    async def test_what_is_billed_goes_before_the_list(self):
        """A model that is billed above its list price loses its place after the first bill."""
        service = Service(bills={"a": 5, "b": 2})
        pipeline = pipeline_of(service, prices=Prices(a=1, b=2, c=9))
        assert await asked_of(pipeline, 3) == ["a", "b", "b"]
        answer = await pipeline.send(AUTO)
        assert told(answer)[0] == ("b", 1, "by price, as billed lately")

    async def test_without_a_price_list_a_bill_is_a_price(self):
        """A model whose price is not known goes behind those whose price is, in the order given."""
        service = Service(bills={"a": 5, "b": 2, "c": 1})
        pipeline = pipeline_of(service)
        assert await asked_of(pipeline, 2) == ["a", "a"]
        service.fails = {"a": BOOM}
        assert await asked_of(pipeline) == ["b"]
        service.fails = {}
        answer = await pipeline.send(AUTO)
        assert [(one.model, one.why) for one in answer.considered] == [
            ("b", "by price, as billed lately"),
            ("a", "by price, as billed lately"),
            ("c", "no price known"),
        ]
        assert answer.considered[2].cost is None

    async def test_a_long_prompt_does_not_make_a_model_look_dear(self):
        """What counts is the price of a token, not what the last call came to."""
        service = Service(bills={"a": 1, "b": 2})
        pipeline = pipeline_of(service, models=["a", "b"], prices=Prices(a=1, b=2))
        await pipeline.send(Chat(model="auto", messages="x" * 40_000))
        assert await asked_of(pipeline) == ["a"]

    async def test_the_length_of_answers_is_learnt(self):
        """After twenty answers of three tokens a call is expected to cost less than one of a thousand."""
        pipeline = pipeline_of(Service(bills={"a": 1}), prices=Prices(a=1, b=2, c=3))
        await asked_of(pipeline, 20)
        answer = await pipeline.send(AUTO)
        assert answer.considered[0].cost < 100
        assert (await pipeline.send(AUTO.model_copy(update={"max_tokens": 2}))).considered[0].cost <= 4

    async def test_the_fastest_is_found_by_asking_each_once(self):
        """Then the one whose answers come first has the traffic."""
        service = Service(seconds={"a": 2.0, "b": 0.5, "c": 1.0})
        pipeline = pipeline_of(service, prefer="fastest")
        assert await asked_of(pipeline, 5) == ["a", "b", "c", "b", "b"]
        answer = await pipeline.send(AUTO)
        assert [one.model for one in answer.considered] == ["b", "c", "a"]
        seconds = [one.seconds for one in answer.considered]
        assert seconds == pytest.approx([seconds[0], 2 * seconds[0], 4 * seconds[0]], rel=0.1)
        assert told(answer)[0] == ("b", 1, "by time")

    async def test_many_first_calls_at_once_do_not_all_measure_the_same_model(self):
        """Whoever is being timed is not timed again."""
        service = Service()
        pipeline = pipeline_of(service, prefer="fastest")
        await asyncio.gather(*(pipeline.send(AUTO) for _ in range(4)))
        assert service.asked == ["a", "b", "c", "a"]

    async def test_balanced_weighs_money_against_time(self):
        """A model that is twice as dear must be twice as fast."""
        service = Service(seconds={"a": 1.0, "b": 0.3, "c": 0.9}, bills={"a": 1, "b": 2, "c": 3})
        pipeline = pipeline_of(service, prefer="balanced", prices=Prices(a=1, b=2, c=3))
        for model in "abc":
            await asked_of(pipeline, 1, AUTO.on("auto"), tags={})
            service.fails[model] = BOOM
        service.fails = {}
        await asyncio.sleep(600.0)
        answer = await pipeline.send(AUTO)
        assert (answer.served_by, answer.considered[0].why) == ("b", "by price and time, as billed lately")

    async def test_a_stream_is_timed_until_it_is_handed_over(self):
        """How fast it is read says nothing about the model."""
        service = Service(seconds={"a": 0.4})
        pipeline = pipeline_of(service, prefer="fastest", models=["a", "b"])
        stream = await pipeline.send(Stream(model="auto", messages="hi"))
        await asyncio.sleep(50.0)
        await stream.result()
        explained = Routing.explain(pipeline.stack[0], pipeline.call(Stream(model="auto", messages="hi")))
        assert {one.model: one.seconds for one in explained} == {"b": None, "a": pytest.approx(0.4)}

    async def test_pictures_and_vectors_have_prices_too(self):
        """Each kind of operation is compared by its own."""
        pipeline = pipeline_of(Service(), prices=Prices(a=3, b=1, c=2), embed_across_models=True)
        picture = await pipeline.send(Image(model="auto", prompt="a lighthouse", n=2))
        assert (picture.served_by, picture.considered[0].cost) == ("b", 2000)
        vector = await pipeline.send(Embed(model="auto", texts="12345678"))
        assert (vector.served_by, vector.considered[0].cost) == ("b", 2)

    async def test_pictures_are_compared_by_what_is_billed_for_one(self):
        """Beside the list price of as many, or without any."""
        picture = Image(model="auto", prompt="a lighthouse", n=2)
        for prices in (Prices(a=1, b=2, c=3), None):
            service = Service(bills={"a": 1000, "b": 2, "c": 2})
            pipeline = pipeline_of(service, prices=prices)
            await asked_of(pipeline, 1, picture)
            service.fails = {"a": BOOM}
            await asked_of(pipeline, 1, picture)
            service.fails = {}
            answer = await pipeline.send(picture)
            assert (answer.served_by, answer.considered[0].why) == ("b", "by price, as billed lately")

    async def test_the_list_price_that_the_accounting_found_is_taken(self):
        """It knows the tokens best; here it says the double of what the router's own list does."""
        routing = Routing(models=["a", "b"], prefer="cheapest", prices=Prices(a=2, b=3), explore=0)
        service = Service(bills={"a": 2})
        pipeline = Pipeline(service, [routing, CostAccounting(prices=Prices(a=4, b=6))], clock=FakeClock())
        first, second = [await pipeline.send(AUTO.model_copy(update={"max_tokens": 9})) for _ in range(2)]
        assert (first.considered[0].cost, float(second.considered[0].cost)) == (
            20,
            pytest.approx(20 * 0.7 / 1.2, rel=1e-4),
        )

    async def test_a_price_book_that_fails_is_no_price(self, caplog):
        """It fails no call, and is logged."""
        pipeline = pipeline_of(Service(), prices=Broken(), abilities=Broken())
        assert await asked_of(pipeline) == ["a"]
        assert "prices raised RuntimeError" in caplog.text

    async def test_a_list_that_a_call_names_stays_in_its_order(self):
        """Who names models has chosen."""
        pipeline = pipeline_of(Service(), prices=Prices(a=3, b=1, c=2))
        answer = await pipeline.send(Chat(model=["a", "b"], messages="hi"))
        assert (answer.served_by, answer.considered) == ("a", ())

    async def test_where_nothing_is_to_choose_nothing_is_told(self):
        """One model, named or not, is no choice; nor is an order that was given."""
        pipeline = pipeline_of(Service(), models=["a"])
        assert (await pipeline.send(AUTO)).considered == ()
        assert (await pipeline.send(AUTO.on("b"))).considered == ()
        assert (await pipeline_of(Service(), prefer=None).send(AUTO)).considered == ()


class TestFunctions:
    async def test_models_may_come_from_a_function(self):
        """It is asked for each call, so that candidates follow whatever it knows."""
        known = ["a", "b"]
        pipeline = pipeline_of(Service(), models=lambda operation: known, prices=Prices(a=2, b=3, c=1))
        assert await asked_of(pipeline) == ["a"]
        known.append("c")
        assert await asked_of(pipeline) == ["c"]

    @pytest.mark.parametrize("found", [[], "a", None, [7]])
    async def test_a_function_that_finds_no_models_is_told_of(self, found):
        """The call is refused before anything is sent."""
        service = Service()
        with pytest.raises(InvalidInput, match=r"auto|models must be a list of names") as caught:
            await pipeline_of(service, models=lambda operation: found).send(AUTO)
        assert (caught.value.field, service.calls) == ("model", [])

    async def test_a_function_may_choose(self):
        """It sees every candidate, and what it leaves out is not asked."""
        seen = []

        def last_two(candidates):
            seen.extend(candidates)
            return candidates[:0:-1]

        service = Service(fails={"c": BOOM})
        answer = await pipeline_of(service, prefer=last_two, prices=Prices(a=1)).send(AUTO)
        assert service.asked == ["c", "b"]
        assert told(answer) == [
            ("c", 1, "chosen by last_two"),
            ("b", 2, "chosen by last_two"),
            ("a", None, "left out by last_two"),
        ]
        assert seen[0] == Candidate(model="a", cost=Decimal(1001), seconds=None, failures=0.0, against=None, samples=0)

    async def test_a_function_that_wants_none_gets_none(self):
        """The call fails, and no model is asked against its will."""
        service = Service()
        with pytest.raises(NoModelAvailable) as caught:
            await pipeline_of(service, prefer=lambda candidates: []).send(AUTO)
        assert (service.calls, {type(error) for error in caught.value.refused.values()}) == ([], {ModelUnfit})

    async def test_that_a_function_wanted_none_is_said(self):
        """In the error and in that of each model; what a model lacks is what it lacks."""

        def picky(candidates):
            return []

        with pytest.raises(NoModelAvailable) as caught:
            await pipeline_of(Service(), prefer=picky, abilities=Book(lacks={"b": "tools"})).send(AUTO)
        sentence = "no model could serve the call (a: left out by picky; c: left out by picky; b: lacks tools)"
        assert str(caught.value) == sentence
        errors = caught.value.refused
        assert str(errors["a"]) == "'a' was not asked, because picky left it out"
        assert [(errors[model].lacks, errors[model].left_out_by) for model in "ab"] == [
            (None, "picky"),
            ("tools", None),
        ]

    @pytest.mark.parametrize(
        "nonsense",
        [
            lambda candidates: None,
            lambda candidates: candidates[0],
            lambda candidates: [one.model for one in candidates],
            lambda candidates: "a",
            lambda candidates: [None, *candidates],
            lambda candidates: True,
        ],
        ids=["nothing", "one", "names", "text", "gap", "truth"],
    )
    async def test_a_function_that_returns_nonsense_is_named(self, nonsense):
        """The call is refused before anything is sent."""
        nonsense.__name__ = "my_order"
        service = Service()
        pipeline = pipeline_of(service, prefer=nonsense)
        with pytest.raises(InvalidInput, match="prefer: my_order must return a list of those candidates") as caught:
            await pipeline.send(AUTO)
        assert (caught.value.field, service.calls) == ("prefer", [])

    async def test_a_function_that_would_have_to_be_awaited_is_named(self):
        """And nothing warns of a coroutine that nobody has awaited."""

        async def my_order(candidates):
            return candidates

        service = Service()
        with pytest.raises(InvalidInput, match=r"prefer: my_order must return .*, without waiting, got <coroutine"):
            await pipeline_of(service, prefer=my_order).send(AUTO)
        assert service.calls == []

    @pytest.mark.parametrize("form", [tuple, iter, reversed, dict.fromkeys])
    async def test_a_function_may_return_any_row_of_candidates(self, form):
        """A list is not asked for by its class."""
        service = Service()
        await pipeline_of(service, prefer=form).send(AUTO)
        assert service.asked in (["a"], ["c"])

    async def test_what_a_function_makes_up_is_passed_over(self):
        """Only candidates are asked, each once."""
        other = Candidate(model="x", cost=None, seconds=None, failures=0.0, against=None, samples=0)
        service = Service()
        await pipeline_of(service, prefer=lambda candidates: [other, candidates[1], candidates[1]]).send(AUTO)
        assert service.asked == ["b"]


class TestHealth:
    async def test_a_model_that_fails_goes_behind_the_others(self):
        """After two failures where nothing else is known; its troubles are told."""
        service = Service(fails={"a": BOOM})
        pipeline = pipeline_of(service, prices=Prices(a=1, b=2, c=3))
        await asked_of(pipeline, 3)
        assert service.asked == ["a", "b", "a", "b", "b"]
        answer = await pipeline.send(AUTO)
        assert told(answer)[2] == ("a", 3, "67% of its last calls failed or were slow")

    async def test_it_comes_back_when_that_is_long_ago(self):
        """What was measured fades."""
        service = Service(fails={"a": BOOM})
        pipeline = pipeline_of(service, prices=Prices(a=1, b=2, c=3))
        await asked_of(pipeline, 3)
        service.fails = {}
        await asyncio.sleep(300.0)
        assert await asked_of(pipeline, 2) == ["a", "a"]

    async def test_a_model_that_hangs_is_left_while_its_calls_are_under_way(self):
        """Nobody waits for their ends."""
        service = Service()
        pipeline = pipeline_of(service, prices=Prices(a=1, b=2, c=3))
        await asked_of(pipeline, 10)
        service.seconds = {"a": 1000.0}
        hanging = [asyncio.ensure_future(pipeline.send(AUTO)) for _ in range(6)]
        await asyncio.sleep(5.0)
        assert await asked_of(pipeline) == ["b"]
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
        assert await asked_of(pipeline) == ["b"]

    @pytest.mark.parametrize(
        ("error", "counts"),
        [
            (BOOM, True),
            (RateLimited("busy", status=429), True),
            (CircuitOpen(model="a", retry_after=1.0), False),
            (BadRequest("no", status=400), False),
        ],
    )
    async def test_only_faults_of_the_model_count(self, error, counts):
        """Our own refusals and bad requests say nothing about it."""
        service = Service(fails={"a": error})
        pipeline = pipeline_of(service, models=["a", "b"], prices=Prices(a=1, b=2))
        for _ in range(5):
            await asyncio.gather(pipeline.send(AUTO), return_exceptions=True)
        assert (service.asked.count("a") == 2) == counts

    async def test_a_stream_that_breaks_is_a_failure(self):
        """Though its beginning was an answer."""

        async def breaks(call):
            error = StreamInterrupted("broke", partial=None)
            return StreamResult(ScriptedSource([error]), model=call.model, first=[TextDelta("x")], clock=FakeClock())

        provider = ScriptedProvider(*[breaks] * 3)
        routing = Routing(models=["a", "b"], prefer="cheapest", prices=Prices(a=1, b=2), explore=0)
        pipeline = Pipeline(provider, [routing], clock=FakeClock())
        for _ in range(3):
            stream = await pipeline.send(Stream(model="auto", messages="hi"))
            with pytest.raises(StreamInterrupted):
                await stream.result()
        assert provider.calls[-1].model == "a"
        await pipeline.send(Stream(model="auto", messages="hi"))
        explained = routing.explain(pipeline.call(Stream(model="auto", messages="hi")))
        assert explained[0].model == "a"

    async def test_what_stands_against_a_model_puts_it_last(self):
        """A model whose circuit is open is not asked while another may be; where all are held up the order stays."""
        breaker = CircuitBreaker()
        service = Service()
        pipeline = pipeline_of(service, breaker, prices=Prices(a=1, b=2, c=3))
        breaker.isolate("a")
        answer = await pipeline.send(AUTO)
        assert (answer.served_by, answer.refused) == ("b", {})
        assert told(answer)[2] == ("a", 3, "it is isolated")
        breaker.isolate("b")
        breaker.isolate("c")
        with pytest.raises(NoModelAvailable) as caught:
            await pipeline.send(AUTO)
        assert list(caught.value.refused) == ["a", "b", "c"]

    async def test_without_a_preference_too_what_stands_against_a_model_puts_it_last(self):
        """The others keep their order, a model that lacks something is told of, and `explain` says the same."""
        breaker = CircuitBreaker()
        pipeline = pipeline_of(Service(), breaker, prefer=None, abilities=Book(lacks={"c": "tools"}))
        breaker.isolate("a")
        expected = [("b", 1, "in the order given"), ("a", 2, "it is isolated"), ("c", None, "lacks tools")]
        answer = await pipeline.send(AUTO)
        explained = pipeline.stack[0].explain(pipeline.call(AUTO))
        assert (answer.served_by, told(answer), answer.refused) == ("b", expected, {})
        assert [(one.model, one.place, one.why) for one in explained] == expected
        assert (await pipeline.send(Chat(model=["a", "b"], messages="hi"))).considered == ()

    @pytest.mark.parametrize("operation", [AUTO, Chat(model=["a", "b"], messages="hi")])
    async def test_a_model_that_a_budget_has_not_enough_left_for_makes_way_for_a_cheaper_one(self, operation):
        """Nothing was sent to it; where the budget is known to be too small for it, "auto" begins with the other."""
        prices = Prices(a=Decimal("0.001"), b=Decimal("0.00001"))
        budgets = Budgets(budgets=[Budget(limit="0.1 USD", per="day")], book=MemoryBudgets(), prices=prices)
        pipeline = pipeline_of(Service(bills={"b": 0.00001}), budgets, models=["a", "b"], prefer=None)
        operation = operation.model_copy(update={"max_tokens": 1000})
        first, second = [await pipeline.send(operation) for _ in range(2)]
        assert (first.served_by, first.attempts) == ("b", 1)
        assert (second.served_by, list(second.refused)) == ("b", [] if operation.model == "auto" else ["a"])
        explained = pipeline.stack[0].explain(pipeline.call(operation))
        assert (explained[-1].model, "budget" in explained[-1].why) == (
            ("a", True) if operation.model == "auto" else ("b", False)
        )
        with pytest.raises(BudgetExceeded, match="could cost"):
            await pipeline.send(operation.model_copy(update={"max_tokens": 100_000}))

    async def test_in_two_stacks_it_asks_the_breaker_of_the_call(self):
        """What one routing is told of belongs to the call, so that it may stand in any number of stacks."""
        routing = Routing(models=["a", "b"], prefer="cheapest", prices=Prices(a=1, b=2), explore=0)
        breakers = CircuitBreaker(), CircuitBreaker()
        one, other = (Pipeline(Service(), [routing, breaker]) for breaker in breakers)
        breakers[0].isolate("a")
        breakers[1].isolate("b")
        assert [(await pipeline.send(AUTO)).served_by for pipeline in (one, other)] == ["b", "a"]

    async def test_who_cannot_say_what_stands_against_a_model_stands_against_none(self, caplog):
        """A fault of a helper never fails a call."""

        class Odd:
            async def __call__(self, call, proceed):
                return await proceed(call)

            def stands_against(self, call):
                raise RuntimeError

        assert await asked_of(pipeline_of(Service(), Odd(), prices=Prices(a=1))) == ["a"]
        assert "stands_against raised RuntimeError" in caplog.text

    async def test_what_a_model_lacks_leaves_it_out(self):
        """It is told, and asked by nobody; where all lack something the error names each."""
        service = Service()
        pipeline = pipeline_of(service, prices=Prices(a=1, b=2, c=3), abilities=Book(lacks={"a": "tools"}))
        answer = await pipeline.send(AUTO)
        assert (answer.served_by, answer.refused) == ("b", {})
        assert told(answer)[2] == ("a", None, "lacks tools")
        pipeline = pipeline_of(service, abilities=Book(lacks=dict.fromkeys("abc", "tools")))
        with pytest.raises(NoModelAvailable) as caught:
            await pipeline.send(AUTO)
        assert list(caught.value.refused) == ["a", "b", "c"]

    async def test_vectors_are_compared_among_models_that_can_embed(self):
        """A chat model among the models of "auto" stands in nobody's way."""
        book = Book(lacks={"a": "embed"}, dimensions={"b": 4, "c": 4})
        embed = Embed(model="auto", texts="x")
        assert await asked_of(pipeline_of(Service(), abilities=book), operation=embed) == ["b"]
        pipeline = pipeline_of(Service(), abilities=Book(lacks={"a": "embed"}, dimensions={"b": 4, "c": 8}))
        with pytest.raises(InvalidInput, match="'b' gives 4 dimensions, 'c' gives 8 dimensions"):
            await pipeline.send(embed)

    @pytest.mark.parametrize(("tier", "first"), [("priority", "b"), ("default", "a"), (None, "a"), ("flex", "a")])
    async def test_a_model_without_the_service_tier_goes_last(self, tier, first):
        """If that is known."""
        book = Book(tiers={"a": ("flex",), "b": ("priority", "flex")})
        pipeline = pipeline_of(Service(), prices=Prices(a=1, b=2, c=3), abilities=book)
        assert await asked_of(pipeline, operation=AUTO.model_copy(update={"service_tier": tier})) == [first]


class TestExploring:
    async def test_a_share_of_the_calls_measures_another_model(self):
        """The one that was asked the longest ago goes first, and the answer says why."""
        clock = FakeClock([0.5, 0.01, 0.5, 0.01, 0.5])
        service = Service()
        pipeline = pipeline_of(service, clock=clock, explore=0.02, prices=Prices(a=1.0, b=1.2, c=1.4))
        answers = [await pipeline.send(AUTO) for _ in range(5)]
        assert service.asked == ["a", "b", "a", "c", "a"]
        assert told(answers[1])[0] == ("b", 1, "to measure it anew")

    async def test_none_that_costs_more_than_twice_as_much(self):
        """So exploring costs at most its share of what is spent."""
        pipeline = pipeline_of(Service(), clock=FakeClock([0.0]), explore=1, prices=Prices(a=1, b=2.1, c=3))
        assert await asked_of(pipeline, 3) == ["a", "a", "a"]

    async def test_one_whose_price_nobody_knows_is_measured(self):
        """Else nobody would ever know it."""
        pipeline = pipeline_of(Service(), clock=FakeClock([0.0]), explore=1, prices=Prices(a=1, b=3))
        assert await asked_of(pipeline) == ["c"]

    async def test_none_that_is_held_up(self):
        """What would refuse the call measures nothing."""
        breaker = CircuitBreaker()
        breaker.isolate("b")
        pipeline = pipeline_of(Service(), breaker, clock=FakeClock([0.0]), explore=1, prices=Prices(a=1, b=1, c=9))
        assert await asked_of(pipeline) == ["a"]

    async def test_without_it_no_chance_is_drawn(self):
        """Nor for a function, nor where there is one candidate."""

        class Strict(FakeClock):
            def random(self):
                raise AssertionError

        for options in ({"explore": 0}, {"prefer": lambda candidates: candidates}, {"models": ["a"]}):
            pipeline = pipeline_of(Service(), clock=Strict(), **({"explore": 0.02} | options))
            assert await asked_of(pipeline) == ["a"]


class TestPins:
    async def test_a_conversation_keeps_to_its_model(self):
        """Also where another has become cheaper, and by whatever kind of chat; other conversations go to the cheaper one."""
        prices = Prices(a=1, b=2, c=3)
        pipeline = pipeline_of(Service(), prices=prices, pin="conversation")
        tags = {"conversation": "7"}
        assert await asked_of(pipeline, 1, tags=tags) == ["a"]
        prices.dollars["a"] = Decimal(9)
        answer = await pipeline.send(AUTO, tags=tags)
        assert (answer.served_by, answer.considered[0].why) == ("a", "serves this conversation")
        assert await asked_of(pipeline, 1, Stream(model="auto", messages="hi"), tags=tags) == ["a"]
        assert await asked_of(pipeline, 1, tags={"conversation": "8"}) == ["b"]
        assert await asked_of(pipeline, 1) == ["b"]

    async def test_it_moves_on_where_something_stands_against_its_model(self):
        """And keeps to the new one, whose prompt cache is warm by then."""
        breaker = CircuitBreaker()
        pipeline = pipeline_of(Service(), breaker, prices=Prices(a=1, b=2, c=3), pin="conversation")
        tags = {"conversation": "7"}
        await asked_of(pipeline, 1, tags=tags)
        breaker.isolate("a")
        assert await asked_of(pipeline, 1, tags=tags) == ["b"]
        breaker.reset("a")
        assert await asked_of(pipeline, 1, tags=tags) == ["b"]

    async def test_after_an_hour_of_silence_it_is_forgotten(self):
        """The provider's cache is cold by then."""
        prices = Prices(a=1, b=2, c=3)
        pipeline = pipeline_of(Service(), prices=prices, pin="conversation")
        tags = {"conversation": "7"}
        await asked_of(pipeline, 1, tags=tags)
        prices.dollars["a"] = Decimal(9)
        await asyncio.sleep(3600.0)
        assert await asked_of(pipeline, 1, tags=tags) == ["b"]

    async def test_it_needs_no_preference(self):
        """In the order given a conversation keeps to whoever served."""
        service = Service(fails={"a": BOOM})
        pipeline = pipeline_of(service, prefer=None, pin="conversation")
        tags = {"conversation": "7"}
        assert await asked_of(pipeline, 2, tags=tags) == ["b", "b"]
        assert service.asked == ["a", "b", "b"]

    async def test_a_pinned_call_explores_nothing(self):
        """A warm cache is worth more than a measurement."""
        clock = FakeClock([0.0])
        pipeline = pipeline_of(Service(), clock=clock, explore=1, prices=Prices(a=1, b=1, c=1), pin="conversation")
        tags = {"conversation": "7"}
        first = await asked_of(pipeline, 1, tags=tags)
        assert await asked_of(pipeline, 3, tags=tags) == first * 3


class TestExplain:
    async def test_it_says_what_a_call_would_consider_and_changes_nothing(self):
        """No request, no chance, no measurement."""

        class Strict(FakeClock):
            def random(self):
                raise AssertionError

        service = Service()
        pipeline = pipeline_of(service, clock=Strict(), explore=0.5, prices=Prices(a=3, b=1, c=2))
        routing = pipeline.stack[0]
        explained = [routing.explain(pipeline.call(AUTO)) for _ in range(2)]
        assert explained[0] == explained[1]
        assert [(one.model, one.place) for one in explained[0]] == [("b", 1), ("c", 2), ("a", 3)]
        assert service.calls == []

    async def test_it_says_why_where_nothing_is_to_choose(self):
        """A model that is named, or a list in the caller's order, without those that lack something."""
        pipeline = pipeline_of(Service(), abilities=Book(lacks={"a": "tools"}))
        routing = pipeline.stack[0]
        (one,) = routing.explain(pipeline.call(AUTO.on("a")))
        assert (one.model, one.place, one.why) == ("a", 1, "the only one")
        listed = routing.explain(pipeline.call(Chat(model=["a", "b"], messages="hi")))
        assert [(one.model, one.place, one.why) for one in listed] == [
            ("b", 1, "in the order given"),
            ("a", None, "lacks tools"),
        ]

    @pytest.mark.parametrize(
        ("operation", "options"),
        [
            (AUTO, {"prefer": None}),
            (AUTO, {"prefer": "fastest"}),
            (AUTO, {"models": ["a"]}),
            (AUTO.on("a"), {}),
            (Chat(model=["a", "b"], messages="hi"), {}),
            (AUTO, {"abilities": Book(lacks={"a": "tools"})}),
        ],
    )
    async def test_it_says_what_a_call_would_cost_whatever_decides(self, operation, options):
        """A list price needs no order by it; without a list nothing is said."""
        for prices, cost in ((Prices(a=1, b=2, c=3), 1001), (None, None)):
            pipeline = pipeline_of(Service(), prices=prices, **options)
            explained = pipeline.stack[0].explain(pipeline.call(operation))
            assert {one.model: one.cost for one in explained}["a"] == cost
            assert "no price" not in explained[0].why or options.get("abilities")

    @pytest.mark.parametrize(
        ("operation", "options", "why"),
        [
            (AUTO, {"prefer": None}, "in the order given, no price known"),
            (AUTO, {"prefer": "fastest"}, "not timed yet, no price known"),
            (AUTO.on("a"), {}, "the only one, no price known"),
            (Chat(model=["a", "b"], messages="hi"), {}, "in the order given, no price known"),
        ],
    )
    async def test_it_says_which_models_the_list_of_prices_does_not_know(self, operation, options, why):
        """A price that is not known is no price of nothing."""
        pipeline = pipeline_of(Service(), prices=Prices(b=2), **options)
        assert {one.model: one.why for one in pipeline.stack[0].explain(pipeline.call(operation))}["a"] == why

    async def test_without_a_preference_a_call_asks_for_no_price(self):
        """Nobody would look at it."""
        seen = []

        class Asked(Prices):
            def chat_cost(self, model, **more):
                seen.append(model)

        pipeline = pipeline_of(Service(), prefer=None, prices=Asked())
        await pipeline.send(AUTO)
        assert seen == []
        pipeline.stack[0].explain(pipeline.call(AUTO))
        assert seen == ["a", "b", "c"]

    async def test_it_raises_what_the_call_would(self):
        """A call that cannot be routed cannot be explained either."""
        pipeline = pipeline_of(Service(), models=[])
        with pytest.raises(
            InvalidInput, match=re.escape("model: 'auto' needs Routing(models=[...]), or the setting auto_models")
        ):
            pipeline.stack[0].explain(pipeline.call(AUTO))
        pipeline = pipeline_of(Service())
        with pytest.raises(
            InvalidInput, match="'auto' stands for models whose vectors cannot be compared: 'a' gives"
        ) as caught:
            pipeline.stack[0].explain(pipeline.call(Embed(model="auto", texts="x")))
        assert (caught.value.field, "fallbacks" in str(caught.value)) == ("model", False)

    async def test_vectors_of_one_model_are_what_a_rule_can_say(self):
        """It is the cure that the error names, word for word."""
        one = "a"
        pipeline = pipeline_of(Service(), rules=[Rule(models=[one], kinds=["embed"], strict=True)])
        embed = Embed(model="auto", texts="x")
        assert [known.model for known in pipeline.stack[0].explain(pipeline.call(embed))] == ["a"]
        with pytest.raises(InvalidInput, match=re.escape("Rule(models=[one], kinds=['embed'], strict=True)")):
            await pipeline_of(Service()).send(embed)


class TestBookkeeping:
    async def test_a_hundred_calls_at_once_leave_the_scores_consistent(self):
        """Each counts once, whether it was answered, failed or was cancelled."""
        service = Service(seconds={"a": 1.0})
        pipeline = pipeline_of(service, prices=Prices(a=1, b=2, c=3))
        tasks = [asyncio.ensure_future(pipeline.send(AUTO)) for _ in range(100)]
        await asyncio.sleep(0.5)
        for task in tasks[::4]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)
        (score,) = pipeline.stack[0]._measures._scores.values()
        look = score.look(0.0, 1000.0)
        assert (look.answers, look.is_awaited, look.trouble) == (75, False, 0.0)

    async def test_whoever_counts_costs_outside_hears_of_every_send(self):
        """What is measured is told on."""
        rows = []

        async def outside(call, proceed):
            return await proceed(call.replace(on_send_closed=(rows.append,)))

        service = Service(bills={"b": 1}, fails={"a": BOOM})
        routing = Routing(models=["a", "b"], prefer="cheapest", prices=Prices(a=1, b=2), explore=0)
        pipeline = Pipeline(service, [outside, routing, CostAccounting()], clock=FakeClock())
        await pipeline.send(AUTO)
        assert [(type(row), row.cost) for row in rows] == [(SendClosed, 0), (SendClosed, 13)]

    async def test_a_forked_child_begins_afresh(self):
        """What the parent's calls do is told in the parent."""
        pipeline = pipeline_of(Service(), prices=Prices(a=1, b=2, c=3))
        under_way = asyncio.ensure_future(pipeline.send(AUTO))
        await asyncio.sleep(0)
        measures = pipeline.stack[0]._measures
        measures._turns.begin_afresh()
        assert measures._scores == {}
        await under_way

    async def test_names_that_users_make_up_are_forgotten(self):
        """However many models are asked, memory stays bounded."""
        names = iter(range(5_000))
        pipeline = pipeline_of(Service(), models=lambda operation: [f"m{next(names)}", "z"])
        await asked_of(pipeline, 2_000)
        assert len(pipeline.stack[0]._measures._scores) <= 1024

    async def test_an_abandoned_stream_is_no_failure(self):
        """Who walks away says nothing about the model, and nothing is left behind."""
        pipeline = pipeline_of(Service(), models=["a", "b"], prices=Prices(a=1, b=2))
        for _ in range(5):
            stream = await pipeline.send(Stream(model="auto", messages="hi"))
            del stream
            gc.collect()
        assert pipeline.provider.asked == ["a"] * 5


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"prefer": "cheap"}, "prefer must be of"),
        ({"explore": 2}, "explore must be from 0 to 1"),
        ({"prices": "list"}, "prices must be None or an object with"),
        ({"rules": ["a"]}, "rules must be of type Rule"),
        ({"rules": "a"}, "rules must be of type list or tuple"),
        ({"pin": ""}, "pin must be the name of a tag or None, got ''"),
        ({"pin": 5}, "pin must be the name of a tag or None, got 5"),
        ({"models": 7}, "models must be a list of names"),
    ],
)
def test_senseless_options_are_refused(options, sentence):
    """At construction, with what was given."""
    with pytest.raises(ValueError, match=sentence):
        Routing(**options)


def test_chat_results_count_their_tokens():
    """The service of these tests bills thirteen tokens, as the answers say."""
    assert chat_result().usage == Usage(input_tokens=10, output_tokens=3)
    assert stream_of("x").model == "m"
