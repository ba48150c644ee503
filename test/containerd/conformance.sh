#!/usr/bin/env bash
# Containerd's own tests of snapshotters. Cases that do not pass are named, with the reason, in
# exceptions.MODE; any other failure, and a case that passes in spite of its name there, is a failure.
#
# In mode dir, 128LayersMount attaches and commits 128 disks. It passes, but takes a minute or two,
# so it is run with OBD_CONFORMANCE=all only.
#
# Arguments: MODE (dir, overlayfs).

own_mounts=yes
# shellcheck source=test/e2e/functions.sh
. "$(dirname "$0")/../e2e/functions.sh"
# shellcheck source=test/containerd/functions.sh
. "$source_dir/test/containerd/functions.sh"
requires_client
mode=$1
cases='[0-9A-Z]'
[[ $mode != dir || ${OBD_CONFORMANCE:-} == all ]] || cases='[A-Z]'
mkdir suite
write_config config.json "{\"rwMode\": \"$mode\"}"
SNAPSHOTTER=$OBD_SNAPSHOTTER CONFIG=$(<config.json) LOG=$tmp/snapshotter.log TMPDIR=$tmp/suite \
  "$client" -test.run "TestConformance/^$cases" -test.v -test.timeout 180s -test.parallel 4 >suite.out 2>&1 || true
# Lines of the form "    --- PASS: TestConformance/Basic (0.12s)".
sed --silent 's,^ *--- \([A-Z]*\): TestConformance/\([^ ]*\) .*,\1 \2,p' suite.out | sort >results
(($(wc -l <results) >= 20)) || fail "not all cases ended: $(tail -n 30 suite.out)"
awk '$1 != "PASS" { print $2 }' results >failed
sed --silent 's/^\([A-Za-z0-9]*\): .*/\1/p' "$source_dir/test/containerd/exceptions.$mode" | sort >exceptions
diff exceptions failed >difference ||
  fail "not as in exceptions.$mode (<: expected to fail, >: failed): $(grep '^[<>]' difference | tr '\n' ' '); $(grep --extended-regexp '_test.go|testsuite.go|failure reason|helpers' suite.out | head -n 10)"
expect_nothing_left "containerd's tests"
