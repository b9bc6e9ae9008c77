"""Reading JSON values out of files: of one line or many, torn, odd, compressed, or longer than there is room for."""

import gzip
import io
import json
import math
import os
import re
import threading

import pytest

from resilient_ai.cli import _trace_json
from resilient_ai.cli._trace_json import Notes, opened, parsed, values_of
from resilient_ai.cli.failures import WrongUseError


def read(text):
    notes = Notes()
    data = text.encode() if isinstance(text, str) else text
    return list(values_of(io.BytesIO(data), notes)), notes


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", []),
        ("\n \n", []),
        ('{"a": 1}\n{"b": 2}\n', [{"a": 1}, {"b": 2}]),
        ('{"a": 1}\r\n\r\n{"b": 2}', [{"a": 1}, {"b": 2}]),
        ("\ufeff" + '{"a": 1}\n', [{"a": 1}]),
        ('{\n  "a": {\n    "b": 2\n  }\n}\n{\n  "c": 3\n}\n', [{"a": {"b": 2}}, {"c": 3}]),
        ('[\n{"a": 1},\n{"b": 2}\n]\n', [[{"a": 1}, {"b": 2}]]),
        ('{"resourceSpans": [\n  {}\n]}', [{"resourceSpans": [{}]}]),
    ],
    ids=["nothing", "blank", "lines", "windows", "mark", "indented", "array", "document"],
)
def test_values_of_one_line_or_of_many(text, values):
    """However they are laid out, and nothing is to be said about it."""
    assert read(text) == (values, Notes(values=len(values)))


@pytest.mark.parametrize("torn", ['{"a": {"b', '{"a": {', '{"a": 1,', "{"])
def test_a_file_that_ends_within_a_value(torn):
    """The rest is read, and it is told that the end is missing."""
    assert read('{"x": 1}\n' + torn) == ([{"x": 1}], Notes(values=1, torn=True))


@pytest.mark.parametrize("torn", ['{"a": {"b', '{"a": {', '{"a": 1,', "nonsense"])
def test_a_line_that_is_no_value(torn):
    """It is counted with its number, and what follows is read, also where it seemed to begin something longer."""
    assert read(f'{{"x": 1}}\n{torn}\n{{"y": 2}}\n') == ([{"x": 1}, {"y": 2}], Notes(values=2, unreadable=1, first=2))


def test_the_first_of_several_is_named():
    """Where to look first."""
    assert read("a\nb\n{}\n{\nc\n}\n")[1] == Notes(values=1, unreadable=3, first=1)


def test_what_python_writes_beyond_json():
    """Numbers that are none, and halves of characters, as `json.dumps` writes them."""
    values, _ = read(json.dumps({"a": math.nan, "b": -math.inf, "c": "\ud800"}) + "\n")
    assert math.isnan(values[0]["a"])
    assert (values[0]["b"], values[0]["c"]) == (-math.inf, "\ud800")


@pytest.mark.parametrize("text", [b"[" * 100_000, b"\xff\xfe{", b"9" * 5_000, b'{"a": ' * 5_000, b"\x00" * 50])
def test_what_no_parser_takes(text):
    """It is no value, and nothing else happens."""
    assert parsed(text) is None


def test_a_line_that_is_too_long_is_passed_over(monkeypatch):
    """It is never held whole, and the next one is read; the same holds for a value of many lines."""
    monkeypatch.setattr(_trace_json, "LONGEST", 50)
    long = json.dumps({"a": "x" * 120})
    tall = json.dumps({"a": ["x" * 20] * 4}, indent=1)
    values, notes = read(f'{long}\n{{"b": 1}}\n{tall}\n{long}')
    assert values == [{"b": 1}]
    assert notes.too_long == 3


def test_a_file_and_a_pipe_can_be_read_twice(tmp_path, monkeypatch):
    """What can be read once is kept meanwhile."""
    path, pipe = tmp_path / "t.jsonl", tmp_path / "pipe"
    path.write_text('{"a": 1}\n')
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text('{"a": 1}\n'))
    writer.start()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"a": 1}\n')))
    for name in (path, pipe, "-"):
        with opened(str(name)) as file:
            assert [list(values_of(file, Notes())) for _ in range(2)] == [[{"a": 1}], [{"a": 1}]]
    writer.join()


def test_a_compressed_file_is_not_guessed_at(tmp_path, monkeypatch):
    """The sentence says what to do."""
    path = tmp_path / "t.gz"
    path.write_bytes(gzip.compress(b"{}"))
    with pytest.raises(WrongUseError, match=re.escape(f"gzip -dc {path} | resilient-ai trace -")), opened(str(path)):
        pass
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(b"{}"))))
    with pytest.raises(WrongUseError, match=re.escape("give its text: gzip -dc | resilient-ai trace -")), opened("-"):
        pass
