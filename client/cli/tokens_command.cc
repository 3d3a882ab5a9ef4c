// bossctl tokens new: talks to no server.
#include <openssl/rand.h>

#include <array>
#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cli/options.h"
#include "client/sha256.h"

namespace boss::client {
namespace {

constexpr size_t kTokenBytes = 32;  // so that nobody guesses one, and its hash needs no salt

struct Arguments {
  std::string name;
  std::vector<std::string> roles;
  double days = 0;
  double requests_per_second = 0, burst = 0;
  int max_concurrent_calls = 0, max_unfinished_jobs = 0;
};

// The prefix lets scanners of repositories and logs find it.
absl::StatusOr<std::string> NewToken() {
  std::array<unsigned char, kTokenBytes> bytes;
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) {
    return absl::InternalError("the system gives no random numbers");
  }
  const absl::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return absl::StrCat("boss_", absl::WebSafeBase64Escape(text));
}

nlohmann::ordered_json Entry(const Arguments& arguments, const std::string& token) {
  Sha256 hash;
  hash.Update(token);
  nlohmann::ordered_json entry = {{"name", arguments.name}, {"sha256", hash.HexDigest()}, {"roles", arguments.roles}};
  if (arguments.days > 0) {
    const absl::Time expires = absl::Now() + absl::Hours(24) * arguments.days;
    entry["expires"] = absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", expires, absl::UTCTimeZone());
  }
  if (arguments.requests_per_second > 0) entry["requests_per_second"] = arguments.requests_per_second;
  if (arguments.burst > 0) entry["burst"] = arguments.burst;
  if (arguments.max_concurrent_calls > 0) entry["max_concurrent_calls"] = arguments.max_concurrent_calls;
  if (arguments.max_unfinished_jobs > 0) entry["max_unfinished_jobs"] = arguments.max_unfinished_jobs;
  return entry;
}

int New(Context& context, const Arguments& arguments) {
  const absl::StatusOr<std::string> token = NewToken();
  if (!token.ok()) return context.Fail(token.status());
  const nlohmann::ordered_json entry = Entry(arguments, *token);
  if (context.json) {
    context.out() << nlohmann::ordered_json({{"token", *token}, {"entry", entry}}).dump(2) << "\n";
  } else {
    context.out() << "token, shown this once:\n  " << *token
                  << "\n\nentry for \"tokens\" in the server's --access-file:\n  " << entry.dump() << "\n";
  }
  return kExitOk;
}

}  // namespace

void AddTokensCommands(CLI::App& app, Context& context) {
  CLI::App* tokens = app.add_subcommand("tokens", "Tokens of callers");
  tokens->require_subcommand(1);
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = tokens->add_subcommand("new", "Make a token and its entry for the access file; asks no server");
  command->add_option("--name", arguments->name, "The tenant: letters, digits, '.', '_', '-'")
      ->required()
      ->check([](const std::string& name) {
        const bool is_name =
            !name.empty() && name.size() <= 63 &&
            name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
                std::string::npos;
        return is_name ? "" : "must be 1 to 63 letters, digits, '.', '_' and '-'";
      });
  command->add_option("--role", arguments->roles, "generate, jobs or admin; may be repeated")
      ->required()
      ->check(CLI::IsMember({"generate", "jobs", "admin"}));
  command->add_option("--expires-days", arguments->days, "Days until it expires; default: never")
      ->check(CLI::PositiveNumber);
  CLI::Option* const rate =
      command->add_option("--requests-per-second", arguments->requests_per_second, "Default: no limit")
          ->check(CLI::PositiveNumber);
  command->add_option("--burst", arguments->burst, "Requests at once, at least 1; default: one second's")
      ->check([](const std::string& text) {
        double burst = 0;
        return absl::SimpleAtod(text, &burst) && burst >= 1 ? "" : "must be a number, at least 1";
      })
      ->needs(rate);
  command->add_option("--max-concurrent-calls", arguments->max_concurrent_calls, "Default: no limit")
      ->check(CLI::PositiveNumber);
  command->add_option("--max-unfinished-jobs", arguments->max_unfinished_jobs, "Default: no limit")
      ->check(CLI::PositiveNumber);
  command->callback([&context, arguments] {
    context.command = [arguments](Context& context) { return New(context, *arguments); };
    context.needs_server = false;
  });
}

}  // namespace boss::client
