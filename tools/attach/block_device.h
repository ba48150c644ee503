// What a block device is asked whatever is behind it: is it usable, and who uses it.
//
// Ownership: a DeviceClaim holds the device until it is destroyed. Thread-safety: free of state.
// Errors: EBUSY names who uses the device.

#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/io/descriptor.h"

namespace obd::attach {

// ENOTBLK when it is no block device.
Result<dev_t> device_number(const std::string& device);

// Waits until the device has its size and its first block can be read.
Result<void> wait_until_usable(const std::string& device, uint64_t size);

// A mount of the device, in this mount namespace or another.
struct DeviceMount {
  std::string directory;  // as its namespace names it
  pid_t process = 0;      // one in that namespace; 0: our own
};
Result<std::vector<DeviceMount>> find_mounts(const std::string& device);

// Whoever uses the device, in words for a sentence: "mounted on /mnt", "process 12 (qemu)". Empty:
// nobody that can be seen.
std::string describe_users(const std::string& device);

// Who has a file of the file system mounted on `directory` open, or works there: "process 12
// (bash)", at most three. Empty: nobody that can be seen.
std::string describe_users_of_mount(const std::string& directory);

// Exclusive use: nobody else has it mounted or claimed, and until the end of the claim nobody can.
class DeviceClaim {
 public:
  // EBUSY when it is in use, also by somebody who only has it open.
  static Result<DeviceClaim> take(const std::string& device);
  // Makes everything written to the device stable.
  Result<void> flush() const;
  // Again: is there nobody who has opened it without a claim?
  Result<void> check_unused() const;
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  DeviceClaim(std::string device, Descriptor fd) : device_(std::move(device)), fd_(std::move(fd)) {}
  std::string device_;
  Descriptor fd_;
};

}  // namespace obd::attach
