// From samples in latent space to pixels, on the device.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "core/nets/decoder.h"
#include "server/engine/sampling_task.h"

namespace boss::server {

struct DecodeCounts {
  int64_t batches = 0;    // that the decoder was given
  int64_t too_large = 0;  // that did not fit into memory, and were cut in two
};

// Replaces the latents in `batches` by pixels. The samples of all of them, whoever asked for them, share batches of at
// most `max_batch`. On the device's thread. \error what the decoder reports; then the batches are as they were.
// RESOURCE_EXHAUSTED if one sample alone does not fit.
absl::Status DecodeBatches(const Decoder& decoder, absl::Span<SampleBatch* const> batches, int64_t max_batch,
                           DecodeCounts& counts);

}  // namespace boss::server
