"""Image requests on the native and the OpenAI routes."""

import base64
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.core.errors import InvalidInput
from resilient_ai.core.operations import Image
from resilient_ai.deepinfra.wire.images import (
    image_body,
    image_form,
    image_style,
    native_image_body,
    standard_size,
)
from resilient_ai.testing import PIXEL

JPEG = b"\xff\xd8\xff\xe0...."


def image(**options):
    return Image(**({"model": "m", "prompt": "dusk"} | options))


def native(takes="size", **options):
    return native_image_body(image(**options), takes=takes)


def form(**options):
    return {name: content if file else content.decode() for name, file, content, _ in image_form(image(**options))}


@pytest.mark.parametrize(
    ("model", "takes"),
    [
        ("stabilityai/sd3.5", "aspect_ratio"),
        ("stabilityai/sd3.5-medium", "aspect_ratio"),
        ("stabilityai/sdxl-turbo", "aspect_ratio"),
        ("stability-ai/sdxl", "cog"),
        ("black-forest-labs/FLUX-1-dev", "size"),
        ("nobody/knows", "size"),
    ],
)
def test_how_models_take_a_size(model, takes):
    """A few have a way of their own."""
    assert image_style(model) == takes


class TestNativeRoute:
    """Pictures from words."""

    @pytest.mark.parametrize("takes", ["size", "aspect_ratio"])
    def test_the_shortest(self, takes):
        """Nothing is sent that was not given, and the model stands in the path."""
        assert native(takes) == {"prompt": "dusk"}

    def test_every_field(self):
        """Each goes by its name on the wire."""
        options = {"steps": 4, "guidance_scale": 0.0, "negative_prompt": "rain", "seed": 0, "extra": {"custom": [1]}}
        assert native(size="640x480", n=2, images=PIXEL, **options) == {
            "prompt": "dusk",
            "width": 640,
            "height": 480,
            "num_images": 2,
            "num_inference_steps": 4,
            "guidance_scale": 0.0,
            "negative_prompt": "rain",
            "seed": 0,
            "image": "data:image/png;base64," + base64.b64encode(PIXEL).decode(),
            "custom": [1],
        }

    def test_cog_puts_everything_inside_input(self):
        """The caller's own fields as well, and counts by another name."""
        assert native("cog", size="512x512", n=3, seed=7, extra={"scheduler": "K"}) == {
            "input": {
                "prompt": "dusk",
                "width": 512,
                "height": 512,
                "num_outputs": 3,
                "seed": 7,
                "scheduler": "K",
            }
        }

    @pytest.mark.parametrize("takes", ["size", "cog"])
    def test_a_ratio_becomes_a_size(self, takes):
        """Where the model takes no ratio, it is the largest standard size of it."""
        body = native(takes, aspect_ratio="16:9")
        assert body.get("input", body) == {"prompt": "dusk", "width": 1024, "height": 576}

    def test_a_ratio_without_a_standard_size(self):
        """It is refused by name before anything is sent."""
        with pytest.raises(InvalidInput, match="aspect_ratio: 'm' takes a size, and '99:98' has no standard one") as it:
            native(aspect_ratio="99:98")
        assert (it.value.field, it.value.value) == ("aspect_ratio", "99:98")

    @pytest.mark.parametrize("ratio", ["16:9", "99:98", "7:3"])
    def test_a_ratio_is_sent_as_it_is(self, ratio):
        """To a model that takes one."""
        assert native("aspect_ratio", aspect_ratio=ratio) == {"prompt": "dusk", "aspect_ratio": ratio}

    @pytest.mark.parametrize(
        ("size", "ratio"),
        [
            ("1024x1024", "1:1"),
            ("1024x576", "16:9"),
            ("576x1024", "9:16"),
            ("1344x576", "21:9"),
            ("576x1344", "9:21"),
            ("1152x896", "9:7"),
        ],
    )
    def test_a_standard_size_becomes_its_ratio(self, size, ratio):
        """Where the model takes no size; 7:3 goes by the name that everybody uses."""
        assert native("aspect_ratio", size=size) == {"prompt": "dusk", "aspect_ratio": ratio}

    @pytest.mark.parametrize("size", ["512x512", "1023x1024", "2048x2048", "1024x1000", "10x9999"])
    def test_another_size_has_no_ratio(self, size):
        """The picture would come in another size than was asked for, so it is refused."""
        with pytest.raises(InvalidInput, match=f"size: 'm' takes an aspect_ratio, and '{size}' is not the standard"):
            native("aspect_ratio", size=size)

    def test_what_the_route_has_no_field_for(self):
        """A second source picture and a mask are refused by name."""
        with pytest.raises(InvalidInput, match="images: the native route takes one source image") as caught:
            native(images=[PIXEL, PIXEL])
        assert caught.value.value == 2
        with pytest.raises(InvalidInput, match="mask: the native route takes no mask; use route='openai'"):
            native(images=PIXEL, mask=PIXEL)


class TestOpenAIRoutes:
    """Pictures from words as JSON, pictures from pictures as a form."""

    def test_words(self):
        """Pictures come back as base64."""
        assert image_body(image(aspect_ratio="1:1", n=2, user="u", extra={"quality": "hd"})) == {
            "model": "m",
            "prompt": "dusk",
            "size": "1024x1024",
            "n": 2,
            "response_format": "b64_json",
            "user": "u",
            "quality": "hd",
        }

    @pytest.mark.parametrize(
        ("name", "value"), [("seed", 0), ("steps", 4), ("guidance_scale", 0.0), ("negative_prompt", "rain")]
    )
    def test_fields_that_only_the_native_route_has(self, name, value):
        """They are refused instead of being left out in silence."""
        with pytest.raises(InvalidInput, match=f"{name}: only the native route has it") as caught:
            image_body(image(**{name: value}))
        assert (caught.value.field, caught.value.value) == (name, value)

    def test_an_edit(self):
        """Every field of both routes, all pictures by the same name, the mask last."""
        options = {"steps": 4, "guidance_scale": 1.5, "negative_prompt": "rain", "seed": 7, "user": "ü"}
        fields = image_form(image(images=[PIXEL, JPEG], mask=PIXEL, size="512x512", extra={"x": [1]}, **options))
        assert [(name, content.decode()) for name, file, content, _ in fields if file is None] == [
            ("model", "m"),
            ("prompt", "dusk"),
            ("num_inference_steps", "4"),
            ("guidance_scale", "1.5"),
            ("negative_prompt", "rain"),
            ("seed", "7"),
            ("size", "512x512"),
            ("n", "1"),
            ("response_format", "b64_json"),
            ("user", "ü"),
            ("x", "[1]"),
        ]
        assert {media for _, file, _, media in fields if file is None} == {"text/plain; charset=utf-8"}
        assert fields[-3:] == [
            ("image", "image.png", PIXEL, "image/png"),
            ("image", "image.jpg", JPEG, "image/jpeg"),
            ("mask", "mask.png", PIXEL, "image/png"),
        ]

    def test_a_variation(self):
        """Without a prompt there is none in the form, and one source."""
        assert form(prompt="", images=PIXEL, n=2) == {
            "model": "m",
            "n": "2",
            "response_format": "b64_json",
            "image": PIXEL,
        }
        with pytest.raises(InvalidInput, match="images: a variation has one source image, got 2") as caught:
            form(prompt="", images=[PIXEL, JPEG])
        assert caught.value.value == 2

    def test_bytes_of_no_known_kind(self):
        """A picture that was let through unchecked goes as bytes without a suffix."""
        unchecked = image(images=PIXEL).model_copy(update={"images": (b"????",)})
        assert image_form(unchecked)[-1] == ("image", "image", b"????", "application/octet-stream")


@given(across=st.integers(1, 99), down=st.integers(1, 99))
def test_a_standard_size_is_the_largest_of_its_ratio(across, down):
    """Sides of 256 to 1440, multiples of 32, at most 1024x1024 pixels; found like this by trying all."""
    sides = range(256, 1441, 32)
    fitting = [
        (width, height)
        for width in sides
        for height in sides
        if width * down == height * across and width * height <= 1024 * 1024
    ]
    assert standard_size(f"{across}:{down}") == (max(fitting) if fitting else None)


@given(st.sampled_from(range(256, 1441, 32)), st.sampled_from(range(256, 1441, 32)))
def test_a_size_that_is_taken_as_a_ratio_comes_back_the_same(width, height):
    """Or it is refused: what is drawn is always what was asked for."""
    try:
        ratio = native("aspect_ratio", size=f"{width}x{height}")["aspect_ratio"]
    except InvalidInput:
        common = math.gcd(width, height)
        assert standard_size(f"{width // common}:{height // common}") != (width, height)
    else:
        assert standard_size(ratio) == (width, height)
