#include "tests/support/fault_plan.h"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <fstream>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace boss::testing {
namespace {

constexpr std::array<std::pair<const char*, Fault::Action>, 5> kActions = {{
    {"kill-before", Fault::Action::kKillBefore},
    {"kill-half", Fault::Action::kKillHalf},
    {"kill-after", Fault::Action::kKillAfter},
    {"fail", Fault::Action::kFail},
    {"fail-half", Fault::Action::kFailHalf},
}};
constexpr std::array<std::pair<const char*, int>, 4> kErrors = {
    {{"ENOSPC", ENOSPC}, {"EIO", EIO}, {"EACCES", EACCES}, {"EROFS", EROFS}}};

template <typename Value, size_t n>
bool Lookup(const std::array<std::pair<const char*, Value>, n>& names, const std::string& name, Value& value) {
  for (const auto& [known, known_value] : names) {
    if (name != known) continue;
    value = known_value;
    return true;
  }
  return false;
}

}  // namespace

std::string FaultActionName(Fault::Action action) {
  for (const auto& [name, known] : kActions) {
    if (known == action) return name;
  }
  return "unknown";
}

absl::StatusOr<std::unique_ptr<FaultPlan>> FaultPlan::Parse(absl::string_view text) {
  auto plan = std::make_unique<FaultPlan>();
  Fault fault;
  bool has_fault = false;
  const std::vector<std::string> words = absl::StrSplit(text, ' ', absl::SkipEmpty());
  for (const std::string& word : words) {
    const std::pair<std::string, std::string> option = absl::StrSplit(word, absl::MaxSplits('=', 1));
    const auto& [name, value] = option;
    bool valid = true;
    if (name == "site") {
      fault.site = value;
    } else if (name == "n") {
      valid = absl::SimpleAtoi(value, &fault.occurrence) && fault.occurrence >= 1;
    } else if (name == "do") {
      valid = has_fault = Lookup(kActions, value, fault.action);
    } else if (name == "error") {
      valid = Lookup(kErrors, value, fault.error);
    } else if (name == "lasting") {
      fault.lasting = value == "1";
    } else if (name == "unarmed") {
      plan->armed_ = value != "1";
    } else if (name == "attic") {
      plan->power_loss_ = std::make_unique<PowerLoss>(value);
    } else if (name == "counts") {
      plan->counts_file_ = value;
    } else {
      valid = false;
    }
    if (!valid) return absl::InvalidArgumentError(absl::StrCat("fault plan: got \"", word, "\" in \"", text, "\""));
  }
  if (has_fault) plan->SetFault(std::move(fault));
  return plan;
}

void FaultPlan::SetFault(Fault fault) {
  absl::MutexLock lock(&mutex_);
  fault_ = std::move(fault);
}

void FaultPlan::Reset(std::optional<Fault> fault) {
  absl::MutexLock lock(&mutex_);
  fault_ = std::move(fault);
  matches_ = 0;
  happened_ = false;
  counts_.clear();
}

std::optional<Fault> FaultPlan::Next(absl::string_view site) {
  if (!armed_.load(std::memory_order_relaxed)) return std::nullopt;
  absl::MutexLock lock(&mutex_);
  ++counts_[std::string(site)];
  if (!fault_ || (!fault_->site.empty() && fault_->site != site)) return std::nullopt;
  ++matches_;
  if (matches_ != fault_->occurrence && !(fault_->lasting && happened_)) return std::nullopt;
  happened_ = true;
  return fault_;
}

void FaultPlan::Kill() {
  if (power_loss_ != nullptr) power_loss_->Strike();
  ::kill(::getpid(), SIGKILL);
  while (true) ::pause();  // the signal ends this thread, too, but it may take a moment
}

int FaultPlan::Run(absl::string_view site, absl::FunctionRef<void()> whole, absl::FunctionRef<void()> half) {
  if (power_loss_ == nullptr) return RunNow(site, whole, half);
  absl::MutexLock lock(&power_loss_->mutex());
  return RunNow(site, whole, half);
}

int FaultPlan::RunNow(absl::string_view site, absl::FunctionRef<void()> whole, absl::FunctionRef<void()> half) {
  const std::optional<Fault> fault = Next(site);
  if (!fault) {
    whole();
    return 0;
  }
  switch (fault->action) {
    case Fault::Action::kKillBefore:
      Kill();
    case Fault::Action::kKillHalf:
      half();
      Kill();
    case Fault::Action::kKillAfter:
      whole();
      Kill();
    case Fault::Action::kFail:
      return fault->error;
    case Fault::Action::kFailHalf:
      half();
      return fault->error;
  }
  return EINVAL;
}

std::map<std::string, int64_t> FaultPlan::counts() const {
  absl::MutexLock lock(&mutex_);
  return counts_;
}

bool FaultPlan::happened() const {
  absl::MutexLock lock(&mutex_);
  return happened_;
}

void FaultPlan::WriteCounts() const {
  if (counts_file_.empty()) return;
  std::ofstream file(counts_file_);
  for (const auto& [site, count] : counts()) file << site << ' ' << count << '\n';
}

}  // namespace boss::testing
