#include "server/store/model_store.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "core/evaluate/classifier.h"
#include "core/finetune/lora.h"
#include "core/io/atomic_file.h"
#include "tests/server/store/store_fixture.h"

namespace boss::server {
namespace {

using testing::kArchitecture;
using testing::Network;
using testing::PlainManifest;
using testing::ScheduleSetOf;

void ExpectSameWeights(const VelocityModel& a, const VelocityModel& b) {
  const auto state_a = a.State(), state_b = b.State();
  ASSERT_EQ(state_a.size(), state_b.size());
  for (size_t i = 0; i < state_a.size(); ++i)
    EXPECT_TRUE(at::equal(state_a[i].second, state_b[i].second)) << state_a[i].first;
}

class ModelStoreTest : public testing::StoreTest {
 protected:
  ModelStoreTest() { Reopen(); }
  void Reopen() { Open(); }
};

TEST_F(ModelStoreTest, LoadsWhatWasPublishedAlsoAfterAReopen) {
  Manifest manifest = PlainManifest();
  manifest.description = "first";
  const VersionKey key = Publish(7, manifest);
  EXPECT_EQ(key.ToString(), "toy@1");
  for (int round = 0; round < 2; ++round) {
    const auto model = store_->LoadVersionModel(key);
    ASSERT_TRUE(model.ok()) << model.status();
    ExpectSameWeights(**model, *Network(7));
    const auto info = store_->GetVersion(key);
    ASSERT_TRUE(info.ok());
    EXPECT_EQ(info->manifest.description, "first");
    EXPECT_EQ(info->manifest.sha256.count("model.safetensors"), 1);
    EXPECT_GT(info->size_bytes, 0);
    Open();
  }
}

TEST_F(ModelStoreTest, ResolvesNumbersAliasesAndTheLatest) {
  Publish(1);
  Publish(2);
  ASSERT_TRUE(store_->SetAlias("toy", "stable", 1).ok());
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(store_->Resolve("toy")->version, 2);
    EXPECT_EQ(store_->Resolve("toy@latest")->version, 2);
    EXPECT_EQ(store_->Resolve("toy@1")->version, 1);
    EXPECT_EQ(store_->Resolve("toy@stable")->version, 1);
    EXPECT_EQ(store_->GetVersion({"toy", 1})->aliases, std::vector<std::string>{"stable"});
    for (const char* unknown : {"other", "toy@3", "toy@beta", "toy@01"}) {
      EXPECT_EQ(store_->Resolve(unknown).status().code(), absl::StatusCode::kNotFound) << unknown;
    }
    Open();
  }
  ASSERT_TRUE(store_->SetAlias("toy", "stable", 2).ok());
  EXPECT_EQ(store_->Resolve("toy@stable")->version, 2);
  ASSERT_TRUE(store_->SetAlias("toy", "stable", 0).ok());
  EXPECT_EQ(store_->Resolve("toy@stable").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->SetAlias("toy", "stable", 0).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->SetAlias("toy", "stable", 9).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->SetAlias("toy", "latest", 1).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(store_->SetAlias("toy", "7", 1).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ModelStoreTest, RefusesNamesThatAreNoFolderNames) {
  const std::vector<std::string> hostile = {"",
                                            ".",
                                            "..",
                                            "../toy",
                                            "a/b",
                                            "a\\b",
                                            ".hidden",
                                            "-rf",
                                            "UPPER",
                                            "na me",
                                            "t\xc3\xb6y",
                                            std::string("a\0b", 3),
                                            std::string(64, 'a'),
                                            "a\n"};
  for (const std::string& name : hostile) {
    EXPECT_EQ(store_->Publish(name, PlainManifest(), Network(1)->State()).status().code(),
              absl::StatusCode::kInvalidArgument)
        << name;
    EXPECT_EQ(store_->Resolve(name).status().code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_EQ(store_->Resolve("toy@" + name).status().code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_EQ(store_->SetAlias("toy", name, 1).code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_EQ(store_->ImportFolder(folder_.path(), name).status().code(), absl::StatusCode::kInvalidArgument) << name;
  }
  EXPECT_TRUE(store_->Publish(std::string(63, 'a'), PlainManifest(), Network(1)->State()).ok());
  EXPECT_TRUE(store_->Publish("0.a_b-c", PlainManifest(), Network(1)->State()).ok());
}

TEST_F(ModelStoreTest, SaysThatCorruptWeightsAreLost) {
  const VersionKey flipped = Publish(1), truncated = Publish(2), missing = Publish(3), whole = Publish(4);
  FlipLastByte(File(flipped, "model.safetensors"));
  std::filesystem::resize_file(File(truncated, "model.safetensors"), 100);
  std::filesystem::remove(File(missing, "model.safetensors"));
  for (const VersionKey& key : {flipped, truncated, missing}) {
    const absl::Status status = store_->LoadVersionModel(key).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_NE(std::string(status.message()).find(key.ToString()), std::string::npos) << status;
  }
  EXPECT_TRUE(store_->LoadVersionModel(whole).ok());
}

TEST_F(ModelStoreTest, ACorruptManifestDoesNotHideTheOtherVersions) {
  const VersionKey good = Publish(1), bad = Publish(2);
  std::ofstream(File(bad, "manifest.json")) << "{";
  Open();
  EXPECT_EQ(store_->GetVersion(bad).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(store_->LoadVersionModel(bad).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(store_->Resolve("toy@2")->version, 2);
  EXPECT_EQ(*store_->Resolve("toy"), good);
  EXPECT_EQ(store_->GetModel("toy")->versions.size(), 2);
  EXPECT_EQ(Publish(3).version, 3);
}

TEST_F(ModelStoreTest, RemovesWhatIsHalfFinishedWhenItOpens) {
  Publish(1);
  std::filesystem::create_directories(folder_ / "staging/9");
  std::ofstream(folder_ / "staging/9/model.safetensors") << "half";
  std::filesystem::create_directories(folder_ / "models/toy/.tmp");
  Open();
  EXPECT_TRUE(std::filesystem::is_empty(folder_ / "staging"));
  EXPECT_EQ(store_->GetModel("toy")->versions.size(), 1);
}

TEST_F(ModelStoreTest, PublishesNothingIfTheWeightsDoNotFit) {
  auto weights = Network(1)->State();
  weights.pop_back();
  const absl::Status missing = store_->Publish("toy", PlainManifest(), weights).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(missing.message()).find("missing"), std::string::npos) << missing;
  Manifest unknown = PlainManifest();
  unknown.architecture_json = R"({"model":{"architecture":"rnn"}})";
  EXPECT_EQ(store_->Publish("toy", unknown, Network(1)->State()).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(store_->ListModels().empty());
  EXPECT_TRUE(std::filesystem::is_empty(folder_ / "staging"));
}

TEST_F(ModelStoreTest, NeverUsesAVersionNumberTwice) {
  Publish(1);
  const VersionKey newest = Publish(2);
  ASSERT_TRUE(store_->DeleteVersion(newest, false).ok());
  EXPECT_FALSE(std::filesystem::exists(File(newest, "")));
  Open();
  EXPECT_EQ(store_->Resolve("toy")->version, 1);
  EXPECT_EQ(Publish(3).version, 3);
  EXPECT_EQ(store_->DeleteVersion(newest, false).code(), absl::StatusCode::kNotFound);
}

TEST_F(ModelStoreTest, DeletesAnAliasedVersionOnlyWhenForced) {
  const VersionKey key = Publish(1);
  Publish(2);
  ASSERT_TRUE(store_->SetAlias("toy", "stable", 1).ok());
  const absl::Status refused = store_->DeleteVersion(key, false);
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(std::string(refused.message()).find("stable"), std::string::npos);
  EXPECT_TRUE(store_->LoadVersionModel(key).ok());
  ASSERT_TRUE(store_->DeleteVersion(key, true).ok());
  EXPECT_EQ(store_->Resolve("toy@stable").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ModelStoreTest, KeepsScheduleSetsWithTheirVersion) {
  const VersionKey key = Publish(1);
  EXPECT_EQ(store_->FindScheduleSet(key, 1.0).status().code(), absl::StatusCode::kNotFound);
  for (const StoredScheduleSet& set : {ScheduleSetOf(4, 1.0), ScheduleSetOf(8, 1.0), ScheduleSetOf(4, 2.5)}) {
    ASSERT_TRUE(store_->AddScheduleSet(key, set).ok());
  }
  Open();
  EXPECT_EQ((*store_->FindScheduleSet(key, 1.0))->set.k_max, 8);
  EXPECT_EQ((*store_->FindScheduleSet(key, 1.0, TimeGrid::Uniform(4)))->set.k_max, 4);
  EXPECT_EQ((*store_->FindScheduleSet(key, 2.5))->set.k_max, 4);
  EXPECT_EQ(store_->FindScheduleSet(key, 3.0).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->ListScheduleSets(key)->size(), 3);
  // A repeated search replaces its result.
  StoredScheduleSet again = ScheduleSetOf(8, 1.0);
  again.set.num_samples = 1000;
  ASSERT_TRUE(store_->AddScheduleSet(key, again).ok());
  EXPECT_EQ(store_->ListScheduleSets(key)->size(), 3);
  EXPECT_EQ((*store_->FindScheduleSet(key, 1.0))->set.num_samples, 1000);

  StoredScheduleSet incomplete = ScheduleSetOf(8, 1.0);
  incomplete.set.schedules.pop_back();
  EXPECT_EQ(store_->AddScheduleSet(key, incomplete).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(store_->AddScheduleSet({"toy", 5}, again).code(), absl::StatusCode::kNotFound);

  // A new version of that number's successor does not inherit them.
  EXPECT_EQ(store_->FindScheduleSet(Publish(2), 1.0).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ModelStoreTest, NamedScheduleSetsAreFoundByNameAlone) {
  const VersionKey key = Publish(1);
  StoredScheduleSet named = ScheduleSetOf(16, 1.0);
  named.client_name = "mine";
  ASSERT_TRUE(store_->AddScheduleSet(key, named).ok());
  EXPECT_EQ(store_->FindScheduleSet(key, 1.0).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->FindScheduleSet(key, 1.0, TimeGrid::Uniform(16)).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ((*store_->FindScheduleSet(key, "mine"))->set.k_max, 16);
  ASSERT_TRUE(store_->AddScheduleSet(key, ScheduleSetOf(4, 1.0)).ok());
  EXPECT_EQ((*store_->FindScheduleSet(key, 1.0))->set.k_max, 4);

  StoredScheduleSet imported;
  imported.client_name = "mine";
  imported.set.schedules.emplace_back().time_grid = *TimeGrid::Create({0, 0.2, 1});
  EXPECT_EQ(store_->AddScheduleSet(key, imported, /*replace=*/false).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ((*store_->FindScheduleSet(key, "mine"))->set.k_max, 16);
  ASSERT_TRUE(store_->AddScheduleSet(key, imported).ok());
  EXPECT_EQ((*store_->FindScheduleSet(key, "mine"))->set.k_max, 0);
  Open();
  const auto reopened = store_->FindScheduleSet(key, "mine");
  ASSERT_TRUE(reopened.ok()) << reopened.status();
  EXPECT_EQ((*reopened)->set.Find(2)->time_grid, *TimeGrid::Create({0, 0.2, 1}));

  ASSERT_TRUE(store_->RemoveScheduleSet(key, "mine").ok());
  EXPECT_EQ(store_->RemoveScheduleSet(key, "mine").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ((*reopened)->Name(), "mine");  // who has it goes on with it
  Open();
  EXPECT_EQ(store_->FindScheduleSet(key, "mine").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->ListScheduleSets(key)->size(), 1);
}

TEST_F(ModelStoreTest, OfFineGridsAlikeTheNewestSearchIsTaken) {
  const VersionKey key = Publish(1);
  StoredScheduleSet uneven = ScheduleSetOf(4, 1.0);
  uneven.set.fine_grid = *TimeGrid::Create({0, 0.1, 0.2, 0.9, 1});
  uneven.create_time = absl::FromUnixSeconds(2'000);
  StoredScheduleSet uniform = ScheduleSetOf(4, 1.0);
  uniform.create_time = absl::FromUnixSeconds(1'000);
  ASSERT_TRUE(store_->AddScheduleSet(key, uneven).ok());
  ASSERT_TRUE(store_->AddScheduleSet(key, uniform).ok());
  EXPECT_EQ((*store_->FindScheduleSet(key, 1.0))->Name(), uneven.Name());
  EXPECT_EQ((*store_->FindScheduleSet(key, 1.0, TimeGrid::Uniform(4)))->Name(), uniform.Name());
  EXPECT_EQ((*store_->FindScheduleSet(key, 1.0, *uneven.set.fine_grid))->Name(), uneven.Name());
  uniform.create_time = absl::FromUnixSeconds(3'000);
  ASSERT_TRUE(store_->AddScheduleSet(key, uniform).ok());
  EXPECT_EQ((*store_->FindScheduleSet(key, 1.0))->Name(), uniform.Name());
}

TEST_F(ModelStoreTest, PrefersTheScheduleThatAVersionWasTrainedFor) {
  Manifest manifest = PlainManifest();
  NativeSchedule native{"bellman", 1.0, 8, {}};
  native.schedule.knots = {0, 5, 8};
  native.schedule.time_grid = *TimeGrid::Create({0, 0.625, 1});
  manifest.schedules = {native};
  const VersionKey key = Publish(1, manifest);
  EXPECT_EQ(store_->FindSchedule(key, 3, 1.0).status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(store_->AddScheduleSet(key, ScheduleSetOf(8, 1.0)).ok());
  EXPECT_EQ(store_->FindSchedule(key, 2, 1.0)->schedule.knots, (std::vector<int>{0, 5, 8}));
  EXPECT_EQ(store_->FindSchedule(key, 3, 1.0)->schedule.knots, (std::vector<int>{0, 1, 2, 8}));
  EXPECT_EQ(store_->FindSchedule(key, 2, 2.0).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->FindSchedule(key, 9, 1.0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(store_->FindSchedule(key, 0, 1.0).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ModelStoreTest, MergesAnAdapterIntoItsBase) {
  const VersionKey base = Publish(1);
  const std::unique_ptr<VelocityModel> tuned = Network(1);
  ASSERT_TRUE(tuned->AttachLora({2, 4.0}, 9).ok());
  {
    const c10::NoGradGuard no_grad;
    for (const auto& [name, tensor] : tuned->Parameters()) tensor.add_(0.125);
  }
  Manifest manifest = PlainManifest();
  manifest.parent = base.ToString();
  manifest.adapter = AdapterInfo{base, 2, 4.0};
  const auto key = store_->Publish("tuned", manifest, AdapterContents(*tuned, {2, 4.0}));
  ASSERT_TRUE(key.ok()) << key.status();
  EXPECT_TRUE(std::filesystem::exists(File(*key, "adapter.safetensors")));
  const auto loaded = store_->LoadVersionModel(*key);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  tuned->MergeLora();
  ExpectSameWeights(**loaded, *tuned);
  // Without its base it would be nothing.
  EXPECT_EQ(store_->DeleteVersion(base, false).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(store_->DeleteVersion(*key, false).ok());
  EXPECT_TRUE(store_->DeleteVersion(base, false).ok());
}

TEST_F(ModelStoreTest, ImportsWhatItExports) {
  Manifest manifest = PlainManifest();
  manifest.label_names = {"a", "b"};
  const VersionKey key = Publish(5, manifest);
  const auto files = store_->OpenForExport(key);
  ASSERT_TRUE(files.ok()) << files.status();
  const auto incoming = store_->NewStagingFolder();
  ASSERT_TRUE(incoming.ok());
  for (const ExportFile& file : *files) {
    std::filesystem::copy_file(file.path, (*incoming)->path() + "/" + file.name);
    EXPECT_EQ(static_cast<int64_t>(std::filesystem::file_size(file.path)), file.size_bytes);
  }
  const auto copy = store_->ImportFolder((*incoming)->path(), "copy");
  ASSERT_TRUE(copy.ok()) << copy.status();
  ExpectSameWeights(**store_->LoadVersionModel(*copy), *Network(5));
  EXPECT_EQ(store_->GetVersion(*copy)->manifest.label_names, manifest.label_names);

  std::filesystem::resize_file((*incoming)->path() + "/model.safetensors", 50);
  EXPECT_EQ(store_->ImportFolder((*incoming)->path(), "copy").status().code(), absl::StatusCode::kDataLoss);
  std::filesystem::remove((*incoming)->path() + "/model.safetensors");
  EXPECT_FALSE(store_->ImportFolder((*incoming)->path(), "copy").ok());
  EXPECT_EQ(store_->GetModel("copy")->versions.size(), 1);
  EXPECT_EQ(store_->ImportFolder(folder_ / "nowhere", "copy").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ModelStoreTest, HandsTheClassifierOnToChildren) {
  boss::testing::TempFolder source;
  ASSERT_TRUE(Classifier(1, 8, 4, 2, 1).Save(source / "classifier.safetensors").ok());
  const VersionKey plain = Publish(1);
  std::filesystem::copy_file(File(plain, "model.safetensors"), source / "model.safetensors");
  ASSERT_TRUE(WriteFileAtomically(source / "manifest.json", ManifestToJson(PlainManifest())).ok());
  const auto parent = store_->ImportFolder(source.path(), "toy");
  ASSERT_TRUE(parent.ok()) << parent.status();
  Manifest manifest = PlainManifest();
  manifest.parent = parent->ToString();
  const VersionKey child = Publish(3, manifest);
  const auto path = store_->AuxiliaryFile(child, kClassifierFile);
  ASSERT_TRUE(path.ok()) << path.status();
  EXPECT_TRUE(Classifier::Load(*path).ok());
  EXPECT_EQ(store_->AuxiliaryFile(plain, kClassifierFile).status().code(), absl::StatusCode::kNotFound);
  // The child does not need its parent for it.
  ASSERT_TRUE(store_->DeleteVersion(*parent, false).ok());
  EXPECT_TRUE(store_->AuxiliaryFile(child, kClassifierFile).ok());
  std::ofstream(*path, std::ios::app) << "x";
  EXPECT_EQ(store_->AuxiliaryFile(child, kClassifierFile).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(ModelStoreTest, FindsWhatAJobPublished) {
  Manifest manifest = PlainManifest();
  manifest.job_id = "job-7";
  EvaluationRow own, other;
  own.label = "straightened";
  other.version = "teacher@3";
  manifest.evaluation = {own, other};
  const VersionKey key = Publish(1, manifest);
  EXPECT_EQ(*store_->FindByJob("toy", "job-7"), key);
  EXPECT_EQ(store_->FindByJob("toy", "job-8").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->FindByJob("other", "job-7").status().code(), absl::StatusCode::kNotFound);
  // A row that was written before the version had its number is its own.
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(store_->GetVersion(key)->manifest.evaluation[0].version, "toy@1");
    EXPECT_EQ(store_->GetVersion(key)->manifest.evaluation[1].version, "teacher@3");
    Open();
  }
}

TEST_F(ModelStoreTest, FindsWhatAnUploadPublished) {
  Publish(1);
  Manifest manifest = PlainManifest();
  manifest.upload_id = "upload-7";
  manifest.upload_digest = "ab12";
  manifest.labels = {{"team", "vision"}};
  const VersionKey key = Publish(2, manifest);
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(*store_->FindByUpload("toy", "upload-7"), key);
    EXPECT_EQ(store_->GetVersion(key)->manifest.upload_digest, "ab12");
    EXPECT_EQ(store_->GetVersion(key)->manifest.labels, manifest.labels);
    EXPECT_EQ(store_->FindByUpload("toy", "upload-8").status().code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(store_->FindByUpload("toy", "").status().code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(store_->FindByUpload("other", "upload-7").status().code(), absl::StatusCode::kNotFound);
    Open();
  }
}

}  // namespace
}  // namespace boss::server
