"""Protocol scenarios with their expected traces, and the runner that compares them."""

import pytest
from script_runner import SCRIPTS, ScriptError, difference, play

FILES = sorted(SCRIPTS.glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_scenario_goes_as_it_is_written(path, request):
    text = difference(path, rewrite=request.config.getoption("--rewrite-scripts"))
    if text:
        pytest.fail(text, pytrace=False)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_script_begins_with_what_it_shows_and_why(path):
    header = path.read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    assert len(header) >= 3
    assert all(line.startswith("#") for line in header)


# ------------------------------------------------------------------- the runner

NODES = "nodes 3\n----\n"


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("camapign 1", "unknown command 'camapign'"),
        ("quietly camapign 1", "unknown command 'camapign'"),
        ("campaign", "the node is missing"),
        ("campaign one", "the node is 'one' and must be a number"),
        ("campaign 4", "there is no node 4"),
        ("campaign 1 2", "nothing is known of '2' here"),
        ("campaign 1 patience=3", "nothing is known of 'patience=3' here"),
        ("disk 1 fast", "the speed is 'fast' and must be one of slow, prompt"),
        ("deliver", "no message at all is under way"),
        ("deliver 1->2 Append", "no message 1->2 Append is under way"),
        ("persist 1", "node 1 writes nothing"),
        ("apply 1", "node 1 applies nothing"),
        ("fetch 1", "node 1 wants nothing back"),
        ("crash 1 kept", "node 1 writes nothing"),
        ("start 1", "node 1 is up"),
        ("nodes 3", "the stage is set already"),
        ("log 1 terms=1,x", "terms is 'x' and must be a number"),
        ("log 1 terms=2,1", "InvariantError"),
    ],
)
def test_a_wrong_command_is_an_error_with_file_and_line(command, complaint):
    with pytest.raises(ScriptError) as caught:
        play(f"# A comment.\n\n{NODES}\n{command}\n----\n", "some.txt")
    assert str(caught.value).startswith(f"some.txt:6: {command}: ")
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("campaign 1\n----\n", "some.txt:1: campaign 1: a script begins with `nodes`"),
        ("----\n", "some.txt:1: a trace without a command"),
        ("nodes 3\n\nstatus\n----\n", "some.txt:2: the command before has no ---- and no trace"),
        ("nodes 3\n", "some.txt:1: the last command has no ---- and no trace"),
    ],
)
def test_a_text_that_is_no_script_is_an_error_with_file_and_line(text, complaint):
    with pytest.raises(ScriptError) as caught:
        play(text, "some.txt")
    assert str(caught.value) == complaint


def test_a_violated_invariant_is_an_error_with_file_and_line():
    # Two disks that no run of the protocol could leave: each has committed another entry 2.
    text = "nodes 3\nlog 1 terms=1,2 commit=2\nlog 2 terms=1,1 commit=2\n----\n"
    with pytest.raises(ScriptError, match=r"^some\.txt:3: log 2 .*: node 2 committed another entry at 2$"):
        play(text, "some.txt")


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "some.txt"
    path.write_text(f"# A comment.\n\n{NODES}\n# Why.\ncampaign 1\nstatus 1\n----\nwrong\n\nsettle\n----\n")
    return path


def test_a_trace_that_differs_is_shown_with_the_way_to_rewrite_it(script):
    before = script.read_text()
    text = difference(script)
    assert "-wrong\n" in text
    assert "\n+  + 1->2 PreVoteRequest t1 log ends at 0@0\n" in text
    assert "--rewrite-scripts" in text
    assert script.read_text() == before, "nothing is rewritten unless it is asked for"


@pytest.mark.parametrize("changed", ["  + 1->2\n", "", "(nothing)\n", "extra\nlines\n"])
def test_any_change_to_a_written_trace_is_noticed(script, changed):
    difference(script, rewrite=True)
    text = script.read_text()
    line = "  + 1->2 PreVoteRequest t1 log ends at 0@0\n"
    assert line in text
    script.write_text(text.replace(line, changed))
    assert difference(script)


def test_rewriting_keeps_commands_and_comments_and_is_done_after_one_time(script):
    assert difference(script, rewrite=True) == ""
    text = script.read_text()
    assert text.startswith("# A comment.\n\nnodes 3\n----\n1 follower t0, no leader, no vote")
    assert "\n\n# Why.\ncampaign 1\nstatus 1\n----\n" in text
    assert difference(script) == ""
    assert difference(script, rewrite=True) == ""
    assert script.read_text() == text


def test_a_script_that_cannot_be_carried_out_is_not_rewritten(script):
    text = script.read_text() + "\nnonsense\n----\n"
    script.write_text(text)
    with pytest.raises(ScriptError):
        difference(script, rewrite=True)
    assert script.read_text() == text
