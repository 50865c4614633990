"""Says whether the promises held in a simulation: while it goes on, and once all is at rest.

Most promises hold whatever goes wrong. Some things may happen only where there is a cause: a lease that runs out, a run
that is lost, a repair by the sweeper. Those are problems in a history without such a cause.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

from coordinator.due.overdue_intents import OVERDUE
from coordinator.engine.beats import UNLISTED
from coordinator.engine.new_documents import DELETE, FINISH
from coordinator.engine.repairs import UNCONFIRMED
from coordinator.engine.schedule_firings import FIRE
from shared.model import language
from shared.model.cron import parse_cron
from shared.model.documents import (
    MICROS_PER_SECOND,
    DeliveryDocument,
    Document,
    JobDocument,
    LogPartDocument,
    Micros,
    NodeDocument,
    ScheduleDocument,
    TaskDocument,
)
from shared.model.messages import (
    Beat,
    Granted,
    HandedBack,
    LogWritten,
    Message,
    RunEnded,
    TaskMessage,
)
from shared.model.queues import node_queue
from shared.model.states import JOB_ENDED, DeliveryState, ScheduleState
from shared.supervision import LONGEST_DELAY
from tests.simulation import faults, jobs, ports
from tests.simulation.loop import Process
from tests.simulation.outside import SimRun
from tests.simulation.slips import SLIP
from tests.simulation.store import MemoryData, Rest
from tests.unit.engine.audit import Audit, MemoryBook

ENDED: Final = ("COMPLETED", "FAILED", "CANCELLED", "SKIPPED", "PAUSED", "DELIVERED")

LEASE_LEFT: Final = 15 * MICROS_PER_SECOND
"""What must be left of a node's lease when it is granted a run."""

MAY_BE_LOST: Final = 15.0
"""Seconds that nothing was heard of a process after which its lease may run out: half of the lease, the time of the
beats aside."""

STOPS_WITHIN: Final = 20.0
"""Seconds after the end of its task within which a run that goes on is stopped."""

SUCCEEDS_WITHIN: Final = 12.0
"""Seconds after a successor's start within which nothing waits for a lease any more (15)."""

DRAINS_WITHIN: Final = 15 * MICROS_PER_SECOND
"""How long after it was told to drain a worker may still take something."""

DRAIN_HEARD_WITHIN: Final = 8.0
"""Seconds within which a worker knows that it is to drain: its next beat has it told again."""

HANDS_BACK_WITHIN: Final = 0.5
"""Seconds within which a worker hands back what nobody waits for."""

STANDS_BACK_WITHIN: Final = 3.0
"""Seconds after the first message that a coordinator takes without a store within which it takes others."""

HELD_EVERY: Final = OVERDUE // 2 - MICROS_PER_SECOND
"""What is taken up is held no sooner than this after that, and after it was held before."""

STUCK_AFTER: Final = 100.0
"""Seconds in which something moves (2: within 90 of the end of an outage)."""

WITHDRAWN_WITHIN: Final = 2.5
"""Seconds within which what is not to go on is withdrawn, where nobody is hindered in that."""

SWEPT_WITHIN: Final = 8.0
"""Seconds within which the sweeper withdraws it, where nobody else is about it."""

OVERDUE_WITHIN: Final = OVERDUE / MICROS_PER_SECOND + 3.0
"""Seconds within which somebody takes up what nobody followed."""

JUST_AFTER: Final = 0.01
"""Seconds after a fault within which a step that it befell is seen."""

REMOVED_WITHIN: Final = LONGEST_DELAY + 2.0
"""Seconds after its end within which a job goes that is to be deleted a second after that: whoever does it may have
failed before, and be waiting for its next turn."""

WEBHOOKS: Final = "webhooks"
"""No fault: a removal waits for them."""

STRUCTURE: Final = faults.OF_COORDINATORS
MAY_BE: Final[Mapping[str, frozenset[str]]] = {
    "swept_free_slot": STRUCTURE,
    "swept_composite": STRUCTURE,
    "swept_lost_subjob": STRUCTURE,
    "swept_open_under_ended": STRUCTURE,
    "swept_lower_restarts": STRUCTURE,
    "swept_unwanted": STRUCTURE,
    "swept_overdue": STRUCTURE | {ports.STALL, WEBHOOKS, "queue held"},
    "swept_unconfirmed": STRUCTURE | {ports.STALL},
    "swept_unheard": faults.OF_MESSAGES | {"hush worker", "clock jumps", "queue held"},
    "run_lost": faults.OF_WORKERS | {"vanish", "broker away"},
}
"""What is noted → what may have been its cause."""


_DOUBLES_NO_DELIVERY: Final = frozenset(
    {WEBHOOKS, ports.STALL, ports.LOST, ports.DOUBLED, ports.DOUBLED_LATE, "queue held"}
) | {what for what in faults.OF_ONE if what.endswith("worker")}
"""Faults that don't keep a coordinator from noting that it delivered something."""

_ASLEEP: Final = faults.OF_COORDINATORS - {"store away", "broker away", "broker emptied"}
"""After what a coordinator may have been away when a firing was due."""


class Checker:
    """Watches every write and every run; what breaks a promise goes to `problems`."""

    def __init__(
        self,
        data: MemoryData,
        problems: list[str],
        clock: Callable[[], float],
        micros: Callable[[], Micros],
    ) -> None:
        self.problems = problems
        self.trace: list[str] = []
        """What happens, line by line."""
        self.kinds: set[str] = set()
        """What went wrong so far."""
        self.coordinators: list[Any] = []
        """All that ever were."""
        self._data = data
        self._clock = clock
        self._micros = micros
        self._audit = Audit(MemoryBook(data))
        self._quiet_since = 0.0
        self._decided: defaultdict[str, set[Micros]] = defaultdict(set)
        """Schedule → the firings that were decided."""
        self._paused_before: dict[str, set[Micros]] = {}
        """Schedule → those of them whose job was still to be made when it was paused."""
        self._moved_at = 0.0
        self._told_at = 0.0
        """When a webhook was last delivered, or given up."""
        self._processes: dict[str, Process] = {}
        self._places: dict[str, list[tuple[str, float]]] = defaultdict(list)
        """Data folder → the processes that began there, and when."""
        self._runs: dict[str, list[SimRun]] = defaultdict(list)
        """Task (each attempt is one) → its runs."""
        self._made: dict[tuple[Any, ...], str] = {}
        """Job, restart, place in it, and attempt → the task."""
        self._made_again: Counter[str] = Counter()
        """Task that had ended, and went with its job → how often it came again before that was gone itself."""
        self._ended_at: dict[str, float] = {}
        """Job or task → when it ended."""
        self._told_ends: dict[str, Process] = {}
        """Nonce → who told its end."""
        self._granted_at: dict[str, float] = {}
        """Nonce → when its worker was last told that it is granted."""
        self._in_vain: dict[str, float] = {}
        """Coordinator without a store → when it first took a message all the same."""
        self._parts: set[tuple[str, int, int]] = set()
        """Parts of logs that the broker has confirmed: task, run and number."""
        self._parts_lost: set[tuple[str, int, int]] = set()
        """Those of them that it lost before anybody stored them."""
        self._late: dict[str, float] = {}
        """Task or sub-job that is active and not to go on → since when."""
        self._left_to_sweeper: dict[str, float] = {}
        """What of that nobody is about → since when."""
        self._stillborn: set[str] = set()
        """Sub-jobs that nobody waited for when they were inserted."""
        self._succeeded: set[str] = set()
        self._left: set[str] = set()
        self._drained: dict[str, float] = {}
        """Node → since when it is to drain."""
        self._states: dict[str, str] = {}
        """Job → its last state, also of one that is gone."""
        self._removed: set[str] = set()
        """Jobs that were deleted."""
        self._told: dict[str, list[str]] = defaultdict(list)
        """Job or task → the states that receivers were told of."""
        self._posted: Counter[str] = Counter()
        self._tries: Counter[str] = Counter()
        """Delivery → how often it was tried since it was noted."""
        data.watchers.append(self._written)

    # --- what goes wrong ------------------------------------------------------------------------------------------

    def goes_wrong(self, what: str) -> None:
        """Take note of a fault."""
        if what in faults.OF_COORDINATORS:
            self.trouble_until(self._clock() + JUST_AFTER)
        if what == "broker emptied":
            self._parts_lost |= self._parts - self._stored_parts()
        self.kinds.add(what)
        self._in_vain.clear()
        self.trouble_until(self._clock())

    def trouble_until(self, when: float) -> None:
        """Take note that something is wrong until then."""
        self._quiet_since = max(self._quiet_since, when)

    @property
    def in_trouble(self) -> bool:
        """Whether something is wrong now: a step that stalls may still have something made."""
        return self._quiet_since > self._clock()

    def _settled(self, since: float, seconds: float) -> bool:
        """Return whether so much time has passed since then, and since the last fault."""
        return self._clock() - max(since, self._quiet_since) > seconds

    def _stored_parts(self) -> set[tuple[str, int, int]]:
        parts = self._data.of(LogPartDocument).values()
        return {(part["task_id"], part["run"], part["number"]) for part in parts}

    def _only(self, allowed: frozenset[str]) -> bool:
        """Return whether nothing else went wrong."""
        return self.kinds <= allowed

    def _maybe_lost(self, process: Process) -> bool:
        return process.dead or process.away(self._clock()) > MAY_BE_LOST

    def noted(self) -> Counter[str]:
        """Return what all coordinators noted."""
        total: Counter[str] = Counter()
        for each in self.coordinators:
            total.update(self._noted_by(each))
        return total

    @staticmethod
    def _noted_by(coordinator: Any) -> Counter[str]:
        return coordinator.driver.counts if hasattr(coordinator, "driver") else Counter()

    # --- workers --------------------------------------------------------------------------------------------------

    def came(self, process: Process, place: str) -> None:
        """Take note of a new worker."""
        self._processes[process.name] = process
        self._places[place].append((process.name, self._clock()))

    def left_node(self, name: str, *, in_time: bool) -> None:
        """Take note of a worker that has drained: nothing is left to it (8), and nobody need speak for it. Where it
        did not run out of time, all ends that it told are stored (4)."""
        self._left.add(name)
        tasks = self._data.of(TaskDocument).values()
        running = [t for t in tasks if t.get("node_id") == name and t["state"] == "RUNNING"]
        if not self.kinds <= {WEBHOOKS, "stop worker", "stop coordinator", ports.LOST}:
            running = [t for t in running if in_time and t["nonce"] in self._told_ends]
        if running:
            self.problems.append(f"{name} has drained, and left {[t['id'] for t in running]}")

    def check_handed_back(self, process: Process) -> None:
        """Take note that the grace time of a worker is over that drains: nothing runs there any more (8)."""
        left = [task_id for task_id, run in self._running() if run.process is process]
        if left:
            self.problems.append(f"{process.name} drains, and goes on with {left}")

    def has_left(self, name: str) -> bool:
        """Return whether a worker has drained."""
        return name in self._left

    def removed(self, process: Process) -> None:
        """Take note that somebody removed what a process made: it is dead, or seems so (6)."""
        if not self._maybe_lost(process):
            self.problems.append(f"what {process.name} made was removed, and it lives")

    def started(self, run: SimRun, saw: str) -> None:
        """Take note of a run that starts: it is the one that was granted (5), and the first of its task, unless the
        process of the one before is dead or was away for longer than its lease (4, 5). Its own may have been away, too,
        between grant and start; it is stopped when its next beat is heard."""
        task = run.assignment
        self.trace.append(f"start {task.task_id} {task.nonce}\n")
        there = self._data.of(TaskDocument).get(task.task_id)
        granted_anew = there is not None and there.get("nonce") != task.nonce
        if granted_anew and self.kinds <= {WEBHOOKS}:
            self.problems.append(f"task {task.task_id} was begun by a run that nobody granted")
        if not (granted_anew and self._maybe_lost(run.process)):
            for before in self._runs[task.task_id]:
                self._check_again(task.task_id, before)
        self._runs[task.task_id].append(run)
        self._check_saw(there, saw)

    def _check_again(self, task_id: str, before: SimRun) -> None:
        """What was there before it is dead, or was away (4, 5), or its container is gone; and had not told its end."""
        process = before.process
        if not (self._maybe_lost(process) or before.vanished or before.handed_back):
            self.problems.append(f"task {task_id} was begun a second time; {process.name} lives")
        told = self._told_ends.get(before.assignment.nonce)
        if told is not None and self._has_successor(told.name):
            self.problems.append(f"task {task_id} was begun again, though its end was written down")

    def _has_successor(self, name: str) -> bool:
        """Return whether somebody went on soon where a process ended."""
        process = self._processes[name]
        if not process.dead or process.away(self._clock()) > MAY_BE_LOST:
            return False
        for began in self._places.values():
            for (before, _), (_, at) in pairwise(began):
                if before == name:
                    return at - process.died_at < MAY_BE_LOST
        return False

    def _check_saw(self, task: Rest | None, saw: str) -> None:
        """A child saw nothing that one before it gave in an earlier restart."""
        _, at, restarts = saw.partition("@")
        if task is not None and at and int(restarts) < task.get("restarts", 0):
            self.problems.append(f"task {task['id']} saw {saw} of before its restart")

    def ended(self, run: SimRun) -> None:
        """Take note of the end of a run: one whose task had ended long before was not stopped."""
        run.over = True
        ended_at = self._ended_at.get(run.assignment.task_id)
        if ended_at is None or self._maybe_lost(run.process):
            return
        if self._settled(ended_at, STOPS_WITHIN):
            self.problems.append(f"a run of {run.assignment.task_id} went on after its task")

    def stopped(self, run: SimRun) -> None:
        """Take note that a run is stopped: it does not count any more."""
        task = self._data.of(TaskDocument).get(run.assignment.task_id)
        if task is None or task.get("nonce") != run.assignment.nonce or run.handed_back:
            return
        if task["state"] == "RUNNING" or task.get("lost_by") == "lease":
            self.problems.append(f"a run of {task['id']} was stopped, and it counts")

    def publishing(self, process: Process, message: Message) -> None:
        """Take note of who tells an end, perhaps in vain."""
        if isinstance(message, RunEnded):
            self._told_ends[message.nonce] = process

    def published(self, queue: str, message: Message) -> None:
        """Take note of a message: an end comes after its log (10), no task is sent whose job has ended long ago."""
        if isinstance(message, LogWritten):
            numbers = range(message.first, message.first + len(message.parts))
            self._parts.update((message.task_id, message.run, number) for number in numbers)
        elif isinstance(message, RunEnded):
            self._check_parts(message)
        elif isinstance(message, Granted):
            self._granted_at[message.nonce] = self._clock()
        elif isinstance(message, TaskMessage) and not queue.startswith("x-"):
            self._check_wanted(message)

    def heard_in_vain(self, process: Process, message: Message) -> None:
        """Take note of a message that a coordinator takes which has no store: it leaves the next ones to others."""
        is_worker = process.name in self._processes
        if isinstance(message, Beat | RunEnded | HandedBack) and not is_worker:
            first = self._in_vain.setdefault(process.name, self._clock())
            if self._clock() - first > STANDS_BACK_WITHIN:
                self.problems.append(f"{process.name} has no store, and takes messages")

    def _check_parts(self, end: RunEnded) -> None:
        last = end.log_parts if end.last_part is not None else end.log_parts + 1
        missing = [n for n in range(1, last) if (end.task_id, end.run, n) not in self._parts]
        if missing and ports.LOST not in self.kinds:
            self.problems.append(f"task {end.task_id} ended before parts {missing} of its log came")

    def _check_wanted(self, message: TaskMessage) -> None:
        ended_at = self._ended_at.get(message.job_id)
        again = ports.DOUBLED_LATE in self.kinds
        within = 1.0
        job = self._data.of(JobDocument).get(message.job_id) or {}
        if SLIP in self.kinds:
            # the sweeper comes, or, where a removal waits for webhooks, that looks again
            within = float("inf") if job.get("deleted_at") else SWEPT_WITHIN
        elif self.kinds & STRUCTURE and any(each["do"] == FINISH for each in job.get("then") or ()):
            within = OVERDUE_WITHIN  # whoever was to withdraw it failed in that
        if ended_at is not None and not again and self._settled(ended_at, within):
            self.problems.append(f"task {message.task_id} was sent, its job had ended")

    # --- writes ---------------------------------------------------------------------------------------------------

    def _written(self, kind: type[Document], before: Rest | None, after: Rest | None) -> None:
        """Hear of a write. An error of the checker itself is not one of the process that writes."""
        try:
            self._check_write(kind, before, after)
        except Exception as error:
            self.problems.append(f"the checker fails: {error!r}")

    def _check_write(self, kind: type[Document], before: Rest | None, after: Rest | None) -> None:
        state = (after or {}).get("state")
        self.trace.append(f"{kind.collection} {(after or before or {})['id']} {state}\n")
        if kind is TaskDocument:
            self._task_written(before, after)
        elif kind is JobDocument:
            self._job_written(before, after)
        elif kind is NodeDocument and before and after:
            self._node_written(before, after)
        elif kind is ScheduleDocument and after:
            self._schedule_written(before or {}, after)
        elif kind is DeliveryDocument:
            self._delivery_written(before, after)
        elif kind is LogPartDocument and before and after is None:
            self._log_removed(before)
        if before and after and before.get("then") and after.get("then"):
            self._check_taken_up(before, after)

    def _schedule_written(self, before: Rest, after: Rest) -> None:
        waiting = {int(each["id"].removeprefix(FIRE)) for each in after.get("then") or ()}
        self._decided[after["id"]] |= waiting
        if before.get("state") == ScheduleState.ACTIVE != after["state"]:
            self._paused_before[after["id"]] = waiting

    def _delivery_written(self, before: Rest | None, after: Rest | None) -> None:
        if before is None:
            self._tries.pop((after or {})["id"], None)
        elif after and after["state"] != before["state"]:
            self._told_at = self._clock()

    def _job_written(self, before: Rest | None, after: Rest | None) -> None:
        if after is None:
            self._removed.add((before or {})["id"])
            self._late.pop((before or {})["id"], None)
            return
        if after["id"] in self._removed and not after.get("deleted_at"):
            self._check_made_again(after)
        self._states[after["id"]] = after["state"]
        self._check_subjob(after, new=before is None)
        if before is not None and self._stands(before) != self._stands(after):
            self._check_below(after)
        if after["state"] not in JOB_ENDED:
            self._ended_at.pop(after["id"], None)
        elif before is None or before["state"] not in JOB_ENDED:
            self._ended_at[after["id"]] = self._clock()

    def _check_below(self, job: Rest) -> None:
        """A job that ends does so by what came of its last restart (3); one that ended, or was restarted, has what is
        not to go on withdrawn."""
        culprit = (job.get("failed_task") or {}).get("id")
        for task in self._data.of(TaskDocument).values():
            if task["job_id"] != job["id"]:
                continue
            self._check_late(task)
            of_before = self._is_of_before(job, task)
            if task["id"] == culprit and of_before:
                self.problems.append(f"job {job['id']} FAILED by what was before its restart")
            if job["state"] == "COMPLETED" and task.get("active") and not of_before:
                self.problems.append(f"job {job['id']} completed; {task['id']} in it is active")

    def _check_made_again(self, job: Rest) -> None:
        """A job that was deleted does not come again (3)."""
        if job["state"] not in ("PENDING", "SCHEDULED"):
            self.problems.append(f"job {job['id']} was deleted, and is {job['state']}")

    def _task_written(self, before: Rest | None, after: Rest | None) -> None:
        if after is None:
            self._late.pop((before or {})["id"], None)
            return
        if before is None:
            self._check_made_once(after)
        if after.get("slot") != (before or {}).get("slot"):
            self._check_concurrency(after.get("slot_of"))
        was, state = (before or {}).get("state"), after["state"]
        if was != state:
            self._moved_at = self._clock()
        if state in ENDED and was not in ENDED:
            self._ended_at[after["id"]] = self._clock()
            self._check_composite(after)
            self._check_end_again(before, after)
        if state == "RUNNING" != was and after.get("kind") == "container":
            self._check_grant(after, new=(before or {}).get("nonce") != after.get("nonce"))
        if before is not None and after.get("lost", 0) > before.get("lost", 0):
            self._check_lost(before, after)
        self._check_late(after)

    def _check_made_once(self, task: Rest) -> None:
        """Each attempt at a place of a job is one task, however often it is made (3)."""
        where = (task["job_id"], task.get("restarts", 0), task["path"], task.get("attempt", 1))
        if self._made.setdefault(where, task["id"]) != task["id"]:
            self.problems.append(f"attempt {where} was made twice")
        job = self._job_of(task)
        if task["id"] in self._ended_at and job is not None and job.get("deleted_at"):
            self._made_again[task["id"]] += 1

    def _check_end_again(self, before: Rest | None, task: Rest) -> None:
        """A task that comes again while its job is being removed is only withdrawn (3): whoever inserts it was late."""
        if before is not None and task["id"] in self._made_again and task["state"] != "CANCELLED":
            self.problems.append(f"task {task['id']} was removed, and is {task['state']}")

    def _check_lost(self, before: Rest, after: Rest) -> None:
        """A grant that its worker does not wait for any more is handed back, and not left until it is missed (2)."""
        granted_at = self._granted_at.get(before.get("nonce", ""))
        if granted_at is None or after["runs"][-1]["why"] != UNLISTED:
            return
        told_in_vain = self.kinds & faults.OF_MESSAGES or before["nonce"] in self._told_ends
        if not told_in_vain and self._settled(granted_at, HANDS_BACK_WITHIN):
            self.problems.append(f"the grant of {after['id']} was not handed back")

    def _check_composite(self, task: Rest) -> None:
        if task["state"] != "COMPLETED" or task.get("kind") not in ("parallel", "each"):
            return
        for child in self._data.of(TaskDocument).values():
            if child.get("parent_id") == task["id"] and child.get("open"):
                self.problems.append(f"{task['id']} completed; {child['id']} below it is open")

    # --- what is not to go on -------------------------------------------------------------------------------------

    def _check_withdrawn(self, document: Rest, over: bool) -> None:
        """What is below something that has ended, or was restarted, is withdrawn at once, also if it comes later."""
        id = document["id"]
        if _is_active(document):
            if over:
                self._late.setdefault(id, self._clock())
        elif (since := self._late.pop(id, None)) is not None:
            self._left_to_sweeper.pop(id, None)
            if self._quiet_since <= since and self._settled(since, WITHDRAWN_WITHIN):
                self.problems.append(f"{id} was not to go on, and withdrawn late")

    def _check_late(self, task: Rest) -> None:
        """Look at a task, and at the sub-job that is attached to it."""
        self._check_withdrawn(task, self._is_over(self._job_of(task), task))
        if task.get("kind") == "subjob":
            for job in self._data.of(JobDocument).values():
                if job.get("parent_id") == task["id"]:
                    self._check_withdrawn(job, self._is_lost(job))

    def _check_subjob(self, job: Rest, *, new: bool) -> None:
        """A sub-job that nobody waited for when it came does not begin (3)."""
        if not job.get("parent_id"):
            return
        lost = self._is_lost(job)
        if new and lost:
            self._stillborn.add(job["id"])
        elif job["id"] in self._stillborn and job["state"] not in ("PENDING", "CANCELLED"):
            self.problems.append(f"job {job['id']} is {job['state']}, and nobody waits for it")
        self._check_withdrawn(job, lost)

    def look(self) -> None:
        """Look whether anything that is not to go on is left to the sweeper, and it does not come."""
        now = self._clock()
        for id in self._late:
            if self._somebody_is_about(id) or self._may_be_on_its_way(id):
                self._left_to_sweeper.pop(id, None)
            elif self._settled(self._left_to_sweeper.setdefault(id, now), SWEPT_WITHIN):
                self.problems.append(f"{id} is not to go on, and nobody withdraws it")

    def _somebody_is_about(self, id: str) -> bool:
        """Return whether an intent says that it is to be withdrawn."""
        job = self._data.of(JobDocument).get(id)
        task = self._data.of(TaskDocument).get(job["parent_id"] if job is not None else id)
        return any(
            each is not None and each.get("then") for each in (job, task, self._job_of(task))
        )

    def _may_be_on_its_way(self, id: str) -> bool:
        """Return whether a task is below a job that is gone, and too new for the sweeper: it looks below jobs that
        ended, and comes upon this one only once it seems not to have been sent."""
        task = self._data.of(TaskDocument).get(id)
        if task is None or task["state"] != "PENDING" or self._job_of(task) is not None:
            return False
        published_at: int = task["published_at"]
        return self._micros() - published_at <= UNCONFIRMED

    def _job_of(self, task: Rest | None) -> Rest | None:
        return None if task is None else self._data.of(JobDocument).get(task["job_id"])

    @staticmethod
    def _stands(job: Rest) -> tuple[bool, int]:
        """Return what decides whether what is below a job goes on."""
        return job["state"] in JOB_ENDED, job.get("restarts", 0)

    def _is_over(self, job: Rest | None, task: Rest) -> bool:
        ended = job is None or job["state"] in ("FAILED", "CANCELLED")
        return ended or self._is_of_before(job, task)

    @staticmethod
    def _is_of_before(job: Rest | None, task: Rest) -> bool:
        return job is not None and task.get("restarts", 0) < job.get("restarts", 0)

    def _is_lost(self, job: Rest) -> bool:
        """Return whether nobody waits for a sub-job."""
        task = self._data.of(TaskDocument).get(job["parent_id"])
        return task is None or not task.get("active") or self._is_over(self._job_of(task), task)

    def _check_grant(self, task: Rest, *, new: bool) -> None:
        job = self._data.of(JobDocument).get(task["job_id"])
        at = task.get("restarts", 0)
        if job is not None and at < job.get("restarts", 0):
            self.problems.append(f"task {task['id']} of restart {at} was granted")
        if task["job_id"] in self._ended_at and "clock jumps" not in self.kinds:
            self._check_in_time(task)
        node = self._data.of(NodeDocument).get(task.get("node_id") or "")
        if new and node is not None:
            self._check_node(task, node)

    def _check_in_time(self, task: Rest) -> None:
        """Whoever grants looks at the job after it has noted the time."""
        ago = (self._micros() - task["started_at"]) / MICROS_PER_SECOND
        if (late := self._clock() - ago - self._ended_at[task["job_id"]]) > 0:
            self.problems.append(f"task {task['id']} was granted {late} s after its job ended")

    def _check_node(self, task: Rest, node: Rest) -> None:
        if node.get("lease_until", 0) < task["started_at"] + LEASE_LEFT:
            self.problems.append(f"task {task['id']} was granted to {node['id']}; its lease ends")
        told = self._drained.get(node["id"])
        if told is not None and self._settled(told, DRAINS_WITHIN / MICROS_PER_SECOND):
            self.problems.append(f"task {task['id']} was granted to {node['id']}, which drains")

    def _check_concurrency(self, owner_id: str | None) -> None:
        """As many children of an `each` run at once as it allows, and no more."""
        owner = self._data.of(TaskDocument).get(owner_id or "")
        if owner is None:
            return
        tasks = self._data.of(TaskDocument).values()
        slots = [
            task.get("slot")
            for task in tasks
            if task.get("slot_of") == owner_id and task.get("active")
        ]
        taken = [slot for slot in slots if slot is not None]
        if len(taken) != len(set(taken)):
            self.problems.append(f"two children of {owner_id} have one slot")

    # --- nodes ----------------------------------------------------------------------------------------------------

    def _node_written(self, before: Rest, after: Rest) -> None:
        id, now = after["id"], self._clock()
        if after.get("drain_asked") != before.get("drain_asked"):
            self._drained.pop(id, None)
            if after.get("drain_asked"):
                self._drained[id] = now
        process = self._processes.get(id)
        if process is None:
            return
        self._check_drains(after)
        if after["beat"] < before["beat"]:
            self.problems.append(f"a beat of {id} counts that a later one overtook")
        if after.get("closed") and not before.get("closed"):
            self._check_closed(before, process)
        elif before.get("closed") and not after.get("closed"):
            self._check_opened(before, after)

    def _check_drains(self, node: Rest) -> None:
        """A worker that is to drain hears of it soon (8)."""
        id = node["id"]
        asked_at = self._drained.get(id)
        if asked_at is None or node.get("draining"):
            return
        if self._settled(max(asked_at, self._spared_until(id)), DRAIN_HEARD_WITHIN):
            self.problems.append(f"{id} was told to drain, and does not")

    def _spared_until(self, id: str) -> float:
        """Return until when a coordinator sends a node nothing, or sent it nothing, after the broker did not take a
        message to it in time."""
        return max(
            (
                each.driver.outbox._spared.get(node_queue(id), 0.0)
                for each in self.coordinators
                if hasattr(each, "driver") and not each.process.dead
            ),
            default=0.0,
        )

    def _check_closed(self, before: Rest, process: Process) -> None:
        if before["lease_until"] > self._micros():
            self._succeeded.add(process.name)
        elif not self._maybe_lost(process) and "clock jumps" not in self.kinds:
            self.problems.append(f"the lease of {process.name} ran out, and it lives")
        elif (since := self._succeeded_at(process)) and self._settled(since, SUCCEEDS_WITHIN):
            self.problems.append(f"{process.name} was succeeded, and its lease ran out")

    def _succeeded_at(self, process: Process) -> float | None:
        """Return since when another process goes on where one ended that was killed."""
        if process.name in self._left:
            return None
        for began in self._places.values():
            for (before, _), (after, at) in pairwise(began):
                if before == process.name:
                    return None if self._maybe_lost(self._processes[after]) else at
        return None

    def _check_opened(self, before: Rest, after: Rest) -> None:
        if after.get("epoch", 1) <= before.get("epoch", 1):
            self.problems.append(f"{after['id']} is back, in the epoch that was closed")
        if after["id"] in self._succeeded:
            self.problems.append(f"{after['id']} is back, and had been succeeded")

    # --- due work -------------------------------------------------------------------------------------------------

    def _check_taken_up(self, before: Rest, after: Rest) -> None:
        """What somebody has taken up nobody else takes up before its time has come again: that is moved on only to
        hold it."""
        there = {intent["id"]: intent for intent in before["then"]}
        now = self._micros()
        for intent in after["then"]:
            was = there.get(intent["id"])
            if was is None or intent.get("error") or intent["at"] <= was["at"]:
                continue
            tries = intent.get("tries", 0)
            held = intent["at"] <= now and (tries > 1 or intent["at"] - was["at"] >= HELD_EVERY)
            if tries == was.get("tries", 0) > 0 and not held:
                self.problems.append(f"{after['id']} {intent['id']} was taken up by two")

    def _log_removed(self, part: Rest) -> None:
        """The log of what goes on stays (10)."""
        job = self._data.of(JobDocument).get(part["job_id"])
        task = self._data.of(TaskDocument).get(part["task_id"])
        if job is None or task is None or job.get("deleted_at"):
            return
        if part["run"] >= task.get("run", 0):
            self.problems.append(f"the log of {part['task_id']} was removed")

    # --- webhooks -------------------------------------------------------------------------------------------------

    def tried(self, delivery_id: str) -> None:
        """Take note of a try to deliver something: one coordinator alone makes each (3, 11)."""
        self._tries[delivery_id] += 1
        delivery = self._data.of(DeliveryDocument).get(delivery_id)
        if delivery is not None and self._tries[delivery_id] > delivery["attempts"]:
            self.problems.append(f"{delivery_id} was tried by two")

    def told(self, delivery_id: str, body: Mapping[str, Any]) -> None:
        """Take note of a delivery: it is made once, where nothing goes wrong (3)."""
        self._posted[delivery_id] += 1
        self.kinds.add(WEBHOOKS)
        self._told[body["id"]].append(body["state"])
        job = self._data.of(JobDocument).get(body["id"])
        if ports.STALL in self.kinds and (job is None or job.get("deleted_at")):
            return  # what was noted of it went with the job, while the step that tells it stood still
        if self._posted[delivery_id] > 1 and not self.kinds - _DOUBLES_NO_DELIVERY:
            self.problems.append(f"{body['id']} {body['state']} was delivered twice")

    def is_stuck(self) -> bool:
        """Return whether nothing has moved for too long, though nothing is wrong and nobody runs anything (2). A
        webhook may wait for long."""
        late = self._settled(self._moved_at, STUCK_AFTER)
        return (
            late
            and not self._only_tells()
            and not any(
                self._data.of(TaskDocument).get(task_id, {}).get("nonce") == run.assignment.nonce
                for task_id, run in self._running()
            )
        )

    def _only_tells(self) -> bool:
        return all(
            kind is DeliveryDocument or self._waits_for_deliveries(rest)
            for kind, rest in self._unfinished()
        )

    def _waits_for_deliveries(self, rest: Rest) -> bool:
        """Return whether nothing is left of a job but its removal, which waits for its webhooks, or did just now."""
        if [each["do"] for each in rest.get("then") or ()] != [DELETE] or _is_active(rest):
            return False
        return not self._settled(self._told_at, STUCK_AFTER) or any(
            each["job_id"] == rest["id"] and each["state"] == DeliveryState.PENDING
            for each in self._data.of(DeliveryDocument).values()
        )

    def _running(self) -> Iterator[tuple[str, SimRun]]:
        for task_id, runs in self._runs.items():
            yield from ((task_id, run) for run in runs if not (run.over or run.process.dead))

    # --- at rest --------------------------------------------------------------------------------------------------

    def left(self) -> list[str]:
        """Return what has not come to its end, in words."""
        return [
            f"{kind.noun()} {rest['id']} is {rest['state']}, then {rest.get('then')}"
            for kind, rest in self._unfinished()
        ]

    def _unfinished(self) -> Iterator[tuple[type[Document], Rest]]:
        for kind in (JobDocument, TaskDocument, ScheduleDocument, DeliveryDocument):
            for rest in self._data.of(kind).values():
                left = rest["state"] not in ENDED or rest.get("then") or rest.get("open")
                if left or self._goes_soon(rest):
                    yield kind, rest

    def _goes_soon(self, rest: Rest) -> bool:
        """Return whether there is still time for a job to go that is to be deleted."""
        to_go = rest.get("delete_at") is not None
        return to_go and not self._settled(self._ended_at[rest["id"]], REMOVED_WITHIN)

    def check_repairs(self) -> None:
        """What was noted had a cause. The sweeper may come upon one thing that somebody is just about; where tasks are
        inserted held, and offered numbers a step later, each coordinator's may."""
        each = [self._noted_by(coordinator) for coordinator in self.coordinators]
        for what, count in self.noted().items():
            causes = MAY_BE.get(what)
            most = max(noted[what] for noted in each) if what == "swept_free_slot" else count
            by_chance = causes is STRUCTURE and most == 1
            if causes is not None and not by_chance and not self.kinds & causes:
                self.problems.append(f"{count} × {what}, without a cause in {sorted(self.kinds)}")

    def check_history(self) -> None:
        """Each change of a state was allowed, each end is one (3), and logs are whole (10)."""
        try:
            self._audit.check()
        except AssertionError as error:
            self.problems.append(f"the history: {error}")
        ends = self._audit.ends()
        self.problems += [
            f"task {id} ended {count} times"
            for id, count in ends.items()
            if count > 1 + self._made_again[id]
        ]
        self._check_logs()

    def _check_logs(self) -> None:
        parts: defaultdict[tuple[str, int], list[tuple[int, str]]] = defaultdict(list)
        for part in self._data.of(LogPartDocument).values():
            parts[part["task_id"], part["run"]].append((part["number"], part["contents"]))
        for task in self._data.of(TaskDocument).values():
            count = task.get("log_parts")
            if task["state"] != "COMPLETED" or not count:
                continue
            log = sorted(parts[task["id"], task["run"]])
            there = [number for number, _ in log]
            if ports.LOST in self.kinds and len(there) == len(set(there)):
                continue
            told = f"begin {task['nonce']}\nend\n"
            lost = self._lost_of(task) - {*there}
            if there != [number for number in range(1, count + 1) if number not in lost]:
                self.problems.append(f"task {task['id']} has parts {there} of {count}")
            elif not lost and "".join(contents for _, contents in log) != told:
                self.problems.append(f"the log of {task['id']} lacks what its run wrote: {log}")

    def _lost_of(self, task: Rest) -> set[int]:
        run = task["id"], task["run"]
        return {number for *whose, number in self._parts_lost if (*whose,) == run}

    def check_ends(
        self, submitted: Mapping[str, language.JobDefinition], told: Mapping[str, set[str]]
    ) -> None:
        """Each job that was answered is there (1), and ended as its users' commands allow."""
        there = self._data.of(JobDocument)
        for job_id, definition in submitted.items():
            job, commands = there.get(job_id), told.get(job_id, set())
            self._check_told(job_id, definition)
            if job is None or (job["state"] == "COMPLETED" and definition.auto_delete):
                self._check_there(job_id, job, definition, commands)
            elif job["state"] not in JOB_ENDED:
                self.problems.append(f"job {job_id} is {job['state']}")
            elif "cancel" not in commands and "restart" not in commands:
                self._check_untouched(job, definition)

        self._check_attached()
        known = {*submitted}
        made_of = ("parent_id", "detached_from", "schedule", "rerun_of")
        for job in there.values():
            made_by_user = not any(map(job.get, made_of))
            if made_by_user and job["id"] not in known:
                self.problems.append(f"job {job['id']} was submitted by nobody")

    def _check_attached(self) -> None:
        """A sub-job goes with the task that it is attached to."""
        tasks = self._data.of(TaskDocument)
        for job in self._data.of(JobDocument).values():
            if (parent := job.get("parent_id")) and parent not in tasks:
                self.problems.append(f"job {job['id']} is left of {parent}, which is gone")

    def _check_there(
        self,
        job_id: str,
        job: Rest | None,
        definition: language.JobDefinition,
        commands: Collection[str],
    ) -> None:
        """A job is gone if a user said so, and only then."""
        if job is not None:
            self.problems.append(f"job {job_id} is still there")
        elif not ("delete" in commands or definition.auto_delete):
            self.problems.append(f"job {job_id} is gone")

    def _check_told(self, job_id: str, definition: language.JobDefinition) -> None:
        """Who wanted to hear of a job heard of its end."""
        wanted = any(hook.event == "job.StateChange" for hook in definition.webhooks)
        if wanted and self._states.get(job_id) not in self._told[job_id]:
            self.problems.append(f"nobody was told that {job_id} is {self._states.get(job_id)}")

    def check_firings(self) -> None:
        """Each firing of a schedule made one job (11); none while the one before ran, where it is to wait or be left
        out."""
        for schedule in self._data.of(ScheduleDocument).values():
            fired = [
                job
                for job in self._data.of(JobDocument).values()
                if (job.get("schedule") or {}).get("id") == schedule["id"]
            ]
            fired.sort(key=lambda job: int(job["schedule"]["time"]))
            times = [job["schedule"]["time"] for job in fired]
            if len(times) != len(set(times)):
                self.problems.append(f"schedule {schedule['id']}: two jobs of one firing: {times}")
            if schedule.get("overlap") in ("skip", "queue"):
                self._check_one_at_a_time(schedule["id"], fired)
            awake = not self.kinds & _ASLEEP
            if schedule.get("overlap") != "skip" and (awake or schedule["catchup"] == "all"):
                self._check_all_fired(schedule, times)

    def _check_one_at_a_time(self, schedule_id: str, fired: list[Rest]) -> None:
        for before, after in pairwise(fired):
            if after["created_at"] < before["ended_at"]:
                self.problems.append(
                    f"schedule {schedule_id}: {before['id']} ran, {after['id']} came"
                )

    def _check_all_fired(self, schedule: Rest, times: list[int]) -> None:
        period = parse_cron(schedule["cron"]).every_seconds
        assert period is not None
        first = schedule["created_at"] + period * MICROS_PER_SECOND
        last = max(self._decided[schedule["id"]], default=0)
        left_out = self._paused_before.get(schedule["id"], set()) - {*times}
        if schedule.get("overlap") != "queue" and not self.kinds & STRUCTURE:
            left_out = set()  # nothing keeps it waiting, and whoever was to make its job is there
        due = [*range(first, last + 1, period * MICROS_PER_SECOND)]
        if times != [time for time in due if time not in left_out]:
            self.problems.append(f"schedule {schedule['id']} fired at {times}, was due at {due}")
        if schedule.get("fired_at") != (times[-1] if times else None):
            self.problems.append(f"schedule {schedule['id']} fired last at {times[-1:]}, says not")

    def _check_untouched(self, job: Rest, definition: language.JobDefinition) -> None:
        if job["state"] == "CANCELLED":
            self.problems.append(f"job {job['id']} was cancelled by nobody")
        elif job["state"] == "FAILED" and jobs.must_complete(definition) and SLIP not in self.kinds:
            self.problems.append(f"job {job['id']} FAILED: {job.get('error')}")


def _is_active(document: Rest) -> bool:
    """Return whether a task or job has not ended."""
    active = document.get("active")
    return document["state"] not in JOB_ENDED if active is None else bool(active)
