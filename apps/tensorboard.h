// What this is: a writer of TensorBoard event files (scalars and PNG pictures), so that `tensorboard --logdir runs` works.
// What it is not: the record of truth; that is metrics.jsonl.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>

namespace limbeck::apps {

/// One events.out.tfevents file. Records are framed as: u64 length, masked CRC-32C of it, payload, masked CRC-32C.
class TensorboardWriter {
 public:
  /// Creates a new file in `folder`; throws Error naming path and reason.
  explicit TensorboardWriter(const std::filesystem::path& folder);
  TensorboardWriter(const TensorboardWriter&) = delete;
  TensorboardWriter& operator=(const TensorboardWriter&) = delete;
  ~TensorboardWriter();

  /// Tag style: "train/loss", "train/kd/cwd", "val/miou", "lr".
  void scalar(std::string_view tag, double value, std::int64_t step);
  /// `png`: the bytes of a PNG file of that size.
  void image(std::string_view tag, std::string_view png, std::int64_t height, std::int64_t width, std::int64_t step);
  void flush();

 private:
  void record(std::string_view event);
  std::filesystem::path path_;
  std::FILE* file_ = nullptr;
};

}  // namespace limbeck::apps
