#!/usr/bin/env bash
# Measures the server beside its rivals and says which performance targets are met: see --help.
# The work is done by scripts/bench/, which needs nothing but Python's standard library.

set -euo pipefail

if ! command -v python3 >/dev/null; then
  printf 'bench.sh: there is no program python3: scripts/setup.sh --dev installs it\n' >&2
  exit 1
fi
exec python3 -B "$(dirname "${BASH_SOURCE[0]}")/bench" "$@"
