"""What is left of the fleet while one round of placing goes on. Changes in place, lives for one round.

Best fit is the first that fits in one order of the workers, the same for every demand: those without GPUs first, then
those with few free GPUs, then those with little left. Within a round room only shrinks. So for each distinct demand a
cursor passes once over the workers in their order at the start, and those that were given something since, and so have
moved forward, are kept in a heap beside it; a thousand tasks that ask for the same cost little more than one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heappop, heappush

from fleetpulse.master.tasks.placement.amounts import Amounts, demanded, free, total
from fleetpulse.master.tasks.placement.records import Offer, Waiting, label_of, satisfies

Rank = tuple[int, int, float, str]
Touched = tuple[Rank, int, "Machine"]
ConstraintsKey = tuple[tuple[str, tuple[str, ...]], ...]

NOTHING = Amounts(0, 0, 0)


class Machine:
    """A worker that takes tasks, with what is left of it."""

    __slots__ = ("capacity", "free_gpus", "is_reserved", "news", "offer", "rank", "room")

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self.capacity = total(offer)
        self.room = free(offer)
        self.free_gpus = sorted(offer.free_gpu_uuids)
        self.news: list[list[Touched]] = []
        """Where to tell that it was given something: the news of each pool that it is in."""

        self.rank: Rank = (0, 0, 0.0, offer.worker_id)
        self.is_reserved = False

    def give(self, demand: Amounts) -> tuple[str, ...]:
        """Take what is demanded off the room; the GPUs that go with it, the lowest first."""
        taken, self.free_gpus = tuple(self.free_gpus[: demand.gpus]), self.free_gpus[demand.gpus :]
        room = self.room
        self.room = Amounts(
            room.microcores - demand.microcores, room.memory_bytes - demand.memory_bytes, room.gpus - demand.gpus
        )
        return taken


class Group:
    """All waiting tasks with the same demand and the same constraints."""

    __slots__ = ("_cursor", "_holders", "_news_read", "_pool", "_touched", "demand")

    def __init__(self, pool: "Pool", demand: Amounts) -> None:
        self.demand = demand
        self._pool = pool
        self._cursor = 0
        self._touched: list[Touched] = []
        self._news_read = 0
        self._holders: list[Machine] | None = None

    def best(self) -> Machine | None:
        """The worker that fits best; ``None`` now is ``None`` for the rest of the round."""
        if self._pool.has_refused_less_than(self.demand):
            return None
        touched, other = self._first_touched(), self._first_as_of_the_start()
        if touched is None and other is None:
            self._pool.refused(self.demand)
        if touched is None or other is None:
            return touched or other
        return min(touched, other, key=lambda machine: machine.rank)

    def holders(self) -> list[Machine]:
        """The workers that could hold it if they were idle, by id."""
        if self._holders is None:
            self._holders = self._pool.holders(self.demand)
        return self._holders

    def _first_as_of_the_start(self) -> Machine | None:
        microcores, memory_bytes, gpus = self.demand
        machines = self._pool.with_room
        for index in range(self._cursor, len(machines)):
            machine = machines[index]
            room = machine.room
            if room[0] >= microcores and room[1] >= memory_bytes and room[2] >= gpus and not machine.is_reserved:
                self._cursor = index
                return machine
        self._cursor = len(machines)
        return None

    def _first_touched(self) -> Machine | None:
        news = self._pool.news
        for index in range(self._news_read, len(news)):
            touched = news[index]
            rank, _, machine = touched
            if rank is machine.rank and self.demand.fits_into(machine.room):
                heappush(self._touched, touched)
        self._news_read = len(news)
        while self._touched:
            rank, _, machine = self._touched[0]
            if rank is machine.rank and not machine.is_reserved:
                return machine
            heappop(self._touched)  # it was given more since, or is kept for somebody
        return None


class Pool:
    """The workers that satisfy the same constraints, in the order of their ranks at the start."""

    def __init__(self, members: list[Machine], least: Amounts) -> None:
        self.with_room = [machine for machine in members if least.fits_into(machine.room)]
        self.news: list[Touched] = []
        """Who was given a task, each time."""

        self._members = members
        self._by_id: list[Machine] | None = None
        self._largest = NOTHING
        self._groups: dict[Amounts, Group] = {}
        self._least_refused: list[Amounts] = []
        for machine in self.with_room:
            machine.news.append(self.news)

    def group(self, demand: Amounts) -> Group:
        group = self._groups.get(demand)
        if group is None:
            group = self._groups[demand] = Group(self, demand)
        return group

    def holders(self, demand: Amounts) -> list[Machine]:
        """The workers whose capacity is large enough, by id."""
        if self._by_id is None:
            self._by_id = sorted(self._members, key=lambda machine: machine.offer.worker_id)
            self._largest = _each(max, [machine.capacity for machine in self._members])
        if not demand.fits_into(self._largest):
            return []
        return [machine for machine in self._by_id if demand.fits_into(machine.capacity)]

    def has_refused_less_than(self, demand: Amounts) -> bool:
        """Room only shrinks, so what is larger than something that did not fit does not fit."""
        return any(refused.fits_into(demand) for refused in self._least_refused)

    def refused(self, demand: Amounts) -> None:
        """It fits nowhere in the rest of the round."""
        self._least_refused = [other for other in self._least_refused if not demand.fits_into(other)]
        self._least_refused.append(demand)


class Fleet:
    """The workers that take tasks, and the groups of those who wait for them."""

    def __init__(self, offers: Sequence[Offer], waiting: Sequence[Waiting]) -> None:
        self.machines = [Machine(offer) for offer in offers if offer.refusal is None]
        self._all_microcores = max(sum(machine.capacity.microcores for machine in self.machines), 1)
        self._all_memory_bytes = max(sum(machine.capacity.memory_bytes for machine in self.machines), 1)
        for machine in self.machines:
            machine.rank = self._rank(machine)
        self.machines.sort(key=lambda machine: machine.rank)
        self._gifts = 0
        self._by_label: dict[str, dict[str | None, list[Machine]]] = {}
        self._pools: dict[ConstraintsKey, Pool] = {}
        demands = [demanded(task.demand) for task in waiting]
        self._least = (
            Amounts(*(min(amounts) for amounts in zip(*demands, strict=True))) if demands else Amounts(0, 0, 0)
        )
        self.groups = [
            self._pool(task.constraints).group(demand) for task, demand in zip(waiting, demands, strict=True)
        ]
        """Of each waiting task its group, in the order of ``waiting``."""

    def give(self, machine: Machine, demand: Amounts) -> tuple[str, ...]:
        """Place something on a worker; the GPUs that it gets."""
        gpu_uuids = machine.give(demand)
        machine.rank = self._rank(machine)
        self._gifts += 1
        touched = (machine.rank, self._gifts, machine)
        for news in machine.news:
            news.append(touched)
        return gpu_uuids

    def _rank(self, machine: Machine) -> Rank:
        """Less is a better fit. A task without GPUs goes where none could be wasted."""
        room, gpus = machine.room, machine.capacity.gpus
        left = room.microcores / self._all_microcores + room.memory_bytes / self._all_memory_bytes
        return (room.gpus, gpus, left, machine.offer.worker_id)

    def _pool(self, constraints: Mapping[str, tuple[str, ...]]) -> Pool:
        key = tuple(sorted(constraints.items())) if constraints else ()
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = Pool(self._satisfying(constraints), self._least)
        return pool

    def _satisfying(self, constraints: Mapping[str, tuple[str, ...]]) -> list[Machine]:
        if not constraints:
            return self.machines
        choices = (self._with_label(label, allowed) for label, allowed in constraints.items())
        fewest = min(choices, key=len)
        members = (machine for machine in fewest if satisfies(machine.offer, constraints))
        return sorted(members, key=lambda machine: machine.rank)

    def _with_label(self, label: str, allowed: Iterable[str]) -> list[Machine]:
        by_value = self._by_label.get(label)
        if by_value is None:
            by_value = self._by_label[label] = {}
            for machine in self.machines:
                by_value.setdefault(label_of(machine.offer, label), []).append(machine)
        return [machine for value in set(allowed) for machine in by_value.get(value, ())]


def _each(choose: Callable[[Iterable[int]], int], amounts: Sequence[Amounts]) -> Amounts:
    """The least or the most of each resource."""
    return Amounts(*(choose(of_one) for of_one in zip(*amounts, strict=True))) if amounts else NOTHING
