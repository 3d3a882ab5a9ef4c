#include "server/metrics/process_metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace boss::server {
namespace {

std::string ReadAll(const char* path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// The fields of /proc/self/stat after the program's name, which may hold anything: the first is number 3 of proc(5).
constexpr size_t kFirstField = 3, kUserTicks = 14, kSystemTicks = 15, kThreads = 20, kStartTicks = 22,
                 kResidentPages = 24;

std::vector<double> StatFields() {
  const std::string text = ReadAll("/proc/self/stat");
  std::vector<double> fields;
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return fields;
  for (const absl::string_view word :
       absl::StrSplit(absl::string_view(text).substr(name_end + 1), ' ', absl::SkipWhitespace())) {
    double value = 0;  // the state, a letter, counts as 0
    fields.push_back(absl::SimpleAtod(word, &value) ? value : 0);
  }
  return fields;
}

// When the machine started, in seconds of Unix time.
std::optional<double> BootTime() {
  for (const absl::string_view line : absl::StrSplit(ReadAll("/proc/stat"), '\n')) {
    double seconds = 0;
    if (absl::StartsWith(line, "btime ") && absl::SimpleAtod(line.substr(6), &seconds)) return seconds;
  }
  return std::nullopt;
}

std::optional<double> OpenFiles() {
  std::error_code error;
  const std::filesystem::directory_iterator files("/proc/self/fd", error);
  if (error) return std::nullopt;
  return static_cast<double>(std::distance(begin(files), end(files)) - 1);  // the iterator's own
}

}  // namespace

std::vector<CollectedFamily> CollectProcess() {
  std::vector<CollectedFamily> families;
  const auto add = [&](const char* name, const char* help, double value,
                       CollectedFamily::Kind kind = CollectedFamily::Kind::kGauge) {
    families.push_back({.name = name, .help = help, .kind = kind, .series = {{{}, value}}});
  };
  const std::vector<double> stat = StatFields();
  if (stat.size() > kResidentPages - kFirstField) {
    const auto field = [&](size_t number) { return stat[number - kFirstField]; };
    const auto ticks_per_second = static_cast<double>(sysconf(_SC_CLK_TCK));
    add("process_cpu_seconds_total", "User and system time of the process",
        (field(kUserTicks) + field(kSystemTicks)) / ticks_per_second, CollectedFamily::Kind::kCounter);
    add("process_resident_memory_bytes", "Memory of the process in RAM",
        field(kResidentPages) * static_cast<double>(sysconf(_SC_PAGESIZE)));
    add("process_threads", "Threads of the process", field(kThreads));
    if (const std::optional<double> boot = BootTime()) {
      add("process_start_time_seconds", "Unix time at which the process started",
          *boot + field(kStartTicks) / ticks_per_second);
    }
  }
  if (const std::optional<double> open = OpenFiles()) {
    add("process_open_fds", "Open file descriptors of the process", *open);
  }
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    add("process_max_fds", "Most file descriptors that the process may have", static_cast<double>(limit.rlim_cur));
  }
  return families;
}

}  // namespace boss::server
