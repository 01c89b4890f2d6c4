"""The dashboard's page: one file, with a policy that lets it load and run nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from importlib import resources
from typing import Final

FILE: Final = "dashboard.html"


class Page:
    """The page and the headers that go with it."""

    def __init__(self) -> None:
        """Read the file. The policy names its one script and its one style sheet by their hashes."""
        self.body: bytes = resources.files(__package__).joinpath(FILE).read_bytes()
        policy = (
            "default-src 'none'",
            f"script-src '{_hash(self.body, b'script')}'",
            f"style-src '{_hash(self.body, b'style')}'",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        )
        self.headers: Mapping[str, str] = {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": "; ".join(policy),
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }


def _hash(body: bytes, tag: bytes) -> str:
    """Return the hash of what stands between a tag's only pair, as a policy names it."""
    (content,) = re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), body, re.DOTALL)
    return "sha256-" + base64.b64encode(hashlib.sha256(content).digest()).decode()
