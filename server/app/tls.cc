#include "server/app/tls.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <cstring>
#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "core/base/status_macros.h"
#include "core/io/atomic_file.h"

namespace boss::server {
namespace {

using X509Pointer = std::unique_ptr<X509, decltype(&X509_free)>;
using KeyPointer = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using BioPointer = std::unique_ptr<BIO, decltype(&BIO_free)>;
using ContextPointer = std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)>;

BioPointer BioOf(const std::string& text) {
  return BioPointer(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), BIO_free);
}

// Why OpenSSL has failed. Forgets it.
unsigned long TakeError() {
  const unsigned long error = ERR_peek_last_error();
  ERR_clear_error();
  return error;
}

// All certificates of `pem`, of which there is at least one. gRPC would leave out those from a damaged one on.
absl::StatusOr<std::vector<X509Pointer>> ParseCertificates(const std::string& path, const std::string& pem) {
  const BioPointer bio = BioOf(pem);
  std::vector<X509Pointer> certificates;
  ERR_clear_error();
  while (X509* const next = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) {
    certificates.emplace_back(next, X509_free);
  }
  const unsigned long error = TakeError();
  const bool is_end = ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
  if (!is_end) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": certificate ", certificates.size() + 1, " is damaged"));
  }
  if (certificates.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": no certificate in PEM"));
  return certificates;
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

// Whether TLS takes them as they are. A key that is too short, for one, it does not.
absl::Status CheckUse(const TlsFiles& files, const std::vector<X509Pointer>& chain, EVP_PKEY* key,
                      const std::vector<X509Pointer>& client_ca) {
  const ContextPointer context(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
  if (!context) return absl::InternalError("TLS cannot be set up");
  const auto refused = [](const std::string& path) {
    const char* const reason = ERR_reason_error_string(TakeError());
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": cannot be used for TLS: ", reason == nullptr ? "no reason is given" : reason));
  };
  if (SSL_CTX_use_certificate(context.get(), chain.front().get()) != 1) return refused(files.certificate);
  for (size_t i = 1; i < chain.size(); ++i) {
    if (SSL_CTX_add1_chain_cert(context.get(), chain[i].get()) != 1) return refused(files.certificate);
  }
  if (SSL_CTX_use_PrivateKey(context.get(), key) != 1 || SSL_CTX_check_private_key(context.get()) != 1) {
    return refused(files.key);
  }
  for (const X509Pointer& root : client_ca) {
    if (X509_STORE_add_cert(SSL_CTX_get_cert_store(context.get()), root.get()) != 1) return refused(files.client_ca);
  }
  return absl::OkStatus();
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
  BOSS_ASSIGN_OR_RETURN(const std::vector<X509Pointer> chain,
                        ParseCertificates(files.certificate, material.certificate));
  BOSS_ASSIGN_OR_RETURN(const KeyPointer key, ParseKey(files.key, material.key));
  const bool fits = X509_check_private_key(chain.front().get(), key.get()) == 1;
  ERR_clear_error();
  if (!fits) {
    return absl::InvalidArgumentError(
        absl::StrCat(files.key, ": is not the key of the certificate in ", files.certificate));
  }
  BOSS_ASSIGN_OR_RETURN(material.not_after, EndOf(files.certificate, *chain.front()));
  std::vector<X509Pointer> client_ca;
  if (!files.client_ca.empty()) {
    BOSS_ASSIGN_OR_RETURN(material.client_ca, ReadFile(files.client_ca));
    BOSS_ASSIGN_OR_RETURN(client_ca, ParseCertificates(files.client_ca, material.client_ca));
  }
  BOSS_RETURN_IF_ERROR(CheckUse(files, chain, key.get(), client_ca));
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
