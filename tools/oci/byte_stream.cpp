#include "tools/oci/byte_stream.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <vector>

namespace obd::oci {
namespace {

constexpr size_t kInputSize = size_t{256} << 10;

class FileStream final : public ByteStream {
 public:
  FileStream(std::unique_ptr<File> file, uint64_t size, ReportProgress report)
      : file_(std::move(file)),
        size_(size),
        report_(std::move(report)),
        phase_("applying " + file_->path()) {}

  [[nodiscard]] const std::string& name() const override { return file_->path(); }
  [[nodiscard]] Result<size_t> read(std::span<std::byte> out) override {
    OBD_TRY_ASSIGN(const size_t got, file_->read_at(out, at_));
    at_ += got;
    OBD_TRY(report_progress(report_, phase_, at_, std::max(at_, size_)));
    return got;
  }

 private:
  const std::unique_ptr<File> file_;
  const uint64_t size_;
  const ReportProgress report_;
  const std::string phase_;
  uint64_t at_ = 0;
};

// What the two decompressors have in common: compressed bytes that have come and are not used yet.
class Input {
 public:
  explicit Input(std::unique_ptr<ByteStream> source)
      : source_(std::move(source)), buffer_(kInputSize) {}

  [[nodiscard]] const std::string& name() const { return source_->name(); }
  [[nodiscard]] std::span<std::byte> rest() {
    return std::span(buffer_).subspan(used_, filled_ - used_);
  }
  void use(size_t bytes) { used_ += bytes; }
  // False when there is nothing more.
  Result<bool> fill() {
    if (used_ < filled_) return true;
    used_ = 0;
    OBD_TRY_ASSIGN(filled_, source_->read(buffer_));
    return filled_ > 0;
  }

 private:
  std::unique_ptr<ByteStream> source_;
  std::vector<std::byte> buffer_;
  size_t used_ = 0;
  size_t filled_ = 0;
};

// One or more gzip members.
class GzipStream final : public ByteStream {
 public:
  explicit GzipStream(std::unique_ptr<ByteStream> source) : input_(std::move(source)) {}
  ~GzipStream() override {
    if (ready_) ::inflateEnd(&state_);
  }
  GzipStream(const GzipStream&) = delete;
  GzipStream& operator=(const GzipStream&) = delete;

  [[nodiscard]] const std::string& name() const override { return input_.name(); }

  [[nodiscard]] Result<size_t> read(std::span<std::byte> out) override {
    if (!ready_) {
      constexpr int kGzipWindow = 15 + 16;
      if (::inflateInit2(&state_, kGzipWindow) != Z_OK) return fail(ENOMEM, "out of memory");
      ready_ = true;
    }
    size_t done = 0;
    while (done < out.size()) {
      OBD_TRY_ASSIGN(const bool more, input_.fill());
      if (!more) {
        if (in_member_) return fail(EINVAL, "{}: the gzip data is cut off", name());
        break;
      }
      if (!in_member_) {
        // Some programs pad with zeros.
        if (members_ > 0 && input_.rest().front() == std::byte{0}) {
          input_.use(1);
          continue;
        }
        ::inflateReset(&state_);
        in_member_ = true;
      }
      OBD_TRY_ASSIGN(const size_t got, inflate_some(out.subspan(done)));
      done += got;
    }
    return done;
  }

 private:
  Result<size_t> inflate_some(std::span<std::byte> out) {
    const auto rest = input_.rest();
    const size_t most = std::min(out.size(), size_t{1} << 30);
    state_.next_in = reinterpret_cast<Bytef*>(rest.data());
    state_.avail_in = static_cast<uInt>(rest.size());
    state_.next_out = reinterpret_cast<Bytef*>(out.data());
    state_.avail_out = static_cast<uInt>(most);
    const int code = ::inflate(&state_, Z_NO_FLUSH);
    input_.use(rest.size() - state_.avail_in);
    if (code == Z_STREAM_END) {
      in_member_ = false;
      ++members_;
    } else if (code != Z_OK && code != Z_BUF_ERROR) {
      return fail(EINVAL, "{}: the gzip data is damaged ({})", name(),
                  state_.msg != nullptr ? state_.msg : "no reason given");
    }
    return most - state_.avail_out;
  }

  Input input_;
  z_stream state_{};
  bool ready_ = false;
  bool in_member_ = false;
  uint64_t members_ = 0;
};

// One or more zstd frames.
class ZstdStream final : public ByteStream {
 public:
  explicit ZstdStream(std::unique_ptr<ByteStream> source)
      : input_(std::move(source)), state_(::ZSTD_createDCtx(), &::ZSTD_freeDCtx) {}

  [[nodiscard]] const std::string& name() const override { return input_.name(); }

  [[nodiscard]] Result<size_t> read(std::span<std::byte> out) override {
    if (!state_) return fail(ENOMEM, "out of memory");
    ZSTD_outBuffer target{out.data(), out.size(), 0};
    while (target.pos < target.size) {
      OBD_TRY_ASSIGN(const bool more, input_.fill());
      if (!more) {
        // The decoder may hold content that had no room.
        const size_t before = target.pos;
        ZSTD_inBuffer none{nullptr, 0, 0};
        if (in_frame_) OBD_TRY(decompress(target, none));
        if (target.pos > before) continue;
        if (in_frame_) return fail(EINVAL, "{}: the zstd data is cut off", name());
        break;
      }
      const auto rest = input_.rest();
      ZSTD_inBuffer source{rest.data(), rest.size(), 0};
      OBD_TRY(decompress(target, source));
      input_.use(source.pos);
    }
    return target.pos;
  }

 private:
  Result<void> decompress(ZSTD_outBuffer& target, ZSTD_inBuffer& source) {
    const size_t code = ::ZSTD_decompressStream(state_.get(), &target, &source);
    if (::ZSTD_isError(code) != 0) {
      return fail(EINVAL, "{}: the zstd data is damaged ({})", name(), ::ZSTD_getErrorName(code));
    }
    in_frame_ = code != 0;
    return {};
  }

  Input input_;
  std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> state_;
  bool in_frame_ = false;
};

bool starts_with(std::span<const std::byte> bytes, std::string_view magic) {
  return bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
}

}  // namespace

Result<std::unique_ptr<ByteStream>> layer_stream(std::unique_ptr<File> file,
                                                 ReportProgress report) {
  std::array<std::byte, 6> start{};
  OBD_TRY_ASSIGN(const size_t got, file->read_at(start, 0));
  const auto magic = std::span(start).first(got);
  if (got == 0) return fail(EINVAL, "{}: is empty, so it is no tar file", file->path());
  for (const auto& [bytes, program] :
       {std::pair<std::string_view, std::string_view>{"BZh", "bzip2"}, {"\xFD\x37zXZ", "xz"}}) {
    if (starts_with(magic, bytes)) {
      return fail(EINVAL, "{}: is compressed with {}, and layers are with gzip, zstd or not at all",
                  file->path(), program);
    }
  }
  OBD_TRY_ASSIGN(const FileInfo info, file->info());
  auto plain = std::make_unique<FileStream>(std::move(file), info.size, std::move(report));
  if (starts_with(magic, "\x1F\x8B")) return std::make_unique<GzipStream>(std::move(plain));
  const bool skippable = got >= 4 && (magic[0] & std::byte{0xF0}) == std::byte{0x50} &&
                         starts_with(magic.subspan(1), "\x2A\x4D\x18");
  if (skippable || starts_with(magic, "\x28\xB5\x2F\xFD")) {
    return std::make_unique<ZstdStream>(std::move(plain));
  }
  return plain;
}

Result<std::unique_ptr<ByteStream>> open_layer_stream(FileSystem& fs, const std::string& path,
                                                      ReportProgress report) {
  OBD_TRY_ASSIGN(auto file, fs.open(path, Access::read_only));
  return layer_stream(std::move(file), std::move(report));
}

}  // namespace obd::oci
