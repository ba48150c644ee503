// Reads an index log: which of its records count, and what they map.
//
// The log is a 4096-byte LSMT header and 16-byte entries in time order, later ones win, with the
// markers of core/format/log_marker.h between them. docs/format.md tells which records a reader may
// believe and why; scan_log() decides that, replay_log() applies them.
//
// Units: records are counted from 0, the first entry after the header. Thread-safety: pure
// functions of the file. Memory: bounded, whatever the log's length. Time: by what the log holds;
// holes cost nothing, however long.
// Errors: EINVAL for a log that cannot be believed; the sentence names the record.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/format/lsmt.h"
#include "core/index/live_index.h"
#include "core/io/file.h"

namespace obd {

struct LogScan {
  uint64_t whole_records = 0;        // in the file; bytes after them are a torn record or a hole
  uint64_t trusted_records = 0;      // the prefix that counts
  uint64_t committed_records = 0;    // the prefix that a valid marker declares stable
  uint64_t changes = 0;              // of the trusted ones: mappings and marks of updates
  uint64_t uncommitted_changes = 0;  // of these, those not declared stable
  uint32_t trusted_crc = 0;          // CRC-32C register over the trusted records
  uint32_t committed_crc = 0;        // and over the committed ones
  Sectors data_end;                  // end of the farthest data that a trusted record names

  // The update that has begun and not ended (lsmt::MarkerKind::update_begun).
  std::optional<uint64_t> pending_update;

  // The log ends with a session of this boot, so more may be appended as it stands.
  bool session_open = false;
  // It ends with records of a writer without markers (overlaybd).
  bool foreign = false;
  // The last session ended in good order and nothing follows.
  bool clean = false;
  // Something in the file does not count, or was written by a writer without markers: the log must
  // be rewritten before anything is appended.
  bool must_rewrite = false;

  std::vector<std::string> warnings;  // what does not count because it was never promised
  std::vector<std::string> losses;  // what does not count although its writer may have promised it
};

// What a mapping record may point at.
struct LogBounds {
  bool sparse = false;     // physical must be logical + 8
  uint64_t data_size = 0;  // bytes of the data file
  Sectors disk_end;        // mappings past it are left out
};

// Reads and checks the header of a log; the file is at least 4096 bytes long.
Result<lsmt::Header> read_log_header(const File& log);

// Decides which records count, given the hash of this boot's id.
Result<LogScan> scan_log(const File& log, uint64_t boot_hash);

// Puts the trusted records into the index and finds the pending update. Records at the end that
// point outside the data file are dropped, which scan.losses tells, and leave scan.trusted_records;
// anywhere else they are an error.
Result<void> replay_log(const File& log, const LogBounds& bounds, LogScan& scan, LiveIndex& index);

}  // namespace obd
