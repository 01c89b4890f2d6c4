"""What only the blocking front has to do: threads that share it."""

from concurrent.futures import ThreadPoolExecutor

from scripted_server import ScriptedServer

from balsadb.client import BlockingClerk


def test_threads_share_a_clerk():
    with ScriptedServer() as server, BlockingClerk(server.server) as clerk, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda i: clerk.put(f"k{i}", f"v{i}"), range(200)))
        values = list(threads.map(lambda i: clerk.get(f"k{i}"), range(200)))
        assert values == [b"v%d" % i for i in range(200)]
        assert server.accepted == 1
