"""The dashboard's page: what it may load and run, which is nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import re

from balsadb.server.page import Page

PAGE = Page()
TEXT = PAGE.body.decode()
POLICY = PAGE.headers["Content-Security-Policy"]


def content_of(tag: str) -> str:
    (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", TEXT, re.DOTALL)
    return content


def test_the_policy_names_the_only_script_and_the_only_style_sheet_by_their_hashes():
    for tag in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(content_of(tag).encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in POLICY
        assert len(re.findall(f"<{tag}\\b", TEXT)) == 1


def test_the_policy_allows_nothing_else():
    assert POLICY.startswith("default-src 'none'; ")
    assert "unsafe" not in POLICY
    assert "*" not in POLICY
    for rule in ("connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"):
        assert rule in POLICY


def test_the_page_asks_no_other_server():
    assert set(re.findall(r"https?://[^\s\"']+", TEXT)) == {
        "http://www.w3.org/2000/svg"
    }  # a name, not a place
    assert not re.findall(r"\b(?:src|href)=(?!\"data:)", TEXT)
    assert "@import" not in TEXT
    assert "url(" not in TEXT


def test_the_script_never_makes_text_into_markup_or_code():
    script = content_of("script")
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert way not in script


def test_the_page_has_no_attributes_that_the_policy_would_block():
    body = TEXT.partition("<body>")[2].partition("<script>")[0]
    assert not re.findall(r"\b(?:style|on[a-z]+)=", body)
