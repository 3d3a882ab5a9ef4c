// Schedules over the wire: named searches over any fine grid, times from elsewhere, and what requests do with them.
#include <gmock/gmock.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/integration/bossd_fixture.h"

namespace boss::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class SchedulesTest : public BossdTest {
 protected:
  void SetUp() override {
    // Their names sort before what a version's begins with, "vectors@".
    for (const char* name : {"vectors-b", "vectors.c"}) WriteSeedModel(folder_ / "seeds", name, kTinyVectorArchitecture);
    Start();
  }

  static v1::ImportScheduleRequest Import(const std::string& name, const std::vector<std::vector<double>>& grids) {
    v1::ImportScheduleRequest request;
    request.set_model("vectors");
    request.set_name(name);
    for (const std::vector<double>& times : grids)
      request.add_schedules()->mutable_time_grid()->Add(times.begin(), times.end());
    return request;
  }
  grpc::Status Call(const v1::ImportScheduleRequest& request, v1::ScheduleSet& set) {
    grpc::ClientContext context;
    return models_->ImportSchedule(&context, request, &set);
  }
  grpc::Status Call(const v1::ImportScheduleRequest& request) {
    v1::ScheduleSet set;
    return Call(request, set);
  }
  grpc::Status Get(const std::string& name, int steps, v1::ScheduleSet& set) {
    grpc::ClientContext context;
    v1::GetScheduleRequest request;
    request.set_model("vectors");
    request.set_name(name);
    request.set_steps(steps);
    return models_->GetSchedule(&context, request, &set);
  }
  grpc::Status Delete(const std::string& name) {
    grpc::ClientContext context;
    v1::DeleteScheduleRequest request;
    request.set_model("vectors");
    request.set_name(name);
    google::protobuf::Empty response;
    return models_->DeleteSchedule(&context, request, &response);
  }
  std::vector<std::string> Names() {
    grpc::ClientContext context;
    v1::ListSchedulesRequest request;
    request.set_model("vectors");
    v1::ListSchedulesResponse response;
    EXPECT_TRUE(models_->ListSchedules(&context, request, &response).ok());
    std::vector<std::string> names;
    for (const v1::ScheduleSet& set : response.schedule_sets()) names.push_back(set.name());
    return names;
  }
  v1::GenerateRequest Named(const std::string& name, int steps) {
    v1::GenerateRequest request = Request("vectors", 2, steps);
    request.set_schedule(v1::SCHEDULE_KIND_NAMED);
    request.set_schedule_set(name);
    return request;
  }
  // The job when it is final.
  v1::Job Finish(const v1::Job& job) {
    grpc::Status status;
    Watch(job.name(), 1, status);
    EXPECT_TRUE(status.ok()) << status.error_message();
    grpc::ClientContext context;
    v1::GetJobRequest request;
    request.set_name(job.name());
    v1::Job finished;
    EXPECT_TRUE(jobs_->GetJob(&context, request, &finished).ok());
    EXPECT_EQ(finished.state(), v1::Job::SUCCEEDED) << finished.error().message();
    return finished;
  }
};

TEST_F(SchedulesTest, PagesGiveEverySetOfEveryModelOnce) {
  for (const char* model : {"vectors", "vectors-b", "vectors.c"}) {
    v1::ImportScheduleRequest request = Import("ays", {{0, 0.1, 0.4, 1}});
    request.set_model(model);
    ASSERT_TRUE(Call(request).ok());
  }
  std::vector<std::string> listed;
  v1::ListSchedulesRequest request;
  request.set_page_size(1);
  do {
    grpc::ClientContext context;
    v1::ListSchedulesResponse page;
    const grpc::Status status = models_->ListSchedules(&context, request, &page);
    ASSERT_TRUE(status.ok()) << status.error_message();
    for (const v1::ScheduleSet& set : page.schedule_sets()) listed.push_back(set.model());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty() && listed.size() < 10);
  EXPECT_THAT(listed, ElementsAre("vectors@1", "vectors-b@1", "vectors.c@1"));
}

TEST_F(SchedulesTest, TimesFromElsewhereServeUnderTheirName) {
  v1::ScheduleSet set;
  const grpc::Status imported = Call(Import("ays", {{0, 0.1, 0.4, 1}, {0, 0.7, 1}}), set);
  ASSERT_TRUE(imported.ok()) << imported.error_message();
  EXPECT_EQ(set.name(), "ays");
  EXPECT_EQ(set.model(), "vectors@1");
  EXPECT_EQ(set.kind(), v1::SCHEDULE_KIND_EXPLICIT);
  EXPECT_EQ(set.k_max(), 0);
  EXPECT_GT(set.create_time().seconds(), 0);
  ASSERT_EQ(set.schedules_size(), 2);
  EXPECT_EQ(set.schedules(0).steps(), 2);
  EXPECT_THAT(set.schedules(1).time_grid(), ElementsAre(0, 0.1, 0.4, 1));

  const Generated named = Generate(Named("ays", 3));
  ASSERT_TRUE(named.status.ok()) << named.status.error_message();
  EXPECT_EQ(named.accepted.schedule(), v1::SCHEDULE_KIND_NAMED);
  EXPECT_EQ(named.accepted.schedule_set(), "ays");
  EXPECT_THAT(named.accepted.warnings(), IsEmpty());
  v1::GenerateRequest explicit_times = Request("vectors", 2, 0);
  explicit_times.set_schedule(v1::SCHEDULE_KIND_EXPLICIT);
  for (const double t : {0.0, 0.1, 0.4, 1.0}) explicit_times.add_time_grid(t);
  EXPECT_EQ(named.Bytes(), Generate(explicit_times).Bytes());

  v1::GenerateRequest other = Named("ays", 3);
  other.set_solver(v1::SOLVER_HEUN);
  other.add_class_labels(1);
  other.set_guidance_scale(2);
  const Generated warned = Generate(other);
  ASSERT_TRUE(warned.status.ok()) << warned.status.error_message();
  EXPECT_THAT(warned.accepted.warnings(), ElementsAre(HasSubstr("made for euler"), HasSubstr("guidance scale 1")));
  const grpc::Status wrong_steps = Generate(Named("ays", 4)).status;
  EXPECT_EQ(wrong_steps.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(FieldOfError(wrong_steps), "steps");
  EXPECT_THAT(wrong_steps.error_message(), HasSubstr("one of 2, 3"));

  // Nobody gets it who does not name it.
  EXPECT_EQ(Generate(Request("vectors", 1, 3)).accepted.schedule(), v1::SCHEDULE_KIND_UNIFORM);
  ASSERT_EQ(Stop(), 0);
  Start();
  EXPECT_EQ(Generate(Named("ays", 3)).Bytes(), named.Bytes());
}

TEST_F(SchedulesTest, ANameIsTakenUntilItIsReplacedOrDeleted) {
  v1::ImportScheduleRequest request = Import("ays", {{0, 0.5, 1}});
  request.set_validate_only(true);
  ASSERT_TRUE(Call(request).ok());
  EXPECT_THAT(Names(), IsEmpty());
  request.set_validate_only(false);
  ASSERT_TRUE(Call(request).ok());
  for (const bool validate_only : {false, true}) {
    request.set_validate_only(validate_only);
    const grpc::Status taken = Call(request);
    EXPECT_EQ(taken.error_code(), grpc::StatusCode::ALREADY_EXISTS);
    EXPECT_EQ(FieldOfError(taken), "name");
  }
  request = Import("ays", {{0, 0.25, 1}});
  request.set_replace(true);
  ASSERT_TRUE(Call(request).ok());
  v1::ScheduleSet set;
  ASSERT_TRUE(Get("ays", 2, set).ok());
  EXPECT_THAT(set.schedules(0).time_grid(), ElementsAre(0, 0.25, 1));
  const grpc::Status no_such_steps = Get("ays", 3, set);
  EXPECT_EQ(no_such_steps.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(FieldOfError(no_such_steps), "steps");

  ASSERT_TRUE(Delete("ays").ok());
  const grpc::Status gone = Delete("ays");
  EXPECT_EQ(gone.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(FieldOfError(gone), "name");
  EXPECT_EQ(Get("ays", 2, set).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Generate(Named("ays", 2)).status.error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(SchedulesTest, WrongImportsNameTheField) {
  EXPECT_EQ(FieldOfError(Call(Import("ays", {{0, 0.6, 0.5, 1}}))), "schedules");
  EXPECT_EQ(FieldOfError(Call(Import("ays", {{0.1, 0.6, 1}}))), "schedules");
  EXPECT_EQ(FieldOfError(Call(Import("ays", {}))), "schedules");
  EXPECT_EQ(FieldOfError(Call(Import("bellman-mine", {{0, 1}}))), "name");
  EXPECT_EQ(FieldOfError(Call(Import("../up", {{0, 1}}))), "name");
  v1::ImportScheduleRequest elsewhere = Import("ays", {{0, 1}});
  elsewhere.set_model("unheard-of");
  EXPECT_EQ(Call(elsewhere).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(Names(), IsEmpty());
}

TEST_F(SchedulesTest, ASearchMakesMultistepSchedulesWhichAreTheModelsDefault) {
  v1::GenerateRequest asked = Request("vectors", 2, 3);
  asked.set_solver(v1::SOLVER_MULTISTEP);
  EXPECT_EQ(Generate(asked).status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  v1::OptimizeStepsizesJobRequest search;
  search.mutable_spec()->set_model("vectors");
  search.mutable_spec()->set_k_max(8);
  search.mutable_spec()->set_num_samples(12);
  grpc::ClientContext context;
  v1::Job job;
  const grpc::Status submitted = jobs_->OptimizeStepsizesJob(&context, search, &job);
  ASSERT_TRUE(submitted.ok()) << submitted.error_message();
  EXPECT_EQ(job.optimize_stepsizes().max_multistep_steps(), 8);
  EXPECT_EQ(Finish(job).result().schedule_set(), "bellman-euler-g1-k8");
  EXPECT_THAT(Names(), ElementsAre("bellman-euler-g1-k8", "multistep-g1-k8"));

  v1::GetScheduleRequest get;
  get.set_model("vectors");
  get.set_solver(v1::SOLVER_MULTISTEP);
  get.set_steps(3);
  grpc::ClientContext get_context;
  v1::ScheduleSet set;
  ASSERT_TRUE(models_->GetSchedule(&get_context, get, &set).ok());
  EXPECT_EQ(set.solver(), v1::SOLVER_MULTISTEP);
  ASSERT_EQ(set.schedules_size(), 1);
  EXPECT_EQ(set.schedules(0).coefficients_size(), 3);
  EXPECT_TRUE(set.schedules(0).has_held_out_error());

  const Generated multistep = Generate(asked), chosen = Generate(Request("vectors", 2, 3));
  for (const Generated* generated : {&multistep, &chosen}) {
    ASSERT_TRUE(generated->status.ok()) << generated->status.error_message();
    EXPECT_EQ(generated->accepted.solver(), v1::SOLVER_MULTISTEP);
    EXPECT_EQ(generated->accepted.schedule_set(), "multistep-g1-k8");
    EXPECT_EQ(generated->accepted.nfe(), 3);
    EXPECT_THAT(generated->accepted.time_grid(), ::testing::ElementsAreArray(set.schedules(0).time_grid()));
  }
  asked.set_solver(v1::SOLVER_EULER);
  EXPECT_EQ(Generate(asked).accepted.schedule_set(), "bellman-euler-g1-k8");
}

TEST_F(SchedulesTest, WhatHasTheStepsAndTheGuidanceScaleIsShownAndServed) {
  const auto search = [&](int k_max, int multistep_steps, double guidance_scale) {
    v1::OptimizeStepsizesJobRequest request;
    request.mutable_spec()->set_model("vectors");
    request.mutable_spec()->set_k_max(k_max);
    request.mutable_spec()->set_num_samples(8);
    request.mutable_spec()->set_max_multistep_steps(multistep_steps);
    request.mutable_spec()->set_guidance_scale(guidance_scale);
    grpc::ClientContext context;
    v1::Job job;
    const grpc::Status submitted = jobs_->OptimizeStepsizesJob(&context, request, &job);
    EXPECT_TRUE(submitted.ok()) << submitted.error_message();
    EXPECT_EQ(Finish(job).state(), v1::Job::SUCCEEDED);
  };
  search(10, 2, 1);
  search(6, 4, 1);
  search(8, 3, 2);
  const std::vector<std::pair<double, std::string>> kCases = {{1, "multistep-g1-k6"}, {2, "multistep-g2-k8"}};
  for (const auto& [guidance_scale, name] : kCases) {
    v1::GetScheduleRequest get;
    get.set_model("vectors");
    get.set_solver(v1::SOLVER_MULTISTEP);
    get.set_guidance_scale(guidance_scale);
    get.set_steps(3);
    grpc::ClientContext context;
    v1::ScheduleSet set;
    const grpc::Status status = models_->GetSchedule(&context, get, &set);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(set.name(), name);
    EXPECT_EQ(set.num_samples(), 8);
    EXPECT_EQ(set.num_held_out(), 2);
    v1::GenerateRequest request = Request("vectors", 2, 3);
    request.add_class_labels(1);
    request.set_guidance_scale(guidance_scale);
    const Generated generated = Generate(request);
    ASSERT_TRUE(generated.status.ok()) << generated.status.error_message();
    EXPECT_EQ(generated.accepted.solver(), v1::SOLVER_MULTISTEP);
    EXPECT_EQ(generated.accepted.schedule_set(), name);
  }
}

TEST_F(SchedulesTest, ASearchOverAnUnevenGridIsNamedJudgedAndServed) {
  v1::OptimizeStepsizesJobRequest search;
  search.mutable_spec()->set_model("vectors");
  search.mutable_spec()->set_num_samples(8);
  search.mutable_spec()->set_schedule_set("edm");
  const std::vector<double> fine = {0, 0.02, 0.1, 0.3, 0.6, 0.9, 1};
  search.mutable_spec()->mutable_fine_time_grid()->Add(fine.begin(), fine.end());
  grpc::ClientContext context;
  v1::Job job;
  const grpc::Status submitted = jobs_->OptimizeStepsizesJob(&context, search, &job);
  ASSERT_TRUE(submitted.ok()) << submitted.error_message();
  EXPECT_EQ(job.optimize_stepsizes().k_max(), 6);
  EXPECT_EQ(Finish(job).result().schedule_set(), "edm");
  v1::ScheduleSet set;
  ASSERT_TRUE(Get("edm", 0, set).ok());
  EXPECT_EQ(set.kind(), v1::SCHEDULE_KIND_BELLMAN);
  EXPECT_THAT(set.fine_time_grid(), ::testing::ElementsAreArray(fine));
  for (const v1::Schedule& schedule : set.schedules()) {
    for (int i = 0; i <= schedule.steps(); ++i) EXPECT_EQ(schedule.time_grid(i), fine[schedule.knots(i)]);
  }
  const Generated generated = Generate(Named("edm", 3));
  ASSERT_TRUE(generated.status.ok()) << generated.status.error_message();
  EXPECT_THAT(generated.accepted.time_grid(), ::testing::ElementsAreArray(set.schedules(2).time_grid()));

  ASSERT_TRUE(Call(Import("ays", {{0, 0.5, 0.8, 1}})).ok());
  v1::EvaluateJobRequest evaluate;
  evaluate.mutable_spec()->set_model("vectors");
  evaluate.mutable_spec()->add_steps(3);
  evaluate.mutable_spec()->add_schedules(v1::SCHEDULE_KIND_NAMED);
  evaluate.mutable_spec()->set_num_samples(8);
  evaluate.mutable_spec()->mutable_fine_time_grid()->Add(fine.begin(), fine.end());
  v1::Schedule& halves = *evaluate.mutable_spec()->add_time_grids();
  for (const double t : {0.0, 0.5, 1.0}) halves.add_time_grid(t);
  grpc::ClientContext evaluate_context;
  v1::Job judged;
  const grpc::Status accepted = jobs_->EvaluateJob(&evaluate_context, evaluate, &judged);
  ASSERT_TRUE(accepted.ok()) << accepted.error_message();
  const v1::Job result = Finish(judged);
  std::vector<std::string> rows;
  for (const v1::EvaluationRow& row : result.result().evaluation()) {
    rows.push_back(row.label() + " " + v1::ScheduleKind_Name(row.schedule()) + " " + std::to_string(row.steps()));
    EXPECT_EQ(row.baseline_steps(), 6);
    EXPECT_GT(row.trajectory_error(), 0);
  }
  EXPECT_THAT(
      rows, ElementsAre("ays SCHEDULE_KIND_NAMED 3", "edm SCHEDULE_KIND_NAMED 3", "explicit SCHEDULE_KIND_EXPLICIT 2"));
}

TEST_F(SchedulesTest, WhatAVersionWasStraightenedForIsShown) {
  v1::OptimizeStepsizesJobRequest search;
  search.mutable_spec()->set_model("vectors");
  search.mutable_spec()->set_k_max(8);
  search.mutable_spec()->set_num_samples(12);
  grpc::ClientContext search_context;
  v1::Job job;
  ASSERT_TRUE(jobs_->OptimizeStepsizesJob(&search_context, search, &job).ok());
  Finish(job);
  v1::DistillJobRequest distill;
  v1::DistillSpec& spec = *distill.mutable_spec();
  spec.set_model("vectors@1");
  spec.set_output_model("student");
  spec.set_steps(3);
  spec.set_k_max(8);
  spec.set_num_noises(80);
  spec.set_held_out_share(0.5);
  spec.set_fit_multistep(true);
  spec.set_schedule_set("multistep-g1-k8");
  spec.mutable_training()->set_train_steps(10);
  spec.mutable_training()->set_batch_size(8);
  grpc::ClientContext distill_context;
  const grpc::Status submitted = jobs_->DistillJob(&distill_context, distill, &job);
  ASSERT_TRUE(submitted.ok()) << submitted.error_message();
  const v1::Job done = Finish(job);
  EXPECT_EQ(done.result().schedule_set(), "multistep-g1-k8");

  v1::ScheduleSet target;
  ASSERT_TRUE(Get("multistep-g1-k8", 3, target).ok());
  v1::GetScheduleRequest request;
  request.set_model("student");
  request.set_steps(3);
  const auto get = [&](v1::ScheduleSet& set) {
    grpc::ClientContext context;
    return models_->GetSchedule(&context, request, &set);
  };
  v1::ScheduleSet trained;
  const grpc::Status status = get(trained);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(trained.name(), "");
  EXPECT_EQ(trained.model(), "student@1");
  EXPECT_EQ(trained.job(), done.name());
  EXPECT_EQ(trained.solver(), v1::SOLVER_EULER);
  ASSERT_EQ(trained.schedules_size(), 1);
  EXPECT_THAT(trained.schedules(0).time_grid(), ::testing::ElementsAreArray(target.schedules(0).time_grid()));
  EXPECT_THAT(trained.schedules(0).coefficients(), IsEmpty());

  request.set_solver(v1::SOLVER_MULTISTEP);
  v1::ScheduleSet fitted;
  ASSERT_TRUE(get(fitted).ok());
  EXPECT_EQ(fitted.name(), "");
  EXPECT_EQ(fitted.solver(), v1::SOLVER_MULTISTEP);
  EXPECT_EQ(fitted.num_samples(), 40);
  EXPECT_EQ(fitted.num_held_out(), 10);
  ASSERT_EQ(fitted.schedules_size(), 1);
  EXPECT_EQ(fitted.schedules(0).coefficients_size(), 3);
  EXPECT_GT(fitted.schedules(0).held_out_error(), 0);
  // It is what a request of so many steps takes.
  const Generated generated = Generate(Request("student", 2, 3));
  EXPECT_EQ(generated.accepted.solver(), v1::SOLVER_MULTISTEP);
  EXPECT_THAT(generated.accepted.time_grid(), ::testing::ElementsAreArray(fitted.schedules(0).time_grid()));

  // Of other steps and guidance scales there is none.
  request.set_steps(2);
  v1::ScheduleSet none;
  EXPECT_EQ(get(none).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  request.set_steps(3);
  request.set_guidance_scale(2);
  EXPECT_EQ(get(none).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  request.clear_guidance_scale();
  request.set_solver(v1::SOLVER_HEUN);
  EXPECT_EQ(get(none).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

}  // namespace
}  // namespace boss::testing
