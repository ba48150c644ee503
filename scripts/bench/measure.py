"""Runs the plan: each disk and each load, round after round."""

import json
import pathlib
import re
import shutil
import statistics
import sys

from disks import Content, Failure, Programs, Server, run
from plan import DISKS, GROUPS, STATES, Disk, Group, Load


STARTS = 5  # in each round, of a server whose start is measured


class Options:
    """What was asked for; --help of bench.sh says what each means."""

    rounds: int
    seconds: float
    size: int  # bytes
    quick: bool
    only: str  # regular expression on the keys of loads
    directory: pathlib.Path
    flush_directory: pathlib.Path
    build: pathlib.Path


def chosen(options: Options) -> list[tuple[Group, list[Disk], list[Load]]]:
    """What of the plan is measured."""
    result = []
    for group in GROUPS:
        if options.quick and not group.quick:
            continue
        loads = [load for load in group.loads if re.search(options.only, load.key)]
        disks = [DISKS[key] for key in group.disks if DISKS[key].quick or not options.quick]
        disks = [disk for disk in disks
                 if any(not load.disks or disk.key in load.disks for load in loads)]
        if loads:
            result.append((group, disks, loads))
    return result


class Progress:
    """A line on the terminal that tells how far the run is; nothing elsewhere."""

    def __init__(self, steps: int):
        self._steps = steps
        self._done = 0

    def show(self, what: str):
        if sys.stderr.isatty():
            done = 100 * self._done // max(self._steps, 1)
            sys.stderr.write(f"\r\033[K{done:3} %  {what}")
            sys.stderr.flush()

    def step(self, what: str):
        self.show(what)
        self._done += 1

    def clear(self):
        if sys.stderr.isatty():
            sys.stderr.write("\r\033[K")


class Measurement:
    """Measures what was chosen; `results` has a record for each round, load and disk."""

    def __init__(self, options: Options, folder: pathlib.Path, flush_folder: pathlib.Path):
        self.results: list[dict] = []
        self._options = options
        self._programs = Programs(options.build)
        self._folder = folder
        self._flush_folder = flush_folder
        self._chosen = [part for part in chosen(options) if self._has_space(part[0], part[1])]
        self._progress = Progress(options.rounds * sum(
            self._takes_part(disk, load)
            for _, disks, loads in self._chosen for disk in disks for load in loads))

    def run(self):
        try:
            for group, disks, loads in self._chosen:
                self._run_group(group, disks, loads)
        finally:
            self._progress.clear()

    def _run_group(self, group: Group, disks: list[Disk], loads: list[Load]):
        self._progress.show(f"{group.key}: making the disks")
        content = Content(self._programs, self._folder / "content", group, self._size(group))
        content.make(disks)
        for number in range(1, self._options.rounds + 1):
            # Another order each time, so that nobody always comes first.
            first = (number - 1) * len(disks) // self._options.rounds
            order = disks[first:] + disks[:first]
            for batch in [order] if group.together else [[disk] for disk in order]:
                self._run_batch(number, group, content, batch, loads)
        content.drop()

    def _run_batch(self, number: int, group: Group, content: Content, disks: list[Disk],
                   loads: list[Load]):
        folder = self._flush_folder if group.durable else self._folder
        servers: list[Server] = []
        try:
            for disk in disks:
                servers.append(Server(self._programs, disk, content, group, folder / disk.key))
                if number == 1 and not group.writes and disk.kind != "null":
                    servers[-1].expect_content()
            for load in loads:
                for server in servers:
                    if self._takes_part(server.disk, load):
                        self._measure(number, load, server)
        finally:
            for server in servers:
                told = server.stop()
                if group.durable and told and self.results:
                    self.results[-1].update(told)

    @staticmethod
    def _takes_part(disk: Disk, load: Load) -> bool:
        return not load.disks or disk.key in load.disks

    def _measure(self, number: int, load: Load, server: Server):
        what = f"round {number} of {self._options.rounds}, {load.key}, {server.disk.title}"
        self._progress.step(what)
        record = {"round": number, "load": load.key, "disk": server.disk.key}
        if load.opening:
            times = [server.start() for _ in range(STARTS)]
            record["first_read_ms"] = round(statistics.median(times), 3)
        else:
            for state in load.needs:
                if state not in server.states:
                    self._load(server, STATES[state])
                    server.states.add(state)
            limits = [] if load.measure_all else ["--seconds", self._options.seconds, "--warm-up",
                                                  min(0.3, self._options.seconds / 4)]
            record.update(self._load(server, [*load.arguments, *limits, "--seed", number]))
            if load.leaves:
                server.states.add(load.leaves)
        self.results.append(record)

    def _load(self, server: Server, arguments) -> dict:
        said = run(self._programs.load, "--server-pid", server.pid, *arguments, server.uri)
        return json.loads(said)

    def _size(self, group: Group) -> int:
        size = group.size or self._options.size
        return min(size, group.most or size)

    def _has_space(self, group: Group, disks: list[Disk]) -> bool:
        """By a generous guess. Raises if not, unless this group is that large for everybody."""
        size = self._size(group)
        chain = 1.5 if group.scattered else 7  # copy and chain; in a chain, whole clusters
        layers = sum(chain if disk.kind == "qcow2" else 1 for disk in disks
                     if disk.lowers > 1 and disk.kind != "sparse")
        needed = int(size * (1 + (not group.scattered) + layers + 4 * group.writes))
        free = shutil.disk_usage(self._folder).free
        if needed <= free:
            return True
        lack = (f"{self._folder.parent} has {free >> 20} MiB left, and the disks of "
                f"'{group.key}' may need {needed >> 20}")
        if not group.size:
            raise Failure(f"{lack}: choose a smaller --size, or another --directory")
        print(f"bench.sh: {lack}: left out", file=sys.stderr)
        return False
