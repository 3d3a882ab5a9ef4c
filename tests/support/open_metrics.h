// A reader of OpenMetrics 1.0.0 that is not ours: Python's prometheus_client, in a process of its own.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace boss::testing {

struct OpenMetricsFamily {
  struct Sample {
    std::string name;
    std::map<std::string, std::string> labels;
    double value = 0;
  };
  std::string type;  // "counter", "gauge", "histogram", "info"
  std::string unit;  // empty: none
  std::string help;
  std::vector<Sample> samples;
};

// Families by name. \error INVALID_ARGUMENT with what the reader says of a malformed page.
absl::StatusOr<std::map<std::string, OpenMetricsFamily>> ParseOpenMetrics(const std::string& page);

}  // namespace boss::testing
