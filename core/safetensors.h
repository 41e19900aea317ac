// What this is: reading and writing of safetensors weight files (8-byte header length, JSON header, raw data).
// What it is not: a checkpoint (nn/checkpoint.h) or the matching of names with a model (nn/module.h).
// Layout: the file is row-major; limbeck's 4-D tensors are channels-last. Loading and saving convert.
// Files come from strangers: every number in the header is checked before it is used (see load_safetensors).
// Read next: core/file_io.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"

namespace limbeck {

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

struct SafetensorsEntry {
  std::string name;
  std::string file_dtype;     ///< as written in the file: "F32", "F16", ...
  DType dtype = DType::kF32;  ///< of `tensor`; F16 becomes f32
  Shape shape;
  Tensor tensor;  ///< undefined when only the header was read
};

struct SafetensorsFile {
  std::vector<SafetensorsEntry> entries;  ///< in the order of the header
  std::map<std::string, std::string> metadata;

  /// The entry called `name`, or null.
  [[nodiscard]] const SafetensorsEntry* find(std::string_view name) const noexcept;
  /// The tensor called `name`; throws WeightsError listing close names.
  [[nodiscard]] const Tensor& at(std::string_view name) const;
};

/// Reads all tensors into memory, in limbeck's default layout.
/// Types: F32, F64, BF16, I64, I32, U8, BOOL as they are; F16 becomes f32.
/// Throws: WeightsError naming file, tensor, field, expected and found, for: a header longer than 100 MB or than the
///   file; broken JSON; repeated names; an unknown dtype; more than kMaxDims dimensions; negative or overflowing
///   shapes; data ranges that overlap, leave gaps, run beyond the file or do not fit shape and dtype.
/// Source: the safetensors format description; agrees with the `safetensors` Python package (tests/test_safetensors.cpp).
[[nodiscard]] SafetensorsFile load_safetensors(const std::filesystem::path& path);

/// As load_safetensors, names and shapes only: checks the whole header, reads no data.
[[nodiscard]] SafetensorsFile inspect_safetensors(const std::filesystem::path& path);

/// Writes `tensors` in that order, atomically (core/file_io.h, Note [atomic write]). Same input, same bytes.
/// Throws: WeightsError for an undefined tensor, a repeated name, a name or text that is not UTF-8, or a tensor
///   without data (meta); Error naming path and reason if writing fails.
void save_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                      const std::map<std::string, std::string>& metadata = {});

}  // namespace limbeck
