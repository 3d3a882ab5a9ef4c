// Requests that are resolved without being run.
#pragma once

#include <gmock/gmock.h>

#include <memory>
#include <string>

#include "core/base/error_details.h"
#include "server/engine/resolve_request.h"
#include "tests/server/engine/engine_fixture.h"

namespace boss::server::testing {

class ResolveRequestTest : public EngineTest {
 protected:
  absl::StatusOr<ResolvedRequest> Resolve(const SampleRequest& request, const VersionKey& key) {
    const absl::Status checked = CheckRequest(request, limits_);
    if (!checked.ok()) return checked;
    absl::Notification loaded;
    absl::StatusOr<std::shared_ptr<const LoadedModel>> model = absl::UnknownError("");
    registry_->Acquire(key, [&](absl::StatusOr<std::shared_ptr<const LoadedModel>> result) {
      model = std::move(result);
      loaded.Notify();
    });
    loaded.WaitForNotification();
    EXPECT_TRUE(model.ok()) << model.status();
    return ResolveRequest(request, *model, *store_, limits_);
  }
  absl::StatusOr<ResolvedRequest> Resolve(const SampleRequest& request) { return Resolve(request, vectors_); }

  void ExpectFieldError(const SampleRequest& request, const std::string& field, const std::string& part) {
    const auto resolved = Resolve(request);
    EXPECT_TRUE(absl::IsInvalidArgument(resolved.status())) << resolved.status();
    EXPECT_EQ(FieldOf(resolved.status()), field);
    EXPECT_THAT(std::string(resolved.status().message()), ::testing::HasSubstr(part));
  }

  SamplingLimits limits_ = {.max_samples_per_request = 100, .max_steps = 50, .default_steps = 12};
};

}  // namespace boss::server::testing
