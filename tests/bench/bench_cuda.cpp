// What this is: the kernels of the GPU against what the card can do: those bound by memory against its copy bandwidth, those bound by
//   arithmetic in TFLOP/s.
//
//   bench_cuda [--small] [FAMILY...]    one line of JSON per kernel; all families without a name. --small: sizes for a rehearsal
//                                       without a card, whose numbers mean nothing
//
// Note [bytes]
//   A row counts the bytes that its work must move however it is written: every input read once, every output written once. A map counts
//   once more where a sum over all of it (or over all of a channel) must be known before the next pass can begin, since maps here are far
//   larger than the cache: statistics of batch norm, softmax over positions, norms. What is per channel counts as nothing.
// Note [copy]
//   The bandwidth of a copy counts bytes read plus written. Each call measures it anew, by CUDA's own function and by limbeck's kernel;
//   the better one is what rows are compared with.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/autograd.h"
#include "core/cuda.h"
#include "core/json.h"
#include "core/rng.h"
#include "core/rounded_copy.h"
#include "datasets/normalise.h"
#include "distill/attention_kd.h"
#include "distill/batch_similarity_kd.h"
#include "distill/channel_kd.h"
#include "distill/feature_mse.h"
#include "distill/inter_channel_kd.h"
#include "distill/inter_class_kd.h"
#include "distill/ka_adapt.h"
#include "distill/ka_affinity.h"
#include "distill/local_kd.h"
#include "distill/pixel_kd.h"
#include "nn/adamw.h"
#include "nn/sgd.h"
#include "ops/batch_norm.h"
#include "ops/batch_norm_kernels.h"
#include "ops/conv2d.h"
#include "ops/conv2d_kernels.h"
#include "ops/copy.h"
#include "ops/cross_entropy.h"
#include "ops/depthwise_kernels.h"
#include "ops/dropout.h"
#include "ops/elementwise.h"
#include "ops/elementwise_kernels.h"
#include "ops/interpolate.h"
#include "ops/interpolate_kernels.h"
#include "ops/matmul.h"
#include "ops/pool2d.h"
#include "ops/softmax.h"
#include "ops/softmax_kernels.h"
#include "tests/bench/device_timer.h"

using namespace limbeck;

namespace {

constexpr Device kGpu{DeviceType::kCuda, 0};
constexpr DType kLow = DType::kBF16;
constexpr DType kWide = DType::kF32;

/// Sizes well past the cache (50 to 60 MB on Hopper), or as small as the kernels' vectors allow.
struct Sizes {
  Shape maps{16, 64, 256, 256};       ///< 134 MB in bf16
  Shape logits{16, 19, 512, 512};     ///< 159 MB in bf16
  Shape features{16, 256, 128, 128};  ///< 134 MB in bf16
  Shape affinity{16, 256, 64, 64};    ///< bound by arithmetic, so their size does not matter
  Shape pictures{64, 3, 1024, 1024};  ///< 201 MB of bytes
  std::int64_t coarse = 16;           ///< how much smaller logits are before they are resized
  std::int64_t parameters = 48;       ///< tensors of an optimizer
  std::int64_t parameter = 1 << 20;   ///< elements of each
  std::int64_t product = 8192;
  Shape products{16, 256, 64, 64};
};

Sizes sizes;

void make_small() {
  sizes = {.maps = {2, 16, 16, 16},
           .logits = {2, 19, 32, 32},
           .features = {2, 16, 16, 16},
           .affinity = {2, 16, 8, 8},
           .pictures = {2, 3, 16, 16},
           .coarse = 16,
           .parameters = 4,
           .parameter = 256,
           .product = 32,
           .products = {2, 16, 8, 8}};
}

Generator generator(1);

Tensor random(const Shape& shape, DType dtype, double low = -2.0, double high = 2.0) {
  Tensor t = Tensor::empty(shape, dtype, kGpu);
  fill_uniform_(t, generator, low, high);
  return t;
}

Tensor blank(const Shape& shape, DType dtype) { return Tensor::empty(shape, dtype, kGpu); }

double bytes_of(const Tensor& t) { return static_cast<double>(t.numel()) * static_cast<double>(size_of(t.dtype())); }

std::string type_name(DType dtype) { return std::string(name_of(dtype)); }

/// Prints rows. A row that fails is one too, and the others are still measured.
class Report {
 public:
  explicit Report(std::string family) : family_(std::move(family)) {}

  void row(const std::string& name, double bytes, const std::function<void()>& work) {
    print(name, [&](JsonObject& line) {
      const double ms = bench::median_device_ms(work);
      const double rate = bytes / ms / 1e6;
      line.add("ms", ms).add("bytes", bytes).add("gb_per_s", rate).add("share_of_copy", rate / copy);
    });
  }
  void product(const std::string& name, double flops, const std::function<void()>& work) {
    print(name, [&](JsonObject& line) {
      const double ms = bench::median_device_ms(work);
      line.add("ms", ms).add("flop", flops).add("tflop_per_s", flops / ms / 1e9);
    });
  }

  static inline double copy = 0;  ///< GB/s
  static inline int failed = 0;

 private:
  void print(const std::string& name, const std::function<void(JsonObject&)>& measure) {
    JsonObject line;
    line.add("family", family_).add("name", name);
    try {
      measure(line);
    } catch (const Error& e) {
      line.add("error", e.what());
      ++failed;
    }
    std::printf("%s\n", line.str().c_str());
  }

  std::string family_;
};

void measure_copy() {
  const Tensor from = random(sizes.maps, kWide);
  const Tensor to = blank(sizes.maps, kWide);
  const double bytes = 2 * bytes_of(from);
  const double theirs =
      bench::median_copy_ms(to.data<float>(), from.data<float>(), static_cast<std::size_t>(bytes / 2));
  const double ours = bench::median_device_ms([&] { to.copy_(from); });
  Report::copy = bytes / std::min(theirs, ours) / 1e6;
  std::printf("%s\n", JsonObject()
                          .add("copy_gb_per_s", Report::copy)
                          .add("cudamemcpy_gb_per_s", bytes / theirs / 1e6)
                          .add("own_copy_gb_per_s", bytes / ours / 1e6)
                          .str()
                          .c_str());
}

void elementwise() {
  Report report("elementwise");
  const Tensor x = random(sizes.maps, kLow);
  const Tensor other = random(sizes.maps, kLow);
  const Tensor wide = random(sizes.maps, kWide);
  const double map = bytes_of(x);
  report.row("relu bf16", 2 * map, [&] { static_cast<void>(ops::relu(x)); });
  report.row("add bf16", 3 * map, [&] { static_cast<void>(ops::add(x, other)); });
  report.row("cast f32 to bf16", 3 * map, [&] { static_cast<void>(ops::cast(wide, kLow)); });
  Generator g(2);
  report.row("dropout bf16", 2 * map, [&] { static_cast<void>(ops::dropout(x, 0.5, true, g)); });
}

void batch_norm() {
  Report report("batch_norm");
  const Tensor x = random(sizes.maps, kLow);
  const Tensor residual = random(sizes.maps, kLow);
  const Tensor y = random(sizes.maps, kLow, 0.0, 7.0);
  const Tensor out = blank(sizes.maps, kLow);
  const Tensor masked = blank(sizes.maps, kLow);
  const std::int64_t channels = sizes.maps[1];
  const Tensor gamma = random({channels}, kWide, 0.5, 1.5);
  const Tensor beta = random({channels}, kWide);
  const Tensor mean = Tensor::zeros({channels}, kWide, kGpu);
  const Tensor var = Tensor::full({channels}, 1.0, kWide, kGpu);
  const double map = bytes_of(x);

  // Forward: the moments need all of x before the first output is known, so x is read twice.
  const auto forward = [&](ops::Activation act, const Tensor& add) {
    static_cast<void>(ops::batch_norm(x, gamma, beta, mean, var, {.training = true, .momentum = 0.0, .act = act}, add));
  };
  report.row("forward bf16", 3 * map, [&] { forward(ops::Activation::kNone, {}); });
  report.row("forward + relu6 bf16", 3 * map, [&] { forward(ops::Activation::kRelu6, {}); });
  report.row("forward + residual + relu bf16", 4 * map, [&] { forward(ops::Activation::kRelu, residual); });
  report.row("frozen forward + relu bf16", 2 * map,
             [&] { static_cast<void>(ops::batch_norm(x, gamma, beta, mean, var, {.act = ops::Activation::kRelu})); });

  // Backward: two sums over the gradient and x before the gradient of x. The slope of the activation comes from x.
  const Tensor k = random({ops::kBatchNormRows, channels}, kWide, 0.5, 1.5);
  const Tensor sums = Tensor::zeros({2, channels}, DType::kF64, kGpu);
  const Tensor gbeta = blank({channels}, kWide);
  const Tensor ggamma = blank({channels}, kWide);
  const Tensor& gy = residual;
  const auto count = static_cast<double>(x.numel() / channels);
  const auto backward = [&](ops::Activation act) {
    ops::kBatchNormSums(kGpu, kLow, gy.view(), x.view(), {}, k.view(), act, {}, sums.view(), gbeta.view(),
                        ggamma.view());
    ops::kBatchNormGradient(kGpu, kLow, gy.view(), x.view(), {}, k.view(), act, sums.view(), count, out.view());
  };
  report.row("backward bf16", 5 * map, [&] { backward(ops::Activation::kNone); });
  report.row("backward + relu6 bf16", 5 * map, [&] { backward(ops::Activation::kRelu6); });
  // With a residual the slope comes from y, and the masked gradient is an output: 4 maps in the first pass, 3 in the second.
  report.row("backward + residual + relu bf16", 7 * map, [&] {
    ops::kBatchNormSums(kGpu, kLow, gy.view(), x.view(), y.view(), k.view(), ops::Activation::kRelu, masked.view(),
                        sums.view(), gbeta.view(), ggamma.view());
    ops::kBatchNormGradient(kGpu, kLow, masked.view(), x.view(), {}, k.view(), ops::Activation::kNone, sums.view(),
                            count, out.view());
  });
}

void depthwise() {
  Report report("depthwise");
  struct Filter {
    const char* name;
    std::int64_t side, stride, dilation;
  };
  // Every direction reads one or two maps and writes the third; weights are nothing beside them.
  for (const Filter& f : {Filter{"3x3", 3, 1, 1}, Filter{"3x3 stride 2", 3, 2, 1}, Filter{"3x3 dilation 2", 3, 1, 2},
                          Filter{"5x5", 5, 1, 1}, Filter{"5x5 stride 2", 5, 2, 1}}) {
    const std::int64_t channels = sizes.maps[1];
    const std::int64_t padding = f.dilation * (f.side - 1) / 2;
    const ops::Conv2dOptions options{.stride = {f.stride, f.stride},
                                     .padding = {padding, padding},
                                     .dilation = {f.dilation, f.dilation},
                                     .groups = channels};
    const Tensor x = random(sizes.maps, kLow);
    const Tensor w = random({channels, 1, f.side, f.side}, kWide);
    const Tensor gy = random(ops::conv2d_output_shape("bench", x.shape(), w.shape(), options), kLow);
    const Tensor gx = blank(sizes.maps, kLow);
    const Tensor gw = blank(w.shape(), kWide);
    const double moved = bytes_of(x) + bytes_of(gy);
    const std::string name = f.name;
    report.row(name + " forward bf16", moved, [&] { static_cast<void>(ops::conv2d(x, w, {}, options)); });
    report.row(name + " gradient of the input bf16", moved,
               [&] { ops::kDepthwiseBackwardData(kGpu, kLow, gy.view(), w.view(), {}, options, gx.view()); });
    report.row(name + " gradient of the weights bf16", moved,
               [&] { ops::kDepthwiseBackwardWeights(kGpu, kLow, x.view(), gy.view(), options, gw.view()); });
  }
}

void interpolate() {
  Report report("interpolate");
  const auto rows = [&](const std::string& name, const Shape& small_shape, const Shape& large_shape, DType dtype) {
    const Tensor small = random(small_shape, dtype);
    const Tensor large = random(large_shape, dtype);
    const Tensor gradient = blank(small_shape, dtype);
    const double moved = bytes_of(small) + bytes_of(large);
    for (const bool corners : {false, true}) {
      const std::string which = name + (corners ? ", align_corners " : " ") + type_name(dtype);
      report.row(which + " forward", moved, [&] {
        static_cast<void>(ops::resize_bilinear(small, {large_shape[2], large_shape[3]}, corners));
      });
      report.row(which + " backward", moved,
                 [&] { ops::kResizeBilinearBackward(kGpu, dtype, large.view(), corners, gradient.view()); });
    }
  };
  const auto smaller = [](Shape shape, std::int64_t factor) {
    shape[2] /= factor;
    shape[3] /= factor;
    return shape;
  };
  rows("maps x2", smaller(sizes.maps, 2), sizes.maps, kLow);
  rows("logits x16", smaller(sizes.logits, sizes.coarse), sizes.logits, kLow);
  rows("logits x16", smaller(sizes.logits, sizes.coarse), sizes.logits, kWide);
}

void pool_softmax() {
  Report report("pool_softmax");
  const Tensor x = random(sizes.maps, kLow);
  report.row("max_pool 3x3 stride 2 bf16", 1.25 * bytes_of(x), [&] {
    static_cast<void>(ops::max_pool2d(x, {.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}}));
  });
  report.row("global_avg_pool bf16", bytes_of(x), [&] { static_cast<void>(ops::global_avg_pool2d(x)); });
  for (const DType dtype : {kLow, kWide}) {
    const Tensor logits = random(sizes.logits, dtype);
    const Tensor gy = random(sizes.logits, dtype);
    const Tensor gx = blank(sizes.logits, dtype);
    const double map = bytes_of(logits);
    const std::string type = " " + type_name(dtype);
    report.row("softmax over classes" + type, 2 * map, [&] { static_cast<void>(ops::softmax(logits)); });
    report.row("log_softmax over classes" + type, 2 * map, [&] { static_cast<void>(ops::log_softmax(logits)); });
    report.row("softmax over classes, backward" + type, 3 * map, [&] {
      ops::kSoftmaxBackward(kGpu, dtype, logits.view(), gy.view(), gx.view(), {ops::SoftmaxAxis::kChannel, false});
    });
    // All positions of a channel before the first probability.
    report.row("softmax over positions" + type, 3 * map,
               [&] { static_cast<void>(ops::softmax(logits, ops::SoftmaxAxis::kSpatial)); });
  }
}

/// Value and gradient, as a training step asks for them. tests/bench/bench_losses.cpp times the backward call too.
void losses() {
  Report report("losses");
  const Shape& shape = sizes.logits;
  std::vector<std::uint8_t> ids(static_cast<std::size_t>(shape[0] * shape[2] * shape[3]));
  for (auto& id : ids) id = static_cast<std::uint8_t>(generator.below(static_cast<std::uint64_t>(shape[1])));
  const Tensor labels = Tensor::from(ids, {shape[0], shape[2], shape[3]}).to(kGpu);
  const NoGradGuard on(true);
  for (const DType dtype : {kLow, kWide}) {
    const Tensor s = random(shape, dtype);
    const Tensor t = random(shape, dtype);
    s.set_requires_grad(true);
    const double map = bytes_of(s);
    const std::string type = " " + type_name(dtype);
    report.row("cross_entropy" + type, 2 * map + bytes_of(labels),
               [&] { static_cast<void>(ops::cross_entropy(s, labels)); });
    // What backward() adds to any loss with a kept gradient: the factor of its term.
    const Tensor factor = Tensor::full(Shape{}, 3.0, kWide, kGpu);
    const Tensor scaled = blank(shape, dtype);
    report.row("gradient times the term's weight" + type, 2 * map,
               [&] { ops::kScaleBy(kGpu, dtype, t.view(), factor.view(), scaled.view()); });
    report.row("pixel_kd" + type, 3 * map, [&] { static_cast<void>(distill::pixel_kd(s, t)); });
    // Softmax over positions: both maps twice.
    report.row("channel_kd" + type, 5 * map, [&] { static_cast<void>(distill::channel_kd(s, t)); });
    // Both maps for a matrix per image, then the student's once more for its gradient.
    report.row("icsd" + type, 4 * map, [&] { static_cast<void>(distill::icsd(s, t)); });
    report.row("inter_channel_kd" + type, 4 * map, [&] { static_cast<void>(distill::inter_channel_kd(s, t)); });
    report.row("local_kd" + type, 3 * map, [&] { static_cast<void>(distill::local_kd(s, t)); });
  }
  const Tensor s = random(sizes.features, kLow);
  const Tensor t = random(sizes.features, kLow);
  s.set_requires_grad(true);
  const double map = bytes_of(s);
  report.row("feature_mse bf16", 3 * map, [&] { static_cast<void>(distill::feature_mse(s, t)); });
  // A norm of the attention per image, then the student's map once more.
  report.row("attention_kd bf16", 4 * map, [&] { static_cast<void>(distill::attention_kd(s, t)); });
  // Norms; the sum that the gradient of a normalised map needs; the gradient.
  report.row("ka_adapt bf16", 7 * map, [&] { static_cast<void>(distill::ka_adapt(s, t)); });
  // Products of all pairs of images, then the student's map once more.
  report.row("batch_similarity_kd bf16", 4 * map, [&] { static_cast<void>(distill::batch_similarity_kd(s, t)); });
}

/// f32 weights, as training keeps them. `moved`: bytes per weight; `rounded`: their bf16 values are written too.
template <class Optimizer, class Options>
void time_optimizer(Report& report, const char* name, double moved, bool rounded, const Options& options) {
  std::vector<nn::ParameterGroup> groups(1);
  groups[0].weight_decay = 5e-4;
  for (std::int64_t i = 0; i < sizes.parameters; ++i) {
    const Tensor p = random({sizes.parameter}, kWide);
    p.set_requires_grad(true);
    p.set_grad(random({sizes.parameter}, kWide));
    if (rounded) static_cast<void>(rounded_copy(p));  // as convolutions do
    groups[0].params.push_back({"p" + std::to_string(i), p});
  }
  Optimizer optimizer(std::move(groups), options);
  report.row(name, moved * static_cast<double>(sizes.parameters * sizes.parameter), [&] { optimizer.step(1e-6); });
}

void optimizer() {
  Report report("optimizer");
  // SGD reads weight, gradient and momentum and writes weight and momentum; AdamW has one average more to read and to write.
  time_optimizer<nn::Sgd>(report, "SGD with momentum", 20, false, nn::SgdOptions{.momentum = 0.9});
  time_optimizer<nn::Sgd>(report, "SGD with momentum, bf16 copy", 22, true, nn::SgdOptions{.momentum = 0.9});
  time_optimizer<nn::AdamW>(report, "AdamW", 28, false, nn::AdamWOptions{});
  time_optimizer<nn::AdamW>(report, "AdamW, bf16 copy", 30, true, nn::AdamWOptions{});
}

void input() {
  Report report("input");
  const Tensor bytes = random(sizes.pictures, DType::kU8, 0.0, 255.0);
  const auto normalisation = datasets::Normalisation::imagenet();
  report.row("normalise u8 to bf16", 3 * bytes_of(bytes),
             [&] { static_cast<void>(datasets::normalise(bytes, normalisation, kLow)); });
  report.row("normalise u8 to f32", 5 * bytes_of(bytes),
             [&] { static_cast<void>(datasets::normalise(bytes, normalisation, kWide)); });
}

void products() {
  Report report("products");
  const auto side = static_cast<double>(sizes.product);
  const Tensor a = random({sizes.product, sizes.product}, kLow);
  report.product("matmul bf16", 2 * side * side * side, [&] { static_cast<void>(ops::matmul(a, a)); });

  const Tensor x = random(sizes.products, kLow);
  const std::int64_t channels = sizes.products[1];
  for (const auto& [name, kernel, dilation] :
       {std::tuple{"conv 1x1", 1, 1}, {"conv 3x3", 3, 1}, {"conv 3x3 dilation 12", 3, 12}}) {
    const std::int64_t padding = dilation * (kernel - 1) / 2;
    const ops::Conv2dOptions options{.padding = {padding, padding}, .dilation = {dilation, dilation}};
    const Tensor w = random({channels, channels, kernel, kernel}, kWide);
    const Tensor gy = random(sizes.products, kLow);
    const Tensor gx = blank(sizes.products, kLow);
    const Tensor gw = blank(w.shape(), kWide);
    const double flops = 2.0 * static_cast<double>(x.numel() * channels) * kernel * kernel;
    const std::string which = name;
    report.product(which + " forward bf16", flops, [&] { static_cast<void>(ops::conv2d(x, w, {}, options)); });
    report.product(which + " gradient of the input bf16", flops,
                   [&] { ops::kConv2dBackwardData(kGpu, kLow, gy.view(), w.view(), {}, options, gx.view()); });
    report.product(which + " gradient of the weights bf16", flops,
                   [&] { ops::kConv2dBackwardWeights(kGpu, kLow, x.view(), gy.view(), options, gw.view()); });
  }

  const NoGradGuard on(true);
  const Tensor s = random(sizes.affinity, kLow);
  const Tensor t = random(sizes.affinity, kLow);
  s.set_requires_grad(true);
  // Per image 8 M c^2: products of [D S] with itself and with a matrix; by own kernels without tensor cores.
  report.product("ka_affinity bf16", 8.0 * static_cast<double>(s.numel() * sizes.affinity[1]),
                 [&] { static_cast<void>(distill::ka_affinity(s, t)); });
}

struct Family {
  std::string_view name;
  void (*run)();
};
constexpr Family kFamilies[] = {{"batch_norm", batch_norm},     {"depthwise", depthwise}, {"losses", losses},
                                {"interpolate", interpolate},   {"optimizer", optimizer}, {"products", products},
                                {"pool_softmax", pool_softmax}, {"input", input},         {"elementwise", elementwise}};

}  // namespace

int main(int argc, char** argv) {
  static_cast<void>(std::setvbuf(stdout, nullptr, _IOLBF, 0));  // whoever stops it has what was measured
  std::vector<Family> wanted;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    const auto* found = std::ranges::find(kFamilies, word, &Family::name);
    if (word == "--small") {
      make_small();
    } else if (found != std::end(kFamilies)) {
      wanted.push_back(*found);
    } else {
      std::string names;
      for (const Family& f : kFamilies) names += " " + std::string(f.name);
      std::fprintf(stderr, "usage: bench_cuda [--small] [FAMILY...], a family is one of%s\n", names.c_str());
      return 2;
    }
  }
  if (wanted.empty()) wanted.assign(std::begin(kFamilies), std::end(kFamilies));
  if (cuda::device_count() == 0) {
    std::printf("%s\n", JsonObject().add("skipped", cuda::describe_devices()).str().c_str());
    return 0;
  }
  try {
    cuda::activate(kGpu, "bench");
    const NoGradGuard off;
    measure_copy();
    for (const Family& family : wanted) family.run();
  } catch (const Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return static_cast<int>(e.exit_code());
  }
  return Report::failed == 0 ? 0 : 1;
}
