#include "apps/tensorboard.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "core/error.h"
#include "core/file_io.h"

namespace limbeck::apps {
namespace {

// Just enough of the protocol-buffer wire format: field number and wire type in one varint, then the value.
enum WireType : std::uint64_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void put_varint(std::string& out, std::uint64_t v) {
  while (v >= 0x80) {
    out.push_back(static_cast<char>((v & 0x7F) | 0x80));
    v >>= 7U;
  }
  out.push_back(static_cast<char>(v));
}
template <class T>
void put_fixed(std::string& out, T v) {
  static_assert(std::endian::native == std::endian::little);
  std::array<char, sizeof(T)> bytes{};
  std::memcpy(bytes.data(), &v, sizeof(T));
  out.append(bytes.data(), bytes.size());
}
void put_key(std::string& out, std::uint64_t field, WireType type) { put_varint(out, field << 3U | type); }
void put_bytes(std::string& out, std::uint64_t field, std::string_view bytes) {
  put_key(out, field, kBytes);
  put_varint(out, bytes.size());
  out.append(bytes);
}
void put_integer(std::string& out, std::uint64_t field, std::int64_t v) {
  put_key(out, field, kVarint);
  put_varint(out, static_cast<std::uint64_t>(v));
}

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

/// Event{ wall_time = 1 (double), step = 2 (int64), then `rest` }.
std::string event(std::int64_t step, std::string_view rest) {
  std::string out;
  put_key(out, 1, kFixed64);
  put_fixed(out, wall_time());
  put_integer(out, 2, step);
  out.append(rest);
  return out;
}

/// Event.summary = 5 { Summary.value = 1 { tag = 1, then `value` } }.
std::string summary(std::string_view tag, std::string_view value) {
  std::string entry;
  put_bytes(entry, 1, tag);
  entry.append(value);
  std::string list;
  put_bytes(list, 1, entry);
  std::string out;
  put_bytes(out, 5, list);
  return out;
}

std::uint32_t masked_crc(std::string_view bytes) {
  const std::uint32_t crc = crc32c(bytes);
  return ((crc >> 15U) | (crc << 17U)) + 0xA282EAD8U;
}

}  // namespace

TensorboardWriter::TensorboardWriter(const std::filesystem::path& folder) {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) std::strcpy(host.data(), "localhost");
  const auto seconds = static_cast<std::int64_t>(wall_time());
  path_ = folder / fmt::format("events.out.tfevents.{}.{}.{}", seconds, host.data(), ::getpid());
  file_ = std::fopen(path_.c_str(), "wb");
  if (file_ == nullptr) fail("tensorboard", "cannot write {}: {}", path_.string(), std::strerror(errno));
  std::string version;
  put_bytes(version, 3, "brain.Event:2");
  record(event(0, version));
}

TensorboardWriter::~TensorboardWriter() {
  if (file_ != nullptr) std::fclose(file_);
}

void TensorboardWriter::record(std::string_view bytes) {
  std::string frame;
  put_fixed(frame, static_cast<std::uint64_t>(bytes.size()));
  put_fixed(frame, masked_crc(frame));
  frame.append(bytes);
  put_fixed(frame, masked_crc(bytes));
  if (std::fwrite(frame.data(), 1, frame.size(), file_) != frame.size()) {
    fail("tensorboard", "cannot write {}: {}", path_.string(), std::strerror(errno));
  }
}

void TensorboardWriter::scalar(std::string_view tag, double value, std::int64_t step) {
  std::string simple_value;  // Summary.Value.simple_value = 2 (float)
  put_key(simple_value, 2, kFixed32);
  put_fixed(simple_value, static_cast<float>(value));
  record(event(step, summary(tag, simple_value)));
}

void TensorboardWriter::image(std::string_view tag, std::string_view png, std::int64_t height, std::int64_t width,
                              std::int64_t step) {
  std::string picture;  // Summary.Image{ height = 1, width = 2, colorspace = 3, encoded_image_string = 4 }
  put_integer(picture, 1, height);
  put_integer(picture, 2, width);
  put_integer(picture, 3, 3);  // RGB
  put_bytes(picture, 4, png);
  std::string value;
  put_bytes(value, 4, picture);
  record(event(step, summary(tag, value)));
}

void TensorboardWriter::flush() { std::fflush(file_); }

}  // namespace limbeck::apps
