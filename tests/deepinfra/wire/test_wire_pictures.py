"""Pictures in the answers of the image routes."""

import base64
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.core.errors import BadRequest, InvalidResponse, ProviderError, ServerFailed
from resilient_ai.core.operations import Image
from resilient_ai.core.results import ImageResult
from resilient_ai.deepinfra.wire.pictures import data_uri, read_images, read_native_images
from resilient_ai.testing import PIXEL

JPEG = b"\xff\xd8\xff\xe0...."
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
OPERATION = Image(model="asked", prompt="dusk")


def encoded(data):
    return base64.b64encode(data).decode()


def openai(body, **headers):
    return read_images(body if isinstance(body, bytes) else orjson.dumps(body), operation=OPERATION, headers=headers)


def native(body, **headers):
    return read_native_images(
        body if isinstance(body, bytes) else orjson.dumps(body), operation=OPERATION, headers=headers
    )


def kinds(result):
    return [(picture.media_type, picture.data) for picture in result.images]


class TestForms:
    """How the bytes of a picture stand in JSON."""

    @pytest.mark.parametrize(
        ("text", "media_type", "data"),
        [
            (encoded(PIXEL), "image/png", PIXEL),
            (f"data:image/png;base64,{encoded(PIXEL)}", "image/png", PIXEL),
            (f"data:image/png;base64,{encoded(JPEG)}", "image/jpeg", JPEG),
            (f"data:;base64,{encoded(SVG)}", "image/svg+xml", SVG),
            ("data:image/svg+xml,%3Csvg%20width='1'/%3E", "image/svg+xml", b"<svg width='1'/>"),
            ("data:image/svg+xml;utf8,<svg>a,b</svg>", "image/svg+xml", b"<svg>a,b</svg>"),
            (f"  {encoded(PIXEL)[:40]}\r\n{encoded(PIXEL)[40:]}\n", "image/png", PIXEL),
            (encoded(b"RIFF....WEBP"), "image/webp", b"RIFF....WEBP"),
            (encoded(b"GIF89a"), "image/gif", b"GIF89a"),
        ],
    )
    def test_the_bytes_decide(self, text, media_type, data):
        """Base64 alone, data URIs of either kind, and names that say something else."""
        assert kinds(native({"images": [text]})) == [(media_type, data)]
        assert kinds(openai({"data": [{"b64_json": text}]})) == [(media_type, data)]
        assert kinds(openai({"data": [{"url": text}]})) == [(media_type, data)]

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("%%%", "picture 1 is not base64"),
            (encoded(PIXEL)[:-1], "picture 1 is not base64"),
            ("data:image/png;base64,%%%", "picture 1 is not base64"),
            ("ümlaut", "picture 1 is not base64"),
            (encoded(b"hello"), "picture 1 is not a PNG, JPEG, WebP, GIF or SVG"),
            ("data:text/html,<html>", "picture 1 is not a PNG, JPEG, WebP, GIF or SVG"),
            ("data:", "picture 1 is not a PNG, JPEG, WebP, GIF or SVG"),
            ("", "picture 1 is missing"),
            (None, "picture 1 is missing"),
            ({"a": 1}, "picture 1 is missing"),
            (7, "picture 1 is missing"),
        ],
    )
    def test_what_is_no_picture(self, text, complaint):
        """It is named by its place, and the others are not used either."""
        with pytest.raises(InvalidResponse, match=complaint) as caught:
            native({"images": [encoded(PIXEL), text]})
        assert caught.value.model == "asked"
        with pytest.raises(InvalidResponse, match=complaint):
            openai({"data": [{"b64_json": encoded(PIXEL)}, {"b64_json": text}]})

    @pytest.mark.parametrize(
        ("address", "place"),
        [
            ("https://pictures.example/a.png?signature=SECRET", "pictures.example"),
            ("http://user:SECRET@10.0.0.1:8080/a.png?key=SECRET", "10.0.0.1"),
            ("https://?SECRET", "without a host"),
            ("https://[broken?SECRET", "without a host"),
        ],
    )
    def test_an_address_is_never_fetched(self, address, place):
        """The complaint names the host and keeps the signature to itself."""
        with pytest.raises(InvalidResponse) as caught:
            native({"output": [address]})
        assert f"picture 0 is an address ({place}), and the client never fetches one" in str(caught.value)
        assert "SECRET" not in str(caught.value)

    def test_a_signature_stays_out_of_the_excerpt(self):
        """The query of an address opens the picture to whoever reads the log."""
        with pytest.raises(InvalidResponse) as caught:
            openai({"data": [{"url": "https://pictures.example/a.png?signature=SECRET"}]})
        assert "https://pictures.example/a.png?[redacted]" in caught.value.excerpt
        assert "SECRET" not in caught.value.excerpt

    def test_a_data_uri(self):
        """The bytes decide what it says; what is no picture is bytes."""
        assert data_uri(PIXEL) == f"data:image/png;base64,{encoded(PIXEL)}"
        assert data_uri(b"hi") == "data:application/octet-stream;base64,aGk="


class TestNativeRoute:
    """Answers with `images` or `output`."""

    def test_an_answer(self):
        """Pictures, flags, seed, cost and names are those of the service."""
        body = {
            "images": [encoded(PIXEL), encoded(JPEG), encoded(SVG)],
            "nsfw_content_detected": [False, True],
            "seed": 2**64 - 1,
            "request_id": "r",
            "inference_status": {"status": "succeeded", "cost": 0.0005, "runtime_ms": 400},
        }
        result = native(body)
        assert [picture.media_type for picture in result.images] == ["image/png", "image/jpeg", "image/svg+xml"]
        assert [picture.flagged for picture in result.images] == [False, True, None]
        assert (result.seed, result.request_id, result.usage) == (2**64 - 1, "r", None)
        assert (result.cost.amount, result.cost.source) == (Decimal("0.0005"), "provider")
        assert (result.model, result.served_by) == ("asked", "asked")

    @pytest.mark.parametrize("flags", [None, "yes", [1], ["true"], [None], []])
    def test_flags_that_are_none(self, flags):
        """What is not true or false says nothing."""
        assert native({"images": [encoded(PIXEL)], "nsfw_content_detected": flags}).images[0].flagged is None

    @pytest.mark.parametrize("seed", [-1, 1.5, "7", True, None, [7], 2.0**64])
    def test_a_seed_that_cannot_be(self, seed):
        """It is not known."""
        assert native({"images": [encoded(PIXEL)], "seed": seed}).seed is None

    @pytest.mark.parametrize("output", [encoded(PIXEL), [encoded(PIXEL)]])
    def test_the_form_of_cog(self, output):
        """`output` is one picture or several; an empty `images` beside it is nothing."""
        assert kinds(native({"output": output, "images": []})) == [("image/png", PIXEL)]

    @pytest.mark.parametrize("body", [{}, {"images": []}, {"images": None, "output": None}, {"images": {"0": "x"}}])
    def test_no_picture(self, body):
        """An answer without one is none."""
        with pytest.raises(InvalidResponse, match="it has no picture"):
            native(body)

    def test_a_failure_behind_status_200(self):
        """An error in the body counts, with the status it names."""
        with pytest.raises(ServerFailed, match="out of memory"):
            native({"images": [], "error": "out of memory"})
        with pytest.raises(BadRequest, match="no such size"):
            openai({"error": {"message": "no such size", "code": 400}})


class TestOpenAIRoutes:
    """Answers with `data`."""

    def test_an_answer(self):
        """The prompt that was drawn, the usage and its cost are kept."""
        body = {
            "model": "told",
            "data": [{"b64_json": encoded(PIXEL), "revised_prompt": "a dusk"}, {"url": data_uri(JPEG)}],
            "usage": {"prompt_tokens": 5, "estimated_cost": 0.002},
            "estimated_cost": 7,
        }
        result = openai(body, **{"x-request-id": "h"})
        assert [picture.revised_prompt for picture in result.images] == ["a dusk", None]
        assert [picture.flagged for picture in result.images] == [None, None]
        assert (result.model, result.served_by, result.request_id) == ("told", "asked", "h")
        assert (result.usage.input_tokens, result.cost.amount) == (5, Decimal("0.002"))

    @pytest.mark.parametrize(("cost", "amount"), [(0.25, Decimal("0.25")), (0, Decimal(0)), (-1, None), ("1", None)])
    def test_a_cost_beside_the_data(self, cost, amount):
        """It counts where the usage names none; what cannot be is not known."""
        result = openai({"data": [{"b64_json": encoded(PIXEL)}], "estimated_cost": cost})
        assert (result.cost and result.cost.amount, result.usage) == (amount, None)

    @pytest.mark.parametrize("data", [None, [], "x", {"b64_json": "x"}])
    def test_no_picture(self, data):
        """An answer without one is none."""
        with pytest.raises(InvalidResponse, match="it has no picture"):
            openai({"data": data})

    def test_a_row_that_is_no_object(self):
        """It holds no picture."""
        with pytest.raises(InvalidResponse, match="picture 0 is missing"):
            openai({"data": [encoded(PIXEL)]})

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[]"])
    def test_a_body_that_is_no_json_object(self, body):
        """It is no answer of either route."""
        for reader in (openai, native):
            with pytest.raises(InvalidResponse, match="the body is"):
                reader(body)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([encoded(PIXEL), data_uri(JPEG), "https://x", "https://[", "data:,", "data:;base64,="])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["b64_json", "url", "revised_prompt", "message", "code"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(
    body=st.dictionaries(
        st.sampled_from(
            ["data", "images", "output", "nsfw_content_detected", "seed", "usage", "inference_status", "error", "id"]
        ),
        ANYTHING,
    )
)
@pytest.mark.parametrize("reader", [openai, native])
def test_whatever_comes_is_a_result_or_an_error_of_ours(reader, body):
    """No JSON makes a reader stumble."""
    try:
        result = reader(body)
    except ProviderError as failure:
        assert failure.model == "asked"
    else:
        assert isinstance(result, ImageResult)
        assert all(picture.media_type.startswith("image/") for picture in result.images)
