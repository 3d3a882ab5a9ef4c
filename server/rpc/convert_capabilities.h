// What a server can do -> boss/v1/models.proto.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "boss/v1/models.pb.h"

namespace boss::server {

struct DeviceDescription {
  std::string name;         // "cpu", "cuda:0"
  std::string description;  // the processor's or card's name, and the precision if it is not float32
  std::string uuid;         // empty if it has none
  int64_t memory_bytes = 0;
};

struct ServerDescription {
  std::string version;
  std::vector<DeviceDescription> devices;
  std::vector<std::string> datasets;          // sources that are present
  std::vector<std::string> feature_networks;  // that the operator configured
  int64_t max_samples_per_request = 0;
  int64_t max_queued_samples = 0;
  int64_t max_queued_jobs = 0;
  int64_t max_steps = 0;
  int64_t max_message_bytes = 0;
  bool allow_torchscript = false;
  int64_t max_import_bytes = 0;
  int64_t max_pixels_per_request = 0;
  absl::Duration max_request_time = absl::InfiniteDuration();  // infinite: no limit
  int64_t max_streams_per_connection = 0;
  absl::Time start_time = absl::UnixEpoch();
};

v1::Capabilities ToProto(const ServerDescription& description);

}  // namespace boss::server
