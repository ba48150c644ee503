#!/usr/bin/env bash
# The command line of obd: help, usage errors, files that are not there.
# shellcheck disable=SC2016
. "$(dirname "$0")/functions.sh"

obd --version | grep -Eq '^obd [0-9]+\.[0-9]+'
obd --help >help.txt
for command in create info check map seal import export; do
  grep -qw $command help.txt || fail "obd --help does not tell of $command"
  obd $command --help >command.txt
  grep -q 'Example' command.txt || fail "obd $command --help has no example"
  expect_fail 2 '--help' obd $command
  expect_fail 2 '--help' obd $command --no-such-option
done
expect_fail 2 '--help' obd
expect_fail 2 'no-such-command' obd no-such-command

# What is no layer is named once, as the user named it.
echo 'no layer' >text
expect_fail 1 '^obd: text: [^:]* too few' obd info text

mkdir empty
for command in info map seal; do
  expect_fail 1 'missing.json' obd $command missing.json
  expect_fail 1 'empty' obd $command empty
done
expect_fail 1 'missing.json' obd export missing.json -o none.raw
# check: 2 is for what it could not look at.
expect_fail 2 'missing.json' obd check missing.json
expect_fail 2 'empty' obd check empty

# An error goes to standard error, alone.
obd info missing.json >out 2>err || true
[[ ! -s out && $(wc -l <err) == 1 ]] || fail 'an error is one line on standard error'

# Output that cannot be written is an error, too.
obd create disk --size 1M
expect_fail 1 'output' bash -c '"$1" info disk >/dev/full' - "$OBD_TOOL"
