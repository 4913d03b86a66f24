"""All rules over one history. ``python -m tests.chaos.checker FILE`` checks a history that was kept."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from tests.chaos import history
from tests.chaos.rules import Rule, Violation, containers, fleet, tasks
from tests.chaos.story import Story

RULES: Sequence[Rule] = (
    tasks.acknowledged_tasks_are_there,
    tasks.a_key_is_one_task,
    tasks.every_task_has_ended,
    tasks.attempts_are_numbered,
    tasks.attempts_follow_each_other,
    tasks.an_attempt_ends_once,
    tasks.nothing_goes_back,
    tasks.ends_are_honest,
    tasks.retries_are_counted,
    tasks.cancels_hold,
    tasks.logs_are_whole,
    containers.containers_are_known,
    containers.an_attempt_runs_once,
    containers.docker_was_seen,
    containers.exit_codes_are_true,
    containers.containers_end_with_their_attempts,
    containers.attempts_do_not_overlap,
    containers.stale_containers_end_first,
    containers.cancelled_containers_are_gone,
    containers.no_container_is_left,
    fleet.no_attempt_is_lost_needlessly,
    fleet.open_files_are_flat,
    fleet.nothing_went_wrong_aloud,
)


def check(records: Sequence[history.Record]) -> list[Violation]:
    """Every breach of every rule. A history that broke off is one as well."""
    story = Story(records)
    found = [Violation(rule.__name__, what) for rule in RULES for what in rule(story)]
    if not story.has_ended:
        found.insert(0, Violation("the_history_is_whole", "the run broke off"))
    return found


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(file: Path) -> None:
    """Check a history that `make chaos` kept."""
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
