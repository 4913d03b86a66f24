"""worker.simulation.script"""

import random

import pytest

from fleetpulse.worker.simulation.script import Step, script_of


@pytest.mark.parametrize(
    ("command", "steps"),
    [
        (["sleep", "3"], [Step(seconds=3.0)]),
        (["exit", "7"], [Step(exit_code=7)]),
        (["echo", "hello", "there"], [Step(b"hello there\n")]),
        (["head", "-c", "5", "/dev/zero"], [Step(b"\0" * 5)]),
        (["true"], [Step()]),
        (["false"], [Step(exit_code=1)]),
        (["sh", "-c", "echo 'a b'; sleep 0.5 && exit 3"], [Step(b"a b\n"), Step(seconds=0.5), Step(exit_code=3)]),
        (["sh", "-c", "echo one\necho two"], [Step(b"one\n"), Step(b"two\n")]),
    ],
)
def test_commands_that_are_understood(command: list[str], steps: list[Step]) -> None:
    script = script_of(command, random.Random(1))
    assert list(script.steps) == steps
    assert not script.ignores_sigterm


def test_a_trap() -> None:
    assert script_of(["sh", "-c", "trap '' TERM; sleep 9"], random.Random(1)).ignores_sigterm


def test_all_else_is_left_to_chance_of_which_the_seed_decides() -> None:
    command = ["python", "train.py"]
    first, again, other = (script_of(command, random.Random(seed)) for seed in (1, 1, 2))
    assert first == again != other
    (step,) = first.steps
    assert step.output == b"simulated: python train.py\n"
    assert 0.0 < step.seconds <= 60.0
    script_of(["sh", "-c", "echo 'never closed"], random.Random(1))
    script_of([], random.Random(1))
    script_of(["sleep"], random.Random(1))
