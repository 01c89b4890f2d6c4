ONE_BY_ONE = (
    b"PING\r\n\r\n*0\r\n*1\r\n$4\r\nPING\r\n*-1\r\n\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$300\r\n"
    + b"v" * 300
    + b"\r\n"
    b"*2\r\n$3\r\nGET\r\n$2\r\n\r\n\r\nGET 'a b'\n"
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 1000])
def test_commands_taken_one_by_one_are_those_that_are_taken_together(size):
    together = CommandParser().feed(ONE_BY_ONE)
    parser, one_by_one = CommandParser(arguments_max=10, bulk_bytes_max=1000), []
    for begin in range(0, len(ONE_BY_ONE), size):
        data, position = ONE_BY_ONE[begin : begin + size], 0
        while True:
            command, position = parser.feed_one(data, position)
            if command is None:
                break
            one_by_one.append(command)
        assert position == len(data)
    assert one_by_one == together
    assert parser.error is None


def test_what_is_behind_a_command_that_is_taken_alone_is_not_looked_at():
    parser = CommandParser(arguments_max=2)
    data = b"*1\r\n$4\r\nAUTH\r\n*3\r\n"
    assert parser.feed_one(data) == ([b"AUTH"], 14)
    assert parser.error is None
    assert parser.feed_one(data, 14)[0] is None
    assert parser.error == b"Protocol error: invalid multibulk length"
