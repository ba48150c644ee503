#!/usr/bin/env bash
# Clang's thread-safety analysis bites: each violation in lock_violations.cpp is an error.
# Needs clang-19, as the sanitizer presets do.

set -euo pipefail
cd "$OBD_SOURCE_DIR"

compiles() {
  clang++-19 -std=c++23 -fsyntax-only -I. -Wthread-safety -Wthread-safety-beta -Werror \
    -DVIOLATION="$1" test/unit/lock_violations.cpp 2>"$errors"
}

errors=$(mktemp)
trap 'rm -f "$errors"' EXIT
compiles 0 || {
  printf 'number 0 has to compile:\n%s\n' "$(cat "$errors")" >&2
  exit 1
}
for number in {1..8}; do
  if compiles "$number"; then
    printf 'violation %d compiles\n' "$number" >&2
    exit 1
  fi
  grep -q 'Wthread-safety' "$errors" || {
    printf 'violation %d is refused for another reason:\n%s\n' "$number" "$(cat "$errors")" >&2
    exit 1
  }
done
