"""What the results come to: medians, tables, targets, plots."""

import dataclasses
import pathlib
import statistics
import subprocess
from typing import Callable, Optional

from disks import Failure
from plan import DISKS, FILE, GROUPS, LOADS, TARGETS, Load, Target

BEGIN = "<!-- bench: begin -->"
END = "<!-- bench: end -->"

METRICS: dict[str, Callable[[dict], Optional[float]]] = {
    "rate": lambda record: record.get("iops"),
    "mb_per_s": lambda record: record.get("mb_per_s"),
    "cpu": lambda record: record.get("server_cpu_us_per_request"),
    "ms": lambda record: record.get("first_read_ms"),
    "p50": lambda record: record.get("latency_us", {}).get("p50"),
    "p99": lambda record: record.get("latency_us", {}).get("p99"),
    "p99.9": lambda record: record.get("latency_us", {}).get("p99.9"),
    "syncs_per_flush": lambda record: (
        record["syncs"] / record["flushes"] if record.get("flushes") else None),
}


class Summary:
    """Medians over the rounds. A ratio is the median of the ratios within each round."""

    def __init__(self, results: list[dict]):
        self._records: dict[tuple[str, str], dict[int, dict]] = {}
        for record in results:
            rounds = self._records.setdefault((record["load"], record["disk"]), {})
            rounds[record["round"]] = record

    def value(self, load: str, disk: str, metric: str) -> Optional[float]:
        values = self._values(load, disk, metric).values()
        return statistics.median(values) if values else None

    def ratio(self, load: str, disk: str, other: str, metric: str) -> Optional[float]:
        ratios = self.in_each_round(load, disk, other, metric)
        return statistics.median(ratios) if ratios else None

    def in_each_round(self, load: str, disk: str, other: Optional[str],
                      metric: str) -> list[float]:
        """The ratios to another disk, or without one the values themselves."""
        ours = self._values(load, disk, metric)
        if other is None:
            return list(ours.values())
        theirs = self._values(load, other, metric)
        return [value / theirs[number] for number, value in ours.items() if theirs.get(number)]

    def disks(self, load: str) -> list[str]:
        """In the plan's order."""
        return [disk for disk in DISKS if (load, disk) in self._records]

    def as_list(self) -> list[dict]:
        return [{"load": load, "disk": disk,
                 **{metric: self.value(load, disk, metric) for metric in METRICS},
                 **{f"{metric}_to_file": self.ratio(load, disk, FILE, metric)
                    for metric in ("rate", "cpu")}}
                for load in LOADS for disk in self.disks(load)]

    def _values(self, load: str, disk: str, metric: str) -> dict[int, float]:
        values = {number: METRICS[metric](record)
                  for number, record in self._records.get((load, disk), {}).items()}
        return {number: value for number, value in values.items() if value is not None}


# --- tables ---

@dataclasses.dataclass
class Table:
    title: str
    head: list[str]
    rows: list[list[str]]
    words: int = 1  # so many columns hold words, the others numbers

    def as_text(self) -> str:
        widths = [max(len(row[i]) for row in [self.head, *self.rows])
                  for i in range(len(self.head))]
        lines = [self.title]
        for row in [self.head, *self.rows]:
            cells = [cell.ljust(width) if i < self.words else cell.rjust(width)
                     for i, (cell, width) in enumerate(zip(row, widths))]
            lines.append("  " + "  ".join(cells).rstrip())
        return "\n".join(lines) + "\n"

    def as_markdown(self) -> str:
        rule = ["---" if i < self.words else "---:" for i in range(len(self.head))]
        lines = [f"**{self.title}**", ""]
        lines += ["| " + " | ".join(row) + " |" for row in [self.head, rule, *self.rows]]
        return "\n".join(lines) + "\n"


def number(value: Optional[float], digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def load_table(summary: Summary, load: Load) -> Table:
    if load.opening:
        rows = [[DISKS[disk].title, number(summary.value(load.key, disk, "ms"), 1)]
                for disk in summary.disks(load.key)]
        return Table(load.title, ["disk", "ms"], rows)
    rate = "mb_per_s" if load.large else "rate"
    durable = any(summary.value(load.key, disk, "syncs_per_flush") is not None
                  for disk in summary.disks(load.key))
    head = ["disk", "MB/s" if load.large else "requests/s", "to file", "CPU us", "to file",
            "p50 us", "p99 us", "p99.9 us"]
    rows = []
    for disk in summary.disks(load.key):
        cells = [(rate, 0), None, ("cpu", 0 if load.large else 2), None, ("p50", 0), ("p99", 0),
                 ("p99.9", 0)]
        row = [DISKS[disk].title]
        for cell in cells:
            if cell:
                metric = cell[0]
                row.append(number(summary.value(load.key, disk, metric), cell[1]))
            else:
                row.append(number(summary.ratio(load.key, disk, FILE, metric), 2))
        if durable:
            row.append(number(summary.value(load.key, disk, "syncs_per_flush"), 2))
        rows.append(row)
    return Table(load.title, head + ["syncs per flush"] * durable, rows)


# --- targets ---

METRIC_WORDS = {"cpu": "CPU per request", "rate": "rate", "ms": "start to first read, ms"}


@dataclasses.dataclass
class Verdict:
    target: Target
    rounds: list[float]

    @property
    def measured(self) -> Optional[float]:
        return statistics.median(self.rounds) if self.rounds else None

    @property
    def met(self) -> Optional[bool]:
        return None if self.measured is None else self.target.is_met_by(self.measured)

    def as_dict(self) -> dict:
        target = self.target
        return {"key": target.key, "load": target.load, "disk": target.disk,
                "other": target.other, "metric": target.metric, "bound": target.bound,
                "at_least": target.metric == "rate", "measured": self.measured, "met": self.met}


def judge(summary: Summary) -> list[Verdict]:
    return [Verdict(target, summary.in_each_round(target.load, target.disk, target.other,
                                                  target.metric)) for target in TARGETS]


def target_table(verdicts: list[Verdict], title: str = "Targets") -> Table:
    rows = []
    for verdict in verdicts:
        target = verdict.target
        what = METRIC_WORDS[target.metric]
        if target.other:
            what += f" to {DISKS[target.other].title}"
        sign = ">=" if target.metric == "rate" else "<="
        rounds = verdict.rounds
        rows.append([LOADS[target.load].title, DISKS[target.disk].title, what,
                     f"{sign} {target.bound:.2f}", number(verdict.measured, 3),
                     f"{min(rounds):.2f} to {max(rounds):.2f}" if rounds else "",
                     {True: "yes", False: "NO", None: "not measured"}[verdict.met]])
    return Table(title, ["load", "disk", "figure", "bound", "measured", "in the rounds", "met"], rows,
                 words=3)


def tables(summary: Summary) -> list[Table]:
    return [load_table(summary, load) for group in GROUPS for load in group.loads
            if summary.disks(load.key)]


# --- plots ---

def draw(script: str):
    done = subprocess.run(["gnuplot"], input=script, text=True, capture_output=True)
    if done.returncode != 0:
        raise Failure(f"gnuplot failed: {done.stderr.strip().splitlines()[-1]}")


def block(name: str, rows: list[list]) -> str:
    lines = [" ".join(f'"{cell}"' if isinstance(cell, str) else str(cell) for cell in row)
             for row in rows]
    return "\n".join([f"${name} << END", *lines, "END", ""])


def draw_cpu(summary: Summary, file: pathlib.Path) -> bool:
    """CPU time for each 4 KiB request, by server and load."""
    loads = [("read", "random read, over 32 layers if any"), ("overwrite", "random overwrite"),
             ("first-write", "first write over a lower")]
    servers = [("nbdkit file", (FILE,)), ("cow filter", ("cow-4k",)),
               ("append", ("append-32", "append")), ("sparse", ("sparse-32", "sparse")),
               ("qcow2", ("qcow2-32", "qcow2"))]
    rows = []
    for title, disks in servers:
        row = [title]
        for load, _ in loads:
            values = [summary.value(load, disk, "cpu") for disk in disks]
            row.append(next((value for value in values if value is not None), "NaN"))
        rows.append(row)
    if all(cell == "NaN" for row in rows for cell in row[1:]):
        return False
    plots = ", ".join(f'$cpu using {i + 2}:xtic(1) title "{title}"'
                      for i, (_, title) in enumerate(loads))
    draw(block("cpu", rows).replace('"NaN"', "NaN") + f'''
set terminal svg size 800,420 background "white"
set output "{file}"
set title "Server CPU time for each 4 KiB request, 16 in flight"
set ylabel "microseconds"
set yrange [0:*]
set style data histogram
set style histogram clustered gap 1
set style fill solid 0.8 noborder
set grid ytics
set key top left
plot {plots}
''')
    return True


def draw_depth(summary: Summary, file: pathlib.Path) -> bool:
    """How the rate of random reads depends on the number of layers."""
    lines = []
    for kind, title in (("append", "append"), ("qcow2", "qcow2 chain")):
        points = [[disk.lowers, summary.value("read", disk.key, "rate")] for disk in DISKS.values()
                  if disk.kind == kind and disk.compression == "none"]
        lines.append((kind, title, [point for point in points if point[1] is not None]))
    if any(len(points) < 2 for _, _, points in lines):
        return False
    raw = summary.value("read", FILE, "rate")
    plots = [f'${kind} using 1:2 with linespoints lw 2 pt 7 title "{title}"'
             for kind, title, _ in lines]
    if raw is not None:
        plots.append(f'{raw} with lines lw 2 dt 2 title "nbdkit file, no layers"')
    draw("".join(block(kind, points) for kind, _, points in lines) + f'''
set terminal svg size 800,420 background "white"
set output "{file}"
set title "4 KiB random reads, 16 in flight"
set xlabel "layers below the writable one"
set ylabel "requests per second"
set logscale x 2
set xtics (1, 8, 32, 255)
set xrange [0.9:300]
set yrange [0:*]
set grid
set key bottom left
plot {", ".join(plots)}
''')
    return True


# --- docs/performance.md ---

def check_document(file: pathlib.Path):
    """Raises unless the tables can be put into it."""
    try:
        text = file.read_text()
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}") from None
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise Failure(f"{file}: needs the line {BEGIN} and below it {END}, each once, to say "
                      "where the tables go")


def write_document(file: pathlib.Path, conditions: str, summary: Summary):
    check_document(file)
    parts = [conditions + "\n", target_table(judge(summary)).as_markdown()]
    for name, plot, alternative in (("cpu", draw_cpu, "CPU time by server and load"),
                                    ("depth", draw_depth, "Read rate over the number of layers")):
        picture = file.with_name(f"{file.stem}-{name}.svg")
        if plot(summary, picture):
            parts.append(f"![{alternative}]({picture.name})\n")
    title = None
    for group in GROUPS:
        measured = [load for load in group.loads if summary.disks(load.key)]
        if measured and group.title != title:
            title = group.title
            parts.append(f"### {title}\n")
        parts += [load_table(summary, load).as_markdown() for load in measured]
    before, rest = file.read_text().split(BEGIN)
    after = rest.split(END)[1]
    text = f"{before}{BEGIN}\n\n" + "\n".join(parts) + f"\n{END}{after}"
    temporary = file.with_name(file.name + ".new")
    temporary.write_text(text.replace(" us |", " µs |"))
    temporary.replace(file)
