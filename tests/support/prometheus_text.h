// A reader of Prometheus' text format 0.0.4 that takes nothing malformed.
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace boss::testing {

struct PrometheusText {
  std::map<std::string, std::string> types;  // by family: "counter", "gauge", "histogram"
  std::map<std::string, double> samples;  // by name and labels as written, e.g. boss_jobs{kind="TRAIN",state="QUEUED"}

  // The sum over all label values; 0 if there is no such series.
  double Sum(const std::string& name) const;
};

// \error INVALID_ARGUMENT naming the line: malformed, without HELP and TYPE before it, or twice there.
absl::StatusOr<PrometheusText> ParsePrometheusText(absl::string_view text);

}  // namespace boss::testing
