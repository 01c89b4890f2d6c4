"""What we give to monitoring: every metric that rules and dashboard name is there in a real scrape."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from balsadb.server.telemetry import OUTCOMES
from deploy.promql import PromqlError, parse
from server.lone_node import get, lone_node, redis

DEPLOY = Path(__file__).parents[2] / "deploy"
OURS = {"job", "instance"}
"""Labels that Prometheus adds to every target."""
BY_PROMETHEUS = {"up"}
"""Metrics that it makes itself."""

GROUPS = yaml.safe_load((DEPLOY / "prometheus-alerts.yaml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
BOARD = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
TARGETS = [(panel["title"], target) for panel in BOARD["panels"] for target in panel.get("targets", ())]


def filled_in(expression: str) -> str:
    """Do what Grafana does with its variables."""
    return expression.replace("$__rate_interval", "1m").replace("$job", "balsadb")


EXPRESSIONS = [pytest.param(rule["expr"], id=rule["alert"]) for rule in RULES]
EXPRESSIONS += [pytest.param(filled_in(target["expr"]), id=title) for title, target in TARGETS]


@pytest.fixture(scope="module")
def scraped(tmp_path_factory) -> dict[str, set[str]]:
    """Return the samples of a real scrape by name, each with the labels that it has."""

    async def run() -> str:
        async with lone_node(tmp_path_factory.mktemp("deploy") / "data") as node:
            await redis(node, b"set k 1", b"incrby k x")
            return (await get(node, "/metrics"))[2].decode()

    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(asyncio.run(run())):
        for name in {family.name, *(f"{family.name}_total" for _ in [0] if family.type == "counter")}:
            found.setdefault(name, set())
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    # These have a sample only where there is another member.
    for name in ("connected", "silence_seconds", "lag_entries"):
        found[f"balsadb_member_{name}"].add("member")
    for name in ("done", "size"):
        found[f"balsadb_transfer_{name}_bytes"].add("member")
    return found


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_parses_and_names_only_what_a_scrape_has(expression, scraped):
    selectors, grouped = parse(expression)
    assert selectors
    labels = set(OURS)
    for selector in selectors:
        if selector.name not in BY_PROMETHEUS:
            assert selector.name in scraped
            labels |= scraped[selector.name]
        for label, operator, value in selector.matchers:
            assert label in labels
            if label == "role":
                assert value in ("leader", "follower", "candidate", "pre-candidate", "learner")
            if label == "code":
                assert set(value.split("|") if operator == "=~" else [value]) <= {
                    c.decode() for c in OUTCOMES
                }
    assert grouped <= labels


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_what_it_means_and_what_to_do(rule):
    assert re.fullmatch(r"Balsadb[A-Za-z]+", rule["alert"])
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["description"].endswith(".")
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    _, grouped = parse(rule["expr"])
    for label in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
        # What an aggregation drops is empty in the sentence.
        aggregated = re.match(r"(?:sum|max) by|histogram_quantile", rule["expr"])
        assert not aggregated or label in grouped


def test_alert_names_are_unique():
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


def test_the_dashboard_names_no_place_and_its_panels_do_not_overlap():
    assert {variable["name"] for variable in BOARD["templating"]["list"]} == {"datasource", "job"}
    for panel in BOARD["panels"]:
        assert panel.get("datasource", {"uid": "${datasource}"})["uid"] == "${datasource}"
    cells = [
        (x, y)
        for panel in BOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


@pytest.mark.parametrize(
    "text",
    [
        "sum by (job (a)",
        "rate(a)",
        "rate(a[5m]",
        "a{b=c}",
        'a{b="c"',
        "histogram_quantile(a, 0.9)",
        "a and 1",
        "a[5m]",
        "1 + 2",
        "a b",
        "nonsense(a)",
        "a >",
        "sum(rate(a[5]))",
    ],
)
def test_the_parser_finds_what_prometheus_would_refuse(text):
    with pytest.raises(PromqlError):
        parse(text)
