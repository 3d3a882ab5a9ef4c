// What a job may ask for, and how much it may tell.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "core/base/error_details.h"
#include "tests/server/jobs/job_fixture.h"
#include "tests/support/scripted_disk.h"

namespace boss::server {
namespace {

using ::testing::HasSubstr;
using testing::PayloadsOf;

class JobLimitsTest : public testing::JobTest {
 protected:
  void ExpectRefused(JobSpec spec, const std::string& field, const SubmitOptions& options = {}) {
    const absl::Status status = manager_->Submit(std::move(spec), options).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << field << ": " << status;
    EXPECT_EQ(FieldOf(status), field) << status;
  }
};

TEST_F(JobLimitsTest, AnAliasThatCannotBeSetIsRefusedBeforeTheJobRuns) {
  PublishTeacher();
  for (const char* const alias : {"latest", "7x", "2024", "A"}) {
    TrainSpec train = ToyTraining();
    train.output_alias = alias;
    ExpectRefused(train, "spec.output_alias");
    DistillSpec distill = ToyDistillation("student");
    distill.output_alias = alias;
    ExpectRefused(distill, "spec.output_alias");
  }
}

TEST_F(JobLimitsTest, AJobWhoseAliasCannotBeWrittenNamesItsVersion) {
  manager_.reset();
  boss::testing::ScriptedDisk disk;
  std::atomic<int> failures = 0;
  disk.before = [&](const std::string& operation, const std::string& path) {
    const bool fails = operation == "create" && absl::StrContains(path, "aliases.json") && failures.fetch_add(1) == 0;
    return fails ? absl::ResourceExhaustedError("no space left in the test") : absl::OkStatus();
  };
  store_ = *ModelStore::Open(folder_.path(), clock_, disk);
  StartManager();
  TrainSpec spec = ToyTraining();
  spec.output_alias = "best";
  const Job job = Finish(Submit(spec).id);
  EXPECT_EQ(job.state, JobState::kFailed);
  EXPECT_EQ(job.error, absl::ResourceExhaustedError("no space left in the test"));
  EXPECT_EQ(job.output_version, "toy@1");
  EXPECT_TRUE(store_->GetVersion({"toy", 1}).ok());
  manager_.reset();  // before the disk
  store_.reset();
}

}  // namespace
}  // namespace boss::server
