"""What is measured: the disks, the loads on them, and the targets that decide.

The keys of disks, loads and targets stand in the results of --json: they stay what they are.
"""

import dataclasses
from typing import Optional

GIB = 1 << 30
FILE = "file"  # the disk that the others are compared with


@dataclasses.dataclass(frozen=True)
class Disk:
    """A server with a disk; `lowers` are layers, or files of a chain, below a writable one."""

    key: str
    title: str
    kind: str  # what disks.py makes of it
    lowers: int = 0
    compression: str = "none"
    quick: bool = False  # part of --quick, too


DISKS = {disk.key: disk for disk in (
    Disk("null", "nbdkit null", "null"),
    Disk("memory", "nbdkit memory", "memory"),
    Disk(FILE, "nbdkit file", "file", quick=True),
    Disk("cow-4k", "nbdkit cow, 4 KiB blocks", "cow", quick=True),
    Disk("cow-64k", "nbdkit cow, 64 KiB blocks", "cow"),
    Disk("qemu-raw", "qemu-nbd raw", "qemu-raw"),
    Disk("qcow2", "qcow2 over raw", "qcow2", 1, quick=True),
    Disk("qcow2-8", "qcow2 over 8", "qcow2", 8),
    Disk("qcow2-32", "qcow2 over 32", "qcow2", 32, quick=True),
    Disk("qcow2-255", "qcow2 over 255", "qcow2", 255),
    Disk("append", "append over 1", "append", 1, quick=True),
    Disk("append-8", "append over 8", "append", 8),
    Disk("append-32", "append over 32", "append", 32, quick=True),
    Disk("append-255", "append over 255", "append", 255, quick=True),
    Disk("sparse", "sparse over 1", "sparse", 1, quick=True),
    Disk("sparse-32", "sparse over 32", "sparse", 32),
    Disk("lz4-32", "append over 32, lz4 4 KiB", "append", 32, "lz4", quick=True),
    Disk("zstd-32", "append over 32, zstd 64 KiB", "append", 32, "zstd"),
)}

# What obd_load is told to bring a disk into the state that a load needs.
WRITE = ("--mix", "0,100,0")
STATES = {
    "filled": (*WRITE, "--once", "--sequential", "--block", "1M", "--depth", "4"),
    "shuffled": (*WRITE, "--once"),  # each 4 KiB block written anew, in random order
}


@dataclasses.dataclass(frozen=True)
class Load:
    key: str
    title: str
    arguments: tuple[str, ...] = ()  # of obd_load
    needs: tuple[str, ...] = ()      # states, in order
    leaves: Optional[str] = None     # the state that it leaves the disk in
    disks: tuple[str, ...] = ()      # only these; empty: all of the group
    large: bool = False              # tell MB/s, not requests/s
    opening: bool = False            # no requests: from the server's start to its first read
    measure_all: bool = False        # until every block was visited, however long that takes


@dataclasses.dataclass(frozen=True)
class Group:
    """Loads on the same disks, which are made anew for each group, or each round if written to."""

    key: str
    title: str
    disks: tuple[str, ...]
    loads: tuple[Load, ...]
    writes: bool = True
    together: bool = False    # all servers run at once and take turns in each load
    durable: bool = False     # on the file system of --flush-directory
    scattered: bool = False   # each 4 KiB block lies in a layer other than the next one's
    most: int = 0             # bytes, of the disk; 0: no limit
    size: int = 0             # bytes, of the disk; 0: that of --size
    quick: bool = True


READERS = ("null", FILE, "cow-4k", "cow-64k", "qemu-raw", "qcow2", "qcow2-8", "qcow2-32",
           "qcow2-255", "append", "append-8", "append-32", "append-255", "sparse-32", "lz4-32",
           "zstd-32")
FEW_READERS = (FILE, "cow-4k", "qcow2-32", "append-32")
WRITERS = ("null", "memory", "qemu-raw", "qcow2", FILE, "append", "sparse", "cow-4k", "cow-64k")
OVERLAYS = ("qcow2", FILE, "append", "sparse", "cow-4k", "cow-64k")
DURABLE = ("qemu-raw", "qcow2", FILE, "append", "sparse")

LARGE = ("--block", "1M", "--depth", "4")

GROUPS = (
    Group("read", "Opening, and random reads of what lies in lower layers", READERS, (
        Load("open", "start of the server to its first read", opening=True),
        Load("read", "4 KiB random read, depth 16"),
        Load("read-depth1", "4 KiB random read, depth 1", ("--depth", "1"), disks=FEW_READERS),
        Load("read-4conn", "4 KiB random read, depth 16 over 4 connections", ("--connections", "4"),
             disks=FEW_READERS),
    ), writes=False, together=True),
    Group("random", "Random access to a full disk", WRITERS, (
        Load("overwrite", "4 KiB random overwrite, depth 16", WRITE, needs=("filled",)),
        Load("mix", "4 KiB random, 70 % reads, 30 % writes, depth 16", ("--mix", "70,30,0"),
             needs=("filled",)),
        Load("reread", "4 KiB random read of the writable layer, depth 16", needs=("filled",)),
    )),
    Group("first-write", "First writes over a lower", OVERLAYS, (
        Load("first-write", "4 KiB first write of each block, depth 16", (*WRITE, "--once")),
    )),
    Group("sequential", "Large requests", WRITERS, (
        Load("seq-write", "1 MiB sequential write, depth 4", STATES["filled"], leaves="filled",
             large=True, measure_all=True),
        Load("seq-read", "1 MiB sequential read, depth 4", ("--sequential", *LARGE),
             needs=("filled",), large=True),
    )),
    Group("scattered", "Large reads of small extents", (FILE, "qcow2", "append", "sparse"), (
        Load("scattered-read", "1 MiB read of 256 scattered 4 KiB extents, depth 4", LARGE,
             needs=("filled", "shuffled"), large=True),
    )),
    Group("flush-each", "Durable writes, on a real file system", DURABLE, (
        Load("flush-each", "4 KiB write and a flush each, depth 16",
             (*WRITE, "--flush-every", "1"), needs=("filled",)),
    ), durable=True, most=GIB // 4),
    Group("flush-32", "Durable writes, on a real file system", DURABLE, (
        Load("flush-32", "4 KiB write, a flush every 32, depth 16",
             (*WRITE, "--flush-every", "32"), needs=("filled",)),
    ), durable=True, most=GIB // 4),
    Group("fua", "Durable writes, on a real file system", DURABLE, (
        Load("fua", "4 KiB write with FUA, depth 16", (*WRITE, "--fua", "100"),
             needs=("filled",)),
    ), durable=True, most=GIB // 4),
    Group("many", "32 layers with 1,048,576 extents of 4 KiB all over the disk",
          (FILE, "qcow2-32", "append-32"), (
              Load("many-open", "start to first read, 1 M extents", opening=True),
              Load("many-read", "4 KiB random read, depth 16, 1 M extents"),
              Load("many-scattered-read", "1 MiB read of 256 extents, depth 4, 1 M extents",
                   LARGE, large=True),
          ), writes=False, scattered=True, size=4 * GIB, quick=False),
)
LOADS = {load.key: load for group in GROUPS for load in group.loads}


@dataclasses.dataclass(frozen=True)
class Target:
    """`disk`'s figure, or its ratio to `other`'s, is at most, or with rates at least, `bound`."""

    load: str
    disk: str
    other: Optional[str]
    metric: str  # "cpu", "rate", "ms"
    bound: float

    @property
    def key(self) -> str:
        other = f"-to-{self.other}" if self.other else ""
        return f"{self.load}-{self.metric}-{self.disk}{other}"

    @property
    def is_met_by(self):
        if self.metric == "rate":
            return lambda value: value >= self.bound
        return lambda value: value <= self.bound


def _targets():
    yield Target("read", "append-32", FILE, "cpu", 1.10)
    yield Target("read", "append-32", "qcow2-32", "cpu", 0.50)
    yield Target("read", "append-255", "append", "cpu", 1.05)
    yield Target("many-read", "append-32", FILE, "cpu", 1.10)
    yield Target("many-read", "append-32", "qcow2-32", "cpu", 0.50)
    yield Target("overwrite", "append", FILE, "cpu", 1.10)
    yield Target("overwrite", "append", FILE, "rate", 1.00)
    yield Target("overwrite", "sparse", FILE, "cpu", 1.15)
    for upper in ("append", "sparse"):
        yield Target("first-write", upper, "cow-4k", "cpu", 1.15)
        yield Target("first-write", upper, "cow-4k", "rate", 0.87)
        yield Target("first-write", upper, "qcow2", "rate", 5.0)
    for load in ("flush-each", "flush-32"):
        for upper in ("append", "sparse"):
            yield Target(load, upper, FILE, "rate", 1.0)
            yield Target(load, upper, "qcow2", "rate", 2.0)
    for load in ("seq-read", "seq-write"):
        for upper in ("append", "sparse"):
            yield Target(load, upper, FILE, "cpu", 1.05)
            yield Target(load, upper, FILE, "rate", 0.95)
    yield Target("many-open", "append-32", None, "ms", 60.0)


TARGETS = tuple(_targets())
