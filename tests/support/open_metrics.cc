#include "tests/support/open_metrics.h"

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "tests/support/temp_folder.h"

namespace boss::testing {
namespace {

std::string ReadAll(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

absl::StatusOr<std::map<std::string, OpenMetricsFamily>> ParseOpenMetrics(const std::string& page) {
  const TempFolder folder;
  std::ofstream(folder / "page") << page;
  const std::string command = absl::StrCat(BOSS_PYTHON, " ", BOSS_OPEN_METRICS_SCRIPT, " ", folder / "page", " >",
                                           folder / "families", " 2>", folder / "error");
  if (std::system(command.c_str()) != 0) return absl::InvalidArgumentError(ReadAll(folder / "error"));
  std::map<std::string, OpenMetricsFamily> families;
  const nlohmann::json parsed = nlohmann::json::parse(ReadAll(folder / "families"));
  for (const auto& [name, json] : parsed.items()) {
    OpenMetricsFamily& family = families[name];
    family.type = json.at("type");
    family.unit = json.at("unit");
    family.help = json.at("help");
    for (const auto& sample : json.at("samples")) {
      family.samples.push_back({sample.at(0), sample.at(1), sample.at(2)});
    }
  }
  return families;
}

}  // namespace boss::testing
