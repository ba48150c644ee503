#!/usr/bin/env bash
# Every completed request survives the server's death, time and again: kill.sh append|sparse
# Environment: OBD_KILLS (15), how often the server is killed; OBD_SEED repeats the requests.
# shellcheck disable=SC2034
time_limit=$((200 + 2 * ${OBD_KILLS:-15}))
. "$(dirname "$0")/functions.sh"
type=$1
seed=${OBD_SEED:-$((RANDOM * 100 + 1))}
echo "seed $seed (OBD_SEED=$seed repeats this run)"

"$programs/kill_writer" fill lower.raw record $((32 * 1024 * 1024))
obd import lower.raw -o lower.lsmt
obd create disk --type "$type" --lower lower.lsmt

serve disk
for ((round = 1; round <= ${OBD_KILLS:-15}; ++round)); do
  "$programs/kill_writer" run "$uri" record $((seed + round)) "$nbdkit_pid" \
    $((400 * (round % 7) + round % 100))
  reap_killed "$nbdkit_pid"
  # Looking first must not change what writing finds.
  if ((round % 2 == 0)); then
    obd check disk
    obd map --json disk >map.json
  fi
  serve disk
  "$programs/kill_writer" verify "$uri" record
done
stop_nbdkit

obd check disk
obd seal disk
serve disk
"$programs/kill_writer" verify "$uri" record
stop_nbdkit
