// What the server counts. The only header that names the metrics; nothing outside this folder sees the Prometheus
// library.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace prometheus {
class Counter;
class Gauge;
class Histogram;
}  // namespace prometheus

namespace boss::server {

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

// What the sampling engine counts.
struct EngineMetrics {
  Counter samples;               // boss_samples_total: delivered to a request
  Counter velocity_evaluations;  // boss_velocity_evaluations_total: per sample, guidance counting two
  Counter evaluations;           // boss_evaluations_total: of the network, one for a whole batch
  Histogram batch_rows;          // boss_batch_rows: of an evaluation that requests share
  Counter too_large_batches;     // boss_too_large_batches_total: tried again with half of the rows for lack of memory
  Counter decoded_samples;       // boss_decoded_samples_total: latents that a decoder made pixels of, previews included
  Counter decoder_batches;       // boss_decoder_batches_total
  Gauge lanes_active;            // boss_lanes{state="active"}: samples in flight
  Gauge lanes_waiting;           // boss_lanes{state="waiting"}: samples accepted and not begun
  Counter refused_requests;      // boss_sampling_refused_requests_total: RESOURCE_EXHAUSTED
  Counter cancelled_requests;    // boss_sampling_ended_requests_total{reason="cancelled"}: by the client or the server
  Counter expired_requests;      // boss_sampling_ended_requests_total{reason="deadline"}
  Counter slow_reader_pauses;    // boss_slow_reader_pauses_total
  Gauge queued_samples;          // boss_queued_samples: accepted and not yet finished
  Histogram queue_seconds;       // boss_sampling_queue_seconds: from Submit to the first evaluation
  Histogram compute_seconds;  // boss_sampling_compute_seconds: device time of one request, by its share of the batches
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

  // One finished RPC: boss_requests_total and boss_request_seconds, by method ("/boss.v1.Sampler/Generate") and code
  // ("OK", "NOT_FOUND", ...).
  void RecordCall(std::string_view method, std::string_view code, absl::Duration latency);

  // `collector` is called at every scrape, on the scraper's thread, until this object or its MetricsServer is
  // destroyed.
  void AddCollector(Collector collector);

  // Everything in Prometheus' text format.
  std::string Text() const;

 private:
  friend class MetricsServer;
  class State;
  std::shared_ptr<State> state_;
};

// Serves GET /metrics over HTTP.
class MetricsServer {
 public:
  // `address`: "HOST:PORT"; port 0 takes a free one. \error UNAVAILABLE if the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const std::string& address, const Metrics& metrics);
  ~MetricsServer();

  int port() const;

 private:
  class State;
  explicit MetricsServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace boss::server
