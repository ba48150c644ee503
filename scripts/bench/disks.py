"""Makes disks, and serves them."""

import os
import pathlib
import random
import re
import shutil
import subprocess
import time
import urllib.parse

import nbd
from plan import Disk, Group

EXTENT_SPACING = 16 << 10  # bytes of the disk for each extent of all layers above the bottom one
COMPRESSED_BLOCK = {"lz4": "4K", "zstd": "64K"}


class Failure(Exception):
    """What cannot go on, as a sentence for the user."""


class Programs:
    """What is run, and how."""

    PEERS = ("nbdkit", "nbdcopy", "qemu-img", "qemu-nbd", "setpriv")

    def __init__(self, build: pathlib.Path):
        self.obd = build / "bin/obd"
        self.load = build / "test/obd_load"
        self.layers = build / "test/obd_bench_layers"
        self.plugin = build / "lib/nbdkit-overlaybd-plugin.so"

    def check(self, *others: str):
        for program in (*self.PEERS, *others):
            if not shutil.which(program):
                raise Failure(f"there is no program {program}: scripts/setup.sh --dev installs it")
        for file in (self.obd, self.load, self.layers, self.plugin):
            if not file.exists():
                raise Failure(f"{file} is missing: build first, with scripts/setup.sh --dev, "
                              "cmake --preset release -DOBD_TESTS=ON and "
                              "cmake --build --preset release")


def run(*words) -> str:
    """Runs a program to its end; what it says goes into the failure, if it fails."""
    words = [str(word) for word in words]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().replace("\n", "; ") or "it said nothing"
        raise Failure(f"{pathlib.Path(words[0]).name} failed with status {done.returncode}: {said}")
    return done.stdout


class Content:
    """What a group's disks hold before anything is written to them, in the forms they need.

    The same bytes in each: a raw file, stacks of layers, chains of qcow2 files.
    """

    def __init__(self, programs: Programs, folder: pathlib.Path, group: Group, size: int):
        self._programs = programs
        self._folder = folder
        self._scattered = group.scattered
        self.size = size
        self.raw = folder / "content.raw"
        self._lowers: dict[tuple[int, str], list[pathlib.Path]] = {}
        self._chains: dict[int, pathlib.Path] = {}
        folder.mkdir()

    def make(self, disks: list[Disk]):
        """Makes what these disks need."""
        chained = {disk.lowers for disk in disks if disk.kind == "qcow2" and disk.lowers > 1}
        stacks = {(disk.lowers, disk.compression) for disk in disks
                  if disk.kind in ("append", "sparse")}
        if not self._scattered:
            self._stack(1, "none", "--raw", self.raw)
        for depth, compression in sorted(stacks | {(depth, "none") for depth in chained}):
            if (depth, compression) in self._lowers:
                continue
            more = ["--copies"] if depth in chained and compression == "none" else []
            if not self.raw.exists():
                more += ["--raw", self.raw]
            self._stack(depth, compression, *more)
            if "--copies" in more:
                self._chain(depth)

    def lowers(self, disk: Disk) -> list[pathlib.Path]:
        return self._lowers[disk.lowers, disk.compression]

    def backing(self, disk: Disk) -> tuple[pathlib.Path, str]:
        """The file below a qcow2 overlay, and its format."""
        return (self.raw, "raw") if disk.lowers == 1 else (self._chains[disk.lowers], "qcow2")

    def drop(self):
        shutil.rmtree(self._folder)

    def _stack(self, depth: int, compression: str, *more):
        folder = self._folder / f"{compression}-{depth}"
        if self._scattered:
            places = ["--scattered"]
        else:
            places = ["--extents", self.size // EXTENT_SPACING // max(depth - 1, 1)]
        if compression != "none":
            more = ("--block-size", COMPRESSED_BLOCK[compression], *more)
        run(self._programs.layers, "--layers", depth, "--size", self.size, *places,
            "--compression", compression, *more, folder)
        lowers = [folder / f"layer-{number:03}" for number in range(1, depth + 1)]
        if depth > 1 and compression == "none" and not self._scattered:
            # The bottom layer is the same for all depths.
            lowers[0].unlink()
            lowers[0] = self._lowers[1, "none"][0]
        self._lowers[depth, compression] = lowers

    def _chain(self, depth: int):
        """Puts what each layer holds into a qcow2 file of its own, over the one below."""
        copies = sorted((self._folder / f"none-{depth}").glob("*.raw"))
        below = []
        options = []
        if self._scattered:  # what serves a chain best then: clusters are allocated by 4 KiB
            options = ["-o", "cluster_size=128k,extended_l2=on"]
        else:
            copies.pop(0).unlink()
            below = ["-b", self.raw, "-F", "raw"]
        for copy in copies:
            file = copy.with_suffix(".qcow2")
            run("qemu-img", "create", "-q", "-f", "qcow2", *options, "-u", *below, file, self.size)
            run("nbdcopy", "--destination-is-zero", "--", copy,
                "[", "qemu-nbd", "--format", "qcow2", "--cache", "unsafe", file, "]")
            copy.unlink()
            below = ["-b", file, "-F", "qcow2"]
        self._chains[depth] = file


class Server:
    """Serves a disk from a folder of its own, which goes when it stops."""

    def __init__(self, programs: Programs, disk: Disk, content: Content, group: Group,
                 folder: pathlib.Path):
        self.disk = disk
        self.content = content
        self.states: set[str] = set()  # that loads have brought the disk into
        self._folder = folder
        self._process = None
        folder.mkdir()
        self._socket = folder / "socket"
        self._log = folder / "log"
        try:
            self._words = [str(word) for word in self._command(programs, group)]
            self.start()
        except BaseException:
            self.stop()
            raise

    @property
    def uri(self) -> str:
        return f"nbd+unix:///?socket={urllib.parse.quote(str(self._socket))}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> float:
        """Starts the process, anew if it runs; milliseconds until it has answered a read."""
        self._end_process()
        self._socket.unlink(missing_ok=True)
        environment = {**os.environ, "TMPDIR": str(self._folder)}  # where the cow filter writes
        with open(self._log, "wb") as log:
            began = time.perf_counter()
            self._process = subprocess.Popen(self._words, stdin=subprocess.DEVNULL, stdout=log,
                                             stderr=log, env=environment)
        self._read_first()
        return (time.perf_counter() - began) * 1000

    def expect_content(self):
        """Compares some blocks with the raw file: whoever is measured serves the same disk."""
        chooser = random.Random(1)
        connection = nbd.Connection(str(self._socket))
        with open(self.content.raw, "rb") as raw:
            for _ in range(64):
                offset = chooser.randrange(self.content.size // 4096) * 4096
                raw.seek(offset)
                if connection.read(offset, 4096) != raw.read(4096):
                    raise Failure(f"{self.disk.title} serves something else than was put in, "
                                  f"at {offset}")
        connection.close()

    def stop(self) -> dict:
        """Ends the server; what it tells about itself at its end, if it does."""
        told = {}
        if self._process:
            self._end_process()
            said = self._log.read_text(errors="replace")
            if found := re.search(r"(\d+) flushes by (\d+) syncs", said):
                flushes, syncs = map(int, found.groups())
                told = {"flushes": flushes, "syncs": syncs}
        shutil.rmtree(self._folder, ignore_errors=True)
        return told

    def _end_process(self):
        if not self._process:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read_first(self):
        deadline = time.monotonic() + 60
        while True:
            try:
                connection = nbd.Connection(str(self._socket))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    said = self._log.read_text(errors="replace").strip() or "it said nothing"
                    raise Failure(f"the server of {self.disk.title} did not start: "
                                  f"{said.splitlines()[-1]}") from None
                time.sleep(0.0005)
        connection.read(0, 4096)
        connection.close()

    def _command(self, programs: Programs, group: Group) -> list:
        disk, content, size = self.disk, self.content, self.content.size
        nbdkit = ["nbdkit", "--foreground", "--exit-with-parent", "--unix", self._socket]
        # It ends with this process, whatever ends that, as nbdkit does when asked to.
        qemu = ["setpriv", "--pdeathsig", "TERM", "qemu-nbd", "--persistent", "--shared", "16", "--socket", self._socket,
                "--cache", "writeback", "--discard", "unmap"]
        if disk.kind in ("file", "qemu-raw"):
            file = content.raw
            if group.writes:
                file = self._folder / "disk.raw"
                with open(file, "wb") as made:
                    made.truncate(size)
            return [*qemu, "--format", "raw", file] if disk.kind == "qemu-raw" else [
                *nbdkit, "file", file]
        if disk.kind in ("null", "memory"):
            return [*nbdkit, disk.kind, f"size={size}"]
        if disk.kind == "cow":
            return [*nbdkit, "--filter=cow", "file", content.raw,
                    f"cow-block-size={disk.key.removeprefix('cow-')}"]
        if disk.kind == "qcow2":
            file = self._folder / "disk.qcow2"
            backing, backing_format = content.backing(disk)
            run("qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", backing, "-F",
                backing_format, file, size)
            return [*qemu, "--format", "qcow2", file]
        run(programs.obd, "create", self._folder / "disk", "--type", disk.kind, "--lower",
            *content.lowers(disk))
        if group.durable:  # its counters, and no line for each request
            nbdkit += ["--verbose", "-D", "nbdkit.backend.datapath=0"]
        return [*nbdkit, programs.plugin, self._folder / "disk/config.v1.json"]
