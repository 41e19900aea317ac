// What this is: the folder of one run: what is in it, how it is made, found and resumed.
//   config.yaml     the configuration in force        run.json        versions, seed, effective batch, protocol, weights
//   metrics.jsonl   one object per log line           events.out...   the same for TensorBoard
//   step_N/         checkpoints (nn/checkpoint.h)     best/           the one with the best validation mIoU
//   pictures/       validation images                 report.html     everything on one page
// Read next: trainer.h.
#pragma once

#include <filesystem>
#include <string>

namespace limbeck::apps {

/// Throws ConfigError when `path` already holds a run (hint: --resume or --force): to be asked before long preparations.
void require_new_run_dir(const std::filesystem::path& path);

/// Makes `path` for a new run. Throws ConfigError when it already holds a run (hint: --resume or --force) and
/// Error naming path and reason when it cannot be written.
void create_run_dir(const std::filesystem::path& path, bool force);

/// The weight file that `model` means: a .safetensors file itself; of a step folder its model.safetensors; of a run
/// folder that of best/, or of the newest step. Throws WeightsError naming what was looked for.
[[nodiscard]] std::filesystem::path find_weights(const std::filesystem::path& model);

/// Numbers of threads, library versions and the like, as a JSON object text for run.json.
[[nodiscard]] std::string environment_json();

}  // namespace limbeck::apps
