// Times of solver steps as people and other tools write them.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace boss::client {

// Each: `text` is a list of numbers, separated by commas, semicolons or spaces and perhaps in brackets, or the path of
// a file with such a list. \error INVALID_ARGUMENT saying what was got and what is expected; what reading the file
// says.

// K + 1 times that rise from 0 to 1; a last 1 that is missing is added. The file may also be what `schedules export
// --format json` writes.
absl::StatusOr<std::vector<double>> ParseTimes(const std::string& text);

// The times 1 - sigma of sigmas that fall from 1 to 0; a last 0 that is missing is added.
absl::StatusOr<std::vector<double>> ParseSigmas(const std::string& text);

// "uniform" (no times: the server's own grid), "edm:RHO[,SIGMA_MIN,SIGMA_MAX]", or as ParseTimes. EDM's sigmas (Karras
// et al., NeurIPS 2022; 0.002 and 80 unless they are given) as times 1 / (1 + sigma): `k_max` sigmas from SIGMA_MAX,
// whose time counts as 0, to SIGMA_MIN, and 0. `k_max` of 0 is 100, or as many as are given.
absl::StatusOr<std::vector<double>> ParseFineGrid(const std::string& text, int k_max);

}  // namespace boss::client
