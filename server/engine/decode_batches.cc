#include "server/engine/decode_batches.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "server/device/device_backend.h"

namespace boss::server {

absl::Status DecodeBatches(const Decoder& decoder, absl::Span<SampleBatch* const> batches, int64_t max_batch,
                           DecodeCounts& counts) {
  if (batches.empty()) return absl::OkStatus();
  return GuardTorch("decoding", [&]() -> absl::Status {
    const c10::InferenceMode inference_mode;
    std::vector<at::Tensor> parts;
    for (const SampleBatch* batch : batches) parts.push_back(batch->x);
    const at::Tensor latents = at::cat(parts);
    std::vector<at::Tensor> pixels;
    int64_t begin = 0, size = max_batch;
    while (begin < latents.size(0)) {
      const int64_t end = std::min(begin + size, latents.size(0));
      absl::StatusOr<at::Tensor> decoded = GuardTorch(
          "decoding", [&] { return ToHost(decoder.Decode(latents.slice(0, begin, end).to(decoder.device()))); });
      if (absl::IsResourceExhausted(decoded.status()) && end - begin > 1) {
        size = (end - begin) / 2;
        ++counts.too_large;
        continue;
      }
      BOSS_RETURN_IF_ERROR(decoded.status());
      pixels.push_back(*std::move(decoded));
      ++counts.batches;
      begin = end;
    }
    const at::Tensor all = at::cat(pixels);
    int64_t row = 0;
    for (SampleBatch* batch : batches) {
      const int64_t count = batch->x.size(0);
      batch->x = all.slice(0, row, row + count);
      row += count;
    }
    return absl::OkStatus();
  });
}

}  // namespace boss::server
