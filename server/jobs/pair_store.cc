#include "server/jobs/pair_store.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/io/safetensors.h"
#include "server/device/host_memory.h"

namespace boss::server {
namespace {

// Batches of noises in one piece: what an interruption may lose.
constexpr int64_t kBatchesPerPiece = 4;

struct Field {
  const char* name;
  at::Tensor SegmentPairs::*member;
};
constexpr Field kFields[] = {
    {"x_start", &SegmentPairs::x_start}, {"x_end", &SegmentPairs::x_end},
    {"t_start", &SegmentPairs::t_start}, {"t_end", &SegmentPairs::t_end},
    {"segment", &SegmentPairs::segment}, {"class_labels", &SegmentPairs::class_labels},
};

absl::Status WritePiece(const FileSystem& files, const std::string& path, const SegmentPairs& pairs) {
  Safetensors contents;
  for (const Field& field : kFields) {
    const at::Tensor& tensor = pairs.*field.member;
    if (tensor.defined()) contents.tensors.emplace_back(field.name, tensor.contiguous());
  }
  return WriteSafetensors(path, contents, files);
}

// \error NOT_FOUND if the piece is not there; DATA_LOSS if it is not what it should be.
absl::StatusOr<SegmentPairs> ReadPiece(const FileSystem& files, const std::string& path, int64_t expected_pairs,
                                       bool labels) {
  BOSS_ASSIGN_OR_RETURN(const Safetensors contents, ReadSafetensors(path, files));
  SegmentPairs pairs;
  for (const Field& field : kFields) {
    const at::Tensor tensor = contents.Find(field.name);
    const bool expected = labels || field.member != &SegmentPairs::class_labels;
    if (tensor.defined() != expected || (expected && (tensor.dim() < 1 || tensor.size(0) != expected_pairs))) {
      return absl::DataLossError(absl::StrCat(path, ": ", field.name, " does not fit"));
    }
    pairs.*field.member = tensor;
  }
  return pairs;
}

double PairBytes(const std::vector<int64_t>& sample_shape, int64_t num_pairs) {
  double bytes = 2.0 * sizeof(float) * static_cast<double>(num_pairs);
  for (const int64_t size : sample_shape) bytes *= static_cast<double>(size);
  return bytes;
}

// Puts parts in a row, each of which is copied to its place and need not be kept.
class PairJoiner {
 public:
  explicit PairJoiner(int64_t num_pairs) : num_pairs_(num_pairs) {}

  // \pre the parts have num_pairs pairs together.
  absl::Status Add(const SegmentPairs& part) {
    return GuardTorch("joining pairs", [&]() -> absl::Status {
      const int64_t end = size_ + part.size();
      for (const Field& field : kFields) {
        const at::Tensor& from = part.*field.member;
        if (!from.defined()) continue;
        at::Tensor& to = all_.*field.member;
        std::vector<int64_t> shape = from.sizes().vec();
        shape[0] = num_pairs_;
        if (!to.defined()) to = at::empty(shape, from.options());
        to.slice(0, size_, end).copy_(from);
      }
      size_ = end;
      return absl::OkStatus();
    });
  }
  SegmentPairs Take() { return std::move(all_); }

 private:
  const int64_t num_pairs_;
  int64_t size_ = 0;
  SegmentPairs all_;
};

}  // namespace

absl::StatusOr<SegmentPairs> DrawPairs(const PairSource& source, int64_t first, int64_t count, StepExecutor& executor) {
  PairJoiner all(count * source.pairs_per_noise());
  for (int64_t begin = first; begin < first + count; begin += source.batch_size) {
    const NoiseBatch batch = source.noises.Draw(begin, std::min(source.batch_size, first + count - begin));
    BOSS_ASSIGN_OR_RETURN(const SegmentPairs part,
                          DrawSegmentPairs(source.teacher, batch.noise, batch.condition, source.fine_grid, source.knots,
                                           source.batch_size, executor));
    BOSS_RETURN_IF_ERROR(all.Add(part));
  }
  return all.Take();
}

absl::StatusOr<SegmentPairs> DrawCountedPairs(JobContext& context, const PairSource& source, int64_t first,
                                              int64_t count) {
  PairJoiner all(count * source.pairs_per_noise());
  for (int64_t begin = first; begin < first + count; begin += source.batch_size) {
    const int64_t size = std::min(source.batch_size, first + count - begin);
    CountingExecutor counting(context, static_cast<double>(size) / source.fine_grid.steps(),
                              size * source.noises.evaluations_per_step());
    BOSS_ASSIGN_OR_RETURN(const SegmentPairs part, DrawPairs(source, begin, size, counting));
    BOSS_RETURN_IF_ERROR(all.Add(part));
  }
  return all.Take();
}

absl::Status CheckPairBytes(const JobContext& context, const std::vector<int64_t>& sample_shape, int64_t num_pairs) {
  const double bytes = PairBytes(sample_shape, num_pairs);
  const int64_t limit = context.options().max_data_bytes;
  if (bytes <= static_cast<double>(limit)) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrFormat("%d pairs take %.0f MiB of disk, the limit for one job is %d MiB: take fewer noises, or set "
                      "regenerate_pairs, which stores none",
                      num_pairs, bytes / (1 << 20), limit >> 20));
}

absl::Status CheckPairMemory(const std::vector<int64_t>& sample_shape, int64_t num_pairs) {
  return CheckHostMemory(absl::StrCat(num_pairs, " pairs"), PairBytes(sample_shape, num_pairs));
}

absl::StatusOr<SegmentPairs> StoredPairs(JobContext& context, const PairSource& source, int64_t num_noises) {
  BOSS_RETURN_IF_ERROR(context.EnterStage(JobStage::kPairs, num_noises));
  const bool labels = source.noises.Draw(0, 1).condition.class_labels.defined();
  const int64_t piece_size = source.batch_size * kBatchesPerPiece;
  PairJoiner all(num_noises * source.pairs_per_noise());
  for (int64_t first = 0; first < num_noises; first += piece_size) {
    const int64_t count = std::min(piece_size, num_noises - first);
    const std::string path = absl::StrCat(context.folder(), "/pairs-", first, ".safetensors");
    absl::StatusOr<SegmentPairs> piece = ReadPiece(context.files(), path, count * source.pairs_per_noise(), labels);
    if (piece.ok()) {
      BOSS_RETURN_IF_ERROR(context.Advance(static_cast<double>(count), 0));
    } else {
      // Missing or damaged: the same noises give the same pairs.
      piece = DrawCountedPairs(context, source, first, count);
      BOSS_RETURN_IF_ERROR(piece.status());
      BOSS_RETURN_IF_ERROR(WritePiece(context.files(), path, *piece));
      BOSS_RETURN_IF_ERROR(context.ReportSaved());
    }
    BOSS_RETURN_IF_ERROR(all.Add(*piece));
  }
  return all.Take();
}

}  // namespace boss::server
