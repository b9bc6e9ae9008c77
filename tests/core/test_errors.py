"""The error tree."""

import copy
import inspect
import pickle

import pytest

import resilient_ai.tool_loop  # noqa: F401 - whoever adds errors is asked as well
from resilient_ai.core import errors
from resilient_ai.core.errors import (
    AttemptTimeout,
    BudgetExceeded,
    BudgetUnavailable,
    CircuitOpen,
    ClientClosed,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidInput,
    InvalidResponse,
    LimitReached,
    ModelUnfit,
    NoModelAvailable,
    OutputInvalid,
    PriceUnknown,
    ProviderError,
    RateLimited,
    ResilientAIError,
    ServerFailed,
    StatusError,
    StreamInterrupted,
    ToolLoopUnfinished,
    status_error_type,
)
from resilient_ai.core.messages import user
from resilient_ai.testing import chat_result


def tree(cls=ResilientAIError):
    return [cls, *(found for child in cls.__subclasses__() for found in tree(child))]


EXAMPLES = {
    ConnectionFailed: lambda: ConnectionFailed("refused", phase="connect", model="m"),
    AttemptTimeout: lambda: AttemptTimeout(timer="idle", elapsed=5.0, model="m"),
    InvalidResponse: lambda: InvalidResponse("odd", excerpt="<html>", request_id="r", retryable=False),
    StreamInterrupted: lambda: StreamInterrupted("cut", partial=chat_result("Hel"), model="m"),
    CircuitOpen: lambda: CircuitOpen(model="m", retry_after=12.0),
    LimitReached: lambda: LimitReached("full", limit=3, retry_after=1.0),
    BudgetExceeded: lambda: BudgetExceeded("poor", spent=3, limit=2, left=0, budget="2 USD per day", retry_after=9.0),
    BudgetUnavailable: lambda: BudgetUnavailable("no book", budget="2 USD per day"),
    PriceUnknown: lambda: PriceUnknown("no price", model="m"),
    DeadlineExceeded: lambda: DeadlineExceeded(timeout=5, elapsed=5.5, sent=True, partial=chat_result("Hel")),
    ModelUnfit: lambda: ModelUnfit(model="m", lacks="tools"),
    NoModelAvailable: lambda: NoModelAvailable({"a": RateLimited("busy", status=429), "b": ValueError("x")}),
    OutputInvalid: lambda: OutputInvalid("odd", raw="{"),
    ToolLoopUnfinished: lambda: ToolLoopUnfinished("on", raw="", messages=(user("hi"),)),
    ClientClosed: ClientClosed,
    InvalidInput: lambda: InvalidInput("wrong", field="n", value=9),
}


def example(cls):
    if cls in EXAMPLES:
        return EXAMPLES[cls]()
    if issubclass(cls, StatusError):
        return cls("no", status=503, code="c", param="p", body={"e": 1}, retry_after=2.5, model="m", request_id="r")
    return cls("message")


def state(error):
    return {
        name: [(key, type(one), one.args) for key, one in value.items()] if name == "refused" else value
        for name, value in vars(error).items()
    }


@pytest.mark.parametrize("cls", tree(), ids=lambda cls: cls.__name__)
@pytest.mark.parametrize(
    "again",
    [
        copy.copy,
        copy.deepcopy,
        *(lambda e, p=p: pickle.loads(pickle.dumps(e, p)) for p in (2, pickle.HIGHEST_PROTOCOL)),
    ],
)
def test_every_error_survives_copying_and_pickling(cls, again):
    """A worker process or a queue gets the same error: class, sentence, every attribute and every note."""
    error = example(cls)
    error.add_note("seen in a worker")
    twin = again(error)
    assert (type(twin), str(twin), twin.args) == (cls, str(error), error.args)
    assert state(twin) == state(error)


@pytest.mark.parametrize("cls", tree(), ids=lambda cls: cls.__name__)
def test_the_tree_in_the_docstring_is_the_tree(cls):
    """Every error stands in the module's docstring, one level below its parent."""
    lines = errors.__doc__.splitlines()
    depths = {line.split()[0]: len(line) - len(line.lstrip()) for line in lines if line.strip()}
    assert cls.__name__ in depths
    if cls is not ResilientAIError:
        assert depths[cls.__name__] == depths[cls.__bases__[0].__name__] + 2
    assert inspect.getdoc(cls)


@pytest.mark.parametrize(
    ("status", "name", "retryable"),
    [
        (400, "BadRequest", False),
        (401, "AuthenticationFailed", False),
        (402, "InsufficientBalance", False),
        (403, "PermissionDenied", False),
        (404, "ModelNotFound", False),
        (405, "FeatureNotSupported", False),
        (408, "StatusError", True),
        (413, "RequestTooLarge", False),
        (418, "StatusError", False),
        (422, "BadRequest", False),
        (429, "RateLimited", True),
        (500, "ServerFailed", True),
        (501, "ServerFailed", False),
        (503, "Overloaded", True),
        (529, "Overloaded", True),
        (599, "ServerFailed", False),
    ],
)
def test_the_status_decides_class_and_repetition(status, name, retryable):
    """Each status has its class, and only those that may pass by themselves are worth another try."""
    cls = status_error_type(status)
    assert (cls.__name__, cls("x", status=status).retryable) == (name, retryable)


@pytest.mark.parametrize(
    ("phase", "sent"),
    [("dns", False), ("connect", False), ("tls", False), ("proxy", False), ("send", True), ("receive", True)],
)
def test_a_failed_connection_knows_whether_it_may_be_billed(phase, sent):
    """Only bytes that may have left may be billed."""
    assert ConnectionFailed("x", phase=phase).sent is sent


def test_sentences_carry_the_numbers():
    """The message of an error that has numbers is built from them."""
    assert str(EXAMPLES[AttemptTimeout]()) == "no answer in time: the idle timer fired after 5 s"
    assert str(EXAMPLES[CircuitOpen]()) == "the circuit of 'm' is open and lets a call through in 12.0 s"
    assert str(EXAMPLES[DeadlineExceeded]()) == "the call was given 5 s and had taken 5.50 s"
    assert str(DeadlineExceeded("own", timeout=1, elapsed=1, sent=False)) == "own"
    assert str(EXAMPLES[NoModelAvailable]()) == (
        "no model could serve the call (a: RateLimited: busy; b: ValueError: x)"
    )


def test_no_model_available_says_why_each_could_not():
    """In a line of bounded length: what each lacks, who left it out, or the beginning of its error."""
    refused = {
        "a": ModelUnfit(model="a", lacks="tools"),
        "b": ModelUnfit(model="b", left_out_by="picky"),
        "c": ServerFailed("one\n\ttwo " + "x" * 500, status=500),
        "d": ValueError(),
    }
    sentence = str(NoModelAvailable(refused))
    assert sentence.startswith(
        "no model could serve the call (a: lacks tools; b: left out by picky; c: ServerFailed: one two xxx"
    )
    assert sentence.endswith("xxx…; d: ValueError)")
    assert len(sentence) < 300
    many = str(NoModelAvailable({f"m{number}": ValueError("x") for number in range(300)}))
    assert many.endswith("; m7: ValueError: x; and 292 more)")


def test_a_repr_tells_ids_and_nothing_that_was_said():
    """Reprs are written where nobody expects that; a server may write anything where the id of a request stands."""
    assert repr(ServerFailed("said", status=500, model="m", request_id="r-1")) == (
        "ServerFailed(model='m', status=500, request_id='r-1')"
    )
    assert repr(ServerFailed("said", status=500, request_id="you said")) == "ServerFailed(status=500)"


def test_defaults_are_cautious():
    """A provider's failure may be tried again and may be billed unless somebody knows better; wrong input is a `ValueError`."""
    error = ProviderError("x")
    assert (error.retryable, error.sent, error.model, error.request_id) == (True, True, None, None)
    assert isinstance(EXAMPLES[InvalidInput](), ValueError)
