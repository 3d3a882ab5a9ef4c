// Options of everything that judges samplers.
#pragma once

#include <functional>
#include <string>

#include "boss/v1/jobs.pb.h"
#include "client/cli/options.h"
#include "client/cli/times.h"

namespace boss::client {

// What an evaluation on its own and one at the end of a DistillJob have in common. `spec` is called when an option is
// given; `prefix` leads the names of those that the job has by itself.
void AddJudgingOptions(CLI::App& app, std::function<boss::v1::EvaluateSpec*()> spec, const std::string& prefix);

// What else an evaluation on its own has: how the samples are drawn, and what they are compared with. At the end of a
// DistillJob the fine sampler always has a row.
void AddSamplerOptions(CLI::App& app, std::function<boss::v1::EvaluateSpec*()> spec);

// --fine-grid, for a spec that has a fine_time_grid. Its --k-max is added before, so that it is known here.
template <typename GetSpec>
void AddFineGrid(CLI::App& app, GetSpec spec) {
  Add<std::string>(
      app, "--fine-grid",
      [spec](const std::string& text) {
        const auto times = ParseFineGrid(text, spec()->k_max());
        if (!times.ok()) throw CLI::ValidationError("--fine-grid", std::string(times.status().message()));
        spec()->mutable_fine_time_grid()->Assign(times->begin(), times->end());
      },
      "uniform (default), edm:RHO[,SIGMA_MIN,SIGMA_MAX], or times from 0 to 1 as a list or in a file");
}

}  // namespace boss::client
