// boss/v1/models.proto <-> the model store and registry.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "boss/v1/models.pb.h"
#include "server/rpc/model_catalog.h"
#include "server/rpc/model_import.h"

namespace boss::server {

// `default_steps`: of a model that names none.
v1::Model ToProto(const ModelView& view, int default_steps);
v1::ModelVersion ToProto(const VersionView& view);

struct ScheduleSetParts {
  bool schedules = false;
  int steps = 0;  // with schedules: the one of so many steps alone; 0: all
  bool cost_matrix = false;
};
v1::ScheduleSet ToProto(const VersionKey& key, const StoredScheduleSet& stored, const ScheduleSetParts& parts);
// What a version was trained for, as Euler's steps take it or with the coefficients that were fitted to it.
v1::ScheduleSet ToProto(const VersionInfo& version, const NativeSchedule& native, SolverKind solver);

// A set that the store takes. \error INVALID_ARGUMENT or UNIMPLEMENTED with the field.
absl::StatusOr<StoredScheduleSet> ScheduleSetFromProto(const v1::ImportScheduleRequest& proto);

// \error INVALID_ARGUMENT, UNIMPLEMENTED or PERMISSION_DENIED with the field.
absl::StatusOr<ImportOptions> ImportOptionsFromProto(const v1::ImportStart& proto);

}  // namespace boss::server
