// What a scrape gets: families as text. Included by this folder's own files alone.
#pragma once

#include <prometheus/metric_family.h>

#include <string>
#include <string_view>
#include <vector>

#include "server/metrics/metrics.h"

namespace boss::server {

// Prometheus' text format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats) or OpenMetrics 1.0.0
// (github.com/OpenObservability/OpenMetrics, specification/OpenMetrics.md). Families without series are left out. In
// OpenMetrics a counter's family has no "_total", a gauge "<name>_info" is the info family <name>, and families of base
// units say which. \pre counters' names end in _total; no name twice.
std::string WriteExposition(const std::vector<prometheus::MetricFamily>& families, MetricsFormat format);

// What an Accept header prefers. OpenMetrics 1.0.0 if it is named and nothing else is preferred to it.
MetricsFormat PreferredFormat(std::string_view accept);

std::string_view ContentType(MetricsFormat format);

}  // namespace boss::server
