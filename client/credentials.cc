#include "client/credentials.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace boss::client {
namespace {

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  const auto close = [](std::FILE* file) { std::fclose(file); };
  const std::unique_ptr<std::FILE, decltype(close)> file(std::fopen(path.c_str(), "rbe"), close);
  if (!file) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  std::string text;
  std::array<char, 4096> piece;
  while (const size_t size = std::fread(piece.data(), 1, piece.size(), file.get())) text.append(piece.data(), size);
  // E.g. a folder.
  if (std::ferror(file.get()) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
  return text;
}

// Anything else would end the process inside gRPC.
bool IsToken(absl::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(),
                                      [](char c) { return absl::ascii_isgraph(static_cast<unsigned char>(c)); });
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeTls(const Credentials& credentials) {
  if (credentials.certificate_file.empty() != credentials.key_file.empty()) {
    return absl::InvalidArgumentError("a client's certificate and its key need each other");
  }
  grpc::SslCredentialsOptions options;
  const std::pair<const std::string*, std::string*> files[] = {{&credentials.ca_file, &options.pem_root_certs},
                                                               {&credentials.certificate_file, &options.pem_cert_chain},
                                                               {&credentials.key_file, &options.pem_private_key}};
  for (const auto& [path, contents] : files) {
    if (path->empty()) continue;
    absl::StatusOr<std::string> text = ReadFile(*path);
    if (!text.ok()) return text.status();
    if (!absl::StrContains(*text, "-----BEGIN ")) {
      return absl::InvalidArgumentError(absl::StrCat(*path, ": is not PEM"));
    }
    *contents = *std::move(text);
  }
  return grpc::SslCredentials(options);
}

}  // namespace

bool IsLoopbackTarget(absl::string_view target) {
  if (absl::StartsWith(target, "unix:") || absl::StartsWith(target, "unix-abstract:")) return true;
  for (const char* scheme : {"dns:///", "dns:", "ipv4:", "ipv6:"}) {
    if (absl::ConsumePrefix(&target, scheme)) break;
  }
  if (absl::StrContains(target, ",")) return false;  // several addresses
  absl::string_view host = target.substr(0, target.rfind(':'));
  if (absl::StartsWith(host, "[") && absl::EndsWith(host, "]")) host = host.substr(1, host.size() - 2);
  const std::string text(host);
  in_addr v4;
  if (inet_pton(AF_INET, text.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6;
  if (inet_pton(AF_INET6, text.c_str(), &v6) == 1) return IN6_IS_ADDR_LOOPBACK(&v6);
  return text == "localhost";
}

absl::StatusOr<std::string> ReadToken(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return text.status();
  std::string token(absl::StripAsciiWhitespace(*text));
  if (!IsToken(token)) return absl::InvalidArgumentError(absl::StrCat(path, ": expected one token"));
  return token;
}

absl::StatusOr<ChannelSecurity> ResolveCredentials(const Credentials& credentials, const std::string& address) {
  ChannelSecurity security;
  const bool tls = credentials.tls || !credentials.ca_file.empty() || !credentials.certificate_file.empty() ||
                   !credentials.key_file.empty() || !credentials.server_name.empty();
  if (!credentials.token.empty() && !credentials.token_file.empty()) {
    return absl::InvalidArgumentError("a token and a token's file exclude each other");
  }
  security.token = credentials.token;
  security.token_file = credentials.token_file;
  if (!credentials.token_file.empty()) {
    absl::StatusOr<std::string> token = ReadToken(credentials.token_file);
    if (!token.ok()) return token.status();
    security.token = *std::move(token);
  } else if (!credentials.token.empty() && !IsToken(credentials.token)) {
    return absl::InvalidArgumentError("the token has other characters than printable ASCII, or spaces");
  }
  if (!security.token.empty() && !tls && !credentials.allow_insecure_token && !IsLoopbackTarget(address)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the token would travel in the clear to ", address, ": use TLS, or allow it explicitly"));
  }
  if (!tls) {
    security.channel = grpc::InsecureChannelCredentials();
    return security;
  }
  auto channel = MakeTls(credentials);
  if (!channel.ok()) return channel.status();
  security.channel = *std::move(channel);
  security.server_name = credentials.server_name;
  return security;
}

}  // namespace boss::client
