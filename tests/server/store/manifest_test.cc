#include "server/store/manifest.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "core/base/parse_json.h"
#include "server/store/sha256.h"

namespace boss::server {
namespace {

TEST(Sha256, MatchesThePublishedExamples) {
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(Sha256Hex(std::string(1'000'000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, TakesItsInputInPieces) {
  Sha256 sha256;
  sha256.Update("a");
  sha256.Update("");
  sha256.Update("bc");
  EXPECT_EQ(sha256.HexDigest(), Sha256Hex("abc"));
}

Manifest FullManifest() {
  Manifest manifest;
  manifest.architecture_json = R"({"model":{"architecture":"mlp","dim":2}})";
  manifest.label_names = {"shirt", "shoe"};
  manifest.default_steps = 4;
  manifest.default_guidance_scale = 1.5;
  manifest.parent = "toy@1";
  manifest.job_id = "0123";
  manifest.upload_id = "weights-7";
  manifest.upload_digest = "cd";
  manifest.labels = {{"team", "vision"}, {"stage", ""}};
  manifest.adapter = AdapterInfo{{"toy", 1}, 4, 8.0};
  NativeSchedule native{"bellman", 1.5, 10, {}};
  native.schedule.knots = {0, 3, 10};
  native.schedule.time_grid = *TimeGrid::Create({0, 0.3, 1});
  native.schedule.total_cost = 1.0 / 3;
  NativeSchedule fitted = native;
  fitted.schedule.solver = SolverKind::kMultistep;
  fitted.num_samples = 77;
  fitted.num_held_out = 19;
  fitted.schedule.coefficients = {{1, {0.3}}, {0.9, {1.0 / 7, 0.5}}};
  fitted.schedule.fit_error = 0.25;
  fitted.schedule.held_out_error = 0.125;
  manifest.schedules = {native, fitted};
  EvaluationRow row;
  row.label = "bellman";
  row.steps = 4;
  row.nfe = 8;
  row.trajectory_error = 0.1;
  row.frechet_distance = 12.25;
  manifest.evaluation = {row};
  manifest.description = "a \"toy\"";
  manifest.create_time = absl::FromUnixNanos(1'700'000'000'123'456'789);
  manifest.sha256 = {{"model.safetensors", "ab"}};
  return manifest;
}

TEST(Manifest, ReadsWhatItWrites) {
  const Manifest manifest = FullManifest();
  const std::string text = ManifestToJson(manifest);
  const absl::StatusOr<Manifest> read = ManifestFromJson(text);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(ManifestToJson(*read), text);
  EXPECT_EQ(read->adapter->base, (VersionKey{"toy", 1}));
  EXPECT_EQ(read->schedules[0].schedule.knots, (std::vector<int>{0, 3, 10}));
  EXPECT_EQ(read->schedules[0].schedule.total_cost, 1.0 / 3);
  EXPECT_TRUE(read->schedules[0].schedule.coefficients.empty());
  EXPECT_EQ(read->schedules[1].schedule.coefficients, manifest.schedules[1].schedule.coefficients);
  EXPECT_EQ(read->schedules[1].schedule.held_out_error, 0.125);
  EXPECT_EQ(read->schedules[1].num_samples, 77);
  EXPECT_EQ(read->schedules[1].num_held_out, 19);
  EXPECT_EQ(read->schedules[0].num_samples, 0);
  EXPECT_EQ(read->evaluation[0].frechet_distance, 12.25);
  EXPECT_FALSE(read->evaluation[0].straightness.has_value());
  EXPECT_EQ(read->create_time, manifest.create_time);
  EXPECT_EQ(read->sha256, manifest.sha256);
  EXPECT_EQ(read->upload_id, manifest.upload_id);
  EXPECT_EQ(read->upload_digest, manifest.upload_digest);
  EXPECT_EQ(read->labels, manifest.labels);
}

TEST(Manifest, NamesWhatIsWrong) {
  const struct {
    const char* text;
    const char* message;
  } kCases[] = {
      {"", "not JSON"},
      {"[]", "expected an object"},
      {"{}", "manifest.format: missing"},
      {R"({"format":1})", "manifest.architecture: missing"},
      {R"({"format":1,"architecture":[]})", "manifest.architecture: expected an object"},
      {R"({"format":1,"architecture":{},"default_steps":"four"})", "manifest.default_steps"},
      {R"({"format":1,"architecture":{},"schedules":[{"kind":"bellman","guidance_scale":1,"k_max":9,"solver":"euler","knots":[0,10],"time_grid":[0,1]}]})",
       "path from 0 to 9"},
      {R"({"format":1,"architecture":{},"schedules":[{"kind":"uniform","guidance_scale":1,"solver":"euler","time_grid":[0,2]}]})",
       "time_grid"},
      {R"({"format":1,"architecture":{},"adapter":{"base_name":"toy"}})", "adapter.base_version: missing"},
  };
  for (const auto& test : kCases) {
    const absl::Status status = ManifestFromJson(test.text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << test.text;
    EXPECT_NE(std::string(status.message()).find(test.message), std::string::npos) << status << " for " << test.text;
  }
}

TEST(Manifest, IntegersMustFit) {
  for (const char* number :
       {"4.5", "1e2", "1e300", "-1e300", "2147483648", "-2147483649", "18446744073709551615", "true"}) {
    const absl::Status status =
        ManifestFromJson(absl::StrCat(R"({"format":1,"architecture":{},"default_steps":)", number, "}")).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << number;
    EXPECT_EQ(ManifestFromJson(absl::StrCat(R"({"architecture":{},"format":)", number, "}")).status().code(),
              absl::StatusCode::kDataLoss)
        << number;
  }
  const auto largest = ManifestFromJson(R"({"format":1,"architecture":{},"default_steps":2147483647})");
  ASSERT_TRUE(largest.ok()) << largest.status();
  EXPECT_EQ(largest->default_steps, 2147483647);
}

TEST(Manifest, AnyTextAsArchitectureComesBackAsItIs) {
  const std::string deep = std::string(kMaxJsonDepth - 1, '[') + std::string(kMaxJsonDepth - 1, ']');
  for (const std::string& text :
       {std::string("no JSON"), std::string("null"), std::string("\"quoted\""), std::string("[1]"),
        "{\"a\":" + deep + "}", std::string(100'000, '['), std::string()}) {
    Manifest manifest;
    manifest.architecture_json = text;
    const absl::StatusOr<Manifest> read = ManifestFromJson(ManifestToJson(manifest));
    ASSERT_TRUE(read.ok()) << read.status() << " for " << text.substr(0, 100);
    EXPECT_EQ(read->architecture_json, text);
  }
}

TEST(Manifest, DeepNestingIsRefused) {
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  EXPECT_EQ(ManifestFromJson(absl::StrCat(R"({"format":1,"architecture":{"a":)", deep, "}}")).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST(Manifest, RefusesANewerFormat) {
  EXPECT_EQ(ManifestFromJson(R"({"format":2})").status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace boss::server
