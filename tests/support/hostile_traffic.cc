#include "tests/support/hostile_traffic.h"

#include <algorithm>

namespace boss::testing {
namespace {

constexpr int kFrames = 20000;
constexpr uint32_t kResets = 2000;
constexpr uint8_t kData = 0, kHeaders = 1, kRstStream = 3, kSettings = 4, kPing = 6, kContinuation = 9;
constexpr uint8_t kGoAway = 7, kWindowUpdate = 8;
constexpr uint8_t kEndStream = 1, kAck = 1;
constexpr uint16_t kInitialWindow = 4;  // of SETTINGS
constexpr uint8_t kEndHeaders = 4;

std::string Repeat(const std::string& text, int count) {
  std::string result;
  for (int i = 0; i < count; ++i) result += text;
  return result;
}

// Of `size` bytes, the highest first.
uint32_t Number(const std::string& text, size_t begin, size_t size) {
  uint32_t number = 0;
  for (size_t i = begin; i < begin + size && i < text.size(); ++i) number = number << 8 | static_cast<uint8_t>(text[i]);
  return number;
}

}  // namespace

std::vector<std::string> MalformedHttpRequests() {
  return {
      "\r\n\r\n",
      std::string("\0\1\2\xff\xfe\r\n\r\n", 9),
      "GET\r\n\r\n",
      "GET /metrics\r\n\r\n",
      "GET /metrics HTTP/9.9\r\n\r\n",
      "GET  /metrics HTTP/1.1\r\n\r\n",
      "GET http://elsewhere/metrics HTTP/1.1\r\n\r\n",
      "GET /metrics HTTP/1.1\r\nno colon\r\n\r\n",
      "GET /metrics HTTP/1.1\r\n: no name\r\n\r\n",
      "POST /metrics HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
      "DELETE /metrics HTTP/1.1\r\n\r\n",
      "CONNECT elsewhere:443 HTTP/1.1\r\n\r\n",
      "GET / HTTP/1.1\r\n\r\n",
      "GET /../../../../etc/passwd HTTP/1.1\r\n\r\n",
      "GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\n\r\n",
      "GET /metrics/../../etc/passwd HTTP/1.1\r\n\r\n",
      "GET //metrics HTTP/1.1\r\n\r\n",
      "GET /" + std::string(100'000, 'a') + " HTTP/1.1\r\n\r\n",
      std::string(1 << 20, 'x'),
      "GET /metrics HTTP/1.1\r\nCookie: " + std::string(1 << 20, 'c') + "\r\n\r\n",
      "GET /metrics HTTP/1.1\r\n" + Repeat("a: b\r\n", 100'000) + "\r\n",
      Repeat("GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", 1000),
      Http2Preface(),
      std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 15),
  };
}

std::vector<RawConnection> HoldConnections(int port, int count, const std::string& bytes) {
  std::vector<RawConnection> connections;
  connections.reserve(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) {
    connections.emplace_back(port);
    connections.back().Send(bytes);
  }
  return connections;
}

std::vector<std::string> Http2Garbage() {
  const std::string preface = Http2Preface();
  return {
      "GET /metrics HTTP/1.1\r\n\r\n",
      std::string(100'000, '\xff'),
      std::string(100'000, '\0'),
      preface + Http2Frame(kData, 0, 1, "data of no stream"),
      preface + Http2Frame(kHeaders, kEndHeaders, 0, "headers of no stream"),
      preface + Http2Frame(kHeaders, kEndHeaders, 2, Http2CallHeaders("/a/stream/of/the/server")),
      preface + Http2Frame(kHeaders, kEndHeaders, 1, std::string(100, '\xff')),
      preface + Http2Frame(kContinuation, kEndHeaders, 1, "goes on with nothing"),
      preface + Http2Frame(kSettings, 0, 0, "five!"),
      preface + Http2Frame(kSettings, 0, 0, std::string("\x00\x04\xff\xff\xff\xff", 6)),
      preface + Http2Frame(kPing, 0, 0, "of another size"),
      preface + Http2Frame(200, 255, 1, std::string(16384, 'u')),
      preface + "\xff\xff\xff",
      preface + Http2Frame(kHeaders, kEndHeaders, 1, Http2CallHeaders("/boss.v1.Sampler/Generate")) +
          Http2Frame(kData, 0, 1, std::string("\x01\x00\x00\x00\x05junk!", 10)),
  };
}

void FloodWithSettings(int port) {
  RawConnection connection(port);
  connection.Send(Http2Preface() + Repeat(Http2Frame(kSettings, 0, 0, ""), kFrames));
}

void FloodWithPings(int port) {
  RawConnection connection(port);
  connection.Send(Http2Preface() + Repeat(Http2Frame(kPing, 0, 0, "12345678"), kFrames));
}

void FloodWithResets(int port, const std::string& path) {
  RawConnection connection(port);
  if (!connection.Send(Http2Preface())) return;
  const std::string headers = Http2CallHeaders(path);
  for (uint32_t stream = 1; stream < 2 * kResets; stream += 2) {
    const std::string cancelled("\0\0\0\x08", 4);
    if (!connection.Send(Http2Frame(kHeaders, kEndHeaders, stream, headers) +
                         Http2Frame(kRstStream, 0, stream, cancelled)))
      return;
  }
}

void SendEndlessHeaders(int port, const std::string& path) {
  RawConnection connection(port);
  bool goes_on = connection.Send(Http2Preface() + Http2Frame(kHeaders, 0, 1, Http2CallHeaders(path)));
  const std::string more = Http2Frame(kContinuation, 0, 1, Http2Header("x-more", std::string(16000, 'm')));
  for (int i = 0; i < 1024 && goes_on; ++i) goes_on = connection.Send(more);
}

void SendEndlessMessage(int port, const std::string& path) {
  RawConnection connection(port);
  bool goes_on = connection.Send(Http2Preface() + Http2Frame(kHeaders, kEndHeaders, 1, Http2CallHeaders(path)) +
                                 Http2Frame(kData, 0, 1, std::string("\0\xff\xff\xff\xff", 5)));
  const std::string more = Http2Frame(kData, 0, 1, std::string(16000, 'm'));
  for (int i = 0; i < 64 && goes_on; ++i) goes_on = connection.Send(more);
}

UnfinishedMessages::UnfinishedMessages(int port, const std::string& path, int calls, int64_t bytes)
    : connection_(port, std::chrono::seconds(60)) {
  std::string begin = Http2Preface();
  const auto size = static_cast<uint32_t>(bytes);
  const std::string prefix = {'\0', static_cast<char>(size >> 24), static_cast<char>(size >> 16),
                              static_cast<char>(size >> 8), static_cast<char>(size)};
  for (int i = 0; i < calls; ++i) {
    const uint32_t stream = 2 * static_cast<uint32_t>(i) + 1;
    begin += Http2Frame(kHeaders, kEndHeaders, stream, Http2CallHeaders(path)) + Http2Frame(kData, 0, stream, prefix);
    window_ -= static_cast<int64_t>(prefix.size());
    calls_[stream] = {.window = initial_window_ - static_cast<int64_t>(prefix.size()), .left = bytes - 1};
  }
  if (!connection_.Send(begin)) return;
  while (SendAll() && ReadFrame()) {
  }
}

bool UnfinishedMessages::SendAll() {
  static const std::string kPiece(16384, 'm');
  for (auto& [stream, call] : calls_) {
    while (true) {
      const int64_t size = std::min({static_cast<int64_t>(kPiece.size()), call.left, call.window, window_});
      if (size <= 0) break;
      const std::string_view piece = std::string_view(kPiece).substr(0, static_cast<size_t>(size));
      if (!connection_.Send(Http2Frame(kData, 0, stream, piece))) return false;
      for (int64_t* amount : {&call.left, &call.window, &window_}) *amount -= size;
      sent_ += size;
    }
  }
  return std::any_of(calls_.begin(), calls_.end(), [](const auto& call) { return call.second.left > 0; });
}

bool UnfinishedMessages::ReadFrame() {
  const std::string header = connection_.Receive(9);
  if (header.size() < 9) return false;
  const std::string payload = connection_.Receive(Number(header, 0, 3));
  const auto type = static_cast<uint8_t>(header[3]), flags = static_cast<uint8_t>(header[4]);
  const uint32_t stream = Number(header, 5, 4);
  if (type == kSettings && (flags & kAck) == 0) {
    TakeSettings(payload);
  } else if (type == kPing && (flags & kAck) == 0) {
    return connection_.Send(Http2Frame(kPing, kAck, 0, payload));
  } else if (type == kWindowUpdate) {
    const int64_t more = Number(payload, 0, 4);
    if (stream == 0) window_ += more;
    if (const auto call = calls_.find(stream); call != calls_.end()) call->second.window += more;
  } else if (type == kRstStream || (type == kHeaders && (flags & kEndStream) != 0)) {
    calls_.erase(stream);
  }
  return type != kGoAway;
}

void UnfinishedMessages::TakeSettings(const std::string& payload) {
  for (size_t i = 0; i + 6 <= payload.size(); i += 6) {
    if (Number(payload, i, 2) != kInitialWindow) continue;
    const int64_t initial = Number(payload, i + 2, 4);
    for (auto& [stream, call] : calls_) call.window += initial - initial_window_;
    initial_window_ = initial;
  }
  connection_.Send(Http2Frame(kSettings, kAck, 0, ""));
}

}  // namespace boss::testing
