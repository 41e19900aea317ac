// What this is: the small parts of writing an ONNX graph: nodes, their attributes, constants, and names that occur once.
// What it is not: which nodes a step becomes (onnx_writer.cpp).
#pragma once

#include <fmt/format.h>
#include <onnx/onnx_pb.h>

#include <array>
#include <cstdint>
#include <set>
#include <string>
#include <type_traits>
#include <vector>

#include "core/tensor.h"
#include "ops/quantise.h"

namespace limbeck::apps {

/// Adds to one graph. What is added is called after the module that is being written.
class OnnxBuilder {
 protected:
  using Names = std::vector<std::string>;

  /// The type of a constant's elements.
  template <class T>
  static constexpr onnx::TensorProto::DataType kElement = std::is_same_v<T, float>          ? onnx::TensorProto::FLOAT
                                                          : std::is_same_v<T, std::int64_t> ? onnx::TensorProto::INT64
                                                          : std::is_same_v<T, std::int32_t> ? onnx::TensorProto::INT32
                                                          : std::is_same_v<T, std::int8_t>  ? onnx::TensorProto::INT8
                                                                                            : onnx::TensorProto::UINT8;

  std::string unique(const std::string& wish) {
    std::string name = wish;
    for (int k = 2; !taken_.insert(name).second; ++k) name = fmt::format("{}_{}", wish, k);
    return name;
  }

  /// The next node, called after the module; its result is `out` or a new name.
  onnx::NodeProto& emit(const char* type, const Names& inputs, const std::string& out = {}) {
    auto* node = graph_->add_node();
    node->set_op_type(type);
    node->set_name(fmt::format("{}/{}", prefix_, graph_->node_size()));
    for (const auto& name : inputs) node->add_input(name);
    node->add_output(out.empty() ? fmt::format("{}/{}{}", prefix_, type, graph_->node_size()) : out);
    return *node;
  }
  static const std::string& result(const onnx::NodeProto& node) { return node.output(0); }

  static onnx::AttributeProto& attribute(onnx::NodeProto& node, const char* name,
                                         onnx::AttributeProto::AttributeType type) {
    auto* a = node.add_attribute();
    a->set_name(name);
    a->set_type(type);
    return *a;
  }
  static void set(onnx::NodeProto& node, const char* name, std::int64_t value) {
    attribute(node, name, onnx::AttributeProto::INT).set_i(value);
  }
  static void set(onnx::NodeProto& node, const char* name, double value) {
    attribute(node, name, onnx::AttributeProto::FLOAT).set_f(static_cast<float>(value));
  }
  static void set(onnx::NodeProto& node, const char* name, const char* value) {
    attribute(node, name, onnx::AttributeProto::STRING).set_s(value);
  }
  static void set(onnx::NodeProto& node, const char* name, const std::vector<std::int64_t>& values) {
    auto& a = attribute(node, name, onnx::AttributeProto::INTS);
    for (const auto v : values) a.add_ints(v);
  }
  static std::vector<std::int64_t> pair(const std::array<std::int64_t, 2>& v) { return {v[0], v[1]}; }
  static std::vector<std::int64_t> both_sides(const std::array<std::int64_t, 2>& v) { return {v[0], v[1], v[0], v[1]}; }

  template <class T>
  std::string constant(const std::string& name, const std::vector<T>& values, const std::vector<std::int64_t>& dims) {
    auto* t = graph_->add_initializer();
    t->set_name(unique(fmt::format("{}.{}", prefix_, name)));
    t->set_data_type(kElement<T>);
    for (const auto d : dims) t->add_dims(d);
    t->set_raw_data(values.data(), values.size() * sizeof(T));
    return t->name();
  }
  std::string scalar(const std::string& name, double value) {
    return constant<float>(name, {static_cast<float>(value)}, {});
  }
  std::string integer(const std::string& name, std::int64_t value) { return constant<std::int64_t>(name, {value}, {}); }
  std::string integers(const std::string& name, const std::vector<std::int64_t>& v) {
    return constant<std::int64_t>(name, v, {static_cast<std::int64_t>(v.size())});
  }
  std::string parameter(const char* name, const Tensor& t) {
    const auto dims = t.shape().span();
    return constant<float>(name, t.to_vector<float>(), {dims.begin(), dims.end()});
  }

  /// `x` rounded to bytes, and what these stand for.
  std::string rounded(const std::string& x, const ops::Quantisation& q) {
    const std::string scale = scalar("map_scale", static_cast<double>(q.scale));
    const std::string zero = constant<std::uint8_t>("map_zero", {static_cast<std::uint8_t>(q.zero)}, {});
    const std::string bytes = result(emit("QuantizeLinear", {x, scale, zero}));
    return result(emit("DequantizeLinear", {bytes, scale, zero}));
  }
  /// What integers stand for that count scales[i] each in row i.
  template <class T>
  std::string counted(const std::string& name, const std::vector<T>& values, const std::vector<std::int64_t>& dims,
                      const std::vector<float>& scales) {
    const std::string scale = constant(name + "_scale", scales, {dims[0]});
    const std::string zero = constant(name + "_zero", std::vector<T>(scales.size(), T{0}), {dims[0]});
    auto& node = emit("DequantizeLinear", {constant(name, values, dims), scale, zero});
    set(node, "axis", std::int64_t{0});
    return result(node);
  }

  onnx::GraphProto* graph_ = nullptr;
  std::string prefix_;  ///< of the module

 private:
  std::set<std::string> taken_;
};

}  // namespace limbeck::apps
