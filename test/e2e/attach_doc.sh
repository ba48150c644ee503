#!/usr/bin/env bash
# The commands of docs/attach.md that can run on any host work when they are pasted one after the
# other.

own_mounts=yes
# shellcheck source=test/e2e/functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=test/e2e/mount_functions.sh
. "$source_dir/test/e2e/mount_functions.sh"
requires_command mkfs.ext4 nbdcopy

# As after an installation, but with this test's state.
mkdir bin
ln -s "$OBD_TOOL" bin/obd
cat >bin/nbdkit <<EOF
#!/bin/bash
words=()
for word; do
  [[ \$word != overlaybd ]] || word=$OBD_PLUGIN
  words+=("\$word")
done
exec $(command -v nbdkit) "\${words[@]}"
EOF
cat >bin/obd-mount <<EOF
#!/bin/bash
exec $OBD_MOUNT "\$@" --state-dir $state
EOF
chmod +x bin/*
export PATH=$tmp/bin:$PATH

awk '/^<!-- run -->$/ { run = 1; next } /^[^ ]/ { run = 0 } run' "$source_dir/docs/attach.md" |
  sed 's/^    //' >commands
(($(grep --count . commands) >= 15)) || fail 'docs/attach.md has hardly any commands'
bash -emux commands >attach.log 2>&1 || fail 'a command of docs/attach.md failed'
grep --quiet '^hello$' attach.log || fail 'the file that was written is not there'
[[ $(stat --format=%s copy.raw) == $((2 << 30)) ]] || fail 'the copy is no disk'
expect_nothing_left 'the commands of docs/attach.md'
