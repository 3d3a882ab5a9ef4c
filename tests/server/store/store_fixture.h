// A store in a folder of its own, with versions that are quick to make and easy to spoil.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/base/clock.h"
#include "core/finetune/lora.h"
#include "server/store/model_store.h"
#include "tests/support/temp_folder.h"

namespace boss::server::testing {

inline constexpr char kArchitecture[] = R"({"model":{"architecture":"mlp","dim":2,"hidden":8,"layers":2}})";

inline std::unique_ptr<VelocityModel> Network(uint64_t seed) { return *CreateModel(kArchitecture, seed); }

inline Manifest PlainManifest() {
  Manifest manifest;
  manifest.architecture_json = kArchitecture;
  return manifest;
}

inline StoredScheduleSet ScheduleSetOf(int k_max, double guidance_scale) {
  StoredScheduleSet stored;
  stored.set.k_max = k_max;
  stored.set.num_samples = 3;
  stored.set.guidance_scale = guidance_scale;
  stored.set.cost_matrix.assign((k_max + 1) * (k_max + 1), 0.5);
  for (int steps = 1; steps <= k_max; ++steps) {
    Schedule& schedule = stored.set.schedules.emplace_back();
    std::vector<double> times;
    for (int i = 0; i < steps; ++i) {
      schedule.knots.push_back(i);
      times.push_back(static_cast<double>(i) / k_max);
    }
    schedule.knots.push_back(k_max);
    times.push_back(1);
    schedule.time_grid = *TimeGrid::Create(times);
  }
  return stored;
}

class StoreTest : public ::testing::Test {
 protected:
  // The store as another run of the server would find it.
  void Open(const ModelStoreOptions& options = {}, const FileSystem& files = PosixFileSystem()) {
    store_.reset();
    absl::StatusOr<std::unique_ptr<ModelStore>> opened = ModelStore::Open(folder_.path(), clock_, files, options);
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
  }

  absl::StatusOr<VersionKey> TryPublish(uint64_t seed, Manifest manifest = PlainManifest(),
                                        const std::string& name = "toy") {
    return store_->Publish(name, std::move(manifest), Network(seed)->State());
  }
  VersionKey Publish(uint64_t seed, Manifest manifest = PlainManifest(), const std::string& name = "toy") {
    const absl::StatusOr<VersionKey> key = TryPublish(seed, std::move(manifest), name);
    EXPECT_TRUE(key.ok()) << key.status();
    return key.ok() ? *key : VersionKey{};
  }
  VersionKey PublishAdapter(const VersionKey& base, const std::string& name = "tuned") {
    const std::unique_ptr<VelocityModel> tuned = Network(1);
    EXPECT_TRUE(tuned->AttachLora({2, 4.0}, 9).ok());
    Manifest manifest = PlainManifest();
    manifest.parent = base.ToString();
    manifest.adapter = AdapterInfo{base, 2, 4.0};
    const absl::StatusOr<VersionKey> key = store_->Publish(name, manifest, AdapterContents(*tuned, {2, 4.0}));
    EXPECT_TRUE(key.ok()) << key.status();
    return key.ok() ? *key : VersionKey{};
  }

  std::vector<int64_t> Versions(const std::string& name = "toy") const {
    std::vector<int64_t> versions;
    const absl::StatusOr<ModelInfo> info = store_->GetModel(name);
    if (!info.ok()) return versions;
    for (const VersionKey& key : info->versions) versions.push_back(key.version);
    return versions;
  }

  // Under the data folder.
  std::string Path(const std::string& relative) const { return folder_ / relative; }
  std::string File(const VersionKey& key, const std::string& name) const {
    return Path("models/" + key.name + "/" + std::to_string(key.version) + "/" + name);
  }
  std::string ScheduleFile(const VersionKey& key, const std::string& name) const {
    return Path("models/" + key.name + "/schedules/" + std::to_string(key.version) + "/" + name);
  }
  static bool Exists(const std::string& path) {
    return std::filesystem::exists(std::filesystem::symlink_status(path));  // also a link that leads nowhere
  }
  static void Write(const std::string& path, const std::string& contents) {
    std::ofstream(path, std::ios::binary) << contents;
  }
  // Changes the file's last byte.
  static void FlipLastByte(const std::string& path) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(-1, std::ios::end);
    const char last = static_cast<char>(file.get());
    file.seekp(-1, std::ios::end);
    file.put(static_cast<char>(last ^ 1));
    ASSERT_TRUE(file.good()) << path;
  }
  // Puts a symbolic link in the place of a file or folder, which it points at.
  void ReplaceByLink(const std::string& path) {
    const std::string elsewhere = Path("elsewhere-" + std::to_string(next_link_++));
    std::filesystem::rename(path, elsewhere);
    std::filesystem::create_symlink(elsewhere, path);
  }

  // Expects that the version is listed, cannot be had, and that the reason holds `reason`.
  void ExpectQuarantined(const VersionKey& key, const std::string& reason) const {
    const absl::StatusOr<ModelInfo> info = store_->GetModel(key.name);
    ASSERT_TRUE(info.ok()) << info.status();
    EXPECT_NE(std::find(info->versions.begin(), info->versions.end(), key), info->versions.end()) << key.ToString();
    EXPECT_NE(info->latest, key.version);
    for (const absl::Status& status :
         {store_->GetVersion(key).status(), store_->LoadVersionModel(key).status(), store_->OpenForExport(key).status(),
          store_->Use(key, "a test").status(), store_->ListScheduleSets(key).status(),
          store_->FindSchedule(key, 2, 1.0).status()}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
      EXPECT_NE(std::string(status.message()).find(key.ToString()), std::string::npos) << status;
      EXPECT_NE(std::string(status.message()).find(reason), std::string::npos) << status;
    }
  }

  RealClock clock_;
  boss::testing::TempFolder folder_;
  std::unique_ptr<ModelStore> store_;

 private:
  int next_link_ = 0;
};

}  // namespace boss::server::testing
