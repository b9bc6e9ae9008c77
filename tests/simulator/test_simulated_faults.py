"""Faults on demand: each kind on a stream and on a whole answer, and the ways of ordering them."""

import json
import sys
import threading
import time

import httpx
import pytest

from resilient_ai.simulator import Fault, Settings, Simulator, create_app, serve

MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Write 20 tokens about tides"}]}


def post(http, **fields):
    return http.post("/v1/chat/completions", json={**BODY, **fields})


def events_before_the_break(http):
    """Whole events that arrive before the stream ends or breaks, and what it broke with."""
    seen = []
    try:
        with http.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}) as answer:
            seen.extend(line for line in answer.iter_lines() if line)
    except httpx.HTTPError as error:
        return seen, type(error)
    return seen, None


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (
            402,
            {
                "error": {
                    "message": "Insufficient balance",
                    "type": "invalid_request_error",
                    "param": None,
                    "code": None,
                }
            },
        ),
        (429, {"error": {"message": "Model busy, retry later"}}),
        (500, {"error": {"message": "Inference failed"}}),
    ],
)
def test_a_status_has_the_body_of_its_kind(sim, http, code, body):
    """402 has the long body, 429 and 500 the short one; none has a Retry-After, and nothing is billed."""
    sim.faults.script(MODEL, Fault.status(code))
    answer = post(http)

    assert (answer.status_code, answer.json()) == (code, body)
    assert "retry-after" not in answer.headers
    assert post(http).status_code == 200
    assert sim.stats().by_status == {code: 1, 200: 1}


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ("native", '{"detail":{"error":"no"}}'),
        ("detail", '{"detail":"no"}'),
        ("validation", '{"detail":[{"loc":["body"],"msg":"no","type":"value_error"}]}'),
        ("plain", '{"error":"no"}'),
        ("text", "no"),
        ("empty", ""),
    ],
)
def test_a_status_can_take_any_shape(sim, http, shape, text):
    """All shapes that occur can be ordered, with a wait that the server names."""
    sim.faults.script(MODEL, Fault.status(503, message="no", shape=shape, retry_after=1.5))
    answer = post(http)

    assert (answer.status_code, answer.text, answer.headers["retry-after"]) == (503, text, "1.5")


def test_a_status_takes_the_shape_of_the_native_route(sim, ask):
    """On the native route the body is wrapped in `detail`."""
    sim.faults.script("BAAI/bge-m3", Fault.status(403))

    assert ask.native("BAAI/bge-m3", inputs=["a"]).json() == {"detail": {"error": "Not allowed to use this model"}}


def test_a_proxy_answers_with_a_page(sim, http):
    """The body is HTML."""
    sim.faults.script(MODEL, Fault.html(502))
    answer = post(http)

    assert (answer.status_code, answer.headers["content-type"]) == (502, "text/html")
    assert "<h1>Bad gateway</h1>" in answer.text


def test_headers_can_be_late(sim, http):
    """The answer comes whole, but later."""
    sim.faults.script(MODEL, Fault.delay(0.1))
    begin = time.monotonic()

    assert post(http).status_code == 200
    assert time.monotonic() - begin >= 0.1


@pytest.mark.parametrize(("reset", "error"), [(False, httpx.RemoteProtocolError), (True, httpx.ReadError)])
def test_a_connection_can_be_dropped_before_the_headers(sim, http, reset, error):
    """The client sees an end or a reset; the books count it under 0 and bill nothing."""
    sim.faults.script(MODEL, Fault.drop(reset=reset))

    with pytest.raises(error):
        post(http)
    assert (sim.stats().by_status, sim.stats().bill) == ({0: 1}, 0)


@pytest.mark.parametrize(("reset", "error"), [(False, httpx.RemoteProtocolError), (True, httpx.ReadError)])
def test_a_stream_can_be_cut(sim, http, reset, error):
    """So many events arrive, then the socket breaks, and the slot is free again."""
    sim.faults.script(MODEL, Fault.cut(after=4, reset=reset))
    seen, broke = events_before_the_break(http)

    assert broke is error
    assert len(seen) <= 4
    assert reset or len(seen) == 4
    wait_for(lambda: sim.stats().in_flight == 0)


def test_a_whole_answer_can_be_cut(sim, http):
    """Headers promise more than comes."""
    sim.faults.script(MODEL, Fault.cut())

    with pytest.raises(httpx.RemoteProtocolError):
        post(http)


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_can_stall_and_go_on(sim, http, stream):
    """After the silence everything arrives."""
    sim.faults.script(MODEL, Fault.stall(after=2, seconds=0.1))
    begin = time.monotonic()
    answer = post(http, stream=stream)

    assert time.monotonic() - begin >= 0.1
    assert answer.text.endswith("data: [DONE]\n\n" if stream else "}")


def test_a_stall_outlives_the_patience_of_the_client(sim, http):
    """The client gives up, and the server notices."""
    sim.faults.script(MODEL, Fault.stall(after=2))

    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/chat/completions", json={**BODY, "stream": True}, timeout=0.1)
    wait_for(lambda: sim.stats().in_flight == 0)


def test_a_stalled_stream_may_keep_pinging(client_of):
    """Comments arrive while no event does."""
    with serve(ping_interval=0.02) as sim, client_of(sim) as http:
        sim.faults.script(MODEL, Fault.stall(after=2, seconds=0.1, pings=True))
        seen, _ = events_before_the_break(http)

    assert [line.startswith(": ping") for line in seen[2:5]] == [True] * 3
    assert seen[-1] == "data: [DONE]"


def test_a_stream_can_hold_garbage(sim, http):
    """One line is no JSON; the rest is whole."""
    sim.faults.script(MODEL, Fault.garbage(after=2))
    seen, broke = events_before_the_break(http)
    sim.faults.script(MODEL, Fault.garbage())

    assert broke is None
    with pytest.raises(json.JSONDecodeError):
        json.loads(seen[2][6:])
    assert json.loads(seen[3][6:])
    assert seen[-1] == "data: [DONE]"
    with pytest.raises(json.JSONDecodeError):
        post(http).json()


@pytest.mark.parametrize(("native", "key"), [(False, "error"), (True, "error_type")])
def test_a_stream_can_end_with_an_error_event(sim, http, native, key):
    """The status is 200, the last event an error, and no end mark follows."""
    sim.faults.script(MODEL, Fault.error_event(after=2, message="GPU lost", native=native), times=2)
    seen, broke = events_before_the_break(http)

    assert (broke, len(seen)) == (None, 3)
    assert key in json.loads(seen[-1][6:])
    assert "GPU lost" in seen[-1]
    whole = post(http)
    assert (whole.status_code, key in whole.json()) == (200, True)


def test_an_answer_can_trickle(sim, http):
    """Byte by byte everything arrives, in a stream and whole."""
    sim.faults.script(MODEL, Fault.trickle(seconds=0), times=2)
    seen, _ = events_before_the_break(http)

    assert seen[-1] == "data: [DONE]"
    assert post(http).json()["choices"]


def test_a_client_may_leave_a_trickle(sim, http):
    """The server stops sending when nobody listens."""
    sim.faults.script(MODEL, Fault.trickle(seconds=0.02))

    with http.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}) as answer:
        next(answer.iter_bytes())
    wait_for(lambda: sim.stats().in_flight == 0)


def test_json_can_be_truncated(sim, http):
    """The HTTP message is whole, its JSON is not; a stream ends without its mark."""
    sim.faults.script(MODEL, Fault.truncated(after=2), times=2)
    seen, broke = events_before_the_break(http)
    answer = post(http)

    assert (broke, len(seen)) == (None, 3)
    assert answer.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def test_a_client_that_leaves_before_the_answer_is_not_billed(sim, http):
    """A request that nobody waits for any more counts under 0."""
    sim.faults.script(MODEL, Fault.delay(60))

    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/chat/completions", json=BODY, timeout=0.1)
    wait_for(lambda: sim.stats().in_flight == 0)
    assert (sim.stats().by_status, sim.stats().bill) == ({0: 1}, 0)


def test_everything_works_without_httptools(client_of, monkeypatch):
    """Where only h11 is installed, streams arrive and break all the same."""
    monkeypatch.setitem(sys.modules, "uvicorn.protocols.http.httptools_impl", None)
    with serve() as sim, client_of(sim) as http:
        sim.faults.script(MODEL, Fault.cut(after=2))
        cut, whole = events_before_the_break(http), events_before_the_break(http)
        sim.faults.script(MODEL, Fault.drop())
        with pytest.raises(httpx.RemoteProtocolError):
            post(http)

    assert (len(cut[0]), cut[1]) == (2, httpx.RemoteProtocolError)
    assert whole[0][-1] == "data: [DONE]"


def test_refusals_pass_through_a_fault_of_the_body(sim, http):
    """A bad request that meets a fault is refused through it."""
    sim.faults.script(MODEL, Fault.stall(seconds=0))

    assert post(http, n=9).status_code == 422


def test_scripts_run_in_order_and_only_for_their_model(sim, http, models):
    """Faults of a model come first, those for any model after, and other models are spared."""
    sim.faults.script(MODEL, Fault.status(500), times=2)
    sim.faults.script(MODEL, Fault.status(503))
    sim.faults.script(None, Fault.status(429))
    other = [post(http, model=models.vision).status_code for _ in range(2)]

    assert other == [429, 200]
    assert [post(http).status_code for _ in range(4)] == [500, 500, 503, 200]


def test_a_model_can_be_out_of_service(sim, http):
    """An outage lasts until it is switched off."""
    sim.faults.outage(MODEL)
    during = [post(http).status_code for _ in range(2)]
    sim.faults.outage(MODEL, on=False)
    sim.faults.outage(MODEL, on=False)

    assert (during, post(http).status_code) == ([503, 503], 200)


def test_rates_follow_their_seed(sim, http):
    """The same seed gives the same sequence; other models are spared; clearing ends it."""

    def statuses():
        sim.faults.clear()
        sim.faults.rate(Fault.status(500), 0.5, seed=7, model=MODEL)
        sim.faults.rate(Fault.status(502), 1.0, model="other")
        return [post(http).status_code for _ in range(20)]

    first = statuses()
    assert first == statuses()
    assert set(first) == {200, 500}
    sim.faults.clear()
    assert post(http).status_code == 200


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fault.status(200), "code must be 400 to 599, got 200"),
        (lambda: Fault.delay(-1), "seconds and after must be >= 0"),
        (lambda: Simulator().faults.script("m", Fault.drop(), times=0), "times must be >= 1, got 0"),
        (lambda: Simulator().faults.rate(Fault.drop(), 1.5), "rate must be 0 to 1, got 1.5"),
    ],
)
def test_orders_are_checked(make, message):
    """Numbers out of range are refused."""
    with pytest.raises(ValueError, match=message):
        make()


def wait_for(condition):
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_more_requests_than_the_limit_are_429(client_of):
    """The slot of a model and key is held to the end of its stream; other models and keys have their own."""
    with serve(limit=2, token_delay=0.05, retry_after=3) as sim, client_of(sim) as http:
        streaming = threading.Event()

        def hold():
            with http.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}) as answer:
                for _ in answer.iter_lines():
                    streaming.wait(5)

        holders = [threading.Thread(target=hold) for _ in range(2)]
        [holder.start() for holder in holders]
        wait_for(lambda: sim.stats().in_flight == 2)
        refused = post(http)
        other_model = post(http, model="google/gemma-3-12b-it")
        with client_of(sim, "second-key") as second:
            other_key = post(second)
        streaming.set()
        [holder.join() for holder in holders]
        wait_for(lambda: sim.stats().in_flight == 0)

        assert (refused.status_code, refused.json()) == (429, {"error": {"message": "Rate limited"}})
        assert refused.headers["retry-after"] == "3"
        assert [other_model.status_code, other_key.status_code, post(http).status_code] == [200] * 3
        assert sim.stats().peak_in_flight == 3


def test_faults_can_be_ordered_over_http(sim, http):
    """Scripts, outages and rates are posted, and all are deleted at once."""

    def order(**body):
        return http.post("/_simulator/faults", json=body).status_code

    assert order(model=MODEL, fault={"kind": "status", "code": 500}, times=2) == 204
    assert [post(http).status_code for _ in range(3)] == [500, 500, 200]
    assert order(model=MODEL, outage=True) == 204
    assert post(http).status_code == 503
    assert order(model=MODEL, outage=False) == 204
    assert order(rate=1, fault={"kind": "html"}) == 204
    assert post(http).status_code == 502
    assert http.delete("/_simulator/faults").status_code == 204
    assert post(http).status_code == 200


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"fault": {"kind": "fire"}}, "fault: kind must be one of status, html, delay, "),
        ({"fault": {"kind": ["status"]}}, "fault: kind must be one of "),
        ({"fault": {"code": 200}}, "code must be 400 to 599, got 200"),
        ({"fault": {"code": "500"}}, "fault: status takes code: int, "),
        ({"fault": {"shape": "round"}}, "shape must be one of openai, short, "),
        ({"fault": {"size": 1}}, "fault: status takes code: int, "),
        ({"fault": {"kind": "delay"}}, "fault: delay takes seconds: float; got {}"),
        ({"fault": 7}, "fault: Input should be "),
        ({"times": 0}, "times: Input should be greater than or equal to 1"),
        ({"rate": 2}, "rate: Input should be less than or equal to 1"),
        ({"outage": True}, "model: an outage needs one"),
        ({"bananas": 1, "times": "x"}, "times: Input should be a valid integer"),
        ({"bananas": 1}, "bananas: Extra inputs are not permitted"),
        ({"kind": "status"}, "kind: Extra inputs are not permitted"),
        ([], "Input should be an object"),
    ],
)
def test_orders_over_http_are_checked(http, body, detail):
    """A wrong order is 400 with its reason, and nothing happens."""
    answer = http.post("/_simulator/faults", json=body)

    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(detail)
    assert post(http).status_code == 200


def test_an_order_that_is_no_json_is_refused(http):
    """With the same answer."""
    answer = http.post("/_simulator/faults", content=b"{")

    assert (answer.status_code, answer.json()["detail"][:12]) == (400, "Invalid JSON")


def test_the_books_are_open_over_http(sim, http):
    """Counts and exact costs can be read, and all of it reset."""
    post(http)
    stats = http.get("/_simulator/stats").json()

    assert stats["requests"] == stats["by_model"][MODEL] == stats["by_status"]["200"] == 1
    assert stats["by_route"] == {"chat/completions": 1}
    assert stats["bill"] == stats["bill_by_model"][MODEL] == format(sim.stats().bill, "f")
    assert (stats["in_flight"], stats["peak_in_flight"], stats["embedded_texts"]) == (0, 1, 0)
    assert http.post("/_simulator/reset").status_code == 204
    assert (sim.stats().requests, sim.stats().bill) == (0, 0)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_application_runs_under_another_server(anyio_backend):
    """Without the server of `serve` it answers all the same, and a stalled stream ends in time."""
    simulator = Simulator(Settings(token_delay=0.001))
    simulator.faults.script(MODEL, Fault.drop(), times=1)
    transport = httpx.ASGITransport(create_app(simulator), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://sim", headers={"xi-api-key": "k"}) as http:
        assert (await http.post("/v1/chat/completions", json=BODY)).status_code == 500
        assert (await http.post("/v1/chat/completions", json={**BODY, "stream": True})).status_code == 200
