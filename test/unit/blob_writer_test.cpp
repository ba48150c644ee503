#include "core/zfile/blob_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "test/support/memory_file_system.h"
#include "test/unit/zfile_blobs.h"

namespace obd {
namespace {

using test::Bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr auto kPath = "/d/layer";

class BlobWriterTest : public ::testing::Test {
 protected:
  std::vector<std::string> write(const Bytes& content, const BlobOptions& options) {
    return test::write_blob(fs_, kPath, content, options);
  }

  test::MemoryFileSystem fs_;
};

struct Upstream {
  const char* file;
  BlobOptions options;
};

// Made by overlaybd-commit. Its content, stored again, is the same file.
TEST_F(BlobWriterTest, WritesWhatOverlaybdWroteByteForByte) {
  const std::vector<Upstream> blobs = {
      {"02-committed-raw/layer.lsmt", {}},
      {"03-zfile-lz4-4k/layer.zfile", {.compression = Compression::lz4}},
      {"04-zfile-zstd-64k/layer.zfile", {.compression = Compression::zstd, .block_size = 65536}},
      {"05-zfile-tar/layer.tar", {.compression = Compression::lz4, .tar = true}},
      {"06-stack/L1.tar", {.compression = Compression::lz4, .tar = true}},
      {"06-stack/L3.zfile", {.compression = Compression::zstd, .block_size = 16384}},
      {"13-ext4/L0.zfile", {.compression = Compression::lz4}},
      {"bad/valid-incompressible-lz4-64k.zfile",
       {.compression = Compression::lz4, .block_size = 65536}},
      {"bad/valid-incompressible-zstd-64k.zfile",
       {.compression = Compression::zstd, .block_size = 65536}},
  };
  for (const Upstream& upstream : blobs) {
    SCOPED_TRACE(upstream.file);
    const std::string path = std::string(OBD_SOURCE_DIR "/test/fixtures/") + upstream.file;
    const auto blob = test::expect_value(open_blob(posix_file_system(), path, nullptr));
    write(test::read_blob(*blob), upstream.options);
    EXPECT_TRUE(test::file_bytes(fs_, kPath) == test::file_bytes(posix_file_system(), path));
  }
}

TEST_F(BlobWriterTest, OutputDoesNotDependOnTheNumberOfThreads) {
  const Bytes content = test::mixed_content(1, 3'333'333);
  for (const Compression compression : {Compression::lz4, Compression::zstd}) {
    BlobOptions options{.compression = compression, .tar = true, .threads = 1};
    write(content, options);
    const Bytes alone = test::file_bytes(fs_, kPath);
    for (const unsigned threads : {0U, 2U, 7U}) {
      options.threads = threads;
      write(content, options);
      EXPECT_TRUE(test::file_bytes(fs_, kPath) == alone) << threads;
    }
  }
}

TEST_F(BlobWriterTest, EveryContainerReadsAsItsContent) {
  const Bytes content = test::mixed_content(2, 70'001);
  for (const Compression compression : {Compression::none, Compression::lz4, Compression::zstd}) {
    for (const bool tar : {false, true}) {
      write(content, {.compression = compression, .tar = tar});
      const auto blob = test::expect_value(open_blob(fs_, kPath, nullptr));
      EXPECT_EQ(blob->container().compression, compression);
      EXPECT_EQ(blob->container().tar, tar);
      EXPECT_TRUE(test::read_blob(*blob) == content);
      EXPECT_EQ(test::file_bytes(fs_, kPath).size() % 512 == 0 || !tar, true);
    }
  }
}

TEST_F(BlobWriterTest, HigherLevelsMakeItSmaller) {
  const Bytes content = test::mixed_content(3, 500'000);
  for (const Compression compression : {Compression::lz4, Compression::zstd}) {
    std::vector<size_t> sizes;
    for (const int level : {0, max_level(compression)}) {
      write(content, {.compression = compression, .level = level, .block_size = 65536});
      sizes.push_back(test::file_bytes(fs_, kPath).size());
      EXPECT_TRUE(test::read_blob(*open_blob(fs_, kPath, nullptr).value()) == content);
    }
    EXPECT_LT(sizes[1], sizes[0]) << name_of(compression);
  }
}

TEST_F(BlobWriterTest, RefusesOptionsThatDoNotExist) {
  const auto refused = [&](const BlobOptions& options) {
    const auto writer = BlobWriter::create(fs_, kPath, options, true);
    EXPECT_FALSE(writer);
    return writer ? "" : writer.error().message;
  };
  for (const uint32_t size : {0U, 256U, 5000U, 1U << 21}) {
    EXPECT_THAT(refused({.compression = Compression::lz4, .block_size = size}),
                HasSubstr(fmt::format("/d/layer: a block size of {} ", size)));
  }
  EXPECT_THAT(refused({.compression = Compression::lz4, .level = 13}), HasSubstr("not 13"));
  EXPECT_THAT(refused({.compression = Compression::zstd, .level = 23}), HasSubstr("not 23"));
  EXPECT_THAT(refused({.compression = Compression::zstd, .level = -1}), HasSubstr("not -1"));
  EXPECT_THAT(fs_.state().names, IsEmpty());
}

TEST_F(BlobWriterTest, TellsWhatOverlaybdCannotRead) {
  const Bytes random = test::random_content(4, 200'000);
  const auto warnings = [&](const Bytes& content, uint32_t block_size) {
    auto lz4 = write(content, {.compression = Compression::lz4, .block_size = block_size});
    EXPECT_EQ(lz4.size(),
              write(content, {.compression = Compression::zstd, .block_size = block_size}).size());
    return lz4;
  };
  EXPECT_THAT(warnings(random, 65536), ElementsAre(HasSubstr("blocks of 65536 bytes that do not")));
  EXPECT_THAT(warnings(random, 131072), ElementsAre(HasSubstr("larger than the 65536")));
  // 127 blocks of 512 bytes and what each grew by are more than 16 bits hold.
  EXPECT_THAT(warnings(random, 512), ElementsAre(HasSubstr("blocks of 512 bytes that do not")));
  for (const uint32_t size : {4096U, 8192U, 16384U, 32768U}) {
    EXPECT_THAT(warnings(random, size), IsEmpty()) << size;
  }
  EXPECT_THAT(warnings(Bytes(200'000), 65536), IsEmpty());
}

TEST_F(BlobWriterTest, AbandonedWriterLeavesNothing) {
  {
    const auto writer = test::expect_value(
        BlobWriter::create(fs_, kPath, {.compression = Compression::zstd, .threads = 3}, false));
    test::expect_ok(writer->append(test::random_content(5, 2'000'000)));
  }
  EXPECT_THAT(fs_.state().names, IsEmpty());
}

TEST_F(BlobWriterTest, ExistingTargetIsReplacedOnlyWhenAskedAndOnlyByAWholeBlob) {
  write({}, {});
  const auto refused = BlobWriter::create(fs_, kPath, {}, false);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, EEXIST);

  const auto writer = test::expect_value(BlobWriter::create(fs_, kPath, {}, true));
  test::expect_ok(writer->append(Bytes(100)));
  EXPECT_EQ(test::file_bytes(fs_, kPath).size(), 0U);
  test::expect_ok(writer->finish());
  EXPECT_EQ(test::file_bytes(fs_, kPath).size(), 100U);
}

TEST_F(BlobWriterTest, TargetThatAppearsMeanwhileIsKept) {
  const auto writer = test::expect_value(BlobWriter::create(fs_, kPath, {}, false));
  write(Bytes(7), {});
  test::expect_error(writer->finish(), EEXIST);
  EXPECT_EQ(test::file_bytes(fs_, kPath).size(), 7U);
}

// Whichever operation fails, the old file is there, or the new one as a whole, and nothing else.
TEST_F(BlobWriterTest, NoFailureLeavesHalfABlob) {
  const Bytes content = test::mixed_content(6, 900'000);
  for (const auto operation :
       {test::Operation::create, test::Operation::write, test::Operation::sync,
        test::Operation::rename, test::Operation::sync_directory}) {
    uint64_t failures = 0;
    for (uint64_t nth = 1;; ++nth) {
      write(Bytes(7), {});
      fs_.inject({.operation = operation, .nth = nth, .code = EIO});
      const auto stored = [&]() -> Result<void> {
        const BlobOptions options{.compression = Compression::lz4, .tar = true, .threads = 2};
        OBD_TRY_ASSIGN(const auto writer, BlobWriter::create(fs_, kPath, options, true));
        OBD_TRY(writer->append(content));
        return writer->finish();
      }();
      fs_.clear_faults();
      ASSERT_EQ(fs_.state().names.size(), 1U);
      if (stored) break;
      ++failures;
      EXPECT_EQ(stored.error().code, EIO);
      const Bytes left = test::file_bytes(fs_, kPath);
      if (operation == test::Operation::sync_directory) {
        EXPECT_GT(left.size(), 7U);
      } else {
        EXPECT_EQ(left.size(), 7U) << static_cast<int>(operation) << ' ' << nth;
      }
    }
    EXPECT_GE(failures, 1U);
  }
}

TEST_F(BlobWriterTest, FullDiskIsToldAndCleanedUp) {
  fs_.set_space_limit(300'000);
  auto writer = test::expect_value(
      BlobWriter::create(fs_, kPath, {.compression = Compression::lz4, .threads = 2}, false));
  Result<void> result;
  for (int i = 0; i < 50 && result; ++i) result = writer->append(test::random_content(7, 100'000));
  test::expect_error(result, ENOSPC);
  writer.reset();
  EXPECT_THAT(fs_.state().names, IsEmpty());
  EXPECT_EQ(fs_.allocated(), 0U);
}

}  // namespace
}  // namespace obd
