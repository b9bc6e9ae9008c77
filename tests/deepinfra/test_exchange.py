"""One request and its reply."""

import httpx
import orjson
import pytest

from resilient_ai.core.call import Call
from resilient_ai.core.errors import (
    ConnectionFailed,
    InvalidInput,
    InvalidResponse,
    ModelNotFound,
    ProviderError,
    RateLimited,
    ServerFailed,
)
from resilient_ai.core.operations import Chat
from resilient_ai.deepinfra.exchange import Multipart, exchange, hide_secret
from resilient_ai.deepinfra.transport import Transport
from resilient_ai.deepinfra.wire.payload import load_object

pytestmark = pytest.mark.anyio

SECRET = "hunter2-hunter2"


class Service:
    """Answers every request with the same reply, or fails it, and keeps what it was asked."""

    def __init__(self, reply, secret=SECRET):
        self.reply = reply
        self.requests = []
        self.body = None
        self.transport = Transport("https://api.test/v1", secret, {}, http=httpx.MockTransport(self.answer))

    async def answer(self, request):
        self.requests.append(request)
        if isinstance(self.reply, Exception):
            raise self.reply
        status, content, *headers = self.reply
        self.body = Body(content)
        return httpx.Response(status, headers=dict(headers), stream=self.body)


class Body(httpx.AsyncByteStream):
    """A body whose connection can be dropped."""

    at_end = False

    def __init__(self, content):
        self.content = content
        self.aborted = 0

    async def __aiter__(self):
        yield self.content

    def abort(self):
        self.aborted += 1


@pytest.fixture
def call(clock):
    return Call(Chat(model="m", messages="hi"), clock)


async def send(service, call, body=None, **options):
    async with exchange(service.transport, call, "/path", body or {"a": 1}, **options) as reply:
        return await reply.read(1000)


class TestSuccess:
    """Status 200."""

    async def test_a_body_goes_as_json(self, call):
        """To the path, with the key, and the send is counted."""
        service = Service((200, b"answer"))
        assert await send(service, call, {"text": "ü"}) == b"answer"
        (request,) = service.requests
        assert (request.method, str(request.url), request.content) == (
            *("POST", "https://api.test/v1/path"),
            '{"text":"ü"}'.encode(),
        )
        assert request.headers["content-type"] == "application/json"
        assert request.headers["authorization"] == f"Bearer {SECRET}"
        assert (call.record.sends, service.body.aborted) == (1, 0)

    async def test_headers_of_a_call_go_with_it(self, call):
        """Those that every request has stay as they are, whatever the call says."""
        service = Service((200, b"{}"))
        own = {
            "traceparent": "00-1-2-01",
            "authorization": "mine",
            "Host": "other",
            "idempotency-key": "k",
            "CONTENT-type": "x",
        }
        async with exchange(service.transport, call.replace(headers=own), "/p", {}):
            pass
        (request,) = service.requests
        assert request.headers["traceparent"] == "00-1-2-01"
        assert [request.headers.get_list(name) for name in own if name != "traceparent"] == [
            [f"Bearer {SECRET}"],
            ["api.test"],
            [call.idempotency_key],
            ["application/json"],
        ]

    @pytest.mark.parametrize(
        ("name", "value"), [("a b", "x"), ("a", "x\ny: z"), ("a", "\u00e9"), ("", "x"), ("a\n", "x")]
    )
    async def test_a_header_that_could_be_taken_for_another_is_refused(self, call, name, value):
        """Nothing is sent."""
        service = Service((200, b"{}"))
        with pytest.raises(InvalidInput, match="holds a character no header may have") as caught:
            async with exchange(service.transport, call.replace(headers={name: value}), "/p", {}):
                pass
        assert (caught.value.field, service.requests, call.record.sends) == (f"headers.{name}", [], 0)

    async def test_a_form_goes_as_it_is(self, call):
        """It is encoded already."""
        service = Service((200, b""))
        await send(service, call, Multipart(b"--x--", "multipart/form-data; boundary=x"))
        (request,) = service.requests
        assert (request.content, request.headers["content-type"]) == (b"--x--", "multipart/form-data; boundary=x")

    @pytest.mark.parametrize(("compressed", "encoding"), [(True, "gzip"), (False, "identity")])
    async def test_streams_are_not_compressed(self, call, compressed, encoding):
        """Each event would wait for the next one otherwise."""
        service = Service((200, b""))
        await send(service, call, compressed=compressed)
        assert service.requests[0].headers["accept-encoding"] == encoding


class TestRefusals:
    """Any other status."""

    @pytest.mark.parametrize(
        ("status", "kind"), [(404, ModelNotFound), (429, RateLimited), (500, ServerFailed), (418, ProviderError)]
    )
    async def test_an_error(self, call, status, kind):
        """It names the model and what the service said, and the connection is dropped."""
        service = Service((status, b'{"error": {"message": "no"}}', ("x-request-id", "r")))
        with pytest.raises(kind, match=f"'m' answered {status}: no") as caught:
            await send(service, call)
        assert (caught.value.model, caught.value.request_id, service.body.aborted) == ("m", "r", 1)

    @pytest.mark.parametrize("status", [301, 302, 307, 399])
    async def test_a_redirect_is_not_followed(self, call, status):
        """The key would go with it."""
        service = Service((status, b"", ("location", "https://evil.test/")))
        with pytest.raises(InvalidResponse, match=rf"a redirect \(status {status}\), which is never") as caught:
            await send(service, call)
        assert (caught.value.retryable, caught.value.model, len(service.requests)) == (False, "m", 1)

    @pytest.mark.parametrize("status", [201, 204, 299])
    async def test_another_success_is_none(self, call, status):
        """Only 200 carries an answer."""
        with pytest.raises(InvalidResponse, match=f"answered with status {status} instead of 200") as caught:
            await send(Service((status, b"{}")), call)
        assert caught.value.retryable


class TestFailures:
    """What goes wrong before, and in the block."""

    async def test_no_connection(self, call):
        """It counts as a send, and names the model."""
        with pytest.raises(ConnectionFailed, match=r"api\.test refused") as caught:
            await send(Service(httpx.ConnectError("refused")), call)
        assert (caught.value.model, call.record.sends) == ("m", 1)

    @pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), InvalidResponse("odd", model="other")])
    async def test_what_fails_in_the_block_drops_the_connection(self, call, error):
        """It arrives as it is; a model that is named already stays."""
        service = Service((200, b"x"))
        with pytest.raises(type(error)) as caught:
            async with exchange(service.transport, call, "/path", {}):
                raise error
        assert caught.value is error
        assert (service.body.aborted, getattr(error, "model", "other")) == (1, "other")

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"model": "m", "custom": object()}, "custom"),
            ({"messages": ["\ud800"]}, "messages"),
            ({"seed": 2**64}, "seed"),
            ({"a": {1: 2}}, "a"),
        ],
    )
    async def test_what_cannot_be_json_is_not_sent(self, call, body, field):
        """The field is named, and nothing is counted."""
        service = Service((200, b""))
        with pytest.raises(InvalidInput, match=f"{field}: cannot be sent as JSON: ") as caught:
            await send(service, call, body)
        assert (caught.value.field, service.requests, call.record.sends) == (field, [], 0)


class TestSecrets:
    """A key that the service repeats."""

    async def test_it_is_taken_out_of_all_that_is_shown(self, call):
        """Message, code, field and body, however deep."""
        told = {"message": f"bad {SECRET}", "code": SECRET, "param": f"x{SECRET}", "more": [{"a": [SECRET, 7, None]}]}
        with pytest.raises(ProviderError) as caught:
            await send(Service((400, orjson.dumps({"error": told}))), call)
        error = caught.value
        assert str(error) == "'m' answered 400: bad [redacted]"
        assert (error.code, error.param) == ("[redacted]", "x[redacted]")
        assert error.body["error"]["more"] == [{"a": ["[redacted]", 7, None]}]
        assert SECRET not in repr(vars(error))

    async def test_an_answer_that_cannot_be_read(self, call):
        """Neither its excerpt nor the parser's error holds the key, or the whole answer."""
        service = Service((200, f"<html>{SECRET}".encode()))
        with pytest.raises(InvalidResponse) as caught:
            async with exchange(service.transport, call, "/path", {}) as reply:
                load_object(await reply.read(1000), model="m", headers=reply.headers)
        assert caught.value.excerpt == "<html>[redacted]"
        assert isinstance(caught.value.__cause__, orjson.JSONDecodeError)
        assert caught.value.__cause__.doc == ""

    @pytest.mark.parametrize("secret", ["", "a", "1234567"])
    def test_a_short_one_is_left(self, secret):
        """It would be found in ordinary words."""
        error = InvalidResponse("a 1234567", excerpt="1234567")
        hide_secret(error, secret)
        assert (str(error), error.excerpt) == ("a 1234567", "1234567")
