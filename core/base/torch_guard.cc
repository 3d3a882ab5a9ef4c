#include "core/base/torch_guard.h"

#include <c10/util/Exception.h>

#include <new>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace boss {

absl::Status TorchExceptionToStatus(std::string_view context, std::exception_ptr exception) {
  // Debian's Abseil has a string_view of its own.
  const std::string operation(context);
  try {
    std::rethrow_exception(exception);
  } catch (const c10::OutOfMemoryError& error) {
    return absl::ResourceExhaustedError(absl::StrCat(operation, ": ", error.what_without_backtrace()));
  } catch (const c10::ValueError& error) {
    return absl::InvalidArgumentError(absl::StrCat(operation, ": ", error.what_without_backtrace()));
  } catch (const c10::Error& error) {
    const std::string message = absl::StrCat(operation, ": ", error.what_without_backtrace());
    // The CPU allocator reports exhaustion with a plain error.
    return absl::StrContains(message, "allocate memory") ? absl::ResourceExhaustedError(message) : absl::InternalError(message);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(absl::StrCat(operation, ": out of host memory"));
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat(operation, ": ", error.what()));
  }
}

}  // namespace boss
