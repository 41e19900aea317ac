// What this is: reading the tensors of PyTorch's weight files (.pth, .pt): the zip archives of torch.save since 1.6 and the
//   older format of several pickles in a row. Nothing in them is executed (core/pickle.h). And writing the former.
// What it is not: the matching of names with a network (models/weights.h), or TorchScript (its code is ignored, and its archive
//   usually refused because its classes are unknown).
// Read next: core/torch_file.cpp.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "core/safetensors.h"

namespace limbeck {

struct TorchFile {
  std::vector<NamedTensor> tensors;  ///< in the order of the file
  std::string path;                  ///< where in the file the dictionary was: "", "state_dict", "model", ...
  std::vector<std::string> skipped;  ///< entries of that dictionary that are no tensors
};

/// True if the first bytes are those of a zip archive or of a PyTorch pickle.
[[nodiscard]] bool is_torch_file(const std::filesystem::path& path);

/// Reads the dictionary of tensors: the file's own, or the one under state_dict, model_state_dict, model_state, model, module,
/// network, net, student, ema (also nested once, as {"model": {"state_dict": ...}}).
/// Types:  float32, float64, bfloat16, int64, int32, uint8, bool as they are; float16 becomes f32; int16 and int8 become i32.
///         Tensors may share a storage, have any strides and any byte order; each becomes a tensor of its own.
/// Throws: WeightsError naming the file and what is wrong: a class that is no tensor (by name), a truncated archive, a storage
///         whose size is not what the pickle says, a tensor outside of its storage, several candidates or none for the
///         dictionary, an entry that is there twice, contents that would unpack to more than 16 times the file (a zip bomb).
/// Source: torch/serialization.py of PyTorch 0.3 to 2.x.
[[nodiscard]] TorchFile load_torch_file(const std::filesystem::path& path);

/// Writes what `torch.load(path, weights_only=True)` reads as a dictionary of tensors, in that order. Body: torch_file_write.cpp.
/// Types:  f32, f64, bf16, i64, i32, u8.
/// Throws: WeightsError for another type, an undefined tensor or a repeated name; Error naming path and reason if writing fails.
void save_torch_file(const std::filesystem::path& path, std::span<const NamedTensor> tensors);

}  // namespace limbeck
