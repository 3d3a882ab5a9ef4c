#include "server/rpc/filter.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "core/base/error_details.h"
#include "core/base/status_macros.h"

namespace boss::server {
namespace {

bool IsWordCharacter(char c) {
  return absl::ascii_isalnum(c) || c == '_' || c == '-' || c == '.' || c == '@' || c == '/';
}

class Parser {
 public:
  explicit Parser(absl::string_view text) : text_(text) {}

  absl::StatusOr<std::vector<FilterTerm>> Parse() {
    std::vector<FilterTerm> terms;
    SkipSpaces();
    while (at_ < text_.size()) {
      if (!terms.empty() && Word() != "AND") return Error("expected AND");
      SkipSpaces();
      FilterTerm term;
      term.key = Word();
      if (term.key.empty()) return Error("expected a field");
      SkipSpaces();
      if (!Take('=')) return Error("expected =");
      SkipSpaces();
      BOSS_ASSIGN_OR_RETURN(term.value, Value());
      terms.push_back(std::move(term));
      SkipSpaces();
    }
    return terms;
  }

 private:
  absl::Status Error(absl::string_view what) const {
    return FieldError("filter", absl::StrCat(what, " at character ", at_, " of \"", text_, "\""));
  }

  void SkipSpaces() {
    while (at_ < text_.size() && absl::ascii_isspace(text_[at_])) ++at_;
  }

  bool Take(char c) {
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  std::string Word() {
    const size_t begin = at_;
    while (at_ < text_.size() && IsWordCharacter(text_[at_])) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }

  absl::StatusOr<std::string> Value() {
    if (!Take('"')) {
      std::string word = Word();
      if (word.empty()) return Error("expected a value");
      return word;
    }
    std::string value;
    while (at_ < text_.size() && text_[at_] != '"') {
      if (text_[at_] == '\\' && at_ + 1 < text_.size()) ++at_;
      value += text_[at_++];
    }
    if (!Take('"')) return Error("expected \"");
    return value;
  }

  const absl::string_view text_;
  size_t at_ = 0;
};

}  // namespace

absl::StatusOr<std::vector<FilterTerm>> ParseFilter(absl::string_view text) { return Parser(text).Parse(); }

}  // namespace boss::server
