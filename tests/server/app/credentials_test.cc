#include "server/app/credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>

#include "absl/strings/str_format.h"
#include "tests/support/certificates.h"
#include "tests/support/manual_clock.h"
#include "tests/support/temp_folder.h"

namespace boss::server {
namespace {

using testing::CertificateAuthority;
using testing::CertificatePair;
using ::testing::HasSubstr;

TEST(ExposureTest, OnlyLoopbackWithoutCredentials) {
  ServerConfig config;
  for (const char* address :
       {"127.0.0.1:0", "127.8.9.10:50051", "localhost:50051", "[::1]:50051", "unix:/run/boss", "unix-abstract:boss"}) {
    config.listen = address;
    EXPECT_TRUE(CheckExposure(config).ok()) << address;
  }
  for (const char* address :
       {"0.0.0.0:50051", "[::]:50051", ":50051", "*:50051", "10.0.0.1:50051", "example.com:1",
        "localhost.example.com:1", "128.0.0.1:1", "[::ffff:10.0.0.1]:1", "127.0.0.1.example.com:1"}) {
    config.listen = address;
    const absl::Status status = CheckExposure(config);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << address;
    EXPECT_THAT(std::string(status.message()), HasSubstr("--access-file or --tls-client-ca")) << address;
  }
}

TEST(ExposureTest, ElsewhereCallersAreToldApartAndTokensHidden) {
  ServerConfig config;
  config.listen = "0.0.0.0:50051";
  const auto check = [&](bool tls, bool client_ca, bool access, bool insecure) {
    config.tls_certificate = config.tls_key = tls ? "file" : "";
    config.tls_client_ca = client_ca ? "file" : "";
    config.access_file = access ? "file" : "";
    config.insecure = insecure;
    return CheckExposure(config);
  };
  EXPECT_FALSE(check(true, false, false, false).ok());
  EXPECT_TRUE(check(true, true, false, false).ok());
  EXPECT_TRUE(check(true, false, true, false).ok());
  EXPECT_TRUE(check(true, true, true, false).ok());
  EXPECT_THAT(std::string(check(false, false, true, false).message()), HasSubstr("--tls-certificate"));
  EXPECT_TRUE(check(false, false, false, true).ok());
  EXPECT_TRUE(check(false, false, true, true).ok());
}

class CredentialsTest : public ::testing::Test {
 protected:
  CredentialsTest() {
    config_.credentials_reload = absl::ZeroDuration();
    WriteCertificate(ca_.Issue("bossd", "IP:127.0.0.1"));
    testing::WriteFile(folder_ / "ca.pem", ca_.Pem());
  }

  void UseTls() {
    config_.tls_certificate = folder_ / "server.pem";
    config_.tls_key = folder_ / "server.key";
  }
  void UseAccess(const std::string& json) {
    config_.access_file = folder_ / "access.json";
    testing::WriteFile(config_.access_file, json);
  }
  void WriteCertificate(const CertificatePair& pair) {
    testing::WriteFile(folder_ / "server.pem", pair.certificate);
    testing::WriteFile(folder_ / "server.key", pair.key);
  }

  std::string OpenError() { return Credentials::Open(config_, clock_).status().ToString(); }

  static bool Admits(Credentials& credentials, const std::string& token) {
    return credentials.access()
        .Admit(CallerProof{.authorization = {"Bearer " + token}}, "/boss.v1.Models/DeleteVersion")
        .ok();
  }
  // An admin's token.
  static std::string AccessJson(const std::string& token) {
    std::string digits;
    for (const uint8_t byte : Sha256Of(token)) digits += absl::StrFormat("%02x", byte);
    return R"({"tokens":[{"name":"ops","roles":["admin"],"sha256":")" + digits + "\"}]}";
  }
  static std::map<std::string, double> Values(const Credentials& credentials) {
    std::map<std::string, double> values;
    for (const CollectedFamily& family : credentials.Collect()) values[family.name] = family.series.at(0).value;
    return values;
  }

  testing::TempFolder folder_;
  testing::ManualClock clock_;
  const CertificateAuthority ca_{"boss test CA"};
  ServerConfig config_;
};

TEST_F(CredentialsTest, FlagsThatNeedEachOtherAreMissed) {
  config_.tls_certificate = folder_ / "server.pem";
  EXPECT_THAT(OpenError(), HasSubstr("--tls-key"));
  config_ = {};
  config_.tls_client_ca = folder_ / "ca.pem";
  EXPECT_THAT(OpenError(), HasSubstr("--tls-certificate"));
}

TEST_F(CredentialsTest, FilesThatAreNoneAreNamed) {
  UseTls();
  EXPECT_EQ(OpenError(), "OK");
  config_.tls_key = folder_ / "nowhere.key";
  EXPECT_THAT(OpenError(), HasSubstr("nowhere.key"));
  config_.tls_key = folder_ / "server.pem";
  EXPECT_THAT(OpenError(), HasSubstr("no private key"));
  config_.tls_key = folder_ / "server.key";
  config_.tls_client_ca = folder_ / "server.key";
  EXPECT_THAT(OpenError(), HasSubstr("server.key: no certificate"));
  config_.tls_client_ca.clear();
  testing::WriteFile(config_.tls_key, ca_.Issue("another").key);
  EXPECT_THAT(OpenError(), HasSubstr("is not the key of the certificate"));
  EXPECT_THAT(OpenError(), ::testing::Not(HasSubstr("BEGIN")));
  config_ = {};
  UseAccess("{");
  EXPECT_THAT(OpenError(), HasSubstr("access.json: not JSON"));
  config_.access_file = folder_ / "nowhere.json";
  EXPECT_THAT(OpenError(), HasSubstr("nowhere.json"));
}

TEST_F(CredentialsTest, AFolderInPlaceOfAFileIsAnErrorThatNamesIt) {
  const std::string folder = folder_ / "a-folder";
  std::filesystem::create_directories(folder);
  config_.access_file = folder;
  EXPECT_THAT(OpenError(), HasSubstr("a-folder"));
  config_.access_file.clear();
  for (std::string* file : {&config_.tls_certificate, &config_.tls_key, &config_.tls_client_ca}) {
    UseTls();
    config_.tls_client_ca = folder_ / "ca.pem";
    *file = folder;
    EXPECT_THAT(OpenError(), HasSubstr("a-folder"));
  }
}

TEST_F(CredentialsTest, AFolderThatComesLaterLeavesTheFormerFilesInUse) {
  UseTls();
  UseAccess(AccessJson("first"));
  const auto credentials = Credentials::Open(config_, clock_);
  ASSERT_TRUE(credentials.ok()) << credentials.status();
  const auto before = Values(**credentials);
  for (const std::string& file : {config_.access_file, config_.tls_certificate, config_.tls_key}) {
    std::filesystem::remove(file);
    std::filesystem::create_directories(file);
    (*credentials)->Reload();
    EXPECT_TRUE(Admits(**credentials, "first")) << file;
    EXPECT_EQ(Values(**credentials), before) << file;
  }
}

TEST_F(CredentialsTest, ReloadTakesANewAccessFileAndKeepsTheOldForABrokenOne) {
  UseAccess(AccessJson("first"));
  const auto credentials = Credentials::Open(config_, clock_);
  ASSERT_TRUE(credentials.ok()) << credentials.status();
  EXPECT_TRUE(Admits(**credentials, "first"));
  EXPECT_FALSE(Admits(**credentials, "second"));

  UseAccess(AccessJson("second"));
  EXPECT_TRUE(Admits(**credentials, "first"));  // nobody has looked
  (*credentials)->Reload();
  EXPECT_FALSE(Admits(**credentials, "first"));
  EXPECT_TRUE(Admits(**credentials, "second"));

  UseAccess("{\"tokens\":[");
  (*credentials)->Reload();
  EXPECT_TRUE(Admits(**credentials, "second"));
  std::filesystem::remove(config_.access_file);
  (*credentials)->Reload();
  EXPECT_TRUE(Admits(**credentials, "second"));
  UseAccess(AccessJson("first"));
  (*credentials)->Reload();
  EXPECT_TRUE(Admits(**credentials, "first"));
}

TEST_F(CredentialsTest, ReloadTakesACertificateOnceItsKeyFits) {
  UseTls();
  const auto credentials = Credentials::Open(config_, clock_);
  ASSERT_TRUE(credentials.ok()) << credentials.status();
  const auto not_after = [&] { return Values(**credentials).at("boss_tls_certificate_not_after_timestamp_seconds"); };
  const double first = not_after();
  const CertificatePair longer = ca_.Issue("bossd", "IP:127.0.0.1", /*days=*/60);
  testing::WriteFile(config_.tls_certificate, longer.certificate);
  (*credentials)->Reload();
  EXPECT_EQ(not_after(), first);
  testing::WriteFile(config_.tls_key, longer.key);
  (*credentials)->Reload();
  EXPECT_NEAR(not_after() - first, 30 * 24 * 3600.0, 60);
}

// The first of its certificates is whole.
std::string WithoutItsMiddle(std::string pem) {
  const size_t second = pem.rfind("-----BEGIN");
  return pem.erase(second + 100, 200);
}

TEST_F(CredentialsTest, ABundleWithADamagedCertificateIsRefused) {
  const CertificateAuthority other("another CA");
  const std::string bundle = ca_.Pem() + other.Pem();
  const CertificatePair pair = ca_.Issue("bossd", "IP:127.0.0.1");
  UseTls();
  config_.tls_client_ca = folder_ / "ca.pem";
  testing::WriteFile(config_.tls_client_ca, bundle);
  WriteCertificate({.certificate = pair.certificate + ca_.Pem(), .key = pair.key});
  EXPECT_EQ(OpenError(), "OK");
  for (const std::string& damaged : {WithoutItsMiddle(bundle), bundle.substr(0, bundle.size() - 40)}) {
    testing::WriteFile(config_.tls_client_ca, damaged);
    EXPECT_THAT(OpenError(), HasSubstr("ca.pem: certificate 2 is damaged"));
  }
  testing::WriteFile(config_.tls_client_ca, bundle + "text behind the last one\n");
  EXPECT_EQ(OpenError(), "OK");
  WriteCertificate({.certificate = WithoutItsMiddle(pair.certificate + ca_.Pem()), .key = pair.key});
  EXPECT_THAT(OpenError(), HasSubstr("server.pem: certificate 2 is damaged"));
}

TEST_F(CredentialsTest, AKeyThatIsTooShortForTlsIsRefusedAndTheFormerStays) {
  UseTls();
  const auto credentials = Credentials::Open(config_, clock_);
  ASSERT_TRUE(credentials.ok()) << credentials.status();
  const auto before = Values(**credentials);
  WriteCertificate(ca_.Issue("bossd", "IP:127.0.0.1", /*days=*/60, "P-192"));
  (*credentials)->Reload();
  EXPECT_EQ(Values(**credentials), before);
  EXPECT_THAT(OpenError(), HasSubstr("server.pem: cannot be used for TLS"));
}

}  // namespace
}  // namespace boss::server
