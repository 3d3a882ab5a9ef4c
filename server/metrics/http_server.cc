#include "server/metrics/http_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <list>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "core/base/status_macros.h"

namespace boss::server {
namespace {

constexpr size_t kMaxRequestBytes = 16 << 10;
constexpr size_t kReadBytes = 4096;

absl::string_view Reason(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 431:
      return "Request Header Fields Too Large";
    default:
      return "Bad Request";
  }
}

std::string Serialize(const HttpResponse& response, bool with_body) {
  std::string text = absl::StrCat("HTTP/1.1 ", response.status, " ", Reason(response.status),
                                  "\r\nContent-Type: ", response.content_type,
                                  "\r\nContent-Length: ", response.body.size(), "\r\nConnection: close\r\n");
  if (response.status == 405) absl::StrAppend(&text, "Allow: GET, HEAD\r\n");
  absl::StrAppend(&text, "\r\n");
  if (with_body) absl::StrAppend(&text, response.body);
  return text;
}

bool IsToken(absl::string_view text) {
  return !text.empty() &&
         text.find_first_not_of("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") ==
             absl::string_view::npos;
}

bool IsTarget(absl::string_view text) {
  return absl::StartsWith(text, "/") &&
         std::all_of(text.begin(), text.end(), [](char c) { return absl::ascii_isgraph(static_cast<uint8_t>(c)); });
}

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) close(fd_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

absl::Status CannotServe(const std::string& address, absl::string_view why) {
  return absl::UnavailableError(absl::StrCat("cannot serve HTTP on ", address, ": ", why));
}

absl::Status CannotServe(const std::string& address, int error) {
  return CannotServe(address, std::generic_category().message(error));
}

// A listening socket.
absl::StatusOr<int> Listen(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return CannotServe(address, "expected HOST:PORT");
  std::string host = address.substr(0, colon);
  if (absl::StartsWith(host, "[") && absl::EndsWith(host, "]")) host = host.substr(1, host.size() - 2);
  const addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  addrinfo* found = nullptr;
  const int failed =
      getaddrinfo(host.empty() ? nullptr : host.c_str(), address.substr(colon + 1).c_str(), &hints, &found);
  if (failed != 0) return CannotServe(address, gai_strerror(failed));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, freeaddrinfo);
  int error = 0;
  for (const addrinfo* candidate = found; candidate != nullptr; candidate = candidate->ai_next) {
    FileDescriptor fd(socket(candidate->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const int on = 1;
    setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd.get(), candidate->ai_addr, candidate->ai_addrlen) == 0 && listen(fd.get(), SOMAXCONN) == 0)
      return fd.Release();
    error = errno;
  }
  return CannotServe(address, error);
}

int PortOf(int fd) {
  sockaddr_storage address = {};
  socklen_t size = sizeof address;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

}  // namespace

std::string_view HttpRequest::Header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? std::string_view() : std::string_view(found->second);
}

absl::StatusOr<HttpRequest> ParseHttpRequest(std::string_view text) {
  std::vector<absl::string_view> lines =
      absl::StrSplit(absl::string_view(text.data(), text.size()), absl::ByString("\r\n"));
  const std::vector<absl::string_view> words = absl::StrSplit(lines.front(), ' ');
  const bool is_request = words.size() == 3 && IsToken(words[0]) && IsTarget(words[1]) &&
                          (words[2] == "HTTP/1.0" || words[2] == "HTTP/1.1");
  if (!is_request) return absl::InvalidArgumentError("expected METHOD PATH HTTP/1.1");
  if (words[0] != "GET" && words[0] != "HEAD") return absl::UnimplementedError("expected GET or HEAD");
  HttpRequest request = {.method = std::string(words[0]), .path = std::string(words[1].substr(0, words[1].find('?')))};
  for (size_t i = 1; i < lines.size() && !lines[i].empty(); ++i) {
    const size_t colon = lines[i].find(':');
    if (colon == absl::string_view::npos || !IsToken(lines[i].substr(0, colon)))
      return absl::InvalidArgumentError("expected NAME: VALUE");
    std::string& value = request.headers[absl::AsciiStrToLower(lines[i].substr(0, colon))];
    absl::StrAppend(&value, value.empty() ? "" : ", ", absl::StripAsciiWhitespace(lines[i].substr(colon + 1)));
  }
  return request;
}

// Reads a request, writes the answer, and waits until the client has closed: closing first, with something unread,
// would take the answer away from it.
class HttpServer::Connection {
 public:
  Connection(int fd, absl::Time deadline) : fd_(fd), deadline_(deadline) {}

  int fd() const { return fd_.get(); }
  absl::Time deadline() const { return deadline_; }
  int16_t events() const { return phase_ == Phase::kWriting ? POLLOUT : POLLIN; }

  // After poll() has found something. \return false once it is over.
  bool Proceed(const Handler& handler) {
    switch (phase_) {
      case Phase::kReading:
        return Read(handler);
      case Phase::kWriting:
        return Write();
      case Phase::kClosing:
        return Drain();
    }
    return false;
  }

 private:
  enum class Phase { kReading, kWriting, kClosing };

  // How many bytes came; 0 at the end, nothing if none are there.
  static bool IsWaiting(ssize_t result) { return result < 0 && (errno == EAGAIN || errno == EINTR); }

  bool Read(const Handler& handler) {
    char buffer[kReadBytes];
    const ssize_t got = recv(fd(), buffer, sizeof buffer, 0);
    if (IsWaiting(got)) return true;
    if (got <= 0) return false;
    request_.append(buffer, static_cast<size_t>(got));
    const size_t end = request_.find("\r\n\r\n");
    if (end != std::string::npos) {
      Answer(std::string_view(request_).substr(0, end + 2), handler);
    } else if (request_.size() > kMaxRequestBytes) {
      response_ = Serialize({.status = 431, .body = "the request is too long\n"}, /*with_body=*/true);
    } else {
      return true;
    }
    phase_ = Phase::kWriting;
    return Write();
  }

  void Answer(std::string_view text, const Handler& handler) {
    const absl::StatusOr<HttpRequest> request = ParseHttpRequest(text);
    if (request.ok()) {
      response_ = Serialize(handler(*request), request->method != "HEAD");
    } else {
      const int status = absl::IsUnimplemented(request.status()) ? 405 : 400;
      response_ = Serialize({.status = status, .body = absl::StrCat(request.status().message(), "\n")},
                            /*with_body=*/true);
    }
  }

  bool Write() {
    const ssize_t sent = send(fd(), response_.data() + sent_, response_.size() - sent_, MSG_NOSIGNAL);
    if (IsWaiting(sent)) return true;
    if (sent < 0) return false;
    sent_ += static_cast<size_t>(sent);
    if (sent_ < response_.size()) return true;
    phase_ = Phase::kClosing;
    return shutdown(fd(), SHUT_WR) == 0;
  }

  bool Drain() const {
    char buffer[kReadBytes];
    const ssize_t got = recv(fd(), buffer, sizeof buffer, 0);
    return got > 0 || IsWaiting(got);
  }

  const FileDescriptor fd_;
  const absl::Time deadline_;
  Phase phase_ = Phase::kReading;
  std::string request_, response_;
  size_t sent_ = 0;
};

// What the thread does.
class HttpServer::Loop {
 public:
  Loop(int listen_fd, int stop_fd, Handler handler, HttpServerOptions options)
      : listen_fd_(listen_fd), stop_fd_(stop_fd), handler_(std::move(handler)), options_(options) {}

  void Run() {
    while (true) {
      std::vector<pollfd> fds = {{.fd = stop_fd_.get(), .events = POLLIN}, {.fd = listen_fd_.get(), .events = POLLIN}};
      for (const Connection& connection : connections_)
        fds.push_back({.fd = connection.fd(), .events = connection.events()});
      poll(fds.data(), fds.size(), Timeout());
      if (fds[0].revents != 0) return;
      size_t i = 2;
      for (auto connection = connections_.begin(); connection != connections_.end(); ++i) {
        const bool goes_on =
            absl::Now() < connection->deadline() && (fds[i].revents == 0 || connection->Proceed(handler_));
        connection = goes_on ? std::next(connection) : connections_.erase(connection);
      }
      if (fds[1].revents != 0) Accept();
    }
  }

 private:
  // In milliseconds, until the first connection is over its time.
  int Timeout() const {
    if (connections_.empty()) return -1;
    const absl::Duration left = connections_.front().deadline() - absl::Now();
    return static_cast<int>(absl::ToInt64Milliseconds(std::max(left, absl::ZeroDuration()))) + 1;
  }

  void Accept() {
    const int fd = accept4(listen_fd_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      // Without a free descriptor the listening socket would wake the thread again and again.
      if ((errno == EMFILE || errno == ENFILE) && !connections_.empty()) connections_.pop_front();
      return;
    }
    if (connections_.size() == options_.max_connections) connections_.pop_front();
    connections_.emplace_back(fd, absl::Now() + options_.max_time);
  }

  const FileDescriptor listen_fd_;
  const FileDescriptor stop_fd_;
  const Handler handler_;
  const HttpServerOptions options_;
  std::list<Connection> connections_;  // the oldest first
};

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& address, Handler handler,
                                                              HttpServerOptions options) {
  BOSS_ASSIGN_OR_RETURN(const int listen_fd, Listen(address));
  const int stop_fd = eventfd(0, EFD_CLOEXEC);
  const int error = errno;
  auto loop = std::make_unique<Loop>(listen_fd, stop_fd, std::move(handler), options);
  if (stop_fd < 0) return CannotServe(address, error);
  const int port = PortOf(listen_fd);
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(loop), port, stop_fd));
}

HttpServer::HttpServer(std::unique_ptr<Loop> loop, int port, int stop_fd)
    : loop_(std::move(loop)), port_(port), stop_fd_(stop_fd), thread_([this] { loop_->Run(); }) {}

HttpServer::~HttpServer() {
  eventfd_write(stop_fd_, 1);
  thread_.join();
}

}  // namespace boss::server
