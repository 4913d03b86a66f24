"""worker.tasks.absent"""

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.tasks.absent import NoTasks
from tests.worker.scripted import run


def test_it_says_why_and_lets_what_is_sent_fail() -> None:
    async def test() -> None:
        tasks = NoTasks("tasks are switched off")
        register, heartbeat = pb.Register(), pb.Heartbeat()
        await tasks.describe(register)
        tasks.report(heartbeat)
        assert register.task_support == heartbeat.task_support
        assert register.task_support == pb.TaskSupport(available=False, reason="tasks are switched off")

        order = pb.StartTask(id=pb.AttemptId(task_id="t", attempt=2))
        tasks.receive(pb.MasterMessage(start_task=order))
        update = (await tasks.next_message()).task_update
        assert (update.id, update.phase, update.reason) == (order.id, pb.ATTEMPT_PHASE_FAILED, "no_task_support")
        tasks.disconnected()
        tasks.registered(pb.Registered())
        assert (await tasks.next_message()).task_update == update
        tasks.receive(pb.MasterMessage(ack=pb.Ack(update_number=update.update_number)))
        tasks.registered(pb.Registered())
        tasks.receive(pb.MasterMessage(start_task=pb.StartTask(id=pb.AttemptId(task_id="u", attempt=1))))
        assert (await tasks.next_message()).task_update.id.task_id == "u"

    run(test())
