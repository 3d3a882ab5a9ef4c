// Connections as a hostile client makes them: bytes, and no protocol that they follow.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace boss::testing {

// To 127.0.0.1:port. Closed when it goes away. Used by one thread at a time.
class RawConnection {
 public:
  // `patience`: how long it waits for a peer that takes nothing or says nothing.
  explicit RawConnection(int port, std::chrono::milliseconds patience = std::chrono::milliseconds(500));
  RawConnection(RawConnection&& other) noexcept;
  RawConnection& operator=(RawConnection&&) = delete;
  ~RawConnection();

  bool is_open() const { return fd_ >= 0; }
  // Sends as much as the peer takes: all of it, or until it has closed, or patience is at its end. \return whether it
  // was all of it.
  bool Send(std::string_view bytes);
  // `size` bytes; fewer if the peer has closed, or patience is at its end.
  std::string Receive(size_t size);
  // Until the peer has sent something, which stays to be received, or has closed.
  void AwaitAnswer();
  void CloseForSending();
  // Until the peer closes.
  std::string ReadAll();

 private:
  int fd_;  // -1: cannot be had
  int patience_milliseconds_;
};

// What an HTTP/2 client (RFC 9113) says first, and an empty SETTINGS frame.
std::string Http2Preface();
// `type`: 0 DATA, 1 HEADERS, 3 RST_STREAM, 4 SETTINGS, 6 PING, 9 CONTINUATION, ...
std::string Http2Frame(uint8_t type, uint8_t flags, uint32_t stream, std::string_view payload);
// A block of header fields that calls the gRPC method at `path`, uncompressed (RFC 7541, 6.2.2).
std::string Http2CallHeaders(std::string_view path);
// One field of such a block.
std::string Http2Header(std::string_view name, std::string_view value);

}  // namespace boss::testing
