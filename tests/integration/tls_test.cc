// TLS, certificates, and secrets that are replaced while the server runs.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/stat.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "client/cli/bossctl.h"
#include "tests/integration/security_fixture.h"
#include "tests/support/http_get.h"
#include "tests/support/prometheus_text.h"

namespace boss::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class TlsTest : public SecurityTest {
 protected:
  TlsTest() { WriteAccess({TokenEntry("ops", "ops-token", R"(["admin"])")}); }

  // Whether a new connection is made and the token is taken.
  std::string NewConnection(const std::string& trusted_ca, const std::string& token = "ops-token",
                            const CertificatePair& client = {}) {
    return Outcome(Capabilities(Channel(trusted_ca, client), token));
  }

  // Both outputs of a program.
  static std::string Shell(const std::string& command) {
    std::string output;
    FILE* pipe = popen((command + " 2>&1 </dev/null").c_str(), "r");
    std::array<char, 4096> chunk;
    for (size_t n; (n = fread(chunk.data(), 1, chunk.size(), pipe)) > 0;) output.append(chunk.data(), n);
    pclose(pipe);
    return output;
  }

  // Runs bossctl against the server.
  int Bossctl(std::vector<std::string> arguments, std::string& output) {
    std::ostringstream out, err;
    const int code = client::RunBossctl(arguments, client::Console{out, err}, [](client::Client*) {});
    output = out.str() + err.str();
    return code;
  }
};

TEST_F(TlsTest, ServesThoseWhoTrustItsCaAndNobodyInTheClear) {
  StartSecure();
  EXPECT_EQ(NewConnection(ca_.Pem()), "OK");
  const CertificateAuthority other("another CA");
  EXPECT_THAT(NewConnection(other.Pem()), HasSubstr("UNAVAILABLE"));
  const auto clear = Channel(grpc::InsecureChannelCredentials());
  EXPECT_THAT(Outcome(Capabilities(clear, "ops-token")), HasSubstr("UNAVAILABLE"));
  // What gRPC says about it is in the server's log, in its form.
  EXPECT_THAT(Log(), HasSubstr("warning grpc text=\"Handshake failed"));
}

TEST_F(TlsTest, NothingOlderThanTls12) {
  StartSecure();
  const std::string connect = absl::StrCat("openssl s_client -connect ", server_->address(), " -alpn h2 -CAfile ",
                                           folder_ / "ca.pem", " -cipher DEFAULT:@SECLEVEL=0 ");
  const std::string old = Shell(connect + "-tls1_1");
  EXPECT_THAT(old, HasSubstr("CONNECTED"));
  EXPECT_THAT(old, HasSubstr("Cipher is (NONE)"));
  EXPECT_THAT(Shell(connect + "-tls1_2"), HasSubstr("New, TLSv1.2, Cipher is "));
  EXPECT_THAT(Shell(connect + "-tls1_3"), HasSubstr("New, TLSv1.3, Cipher is "));
}

TEST_F(TlsTest, MutualTlsWantsACertificateOfItsCa) {
  const CertificateAuthority clients("clients' CA");
  WriteFile(folder_ / "clients.pem", clients.Pem());
  WriteAccess({TokenEntry("ops", "ops-token", R"(["admin"])")},
              {R"({"name":"gateway","subject":"spiffe://boss/gateway","roles":["generate"]})",
               R"({"name":"trainer","subject":"trainer","roles":["jobs"]})"});
  StartSecure({"--tls-client-ca=" + (folder_ / "clients.pem")});
  const CertificatePair gateway = clients.Issue("somebody", "URI:spiffe://boss/gateway");
  const CertificatePair stranger = clients.Issue("stranger");

  EXPECT_THAT(NewConnection(ca_.Pem(), "ops-token"), HasSubstr("UNAVAILABLE"));
  EXPECT_THAT(NewConnection(ca_.Pem(), "ops-token", ca_.Issue("gateway")), HasSubstr("UNAVAILABLE"));
  EXPECT_EQ(NewConnection(ca_.Pem(), "ops-token", stranger), "OK");
  EXPECT_EQ(NewConnection(ca_.Pem(), "", stranger), "UNAUTHENTICATED CERTIFICATE_UNKNOWN");
  EXPECT_EQ(NewConnection(ca_.Pem(), "", gateway), "OK");
  const auto as_gateway = Channel(ca_.Pem(), gateway), as_trainer = Channel(ca_.Pem(), clients.Issue("trainer"));
  EXPECT_EQ(Outcome(CallWithNothing(as_gateway, "/boss.v1.Jobs/ListJobs", "")), "PERMISSION_DENIED ROLE_MISSING");
  EXPECT_EQ(Outcome(CallWithNothing(as_trainer, "/boss.v1.Jobs/ListJobs", "")), "OK");
}

TEST_F(TlsTest, ADamagedBundleOfCasLeavesTheFormerInUse) {
  const CertificateAuthority clients("clients' CA"), others("others' CA");
  const std::string bundle = clients.Pem() + others.Pem();
  WriteFile(folder_ / "clients.pem", bundle);
  StartSecure({"--tls-client-ca=" + (folder_ / "clients.pem"), "--credentials-reload-seconds=0"});
  EXPECT_EQ(NewConnection(ca_.Pem(), "ops-token", others.Issue("somebody")), "OK");
  WriteFile(folder_ / "clients.pem", bundle.substr(0, bundle.size() - 40));
  server_->Signal(SIGHUP);
  while (Log().find("certificate 2 is damaged") == std::string::npos) std::this_thread::yield();
  EXPECT_EQ(NewConnection(ca_.Pem(), "ops-token", others.Issue("somebody")), "OK");
}

TEST_F(TlsTest, WithoutAnAccessFileACertificateHasAllRights) {
  const CertificateAuthority clients("clients' CA");
  WriteFile(folder_ / "clients.pem", clients.Pem());
  std::vector<std::string> flags = TlsFlags();
  flags.push_back("--tls-client-ca=" + (folder_ / "clients.pem"));
  StartLogged(flags);
  const auto channel = Channel(ca_.Pem(), clients.Issue("anybody"));
  EXPECT_EQ(Outcome(CallWithNothing(channel, "/boss.v1.Models/DeleteVersion", "")),
            "INVALID_ARGUMENT INVALID_ARGUMENT");
}

TEST_F(TlsTest, AReplacedCertificateIsShownToNewConnections) {
  StartSecure({"--credentials-reload-seconds=0"});
  EXPECT_EQ(Outcome(Capabilities("ops-token")), "OK");
  const CertificateAuthority next("next CA");
  WriteServerCertificate(next);
  EXPECT_EQ(NewConnection(ca_.Pem()), "OK");  // nobody has looked
  server_->Signal(SIGHUP);
  while (NewConnection(next.Pem()) != "OK") {
  }
  EXPECT_THAT(NewConnection(ca_.Pem()), HasSubstr("UNAVAILABLE"));
  EXPECT_EQ(Outcome(Capabilities("ops-token")), "OK");  // over the connection that was there before

  WriteFile(folder_ / "server.key", ca_.Issue("bossd").key);  // does not fit
  server_->Signal(SIGHUP);
  while (Log().find("is not the key of the certificate") == std::string::npos) {
  }
  EXPECT_EQ(NewConnection(next.Pem()), "OK");
}

TEST_F(TlsTest, AReplacedAccessFileHoldsFromTheNextCallOn) {
  StartSecure({"--credentials-reload-seconds=0"});
  WriteAccess({TokenEntry("ops", "next-token", R"(["admin"])")});
  EXPECT_EQ(Outcome(Capabilities("next-token")), "UNAUTHENTICATED TOKEN_UNKNOWN");
  server_->Signal(SIGHUP);
  while (!Capabilities("next-token").ok()) {
  }
  EXPECT_EQ(Outcome(Capabilities("ops-token")), "UNAUTHENTICATED TOKEN_UNKNOWN");

  WriteFile(folder_ / "access.json", R"({"tokens":[{"name":"ops","sha256":"boss_secret","roles":["admin"]}]})");
  server_->Signal(SIGHUP);
  while (Log().find("tokens[0]: sha256") == std::string::npos) {
  }
  EXPECT_EQ(Outcome(Capabilities("next-token")), "OK");
  EXPECT_THAT(Log(), Not(HasSubstr("boss_secret")));
}

TEST_F(TlsTest, AHangUpWhileTheServerStartsIsNotForgotten) {
  const std::string pipe = folder_ / "seeds/slow/manifest.json", config = folder_ / "bossd.toml";
  std::filesystem::create_directories(folder_ / "seeds/slow");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  WriteFile(config, "log-level = \"info\"\n");
  const std::string address = "unix:" + (folder_ / "socket");
  auto server = ServerProcess::Launch(
      BOSSD_BINARY,
      {"--listen=" + address, "--metrics-listen=", "--data=" + (folder_ / "data"), "--threads=1", "--drain-seconds=0",
       "--seed-models=" + (folder_ / "seeds"), "--config=" + config, AccessFlag(), "--credentials-reload-seconds=0"},
      folder_ / "log");
  ASSERT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
  const auto channel = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
  Connect(channel);
  // Its credentials are read, and it waits for the manifest.
  while (Health("liveness") != grpc::health::v1::HealthCheckResponse::SERVING) std::this_thread::yield();
  WriteAccess({TokenEntry("ops", "next-token", R"(["admin"])")});
  WriteFile(config, "log-level = \"debug\"\n");
  server_->Signal(SIGHUP);
  while (Log().find("the log level has changed") == std::string::npos) std::this_thread::yield();
  std::ofstream(pipe) << "{}";
  while (Log().find("in use from now on") == std::string::npos) std::this_thread::yield();
  EXPECT_EQ(Outcome(Capabilities(channel, "next-token")), "OK");
  EXPECT_EQ(Stop(), 0);
}

TEST_F(TlsTest, FilesAreLookedAtWithoutBeingAsked) {
  StartSecure({"--credentials-reload-seconds=0.01"});
  WriteAccess({TokenEntry("ops", "next-token", R"(["admin"])")});
  while (!Capabilities("next-token").ok()) {
  }
  const CertificateAuthority next("next CA");
  WriteServerCertificate(next);
  while (NewConnection(next.Pem(), "next-token") != "OK") {
  }
  EXPECT_THAT(NewConnection(ca_.Pem(), "next-token"), HasSubstr("UNAVAILABLE"));
}

TEST_F(TlsTest, SecretsAreInNoLogErrorOrMetric) {
  const CertificatePair pair = ca_.Issue("bossd", "IP:127.0.0.1");
  const std::string key_text = pair.key.substr(pair.key.find('\n') + 1, 40);
  WriteFile(folder_ / "server.pem", pair.certificate);
  WriteFile(folder_ / "server.key", pair.key);
  WriteAccess({TokenEntry("ops", "secret-of-ops", R"(["admin"])"), TokenEntry("g", "secret-of-g", R"(["generate"])"),
               TokenEntry("r", "secret-of-r", R"(["generate","jobs"])", R"(,"requests_per_second":0.001)")});
  StartSecure({"--log-level=trace"});
  std::string said;
  for (const char* token : {"secret-of-ops", "secret-of-g", "secret-of-r", "secret-of-nobody"}) {
    for (const char* method : {"/boss.v1.Jobs/GetJob", "/boss.v1.Models/DeleteVersion", "/boss.v1.Models/NoSuchMethod",
                               "/inference.GRPCInferenceService/ModelStreamInfer"}) {
      const grpc::Status status = CallWithNothing(channel_, method, token);
      absl::StrAppend(&said, status.error_message(), status.error_details());
    }
  }
  WriteFile(folder_ / "access.json", R"({"tokens":[{"name":"ops","sha256":"secret-as-hash","roles":["admin"]}]})");
  server_->Signal(SIGHUP);
  while (Log().find("tokens[0]: sha256") == std::string::npos) {
  }
  const std::string metrics = HttpBody(HttpGet(server_->metrics_port(), "/metrics"));
  const auto parsed = ParsePrometheusText(metrics);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_GE(parsed->samples.at("boss_access_refused_total{reason=\"unauthenticated\"}"), 3);
  EXPECT_GE(parsed->samples.at("boss_access_refused_total{reason=\"permission\"}"), 2);
  EXPECT_GE(parsed->samples.at("boss_access_refused_total{reason=\"rate\"}"), 1);
  const std::string log = Log();
  EXPECT_THAT(log, HasSubstr("access refused"));
  EXPECT_THAT(log, HasSubstr("info  access granted method=/boss.v1.Models/DeleteVersion name=ops"));
  for (const std::string& text : {said, metrics, log}) {
    EXPECT_THAT(text, Not(HasSubstr("secret")));
    EXPECT_THAT(text, Not(HasSubstr(HashOf("secret-of-ops"))));
    EXPECT_THAT(text, Not(HasSubstr("PRIVATE KEY")));
    EXPECT_THAT(text, Not(HasSubstr(key_text)));
  }
}

TEST_F(TlsTest, BossctlMakesTokensAndUsesThem) {
  std::string output;
  ASSERT_EQ(Bossctl({"tokens", "new", "--json", "--name=me", "--role=generate", "--role=jobs", "--expires-days=1",
                     "--requests-per-second=1000", "--max-concurrent-calls=5", "--max-unfinished-jobs=2"},
                    output),
            client::kExitOk)
      << output;
  const auto made = nlohmann::json::parse(output);
  WriteAccess({made.at("entry").dump()});
  StartSecure();
  WriteFile(folder_ / "token", made.at("token").get<std::string>() + "\n");
  const std::vector<std::string> flags = {"--address=" + server_->address(), "--tls-ca=" + (folder_ / "ca.pem"),
                                          "--token-file=" + (folder_ / "token")};
  const auto with = [&](std::vector<std::string> command) {
    command.insert(command.begin(), flags.begin(), flags.end());
    return command;
  };
  EXPECT_EQ(Bossctl(with({"models", "list"}), output), client::kExitOk) << output;
  EXPECT_THAT(output, HasSubstr("vectors"));
  EXPECT_EQ(Bossctl(with({"models", "delete", "vectors@1"}), output), client::kExitError);
  EXPECT_THAT(output, HasSubstr("PERMISSION_DENIED"));
  EXPECT_EQ(Bossctl(with({"--tls-server-name=elsewhere", "--timeout=60", "models", "list"}), output),
            client::kExitError);
  EXPECT_THAT(output, HasSubstr("UNAVAILABLE"));
  EXPECT_EQ(Bossctl({flags[0], flags[1], "models", "list"}, output), client::kExitError);
  EXPECT_THAT(output, HasSubstr("UNAUTHENTICATED: a token is required"));
}

}  // namespace
}  // namespace boss::testing
