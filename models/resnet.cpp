// What this is: the blocks and stages of ResNet and the arithmetic of strides and dilations.
#include "models/resnet.h"

#include "ops/copy.h"
#include "ops/pool2d.h"

namespace limbeck::models {
namespace {

constexpr auto kFanOut = nn::Init::kKaimingNormalFanOut;
constexpr std::array<std::int64_t, 4> kPlanes{64, 128, 256, 512};

struct Layout {
  std::array<int, 4> blocks;
  bool bottleneck;
};

Layout layout_of(int depth) {
  switch (depth) {
    case 18: return {{2, 2, 2, 2}, false};
    case 34: return {{3, 4, 6, 3}, false};
    case 50: return {{3, 4, 6, 3}, true};
    case 101: return {{3, 4, 23, 3}, true};
    default: fail<ConfigError>("resnet", "depth {}, expected 18, 34, 50 or 101", depth);
  }
}

std::array<std::int64_t, 3> multi_grid_of(const ResNetOptions& o, bool bottleneck) {
  if (o.multi_grid[0] > 0) return o.multi_grid;
  if (o.dilation == Dilation::kJf && bottleneck) return {1, 2, 4};
  return {1, 1, 1};
}

struct BlockPlan {
  std::int64_t stride, dilation1, dilation2;
};

/// Row of the table in resnet.h for one block. `old_rate`, `rate`: dilation before and after this stage's removed stride.
BlockPlan plan_block(const ResNetOptions& o, bool bottleneck, std::size_t stage, int block, bool strided,
                     std::int64_t old_rate, std::int64_t rate) {
  if (block == 0 && strided) return {2, 1, 1};
  const bool contracted = o.dilation == Dilation::kTv || o.dilation == Dilation::kMmseg;
  std::int64_t factor = 1;
  if (stage == 3 && rate > 1) factor = multi_grid_of(o, bottleneck).at(static_cast<std::size_t>(block) % 3);
  const std::int64_t first = (contracted && block == 0 ? old_rate : rate) * factor;
  return {1, first, o.dilation == Dilation::kMmseg ? 1 : rate * factor};
}

nn::ConvArgs conv3x3(std::int64_t in, std::int64_t out, std::int64_t stride, std::int64_t dilation) {
  return {.in = in,
          .out = out,
          .kernel = 3,
          .stride = stride,
          .padding = dilation,
          .dilation = dilation,
          .bias = false,
          .init = kFanOut};
}

nn::ConvArgs conv1x1(std::int64_t in, std::int64_t out, std::int64_t stride = 1) {
  return {.in = in, .out = out, .kernel = 1, .stride = stride, .bias = false, .init = kFanOut};
}

}  // namespace

ResidualBlock::ResidualBlock(const Args& a, Generator& g)
    : conv1_(a.bottleneck ? conv1x1(a.in, a.planes) : conv3x3(a.in, a.planes, a.stride, a.dilation1), g),
      bn1_(a.planes, a.bn),
      conv2_(a.bottleneck ? conv3x3(a.planes, a.planes, a.stride, a.dilation1)
                          : conv3x3(a.planes, a.planes, 1, a.dilation2),
             g),
      bn2_(a.planes, a.bn) {
  register_module("conv1", conv1_);
  register_module("bn1", bn1_);
  register_module("conv2", conv2_);
  register_module("bn2", bn2_);
  std::int64_t out = a.planes;
  if (a.bottleneck) {
    out = 4 * a.planes;
    conv3_.emplace(conv1x1(a.planes, out), g);
    bn3_.emplace(out, a.bn);
    register_module("conv3", *conv3_);
    register_module("bn3", *bn3_);
  }
  if (a.stride != 1 || a.in != out) {
    downsample_.emplace(conv1x1(a.in, out, a.stride), a.bn, ops::Activation::kNone, g);
    register_module("downsample", *downsample_);
  }
}

Tensor ResidualBlock::run(const Tensor& x, ops::Activation last) {
  const Tensor shortcut = downsample_ ? (*downsample_)(x) : x;
  const Tensor y = nn::conv_bn_act(conv1_, bn1_, ops::Activation::kRelu, x);
  if (!conv3_) return nn::conv_bn_act(conv2_, bn2_, last, y, shortcut);
  return nn::conv_bn_act(*conv3_, *bn3_, last, nn::conv_bn_act(conv2_, bn2_, ops::Activation::kRelu, y), shortcut);
}

Tensor ResidualBlock::before_relu(const Tensor& x) {
  const nn::ModuleScope scope(*this);
  return run(x, ops::Activation::kNone);
}

Stem parse_stem(const std::string& text) {
  if (text.empty() || text == "7x7") return Stem::k7x7;
  if (text == "deep128") return Stem::kDeep128;
  if (text == "deep128_floor") return Stem::kDeep128Floor;
  if (text == "v1c") return Stem::kV1c;
  fail<ConfigError>("model", "unknown stem '{}'; choose 7x7, deep128, deep128_floor or v1c", text);
}

void ResNet::add_stem(Generator& g) {
  const auto add = [&](const nn::ConvArgs& args, const char* conv, const char* bn) {
    stem_.push_back(std::make_unique<StemLayer>(args, options_.bn, g));
    register_module(conv, stem_.back()->conv);
    register_module(bn, stem_.back()->bn);
  };
  if (options_.stem == Stem::k7x7) {
    add({.in = 3, .out = 64, .kernel = 7, .stride = 2, .padding = 3, .bias = false, .init = kFanOut}, "conv1", "bn1");
  } else if (options_.stem == Stem::kV1c) {
    add(conv3x3(3, 32, 2, 1), "stem.0", "stem.1");
    add(conv3x3(32, 32, 1, 1), "stem.3", "stem.4");
    add(conv3x3(32, 64, 1, 1), "stem.6", "stem.7");
  } else {
    add(conv3x3(3, 64, 2, 1), "conv1", "bn1");
    add(conv3x3(64, 64, 1, 1), "conv2", "bn2");
    add(conv3x3(64, 128, 1, 1), "conv3", "bn3");
  }
}

ResNet::ResNet(const ResNetOptions& o, Generator& g)
    : options_(o), maxpool_({.kernel = 3, .stride = 2, .padding = 1, .ceil_mode = o.stem == Stem::kDeep128}) {
  const Layout layout = layout_of(o.depth);
  if (o.output_stride != 32 && o.output_stride != 16 && o.output_stride != 8) {
    fail<ConfigError>("resnet", "output stride {}, expected 32, 16 or 8", o.output_stride);
  }
  expansion_ = layout.bottleneck ? 4 : 1;
  add_stem(g);
  register_module("maxpool", maxpool_);

  std::int64_t in = stem_.back()->conv.weight().size(0);
  std::int64_t stride = 4;
  std::int64_t rate = 1;
  for (std::size_t s = 0; s < stages_.size(); ++s) {
    const bool halves = s > 0;
    const bool strided = halves && stride < o.output_stride;
    const std::int64_t old_rate = rate;
    if (strided) stride *= 2;
    if (halves && !strided) rate *= 2;
    strides_.at(s) = stride;
    for (int b = 0; b < layout.blocks.at(s); ++b) {
      const BlockPlan plan = plan_block(o, layout.bottleneck, s, b, strided, old_rate, rate);
      const ResidualBlock::Args args{.in = in,
                                     .planes = kPlanes.at(s),
                                     .stride = plan.stride,
                                     .dilation1 = plan.dilation1,
                                     .dilation2 = plan.dilation2,
                                     .bottleneck = layout.bottleneck,
                                     .bn = o.bn};
      stages_.at(s).push_back(std::make_unique<ResidualBlock>(args, g));
      register_module(fmt::format("layer{}.{}", s + 1, b), *stages_.at(s).back());
      in = kPlanes.at(s) * expansion_;
    }
  }
}

Features ResNet::forward(const Tensor& x, TapSet& taps) {
  const nn::ModuleScope scope(*this);
  Features out;
  Tensor y = x;
  for (const auto& layer : stem_) y = nn::conv_bn_act(layer->conv, layer->bn, ops::Activation::kRelu, y);
  y = maxpool_(y);
  for (std::size_t s = 0; s < stages_.size(); ++s) {
    const std::string name = fmt::format("layer{}", s + 1);
    const Stage& stage = stages_.at(s);
    for (std::size_t b = 0; b + 1 < stage.size(); ++b) y = (*stage[b])(y);
    if (taps.wants(name + ".pre_relu")) {
      const Tensor sum = stage.back()->before_relu(y);
      taps.put(name + ".pre_relu", sum);
      y = nn::activate(sum, ops::Activation::kRelu);
    } else {
      y = (*stage.back())(y);
    }
    taps.put(name, y);
    if (s == 0) out.low = y;
    if (s == 2) out.middle = y;
  }
  out.high = y;
  return out;
}

Backbone::Channels ResNet::channels() const {
  return {kPlanes[0] * expansion_, kPlanes[2] * expansion_, kPlanes[3] * expansion_};
}

std::vector<TapInfo> ResNet::tap_infos() const {
  std::vector<TapInfo> out;
  for (std::size_t s = 0; s < stages_.size(); ++s) {
    const std::string name = fmt::format("layer{}", s + 1);
    out.push_back({name, kPlanes.at(s) * expansion_, strides_.at(s)});
    out.push_back({name + ".pre_relu", kPlanes.at(s) * expansion_, strides_.at(s)});
  }
  return out;
}

ResNetClassifier::ResNetClassifier(const ModelSpec& spec, int depth, Generator& g)
    : features_({.depth = depth, .output_stride = 32, .stem = parse_stem(spec.stem), .bn = bn_args(spec)}, g),
      fc_({.in = features_.channels().high, .out = spec.classes}, g) {
  set_spec(spec);
  adopt(features_);
  register_module("fc", fc_);
}

Output ResNetClassifier::forward(const Tensor& x, std::span<const std::string> requested) {
  TapSet taps(requested, *this);
  Output out;
  out.logits = fc_(ops::flatten(ops::global_avg_pool2d(features_.forward(x, taps).high)));
  taps.put("logits", out.logits);
  out.taps = taps.take();
  return out;
}

std::vector<TapInfo> ResNetClassifier::tap_infos() const {
  std::vector<TapInfo> infos = features_.tap_infos();
  infos.push_back({"logits", fc_.weight().size(0), 0});
  return infos;
}

std::vector<std::string> ResNetClassifier::tap_names() const { return names_of(tap_infos()); }

}  // namespace limbeck::models
