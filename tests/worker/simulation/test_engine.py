"""worker.simulation.engine"""

import random

import pytest

from fleetpulse.worker.simulation.engine import CommandStep, parse_command


@pytest.mark.parametrize(
    ("command", "steps"),
    [
        (["sleep", "3"], [CommandStep(seconds=3.0)]),
        (["exit", "7"], [CommandStep(exit_code=7)]),
        (["echo", "hello", "there"], [CommandStep(b"hello there\n")]),
        (["head", "-c", "5", "/dev/zero"], [CommandStep(b"\0" * 5)]),
        (["true"], [CommandStep()]),
        (["false"], [CommandStep(exit_code=1)]),
        (
            ["sh", "-c", "echo 'a b'; sleep 0.5 && exit 3"],
            [CommandStep(b"a b\n"), CommandStep(seconds=0.5), CommandStep(exit_code=3)],
        ),
        (["sh", "-c", "echo one\necho two"], [CommandStep(b"one\n"), CommandStep(b"two\n")]),
    ],
)
def test_known_commands_are_parsed(command: list[str], steps: list[CommandStep]) -> None:
    script = parse_command(command, random.Random(1))
    assert list(script.steps) == steps
    assert not script.ignores_sigterm


def test_trap_ignores_sigterm() -> None:
    assert parse_command(["sh", "-c", "trap '' TERM; sleep 9"], random.Random(1)).ignores_sigterm


def test_unknown_command_is_random_by_seed() -> None:
    command = ["python", "train.py"]
    first, again, other = (parse_command(command, random.Random(seed)) for seed in (1, 1, 2))
    assert first == again != other
    (step,) = first.steps
    assert step.output == b"simulated: python train.py\n"
    assert 0.0 < step.seconds <= 60.0
    parse_command(["sh", "-c", "echo 'never closed"], random.Random(1))
    parse_command([], random.Random(1))
    parse_command(["sleep"], random.Random(1))
