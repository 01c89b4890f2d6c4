"""Where the other servers are, when configurations and hellos disagree."""

from balsadb.raft.types import Configuration, Member
from balsadb.server.addresses import ADDRESSES_MAX, AddressBook


def of(*nodes: int, removed: tuple[int, ...] = ()) -> Configuration:
    return Configuration(voters=nodes, members=tuple(Member(n, f"h:800{n}") for n in nodes), removed=removed)


def test_members_are_where_the_configuration_says_unless_they_are_dialled_elsewhere():
    book = AddressBook(1, {3: "proxy:9"})
    book.learn(of(1, 2, 3))
    assert book.known == {2: ("h", 8002), 3: ("proxy", 9)}


def test_an_older_configuration_takes_nobody_away():
    """The state that a newcomer installs may be from before the time of the leader that sends it."""
    book = AddressBook(6, {})
    book.learn(of(4, 5))
    book.learn(of(1, 2, 3))
    assert sorted(book.known) == [1, 2, 3, 4, 5]


def test_a_committed_removal_does():
    book = AddressBook(1, {})
    book.learn(of(1, 2, 3))
    book.forget((3, 9))
    assert sorted(book.known) == [2]


def test_a_caller_is_where_it_says_unless_the_log_knows_better():
    book = AddressBook(1, {8: "proxy:8"})
    book.learn(of(1, 2))
    assert book.called(9, "h:8009")
    assert book.called(8, "h:8008")
    assert not book.called(9, "elsewhere:1")
    assert not book.called(2, "elsewhere:1")
    assert not book.called(1, "h:8001"), "this node is nobody to be dialled"
    assert not book.called(7, "")
    assert not book.called(7, "nonsense")
    assert book.known == {2: ("h", 8002), 8: ("proxy", 8), 9: ("h", 8009)}


def test_callers_are_bounded():
    book = AddressBook(1, {})
    for node in range(2, 2 * ADDRESSES_MAX):
        book.called(node, "h:1")
    assert len(book.known) == ADDRESSES_MAX
