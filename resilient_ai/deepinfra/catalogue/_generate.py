"""Writes ids.py, the typed model ids, from models.json, when run with `python -m`."""

import sys
from pathlib import Path

from resilient_ai.deepinfra.catalogue.lookup import Catalogue, catalogue
from resilient_ai.deepinfra.catalogue.models import ModelKind

TARGET = Path(__file__).with_name("ids.py")
ALIASES: dict[str, ModelKind] = {
    "ChatModel": "chat",
    "CompletionModel": "completion",
    "EmbeddingModel": "embedding",
    "ImageModel": "image",
}
HEADER = '''\
# Generated from models.json by `python -m resilient_ai.deepinfra.catalogue._generate`; edit that file, not this one.
"""The ids of DeepInfra's models by kind, retired ones included, for editors and type checkers."""

from typing import Literal, TypeAlias
'''


def source(models: Catalogue = catalogue) -> str:
    """Return the text of ids.py for these models: one alias per kind, one id per line, sorted."""
    return HEADER + "".join(_alias(name, kind, models) for name, kind in ALIASES.items())


def main(target: str | Path = TARGET) -> None:
    """Write the text to a file, by default to ids.py beside this one."""
    Path(target).write_text(source(), encoding="utf-8")


def _alias(name: str, kind: ModelKind, models: Catalogue) -> str:
    lines = "".join(sorted(f'    "{model.id}",\n' for model in models if model.kind == kind))
    return f"\n{name}: TypeAlias = Literal[\n{lines}]\n"


if __name__ == "__main__":
    main(*sys.argv[1:])
