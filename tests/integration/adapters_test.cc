// Adapters over the wire and from the command line: trained, served together, exported, imported and merged.
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>
#include <vector>

#include "client/cli/bossctl.h"
#include "core/io/safetensors.h"
#include "tests/integration/bossd_fixture.h"

namespace boss::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class AdaptersTest : public BossdTest {
 protected:
  void SetUp() override { Start(); }

  // Distils the model of vectors with LoRA into the next version of `output`.
  void Distill(const std::string& output, uint64_t seed) {
    v1::DistillJobRequest request;
    v1::DistillSpec& spec = *request.mutable_spec();
    spec.set_model("vectors");
    spec.set_output_model(output);
    spec.set_tuning(v1::DistillSpec::LORA);
    spec.mutable_lora()->set_rank(2);
    spec.mutable_lora()->set_alpha(8);
    spec.set_steps(2);
    spec.set_k_max(8);
    spec.set_num_samples(8);
    spec.set_num_noises(32);
    spec.set_seed(seed);
    spec.mutable_training()->set_train_steps(60);
    spec.mutable_training()->set_batch_size(16);
    spec.mutable_training()->set_learning_rate(0.02);
    grpc::ClientContext context;
    v1::Job job;
    const grpc::Status submitted = jobs_->DistillJob(&context, request, &job);
    ASSERT_TRUE(submitted.ok()) << submitted.error_message();
    grpc::Status status;
    const std::vector<v1::JobEvent> events = Watch(job.name(), 0, status);
    ASSERT_TRUE(status.ok()) << status.error_message();
    grpc::ClientContext get_context;
    v1::GetJobRequest get;
    get.set_name(job.name());
    ASSERT_TRUE(jobs_->GetJob(&get_context, get, &job).ok());
    ASSERT_EQ(job.state(), v1::Job::SUCCEEDED) << job.ShortDebugString();
  }

  // One float32 vector a sample, one after the other.
  std::vector<float> Samples(const std::string& model) {
    const Generated generated = Generate(Request(model, 6, 2));
    EXPECT_TRUE(generated.status.ok()) << model << ": " << generated.status.error_message();
    const std::string bytes = generated.Bytes();
    std::vector<float> values(bytes.size() / sizeof(float));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
  static double Distance(const std::vector<float>& a, const std::vector<float>& b) {
    if (a.size() != b.size() || a.empty()) return INFINITY;
    double largest = 0;
    for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(static_cast<double>(a[i]) - b[i]));
    return largest;
  }

  int Bossctl(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--address", server_->address()});
    out_.str("");
    err_.str("");
    return client::RunBossctl(arguments, client::Console{out_, err_}, [](client::Client*) {});
  }
  std::string ArchitectureFile() const {
    const std::string path = folder_ / "architecture.json";
    std::ofstream(path) << kTinyVectorArchitecture;
    return path;
  }
  v1::ModelVersion Version(const std::string& reference) {
    grpc::ClientContext context;
    v1::GetModelRequest request;
    request.set_model(reference);
    v1::Model model;
    EXPECT_TRUE(models_->GetModel(&context, request, &model).ok()) << reference;
    return model.versions_size() > 0 ? model.versions(0) : v1::ModelVersion();
  }

  std::ostringstream out_, err_;
};

TEST_F(AdaptersTest, AreTrainedServedTogetherMovedAndMerged) {
  Distill("first", 1);
  Distill("second", 2);
  const std::vector<float> base = Samples("vectors"), first = Samples("first"), second = Samples("second");
  EXPECT_GT(Distance(base, first), 1e-3);
  EXPECT_GT(Distance(first, second), 1e-3);

  // All three at once, with the base in memory once.
  std::vector<float> together[3];
  {
    std::vector<std::thread> clients;
    for (int i = 0; i < 3; ++i) {
      clients.emplace_back([&, i] {
        together[i] = Samples(std::vector<std::string>{"vectors", "first", "second"}[i]);
      });
    }
    for (std::thread& client : clients) client.join();
  }
  EXPECT_LT(Distance(together[0], base), 1e-5);
  EXPECT_LT(Distance(together[1], first), 1e-5);
  EXPECT_LT(Distance(together[2], second), 1e-5);
  EXPECT_LT(Version("first@1").memory_bytes(), Version("vectors@1").memory_bytes());

  ASSERT_EQ(Bossctl({"models", "adapters", "vectors@latest"}), client::kExitOk) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("first@1"));
  EXPECT_THAT(out_.str(), HasSubstr("second@1"));
  EXPECT_THAT(out_.str(), HasSubstr("vectors@1"));
  ASSERT_EQ(Bossctl({"models", "adapters", "images"}), client::kExitOk) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("no adapters"));
  ASSERT_EQ(Bossctl({"models", "get", "first"}), client::kExitOk) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("vectors@1, rank 2, alpha 8"));

  // Exported and imported under another name it is the same.
  const std::string file = folder_ / "first.safetensors";
  ASSERT_EQ(Bossctl({"models", "export", "first@1", "--part", "adapter", "--out", file}), client::kExitOk)
      << err_.str();
  ASSERT_EQ(Bossctl({"models", "import", file, "-m", "copy", "--base", "vectors@1"}), client::kExitOk) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("vectors@1, rank 2, alpha 8"));
  EXPECT_EQ(Version("copy@1").weights_sha256(), Version("first@1").weights_sha256());
  // Its schedule does not travel with the weights.
  v1::GenerateRequest request = Request("first", 6, 2), of_copy = Request("copy", 6, 2);
  request.set_schedule(v1::SCHEDULE_KIND_UNIFORM);
  of_copy.set_schedule(v1::SCHEDULE_KIND_UNIFORM);
  EXPECT_EQ(Generate(request).Bytes(), Generate(of_copy).Bytes());

  // Merged it samples alike, on the same schedule, which it has taken over.
  ASSERT_EQ(Bossctl({"models", "merge", "first@1", "--output", "whole", "--alias", "prod"}), client::kExitOk)
      << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("whole@1"));
  const v1::ModelVersion merged = Version("whole@prod");
  EXPECT_FALSE(merged.has_adapter());
  EXPECT_EQ(merged.parent(), "first@1");
  EXPECT_EQ(merged.straightened_steps(), 2);
  EXPECT_EQ(merged.job(), "");
  EXPECT_LT(Distance(Samples("whole"), first), 1e-4);
  EXPECT_EQ(merged.memory_bytes(), 0);
  EXPECT_EQ(Version("whole").memory_bytes(), Version("vectors@1").memory_bytes());
  // The next one goes into the adapter's own model.
  ASSERT_EQ(Bossctl({"models", "merge", "first@1"}), client::kExitOk) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("first@2"));
}

TEST_F(AdaptersTest, WhatDoesNotFitIsRefused) {
  Distill("first", 1);
  const std::string file = folder_ / "first.safetensors";
  ASSERT_EQ(Bossctl({"models", "export", "first@1", "--part", "adapter", "--out", file}), client::kExitOk)
      << err_.str();

  // The file is known for what it is.
  EXPECT_EQ(Bossctl({"models", "import", file, "-m", "copy"}), client::kExitError);
  EXPECT_THAT(err_.str(), HasSubstr("INVALID_ARGUMENT: start.adapter_base"));
  EXPECT_THAT(err_.str(), HasSubstr("vectors@1"));

  // Another base of the same architecture has other weights.
  WriteSeedModel(folder_ / "others", "others", kTinyVectorArchitecture, /*seed=*/77);
  ASSERT_EQ(Bossctl({"models", "import", folder_ / "others/others/model.safetensors", "-m", "others", "--architecture",
                     ArchitectureFile()}),
            client::kExitOk)
      << err_.str();
  EXPECT_EQ(Bossctl({"models", "import", file, "-m", "copy", "--base", "others@1"}), client::kExitError);
  EXPECT_THAT(err_.str(), HasSubstr("FAILED_PRECONDITION"));
  EXPECT_THAT(err_.str(), HasSubstr(Version("others@1").weights_sha256()));
  EXPECT_THAT(err_.str(), HasSubstr(Version("vectors@1").weights_sha256()));

  // Names and shapes are the base's.
  Safetensors contents = *ReadSafetensors(file);
  const std::string left_out = contents.tensors.front().first;
  contents.tensors.erase(contents.tensors.begin());
  contents.tensors.emplace_back("zzz", contents.tensors.front().second);
  ASSERT_TRUE(WriteSafetensors(folder_ / "odd.safetensors", contents).ok());
  EXPECT_EQ(Bossctl({"models", "import", folder_ / "odd.safetensors", "-m", "copy", "--base", "vectors@1"}),
            client::kExitError);
  EXPECT_THAT(err_.str(), HasSubstr("INVALID_ARGUMENT"));
  EXPECT_THAT(err_.str(), HasSubstr("missing: " + left_out));
  EXPECT_THAT(err_.str(), HasSubstr("left over: zzz"));

  // Without a digest it is taken at its word.
  contents = *ReadSafetensors(file);
  contents.metadata.erase("base_sha256");
  ASSERT_TRUE(WriteSafetensors(folder_ / "open.safetensors", contents).ok());
  EXPECT_EQ(Bossctl({"models", "import", folder_ / "open.safetensors", "-m", "copy", "--base", "others@1"}),
            client::kExitOk);
  EXPECT_THAT(err_.str(), HasSubstr("warning: "));

  EXPECT_EQ(Bossctl({"models", "merge", "vectors@1"}), client::kExitError);
  EXPECT_THAT(err_.str(), HasSubstr("FAILED_PRECONDITION"));
  EXPECT_EQ(Bossctl({"models", "merge", "first@1", "--alias", "latest"}), client::kExitError);
  EXPECT_THAT(err_.str(), HasSubstr("output_alias"));
  ASSERT_EQ(Bossctl({"models", "get", "first"}), client::kExitOk);
  EXPECT_THAT(out_.str(), Not(HasSubstr("first@2")));
}

}  // namespace
}  // namespace boss::testing
