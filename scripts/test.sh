#!/usr/bin/env bash
# Installs what is missing, builds, and runs the tests. ctest's summary is the last thing printed.

set -euo pipefail

usage() {
  cat <<'USAGE'
Usage: scripts/test.sh [--preset NAME] [--jobs N] [--help] [-- CTEST-ARGUMENT...]

Installs the packages that the tests need, builds a preset in build/NAME, and runs its tests.

  --preset NAME   release (the default: every test, and before it 10 seconds of each fuzz
                  target), dev (every test), asan or tsan (the tests that run the engine within
                  the test program), fuzz (the fuzz targets, OBD_FUZZ_SECONDS each)
  --jobs N        how many compilers and tests run at a time (default: one a processor)
  --help          this text

What follows -- goes to ctest: `scripts/test.sh -- -R flush` runs the tests whose name has "flush".
USAGE
}

fail_usage() {
  printf 'test.sh: %s\n\n' "$1" >&2
  usage >&2
  exit 2
}

preset=release
jobs=$(nproc)
while (($# > 0)); do
  case "$1" in
    --preset | --jobs)
      (($# >= 2)) || fail_usage "$1 needs a value"
      if [[ "$1" == --preset ]]; then preset=$2; else jobs=$2; fi
      shift 2
      ;;
    --help | -h)
      usage
      exit 0
      ;;
    --)
      shift
      break
      ;;
    *) fail_usage "unknown argument $1" ;;
  esac
done
[[ "$preset" =~ ^(release|dev|asan|tsan|fuzz)$ ]] || fail_usage "there is no preset $preset"
[[ "$jobs" =~ ^[1-9][0-9]*$ ]] || fail_usage "--jobs takes a number from 1 on, not $jobs"

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Debian leaves the folders of mkfs, fsck and losetup out of an ordinary user's PATH.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

build() {
  cmake --preset "$1" -DOBD_TESTS=ON
  cmake --build --preset "$1" --parallel "$jobs"
}

scripts/setup.sh --dev
if [[ "$preset" == release && $# == 0 ]]; then
  build fuzz
  ctest --preset fuzz --parallel "$jobs"
fi
build "$preset"
exec ctest --preset "$preset" --parallel "$jobs" "$@"
