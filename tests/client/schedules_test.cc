// bossctl schedules, and the options of jobs that are about schedules, against a server whose answers the test chooses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/client/bossctl_fixture.h"

namespace boss::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class SchedulesTest : public BossctlFixture {
 protected:
  SchedulesTest() {
    server_.models.model.set_name("flow");
    auto& version = *server_.models.model.add_versions();
    version.set_model("flow");
    version.set_version("1");
    version.set_weights_sha256("ab12");
    server_.models.model.add_sample_shape(2);
    server_.models.schedules = MakeScheduleSet();
  }
};

TEST_F(SchedulesTest, ImportSendsTimesAndSigmasAsSchedules) {
  std::ofstream(folder_ / "sigmas.txt") << "1.0, 0.75, 0.25\n";
  ASSERT_EQ(Run({"schedules", "import", "flow", "--name", "ays", "--times", "0,0.5,0.625,0.75,1", "--sigmas",
                 folder_ / "sigmas.txt", "--solver", "heun", "--guidance", "2.5", "--replace"}),
            kExitOk)
      << err_.str();
  EXPECT_EQ(out_.str(), "flow@1 ays, K 4 3\n");
  const auto& request = server_.models.imported_schedule;
  EXPECT_EQ(request.model(), "flow");
  EXPECT_EQ(request.name(), "ays");
  ASSERT_EQ(request.schedules_size(), 2);
  EXPECT_THAT(request.schedules(0).time_grid(), ElementsAre(0, 0.5, 0.625, 0.75, 1));
  EXPECT_THAT(request.schedules(1).time_grid(), ElementsAre(0, 0.25, 0.75, 1));
  EXPECT_EQ(request.solver(), boss::v1::SOLVER_HEUN);
  EXPECT_EQ(request.guidance_scale(), 2.5);
  EXPECT_TRUE(request.replace());
  EXPECT_FALSE(request.validate_only());
}

TEST_F(SchedulesTest, ImportChecksBeforeItSends) {
  EXPECT_EQ(Run({"schedules", "import", "flow", "--name", "ays", "--times", "0,0.5,0.5,1"}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("got 0.5 after 0.5"));
  EXPECT_EQ(Run({"schedules", "import", "flow", "--name", "ays", "--sigmas", "14.6,1,0"}), kExitUsage);
  EXPECT_EQ(Run({"schedules", "import", "flow", "--name", "ays"}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("--times or --sigmas is required"));
  EXPECT_EQ(Run({"schedules", "import", "flow", "--times", "0,1"}), kExitUsage);
  EXPECT_EQ(server_.models.imported_schedule.schedules_size(), 0);
}

TEST_F(SchedulesTest, DeleteNamesTheSet) {
  ASSERT_EQ(Run({"schedules", "delete", "flow@1", "ays"}), kExitOk) << err_.str();
  EXPECT_EQ(server_.models.deleted_schedule.model(), "flow@1");
  EXPECT_EQ(server_.models.deleted_schedule.name(), "ays");
}

TEST_F(SchedulesTest, ExportWritesWhatTheFormatSays) {
  ASSERT_EQ(Run({"schedules", "export", "flow", "--steps", "2"}), kExitOk) << err_.str();
  const auto json = nlohmann::json::parse(out_.str());
  EXPECT_EQ(json["model"], "flow@1");
  EXPECT_EQ(json["schedule_set"], "bellman-euler-g1");
  EXPECT_EQ(json["t"], (std::vector<double>{0, 0.125, 1}));
  EXPECT_EQ(json["k_max"], 8);
  EXPECT_EQ(json["cost"], 0.5);
  EXPECT_EQ(json["weights_sha256"], "ab12");
  EXPECT_EQ(server_.models.schedule_request.model(), "flow@1");

  ASSERT_EQ(Run({"schedules", "export", "flow", "-k", "3", "--format", "diffusers", "--mu", "-0.7", "--out",
                 folder_ / "d.json"}),
            kExitOk)
      << err_.str();
  EXPECT_EQ(out_.str(), "");
  EXPECT_EQ(nlohmann::json::parse(Contents(folder_ / "d.json"))["set_timesteps"]["mu"], -0.7);

  ASSERT_EQ(Run({"schedules", "export", "flow@1", "-k", "2", "--name", "mine", "--format", "comfyui"}), kExitOk);
  EXPECT_EQ(out_.str(), "1.0, 0.875, 0.0\n");
  EXPECT_EQ(server_.models.schedule_request.name(), "mine");
}

TEST_F(SchedulesTest, ExportRefusesWhatCannotBeSaid) {
  EXPECT_EQ(Run({"schedules", "export", "flow", "--format", "onnx", "-k", "2"}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("expected json, diffusers"));
  EXPECT_EQ(Run({"schedules", "export", "flow"}), kExitError);
  EXPECT_THAT(err_.str(), HasSubstr("--steps: the schedule set bellman-euler-g1 has 8 schedules"));
  server_.models.schedules.set_solver(boss::v1::SOLVER_HEUN);
  EXPECT_EQ(Run({"schedules", "export", "flow", "-k", "2", "--format", "sd-cpp"}), kExitError);
  EXPECT_THAT(err_.str(), HasSubstr("sd-cpp cannot express the solver heun"));
}

TEST_F(SchedulesTest, ExportOfAStraightenedVersionIsTheScheduleThatItWasTrainedFor) {
  server_.models.model.mutable_versions(0)->set_straightened_steps(2);
  ASSERT_EQ(Run({"schedules", "export", "flow", "-k", "2"}), kExitOk) << err_.str();
  const auto json = nlohmann::json::parse(out_.str());
  EXPECT_EQ(json["t"], (std::vector<double>{0, 0.25, 1}));  // what the sampler answers
  EXPECT_EQ(json["schedule_set"], "");
  EXPECT_TRUE(json["cost"].is_null());
  EXPECT_TRUE(server_.sampler.request.validate_only());
  EXPECT_EQ(server_.sampler.request.schedule(), boss::v1::SCHEDULE_KIND_BELLMAN);
  ASSERT_EQ(Run({"schedules", "export", "flow", "-k", "3"}), kExitOk) << err_.str();
  EXPECT_EQ(nlohmann::json::parse(out_.str())["schedule_set"], "bellman-euler-g1");
}

TEST_F(SchedulesTest, CompareJudgesEverySetOfTheSolverAndGuidanceScale) {
  server_.jobs.job = MakeDistillJob();
  server_.jobs.job.clear_distill();
  server_.jobs.job.mutable_evaluate()->set_model("flow@1");
  server_.jobs.events = MakeEvents(5, boss::v1::Job::SUCCEEDED);
  for (const char* name : {"ays", "bellman-euler-g1-k8", "guided", "trapezoid"}) {
    boss::v1::ScheduleSet& set = server_.models.listed_schedules.emplace_back();
    set.set_name(name);
    set.set_guidance_scale(std::string(name) == "guided" ? 2 : 1);
    set.set_solver(std::string(name) == "trapezoid" ? boss::v1::SOLVER_HEUN : boss::v1::SOLVER_EULER);
  }
  ASSERT_EQ(Run({"schedules", "compare", "flow", "--steps", "2,4", "--num-samples", "64", "--reference", "none",
                 "--times", "0,0.3,1", "--report", folder_ / "page.html"}),
            kExitOk)
      << err_.str();
  const auto& spec = server_.jobs.evaluated.spec();
  EXPECT_EQ(spec.model(), "flow@latest");
  EXPECT_THAT(spec.schedules(), ElementsAre(boss::v1::SCHEDULE_KIND_UNIFORM));
  EXPECT_THAT(spec.schedule_sets(), ElementsAre("ays", "bellman-euler-g1-k8"));
  EXPECT_THAT(spec.other_solvers(), ElementsAre(boss::v1::SOLVER_HEUN));
  EXPECT_THAT(spec.steps(), ElementsAre(2, 4));
  EXPECT_THAT(spec.time_grids(0).time_grid(), ElementsAre(0, 0.3, 1));
  EXPECT_THAT(err_.str(), HasSubstr("left out: guided, for euler and guidance scale 2\n"));
  EXPECT_THAT(err_.str(), HasSubstr("left out: trapezoid, for heun and guidance scale 1\n"));
  EXPECT_EQ(out_.str(),
            "K  SCHEDULE  NFE  TRAJECTORY ERROR  FRECHET DISTANCE\n"
            "2  uniform     2            0.5000            40.000\n"
            "2  bellman     2          * 0.4000          * 30.000\n"
            "4  uniform     4            0.3000          * 20.000\n"
            "4  bellman     4          * 0.2500            21.000\n");
  const std::string page = Contents(folder_ / "page.html");
  for (const char* part : {"Schedules of flow@1", "Trajectory error over solver steps", "Cost matrix", "<svg"})
    EXPECT_THAT(page, HasSubstr(part));

  ASSERT_EQ(Run({"schedules", "compare", "flow@1", "--set", "guided"}), kExitOk) << err_.str();
  EXPECT_THAT(server_.jobs.evaluated.spec().schedule_sets(), ElementsAre("guided"));
  EXPECT_EQ(server_.jobs.evaluated.spec().model(), "flow@1");
  EXPECT_TRUE(server_.jobs.evaluated.spec().other_solvers().empty());
}

TEST_F(SchedulesTest, CompareShowsMultistepAndHeunAtAsManyEvaluationsAsEuler) {
  server_.jobs.job = MakeDistillJob();
  server_.jobs.job.mutable_evaluate()->set_model("flow@1");
  server_.jobs.events = MakeEvents(5, boss::v1::Job::SUCCEEDED);
  for (const std::string name : {"bellman-euler-g1-k8", "mine-multistep", "multistep-g1-k8", "multistep-g2-k8"}) {
    boss::v1::ScheduleSet& set = server_.models.listed_schedules.emplace_back();
    set.set_name(name);
    set.set_guidance_scale(name == "multistep-g2-k8" ? 2 : 1);
    set.set_solver(name.starts_with("bellman") ? boss::v1::SOLVER_EULER : boss::v1::SOLVER_MULTISTEP);
  }
  auto& rows = *server_.jobs.job.mutable_result()->mutable_evaluation();
  for (const bool is_heun : {true, false}) {
    boss::v1::EvaluationRow& row = *rows.Add();
    row = rows.Get(0);
    row.set_label(is_heun ? "heun" : "multistep");
    row.set_solver(is_heun ? boss::v1::SOLVER_HEUN : boss::v1::SOLVER_MULTISTEP);
    row.set_steps(is_heun ? 2 : 4);
    row.set_nfe(4);
    row.set_trajectory_error(is_heun ? 0.35 : 0.125);
    row.set_frechet_distance(is_heun ? 24 : 12);
  }
  ASSERT_EQ(Run({"schedules", "compare", "flow", "--report", folder_ / "page.html"}), kExitOk) << err_.str();
  EXPECT_THAT(server_.jobs.evaluated.spec().other_solvers(),
              ElementsAre(boss::v1::SOLVER_HEUN, boss::v1::SOLVER_MULTISTEP));
  EXPECT_THAT(server_.jobs.evaluated.spec().schedule_sets(), ElementsAre("bellman-euler-g1-k8", "mine-multistep"));
  EXPECT_THAT(err_.str(), HasSubstr("left out: multistep-g2-k8, for multistep and guidance scale 2\n"));
  EXPECT_THAT(err_.str(), Not(HasSubstr("left out: mine-multistep")));
  EXPECT_EQ(out_.str(),
            "K  SCHEDULE   NFE  TRAJECTORY ERROR  FRECHET DISTANCE\n"
            "2  uniform      2            0.5000            40.000\n"
            "2  bellman      2          * 0.4000          * 30.000\n"
            "4  uniform      4            0.3000            20.000\n"
            "4  bellman      4            0.2500            21.000\n"
            "2  heun         4            0.3500            24.000\n"
            "4  multistep    4          * 0.1250          * 12.000\n");
  const std::string page = Contents(folder_ / "page.html");
  for (const char* part : {"Trajectory error over evaluations", "velocity evaluations per sample", ">heun<",
                           ">multistep<", "<td class=\"number best\">0.1250"})
    EXPECT_THAT(page, HasSubstr(part));
  // What is asked for by name is all there is.
  ASSERT_EQ(Run({"schedules", "compare", "flow", "--other-solvers", "multistep"}), kExitOk) << err_.str();
  EXPECT_THAT(server_.jobs.evaluated.spec().other_solvers(), ElementsAre(boss::v1::SOLVER_MULTISTEP));
  EXPECT_THAT(server_.jobs.evaluated.spec().schedule_sets(), ElementsAre("bellman-euler-g1-k8", "mine-multistep"));
  ASSERT_EQ(Run({"schedules", "compare", "flow", "--other-solvers", "heun"}), kExitOk) << err_.str();
  EXPECT_THAT(server_.jobs.evaluated.spec().schedule_sets(), ElementsAre("bellman-euler-g1-k8"));
  EXPECT_THAT(err_.str(), HasSubstr("left out: mine-multistep, for multistep and guidance scale 1\n"));
  EXPECT_EQ(Run({"schedules", "compare", "flow", "--other-solvers", "midpoint"}), kExitUsage);
}

TEST_F(SchedulesTest, AComparisonThatFailsSaysWhy) {
  server_.jobs.job = MakeDistillJob();
  server_.jobs.job.set_state(boss::v1::Job::FAILED);
  server_.jobs.job.mutable_error()->set_message("the reference is gone");
  server_.jobs.events = MakeEvents(5, boss::v1::Job::FAILED);
  EXPECT_EQ(Run({"schedules", "compare", "flow"}), kExitJobFailed);
  EXPECT_THAT(out_.str(), HasSubstr("the reference is gone"));
}

TEST_F(SchedulesTest, GetShowsTheCoefficientsAndErrorsOfMultistep) {
  boss::v1::ScheduleSet& set = server_.models.schedules;
  set.set_solver(boss::v1::SOLVER_MULTISTEP);
  set.set_num_samples(40);
  set.set_num_held_out(10);
  set.set_multistep_refinement(640);
  set.clear_schedules();
  boss::v1::Schedule& schedule = *set.add_schedules();
  schedule.set_steps(2);
  for (const double t : {0.0, 0.5, 1.0}) schedule.add_time_grid(t);
  schedule.set_fit_error(0.125);
  schedule.set_held_out_error(0.1875);
  schedule.add_coefficients()->set_state(1);
  schedule.mutable_coefficients(0)->add_velocities(0.5);
  schedule.add_coefficients()->set_state(0.875);
  schedule.mutable_coefficients(1)->add_velocities(0.75);
  schedule.mutable_coefficients(1)->add_velocities(-0.25);
  ASSERT_EQ(Run({"schedules", "get", "flow", "--solver", "multistep"}), kExitOk) << err_.str();
  EXPECT_EQ(server_.models.schedule_request.solver(), boss::v1::SOLVER_MULTISTEP);
  for (const char* part : {"0.125", "0.1875", "0.875", "0.75 -0.25", "30 trajectories, 10 held out", "within 640 evaluations"})
    EXPECT_THAT(out_.str(), HasSubstr(part));
  set.clear_num_held_out();  // of a set that an earlier version has stored
  ASSERT_EQ(Run({"schedules", "get", "flow", "--solver", "multistep"}), kExitOk) << err_.str();
  EXPECT_THAT(out_.str(), Not(HasSubstr("held out")));
}

TEST_F(SchedulesTest, JobsTakeFineGridsAndNames) {
  server_.jobs.job = MakeDistillJob();
  // The order of the options does not matter.
  ASSERT_EQ(Run({"jobs", "optimize-stepsizes", "-m", "flow", "--fine-grid", "edm:7", "--k-max", "4", "--schedule-set",
                 "edm", "--multistep-steps", "3", "--multistep-refinement", "900"}),
            kExitOk)
      << err_.str();
  EXPECT_EQ(server_.jobs.optimized.spec().fine_time_grid_size(), 5);
  EXPECT_EQ(server_.jobs.optimized.spec().k_max(), 4);
  EXPECT_EQ(server_.jobs.optimized.spec().schedule_set(), "edm");
  EXPECT_EQ(server_.jobs.optimized.spec().max_multistep_steps(), 3);
  EXPECT_EQ(server_.jobs.optimized.spec().multistep_refinement(), 900);
  ASSERT_EQ(Run({"jobs", "distill", "-m", "flow", "--fine-grid", "0,0.25,0.5,1"}), kExitOk) << err_.str();
  EXPECT_THAT(server_.jobs.distilled.spec().fine_time_grid(), ElementsAre(0, 0.25, 0.5, 1));
  ASSERT_EQ(Run({"jobs", "evaluate", "-m", "flow", "--schedules", "uniform,named,mine", "--times", "0,0.5,1",
                 "--fine-grid", "uniform"}),
            kExitOk)
      << err_.str();
  const auto& spec = server_.jobs.evaluated.spec();
  EXPECT_THAT(spec.schedules(), ElementsAre(boss::v1::SCHEDULE_KIND_UNIFORM, boss::v1::SCHEDULE_KIND_NAMED));
  EXPECT_THAT(spec.schedule_sets(), ElementsAre("mine"));
  EXPECT_EQ(spec.fine_time_grid_size(), 0);
  ASSERT_EQ(spec.time_grids_size(), 1);
  EXPECT_EQ(Run({"jobs", "optimize-stepsizes", "-m", "flow", "--k-max", "5", "--fine-grid", "0,0.5,1"}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("expected 6 for --k-max 5"));
}

TEST_F(SchedulesTest, SetsFromElsewhereAreListedAsImported) {
  boss::v1::ScheduleSet& set = server_.models.listed_schedules.emplace_back();
  set.set_model("flow@1");
  set.set_name("ays");
  set.set_kind(boss::v1::SCHEDULE_KIND_EXPLICIT);
  set.set_solver(boss::v1::SOLVER_EULER);
  ASSERT_EQ(Run({"schedules", "list"}), kExitOk) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("ays   imported"));
  server_.models.schedules = set;
  auto& schedule = *server_.models.schedules.add_schedules();
  schedule.set_steps(2);
  for (const double t : {0.0, 0.3, 1.0}) schedule.add_time_grid(t);
  ASSERT_EQ(Run({"schedules", "get", "flow", "--name", "ays"}), kExitOk) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("2     -  0 0.3 1\n"));
  EXPECT_THAT(out_.str(), Not(HasSubstr("fine grid")));
}

}  // namespace
}  // namespace boss::client
