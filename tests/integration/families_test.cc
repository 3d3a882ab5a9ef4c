// What every family of networks can do, from a weight file to an exported schedule, through bossctl and a real server:
// the table of README.md.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gmock/gmock.h>

#include <cmath>
#include <fstream>
#include <sstream>
#include <vector>

#include "client/cli/bossctl.h"
#include "core/io/safetensors.h"
#include "core/nets/factory.h"
#include "tests/integration/bossd_fixture.h"
#include "tests/support/torch_file.h"

namespace boss::testing {
namespace {

using ::testing::HasSubstr;

struct Family {
  const char* name;
  std::string architecture;
};

void PrintTo(const Family& family, std::ostream* out) { *out << family.name; }

constexpr char kTinyDit[] =
    R"({"model": {"architecture": "dit", "input_size": 8, "channels": 2, "patch_size": 2, "hidden_size": 16, "depth": 2,
                  "num_heads": 2, "num_classes": 3, "learn_sigma": true}})";

class FamiliesTest : public BossdTest, public ::testing::WithParamInterface<Family> {
 protected:
  void SetUp() override { Start(); }

  void Bossctl(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--address", server_->address()});
    out_.str("");
    std::ostringstream err;
    ASSERT_EQ(client::RunBossctl(arguments, client::Console{out_, err}, [](client::Client*) {}), client::kExitOk)
        << arguments[2] << " " << arguments[3] << ": " << err.str();
  }
  std::vector<std::string> JobOptions(const std::vector<std::string>& more) const {
    std::vector<std::string> arguments = {"--k-max",       "8", "--num-samples", "8", "--num-noises", "16",
                                          "--train-steps", "4", "--batch-size",  "8", "--steps",      "2"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  std::ostringstream out_;
};

TEST_P(FamiliesTest, AreImportedServedScheduledStraightenedAdaptedAndExported) {
  // Import, from a state dict of a network whose output says something.
  const std::string checkpoint = folder_ / "weights.pth", architecture = folder_ / "architecture.json";
  std::ofstream(architecture) << GetParam().architecture;
  {
    const c10::NoGradGuard no_grad;
    auto network = CreateModel(GetParam().architecture, /*seed=*/3);
    ASSERT_TRUE(network.ok()) << network.status();
    for (auto& [name, tensor] : (*network)->Parameters()) tensor.add_(at::randn_like(tensor), 0.05);
    WriteStateDict(checkpoint, (*network)->State());
  }
  Bossctl({"models", "import", checkpoint, "-m", "mine", "--architecture", architecture});

  // Serve.
  const Generated generated = Generate(Request("mine", 3, 4));
  ASSERT_TRUE(generated.status.ok()) << generated.status.error_message();
  EXPECT_NE(generated.samples[0].data(), generated.samples[1].data());

  // Schedule.
  Bossctl({"jobs", "optimize-stepsizes", "-m", "mine", "--k-max", "8", "--num-samples", "8", "--wait"});
  EXPECT_EQ(Generate(Request("mine", 1, 4)).accepted.schedule(), v1::SCHEDULE_KIND_BELLMAN);

  // Straighten, and train an adapter.
  std::vector<std::string> distill = {"jobs", "distill", "-m", "mine", "--wait"};
  std::vector<std::string> full = JobOptions({"-o", "straight"}),
                           lora = JobOptions({"-o", "adapter", "--lora-rank", "2"});
  full.insert(full.begin(), distill.begin(), distill.end());
  lora.insert(lora.begin(), distill.begin(), distill.end());
  Bossctl(full);
  Bossctl(lora);
  for (const char* model : {"straight", "adapter"}) {
    const Generated samples = Generate(Request(model, 2, 2));
    EXPECT_TRUE(samples.status.ok()) << model << ": " << samples.status.error_message();
  }

  // Export: weights that can be imported again, and the schedule.
  const std::string exported = folder_ / "straight.safetensors", schedule = folder_ / "schedule.json";
  Bossctl({"models", "export", "straight@1", "--out", exported});
  Bossctl({"models", "import", exported, "-m", "again", "--architecture", architecture});
  v1::GenerateRequest first = Request("straight", 2, 2), second = Request("again", 2, 2);
  first.set_schedule(v1::SCHEDULE_KIND_UNIFORM);
  second.set_schedule(v1::SCHEDULE_KIND_UNIFORM);
  EXPECT_EQ(Generate(first).Bytes(), Generate(second).Bytes());
  Bossctl({"schedules", "export", "mine@1", "--steps", "4", "--format", "json"});
  EXPECT_THAT(out_.str(), HasSubstr("sigmas"));
}

INSTANTIATE_TEST_SUITE_P(Families, FamiliesTest,
                         ::testing::Values(Family{"NcsnppAndDdpmpp", kTinyImageArchitecture},
                                           Family{"DitAndSit", kTinyDit}, Family{"Mlp", kTinyVectorArchitecture}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace boss::testing
