#include "tests/support/raw_connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace boss::testing {
namespace {

// An integer with a prefix of 7 bits and the highest bit clear (RFC 7541, 5.1).
std::string Length(size_t value) {
  if (value < 127) return std::string(1, static_cast<char>(value));
  std::string text(1, 127);
  for (value -= 127; value >= 128; value >>= 7) text.push_back(static_cast<char>((value & 127) | 128));
  text.push_back(static_cast<char>(value));
  return text;
}

}  // namespace

RawConnection::RawConnection(int port, std::chrono::milliseconds patience)
    : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), patience_milliseconds_(static_cast<int>(patience.count())) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd_ >= 0 && connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    close(fd_);
    fd_ = -1;
  }
}

RawConnection::RawConnection(RawConnection&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), patience_milliseconds_(other.patience_milliseconds_) {}

RawConnection::~RawConnection() {
  if (fd_ >= 0) close(fd_);
}

bool RawConnection::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) bytes.remove_prefix(static_cast<size_t>(sent));
    if (sent >= 0 || errno == EINTR) continue;
    if (errno != EAGAIN) return false;
    pollfd descriptor = {.fd = fd_, .events = POLLOUT};
    if (poll(&descriptor, 1, patience_milliseconds_) == 0) return false;
  }
  return true;
}

std::string RawConnection::Receive(size_t size) {
  std::string received(size, '\0');
  size_t count = 0;
  while (count < size) {
    pollfd descriptor = {.fd = fd_, .events = POLLIN};
    if (poll(&descriptor, 1, patience_milliseconds_) == 0) break;
    const ssize_t got = recv(fd_, received.data() + count, size - count, MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN)) break;
    count += static_cast<size_t>(std::max<ssize_t>(got, 0));
  }
  received.resize(count);
  return received;
}

void RawConnection::AwaitAnswer() {
  char first;
  while (recv(fd_, &first, 1, MSG_PEEK) < 0 && errno == EINTR) {
  }
}

void RawConnection::CloseForSending() { shutdown(fd_, SHUT_WR); }

std::string RawConnection::ReadAll() {
  std::string received;
  char buffer[4096];
  for (ssize_t got = 0; (got = recv(fd_, buffer, sizeof buffer, 0)) > 0 || (got < 0 && errno == EINTR);)
    received.append(buffer, static_cast<size_t>(std::max<ssize_t>(got, 0)));
  return received;
}

std::string Http2Frame(uint8_t type, uint8_t flags, uint32_t stream, std::string_view payload) {
  std::string frame;
  for (int shift = 16; shift >= 0; shift -= 8) frame.push_back(static_cast<char>(payload.size() >> shift));
  frame.push_back(static_cast<char>(type));
  frame.push_back(static_cast<char>(flags));
  for (int shift = 24; shift >= 0; shift -= 8) frame.push_back(static_cast<char>(stream >> shift));
  return frame.append(payload);
}

std::string Http2Preface() { return "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + Http2Frame(4, 0, 0, ""); }

std::string Http2Header(std::string_view name, std::string_view value) {
  return std::string(1, '\0') + Length(name.size()) + std::string(name) + Length(value.size()) + std::string(value);
}

std::string Http2CallHeaders(std::string_view path) {
  return Http2Header(":method", "POST") + Http2Header(":scheme", "http") + Http2Header(":path", path) +
         Http2Header(":authority", "localhost") + Http2Header("te", "trailers") +
         Http2Header("content-type", "application/grpc");
}

}  // namespace boss::testing
