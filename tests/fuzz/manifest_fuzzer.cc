// Any text as a manifest.json. What parses is written and read back with every field as it was.
#include <cstdint>
#include <string>

#include "nlohmann/json.hpp"
#include "server/store/manifest.h"
#include "tests/fuzz/check.h"

namespace boss::server {
namespace {

using boss::testing::FuzzCheck;

bool Same(const Schedule& a, const Schedule& b) {
  return a.knots == b.knots && a.time_grid == b.time_grid && a.total_cost == b.total_cost && a.solver == b.solver &&
         a.coefficients == b.coefficients && a.fit_error == b.fit_error && a.held_out_error == b.held_out_error;
}

bool Same(const NativeSchedule& a, const NativeSchedule& b) {
  return a.kind == b.kind && a.guidance_scale == b.guidance_scale && a.k_max == b.k_max && Same(a.schedule, b.schedule);
}

bool Same(const EvaluationRow& a, const EvaluationRow& b) {
  return a.label == b.label && a.version == b.version && a.steps == b.steps && a.schedule == b.schedule &&
         a.schedule_set == b.schedule_set && a.solver == b.solver && a.guidance_scale == b.guidance_scale &&
         a.nfe == b.nfe && a.num_samples == b.num_samples && a.trajectory_error == b.trajectory_error &&
         a.straightness == b.straightness && a.frechet_distance == b.frechet_distance && a.features == b.features &&
         a.samples_per_second == b.samples_per_second && a.baseline == b.baseline &&
         a.baseline_steps == b.baseline_steps;
}

bool Same(const std::optional<AdapterInfo>& a, const std::optional<AdapterInfo>& b) {
  if (!a || !b) return !a && !b;
  return a->base == b->base && a->rank == b->rank && a->alpha == b->alpha;
}

template <typename T>
bool Same(const std::vector<T>& a, const std::vector<T>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!Same(a[i], b[i])) return false;
  }
  return true;
}

// Spaces in a description of the network mean nothing.
bool SameArchitecture(const std::string& a, const std::string& b) {
  if (a == b) return true;
  const auto json_a = nlohmann::json::parse(a, nullptr, /*allow_exceptions=*/false);
  return !json_a.is_discarded() && json_a == nlohmann::json::parse(b, nullptr, /*allow_exceptions=*/false);
}

void CheckSame(const Manifest& a, const Manifest& b) {
  FuzzCheck(SameArchitecture(a.architecture_json, b.architecture_json), "architecture changed");
  FuzzCheck(a.label_names == b.label_names, "label_names changed");
  FuzzCheck(a.default_steps == b.default_steps, "default_steps changed");
  FuzzCheck(a.default_guidance_scale == b.default_guidance_scale, "default_guidance_scale changed");
  FuzzCheck(a.parent == b.parent && a.job_id == b.job_id && a.description == b.description, "a text changed");
  FuzzCheck(Same(a.adapter, b.adapter), "adapter changed");
  FuzzCheck(Same(a.schedules, b.schedules), "schedules changed");
  FuzzCheck(Same(a.evaluation, b.evaluation), "evaluation changed");
  FuzzCheck(a.create_time == b.create_time, "create_time changed");
  FuzzCheck(a.sha256 == b.sha256, "sha256 changed");
}

}  // namespace
}  // namespace boss::server

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace boss::server;
  using boss::testing::FuzzCheck;
  const auto manifest = ManifestFromJson({reinterpret_cast<const char*>(data), size});
  if (!manifest.ok()) {
    boss::testing::FuzzCheckError(manifest.status(), absl::StatusCode::kDataLoss,
                                  absl::StatusCode::kFailedPrecondition);
    return 0;
  }
  const std::string text = ManifestToJson(*manifest);
  const auto again = ManifestFromJson(text);
  FuzzCheck(again.ok(), "what was written does not parse: " + again.status().ToString() + "\n" + text);
  CheckSame(*manifest, *again);
  FuzzCheck(ManifestToJson(*again) == text, "equal manifests give other texts");
  return 0;
}
