#include "core/finetune/lora.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <memory>

#include "absl/strings/match.h"
#include "core/nets/factory.h"

namespace boss {
namespace {

std::unique_ptr<VelocityModel> Base() {
  return *CreateModel(R"({"model": {"architecture": "mlp", "dim": 2, "hidden": 16, "layers": 2}})", 1);
}

Safetensors TrainedAdapter() {
  const auto model = Base();
  EXPECT_TRUE(model->AttachLora({3, 6.0}, 1).ok());
  for (auto& [name, tensor] : model->Parameters()) tensor.detach().normal_();
  return AdapterContents(*model, {3, 6.0});
}

TEST(LoraTest, AnAdapterFileGivesTheSameModelOnTheSameBase) {
  const Safetensors adapter = TrainedAdapter();
  const auto bytes = SerializeSafetensors(adapter);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  const auto read = ParseSafetensors(*bytes);
  ASSERT_TRUE(read.ok()) << read.status();
  const auto a = Base(), b = Base();
  ASSERT_TRUE(LoadAdapter(*a, adapter).ok());
  ASSERT_TRUE(LoadAdapter(*b, *read).ok());
  const at::Tensor x = at::randn({4, 2}), t = at::rand({4});
  EXPECT_TRUE(at::equal(a->Velocity(x, t, {}), b->Velocity(x, t, {})));
  EXPECT_FALSE(at::allclose(a->Velocity(x, t, {}), Base()->Velocity(x, t, {})));
}

TEST(LoraTest, RefusesWhatDoesNotFit) {
  const auto model = Base();
  const size_t parameters = model->Parameters().size();
  Safetensors no_metadata = TrainedAdapter();
  no_metadata.metadata.clear();
  Safetensors missing = TrainedAdapter();
  missing.tensors.pop_back();
  Safetensors reshaped = TrainedAdapter();
  reshaped.tensors.front().second = at::zeros({1, 1});
  Safetensors extra = TrainedAdapter();
  extra.tensors.emplace_back("extra", at::zeros({1}));
  Safetensors huge_rank = TrainedAdapter();
  huge_rank.metadata["lora_rank"] = "1000000";
  for (const Safetensors& bad : {no_metadata, missing, reshaped, extra, huge_rank}) {
    EXPECT_EQ(LoadAdapter(*model, bad).code(), absl::StatusCode::kDataLoss);
    EXPECT_EQ(model->Parameters().size(), parameters) << "an adapter was attached";
  }
}

TEST(LoraTest, SaysWhatDoesNotFit) {
  Safetensors odd = TrainedAdapter();
  const std::string name = odd.tensors[0].first;
  odd.tensors[0].second = at::zeros({1, 5});
  odd.tensors[1].first = "zzz";
  const absl::Status status = CheckAdapter(*Base(), odd);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  for (const std::string& part : {name + " has shape [1, 5], expected [3, 4]", std::string("left over: zzz"), std::string("missing: ")})
    EXPECT_TRUE(absl::StrContains(status.message(), part)) << status << ", expected " << part;
  EXPECT_TRUE(CheckAdapter(*Base(), TrainedAdapter()).ok());
}

TEST(LoraTest, AStackIsOneAdapterOverTheOther) {
  Safetensors lower = TrainedAdapter(), upper;
  {
    const auto model = Base();
    EXPECT_TRUE(model->AttachLora({2, 1.0}, 1).ok());
    for (auto& [name, tensor] : model->Parameters()) tensor.detach().normal_();
    upper = AdapterContents(*model, {2, 1.0});
  }
  const auto merged = Base();
  for (const Safetensors& adapter : {lower, upper}) {
    ASSERT_TRUE(LoadAdapter(*merged, adapter).ok());
    merged->MergeLora();
  }
  const auto stack = StackAdapters(lower, upper);
  ASSERT_TRUE(stack.ok()) << stack.status();
  EXPECT_EQ(AdapterOptions(*stack)->rank, 5);
  const auto stacked = Base();
  ASSERT_TRUE(LoadAdapter(*stacked, *stack).ok());
  const at::Tensor x = at::randn({4, 2}), t = at::rand({4});
  EXPECT_TRUE(at::allclose(stacked->Velocity(x, t, {}), merged->Velocity(x, t, {}), 1e-4, 1e-4));
  lower.tensors.pop_back();
  upper.tensors.erase(upper.tensors.begin());
  EXPECT_EQ(StackAdapters(lower, upper).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace boss
