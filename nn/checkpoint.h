// What this is: everything a run needs to go on as if it had never stopped, in one directory.
//
//   step_00001200/
//     model.safetensors      parameters and buffers, readable by any safetensors library
//     training.safetensors   optimizer, averages, ...: tensors called PART/NAME
//     state.json             step, counters, numbers, texts, positions of the random generators
//     checksums.txt          size and CRC-32C of the files above and of itself; a directory without it is not a checkpoint
//
// What it is not: a weight import (models/weights.h).
// Crash safety: the directory is written under a temporary name, fsynced and renamed (core/file_io.h), so a name
//   step_NNNNNNNN always stands for a complete checkpoint. Disks and copies still damage files: loading verifies
//   every byte before it uses one.
// Read next: core/file_io.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/rng.h"
#include "nn/module.h"

namespace limbeck::nn {

/// The contents of a checkpoint. Maps are free for the caller to fill; they come back bit for bit.
/// Shapes: any
struct Checkpoint {
  std::int64_t step = 0;
  StateDict model;
  std::map<std::string, std::string> model_metadata;  ///< goes into model.safetensors: classes, mean, std, ...
  std::map<std::string, StateDict> parts;             ///< e.g. {"optimizer", ..}, {"ema", ..}, {"adapters", ..}
  std::map<std::string, std::int64_t> counters;       ///< epoch, samples seen, ...
  std::map<std::string, double> numbers;              ///< best mIoU, ...; NaN and infinity are kept
  std::map<std::string, std::string> texts;           ///< merged config, ...; UTF-8
  std::map<std::string, Generator> generators;
};

/// "step_00001200"
/// Shapes: none
[[nodiscard]] std::string checkpoint_name(std::int64_t step);

/// Writes `directory` (replacing an older one of that name) and returns when it is safely on disk.
/// Shapes: any
/// Throws: WeightsError for a part name with '/', Error naming path and reason if writing fails.
void save_checkpoint(const std::filesystem::path& directory, const Checkpoint& checkpoint);

/// Reads and verifies a checkpoint.
/// Shapes: any
/// Throws: one WeightsError naming file, field, expected and found for a missing, truncated, altered or foreign file.
[[nodiscard]] Checkpoint load_checkpoint(const std::filesystem::path& directory);

/// Verifies without loading tensors. Throws as load_checkpoint does.
/// Shapes: none
void verify_checkpoint(const std::filesystem::path& directory);

/// Complete checkpoints below `root` by ascending step; leftovers of a crash are not among them.
/// Shapes: none
[[nodiscard]] std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& root);
/// The one with the highest step.
/// Shapes: none
[[nodiscard]] std::optional<std::filesystem::path> latest_checkpoint(const std::filesystem::path& root);
/// Removes all but the `keep` latest.
/// Shapes: none
void prune_checkpoints(const std::filesystem::path& root, std::size_t keep);

}  // namespace limbeck::nn
