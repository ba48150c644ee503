#!/usr/bin/env bash
# The commands under "Using it" in README.md work when they are pasted one after the other.
. "$(dirname "$0")/functions.sh"
requires_command mkfs.ext4

# As after an installation: obd is a command, overlaybd a plugin's name.
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
chmod +x bin/nbdkit
export PATH=$tmp/bin:$PATH

sed -n '/^## Using it/,/^## Status/s/^    //p' "$source_dir/README.md" >blocks
# What needs a machine or a containerd of its own, or attaches: other tests run such commands.
elsewhere='^qemu-system-x86_64 |^obd-mount |^ctr '
[[ $(grep -Ec "$elsewhere" blocks) == 6 ]] || fail 'README.md has other commands than this test knows'
grep -Ev "$elsewhere" blocks >commands
(($(wc -l <commands) > 20)) || fail 'README.md has hardly any commands'

cleanup_fn eval 'kill $(cat vm*.pid)'
# A person is slower than nbdkit at going into the background.
sed -i "/-P vm1.pid/a while [[ ! -s vm1.pid ]]; do sleep 0.1; done" commands
bash -eux commands >readme.log 2>&1 || fail 'a command of README.md failed'
