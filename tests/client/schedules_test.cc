// bossctl schedules, and the options of jobs that are about schedules, against a server whose answers the test chooses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/client/schedules_fixture.h"

namespace boss::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using BossctlSchedulesTest = SchedulesFixture;

TEST_F(BossctlSchedulesTest, ImportSendsTimesAndSigmasAsSchedules) {
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

TEST_F(BossctlSchedulesTest, ImportChecksBeforeItSends) {
  EXPECT_EQ(Run({"schedules", "import", "flow", "--name", "ays", "--times", "0,0.5,0.5,1"}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("got 0.5 after 0.5"));
  EXPECT_EQ(Run({"schedules", "import", "flow", "--name", "ays", "--sigmas", "14.6,1,0"}), kExitUsage);
  EXPECT_EQ(Run({"schedules", "import", "flow", "--name", "ays"}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("--times or --sigmas is required"));
  EXPECT_EQ(Run({"schedules", "import", "flow", "--times", "0,1"}), kExitUsage);
  EXPECT_EQ(server_.models.imported_schedule.schedules_size(), 0);
}

TEST_F(BossctlSchedulesTest, DeleteNamesTheSet) {
  ASSERT_EQ(Run({"schedules", "delete", "flow@1", "ays"}), kExitOk) << err_.str();
  EXPECT_EQ(server_.models.deleted_schedule.model(), "flow@1");
  EXPECT_EQ(server_.models.deleted_schedule.name(), "ays");
}

TEST_F(BossctlSchedulesTest, ExportWritesWhatTheFormatSays) {
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

TEST_F(BossctlSchedulesTest, ExportRefusesWhatCannotBeSaid) {
  EXPECT_EQ(Run({"schedules", "export", "flow", "--format", "onnx", "-k", "2"}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("expected json, diffusers"));
  EXPECT_EQ(Run({"schedules", "export", "flow"}), kExitError);
  EXPECT_THAT(err_.str(), HasSubstr("--steps: the schedule set bellman-euler-g1 has 8 schedules"));
  server_.models.schedules.set_solver(boss::v1::SOLVER_HEUN);
  EXPECT_EQ(Run({"schedules", "export", "flow", "-k", "2", "--format", "sd-cpp"}), kExitError);
  EXPECT_THAT(err_.str(), HasSubstr("sd-cpp cannot express the solver heun"));
}

TEST_F(BossctlSchedulesTest, ExportOfAStraightenedVersionIsTheScheduleThatItWasTrainedFor) {
  AddStraightened();
  ASSERT_EQ(Run({"schedules", "export", "flow", "-k", "2"}), kExitOk) << err_.str();
  auto json = nlohmann::json::parse(out_.str());
  EXPECT_EQ(json["t"], (std::vector<double>{0, 0.375, 1}));
  EXPECT_EQ(json["schedule_set"], "");
  EXPECT_EQ(json["solver"], "euler");
  EXPECT_EQ(json["cost"], 0.75);
  EXPECT_TRUE(json["num_samples"].is_null());
  EXPECT_FALSE(json.contains("coefficients"));
  EXPECT_EQ(server_.models.schedule_request.solver(), boss::v1::SOLVER_UNSPECIFIED);
  EXPECT_EQ(server_.sampler.calls, 0);
  ASSERT_EQ(Run({"schedules", "export", "flow", "-k", "3"}), kExitOk) << err_.str();
  EXPECT_EQ(nlohmann::json::parse(out_.str())["schedule_set"], "bellman-euler-g1");

  // Times that no cost matrix gave, as those of a multistep set.
  server_.models.own_schedules[0].mutable_schedules(0)->clear_total_cost();
  ASSERT_EQ(Run({"schedules", "export", "flow", "-k", "2"}), kExitOk) << err_.str();
  EXPECT_TRUE(nlohmann::json::parse(out_.str())["cost"].is_null());
}

TEST_F(BossctlSchedulesTest, ExportOfAStraightenedVersionHasTheCoefficientsThatWereFittedToIt) {
  AddStraightened();
  ASSERT_EQ(Run({"schedules", "export", "flow", "-k", "2", "--solver", "multistep", "--guidance", "2"}), kExitOk)
      << err_.str();
  EXPECT_EQ(server_.models.schedule_request.solver(), boss::v1::SOLVER_MULTISTEP);
  EXPECT_EQ(server_.models.schedule_request.guidance_scale(), 2);
  const auto json = nlohmann::json::parse(out_.str());
  EXPECT_EQ(json["schedule_set"], "");
  EXPECT_EQ(json["solver"], "multistep");
  EXPECT_EQ(json["nfe"], 2);
  EXPECT_EQ(json["t"], (std::vector<double>{0, 0.375, 1}));
  ASSERT_EQ(json["coefficients"].size(), 2);
  EXPECT_EQ(json["coefficients"][1], (nlohmann::json{{"state", 0.875}, {"velocities", {0.75, -0.25}}}));
  EXPECT_EQ(json["num_samples"], 64);
  EXPECT_EQ(json["num_held_out"], 16);
  EXPECT_EQ(json["held_out_error"], 0.1875);
  EXPECT_TRUE(json["cost"].is_null());
  for (const char* format : {"diffusers", "comfyui", "sd-cpp", "flow-matching"}) {
    EXPECT_EQ(Run({"schedules", "export", "flow", "-k", "2", "--solver", "multistep", "-f", format}), kExitError);
    EXPECT_THAT(err_.str(), HasSubstr("has no place for the coefficients of the solver multistep"));
  }
  EXPECT_EQ(Run({"schedules", "export", "flow", "-k", "2", "--solver", "midpoint"}), kExitUsage);
}

TEST_F(BossctlSchedulesTest, ExportOfANamedSetRefusesAnotherSolver) {
  EXPECT_EQ(Run({"schedules", "export", "flow", "-k", "2", "--name", "bellman-euler-g1", "--solver", "multistep"}),
            kExitError);
  EXPECT_THAT(err_.str(), HasSubstr("--solver: the schedule set bellman-euler-g1 is for euler, got multistep"));
  EXPECT_EQ(out_.str(), "");
  ASSERT_EQ(Run({"schedules", "export", "flow", "-k", "2", "--name", "bellman-euler-g1", "--solver", "euler"}), kExitOk)
      << err_.str();
  // Without a solver it is the set's.
  server_.models.schedules.set_solver(boss::v1::SOLVER_MULTISTEP);
  ASSERT_EQ(Run({"schedules", "export", "flow", "-k", "2", "--name", "multistep-g1-k8"}), kExitOk) << err_.str();
  EXPECT_EQ(nlohmann::json::parse(out_.str())["solver"], "multistep");
}

TEST_F(BossctlSchedulesTest, GetShowsTheCoefficientsAndErrorsOfMultistep) {
  boss::v1::ScheduleSet& set = server_.models.schedules;
  set.set_solver(boss::v1::SOLVER_MULTISTEP);
  set.set_num_samples(40);
  set.set_num_held_out(10);
  set.set_multistep_refinement(640);
  set.clear_schedules();
  boss::v1::Schedule& schedule = *set.add_schedules();
  schedule.set_steps(2);
  for (const double t : {0.0, 0.5, 1.0}) schedule.add_time_grid(t);
  FitMultistep(schedule);
  ASSERT_EQ(Run({"schedules", "get", "flow", "--solver", "multistep"}), kExitOk) << err_.str();
  EXPECT_EQ(server_.models.schedule_request.solver(), boss::v1::SOLVER_MULTISTEP);
  for (const char* part :
       {"0.125", "0.1875", "0.875", "0.75 -0.25", "30 trajectories, 10 held out", "within 640 evaluations"})
    EXPECT_THAT(out_.str(), HasSubstr(part));
  set.clear_num_held_out();  // of a set that an earlier version has stored
  ASSERT_EQ(Run({"schedules", "get", "flow", "--solver", "multistep"}), kExitOk) << err_.str();
  EXPECT_THAT(out_.str(), Not(HasSubstr("held out")));
}

TEST_F(BossctlSchedulesTest, GetShowsWhatAVersionWasStraightenedFor) {
  AddStraightened();
  ASSERT_EQ(Run({"schedules", "get", "flow", "--steps", "2"}), kExitOk) << err_.str();
  EXPECT_EQ(out_.str(),
            "model             flow@1\n"
            "straightened for  2 steps\n"
            "solver            euler\n"
            "guidance          1\n"
            "fine grid         8 intervals\n"
            "\n"
            "K  COST  TIMES\n"
            "2  0.75  0 0.375 1\n");
  ASSERT_EQ(Run({"schedules", "get", "flow", "--steps", "2", "--solver", "multistep"}), kExitOk) << err_.str();
  EXPECT_EQ(out_.str(),
            "model             flow@1\n"
            "straightened for  2 steps\n"
            "solver            multistep\n"
            "guidance          1\n"
            "fine grid         8 intervals\n"
            "fitted to         48 trajectories, 16 held out\n"
            "\n"
            "K  FIT ERROR  HELD-OUT ERROR   TIME  STATE  VELOCITIES, THE NEWEST FIRST\n"
            "2      0.125          0.1875      0      1  0.5\n"
            "                              0.375  0.875  0.75 -0.25\n");

  boss::v1::ScheduleSet& reflow = server_.models.own_schedules[0];
  reflow.set_kind(boss::v1::SCHEDULE_KIND_UNIFORM);
  reflow.clear_k_max();
  ASSERT_EQ(Run({"schedules", "get", "flow", "--steps", "2"}), kExitOk) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("reflowed for  2 steps\n"));
  EXPECT_THAT(out_.str(), HasSubstr("2     -  0 0.375 1\n"));
  EXPECT_THAT(out_.str(), Not(HasSubstr("fine grid")));
}

TEST_F(BossctlSchedulesTest, JobsTakeFineGridsAndNames) {
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

TEST_F(BossctlSchedulesTest, SetsFromElsewhereAreListedAsImported) {
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
