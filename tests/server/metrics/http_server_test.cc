#include "server/metrics/http_server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vector>

#include "tests/support/http_get.h"

namespace boss::server {
namespace {

using boss::testing::HttpBody;
using boss::testing::HttpGet;
using boss::testing::HttpSend;
using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(ParseHttpRequestTest, TakesTheLineAndTheHeaders) {
  const auto request =
      ParseHttpRequest("GET /metrics?a=b HTTP/1.1\r\nHost: x\r\nACCEPT:  text/plain \r\nAccept: */*\r\n");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->method, "GET");
  EXPECT_EQ(request->path, "/metrics");
  EXPECT_EQ(request->Header("accept"), "text/plain, */*");
  EXPECT_EQ(request->Header("cookie"), "");
}

TEST(ParseHttpRequestTest, TakesNothingElse) {
  for (const char* text : {"", "\r\n", "GET\r\n", "GET /\r\n", "GET / HTTP/2.0\r\n", "GET  / HTTP/1.1\r\n",
                           "GET http://x/ HTTP/1.1\r\n", "GET / HTTP/1.1 \r\n",
                           "G\xff"
                           "ET / HTTP/1.1\r\n",
                           "GET / HTTP/1.1\r\nno colon\r\n", "GET / HTTP/1.1\r\n: no name\r\n",
                           "GET / HTTP/1.1\r\nA : b\r\n", "GET / HTTP/1.1\nHost: x\n", "GET /\ra HTTP/1.1\r\n",
                           "GET /\xc3\xa9 HTTP/1.1\r\n", "\x16\x03\x01\x02 TLS\r\n", "PRI * HTTP/2.0\r\n"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseHttpRequest(text).status())) << text;
  }
  for (const char* text : {"POST / HTTP/1.1\r\n", "BREW / HTTP/1.1\r\n", "get / HTTP/1.1\r\n"}) {
    EXPECT_TRUE(absl::IsUnimplemented(ParseHttpRequest(text).status())) << text;
  }
}

class HttpServerTest : public ::testing::Test {
 protected:
  void Start(HttpServerOptions options = {}) {
    auto server = HttpServer::Start(
        "127.0.0.1:0",
        [](const HttpRequest& request) -> HttpResponse {
          if (request.path == "/large") return {.body = std::string(8 << 20, 'x')};
          return {.content_type = "text/x", .body = request.method + " " + request.path};
        },
        options);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  // A connection on which `bytes` were sent.
  int Connect(const std::string& bytes) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(server_->port()));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
    return fd;
  }
  // Waits until the server has closed a connection that it has not answered.
  static bool IsClosed(int fd) {
    char byte;
    return recv(fd, &byte, 1, 0) <= 0;
  }

  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, AnswersWithWhatTheHandlerSays) {
  Start();
  const std::string response = HttpGet(server_->port(), "/a?b");
  EXPECT_EQ(response,
            "HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nContent-Length: 6\r\nConnection: close\r\n\r\nGET /a");
  EXPECT_THAT(HttpSend(server_->port(), "HEAD /a HTTP/1.0\r\n\r\n"),
              AllOf(HasSubstr("Content-Length: 7\r\n"), EndsWith("\r\n\r\n")));
}

TEST_F(HttpServerTest, ALongAnswerComesWhole) {
  Start();
  EXPECT_EQ(HttpBody(HttpGet(server_->port(), "/large")).size(), size_t{8} << 20);
}

TEST_F(HttpServerTest, WhatIsNoRequestIsRefused) {
  Start();
  EXPECT_THAT(HttpSend(server_->port(), "\r\n\r\n"), StartsWith("HTTP/1.1 400 Bad Request\r\n"));
  EXPECT_THAT(HttpSend(server_->port(), std::string("\0\xff\0 \r\n\r\n", 8)), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(HttpSend(server_->port(), "DELETE / HTTP/1.1\r\n\r\n"),
              AllOf(StartsWith("HTTP/1.1 405 "), HasSubstr("Allow: GET, HEAD\r\n")));
  EXPECT_THAT(HttpSend(server_->port(), "GET /" + std::string(100'000, 'a')), StartsWith("HTTP/1.1 431 "));
  // A body is not read, and its client still gets its answer.
  EXPECT_THAT(
      HttpSend(server_->port(), "GET /a HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + std::string(100'000, 'b')),
      EndsWith("GET /a"));
  EXPECT_EQ(HttpBody(HttpGet(server_->port(), "/a")), "GET /a");
}

TEST_F(HttpServerTest, ARequestMayComeByteByByte) {
  Start();
  const std::string request = "GET /slow HTTP/1.1\r\nA: b\r\n\r\n";
  const int fd = Connect("");
  for (const char byte : request) EXPECT_EQ(send(fd, &byte, 1, MSG_NOSIGNAL), 1);
  std::string response;
  char buffer[256];
  for (ssize_t got = 0; (got = recv(fd, buffer, sizeof buffer, 0)) > 0;)
    response.append(buffer, static_cast<size_t>(got));
  EXPECT_EQ(HttpBody(response), "GET /slow");
  close(fd);
}

TEST_F(HttpServerTest, ManyWhoSayNothingShutOutNobody) {
  Start({.max_connections = 4, .max_time = absl::Hours(1)});
  std::vector<int> silent;
  for (int i = 0; i < 20; ++i) silent.push_back(Connect("GET / HT"));
  for (int i = 0; i < 20; ++i) EXPECT_EQ(HttpBody(HttpGet(server_->port(), "/a")), "GET /a");
  EXPECT_TRUE(IsClosed(silent.front()));
  for (const int fd : silent) close(fd);
}

TEST_F(HttpServerTest, WhoTakesTooLongIsClosed) {
  Start({.max_time = absl::Milliseconds(1)});
  const int silent = Connect("GET / HT");
  EXPECT_TRUE(IsClosed(silent));
  close(silent);
}

TEST_F(HttpServerTest, StoppingClosesWhatIsOpen) {
  Start();
  const int silent = Connect("GET / HT");
  EXPECT_EQ(HttpBody(HttpGet(server_->port(), "/a")), "GET /a");
  server_.reset();
  EXPECT_TRUE(IsClosed(silent));
  close(silent);
}

TEST_F(HttpServerTest, AnAddressThatCannotBeHadIsAnError) {
  Start();
  const auto handler = [](const HttpRequest&) { return HttpResponse(); };
  for (const std::string& address : {"127.0.0.1:" + std::to_string(server_->port()), std::string("127.0.0.1"),
                                     std::string("127.0.0.1:http"), std::string("203.0.113.1:0")}) {
    const absl::Status status = HttpServer::Start(address, handler).status();
    EXPECT_TRUE(absl::IsUnavailable(status)) << address << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(address));
  }
  EXPECT_TRUE(HttpServer::Start("localhost:0", handler).ok());
  EXPECT_TRUE(HttpServer::Start(":0", handler).ok());
}

}  // namespace
}  // namespace boss::server
