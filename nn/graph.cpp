// What this is: what a graph means: shapes, execution by ordinary ops, and its text.
#include "nn/graph.h"

#include <map>

#include "core/autograd.h"
#include "ops/batch_norm.h"
#include "ops/concat.h"
#include "ops/copy.h"
#include "ops/elementwise.h"
#include "ops/interpolate.h"
#include "ops/matmul.h"
#include "ops/reduce.h"
#include "ops/slice.h"

namespace limbeck::nn {
namespace {

constexpr const char* kWhere = "graph";

using Unary = Tensor (*)(const Tensor&, const std::array<double, 2>&);
using Binary = Tensor (*)(const Tensor&, const Tensor&);
using Values = std::array<double, 2>;

const std::map<std::string, Unary, std::less<>>& unary_ops() {
  static const std::map<std::string, Unary, std::less<>> table{
      {"relu", [](const Tensor& x, const Values&) { return ops::relu(x); }},
      {"relu6", [](const Tensor& x, const Values&) { return ops::relu6(x); }},
      {"leaky_relu", [](const Tensor& x, const Values& v) { return ops::leaky_relu(x, v[0]); }},
      {"sigmoid", [](const Tensor& x, const Values&) { return ops::sigmoid(x); }},
      {"tanh", [](const Tensor& x, const Values&) { return ops::tanh(x); }},
      {"exp", [](const Tensor& x, const Values&) { return ops::exp(x); }},
      {"log", [](const Tensor& x, const Values&) { return ops::log(x); }},
      {"sqrt", [](const Tensor& x, const Values&) { return ops::sqrt(x); }},
      {"abs", [](const Tensor& x, const Values&) { return ops::abs(x); }},
      {"neg", [](const Tensor& x, const Values&) { return ops::neg(x); }},
      {"add_scalar", [](const Tensor& x, const Values& v) { return ops::add_scalar(x, v[0]); }},
      {"mul_scalar", [](const Tensor& x, const Values& v) { return ops::mul_scalar(x, v[0]); }},
      {"clamp", [](const Tensor& x, const Values& v) { return ops::clamp(x, v[0], v[1]); }}};
  return table;
}

const std::map<std::string, Binary, std::less<>>& binary_ops() {
  static const std::map<std::string, Binary, std::less<>> table{{"add", ops::add},         {"sub", ops::sub},
                                                                {"mul", ops::mul},         {"div", ops::div},
                                                                {"maximum", ops::maximum}, {"minimum", ops::minimum}};
  return table;
}

template <class Table>
auto look_up(const Table& table, const std::string& op) {
  const auto found = table.find(op);
  LIMBECK_CHECK(found != table.end(), kWhere, "no node for the op '{}'", op);
  return found->second;
}

Tensor per_channel(const std::vector<double>& values, Device device) {
  const std::vector<float> v(values.begin(), values.end());
  const Shape shape{1, static_cast<std::int64_t>(v.size()), 1, 1};
  return device.is_meta() ? Tensor::empty(shape, DType::kF32, device) : Tensor::from(v, shape);
}

/// What each step computes; `in` are its inputs.
struct Runner {
  std::span<const Tensor> in;
  const Shape& like;

  [[nodiscard]] Tensor residual() const { return in.size() > 1 ? in[1] : Tensor(); }

  Tensor operator()(const ConvStep& s) const {
    Tensor y = ops::conv2d(in[0], s.weight, s.bias, s.options);
    if (in.size() > 1) y = ops::add(y, in[1]);
    if (s.act == ops::Activation::kRelu) return ops::relu(y);
    return s.act == ops::Activation::kRelu6 ? ops::relu6(y) : y;
  }
  Tensor operator()(const BatchNormStep& s) const {
    return ops::batch_norm(in[0], s.gamma, s.beta, s.mean, s.var, {.eps = s.eps, .act = s.act}, residual());
  }
  Tensor operator()(const LinearStep& s) const { return ops::linear(in[0], s.weight, s.bias); }
  Tensor operator()(const UnaryStep& s) const { return look_up(unary_ops(), s.op)(in[0], s.values); }
  Tensor operator()(const BinaryStep& s) const { return look_up(binary_ops(), s.op)(in[0], in[1]); }
  Tensor operator()(const ConcatStep& s) const { return ops::concat(in, s.dim); }
  Tensor operator()(const MaxPoolStep& s) const { return ops::max_pool2d(in[0], s.options); }
  Tensor operator()(const AvgPoolStep& s) const { return ops::avg_pool2d(in[0], s.options); }
  Tensor operator()(const AdaptivePoolStep& s) const { return ops::adaptive_avg_pool2d(in[0], s.size); }
  Tensor operator()(const ResizeStep& s) const {
    const auto size = s.size.like < 0 ? s.size.fixed : std::array{like[2], like[3]};
    if (s.mode == ResizeStep::Mode::kNearest) return ops::resize_nearest(in[0], size);
    return ops::resize_bilinear(in[0], size, s.mode == ResizeStep::Mode::kAlignCorners);
  }
  Tensor operator()(const PadStep& s) const { return ops::pad2d(in[0], s.pad, s.value); }
  Tensor operator()(const FlattenStep&) const { return ops::flatten(in[0]); }
  Tensor operator()(const ScaleStep& s) const {
    const Device device = in[0].device();
    Tensor x = in[0];
    if (s.reverse) {
      std::vector<Tensor> channels;
      for (std::int64_t c = x.size(1); c-- > 0;) channels.push_back(ops::slice(x, 1, c, c + 1));
      x = ops::concat(channels, 1);
    }
    return ops::add(ops::mul(x, per_channel(s.scale, device)), per_channel(s.shift, device));
  }
  Tensor operator()(const ArgmaxStep&) const {
    if (in[0].device().is_meta()) {
      Shape shape = in[0].shape();
      Shape without{shape[0]};
      for (std::size_t d = 2; d < shape.size(); ++d) without.push_back(shape[d]);
      return Tensor::empty(without, DType::kI64, in[0].device());
    }
    return ops::argmax(in[0], 1);
  }
};

/// Runs all nodes and hands every value to `keep`.
template <class Keep>
Tensor run_all(const Graph& graph, const Tensor& x, const Keep& keep) {
  LIMBECK_CHECK(x.defined() && x.ndim() == 4 && x.size(1) == graph.channels, kWhere, "got {}, expected [N, {}, H, W]",
                x.describe(), graph.channels);
  const NoGradGuard off;
  std::vector<Tensor> values{x};
  std::vector<Shape> shapes{x.shape()};
  std::vector<int> left = graph.use_counts();
  keep(0, x);
  for (const GraphNode& node : graph.nodes) {
    const ScopeName scope(node.name);
    std::vector<Tensor> inputs;
    for (const ValueId v : node.inputs) inputs.push_back(values[static_cast<std::size_t>(v)]);
    Shape like;
    if (const auto* resize = std::get_if<ResizeStep>(&node.step); resize != nullptr && resize->size.like >= 0) {
      like = shapes[static_cast<std::size_t>(resize->size.like)];
    }
    values.push_back(run_step(node.step, inputs, like));
    shapes.push_back(values.back().shape());
    keep(values.size() - 1, values.back());
    for (const ValueId v : node.inputs) {
      if (--left[static_cast<std::size_t>(v)] == 0) values[static_cast<std::size_t>(v)] = Tensor();
    }
  }
  return values[static_cast<std::size_t>(graph.output)];
}

}  // namespace

ValueId Graph::add(Step step, std::vector<ValueId> inputs, std::string name) {
  nodes.push_back({std::move(step), std::move(inputs), std::move(name)});
  return static_cast<ValueId>(nodes.size());
}

std::vector<int> Graph::use_counts() const {
  std::vector<int> counts(nodes.size() + 1, 0);
  for (const GraphNode& node : nodes) {
    for (const ValueId v : node.inputs) ++counts[static_cast<std::size_t>(v)];
  }
  ++counts[static_cast<std::size_t>(output)];
  for (const ValueId v : taps) ++counts[static_cast<std::size_t>(v)];
  return counts;
}

Tensor run_step(const Step& step, std::span<const Tensor> inputs, const Shape& like) {
  return std::visit(Runner{inputs, like}, step);
}

Tensor run(const Graph& graph, const Tensor& x) {
  return run_all(graph, x, [](std::size_t, const Tensor&) {});
}

Tensor run(const Graph& graph, const Tensor& x, const std::function<void(std::size_t, const Tensor&)>& each) {
  return run_all(graph, x, each);
}

std::vector<Shape> infer_shapes(const Graph& graph, const Shape& input) {
  std::vector<Shape> shapes(graph.nodes.size() + 1);
  static_cast<void>(run_all(graph, Tensor::empty(input, DType::kF32, kMeta),
                            [&](std::size_t v, const Tensor& t) { shapes[v] = t.shape(); }));
  return shapes;
}

namespace {

std::string act_text(ops::Activation act) {
  return act == ops::Activation::kNone ? std::string() : " " + std::string(ops::name_of(act));
}

struct Describer {
  std::string operator()(const ConvStep& s) const {
    return fmt::format("conv2d {}x{} {}->{} ({}){}", s.weight.size(2), s.weight.size(3),
                       s.weight.size(1) * s.options.groups, s.weight.size(0), s.options.to_string(), act_text(s.act));
  }
  std::string operator()(const BatchNormStep& s) const { return "batch_norm" + act_text(s.act); }
  std::string operator()(const LinearStep& s) const {
    return fmt::format("linear {}->{}", s.weight.size(1), s.weight.size(0));
  }
  std::string operator()(const UnaryStep& s) const { return s.op; }
  std::string operator()(const BinaryStep& s) const { return s.op; }
  std::string operator()(const ConcatStep&) const { return "concat"; }
  std::string operator()(const MaxPoolStep& s) const { return fmt::format("max_pool2d {}", s.options.kernel[0]); }
  std::string operator()(const AvgPoolStep& s) const { return fmt::format("avg_pool2d {}", s.options.kernel[0]); }
  std::string operator()(const AdaptivePoolStep& s) const {
    return fmt::format("adaptive_avg_pool2d {}x{}", s.size[0], s.size[1]);
  }
  std::string operator()(const ResizeStep& s) const {
    return s.size.like < 0 ? fmt::format("resize to {}x{}", s.size.fixed[0], s.size.fixed[1])
                           : fmt::format("resize to the size of {}", s.size.like);
  }
  std::string operator()(const PadStep&) const { return "pad2d"; }
  std::string operator()(const FlattenStep&) const { return "flatten"; }
  std::string operator()(const ScaleStep&) const { return "scale"; }
  std::string operator()(const ArgmaxStep&) const { return "argmax"; }
};

}  // namespace

std::string to_string(const Graph& graph) {
  std::string out;
  for (std::size_t k = 0; k < graph.nodes.size(); ++k) {
    const GraphNode& node = graph.nodes[k];
    out += fmt::format("{} {} ({}) {}\n", k + 1, std::visit(Describer{}, node.step), fmt::join(node.inputs, ", "),
                       node.name);
  }
  return out;
}

}  // namespace limbeck::nn
