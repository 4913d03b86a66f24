"""Mutations of a clean history, with the rule that must find each."""

import copy
from collections.abc import Callable
from typing import Any

from tests.chaos import history
from tests.chaos.synthetic import EPOCH, WORKERS

Records = list[history.Record]
Mutation = Callable[[Records], None]


def task_named(records: Records, name: str) -> dict[str, Any]:
    """A task as REST shows it at the end; to be changed in place."""
    for record in records:
        if isinstance(record, history.FinalTask) and record.task and record.task["name"] == name:
            return record.task
    raise AssertionError(name)


def replace(records: Records, old: history.Record, **changes: Any) -> None:
    records[records.index(old)] = old._replace(**changes)


def events(records: Records, name: str, action: str) -> list[history.ContainerEvent]:
    task_id = task_named(records, name)["task_id"]
    found = history.of_type(records, history.ContainerEvent)
    return [event for event in found if event.task_id == task_id and event.action == action]


def forget_a_task(records: Records) -> None:
    task_id = task_named(records, "good")["task_id"]
    (found,) = (r for r in history.of_type(records, history.FinalTask) if r.task_id == task_id)
    replace(records, found, task=None)


def answer_a_retry_with_another_task(records: Records) -> None:
    good, bad = task_named(records, "good"), task_named(records, "bad")
    assert good is not bad
    records.append(history.Acknowledged(EPOCH + 1, "good", bad["task_id"]))


def make_two_tasks_of_one_key(records: Records) -> None:
    twin = copy.deepcopy(task_named(records, "no-answer")) | {"task_id": "twin", "attempts": [], "status": "cancelled"}
    records.append(history.FinalTask(EPOCH, "twin", twin))


def leave_a_task_running(records: Records) -> None:
    task_named(records, "good")["status"] = "running"


def leave_an_attempt_running(records: Records) -> None:
    task_named(records, "bad")["attempts"][0] |= {"status": "running", "finished_at": None}


def skip_an_attempt_number(records: Records) -> None:
    task_named(records, "bad")["attempts"][1]["attempt"] = 3


def repeat_an_attempt_number(records: Records) -> None:
    attempts = task_named(records, "bad")["attempts"]
    attempts.append(copy.deepcopy(attempts[1]))


def assign_too_early(records: Records) -> None:
    first, second = task_named(records, "moved")["attempts"]
    second["assigned_at"] = first["finished_at"] - 0.5


def end_twice(records: Records) -> None:
    task = task_named(records, "good")
    task["events"].append({"time": EPOCH + 50, "kind": "failed", "message": "", "attempt": 1})


def end_without_an_event(records: Records) -> None:
    task = task_named(records, "moved")
    task["events"] = [event for event in task["events"] if event["kind"] != "lost"]


def end_the_task_twice(records: Records) -> None:
    task_named(records, "never-begun")["events"] *= 2


def revive_a_task(records: Records) -> None:
    task_id = task_named(records, "good")["task_id"]
    seen = {"task_id": task_id, "status": "running", "attempt": 1, "exit_code": None}
    records.append(history.TaskObserved(EPOCH + 9_000, seen))


def change_an_end(records: Records) -> None:
    task = task_named(records, "good")
    records.append(history.TaskObserved(EPOCH + 9_000, task | {"status": "failed", "attempt": 1, "exit_code": 1}))


def change_an_exit_code(records: Records) -> None:
    task = task_named(records, "bad")
    records.append(history.TaskObserved(EPOCH + 9_000, task | {"attempt": 2, "exit_code": 4}))


def move_an_attempt(records: Records) -> None:
    task_id = task_named(records, "good")["task_id"]
    seen = [r for r in history.of_type(records, history.TaskObserved) if r.task["task_id"] == task_id]
    seen[-2].task["worker_id"] = WORKERS[1]


def swap_a_container(records: Records) -> None:
    task_named(records, "moved")["attempts"][0]["container_id"] = "f" * 64


def fail_a_succeeding_job(records: Records) -> None:
    task = task_named(records, "good")
    task["status"] = "failed"
    task["attempts"][0] |= {"status": "failed", "exit_code": 137}


def complete_a_failing_job(records: Records) -> None:
    task_named(records, "bad")["attempts"][1] |= {"status": "completed", "exit_code": 0}


def stop_without_a_cancel(records: Records) -> None:
    task_named(records, "good")["attempts"][0]["status"] = "stopped"


def cancel_without_a_request(records: Records) -> None:
    task_named(records, "bad")["status"] = "cancelled"


def end_with_another_status_than_the_last_attempt(records: Records) -> None:
    task_named(records, "good")["exit_code"] = 1


def forget_a_retry(records: Records) -> None:
    del task_named(records, "bad")["attempts"][1]


def retry_too_often(records: Records) -> None:
    for record in history.of_type(records, history.SubmitSent):
        if record.job["key"] == "bad":
            record.job["max_retries"] = 0


def run_after_the_cancel(records: Records) -> None:
    task_id = task_named(records, "stopped")["task_id"]
    (accepted,) = (r for r in history.of_type(records, history.CancelAccepted) if r.task_id == task_id)
    replace(records, accepted, time=EPOCH)


def ignore_a_cancel(records: Records) -> None:
    task_named(records, "never-begun")["status"] = "failed"


def change_a_log(records: Records, name: str, change: Callable[[bytes], bytes]) -> None:
    task_id = task_named(records, name)["task_id"]
    log = next(r for r in history.of_type(records, history.FinalLog) if r.task_id == task_id)
    records[records.index(log)] = history.final_log(EPOCH, task_id, log.attempt, change(log.content))


def lose_the_end_of_a_log(records: Records) -> None:
    change_a_log(records, "good", lambda data: data[:-1])


def lose_the_middle_of_a_log(records: Records) -> None:
    change_a_log(records, "good", lambda data: data[:5] + data[6:])


def double_a_byte(records: Records) -> None:
    change_a_log(records, "moved", lambda data: data[:4] + data[3:])


def add_to_a_log(records: Records) -> None:
    change_a_log(records, "stopped", lambda data: data + b"?")


def lose_a_log(records: Records) -> None:
    task_id = task_named(records, "good")["task_id"]
    records[:] = [r for r in records if not (isinstance(r, history.FinalLog) and r.task_id == task_id)]


def run_a_container_of_an_unknown_task(records: Records) -> None:
    records.append(history.ContainerEvent(EPOCH + 5, "e" * 64, "nobody's", 1, WORKERS[0], "start"))


def run_on_the_wrong_worker(records: Records) -> None:
    (started,) = events(records, "good", "start")
    replace(records, started, worker_id=WORKERS[1])


def run_an_attempt_again(records: Records) -> None:
    (died,) = events(records, "good", "die")
    again = died._replace(container_id="d" * 64, action="start", exit_code=None)
    records += [again, died._replace(container_id="d" * 64)]


def start_a_container_again(records: Records) -> None:
    (died,) = events(records, "good", "die")
    records += [died._replace(time=died.time + 0.1, action="start"), died._replace(time=died.time + 0.2)]


def drop_the_container_events(records: Records) -> None:
    records[:] = [r for r in records if not isinstance(r, history.ContainerEvent)]


def report_another_exit_code(records: Records) -> None:
    (died,) = events(records, "stopped", "die")
    replace(records, died, exit_code=137)


def report_an_end_too_early(records: Records) -> None:
    (died,) = events(records, "stopped", "die")
    replace(records, died, time=died.time + 2.0)


def leave_a_stale_container_running(records: Records) -> None:
    died = events(records, "moved", "die")[0]
    replace(records, died, time=died.time + 10.0)


def overlap(records: Records) -> None:
    first = events(records, "bad", "die")[0]
    replace(records, first, time=first.time + 0.8)


def overlap_before_the_loss(records: Records) -> None:
    second = events(records, "moved", "start")[1]
    replace(records, second, time=second.time - 2.0)


def start_beside_a_stale_container(records: Records) -> None:
    stale = events(records, "moved", "die")[0]
    task = task_named(records, "stopped")
    task["attempts"][0]["assigned_at"] = stale.time - 1.0
    (started,) = events(records, "stopped", "start")
    replace(records, started, time=stale.time - 0.6)
    replace(records, stale, time=stale.time + 0.6)


def leave_a_cancelled_container_running(records: Records) -> None:
    (died,) = events(records, "stopped", "die")
    records.remove(died)


def leave_a_container(records: Records) -> None:
    (started,) = events(records, "good", "start")
    records.append(history.ContainerListing(EPOCH + 10_000, {started.container_id: "exited"}))


def drop_the_final_container_listing(records: Records) -> None:
    records[:] = [r for r in records if not isinstance(r, history.ContainerListing)]


def lose_without_a_fault(records: Records) -> None:
    records[:] = [r for r in records if not (isinstance(r, history.Fault) and r.what == "cut")]


def lose_too_soon(records: Records) -> None:
    cut = next(r for r in history.of_type(records, history.Fault) if r.what == "cut")
    replace(records, cut, time=cut.time + 1.5)
    (started, _) = events(records, "moved", "start")
    assert started.time < cut.time + 1.5


def forget_a_container_on_return(records: Records) -> None:
    task_named(records, "moved")["attempts"][0]["error"] = "worker worker-1 came back without it"


def lose_for_another_reason(records: Records) -> None:
    task_named(records, "moved")["attempts"][0]["error"] = "bad luck"


def leak_a_file_a_round(records: Records) -> None:
    for record in list(history.of_type(records, history.OpenFiles)):
        replace(records, record, files=record.files + record.round)


def record_an_anomaly(records: Records) -> None:
    records.append(history.Anomaly(EPOCH, "a traceback in the master's log"))


def drop_the_end_of_the_run(records: Records) -> None:
    records[:] = [r for r in records if not isinstance(r, history.RunEnded)]


MUTATIONS: list[tuple[str, Mutation]] = [
    ("acknowledged_tasks_exist", forget_a_task),
    ("each_key_makes_one_task", answer_a_retry_with_another_task),
    ("each_key_makes_one_task", make_two_tasks_of_one_key),
    ("every_task_has_ended", leave_a_task_running),
    ("every_task_has_ended", leave_an_attempt_running),
    ("attempts_are_numbered", skip_an_attempt_number),
    ("attempts_are_numbered", repeat_an_attempt_number),
    ("attempts_follow_each_other", assign_too_early),
    ("each_attempt_ends_once", end_twice),
    ("each_attempt_ends_once", end_without_an_event),
    ("each_attempt_ends_once", end_the_task_twice),
    ("status_never_goes_back", revive_a_task),
    ("status_never_goes_back", change_an_end),
    ("status_never_goes_back", change_an_exit_code),
    ("status_never_goes_back", move_an_attempt),
    ("ends_have_a_cause", fail_a_succeeding_job),
    ("ends_have_a_cause", complete_a_failing_job),
    ("ends_have_a_cause", stop_without_a_cancel),
    ("ends_have_a_cause", cancel_without_a_request),
    ("ends_have_a_cause", end_with_another_status_than_the_last_attempt),
    ("retries_are_counted", forget_a_retry),
    ("retries_are_counted", retry_too_often),
    ("cancelled_tasks_stay_cancelled", run_after_the_cancel),
    ("cancelled_tasks_stay_cancelled", ignore_a_cancel),
    ("logs_are_complete", lose_the_end_of_a_log),
    ("logs_are_complete", lose_the_middle_of_a_log),
    ("logs_are_complete", double_a_byte),
    ("logs_are_complete", add_to_a_log),
    ("logs_are_complete", lose_a_log),
    ("containers_are_known", run_a_container_of_an_unknown_task),
    ("containers_are_known", run_on_the_wrong_worker),
    ("each_attempt_runs_once", run_an_attempt_again),
    ("each_attempt_runs_once", start_a_container_again),
    ("each_attempt_runs_once", swap_a_container),
    ("every_exit_code_has_a_container", drop_the_container_events),
    ("exit_codes_match_docker", report_another_exit_code),
    ("containers_end_with_their_attempts", report_an_end_too_early),
    ("containers_end_with_their_attempts", leave_a_stale_container_running),
    ("attempts_do_not_overlap", overlap),
    ("attempts_do_not_overlap", overlap_before_the_loss),
    ("stale_containers_end_first", start_beside_a_stale_container),
    ("cancelled_containers_are_gone", leave_a_cancelled_container_running),
    ("no_container_is_left", leave_a_container),
    ("no_container_is_left", drop_the_final_container_listing),
    ("attempts_are_lost_only_after_a_fault", lose_without_a_fault),
    ("attempts_are_lost_only_after_a_fault", lose_too_soon),
    ("attempts_are_lost_only_after_a_fault", forget_a_container_on_return),
    ("attempts_are_lost_only_after_a_fault", lose_for_another_reason),
    ("open_files_do_not_grow", leak_a_file_a_round),
    ("no_anomaly_was_recorded", record_an_anomaly),
    ("history_is_complete", drop_the_end_of_the_run),
]
