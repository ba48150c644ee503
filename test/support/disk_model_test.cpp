// The oracle tells legal contents from others.

#include "test/support/disk_model.h"

#include <gtest/gtest.h>

namespace obd::test {
namespace {

std::vector<std::byte> bytes(size_t count, char value) {
  return std::vector<std::byte>(count, static_cast<std::byte>(value));
}

class DiskModelTest : public ::testing::Test {
 protected:
  void write(char value, size_t begun, size_t ended, bool fua = false) {
    model_.complete(model_.begin_write(bytes(512, value), 0, begun), ended, fua);
  }
  bool after_power_cut(char value, size_t cut) {
    return !model_.judge_power_cut(bytes(512, value), cut);
  }
  bool after_death(char value, size_t cut) {
    return !model_.judge_server_death(bytes(512, value), cut);
  }

  DiskModel model_{bytes(512, 'a')};
};

TEST_F(DiskModelTest, AfterAPowerCutWhatWasFlushedOrLater) {
  write('b', 1, 2);
  write('c', 3, 4);
  model_.complete_flush(5, 6);
  write('d', 7, 8);
  EXPECT_TRUE(after_power_cut('a', 6)) << "the flush had not returned";
  EXPECT_TRUE(after_power_cut('b', 6));
  EXPECT_TRUE(after_power_cut('c', 6));
  EXPECT_FALSE(after_power_cut('d', 6)) << "nobody had written it";
  EXPECT_FALSE(after_power_cut('b', 7));
  EXPECT_TRUE(after_power_cut('c', 9));
  EXPECT_TRUE(after_power_cut('d', 9));
  EXPECT_FALSE(after_power_cut('x', 9));
}

TEST_F(DiskModelTest, FuaIsAFlushOfItsOwn) {
  write('b', 1, 2, true);
  EXPECT_TRUE(after_power_cut('a', 2));
  EXPECT_FALSE(after_power_cut('a', 3));
}

TEST_F(DiskModelTest, AFlushCoversWhatCompletedBeforeItBegan) {
  write('b', 1, 4);
  model_.complete_flush(3, 6);
  EXPECT_TRUE(after_power_cut('a', 7));
}

TEST_F(DiskModelTest, AfterTheServersDeathTheNewest) {
  write('b', 1, 2);
  model_.begin_write(bytes(512, 'c'), 0, 3);
  EXPECT_TRUE(after_death('a', 2));
  EXPECT_TRUE(after_death('b', 2));
  EXPECT_FALSE(after_death('a', 3));
  EXPECT_FALSE(after_death('c', 3));
  EXPECT_TRUE(after_death('b', 9));
  EXPECT_TRUE(after_death('c', 9));
  model_.observe(bytes(512, 'b'), 10);
  EXPECT_FALSE(after_death('c', 11));
  EXPECT_TRUE(after_power_cut('c', 11)) << "a power cut can still bring it about";
}

TEST_F(DiskModelTest, PartsOfSectorsKeepTheRest) {
  model_.complete(model_.begin_write(bytes(2, 'b'), 1, 1), 2, false);
  model_.complete(model_.begin_zero(2, 510, 3), 4, false);
  const auto newest = model_.newest();
  EXPECT_EQ(newest[0], std::byte{'a'});
  EXPECT_EQ(newest[1], std::byte{'b'});
  EXPECT_EQ(newest[2], std::byte{0});
  EXPECT_FALSE(model_.judge_server_death(newest, 9));
}

TEST_F(DiskModelTest, SaysWhatIsWrong) {
  write('b', 1, 2);
  const auto complaint = model_.judge_server_death(bytes(512, 'a'), 9);
  ASSERT_TRUE(complaint);
  EXPECT_EQ(*complaint,
            "sector 0 of the disk holds version 0 (begun at 0, ended at 0) after a crash at 9; the "
            "oldest legal version is 1 (begun at 1, ended at 2) of 2");
}

}  // namespace
}  // namespace obd::test
