"""Dashboard and alerts: what they ask for exists, a real Prometheus has it under load, and alerts fire when they should."""

import asyncio
import json
import math
import os
import re
import shutil
import subprocess
import time
from itertools import combinations
from pathlib import Path

import pytest
from opentelemetry.context import Context

from resilient_ai.middleware._metric_gauges import Gauges
from resilient_ai.middleware._metric_instruments import Instruments
from resilient_ai.observability import boards, configure
from resilient_ai.simulator import serve

from .receivers import prometheus
from .test_metrics import ALLOWED
from .troubles import CHAT, SMALL, Troubles

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent
RUNBOOK = (HERE.parents[1] / "docs" / "runbook.md").read_text()
GUIDE = (HERE.parents[1] / "docs" / "observability.md").read_text()
BOARD = json.loads(boards.text_of("dashboard.json"))
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
RULES = [
    {"alert": alert, "expr": expr, "rest": rest, "cause": re.search(r"cause: (\w+)", rest)[1]}
    for alert, expr, rest in re.findall(
        r"- alert: (\w+).*?\n +expr: \|\n(.*?)\n(        (?:for|labels):.*?)(?=\n\n|\Z)",
        boards.text_of("alerts.yaml"),
        re.DOTALL,
    )
]
QUERIES = {
    **{f"{panel['title']} {one['refId']}": one["expr"] for panel in PANELS for one in panel["targets"]},
    **{f"{rule['alert']} {rule['cause']}": rule["expr"] for rule in RULES},
    **{
        f"runbook {query}": query
        for query in re.findall(r"^```promql\n(.*?)\n^```$", RUNBOOK, re.MULTILINE | re.DOTALL)
    },
}
# Names that Prometheus itself gives to series and labels.
OWN_SERIES, OWN_LABELS = {"up", "vector"}, {"job", "le"}
# Of these a board would have little to tell: the parts of sums that it shows, and what is looked at once something is wrong.
UNSHOWN = {
    "gen_ai.client.inference.usage.cache_write.input_tokens",
    "gen_ai.client.inference.usage.reasoning.output_tokens",
    "gen_ai.client.inference.operation.input_tokens",
    "gen_ai.client.inference.operation.output_tokens",
    "gen_ai.client.embeddings.operation.input_tokens",
    "resilient_ai.cache.entry.count",
    "resilient_ai.cache.size",
    "resilient_ai.price.drift",
    "resilient_ai.request.active",
    "resilient_ai.retry.delay",
}


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Noted:
    """A meter that notes how Prometheus would call what is made with it."""

    def __init__(self):
        self.metrics = {}

    def create_histogram(self, name, *, unit, **_):
        self._note(name, unit, "_bucket", "_sum", "_count")

    def create_counter(self, name, *, unit, **_):
        self._note(name, unit, "_total")

    def create_observable_counter(self, name, _, unit, __):
        self._note(name, unit, "_total")

    def create_observable_up_down_counter(self, name, _, unit, __):
        self._note(name, unit, "")

    def create_observable_gauge(self, name, _, unit, __):
        self._note(name, unit, "")

    def _note(self, name, unit, *ends):
        middle = {"s": "_seconds", "By": "_bytes", "USD": "_USD"}.get(unit, "")
        self.metrics.update({f"{name.replace('.', '_')}{middle}{end}": name for end in ends})


@pytest.fixture(scope="module")
def metrics():
    """The name of each metric, by the names of its series."""
    meter = Noted()
    Gauges(meter)
    Instruments(meter, "both", Context())
    return meter.metrics


def promtool(*args):
    """Run promtool; without it the test is skipped, or fails where the services must be there."""
    program = shutil.which("promtool")
    if program is None:
        reason = "promtool is not installed; it comes with prometheus"
        if os.environ.get("CI_REQUIRES_SERVICES"):
            pytest.fail(reason)
        pytest.skip(reason)
    return subprocess.run([program, *args], capture_output=True, text=True, check=False)


def plain(query):
    """Return a query with a name in front of each selector, also where it may have an ending by OTLP."""
    return re.sub(r'\{__name__=~"(\w+)\(_ratio\)\?"(?:, )?', r"\1{", query)


def of_grafana(query, asked=".*"):
    """Return a query as Grafana sends it, for all services and models, or those that were asked for by one name."""
    for variable, value in (("$__rate_interval", "1m"), ("$service", ".*"), ("$model", ".*"), ("$asked", asked)):
        query = query.replace(variable, value)
    return query


def selectors(query):
    """Return each series that a query names, and the labels it is chosen by."""
    found = re.findall(r"\b((?:resilient_ai|gen_ai)_\w+)\{([^}]*)\}", plain(query))
    return [(name, set(re.findall(r"(\w+) *[=!]~?", labels))) for name, labels in found]


def labels_of(metric):
    return {name.replace(".", "_") for name in ALLOWED[metric]} | OWN_LABELS


def test_promtool_finds_nothing_wrong():
    """Every rule of the file is one that Prometheus takes, and none is there twice."""
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", str(Path(boards.__file__).parent / "alerts.yaml"))
    assert (done.returncode, f"SUCCESS: {len(RULES)} rules found" in done.stdout) == (0, True), done.stderr


def test_alerts_fire_when_they_should_and_else_do_not():
    """Every cause of every alert comes about with its own words, and has a case that is near to it and is none."""
    tests = HERE / "alerts_test.yaml"
    done = promtool("test", "rules", str(tests))
    assert done.returncode == 0, done.stdout + done.stderr
    cases = re.findall(r'^  - name: "(\w+)(, not)?: ', tests.read_text(), re.MULTILINE)
    causes = {rule["cause"] for rule in RULES}
    assert {cause for cause, quiet in cases if not quiet} == causes
    assert {cause for cause, quiet in cases if quiet} == causes


def test_there_are_eight_alerts():
    """Each rule has a severity, a cause of its own, words for who is woken, and a section of the runbook."""
    assert len({rule["alert"] for rule in RULES}) == 8
    assert len({rule["cause"] for rule in RULES}) == len(RULES) == boards.text_of("alerts.yaml").count("- alert:")
    for rule in RULES:
        assert re.search(r"severity: (page|ticket),", rule["rest"])
        assert re.search(r'summary: ".*\n +description: ".*', rule["rest"])
        assert rule["rest"].strip().endswith(f"runbook_url: docs/runbook.md#{rule['alert'].lower()}")
        grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", rule["expr"]))))
        assert set(re.findall(r"\$labels\.(\w+)", rule["rest"])) <= grouped


def test_each_alert_has_its_section_and_each_section_its_alert():
    """The runbook speaks of nothing else, of each cause, and says in every section the same five things."""
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))
    assert list(sections) == list(dict.fromkeys(rule["alert"] for rule in RULES))
    for rule in RULES:
        assert f"`{rule['cause']}`" in sections[rule["alert"]]
    for text in sections.values():
        parts = re.findall(r"^\*\*(.+?)\*\*", text, re.MULTILINE)
        assert parts == ["It means.", "Users feel", "Look first.", "Do.", "Ignore it"]


def test_the_guide_tells_the_thresholds_that_hold():
    """The table of alerts has each cause with the number and the time of the file."""
    for rule in RULES:
        (row,) = [line for line in GUIDE.splitlines() if line.startswith(f"| `{rule['alert']}` | `{rule['cause']}` |")]
        lasting = re.search(r"for: (\w+)", rule["rest"])
        severity = re.search(r"severity: (\w+)", rule["rest"])[1]
        cells = [cell.strip() for cell in row.strip("| ").split("|")]
        assert cells[3:] == [lasting[1] if lasting else "at once", severity]


def test_everything_that_is_asked_for_is_reported(metrics):
    """Every series and label in a query of the board or an alert is one that a client reports."""
    assert set(metrics.values()) == set(ALLOWED)
    for where, query in QUERIES.items():
        for series, labels in selectors(query):
            assert labels <= labels_of(metrics[series]), where
        words = set(re.findall(r"\b(?:resilient_ai|gen_ai)_\w+", plain(query)))
        named = words & set(metrics)
        known = set().union(*(labels_of(metrics[series]) for series in named))
        assert words - named <= known, where
        grouped = set(re.findall(r"\w+", " ".join(re.findall(r"(?:by|on|ignoring) \(([^)]*)\)", query))))
        assert grouped <= known | OWN_LABELS, where


def test_everything_that_is_reported_is_shown(metrics):
    """A new metric is put on the board, or said to have no place there."""
    shown = {metrics[series] for query in QUERIES.values() for series in set(re.findall(r"\w+", query)) & set(metrics)}
    assert set(ALLOWED) - shown == UNSHOWN


def test_what_is_asked_for_and_what_serves_are_two_choices(metrics):
    """Each figure is chosen by all that it tells of models, and shown by the one that served where it tells that."""
    asked, served = "gen_ai_request_model", {"gen_ai_response_model", "resilient_ai_attempt_model"}
    choices = {choice["name"]: choice.get("definition", "") for choice in BOARD["templating"]["list"]}
    assert choices["asked"].endswith(f", {asked})")
    assert choices["model"].endswith(", resilient_ai_attempt_model)")
    for panel in PANELS:
        for query in (target["expr"] for target in panel["targets"]):
            for series, chosen in selectors(query):
                told = labels_of(metrics[series]) & {asked, *served}
                assert told <= chosen, panel["title"]
                shown = re.findall(r"by \(([^)]*)\)", query)
                assert not (told & served and any(asked in labels for labels in shown)), panel["title"]
            pairs = re.findall(r'(\w+)=~"\$(asked|model)\b', query)
            assert {variable for label, variable in pairs if label == asked} <= {"asked"}, panel["title"]
            assert {variable for label, variable in pairs if label != asked} <= {"model"}, panel["title"]


def test_legends_name_labels_that_are_there():
    """A legend shows nothing but what its query keeps."""
    for panel in PANELS:
        for target in panel["targets"]:
            kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", target["expr"]))))
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert shown <= kept, panel["title"]
            assert kept - shown <= {"le"}, panel["title"]


def test_panels_are_alike():
    """Each has a unit, thresholds, legends, words that say what to do, a data source to choose, and a place of its own."""
    assert 15 <= len(PANELS) <= 22
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in PANELS:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert len(panel["description"]) > 80
        assert all("service" in target["expr"] and target["legendFormat"] for target in panel["targets"])
    places = [panel["gridPos"] for panel in BOARD["panels"]]
    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"],
            one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"],
        )
        assert any(apart), (one, other)
    assert {place["x"] + place["w"] <= 24 for place in places} == {True}


def test_panels_lead_to_the_runbook():
    """Every alert is linked from a panel, and every link leads to a section."""
    anchors = {link["url"] for panel in PANELS for link in panel.get("links", ())}
    assert anchors == {f"docs/runbook.md#{rule['alert'].lower()}" for rule in RULES}
    assert [link["url"] for link in BOARD["links"]] == ["docs/runbook.md"]


def test_panels_that_people_are_sent_to_exist():
    """Where an alert or the runbook names a panel, it is one of the board."""
    titles = {panel["title"] for panel in PANELS}
    slanted = set(re.findall(r"(?<!\*)\*([A-Z][^*\n]+)\*(?!\*)", RUNBOOK)) - {"Slanted"}
    quoted = {name for rule in RULES for name in re.findall(r"'([A-Z][^']+)'", rule["rest"])}
    assert slanted <= titles
    assert quoted <= titles
    assert len(slanted & quoted) > 5


def test_exemplars_are_on_where_there_are_some():
    """Figures of durations lead to traces; nothing else has exemplars."""
    on = {panel["title"] for panel in PANELS for target in panel["targets"] if target.get("exemplar")}
    assert on == {"Duration", "First chunk, p95"}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("conventions", ["1.41", "latest", "both"])
async def test_a_real_prometheus_has_data_for_every_query(conventions, tmp_path, metrics):
    """It scrapes a client with troubles: panels and runbook show something, alerts have something to judge, and names are as noted."""
    with (
        configure("shop", prometheus=0, globally=False) as telemetry,
        serve() as sim,
        prometheus(tmp_path / "prometheus", telemetry.prometheus_port) as server,
    ):
        async with Troubles(sim, telemetry, tmp_path / "home", conventions) as troubles:
            for wave in (1, 2):
                await troubles.happen(seed=wave * 100)
                at = await asyncio.to_thread(server.until, lambda: time_of_all(server, troubles), 30)
            empty = await asyncio.to_thread(without_data, server, at)
            routed = await asyncio.to_thread(shown_of_auto, server, at)
            names = await asyncio.to_thread(server.query, "count by (__name__) ({job='test'})", at)
    by_model = {"Duration", "Tokens per second of an answer", "Spend in an hour, by model"}
    assert routed == {title: {SMALL, CHAT} for title in by_model}
    # The part of a prompt that the service had in its cache is told by the newest conventions alone.
    assert empty == ({"Tokens C"} if conventions == "1.41" else set())
    reported = {dict(labels)["__name__"] for labels in names}
    assert {name for name in reported if name.startswith(("resilient_ai", "gen_ai"))} <= set(metrics)


def time_of_all(server, troubles):
    """Return the time, if the last scrape has what was done."""
    now = time.time()
    found = server.query("sum(resilient_ai_request_duration_seconds_count)", now)
    return now if sum(found.values()) == troubles.calls else None


def shown_of_auto(server, at):
    """Return which models panels tell apart where "auto" is what was asked for."""
    shown = {}
    for panel in PANELS:
        target = panel["targets"][0]
        # None of these calls is streamed.
        if "gen_ai_response_model" in target["legendFormat"] and panel["title"] != "First chunk, p95":
            found = server.query(of_grafana(target["expr"], asked="auto"), at)
            shown[panel["title"]] = {dict(labels)["gen_ai_response_model"] for labels in found}
    return shown


def without_data(server, at):
    """Return the queries that give nothing, or no numbers; those of alerts without their thresholds."""
    empty = set()
    for where, query in QUERIES.items():
        judged = query.partition("unless")[0] if where.endswith("no_figures") else query
        values = server.query(of_grafana(re.sub(r"(>=|==|>|<) [\d.]+", ">= 0", judged)), at).values()
        if not any(math.isfinite(value) for value in values):
            empty.add(where)
    return empty
