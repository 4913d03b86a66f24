"""``python -m tests.hostile ATTACK PORT --grpc-port PORT``: attack until SIGTERM, then print the outcomes as JSON.

``neighbour`` in place of an attack is the client that must not be affected: it sends requests at a steady rate, on a
kept connection and on new ones, and prints the results.
"""

import asyncio
import json
import math
import os
import signal
from collections import Counter

import click

from tests.hostile.attacks import ATTACKS, Target
from tests.hostile.neighbour import Neighbour


async def run_attack(attack: str, target: Target) -> None:
    """Attacks until SIGTERM, then prints the results."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, _context: None)  # cut connections are expected
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    attacking = asyncio.ensure_future(ATTACKS[attack](target))
    print("ready", flush=True)
    await asyncio.wait([attacking, asyncio.ensure_future(over.wait())], return_when=asyncio.FIRST_COMPLETED)
    print(json.dumps(target.outcomes), flush=True)
    # Ending thousands of tasks one by one would take long.
    os._exit(0 if over.is_set() else 1)


def percentile(values: list[float], percent: float) -> float:
    """Returns the percentile by nearest rank."""
    return sorted(values)[max(math.ceil(len(values) * percent / 100.0), 1) - 1]


@click.command()
@click.argument("what", type=click.Choice(["neighbour", *sorted(ATTACKS)]))
@click.argument("port", type=int)
@click.option("--from", "source", default="127.0.0.1", show_default=True, help="The address to come from.")
@click.option("--grpc-port", type=int, default=0, help="The port for workers.")
def main(what: str, port: int, source: str, grpc_port: int) -> None:
    """Attack a master on this machine, or be its client meanwhile."""
    if what == "neighbour":
        neighbour = Neighbour(port, source, lambda count: print(f"answers {count}", flush=True))
        signal.signal(signal.SIGTERM, lambda _number, _frame: neighbour.stop())
        print("ready", flush=True)
        neighbour.run()
        seconds = neighbour.seconds
        print(json.dumps({
            "answers": len(seconds), "failures": neighbour.failures, "reconnects": neighbour.reconnects,
            "p50_seconds": percentile(seconds, 50), "p99_seconds": percentile(seconds, 99),
            "max_seconds": max(seconds),
        }))  # fmt: skip
        return
    asyncio.run(run_attack(what, Target(port, source, Counter(), grpc_port)))


if __name__ == "__main__":
    main(prog_name="python -m tests.hostile")
