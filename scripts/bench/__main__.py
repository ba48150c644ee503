"""The command line of scripts/bench.sh."""

import argparse
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import report
from disks import Failure, Programs
from measure import Measurement, Options, chosen
from plan import LOADS

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DOCUMENT = ROOT / "docs/performance.md"
MIB = 1 << 20
EXAMPLES = """
examples:
  scripts/bench.sh --quick                       the loads that decide, within 4 minutes
  scripts/bench.sh --json all.json --docs        everything, within 40 minutes on 2 CPUs
  scripts/bench.sh --only '^read' --rounds 9     some loads; --list names them
  scripts/bench.sh --quick --only flush --flush-directory /mnt/disk

Figures are medians over the rounds; ratios are medians of the ratios within each round. Rates drift
with the machine; ratios and CPU time per request drift less. Build first (scripts/test.sh does),
and leave the machine alone meanwhile.
"""


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        self.exit(2, f"bench.sh: {message}; see --help\n")


def size(text: str) -> int:
    found = re.fullmatch(r"(\d+)([KMGkmg]?)", text)
    value = int(found[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[found[2].lower()] if found else 0
    if value < 16 * MIB or value % MIB != 0:
        raise argparse.ArgumentTypeError(f"{text} is not a size in whole MiB, as 512M, from 16M")
    return value


def positive(kind):
    def parse(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value <= 10000:
            raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
        return value
    return parse


def pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text} is not a regular expression: {error}")
    return text


def folder(text: str) -> pathlib.Path:
    if not pathlib.Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a folder")
    return pathlib.Path(text).resolve()


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(
        prog="scripts/bench.sh", epilog=EXAMPLES, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Serves disks by nbdkit, qemu-nbd and this project's plugin, taking turns,\n"
        "loads them, compares them, and says which performance targets are met.")
    parser.add_argument("--quick", action="store_true",
                        help="fewer disks, shorter: 3 rounds of 0.5 s, 256M")
    parser.add_argument("--only", metavar="REGEX", type=pattern, default="",
                        help="only loads whose key this is found in")
    parser.add_argument("--list", action="store_true", help="name the loads, and measure nothing")
    parser.add_argument("--rounds", metavar="N", type=positive(int), help="rounds (5)")
    parser.add_argument("--seconds", metavar="S", type=positive(float),
                        help="how long each measurement takes (2)")
    parser.add_argument("--size", metavar="BYTES", type=size,
                        help="of the disks (512M); K, M and G are understood")
    parser.add_argument("--directory", metavar="DIR", type=folder, default="/dev/shm",
                        help="where the files go (/dev/shm; up to 28 times the size, 12 times "
                        "with --quick)")
    parser.add_argument("--flush-directory", metavar="DIR", type=folder, default="/var/tmp",
                        help="where those go that are flushed, on a real file system (/var/tmp)")
    parser.add_argument("--build", metavar="DIR", type=folder, default=ROOT / "build/release",
                        help="the build folder (build/release)")
    parser.add_argument("--json", metavar="FILE", type=pathlib.Path,
                        help="write all results, the medians and the targets")
    parser.add_argument("--docs", metavar="FILE", type=pathlib.Path, nargs="?", const=DOCUMENT,
                        help="put the tables into docs/performance.md, plots beside it")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.seconds = options.seconds or (0.5 if options.quick else 2)
    options.size = options.size or (256 if options.quick else 512) * MIB
    if options.docs == DOCUMENT and (options.quick or options.only):
        parser.error("--docs puts a whole run into the project's page: name another FILE for a "
                     "part of it")
    if not chosen(options):
        parser.error(f"no load has a key with {options.only} in it, see --list")
    return options


def conditions(options: Options) -> str:
    version = subprocess.run(["nbdkit", "--version"], capture_output=True, text=True).stdout.split()
    qemu = subprocess.run(["qemu-nbd", "--version"], capture_output=True, text=True).stdout.split()
    rounds = "1 round" if options.rounds == 1 else f"{options.rounds} rounds"
    return (f"Medians of {rounds} of {options.seconds:g} s, disks of {options.size // MIB} MiB, "
            f"{len(os.sched_getaffinity(0))} CPUs, Linux {platform.release()}, "
            f"{' '.join(version[:2])}, qemu-nbd {qemu[1] if len(qemu) > 1 else '?'}.")


def tell(text: str):
    """Prints; who reads only the beginning is nothing to complain of."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def measure(options: Options):
    programs = Programs(options.build)
    programs.check(*["gnuplot"] if options.docs else [])
    if options.docs:
        report.check_document(options.docs)
    for file in filter(None, (options.json, options.docs)):
        if not os.access(file.absolute().parent, os.W_OK):
            raise Failure(f"{file} cannot be written: its folder is missing or read-only")
    made = []
    try:
        for directory in (options.directory, options.flush_directory):
            made.append(pathlib.Path(tempfile.mkdtemp(prefix="obd-bench.", dir=directory)))
        measurement = Measurement(options, *made)
        measurement.run()
    finally:
        for directory in made:
            shutil.rmtree(directory, ignore_errors=True)
    summary = report.Summary(measurement.results)
    verdicts = report.judge(summary)
    judged = [verdict for verdict in verdicts if verdict.met is not None]
    title = (f"Targets: {sum(verdict.met for verdict in judged)} met, of {len(judged)}; "
             f"not measured: {len(verdicts) - len(judged)}")
    tables = report.tables(summary)
    if judged:
        tables.append(report.target_table(judged, title))
    tell("\n".join([conditions(options) + "\n", *[table.as_text() for table in tables]]))
    if options.json:
        options.json.write_text(json.dumps({
            "conditions": conditions(options), "rounds": options.rounds,
            "seconds": options.seconds, "size": options.size, "results": measurement.results,
            "medians": summary.as_list(),
            "targets": [verdict.as_dict() for verdict in verdicts]}, indent=1) + "\n")
    if options.docs:
        report.write_document(options.docs, conditions(options), summary)


def main() -> int:
    options = parse(sys.argv[1:])
    if options.list:
        tell("".join(f"{load.key:20} {load.title}\n" for load in LOADS.values()))
        return 0

    signals = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)

    def end(number, frame):
        for other in signals:  # cleaning up is not to be interrupted
            signal.signal(other, signal.SIG_IGN)
        raise SystemExit(128 + number)
    for number in signals:
        signal.signal(number, end)
    try:
        measure(options)
    except (Failure, OSError) as error:
        print(f"bench.sh: {error}", file=sys.stderr)
        return 1
    return 0


sys.exit(main())
