#include "apps/inference.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "core/autocast.h"
#include "core/autograd.h"
#include "datasets/convert.h"
#include "datasets/normalise.h"
#include "models/frozen_model.h"
#include "nn/int8_plan.h"
#include "ops/copy.h"
#include "ops/elementwise.h"
#include "ops/interpolate.h"
#include "ops/reduce.h"
#include "ops/slice.h"
#include "ops/softmax.h"

namespace limbeck::apps {
namespace {

bool single(const InferenceOptions& o) { return o.scales.size() == 1 && o.scales[0] == 1.0 && !o.flip; }

/// Left and right of a map exchanged.
Tensor mirrored(const Tensor& x) {
  const Tensor source = x.dense();
  const std::int64_t channels = source.size(1), height = source.size(2), width = source.size(3);
  if (!source.device().is_cpu()) {
    const Strides backwards{height * width * channels, 1, width * channels, -channels};
    return source.alias(source.shape(), backwards, (width - 1) * channels).copy();
  }
  const Tensor y = Tensor::empty(source.shape());
  const std::int64_t rows = source.size(0) * height;
  const float* all = source.data<float>();
  float* out = y.data<float>();
  parallel_for(rows, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float* __restrict from = all + r * width * channels;
      float* __restrict to = out + (r + 1) * width * channels;
      for (std::int64_t w = 0; w < width; ++w) {
        to -= channels;
        for (std::int64_t c = 0; c < channels; ++c) to[c] = *from++;
      }
    }
  });
  return y;
}

datasets::Image cut(const datasets::Image& image, std::int64_t y, std::int64_t x, std::int64_t h, std::int64_t w) {
  datasets::Image out(h, w);
  for (std::int64_t row = 0; row < h; ++row)
    std::copy(image.at(y + row, x), image.at(y + row, x) + 3 * w, out.at(row, 0));
  return out;
}

/// Part of a channels-last map [1, K, h, w].
Tensor window(const Tensor& map, std::int64_t y, std::int64_t x, std::int64_t h, std::int64_t w) {
  const std::int64_t k = map.size(1), width = map.size(3);
  return map.alias({1, k, h, w}, {map.numel(), 1, width * k, k}, (y * width + x) * k);
}

/// Every pixel has been covered by the same number of tiles for all its classes, so sums decide as averages do.
Tensor predict_tiles(const ForwardFn& network, const datasets::Image& image, const InferenceOptions& options) {
  const NoGradGuard off;
  const std::int64_t th = std::min(options.tile_h, image.h), tw = std::min(options.tile_w, image.w);
  const auto rows = tile_starts(image.h, th, options.overlap), columns = tile_starts(image.w, tw, options.overlap);
  Tensor ids;
  Tensor band;  // scores of the picture's rows [rows[i], rows[i] + th)
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (const std::int64_t x : columns) {
      const Tensor scores = predict_scores(network, cut(image, rows[i], x, th, tw), options);
      LIMBECK_CHECK(scores.size(1) <= 255, "predict", "{} classes, a mask holds at most 255", scores.size(1));
      if (!band.defined()) {
        band = Tensor::zeros({1, scores.size(1), th, image.w}, DType::kF32, scores.device());
        ids = Tensor::empty({1, image.h, image.w}, DType::kU8, scores.device());
      }
      ops::add_(window(band, 0, x, th, tw), scores);
    }
    // Rows above the next tiles are complete.
    const std::int64_t next = i + 1 < rows.size() ? rows[i + 1] : image.h;
    const std::int64_t done = next - rows[i];
    ids.alias({1, done, image.w}, {ids.numel(), image.w, 1}, rows[i] * image.w)
        .copy_(ops::argmax(window(band, 0, 0, done, image.w), 1));
    if (next == image.h) break;
    const Tensor below = Tensor::zeros(band.shape(), DType::kF32, band.device());
    if (done < th) window(below, 0, 0, th - done, image.w).copy_(window(band, done, 0, th - done, image.w));
    band = below;
  }
  return ids;
}

/// The picture as network input, on the device of the network.
Tensor input_of(const datasets::Image& image, const InferenceOptions& options) {
  if (options.device.is_cpu()) return datasets::to_tensor(image, options.normalisation);
  return datasets::normalise(datasets::to_bytes(image, options.normalisation).to(options.device), options.normalisation,
                             DType::kF32);
}

}  // namespace

const char* name_of(Precision precision) noexcept {
  switch (precision) {
    case Precision::kF32: return "f32";
    case Precision::kBF16: return "bf16";
    case Precision::kInt8: return "int8";
  }
  return "?";
}

Precision parse_precision(const std::string& text, const char* option) {
  for (const Precision p : {Precision::kF32, Precision::kBF16, Precision::kInt8}) {
    if (text == name_of(p)) return p;
  }
  fail<ConfigError>(option, "is '{}', expected f32, bf16 or int8", text);
}

std::string view_of(const InferenceOptions& o) {
  std::string scale = "single scale";
  if (o.scales.size() != 1 || o.scales[0] != 1.0) scale = fmt::format("scales {}", fmt::join(o.scales, " "));
  std::string size = "own size";
  if (o.resize_h > 0) size = fmt::format("input {}x{}", o.resize_h, o.resize_w);
  if (o.short_side > 0) size = fmt::format("picture and labels with shorter side {}", o.short_side);
  std::string part = o.crop_h > 0 ? fmt::format("centre crop {}x{}", o.crop_h, o.crop_w) : std::string("whole image");
  if (o.tile_h > 0) part += fmt::format(" in tiles of {}x{} with overlap {}", o.tile_h, o.tile_w, o.overlap);
  return fmt::format("{}, {}, {}, {}{}", part, size, scale, o.flip ? "flip" : "no flip",
                     o.absent == datasets::AbsentClasses::kZero ? ", absent classes count as 0" : "");
}

std::string protocol_of(const InferenceOptions& o) { return fmt::format("{}, {}", view_of(o), name_of(o.precision)); }

std::vector<std::int64_t> tile_starts(std::int64_t size, std::int64_t tile, std::int64_t overlap) {
  std::vector<std::int64_t> starts{0};
  const std::int64_t step = std::max<std::int64_t>(tile - std::min(overlap, tile - 1), 1);
  while (starts.back() + tile < size) starts.push_back(std::min(starts.back() + step, size - tile));
  return starts;
}

Tensor predict_scores(const ForwardFn& network, const datasets::Image& image, const InferenceOptions& options) {
  const NoGradGuard off;
  const AutocastGuard precision(options.precision == Precision::kBF16);
  const Tensor x = input_of(image, options);
  const double h = static_cast<double>(options.resize_h > 0 ? options.resize_h : image.h);
  const double w = static_cast<double>(options.resize_h > 0 ? options.resize_w : image.w);
  const auto scores_of = [&](const Tensor& input, bool mirror) {
    Tensor logits = ops::cast(network(mirror ? mirrored(input) : input), DType::kF32);
    LIMBECK_CHECK(logits.ndim() == 4, "predict", "the network gives {}, expected a score per class and pixel",
                  logits.shape());
    if (mirror) logits = mirrored(logits);
    return ops::resize_bilinear(logits, {image.h, image.w}, options.align_corners);
  };
  Tensor sum;
  for (const double scale : options.scales) {
    const auto pixels = [&](double size) { return std::max<std::int64_t>(std::llround(size * scale), 1); };
    const Tensor input = ops::resize_bilinear(x, {pixels(h), pixels(w)}, false);
    for (const bool mirror : {false, true}) {
      if (mirror && !options.flip) continue;
      const Tensor scores = scores_of(input, mirror);
      if (single(options)) return scores;
      const Tensor probabilities = ops::softmax(scores);
      if (sum.defined()) {
        ops::add_(sum, probabilities);
      } else {
        sum = probabilities;
      }
    }
  }
  ops::mul_scalar_(sum, 1.0 / static_cast<double>(options.scales.size() * (options.flip ? 2 : 1)));
  return sum;
}

Tensor predict_ids(const ForwardFn& network, const datasets::Image& image, const InferenceOptions& options) {
  if (options.tile_h > 0 && options.resize_h > 0) {
    fail<ConfigError>("--tile", "tiles are cut from the picture as it is; remove the input size {}x{}",
                      options.resize_h, options.resize_w);
  }
  if (options.tile_h > 0 && (options.tile_h < image.h || options.tile_w < image.w))
    return predict_tiles(network, image, options);
  return ops::argmax(predict_scores(network, image, options), 1);
}

datasets::Mask predict_mask(const ForwardFn& network, const datasets::Image& image, const InferenceOptions& options) {
  return datasets::to_mask(predict_ids(network, image, options).to(kCpu));
}

Device device_of(const nn::Module& model) { return model.named_parameters().front().tensor.device(); }

ForwardFn frozen(models::Model& model) {
  const Device device = device_of(model);
  return [device, network = std::make_shared<models::FrozenModel>(model)](const Tensor& x) {
    return (*network)(x.to(device)).logits;
  };
}

ForwardFn frozen_int8(models::Model& model, const nn::Calibration& ranges, const nn::Int8Weights* weights) {
  if (!device_of(model).is_cpu()) fail<ConfigError>("int8", "8 bits run on the CPU; use --device cpu");
  const nn::Graph graph = models::logits_graph(model);
  return [plan = std::make_shared<const nn::Int8Plan>(graph, ranges, weights)](const Tensor& x) { return (*plan)(x); };
}

datasets::Mask predict_mask(models::Model& model, const datasets::Image& image, const InferenceOptions& options) {
  InferenceOptions there = options;
  there.device = device_of(model);
  return predict_mask([&](const Tensor& x) { return model.forward(x).logits; }, image, there);
}

}  // namespace limbeck::apps
