// What a velocity evaluation costs, learned from those that ran.
#pragma once

#include <cstdint>
#include <map>

namespace boss::server {

// Seconds of one evaluation of a batch, by its rows. Not thread-safe.
//
// Sizes are kept in classes of a factor of two, each an exponentially weighted mean of what was observed; between them
// it is linear. What was never observed is taken from the nearest class, assuming that a batch costs what kFixedRows
// rows would cost and its own rows beside.
class CostModel {
 public:
  // \pre rows >= 1.
  void Observe(int64_t rows, double seconds);
  // Positive, and never smaller for more rows. Before the first Observe: relative cost alone. \pre rows >= 1.
  double Seconds(int64_t rows) const;

 private:
  struct Mean {
    double rows = 0, seconds = 0;
  };
  std::map<int, Mean> classes_;  // by the logarithm of the rows
};

}  // namespace boss::server
