// A real bossd that asks its callers who they are.
#pragma once

#include <grpcpp/generic/generic_stub.h>
#include <openssl/sha.h>

#include <chrono>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "boss/v1/errors.pb.h"
#include "tests/integration/bossd_fixture.h"
#include "tests/support/certificates.h"

namespace boss::testing {

inline std::string HashOf(const std::string& token) {
  std::string digest(SHA256_DIGEST_LENGTH, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(),
         reinterpret_cast<unsigned char*>(digest.data()));
  return absl::BytesToHexString(digest);
}

// An entry of "tokens"; `roles` as JSON; `more`: further keys, each with a comma before it.
inline std::string TokenEntry(const std::string& name, const std::string& token, const std::string& roles,
                              const std::string& more = "") {
  return absl::StrCat(R"({"name":")", name, R"(","sha256":")", HashOf(token), R"(","roles":)", roles, more, "}");
}

template <typename Detail>
Detail DetailOf(const grpc::Status& status, const std::string& name) {
  v1::Status proto;
  proto.ParseFromString(status.error_details());
  Detail detail;
  for (const auto& any : proto.details()) {
    if (any.type_url() == "type.googleapis.com/google.rpc." + name) detail.ParseFromString(any.value());
  }
  return detail;
}

// "UNAUTHENTICATED TOKEN_UNKNOWN"; "OK".
inline std::string Outcome(const grpc::Status& status) {
  if (status.ok()) return "OK";
  return absl::StrCat(absl::StatusCodeToString(static_cast<absl::StatusCode>(status.error_code())), " ",
                      DetailOf<v1::ErrorInfo>(status, "ErrorInfo").reason());
}

class SecurityTest : public BossdTest {
 protected:
  SecurityTest() {
    WriteFile(folder_ / "ca.pem", ca_.Pem());
    WriteServerCertificate(ca_);
  }

  void WriteServerCertificate(const CertificateAuthority& ca) {
    const CertificatePair pair = ca.Issue("bossd", "DNS:localhost,IP:127.0.0.1");
    WriteFile(folder_ / "server.pem", pair.certificate);
    WriteFile(folder_ / "server.key", pair.key);
  }

  void WriteAccess(const std::vector<std::string>& tokens, const std::vector<std::string>& certificates = {}) {
    WriteFile(folder_ / "access.json", absl::StrCat("{\"tokens\":[", absl::StrJoin(tokens, ","), "],\"certificates\":[",
                                                    absl::StrJoin(certificates, ","), "]}"));
  }

  std::vector<std::string> TlsFlags() const {
    return {"--tls-certificate=" + (folder_ / "server.pem"), "--tls-key=" + (folder_ / "server.key")};
  }
  std::string AccessFlag() const { return "--access-file=" + (folder_ / "access.json"); }

  // With TLS and the access file, its log in a file; what was written to the stubs of BossdTest is not used.
  void StartSecure(std::vector<std::string> arguments = {}) {
    for (const std::string& flag : TlsFlags()) arguments.push_back(flag);
    arguments.push_back(AccessFlag());
    StartLogged(std::move(arguments));
    channel_ = Channel(ca_.Pem());
  }

  void StartLogged(std::vector<std::string> arguments) {
    for (const std::string& argument :
         {"--data=" + (folder_ / "data"), "--seed-models=" + (folder_ / "seeds"), std::string("--threads=1")}) {
      arguments.push_back(argument);
    }
    server_.reset();
    auto server = ServerProcess::Start(BOSSD_BINARY, folder_.path(), arguments, ServerPorts(), folder_ / "log");
    ASSERT_TRUE(server.ok()) << server.status() << "\n" << Log();
    server_ = *std::move(server);
  }

  std::string Log() const {
    std::ifstream file(folder_ / "log");
    return {std::istreambuf_iterator<char>(file), {}};
  }

  // A connection of its own. `client`: a certificate to show; empty for none.
  std::shared_ptr<grpc::Channel> Channel(const std::string& trusted_ca, const CertificatePair& client = {}) {
    return Channel(grpc::SslCredentials({trusted_ca, client.key, client.certificate}));
  }
  std::shared_ptr<grpc::Channel> Channel(const std::shared_ptr<grpc::ChannelCredentials>& credentials) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(server_->address(), credentials, arguments);
  }

  static void Prepare(grpc::ClientContext& context, const std::string& token) {
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    if (!token.empty()) context.AddMetadata("authorization", "Bearer " + token);
  }

  // Any method of any service with one empty request, e.g. "/boss.v1.Jobs/GetJob".
  static grpc::Status CallWithNothing(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                                      const std::string& token) {
    grpc::GenericStub stub(channel);
    grpc::ClientContext context;
    Prepare(context, token);
    grpc::CompletionQueue queue;
    const auto wait = [&queue] {
      void* tag = nullptr;
      bool ok = false;
      return queue.Next(&tag, &ok) && ok;
    };
    const auto call = stub.PrepareCall(&context, method, &queue);
    call->StartCall(nullptr);
    if (wait()) {
      grpc::Slice nothing("");
      call->WriteLast(grpc::ByteBuffer(&nothing, 1), grpc::WriteOptions(), nullptr);
      wait();
      grpc::ByteBuffer answer;
      do {
        call->Read(&answer, nullptr);
      } while (wait());
    }
    grpc::Status status;
    call->Finish(&status, nullptr);
    wait();
    return status;
  }

  // A call that every role may make.
  static grpc::Status Capabilities(const std::shared_ptr<grpc::Channel>& channel, const std::string& token) {
    grpc::ClientContext context;
    Prepare(context, token);
    v1::Capabilities capabilities;
    return v1::Models::NewStub(channel)->GetCapabilities(&context, {}, &capabilities);
  }
  grpc::Status Capabilities(const std::string& token) { return Capabilities(channel_, token); }

  const CertificateAuthority ca_{"boss test CA"};
  std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace boss::testing
