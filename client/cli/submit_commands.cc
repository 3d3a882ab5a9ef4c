// bossctl jobs train|optimize-stepsizes|distill|evaluate
#include <google/protobuf/util/json_util.h>

#include <memory>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/cli/evaluate_options.h"
#include "client/cli/files.h"
#include "client/cli/job_follower.h"
#include "client/cli/options.h"
#include "client/cli/parse.h"
#include "client/format.h"

namespace boss::client {
namespace {

using boss::v1::DistillSpec;
using boss::v1::EvaluateSpec;
using boss::v1::Job;
using boss::v1::TrainingOptions;

// Adds what every kind of job has, and the command itself. The spec's options are added afterwards, so that they win
// over the file of --spec.
template <typename Request>
CLI::App* AddSubmit(CLI::App& jobs, Context& context, const std::string& name, const std::string& help,
                    std::shared_ptr<Request> request, absl::StatusOr<Job> (Client::*method)(Request)) {
  CLI::App* command = jobs.add_subcommand(name, help);
  Request* r = request.get();
  auto wait = std::make_shared<bool>(false);
  Add<std::string>(
      *command, "--spec",
      [r](const std::string& path) {
        const auto text = ReadTextFile(path);
        if (!text.ok()) throw CLI::ValidationError("--spec", std::string(text.status().message()));
        const auto status = google::protobuf::util::JsonStringToMessage(*text, r->mutable_spec());
        if (!status.ok()) throw CLI::ValidationError("--spec", absl::StrCat(path, ": ", std::string(status.message())));
      },
      "JSON file of the whole spec; other options win over it");
  command->add_flag("-w,--wait,--follow", *wait, "Follow the job to its end and print its result");
  Add<std::string>(
      *command, "--name", [r](const std::string& v) { r->mutable_options()->set_display_name(v); }, "A title");
  AddLabels(*command, [r] { return r->mutable_options()->mutable_labels(); });
  Add<int32_t>(
      *command, "--priority", [r](int32_t v) { r->mutable_options()->set_priority(v); },
      "-100 to 100; higher goes first");
  Add<double>(
      *command, "--deadline",
      [r](double seconds) { SetTime(absl::Now() + absl::Seconds(seconds), r->mutable_options()->mutable_deadline()); },
      "Seconds from now in which the job must finish")
      ->check(CLI::PositiveNumber);
  Add<double>(
      *command, "--retention",
      [r](double seconds) { SetDuration(absl::Seconds(seconds), r->mutable_options()->mutable_retention()); },
      "Seconds that the finished job is kept")
      ->check(CLI::PositiveNumber);
  Add<int32_t>(
      *command, "--max-crashes", [r](int32_t v) { r->mutable_options()->set_max_crashes(v); },
      "How often the job is started again after it crashed the server; default 3")
      ->check(CLI::NonNegativeNumber);
  Add<std::string>(
      *command, "--request-id", [r](const std::string& v) { r->set_request_id(v); },
      "The same id never makes two jobs; default: a random one");
  AddFlag(
      *command, "--validate-only", [r] { r->set_validate_only(true); }, "Check everything, submit nothing");
  SetCommand(*command, context, [request, wait, method](Context& context) {
    const absl::StatusOr<Job> job = (context.client().*method)(*request);
    if (!job.ok()) return context.Fail(job.status());
    if (*wait && !request->validate_only()) {
      context.err() << "submitted " << job->name() << std::endl;
      return FollowJob(context, job->name(), 1);
    }
    if (context.json) {
      context.PrintJson(*job);
    } else if (request->validate_only()) {
      context.out() << "the job is valid; nothing was submitted\n" << RenderJob(*job);
    } else {
      context.out() << job->name() << "\n";
    }
    return int{kExitOk};
  });
  return command;
}

void AddTraining(CLI::App& app, std::function<TrainingOptions*()> options) {
  app.option_defaults()->group("Training");
  Add<int64_t>(
      app, "--train-steps", [options](int64_t v) { options()->set_train_steps(v); }, "Train steps; default 1000");
  Add<int64_t>(
      app, "--batch-size", [options](int64_t v) { options()->set_batch_size(v); }, "Samples of one batch; default 32");
  Add<double>(
      app, "--learning-rate", [options](double v) { options()->set_learning_rate(v); }, "Default 2e-4");
  Add<int64_t>(
      app, "--warmup-steps", [options](int64_t v) { options()->set_warmup_steps(v); }, "Train steps of linear warmup");
  Add<int64_t>(
      app, "--decay-steps", [options](int64_t v) { options()->set_decay_steps(v); }, "Where a cosine decay ends");
  Add<double>(
      app, "--gradient-clip", [options](double v) { options()->set_gradient_clip(v); },
      "L2 bound; default 1, 0 is none");
  Add<double>(
      app, "--ema-rate", [options](double v) { options()->set_ema_rate(v); },
      "Decay of the averaged weights; default 0.999");
  Add<int64_t>(
      app, "--accumulation-steps", [options](int64_t v) { options()->set_accumulation_steps(v); },
      "Batches of one train step");
  Add<int64_t>(
      app, "--checkpoint-interval", [options](int64_t v) { options()->set_checkpoint_interval(v); },
      "Train steps between saves; default 500");
  Add<int64_t>(
      app, "--metrics-interval", [options](int64_t v) { options()->set_metrics_interval(v); },
      "Train steps between metrics; default 10");
  Add<int64_t>(
      app, "--preview-interval", [options](int64_t v) { options()->set_preview_interval(v); },
      "Train steps between preview grids; default none");
  app.option_defaults()->group("Options");
}

void AddTrain(CLI::App& jobs, Context& context) {
  auto request = std::make_shared<boss::v1::TrainJobRequest>();
  CLI::App& app =
      *AddSubmit(jobs, context, "train", "Train a flow from a data set and publish it", request, &Client::TrainJob);
  boss::v1::TrainJobRequest* r = request.get();
  const auto spec = [r] { return r->mutable_spec(); };
  Add<std::string>(
      app, "--dataset", [spec](const std::string& v) { spec()->set_dataset(v); },
      "fashion-mnist-train, fashion-mnist-test, idx:IMAGES[,LABELS] or png:FOLDER on the server");
  Add<std::string>(
      app, "--architecture",
      [spec](const std::string& path) {
        auto text = ReadTextFile(path);
        if (!text.ok()) throw CLI::ValidationError("--architecture", std::string(text.status().message()));
        spec()->set_architecture_json(*std::move(text));
      },
      "JSON file that describes a new network");
  Add<std::string>(
      app, "--init-model", [spec](const std::string& v) { spec()->set_init_model(v); }, "Version to go on from");
  Add<std::string>(
      app, "-o,--output", [spec](const std::string& v) { spec()->set_output_model(v); }, "Model to publish to");
  Add<std::string>(
      app, "--alias", [spec](const std::string& v) { spec()->set_output_alias(v); }, "Alias for the new version");
  Add<uint64_t>(
      app, "--seed", [spec](uint64_t v) { spec()->set_seed(v); }, "Of everything random");
  Add<double>(
      app, "--label-dropout", [spec](double v) { spec()->set_label_dropout(v); },
      "Share of dropped labels; default 0.1");
  AddFlag(
      app, "--flip", [spec] { spec()->set_flip(true); }, "Mirror half of the images");
  Add<int32_t>(
      app, "--default-steps", [spec](int32_t v) { spec()->set_default_steps(v); },
      "Solver steps where a request says none");
  Add<std::string>(
      app, "--description", [spec](const std::string& v) { spec()->set_description(v); }, "Free text");
  AddTraining(app, [spec] { return spec()->mutable_training(); });
}

void AddOptimizeStepsizes(CLI::App& jobs, Context& context) {
  auto request = std::make_shared<boss::v1::OptimizeStepsizesJobRequest>();
  CLI::App& app =
      *AddSubmit(jobs, context, "optimize-stepsizes", "Find the Bellman-optimal schedule of every number of steps",
                 request, &Client::OptimizeStepsizesJob);
  boss::v1::OptimizeStepsizesJobRequest* r = request.get();
  const auto spec = [r] { return r->mutable_spec(); };
  Add<std::string>(
      app, "-m,--model", [spec](const std::string& v) { spec()->set_model(v); }, "Version");
  Add<int32_t>(
      app, "--k-max", [spec](int32_t v) { spec()->set_k_max(v); }, "Intervals of the fine grid; default 100");
  Add<int32_t>(
      app, "--num-samples", [spec](int32_t v) { spec()->set_num_samples(v); }, "Trajectories; default 100");
  Add<double>(
      app, "-g,--guidance", [spec](double v) { spec()->set_guidance_scale(v); }, "Guidance scale; default 1");
  Add<uint64_t>(
      app, "--seed", [spec](uint64_t v) { spec()->set_seed(v); }, "Of the noises");
  Add<int64_t>(
      app, "--batch-size", [spec](int64_t v) { spec()->set_batch_size(v); }, "Trajectories at a time");
  AddFlag(
      app, "--unconditional", [spec] { spec()->set_unconditional(true); }, "Without class labels");
  AddParsed(
      app, "--solver", ParseSolver, [spec](boss::v1::Solver v) { spec()->set_solver(v); }, "Default euler");
  Add<std::string>(
      app, "--schedule-set", [spec](const std::string& v) { spec()->set_schedule_set(v); }, "Name for the schedules");
  Add<int32_t>(
      app, "--multistep-steps", [spec](int32_t v) { spec()->set_max_multistep_steps(v); },
      "Also multistep schedules of up to this many steps; 0 for none; default 8, with --schedule-set none");
  Add<int64_t>(
      app, "--multistep-refinement", [spec](int64_t v) { spec()->set_multistep_refinement(v); },
      "Evaluations for each K that a search of single times may take besides; default none");
  AddFineGrid(app, spec);
}

void AddDistill(CLI::App& jobs, Context& context) {
  auto request = std::make_shared<boss::v1::DistillJobRequest>();
  CLI::App& app = *AddSubmit(jobs, context, "distill", "Straighten a model to a Bellman schedule and publish it",
                             request, &Client::DistillJob);
  boss::v1::DistillJobRequest* r = request.get();
  const auto spec = [r] { return r->mutable_spec(); };
  Add<std::string>(
      app, "-m,--model", [spec](const std::string& v) { spec()->set_model(v); }, "Teacher");
  const auto set_method = [spec](const std::string& v) {
    spec()->set_method(v == "boss" ? DistillSpec::BOSS : DistillSpec::REFLOW);
  };
  Add<std::string>(app, "--method", set_method, "boss (default) or reflow")->check(CLI::IsMember({"boss", "reflow"}));
  Add<int32_t>(
      app, "-k,--steps", [spec](int32_t v) { spec()->set_steps(v); }, "K to straighten for; default 4");
  Add<int32_t>(
      app, "--lora-rank",
      [spec](int32_t v) {
        spec()->set_tuning(DistillSpec::LORA);
        spec()->mutable_lora()->set_rank(v);
      },
      "Train low-rank deltas of this rank instead of every weight")
      ->check(CLI::PositiveNumber);
  Add<double>(
      app, "--lora-alpha",
      [spec](double v) {
        spec()->set_tuning(DistillSpec::LORA);
        spec()->mutable_lora()->set_alpha(v);
      },
      "Default: the rank")
      ->check(CLI::PositiveNumber);
  Add<int32_t>(
      app, "--k-max", [spec](int32_t v) { spec()->set_k_max(v); }, "Intervals of the fine grid; default 100");
  Add<int32_t>(
      app, "--num-samples", [spec](int32_t v) { spec()->set_num_samples(v); }, "Stage 1: trajectories; default 100");
  AddFineGrid(app, spec);
  AddFlag(
      app, "--fresh-schedule", [spec] { spec()->set_fresh_schedule(true); }, "Run stage 1 even if there are schedules");
  Add<int64_t>(
      app, "--num-noises", [spec](int64_t v) { spec()->set_num_noises(v); },
      "Stage 2: trajectories cut to pairs; default 1024");
  Add<double>(
      app, "--held-out-share", [spec](double v) { spec()->set_held_out_share(v); }, "Default 0.1");
  AddFlag(
      app, "--regenerate-pairs", [spec] { spec()->set_regenerate_pairs(true); }, "Store no pairs, draw fresh ones");
  Add<std::string>(
      app, "--schedule-set", [spec](const std::string& v) { spec()->set_schedule_set(v); },
      "Straighten to the times of this set of the teacher, e.g. a multistep one, instead of Euler's");
  Add<bool>(
      app, "--fit-multistep", [spec](bool v) { spec()->set_fit_multistep(v); },
      "true or false: also fit multistep coefficients to the held-out noises; default true for boss with 64 of them");
  Add<double>(
      app, "-g,--guidance", [spec](double v) { spec()->set_guidance_scale(v); }, "Guidance scale; default 1");
  AddFlag(
      app, "--unconditional", [spec] { spec()->set_unconditional(true); }, "Without class labels");
  Add<uint64_t>(
      app, "--seed", [spec](uint64_t v) { spec()->set_seed(v); }, "Of everything random");
  Add<std::string>(
      app, "-o,--output", [spec](const std::string& v) { spec()->set_output_model(v); }, "Default: the teacher's");
  Add<std::string>(
      app, "--alias", [spec](const std::string& v) { spec()->set_output_alias(v); }, "Alias for the new version");
  Add<std::string>(
      app, "--description", [spec](const std::string& v) { spec()->set_description(v); }, "Free text");
  AddTraining(app, [spec] { return spec()->mutable_training(); });
  app.option_defaults()->group("Evaluation at the end (any of these asks for it)");
  AddFlag(
      app, "--evaluate", [spec] { spec()->mutable_evaluation(); }, "With the defaults");
  AddJudgingOptions(
      app, [spec] { return spec()->mutable_evaluation(); }, "--evaluation-");
}

void AddEvaluate(CLI::App& jobs, Context& context) {
  auto request = std::make_shared<boss::v1::EvaluateJobRequest>();
  CLI::App& app = *AddSubmit(jobs, context, "evaluate", "Judge versions on numbers of steps and schedules", request,
                             &Client::EvaluateJob);
  boss::v1::EvaluateJobRequest* r = request.get();
  const auto spec = [r] { return r->mutable_spec(); };
  Add<std::vector<std::string>>(
      app, "-m,--model",
      [spec](const std::vector<std::string>& models) {
        spec()->set_model(models[0]);
        spec()->mutable_other_models()->Assign(models.begin() + 1, models.end());
      },
      "Version; may be repeated, all are judged on the same noises");
  Add<std::string>(
      app, "--schedules",
      [spec](const std::string& text) {
        for (const absl::string_view part : absl::StrSplit(text, ',')) {
          if (part == "uniform") {
            spec()->add_schedules(boss::v1::SCHEDULE_KIND_UNIFORM);
          } else if (part == "bellman") {
            spec()->add_schedules(boss::v1::SCHEDULE_KIND_BELLMAN);
          } else if (part == "named") {
            spec()->add_schedules(boss::v1::SCHEDULE_KIND_NAMED);
          } else {
            spec()->add_schedule_sets(std::string(part));
          }
        }
      },
      "uniform, bellman, named (all that clients named), or sets by name: uniform,bellman,mine; default: uniform, and "
      "bellman where the version has it");
  AddSamplerOptions(app, spec);
  AddJudgingOptions(app, spec, "--");
}

}  // namespace

void AddSubmitCommands(CLI::App& jobs, Context& context) {
  AddTrain(jobs, context);
  AddOptimizeStepsizes(jobs, context);
  AddDistill(jobs, context);
  AddEvaluate(jobs, context);
}

}  // namespace boss::client
