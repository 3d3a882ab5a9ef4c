#include "server/app/credentials.h"

#include <arpa/inet.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "core/base/status_macros.h"
#include "core/io/atomic_file.h"
#include "server/log/log.h"

namespace boss::server {
namespace {

// HOST of "HOST:PORT" and "[HOST]:PORT".
std::string HostOf(absl::string_view address) {
  const size_t colon = address.rfind(':');
  absl::string_view host = address.substr(0, colon);
  if (absl::StartsWith(host, "[") && absl::EndsWith(host, "]")) host = host.substr(1, host.size() - 2);
  return std::string(host);
}

bool IsLoopback(absl::string_view address) {
  if (absl::StartsWith(address, "unix:") || absl::StartsWith(address, "unix-abstract:")) return true;
  const std::string host = HostOf(address);
  in_addr v4;
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6;
  if (inet_pton(AF_INET6, host.c_str(), &v6) == 1) return IN6_IS_ADDR_LOOPBACK(&v6);
  return host == "localhost";
}

absl::Status CheckTlsFlags(const ServerConfig& config) {
  if (config.tls_certificate.empty() != config.tls_key.empty()) {
    return absl::InvalidArgumentError("--tls-certificate and --tls-key need each other");
  }
  if (!config.tls_client_ca.empty() && config.tls_certificate.empty()) {
    return absl::InvalidArgumentError("--tls-client-ca needs --tls-certificate and --tls-key");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckExposure(const ServerConfig& config) {
  if (config.insecure || IsLoopback(config.listen)) return absl::OkStatus();
  const bool tells_callers_apart = !config.access_file.empty() || !config.tls_client_ca.empty();
  std::string missing;
  if (!tells_callers_apart) {
    missing = "anybody who reaches it could do everything: give --access-file or --tls-client-ca";
  } else if (config.tls_certificate.empty()) {
    missing = "tokens would travel in the clear: give --tls-certificate and --tls-key";
  } else {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat("will not listen on ", config.listen,
                                                    ", which is no loopback address: ", missing,
                                                    ", or --insecure if something else guards the server"));
}

Credentials::Credentials(const ServerConfig& config, const Clock& clock)
    : access_file_(config.access_file), access_(clock) {}

absl::StatusOr<std::unique_ptr<Credentials>> Credentials::Open(const ServerConfig& config, const Clock& clock) {
  BOSS_RETURN_IF_ERROR(CheckTlsFlags(config));
  BOSS_RETURN_IF_ERROR(CheckExposure(config));
  std::unique_ptr<Credentials> credentials(new Credentials(config, clock));
  if (!config.tls_certificate.empty()) {
    BOSS_ASSIGN_OR_RETURN(credentials->tls_, ServerTls::Open({.certificate = config.tls_certificate,
                                                              .key = config.tls_key,
                                                              .client_ca = config.tls_client_ca}));
  }
  {
    absl::MutexLock lock(&credentials->mutex_);
    BOSS_RETURN_IF_ERROR(credentials->ReadAccessFile().status());
  }
  const bool has_files = credentials->tls_ || !config.access_file.empty();
  if (has_files && config.credentials_reload > absl::ZeroDuration() &&
      config.credentials_reload < absl::InfiniteDuration()) {
    credentials->watcher_ = std::thread([raw = credentials.get(), period = config.credentials_reload] {
      while (!raw->stop_.WaitForNotificationWithTimeout(period)) raw->Look(/*asked=*/false);
    });
  }
  return credentials;
}

Credentials::~Credentials() {
  stop_.Notify();
  if (watcher_.joinable()) watcher_.join();
}

std::shared_ptr<grpc::ServerCredentials> Credentials::ForServer() const {
  return tls_ ? tls_->ForServer() : grpc::InsecureServerCredentials();
}

absl::StatusOr<bool> Credentials::ReadAccessFile() {
  if (access_file_.empty()) return false;
  BOSS_ASSIGN_OR_RETURN(std::string text, ReadFile(access_file_));
  if (!access_text_.empty() && text == access_text_) return false;
  absl::StatusOr<std::vector<AccessRule>> rules = ParseAccessRules(text);
  if (!rules.ok()) {
    return absl::Status(rules.status().code(), absl::StrCat(access_file_, ": ", rules.status().message()));
  }
  access_.SetRules(*std::move(rules));
  access_text_ = std::move(text);
  return true;
}

void Credentials::Reload() { Look(/*asked=*/true); }

void Credentials::Look(bool asked) {
  absl::MutexLock lock(&mutex_);
  const absl::StatusOr<bool> access = ReadAccessFile();
  const absl::StatusOr<bool> certificate = tls_ ? tls_->Reload() : absl::StatusOr<bool>(false);
  const auto report = [&](const char* what, const absl::StatusOr<bool>& changed, absl::Status& said) {
    if (!changed.ok() && (asked || changed.status() != said)) {
      LogError("what was there stays in use", {{"what", what}, {"error", changed.status()}});
    } else if (changed.ok() && *changed) {
      LogInfo("in use from now on", {{"what", what}});
    }
    said = changed.status();
  };
  report("access file", access, access_problem_);
  report("certificate", certificate, certificate_problem_);
}

std::vector<CollectedFamily> Credentials::Collect() const {
  std::vector<CollectedFamily> families = access_.Collect();
  if (tls_) {
    families.push_back({.name = "boss_tls_certificate_not_after_timestamp_seconds",
                        .help = "Unix time at which the server's certificate ends",
                        .kind = CollectedFamily::Kind::kGauge,
                        .series = {{{}, absl::ToDoubleSeconds(tls_->not_after() - absl::UnixEpoch())}}});
  }
  return families;
}

}  // namespace boss::server
