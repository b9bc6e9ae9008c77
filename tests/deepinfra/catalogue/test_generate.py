"""The typed ids are those of the catalogue, and the command that writes them writes the file that is there."""

import runpy
import sys
from datetime import date
from typing import get_args

import pytest

from resilient_ai.deepinfra.catalogue import Catalogue, ModelInfo, _generate, catalogue, ids

ALIASES = [
    (ids.ChatModel, "chat", 232),
    (ids.CompletionModel, "completion", 7),
    (ids.EmbeddingModel, "embedding", 31),
    (ids.ImageModel, "image", 55),
]


def test_the_file_is_current():
    """ids.py is what the command would write; if this fails, run the command its first line names."""
    assert _generate.TARGET.read_text(encoding="utf-8") == _generate.source()


@pytest.mark.parametrize(("alias", "kind", "count"), ALIASES)
def test_an_alias_holds_every_id_of_its_kind(alias, kind, count):
    """Every id of the kind is there once, sorted, retired ones included."""
    names = get_args(alias)

    assert len(names) == count
    assert list(names) == sorted(model.id for model in catalogue.find(kind, status=None))


def test_the_text_has_one_id_per_line():
    """Ids are sorted by themselves, one a line, under the alias of their kind."""
    chat = [ModelInfo(id=name, org="a", kind="chat") for name in ("a/c", "a/b-1", "a/b")]
    text = _generate.source(Catalogue(chat, as_of=date(2026, 1, 31)))

    assert '\nChatModel: TypeAlias = Literal[\n    "a/b",\n    "a/b-1",\n    "a/c",\n]\n' in text


def test_the_command_writes_the_file_it_is_given(tmp_path, monkeypatch):
    """Run as a program it writes the same text to the path of its argument."""
    target = tmp_path / "ids.py"
    monkeypatch.setattr(sys, "argv", ["_generate", str(target)])

    runpy.run_path(_generate.__file__, run_name="__main__")

    assert target.read_text(encoding="utf-8") == _generate.source()
