"""Images told by their first bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.core.media import SUFFIXES, media_type_of

KINDS = [
    (b"\x89PNG\r\n\x1a\nrest", "image/png"),
    (b"\xff\xd8\xff\xe0", "image/jpeg"),
    (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b" \n<SVG xmlns=''>", "image/svg+xml"),
    (b"<?xml version='1.0'?>\n<svg>", "image/svg+xml"),
]


@pytest.mark.parametrize(("data", "expected"), KINDS)
def test_each_kind_is_known_by_its_bytes(data, expected):
    """Every kind that can be told has a suffix as well."""
    assert media_type_of(data) == expected
    assert expected in SUFFIXES


@pytest.mark.parametrize("data", [b"", b"\x89PN", b"RIFF\x00\x00\x00\x00WAVE", b"<?xml?><html>", b"<html>", b"GIF88a"])
def test_other_bytes_are_no_image(data):
    """What only resembles an image is none."""
    assert media_type_of(data) is None


@given(st.binary(max_size=64))
def test_any_bytes_have_an_answer(data):
    """No bytes make it fail."""
    assert media_type_of(data) in {None, *SUFFIXES}
