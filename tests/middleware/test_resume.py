"""Resume: what happens to a stream that breaks after its first content."""

import asyncio
import contextvars
import gc
import itertools
import weakref
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.core.call import Call
from resilient_ai.core.deltas import Finished, ReasoningDelta, Restarted, TextDelta, ToolCallDelta
from resilient_ai.core.errors import (
    AttemptTimeout,
    BadRequest,
    CircuitOpen,
    ConfigurationError,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidResponse,
    ServerFailed,
    StreamInterrupted,
    StreamMisused,
)
from resilient_ai.core.events import SendStarted, StreamResumed
from resilient_ai.core.messages import AssistantMessage, ToolCall
from resilient_ai.core.operations import Chat, Stream
from resilient_ai.core.pipeline import Pipeline, WorstCase
from resilient_ai.core.results import Cost, TokenLogprob, Usage
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware._cache_key import answer_key
from resilient_ai.middleware._continuation import Seam
from resilient_ai.middleware.cache import Cache
from resilient_ai.middleware.cost import CostAccounting
from resilient_ai.middleware.deadline import Deadline
from resilient_ai.middleware.resume import Resume
from resilient_ai.middleware.retry import Retry
from resilient_ai.middleware.routing import Routing
from resilient_ai.middleware.timeout import Timeout
from resilient_ai.stores import MemoryStore
from resilient_ai.testing import FakeClock, ScriptedProvider, ScriptedSource, run, stream_of

pytestmark = pytest.mark.anyio

USAGE = Usage(input_tokens=10, output_tokens=5)
DONE = [Finished(("stop",), USAGE)]
RESET = ConnectionFailed("the connection was reset", phase="receive")


def scripted(first, *script):
    """A step of a provider: a stream with its first content, and the script of the rest."""
    sources = []

    async def step(call):
        sources.append(ScriptedSource(script))
        return StreamResult(sources[0], model=call.model, first=[first], clock=call.clock)

    step.sources = sources
    return step


def whole(*texts, model_says=()):
    """A step: a stream that delivers these texts and ends well."""
    first, *rest = [*model_says, *map(TextDelta, texts)]
    return scripted(first, *([event] for event in rest), DONE)


def broken(*texts, error=RESET):
    """A step: a stream that delivers these texts and then breaks."""
    first, *rest = [text if not isinstance(text, str) else TextDelta(text) for text in texts]
    return scripted(first, *([event] for event in rest), error)


class Trip:
    """A stream that was asked for through a Resume, and what the provider and the listeners saw of it."""

    def __init__(self, *script, outer=(), inner=(), clock=None, **options):
        self.provider = ScriptedProvider(*script)
        self.pipeline = Pipeline(self.provider, [*outer, Resume(**options), *inner], clock=clock or FakeClock())
        self.told = []
        self.events = []
        self.ends = []
        self.stream = None

    async def open(self, on_interrupt=None, *, model="m", messages="hi", **options):
        operation = Stream(model=model, messages=messages, on_interrupt=on_interrupt, **options)
        self.stream = await self.pipeline.send(operation, listener=self.told.append)
        self.stream.on_end(self.ends.append)
        return self

    async def read(self):
        """Read to the end; return the answer or the error."""
        try:
            async for event in self.stream:
                self.events.append(event)
            return await self.stream.result()
        except Exception as error:  # noqa: BLE001 - the outcome is what the test is about
            return error

    @property
    def text(self):
        """What a reader has who forgets everything at a restart."""
        shown = ""
        for event in self.events:
            if isinstance(event, Restarted):
                shown = ""
            elif isinstance(event, TextDelta):
                shown += event.text
        return shown

    @property
    def resumed(self):
        return [event for event in self.told if isinstance(event, StreamResumed)]

    @property
    def how(self):
        return [end.how for end in self.ends]


async def trip(*script, on_interrupt=None, **options):
    """Send a stream through a Resume and read it to its end; return the trip and the outcome."""
    fields = {name: options.pop(name) for name in list(options) if name in Stream.model_fields}
    journey = Trip(*script, **options)
    await journey.open(on_interrupt, **fields)
    return journey, await journey.read()


# Options and place


def test_defaults():
    """A break raises unless the stack or the call says otherwise, and a stream is repaired twice at most."""
    assert repr(Resume()) == "Resume(on_interrupt='raise', resumes=2)"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"on_interrupt": "again"}, "on_interrupt must be one of .* got 'again'"),
        ({"resumes": 0}, "resumes must be a whole number >= 1, got 0"),
    ],
)
def test_options_are_checked(options, sentence):
    """An option out of its range is refused when the object is made."""
    with pytest.raises(ValueError, match=sentence):
        Resume(**options)


def test_an_unknown_policy_of_a_call_is_refused():
    """A misspelt policy is found before anything is sent."""
    with pytest.raises(ValueError, match="on_interrupt"):
        Stream(model="m", messages="hi", on_interrupt="again")


@pytest.mark.parametrize("outer", [Deadline(), Cache(MemoryStore())])
def test_the_order_is_checked(outer):
    """Outside of what must see one stream, it is refused with the reason."""
    with pytest.raises(ConfigurationError, match=f"Resume must stand after {type(outer).__name__}"):
        Pipeline(ScriptedProvider(), [Resume(), outer])


def test_the_worst_case_counts_repairs():
    """Where streams are repaired by default, each repair may send as much again."""
    inner = WorstCase(sends=3, seconds=10.0)
    assert Resume().worst_case(inner) == inner
    assert Resume(on_interrupt="restart", resumes=1).worst_case(inner) == WorstCase(sends=6, seconds=20.0)


def test_the_policy_is_no_part_of_the_cache_key():
    """A chat and streams of every policy share their entry."""
    clock = FakeClock()
    asked = [Chat(model="m", messages="hi"), Stream(model="m", messages="hi", on_interrupt="restart")]
    assert len({answer_key(Call(operation, clock)) for operation in asked}) == 1


# Raise


@pytest.mark.parametrize("on_interrupt", [None, "raise"])
async def test_raise_passes_the_stream_through(on_interrupt):
    """By default the call and the stream are not touched, and a break raises with what had arrived."""
    journey = await Trip(broken("Hel", "lo")).open(on_interrupt)
    assert (type(journey.stream), journey.provider.calls[0].operation.on_interrupt) == (StreamResult, on_interrupt)
    error = await journey.read()
    assert (type(error), error.partial.text, journey.resumed) == (StreamInterrupted, "Hello", [])


async def test_a_call_may_ask_for_less_than_the_stack():
    """A call's own "raise" wins over the policy of the stack."""
    journey, error = await trip(broken("Hel"), DONE, on_interrupt="raise", resumes=1)
    assert (type(error), len(journey.provider.calls)) == (StreamInterrupted, 1)


async def test_other_operations_pass_through():
    """A chat is none of its business."""
    assert (await Pipeline(ScriptedProvider(), [Resume()]).send(Chat(model="m", messages="hi"))).text == "Hello."


async def test_what_is_below_need_not_see_to_it():
    """The operation that is sent on asks for nothing more, so that the provider does not refuse it."""
    journey = await Trip(whole("Hello")).open("restart")
    assert journey.provider.calls[0].operation.on_interrupt == "raise"


@pytest.mark.parametrize("on_interrupt", ["restart", "continue"])
async def test_a_stream_that_does_not_break_is_delivered_as_it_comes(on_interrupt):
    """Without a break every event arrives once and unchanged, and nothing is sent again."""
    journey, answer = await trip(whole("Hel", "lo", model_says=[ReasoningDelta("hm")]), on_interrupt=on_interrupt)
    assert journey.events == [ReasoningDelta("hm"), TextDelta("Hel"), TextDelta("lo"), *DONE]
    assert (answer.text, answer.usage, answer.attempts, journey.how) == ("Hello", USAGE, 1, ["completed"])


async def test_a_stream_that_is_whole_already_is_not_wrapped():
    """An answer that came at once cannot break."""
    journey = await Trip(StreamResult(ScriptedSource([]), model="m", first=[TextDelta("Hi"), *DONE])).open("restart")
    assert type(journey.stream) is StreamResult
    assert (await journey.read()).text == "Hi"


async def test_a_stream_handed_over_without_content_works():
    """A provider that hands a stream over before its first content is read like any other."""
    bare = StreamResult(ScriptedSource([[TextDelta("Hi")], DONE]), model="m", clock=FakeClock())
    _, answer = await trip(bare, on_interrupt="restart")
    assert answer.text == "Hi"


async def test_a_stream_that_ends_without_a_closing_event_ends():
    """A source of the user's own may conclude with nothing."""
    source = ScriptedSource([])
    source.conclude = lambda: ()
    journey, answer = await trip(StreamResult(source, model="m", first=[TextDelta("Hi")]), on_interrupt="restart")
    assert (answer.text, journey.how) == ("Hi", ["completed"])


# Restart


@pytest.mark.parametrize("delivered", [1, 2, 3])
async def test_restart_begins_again(delivered):
    """At whichever event the stream breaks, the reader is told to forget it and gets a whole answer."""
    pieces = [ReasoningDelta("hm"), "Hel", ToolCallDelta(0, "c", "f", "{")]
    journey, answer = await trip(broken(*pieces[:delivered]), whole("Hel", "lo"), on_interrupt="restart")
    assert journey.events[delivered:] == [Restarted(), TextDelta("Hel"), TextDelta("lo"), *DONE]
    assert (answer.text, answer.reasoning, answer.tool_calls, answer.finish_reason) == ("Hello", None, (), "stop")
    assert (answer.attempts, answer.usage, journey.how) == (2, USAGE, ["completed"])


async def test_restart_sends_the_same_again():
    """The second request is the first one, under the same name."""
    journey, _ = await trip(broken("Hel"), whole("Hello"), on_interrupt="restart")
    first, second = journey.provider.calls
    assert (first.operation, first.idempotency_key) == (second.operation, second.idempotency_key)


async def test_every_repair_is_told():
    """Listeners learn how, which, and what broke."""
    journey, answer = await trip(broken("a"), broken("b"), whole("c"), on_interrupt="restart")
    assert [(event.how, event.number, event.model) for event in journey.resumed] == [
        ("restart", 1, "m"),
        ("restart", 2, "m"),
    ]
    assert all(event.error.__cause__ is RESET and event.error.__traceback__ is None for event in journey.resumed)
    assert (answer.text, journey.text, answer.attempts) == ("c", "c", 3)


async def test_the_stack_s_policy_serves_calls_that_say_nothing():
    """Resume(on_interrupt="restart") repairs every stream."""
    journey = Trip(broken("Hel"), whole("Hello"), on_interrupt="restart")
    await journey.open()
    assert (await journey.read()).text == "Hello"


async def test_repairs_come_to_an_end():
    """When the last repair breaks too, the reader gets what has come since the last restart, and the reason."""
    journey, error = await trip(broken("a"), broken("b"), on_interrupt="restart", resumes=1)
    assert (type(error), error.partial.text, error.partial.attempts) == (StreamInterrupted, "b", 2)
    assert error.__notes__ == ["not asked for again: resumes=1 is the most"]
    assert str(error) == "the stream broke after content had arrived: the connection was reset"
    assert (journey.how, error.__cause__) == (["failed"], RESET)


async def test_a_refusal_is_not_asked_for_again():
    """An error event that asking again cannot mend raises at once."""
    refusal = BadRequest("too long", status=400)
    journey, error = await trip(broken("a", error=refusal), on_interrupt="restart")
    assert error.__notes__ == ["not asked for again: the same request would fail again"]
    assert (error.__cause__, len(journey.provider.calls), journey.resumed) == (refusal, 1, [])


async def test_a_clean_end_without_a_finish_reason_is_a_break():
    """A body that just ends is repaired like a connection that was cut."""
    journey, answer = await trip(scripted(TextDelta("Hel")), whole("Hello"), on_interrupt="restart")
    assert (answer.text, type(journey.resumed[0].error.__cause__)) == ("Hello", InvalidResponse)


async def test_an_error_that_is_no_break_passes():
    """A fault in the code that reads is not repaired."""
    journey, error = await trip(broken("a", error=LookupError()), on_interrupt="restart")
    assert (type(error), journey.resumed) == (LookupError, [])


async def test_the_same_error_is_raised_each_time():
    """Asking for the result of a broken stream again raises what was raised before."""
    journey, error = await trip(broken("a"), broken("b"), on_interrupt="restart", resumes=1)
    with pytest.raises(StreamInterrupted) as caught:
        await journey.stream.result()
    assert caught.value is error


# Continue


async def test_continue_goes_on_where_it_broke():
    """The text so far is sent as the last message, and only what is new is delivered."""
    journey, answer = await trip(broken("One, ", "two,"), whole(" three", "."), on_interrupt="continue")
    sent = journey.provider.calls[1]
    assert [(message.role, message.content) for message in sent.operation.messages] == [
        ("user", "hi"),
        ("assistant", "One, two,"),
    ]
    assert [event.text for event in journey.events[:-1]] == ["One, ", "two,", " three", "."]
    assert (answer.text, answer.finish_reason, answer.attempts) == ("One, two, three.", "stop", 2)
    assert journey.how == ["completed"]


async def test_a_continued_request_has_a_name_of_its_own():
    """Another body does not go under the name of the first one, however often it goes on."""
    journey, _ = await trip(broken("One,"), broken(" two,"), whole(" three"), on_interrupt="continue")
    first, *others = [call.idempotency_key for call in journey.provider.calls]
    assert others == [f"{first}-c1", f"{first}-c2"]


async def test_continue_again_and_again():
    """Each repair sends all the text there is, after the messages of the caller."""
    journey, answer = await trip(broken("One,"), broken(" two,"), whole(" three"), on_interrupt="continue")
    sent = [call.operation.messages[1:] for call in journey.provider.calls]
    assert [[message.content for message in messages] for messages in sent] == [[], ["One,"], ["One, two,"]]
    assert (answer.text, [event.how for event in journey.resumed]) == ("One, two, three", ["continue"] * 2)


async def test_the_tokens_of_a_continued_answer_are_not_known():
    """Nobody told what the broken part took, so the usage is None and the cost is not complete."""
    cost = Cost(amount=Decimal("0.1"), source="provider")
    done = [Finished(("stop",), USAGE, cost=cost)]
    journey, answer = await trip(broken("One,"), scripted(TextDelta(" two"), done), on_interrupt="continue")
    assert (answer.usage, journey.events[-1].usage) == (None, None)
    assert (answer.cost.amount, answer.cost.complete) == (Decimal("0.1"), False)


async def test_a_restarted_answer_keeps_its_tokens():
    """The usage is that of the answer; the cost says that the broken part may have cost something as well."""
    cost = Cost(amount=Decimal("0.1"), source="provider")
    done = [Finished(("stop",), USAGE, cost=cost)]
    _, answer = await trip(broken("One,"), scripted(TextDelta("two"), done), on_interrupt="restart")
    assert (answer.usage, answer.cost.amount, answer.cost.complete) == (USAGE, Decimal("0.1"), False)


async def test_an_answer_the_caller_began_is_one_message():
    """Where the caller's last message is the beginning of the answer, what arrived is joined to it."""
    begun = [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "One,"}]
    journey, answer = await trip(broken(" two,"), whole(" three"), messages=begun, on_interrupt="continue")
    assert [message.content for message in journey.provider.calls[1].operation.messages] == ["Count.", "One, two,"]
    assert answer.text == " two, three"


async def test_an_assistant_s_tool_call_is_not_joined():
    """A message that asks for tools stays as it is."""
    asked = AssistantMessage(content="Let me see.", tool_calls=(ToolCall(id="c", name="f", arguments="{}"),))
    journey, _ = await trip(broken("One,"), whole(" two"), messages=[asked], on_interrupt="continue")
    assert journey.provider.calls[1].operation.messages == (asked, AssistantMessage(content="One,"))


@pytest.mark.parametrize(("most", "left"), [(100, 95), (2, 1), (None, None)])
async def test_max_tokens_is_lowered_by_what_has_arrived(most, left):
    """Text and thoughts that have arrived count, at four characters to a token; one token is always left."""
    script = [broken(ReasoningDelta("thoughts"), "One, two,"), whole(" three")]
    journey, _ = await trip(*script, max_tokens=most, on_interrupt="continue")
    assert [call.operation.max_tokens for call in journey.provider.calls] == [most, left]


@pytest.mark.parametrize(
    ("pieces", "rest"),
    [
        (["The sky ", "is"], ["The sky is", " blue."]),
        (["The sky ", "is"], ["The", " sk", "y is blue", "."]),
        (["The sky is"], ["T", "h", "e", " ", "s", "k", "y", " ", "i", "s", " blue."]),
        (["The sky is "], ["The sky is blue."]),
        (["The sky is "], ["The sky", " is", " ", "blue."]),
        (["The sky is "], [" blue."]),
        (["The sky is "], ["blue."]),
        (["\n\nThe sky is"], ["The sky is", " blue."]),
    ],
)
async def test_what_the_model_says_again_is_left_out(pieces, rest):
    """A model that repeats the whole text, or the blanks at its end, before it goes on is not heard twice."""
    journey, answer = await trip(broken(*pieces), whole(*rest), on_interrupt="continue")
    assert (answer.text.strip(), journey.text.strip()) == ("The sky is blue.", "The sky is blue.")
    assert all(event.text for event in journey.events if isinstance(event, TextDelta))


async def test_what_the_caller_began_is_left_out_as_well():
    """A model that repeats the beginning that the caller gave, and its own part, is not heard twice."""
    begun = [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "One,"}]
    script = [broken(" two,"), whole("One, two, three")]
    _, answer = await trip(*script, messages=begun, on_interrupt="continue")
    assert answer.text == " two, three"


async def test_a_word_said_twice_is_no_repetition():
    """Less than the whole text is never left out."""
    _, answer = await trip(broken("no, no, "), whole("no, yes"), on_interrupt="continue")
    assert answer.text == "no, no, no, yes"


async def test_the_beginning_of_a_repetition_that_is_none_is_delivered():
    """What was held back because it might be a repetition arrives, also where the stream ends right after it."""
    _, answer = await trip(broken("The sky is"), whole("The", " sky"), on_interrupt="continue")
    assert answer.text == "The sky isThe sky"


async def test_a_repetition_alone_adds_nothing():
    """A model that says the same again and stops has finished the answer."""
    journey, answer = await trip(broken("391"), whole("3", "91"), on_interrupt="continue")
    assert (answer.text, [type(event) for event in journey.events]) == ("391", [TextDelta, Finished])


async def test_a_break_within_a_repetition_loses_and_doubles_nothing():
    """What was held back of a repetition is forgotten with the stream that broke."""
    journey, answer = await trip(
        broken("The sky is"), broken("The", " sky"), whole("The sky is", " blue."), on_interrupt="continue"
    )
    assert (answer.text, len(journey.resumed)) == ("The sky is blue.", 2)


async def test_second_thoughts_are_not_delivered():
    """What the model thinks before it goes on is not part of the answer the reader is in the middle of."""
    script = [broken(ReasoningDelta("hm"), "One,"), whole(" two", model_says=[ReasoningDelta("again")])]
    journey, answer = await trip(*script, on_interrupt="continue")
    assert (answer.reasoning, answer.text) == ("hm", "One, two")
    assert ReasoningDelta("again") not in journey.events


async def test_a_tool_call_after_the_break_is_delivered():
    """A continued answer may call tools, after the text that was held back."""
    rest = scripted(TextDelta("On"), [ToolCallDelta(0, "c", "f", "{}")], DONE)
    journey, answer = await trip(broken("One,"), rest, on_interrupt="continue")
    assert journey.events[1:3] == [TextDelta("On"), ToolCallDelta(0, "c", "f", "{}")]
    assert answer.tool_calls[0].name == "f"


@pytest.mark.parametrize(
    ("pieces", "options", "why"),
    [
        (["a"], {"n": 2}, "several answers cannot be continued"),
        (["{"], {"response_format": "json_object"}, "an answer of the form 'json_object' cannot be continued"),
        (["a"], {"logprobs": True}, "the log probabilities of an answer cannot be continued"),
        (["a", ToolCallDelta(0, "c")], {}, "a tool call had begun"),
        ([ReasoningDelta("hm")], {}, "no text had arrived"),
        (["\n"], {}, "no text had arrived"),
        (["hm</think>\nSo"], {}, "thoughts stand within its text"),
    ],
)
async def test_what_cannot_be_continued_raises(pieces, options, why):
    """Where going on could spoil the answer, the break raises, with a note that says why."""
    journey, error = await trip(broken(*pieces), on_interrupt="continue", **options)
    assert (type(error), error.__notes__) == (StreamInterrupted, [f"not asked for again: {why}"])
    assert (len(journey.provider.calls), journey.resumed) == (1, [])


async def test_an_answer_of_the_plain_form_is_continued():
    """Asking for "text" is asking for nothing special."""
    _, answer = await trip(broken("One,"), whole(" two"), response_format="text", on_interrupt="continue")
    assert answer.text == "One, two"


async def test_log_probabilities_are_restarted_as_they_come():
    """A restarted answer has the log probabilities of its own tokens alone."""
    one, two = (TextDelta(text, logprobs=(TokenLogprob(token=text, logprob=-1.0),)) for text in ("One", "Two"))
    script = [broken(one), scripted(two, DONE)]
    _, answer = await trip(*script, logprobs=True, on_interrupt="restart")
    assert [token.token for token in answer.choices[0].logprobs] == ["Two"]


def test_a_seam_without_blanks_cuts_nothing_but_the_whole():
    """A seam that has let something through cuts nothing any more."""
    seam = Seam("ab", "ab")
    assert [seam.feed(piece) for piece in ("a", "b", "ab")] == ["", "", "ab"]


# Through everything below


async def test_the_repair_has_tries_of_its_own():
    """What is asked for again is retried like any call."""
    script = [broken("Hel"), ServerFailed("down", status=500), whole("Hello")]
    _, answer = await trip(*script, inner=[Retry(wait_initial=1.0)], on_interrupt="restart")
    assert (answer.text, answer.attempts) == ("Hello", 3)


@pytest.mark.parametrize(("on_interrupt", "text"), [("restart", " there"), ("continue", "Hi there")])
async def test_another_model_may_serve_the_repair(on_interrupt, text):
    """The models whose streams have not broken are asked first, and the answer names the one that served."""
    script = [broken("Hi"), ServerFailed("down", status=500), whole(" there")]
    journey, answer = await trip(*script, model=["a", "b", "c"], inner=[Routing()], on_interrupt=on_interrupt)
    assert [call.model for call in journey.provider.calls] == ["a", "b", "c"]
    assert len({call.idempotency_key for call in journey.provider.calls}) == 3
    assert (answer.text, answer.served_by, journey.stream.model) == (text, "c", "c")


async def test_a_refused_repair_is_an_interruption():
    """Where asking again fails, the reader gets what there is, caused by that failure."""
    refusal = CircuitOpen(model="m", retry_after=5.0)
    journey, error = await trip(broken("Hel"), refusal, on_interrupt="restart")
    assert (type(error), error.partial.text, error.__cause__) == (StreamInterrupted, "Hel", refusal)
    assert str(error).startswith("the stream broke after content had arrived: the connection was reset; asking")
    assert (journey.how, error.partial.attempts) == (["failed"], 2)


async def test_costs_of_all_sends_are_added():
    """The broken request is a send with a row of its own, and what nobody told about it leaves the cost incomplete."""
    cost = Cost(amount=Decimal("0.1"), source="provider")
    done = [Finished(("stop",), USAGE, cost=cost)]
    script = [broken("Hel"), scripted(TextDelta("Hello"), done)]
    _, answer = await trip(*script, inner=[CostAccounting()], on_interrupt="restart")
    assert (answer.cost.amount, answer.cost.complete, answer.attempts) == (Decimal("0.1"), False, 2)


async def test_the_idle_timer_keeps_working():
    """A stream that falls silent is asked for again, and so is the one that takes its place."""
    silent = scripted(TextDelta("Hel"), 500.0, DONE)
    also = scripted(TextDelta("Hell"), 500.0, DONE)
    journey, answer = await trip(silent, also, whole("Hello"), inner=[Timeout(idle=10.0)], on_interrupt="restart")
    assert (answer.text, [type(event.error.__cause__) for event in journey.resumed]) == ("Hello", [AttemptTimeout] * 2)


async def test_the_first_token_timer_keeps_working():
    """A repair that does not begin in time fails like any call."""
    script = [broken("Hel"), 500.0, whole("Hello")]
    _, error = await trip(*script, inner=[Timeout(first_token=10.0)], on_interrupt="restart")
    assert (type(error), type(error.__cause__), error.partial.text) == (StreamInterrupted, AttemptTimeout, "Hel")


async def test_the_repair_runs_in_the_context_of_the_call():
    """What was current when the call was made, such as a span, is current while it is asked for again."""
    span = contextvars.ContextVar("span", default="none")
    seen = []

    async def watch(call, proceed):
        seen.append(span.get())
        return await proceed(call)

    async def spanned(call, proceed):
        token = span.set("call")
        try:
            return await proceed(call)
        finally:
            span.reset(token)

    await trip(broken("Hel"), whole("Hello"), outer=[spanned], inner=[watch], on_interrupt="restart")
    assert seen == ["call", "call"]


class Memory(dict):
    """A cache store."""

    async def get_many(self, keys):
        return {key: self[key] for key in keys if key in self}

    async def set_many(self, entries, *, ttl=None):
        self.update(entries)


@pytest.mark.parametrize("on_interrupt", ["restart", "continue"])
async def test_a_repaired_answer_is_kept(on_interrupt):
    """The joined answer is cached for chats and streams of the same question."""
    rest = "Hello" if on_interrupt == "restart" else "lo"
    journey = Trip(broken("Hel"), whole(rest), outer=[Cache(Memory())])
    await journey.open(on_interrupt, temperature=0)
    await journey.read()
    again = await journey.pipeline.send(Chat(model="m", messages="hi", temperature=0))
    assert (again.text, again.cache, len(journey.provider.calls)) == ("Hello", "hit", 2)


# Ends


async def test_leaving_after_a_repair_frees_the_second_stream():
    """Closing the stream drops the connection that is in use, and no other, at once."""
    second = scripted(TextDelta("b"), 50.0, DONE)
    first = broken("a")
    journey = await Trip(first, second).open("restart")
    for _ in range(3):
        await anext(journey.stream)
    await journey.stream.aclose()
    assert (first.sources[0].aborted, second.sources[0].aborted) == (1, 1)
    assert (journey.how, journey.ends[0].answer.text) == (["closed"], "b")


@pytest.mark.parametrize("reads", [0, 1, 3])
async def test_a_stream_that_is_left_behind_is_freed_at_once(reads):
    """The garbage collector need not look for cycles: the last name gone, the connection is dropped."""
    steps = [broken("a"), scripted(TextDelta("b"), 50.0, DONE)]
    ends = []

    async def watch(call, proceed):
        stream = await proceed(call)
        stream.on_end(lambda end: ends.append(end.how))
        return stream

    journey = await Trip(*steps, outer=[Deadline()], inner=[watch]).open("restart")
    for _ in range(reads):
        await anext(journey.stream)
    gone = weakref.ref(journey.stream)
    gc.disable()
    try:
        journey.stream = None
        assert gone() is None
    finally:
        gc.enable()
    assert journey.how == ["abandoned"]
    assert ends == (["abandoned"] if reads < 3 else ["failed", "abandoned"])


async def test_cancelling_a_reader_cancels_the_stream_inside():
    """A reader that is cancelled while it waits for content frees the connection."""
    step = scripted(TextDelta("a"), 50.0, DONE)
    journey = await Trip(step).open("restart")
    reader = asyncio.create_task(journey.stream.result())
    await asyncio.sleep(1)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert (journey.how, step.sources[0].aborted) == (["closed"], 1)


class Gate:
    """A middleware that counts who is inside."""

    def __init__(self):
        self.inside = 0

    async def __call__(self, call, proceed):
        self.inside += 1
        try:
            return await proceed(call)
        finally:
            self.inside -= 1


async def test_cancelling_while_it_is_asked_for_again_gives_everything_back():
    """The request under way is cancelled with the reader, before the reader's cancellation goes on."""
    gate = Gate()
    journey = await Trip(broken("a"), 50.0, whole("b"), inner=[gate]).open("restart")
    reader = asyncio.create_task(journey.stream.result())
    await asyncio.sleep(1)
    assert gate.inside == 1
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert (gate.inside, journey.how, journey.ends[0].answer.text) == (0, ["closed"], "a")
    with pytest.raises(StreamMisused, match="closed before its end"):
        await journey.stream.result()


@pytest.mark.parametrize("on_interrupt", ["restart", "continue"])
async def test_closing_while_it_is_asked_for_again_drops_what_comes_late(on_interrupt):
    """A stream that arrives for a reader who has left is freed at once, and tells the one who still waits."""
    late = scripted(TextDelta("b"), 50.0, DONE)
    journey = await Trip(broken("a"), 10.0, late).open(on_interrupt)
    reader = asyncio.create_task(journey.stream.result())
    await asyncio.sleep(1)
    await journey.stream.aclose()
    with pytest.raises(StreamMisused, match="closed while it was being read"):
        await reader
    assert (late.sources[0].aborted, journey.how, journey.ends[0].answer.text) == (1, ["closed"], "a")


async def test_the_deadline_ends_a_repair():
    """Asking again is bounded by the deadline of the call, which raises as it does anywhere else."""
    gate = Gate()
    journey = Trip(broken("a"), 50.0, whole("b"), outer=[Deadline(total=20.0)], inner=[gate])
    await journey.open("restart")
    error = await journey.read()
    assert (type(error), error.partial.text, round(error.elapsed), error.sent) == (DeadlineExceeded, "a", 20, True)
    assert (gate.inside, journey.how) == (0, ["failed"])


async def test_the_deadline_ends_a_stream_that_was_repaired():
    """The second stream has the deadline of the call, and its end is a failure and not a cancellation."""
    ends = []

    async def watch(call, proceed):
        stream = await proceed(call)
        stream.on_end(lambda end: ends.append((end.how, type(end.error))))
        return stream

    script = [broken("a"), scripted(TextDelta("b"), 50.0, DONE)]
    _, error = await trip(*script, outer=[Deadline(total=20.0)], inner=[watch], on_interrupt="restart")
    assert (type(error), error.partial.text, round(error.elapsed)) == (DeadlineExceeded, "b", 20)
    assert ends == [("failed", StreamInterrupted), ("failed", DeadlineExceeded)]


async def test_nothing_is_asked_after_the_deadline():
    """A stream that breaks when the time is up is not asked for again."""

    async def late(call):
        stream = await broken("a")(call)
        source = stream._source
        read = source.read

        async def slow():
            await asyncio.sleep(0)
            clock.now += 100
            return await read()

        source.read = slow
        return stream

    class Clock(FakeClock):
        now = 0.0

        def monotonic(self):
            return super().monotonic() + self.now

    clock = Clock()
    journey = Trip(late, whole("b"), outer=[Deadline(total=20.0)], clock=clock)
    await journey.open("restart")
    error = await journey.read()
    assert (type(error), len(journey.provider.calls)) == (DeadlineExceeded, 1)


async def test_a_whole_answer_is_not_lost_to_the_deadline():
    """Once the finish reason is there, the deadline ends the wait for usage and not the answer."""

    class Finishing(ScriptedSource):
        finishing = True

        def conclude(self):
            return [Finished(("stop",))]

    async def step(call):
        source = Finishing([50.0])
        return StreamResult(source, model=call.model, first=[TextDelta("Hello")], clock=call.clock)

    journey, answer = await trip(step, outer=[Deadline(total=1.0)], on_interrupt="restart")
    assert (answer.text, answer.finish_reason, journey.how) == ("Hello", "stop", ["completed"])


async def test_a_limit_of_another_kind_bounds_a_repair_too():
    """The nearest of several limits counts."""

    async def limited(call, proceed):
        stream = await proceed(call)
        stream.limit_until(call.clock.monotonic() + 5, lambda: LookupError("enough"))
        return stream

    script = [broken("a"), 50.0, whole("b")]
    _, error = await trip(*script, outer=[Deadline(total=20.0), limited], on_interrupt="restart")
    assert (type(error), type(error.__cause__)) == (StreamInterrupted, LookupError)


async def test_events_are_told_in_order():
    """A repair is told before its request."""
    journey, _ = await trip(broken("a"), whole("b"), on_interrupt="restart")
    assert [type(event) for event in journey.told] == [SendStarted, StreamResumed, SendStarted]


# Everything at once

TEXT = "The tide turns twice a day, and nobody told it to; so it goes, week by week."


@st.composite
def journeys(draw):
    """Cuts of one text at random places, as a model that goes on or one that says everything again."""
    policy = draw(st.sampled_from(["restart", "continue"]))
    echoes = policy == "restart" or draw(st.booleans())
    script, begin = [], 0
    for left in range(draw(st.integers(0, 2)), -1, -1):
        # A model asked to go on begins after the blanks that were cut off the text it was sent.
        start = 0 if echoes else len(TEXT[:begin].rstrip())
        stop = len(TEXT) if left == 0 else draw(st.integers(max(begin, 1), len(TEXT) - 1))
        pieces = draw(st.lists(st.integers(start, stop), max_size=6).map(sorted))
        ends = sorted({start, stop, *pieces})
        texts = [TEXT[a:b] for a, b in itertools.pairwise(ends)]
        if not texts or (policy == "continue" and not TEXT[:stop].strip()):
            continue
        script.append(broken(*texts) if left else whole(*texts))
        begin = max(begin, stop) if policy == "continue" else 0
    return policy, script


@given(journeys())
def test_nothing_is_doubled_and_nothing_is_lost(journey):
    """Wherever streams break, what the reader has since the last restart is the text, once."""
    policy, script = journey

    async def travel():
        return await trip(*script, on_interrupt=policy)

    travelled, answer = run(travel())
    assert (travelled.text, answer.text) == (TEXT, TEXT)
    assert answer.attempts == len(script)


async def test_a_clean_stream_of_the_testing_kit():
    """The scripted provider's own stream passes as well."""
    _, answer = await trip(stream_of("Hel", "lo."), on_interrupt="continue")
    assert answer.text == "Hello."
