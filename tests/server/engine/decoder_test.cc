// Models and decoders that come with their own code.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "core/flow/noise.h"
#include "core/solver/solver.h"
#include "tests/server/engine/engine_fixture.h"
#include "tests/support/prometheus_text.h"
#include "tests/support/script_modules.h"

namespace boss::server {
namespace {

using testing::CollectingSink;

constexpr char kLatentArchitecture[] =
    R"({"model": {"architecture": "mlp", "dim": 2, "hidden": 16, "layers": 2},
        "decoder": {"scale": 2, "shift": 1, "decoded_shape": [1, 4, 4]}})";

class DecoderTest : public testing::EngineTest {
 protected:
  DecoderTest() {
    engine_.reset();
    registry_.reset();
    auto store = ModelStore::Open(folder_.path(), clock_, PosixFileSystem(), {.allow_torchscript = true});
    EXPECT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    registry_ = std::make_unique<ModelRegistry>(*store_);
    Publish("latent", *boss::testing::ScriptDecoderArchive());
    metrics_ = measured_.engine();
    StartEngine({.max_decoder_batch = 4});
  }
  ~DecoderTest() override { engine_.reset(); }

  void Publish(const std::string& name, const std::string& decoder) {
    Manifest manifest;
    manifest.architecture_json = kLatentArchitecture;
    const Safetensors weights{boss::testing::TinyModel(kLatentArchitecture, 1)->State(), {}};
    const auto key = store_->Publish(name, std::move(manifest), weights, {}, {{"decoder.torchscript", decoder}});
    EXPECT_TRUE(key.ok()) << key.status();
  }
  static SampleRequest LatentRequest(int64_t num_samples, SampleFormat format, bool latents = false) {
    SampleRequest request = Request(num_samples);
    request.model = "latent";
    request.format = format;
    request.latents = latents;
    return request;
  }
  double Value(const std::string& name) const {
    return boss::testing::ParsePrometheusText(measured_.Text())->Sum(name);
  }
  // What the decoder makes of latents [B, 2].
  static at::Tensor Decoded(const at::Tensor& latents) {
    return (latents / 2 + 1).sum(1).view({-1, 1, 1, 1}).expand({-1, 1, 4, 4});
  }

  Metrics measured_{"0", "cpu"};
};

TEST_F(DecoderTest, PixelsComeOutUnlessLatentsAreAskedFor) {
  const auto latents = Run(LatentRequest(3, SampleFormat::kFloat32, /*latents=*/true));
  ASSERT_TRUE(latents->status.ok()) << latents->status;
  EXPECT_EQ(latents->samples[0].shape, (std::vector<int64_t>{2}));
  EXPECT_EQ(Value("boss_decoded_samples_total"), 0);
  const auto pixels = Run(LatentRequest(3, SampleFormat::kFloat32));
  ASSERT_TRUE(pixels->status.ok()) << pixels->status;
  EXPECT_LE((pixels->Values() - Decoded(latents->Values())).abs().max().item<double>(), 1e-5);
  EXPECT_EQ(Value("boss_decoded_samples_total"), 3);
  // Pictures, by default.
  const auto pictures = Run(LatentRequest(1, SampleFormat::kDefault));
  ASSERT_TRUE(pictures->status.ok()) << pictures->status;
  EXPECT_EQ(pictures->samples[0].format, SampleFormat::kPng);
  EXPECT_EQ(pictures->samples[0].shape, (std::vector<int64_t>{1, 4, 4}));
}

TEST_F(DecoderTest, SamplesOfSeveralRequestsShareTheDecodersBatches) {
  Run(LatentRequest(1, SampleFormat::kFloat32));
  const double batches = Value("boss_decoder_batches_total"), samples = Value("boss_decoded_samples_total");
  CloseDevice();
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  for (int i = 0; i < 6; ++i) {
    sinks.push_back(std::make_shared<CollectingSink>());
    Submit(LatentRequest(1, SampleFormat::kFloat32, /*latents=*/i == 5), sinks.back());
    sinks.back()->WaitUntilAccepted();
  }
  OpenDevice();
  for (const auto& sink : sinks) {
    sink->Wait();
    EXPECT_TRUE(sink->status.ok()) << sink->status;
  }
  // Five samples arrive together, four at a time fit; the sixth stays as it is.
  EXPECT_EQ(Value("boss_decoder_batches_total") - batches, 2);
  EXPECT_EQ(Value("boss_decoded_samples_total") - samples, 5);
  const at::Tensor latent = sinks[5]->Values();
  for (int i = 0; i < 5; ++i) EXPECT_LE((sinks[i]->Values() - Decoded(latent)).abs().max().item<double>(), 1e-5);
}

TEST_F(DecoderTest, PreviewsAndRequestsByThemselvesAreDecodedToo) {
  for (const bool deterministic : {false, true}) {
    SampleRequest request = LatentRequest(2, SampleFormat::kUint8);
    request.preview_interval = 2;
    request.deterministic = deterministic;
    const auto sink = Run(request);
    ASSERT_TRUE(sink->status.ok()) << sink->status;
    ASSERT_EQ(sink->previews.size(), 2u);
    EXPECT_EQ(sink->previews[0].shape, (std::vector<int64_t>{4, 4, 1}));
    EXPECT_EQ(sink->samples[0].shape, (std::vector<int64_t>{4, 4, 1}));
  }
}

TEST_F(DecoderTest, ADecoderThatFailsFailsTheRequestsThatNeedIt) {
  Publish("broken", *boss::testing::ScriptArchive(
                        "def forward(self, z):\n  assert z.size(0) > 99, 'the lens is cracked'\n  return z\n"));
  SampleRequest request = LatentRequest(2, SampleFormat::kFloat32);
  request.model = "broken";
  for (const bool deterministic : {false, true}) {
    request.deterministic = deterministic;
    const auto sink = Run(request);
    EXPECT_TRUE(absl::IsInternal(sink->status)) << sink->status;
    EXPECT_NE(std::string(sink->status.message()).find("the lens is cracked"), std::string::npos) << sink->status;
    EXPECT_TRUE(sink->samples.empty());
  }
  request.latents = true;
  EXPECT_TRUE(Run(request)->status.ok());
}

TEST_F(DecoderTest, AModuleIsServedInSharedBatches) {
  Manifest manifest;
  manifest.architecture_json = boss::testing::kScriptVectorArchitecture;
  const auto key = store_->PublishArchive("script", std::move(manifest), *boss::testing::ScriptVectorArchive());
  ASSERT_TRUE(key.ok()) << key.status();
  const auto network = store_->LoadVersionModel(*key);
  ASSERT_TRUE(network.ok()) << network.status();
  std::vector<SampleRequest> requests;
  for (const int64_t count : {1, 3, 5}) {
    requests.push_back(Request(count, 4 + static_cast<int>(count)));
    requests.back().model = "script";
    requests.back().solver = count == 3 ? SolverKind::kHeun : count == 5 ? SolverKind::kRk45 : SolverKind::kEuler;
  }
  Run(requests[0]);
  CloseDevice();
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  for (const SampleRequest& request : requests) {
    sinks.push_back(std::make_shared<CollectingSink>());
    Submit(request, sinks.back());
    sinks.back()->WaitUntilAccepted();
  }
  OpenDevice();
  for (size_t i = 0; i < requests.size(); ++i) {
    sinks[i]->Wait();
    ASSERT_TRUE(sinks[i]->status.ok()) << sinks[i]->status;
    const SolverOptions options{.solver = requests[i].solver, .time_grid = TimeGrid::Uniform(requests[i].steps)};
    InlineExecutor executor;
    const at::Tensor noise = SampleNoise(requests[i].seed, 0, requests[i].num_samples, {2});
    const auto alone = Solve(**network, noise, {}, options, requests[i].num_samples, executor);
    ASSERT_TRUE(alone.ok()) << alone.status();
    EXPECT_LE((sinks[i]->Values() - *alone).abs().max().item<double>(), 1e-5) << i;
  }
}

TEST_F(DecoderTest, FormatsAreThoseOfThePixels) {
  const auto latents = Run(LatentRequest(1, SampleFormat::kPng, /*latents=*/true));
  EXPECT_TRUE(absl::IsInvalidArgument(latents->status)) << latents->status;
}

}  // namespace
}  // namespace boss::server
