// What this is: ONNX files: writing a graph as one, and reading one back to run it with limbeck's own kernels.
// What it is not: a general ONNX engine; the reader knows the operators that the writer uses.
// Both need libonnx (LIMBECK_ONNX); without it onnx_absent.cpp takes their place and every call is an error that says so.
// Read next: nn/graph.h, onnx_writer.cpp, verb_export.cpp.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "nn/graph.h"
#include "nn/int8_weights.h"
#include "ops/quantise.h"

namespace limbeck::apps {

inline constexpr int kMinOpset = 13;
inline constexpr int kMaxOpset = 17;

/// Largest number of a bias in integers.
inline constexpr double kMostBias = 0x1p30;

/// A graph in 8 bits.
struct OnnxBytes {
  std::vector<std::optional<ops::Quantisation>> values;  ///< by value of the graph; none: it is held in floats
  nn::Int8Weights filters;                               ///< of every convolution, by the name of its module
};

struct OnnxOptions {
  int opset = kMaxOpset;
  Shape input;                 ///< [N, C, H, W]
  bool dynamic_batch = false;  ///< N is free
  bool dynamic_size = false;   ///< H and W are free
  std::string input_name = "image";
  std::string output_name = "logits";
  std::string graph_name = "limbeck";
  std::map<std::string, std::string> metadata = {};
  std::optional<OnnxBytes> bytes = {};  ///< the file rounds to 8 bits
};

/// True in a build with libonnx.
[[nodiscard]] bool onnx_available() noexcept;

/// Writes `graph`, checked by the ONNX checker, atomically. An argmax at the end is called "ids", and what it reads
/// `output_name`.
/// Throws: ConfigError for an opset outside kMinOpset..kMaxOpset; Error for a graph or size the format cannot hold.
void write_onnx(const std::filesystem::path& path, const nn::Graph& graph, const OnnxOptions& options);

/// A file read back.
class OnnxProgram {
 public:
  /// Throws: WeightsError naming the file, and node or field, for anything that is damaged or unknown.
  explicit OnnxProgram(const std::filesystem::path& path);
  OnnxProgram(OnnxProgram&&) noexcept;
  OnnxProgram& operator=(OnnxProgram&&) noexcept;
  ~OnnxProgram();

  /// Runs the nodes one after another.
  /// Shapes:  x f32 [N, C, H, W]; returns the values called `names`
  [[nodiscard]] std::vector<Tensor> run(const Tensor& x, const std::vector<std::string>& names) const;
  [[nodiscard]] std::vector<std::string> outputs() const;
  [[nodiscard]] const std::map<std::string, std::string>& metadata() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace limbeck::apps
