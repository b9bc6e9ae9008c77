"""Pictures on the OpenAI and native routes."""

import base64
import io
from dataclasses import replace

import pytest
from PIL import Image

from resilient_ai.deepinfra.catalogue import catalogue
from resilient_ai.simulator import serve
from resilient_ai.simulator.pricing import image_cost


def opened(text):
    return Image.open(io.BytesIO(base64.b64decode(text.rpartition(",")[2])))


@pytest.fixture
def generate(http, models):
    def post(**fields):
        body = {"model": models.flux, "prompt": "a lighthouse at dusk", "size": "256x256", **fields}
        return http.post("/v1/openai/images/generations", json=body)

    return post


def png(size=(8, 8)):
    target = io.BytesIO()
    Image.new("RGB", size, "blue").save(target, "PNG")
    return target.getvalue()


def test_generations_give_real_pictures(sim, generate):
    """As many files as asked for, of the size asked for, in the recorded shape."""
    body = generate(n="2", size="512x256").json()

    assert list(body) == ["created", "data"]
    assert [list(row) for row in body["data"]] == [["b64_json", "revised_prompt", "url"]] * 2
    first = opened(body["data"][0]["b64_json"])
    assert (first.format, first.size) == ("JPEG", (512, 256))
    assert body["data"][0]["b64_json"].startswith("/9j/")
    assert str(sim.stats().bill) == "0.000125"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 5}, "n"),
        ({"prompt": None}, "prompt"),
        ({"size": "big"}, "size"),
        ({"size": "100x100"}, "size"),
        ({"response_format": "url"}, "response_format"),
    ],
)
def test_requests_are_checked(generate, fields, param):
    """A value out of range is 422 with the field's name."""
    answer = generate(**fields)

    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)


def test_other_kinds_cannot_draw(generate, models):
    """A chat model has no pictures."""
    assert generate(model=models.plain).status_code == 405


@pytest.mark.parametrize(
    ("model", "form"), [("stabilityai/sdxl-turbo", "PNG"), ("Qwen/Qwen-Image-Max", "WEBP"), ("Bria/Bria-3.2", "JPEG")]
)
def test_formats_differ_by_model(generate, model, form):
    """PNG, WebP and JPEG occur."""
    assert opened(generate(model=model).json()["data"][0]["b64_json"]).format == form


def test_edits_take_one_or_more_files(sim, http, models):
    """Sources are repeated parts of one name; without a readable one the answer is 422."""
    data = {"model": "Qwen/Qwen-Image-Edit", "prompt": "make it blue", "n": "1", "size": "256x256"}

    def send(*files):
        return http.post("/v1/openai/images/edits", data=data, files=[("image", f) for f in files])

    assert send(("a.png", png()), ("b.png", png())).json()["data"][0]["b64_json"]
    assert send(("a.png", b"no picture")).json()["error"]["message"] == "image cannot be read"
    missing = http.post("/v1/openai/images/edits", data=data, files={"other": ("a", b"")}).json()["error"]
    assert (missing["param"], missing["code"]) == ("image", "missing_required_parameter")
    assert http.post("/v1/openai/images/edits", json=data).status_code == 422
    assert sim.stats().by_status == {200: 1, 422: 3}


def test_variations_need_no_prompt(http, models):
    """A source picture is enough."""
    files = {"image": ("a.png", png())}
    answer = http.post("/v1/images/variations", data={"model": models.flux, "size": "256x256"}, files=files)

    assert opened(answer.json()["data"][0]["b64_json"]).size == (256, 256)


def test_native_pictures_are_data_uris_with_seed_and_cost(sim, ask, models):
    """The recorded keys, numbers in strings, and the cost by area and steps."""
    body = ask.native(
        models.flux, prompt="a lighthouse", width="768", height="512", num_inference_steps="4", seed=4711
    ).json()

    assert list(body) == ["images", "nsfw_content_detected", "seed", "request_id", "inference_status"]
    assert body["images"][0].startswith("data:image/jpeg;base64,")
    assert (body["seed"], body["nsfw_content_detected"]) == (4711, [False])
    assert body["inference_status"]["cost"] == 0.00075 == float(sim.stats().bill)


def test_the_same_seed_draws_the_same_picture(ask, models):
    """Equal seeds give equal bytes, other seeds other ones; without one a seed is drawn and told."""
    first, again, other = (
        ask.native(models.flux, prompt="a boat", width=256, height=256, seed=seed).json()["images"]
        for seed in (1, 1, 2)
    )
    free = ask.native(models.flux, prompt="a boat", width=256, height=256).json()
    same = ask.native(models.flux, prompt="a boat", width=256, height=256, seed=free["seed"]).json()

    assert first == again != other
    assert same["images"] == free["images"]


def test_some_models_take_an_aspect_ratio(ask, models):
    """The ratio gives the size; width and height are refused."""
    wide = ask.native(models.by_ratio, prompt="a boat", aspect_ratio="16:9").json()
    refused = ask.native(models.by_ratio, prompt="a boat", width=512)
    unknown = ask.native(models.by_ratio, prompt="a boat", aspect_ratio="2:1")
    width, height = opened(wide["images"][0]).size

    assert width / height == pytest.approx(16 / 9, rel=0.06)
    assert (refused.status_code, list(refused.json()["detail"])) == (422, ["error"])
    assert unknown.json()["detail"][0]["loc"] == ["body", "aspect_ratio"]


def test_width_and_height_can_be_ignored_there(client_of, ask_at, models):
    """With the option off they have no effect."""
    with serve(strict_aspect_ratio=False) as sim, client_of(sim) as http:
        answer = ask_at(http).native(models.by_ratio, prompt="a boat", width=512)

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "fields",
    [
        {"width": 250},
        {"width": 2048, "height": 256},
        {"num_images": 5},
        {"image": "data:image/png;base64,!"},
        {"image": "aGVsbG8="},
        {"prompt": None},
    ],
)
def test_native_requests_are_checked(ask, models, fields):
    """Sizes, numbers and source pictures out of range are 422."""
    assert ask.native(models.flux, **{"prompt": "a boat", **fields}).status_code == 422


def test_a_source_picture_may_be_a_data_uri(ask):
    """A readable one is accepted."""
    image = "data:image/png;base64," + base64.b64encode(png()).decode()

    assert ask.native("Qwen/Qwen-Image-Edit", prompt="bluer", image=image, width=256, height=256).status_code == 200


def test_old_models_and_other_families_have_their_own_sizes(ask):
    """A side that the family does not draw is refused."""
    assert ask.native("Bria/Bria-3.2", prompt="a", width=10).status_code == 422


def test_vector_pictures_and_the_nested_form(ask):
    """A vector model sends SVG; a body wrapped in `input` is answered with `output`."""
    vector = ask.native("Bria/Bria-3.2-vector", prompt="a <boat>").json()
    nested = ask.native("Bria/Bria-3.2", input={"prompt": "a", "num_outputs": 2, "width": 256, "height": 256}).json()

    svg = base64.b64decode(vector["images"][0].removeprefix("data:image/svg+xml;base64,"))
    assert b"<title>a &lt;boat&gt;</title>" in svg
    assert (nested["status"], len(nested["output"])) == ("succeeded", 2)


def test_pictures_without_a_known_price_cost_none(sim, ask):
    """An unknown price is null, and the bill holds nothing."""
    body = ask.native("google/nano-banana-2", prompt="a", width=256, height=256).json()

    assert body["inference_status"]["cost"] is None
    assert sim.stats().bill == 0
    assert image_cost(None, images=1, width=1, height=1, steps=None) is None


def test_a_price_by_area_may_have_no_steps():
    """Without a number of steps in the price only the area counts."""
    pricing = replace(catalogue.get("black-forest-labs/FLUX-1-schnell").pricing.image, base_steps=None)

    assert image_cost(pricing, images=2, width=512, height=512, steps=9) == pricing.usd_per_unit / 2
