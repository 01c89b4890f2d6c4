"""A server that behaves as a script says, for tests of clients. It runs in threads of its own."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable

from model_database import Conversation, Database

from balsadb.resp.parser import CommandParser

Act = Callable[["ScriptedServer", socket.socket], None]
"""What the server does with one connection. When it returns the connection is closed."""

_ONE_AT_A_TIME = threading.Lock()


class ScriptedServer:
    """Listens on a free port; the n-th connection gets the n-th act, later ones the last."""

    def __init__(self, *acts: Act, database: Database | None = None) -> None:
        self.acts = acts or (serve,)
        self.database = database or Database()
        """Several servers that share one are as good as a cluster."""
        self.data = self.database.data
        self._of_thread = threading.local()
        self.commands: list[list[bytes]] = []
        """Every data command received, in order, without what a session adds to it."""
        self.leader: tuple[str, int] | None = None
        self.accepted = 0
        self.ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def conversation(self) -> Conversation:
        """What the connection of this thread has said so far."""
        if not hasattr(self._of_thread, "conversation"):
            self._of_thread.conversation = Conversation()
        return self._of_thread.conversation

    @property
    def server(self) -> str:
        return f"{self.address[0]}:{self.address[1]}"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                if self.ended.is_set():
                    connection.close()
                    return
                # close() returns when the other end has our FIN, so that a test can rely on it.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
                self._connections.append(connection)
                act = self.acts[min(self.accepted, len(self.acts) - 1)]
                self.accepted += 1
                thread = threading.Thread(target=self._play, args=(act, connection), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _play(self, act: Act, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            act(self, connection)

    def read(self, connection: socket.socket, parser: CommandParser) -> list[list[bytes]]:
        """Return the next commands; an empty list when the client has gone."""
        while data := connection.recv(65536):
            if commands := parser.feed(data):
                return commands
        return []

    def wait_until_closed(self) -> None:
        """Wait until the server has closed the connections accepted so far."""
        for thread in list(self._threads):
            thread.join(5)

    def answer(self, command: list[bytes]) -> bytes:
        """Run a command on a plain dict."""
        match command:
            case [b"CLUSTER", b"SLOTS"]:
                if self.leader is None:
                    return b"*0\r\n"
                host, port = self.leader
                return b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$%d\r\n%b\r\n:%d\r\n" % (
                    len(host),
                    host.encode(),
                    port,
                )
        what = self.conversation.take(command)
        with _ONE_AT_A_TIME:
            return what if isinstance(what, bytes) else self.database.run(*what)

    def note(self, commands: list[list[bytes]]) -> None:
        """Write down the data commands."""
        for command in commands:
            if command[0] not in (b"CLUSTER", b"SESSION"):
                self.commands.append(command[4:] if command[0] == b"ONCE" else command)

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            socket.create_connection(self.address, 1).close()  # wakes the acceptor
        self._acceptor.join(5)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)


def serve(server: ScriptedServer, connection: socket.socket) -> None:
    """Answer everything."""
    parser = CommandParser()
    while commands := server.read(connection, parser):
        server.note(commands)
        connection.sendall(b"".join(map(server.answer, commands)))


def close_at_once(server: ScriptedServer, connection: socket.socket) -> None:
    """Close without reading."""


def close_after_reading(server: ScriptedServer, connection: socket.socket) -> None:
    """Read a command, do it, and close without an answer."""
    commands = server.read(connection, CommandParser())
    server.note(commands)
    for command in commands:
        server.answer(command)


def keep_silent(server: ScriptedServer, connection: socket.socket) -> None:
    """Read and never answer."""
    parser = CommandParser()
    while server.read(connection, parser):
        pass


def say(text: bytes) -> Act:
    """Answer every command with this text, the questions who leads excepted."""

    def act(server: ScriptedServer, connection: socket.socket) -> None:
        parser = CommandParser()
        while commands := server.read(connection, parser):
            connection.sendall(b"".join(b"*0\r\n" if c[0] == b"CLUSTER" else text for c in commands))

    return act


def close_after_doing(server: ScriptedServer, connection: socket.socket) -> None:
    """Serve; but as soon as a data command comes, do it and close without an answer."""
    parser = CommandParser()
    while commands := server.read(connection, parser):
        server.note(commands)
        answers = [server.answer(command) for command in commands]
        if any(command[0] not in (b"CLUSTER", b"SESSION") for command in commands):
            return
        connection.sendall(b"".join(answers))


def cut_now_and_then(seed: int, share: float) -> Act:
    """Serve; but a share of all answers is thrown away, all or a part of it, and the connection closed."""
    chance = random.Random(seed)

    def act(server: ScriptedServer, connection: socket.socket) -> None:
        parser = CommandParser()
        while commands := server.read(connection, parser):
            answers = b"".join(map(server.answer, commands))
            if chance.random() < share:
                connection.sendall(answers[: chance.randrange(len(answers) + 1)])
                return
            connection.sendall(answers)

    return act


def refuse_data(text: bytes) -> Act:
    """Answer data commands with this text and everything else as it should be."""

    def act(server: ScriptedServer, connection: socket.socket) -> None:
        parser = CommandParser()
        while commands := server.read(connection, parser):
            server.note(commands)
            other = (b"CLUSTER", b"SESSION")
            connection.sendall(b"".join(server.answer(c) if c[0] in other else text for c in commands))

    return act


def answer_once_then_close(server: ScriptedServer, connection: socket.socket) -> None:
    """Answer what comes first, then close, as a server that is restarted between two calls."""
    commands = server.read(connection, CommandParser())
    server.note(commands)
    connection.sendall(b"".join(map(server.answer, commands)))
