#include "tests/bench/multistep_full_table.h"

#include <ATen/ATen.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/flow/multistep.h"
#include "tests/bench/straightened.h"

namespace boss {
namespace {

constexpr char kHeader[] = "guidance,k_max,fit,method,steps,measure,noises,judge_seed,value";
constexpr char kError[] = "trajectory error", kDistance[] = "Frechet distance";
// In the order of the table's columns; the last one is that of a line below it.
enum Method { kUniform, kBellman, kAdamsBashforth, kMultistep, kStraightened, kStraightenedFitted, kFine };
constexpr const char* kMethods[] = {"uniform Euler",      "Bellman Euler",        "uniform AB2", "multistep",
                                    "straightened Euler", "straightened, fitted", "fine Euler"};
constexpr int kColumns = kFine;

struct Cell {
  Method method = kUniform;
  int steps = 0;
  bool is_distance = false;
};

// A line of the file up to its value.
std::string KeyOf(const StudyOptions& options, const Cell& cell) {
  return absl::StrFormat("%g,%d,%d,%s,%d,%s,%d,%d,", options.guidance_scale, options.k_max, options.fit,
                         absl::StrCat("\"", kMethods[cell.method], "\""), cell.steps,
                         cell.is_distance ? kDistance : kError, cell.is_distance ? options.samples : options.judge,
                         options.judge_seed);
}

// What distances would be if nothing were lost.
Cell FineCell(const StudyOptions& options) { return {kFine, options.k_max, /*is_distance=*/true}; }

// What comes first is cheap or says most.
std::vector<Cell> AllCells(const StudyOptions& options) {
  std::vector<Cell> cells;
  const auto add = [&](Method method, int steps, bool is_distance) { cells.push_back({method, steps, is_distance}); };
  for (int steps = 2; steps <= Study::kMostSteps; ++steps) {
    for (const Method method : {kUniform, kBellman, kAdamsBashforth, kMultistep}) add(method, steps, false);
  }
  for (int steps = 2; steps <= Study::kMostSteps; ++steps) {
    for (const Method method : {kMultistep, kBellman}) add(method, steps, true);
  }
  for (int steps = 2; steps <= Study::kMostSteps; ++steps) {
    add(kStraightened, steps, false);
    // Beside another thread that trains for this number of steps, it would wait.
    if (steps > 2) add(kStraightenedFitted, steps - 1, false);
  }
  add(kStraightenedFitted, Study::kMostSteps, false);
  for (int steps = 2; steps <= Study::kMostSteps; ++steps) {
    for (const Method method : {kStraightened, kStraightenedFitted, kUniform, kAdamsBashforth})
      add(method, steps, true);
  }
  cells.push_back(FineCell(options));
  return cells;
}

// The values by KeyOf. A line that a killed process left unfinished is not one.
absl::StatusOr<std::map<std::string, double>> ReadResults(const StudyOptions& options) {
  if (options.results.empty()) return absl::InvalidArgumentError("--results: expected the path of a CSV file");
  std::map<std::string, double> values;
  std::ifstream file(options.results);
  for (std::string line; std::getline(file, line);) {
    const size_t comma = line.rfind(',');
    double value = 0;
    if (comma == std::string::npos || file.eof() || !absl::SimpleAtod(line.substr(comma + 1), &value)) continue;
    values[line.substr(0, comma + 1)] = value;
  }
  return values;
}

class ResultsFile {
 public:
  explicit ResultsFile(const std::string& path) : file_(path, std::ios::app | std::ios::ate) {
    const bool is_new = file_.tellp() == 0;
    std::ifstream before(path);
    char last = '\n';
    if (!is_new) before.seekg(-1, std::ios::end).get(last);
    if (last != '\n') file_ << "\n";
    if (is_new) file_ << kHeader << "\n";
  }

  absl::Status Append(const std::string& key, double value) {
    const std::lock_guard<std::mutex> lock(mutex_);
    file_ << absl::StrFormat("%s%.6f\n", key, value) << std::flush;
    if (!file_) return absl::UnavailableError("--results: the file cannot be written");
    return absl::OkStatus();
  }

 private:
  std::mutex mutex_;
  std::ofstream file_;
};

// Samplers by cell, each made when it is first asked for.
class Samplers {
 public:
  static absl::StatusOr<std::unique_ptr<Samplers>> Create(const StudyOptions& options) {
    std::unique_ptr<Samplers> samplers(new Samplers);
    BOSS_ASSIGN_OR_RETURN(samplers->study_, Study::Create(options));
    BOSS_RETURN_IF_ERROR(samplers->study_->PrepareErrors());
    BOSS_RETURN_IF_ERROR(samplers->study_->PrepareDistances());
    BOSS_ASSIGN_OR_RETURN(samplers->stage1_, samplers->study_->Search(options.fit));
    samplers->straightening_.emplace(*samplers->study_, "bellman", EulerKnots(*samplers->stage1_));
    return samplers;
  }

  absl::StatusOr<double> Value(const Cell& cell) {
    const VelocityModel* model = &study_->model();
    if (cell.method == kStraightened || cell.method == kStraightenedFitted) {
      BOSS_ASSIGN_OR_RETURN(model, straightening_->Model(cell.steps));
    }
    BOSS_ASSIGN_OR_RETURN(const Schedule schedule, ScheduleOf(cell, *model));
    return cell.is_distance ? study_->Distance(*model, schedule.time_grid, schedule.coefficients)
                            : study_->TrajectoryError(*model, schedule.time_grid, schedule.coefficients);
  }

 private:
  Samplers() = default;

  absl::StatusOr<Schedule> ScheduleOf(const Cell& cell, const VelocityModel& model) {
    const size_t index = static_cast<size_t>(cell.steps) - 1;
    const bool is_uniform = cell.method == kUniform || cell.method == kAdamsBashforth;
    Schedule schedule = stage1_->euler.schedules[index];
    if (is_uniform) schedule.time_grid = TimeGrid::Uniform(cell.steps);
    if (cell.method == kFine) schedule.time_grid = study_->fine_grid();
    schedule.coefficients = AdamsBashforth(schedule.time_grid, cell.method == kAdamsBashforth ? 2 : 1);
    if (cell.method == kMultistep) return Multistep(cell.steps);
    if (cell.method != kStraightenedFitted) return schedule;
    BOSS_ASSIGN_OR_RETURN(const at::Tensor states, straightening_->HeldOutStates(cell.steps));
    InlineExecutor executor;
    BOSS_ASSIGN_OR_RETURN(const MultistepFit fit, FitMultistep(model, states, straightening_->HeldOutCondition(),
                                                               schedule.time_grid, {}, executor));
    schedule.coefficients = fit.coefficients;
    return schedule;
  }

  absl::StatusOr<Schedule> Multistep(int steps) {
    const size_t index = static_cast<size_t>(steps);
    const std::lock_guard<std::mutex> lock(mutexes_[index]);
    if (multistep_[index]) return *multistep_[index];
    BOSS_ASSIGN_OR_RETURN(OptimizedMultistep best, study_->Optimize(*stage1_, steps));
    multistep_[index] = std::move(best.schedule);
    return *multistep_[index];
  }

  std::unique_ptr<Study> study_;
  std::optional<Stage1> stage1_;
  std::optional<Straightening> straightening_;
  std::array<std::mutex, Study::kMostSteps + 1> mutexes_;
  std::array<std::optional<Schedule>, Study::kMostSteps + 1> multistep_;
};

}  // namespace

absl::Status ComputeFullTable(const StudyOptions& options) {
  BOSS_ASSIGN_OR_RETURN(const auto done, ReadResults(options));
  std::vector<Cell> missing;
  for (const Cell& cell : AllCells(options)) {
    if (!done.contains(KeyOf(options, cell))) missing.push_back(cell);
  }
  if (!missing.empty()) {
    BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<Samplers> samplers, Samplers::Create(options));
    ResultsFile file(options.results);
    BOSS_RETURN_IF_ERROR(
        ParallelFor(options.threads, static_cast<int64_t>(missing.size()), [&](int64_t i) -> absl::Status {
          const Cell& cell = missing[static_cast<size_t>(i)];
          BOSS_ASSIGN_OR_RETURN(const double value, samplers->Value(cell));
          return file.Append(KeyOf(options, cell), value);
        }));
  }
  return PrintFullTable(options);
}

absl::Status PrintFullTable(const StudyOptions& options) {
  BOSS_ASSIGN_OR_RETURN(const auto values, ReadResults(options));
  std::printf("| K | |");
  for (int method = 0; method < kColumns; ++method) std::printf(" %s |", kMethods[method]);
  std::printf(" multistep / Bellman Euler |\n|");
  for (int i = 0; i < kColumns + 3; ++i) std::printf(" --- |");
  std::printf("\n");
  for (int steps = 2; steps <= Study::kMostSteps; ++steps) {
    for (const bool is_distance : {false, true}) {
      std::printf("| %s | %s |", is_distance ? "" : absl::StrCat(steps).c_str(), is_distance ? kDistance : kError);
      const auto value_of = [&](Method method) -> std::optional<double> {
        const auto found = values.find(KeyOf(options, {method, steps, is_distance}));
        return found == values.end() ? std::nullopt : std::optional(found->second);
      };
      for (int method = 0; method < kColumns; ++method) {
        const std::optional<double> value = value_of(static_cast<Method>(method));
        std::string text;
        if (value) text = is_distance ? absl::StrFormat("%.2f", *value) : absl::StrFormat("%.4f", *value);
        std::printf(" %s |", text.c_str());
      }
      const std::optional<double> multistep = value_of(kMultistep), bellman = value_of(kBellman);
      std::printf(" %s |\n", multistep && bellman ? absl::StrFormat("%.2f", *multistep / *bellman).c_str() : "");
    }
  }
  if (const auto fine = values.find(KeyOf(options, FineCell(options))); fine != values.end())
    std::printf("\n%s, %d steps: %s %.2f\n", kMethods[kFine], options.k_max, kDistance, fine->second);
  return absl::OkStatus();
}

}  // namespace boss
