// Trains the classifier whose features serve the Frechet distance.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/evaluate/classifier.h"
#include "core/io/image_dataset.h"

namespace {

constexpr int64_t kNumFeatures = 64;

struct Arguments {
  std::string data, test, out;
  int epochs = 5;
  uint64_t seed = 1;
};

absl::Status Train(const Arguments& arguments) {
  BOSS_ASSIGN_OR_RETURN(const boss::ImageDataset data, boss::OpenDataset(arguments.data));
  BOSS_ASSIGN_OR_RETURN(const boss::ImageDataset test, boss::OpenDataset(arguments.test));
  if (!data.labels.defined() || !test.labels.defined())
    return absl::InvalidArgumentError("got a data set without labels, expected labels");
  if (data.images.size(2) != data.images.size(3) || test.images.sizes().slice(1) != data.images.sizes().slice(1)) {
    return absl::InvalidArgumentError(
        "got images of different sizes or not square, expected one square size in both data sets");
  }
  boss::Classifier classifier(data.images.size(1), data.images.size(2), kNumFeatures,
                              data.labels.max().item<int64_t>() + 1, arguments.seed);
  BOSS_RETURN_IF_ERROR(
      boss::TrainClassifier(classifier, data, arguments.epochs, arguments.seed, [](int epoch, double loss) {
        std::printf("epoch %d: loss %.4f\n", epoch + 1, loss);
        std::fflush(stdout);
      }));
  std::printf("test accuracy: %.2f%% of %lld images\n", 100 * boss::Accuracy(classifier, test),
              static_cast<long long>(test.size()));
  return classifier.Save(arguments.out);
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Trains a small image classifier and writes its weights");
  app.add_option("--data", arguments.data, "training images: fashion-mnist-train, idx:IMAGES,LABELS or png:FOLDER")
      ->required();
  app.add_option("--test", arguments.test, "images for the accuracy")->required();
  app.add_option("--epochs", arguments.epochs, "passes over the training images")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--seed", arguments.seed, "of the first weights and the order")->capture_default_str();
  app.add_option("--out", arguments.out, "safetensors file to write")->required();
  CLI11_PARSE(app, argc, argv);

  // Sums depend on how they are split: one thread gives the same file on every machine with the same vector
  // instructions.
  at::set_num_threads(1);
  const absl::Status status = Train(arguments);
  if (!status.ok()) {
    std::fprintf(stderr, "boss-train-classifier: %s\n", status.ToString().c_str());
    return 1;
  }
  return 0;
}
