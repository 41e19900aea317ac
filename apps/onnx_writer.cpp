// What this is: a graph as an ONNX file. Every step becomes one node or a few; what needs sizes gets them as constants where
//   they are fixed and computes them inside the file where they are not.
// Read next: onnx_program.cpp, which runs what this writes.
#include <onnx/checker.h>
#include <onnx/onnx_pb.h>

#include <cmath>
#include <optional>

#include "apps/onnx_builder.h"
#include "apps/onnx_file.h"
#include "core/file_io.h"

namespace limbeck::apps {
namespace {

constexpr const char* kWhere = "onnx";

/// Builds the file; one object per file.
class Writer : private OnnxBuilder {
 public:
  Writer(const nn::Graph& graph, const OnnxOptions& options) : source_(graph), options_(options) {
    shapes_ = nn::infer_shapes(graph, options.input);
    // Sizes at another input tell which sizes of the output move.
    Shape other = options.input;
    other[2] += 64;
    other[3] += 96;
    other_shapes_ = nn::infer_shapes(graph, other);
  }

  onnx::ModelProto build() {
    model_.set_ir_version(options_.opset >= 15 ? 8 : 7);
    model_.set_producer_name("limbeck");
    model_.set_producer_version(LIMBECK_VERSION);
    auto* opset = model_.add_opset_import();
    opset->set_domain("");
    opset->set_version(options_.opset);
    for (const auto& [key, value] : options_.metadata) {
      auto* entry = model_.add_metadata_props();
      entry->set_key(key);
      entry->set_value(value);
    }
    graph_ = model_.mutable_graph();
    graph_->set_name(options_.graph_name);
    name_values();
    describe(graph_->add_input(), values_[0], onnx::TensorProto::FLOAT, options_.input, true);
    prefix_ = values_[0];
    round_value(0);
    for (std::size_t k = 0; k < source_.nodes.size(); ++k) {
      node_ = &source_.nodes[k];
      value_ = k + 1;
      prefix_ = unique(node_->name.empty() ? fmt::format("node{}", k + 1) : node_->name);
      std::visit([&](const auto& step) { write(step); }, node_->step);
      round_value(value_);
    }
    const auto out = static_cast<std::size_t>(source_.output);
    const bool ids = out > 0 && std::holds_alternative<nn::ArgmaxStep>(source_.nodes[out - 1].step);
    describe(graph_->add_output(), values_[out], ids ? onnx::TensorProto::INT64 : onnx::TensorProto::FLOAT,
             shapes_[out], false);
    return std::move(model_);
  }

 private:
  void name_values() {
    values_.resize(source_.nodes.size() + 1);
    for (std::size_t v = 0; v < values_.size(); ++v) values_[v] = fmt::format("value{}", v);
    values_[0] = options_.input_name;
    const auto out = static_cast<std::size_t>(source_.output);
    if (out > 0 && std::holds_alternative<nn::ArgmaxStep>(source_.nodes[out - 1].step)) {
      values_[out] = "ids";
      values_[static_cast<std::size_t>(source_.nodes[out - 1].inputs[0])] = options_.output_name;
    } else {
      values_[out] = options_.output_name;
    }
  }

  void describe(onnx::ValueInfoProto* info, const std::string& name, onnx::TensorProto::DataType type,
                const Shape& shape, bool input) {
    info->set_name(name);
    auto* tensor = info->mutable_type()->mutable_tensor_type();
    tensor->set_elem_type(type);
    const Shape& other = input ? other_shapes_[0] : other_shapes_[static_cast<std::size_t>(source_.output)];
    for (std::size_t d = 0; d < shape.size(); ++d) {
      auto* dim = tensor->mutable_shape()->add_dim();
      const std::size_t from_end = shape.size() - d;
      const bool moves = !(shape[d] == other[d]);
      const bool like_input = shape[d] == options_.input[4 - std::min<std::size_t>(from_end, 2)] &&
                              other[d] == other_shapes_[0][4 - std::min<std::size_t>(from_end, 2)];
      if (d == 0 && options_.dynamic_batch) {
        dim->set_dim_param("batch");
      } else if (moves && options_.dynamic_size) {
        dim->set_dim_param(std::string(like_input ? "" : "out_") + (from_end == 2 ? "height" : "width"));
      } else {
        dim->set_dim_value(shape[d]);
      }
    }
  }

  [[nodiscard]] const std::string& in(std::size_t i) const {
    return values_[static_cast<std::size_t>(node_->inputs[i])];
  }
  [[nodiscard]] const std::string& out() const { return values_[value_]; }
  [[nodiscard]] const Shape& in_shape() const { return shapes_[static_cast<std::size_t>(node_->inputs[0])]; }
  /// True if height or width of the node's input is not known when the file is written.
  [[nodiscard]] bool size_unknown() const {
    return options_.dynamic_size && !(in_shape() == other_shapes_[static_cast<std::size_t>(node_->inputs[0])]);
  }

  void activate(ops::Activation act, const std::string& x, const std::string& y) {
    if (act == ops::Activation::kRelu6) {
      clip(x, 0, 6, y);
    } else {
      emit("Relu", {x}, y);
    }
  }
  void clip(const std::string& x, double low, double high, const std::string& y) {
    const std::string minimum = scalar("min", low);
    emit("Clip", {x, minimum, scalar("max", high)}, y);
  }
  /// Residual sum and activation behind `x`; the last of them writes the node's value.
  void finish(onnx::NodeProto& x, ops::Activation act) {
    const bool residual = node_->inputs.size() > 1;
    const bool active = act != ops::Activation::kNone;
    if (!residual && !active) {
      x.set_output(0, out());
      return;
    }
    std::string y = result(x);
    if (residual) y = result(emit("Add", {y, in(1)}, active ? std::string() : out()));
    if (active) activate(act, y, out());
  }

  // --- steps ----------------------------------------------------------------------------------------------------------

  /// Note [bytes in ONNX]
  ///   A value in 8 bits goes through QuantizeLinear and DequantizeLinear, and filters and bias come from integers through
  ///   DequantizeLinear. What lies between is in floats for a plain reader of the file; ONNX Runtime makes integer arithmetic of a
  ///   convolution between such nodes. It wants the bias as integers, too, that count s_x s_w[o]; where one is too large for that, it
  ///   stays in floats.
  void round_value(std::size_t v) {
    if (!options_.bytes || !options_.bytes->values[v]) return;
    values_[v] = rounded(values_[v], *options_.bytes->values[v]);
  }
  Names filters_in_bytes() {
    const ops::FiltersI8& f = options_.bytes->filters.at(node_->name);
    const Shape& shape = f.shape;  // [O, I, KH, KW]; the values are [O][KH][KW][I]
    std::vector<std::int8_t> values(f.values.size());
    const auto place = [](std::int64_t i) { return static_cast<std::size_t>(i); };
    const std::int64_t taps = shape[2] * shape[3];
    for (std::int64_t o = 0; o < shape[0]; ++o) {
      for (std::int64_t t = 0; t < taps; ++t) {
        for (std::int64_t i = 0; i < shape[1]; ++i)
          values[place((o * shape[1] + i) * taps + t)] = f.values[place((o * taps + t) * shape[1] + i)];
      }
    }
    const float s_x = options_.bytes->values[static_cast<std::size_t>(node_->inputs[0])]->scale;
    std::vector<std::int32_t> bias;
    std::vector<float> unit;
    bool fits = true;
    for (std::size_t o = 0; o < f.bias.size(); ++o) {
      unit.push_back(s_x * f.scale[o]);
      const double count = std::nearbyint(static_cast<double>(f.bias[o]) / static_cast<double>(unit[o]));
      fits = fits && std::abs(count) <= kMostBias;
      bias.push_back(fits ? static_cast<std::int32_t>(count) : 0);
    }
    const std::string weight = counted("weight", values, {shape[0], shape[1], shape[2], shape[3]}, f.scale);
    return {weight, fits ? counted("bias", bias, {shape[0]}, unit) : constant("bias", f.bias, {shape[0]})};
  }
  void write(const nn::ConvStep& s) {
    Names inputs{in(0)};
    if (options_.bytes) {
      for (const auto& name : filters_in_bytes()) inputs.push_back(name);
    } else {
      inputs.push_back(parameter("weight", s.weight));
      if (s.bias.defined()) inputs.push_back(parameter("bias", s.bias));
    }
    auto& node = emit("Conv", inputs);
    set(node, "kernel_shape", {s.weight.size(2), s.weight.size(3)});
    set(node, "strides", pair(s.options.stride));
    set(node, "pads", both_sides(s.options.padding));
    set(node, "dilations", pair(s.options.dilation));
    set(node, "group", s.options.groups);
    finish(node, s.act);
  }
  void write(const nn::BatchNormStep& s) {
    const std::vector<float> ones(static_cast<std::size_t>(s.mean.numel()), 1.0F), zeros(ones.size(), 0.0F);
    const std::string gamma =
        s.gamma.defined() ? parameter("weight", s.gamma) : constant("weight", ones, {s.mean.numel()});
    const std::string beta = s.beta.defined() ? parameter("bias", s.beta) : constant("bias", zeros, {s.mean.numel()});
    const std::string mean = parameter("running_mean", s.mean);
    auto& node = emit("BatchNormalization", {in(0), gamma, beta, mean, parameter("running_var", s.var)});
    set(node, "epsilon", s.eps);
    finish(node, s.act);
  }
  void write(const nn::LinearStep& s) {
    Names inputs{in(0), parameter("weight", s.weight)};
    if (s.bias.defined()) inputs.push_back(parameter("bias", s.bias));
    set(emit("Gemm", inputs, out()), "transB", std::int64_t{1});
  }
  void write(const nn::UnaryStep& s) {
    static const std::map<std::string, const char*> plain{{"relu", "Relu"}, {"sigmoid", "Sigmoid"}, {"tanh", "Tanh"},
                                                          {"exp", "Exp"},   {"log", "Log"},         {"sqrt", "Sqrt"},
                                                          {"abs", "Abs"},   {"neg", "Neg"}};
    if (const auto found = plain.find(s.op); found != plain.end()) {
      emit(found->second, {in(0)}, out());
    } else if (s.op == "relu6") {
      clip(in(0), 0, 6, out());
    } else if (s.op == "clamp") {
      clip(in(0), s.values[0], s.values[1], out());
    } else if (s.op == "leaky_relu") {
      set(emit("LeakyRelu", {in(0)}, out()), "alpha", s.values[0]);
    } else if (s.op == "add_scalar" || s.op == "mul_scalar") {
      emit(s.op == "add_scalar" ? "Add" : "Mul", {in(0), scalar("value", s.values[0])}, out());
    } else {
      fail(kWhere, "'{}' in {} has no ONNX operator here", s.op, node_->name);
    }
  }
  void write(const nn::BinaryStep& s) {
    static const std::map<std::string, const char*> types{{"add", "Add"}, {"sub", "Sub"},     {"mul", "Mul"},
                                                          {"div", "Div"}, {"maximum", "Max"}, {"minimum", "Min"}};
    emit(types.at(s.op), {in(0), in(1)}, out());
  }
  void write(const nn::ConcatStep& s) {
    Names inputs;
    for (std::size_t i = 0; i < node_->inputs.size(); ++i) inputs.push_back(in(i));
    set(emit("Concat", inputs, out()), "axis", s.dim);
  }
  void pool(const char* type, const ops::Pool2dOptions& o) {
    auto& node = emit(type, {in(0)}, out());
    const auto stride = [&](std::size_t d) { return o.stride[d] == 0 ? o.kernel[d] : o.stride[d]; };
    set(node, "kernel_shape", pair(o.kernel));
    set(node, "strides", {stride(0), stride(1)});
    set(node, "pads", both_sides(o.padding));
    set(node, "ceil_mode", static_cast<std::int64_t>(o.ceil_mode));
    if (std::string_view(type) == "AveragePool")
      set(node, "count_include_pad", static_cast<std::int64_t>(o.count_include_pad));
  }
  void write(const nn::MaxPoolStep& s) { pool("MaxPool", s.options); }
  void write(const nn::AvgPoolStep& s) { pool("AveragePool", s.options); }
  void write(const nn::PadStep& s) {
    const std::string pads = integers("pads", {0, 0, s.pad.top, s.pad.left, 0, 0, s.pad.bottom, s.pad.right});
    emit("Pad", {in(0), pads, scalar("value", s.value)}, out());
  }
  void write(const nn::FlattenStep&) { set(emit("Flatten", {in(0)}, out()), "axis", std::int64_t{1}); }
  void write(const nn::ScaleStep& s) {
    const auto values = [&](const char* name, const std::vector<double>& v) {
      return constant<float>(name, {v.begin(), v.end()}, {1, static_cast<std::int64_t>(v.size()), 1, 1});
    };
    std::string x = in(0);
    if (s.reverse) {
      std::vector<std::int64_t> order;
      for (std::size_t c = s.scale.size(); c-- > 0;) order.push_back(static_cast<std::int64_t>(c));
      auto& turned = emit("Gather", {x, integers("order", order)});
      set(turned, "axis", std::int64_t{1});
      x = result(turned);
    }
    const std::string scaled = result(emit("Mul", {x, values("scale", s.scale)}));
    emit("Add", {scaled, values("shift", s.shift)}, out());
  }
  void write(const nn::ArgmaxStep&) {
    auto& node = emit("ArgMax", {in(0)}, out());
    set(node, "axis", std::int64_t{1});
    set(node, "keepdims", std::int64_t{0});
  }

  void write(const nn::ResizeStep& s) {
    const std::string sizes = target_sizes(s.size);
    auto& node = emit("Resize", {in(0), "", "", sizes}, out());
    if (s.mode == nn::ResizeStep::Mode::kNearest) {
      set(node, "mode", "nearest");
      set(node, "coordinate_transformation_mode", "asymmetric");
      set(node, "nearest_mode", "floor");
    } else {
      set(node, "mode", "linear");
      set(node, "coordinate_transformation_mode",
          s.mode == nn::ResizeStep::Mode::kAlignCorners ? "align_corners" : "half_pixel");
    }
  }
  /// [N, C, OH, OW] as a constant, or put together from the shapes of other values.
  std::string target_sizes(const nn::SizeRule& rule) {
    const Shape& y = shapes_[value_];
    const bool follows = rule.like >= 0 && options_.dynamic_size;
    if (!options_.dynamic_batch && !follows) return integers("sizes", {y[0], y[1], y[2], y[3]});
    const auto part = [&](const std::string& value, std::int64_t begin, std::int64_t end) {
      const std::string shape = result(emit("Shape", {value}));
      const std::string first = integers("begin", {begin});
      return result(emit("Slice", {shape, first, integers("end", {end})}));
    };
    const std::string head = part(in(0), 0, 2);
    const std::string tail =
        follows ? part(values_[static_cast<std::size_t>(rule.like)], 2, 4) : integers("size", {y[2], y[3]});
    auto& node = emit("Concat", {head, tail});
    set(node, "axis", std::int64_t{0});
    return result(node);
  }

  /// Note [adaptive pooling]: ONNX has none. One bin is a global mean; bins of equal size are an ordinary pooling; otherwise the
  /// mean along an axis is a product with a matrix whose row i is 1/n over the n positions of bin i.
  void write(const nn::AdaptivePoolStep& s) {
    if (s.size == std::array<std::int64_t, 2>{1, 1}) {
      emit("GlobalAveragePool", {in(0)}, out());
      return;
    }
    const Shape& x = in_shape();
    if (!size_unknown() && x[2] % s.size[0] == 0 && x[3] % s.size[1] == 0) {
      auto& node = emit("AveragePool", {in(0)}, out());
      set(node, "kernel_shape", {x[2] / s.size[0], x[3] / s.size[1]});
      set(node, "strides", {x[2] / s.size[0], x[3] / s.size[1]});
      return;
    }
    const std::string columns = bins(3, s.size[1]);
    auto& turned = emit("Transpose", {columns});
    set(turned, "perm", {1, 0});
    const std::string wide = result(emit("MatMul", {in(0), result(turned)}));
    emit("MatMul", {bins(2, s.size[0]), wide}, out());
  }
  /// The matrix [bins, size of `axis`] of Note [adaptive pooling].
  std::string bins(std::size_t axis, std::int64_t count) {
    if (!size_unknown()) {
      const std::int64_t size = in_shape()[axis];
      std::vector<float> matrix(static_cast<std::size_t>(count * size), 0.0F);
      for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t begin = i * size / count, end = ((i + 1) * size + count - 1) / count;
        for (std::int64_t k = begin; k < end; ++k)
          matrix[static_cast<std::size_t>(i * size + k)] = 1.0F / static_cast<float>(end - begin);
      }
      return constant("bins", matrix, {count, size});
    }
    std::vector<std::int64_t> rows, next;
    for (std::int64_t i = 0; i < count; ++i) {
      rows.push_back(i);
      next.push_back(i + 1);
    }
    const std::string size =
        result(emit("Gather", {result(emit("Shape", {in(0)})), integer("axis", static_cast<std::int64_t>(axis))}));
    const std::string zero = integer("zero", 0);
    const std::string positions = result(emit("Range", {zero, size, integer("one", 1)}));
    const std::string total = integer("count", count);
    const std::string begin =
        result(emit("Div", {result(emit("Mul", {constant("row", rows, {count, 1}), size})), total}));
    const std::string past = result(emit("Mul", {constant("next", next, {count, 1}), size}));
    const std::string end = result(emit("Div", {result(emit("Add", {past, integer("round", count - 1)})), total}));
    const std::string from = result(emit("GreaterOrEqual", {positions, begin}));
    auto& inside = emit("Cast", {result(emit("And", {from, result(emit("Less", {positions, end}))}))});
    set(inside, "to", static_cast<std::int64_t>(onnx::TensorProto::FLOAT));
    const std::string mask = result(inside);
    return result(emit("Div", {mask, result(emit("ReduceSum", {mask, integers("columns", {1})}))}));
  }

  const nn::Graph& source_;
  const OnnxOptions& options_;
  std::vector<Shape> shapes_, other_shapes_;
  onnx::ModelProto model_;
  std::vector<std::string> values_;  // what readers of a value read
  // The node that is being written.
  const nn::GraphNode* node_ = nullptr;
  std::size_t value_ = 0;
};

}  // namespace

bool onnx_available() noexcept { return true; }

void write_onnx(const std::filesystem::path& path, const nn::Graph& graph, const OnnxOptions& options) {
  if (options.opset < kMinOpset || options.opset > kMaxOpset) {
    fail<ConfigError>(kWhere, "opset {}, expected {} to {}", options.opset, kMinOpset, kMaxOpset);
  }
  const onnx::ModelProto model = Writer(graph, options).build();
  try {
    onnx::checker::check_model(model);
  } catch (const std::exception& e) {
    fail(kWhere, "{}: the ONNX checker refuses the graph: {}", path.string(), e.what());
  }
  std::string bytes;
  if (!model.SerializeToString(&bytes))
    fail(kWhere, "{}: the network does not fit into one ONNX file (2 GiB)", path.string());
  write_file_atomic(path, bytes);
}

}  // namespace limbeck::apps
