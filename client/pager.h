// Lists that arrive in pages, item by item.
#pragma once

#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace boss::client {

// Fetches a page when the one before is used up. Not thread-safe.
template <typename Request, typename Response, typename Item>
class Pager {
 public:
  using Fetch = std::function<absl::StatusOr<Response>(const Request&)>;
  using Items = google::protobuf::RepeatedPtrField<Item>* (*)(Response&);

  Pager(Request request, Fetch fetch, Items items)
      : request_(std::move(request)), fetch_(std::move(fetch)), items_(items) {}

  // The next item; nullopt after the last. \error what the RPC reports; then the same call may be tried again.
  absl::StatusOr<std::optional<Item>> Next() {
    while (next_ == items_(page_)->size()) {
      if (last_page_) return std::optional<Item>();
      absl::StatusOr<Response> page = fetch_(request_);
      if (!page.ok()) return page.status();
      page_ = *std::move(page);
      next_ = 0;
      request_.set_page_token(page_.next_page_token());
      last_page_ = page_.next_page_token().empty();
    }
    return std::optional<Item>(std::move(*items_(page_)->Mutable(next_++)));
  }

  // The items left, at most `limit` of them; 0 is no limit.
  absl::StatusOr<std::vector<Item>> Take(int limit = 0) {
    std::vector<Item> result;
    while (limit == 0 || static_cast<int>(result.size()) < limit) {
      absl::StatusOr<std::optional<Item>> item = Next();
      if (!item.ok()) return item.status();
      if (!item->has_value()) break;
      result.push_back(**std::move(item));
    }
    return result;
  }

 private:
  Request request_;
  const Fetch fetch_;
  const Items items_;
  Response page_;
  int next_ = 0;
  bool last_page_ = false;
};

}  // namespace boss::client
