"""worker.collectors.custom.sources"""

from pathlib import Path

import pytest

from fleetpulse.worker.collectors.custom.sources import (
    MAX_COMMANDS,
    MAX_PLUGINS,
    BadSource,
    CustomMetrics,
    own_collectors,
    wanted_commands,
    wanted_plugins,
)


def program(path: Path, mode: int = 0o755) -> None:
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)


def test_nothing_is_asked_by_default() -> None:
    assert own_collectors(CustomMetrics()) == ([], [])


def test_one_collector_each_in_the_order_in_which_they_are_believed(tmp_path: Path) -> None:
    own = CustomMetrics(plugins={"p": object}, commands={"c": ("true",)}, textfile_dir=tmp_path)
    collectors, commands = own_collectors(own)
    assert [collector.name for collector in collectors] == ["plugin:p", "command:c", "textfile"]
    assert commands == collectors[1:2]


def test_commands_are_words_and_programs(tmp_path: Path) -> None:
    program(tmp_path / "b")
    program(tmp_path / "a.sh")
    program(tmp_path / "README", 0o644)
    program(tmp_path / ".hidden")
    (tmp_path / "folder").mkdir()
    commands = wanted_commands(["raid=raid-state --array 'md 0' ; rm"], tmp_path)
    assert list(commands.items()) == [
        ("raid", ("raid-state", "--array", "md 0", ";", "rm")),
        ("a.sh", (str(tmp_path / "a.sh"),)),
        ("b", (str(tmp_path / "b"),)),
    ]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["raid"], "expected NAME=COMMAND"),
        (["raid="], "expected NAME=COMMAND"),
        (["raid='x"], "No closing quotation"),
        (["a b=x"], "command 'a b': a name is made of"),
        (["=x"], "command '': a name"),
        (["a=x", "a=y"], "two commands have the name a"),
        ([f"a{n}=x" for n in range(MAX_COMMANDS + 1)], "17 commands are too many"),
    ],
)
def test_commands_that_are_none(written: list[str], expected: str) -> None:
    with pytest.raises(BadSource, match=expected):
        wanted_commands(written, None)


def test_a_folder_of_commands_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="nowhere: No such file"):
        wanted_commands([], tmp_path / "nowhere")


def test_plugins_are_switched_off_by_name() -> None:
    installed = {f"p{n}": object for n in range(MAX_PLUGINS + 1)}
    with pytest.raises(BadSource, match="17 plug-ins"):
        wanted_plugins(installed, ())
    assert list(wanted_plugins(installed, ["p0"])) == list(installed)[1:]
    with pytest.raises(BadSource, match="plug-in 'a b'"):
        wanted_plugins({"a b": object}, ())
