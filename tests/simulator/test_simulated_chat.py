"""Chat completions that are not streamed."""

import base64
import io
import json
from decimal import Decimal

import pytest
from PIL import Image

from resilient_ai.deepinfra.catalogue import catalogue
from resilient_ai.simulator import serve


def test_plain_answer_has_the_recorded_keys_in_order(ask, models):
    """Keys, their order and the nulls are those of the recording."""
    body = ask.chat("What moves the tides?").json()
    choice = body["choices"][0]

    assert list(body) == ["id", "object", "created", "model", "choices", "usage"]
    assert list(choice) == ["index", "message", "finish_reason"]
    assert list(choice["message"].items())[2:] == [("name", None), ("tool_calls", None)]
    assert "Moon" in choice["message"]["content"]
    assert list(body["usage"]) == ["prompt_tokens", "total_tokens", "completion_tokens", "estimated_cost"]
    assert (body["id"][:9], len(body["id"]), body["model"]) == ("chatcmpl-", 41, models.plain)


def test_the_cost_follows_the_price_list_to_the_last_digit(sim, ask, models):
    """The estimated cost is tokens times prices, and the bill holds the same as a decimal."""
    usage = ask.chat().json()["usage"]
    price = catalogue.get(models.plain).pricing
    exact = (usage["prompt_tokens"] * price.input_per_1m + usage["completion_tokens"] * price.output_per_1m) / 1_000_000

    assert usage["estimated_cost"] == float(exact)
    assert sim.stats().bill == sim.stats().bill_by_model[models.plain] == exact


def test_a_repeated_prefix_is_cached_in_blocks_of_64(sim, ask, models):
    """The second request reports the prefix and pays the lower price for it."""
    text = "All the ships of the harbour wait for the tide to turn. " * 20
    first, second = (ask.chat(text, model=models.reasoning, max_tokens=1).json()["usage"] for _ in range(2))
    cached = second["prompt_tokens_details"]["cached_tokens"]
    price = catalogue.get(models.reasoning).pricing
    fresh = second["prompt_tokens"] - cached

    assert first["prompt_tokens_details"] is None
    assert cached == (second["prompt_tokens"] - 1) // 64 * 64
    exact = (fresh * price.input_per_1m + cached * price.cached_input_per_1m + price.output_per_1m) / 1_000_000
    assert second["estimated_cost"] == float(exact)


@pytest.mark.parametrize(("tier", "factor"), [("priority", "1.5"), ("flex", "0.8"), ("default", "1")])
def test_the_service_tier_is_echoed_and_priced(ask, models, tier, factor):
    """A supported tier comes back in the answer and changes the price."""
    plain = ask.chat(model=models.vision).json()["usage"]["estimated_cost"]
    body = ask.chat(model=models.vision, service_tier=tier).json()

    assert body["service_tier"] == tier
    assert body["usage"]["estimated_cost"] == pytest.approx(float(Decimal(factor)) * plain)


def test_an_unsupported_tier_is_served_at_the_standard_price(ask, models):
    """The answer says which tier was really used."""
    assert ask.chat(model=models.limited, service_tier="priority").json()["service_tier"] == "default"


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"temperature": 2.1}, "temperature", "Input should be less than or equal to 2"),
        ({"top_p": 0}, "top_p", "Input should be greater than 0"),
        ({"min_p": -0.1}, "min_p", "Input should be greater than or equal to 0"),
        ({"top_k": 1000}, "top_k", "Input should be less than 1000"),
        ({"max_tokens": 0}, "max_tokens", "Input should be greater than 0"),
        ({"max_tokens": 1_000_001}, "max_tokens", "Input should be less than or equal to 1000000"),
        ({"stop": ["x"] * 17}, "stop", "List should have at most 16 items after validation, not 17"),
        ({"n": 5}, "n", "Input should be less than or equal to 4"),
        ({"presence_penalty": -3}, "presence_penalty", "Input should be greater than or equal to -2"),
        ({"frequency_penalty": 3}, "frequency_penalty", "Input should be less than or equal to 2"),
        ({"repetition_penalty": 0}, "repetition_penalty", "Input should be greater than or equal to 0.01"),
        ({"seed": 2**64}, "seed", None),
        ({"top_logprobs": 21}, "top_logprobs", "Input should be less than or equal to 20"),
        ({"reasoning_effort": "much"}, "reasoning_effort", None),
        ({"reasoning": {"effort": "much"}}, "reasoning.effort", None),
        ({"service_tier": "fast"}, "service_tier", None),
        ({"tool_choice": "some"}, "tool_choice", None),
        ({"response_format": {"type": "json"}}, "response_format.type", None),
        ({"messages": [{"role": "user", "content": [{"type": "film"}]}]}, "messages.0.content.0.type", None),
        ({"messages": []}, "messages", None),
    ],
)
def test_every_range_is_checked(ask, fields, param, message):
    """A value out of range is 422 with the field's path and no code."""
    answer = ask.chat(**fields)
    error = answer.json()["error"]

    assert (answer.status_code, error["type"], error["param"]) == (422, "invalid_request_error", param)
    assert error["code"] in {None, "array_above_max_length"}
    assert message is None or error["message"] == message


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "m"}, "messages"),
        ({"messages": [{"role": "user", "content": "a"}]}, "model"),
        ({"model": "m", "messages": [{"role": "user"}]}, "messages.0.content"),
        ({"model": "m", "messages": [{"content": "a"}]}, "messages.0.role"),
        ({"model": "m", "messages": [{"role": "tool", "content": "a"}]}, "messages.0.tool_call_id"),
        (
            {"model": "m", "messages": [{"role": "user", "content": "a"}], "response_format": {"type": "regex"}},
            "response_format.regex",
        ),
    ],
)
def test_a_missing_field_has_its_own_code(http, body, param):
    """An absent field is named, with the code `missing_required_parameter`."""
    error = http.post("/v1/chat/completions", json=body).json()["error"]

    assert (error["message"], error["param"], error["code"]) == ("Field required", param, "missing_required_parameter")


@pytest.mark.parametrize("role", ["developer", "function"])
def test_unknown_roles_are_refused(ask, role):
    """The refusal lists the roles there are."""
    answer = ask.chat(messages=[{"role": role, "content": "a"}])

    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "messages.0.role"
    assert "ChatMessageRole: 'system', 'user', 'assistant', 'tool'" in answer.json()["error"]["message"]


def test_unknown_fields_and_numbers_in_strings_are_accepted(ask):
    """An invented field is ignored and a numeric string read as a number."""
    body = ask.chat("Write 40 tokens about tides", invented={"a": 1}, max_tokens="7").json()

    assert body["usage"]["completion_tokens"] == 7


def test_answers_stop_at_a_stop_sequence_and_at_their_length(ask):
    """A stop sequence ends with `stop` before it, too few tokens end with `length`."""
    stopped = ask.chat("Say one two three", stop=[" three", "zzz"]).json()["choices"][0]
    single = ask.chat("Say one two three", stop=" two").json()["choices"][0]
    cut = ask.chat("Write 50 tokens about tides", max_tokens=5).json()

    assert (stopped["message"]["content"], stopped["finish_reason"]) == ("one two", "stop")
    assert single["message"]["content"] == "one"
    assert (cut["choices"][0]["finish_reason"], cut["usage"]["completion_tokens"]) == ("length", 5)


def test_n_gives_different_choices(ask):
    """Four choices have four indexes and more than one wording."""
    choices = ask.chat(n=4).json()["choices"]

    assert [c["index"] for c in choices] == [0, 1, 2, 3]
    assert len({c["message"]["content"] for c in choices}) > 1


def test_logprobs_come_on_request(ask):
    """One entry per token, with alternatives as many as asked for."""
    choice = ask.chat("Say one two", logprobs=True, top_logprobs=3).json()["choices"][0]
    bare = ask.chat("Say one two", logprobs=True).json()["choices"][0]

    entries = choice["logprobs"]["content"]
    assert "".join(e["token"] for e in entries) == "one two"
    assert all(len(e["top_logprobs"]) == 3 and e["logprob"] <= 0 for e in entries)
    assert bare["logprobs"]["content"][0]["top_logprobs"] == []


def test_reasoning_is_a_field_of_its_own(ask, models):
    """Thoughts stand beside the answer and are counted as output."""
    body = ask.chat("What is 17 * 23?", model=models.reasoning).json()
    message, usage = body["choices"][0]["message"], body["usage"]

    assert message["content"] == "17 * 23 = 391."
    assert message["reasoning_content"]
    assert 0 < usage["completion_tokens_details"]["reasoning_tokens"] < usage["completion_tokens"]


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning_effort": "none"},
        {"reasoning": {"enabled": False}},
        {"chat_template_kwargs": {"enable_thinking": False}},
    ],
)
def test_reasoning_can_be_switched_off(ask, models, fields):
    """Without thoughts the field is null and no tokens are counted."""
    body = ask.chat(model=models.reasoning, **fields).json()

    assert body["choices"][0]["message"]["reasoning_content"] is None
    assert body["usage"]["completion_tokens_details"] == {"reasoning_tokens": 0}


def test_more_effort_gives_more_thoughts(ask, models):
    """Each effort thinks at least as long as the one below it."""
    sizes = [
        ask.chat(model=models.reasoning, **fields).json()["usage"]["completion_tokens_details"]["reasoning_tokens"]
        for fields in ({"reasoning": {"effort": "low"}}, {}, {"reasoning_effort": "high"})
    ]

    assert sizes == sorted(set(sizes))


def test_thoughts_can_use_up_all_tokens(ask, models):
    """With few tokens the answer is empty and cut by length."""
    choice = ask.chat(model=models.reasoning, max_tokens=4).json()["choices"][0]

    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "length")


def test_deepseek_r1_thinks_inside_the_text(ask, models):
    """Thoughts stand between tags, and no field or count speaks of them."""
    body = ask.chat("Say hello", model=models.tagged).json()
    content = body["choices"][0]["message"]["content"]

    assert content.startswith("<think>\n")
    assert content.endswith("</think>\n\nhello")
    assert "completion_tokens_details" not in body["usage"]


def test_google_usage_leaves_reasoning_out_with_a_total_that_has_it(ask, models):
    """The completion excludes the reasoning while the total includes it."""
    usage = ask.chat(model=models.google_inclusive, reasoning_effort="high").json()["usage"]
    reasoning = usage["completion_tokens_details"]["reasoning_tokens"]

    assert reasoning > usage["completion_tokens"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] + reasoning


def test_google_usage_leaves_reasoning_out_of_the_total_too(ask, models):
    """The other form of the flaw: nothing but the details and the cost tells of the reasoning."""
    usage = ask.chat(model=models.google_exclusive).json()["usage"]
    price = catalogue.get(models.google_exclusive).pricing
    output = usage["completion_tokens"] + usage["completion_tokens_details"]["reasoning_tokens"]

    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    exact = (usage["prompt_tokens"] * price.input_per_1m + output * price.output_per_1m) / 1_000_000
    assert usage["estimated_cost"] == float(exact)


def test_unsupported_features_are_405(ask, models, tides):
    """What the catalogue denies is refused with the recorded words."""
    tools = ask.chat(model=models.limited, tools=[tides])
    json_mode = ask.chat(model="google/gemma-4-E4B-it", response_format={"type": "json_object"})
    picture = [{"type": "image_url", "image_url": {"url": "https://img.example.org/a.png"}}]
    vision = ask.chat(messages=[{"role": "user", "content": picture}])
    wrong_kind = ask.chat(model=models.embedding)

    assert [tools.status_code, json_mode.status_code, vision.status_code, wrong_kind.status_code] == [405] * 4
    assert tools.json()["error"]["message"] == f"Tool calling is not supported for model: {models.limited}"
    assert tools.json()["error"]["param"] == "tools"
    message = "json_object response format is not supported for model: google/gemma-4-E4B-it"
    assert json_mode.json()["error"]["message"] == message


def test_a_prompt_above_the_context_is_400(ask, models):
    """Both recorded wordings occur, one per stream variant."""
    huge = "word " * 300_000
    older, newer = ask.chat(huge), ask.chat(huge, model="google/gemma-3-12b-it")

    assert (older.status_code, older.json()["error"]["code"]) == (400, None)
    assert older.json()["error"]["message"].startswith("This model's maximum context length is 131072 tokens")
    assert (newer.status_code, newer.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert "limit is 131072 for this model" in newer.json()["error"]["message"]


def picture(colour="red", size=(40, 30)):
    target = io.BytesIO()
    Image.new("RGB", size, colour).save(target, "PNG")
    return "data:image/png;base64," + base64.b64encode(target.getvalue()).decode()


def seen(ask, model, *urls):
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content = [*parts, {"type": "text", "text": "What is this?"}, {"type": "input_audio", "input_audio": {"data": ""}}]
    return ask.chat(model=model, messages=[{"role": "user", "content": content}])


def test_pictures_are_seen_and_billed(ask, models):
    """Size, format and colour of a data URI are told; an address is named, never fetched."""
    body = seen(ask, models.vision, picture(), "https://img.example.org/plan.webp").json()

    content = body["choices"][0]["message"]["content"]
    assert content.startswith("I see a 40 by 30 PNG picture, mostly red and a picture from img.example.org.")
    assert body["usage"]["prompt_tokens"] > 3 * 256


@pytest.mark.parametrize(
    "url",
    [
        "https://nowhere.invalid/a.png",
        "ftp://img.example.org/a.png",
        "data:image/png;base64,!!!",
        "data:image/png;base64,aGVsbG8=",
        "data:text/plain,hello",
        "data:image/png;base64," + "A" * (28 * 1024 * 1024),
    ],
)
def test_a_picture_that_cannot_be_had_is_400(ask, models, url):
    """The message begins as recorded."""
    answer = seen(ask, models.vision, url)

    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("Failed to download one or more images")


def test_json_mode_gives_an_object(ask):
    """Quoted words become keys; without any there is an answer."""
    free = ask.chat("What moves the tides?", response_format={"type": "json_object"})
    keyed = ask.chat('JSON with "city" and "sea" of Kiel please', response_format={"type": "json_object"})

    assert list(json.loads(free.json()["choices"][0]["message"]["content"])) == ["answer"]
    assert list(json.loads(keyed.json()["choices"][0]["message"]["content"])) == ["city", "sea"]


def test_json_schema_gives_a_fitting_instance(ask):
    """Names and numbers of the prompt fill the schema's fields."""
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
        "required": ["city", "people"],
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema, "strict": True}}
    body = ask.chat("The town of Emden has 50000 people.", response_format=wanted).json()

    assert json.loads(body["choices"][0]["message"]["content"]) == {"city": "Emden", "people": 50000}


def test_regex_format_gives_a_match(ask):
    """A pattern is answered with a text that it matches."""
    body = ask.chat(response_format={"type": "regex", "regex": r"[A-Z]{3}-\d+"}).json()

    assert body["choices"][0]["message"]["content"] == "AAA-1"


def test_text_format_is_the_default(ask):
    """Asking for text changes nothing."""
    plain, text = ask.chat("Say hi"), ask.chat("Say hi", response_format={"type": "text"})

    assert plain.json()["choices"] == text.json()["choices"]


def test_flex_requests_are_held_and_may_be_refused(client_of, ask_at):
    """A held flex request is served or gets 429, with a wait only if switched on."""
    with serve(flex_hold=0.05, flex_refused=True, retry_after=2.0) as sim, client_of(sim) as http:
        refused = ask_at(http).chat(service_tier="flex")
        served = ask_at(http).chat(service_tier="priority")

    assert (refused.status_code, refused.json()) == (429, {"error": {"message": "Model busy, retry later"}})
    assert refused.headers["retry-after"] == "2"
    assert refused.elapsed.total_seconds() >= 0.05
    assert served.status_code == 200
