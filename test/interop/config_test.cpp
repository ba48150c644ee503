// The image config as overlaybd's tools write it, and what happens when it is wrong.

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>

#include "core/image/clone.h"
#include "test/interop/script_model.h"
#include "test/interop/workspace.h"

namespace obd::interop {
namespace {

namespace fs = std::filesystem;

class Config : public testing::Test {
 protected:
  Config() { make_layer(workspace_ / "base.lsmt", disk_); }

  std::string config(std::string_view text) {
    const std::string path = workspace_ / "config.v1.json";
    write_text(path, text);
    return path;
  }

  void expect_refused(std::string_view text, int code, std::vector<std::string> words) {
    SCOPED_TRACE(text);
    words.emplace_back("config.v1.json");
    const Error error = open_error(config(text), Access::read_write);
    EXPECT_EQ(error.code, code) << error.message;
    EXPECT_TRUE(mentions(error.message, words)) << error.message;
  }

  // The folder that a lower's `dir` names, with a layer of this name in it.
  void put_into_dir(const char* name, uint64_t seed) {
    fs::create_directories(workspace_.path() / "dir");
    make_layer((workspace_.path() / "dir" / name).string(), random_bytes(seed, kMiB));
  }

  Workspace workspace_;
  Bytes disk_ = random_bytes(1, kMiB);
};

TEST_F(Config, RelativePathsStartAtTheConfigsFolder) {
  EXPECT_SAME_BYTES(read_disk(*open_readable(config(R"({"lowers": [{"file": "base.lsmt"}]})"))),
                    disk_);
  fs::create_directories(workspace_.path() / "sub");
  write_text(workspace_.path() / "sub" / "image.json", R"({"lowers": [{"file": "../base.lsmt"}]})");
  EXPECT_SAME_BYTES(read_disk(*open_readable(workspace_ / "sub/image.json")), disk_);
}

TEST_F(Config, UnknownKeysAreIgnored) {
  const std::string path = config(R"({
    "repoBlobUrl": "https://registry.example/v2/name/blobs",
    "lowers": [{"file": "base.lsmt", "digest": "sha256:00", "size": 1, "colour": "blue"}],
    "upper": {"index": "", "data": "", "target": "", "gzipIndex": "", "vsize": 64},
    "download": {"enable": true, "delay": 5, "maxMBps": 100},
    "recordTracePath": "/nowhere", "answer": [42, null]
  })");
  EXPECT_SAME_BYTES(read_disk(*open_readable(path)), disk_);
}

TEST_F(Config, UpperIsAbsentWithoutDataOrIndex) {
  for (const char* upper : {R"({})", R"({"data": "a"})", R"({"index": "a"})",
                            R"({"data": "a", "index": ""})", R"({"data": "", "index": "a"})"}) {
    SCOPED_TRACE(upper);
    const auto image = open_writable(
        config(R"({"lowers": [{"file": "base.lsmt"}], "upper": )" + std::string(upper) + "}"));
    EXPECT_FALSE(image->writable());
    EXPECT_SAME_BYTES(read_disk(*image), disk_);
  }
}

TEST_F(Config, DirIsSearchedInOrder) {
  const std::string path = config(R"({"lowers": [{"dir": "dir"}]})");
  put_into_dir("overlaybd.sealed", 10);
  EXPECT_SAME_BYTES(read_disk(*open_readable(path)), random_bytes(10, kMiB));
  put_into_dir(".commit", 11);
  EXPECT_SAME_BYTES(read_disk(*open_readable(path)), random_bytes(11, kMiB));
  put_into_dir("overlaybd.commit", 12);
  EXPECT_SAME_BYTES(read_disk(*open_readable(path)), random_bytes(12, kMiB));
  config(R"({"lowers": [{"file": "base.lsmt", "dir": "dir"}]})");
  EXPECT_SAME_BYTES(read_disk(*open_readable(path)), disk_);
  config(R"({"lowers": [{"file": "absent.lsmt", "dir": "dir"}]})");
  EXPECT_SAME_BYTES(read_disk(*open_readable(path)), random_bytes(12, kMiB));
}

TEST_F(Config, MissingFilesAreNamed) {
  const Error missing_config = open_error(workspace_ / "absent.json", Access::read_only);
  EXPECT_EQ(missing_config.code, ENOENT);
  EXPECT_TRUE(mentions(missing_config.message, {"absent.json"})) << missing_config.message;

  const Error missing_lower =
      open_error(config(R"({"lowers": [{"file": "absent.lsmt"}]})"), Access::read_only);
  EXPECT_EQ(missing_lower.code, ENOENT);
  EXPECT_TRUE(mentions(missing_lower.message, {"absent.lsmt"})) << missing_lower.message;

  const Error missing_dir = open_error(config(R"({"lowers": [{"dir": "no"}]})"), Access::read_only);
  EXPECT_EQ(missing_dir.code, ENOENT);
  EXPECT_TRUE(mentions(missing_dir.message, {"lowers[0]", "/no"})) << missing_dir.message;

  const UpperFiles files = make_upper(workspace_.path(), UpperKind::append, kMiB);
  const std::string path = make_config(workspace_.path(), {"base.lsmt"}, files);
  for (const std::string& file : {files.data, files.index}) {
    fs::rename(file, file + ".away");
    const Error error = open_error(path, Access::read_write);
    EXPECT_EQ(error.code, ENOENT);
    EXPECT_TRUE(mentions(error.message, {fs::path(file).filename()})) << error.message;
    fs::rename(file + ".away", file);
  }
}

TEST_F(Config, WhatIsNoConfigIsRefused) {
  expect_refused("", EINVAL, {"JSON"});
  expect_refused("{", EINVAL, {"JSON"});
  expect_refused(std::string("\0\0\0\0", 4), EINVAL, {"JSON"});
  expect_refused(R"({"lowers": []} trailing)", EINVAL, {"JSON"});
  expect_refused(R"({"lowers": [], "size": 1e999})", EINVAL, {"number", "too large"});
  expect_refused(std::string(100000, '['), EINVAL, {"JSON"});
  expect_refused("[]", EINVAL, {"object"});
  expect_refused("null", EINVAL, {"object"});
  expect_refused("{\"lowers\": [{\"file\": \"\xFF\xFE\"}]}", EINVAL, {"JSON"});
}

TEST_F(Config, WrongTypesAreNamed) {
  expect_refused(R"({"lowers": "base.lsmt"})", EINVAL, {"lowers"});
  expect_refused(R"({"lowers": {"file": "base.lsmt"}})", EINVAL, {"lowers"});
  expect_refused(R"({"lowers": ["base.lsmt"]})", EINVAL, {"lowers[0]"});
  expect_refused(R"({"lowers": [{"file": "base.lsmt"}, {"file": 7}]})", EINVAL,
                 {"lowers[1]", "file"});
  expect_refused(R"({"lowers": [{"dir": false}]})", EINVAL, {"lowers[0]", "dir"});
  expect_refused(R"({"lowers": [{"file": "base.lsmt"}], "upper": "x"})", EINVAL, {"upper"});
  expect_refused(R"({"lowers": [{"file": "base.lsmt"}], "upper": {"data": 1, "index": "i"}})",
                 EINVAL, {"upper", "data"});
  expect_refused(R"({"lowers": [{"file": "base.lsmt"}], "resultFile": 1})", EINVAL, {"resultFile"});
}

TEST_F(Config, NoLayerAtAllIsRefused) {
  expect_refused("{}", EINVAL, {"lowers", "upper"});
  expect_refused(R"({"lowers": []})", EINVAL, {"lowers", "upper"});
  expect_refused(R"({"lowers": [{"file": "base.lsmt"}, {}]})", EINVAL, {"lowers[1]"});
}

TEST_F(Config, RemoteLayersAreNamed) {
  expect_refused(R"({"repoBlobUrl": "https://r.example/blobs",
                     "lowers": [{"file": "base.lsmt"},
                                {"digest": "sha256:abcdef", "size": 100}]})",
                 ENOTSUP, {"lowers[1]", "sha256:abcdef"});
  expect_refused(R"({"repoBlobUrl": "https://r.example/blobs",
                     "lowers": [{"dir": "/absent", "digest": "sha256:abcdef", "size": 100}]})",
                 ENOTSUP, {"lowers[0]", "sha256:abcdef"});
}

TEST_F(Config, TurboOciLayersAreNamed) {
  expect_refused(R"({"lowers": [{"file": "base.lsmt", "targetFile": "/layer.tar"}]})", ENOTSUP,
                 {"lowers[0]", "targetFile"});
  expect_refused(R"({"lowers": [{"file": "base.lsmt", "targetDigest": "sha256:00"}]})", ENOTSUP,
                 {"lowers[0]", "targetDigest"});
  expect_refused(R"({"lowers": [{"file": "base.lsmt", "gzipIndex": "/index"}]})", ENOTSUP,
                 {"lowers[0]", "gzipIndex"});
  expect_refused(R"({"lowers": [{"file": "base.lsmt"}],
                     "upper": {"data": "d", "index": "i", "target": "t"}})",
                 ENOTSUP, {"upper", "target"});
}

TEST_F(Config, ResultFileTellsHowOpeningWent) {
  const std::string result = workspace_ / "result";
  const std::string good =
      config(R"({"lowers": [{"file": "base.lsmt"}], "resultFile": ")" + result + R"("})");
  EXPECT_TRUE(open_readable(good));
  EXPECT_FALSE(fs::exists(result)) << "a read-only open changes no file";
  EXPECT_TRUE(open_writable(good));
  EXPECT_EQ(read_text(result), "success");

  for (const char* lower : {R"({"file": "absent.lsmt"})", R"({"file": 1})", R"({"digest": "x"})",
                            R"({"file": "config.v1.json"})"}) {
    SCOPED_TRACE(lower);
    const Error error = open_error(
        config(R"({"lowers": [)" + std::string(lower) + R"(], "resultFile": ")" + result + R"("})"),
        Access::read_write);
    EXPECT_EQ(read_text(result), error.message);
  }
}

TEST_F(Config, ResultFileIsNeverAPartOfTheImage) {
  const UpperFiles files = make_upper(workspace_.path(), UpperKind::append, kMiB);
  for (const std::string& file :
       {workspace_ / "base.lsmt", files.data, files.index, workspace_ / "config.v1.json"}) {
    SCOPED_TRACE(file);
    fs::remove(workspace_ / "result");
    fs::create_hard_link(file, workspace_ / "result");
    for (const std::string& name : {file, workspace_ / "result"}) {
      if (name == workspace_ / "config.v1.json") continue;  // writing it would break the link
      config(R"({"lowers": [{"file": "base.lsmt"}], "upper": {"data": ")" + files.data +
             R"(", "index": ")" + files.index + R"("}, "resultFile": ")" + name + R"("})");
      const auto before = folder_state(workspace_.path());
      const Error error = open_error(workspace_ / "config.v1.json", Access::read_write);
      EXPECT_EQ(error.code, EINVAL) << error.message;
      EXPECT_TRUE(mentions(error.message, {"resultFile", name})) << error.message;
      EXPECT_EQ(folder_state(workspace_.path()), before);
    }
  }
}

TEST_F(Config, NestingIsBounded) {
  const auto nested = [](size_t levels) {
    return R"({"lowers": [{"file": "base.lsmt"}], "x": )" + std::string(levels, '[') +
           std::string(levels, ']') + "}";
  };
  EXPECT_SAME_BYTES(read_disk(*open_readable(config(nested(50)))), disk_);
  expect_refused(nested(100), EINVAL, {"64 levels"});
  expect_refused(nested(1000000), EINVAL, {"64 levels"});
}

// The topmost lower of such a config is a prefetch trace, no layer, and it has to stay topmost.
TEST_F(Config, SealingKeepsTheAccelerationLayerOnTop) {
  const UpperFiles files = make_upper(workspace_.path(), UpperKind::append, kMiB);
  write_text(workspace_ / "trace", "no layer at all");
  const std::string path =
      config(R"({"lowers": [{"file": "base.lsmt"}, {"file": "trace"}], "accelerationLayer": true,
                 "upper": {"data": ")" +
             files.data + R"(", "index": ")" + files.index + R"("}})");
  Bytes disk = disk_;
  const Bytes change = random_bytes(2, 8 * kKiB);
  {
    auto image = open_writable(path);
    must(image->write(change, 4 * kKiB));
    close_image(image);
  }
  std::copy(change.begin(), change.end(), disk.begin() + 4 * kKiB);
  (void)must(seal_image(posix_file_system(), path));
  EXPECT_SAME_BYTES(read_disk(*open_readable(path)), disk);
  const ImageConfig sealed = must(load_config(posix_file_system(), path));
  EXPECT_FALSE(sealed.upper);
  EXPECT_EQ(sealed.lowers, (std::vector<std::string>{workspace_ / "base.lsmt", files.data}));
  EXPECT_TRUE(mentions(read_text(path), {"\"trace\"", "accelerationLayer"}));
}

// Null is the same as a key that is missing, also when the config is rewritten.
TEST_F(Config, SealingTakesNullForNoAccelerationLayer) {
  const UpperFiles files = make_upper(workspace_.path(), UpperKind::append, kMiB);
  const std::string path = config(
      R"({"lowers": [{"file": "base.lsmt"}], "accelerationLayer": null, "upper": {"data": ")" +
      files.data + R"(", "index": ")" + files.index + R"("}})");
  (void)must(seal_image(posix_file_system(), path));
  EXPECT_SAME_BYTES(read_disk(*open_readable(path)), disk_);
}

// Every editor says what it has seen; what somebody else has written since is not undone.
TEST_F(Config, EditorsDoNotUndoEachOthersChanges) {
  FileSystem& host = posix_file_system();
  const std::string path = config(R"({"lowers": [{"file": "a"}, {"file": "b"}, {"file": "c"}]})");
  for (const char* name : {"a", "b", "c"}) write_text(workspace_ / name, "");
  const ImageConfig seen = load_config(host, path).value();
  ASSERT_TRUE(must(ConfigLock::take(host, seen)).replace_lowers({1, 2}, "a"));
  const std::string after = read_whole(host, path, kMiB).value();

  const auto second = ConfigLock::take(host, seen);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, EBUSY);
  EXPECT_TRUE(mentions(second.error().message, {"config.v1.json", "meanwhile"}));
  EXPECT_EQ(read_whole(host, path, kMiB), after);

  // Another upper counts as well.
  ImageConfig with_upper = load_config(host, path).value();
  with_upper.upper = UpperConfig{"data", "index"};
  EXPECT_FALSE(refuse_changed_config(host, with_upper));
  EXPECT_FALSE(ConfigLock::take(host, with_upper));
  EXPECT_EQ(read_whole(host, path, kMiB), after);

  // Nor is what an editor writes that takes no lock, while we have it.
  auto lock = must(ConfigLock::take(host, must(load_config(host, path))));
  const std::string others = R"({"lowers": [{"file": "b"}]})";
  write_text(path, others);
  const auto late = lock.replace_lowers({0, 1}, "c");
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, EBUSY);
  EXPECT_EQ(read_whole(host, path, kMiB), others);
}

TEST_F(Config, OneEditorAtATime) {
  FileSystem& host = posix_file_system();
  const std::string path = config(R"({"lowers": [{"file": "a"}, {"file": "b"}]})");
  for (const char* name : {"a", "b"}) write_text(workspace_ / name, "");
  const ImageConfig seen = load_config(host, path).value();
  const auto editor = must(ConfigLock::take(host, seen));
  const auto second = ConfigLock::take(host, seen);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, EBUSY);
}

// A seal that could not tell the config would leave an image that cannot be written to.
TEST_F(Config, NothingIsSealedThatTheConfigCannotBeToldOf) {
  FileSystem& host = posix_file_system();
  const UpperFiles files = make_upper(workspace_.path(), UpperKind::append, kMiB);
  const std::string path = config(R"({"lowers": [], "upper": {"data": ")" + files.data +
                                  R"(", "index": ")" + files.index + R"("}})");
  {
    auto image = open_writable(path);
    must(image->write(std::vector<std::byte>(4 * kKiB, std::byte{7}), 0));
    close_image(image);
  }
  const std::string data = read_whole(host, files.data, 16 * kMiB).value();
  const std::string index = read_whole(host, files.index, 16 * kMiB).value();
  const auto expect_untouched = [&] {
    EXPECT_EQ(read_whole(host, files.data, 16 * kMiB).value() == data, true);
    EXPECT_EQ(read_whole(host, files.index, 16 * kMiB).value() == index, true);
  };
  {
    const auto editor = must(ConfigLock::take(host, must(load_config(host, path))));
    const auto sealed = seal_image(host, path);
    ASSERT_FALSE(sealed);
    EXPECT_EQ(sealed.error().code, EBUSY);
    EXPECT_TRUE(mentions(sealed.error().message, {"config.v1.json"}));
    expect_untouched();
    EXPECT_FALSE(clone_image(host, path, workspace_ / "clone.json"));
    expect_untouched();
  }
  if (::geteuid() != 0) {  // whom no mode stops
    must(host.open(path, Access::read_write)
             .value()
             ->set_owner_and_mode(::geteuid(), ::getegid(), 0444));
    const auto sealed = seal_image(host, path);
    ASSERT_FALSE(sealed);
    EXPECT_TRUE(mentions(sealed.error().message, {"config.v1.json", "chmod u+w"}));
    expect_untouched();
  }
}

TEST_F(Config, HalfAnUpperIsNamed) {
  for (const auto& [upper, missing] : {std::pair(R"({"data": "d"})", "no index file"),
                                       std::pair(R"({"index": "i"})", "no data file")}) {
    const ImageConfig half =
        load_config(posix_file_system(), config(fmt::format(R"({{"upper": {}}})", upper))).value();
    ASSERT_EQ(half.warnings.size(), 1U);
    EXPECT_TRUE(mentions(half.warnings.front(), {missing, "config.v1.json"}));
    const auto opened = Image::open(posix_file_system(), half, {});
    ASSERT_FALSE(opened);
    EXPECT_TRUE(mentions(opened.error().message, {"neither lowers nor an upper", missing}));
  }
}

}  // namespace
}  // namespace obd::interop
