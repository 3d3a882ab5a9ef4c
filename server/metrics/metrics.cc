#include "server/metrics/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/metrics/exposition.h"
#include "server/metrics/http_server.h"

namespace boss::server {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;

// Upper bounds in seconds. Of calls and of a request's computation: from a cached answer to a long stream.
const Buckets kCallBuckets = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300};
// Of waiting for the first evaluation, or for a client that reads.
const Buckets kWaitBuckets = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60};
// Of one operation of the disk.
const Buckets kDiskBuckets = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                              0.05,   0.1,     0.25,   0.5,   1,      2.5,   5,    10};
const Buckets kLoadBuckets = {0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300};
// Of a job's stages: from publishing to a day of training.
const Buckets kStageBuckets = {0.1, 0.5, 1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400};

const Buckets kRowsBuckets = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};
const Buckets kRatioBuckets = {0.015625, 0.03125, 0.0625, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1};

prometheus::Labels ToLabels(const std::vector<std::string>& names, absl::Span<const std::string_view> values) {
  prometheus::Labels labels;
  for (size_t i = 0; i < names.size(); ++i) labels[names[i]] = std::string(values.at(i));
  return labels;
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

class Metrics::State {
 public:
  State(std::string_view version, std::string_view device)
      : requests_(Counters("boss_requests_total", "Finished RPCs by method and status code")),
        request_seconds_(
            Histograms("boss_request_seconds", "Time from an RPC's start to its status, streams included")),
        lanes_(Gauges("boss_lanes", "Samples in flight (active) and accepted but not begun (waiting)")),
        queued_samples_(Gauges("boss_queued_samples", "Samples accepted and not yet finished")) {
    auto& ended = Counters("boss_sampling_ended_requests_total",
                           "Sampling requests that were accepted and ended before their time, by reason");
    engine_ = {
        .samples = NewCounter("boss_samples_total", "Samples delivered to requests"),
        .velocity_evaluations =
            NewCounter("boss_velocity_evaluations_total", "Velocity evaluations of sampling, counted per sample"),
        .evaluations =
            NewCounter("boss_evaluations_total", "Evaluations of the network for sampling, one for a whole batch"),
        .batch_rows = NewHistogram("boss_batch_rows", "Rows of an evaluation's batch; a sample with guidance takes two",
                                   kRowsBuckets),
        .batch_fill = NewHistogram("boss_batch_fill_ratio",
                                   "Rows of an evaluation's batch by the most that it may have", kRatioBuckets),
        .too_large_batches =
            NewCounter("boss_too_large_batches_total",
                       "Evaluations tried again with half of their rows because they did not fit into memory"),
        .decoded_samples =
            NewCounter("boss_decoded_samples_total", "Latents that a decoder made pixels of, previews included"),
        .decoder_batches = NewCounter("boss_decoder_batches_total", "Batches given to decoders"),
        .refused_requests =
            NewCounter("boss_sampling_refused_requests_total", "Sampling requests refused because the queue was full"),
        .cancelled_requests = Counter(&ended.Add({{"reason", "cancelled"}})),
        .expired_requests = Counter(&ended.Add({{"reason", "deadline"}})),
        .stopped_requests = Counter(&ended.Add({{"reason", "shutdown"}})),
        .failed_requests = Counter(&ended.Add({{"reason", "error"}})),
        .slow_reader_pauses =
            NewCounter("boss_slow_reader_pauses_total", "Times that a request paused because its client did not read"),
        .queue_seconds = NewHistogram("boss_sampling_queue_seconds",
                                      "Time from a sampling request's arrival to its first evaluation", kWaitBuckets),
        .compute_seconds =
            NewHistogram("boss_sampling_compute_seconds",
                         "Device time of one sampling request, by its share of the batches", kCallBuckets),
    };
    rpc_ = {.sent_bytes = NewCounter("boss_sent_bytes_total", "Bytes of sampling responses that were written"),
            .output_seconds = NewHistogram("boss_sampling_output_seconds",
                                           "Time from a sampling request's last evaluation until its last message is "
                                           "handed to the connection",
                                           kWaitBuckets)};
    auto& loads = Counters("boss_model_loads_total", "Loads of model versions into memory, by result");
    models_ = {.load_seconds =
                   NewHistogram("boss_model_load_seconds", "Time to load a model version into memory", kLoadBuckets),
               .loads = Counter(&loads.Add({{"result", "ok"}})),
               .failed_loads = Counter(&loads.Add({{"result", "error"}}))};
    jobs_ = {
        .train_steps = FamilyOf(Counters("boss_train_steps_total", "Train steps of jobs"), {"kind"}),
        .stage_seconds = FamilyOf(Histograms("boss_job_stage_seconds", "Time that jobs spent in a stage at a time"),
                                  {"kind", "stage"}, kStageBuckets),
        .last_checkpoint = FamilyOf(
            Gauges("boss_last_checkpoint_timestamp_seconds", "Unix time at which a job's work was last saved"))};
    journal_ = NewOperations("boss_journal", "the job journal");
    store_ = NewOperations("boss_store", "the data folder's disk");
    Gauges("boss_build_info", "Always 1; the labels say what runs")
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
  const RpcMetrics& rpc() const { return rpc_; }
  const ModelMetrics& models() const { return models_; }
  const JobRunMetrics& jobs() const { return jobs_; }
  const OperationMetrics& journal() const { return journal_; }
  const OperationMetrics& store() const { return store_; }

  void RecordCall(std::string_view method, std::string_view code, absl::Duration latency) {
    const std::string method_label(method);
    requests_.Add({{"method", method_label}, {"code", std::string(code)}}).Increment();
    request_seconds_.Add({{"method", method_label}}, kCallBuckets).Observe(absl::ToDoubleSeconds(latency));
  }

  void AddCollector(Collector collector) {
    absl::MutexLock lock(&mutex_);
    collectors_.push_back(std::move(collector));
  }

  std::vector<prometheus::MetricFamily> Collect() const {
    std::vector<prometheus::MetricFamily> families = registry_.Collect();
    absl::MutexLock lock(&mutex_);
    for (const Collector& collector : collectors_) {
      for (CollectedFamily& family : collector()) families.push_back(ToPrometheus(std::move(family)));
    }
    return families;
  }

 private:
  prometheus::Family<prometheus::Counter>& Counters(const std::string& name, const std::string& help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry_);
  }
  prometheus::Family<prometheus::Gauge>& Gauges(const std::string& name, const std::string& help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry_);
  }
  prometheus::Family<prometheus::Histogram>& Histograms(const std::string& name, const std::string& help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry_);
  }

  Counter NewCounter(const std::string& name, const std::string& help) {
    return Counter(&Counters(name, help).Add({}));
  }
  Histogram NewHistogram(const std::string& name, const std::string& help, const Buckets& buckets) {
    return Histogram(&Histograms(name, help).Add({}, buckets));
  }

  static CounterFamily FamilyOf(prometheus::Family<prometheus::Counter>& family, std::vector<std::string> labels) {
    return CounterFamily([&family, labels = std::move(labels)](absl::Span<const std::string_view> values) {
      return Counter(&family.Add(ToLabels(labels, values)));
    });
  }
  // Of one series, which is not there before it is asked for.
  static GaugeFamily FamilyOf(prometheus::Family<prometheus::Gauge>& family) {
    return GaugeFamily([&family](absl::Span<const std::string_view>) { return Gauge(&family.Add({})); });
  }
  static HistogramFamily FamilyOf(prometheus::Family<prometheus::Histogram>& family, std::vector<std::string> labels,
                                  const Buckets& buckets) {
    return HistogramFamily([&family, &buckets, labels = std::move(labels)](absl::Span<const std::string_view> values) {
      return Histogram(&family.Add(ToLabels(labels, values), buckets));
    });
  }
  OperationMetrics NewOperations(const std::string& prefix, const std::string& of) {
    return {
        .seconds =
            FamilyOf(Histograms(prefix + "_seconds", "Time of operations of " + of), {"operation"}, kDiskBuckets),
        .errors = FamilyOf(Counters(prefix + "_errors_total", "Operations of " + of + " that failed"), {"operation"})};
  }

  prometheus::Registry registry_;
  prometheus::Family<prometheus::Counter>& requests_;
  prometheus::Family<prometheus::Histogram>& request_seconds_;
  prometheus::Family<prometheus::Gauge>& lanes_;
  prometheus::Family<prometheus::Gauge>& queued_samples_;
  EngineMetrics engine_;
  RpcMetrics rpc_;
  ModelMetrics models_;
  JobRunMetrics jobs_;
  OperationMetrics journal_, store_;
  mutable absl::Mutex mutex_;
  std::vector<Collector> collectors_ ABSL_GUARDED_BY(mutex_);
};

Metrics::Metrics(std::string_view version, std::string_view device)
    : state_(std::make_unique<State>(version, device)) {}
Metrics::~Metrics() = default;

EngineMetrics Metrics::engine(std::string_view device) const { return state_->engine(device); }
RpcMetrics Metrics::rpc() const { return state_->rpc(); }
ModelMetrics Metrics::models() const { return state_->models(); }
JobRunMetrics Metrics::jobs() const { return state_->jobs(); }
OperationMetrics Metrics::journal() const { return state_->journal(); }
OperationMetrics Metrics::store() const { return state_->store(); }

void Metrics::RecordCall(std::string_view method, std::string_view code, absl::Duration latency) {
  state_->RecordCall(method, code, latency);
}

void Metrics::AddCollector(Collector collector) { state_->AddCollector(std::move(collector)); }

std::string Metrics::Text(MetricsFormat format) const { return WriteExposition(state_->Collect(), format); }

MetricsServer::MetricsServer(std::unique_ptr<HttpServer> http) : http_(std::move(http)) {}
MetricsServer::~MetricsServer() = default;

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(const std::string& address,
                                                                    const Metrics& metrics) {
  absl::StatusOr<std::unique_ptr<HttpServer>> http =
      HttpServer::Start(address, [&metrics](const HttpRequest& request) -> HttpResponse {
        if (request.path != "/metrics") return {.status = 404, .body = "only /metrics is here\n"};
        const MetricsFormat format = PreferredFormat(request.Header("accept"));
        return {.content_type = std::string(ContentType(format)), .body = metrics.Text(format)};
      });
  if (!http.ok()) return http.status();
  return std::unique_ptr<MetricsServer>(new MetricsServer(*std::move(http)));
}

int MetricsServer::port() const { return http_->port(); }

}  // namespace boss::server
