#include "server/rpc/infer_stream.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/rpc/infer_answer.h"
#include "server/rpc/infer_sink.h"
#include "server/rpc/status.h"

namespace boss::server {

// From its arrival to its last response. The stream holds it until then, and it the stream.
class InferStream::Request final : public InferSink, public std::enable_shared_from_this<Request> {
 public:
  explicit Request(std::shared_ptr<InferStream> stream)
      : InferSink(stream->sampling_, stream->max_message_bytes_, "stream_infer", stream->call_),
        stream_(std::move(stream)) {}

  void Begin(const inference::ModelInferRequest& request) {
    absl::Status status = stream_->admission_.AdmitRequest();
    if (status.ok()) status = Submit(request, stream_->deadline_, shared_from_this());
    if (!status.ok()) End(status);
  }
  void Consumed(int64_t bytes) { engine_call_.Consumed(bytes); }
  // Its last response is handed to gRPC.
  void CountOutput() const { sampling_.CountOutput(compute_end_); }

 private:
  int64_t SamplesTogether() const override { return 1; }

  absl::Status Take(EncodedSample sample) override {
    Answer answer = NewAnswer();
    auto& response = *answer.response.mutable_infer_response();
    (*response.mutable_parameters())["sample_index"].set_int64_param(sample.index);
    answer.data_bytes = static_cast<int64_t>(sample.data.size());
    InferAnswer builder(infer_, accepted_, /*num_samples=*/1, response);
    if (absl::Status status = builder.Add(std::move(sample), 0, max_message_bytes_); !status.ok()) return status;
    builder.Finish();
    if (++num_taken_ < request_.num_samples || infer_.empty_final_response) {
      stream_->Send(std::move(answer));
    } else {
      held_ = std::move(answer);  // the last one, once nothing can go wrong any more
    }
    return absl::OkStatus();
  }

  void End(absl::Status status) override {
    engine_call_.Release();
    Answer answer = status.ok() && held_ ? *std::move(held_) : NewAnswer();
    auto& response = *answer.response.mutable_infer_response();
    if (!status.ok() || infer_.empty_final_response) NameRequest(infer_, accepted_, response);
    if (!status.ok()) {
      answer.response.set_error_message(absl::StrCat(absl::StatusCodeToString(status.code()), ": ", status.message()));
    }
    (*response.mutable_parameters())[kFinalResponse].set_bool_param(true);
    answer.is_last = true;
    held_.reset();
    stream_->Send(std::move(answer));
  }

  Answer NewAnswer() {
    Answer answer;
    answer.request = shared_from_this();
    (*answer.response.mutable_infer_response()->mutable_parameters())[kFinalResponse].set_bool_param(false);
    return answer;
  }

  const std::shared_ptr<InferStream> stream_;
  int64_t num_taken_ = 0;
  std::optional<Answer> held_;
};

InferStream* InferStream::Start(Sampling& sampling, Admission admission, int64_t max_message_bytes,
                                InferStreamList& list, absl::Time deadline, CallId call) {
  const std::shared_ptr<InferStream> stream(
      new InferStream(sampling, std::move(admission), max_message_bytes, list, deadline, std::move(call)));
  stream->self_ = stream;
  {
    absl::MutexLock lock(&stream->mutex_);
    stream->Advance();
  }
  list.Add(stream);
  return stream.get();
}

void InferStream::End(absl::Status status) {
  absl::MutexLock lock(&mutex_);
  end_ = std::move(status);
  Advance();
}

void InferStream::OnReadDone(bool ok) {
  RequestPtr request;
  absl::Status gone;
  {
    absl::MutexLock lock(&mutex_);
    if (!ok) {
      reading_ = false;
      half_closed_ = true;
      Advance();
      return;
    }
    request = std::make_shared<Request>(shared_from_this());
    open_.insert(request);
    sampling_.open_calls().Add();
    if (abandoned_) gone = absl::CancelledError("the client has gone");
  }
  if (!gone.ok()) request->Cancel(gone);
  request->Begin(incoming_);
  incoming_.Clear();
  absl::MutexLock lock(&mutex_);
  reading_ = false;
  Advance();
}

void InferStream::Send(Answer answer) {
  absl::MutexLock lock(&mutex_);
  if (abandoned_) {
    Settle(answer);
  } else {
    queue_.push_back(std::move(answer));
  }
  Advance();
}

void InferStream::OnWriteDone(bool ok) {
  Answer answer;
  {
    absl::MutexLock lock(&mutex_);
    answer = std::move(current_);
    writing_ = false;
    Settle(answer);
    if (ok) {
      sampling_.CountSent(answer.response.ByteSizeLong());
      Advance();
    }
  }
  if (ok) {
    answer.request->Consumed(answer.data_bytes);
  } else {
    Abandon(absl::CancelledError("the stream is broken"));
  }
}

void InferStream::OnCancel() { Abandon(absl::CancelledError("the client has gone")); }

void InferStream::Abandon(const absl::Status& reason) {
  std::set<RequestPtr> open;
  std::deque<Answer> dropped;
  {
    absl::MutexLock lock(&mutex_);
    abandoned_ = true;
    dropped.swap(queue_);
    for (const Answer& answer : dropped) Settle(answer);
    open = open_;
    Advance();
  }
  for (const RequestPtr& request : open) request->Cancel(reason);
}

void InferStream::Settle(const Answer& answer) {
  if (!answer.is_last) return;
  open_.erase(answer.request);
  sampling_.open_calls().Remove();
}

void InferStream::Advance() {
  if (!writing_ && !queue_.empty()) {
    current_ = std::move(queue_.front());
    queue_.pop_front();
    writing_ = true;
    if (current_.is_last) current_.request->CountOutput();
    StartWrite(&current_.response);
  }
  const bool is_over = half_closed_ || abandoned_ || end_.has_value();
  if (!is_over && !reading_ && open_.size() < kMaxRequestsOfStream) {
    reading_ = true;
    StartRead(&incoming_);
  }
  if (is_over && !writing_ && queue_.empty() && open_.empty() && !finished_) {
    finished_ = true;
    admission_.Leave();
    if (abandoned_) {
      Finish(grpc::Status::CANCELLED);
    } else {
      Finish(half_closed_ ? grpc::Status::OK : ToGrpcStatus(*end_));
    }
  }
}

void InferStream::OnDone() {
  const std::shared_ptr<InferStream> self = std::move(self_);
  list_.Remove(self);
}

}  // namespace boss::server
