"""Checking passwords without stopping the node: in threads, few at a time, and not as often as one likes.

    1. A pair of name and password that was right before is known by a fast keyed hash and costs 3 us. So it
       is cheap when hundreds of clients come back at once.
    2. The same pair that is being checked already is not checked twice: all who gave it get that answer.
    3. Otherwise it waits for a thread. Few may wait, fewer from one address, and an address from which many
       wrong ones came has to wait before it may try again. Who may not wait is told to come again.
    4. A wrong one is answered late.

Why 1 is safe: only pairs that were found right are in it, so a wrong guess is never answered from it.
Its key is random and dies with the process, so its hashes are of no use outside. Who can read the memory of
this process sees the passwords themselves come by. And an entry counts only as long as the kept password it
was checked against is one of its user's.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeAlias

from balsadb.kv.reply import Refusal
from balsadb.server.commands.connection import WRONG_PASSWORD
from balsadb.server.journal import journal
from balsadb.server.passwords import Accounts, matching

CHECKS_MAX: Final = 2
"""Passwords checked at the same time, each in a thread of its own with 16 MiB."""
WAITING_MAX: Final = 64
"""Passwords that wait for a thread: about four seconds' work. One more is refused."""
WAITING_PER_ADDRESS_MAX: Final = 8
"""The same from one address, those being checked included."""
FAILURE_SECONDS: Final = 0.25
"""A wrong password is answered so long after it was found to be wrong."""
FAILURES_PER_CONNECTION_MAX: Final = 3
"""After so many wrong passwords a connection is closed."""
FAILURES_PER_ADDRESS_MAX: Final = 10
FAILURES_SECONDS: Final = 10.0
"""After so many wrong passwords within this time, none but known ones is taken from an address until it has
passed: at most one guess a second. Short, because others at that address may be good and not known yet."""
ADDRESSES_MAX: Final = 4096
"""Addresses with failures that are remembered; past it the oldest one is forgotten."""
KNOWN_MAX: Final = 1024
"""Right pairs that are remembered; past it the oldest one has to be checked again."""
REPORT_SECONDS: Final = 60.0
"""How often wrong passwords are reported on standard error, at most."""

_TOO_MANY: Final = Refusal(b"TRYAGAIN too many passwords are being checked; nothing was done")
_TOO_OFTEN: Final = Refusal(b"TRYAGAIN too many wrong passwords came from this address; nothing was done")
_NOT_CHECKED: Final = Refusal(b"TRYAGAIN the password could not be checked; nothing was done")

Done: TypeAlias = Callable[[Refusal | None], None]
"""Is told None when the password was right."""


class Attempt:
    """Somebody who waits for an answer."""

    __slots__ = ("done", "party")

    def __init__(self, party: str, done: Done) -> None:
        self.party = party
        self.done: Done | None = done
        """None when nobody waits any more."""

    def cancel(self) -> None:
        """Do not call back: the client has gone."""
        self.done = None

    def answer(self, refusal: Refusal | None) -> None:
        """Call back, once."""
        done, self.done = self.done, None
        if done is not None:
            done(refusal)


class _Check:
    """One pair that waits or is being checked, and all who gave it."""

    __slots__ = ("attempts", "key", "party", "password", "user")

    def __init__(self, key: bytes, party: str, user: bytes, password: bytes) -> None:
        self.key = key
        self.party = party
        self.user = user
        self.password = password
        self.attempts: list[Attempt] = []


class Logins:
    """Checks the passwords of all clients of one node."""

    def __init__(self, accounts: Accounts) -> None:
        self.accounts = accounts
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(CHECKS_MAX, thread_name_prefix="password")
        self._key = os.urandom(32)
        self._known: dict[bytes, bytes] = {}
        """Of each right pair the kept password that it was checked against."""
        self._checks: dict[bytes, _Check] = {}
        self._waiting: deque[_Check] = deque()
        self._running = 0
        self._parties: dict[str, int] = {}
        """How many checks there are for each address."""
        self._failures: dict[str, tuple[int, float]] = {}
        """Of each address the wrong passwords, and when they are forgotten."""
        self._reported = 0
        """Wrong passwords since the last report."""
        self._last_party = ""
        self._report_timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Check nothing more. Who waits gets no answer."""
        self._waiting.clear()
        self._checks.clear()
        if self._report_timer is not None:
            self._report_timer.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def log_in(self, address: str, user: bytes, password: bytes, done: Done) -> Attempt:
        """Have a pair checked; `address` is the client's. `done` may be called before this returns."""
        attempt = Attempt(_party(address), done)
        key = hmac.digest(self._key, b"%d:%b:%b" % (len(user), user, password), "sha256")
        kept = self._known.get(key)
        if kept is not None and kept in self.accounts.hashes(user):
            attempt.answer(None)
            return attempt
        check = self._checks.get(key)
        if check is None:
            refusal = self._refuse(attempt.party)
            if refusal is not None:
                attempt.answer(refusal)
                return attempt
            check = self._checks[key] = _Check(key, attempt.party, user, password)
            self._parties[check.party] = self._parties.get(check.party, 0) + 1
            self._waiting.append(check)
        check.attempts.append(attempt)
        self._check_next()
        return attempt

    async def check(self, address: str, user: bytes, password: bytes) -> Refusal | None:
        """Check a pair, for callers that can wait."""
        answer: asyncio.Future[Refusal | None] = self._loop.create_future()
        attempt = self.log_in(address, user, password, answer.set_result)
        try:
            return await answer
        finally:
            attempt.cancel()

    def _refuse(self, party: str) -> Refusal | None:
        """Say why a pair from an address may not be checked now, or None."""
        failures, until = self._failures.get(party, (0, 0.0))
        if failures >= FAILURES_PER_ADDRESS_MAX and self._loop.time() < until:
            return _TOO_OFTEN
        if len(self._waiting) >= WAITING_MAX or self._parties.get(party, 0) >= WAITING_PER_ADDRESS_MAX:
            return _TOO_MANY
        return None

    def _check_next(self) -> None:
        while self._waiting and self._running < CHECKS_MAX:
            check = self._waiting.popleft()
            if not any(attempt.done for attempt in check.attempts):
                self._forget(check)  # they have all gone
                continue
            self._running += 1
            hashes = self.accounts.hashes(check.user)
            future = self._loop.run_in_executor(self._threads, matching, check.password, hashes)
            future.add_done_callback(partial(self._checked, check))

    def _forget(self, check: _Check) -> None:
        self._checks.pop(check.key, None)
        left = self._parties.pop(check.party, 1) - 1
        if left:
            self._parties[check.party] = left

    def _checked(self, check: _Check, ended: asyncio.Future[bytes | None]) -> None:
        self._running -= 1
        self._forget(check)
        if ended.cancelled():
            return
        error = ended.exception()
        kept = None if error is not None else ended.result()
        if error is not None:
            journal.say("login-unchecked", "error", message=type(error).__name__)
            for attempt in check.attempts:
                attempt.answer(_NOT_CHECKED)
        elif kept is not None and kept in self.accounts.hashes(check.user):
            self._known[check.key] = kept
            if len(self._known) > KNOWN_MAX:
                del self._known[next(iter(self._known))]
            for attempt in check.attempts:
                attempt.answer(None)
        else:
            self._failed(check.attempts)
        self._check_next()

    # ----------------------------------------------------------------- failures

    def _failed(self, attempts: Sequence[Attempt]) -> None:
        now = self._loop.time()
        for attempt in attempts:
            failures, until = self._failures.pop(attempt.party, (0, 0.0))
            if now >= until:
                failures, until = 0, now + FAILURES_SECONDS
            self._failures[attempt.party] = failures + 1, until
            if len(self._failures) > ADDRESSES_MAX:
                del self._failures[next(iter(self._failures))]
            self._loop.call_later(FAILURE_SECONDS, attempt.answer, WRONG_PASSWORD)
            self._report(attempt.party)

    def _report(self, party: str) -> None:
        """Tell the operator, without the name: people put passwords there by mistake."""
        self._reported += 1
        self._last_party = party
        if self._report_timer is None:
            self._say()

    def _say(self) -> None:
        self._report_timer = None
        if self._reported:
            journal.say("login-refused", "warning", count=self._reported, last_remote=self._last_party)
            self._reported = 0
            self._report_timer = self._loop.call_later(REPORT_SECONDS, self._say)


def _party(host: str) -> str:
    """Return whom an address stands for: one machine has a whole network of IPv6 addresses to choose from."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    return host
