#include "client/cli/bossctl.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "client/format.h"
#include "client/picture.h"
#include "tests/client/bossctl_fixture.h"

namespace boss::client {
namespace {

using ::boss::v1::Job;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

using BossctlTest = BossctlFixture;

TEST_F(BossctlTest, WrongCommandLinesAreUsageErrorsThatNameTheOption) {
  const struct {
    std::vector<std::string> arguments;
    const char* named;
  } cases[] = {
      {{}, "subcommand"},
      {{"dance"}, "dance"},
      {{"generate"}, "--model"},
      {{"generate", "-m", "m", "--schedule", "0,2"}, "--schedule"},
      {{"generate", "-m", "m", "--solver", "magic"}, "magic"},
      {{"generate", "-m", "m", "--num", "0"}, "--num"},
      {{"generate", "-m", "m", "--labels", "x"}, "--labels"},
      {{"jobs", "get"}, "job"},
      {{"jobs", "distill", "-m", "m", "--method", "magic"}, "--method"},
      {{"jobs", "distill", "-m", "m", "--label", "nothing"}, "--label"},
      {{"jobs", "distill", "-m", "m", "--include-fine"}, "--include-fine"},
      {{"models", "alias", "m", "prod"}, "--remove"},
      {{"models", "alias", "m", "prod", "3", "--remove"}, "--remove"},
      {{"models", "export", "m@1"}, "--out"},
      {{"report", "--out", "x.html"}, "--job"},
      {{"report", "--job", "jobs/7", "--out", "x.html", "--grid", "nofile"}, "--grid"},
  };
  for (const auto& one : cases) {
    EXPECT_EQ(Run(one.arguments), kExitUsage) << ::testing::PrintToString(one.arguments);
    EXPECT_THAT(err_.str(), HasSubstr(one.named));
    EXPECT_EQ(out_.str(), "");
  }
}

TEST_F(BossctlTest, HelpListsTheExitCodes) {
  EXPECT_EQ(Run({"--help"}), kExitOk);
  EXPECT_THAT(out_.str(), HasSubstr("130  interrupted"));
}

TEST_F(BossctlTest, ErrorsShowTheCodesName) {
  EXPECT_EQ(Run({"models", "get", "nothing"}), kExitError);
  EXPECT_EQ(err_.str(), "bossctl: NOT_FOUND: there is no model nothing\n");
}

TEST_F(BossctlTest, GenerateWritesSamplesAndTheGrid) {
  const std::string out = folder_ / "samples", grid = folder_ / "grid.png";
  ASSERT_EQ(Run({"generate", "-m", "m", "-k", "2", "--schedule", "bellman", "-n", "4", "-s", "9", "--labels", "0-1",
                 "--out", out, "--grid", grid, "--columns", "4"}),
            kExitOk)
      << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("m@1"));
  EXPECT_THAT(out_.str(), HasSubstr("time grid  0 0.25 1"));
  EXPECT_THAT(out_.str(), HasSubstr("50 samples/s on cpu"));
  EXPECT_THAT(server_.sampler.request.class_labels(), ElementsAre(0, 1, 0, 1));
  EXPECT_EQ(server_.sampler.request.steps(), 2);
  EXPECT_EQ(server_.sampler.request.schedule(), boss::v1::SCHEDULE_KIND_BELLMAN);
  EXPECT_EQ(DecodePng(Contents(out + "/00003.png"))->pixels[0], 30);
  const auto picture = DecodePng(Contents(grid));
  ASSERT_TRUE(picture.ok()) << picture.status();
  EXPECT_EQ(picture->width, 4 * 4 + 2);
}

TEST_F(BossctlTest, GenerateReadsConditionsFromFiles) {
  auto* spec = server_.models.model.add_conditioning();
  spec->set_name("text");
  spec->set_dtype(boss::v1::Tensor::DATA_TYPE_FLOAT32);
  spec->add_shape(2);
  const std::string name = server_.models.model.name();
  std::ofstream(folder_ / "all") << std::string(16, 'a');
  std::ofstream(folder_ / "one") << std::string(8, 'b');
  ASSERT_EQ(Run({"generate", "-m", name, "-n", "2", "-l", "1", "-g", "2", "--negative-labels", "3,4", "--condition",
                 "text=" + (folder_ / "all"), "--negative-condition", "text=" + (folder_ / "one"), "--validate-only"}),
            kExitOk)
      << err_.str();
  const auto& request = server_.sampler.request;
  EXPECT_THAT(request.negative_class_labels(), ElementsAre(3, 4));
  EXPECT_THAT(request.conditions().at("text").shape(), ElementsAre(2, 2));
  EXPECT_EQ(request.conditions().at("text").data(), std::string(16, 'a'));
  EXPECT_THAT(request.negative_conditions().at("text").shape(), ElementsAre(1, 2));
  EXPECT_EQ(Run({"generate", "-m", name, "--condition", "image=" + (folder_ / "one")}), kExitError);
  EXPECT_THAT(err_.str(), HasSubstr("has no condition image"));
}

TEST_F(BossctlTest, GenerateTellsProgramsWhereSamplesAre) {
  ASSERT_EQ(Run({"--json", "generate", "-m", "m", "-n", "2", "-s", "9", "--out", folder_.path()}), kExitOk)
      << err_.str();
  const auto document = nlohmann::json::parse(out_.str());
  EXPECT_EQ(document["samples"][1]["file"], folder_ / "00001.png");
  EXPECT_EQ(document["samples"][1]["seed"], "10");
  EXPECT_EQ(document["accepted"]["model"], "m@1");
  EXPECT_EQ(document["summary"]["samplesPerSecond"], 50);
}

TEST_F(BossctlTest, GenerateReportsAnUnwritableFolder) {
  std::ofstream(folder_ / "file") << "x";
  EXPECT_EQ(Run({"generate", "-m", "m", "--out", folder_ / "file"}), kExitError);
  EXPECT_THAT(err_.str(), HasSubstr(folder_ / "file"));
}

TEST_F(BossctlTest, ValidateOnlyDrawsNothing) {
  EXPECT_EQ(Run({"generate", "-m", "m", "-n", "3", "--validate-only"}), kExitOk);
  EXPECT_TRUE(server_.sampler.request.validate_only());
  EXPECT_THAT(out_.str(), HasSubstr("m@1"));
}

TEST_F(BossctlTest, DistillSendsWhatItsOptionsSay) {
  server_.jobs.job = MakeDistillJob();
  std::ofstream(folder_ / "spec.json") << R"({"steps": 6, "seed": "5", "training": {"trainSteps": "10"}})";
  ASSERT_EQ(Run({"jobs",
                 "distill",
                 "-m",
                 "flow",
                 "--steps",
                 "4",
                 "--spec",
                 folder_ / "spec.json",
                 "--lora-rank",
                 "8",
                 "--batch-size",
                 "15",
                 "--label",
                 "team=vision",
                 "--label",
                 "run=2",
                 "--evaluation-steps",
                 "2,4",
                 "--held-out-share",
                 "0"}),
            kExitOk)
      << err_.str();
  EXPECT_EQ(out_.str(), "jobs/7\n");
  const auto& spec = server_.jobs.distilled.spec();
  EXPECT_EQ(spec.model(), "flow");
  EXPECT_EQ(spec.steps(), 4);  // the option wins over the file
  EXPECT_EQ(spec.seed(), 5);
  EXPECT_EQ(spec.training().train_steps(), 10);
  EXPECT_EQ(spec.training().batch_size(), 15);
  EXPECT_EQ(spec.tuning(), boss::v1::DistillSpec::LORA);
  EXPECT_EQ(spec.lora().rank(), 8);
  EXPECT_TRUE(spec.has_held_out_share());
  EXPECT_THAT(spec.evaluation().steps(), ElementsAre(2, 4));
  EXPECT_EQ(server_.jobs.distilled.options().labels().at("run"), "2");
  EXPECT_EQ(server_.jobs.distilled.options().labels().at("team"), "vision");
}

TEST_F(BossctlTest, JobsSayHowLongTheyAreKeptAndHowOftenTheyMayCrash) {
  server_.jobs.job = MakeDistillJob();
  ASSERT_EQ(Run({"jobs", "distill", "-m", "m", "--retention", "90", "--max-crashes", "0", "--regenerate-pairs",
                 "--fit-multistep", "false"}),
            kExitOk)
      << err_.str();
  EXPECT_EQ(server_.jobs.distilled.options().retention().seconds(), 90);
  EXPECT_TRUE(server_.jobs.distilled.options().has_max_crashes());
  EXPECT_EQ(server_.jobs.distilled.options().max_crashes(), 0);
  EXPECT_TRUE(server_.jobs.distilled.spec().regenerate_pairs());
  EXPECT_TRUE(server_.jobs.distilled.spec().has_fit_multistep());
  EXPECT_FALSE(server_.jobs.distilled.spec().fit_multistep());
  ASSERT_EQ(Run({"jobs", "distill", "-m", "m"}), kExitOk);
  EXPECT_FALSE(server_.jobs.distilled.options().has_max_crashes());
  EXPECT_FALSE(server_.jobs.distilled.options().has_retention());
}

TEST_F(BossctlTest, WaitingForAnEvaluationPrintsItsTable) {
  server_.jobs.job = MakeDistillJob();
  server_.jobs.events = MakeEvents(5, Job::SUCCEEDED);
  ASSERT_EQ(Run({"jobs", "evaluate", "-m", "flow@1", "-m", "flow@2", "--schedules", "uniform,bellman", "--reference",
                 "none", "--include-fine", "--wait"}),
            kExitOk)
      << err_.str();
  EXPECT_THAT(err_.str(), HasSubstr("submitted jobs/7"));
  EXPECT_THAT(err_.str(), HasSubstr("state SUCCEEDED"));
  EXPECT_THAT(out_.str(), HasSubstr("TRAJECTORY ERROR"));
  EXPECT_THAT(out_.str(), HasSubstr("0.2500"));
  const auto& spec = server_.jobs.evaluated.spec();
  EXPECT_EQ(spec.model(), "flow@1");
  EXPECT_THAT(spec.other_models(), ElementsAre("flow@2"));
  EXPECT_THAT(spec.schedules(), ElementsAre(boss::v1::SCHEDULE_KIND_UNIFORM, boss::v1::SCHEDULE_KIND_BELLMAN));
  EXPECT_TRUE(spec.has_reference_dataset());
  EXPECT_EQ(spec.reference_dataset(), "");
  EXPECT_TRUE(spec.include_fine());
}

TEST_F(BossctlTest, AJobThatFailsHasAnExitCodeOfItsOwn) {
  server_.jobs.job = MakeDistillJob();
  server_.jobs.job.set_state(Job::FAILED);
  server_.jobs.job.mutable_error()->set_message("the loss is not finite");
  server_.jobs.events = MakeEvents(5, Job::FAILED);
  EXPECT_EQ(Run({"jobs", "watch", "jobs/7"}), kExitJobFailed);
  EXPECT_THAT(out_.str(), HasSubstr("the loss is not finite"));
  EXPECT_EQ(Run({"jobs", "watch", "jobs/7", "--events"}), kExitJobFailed);
}

TEST_F(BossctlTest, EventsForProgramsAreOneDocumentALine) {
  server_.jobs.events = MakeEvents(4, Job::SUCCEEDED);
  ASSERT_EQ(Run({"--json", "jobs", "watch", "jobs/7", "--events", "--from", "2"}), kExitOk);
  std::istringstream lines(out_.str());
  std::vector<std::string> sequences;
  for (std::string line; std::getline(lines, line);) sequences.push_back(nlohmann::json::parse(line)["sequence"]);
  EXPECT_THAT(sequences, ElementsAre("2", "3", "4"));
}

TEST_F(BossctlTest, ListsHaveEveryPage) {
  server_.jobs.list_total = 5;
  ASSERT_EQ(Run({"jobs", "list"}), kExitOk);
  EXPECT_THAT(out_.str(), HasSubstr("jobs/4"));
  ASSERT_EQ(Run({"--json", "jobs", "list", "--limit", "3"}), kExitOk);
  EXPECT_EQ(nlohmann::json::parse(out_.str())["jobs"].size(), 3);
}

TEST_F(BossctlTest, InterruptionIsNoError) {
  server_.jobs.events = MakeEvents(2, Job::RUNNING);
  server_.jobs.hang = true;
  Client* client = nullptr;
  // Cancels as soon as something was printed, as a signal would.
  struct CancellingBuffer : std::stringbuf {
    explicit CancellingBuffer(Client** client) : client(client) {}
    int sync() override {
      (*client)->Cancel();
      return 0;
    }
    Client** client;
  } buffer(&client);
  std::ostream err(&buffer);
  const int code = RunBossctl({"-a", server_.address(), "jobs", "watch", "jobs/7"}, Console{out_, err},
                              [&](Client* made) { client = made; });
  EXPECT_EQ(code, kExitInterrupted);
  EXPECT_THAT(buffer.str(), HasSubstr("jobs/7 goes on"));
  EXPECT_EQ(client, nullptr);
}

TEST_F(BossctlTest, JobsShowWhyTheyWaitAndWhatTheyStore) {
  server_.jobs.list_total = 1;
  ASSERT_EQ(Run({"jobs", "list"}), kExitOk);
  EXPECT_EQ(out_.str().find("REASON"), std::string::npos);
  EXPECT_EQ(out_.str().find("STORED"), std::string::npos);
  EXPECT_EQ(out_.str().find("EXPIRES"), std::string::npos);
  server_.jobs.job.set_state(Job::QUEUED);
  server_.jobs.job.set_state_reason("waiting: less than 1 GiB of disk is free");
  server_.jobs.job.set_stored_bytes(3 << 20);
  server_.jobs.job.mutable_expire_time()->set_seconds(1'700'000'000);
  for (const char* command : {"list", "get"}) {
    std::vector<std::string> arguments = {"jobs", command};
    if (arguments[1] == "get") arguments.push_back("jobs/0");
    ASSERT_EQ(Run(arguments), kExitOk);
    EXPECT_THAT(out_.str(), HasSubstr("less than 1 GiB"));
    EXPECT_THAT(out_.str(), HasSubstr("3.0 MiB"));
    EXPECT_THAT(out_.str(), HasSubstr(FormatTime(server_.jobs.job.expire_time())));
  }
}

TEST_F(BossctlTest, ShowsModelsSchedulesAndTheServer) {
  server_.models.model.set_name("flow");
  server_.models.model.set_parameter_count(754321);
  server_.models.model.add_versions()->set_version("2");
  (*server_.models.model.mutable_aliases())["prod"] = "2";
  server_.models.schedules = MakeScheduleSet();
  ASSERT_EQ(Run({"models", "list"}), kExitOk);
  EXPECT_THAT(out_.str(), HasSubstr("flow@2"));
  EXPECT_THAT(out_.str(), HasSubstr("754,321"));
  EXPECT_THAT(out_.str(), HasSubstr("prod"));
  ASSERT_EQ(Run({"schedules", "get", "flow"}), kExitOk);
  EXPECT_THAT(out_.str(), HasSubstr("2     0.5  0 0.125 1\n"));
  ASSERT_EQ(Run({"--json", "schedules", "get", "flow", "--cost-matrix"}), kExitOk);
  EXPECT_EQ(nlohmann::json::parse(out_.str())["costMatrix"].size(), 81);
  ASSERT_EQ(Run({"capabilities"}), kExitOk);
  EXPECT_THAT(out_.str(), HasSubstr("euler, rk45"));
}

TEST_F(BossctlTest, HealthHasAnExitCodeForNotServing) {
  EXPECT_EQ(Run({"health"}), kExitOk);
  EXPECT_EQ(out_.str(), "SERVING\n");
  server_.health().SetServingStatus(false);
  EXPECT_EQ(Run({"health"}), kExitNotServing);
  EXPECT_EQ(out_.str(), "NOT_SERVING\n");
}

TEST_F(BossctlTest, ReportIsOnePageOfEverything) {
  server_.jobs.job = MakeDistillJob();
  server_.jobs.events = MakeEvents(30, Job::SUCCEEDED);
  server_.models.schedules = MakeScheduleSet();
  std::ofstream(folder_ / "grid.png", std::ios::binary) << *EncodePng(Picture{1, 1, 1, {9}});
  const std::string page = folder_ / "report.html";
  ASSERT_EQ(Run({"report", "--job", "jobs/7", "--grid", "teacher=" + (folder_ / "grid.png"), "--out", page}), kExitOk)
      << err_.str();
  const std::string html = Contents(page);
  for (const char* part : {"Samples", "Evaluation", "Cost matrix", "Training loss", "jobs/7", "bossd 1.2.3"}) {
    EXPECT_THAT(html, HasSubstr(part));
  }
  std::ofstream(folder_ / "text.png") << "no picture";
  EXPECT_EQ(Run({"report", "--job", "jobs/7", "--grid", "x=" + (folder_ / "text.png"), "--out", page}), kExitError);
  EXPECT_THAT(err_.str(), HasSubstr("text.png"));
}

TEST_F(BossctlTest, ReportGoesWithoutSchedulesThatAreGone) {
  server_.jobs.job = MakeDistillJob();
  server_.jobs.events = MakeEvents(20, boss::v1::Job::SUCCEEDED);
  const std::string page = folder_ / "report.html";
  const grpc::StatusCode codes[] = {grpc::StatusCode::NOT_FOUND, grpc::StatusCode::FAILED_PRECONDITION};
  for (const grpc::StatusCode code : codes) {
    server_.models.schedule_status = {code, "flow@1 has none"};
    ASSERT_EQ(Run({"report", "--job", "jobs/7", "--out", page}), kExitOk) << err_.str();
    EXPECT_EQ(err_.str(), "left out: bellman-euler-g1 of jobs/7, flow@1 has none\n");
    EXPECT_THAT(Contents(page), HasSubstr("Training loss"));
    EXPECT_THAT(Contents(page), Not(HasSubstr("<h2>Schedule")));
  }
  server_.models.schedule_status = {grpc::StatusCode::PERMISSION_DENIED, "not for you"};
  EXPECT_EQ(Run({"report", "--job", "jobs/7", "--out", page}), kExitError);
  // A reflow job on a teacher without sets used none.
  server_.jobs.job.mutable_result()->clear_schedule_set();
  server_.models.schedule_status = {grpc::StatusCode::FAILED_PRECONDITION, "flow@1 has no schedules"};
  ASSERT_EQ(Run({"report", "--job", "jobs/7", "--out", page}), kExitOk) << err_.str();
  EXPECT_EQ(err_.str(), "");
  EXPECT_THAT(Contents(page), Not(HasSubstr("<h2>Schedule")));
}

}  // namespace
}  // namespace boss::client
