"""The page of `resilient-ai trace --html`, as text and in a real browser."""

import io
import os
import re
import shutil
from html.parser import HTMLParser

import pytest

from resilient_ai.cli._trace_markup import Markup, joined, tag
from resilient_ai.cli._trace_page import page
from resilient_ai.cli._trace_search import Wanted, find

from .test_trace import SCENES, lines
from .test_trace_calls import T, attempt, foreign
from .traces import LLAMA, recorded, span

EVIL = "<script>document.title='evil'</script><img src=x onerror=\"document.title='evil'\">\"'><b>&amp;"
EMPTY = {"meta", "link", "input", "br"}


def page_of(text, most=1000):
    return page(find(io.BytesIO(text.encode()), Wanted(most=most)))


def evil_lines():
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": EVIL,
        "resilient_ai.outcome": "error",
        "error.type": EVIL,
        "resilient_ai.tenant": EVIL,
        "resilient_ai.route": EVIL,
    }
    return lines(
        span(number=9, name=EVIL, attributes={}),
        span(parent_id=f"0x{9:016x}", name=EVIL, attributes=attributes, status={"status_code": "ERROR"}),
        attempt(attributes={f"resilient_ai.attempt.{name}": EVIL for name in ("kind", "model", "outcome")}),
        foreign(11, 10, name=EVIL),
    )


class Elements(HTMLParser):
    """Checks that what is opened is closed, and counts."""

    def __init__(self, text):
        super().__init__()
        self.open, self.names, self.attributes = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.attributes += attrs
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def text():
    return recorded(*SCENES).lines


def test_texts_are_escaped_in_one_place():
    """In elements and in attributes; what is HTML already stays."""
    assert tag("p", "<", Markup("<i>x</i>"), title='"') == '<p title="&quot;">&lt;<i>x</i></p>'
    assert tag("input", type="checkbox", id=None) == '<input type="checkbox">'
    assert joined("a&b", tag("br")) == "a&amp;b<br>"


def test_the_page_is_well_formed_and_runs_nothing(text):
    """No script, no style in an element, no address outside of it, and a policy that would forbid them."""
    found = Elements(page_of(text))
    assert not {"script", "img", "iframe", "object", "form"} & set(found.names)
    names = {name for name, _ in found.attributes}
    assert "style" not in names
    assert not any(name.startswith("on") for name in names)
    links = [value for name, value in found.attributes if name in {"href", "src"}]
    assert all(value.startswith(("#", "data:,")) for value in links)
    assert any(value.startswith("default-src 'none'; style-src 'sha256-") for _, value in found.attributes)


def test_the_same_file_makes_the_same_page(text):
    """Byte by byte."""
    assert page_of(text) == page_of(text)


def test_a_page_without_calls():
    """It says so."""
    assert "There are no calls to show." in page_of("")


def test_a_page_says_what_it_leaves_out():
    """Lines beyond those there is room for, calls that were not asked for, and what could not be read."""
    spans = [span(), *(foreign(number, 1, start_time=f"{T}00.9Z") for number in range(100, 350)), span(trace=2)]
    shown = page_of(lines(*spans) + '{"torn', 1)
    assert "1 of 2" in shown
    assert "the file ends within a span" in shown
    assert "and 50 more lines" in page_of(lines(*spans))


def test_harmful_names_stay_text():
    """There is no element that they would make."""
    shown = page_of(evil_lines())
    assert not {"script", "img", "b"} & set(Elements(shown).names)
    assert "&lt;script&gt;" in shown


# In a browser


@pytest.fixture(scope="module")
def chromium(text):  # which is made before: Playwright leaves a loop running in this thread
    program = shutil.which("chromium")
    if program is None:
        reason = "chromium is not installed"
        if os.environ.get("CI_REQUIRES_SERVICES"):
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, tmp_path):
    """Open a page from the disk; give it, what it said on the console, and what it asked for."""
    contexts = []

    def opened(text, width=1400, **options):
        path = tmp_path / "page.html"
        path.write_text(text)
        contexts.append(chromium.new_context(viewport={"width": width, "height": 900}, **options))
        tab = contexts[-1].new_page()
        said, asked = [], []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(path.as_uri())
        assert said == []
        assert asked == [path.as_uri()]
        return tab

    yield opened
    for context in contexts:
        context.close()


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("script", [True, False], ids=["scripts", "none"])
def test_a_browser_shows_every_call_and_attempt(visit, text, width, script):
    """From the disk, asking for nothing, on a telephone and on a wide screen, with scripts or without."""
    tab = visit(page_of(text), width, java_script_enabled=script)
    heads = tab.locator("tr.head th")
    assert heads.count() == 12
    assert heads.filter(has_text=LLAMA.partition("/")[2]).count() == 11
    attempts = tab.locator("tr.part th").filter(has_text=re.compile(r"^\d (initial|retry|hedge|fallback)"))
    assert attempts.count() == 14
    for row in (*heads.all(), *attempts.all()):
        assert row.is_visible()
    for words in (
        "wait, retry-after",
        "line, concurrency limit",
        "2 hedge",
        "cache hit",
        "first token after 350 ms",
        "$0.0000097",
    ):
        assert tab.locator("main").get_by_text(words).first.is_visible()


@pytest.mark.parametrize("width", [320, 400, 700, 1400])
def test_nothing_is_wider_than_the_screen(visit, text, width):
    """Nothing has to be moved sideways, no words lie on others, and letters are large enough to read."""
    for shown in (page_of(text), page_of(evil_lines())):
        tab = visit(shown, width)
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        boxes = tab.locator("main tr.head th, main tr.part th, main tr .took, main tr .came").evaluate_all(
            "all => all.filter(one => one.offsetParent && one.textContent.trim()).map(one => one.getBoundingClientRect().toJSON())"
        )
        assert all(box["left"] >= 0 and box["right"] <= width for box in boxes)
        assert _overlaps(boxes) == []
        sizes = tab.locator("main *").evaluate_all("all => all.map(one => parseFloat(getComputedStyle(one).fontSize))")
        assert min(sizes) >= 12


def test_bars_stand_where_they_should(visit, text):
    """The second attempt begins where the wait before it ends, after what the first took."""
    tab = visit(page_of(text))
    bars = (
        tab.locator("section")
        .first.locator("tr.part svg > :last-child")
        .evaluate_all(
            "all => all.map(one => { const box = one.getBoundingClientRect(); return [box.left, box.width] })"
        )
    )
    (left, _), whole = bars[0], 1400
    axis = tab.locator("section").first.locator("tr.head svg rect").bounding_box()
    per_second = axis["width"] / 4.65
    starts = [(one[0] - left) / per_second for one in bars]
    assert starts == pytest.approx([0, 0.8, 1.05, 1.35, 3.45], abs=0.02)
    assert bars[-1][0] + bars[-1][1] <= whole


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground(visit, text, scheme):
    """By 4.5 to 1 at least, by day and by night."""
    tab = visit(page_of(text), color_scheme=scheme)
    colours = tab.locator("h1, p, h2, h2 span, th, td, li, dt, dd, small, summary").evaluate_all(
        "all => all.map(one => [getComputedStyle(one).color, getComputedStyle(one.closest('section') || document.body).backgroundColor])"
    )
    assert min(_contrast(*pair) for pair in {tuple(pair) for pair in colours}) >= 4.5


def test_the_keyboard_reaches_everything(visit, text):
    """The way past the head, the box, the list, and the facts of every call, each with a frame around it."""
    tab = visit(page_of(text))
    reached = []
    for _ in range(4):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.textContent || document.activeElement.id"))
        assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert reached == ["To the calls", "only-failed", "List of 11 calls, 1 tool", f"all facts of chat {LLAMA}"]
    tab.keyboard.press("Enter")
    assert tab.get_by_text("6513270e269e0d37f2a74de452e6b438").is_visible()


def test_only_what_failed_can_be_left(visit, text):
    """Without a script."""
    tab = visit(page_of(text), java_script_enabled=False)
    tab.get_by_label("Only what failed").check()
    shown = [head for head in tab.locator("tr.head").all() if head.is_visible()]
    assert [head.locator(".came").text_content() for head in shown] == ["401"]


def test_a_page_counts_calls_as_everything_else_does(text):
    """Functions are no calls: the title, the list, what is shown of the file, and the sums say the same number."""
    shown = re.sub(r"<[^>]+>", " ", page_of(text, most=2))
    found = re.findall(r"(\d+ calls, \d tools?)|(\d+ of \d+ calls)|calls\s+(\d+)\s+tool", shown)
    assert ["".join(one) for one in found] == ["2 calls, 1 tool", "2 of 11 calls", "2", "2 calls, 1 tool"]


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"resilient_ai.cost.amount": 0.5}, True),
        ({"resilient_ai.cost.amount": 0.5, "gen_ai.usage.output_tokens": 3}, False),
        ({}, False),
    ],
)
def test_a_page_says_which_tokens_it_cannot_count(attributes, said):
    """Those of a stream that was left, which the ledger estimates; not where they are known, or nothing was paid."""
    left = {"gen_ai.operation.name": "chat", "resilient_ai.stream.outcome": "abandoned", **attributes}
    text = page_of(lines(span(attributes=left)))
    assert ("Without the tokens of 1 stream that did not come to an end" in text) == said


def test_the_list_leads_to_a_call(visit, text):
    """One line for each, which names what it came to."""
    tab = visit(page_of(text))
    tab.get_by_text("List of 11 calls, 1 tool").click()
    tab.get_by_role("link", name="tool weather").click()
    assert tab.evaluate("location.hash") == "#call-11"
    assert tab.locator("#call-11 th").text_content() == "✓ tool weather"


@pytest.mark.parametrize("width", [400, 1400])
def test_it_can_be_read_aloud(visit, text, width):
    """A table is a table at any width: each line has its name, its time, and what it came to; pictures are passed over."""
    tab = visit(page_of(text), width)
    said = tab.locator("section").first.aria_snapshot()
    for line in (
        'heading "2027-01-15 08:16:40.000 UTC trace 6513270e" [level=2]',
        'table "Calls of trace 6513270e"',
        "columnheader",
        'rowheader "1 initial"',
        'cell "begins after 800 ms"',
        'cell "429"',
    ):
        assert line in said
    assert tab.locator("svg:not([aria-hidden=true])").count() == 0
    assert tab.evaluate("document.documentElement.lang") == "en"


def test_harmful_names_do_nothing_in_a_browser(visit):
    """They are shown as they are."""
    tab = visit(page_of(evil_lines()))
    assert tab.title() == "1 call · resilient-ai trace"
    assert tab.locator("script, img, b").count() == 0
    assert "<script>document.title='evil'</script>" in tab.locator("main").inner_text()


def _overlaps(boxes):
    """Return pairs of boxes that lie on each other by more than a pixel."""
    found = []
    for place, one in enumerate(boxes):
        for other in boxes[place + 1 :]:
            across = min(one["right"], other["right"]) - max(one["left"], other["left"])
            down = min(one["bottom"], other["bottom"]) - max(one["top"], other["top"])
            if across > 1 and down > 1:
                found.append((one, other))
    return found


def _contrast(first, second):
    """Return the ratio of two colours as WCAG counts it."""

    def light(colour):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    darker, lighter = sorted((light(first), light(second)))
    return (lighter + 0.05) / (darker + 0.05)
