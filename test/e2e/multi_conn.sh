#!/usr/bin/env bash
# Four connections see each other's requests: multi_conn.sh append|sparse
. "$(dirname "$0")/functions.sh"
type=$1

random_raw lower.raw 24M
obd import lower.raw -o lower.lsmt
obd create disk --type "$type" --lower lower.lsmt
serve disk
"$programs/multi_conn" "$uri"
rm -f before.raw
nbdcopy "$uri" before.raw
stop_nbdkit
expect_disk disk before.raw
obd check disk
