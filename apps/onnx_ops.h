// What this is: the ONNX operators that limbeck writes, run by its own ops.
// What it is not: the file format; this part knows no protobuf.
// Read next: onnx_program.cpp.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"

namespace limbeck::apps {

/// Attributes of a node; the second argument is the value where the node has none.
class OnnxAttributes {
 public:
  virtual ~OnnxAttributes() = default;
  [[nodiscard]] virtual std::int64_t integer(std::string_view name, std::int64_t otherwise) const = 0;
  [[nodiscard]] virtual double number(std::string_view name, double otherwise) const = 0;
  [[nodiscard]] virtual std::string text(std::string_view name, const std::string& otherwise) const = 0;
  [[nodiscard]] virtual std::vector<std::int64_t> integers(std::string_view name,
                                                           std::vector<std::int64_t> otherwise) const = 0;
};

[[nodiscard]] bool knows_onnx_op(const std::string& type) noexcept;

/// The result of one node. Inputs that were not given are undefined tensors.
/// Shapes: as the ONNX operator says
/// Throws: Error for inputs or attributes that do not fit, or that limbeck never writes.
[[nodiscard]] Tensor run_onnx_op(const std::string& type, const std::vector<Tensor>& inputs,
                                 const OnnxAttributes& attributes);

}  // namespace limbeck::apps
