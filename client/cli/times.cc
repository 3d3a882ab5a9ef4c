#include "client/cli/times.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/cli/files.h"

namespace boss::client {
namespace {

constexpr int kDefaultKMax = 100;
constexpr double kSigmaMin = 0.002, kSigmaMax = 80;
constexpr absl::string_view kSeparators = ",; \t\r\n[]()";

absl::StatusOr<std::vector<double>> ParseNumbers(absl::string_view text) {
  std::vector<double> numbers;
  for (const absl::string_view part : absl::StrSplit(text, absl::ByAnyChar(kSeparators), absl::SkipEmpty())) {
    double number;
    if (!absl::SimpleAtod(part, &number) || !std::isfinite(number))
      return absl::InvalidArgumentError(absl::StrCat("got '", part, "', expected a number"));
    numbers.push_back(number);
  }
  return numbers;
}

// What is no list of numbers is a file's path.
absl::StatusOr<std::string> ListOrFile(const std::string& text) {
  const bool is_list = text.find_first_not_of(absl::StrCat("0123456789.eE+-", kSeparators)) == std::string::npos;
  if (is_list) return text;
  return ReadTextFile(text);
}

absl::StatusOr<std::vector<double>> NumbersOf(const std::string& text) {
  const absl::StatusOr<std::string> list = ListOrFile(text);
  if (!list.ok()) return list.status();
  return ParseNumbers(*list);
}

absl::Status CheckTimes(const std::vector<double>& times) {
  if (times.size() < 2 || times.front() != 0 || times.back() != 1)
    return absl::InvalidArgumentError("expected times from 0 to 1");
  for (size_t i = 1; i < times.size(); ++i) {
    if (times[i] <= times[i - 1]) {
      return absl::InvalidArgumentError(
          absl::StrCat("got ", times[i], " after ", times[i - 1], ", expected rising times"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<double>> EdmTimes(absl::string_view parameters, int k_max) {
  const absl::StatusOr<std::vector<double>> numbers = ParseNumbers(parameters);
  if (!numbers.ok()) return numbers.status();
  const bool has_range = numbers->size() == 3;
  const double rho = numbers->empty() ? 0 : numbers->front();
  const double low = has_range ? (*numbers)[1] : kSigmaMin, high = has_range ? (*numbers)[2] : kSigmaMax;
  if ((numbers->size() != 1 && !has_range) || rho <= 0 || low <= 0 || high <= low) {
    return absl::InvalidArgumentError(absl::StrCat(
        "got 'edm:", parameters, "', expected edm:RHO or edm:RHO,SIGMA_MIN,SIGMA_MAX of rising positive sigmas"));
  }
  const double from = std::pow(high, 1 / rho), to = std::pow(low, 1 / rho);
  std::vector<double> times = {0};
  for (int i = 1; i < k_max; ++i) times.push_back(1 / (1 + std::pow(from + (to - from) * i / (k_max - 1), rho)));
  times.push_back(1);
  const absl::Status status = CheckTimes(times);
  if (!status.ok()) return status;
  return times;
}

}  // namespace

absl::StatusOr<std::vector<double>> ParseTimes(const std::string& text) {
  const absl::StatusOr<std::string> list = ListOrFile(text);
  if (!list.ok()) return list.status();
  std::vector<double> times;
  const nlohmann::json json = nlohmann::json::parse(*list, nullptr, /*allow_exceptions=*/false);
  if (json.is_object() && json.contains("t") && json["t"].is_array()) {
    for (const nlohmann::json& time : json["t"]) {
      if (!time.is_number()) return absl::InvalidArgumentError(absl::StrCat(text, ": expected numbers under \"t\""));
      times.push_back(time.get<double>());
    }
  } else {
    absl::StatusOr<std::vector<double>> numbers = ParseNumbers(*list);
    if (!numbers.ok()) return numbers.status();
    times = *std::move(numbers);
  }
  if (!times.empty() && times.back() < 1) times.push_back(1);
  const absl::Status status = CheckTimes(times);
  if (!status.ok()) return status;
  return times;
}

absl::StatusOr<std::vector<double>> ParseSigmas(const std::string& text) {
  absl::StatusOr<std::vector<double>> sigmas = NumbersOf(text);
  if (!sigmas.ok()) return sigmas;
  if (!sigmas->empty() && sigmas->back() > 0) sigmas->push_back(0);
  if (sigmas->size() < 2 || sigmas->front() != 1 || sigmas->back() != 0)
    return absl::InvalidArgumentError("expected sigmas from 1 (noise) to 0 (data), as sigma = 1 - t");
  std::vector<double> times;
  for (size_t i = 0; i < sigmas->size(); ++i) {
    if (i > 0 && (*sigmas)[i] >= (*sigmas)[i - 1]) {
      return absl::InvalidArgumentError(
          absl::StrCat("got ", (*sigmas)[i], " after ", (*sigmas)[i - 1], ", expected falling sigmas"));
    }
    times.push_back(1 - (*sigmas)[i]);
  }
  // Sigmas that differ may have the same time.
  const absl::Status status = CheckTimes(times);
  if (!status.ok()) return status;
  return times;
}

absl::StatusOr<std::vector<double>> ParseFineGrid(const std::string& text, int k_max) {
  if (text == "uniform") return std::vector<double>();
  absl::string_view parameters = text;
  absl::StatusOr<std::vector<double>> times = absl::ConsumePrefix(&parameters, "edm:")
                                                  ? EdmTimes(parameters, k_max > 0 ? k_max : kDefaultKMax)
                                                  : ParseTimes(text);
  if (times.ok() && k_max > 0 && times->size() != static_cast<size_t>(k_max) + 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("got ", times->size(), " times, expected ", k_max + 1, " for --k-max ", k_max));
  }
  return times;
}

}  // namespace boss::client
