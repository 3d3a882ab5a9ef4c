// What steps that use earlier velocities gain on the embedded model, at equal numbers of velocity evaluations, with
// 2 to 10 steps.
//
//   multistep_bench [--table=TABLE] [--fit=N] [--judge=N] [--judge-seed=N] [--samples=N] [--k-max=N] [--guidance=S]
//                   [--threads=N] [--results=FILE] [--print]
//
//   methods        (default) Euler, Adams and Bashforth, and fitted coefficients on two lists of times
//   noises         how the fit depends on the number of noises that it has
//   orders         how many velocities a step may use
//   refinement     a search of single times
//   straightened   coefficients on weights that were straightened, to either list of times
//   pictures       how samples of 4 steps look
//   full           all of them and Frechet distances, cell by cell into the CSV file --results: a run that was stopped
//                  goes on there; --print only prints what the file has
//
// 100 noises to fit, 1,000 others for a trajectory error, 10,000 for a Frechet distance, 100 fine steps, no guidance,
// one thread a core. Everything computes in float32.
#include <ATen/Parallel.h>

#include <cstdio>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "tests/bench/multistep_full_table.h"
#include "tests/bench/multistep_tables.h"

int main(int argc, char** argv) {
  at::set_num_threads(1);  // the tables have threads of their own, one a core
  boss::StudyOptions options{.threads = static_cast<int>(std::thread::hardware_concurrency())};
  std::string table = "methods";
  bool ok = true, only_print = false;
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    if (absl::ConsumePrefix(&argument, "--table=")) {
      table = std::string(argument);
    } else if (absl::ConsumePrefix(&argument, "--fit=")) {
      ok = ok && absl::SimpleAtoi(argument, &options.fit) && options.fit >= 2;
    } else if (absl::ConsumePrefix(&argument, "--judge=")) {
      ok = ok && absl::SimpleAtoi(argument, &options.judge) && options.judge >= 1;
    } else if (absl::ConsumePrefix(&argument, "--judge-seed=")) {
      ok = ok && absl::SimpleAtoi(argument, &options.judge_seed);
    } else if (absl::ConsumePrefix(&argument, "--samples=")) {
      ok = ok && absl::SimpleAtoi(argument, &options.samples) && options.samples >= 2;
    } else if (absl::ConsumePrefix(&argument, "--k-max=")) {
      ok = ok && absl::SimpleAtoi(argument, &options.k_max) && options.k_max >= boss::Study::kMostSteps;
    } else if (absl::ConsumePrefix(&argument, "--guidance=")) {
      ok = ok && absl::SimpleAtod(argument, &options.guidance_scale);
    } else if (absl::ConsumePrefix(&argument, "--threads=")) {
      ok = ok && absl::SimpleAtoi(argument, &options.threads) && options.threads >= 1;
    } else if (absl::ConsumePrefix(&argument, "--results=")) {
      options.results = std::string(argument);
    } else if (argument == "--print") {
      only_print = true;
    } else {
      ok = false;
    }
  }
  absl::Status status;
  if (ok && table == "full") {
    status = only_print ? boss::PrintFullTable(options) : boss::ComputeFullTable(options);
  } else if (ok && table == "methods") {
    status = boss::PrintMethods(options);
  } else if (ok && table == "noises") {
    status = boss::PrintNumbersOfNoises(options);
  } else if (ok && table == "orders") {
    status = boss::PrintOrders(options);
  } else if (ok && table == "refinement") {
    status = boss::PrintRefinement(options);
  } else if (ok && table == "straightened") {
    status = boss::PrintStraightened(options);
  } else if (ok && table == "pictures") {
    status = boss::PrintPictures(options);
  } else {
    std::fprintf(stderr,
                 "usage: %s [--table=methods|noises|orders|refinement|straightened|pictures|full] [--fit=N] "
                 "[--judge=N] [--judge-seed=N] [--samples=N] [--k-max=N] [--guidance=S] [--threads=N] [--results=FILE] "
                 "[--print]\n",
                 argv[0]);
    return 2;
  }
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
