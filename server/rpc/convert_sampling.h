// boss/v1/sampling.proto <-> the sampling engine.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "boss/v1/sampling.pb.h"
#include "server/engine/sample_request.h"

namespace boss::server {

// `chosen_seed` is taken where the request has no seed. \error INVALID_ARGUMENT or UNIMPLEMENTED with the field;
// RESOURCE_EXHAUSTED if the host has no memory for its conditions.
absl::StatusOr<SampleRequest> SampleRequestFromProto(const v1::GenerateRequest& proto, absl::Time deadline,
                                                     uint64_t chosen_seed);

v1::Accepted ToProto(const AcceptedRequest& accepted, const SampleRequest& request, absl::Time accept_time);
v1::Progress ToProto(const SampleProgress& progress);
// `requested`: what the client asked for; float32 samples answer OUTPUT_FORMAT_LATENTS under that name.
v1::Sample SampleToProto(EncodedSample sample, v1::OutputFormat requested);
v1::Preview PreviewToProto(EncodedSample preview, v1::OutputFormat requested);
v1::Summary ToProto(const SampleSummary& summary);

}  // namespace boss::server
