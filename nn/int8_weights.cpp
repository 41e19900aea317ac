// What this is: see nn/int8_weights.h.
#include "nn/int8_weights.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/autograd.h"
#include "nn/calibration.h"

namespace limbeck::nn {
namespace {

constexpr const char* kName = "int8_weights";
constexpr int kZero = 128;  // the byte that stands for 0

Tensor tensor_of(const std::vector<float>& values) {
  return Tensor::from(values, {static_cast<std::int64_t>(values.size())});
}

/// The tensor NAME.PART.
const Tensor& part_of(const StateDict& state, const std::string& name, const char* part, DType dtype,
                      const Shape& shape) {
  const std::string full = name + part;
  const auto found = state.find(full);
  if (found == state.end()) fail<WeightsError>("weights", "'{}' is missing", full);
  const Tensor& t = found->second;
  if (t.dtype() != dtype || (shape.size() > 0 && t.shape() != shape)) {
    fail<WeightsError>("weights", "'{}' is {} {}, expected {}{}", full, name_of(t.dtype()), t.shape(), name_of(dtype),
                       shape.size() > 0 ? " " + shape.to_string() : "");
  }
  return t;
}

std::vector<float> numbers_of(const Tensor& t, const std::string& name, bool positive) {
  const std::vector<float> values = t.to_vector<float>();
  for (const float v : values) {
    if (!std::isfinite(v) || (positive && v <= 0))
      fail<WeightsError>("weights", "'{}' holds {}, expected {}", name, v,
                         positive ? "numbers above 0" : "finite numbers");
  }
  return values;
}

/// The batch norm that alone reads the result of node k; null if there is none.
const BatchNormStep* norm_behind(const Graph& graph, std::size_t k) {
  const auto value = static_cast<ValueId>(k + 1);
  const BatchNormStep* norm = nullptr;
  for (const GraphNode& node : graph.nodes) {
    if (std::find(node.inputs.begin(), node.inputs.end(), value) == node.inputs.end()) continue;
    const auto* step = std::get_if<BatchNormStep>(&node.step);
    if (norm != nullptr || step == nullptr || node.inputs[0] != value) return nullptr;
    norm = step;
  }
  return norm;
}

}  // namespace

ops::FiltersI8 filters_of(const ConvStep& conv) {
  return ops::filters_i8(conv.weight.copy_as(DType::kF32),
                         conv.bias.defined() ? conv.bias.copy_as(DType::kF32) : Tensor());
}

Int8Weights int8_weights(const Graph& graph) {
  Int8Weights weights;
  for (const GraphNode& node : inference_graph(graph).nodes) {
    LIMBECK_CHECK(!std::holds_alternative<BatchNormStep>(node.step) && !std::holds_alternative<LinearStep>(node.step),
                  kName, "{} has weights of its own, but only convolutions are held in 8 bits", node.name);
    const auto* conv = std::get_if<ConvStep>(&node.step);
    if (conv == nullptr) continue;
    LIMBECK_CHECK(weights.emplace(node.name, filters_of(*conv)).second, kName, "{} runs twice", node.name);
  }
  return weights;
}

StateDict to_state(const Int8Weights& weights) {
  StateDict state;
  for (const auto& [name, filters] : weights) {
    const Tensor bytes = Tensor::empty(filters.shape, DType::kU8);  // channels-last, as the values are
    std::transform(filters.values.begin(), filters.values.end(), bytes.data<std::uint8_t>(),
                   [](std::int8_t q) { return static_cast<std::uint8_t>(q + kZero); });
    state.emplace(name + ".weight", bytes);
    state.emplace(name + ".scale", tensor_of(filters.scale));
    state.emplace(name + ".bias", tensor_of(filters.bias));
  }
  return state;
}

Int8Weights from_state(const StateDict& state) {
  constexpr std::string_view kWeight = ".weight";
  Int8Weights weights;
  for (const auto& [full, tensor] : state) {
    if (!full.ends_with(kWeight)) continue;
    const std::string name = full.substr(0, full.size() - kWeight.size());
    const Tensor bytes = part_of(state, name, ".weight", DType::kU8, {}).dense();
    if (bytes.ndim() != 4 || bytes.numel() == 0)
      fail<WeightsError>("weights", "'{}' has shape {}, expected filters [O, I, KH, KW]", full, bytes.shape());
    ops::FiltersI8 filters{bytes.shape(), {}, {}, {}};
    const Shape count{bytes.size(0)};
    filters.scale = numbers_of(part_of(state, name, ".scale", DType::kF32, count), name + ".scale", true);
    filters.bias = numbers_of(part_of(state, name, ".bias", DType::kF32, count), name + ".bias", false);
    filters.values.resize(static_cast<std::size_t>(bytes.numel()));
    for (std::size_t i = 0; i < filters.values.size(); ++i) {
      const int byte = bytes.data<std::uint8_t>()[i];
      if (byte == 0) fail<WeightsError>("weights", "'{}' holds the byte 0, expected 1 to 255", full);
      filters.values[i] = static_cast<std::int8_t>(byte - kZero);
    }
    weights.emplace(name, std::move(filters));
  }
  if (state.size() != 3 * weights.size()) {
    for (const auto& [full, tensor] : state) {
      const std::size_t dot = std::min(full.rfind('.'), full.size());
      const std::string part = full.substr(dot);
      const bool known = part == kWeight || part == ".scale" || part == ".bias";
      if (!known || !weights.contains(full.substr(0, dot))) fail<WeightsError>("weights", "'{}' is unexpected", full);
    }
  }
  return weights;
}

void check_fit(const Graph& graph, const Int8Weights& weights) {
  std::size_t convolutions = 0;
  for (const GraphNode& node : graph.nodes) {
    const auto* conv = std::get_if<ConvStep>(&node.step);
    if (conv == nullptr) continue;
    ++convolutions;
    const auto found = weights.find(node.name);
    if (found == weights.end()) fail<WeightsError>("weights", "'{}.weight' is missing", node.name);
    if (found->second.shape != conv->weight.shape()) {
      fail<WeightsError>("weights", "'{}.weight' has shape {}, expected {}", node.name, found->second.shape,
                         conv->weight.shape());
    }
  }
  if (convolutions == weights.size()) return;
  for (const auto& [name, filters] : weights) {
    if (std::none_of(graph.nodes.begin(), graph.nodes.end(), [&](const GraphNode& n) { return n.name == name; }))
      fail<WeightsError>("weights", "'{}.weight' is unexpected", name);
  }
}

void restore(const Graph& graph, const Int8Weights& weights) {
  check_fit(graph, weights);
  const NoGradGuard off;
  for (std::size_t k = 0; k < graph.nodes.size(); ++k) {
    const auto* conv = std::get_if<ConvStep>(&graph.nodes[k].step);
    if (conv == nullptr) continue;
    const std::string& name = graph.nodes[k].name;
    const ops::FiltersI8& filters = weights.at(name);
    const Tensor floats = Tensor::empty(filters.shape);
    const std::size_t size = filters.values.size() / filters.scale.size();
    for (std::size_t i = 0; i < filters.values.size(); ++i)
      floats.data<float>()[i] = filters.scale[i / size] * static_cast<float>(filters.values[i]);
    conv->weight.copy_(floats);
    const Tensor bias = tensor_of(filters.bias);
    if (const BatchNormStep* norm = norm_behind(graph, k)) {
      norm->gamma.fill_(1);
      norm->beta.copy_(bias);
      norm->mean.fill_(0);
      norm->var.fill_(1 - norm->eps);
      if (conv->bias.defined()) conv->bias.fill_(0);
    } else if (conv->bias.defined()) {
      conv->bias.copy_(bias);
    } else if (std::any_of(filters.bias.begin(), filters.bias.end(), [](float b) { return b != 0; })) {
      fail<WeightsError>("weights", "'{}.bias' is not zero, but the convolution has none", name);
    }
  }
}

}  // namespace limbeck::nn
