// A published network's checkpoint at its full size, from the file to an evaluation.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>

#include "tests/support/numbers_of.h"
#include "tests/support/temp_folder.h"

namespace boss::server {
namespace {

using ::boss::testing::NumbersOf;
using ::boss::testing::TempFolder;
using Numbers = std::map<std::string, double>;

double PeakBeyondTheStart(const Numbers& numbers) { return numbers.at("peak_bytes") - numbers.at("start_bytes"); }

TEST(ImportMemoryTest, AFullSizeCheckpointIsImportedAndLoadedInTheMemoryThatIsPromised) {
  const TempFolder folder;
  const std::string probe = IMPORT_PROBE, file = folder / "checkpoint.pth", data = folder / "data";
  NumbersOf(probe + " make cifar10-ddpmpp " + file);

  const Numbers import = NumbersOf(probe + " import cifar10-ddpmpp " + file + " " + data);
  EXPECT_EQ(import.at("file_bytes"), static_cast<double>(std::filesystem::file_size(file)));
  EXPECT_GT(import.at("file_bytes"), 2 * 61'804'419.0 * sizeof(float));
  // The file once. Users are promised twice.
  EXPECT_LT(PeakBeyondTheStart(import), 1.25 * import.at("file_bytes"));
  EXPECT_GT(PeakBeyondTheStart(import), 0.5 * import.at("file_bytes")) << "the peak is not measured";

  const Numbers load = NumbersOf(probe + " load " + data);
  EXPECT_EQ(load.at("parameters"), 61'804'419);
  EXPECT_EQ(load.at("averages_are_there"), 1);
  EXPECT_EQ(load.at("output_is_finite"), 1);
  // The file and the network.
  EXPECT_LT(PeakBeyondTheStart(load), 2.25 * load.at("weight_bytes"));
}

}  // namespace
}  // namespace boss::server
