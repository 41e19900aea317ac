// What this is: ONNX Runtime as a second opinion about an ONNX file, through its Python package.
// What it is not: a dependency. Where there is no such package, the answer is empty and says why.
// Read next: export.h (the proof), onnx_file.h (limbeck's own reader).
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace limbeck::apps {

struct RuntimeAnswer {
  std::string version;          ///< "1.32.0"
  std::vector<Tensor> outputs;  ///< the file's first output for each input
};

/// Runs the file on each of `inputs` (f32) in the ONNX Runtime that the Python in $LIMBECK_PYTHON (default: python3) imports.
/// Empty, with the reason in `absent`, where there is no such Python or it lacks onnxruntime or numpy.
/// Throws: Error with ONNX Runtime's last words if it refuses or cannot run the file.
[[nodiscard]] std::optional<RuntimeAnswer> run_in_onnx_runtime(const std::filesystem::path& file,
                                                               std::span<const Tensor> inputs, std::string& absent);

}  // namespace limbeck::apps
