#include "server/jobs/job_models.h"

#include <ATen/ATen.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/finetune/lora.h"

namespace boss::server {

absl::StatusOr<VersionKey> InputVersion(const JobContext& context, size_t i) {
  const std::vector<std::string>& inputs = context.job().input_versions;
  if (i >= inputs.size())
    return absl::InternalError(absl::StrCat("job: ", inputs.size(), " input versions, expected more than ", i));
  return context.store().Resolve(inputs[i]);
}

absl::StatusOr<std::shared_ptr<const VelocityModel>> LoadModelForJob(JobContext& context, const VersionKey& key) {
  BOSS_ASSIGN_OR_RETURN(std::unique_ptr<VelocityModel> model, context.store().LoadVersionModel(key));
  BOSS_RETURN_IF_ERROR(context.Run([&] {
    return GuardTorch("moving a model to the device", [&]() -> absl::Status {
      model->To(context.options().device);
      model->PrepareForInference(at::kFloat);
      return absl::OkStatus();
    });
  }));
  return std::shared_ptr<const VelocityModel>(std::move(model));
}

absl::StatusOr<std::unique_ptr<VelocityModel>> CopyForTraining(JobContext& context, const VelocityModel& model) {
  std::unique_ptr<VelocityModel> copy;
  BOSS_RETURN_IF_ERROR(context.Run([&] {
    return GuardTorch("copying a model", [&]() -> absl::Status {
      copy = model.Clone();
      copy->To(context.options().device);
      if (copy->Parameters().empty()) return absl::FailedPreconditionError("the model is not trainable");
      return absl::OkStatus();
    });
  }));
  return copy;
}

absl::Status PublishResult(JobContext& context, const std::string& name, const std::string& alias, Manifest manifest,
                           const VelocityModel& model) {
  VersionUse use;  // until its alias holds it
  absl::StatusOr<VersionKey> key = context.store().FindByJob(name, context.job().id);
  if (!key.ok()) {
    Safetensors weights;
    std::string archive;
    BOSS_RETURN_IF_ERROR(context.RunAlways([&] {
      return GuardTorch("reading weights", [&]() -> absl::Status {
        archive = model.Archive();
        if (!archive.empty()) return absl::OkStatus();
        if (manifest.adapter) {
          weights = AdapterContents(model, {static_cast<int>(manifest.adapter->rank), manifest.adapter->alpha});
        } else {
          for (const auto& [tensor_name, tensor] : model.State())
            weights.tensors.emplace_back(tensor_name, tensor.detach().to(at::kCPU));
        }
        return absl::OkStatus();
      });
    }));
    manifest.job_id = context.job().id;
    key = archive.empty()
              ? context.store().Publish(name, std::move(manifest), weights, /*sets=*/{}, /*others=*/{}, &use)
              : context.store().PublishArchive(name, std::move(manifest), archive, /*others=*/{}, &use);
    BOSS_RETURN_IF_ERROR(key.status());
  }
  // First what is there: a job that cannot set the alias names its version all the same.
  BOSS_RETURN_IF_ERROR(context.ReportOutput(*key));
  return alias.empty() ? absl::OkStatus() : context.store().SetAlias(name, alias, key->version);
}

}  // namespace boss::server
