#include "server/rpc/infer_sink.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/base/status_macros.h"
#include "server/rpc/convert_sampling.h"
#include "server/rpc/infer_answer.h"

namespace boss::server {

absl::Status InferSink::Submit(const inference::ModelInferRequest& request, absl::Time deadline,
                               std::shared_ptr<SampleSink> self) {
  infer_.id = request.id();
  infer_.generate.set_model(request.model_name());
  BOSS_ASSIGN_OR_RETURN(infer_, InferCallFromProto(request));
  deadline = std::min(deadline, sampling_.clock().Now() + infer_.timeout);
  BOSS_ASSIGN_OR_RETURN(request_, SampleRequestFromProto(infer_.generate, deadline, sampling_.ChooseSeed()));
  infer_.generate.clear_initial_noise();  // request_ has the values
  infer_.generate.clear_conditions();
  infer_.generate.clear_negative_conditions();
  return engine_call_.Submit(sampling_, request_, std::move(self));
}

absl::Status InferSink::CheckSize() const {
  const bool has_samples =
      std::find(infer_.outputs.begin(), infer_.outputs.end(), InferOutput::kSamples) != infer_.outputs.end();
  if (!has_samples || request_.format == SampleFormat::kPng) return absl::OkStatus();
  int64_t bytes = SamplesTogether() * (request_.format == SampleFormat::kFloat32 ? sizeof(float) : 1);
  for (const int64_t size : accepted_.sample_shape) bytes *= size;
  return bytes <= max_message_bytes_ ? absl::OkStatus() : TooLargeForOneMessage(bytes, max_message_bytes_);
}

void InferSink::OnAccepted(AcceptedRequest accepted) {
  accepted_ = std::move(accepted);
  failure_ = CheckSize();
  if (!failure_.ok()) engine_call_.Cancel(failure_);
}

void InferSink::OnSample(EncodedSample sample) {
  if (!failure_.ok()) return;
  failure_ = Take(std::move(sample));
  if (!failure_.ok()) engine_call_.Cancel(failure_);
}

void InferSink::OnDone(absl::Status status, SampleSummary summary) {
  if (!failure_.ok()) status = failure_;  // the engine may have been done before it heard of it
  LogSampling(rpc_, request_, infer_.id, status, summary, call_);
  if (status.ok()) compute_end_ = summary.compute_end;
  End(std::move(status));
}

}  // namespace boss::server
