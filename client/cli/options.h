// Glue between CLI11 and protobuf messages.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cli/context.h"
#include "client/cli/parse.h"

namespace boss::client {

// An option for one field: text, a number, or (as a flag) a truth value. `set` is called if the option is given.
template <typename Value, typename Set>
CLI::Option* Add(CLI::App& app, const std::string& names, Set set, const std::string& help) {
  return app.add_option_function<Value>(names, set, help);
}
template <typename Set>
void AddFlag(CLI::App& app, const std::string& names, Set set, const std::string& help) {
  app.add_flag_function(
      names, [set](int64_t) { set(); }, help);
}

// An option whose text goes through `parse`; what parse refuses is a usage error of that option.
template <typename Parse, typename Use>
CLI::Option* AddParsed(CLI::App& app, const std::string& names, Parse parse, Use use, const std::string& help) {
  return app.add_option_function<std::string>(
      names,
      [parse, use, names](const std::string& text) {
        auto value = parse(text);
        if (!value.ok()) throw CLI::ValidationError(names, std::string(value.status().message()));
        use(*std::move(value));
      },
      help);
}

// --label KEY=VALUE, into the map that `labels` returns.
template <typename Labels>
void AddLabels(CLI::App& app, Labels labels) {
  app.add_option_function<std::vector<std::string>>(
      "--label",
      [labels](const std::vector<std::string>& texts) {
        for (const std::string& text : texts) {
          const auto pair = ParseKeyValue(text);
          if (!pair.ok()) throw CLI::ValidationError("--label", std::string(pair.status().message()));
          (*labels())[pair->first] = pair->second;
        }
      },
      "KEY=VALUE; may be repeated");
}

// Makes `run` the command when `app` is the one that the command line names.
inline void SetCommand(CLI::App& app, Context& context, std::function<int(Context&)> run) {
  app.callback([&context, run = std::move(run)] { context.command = run; });
}

}  // namespace boss::client
