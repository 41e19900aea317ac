// What this is: the operators of onnx_ops.h: those on maps by ops of limbeck, those on sizes by plain loops over int64.
#include "apps/onnx_ops.h"

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>

#include "ops/batch_norm.h"
#include "ops/concat.h"
#include "ops/conv2d.h"
#include "ops/copy.h"
#include "ops/elementwise.h"
#include "ops/interpolate.h"
#include "ops/matmul.h"
#include "ops/pad.h"
#include "ops/pool2d.h"
#include "ops/quantise.h"
#include "ops/reduce.h"
#include "ops/slice.h"

namespace limbeck::apps {
namespace {

using Inputs = std::vector<Tensor>;
using Integers = std::vector<std::int64_t>;

const Tensor& at(const Inputs& in, std::size_t i) {
  LIMBECK_CHECK(i < in.size() && in[i].defined(), "onnx", "input {} is missing", i);
  return in[i];
}
Tensor optional(const Inputs& in, std::size_t i) { return i < in.size() ? in[i] : Tensor(); }

Integers integers(const Tensor& t) {
  LIMBECK_CHECK(t.dtype() == DType::kI64, "onnx", "got {}, expected int64", t.describe());
  return t.to_vector<std::int64_t>();
}
std::int64_t integer(const Tensor& t) {
  const Integers v = integers(t);
  LIMBECK_CHECK(v.size() == 1, "onnx", "got {}, expected one number", t.describe());
  return v[0];
}
Tensor list(const Integers& values) { return Tensor::from(values, {static_cast<std::int64_t>(values.size())}); }
double number(const Tensor& t) {
  LIMBECK_CHECK(t.numel() == 1, "onnx", "got {}, expected one number", t.describe());
  return t.item();
}

std::array<std::int64_t, 2> two(const Integers& v) {
  LIMBECK_CHECK(v.size() == 2, "onnx", "got an attribute of {} numbers, expected 2", v.size());
  return {v[0], v[1]};
}
/// ONNX pads are {top, left, bottom, right}; ours are the same on both sides.
std::array<std::int64_t, 2> symmetric(const Integers& v) {
  LIMBECK_CHECK(v.size() == 4 && v[0] == v[2] && v[1] == v[3], "onnx", "the padding differs between the sides");
  return {v[0], v[1]};
}

// --- elementwise, for maps and for sizes ------------------------------------------------------------------------------

/// `f` on int64 tensors that broadcast.
Tensor on_integers(const Tensor& a, const Tensor& b, const std::function<std::int64_t(std::int64_t, std::int64_t)>& f) {
  const Shape shape = broadcast_shapes("onnx", a.shape(), b.shape());
  const Integers av = integers(a), bv = integers(b);
  Integers out(static_cast<std::size_t>(shape.numel()));
  const auto offset = [&](std::int64_t i, const Shape& own) {  // of element i of the result, in an operand
    std::int64_t result = 0, step = 1;
    for (std::size_t d = shape.size(); d-- > 0;) {
      const std::int64_t index = i % shape[d];
      i /= shape[d];
      const std::size_t missing = shape.size() - own.size();
      if (d < missing) continue;
      if (own[d - missing] != 1) result += index * step;
      step *= own[d - missing];
    }
    return static_cast<std::size_t>(result);
  };
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto k = static_cast<std::int64_t>(i);
    out[i] = f(av[offset(k, a.shape())], bv[offset(k, b.shape())]);
  }
  return Tensor::from(out, shape);
}

using OnMaps = Tensor (*)(const Tensor&, const Tensor&);

Tensor arithmetic(const Inputs& in, OnMaps on_maps, const std::function<std::int64_t(std::int64_t, std::int64_t)>& f) {
  if (at(in, 0).dtype() == DType::kI64) return on_integers(in[0], at(in, 1), f);
  return on_maps(in[0], at(in, 1));
}
std::int64_t quotient(std::int64_t a, std::int64_t b) {
  LIMBECK_CHECK(b != 0, "onnx", "division of a size by 0");
  return a / b;
}

// --- maps -------------------------------------------------------------------------------------------------------------

Tensor conv(const Inputs& in, const OnnxAttributes& a) {
  return ops::conv2d(at(in, 0), at(in, 1), optional(in, 2),
                     {.stride = two(a.integers("strides", {1, 1})),
                      .padding = symmetric(a.integers("pads", {0, 0, 0, 0})),
                      .dilation = two(a.integers("dilations", {1, 1})),
                      .groups = a.integer("group", 1)});
}

Tensor batch_norm(const Inputs& in, const OnnxAttributes& a) {
  return ops::batch_norm(at(in, 0), at(in, 1), at(in, 2), at(in, 3), at(in, 4), {.eps = a.number("epsilon", 1e-5)});
}

ops::Pool2dOptions pool_options(const OnnxAttributes& a) {
  return {.kernel = two(a.integers("kernel_shape", {})),
          .stride = two(a.integers("strides", {1, 1})),
          .padding = symmetric(a.integers("pads", {0, 0, 0, 0})),
          .ceil_mode = a.integer("ceil_mode", 0) != 0,
          .count_include_pad = a.integer("count_include_pad", 0) != 0};
}

Tensor resize(const Inputs& in, const OnnxAttributes& a) {
  const Tensor& x = at(in, 0);
  const Integers sizes = integers(at(in, 3));
  LIMBECK_CHECK(sizes.size() == 4 && x.ndim() == 4 && sizes[0] == x.size(0) && sizes[1] == x.size(1), "onnx",
                "resize of {} to {} sizes, expected the same batch and channels", x.shape(), sizes.size());
  const std::string mode = a.text("mode", "nearest"), where = a.text("coordinate_transformation_mode", "half_pixel");
  if (mode == "nearest" && where == "asymmetric" && a.text("nearest_mode", "round_prefer_floor") == "floor") {
    return ops::resize_nearest(x, {sizes[2], sizes[3]});
  }
  LIMBECK_CHECK(mode == "linear" && (where == "half_pixel" || where == "align_corners"), "onnx",
                "unknown resize mode {} {}", mode, where);
  return ops::resize_bilinear(x, {sizes[2], sizes[3]}, where == "align_corners");
}

Tensor pad(const Inputs& in, const OnnxAttributes&) {
  const Integers p = integers(at(in, 1));
  LIMBECK_CHECK(p.size() == 8 && p[0] == 0 && p[1] == 0 && p[4] == 0 && p[5] == 0, "onnx",
                "padding of batch or channels");
  return ops::pad2d(at(in, 0), {.left = p[3], .right = p[7], .top = p[2], .bottom = p[6]}, number(at(in, 2)));
}

Tensor gemm(const Inputs& in, const OnnxAttributes& a) {
  LIMBECK_CHECK(a.integer("transB", 0) == 1 && a.integer("transA", 0) == 0 && a.number("alpha", 1) == 1 &&
                    a.number("beta", 1) == 1,
                "onnx", "a Gemm other than x w^T + b");
  return ops::linear(at(in, 0), at(in, 1), optional(in, 2));
}

Tensor concat(const Inputs& in, const OnnxAttributes& a) {
  for (std::size_t i = 0; i < in.size(); ++i) static_cast<void>(at(in, i));
  return ops::concat(in, a.integer("axis", 0));
}

/// x [N, C, H, W] times m [W, K]
Tensor map_times_matrix(const Tensor& x, const Tensor& m) {
  const Tensor rows = ops::matmul(ops::reshape(x, {-1, x.size(3)}), m);
  return ops::reshape(rows, {x.size(0), x.size(1), x.size(2), m.size(1)}).dense();
}

/// A product of a map with a matrix on either side.
Tensor matmul(const Inputs& in, const OnnxAttributes&) {
  const Tensor& a = at(in, 0);
  const Tensor& b = at(in, 1);
  if (a.ndim() == 4 && b.ndim() == 2) return map_times_matrix(a, b);
  LIMBECK_CHECK(a.ndim() == 2 && b.ndim() == 4, "onnx", "product of {} and {}", a.shape(), b.shape());
  const Tensor turned = map_times_matrix(ops::permute(b, {0, 1, 3, 2}), ops::permute(a, {1, 0}).dense());
  return ops::permute(turned, {0, 1, 3, 2}).dense();
}

// --- sizes ------------------------------------------------------------------------------------------------------------

Tensor slice(const Inputs& in, const OnnxAttributes&) {
  const Integers all = integers(at(in, 0));
  const std::int64_t begin = integer(at(in, 1)), end = integer(at(in, 2));
  LIMBECK_CHECK(begin >= 0 && begin <= end && end <= static_cast<std::int64_t>(all.size()), "onnx",
                "slice {}:{} of {} numbers", begin, end, all.size());
  return list({all.begin() + begin, all.begin() + end});
}

/// One of several sizes, or the channels of a map in another order.
Tensor gather(const Inputs& in, const OnnxAttributes& a) {
  if (at(in, 0).dtype() == DType::kF32) {
    LIMBECK_CHECK(a.integer("axis", 0) == 1, "onnx", "a Gather that does not take channels");
    std::vector<Tensor> channels;
    for (const std::int64_t c : integers(at(in, 1))) channels.push_back(ops::slice(in[0], 1, c, c + 1));
    return ops::concat(channels, 1);
  }
  const Integers all = integers(at(in, 0));
  const std::int64_t index = integer(at(in, 1));
  LIMBECK_CHECK(index >= 0 && index < static_cast<std::int64_t>(all.size()), "onnx", "element {} of {}", index,
                all.size());
  return Tensor::from(Integers{all[static_cast<std::size_t>(index)]}, Shape{});
}

Tensor range(const Inputs& in, const OnnxAttributes&) {
  const std::int64_t end = integer(at(in, 1));
  LIMBECK_CHECK(integer(at(in, 0)) == 0 && integer(at(in, 2)) == 1 && end >= 0 && end < (1 << 24), "onnx",
                "range up to {}", end);
  Integers values(static_cast<std::size_t>(end));
  std::iota(values.begin(), values.end(), std::int64_t{0});
  return list(values);
}

/// Scale and zero point of a whole map.
ops::Quantisation quantisation(const Inputs& in) {
  const double zero = number(at(in, 2));
  LIMBECK_CHECK(at(in, 2).dtype() == DType::kU8, "onnx", "a zero point of {}, expected u8", at(in, 2).describe());
  const ops::Quantisation q{static_cast<float>(number(at(in, 1))), static_cast<std::int32_t>(zero)};
  ops::check_quantisation("onnx", q);
  return q;
}

/// Of a map of bytes; or of integers with a scale per row, around zero.
Tensor dequantise(const Inputs& in, const OnnxAttributes& a) {
  const Tensor& x = at(in, 0);
  if (x.dtype() == DType::kU8) return ops::dequantise(x, quantisation(in));
  const Tensor& scale = at(in, 1);
  LIMBECK_CHECK(
      x.dtype() == DType::kI32 && x.ndim() > 0 && scale.shape() == Shape{x.size(0)} && a.integer("axis", 1) == 0,
      "onnx", "integers {} with scales {}, expected one scale per row", x.describe(), scale.describe());
  for (const double zero : at(in, 2).to_vector<double>()) LIMBECK_CHECK(zero == 0, "onnx", "rows around {}", zero);
  std::vector<float> values = x.to_vector<float>();
  const std::vector<float> scales = scale.to_vector<float>();
  for (std::size_t i = 0; i < values.size(); ++i) values[i] *= scales[i / (values.size() / scales.size())];
  return Tensor::from(values, x.shape());
}

using Op = std::function<Tensor(const Inputs&, const OnnxAttributes&)>;

const std::map<std::string, Op>& table() {
  const auto unary = [](Tensor (*f)(const Tensor&)) {
    return [f](const Inputs& in, const OnnxAttributes&) { return f(at(in, 0)); };
  };
  const auto binary = [](OnMaps on_maps, std::int64_t (*f)(std::int64_t, std::int64_t)) {
    return [=](const Inputs& in, const OnnxAttributes&) { return arithmetic(in, on_maps, f); };
  };
  const auto compare = [](bool (*f)(std::int64_t, std::int64_t)) {
    return [f](const Inputs& in, const OnnxAttributes&) {
      return on_integers(at(in, 0), at(in, 1), [f](std::int64_t a, std::int64_t b) { return std::int64_t{f(a, b)}; });
    };
  };
  static const std::map<std::string, Op> ops{
      {"Conv", conv},
      {"BatchNormalization", batch_norm},
      {"Gemm", gemm},
      {"MatMul", matmul},
      {"Relu", unary(ops::relu)},
      {"Sigmoid", unary(ops::sigmoid)},
      {"Tanh", unary(ops::tanh)},
      {"Exp", unary(ops::exp)},
      {"Log", unary(ops::log)},
      {"Sqrt", unary(ops::sqrt)},
      {"Abs", unary(ops::abs)},
      {"Neg", unary(ops::neg)},
      {"LeakyRelu",
       [](const Inputs& in, const OnnxAttributes& a) { return ops::leaky_relu(at(in, 0), a.number("alpha", 0.01)); }},
      {"Clip", [](const Inputs& in,
                  const OnnxAttributes&) { return ops::clamp(at(in, 0), number(at(in, 1)), number(at(in, 2))); }},
      {"Add", binary(ops::add, [](std::int64_t a, std::int64_t b) { return a + b; })},
      {"Sub", binary(ops::sub, [](std::int64_t a, std::int64_t b) { return a - b; })},
      {"Mul", binary(ops::mul, [](std::int64_t a, std::int64_t b) { return a * b; })},
      {"Div", binary(ops::div, quotient)},
      {"Max", binary(ops::maximum, [](std::int64_t a, std::int64_t b) { return std::max(a, b); })},
      {"Min", binary(ops::minimum, [](std::int64_t a, std::int64_t b) { return std::min(a, b); })},
      {"GreaterOrEqual", compare([](std::int64_t a, std::int64_t b) { return a >= b; })},
      {"Less", compare([](std::int64_t a, std::int64_t b) { return a < b; })},
      {"And", compare([](std::int64_t a, std::int64_t b) { return a != 0 && b != 0; })},
      {"Concat", concat},
      {"MaxPool",
       [](const Inputs& in, const OnnxAttributes& a) { return ops::max_pool2d(at(in, 0), pool_options(a)); }},
      {"AveragePool",
       [](const Inputs& in, const OnnxAttributes& a) { return ops::avg_pool2d(at(in, 0), pool_options(a)); }},
      {"GlobalAveragePool", unary(ops::global_avg_pool2d)},
      {"Resize", resize},
      {"Pad", pad},
      {"Flatten",
       [](const Inputs& in, const OnnxAttributes& a) { return ops::flatten(at(in, 0), a.integer("axis", 1)); }},
      {"ArgMax",
       [](const Inputs& in, const OnnxAttributes& a) {
         LIMBECK_CHECK(a.integer("keepdims", 1) == 0, "onnx", "ArgMax that keeps the dimension");
         return ops::argmax(at(in, 0), a.integer("axis", 0));
       }},
      {"Shape",
       [](const Inputs& in, const OnnxAttributes&) {
         const auto sizes = at(in, 0).shape().span();
         return list({sizes.begin(), sizes.end()});
       }},
      {"Slice", slice},
      {"Gather", gather},
      {"Range", range},
      {"Cast",
       [](const Inputs& in, const OnnxAttributes& a) {
         LIMBECK_CHECK(a.integer("to", 0) == 1, "onnx", "a cast to another type than float");
         return at(in, 0).copy_as(DType::kF32);
       }},
      {"ReduceSum",
       [](const Inputs& in, const OnnxAttributes& a) {
         return ops::sum(at(in, 0), Shape(integers(at(in, 1))), a.integer("keepdims", 1) != 0);
       }},
      {"QuantizeLinear",
       [](const Inputs& in, const OnnxAttributes&) { return ops::quantise(at(in, 0), quantisation(in)); }},
      {"DequantizeLinear", dequantise},
      {"Transpose",
       [](const Inputs& in, const OnnxAttributes& a) {
         return ops::permute(at(in, 0), Shape(a.integers("perm", {}))).dense();
       }},
  };
  return ops;
}

}  // namespace

bool knows_onnx_op(const std::string& type) noexcept { return table().contains(type); }

Tensor run_onnx_op(const std::string& type, const std::vector<Tensor>& inputs, const OnnxAttributes& attributes) {
  const auto found = table().find(type);
  LIMBECK_CHECK(found != table().end(), "onnx", "unknown operator {}", type);
  return found->second(inputs, attributes);
}

}  // namespace limbeck::apps
