// A small HTTP/1.1 server for pages that are made in an instant. Included by this folder's own files and its tests.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace boss::server {

struct HttpRequest {
  std::string method;                          // "GET" or "HEAD"
  std::string path;                            // without the query
  std::map<std::string, std::string> headers;  // by name in lower case; the values of one name joined by ", "

  // Empty if there is none.
  std::string_view Header(const std::string& name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};

// The request in what has come so far, up to and with the empty line. \error INVALID_ARGUMENT for what is no request
// of HTTP/1; UNIMPLEMENTED for another method than GET and HEAD.
absl::StatusOr<HttpRequest> ParseHttpRequest(std::string_view text);

struct HttpServerOptions {
  // Open connections. One more closes the one that has been open longest: whoever opens many and says nothing shuts out
  // nobody.
  size_t max_connections = 64;
  // From the connection to the last byte of the answer. A longer one is closed.
  absl::Duration max_time = absl::Seconds(10);
};

// One thread, which waits for all connections at once and calls the handler. A connection carries one request of at
// most 16 KiB; what comes after its empty line is ignored.
class HttpServer {
 public:
  using Handler = std::function<HttpResponse(const HttpRequest& request)>;

  // `address`: "HOST:PORT" ("[::1]:80", ":80" for every interface); port 0 takes a free one. \error UNAVAILABLE if it
  // cannot be bound.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const std::string& address, Handler handler,
                                                           HttpServerOptions options = {});
  // Closes what is open.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const { return port_; }

 private:
  class Connection;
  class Loop;
  HttpServer(std::unique_ptr<Loop> loop, int port, int stop_fd);

  const std::unique_ptr<Loop> loop_;
  const int port_;
  const int stop_fd_;  // an eventfd
  std::thread thread_;
};

}  // namespace boss::server
