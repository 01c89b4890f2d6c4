"""The dashboard in a real browser, on a real cluster."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import urllib.request

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from balsadb.testing import LocalCluster

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SOON_MS = 15_000
"""What must show on a page shows within this time, or the test fails."""


@pytest.fixture(scope="module")
def browser():
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        if os.environ.get("BALSADB_TEST_EVERYTHING"):
            pytest.fail("no browser is installed (apt-get install chromium), and nothing may be skipped")
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        # Without its sandbox, because tests may run as root, where it has none.
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """Open pages; at the end, none of them may have complained about anything but a node that is away."""
    contexts, complaints = [], []

    def open_page(node, *, events: str | None = None, **options) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console", lambda message: complaints.append(message.text) if message.type == "error" else None
        )
        page.on("request", lambda request: asked.append(request.url))
        asked: list[str] = []
        page.asked = asked
        if events is not None:
            headers = {"Content-Type": "text/event-stream"}
            page.route("**/events", lambda route: route.fulfill(status=200, headers=headers, body=events))
        page.goto(f"http://{node.http_address}/")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [text for text in complaints if "net::ERR_" not in text] == []


def status_of(node) -> dict:
    with urllib.request.urlopen(f"http://{node.http_address}/status", timeout=5) as answer:
        return json.load(answer)


def events_of(status: dict) -> str:
    data = json.dumps(status | {"samples": []})
    return f"retry: 100000\nevent: history\ndata: []\n\nevent: status\ndata: {data}\n\n"


def test_a_killed_leader_shows_as_silent_and_its_successor_as_leader_on_every_other_page(cluster, opened):
    dead = cluster.wait_leader()
    pages = {node.id: opened(node) for node in cluster.nodes.values() if node.id != dead}
    for page in pages.values():
        expect(page.locator("#headline")).to_contain_text(f"Node {dead} leads in term", timeout=SOON_MS)
        expect(page.locator("#headline")).to_contain_text("All 3 nodes are there")
        expect(page.locator(f"#node-{dead}")).to_have_attribute("data-role", "leader")
    cluster.kill(dead)
    new = cluster.wait_leader(other_than=dead)
    for page in pages.values():
        expect(page.locator("#headline")).to_contain_text(f"Node {new} leads in term", timeout=SOON_MS)
        expect(page.locator("#headline")).to_contain_text(
            f"2 of 3 nodes are there; node {dead} does not answer"
        )
        expect(page.locator(f"#node-{new}")).to_have_attribute("data-role", "leader")
        expect(page.locator(f"#node-{dead}")).to_have_attribute("data-state", "silent")
        expect(page.locator(f"#node-{dead} .reach")).to_have_text(re.compile(r"no answer for \d+ s"))
        expect(page.locator("#changes tr").first).to_contain_text(f"node {new}")
    expect(pages[new].locator("#changes")).to_contain_text(f"The connection to node {dead} is gone.")
    expect(pages[new].locator(f"#node-{dead}")).to_contain_text("It has not said how far it is")
    assert next(m for m in status_of(cluster.nodes[new])["members"] if m["id"] == dead)["lag"] is None
    cluster.start(dead)
    for page in pages.values():
        expect(page.locator("#headline")).to_contain_text("All 3 nodes are there", timeout=2 * SOON_MS)


def test_a_leader_that_hangs_shows_as_silent_though_its_connections_stand(cluster, opened):
    hanging = cluster.wait_leader()
    cluster.pause(hanging)
    try:
        new = cluster.wait_leader(other_than=hanging)
        page = opened(cluster.nodes[new])
        expect(page.locator(f"#node-{hanging}")).to_have_attribute("data-state", "silent", timeout=SOON_MS)
        expect(page.locator("#changes")).to_contain_text("was silent for an election timeout")
    finally:
        cluster.resume(hanging)


def test_a_page_whose_own_node_is_gone_says_since_when_and_comes_back_with_it(cluster, opened):
    node = cluster.nodes[1]
    page = opened(node)
    expect(page.locator("#live")).to_have_text("live", timeout=SOON_MS)
    cluster.kill(1)
    expect(page.locator("#live")).to_contain_text(
        re.compile(r"no answer for \d+ s; this is as of "), timeout=SOON_MS
    )
    expect(page.locator("#node-1 .reach")).to_contain_text("no answer for")
    assert float(page.locator("main").evaluate("main => getComputedStyle(main).opacity")) < 0.6
    cluster.start(1)
    expect(page.locator("#live")).to_have_text("live", timeout=2 * SOON_MS)
    assert float(page.locator("main").evaluate("main => getComputedStyle(main).opacity")) == 1


def test_a_node_stops_in_time_though_pages_follow_it(cluster, opened):
    pages = [opened(cluster.nodes[1]) for _ in range(3)]
    for page in pages:
        expect(page.locator("#live")).to_have_text("live", timeout=SOON_MS)
    began = time.monotonic()
    cluster.stop(1)
    assert time.monotonic() - began < 5


def test_the_page_asks_nobody_but_its_own_node(shared_cluster, opened):
    node = shared_cluster.nodes[1]
    page = opened(node)
    expect(page.locator("#live")).to_have_text("live", timeout=SOON_MS)
    assert set(page.asked) == {f"http://{node.http_address}/", f"http://{node.http_address}/events"}


def test_curves_begin_with_what_was_before_the_page(shared_cluster, opened):
    node = shared_cluster.nodes[1]
    deadline = time.monotonic() + 15
    while status_of(node)["uptime_ms"] < 5_000 and time.monotonic() < deadline:
        time.sleep(0.05)
    page = opened(node)
    expect(page.locator("#live")).to_have_text("live", timeout=SOON_MS)
    points = page.locator("#curves polyline").first.get_attribute("points")
    assert len(points.split(" ")) >= 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_and_follows_the_chosen_colours(shared_cluster, opened, scheme):
    page = opened(shared_cluster.nodes[1], color_scheme=scheme, viewport={"width": 360, "height": 740})
    expect(page.locator("#live")).to_have_text("live", timeout=SOON_MS)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    red, green, blue = map(
        int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]
    )
    assert (red + green + blue > 384) == (scheme == "light")


def test_what_nodes_say_is_shown_as_text_and_never_as_markup(shared_cluster, opened):
    evil = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
    status = status_of(shared_cluster.nodes[1])
    status |= {"version": evil, "unready": evil, "ready": False, "cluster_id": evil, "role": evil}
    for member in status["members"]:
        member |= {"client_address": evil, "peer_address": evil}
    status["leader_changes"] = [{"time_ms": 0, "term": 1, "leader": 1, "previous": 0, "reason": evil}]
    page = opened(shared_cluster.nodes[1], events=events_of(status))
    for place in ("#about", "#headline", "#node-1", "#changes"):
        expect(page.locator(place)).to_contain_text("<img src=x onerror=", timeout=SOON_MS)
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1
    assert page.title().startswith("BalsaDB")


def test_what_is_under_way_is_told_in_sentences(shared_cluster, opened):
    status = status_of(shared_cluster.nodes[1])
    status["learners"] = [4]
    status["change"] = {"adding": [4], "removing": [2], "step": "the new nodes are catching up"}
    status["transfers"] = [{"to": 4, "sent_bytes": 1_048_576, "total_bytes": 4_194_304}]
    status["receiving"] = {"received_bytes": 512, "total_bytes": 2048}
    page = opened(shared_cluster.nodes[1], events=events_of(status))
    doing = page.locator("#doing")
    expect(doing).to_contain_text(
        "adding node 4, removing node 2; the new nodes are catching up.", timeout=SOON_MS
    )
    expect(doing).to_contain_text("Sending the state to node 4: 1.0 MiB of 4.0 MiB.")
    expect(doing).to_contain_text("Receiving the state: 512 B of 2.0 KiB.")


def test_without_a_leader_the_page_says_so(opened):
    with LocalCluster(nodes=3) as cluster:
        page = opened(cluster.nodes[1])
        expect(page.locator("#live")).to_have_text("live", timeout=SOON_MS)
        cluster.kill(2)
        cluster.kill(3)
        expect(page.locator("#headline")).to_have_attribute("data-level", "bad", timeout=SOON_MS)
        expect(page.locator("#headline")).to_contain_text("No leader is known: an election is under way.")
        expect(page.locator("#headline")).to_contain_text("nodes 2, 3 do not answer", timeout=SOON_MS)
        expect(page.locator("#headline")).to_contain_text("can't serve now")
