// Trajectory errors and Frechet distances of every way to take few steps, cell by cell.
#pragma once

#include "absl/status/status.h"
#include "tests/bench/multistep_study.h"

namespace boss {

// Computes the cells that are not in options.results yet and appends each to it, on options.threads threads that each
// take the next cell; so a run that was killed loses the cells that it was at, and the next one goes on behind it. Weights that
// are straightened for K steps lie beside the file. Then prints the table.
absl::Status ComputeFullTable(const StudyOptions& options);

// Prints what options.results has of it, as Markdown.
absl::Status PrintFullTable(const StudyOptions& options);

}  // namespace boss
