// The engine's side of one request of the Open Inference Protocol, alone or on a stream.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "inference/grpc_service.pb.h"
#include "server/engine/sample_request.h"
#include "server/rpc/convert_inference.h"
#include "server/rpc/sampling_call.h"

namespace boss::server {

// Everything but how samples travel: takes the request to the engine, ends one whose samples do not fit into a message
// before any is computed where their size is known (that of PNGs is not), and says in the log how it ended. The engine
// calls it, one call at a time.
class InferSink : public SampleSink {
 public:
  // `sampling` outlives the sink. `rpc` and `call` tell the log what it is a part of.
  InferSink(Sampling& sampling, int64_t max_message_bytes, const char* rpc, CallId call)
      : sampling_(sampling), max_message_bytes_(max_message_bytes), rpc_(rpc), call_(std::move(call)) {}

  // Once. `self` is this. On an error the sink hears nothing.
  absl::Status Submit(const inference::ModelInferRequest& request, absl::Time deadline,
                      std::shared_ptr<SampleSink> self);
  void Cancel(absl::Status reason) { engine_call_.Cancel(std::move(reason)); }

  void OnAccepted(AcceptedRequest accepted) final;
  void OnProgress(SampleProgress progress) final {}
  void OnPreview(EncodedSample preview) final {}
  void OnSample(EncodedSample sample) final;
  void OnDone(absl::Status status, SampleSummary summary) final;

 protected:
  // Samples in one response.
  virtual int64_t SamplesTogether() const = 0;
  // An error ends the request.
  virtual absl::Status Take(EncodedSample sample) = 0;
  // Last.
  virtual void End(absl::Status status) = 0;

  Sampling& sampling_;
  const int64_t max_message_bytes_;
  SamplingCall engine_call_;
  InferCall infer_;        // constant once Submit has begun to give it to the engine
  SampleRequest request_;  // likewise
  AcceptedRequest accepted_;
  absl::Time compute_end_ = absl::InfinitePast();  // of a request that ended well; from End on

 private:
  absl::Status CheckSize() const;

  const char* const rpc_;
  const CallId call_;
  absl::Status failure_;  // why the request was ended here
};

}  // namespace boss::server
