// What the import of a checkpoint costs, in processes of their own, so that each has a peak of its own.
//
//   import_probe make PRESET FILE [adam]     a checkpoint with random weights, with "adam" the optimizer's state too
//   import_probe import PRESET FILE FOLDER   imports it into a new store, as the server does
//   import_probe load FOLDER                 loads the version and evaluates it
//
// Prints lines "NAME NUMBER": bytes and seconds.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <zlib.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/base/clock.h"
#include "core/base/status_macros.h"
#include "core/flow/noise.h"
#include "core/nets/factory.h"
#include "core/nets/presets.h"
#include "server/rpc/model_import.h"
#include "server/store/model_store.h"
#include "server/store/upload_store.h"
#include "tests/support/torch_file.h"

namespace boss::server {
namespace {

constexpr char kModel[] = "imported";
constexpr uint64_t kRawSeed = 1, kAveragedSeed = 2;
constexpr size_t kChunk = size_t{1} << 20;
constexpr int64_t kMaxBytes = int64_t{1} << 40;

void Report(const char* name, double value) { std::printf("%s %.17g\n", name, value); }

double Seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The most memory that this process has had at once, in bytes.
double PeakBytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  double kilobytes = 0;
  while (status >> word) {
    if (word == "VmHWM:") status >> kilobytes;
  }
  return kilobytes * 1024;
}

absl::Status Make(const std::string& preset, const std::string& path, bool adam) {
  BOSS_ASSIGN_OR_RETURN(const std::string architecture, PresetArchitecture(preset));
  BOSS_ASSIGN_OR_RETURN(const auto raw, CreateModel(architecture, kRawSeed));
  BOSS_ASSIGN_OR_RETURN(const auto averaged, CreateModel(architecture, kAveragedSeed));
  std::vector<at::Tensor> averages;
  for (const auto& [name, tensor] : averaged->Parameters()) averages.push_back(tensor);
  testing::WriteTorchCheckpoint(path, raw->State(), averages, adam);
  return absl::OkStatus();
}

absl::Status Upload(ModelImport& import, std::ifstream& file) {
  std::vector<char> chunk(kChunk);
  for (int64_t offset = 0;;) {
    file.read(chunk.data(), static_cast<std::streamsize>(chunk.size()));
    const std::string_view data(chunk.data(), static_cast<size_t>(file.gcount()));
    if (data.empty()) return absl::OkStatus();
    const auto crc = ::crc32(0, reinterpret_cast<const Bytef*>(data.data()), static_cast<uInt>(data.size()));
    BOSS_RETURN_IF_ERROR(import.Append(offset, data, static_cast<uint32_t>(crc)));
    offset += static_cast<int64_t>(data.size());
  }
}

absl::Status Import(const std::string& preset, const std::string& path, const std::string& folder) {
  ImportOptions options;
  options.name = kModel;
  BOSS_ASSIGN_OR_RETURN(options.architecture_json, PresetArchitecture(preset));
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  options.total_bytes = file.tellg();
  file.seekg(0);
  const RealClock clock;
  BOSS_ASSIGN_OR_RETURN(const auto store, ModelStore::Open(folder, clock));
  BOSS_ASSIGN_OR_RETURN(const auto uploads, UploadStore::Open(folder + "/uploads", PosixFileSystem(), clock));
  BOSS_ASSIGN_OR_RETURN(const auto import, ModelImport::Begin({*store, *uploads, kMaxBytes}, options));
  BOSS_RETURN_IF_ERROR(Upload(*import, file));
  Report("file_bytes", static_cast<double>(options.total_bytes));
  absl::StatusOr<ImportResult> result;
  Report("import_seconds", Seconds([&] { result = import->Finish(); }));
  BOSS_RETURN_IF_ERROR(result.status());
  Report("peak_bytes", PeakBytes());
  return absl::OkStatus();
}

absl::Status Load(const std::string& folder) {
  const RealClock clock;
  BOSS_ASSIGN_OR_RETURN(const auto store, ModelStore::Open(folder, clock));
  BOSS_ASSIGN_OR_RETURN(const VersionKey key, store->Resolve(kModel));
  BOSS_ASSIGN_OR_RETURN(const VersionInfo info, store->GetVersion(key));
  Report("weight_bytes", static_cast<double>(info.size_bytes));
  absl::StatusOr<std::unique_ptr<VelocityModel>> loaded;
  Report("load_seconds", Seconds([&] { loaded = store->LoadVersionModel(key); }));
  BOSS_RETURN_IF_ERROR(loaded.status());
  Report("peak_bytes", PeakBytes());
  VelocityModel& model = **loaded;
  Report("parameters", static_cast<double>(ParameterCount(model)));

  BOSS_ASSIGN_OR_RETURN(const auto expected, CreateModel(info.manifest.architecture_json, kAveragedSeed));
  const NamedTensors got_parameters = model.Parameters(), expected_parameters = expected->Parameters();
  bool equal = got_parameters.size() == expected_parameters.size();
  for (size_t i = 0; equal && i < got_parameters.size(); ++i)
    equal = at::equal(got_parameters[i].second, expected_parameters[i].second);
  Report("averages_are_there", equal);

  const c10::InferenceMode inference_mode;
  model.PrepareForInference(at::kFloat);
  const at::Tensor x = SampleNoise(1, 0, 1, model.SampleShape());
  at::Tensor velocity;
  for (int i = 0; i < 2; ++i) {  // the first one is slower
    const double seconds = Seconds([&] { velocity = model.Velocity(x, at::full({1}, 0.5), {}); });
    if (i == 1) Report("evaluation_seconds", seconds);
  }
  Report("output_is_finite", at::isfinite(velocity).all().item<bool>());
  return absl::OkStatus();
}

absl::Status Run(const std::vector<std::string>& arguments) {
  Report("start_bytes", PeakBytes());
  const size_t count = arguments.size();
  if (count >= 3 && count <= 4 && arguments[0] == "make") return Make(arguments[1], arguments[2], count == 4);
  if (count == 4 && arguments[0] == "import") return Import(arguments[1], arguments[2], arguments[3]);
  if (count == 2 && arguments[0] == "load") return Load(arguments[1]);
  return absl::InvalidArgumentError("usage: make PRESET FILE [adam] | import PRESET FILE FOLDER | load FOLDER");
}

}  // namespace
}  // namespace boss::server

int main(int argc, char** argv) {
  const absl::Status status = boss::server::Run(std::vector<std::string>(argv + 1, argv + argc));
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
