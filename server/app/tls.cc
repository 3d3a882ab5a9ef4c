#include "server/app/tls.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "core/base/status_macros.h"

namespace boss::server {
namespace {

using X509Pointer = std::unique_ptr<X509, decltype(&X509_free)>;
using KeyPointer = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using BioPointer = std::unique_ptr<BIO, decltype(&BIO_free)>;

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (file.bad()) return absl::DataLossError(absl::StrCat("cannot read ", path));
  return text;
}

BioPointer BioOf(const std::string& text) {
  return BioPointer(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), BIO_free);
}

// The first certificate of `pem`.
absl::StatusOr<X509Pointer> ParseCertificate(const std::string& path, const std::string& pem) {
  const BioPointer bio = BioOf(pem);
  X509Pointer certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr), X509_free);
  ERR_clear_error();
  if (!certificate) return absl::InvalidArgumentError(absl::StrCat(path, ": no certificate in PEM"));
  return certificate;
}

// Instead of OpenSSL's own, which asks the terminal.
int NoPassphrase(char*, int, int, void*) { return 0; }

absl::StatusOr<KeyPointer> ParseKey(const std::string& path, const std::string& pem) {
  const BioPointer bio = BioOf(pem);
  KeyPointer key(PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassphrase, nullptr), EVP_PKEY_free);
  ERR_clear_error();
  if (!key) return absl::InvalidArgumentError(absl::StrCat(path, ": no private key in PEM without a passphrase"));
  return key;
}

absl::StatusOr<absl::Time> EndOf(const std::string& path, const X509& certificate) {
  std::tm end = {};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(&certificate), &end) != 1) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": the certificate has no valid end"));
  }
  return absl::FromTM(end, absl::UTCTimeZone());
}

struct FreeGrpcCredentials {
  void operator()(grpc_server_credentials* credentials) const { grpc_server_credentials_release(credentials); }
};

}  // namespace

// gRPC's C++ interface has no server credentials whose certificates are asked for at every handshake, its C core does.
class ServerTls::PortCredentials final : public grpc::ServerCredentials {
 public:
  explicit PortCredentials(const ServerTls& tls) : tls_(tls) {
    const auto request = tls.files_.client_ca.empty() ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                                                      : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY;
    credentials_.reset(grpc_ssl_server_credentials_create_with_options(
        grpc_ssl_server_credentials_create_options_using_config_fetcher(request, Fetch, this)));
  }

  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}  // Access does it

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_.get());
  }

  // Called for each handshake, one at a time for a port.
  static grpc_ssl_certificate_config_reload_status Fetch(void* self, grpc_ssl_server_certificate_config** config) {
    return static_cast<PortCredentials*>(self)->Next(config);
  }
  grpc_ssl_certificate_config_reload_status Next(grpc_ssl_server_certificate_config** config) {
    std::shared_ptr<const Material> material;
    {
      absl::MutexLock lock(&tls_.mutex_);
      material = tls_.material_;
    }
    absl::MutexLock lock(&mutex_);
    if (material == given_) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    const grpc_ssl_pem_key_cert_pair pair = {material->key.c_str(), material->certificate.c_str()};
    // gRPC asserts that there are some, also where no certificate is asked of clients, and then does not use them.
    const std::string& roots = material->client_ca.empty() ? material->certificate : material->client_ca;
    *config = grpc_ssl_server_certificate_config_create(roots.c_str(), &pair, 1);
    given_ = std::move(material);
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
  }

  const ServerTls& tls_;
  std::unique_ptr<grpc_server_credentials, FreeGrpcCredentials> credentials_;
  absl::Mutex mutex_;
  std::shared_ptr<const Material> given_ ABSL_GUARDED_BY(mutex_);
};

ServerTls::~ServerTls() = default;

absl::StatusOr<ServerTls::Material> ServerTls::Read(const TlsFiles& files) {
  Material material;
  BOSS_ASSIGN_OR_RETURN(material.certificate, ReadFile(files.certificate));
  BOSS_ASSIGN_OR_RETURN(material.key, ReadFile(files.key));
  BOSS_ASSIGN_OR_RETURN(const X509Pointer certificate, ParseCertificate(files.certificate, material.certificate));
  BOSS_ASSIGN_OR_RETURN(const KeyPointer key, ParseKey(files.key, material.key));
  const bool fits = X509_check_private_key(certificate.get(), key.get()) == 1;
  ERR_clear_error();
  if (!fits) {
    return absl::InvalidArgumentError(
        absl::StrCat(files.key, ": is not the key of the certificate in ", files.certificate));
  }
  BOSS_ASSIGN_OR_RETURN(material.not_after, EndOf(files.certificate, *certificate));
  if (!files.client_ca.empty()) {
    BOSS_ASSIGN_OR_RETURN(material.client_ca, ReadFile(files.client_ca));
    BOSS_RETURN_IF_ERROR(ParseCertificate(files.client_ca, material.client_ca).status());
  }
  return material;
}

absl::StatusOr<std::unique_ptr<ServerTls>> ServerTls::Open(TlsFiles files) {
  std::unique_ptr<ServerTls> tls(new ServerTls(std::move(files)));
  BOSS_RETURN_IF_ERROR(tls->Reload().status());
  return tls;
}

absl::StatusOr<bool> ServerTls::Reload() {
  BOSS_ASSIGN_OR_RETURN(Material material, Read(files_));
  absl::MutexLock lock(&mutex_);
  if (material_ && *material_ == material) return false;
  material_ = std::make_shared<const Material>(std::move(material));
  return true;
}

std::shared_ptr<grpc::ServerCredentials> ServerTls::ForServer() {
  absl::MutexLock lock(&mutex_);
  return ports_.emplace_back(std::make_shared<PortCredentials>(*this));
}

absl::Time ServerTls::not_after() const {
  absl::MutexLock lock(&mutex_);
  return material_->not_after;
}

}  // namespace boss::server
