// Numbers that a program of ours prints.
#pragma once

#include <stdio.h>

#include <map>
#include <stdexcept>
#include <string>

namespace boss::testing {

// Runs a shell command that prints lines "NAME NUMBER". Throws std::runtime_error if it fails.
inline std::map<std::string, double> NumbersOf(const std::string& command) {
  FILE* const pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error(command + " could not be started");
  std::map<std::string, double> numbers;
  char name[64];
  double value = 0;
  while (::fscanf(pipe, "%63s %lf", name, &value) == 2) numbers[name] = value;
  if (::pclose(pipe) != 0) throw std::runtime_error(command + " failed");
  return numbers;
}

}  // namespace boss::testing
