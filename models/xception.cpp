// What this is: the blocks of Xception and the arithmetic of their strides and rates.
#include "models/xception.h"

#include "ops/elementwise.h"

namespace limbeck::models {
namespace {

using Shortcut = XceptionBlock::Shortcut;

constexpr auto kRelu = ops::Activation::kRelu;
constexpr auto kNone = ops::Activation::kNone;
constexpr auto kFanOut = nn::Init::kKaimingNormalFanOut;
constexpr std::int64_t kLowChannels = 256;
constexpr std::int64_t kMiddleChannels = 728;
constexpr std::int64_t kHighChannels = 2048;

struct BlockRow {
  const char* name;
  std::array<std::int64_t, 3> widths;
  Shortcut shortcut;
  int repeats;  // 0: as the depth says
  std::int64_t stride;
};

constexpr BlockRow kRows[] = {
    {"entry1", {128, 128, 128}, Shortcut::kConv, 1, 2},  {"entry2", {256, 256, 256}, Shortcut::kConv, 1, 2},
    {"entry3", {728, 728, 728}, Shortcut::kConv, 1, 2},  {"middle", {728, 728, 728}, Shortcut::kIdentity, 0, 1},
    {"exit1", {728, 1024, 1024}, Shortcut::kConv, 1, 2}, {"exit2", {1536, 1536, 2048}, Shortcut::kNone, 1, 1}};

nn::ConvArgs conv3x3(std::int64_t in, std::int64_t out, std::int64_t stride) {
  return {.in = in, .out = out, .kernel = 3, .stride = stride, .padding = 1, .init = kFanOut};
}

int middle_blocks(int depth) {
  if (depth == 41) return 8;
  if (depth == 65) return 16;
  fail<ConfigError>("xception", "depth {}, expected 41 or 65", depth);
}

}  // namespace

XceptionBlock::Separable::Separable(std::int64_t in, std::int64_t out, std::int64_t stride, std::int64_t rate,
                                    ops::Activation act, nn::BatchNormArgs bn, Generator& g)
    : depthwise({.in = in,
                 .out = in,
                 .kernel = 3,
                 .stride = stride,
                 .padding = rate,
                 .dilation = rate,
                 .groups = in,
                 .init = kFanOut},
                bn, act, g),
      pointwise({.in = in, .out = out, .kernel = 1, .init = kFanOut}, bn, act, g) {}

XceptionBlock::XceptionBlock(const Args& a, Generator& g) : shortcut_kind_(a.shortcut) {
  const ops::Activation inside = a.shortcut == Shortcut::kNone ? kRelu : kNone;
  std::int64_t in = a.in;
  for (std::size_t i = 0; i < a.widths.size(); ++i) {
    const std::int64_t out = a.widths.at(i);
    const std::int64_t stride = i + 1 == a.widths.size() ? a.stride : 1;  // the last one strides
    convs_.push_back(std::make_unique<Separable>(in, out, stride, a.rates.at(i), inside, a.bn, g));
    register_module(fmt::format("sepconv{}.depthwise", i + 1), convs_.back()->depthwise);
    register_module(fmt::format("sepconv{}.pointwise", i + 1), convs_.back()->pointwise);
    in = out;
  }
  if (a.shortcut != Shortcut::kConv) return;
  shortcut_.emplace(nn::ConvArgs{.in = a.in, .out = in, .kernel = 1, .stride = a.stride, .init = kFanOut}, a.bn, kNone,
                    g);
  register_module("shortcut", *shortcut_);
}

Tensor XceptionBlock::forward(const Tensor& x, TapSet& taps, const std::string& name, Tensor* low) {
  const nn::ModuleScope scope(*this);
  Tensor y = x;
  if (shortcut_kind_ == Shortcut::kNone) {
    y = convs_[0]->pointwise(convs_[0]->depthwise(y));
    y = convs_[1]->pointwise(convs_[1]->depthwise(y));
    return run_tapped(convs_[2]->pointwise, convs_[2]->depthwise(y), taps, name);
  }
  for (std::size_t i = 0; i < convs_.size(); ++i) {
    y = convs_[i]->pointwise(convs_[i]->depthwise(ops::relu(y)));
    if (i == 1 && low != nullptr) *low = y;
  }
  y = ops::add(y, shortcut_ ? (*shortcut_)(x) : x);
  taps.put(name, y);
  return y;
}

Xception::Xception(const XceptionOptions& o, Generator& g) : options_(o) {
  const std::int64_t os = o.output_stride;
  if (os != 32 && os != 16 && os != 8) fail<ConfigError>("xception", "output stride {}, expected 32, 16 or 8", os);
  const int middle = middle_blocks(o.depth);
  conv1_.emplace(conv3x3(3, 32, 2), o.bn, kRelu, g);
  conv2_.emplace(conv3x3(32, 64, 1), o.bn, kRelu, g);
  register_module("conv1", *conv1_);
  register_module("conv2", *conv2_);
  const bool grid = o.multi_grid[0] > 0;
  std::int64_t in = 64;
  std::int64_t current = 2;
  std::int64_t rate = 1;
  for (const BlockRow& row : kRows) {
    const bool strided = current < os && row.stride > 1;
    const bool last = row.shortcut == Shortcut::kNone;
    XceptionBlock::Args args{.in = in,
                             .widths = row.widths,
                             .shortcut = row.shortcut,
                             .stride = strided ? row.stride : 1,
                             .rates = {rate, rate, rate},
                             .bn = o.bn};
    for (std::size_t i = 0; last && grid && i < args.rates.size(); ++i) args.rates.at(i) *= o.multi_grid.at(i);
    const std::string name = row.name;
    const int repeats = row.repeats > 0 ? row.repeats : middle;
    for (int i = 0; i < repeats; ++i) {
      blocks_.push_back(std::make_unique<XceptionBlock>(args, g));
      register_module(repeats > 1 ? fmt::format("{}.{}", name, i) : name, *blocks_.back());
      names_.push_back(i + 1 == repeats ? name : std::string());  // a repeated block offers its last output
      args.in = row.widths.back();
    }
    if (name == "entry2") taps_.push_back({"entry2.low", kLowChannels, current});
    if (strided) current *= row.stride;
    if (!strided) rate *= row.stride;
    in = row.widths.back();
    taps_.push_back({name, in, current});
    if (last) taps_.push_back({name + ".pre_relu", in, current});
  }
}

Features Xception::forward(const Tensor& x, TapSet& taps) {
  const nn::ModuleScope scope(*this);
  Features out;
  Tensor y = (*conv2_)((*conv1_)(x));
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const bool is_entry2 = i == 1;
    y = blocks_[i]->forward(y, taps, names_[i], is_entry2 ? &out.low : nullptr);
    if (names_[i] == "middle") out.middle = y;
  }
  taps.put("entry2.low", out.low);
  out.high = y;
  return out;
}

Backbone::Channels Xception::channels() const { return {kLowChannels, kMiddleChannels, kHighChannels}; }

}  // namespace limbeck::models
