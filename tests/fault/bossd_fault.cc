// bossd on a disk that fails as the environment variable BOSS_FAULT says (FaultPlan::Parse). SIGUSR1 arms the plan.
#include <signal.h>

#include <cstdio>
#include <cstdlib>

#include "server/app/run.h"
#include "tests/support/fault_file_system.h"
#include "tests/support/fault_vfs.h"

namespace {

boss::testing::FaultPlan* plan_to_arm = nullptr;

void Arm(int) { plan_to_arm->Arm(); }

}  // namespace

int main(int argc, char** argv) {
  const char* text = std::getenv("BOSS_FAULT");
  const auto plan = boss::testing::FaultPlan::Parse(text == nullptr ? "" : text);
  if (!plan.ok()) {
    std::fprintf(stderr, "%s\n", plan.status().ToString().c_str());
    return EXIT_FAILURE;
  }
  plan_to_arm = plan->get();
  struct sigaction action = {};
  action.sa_handler = Arm;
  action.sa_flags = SA_RESTART;
  sigaction(SIGUSR1, &action, nullptr);
  const boss::testing::FaultFileSystem files(**plan);
  const boss::testing::FaultVfs vfs(**plan);
  const int exit_status = boss::server::RunServer(argc, argv, {files, vfs.name()});
  (*plan)->WriteCounts();
  return exit_status;
}
