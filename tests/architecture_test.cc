// The arrows between folders, read off the includes: an include along an arrow that is not drawn here fails.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>

namespace boss {
namespace {

namespace fs = std::filesystem;
using Arrows = std::map<std::string, std::set<std::string>>;

const Arrows& Allowed() {
  static const std::set<std::string> kNumerics = {"core/base",  "core/flow",     "core/nets",     "core/solver",
                                                  "core/stepsize", "core/finetune", "core/evaluate", "core/io"};
  const auto with = [](std::set<std::string> folders, const std::set<std::string>& more) {
    folders.insert(more.begin(), more.end());
    return folders;
  };
  static const Arrows kArrows = {
      {"core/base", {}},
      {"core/flow", {"core/base"}},
      {"core/nets", {"core/flow", "core/base"}},
      {"core/solver", {"core/flow", "core/base"}},
      {"core/stepsize", {"core/flow", "core/base"}},
      // Adapters and feature networks are files of weights.
      {"core/finetune", {"core/solver", "core/nets", "core/flow", "core/io", "core/base"}},
      {"core/evaluate", {"core/solver", "core/flow", "core/io", "core/base"}},
      {"core/io", {"core/base"}},
      {"server/metrics", {"core/base"}},
      {"server/log", {"core/base"}},
      // What is published must load, so the store builds models.
      {"server/store", {"server/log", "core/io", "core/nets", "core/flow", "core/finetune", "core/base"}},
      {"server/device", with({"server/metrics"}, kNumerics)},
      {"server/engine", with({"server/device", "server/store", "server/metrics", "server/log"}, kNumerics)},
      {"server/jobs", with({"server/device", "server/store", "server/metrics", "server/log"}, kNumerics)},
      {"server/rpc", with({"server/engine", "server/jobs", "server/store", "server/metrics", "server/log", "proto"}, kNumerics)},
      {"server/app", with({"server/metrics", "server/log", "server/store", "server/device", "server/engine", "server/jobs", "server/rpc", "proto"}, kNumerics)},
      {"client", {"proto"}},
  };
  return kArrows;
}

// "core/flow/time_grid.h" -> "core/flow"; "client/cli/parse.h" -> "client"; "boss/v1/jobs.pb.h" -> "proto"; anything else is a third party's.
std::string FolderOf(const std::string& path) {
  static const std::regex kPattern("^(core/[a-z]+|server/[a-z]+|client|boss/v1|inference)/");
  std::smatch match;
  if (!std::regex_search(path, match, kPattern)) return "";
  return match[1] == "boss/v1" || match[1] == "inference" ? "proto" : match[1].str();
}

struct Include {
  std::string file, included;
};

std::vector<Include> AllIncludes() {
  static const std::regex kInclude("^\\s*#include [<\"]([^>\"]+)[>\"]");
  std::vector<Include> includes;
  const fs::path root = BOSS_SOURCE_DIR;
  for (const char* top : {"core", "server", "client"}) {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(root / top)) {
      const std::string extension = entry.path().extension();
      if (extension != ".h" && extension != ".cc") continue;
      std::ifstream file(entry.path());
      std::string line;
      while (std::getline(file, line)) {
        std::smatch match;
        if (std::regex_search(line, match, kInclude)) includes.push_back({entry.path().lexically_relative(root), match[1]});
      }
    }
  }
  return includes;
}

TEST(ArchitectureTest, IncludesFollowTheArrows) {
  std::set<std::string> seen;
  for (const Include& include : AllIncludes()) {
    const std::string from = FolderOf(include.file), to = FolderOf(include.included);
    ASSERT_TRUE(Allowed().contains(from)) << include.file << " is in a folder without arrows";
    seen.insert(from);
    if (to.empty() || to == from) continue;
    EXPECT_TRUE(Allowed().at(from).contains(to)) << include.file << " includes " << include.included << ": no arrow " << from << " -> " << to;
  }
  EXPECT_EQ(seen.size(), Allowed().size()) << "a folder is gone or holds no code";
}

TEST(ArchitectureTest, ThirdPartiesStayWhereTheyBelong) {
  for (const Include& include : AllIncludes()) {
    const std::string folder = FolderOf(include.file);
    if (include.included.starts_with("prometheus/")) EXPECT_EQ(folder, "server/metrics") << include.file;
    if (include.included.starts_with("spdlog/")) EXPECT_EQ(folder, "server/log") << include.file;
    if (include.included.starts_with("sqlite3")) EXPECT_EQ(folder, "server/store") << include.file;
    if (include.included.starts_with("grpcpp/")) {
      EXPECT_TRUE(folder == "server/rpc" || folder == "server/app" || folder == "client") << include.file;
    }
    if (include.included.starts_with("ATen/") || include.included.starts_with("torch/")) EXPECT_NE(folder, "client") << include.file;
  }
}

TEST(ArchitectureTest, CoreAndProtoMeetOnlyInTheConversion) {
  std::map<std::string, std::pair<bool, bool>> files;  // includes core or jobs structs; includes proto messages
  for (const Include& include : AllIncludes()) {
    if (FolderOf(include.file) != "server/rpc") continue;
    auto& [core, proto] = files[include.file];
    core |= include.included.starts_with("core/nets") || include.included.starts_with("core/solver") ||
            include.included.starts_with("core/finetune") || include.included.starts_with("core/stepsize");
    proto |= FolderOf(include.included) == "proto";
  }
  for (const auto& [file, meets] : files) {
    if (meets.first && meets.second) EXPECT_TRUE(fs::path(file).filename().string().starts_with("convert")) << file;
  }
}

}  // namespace
}  // namespace boss
