// What the store makes of a disk on which something is wrong.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "core/io/atomic_file.h"
#include "tests/server/store/store_fixture.h"
#include "tests/support/forwarding_file_system.h"

namespace boss::server {
namespace {

namespace fs = std::filesystem;
using testing::Network;
using testing::PlainManifest;
using testing::ScheduleSetOf;

class StoreRecoveryTest : public testing::StoreTest {
 protected:
  StoreRecoveryTest() { Open(); }

  std::string Quarantined(const VersionKey& key) const {
    return Path("quarantine/" + key.name + "/" + std::to_string(key.version));
  }
  void EditManifest(const VersionKey& key, const std::string& from, const std::string& to) const {
    std::string text = *ReadFile(File(key, "manifest.json"));
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << text;
    Write(File(key, "manifest.json"), text.replace(at, from.size(), to));
  }
};

// The disk, with one kind of file that cannot be read, or with folders that cannot be moved.
class StubbornDisk final : public boss::testing::ForwardingFileSystem {
 public:
  absl::StatusOr<std::string> ReadFile(const std::string& path) const override {
    if (!unreadable.empty() && path.ends_with(unreadable))
      return absl::PermissionDeniedError("read " + path + ": denied by the test");
    return ForwardingFileSystem::ReadFile(path);
  }
  absl::Status Rename(const std::string& from, const std::string& to) const override {
    if (!unmovable.empty() && from.ends_with(unmovable))
      return absl::PermissionDeniedError("rename " + from + ": denied by the test");
    return ForwardingFileSystem::Rename(from, to);
  }

  std::string unreadable, unmovable;  // ends of paths
};

TEST_F(StoreRecoveryTest, QuarantinesWhatIsCorruptAndServesTheRest) {
  struct Case {
    std::string reason;
    std::function<void(const VersionKey&)> spoil;
  };
  const std::vector<Case> cases = {
      {"model.safetensors is corrupt", [&](const VersionKey& key) { FlipLastByte(File(key, "model.safetensors")); }},
      {"model.safetensors is corrupt",
       [&](const VersionKey& key) { fs::resize_file(File(key, "model.safetensors"), 100); }},
      {"model.safetensors is missing", [&](const VersionKey& key) { fs::remove(File(key, "model.safetensors")); }},
      {"model.safetensors is a folder",
       [&](const VersionKey& key) {
         fs::remove(File(key, "model.safetensors"));
         fs::create_directory(File(key, "model.safetensors"));
       }},
      {"not JSON", [&](const VersionKey& key) { Write(File(key, "manifest.json"), "{"); }},
      {"manifest.json is missing", [&](const VersionKey& key) { fs::remove(File(key, "manifest.json")); }},
      {"does not list model.safetensors",
       [&](const VersionKey& key) { EditManifest(key, "\"model.safetensors\"", "\"other.safetensors\""); }},
      {"the manifest's file",
       [&](const VersionKey& key) {
         EditManifest(key, "\"model.safetensors\"", "\"../1/model.safetensors\": \"00\", \"model.safetensors\"");
       }},
      {"symbolic link, expected a folder",
       [&](const VersionKey& key) { ReplaceByLink(File(key, "").substr(0, File(key, "").size() - 1)); }},
      {"model.safetensors is a symbolic link",
       [&](const VersionKey& key) { ReplaceByLink(File(key, "model.safetensors")); }},
      {"manifest.json is a symbolic link", [&](const VersionKey& key) { ReplaceByLink(File(key, "manifest.json")); }},
  };
  const VersionKey whole = Publish(100);
  const VersionKey other = Publish(200, PlainManifest(), "other");
  std::vector<VersionKey> spoiled;
  for (size_t i = 0; i < cases.size(); ++i) spoiled.push_back(Publish(i));
  for (size_t i = 0; i < cases.size(); ++i) cases[i].spoil(spoiled[i]);

  for (int round = 0; round < 3; ++round) {
    Open();
    for (size_t i = 0; i < cases.size(); ++i) {
      ExpectQuarantined(spoiled[i], cases[i].reason);
      EXPECT_TRUE(Exists(Quarantined(spoiled[i]))) << spoiled[i].ToString();
      EXPECT_FALSE(Exists(File(spoiled[i], ""))) << spoiled[i].ToString();
      EXPECT_EQ(*store_->Resolve(spoiled[i].ToString()), spoiled[i]);
    }
    EXPECT_EQ(*store_->Resolve("toy"), whole);
    EXPECT_TRUE(store_->LoadVersionModel(whole).ok());
    EXPECT_TRUE(store_->LoadVersionModel(other).ok());
    const StoreTotals totals = store_->Totals();
    EXPECT_EQ(totals.published, 2);
    EXPECT_EQ(totals.quarantined, static_cast<int64_t>(cases.size()));
  }
  EXPECT_TRUE(Exists(Path("elsewhere-0/model.safetensors")));  // what a link pointed at is not touched

  for (const VersionKey& key : spoiled) {
    EXPECT_EQ(store_->SetAlias("toy", "prod", key.version).code(), absl::StatusCode::kDataLoss);
    ASSERT_TRUE(store_->DeleteVersion(key, false).ok()) << key.ToString();
    EXPECT_FALSE(Exists(Quarantined(key)));
    EXPECT_FALSE(Exists(Quarantined(key) + ".json"));
  }
  EXPECT_EQ(Versions(), std::vector<int64_t>{1});
  Open();
  EXPECT_EQ(Versions(), std::vector<int64_t>{1});
  EXPECT_EQ(store_->Totals().quarantined, 0);
  EXPECT_EQ(Publish(300).version, spoiled.back().version + 1);
}

TEST_F(StoreRecoveryTest, WhatIsFoundCorruptLaterIsQuarantinedThen) {
  const VersionKey good = Publish(1), bad = Publish(2);
  ASSERT_TRUE(store_->AddScheduleSet(bad, ScheduleSetOf(4, 1.0)).ok());
  FlipLastByte(File(bad, "model.safetensors"));
  EXPECT_TRUE(store_->GetVersion(bad).ok());
  EXPECT_EQ(store_->LoadVersionModel(bad).status().code(), absl::StatusCode::kDataLoss);
  ExpectQuarantined(bad, "model.safetensors is corrupt");
  EXPECT_EQ(*store_->Resolve("toy"), good);
  EXPECT_TRUE(Exists(Quarantined(bad)));
  Open();
  ExpectQuarantined(bad, "model.safetensors is corrupt");
}

TEST_F(StoreRecoveryTest, NoLinkIsFollowedOnReads) {
  const VersionKey loaded = Publish(1), exported = Publish(2), manifest = Publish(3), folder = Publish(4);
  ReplaceByLink(File(loaded, "model.safetensors"));
  EXPECT_EQ(store_->LoadVersionModel(loaded).status().code(), absl::StatusCode::kDataLoss);
  ExpectQuarantined(loaded, "symbolic link");
  ReplaceByLink(File(exported, "model.safetensors"));
  EXPECT_EQ(store_->OpenForExport(exported).status().code(), absl::StatusCode::kDataLoss);
  ExpectQuarantined(exported, "symbolic link");
  ReplaceByLink(File(manifest, "manifest.json"));
  EXPECT_EQ(store_->OpenForExport(manifest).status().code(), absl::StatusCode::kDataLoss);
  ExpectQuarantined(manifest, "symbolic link");
  ReplaceByLink(Path("models/toy/4"));
  EXPECT_EQ(store_->LoadVersionModel(folder).status().code(), absl::StatusCode::kDataLoss);
  ExpectQuarantined(folder, "symbolic link");
}

TEST_F(StoreRecoveryTest, NothingIsPublishedThroughALink) {
  const VersionKey key = Publish(1);
  fs::create_directory(Path("outside"));
  fs::create_directory_symlink(Path("outside"), Path("models/linked"));
  EXPECT_EQ(TryPublish(2, PlainManifest(), "linked").status().code(), absl::StatusCode::kDataLoss);
  // The schedules' folder, too.
  fs::create_directory(Path("models/toy/schedules"));
  fs::create_directory_symlink(Path("outside"), Path("models/toy/schedules/1"));
  EXPECT_EQ(store_->AddScheduleSet(key, ScheduleSetOf(4, 1.0)).code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(fs::is_empty(Path("outside")));

  Open();  // puts the links out of the way
  EXPECT_EQ(Publish(2, PlainManifest(), "linked").version, 1);
  EXPECT_TRUE(store_->AddScheduleSet(key, ScheduleSetOf(4, 1.0)).ok());
  EXPECT_TRUE(fs::is_empty(Path("outside")));
  EXPECT_TRUE(fs::is_symlink(Path("quarantine/linked/files/model")));
  EXPECT_TRUE(fs::is_symlink(Path("quarantine/toy/files/schedules-1")));
}

TEST_F(StoreRecoveryTest, FoldersThatAreNoModelsStayAndAreNotListed) {
  Publish(1);
  for (const char* name : {"UPPER", ".hidden", "a b", "-x"}) {
    fs::create_directories(Path(std::string("models/") + name + "/1"));
  }
  Write(Path("models/file"), "no folder");
  fs::create_directories(Path("models/toy/01"));
  fs::create_directories(Path("models/toy/-1"));
  fs::create_directories(Path("models/toy/99999999999999999999"));
  Open();
  ASSERT_EQ(store_->ListModels().size(), 1);
  EXPECT_EQ(Versions(), std::vector<int64_t>{1});
  EXPECT_TRUE(Exists(Path("models/a b/1")));
  EXPECT_TRUE(Exists(Path("quarantine/file/files/model")));
}

TEST_F(StoreRecoveryTest, AliasesThatCannotBeReadAreSetAside) {
  Publish(1);
  const VersionKey newest = Publish(2);
  ASSERT_TRUE(store_->SetAlias("toy", "prod", 1).ok());
  ASSERT_TRUE(store_->DeleteVersion(newest, false).ok());
  for (const char* corrupt : {"{", "[]", R"({"aliases": {"prod": "one"}, "next_version": 3})"}) {
    Write(Path("models/toy/aliases.json"), corrupt);
    Open();
    EXPECT_EQ(*ReadFile(Path("quarantine/toy/files/aliases.json")), corrupt);
    EXPECT_EQ(Versions(), std::vector<int64_t>{1});
    EXPECT_EQ(store_->Resolve("toy@prod").status().code(), absl::StatusCode::kNotFound);
    ASSERT_TRUE(store_->SetAlias("toy", "prod", 1).ok());
  }
  EXPECT_EQ(Publish(3).version, 3);  // 2 is used up, although the file that said so was lost
}

TEST_F(StoreRecoveryTest, ACorruptScheduleSetIsSetAsideAndTheOthersServe) {
  const VersionKey key = Publish(1);
  for (int k_max : {4, 8, 16}) ASSERT_TRUE(store_->AddScheduleSet(key, ScheduleSetOf(k_max, 1.0)).ok());
  Write(ScheduleFile(key, "bellman-euler-g1-k8.json"), "{\"k_max\": 8}");
  ReplaceByLink(ScheduleFile(key, "bellman-euler-g1-k16.json"));
  for (int round = 0; round < 2; ++round) {
    Open();
    EXPECT_TRUE(store_->LoadVersionModel(key).ok());
    EXPECT_EQ((*store_->FindScheduleSet(key, 1.0))->set.k_max, 4);
    EXPECT_EQ(store_->FindScheduleSet(key, 1.0, TimeGrid::Uniform(8)).status().code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(store_->ListScheduleSets(key)->size(), 1);
    EXPECT_EQ(*ReadFile(Path("quarantine/toy/files/schedules-1-bellman-euler-g1-k8.json")), "{\"k_max\": 8}");
    EXPECT_TRUE(fs::is_symlink(Path("quarantine/toy/files/schedules-1-bellman-euler-g1-k16.json")));
  }
  EXPECT_TRUE(store_->AddScheduleSet(key, ScheduleSetOf(8, 1.0)).ok());
}

TEST_F(StoreRecoveryTest, WhatWasNeverFinishedIsRemoved) {
  const VersionKey key = Publish(1);
  ASSERT_TRUE(store_->SetAlias("toy", "prod", 1).ok());
  ASSERT_TRUE(store_->AddScheduleSet(key, ScheduleSetOf(4, 1.0)).ok());
  const std::vector<std::string> leftovers = {
      Path("models/toy/aliases.json.tmp-0123456789abcdef"),
      ScheduleFile(key, "bellman-euler-g1-k4.json.tmp-0123456789abcdef"),
      Path("models/toy/schedules/9"),
      Path("staging/7"),
      Path("quarantine/toy/5.json"),
      Path("quarantine/toy/5.json.tmp-0123456789abcdef"),
  };
  for (const std::string& path : leftovers) {
    ASSERT_EQ(IsTemporary(path), path.find(".tmp-") != std::string::npos);
    fs::create_directories(path.find(".json") == std::string::npos ? path : fs::path(path).parent_path().string());
    if (path.find(".json") != std::string::npos) Write(path, "{");
  }
  Open();
  for (const std::string& path : leftovers) EXPECT_FALSE(Exists(path)) << path;
  EXPECT_EQ(store_->Resolve("toy@prod")->version, 1);
  EXPECT_EQ(store_->ListScheduleSets(key)->size(), 1);
  EXPECT_EQ(Versions(), std::vector<int64_t>{1});
}

TEST_F(StoreRecoveryTest, ANumberIsNotUsedAgainEvenIfTheQuarantineIsEmptied) {
  Publish(1);
  const VersionKey bad = Publish(2);
  FlipLastByte(File(bad, "model.safetensors"));
  Open();
  store_.reset();
  fs::remove_all(Path("quarantine"));
  Open();
  EXPECT_EQ(Versions(), std::vector<int64_t>{1});
  EXPECT_EQ(Publish(3).version, 3);
}

TEST_F(StoreRecoveryTest, AGoodCopyThatIsPutBackServes) {
  const VersionKey key = Publish(1);
  ASSERT_TRUE(store_->AddScheduleSet(key, ScheduleSetOf(4, 1.0)).ok());
  FlipLastByte(File(key, "model.safetensors"));
  Open();
  ExpectQuarantined(key, "corrupt");
  fs::copy(Quarantined(key), File(key, ""), fs::copy_options::recursive);
  FlipLastByte(File(key, "model.safetensors"));  // flips it back
  Open();
  EXPECT_TRUE(store_->LoadVersionModel(key).ok());
  EXPECT_EQ(store_->ListScheduleSets(key)->size(), 1);
  ASSERT_TRUE(store_->DeleteVersion(key, false).ok());
  Open();
  EXPECT_TRUE(store_->ListModels().empty());
}

TEST_F(StoreRecoveryTest, AManifestOfANewerProgramStaysForIt) {
  const VersionKey old = Publish(1), newer = Publish(2);
  EditManifest(newer, "\"format\": 1", "\"format\": 2");
  Open();
  EXPECT_EQ(store_->LoadVersionModel(newer).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(*store_->Resolve("toy"), old);
  EXPECT_EQ(Publish(3).version, 3);
  EditManifest(newer, "\"format\": 2", "\"format\": 1");
  Open();
  EXPECT_TRUE(store_->LoadVersionModel(newer).ok());
}

TEST_F(StoreRecoveryTest, WhatCannotBeReadAtTheMomentIsNotMoved) {
  const VersionKey key = Publish(1);
  ASSERT_TRUE(store_->SetAlias("toy", "prod", 1).ok());
  ASSERT_TRUE(store_->AddScheduleSet(key, ScheduleSetOf(4, 1.0)).ok());
  StubbornDisk disk;
  disk.unreadable = "model.safetensors";
  Open({}, disk);
  ExpectQuarantined(key, "denied by the test");
  EXPECT_TRUE(Exists(File(key, "model.safetensors")));
  disk.unreadable = "aliases.json";
  Open({}, disk);
  EXPECT_TRUE(store_->LoadVersionModel(key).ok());
  EXPECT_EQ(store_->SetAlias("toy", "stable", 1).code(), absl::StatusCode::kPermissionDenied);  // would lose "prod"
  EXPECT_EQ(TryPublish(2).status().code(), absl::StatusCode::kPermissionDenied);
  disk.unreadable = ".json.does-not-matter";
  Open({}, disk);
  EXPECT_EQ(store_->Resolve("toy@prod")->version, 1);
  EXPECT_EQ(store_->ListScheduleSets(key)->size(), 1);
}

TEST_F(StoreRecoveryTest, WhatCannotBeMovedIsTreatedAlike) {
  const VersionKey good = Publish(1), bad = Publish(2);
  ASSERT_TRUE(store_->AddScheduleSet(good, ScheduleSetOf(4, 1.0)).ok());
  FlipLastByte(File(bad, "model.safetensors"));
  Write(ScheduleFile(good, "bellman-euler-g1-k4.json"), "{");
  StubbornDisk disk;
  disk.unmovable = "/2";
  Open({}, disk);
  ExpectQuarantined(bad, "model.safetensors is corrupt");
  EXPECT_TRUE(Exists(File(bad, "model.safetensors")));
  EXPECT_EQ(*store_->Resolve("toy"), good);
  EXPECT_EQ(store_->Totals().quarantined, 1);
  disk.unmovable = "k4.json";
  Write(ScheduleFile(good, "bellman-euler-g1-k4.json"), "{");
  Open({}, disk);
  EXPECT_TRUE(store_->ListScheduleSets(good)->empty());
  ExpectQuarantined(bad, "model.safetensors is corrupt");
  EXPECT_FALSE(Exists(File(bad, "")));
  ASSERT_TRUE(store_->DeleteVersion(bad, false).ok());
}

}  // namespace
}  // namespace boss::server
