"""The plan depends only on the seed. Jobs print and return what the plan expects."""

import subprocess
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.jobs import Job, output, request, script, wide
from tests.chaos.plan import TIMEOUT_SECONDS, WORKERS, Kind, rounds, submissions


def test_same_seed_gives_the_same_plan() -> None:
    assert rounds(7, list(Kind), 5) == rounds(7, list(Kind), 5)
    assert list(islice(submissions(7), 50)) == list(islice(submissions(7), 50))


def test_other_seed_gives_another_plan() -> None:
    assert rounds(7, [Kind.CUT], 5) != rounds(8, [Kind.CUT], 5)
    assert list(islice(submissions(7), 5)) != list(islice(submissions(8), 5))


@given(st.integers(), st.integers(1, 20))
def test_every_kind_has_the_same_number_of_rounds(seed: int, number: int) -> None:
    planned = rounds(seed, list(Kind), number)
    assert [plan.number for plan in planned] == list(range(1, 4 * number + 1))
    for kind in Kind:
        assert sum(plan.kind is kind for plan in planned) == number
    assert all(0 <= plan.victim < WORKERS for plan in planned)


@given(st.integers())
def test_cut_is_longer_than_the_timeout(seed: int) -> None:
    assert all(plan.outage_seconds > TIMEOUT_SECONDS for plan in rounds(seed, [Kind.CUT], 10))


def test_stream_contains_every_kind_of_job() -> None:
    jobs = [submission.job for submission in islice(submissions(1), 200)]
    assert len({job.key for job in jobs}) == 200
    for has in (
        lambda job: job.exit_code,
        lambda job: job.cancel_after_seconds is not None,
        lambda job: job.max_retries and job.exit_code,
        lambda job: job.gives_up,
        lambda job: job.submits_twice,
        lambda job: not job.stops_on_sigterm,
        lambda job: job.width > 16_384,
        lambda job: job.seconds > TIMEOUT_SECONDS,
    ):
        assert sum(bool(has(job)) for job in jobs) >= 3


@pytest.mark.parametrize(
    "job",
    [
        Job("k", seconds=0.0),
        Job("k", beats=3, lines=4, width=7, seconds=0.01, exit_code=9),
        Job("k", lines=0, stops_on_sigterm=False),
        wide(Job("k", lines=2, seconds=0.0)),
    ],
)
def test_script_prints_the_expected_output(job: Job) -> None:
    run = subprocess.run(["sh", "-c", script(job)], capture_output=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (job.exit_code, output(job), b"")


def test_request_has_the_name_of_the_job() -> None:
    body = request(Job("k", max_retries=2), "busybox", 0.5)
    assert (body["name"], body["docker_image"], body["max_retries"]) == ("k", "busybox", 2)
