"""Checks a history against all rules. ``python -m tests.chaos.checker FILE`` checks a saved history."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from tests.chaos import history
from tests.chaos.index import HistoryIndex
from tests.chaos.rules import Rule, Violation, containers, fleet, tasks

RULES: Sequence[Rule] = (
    tasks.acknowledged_tasks_exist,
    tasks.each_key_makes_one_task,
    tasks.every_task_has_ended,
    tasks.attempts_are_numbered,
    tasks.attempts_follow_each_other,
    tasks.each_attempt_ends_once,
    tasks.status_never_goes_back,
    tasks.ends_have_a_cause,
    tasks.retries_are_counted,
    tasks.cancelled_tasks_stay_cancelled,
    tasks.logs_are_complete,
    containers.containers_are_known,
    containers.each_attempt_runs_once,
    containers.every_exit_code_has_a_container,
    containers.exit_codes_match_docker,
    containers.containers_end_with_their_attempts,
    containers.attempts_do_not_overlap,
    containers.stale_containers_end_first,
    containers.cancelled_containers_are_gone,
    containers.no_container_is_left,
    fleet.attempts_are_lost_only_after_a_fault,
    fleet.open_files_do_not_grow,
    fleet.no_anomaly_was_recorded,
)


def check(records: Sequence[history.Record]) -> list[Violation]:
    """Returns every violation of every rule. An incomplete history is a violation, too."""
    index = HistoryIndex(records)
    found = [Violation(rule.__name__, what) for rule in RULES for what in rule(index)]
    if not index.has_ended:
        found.insert(0, Violation("history_is_complete", "the run did not end"))
    return found


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(file: Path) -> None:
    """Check a history that `make chaos` saved."""
    try:
        violations = check(history.load(file))
    except ValueError as error:
        raise click.ClickException(f"{file}: {error}") from error
    for violation in violations:
        print(violation)
    print(f"{len(violations)} violations of {len(RULES)} rules")
    sys.exit(1 if violations else 0)


if __name__ == "__main__":
    main(prog_name="python -m tests.chaos.checker")
