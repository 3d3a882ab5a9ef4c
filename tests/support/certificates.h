// Certificates for tests, made when they run.
#pragma once

#include <memory>
#include <string>

struct evp_pkey_st;
struct x509_st;

namespace boss::testing {

// In PEM.
struct CertificatePair {
  std::string certificate, key;
};

// A CA of its own with a P-256 key. Aborts if OpenSSL fails.
class CertificateAuthority {
 public:
  explicit CertificateAuthority(const std::string& common_name);
  ~CertificateAuthority();
  CertificateAuthority(const CertificateAuthority&) = delete;
  CertificateAuthority& operator=(const CertificateAuthority&) = delete;

  std::string Pem() const;
  // Valid from a day ago until in `days` days. `alternative_names`: as OpenSSL writes them, e.g.
  // "DNS:localhost,IP:127.0.0.1"; empty: none. `curve`: of its key, by OpenSSL's name.
  CertificatePair Issue(const std::string& common_name, const std::string& alternative_names = "", int days = 30,
                        const char* curve = "P-256") const;

 private:
  std::shared_ptr<evp_pkey_st> key_;
  std::shared_ptr<x509_st> certificate_;
};

void WriteFile(const std::string& path, const std::string& text);

}  // namespace boss::testing
