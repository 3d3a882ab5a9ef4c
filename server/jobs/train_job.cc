#include <ATen/ATen.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/finetune/objectives.h"
#include "core/io/image_dataset.h"
#include "core/nets/factory.h"
#include "server/jobs/job_models.h"
#include "server/jobs/noise_source.h"
#include "server/jobs/preview.h"
#include "server/jobs/run_job.h"
#include "server/jobs/training_loop.h"

namespace boss::server {
namespace {

// Solver steps of a preview where the job names no default.
constexpr int kPreviewSteps = 20;

struct StartingPoint {
  std::unique_ptr<VelocityModel> model;
  Manifest manifest;
};

absl::StatusOr<StartingPoint> LoadStart(JobContext& context, const TrainSpec& spec) {
  StartingPoint start;
  start.manifest.architecture_json = spec.architecture_json;
  if (spec.init_model.empty()) {
    BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<VelocityModel> fresh,
                          CreateModel(spec.architecture_json, spec.seed, context.options().max_weights));
    BOSS_ASSIGN_OR_RETURN(start.model, CopyForTraining(context, *fresh));
  } else {
    BOSS_ASSIGN_OR_RETURN(const VersionKey key, InputVersion(context, 0));
    BOSS_ASSIGN_OR_RETURN(const VersionInfo info, context.store().GetVersion(key));
    BOSS_ASSIGN_OR_RETURN(const std::shared_ptr<const VelocityModel> base, LoadModelForJob(context, key));
    BOSS_ASSIGN_OR_RETURN(start.model, CopyForTraining(context, *base));
    start.manifest.architecture_json = info.manifest.architecture_json;
    start.manifest.label_names = info.manifest.label_names;
    start.manifest.default_steps = info.manifest.default_steps;
    start.manifest.default_guidance_scale = info.manifest.default_guidance_scale;
    start.manifest.parent = key.ToString();
  }
  return start;
}

// The data set in the shape of the model's samples; without labels for a model that takes none.
absl::StatusOr<ImageDataset> LoadDataset(const TrainSpec& spec, const VelocityModel& model) {
  BOSS_ASSIGN_OR_RETURN(ImageDataset data, OpenDataset(spec.dataset));
  if (data.size() == 0) return absl::FailedPreconditionError("dataset: it is empty");
  std::vector<int64_t> shape = model.SampleShape();
  const at::Tensor image = data.images[0];
  // A model of vectors takes pictures of as many pixels.
  if (image.sizes() != at::IntArrayRef(shape) && !(shape.size() == 1 && image.numel() == shape[0])) {
    return absl::FailedPreconditionError(absl::StrCat("dataset: pictures are [", absl::StrJoin(image.sizes(), ", "),
                                                      "], the model's samples [", absl::StrJoin(shape, ", "), "]"));
  }
  shape.insert(shape.begin(), data.size());
  data.images = data.images.reshape(shape);
  if (model.NumClasses() == 0) {
    data.labels = at::Tensor();
  } else if (!data.labels.defined()) {
    return absl::FailedPreconditionError("dataset: it has no labels, the model is class-conditional");
  } else if (data.labels.min().item<int64_t>() < 0 || data.labels.max().item<int64_t>() >= model.NumClasses()) {
    return absl::FailedPreconditionError(absl::StrCat("dataset: labels up to ", data.labels.max().item<int64_t>(),
                                                      ", the model takes ", model.NumClasses(), " classes"));
  }
  return data;
}

}  // namespace

absl::Status RunTrainJob(JobContext& context, const TrainSpec& spec) {
  context.SetPlan(
      {{JobStage::kPreparing, 0}, {JobStage::kTraining, TrainingWeight(spec.training, 1)}, {JobStage::kPublishing, 0}});
  BOSS_RETURN_IF_ERROR(context.EnterStage(JobStage::kPreparing, 1));
  BOSS_ASSIGN_OR_RETURN(StartingPoint start, LoadStart(context, spec));
  BOSS_ASSIGN_OR_RETURN(const ImageDataset data,
                        GuardTorch("data set", [&] { return LoadDataset(spec, *start.model); }));

  const int preview_steps = spec.default_steps > 0 ? spec.default_steps : kPreviewSteps;
  BOSS_ASSIGN_OR_RETURN(const NoiseSource preview_noises,
                        NoiseSource::Create(*start.model, NoiseUse::kPreview, spec.seed, 1.0, false));
  TrainingHooks hooks;
  if (ArePictures(start.model->SampleShape())) {
    hooks.preview = [&](const VelocityModel& ema, int64_t train_step) {
      return DrawPreview(context, ema, preview_noises, TimeGrid::Uniform(preview_steps), spec.training.preview_samples,
                         train_step);
    };
  }
  TrainerOptions options = spec.training.trainer;
  options.seed = spec.seed;
  Trainer trainer(std::move(start.model), options);
  FlowMatchingObjective objective(data.images, data.labels, spec.training.batch_size, spec.label_dropout, spec.flip);
  BOSS_ASSIGN_OR_RETURN(
      const std::unique_ptr<VelocityModel> ema,
      RunTraining(context, JobStage::kTraining, spec.training, trainer, objective, /*evaluations_per_step=*/1, hooks));

  BOSS_RETURN_IF_ERROR(context.EnterStage(JobStage::kPublishing, 1));
  Manifest manifest = std::move(start.manifest);
  if (!spec.label_names.empty()) {
    manifest.label_names = spec.label_names;
  } else if (manifest.label_names.empty() && ema->NumClasses() > 0) {
    manifest.label_names = data.label_names;
  }
  if (spec.default_steps > 0) manifest.default_steps = spec.default_steps;
  manifest.description = spec.description;
  return PublishResult(context, spec.output_model, spec.output_alias, std::move(manifest), *ema);
}

}  // namespace boss::server
