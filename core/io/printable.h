// Text out of foreign files, made fit for a message.
#pragma once

#include <string>
#include <string_view>

namespace boss {

// At most 200 characters of printable ASCII; '?' stands for every other byte.
inline std::string Printable(std::string_view text) {
  constexpr size_t kMaxLength = 200;
  std::string printable(text.substr(0, kMaxLength));
  for (char& c : printable) {
    if (c < ' ' || c > '~') c = '?';
  }
  if (text.size() > kMaxLength) printable += "...";
  return printable;
}

}  // namespace boss
