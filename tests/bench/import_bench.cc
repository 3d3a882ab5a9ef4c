// What importing published checkpoints costs: both rectified-flow networks at their full size, with random weights in a
// file as the reference implementation writes it, optimizer and averages included. Memory is what the process has at
// its peak beyond its start, beside the size of the uploaded file (peak/file) and of the published one (load/model).
//
//   import_bench [PRESET ...]      both by default
//
// Needs room for three times the file in the temporary folder: about 3 GB.
#include <cstdio>
#include <exception>
#include <map>
#include <string>
#include <vector>

#include "tests/support/numbers_of.h"
#include "tests/support/temp_folder.h"

namespace boss::testing {
namespace {

constexpr double kMegabyte = 1e6;

void Row(const std::string& preset) {
  const TempFolder folder;
  const std::string probe = IMPORT_PROBE, file = folder / "checkpoint.pth", data = folder / "data";
  NumbersOf(probe + " make " + preset + " " + file + " adam");
  const std::map<std::string, double> import = NumbersOf(probe + " import " + preset + " " + file + " " + data);
  const std::map<std::string, double> load = NumbersOf(probe + " load " + data);
  const double peak = import.at("peak_bytes") - import.at("start_bytes");
  const double load_peak = load.at("peak_bytes") - load.at("start_bytes");
  std::printf("%-16s %10.0f %9.0f %10.0f %10.2f %10.2f %10.2f %8.2f %10.1f\n", preset.c_str(), load.at("parameters"),
              import.at("file_bytes") / kMegabyte, peak / kMegabyte, peak / import.at("file_bytes"),
              import.at("import_seconds"), load_peak / load.at("weight_bytes"), load.at("load_seconds"),
              1e3 * load.at("evaluation_seconds"));
  std::fflush(stdout);
}

}  // namespace
}  // namespace boss::testing

int main(int argc, char** argv) {
  std::vector<std::string> presets(argv + 1, argv + argc);
  if (presets.empty()) presets = {"cifar10-ddpmpp", "ncsnpp-256"};
  std::printf("%-16s %10s %9s %10s %10s %10s %10s %8s %10s\n", "preset", "parameters", "file MB", "peak MB",
              "peak/file", "import s", "load/model", "load s", "1 eval ms");
  try {
    for (const std::string& preset : presets) boss::testing::Row(preset);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
