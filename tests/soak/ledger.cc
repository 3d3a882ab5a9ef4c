#include "tests/soak/ledger.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace boss::testing {
namespace {

constexpr size_t kMinSamples = 10;
constexpr size_t kMaxMessage = 160;

double Milliseconds(std::vector<absl::Duration> latencies, double quantile) {
  const auto place = latencies.begin() + static_cast<int64_t>(quantile * static_cast<double>(latencies.size() - 1));
  std::nth_element(latencies.begin(), place, latencies.end());
  return absl::ToDoubleMilliseconds(*place);
}

int64_t Sum(const std::map<std::string, int64_t>& counts) {
  int64_t sum = 0;
  for (const auto& [name, count] : counts) sum += count;
  return sum;
}

}  // namespace

void Ledger::Count(absl::string_view kind, const absl::Status& status, bool expected) {
  const std::string code = absl::StatusCodeToString(status.code());
  absl::MutexLock lock(&mutex_);
  ++codes_[std::string(kind)][code];
  if (status.ok()) return;
  if (expected) {
    ++expected_[code];
  } else {
    ++unexpected_[absl::StrCat(kind, ": ", code, ": ", status.message().substr(0, kMaxMessage))];
  }
}

void Ledger::AddLatency(absl::Duration latency) {
  absl::MutexLock lock(&mutex_);
  latencies_.push_back(latency);
}

void Ledger::AddFinding(std::string finding) {
  absl::MutexLock lock(&mutex_);
  findings_.push_back(std::move(finding));
}

void Ledger::AddJob() {
  absl::MutexLock lock(&mutex_);
  ++jobs_;
}

void Ledger::AddLostJob(const std::string& name) {
  absl::MutexLock lock(&mutex_);
  ++lost_jobs_;
  findings_.push_back(absl::StrCat("lost: ", name));
}

void Ledger::AddMemory(absl::Duration uptime, int64_t bytes) {
  const Memory sample = {absl::ToDoubleHours(uptime), static_cast<double>(bytes) / (1 << 20)};
  absl::MutexLock lock(&mutex_);
  if (memory_.empty() || memory_.back().back().hours > sample.hours) memory_.emplace_back();
  memory_.back().push_back(sample);
}

void Ledger::CountEvent(const std::string& event) {
  absl::MutexLock lock(&mutex_);
  ++events_[event];
}

bool Ledger::is_clean() const {
  absl::MutexLock lock(&mutex_);
  return unexpected_.empty() && findings_.empty();
}

std::string Ledger::Slope() const {
  double covariance = 0, variance = 0;
  for (const std::vector<Memory>& process : memory_) {
    const std::vector<Memory> half(process.begin() + static_cast<int64_t>(process.size() / 2), process.end());
    if (half.size() < kMinSamples) continue;
    Memory mean = {0, 0};
    for (const Memory& sample : half) {
      mean.hours += sample.hours / static_cast<double>(half.size());
      mean.mebibytes += sample.mebibytes / static_cast<double>(half.size());
    }
    for (const Memory& sample : half) {
      covariance += (sample.hours - mean.hours) * (sample.mebibytes - mean.mebibytes);
      variance += (sample.hours - mean.hours) * (sample.hours - mean.hours);
    }
  }
  return variance == 0 ? "not known" : absl::StrFormat("%+.1f MiB per hour", covariance / variance);
}

void Ledger::Print(std::FILE* out) const {
  absl::MutexLock lock(&mutex_);
  int64_t requests = 0;
  absl::FPrintF(out, "\n%-28s %9s  %s\n", "requests of", "number", "codes");
  for (const auto& [kind, codes] : codes_) {
    std::string text;
    for (const auto& [code, count] : codes) absl::StrAppend(&text, text.empty() ? "" : ", ", code, " ", count);
    absl::FPrintF(out, "%-28s %9d  %s\n", kind, Sum(codes), text);
    requests += Sum(codes);
  }
  absl::FPrintF(out, "\n%-28s %d\n", "requests", requests);
  std::string text;
  for (const auto& [code, count] : expected_) absl::StrAppend(&text, text.empty() ? " (" : ", ", code, " ", count);
  absl::FPrintF(out, "%-28s %d%s\n", "expected errors", Sum(expected_), text.empty() ? "" : text + ")");
  absl::FPrintF(out, "%-28s %d\n", "unexpected errors", Sum(unexpected_));
  absl::FPrintF(out, "%-28s %d of %d\n", "lost jobs", lost_jobs_, jobs_);
  if (!latencies_.empty()) {
    absl::FPrintF(out, "%-28s %.1f ms, %.1f ms\n", "small requests, p50 and p99", Milliseconds(latencies_, 0.5),
                  Milliseconds(latencies_, 0.99));
  }
  for (const auto& [event, count] : events_) absl::FPrintF(out, "%-28s %d\n", event, count);
  double largest = 0;
  std::string levels;
  for (const std::vector<Memory>& process : memory_) {
    for (const Memory& sample : process) largest = std::max(largest, sample.mebibytes);
    absl::StrAppend(&levels, levels.empty() ? "" : " ", absl::StrFormat("%.0f", process.back().mebibytes));
  }
  absl::FPrintF(out, "%-28s %s MiB\n", "RSS at each process's end", levels);
  absl::FPrintF(out, "%-28s %.0f MiB\n", "largest RSS", largest);
  absl::FPrintF(out, "%-28s %s\n", "RSS slope", Slope());
  for (const auto& [message, count] : unexpected_) absl::FPrintF(out, "unexpected, %d times: %s\n", count, message);
  for (const std::string& finding : findings_) absl::FPrintF(out, "finding: %s\n", finding);
}

}  // namespace boss::testing
