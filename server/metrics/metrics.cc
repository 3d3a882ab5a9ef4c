#include "server/metrics/metrics.h"

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <exception>
#include <iterator>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

namespace boss::server {
namespace {

// Upper bounds in seconds, from a cached answer to a long stream.
const prometheus::Histogram::BucketBoundaries kSecondsBuckets = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                                                 0.5,   1,      2.5,   5,    10,    30,   60,  300};

const prometheus::Histogram::BucketBoundaries kRowsBuckets = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};

prometheus::Counter* NewCounter(prometheus::Registry& registry, const std::string& name, const std::string& help) {
  return &prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({});
}

prometheus::Histogram* NewHistogram(prometheus::Registry& registry, const std::string& name, const std::string& help) {
  return &prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, kSecondsBuckets);
}

prometheus::MetricFamily ToPrometheus(CollectedFamily family) {
  const bool is_counter = family.kind == CollectedFamily::Kind::kCounter;
  prometheus::MetricFamily result;
  result.name = std::move(family.name);
  result.help = std::move(family.help);
  result.type = is_counter ? prometheus::MetricType::Counter : prometheus::MetricType::Gauge;
  for (CollectedFamily::Series& series : family.series) {
    prometheus::ClientMetric metric;
    for (auto& [name, value] : series.labels) metric.label.push_back({std::move(name), std::move(value)});
    (is_counter ? metric.counter.value : metric.gauge.value) = series.value;
    result.metric.push_back(std::move(metric));
  }
  return result;
}

}  // namespace

void Counter::Add(double amount) const {
  if (series_ != nullptr) series_->Increment(amount);
}

void Gauge::Set(double value) const {
  if (series_ != nullptr) series_->Set(value);
}

void Histogram::Observe(double value) const {
  if (series_ != nullptr) series_->Observe(value);
}

class Metrics::State final : public prometheus::Collectable {
 public:
  State(std::string_view version, std::string_view device)
      : requests_(prometheus::BuildCounter()
                      .Name("boss_requests_total")
                      .Help("Finished RPCs by method and status code")
                      .Register(registry_)),
        request_seconds_(prometheus::BuildHistogram()
                             .Name("boss_request_seconds")
                             .Help("Time from an RPC's start to its status, streams included")
                             .Register(registry_)),
        lanes_(prometheus::BuildGauge()
                   .Name("boss_lanes")
                   .Help("Samples in flight (active) and accepted but not begun (waiting)")
                   .Register(registry_)),
        queued_samples_(prometheus::BuildGauge()
                            .Name("boss_queued_samples")
                            .Help("Samples accepted and not yet finished")
                            .Register(registry_)) {
    auto& ended = prometheus::BuildCounter()
                      .Name("boss_sampling_ended_requests_total")
                      .Help("Sampling requests that ended before their time, by reason")
                      .Register(registry_);
    engine_ = {
        .samples = Counter(NewCounter(registry_, "boss_samples_total", "Samples delivered to requests")),
        .velocity_evaluations = Counter(NewCounter(registry_, "boss_velocity_evaluations_total",
                                                   "Velocity evaluations of sampling, counted per sample")),
        .evaluations = Counter(NewCounter(registry_, "boss_evaluations_total",
                                          "Evaluations of the network for sampling, one for a whole batch")),
        .batch_rows = Histogram(&prometheus::BuildHistogram()
                                     .Name("boss_batch_rows")
                                     .Help("Rows of an evaluation's batch; a sample with guidance takes two")
                                     .Register(registry_)
                                     .Add({}, kRowsBuckets)),
        .too_large_batches =
            Counter(NewCounter(registry_, "boss_too_large_batches_total",
                               "Evaluations tried again with half of their rows because they did not fit into memory")),
        .decoded_samples = Counter(NewCounter(registry_, "boss_decoded_samples_total",
                                              "Latents that a decoder made pixels of, previews included")),
        .decoder_batches = Counter(NewCounter(registry_, "boss_decoder_batches_total", "Batches given to decoders")),
        .refused_requests = Counter(NewCounter(registry_, "boss_sampling_refused_requests_total",
                                               "Sampling requests refused because the queue was full")),
        .cancelled_requests = Counter(&ended.Add({{"reason", "cancelled"}})),
        .expired_requests = Counter(&ended.Add({{"reason", "deadline"}})),
        .slow_reader_pauses = Counter(NewCounter(registry_, "boss_slow_reader_pauses_total",
                                                 "Times that a request paused because its client did not read")),
        .queue_seconds = Histogram(NewHistogram(registry_, "boss_sampling_queue_seconds",
                                                "Time from a sampling request's arrival to its first evaluation")),
        .compute_seconds = Histogram(NewHistogram(registry_, "boss_sampling_compute_seconds",
                                                  "Device time of one sampling request, by its share of the batches")),
    };
    prometheus::BuildGauge()
        .Name("boss_build_info")
        .Help("Always 1; the labels say what runs")
        .Register(registry_)
        .Add({{"version", std::string(version)}, {"device", std::string(device)}})
        .Set(1);
  }

  EngineMetrics engine(std::string_view device) {
    prometheus::Labels active = {{"state", "active"}}, waiting = {{"state", "waiting"}}, queued;
    if (!device.empty()) {
      for (prometheus::Labels* labels : {&active, &waiting, &queued}) (*labels)["device"] = std::string(device);
    }
    EngineMetrics engine = engine_;
    engine.lanes_active = Gauge(&lanes_.Add(active));
    engine.lanes_waiting = Gauge(&lanes_.Add(waiting));
    engine.queued_samples = Gauge(&queued_samples_.Add(queued));
    return engine;
  }

  void RecordCall(std::string_view method, std::string_view code, absl::Duration latency) {
    const std::string method_label(method);
    requests_.Add({{"method", method_label}, {"code", std::string(code)}}).Increment();
    request_seconds_.Add({{"method", method_label}}, kSecondsBuckets).Observe(absl::ToDoubleSeconds(latency));
  }

  void AddCollector(Collector collector) {
    absl::MutexLock lock(&mutex_);
    collectors_.push_back(std::move(collector));
  }

  std::vector<prometheus::MetricFamily> Collect() const override {
    std::vector<prometheus::MetricFamily> families = registry_.Collect();
    absl::MutexLock lock(&mutex_);
    for (const Collector& collector : collectors_) {
      for (CollectedFamily& family : collector()) families.push_back(ToPrometheus(std::move(family)));
    }
    return families;
  }

 private:
  prometheus::Registry registry_;
  prometheus::Family<prometheus::Counter>& requests_;
  prometheus::Family<prometheus::Histogram>& request_seconds_;
  prometheus::Family<prometheus::Gauge>& lanes_;
  prometheus::Family<prometheus::Gauge>& queued_samples_;
  EngineMetrics engine_;
  mutable absl::Mutex mutex_;
  std::vector<Collector> collectors_ ABSL_GUARDED_BY(mutex_);
};

Metrics::Metrics(std::string_view version, std::string_view device)
    : state_(std::make_shared<State>(version, device)) {}
Metrics::~Metrics() = default;

EngineMetrics Metrics::engine(std::string_view device) const { return state_->engine(device); }

void Metrics::RecordCall(std::string_view method, std::string_view code, absl::Duration latency) {
  state_->RecordCall(method, code, latency);
}

void Metrics::AddCollector(Collector collector) { state_->AddCollector(std::move(collector)); }

std::string Metrics::Text() const { return prometheus::TextSerializer().Serialize(state_->Collect()); }

class MetricsServer::State {
 public:
  State(const std::string& address, const std::shared_ptr<prometheus::Collectable>& collectable) : exposer_(address) {
    exposer_.RegisterCollectable(collectable);
  }
  int port() const { return exposer_.GetListeningPorts().front(); }

 private:
  prometheus::Exposer exposer_;
};

MetricsServer::MetricsServer(std::unique_ptr<State> state) : state_(std::move(state)) {}
MetricsServer::~MetricsServer() = default;

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(const std::string& address,
                                                                    const Metrics& metrics) {
  try {
    return std::unique_ptr<MetricsServer>(new MetricsServer(std::make_unique<State>(address, metrics.state_)));
  } catch (const std::exception& error) {
    return absl::UnavailableError(absl::StrCat("cannot serve metrics on ", address, ": ", error.what()));
  }
}

int MetricsServer::port() const { return state_->port(); }

}  // namespace boss::server
