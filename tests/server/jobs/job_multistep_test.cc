// Multistep schedules of jobs: searched, refined, fitted after straightening, and judged.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_join.h"
#include "core/solver/solver.h"
#include "server/jobs/noise_source.h"
#include "tests/server/jobs/job_fixture.h"
#include "tests/support/tiny_models.h"

namespace boss::server {
namespace {

using testing::PayloadsOf;
using testing::RowsOf;

using JobMultistepTest = testing::JobTest;

TEST_F(JobMultistepTest, ASearchMakesMultistepSchedulesOfItsTrajectories) {
  const VersionKey key = PublishTeacher();
  OptimizeStepsizesSpec spec{"teacher", 10, 40};
  spec.batch_size = 16;
  spec.max_multistep_steps = 4;
  const Job job = RunToSuccess(spec);
  EXPECT_EQ(job.result.schedule_set, "bellman-euler-g1-k10");
  const auto stored = store_->FindScheduleSet(key, 1.0, SolverKind::kMultistep);
  ASSERT_TRUE(stored.ok()) << stored.status();
  EXPECT_EQ((*stored)->Name(), "multistep-g1-k10");
  EXPECT_EQ((*stored)->job_id, job.id);
  EXPECT_EQ((*store_->FindScheduleSet(key, 1.0))->Name(), "bellman-euler-g1-k10");
  const ScheduleSet& set = (*stored)->set;
  EXPECT_EQ(set.num_samples, 40);
  EXPECT_EQ(set.num_held_out, 10);
  ASSERT_EQ(set.schedules.size(), 4u);
  for (const Schedule& schedule : set.schedules) {
    EXPECT_EQ(schedule.coefficients.size(), schedule.time_grid.steps());
    EXPECT_GT(schedule.held_out_error, 0);
    EXPECT_LT(schedule.fit_error, 1);
  }
  EXPECT_LT(set.schedules[3].held_out_error, set.schedules[0].held_out_error);
  // The trajectories, and for each K a fit of every noise at least.
  EXPECT_GE(job.result.velocity_evaluations, 40 * 10 + 40 * (1 + 2 + 3 + 4));
  EXPECT_LE(job.result.velocity_evaluations, 40 * 10 + 150 * (1 + 2 + 3 + 4));
  EXPECT_EQ(job.progress.fraction, 1);

  // As judged on other noises.
  EvaluateSpec judge;
  judge.model = "teacher";
  judge.steps = {3, 4};
  judge.num_samples = 64;
  judge.k_max = 10;
  judge.reference_dataset = "";
  const Job euler = RunToSuccess(judge);
  judge.solver = SolverKind::kMultistep;
  const Job multistep = RunToSuccess(judge);
  EXPECT_EQ(RowsOf(multistep),
            (std::vector<std::string>{"teacher@1 uniform 3 uniform", "teacher@1 uniform 4 uniform",
                                      "teacher@1 multistep 3 bellman", "teacher@1 multistep 4 bellman"}));
  ASSERT_EQ(euler.result.evaluation.size(), 4u);
  for (size_t row = 2; row < 4; ++row) {
    EXPECT_EQ(multistep.result.evaluation[row].schedule_set, "multistep-g1-k10");
    EXPECT_EQ(multistep.result.evaluation[row].nfe, euler.result.evaluation[row].nfe);
    EXPECT_LT(multistep.result.evaluation[row].trajectory_error, euler.result.evaluation[row].trajectory_error);
  }

  // What the set lacks has no row.
  judge.steps = {4, 5};
  const Job beyond = RunToSuccess(judge);
  EXPECT_EQ(RowsOf(beyond), (std::vector<std::string>{"teacher@1 uniform 4 uniform", "teacher@1 uniform 5 uniform",
                                                      "teacher@1 multistep 4 bellman"}));
  std::vector<std::string> texts;
  for (const JobMessage& message : PayloadsOf<JobMessage>(Follow(beyond.id))) texts.push_back(message.text);
  const std::string told = "the schedule set multistep-g1-k10 of teacher@1 has no schedule of 5 steps: no row";
  EXPECT_EQ(std::count(texts.begin(), texts.end(), told), 1) << absl::StrJoin(texts, "\n");
  judge.schedules.uniform = false;
  EXPECT_EQ(RowsOf(RunToSuccess(judge)), std::vector<std::string>{"teacher@1 multistep 4 bellman"});
  // Unless it is required, or there is no row at all.
  judge.steps = {5};
  EXPECT_EQ(Finish(Submit(judge).id).error.code(), absl::StatusCode::kFailedPrecondition);
  judge.schedules.uniform = judge.schedules.require_bellman = true;
  const absl::Status refused = Finish(Submit(judge).id).error;
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(std::string(refused.message()).find("multistep-g1-k10 has those in [1, 4]"), std::string::npos) << refused;
}

TEST_F(JobMultistepTest, ACrashedMultistepSearchHasTheSameResultBitForBit) {
  const VersionKey key = PublishTeacher();
  OptimizeStepsizesSpec spec{"teacher", 6, 12};
  spec.batch_size = 4;
  spec.max_multistep_steps = 3;
  spec.schedule_set = "whole";
  const int64_t before = executor_.runs();
  RunToSuccess(spec);
  const int64_t units = executor_.runs() - before;
  const auto whole = *store_->FindScheduleSet(key, "whole-multistep");
  ASSERT_EQ(whole->set.schedules.size(), 3u);
  // Among the trajectories, among the fits of few steps, and shortly before the end.
  const std::vector<int64_t> crashes = {units / 4, units / 2, units - 3};
  for (const int64_t at : crashes) {
    spec.schedule_set = "crashed-" + std::to_string(at);
    executor_.BlockAt(executor_.runs() + at);
    const Job job = Submit(spec);
    executor_.WaitUntilBlocked();
    Crash();
    EXPECT_EQ(Finish(job.id).state, JobState::kSucceeded);
    const auto crashed = store_->FindScheduleSet(key, spec.schedule_set + "-multistep");
    ASSERT_TRUE(crashed.ok()) << crashed.status();
    ASSERT_EQ((*crashed)->set.schedules.size(), 3u);
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ((*crashed)->set.schedules[i].coefficients, whole->set.schedules[i].coefficients);
      EXPECT_EQ((*crashed)->set.schedules[i].knots, whole->set.schedules[i].knots);
      EXPECT_EQ((*crashed)->set.schedules[i].held_out_error, whole->set.schedules[i].held_out_error);
    }
  }
}

TEST_F(JobMultistepTest, MultistepSchedulesNeedTwoTrajectoriesAndAsManyIntervals) {
  PublishTeacher();
  OptimizeStepsizesSpec spec{"teacher", 6, 1};
  spec.max_multistep_steps = 2;
  EXPECT_EQ(ValidateSpec(spec).code(), absl::StatusCode::kInvalidArgument);
  spec.num_samples = 2;
  EXPECT_TRUE(ValidateSpec(spec).ok());
  spec.max_multistep_steps = 7;
  EXPECT_EQ(ValidateSpec(spec).code(), absl::StatusCode::kInvalidArgument);
  // Without any there is nothing to refine.
  spec.max_multistep_steps = 2;
  spec.multistep_refinement = 100;
  EXPECT_TRUE(ValidateSpec(spec).ok());
  spec.max_multistep_steps = 0;
  EXPECT_EQ(ValidateSpec(spec).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(JobMultistepTest, ARefinementSpendsItsEvaluationsAndIsNeverWorseOnTheHeldOutNoises) {
  const VersionKey key = PublishTeacher();
  OptimizeStepsizesSpec spec{"teacher", 12, 20};
  spec.max_multistep_steps = 4;
  const Job plain = RunToSuccess(spec);
  const auto before = *store_->FindScheduleSet(key, 1.0, SolverKind::kMultistep);
  spec.multistep_refinement = 20 * 4 * 5;
  const Job refined = RunToSuccess(spec);
  const auto after = *store_->FindScheduleSet(key, 1.0, SolverKind::kMultistep);
  EXPECT_EQ(before->set.refinement, 0);
  EXPECT_EQ(after->set.refinement, spec.multistep_refinement);
  const int64_t spent = refined.result.velocity_evaluations - plain.result.velocity_evaluations;
  EXPECT_GE(spent, 20 * (2 + 3 + 4));
  EXPECT_LE(spent, 4 * spec.multistep_refinement);
  EXPECT_EQ(refined.progress.fraction, 1);
  double sum_before = 0, sum_after = 0;
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_LE(after->set.schedules[i].held_out_error, before->set.schedules[i].held_out_error);
    sum_before += before->set.schedules[i].held_out_error;
    sum_after += after->set.schedules[i].held_out_error;
  }
  EXPECT_LT(sum_after, sum_before);
}

TEST_F(JobMultistepTest, AStraightenedVersionGetsCoefficientsThatAreFittedToItsHeldOutNoises) {
  const VersionKey teacher = PublishTeacher();
  DistillSpec spec = ToyDistillation("student");
  spec.num_noises = 400;
  spec.evaluation.emplace();
  spec.evaluation->steps = {3};
  spec.evaluation->num_samples = 200;
  spec.evaluation->k_max = 8;
  spec.fit_multistep = true;
  const Job job = RunToSuccess(spec);
  const NativeSchedule native = *store_->FindSchedule({"student", 1}, 3, 1.0);
  EXPECT_EQ(native.schedule.solver, SolverKind::kMultistep);
  EXPECT_EQ(native.schedule.coefficients.size(), 3u);
  EXPECT_GT(native.schedule.held_out_error, 0);
  const Schedule searched = (*store_->FindScheduleSet(teacher, 1.0))->set.schedules[2];
  EXPECT_EQ(native.schedule.knots, searched.knots);
  EXPECT_EQ(native.schedule.total_cost, searched.total_cost);
  EXPECT_EQ(job.result.schedule->coefficients, native.schedule.coefficients);
  // Judged on noises that neither training nor the fit has seen.
  const std::vector<std::string> rows = RowsOf(job);
  ASSERT_EQ(rows.size(), 5u);
  EXPECT_EQ(rows[3], "student@1 straightened 3 bellman");
  EXPECT_EQ(rows[4], "student@1 straightened-multistep 3 bellman");
  const std::vector<EvaluationRow>& judged = job.result.evaluation;
  EXPECT_EQ(judged[3].solver, SolverKind::kEuler);
  EXPECT_EQ(judged[4].solver, SolverKind::kMultistep);
  EXPECT_EQ(judged[4].nfe, judged[3].nfe);
  EXPECT_LT(judged[4].trajectory_error, judged[3].trajectory_error);

  EvaluateSpec judge = *spec.evaluation;
  judge.model = "student";
  EXPECT_EQ(RowsOf(RunToSuccess(judge)), (std::vector<std::string>{rows[3], rows[4]}));
  judge.solver = SolverKind::kMultistep;
  EXPECT_EQ(RowsOf(RunToSuccess(judge)), std::vector<std::string>{rows[4]});
  // Other solvers are judged beside its own schedules.
  OptimizeStepsizesSpec search{"student", 8, 16};
  search.max_multistep_steps = 3;
  RunToSuccess(search);
  judge.solver = SolverKind::kEuler;
  judge.steps = {3, 4};
  judge.other_solvers = {SolverKind::kHeun, SolverKind::kMultistep};
  EXPECT_EQ(RowsOf(RunToSuccess(judge)),
            (std::vector<std::string>{rows[3], rows[4], "student@1 heun 2 uniform", "student@1 multistep 3 bellman"}));

  spec.fit_multistep = false;
  spec.evaluation.reset();
  RunToSuccess(spec);
  EXPECT_EQ(store_->FindSchedule({"student", 2}, 3, 1.0)->schedule.solver, SolverKind::kEuler);
  spec.fit_multistep = true;
  spec.held_out_share = 0;
  EXPECT_EQ(ValidateSpec(spec).code(), absl::StatusCode::kInvalidArgument);
  spec.held_out_share = 0.1;
  EXPECT_TRUE(ValidateSpec(spec).ok());
  spec.method = DistillMethod::kReflow;
  EXPECT_EQ(ValidateSpec(spec).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(JobMultistepTest, AGuidedSearchMakesASetOfItsScale) {
  const VersionKey key = boss::testing::PublishTinyModel(*store_, "labels", boss::testing::kTinyVectorArchitecture);
  OptimizeStepsizesSpec spec{"labels", 10, 40};
  spec.guidance_scale = 2;
  spec.max_multistep_steps = 3;
  const Job job = RunToSuccess(spec);
  EXPECT_EQ(store_->FindScheduleSet(key, 1.0, SolverKind::kMultistep).status().code(), absl::StatusCode::kNotFound);
  const auto stored = store_->FindScheduleSet(key, 2.0, SolverKind::kMultistep);
  ASSERT_TRUE(stored.ok()) << stored.status();
  EXPECT_EQ((*stored)->Name(), "multistep-g2-k10");
  EXPECT_EQ((*stored)->set.schedules.size(), 3u);
  // Each evaluation of a sample is two of the network.
  EXPECT_GE(job.result.velocity_evaluations, 2 * (40 * 10 + 40 * (1 + 2 + 3)));
  EXPECT_LE(job.result.velocity_evaluations, 2 * (40 * 10 + 150 * (1 + 2 + 3)));
  // The coefficients were fitted to guided velocities: their error is that of a guided sampler.
  const auto model = store_->LoadVersionModel(key);
  ASSERT_TRUE(model.ok()) << model.status();
  const auto noises = NoiseSource::Create(**model, NoiseUse::kSearch, spec.seed, 2.0, /*unconditional=*/false);
  ASSERT_TRUE(noises.ok()) << noises.status();
  const NoiseBatch held_out = noises->Draw(30, 10);
  const Schedule& schedule = (*stored)->set.schedules[2];
  const SolverOptions options{
      .solver = SolverKind::kMultistep, .time_grid = schedule.time_grid, .coefficients = schedule.coefficients};
  InlineExecutor executor;
  const auto solve = [&](const SolverOptions& how) {
    return *Solve(**model, held_out.noise, held_out.condition, how, 10, executor);
  };
  const at::Tensor difference = solve(options) - solve({.time_grid = TimeGrid::Uniform(10)});
  EXPECT_NEAR(difference.square().mean().sqrt().item<double>(), schedule.held_out_error, 1e-5);

  EvaluateSpec judge;
  judge.model = "labels";
  judge.steps = {3};
  judge.num_samples = 64;
  judge.k_max = 10;
  judge.guidance_scale = 2;
  judge.reference_dataset = "";
  judge.schedules.uniform = false;
  judge.other_solvers = {SolverKind::kMultistep};
  const std::vector<EvaluationRow> rows = RunToSuccess(judge).result.evaluation;
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].schedule_set, "bellman-euler-g2-k10");
  EXPECT_EQ(rows[1].schedule_set, "multistep-g2-k10");
  EXPECT_EQ(rows[1].nfe, 6);
  EXPECT_LT(rows[1].trajectory_error, rows[0].trajectory_error);
}

TEST_F(JobMultistepTest, ANamedMultistepSetIsJudgedWithItsCoefficients) {
  PublishTeacher();
  OptimizeStepsizesSpec search{"teacher", 10, 40};
  search.max_multistep_steps = 3;
  search.schedule_set = "mine";
  RunToSuccess(search);
  EvaluateSpec judge;
  judge.model = "teacher";
  judge.steps = {3};
  judge.num_samples = 64;
  judge.k_max = 10;
  judge.reference_dataset = "";
  judge.schedules.uniform = judge.schedules.bellman = false;
  judge.schedules.sets = {"mine", "mine-multistep"};
  const Job job = RunToSuccess(judge);
  const std::vector<EvaluationRow>& rows = job.result.evaluation;
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].solver, SolverKind::kEuler);
  EXPECT_EQ(rows[1].solver, SolverKind::kMultistep);
  EXPECT_EQ(rows[1].schedule_set, "mine-multistep");
  EXPECT_EQ(rows[1].nfe, rows[0].nfe);
  EXPECT_LT(rows[1].trajectory_error, rows[0].trajectory_error);
  for (const JobMessage& message : PayloadsOf<JobMessage>(Follow(job.id)))
    EXPECT_EQ(message.text.find("the solver is"), std::string::npos) << message.text;
}

TEST_F(JobMultistepTest, OtherSolversAreJudgedBesideEulersAtAsManyEvaluations) {
  PublishTeacher();
  EvaluateSpec judge;
  judge.model = "teacher";
  judge.steps = {2, 3, 4};
  judge.num_samples = 64;
  judge.k_max = 10;
  judge.reference_dataset = "";
  judge.other_solvers = {SolverKind::kHeun, SolverKind::kMultistep};
  const std::vector<std::string> uniform = {"teacher@1 uniform 2 uniform", "teacher@1 uniform 3 uniform",
                                            "teacher@1 uniform 4 uniform"};
  std::vector<std::string> expected = uniform;
  expected.insert(expected.end(), {"teacher@1 heun 1 uniform", "teacher@1 heun 2 uniform"});
  const Job without = RunToSuccess(judge);
  EXPECT_EQ(RowsOf(without), expected);
  EXPECT_EQ(without.result.evaluation[4].nfe, 4);
  EXPECT_EQ(without.result.evaluation[4].solver, SolverKind::kHeun);
  const std::vector<JobMessage> messages = PayloadsOf<JobMessage>(Follow(without.id));
  ASSERT_FALSE(messages.empty());
  EXPECT_NE(messages.back().text.find("no multistep schedules"), std::string::npos) << messages.back().text;

  OptimizeStepsizesSpec search{"teacher", 10, 40};
  search.max_multistep_steps = 3;
  RunToSuccess(search);
  judge.schedules.bellman = false;
  judge.steps = {2, 3, 4, 6};
  const Job with = RunToSuccess(judge);
  expected.insert(expected.begin() + 3, "teacher@1 uniform 6 uniform");
  expected.push_back("teacher@1 heun 3 uniform");
  expected.insert(expected.end(), {"teacher@1 multistep 2 bellman", "teacher@1 multistep 3 bellman"});
  EXPECT_EQ(RowsOf(with), expected);
  EXPECT_EQ(with.result.evaluation[8].schedule_set, "multistep-g1-k10");
  EXPECT_LT(with.result.evaluation[8].trajectory_error, with.result.evaluation[1].trajectory_error);
  // What has no row is told at once, with what there is.
  std::vector<std::string> texts;
  for (const JobMessage& message : PayloadsOf<JobMessage>(Follow(with.id))) texts.push_back(message.text);
  const std::string told =
      "multistep has no schedule of 4, 6 steps, the schedule set multistep-g1-k10 has those in [1, 3] "
      "(max_multistep_steps of the schedules): no row";
  EXPECT_EQ(std::count(texts.begin(), texts.end(), told), 1) << absl::StrJoin(texts, "\n");
  judge.steps = {2, 3};
  for (const JobMessage& message : PayloadsOf<JobMessage>(Follow(RunToSuccess(judge).id)))
    EXPECT_EQ(message.text.find("no row"), std::string::npos) << message.text;

  const std::vector<std::vector<SolverKind>> refused = {
      {SolverKind::kEuler}, {SolverKind::kRk45}, {SolverKind::kHeun, SolverKind::kHeun}};
  for (const std::vector<SolverKind>& wrong : refused) {
    judge.other_solvers = wrong;
    EXPECT_EQ(ValidateSpec(judge).code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace boss::server
