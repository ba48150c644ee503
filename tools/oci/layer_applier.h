// Applies the tar file of an OCI layer to a file system, as containerd applies it to a folder.
//
// - An entry takes the place of what has its name; only a directory over a directory goes on with
//   what is in it, and has its attributes replaced.
// - Symbolic links on the way to an entry's place are followed within the file system: an absolute
//   one starts at its root, and ".." does not leave it. What is missing on the way is made.
// - ".wh.NAME" removes NAME, and ".wh..wh..opq" all that its directory holds, as far as they come
//   from the layers below: what the layer itself brings stays, before or after the whiteout.
// - Owners are numbers. Nothing is dropped without a word: what the file system cannot keep is
//   refused or a warning.
//
// Thread-safety: none. Errors: those of the reader and of the file system, and EINVAL for entries
// that make no sense; the sentence names the tar file and the entry. After one, the file system
// holds a part of the layer: throw it away.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tools/oci/ext4.h"
#include "tools/oci/tar_reader.h"

namespace obd::oci {

struct AppliedLayer {
  uint64_t entries = 0;  // without whiteouts
  uint64_t whiteouts = 0;
  uint64_t bytes = 0;  // of content, holes left out
  std::vector<std::string> warnings;
};

Result<AppliedLayer> apply_layer(Ext4& target, TarReader& layer);

}  // namespace obd::oci
