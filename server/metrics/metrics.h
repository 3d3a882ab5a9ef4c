// What the server counts. The only header that names the metrics; nothing outside this folder sees the Prometheus
// library.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace prometheus {
class Counter;
class Gauge;
class Histogram;
}  // namespace prometheus

namespace boss::server {

class HttpServer;

// Handles to one time series each: cheap to copy, thread-safe, lock-free. A default-constructed handle ignores what it
// is given, so that a component can be built without metrics. They must not outlive the Metrics that gave them.
class Counter {
 public:
  Counter() = default;
  explicit Counter(prometheus::Counter* series) : series_(series) {}
  void Add(double amount) const;  // \pre amount >= 0

 private:
  prometheus::Counter* series_ = nullptr;
};

class Gauge {
 public:
  Gauge() = default;
  explicit Gauge(prometheus::Gauge* series) : series_(series) {}
  void Set(double value) const;

 private:
  prometheus::Gauge* series_ = nullptr;
};

class Histogram {
 public:
  Histogram() = default;
  explicit Histogram(prometheus::Histogram* series) : series_(series) {}
  void Observe(double value) const;

 private:
  prometheus::Histogram* series_ = nullptr;
};

// Series that differ in the values of their labels. The values come from a small set that the code knows, or are names
// of loaded models: never what clients make up. A default-constructed family gives handles that ignore what they are
// given.
template <typename Handle>
class SeriesFamily {
 public:
  using Find = std::function<Handle(absl::Span<const std::string_view> values)>;
  SeriesFamily() = default;
  explicit SeriesFamily(Find find) : find_(std::move(find)) {}
  // The series with these values, in the order of the family's labels; it is there from now on. Takes a lock.
  Handle With(std::initializer_list<std::string_view> values) const {
    return find_ == nullptr ? Handle() : find_(absl::MakeConstSpan(values.begin(), values.size()));
  }

 private:
  Find find_;
};
using CounterFamily = SeriesFamily<Counter>;
using GaugeFamily = SeriesFamily<Gauge>;
using HistogramFamily = SeriesFamily<Histogram>;

// What the sampling engine counts.
struct EngineMetrics {
  Counter samples;               // boss_samples_total: delivered to a request
  Counter velocity_evaluations;  // boss_velocity_evaluations_total: per sample, guidance counting two
  Counter evaluations;           // boss_evaluations_total: of the network, one for a whole batch
  Histogram batch_rows;          // boss_batch_rows: of an evaluation that requests share
  Histogram batch_fill;          // boss_batch_fill_ratio: its rows by the most that it may have
  Counter too_large_batches;     // boss_too_large_batches_total: tried again with half of the rows for lack of memory
  Counter decoded_samples;       // boss_decoded_samples_total: latents that a decoder made pixels of, previews included
  Counter decoder_batches;       // boss_decoder_batches_total
  Gauge lanes_active;            // boss_lanes{state="active"}: samples in flight
  Gauge lanes_waiting;           // boss_lanes{state="waiting"}: samples accepted and not begun
  Counter refused_requests;      // boss_sampling_refused_requests_total: RESOURCE_EXHAUSTED
  // boss_sampling_ended_requests_total{reason}: accepted and not answered in full.
  Counter cancelled_requests;  // reason="cancelled": the client has gone or does not want it any more
  Counter expired_requests;    // reason="deadline"
  Counter stopped_requests;    // reason="shutdown"
  Counter failed_requests;     // reason="error": of the request, its model or the device
  Counter slow_reader_pauses;  // boss_slow_reader_pauses_total
  Gauge queued_samples;        // boss_queued_samples: accepted and not yet finished
  Histogram queue_seconds;     // boss_sampling_queue_seconds: from Submit to the first evaluation
  Histogram compute_seconds;   // boss_sampling_compute_seconds: device time of one request, by its share of the batches
};

// What the RPCs that sample count.
struct RpcMetrics {
  Counter sent_bytes;        // boss_sent_bytes_total: of responses that have been written, as protocol buffers
  Histogram output_seconds;  // boss_sampling_output_seconds: from a request's last evaluation to its last message
};

// What loading models counts.
struct ModelMetrics {
  Histogram load_seconds;  // boss_model_load_seconds: of loads that ended well
  Counter loads;           // boss_model_loads_total{result="ok"}
  Counter failed_loads;    // boss_model_loads_total{result="error"}
};

// What jobs count while they run.
struct JobRunMetrics {
  CounterFamily train_steps;      // boss_train_steps_total{kind}
  HistogramFamily stage_seconds;  // boss_job_stage_seconds{kind, stage}: from entering a stage to leaving it
  GaugeFamily last_checkpoint;    // boss_last_checkpoint_timestamp_seconds; no label; absent before the first one
};

// Of a disk, or of what keeps something on it.
struct OperationMetrics {
  HistogramFamily seconds;  // by operation
  CounterFamily errors;     // by operation
};

// Values that their owner keeps, read when somebody scrapes.
struct CollectedFamily {
  enum class Kind { kCounter, kGauge };
  struct Series {
    std::vector<std::pair<std::string, std::string>> labels;
    double value = 0;
  };

  std::string name, help;
  Kind kind = Kind::kGauge;
  std::vector<Series> series;
};
using Collector = std::function<std::vector<CollectedFamily>()>;

enum class MetricsFormat {
  kPrometheusText,  // 0.0.4
  kOpenMetrics,     // 1.0.0
};

// Owns every time series of one server. Thread-safe.
class Metrics {
 public:
  // The labels of boss_build_info.
  Metrics(std::string_view version, std::string_view device);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // Of an engine. Several engines share what is summed; the gauges of each get the label `device`, unless it is empty.
  EngineMetrics engine(std::string_view device = {}) const;
  RpcMetrics rpc() const;
  ModelMetrics models() const;
  JobRunMetrics jobs() const;
  OperationMetrics journal() const;  // boss_journal_seconds and boss_journal_errors_total
  OperationMetrics store() const;    // boss_store_seconds and boss_store_errors_total

  // One finished RPC: boss_requests_total and boss_request_seconds, by method ("/boss.v1.Sampler/Generate") and code
  // ("OK", "NOT_FOUND", ...).
  void RecordCall(std::string_view method, std::string_view code, absl::Duration latency);

  // `collector` is called at every scrape, on the scraper's thread, until this object or its MetricsServer is
  // destroyed.
  void AddCollector(Collector collector);

  // Every series. A value of a label that is not UTF-8 has U+FFFD where it is not.
  std::string Text(MetricsFormat format = MetricsFormat::kPrometheusText) const;

 private:
  class State;
  const std::unique_ptr<State> state_;
};

// Serves GET /metrics over HTTP, in the format that the Accept header prefers: OpenMetrics only where it names it.
class MetricsServer {
 public:
  // `address`: "HOST:PORT"; port 0 takes a free one. `metrics` outlives the server. \error UNAVAILABLE if the address
  // cannot be bound.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const std::string& address, const Metrics& metrics);
  ~MetricsServer();

  int port() const;

 private:
  explicit MetricsServer(std::unique_ptr<HttpServer> http);
  const std::unique_ptr<HttpServer> http_;
};

}  // namespace boss::server
