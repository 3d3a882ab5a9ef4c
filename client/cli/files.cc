#include "client/cli/files.h"

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace boss::client {
namespace {

absl::Status FileError(absl::string_view operation, const std::string& path, int error) {
  return absl::ErrnoToStatus(error == 0 ? EIO : error, absl::StrCat(operation, " ", path));
}

// A header that is padded so that the data start at a multiple of 64 bytes.
std::string NpyHeader(const google::protobuf::RepeatedField<int64_t>& shape, bool is_float) {
  std::string dict = absl::StrCat("{'descr': '", is_float ? "<f4" : "|u1", "', 'fortran_order': False, 'shape': (",
                                  absl::StrJoin(shape, ", "), shape.size() == 1 ? ",), }" : "), }");
  constexpr size_t kPrefix = 10;  // magic, version, length
  while ((kPrefix + dict.size() + 1) % 64 != 0) dict.push_back(' ');
  dict.push_back('\n');
  std::string header("\x93NUMPY\x01\x00", 8);
  header.push_back(static_cast<char>(dict.size() & 0xff));
  header.push_back(static_cast<char>(dict.size() >> 8));
  return header + dict;
}

}  // namespace

absl::StatusOr<std::string> ReadTextFile(const std::string& path) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) return FileError("open", path, errno);
  std::ostringstream contents;
  contents << file.rdbuf();
  if (file.bad() || std::filesystem::is_directory(path)) return FileError("read", path, EISDIR);
  return contents.str();
}

absl::Status WriteBinaryFile(const std::string& path, absl::string_view bytes) {
  errno = 0;
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  if (!file) return FileError("create", path, errno);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  return file ? absl::OkStatus() : FileError("write", path, errno);
}

absl::Status MakeFolder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  return error ? FileError("create folder", path, error.value()) : absl::OkStatus();
}

absl::StatusOr<std::string> WriteSample(const std::string& folder, const std::string& name,
                                        const google::protobuf::RepeatedField<int64_t>& shape,
                                        boss::v1::OutputFormat format, absl::string_view data) {
  const bool is_png = format == boss::v1::OUTPUT_FORMAT_PNG;
  const std::string path = absl::StrCat(folder, "/", name, is_png ? ".png" : ".npy");
  const std::string header = is_png ? "" : NpyHeader(shape, format != boss::v1::OUTPUT_FORMAT_UINT8);
  const absl::Status status = WriteBinaryFile(path, absl::StrCat(header, data));
  if (!status.ok()) return status;
  return path;
}

}  // namespace boss::client
