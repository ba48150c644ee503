#!/usr/bin/env bash
# Runs one fuzz target for OBD_FUZZ_SECONDS (default 10): run.sh PROGRAM SEEDS CORPUS
# CORPUS keeps what the target has learnt; an input that breaks a promise is left beside it.

set -euo pipefail
program=$1 seeds=$2 corpus=$3
mkdir -p "$corpus"
exec "$program" "$corpus" "$seeds" \
  -artifact_prefix="${corpus%/}-" -print_final_stats=1 -verbosity=0 \
  -max_total_time="${OBD_FUZZ_SECONDS:-10}" -timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=256
