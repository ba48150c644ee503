#!/usr/bin/python3
"""Takes the syncs and orderings of the engine away, one at a time, and sees that the tests notice.

Usage: scripts/mutation_test.py [--list | --check] [NAME...]

Copies the tree to build/mutants, builds it, and then for each mutation: changes one place, builds
crash_test, property_test and unit_tests, runs them, and puts the place back. A mutation that no test notices is
a hole in the tests. Exit status 0 when all were noticed, else 1. About a minute each; names choose some.
"""

import argparse
import pathlib
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TREE = ROOT / "build" / "mutants"
TESTS = ("crash_test", "property_test", "unit_tests")
MOST_SECONDS = 300  # of one test program; one that hangs has noticed, too

LAYER = "core/layer/writable_layer.cpp"
OPEN = "core/layer/writable_layer_open.cpp"
RECLAIM = "core/layer/writable_layer_reclaim.cpp"
COMPACT = "core/layer/writable_layer_compact.cpp"
LOG = "core/layer/index_log.cpp"
RECLAIMER = "core/image/space_reclaimer.cpp"

# Name, file, what stands there (once), what is put in its place.
MUTATIONS = [
    # --- a write ---
    ("write: record before payload", LAYER,
     "    OBD_TRY(data_->write_at(data, physical.bytes()));\n    data_dirty_ = true;\n"
     "    const lsmt::Entry entry{logical, length, physical, false};\n"
     "    return record(std::span(&entry, 1));\n",
     "    const lsmt::Entry entry{logical, length, physical, false};\n"
     "    OBD_TRY(record(std::span(&entry, 1)));\n    data_dirty_ = true;\n"
     "    return data_->write_at(data, physical.bytes());\n"),
    ("write: data is not dirty", LAYER,
     "    data_dirty_ = true;\n    const lsmt::Entry entry{logical, length, physical, false};\n",
     "    const lsmt::Entry entry{logical, length, physical, false};\n"),
    ("write in place: data is not dirty", LAYER,
     "  data_dirty_ = true;\n  return written;\n", "  return written;\n"),
    ("failed write: cuts what the log names", LAYER, "end.bytes() >= recorded_end_ && ", ""),
    # --- a flush round ---
    ("flush: no sync of the data", LAYER,
     "  OBD_TRY(sync_data());\n  if (covered.changes == stable_.changes",
     "  if (covered.changes == stable_.changes"),
    ("flush: no sync of the log", LAYER,
     "  if (auto synced = log->sync(); !synced) return give_up",
     "  if (Result<void> synced; !synced) return give_up"),
    ("flush: no marker", LAYER,
     "    OBD_TRY(log_->append_marker(kind, covered));\n    log = log_.get();\n",
     "    log = log_.get();\n"),
    ("flush: marker before the data is synced", LAYER,
     "  OBD_TRY(sync_data());\n  if (covered.changes == stable_.changes && kind == "
     "lsmt::MarkerKind::commit) return {};\n  IndexLog* log = nullptr;  // stays: only a round replaces it\n"
     "  const auto append_marker = [&]() -> Result<void> {\n    const MutexLock log_lock(log_mutex_);\n"
     "    OBD_TRY(log_->append_marker(kind, covered));\n    log = log_.get();\n    return {};\n  };\n"
     "  OBD_TRY(give_up_if_log_broke(append_marker()));\n",
     "  IndexLog* log = nullptr;\n  {\n    const MutexLock log_lock(log_mutex_);\n"
     "    OBD_TRY(log_->append_marker(kind, covered));\n    log = log_.get();\n  }\n  OBD_TRY(sync_data());\n"),
    ("flush: marker covers what came during the sync", LAYER,
     "    OBD_TRY(log_->append_marker(kind, covered));\n",
     "    covered = log_->position();\n    OBD_TRY(log_->append_marker(kind, covered));\n"),
    ("failed sync: nothing is distrusted", LAYER,
     "log_->distrust(stable_);", "(void)stable_;"),
    ("failed sync: writing goes on", LAYER, "    failed_ = true;\n", ""),
    # --- a session's begin ---
    ("session: no marker", OPEN, "    OBD_TRY(log_->append_session(boot_hash_));\n", ""),
    ("session: data is not settled", OPEN,
     "  data_dirty_ = true;\n  OBD_TRY(sync_data());\n  auto settle_log",
     "  auto settle_log"),
    ("session: log is not settled", OPEN, "      OBD_TRY(log->sync());\n", ""),
    ("session: folder is not settled", OPEN,
     "    return fs_.sync_directory(directory_of(index_path_));\n  };\n  if (auto settled",
     "    return {};\n  };\n  if (auto settled"),
    # --- a log that is written anew ---
    ("new log: data is not synced before", OPEN,
     "  OBD_TRY(sync_data());\n  auto draft = IndexLog::prepare", "  auto draft = IndexLog::prepare"),
    ("log: a session marker brings padding", LOG,
     "  return append_bytes(bytes, 0, false);\n", "  return append_bytes(bytes, 0, true);\n"),
    ("log: padding stays behind a close marker", LOG,
     "  auto cut = file_->truncate(filled_);\n", "  Result<void> cut;\n"),
    ("new log: not synced", LOG, "    return log.sync();\n", "    return {};\n"),
    ("new log: folder not synced", LOG,
     "  OBD_TRY(fs.sync_directory(directory_of(path)));\n  return under_its_name",
     "  return under_its_name"),
    # --- compaction ---
    ("compact: not flushed before", COMPACT,
     "  OBD_TRY(flush());\n  data_dirty_ = true;\n  OBD_TRY(copy_moves", "  OBD_TRY(copy_moves"),
    ("compact: cut before the new log", COMPACT,
     "  const uint64_t records = log_at_rest()->position().records;\n  OBD_TRY(replace_log(header_, next));\n  {\n",
     "  const uint64_t records = log_at_rest()->position().records;\n"
     "  OBD_TRY(data_->truncate(plan.end.bytes()));\n  OBD_TRY(replace_log(header_, next));\n  {\n"),
    # --- seal ---
    ("seal: trailer before the index is synced", LAYER,
     "    OBD_TRY(data_->sync());\n\n    lsmt::Header trailer", "    lsmt::Header trailer"),
    ("seal: trailer is not synced", LAYER,
     "    ++syncs_;\n    return data_->sync();\n  };\n  if (auto appended", "    return {};\n  };\n  if (auto appended"),
    # --- space reclaim ---
    ("reclaim: dead is free before it is stable", RECLAIMER,
     "  if (!layer_.dead_is_stable()) return {};\n", ""),
    ("reclaim: ripening without the flush", RECLAIMER,
     "  if (urgent && !layer_.dead_is_stable()) OBD_TRY(layer_.flush());\n"
     "  if (!layer_.dead_is_stable()) return {};\n", "  (void)urgent;\n"),
    ("reclaim: readers are not waited for", RECLAIMER,
     "    const WriterLock layout(layout_);\n  }\n  layer_.end_ripening();",
     "  }\n  layer_.end_ripening();"),
    ("reclaim: what dies while it ripens is free with the rest", RECLAIMER,
     "  layer_.end_ripening();\n", "  (void)layer_.begin_ripening();\n  layer_.end_ripening();\n"),
    ("clean: data is not dirty", RECLAIM,
     "    OBD_TRY(write_pending());\n    data_dirty_ = true;\n", "    OBD_TRY(write_pending());\n"),
    ("clean: moves what has been overwritten", RECLAIM,
     "        if (extent.kind != ExtentKind::data || extent.physical != original) continue;\n",
     "        (void)original;\n"),
    ("clean: record before the copy", RECLAIM,
     "    OBD_TRY(write_pending());\n    data_dirty_ = true;\n"
     "    return give_up_if_log_broke(record_moves(parts));\n",
     "    OBD_TRY(give_up_if_log_broke(record_moves(parts)));\n    data_dirty_ = true;\n"
     "    return write_pending();\n"),
    ("checkpoint: data is not synced", RECLAIM,
     "  OBD_TRY(sync_data());\n  OBD_TRY(append_from_log(*old, log, copied, covered_records));",
     "  OBD_TRY(append_from_log(*old, log, copied, covered_records));"),
    ("checkpoint: new log is not synced", RECLAIM,
     "  ++syncs_;\n  OBD_TRY(log.sync());\n", ""),
    ("checkpoint: folder is not synced", RECLAIM,
     "  if (auto synced = fs_.sync_directory(directory_of(index_path_)); !synced) {",
     "  if (Result<void> synced; !synced) {"),
    ("checkpoint: what came during the look is missing", RECLAIM,
     "  OBD_TRY(append_from_log(*old, log, copied, covered_records));\n", "  copied = covered_records;\n"),
    ("checkpoint: what came during the sync is missing", RECLAIM,
     "    OBD_TRY(append_from_log(*old, log, copied, log_->position().records));\n", ""),
    ("checkpoint: no session", RECLAIM,
     "  OBD_TRY(draft.append_session(boot_hash_));\n", ""),
    ("punch: of zeros that are not stable", "core/layer/stale_ranges.cpp",
     "[&](const Waiting& w) { return w.changes > changes; }",
     "[&](const Waiting&) { return changes == UINT64_MAX; }"),
    # --- new files ---
    ("new layer: data file is not synced", "core/layer/new_layer.cpp",
     "  return file.sync();\n", "  return {};\n"),
    ("new layer: names are not synced", "core/layer/new_layer.cpp",
     "  OBD_TRY(fs.sync_directory(directory_of(data_path)));\n"
     "  return fs.sync_directory(directory_of(index_path));\n", "  return {};\n"),
]


def run(*command, seconds=None):
    try:
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return None


def build():
    done = run("cmake", "--build", str(TREE / "build" / "release"), "--target", *TESTS)
    return done.returncode == 0, done.stdout


def noticed_by():
    """The name of the first test that fails, or None."""
    for program in TESTS:
        done = run(
            str(TREE / "build" / "release" / "test" / program), "--gtest_brief=1",
            "--gtest_fail_fast", seconds=MOST_SECONDS,
        )  # fmt: skip
        if done is None:
            return f"{program}: it hangs"
        if done.returncode != 0:
            failed = [line for line in done.stdout.splitlines() if line.startswith("[  FAILED  ]")]
            return failed[0].split()[3].rstrip(",") if failed else f"{program}: it crashes"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--list", action="store_true", help="print the mutations' names")
    parser.add_argument("--check", action="store_true", help="only see that each place is there, once")
    parser.add_argument("names", nargs="*", help="only mutations whose name contains one of these")
    options = parser.parse_args()
    chosen = [m for m in MUTATIONS if not options.names or any(n in m[0] for n in options.names)]
    if options.list:
        print("\n".join(m[0] for m in chosen))
        return 0

    misplaced = [
        f"{name}: {file} has its place {count} times"
        for name, file, old, _ in chosen
        if (count := (ROOT / file).read_text().count(old)) != 1
    ]
    if misplaced:
        sys.exit("mutation_test.py: " + "\nmutation_test.py: ".join(misplaced))
    if options.check:
        return 0

    shutil.rmtree(TREE, ignore_errors=True)
    shutil.copytree(ROOT, TREE, ignore=shutil.ignore_patterns("build", ".git"))
    run("cmake", "--preset", "release", "-DOBD_TESTS=ON", "-S", str(TREE), "-B",
        str(TREE / "build" / "release"))  # fmt: skip
    built, output = build()
    if not built:
        sys.exit(f"mutation_test.py: the tree does not build:\n{output}")
    if (failing := noticed_by()) is not None:
        sys.exit(f"mutation_test.py: {failing} fails without any mutation")

    missed = 0
    for name, file, old, new in chosen:
        path = TREE / file
        text = path.read_text()
        path.write_text(text.replace(old, new))
        begin = time.monotonic()
        built, output = build()
        if not built:
            sys.exit(f"mutation_test.py: {name}: does not build:\n{output}")
        by = noticed_by()
        missed += by is None
        print(f"{'MISSED' if by is None else 'noticed':8} {time.monotonic() - begin:4.0f} s  {name}"
              f"{'' if by is None else '  (' + by + ')'}", flush=True)  # fmt: skip
        path.write_text(text)
    print(f"{len(chosen) - missed} of {len(chosen)} noticed")
    return 1 if missed else 0


sys.exit(main())
