// bossctl against a server whose answers the test chooses.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "client/cli/bossctl.h"
#include "client/cli/context.h"
#include "tests/client/fake_server.h"
#include "tests/support/temp_folder.h"

namespace boss::client {

class BossctlFixture : public ::testing::Test {
 protected:
  // The exit status; what was printed before is dropped.
  int Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--address", server_.address()});
    out_.str("");
    err_.str("");
    return RunBossctl(arguments, Console{out_, err_}, [](Client*) {});
  }

  static std::string Contents(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  FakeServer server_;
  std::ostringstream out_, err_;
  boss::testing::TempFolder folder_;
};

}  // namespace boss::client
