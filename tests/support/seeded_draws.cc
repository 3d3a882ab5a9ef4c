// Linked into every test with LibTorch: what a test draws without a generator of its own is the same in every run.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace boss::testing {
namespace {

class SeedBeforeEachTest final : public ::testing::EmptyTestEventListener {
  void OnTestStart(const ::testing::TestInfo&) override { at::manual_seed(1); }
};

// GoogleTest owns its listeners.
const bool kIsListening = [] {
  ::testing::UnitTest::GetInstance()->listeners().Append(new SeedBeforeEachTest);
  return true;
}();

}  // namespace
}  // namespace boss::testing
