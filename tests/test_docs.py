"""What the documentation says runs: every block of README.md and docs/ against the simulator, and every example in a docstring."""

import ast
import asyncio
import doctest
import importlib
import inspect
import os
import re
from pathlib import Path

import pytest

from resilient_ai import AsyncClient
from resilient_ai.simulator import serve

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROSE = [*PAGES, *(ROOT / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "resilient_ai").rglob("*.py")
    if path.name != "__main__.py"
)
_BLOCK = re.compile(r"^```python(?P<marks>[^\n]*)\n(?P<source>.*?)^```$", re.MULTILINE | re.DOTALL)
_PROMISE = re.compile(r"# -> (.+)$", re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)(?:#[^)]*)?\)")


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """An environment without settings, and a home that nobody has used."""
    for name in [name for name in os.environ if name.startswith(("RESILIENT_AI_", "DEEPINFRA_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RESILIENT_AI_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def simulator():
    with serve() as simulator:
        yield simulator


@pytest.fixture
def service(bare, monkeypatch, simulator):
    """The simulator, with an environment that leads there."""
    simulator.reset()
    monkeypatch.setenv("DEEPINFRA_API_KEY", "key-of-the-test")
    monkeypatch.setenv("RESILIENT_AI_BASE_URL", simulator.base_url)
    return simulator


def blocks_of(page):
    """Yield each Python block compiled so that its line numbers are those of the page, and whether it shall run."""
    text = page.read_text()
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("source"))
        tree = ast.parse("\n" * line + found["source"], page.name)
        code = compile(tree, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        yield code, "no-run" not in found["marks"]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_the_blocks_of_a_page_run_in_order(page, service, capsys):
    """They share their names, as in one session of a reader who types them in, and print what `# ->` promises."""
    names = {"__name__": "__main__"}
    with asyncio.Runner() as runner:
        try:
            for code, runs in blocks_of(page):
                outcome = eval(code, names) if runs else None  # noqa: S307 - our own pages
                if inspect.iscoroutine(outcome):
                    runner.run(outcome)
        finally:
            for name in [name for name, value in names.items() if isinstance(value, AsyncClient)]:
                runner.run(names[name].aclose())

    shown = capsys.readouterr().out.splitlines()
    for promise in _PROMISE.findall(page.read_text()):
        assert any(line.startswith(promise) for line in shown), promise


def test_most_pages_have_blocks_that_run():
    """A typing error in the marks of a block must not make it a picture."""
    with_blocks = {page.stem for page in PAGES if any(runs for _, runs in blocks_of(page))}

    assert {page.stem for page in PAGES} - with_blocks <= {"performance"}


@pytest.mark.parametrize("page", PROSE, ids=lambda path: path.stem)
def test_links_inside_of_the_project_lead_somewhere(page):
    """A relative link names a file that exists."""
    missing = [link for link in _LINK.findall(page.read_text()) if not (page.parent / link).exists()]

    assert missing == []


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_hold(name, bare):
    """Every `>>>` in a docstring gives what stands below it."""
    module = importlib.import_module(name)

    results = doctest.testmod(module)

    assert results.failed == 0
