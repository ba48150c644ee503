#include "tools/snapshotter/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

namespace obd::snapshotter {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(Config, HasDefaults) {
  const auto config = parse_config("c.json", "{}");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->root, "/var/lib/overlaybd");
  EXPECT_EQ(config->mode, Mode::overlayfs);
  EXPECT_EQ(config->writable_layer, UpperKind::append);
  EXPECT_EQ(config->rootfs_quota, 0u);
  EXPECT_FALSE(config->exporter.enable);
  EXPECT_EQ(config->exporter.port, 9863);
  EXPECT_THAT(config->warnings, IsEmpty());
}

TEST(Config, ReadsEveryKeyAndComments) {
  const auto config = parse_config("c.json", R"({
    // where
    "root": "/srv/obd/", "address": "/run/x.sock", "verbose": "debug", /* how */
    "rwMode": "dev", "writableLayerType": "sparse", "autoRemoveDev": true, "asyncRemove": true,
    "defaultFsType": "xfs", "rootfsQuota": "20g",
    "exporterConfig": {"enable": true, "uriPrefix": "/m", "port": 80},
    "stateDir": "/run/y", "backend": "fuse", "plugin": "/lib/p.so"})");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->root, "/srv/obd");
  EXPECT_EQ(config->address, "/run/x.sock");
  EXPECT_EQ(config->verbose, LogLevel::debug);
  EXPECT_EQ(config->mode, Mode::dev);
  EXPECT_EQ(config->writable_layer, UpperKind::sparse);
  EXPECT_TRUE(config->auto_remove_dev);
  EXPECT_TRUE(config->async_remove);
  EXPECT_EQ(config->default_fs_type, "xfs");
  EXPECT_EQ(config->rootfs_quota, uint64_t{20} << 30);
  EXPECT_TRUE(config->exporter.enable);
  EXPECT_EQ(config->exporter.uri_prefix, "/m");
  EXPECT_EQ(config->exporter.port, 80);
  EXPECT_EQ(config->state_dir, "/run/y");
  EXPECT_EQ(config->backend, "fuse");
  EXPECT_EQ(config->plugin, "/lib/p.so");
  EXPECT_THAT(config->warnings, IsEmpty());
}

TEST(Config, TheExampleIsTheDefaults) {
  const auto config = load_config_file(OBD_SOURCE_DIR "/tools/snapshotter/config.example.json");
  ASSERT_TRUE(config) << config.error().message;
  const Config defaults;
  EXPECT_EQ(config->root, defaults.root);
  EXPECT_EQ(config->address, defaults.address);
  EXPECT_EQ(config->verbose, defaults.verbose);
  EXPECT_EQ(config->mode, defaults.mode);
  EXPECT_EQ(config->default_fs_type, defaults.default_fs_type);
  EXPECT_EQ(config->exporter.port, defaults.exporter.port);
  EXPECT_THAT(config->warnings, IsEmpty());
}

TEST(Config, WarnsOfWhatHasNoEffect) {
  const auto config = parse_config(
      "c.json", R"({"mirrorRegistry": [{"host": "x"}], "rwmode": "dev", "rootfsQuota": "1g",
                    "exporterConfig": {"ports": 1}})");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_THAT(config->warnings,
              ElementsAre(AllOf(HasSubstr("exporterConfig: ports"), HasSubstr("no key")),
                          AllOf(HasSubstr("mirrorRegistry"), HasSubstr("no effect")),
                          AllOf(HasSubstr("rwmode"), HasSubstr("no key")),
                          AllOf(HasSubstr("rootfsQuota"), HasSubstr("overlayfs"))));
  EXPECT_EQ(config->mode, Mode::overlayfs);
}

TEST(Config, RefusesWrongValuesNamingThem) {
  for (const auto& [text, word] : std::initializer_list<std::pair<const char*, const char*>>{
           {R"({"rwMode": "directory"})", "rwMode"},
           {R"({"rwMode": 1})", "rwMode"},
           {R"({"writableLayerType": "log"})", "writableLayerType"},
           {R"({"autoRemoveDev": "yes"})", "autoRemoveDev"},
           {R"({"asyncRemove": 0})", "asyncRemove"},
           {R"({"root": "var"})", "root"},
           {R"({"root": ""})", "root"},
           {R"({"address": ["/x"]})", "address"},
           {R"({"verbose": "loud"})", "verbose"},
           {R"({"defaultFsType": "ext4; rm"})", "defaultFsType"},
           {R"({"rootfsQuota": "many"})", "rootfsQuota"},
           {R"({"rootfsQuota": "0"})", "rootfsQuota"},
           {R"({"rootfsQuota": 20})", "rootfsQuota"},
           {R"({"exporterConfig": true})", "exporterConfig"},
           {R"({"exporterConfig": {"port": 0}})", "port"},
           {R"({"exporterConfig": {"port": 65536}})", "port"},
           {R"({"exporterConfig": {"port": "x"}})", "port"},
           {R"({"exporterConfig": {"uriPrefix": "m"}})", "uriPrefix"},
           {R"({"backend": "tcmu"})", "backend"},
           {"[]", "object"},
           {"{", "JSON"},
           {"", "JSON"}}) {
    const auto config = parse_config("c.json", text);
    ASSERT_FALSE(config) << text;
    EXPECT_EQ(config.error().code, EINVAL);
    EXPECT_THAT(config.error().message, AllOf(HasSubstr("c.json"), HasSubstr(word))) << text;
  }
  EXPECT_FALSE(parse_config("c.json", R"({"address": "/)" + std::string(200, 'a') + "\"}"));
}

TEST(Config, ReadsQuotas) {
  EXPECT_EQ(*parse_quota("20g"), uint64_t{20} << 30);
  EXPECT_EQ(*parse_quota("20GB"), uint64_t{20} << 30);
  EXPECT_EQ(*parse_quota("20GiB"), uint64_t{20} << 30);
  EXPECT_EQ(*parse_quota("4096"), 4096u);
  for (const char* text : {"", "0", "b", "g", "-1", "1x"}) EXPECT_FALSE(parse_quota(text)) << text;
}

}  // namespace
}  // namespace obd::snapshotter
