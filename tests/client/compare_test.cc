// bossctl schedules compare, against a server whose answers the test chooses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/client/schedules_fixture.h"

namespace boss::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class CompareTest : public SchedulesFixture {
 protected:
  void AddSet(const std::string& name, boss::v1::Solver solver, int k_max, double guidance_scale = 1) {
    boss::v1::ScheduleSet& set = server_.models.listed_schedules.emplace_back();
    set.set_name(name);
    set.set_model("flow@1");
    set.set_solver(solver);
    set.set_k_max(k_max);
    set.set_guidance_scale(guidance_scale);
  }
};

TEST_F(CompareTest, JudgesEverySetOfTheSolverAndGuidanceScale) {
  server_.jobs.job = MakeDistillJob();
  server_.jobs.job.clear_distill();
  server_.jobs.job.mutable_evaluate()->set_model("flow@1");
  server_.jobs.events = MakeEvents(5, boss::v1::Job::SUCCEEDED);
  AddSet("ays", boss::v1::SOLVER_EULER, 0);
  AddSet("bellman-euler-g1-k8", boss::v1::SOLVER_EULER, 8);
  AddSet("guided", boss::v1::SOLVER_EULER, 0, 2);
  AddSet("trapezoid", boss::v1::SOLVER_HEUN, 0);
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

TEST_F(CompareTest, ShowsMultistepAndHeunAtAsManyEvaluationsAsEuler) {
  server_.jobs.job = MakeDistillJob();
  server_.jobs.job.mutable_evaluate()->set_model("flow@1");
  server_.jobs.events = MakeEvents(5, boss::v1::Job::SUCCEEDED);
  AddSet("bellman-euler-g1-k8", boss::v1::SOLVER_EULER, 8);
  AddSet("mine-multistep", boss::v1::SOLVER_MULTISTEP, 8);
  AddSet("multistep-g1-k8", boss::v1::SOLVER_MULTISTEP, 8);
  AddSet("multistep-g2-k8", boss::v1::SOLVER_MULTISTEP, 8, 2);
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

TEST_F(CompareTest, StraightenedVersionsStandBesideTheTeachersSamplers) {
  server_.jobs.job = MakeDistillJob();
  boss::v1::Job& job = server_.jobs.job;
  job.set_kind(boss::v1::Job::EVALUATE);
  job.clear_output_model();
  job.clear_input_models();
  for (const char* version : {"flow@1", "flow@2", "flow@3", "flow@1"}) job.add_input_models(version);
  job.mutable_evaluate()->set_model("flow@1");
  for (const char* version : {"flow@2", "flow@3"}) job.mutable_evaluate()->add_other_models(version);
  server_.jobs.events = MakeEvents(5, boss::v1::Job::SUCCEEDED);
  auto& rows = *job.mutable_result()->mutable_evaluation();
  const boss::v1::EvaluationRow like = rows.Get(0);
  rows.Clear();
  const struct {
    const char *model, *label;
    boss::v1::Solver solver;
    int steps, nfe;
    double error;
  } added[] = {{"flow@1", "uniform", boss::v1::SOLVER_EULER, 2, 2, 0.5},
               {"flow@1", "uniform", boss::v1::SOLVER_EULER, 4, 4, 0.3},
               {"flow@1", "bellman", boss::v1::SOLVER_EULER, 2, 2, 0.4},
               {"flow@1", "bellman", boss::v1::SOLVER_EULER, 4, 4, 0.25},
               {"flow@1", "heun", boss::v1::SOLVER_HEUN, 1, 2, 0.6},
               {"flow@1", "heun", boss::v1::SOLVER_HEUN, 2, 4, 0.35},
               {"flow@1", "multistep", boss::v1::SOLVER_MULTISTEP, 2, 2, 0.375},
               {"flow@1", "multistep", boss::v1::SOLVER_MULTISTEP, 4, 4, 0.125},
               {"flow@2", "straightened", boss::v1::SOLVER_EULER, 2, 2, 0.25},
               {"flow@2", "straightened-multistep", boss::v1::SOLVER_MULTISTEP, 2, 2, 0.1875},
               {"flow@2", "heun", boss::v1::SOLVER_HEUN, 1, 2, 0.75},
               {"flow@3", "straightened", boss::v1::SOLVER_EULER, 4, 4, 0.15},
               {"flow@3", "straightened-multistep", boss::v1::SOLVER_MULTISTEP, 4, 4, 0.0625},
               {"flow@3", "heun", boss::v1::SOLVER_HEUN, 2, 4, 0.45}};
  for (const auto& one : added) {
    boss::v1::EvaluationRow& row = *rows.Add();
    row = like;
    row.set_model(one.model);
    row.set_label(one.label);
    row.set_solver(one.solver);
    row.set_steps(one.steps);
    row.set_nfe(one.nfe);
    row.set_trajectory_error(one.error);
    row.clear_frechet_distance();
    if (row.label() == "bellman") row.set_schedule_set("bellman-euler-g1-k100");
  }
  AddSet("by-hand", boss::v1::SOLVER_EULER, 0);
  AddSet("bellman-euler-g1-k18-28521a03", boss::v1::SOLVER_EULER, 18);
  AddSet("bellman-euler-g1-k100", boss::v1::SOLVER_EULER, 100);
  AddSet("multistep-g1-k100", boss::v1::SOLVER_MULTISTEP, 100);
  ASSERT_EQ(Run({"schedules", "compare", "flow@1", "--with", "flow@2", "--with", "flow@3", "--steps", "2,4", "--report",
                 folder_ / "page.html"}),
            kExitOk)
      << err_.str();
  const auto& spec = server_.jobs.evaluated.spec();
  EXPECT_EQ(spec.model(), "flow@1");
  EXPECT_THAT(spec.other_models(), ElementsAre("flow@2", "flow@3"));
  EXPECT_EQ(spec.baseline(), "flow@1");
  // No kinds: uniform and Bellman steps of the teacher, and what the others were straightened for.
  EXPECT_TRUE(spec.schedules().empty());
  EXPECT_THAT(spec.schedule_sets(), ElementsAre("by-hand"));
  EXPECT_THAT(spec.other_solvers(), ElementsAre(boss::v1::SOLVER_HEUN, boss::v1::SOLVER_MULTISTEP));
  EXPECT_THAT(err_.str(),
              HasSubstr("left out: bellman-euler-g1-k18-28521a03, which was taken for no K; --set names it\n"));
  EXPECT_THAT(err_.str(), Not(HasSubstr("left out: bellman-euler-g1-k100")));
  EXPECT_EQ(out_.str(),
            "K  SCHEDULE                VERSION  NFE  TRAJECTORY ERROR  FRECHET DISTANCE\n"
            "2  uniform                 flow@1     2            0.5000                 -\n"
            "2  bellman                 flow@1     2            0.4000                 -\n"
            "1  heun                    flow@1     2            0.6000                 -\n"
            "2  multistep               flow@1     2            0.3750                 -\n"
            "2  straightened            flow@2     2            0.2500                 -\n"
            "2  straightened-multistep  flow@2     2          * 0.1875                 -\n"
            "1  heun                    flow@2     2            0.7500                 -\n"
            "4  uniform                 flow@1     4            0.3000                 -\n"
            "4  bellman                 flow@1     4            0.2500                 -\n"
            "2  heun                    flow@1     4            0.3500                 -\n"
            "4  multistep               flow@1     4            0.1250                 -\n"
            "4  straightened            flow@3     4            0.1500                 -\n"
            "4  straightened-multistep  flow@3     4          * 0.0625                 -\n"
            "2  heun                    flow@3     4            0.4500                 -\n");
  const std::string page = Contents(folder_ / "page.html");
  for (const char* part :
       {"<h1>Schedules of flow@1, flow@2, flow@3</h1>", "<td>straightened-multistep</td><td>flow@3</td>",
        "<td class=\"number best\">0.0625", ">uniform<", ">straightened<", ">straightened-multistep<", ">flow@1 heun<",
        ">flow@2 heun<", ">flow@3 heun<"})
    EXPECT_THAT(page, HasSubstr(part));
  EXPECT_THAT(page, Not(HasSubstr(">heun</text>")));
}

TEST_F(CompareTest, MultistepBesideOtherVersionsIsWhatTheServerTakesForEachK) {
  server_.jobs.job = MakeDistillJob();
  server_.jobs.events = MakeEvents(5, boss::v1::Job::SUCCEEDED);
  AddSet("bellman-euler-g1-k100", boss::v1::SOLVER_EULER, 100);
  AddSet("mine-multistep", boss::v1::SOLVER_MULTISTEP, 100);
  // As if the first had no schedule of 12 steps, and the last were the older one of 100 intervals.
  for (const char* name : {"multistep-g1-k100", "multistep-g1-k50", "multistep-g1-k100-28521a03"})
    AddSet(name, boss::v1::SOLVER_MULTISTEP, name == std::string("multistep-g1-k50") ? 50 : 100);
  auto& rows = *server_.jobs.job.mutable_result()->mutable_evaluation();
  const boss::v1::EvaluationRow like = rows.Get(0);
  rows.Clear();
  const struct {
    const char *model, *label, *set;
    int steps;
    double error;
  } added[] = {{"flow@1", "uniform", "", 4, 0.5},
               {"flow@1", "uniform", "", 12, 0.25},
               {"flow@1", "uniform", "", 20, 0.125},
               {"flow@1", "multistep", "multistep-g1-k100", 4, 0.375},
               {"flow@1", "multistep", "multistep-g1-k50", 12, 0.1875},
               {"flow@2", "multistep", "multistep-g1-k100-28521a03", 4, 0.75}};
  for (const auto& one : added) {
    boss::v1::EvaluationRow& row = *rows.Add();
    row = like;
    row.set_model(one.model);
    row.set_label(one.label);
    row.set_schedule_set(one.set);
    row.set_solver(boss::v1::SOLVER_MULTISTEP);
    row.set_steps(one.steps);
    row.set_nfe(one.steps);
    row.set_trajectory_error(one.error);
    row.clear_frechet_distance();
  }
  ASSERT_EQ(Run({"schedules", "compare", "flow@1", "--solver", "multistep", "--with", "flow@2", "--steps", "4,12,20"}),
            kExitOk)
      << err_.str();
  const auto& spec = server_.jobs.evaluated.spec();
  EXPECT_TRUE(spec.schedules().empty());
  EXPECT_THAT(spec.schedule_sets(), ElementsAre("mine-multistep"));
  EXPECT_TRUE(spec.other_solvers().empty());
  EXPECT_THAT(err_.str(), HasSubstr("left out: multistep-g1-k100-28521a03, which was taken for no K"));
  EXPECT_THAT(err_.str(), Not(HasSubstr("left out: multistep-g1-k100,")));
  EXPECT_THAT(err_.str(), Not(HasSubstr("left out: multistep-g1-k50")));
  EXPECT_THAT(err_.str(), HasSubstr("left out: bellman-euler-g1-k100, for euler and guidance scale 1\n"));
  EXPECT_EQ(out_.str(),
            " K  SCHEDULE   VERSION  NFE  TRAJECTORY ERROR  FRECHET DISTANCE\n"
            " 4  uniform    flow@1     4            0.5000                 -\n"
            " 4  multistep  flow@1     4          * 0.3750                 -\n"
            " 4  multistep  flow@2     4            0.7500                 -\n"
            "12  uniform    flow@1    12            0.2500                 -\n"
            "12  multistep  flow@1    12          * 0.1875                 -\n"
            "20  uniform    flow@1    20          * 0.1250                 -\n");
}

TEST_F(CompareTest, HeunBesideOtherVersionsHasUniformTimes) {
  server_.jobs.job = MakeDistillJob();
  server_.jobs.events = MakeEvents(5, boss::v1::Job::SUCCEEDED);
  AddSet("bellman-euler-g1-k100", boss::v1::SOLVER_EULER, 100);
  AddSet("trapezoid", boss::v1::SOLVER_HEUN, 0);
  ASSERT_EQ(Run({"schedules", "compare", "flow@1", "--solver", "heun", "--with", "flow@2"}), kExitOk) << err_.str();
  EXPECT_THAT(server_.jobs.evaluated.spec().schedules(), ElementsAre(boss::v1::SCHEDULE_KIND_UNIFORM));
  EXPECT_THAT(server_.jobs.evaluated.spec().schedule_sets(), ElementsAre("trapezoid"));
  EXPECT_THAT(err_.str(), HasSubstr("left out: bellman-euler-g1-k100, for euler and guidance scale 1\n"));
}

TEST_F(CompareTest, TheMeasureBesideOtherVersionsIsTheFirstOnesFineSampler) {
  server_.jobs.job = MakeDistillJob();
  server_.jobs.events = MakeEvents(5, boss::v1::Job::SUCCEEDED);
  ASSERT_EQ(Run({"schedules", "compare", "flow", "--with", "student"}), kExitOk) << err_.str();
  EXPECT_EQ(server_.jobs.evaluated.spec().baseline(), "flow@latest");
  EXPECT_THAT(server_.jobs.evaluated.spec().other_models(), ElementsAre("student@latest"));
  ASSERT_EQ(Run({"schedules", "compare", "flow@2", "--with", "flow@3", "--baseline", "flow@1"}), kExitOk) << err_.str();
  EXPECT_EQ(server_.jobs.evaluated.spec().baseline(), "flow@1");
  ASSERT_EQ(Run({"schedules", "compare", "flow@2"}), kExitOk) << err_.str();
  EXPECT_EQ(server_.jobs.evaluated.spec().baseline(), "");
  // Sets that are named are all there is.
  ASSERT_EQ(Run({"schedules", "compare", "flow@1", "--with", "flow@2", "--set", "mine"}), kExitOk) << err_.str();
  EXPECT_THAT(server_.jobs.evaluated.spec().schedules(), ElementsAre(boss::v1::SCHEDULE_KIND_UNIFORM));
  EXPECT_THAT(server_.jobs.evaluated.spec().schedule_sets(), ElementsAre("mine"));
}

TEST_F(CompareTest, AComparisonThatFailsSaysWhy) {
  server_.jobs.job = MakeDistillJob();
  server_.jobs.job.set_state(boss::v1::Job::FAILED);
  server_.jobs.job.mutable_error()->set_message("the reference is gone");
  server_.jobs.events = MakeEvents(5, boss::v1::Job::FAILED);
  EXPECT_EQ(Run({"schedules", "compare", "flow"}), kExitJobFailed);
  EXPECT_THAT(out_.str(), HasSubstr("the reference is gone"));
}

}  // namespace
}  // namespace boss::client
