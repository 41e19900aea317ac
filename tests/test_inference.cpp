// What this is: segmentation by tiles, scales and flip, against what it means.
#include <doctest/doctest.h>

#include <cmath>

#include "apps/cli.h"
#include "apps/inference.h"
#include "datasets/convert.h"
#include "datasets/scenes.h"
#include "ops/concat.h"
#include "ops/elementwise.h"
#include "ops/interpolate.h"
#include "ops/pool2d.h"
#include "ops/reduce.h"
#include "ops/softmax.h"
#include "tests/harness/op_case.h"
#include "tests/harness/random_network.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using apps::InferenceOptions;

namespace {

datasets::Image picture(std::int64_t h, std::int64_t w) {
  return datasets::make_scene({.seed = 4, .height = h, .width = w}, 0).image;
}

datasets::Image mirrored(const datasets::Image& image) {
  datasets::Image out(image.h, image.w);
  for (std::int64_t y = 0; y < image.h; ++y) {
    for (std::int64_t x = 0; x < image.w; ++x)
      std::copy(image.at(y, x), image.at(y, x) + 3, out.at(y, image.w - 1 - x));
  }
  return out;
}

InferenceOptions options() {
  InferenceOptions o;
  o.normalisation = datasets::Normalisation::imagenet();
  return o;
}

/// A network that looks at single pixels: tiling must not be noticed at all.
Tensor pointwise(const Tensor& x) { return ops::concat({x, ops::mul_scalar(x, -1.0), ops::abs(x)}, 1); }

}  // namespace

TEST_CASE("tiles cover the axis, overlap as asked, and stay inside") {
  for (const std::int64_t size : {1, 7, 32, 33, 64, 100, 255}) {
    for (const std::int64_t tile : {1, 5, 32, 60}) {
      for (const std::int64_t overlap : {0, 1, 4, 31}) {
        if (tile > size || overlap >= tile) continue;
        const auto starts = apps::tile_starts(size, tile, overlap);
        CHECK(starts.front() == 0);
        CHECK(starts.back() == size - tile);
        for (std::size_t i = 1; i < starts.size(); ++i) {
          CHECK(starts[i] > starts[i - 1]);
          CHECK(starts[i] + overlap <= starts[i - 1] + tile);
        }
      }
    }
  }
}

TEST_CASE("a tile as large as the picture gives the whole picture's mask") {
  const auto model = test::random_network("mobilenet_v2_seg");
  const datasets::Image image = picture(70, 90);
  const datasets::Mask whole = apps::predict_mask(*model, image, options());
  InferenceOptions o = options();
  for (const auto& [h, w] : {std::pair<std::int64_t, std::int64_t>{70, 90}, {512, 512}}) {
    o.tile_h = h;
    o.tile_w = w;
    CHECK(apps::predict_mask(*model, image, o).ids == whole.ids);
  }
}

TEST_CASE("tiles of any size and overlap give the whole picture's mask where the network sees single pixels") {
  const datasets::Image image = picture(70, 90);
  const datasets::Mask whole = apps::predict_mask(pointwise, image, options());
  for (const auto& [h, w, overlap] :
       {std::array<std::int64_t, 3>{32, 32, 8}, {16, 90, 0}, {70, 20, 5}, {200, 33, 32}, {17, 41, 16}}) {
    CAPTURE(h);
    InferenceOptions o = options();
    o.tile_h = h;
    o.tile_w = w;
    o.overlap = overlap;
    CHECK(apps::predict_mask(pointwise, image, o).ids == whole.ids);
  }
}

TEST_CASE("tiles never ask the network for more than a tile") {
  InferenceOptions o = options();
  o.tile_h = 24;
  o.tile_w = 40;
  o.overlap = 6;
  std::int64_t calls = 0, most = 0;
  const auto network = [&](const Tensor& x) {
    ++calls;
    most = std::max(most, x.numel());
    return pointwise(x);
  };
  static_cast<void>(apps::predict_mask(network, picture(100, 110), o));
  CHECK(most == 3 * 24 * 40);
  CHECK(calls ==
        static_cast<std::int64_t>(apps::tile_starts(100, 24, 6).size() * apps::tile_starts(110, 40, 6).size()));
}

TEST_CASE("averaging with the mirrored picture is symmetric") {
  const auto model = test::random_network("mobilenet_v2_seg");
  const datasets::Image image = picture(65, 97);
  InferenceOptions o = options();
  // How far the scores of the mirrored picture are from the mirrored scores.
  const auto asymmetry = [&] {
    const auto network = [&](const Tensor& x) { return model->forward(x).logits; };
    const auto a = apps::predict_scores(network, image, o).to_vector<float>();
    const auto b = apps::predict_scores(network, mirrored(image), o).to_vector<float>();
    double most = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      const std::size_t row = i / 97 * 97;
      most = std::max(most, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[row + 96 - (i - row)])));
    }
    return most;
  };
  CHECK(asymmetry() > 1e-3);  // the network itself is not symmetric
  o.flip = true;
  CHECK(asymmetry() < 1e-5);
}

TEST_CASE("several scales: the average of the probabilities at every scale") {
  const auto model = test::random_network("mobilenet_v2_seg");
  const datasets::Image image = picture(64, 96);
  InferenceOptions o = options();
  o.scales = {0.5, 1.0, 1.5};
  const NoGradGuard off;
  const Tensor x = datasets::to_tensor(image, o.normalisation);
  Tensor sum;
  for (const double s : o.scales) {
    const Tensor input =
        ops::resize_bilinear(x, {static_cast<std::int64_t>(64 * s), static_cast<std::int64_t>(96 * s)}, false);
    const Tensor p = ops::softmax(ops::resize_bilinear(model->forward(input).logits, {64, 96}, false));
    sum = sum.defined() ? ops::add(sum, p) : p;
  }
  CHECK(test::relative_error(apps::predict_scores([&](const Tensor& t) { return model->forward(t).logits; }, image, o),
                             ops::mul_scalar(sum, 1.0 / 3.0)) < 1e-5);
}

TEST_CASE("the protocol says what was done, and its options are checked") {
  InferenceOptions o = options();
  CHECK(apps::protocol_of(o) == "whole image, own size, single scale, no flip, f32");
  o.absent = datasets::AbsentClasses::kZero;
  CHECK(apps::protocol_of(o) == "whole image, own size, single scale, no flip, absent classes count as 0, f32");
  o.absent = datasets::AbsentClasses::kSkip;
  apps::read_protocol({.scales = "0.75,1,1.5", .flip = true, .tile = "256x512"}, o);
  CHECK(apps::protocol_of(o) ==
        "whole image in tiles of 256x512 with overlap 64, own size, scales 0.75 1 1.5, flip, f32");
  const auto bad = [](const std::string& scales, const std::string& tile, std::int64_t overlap) {
    return [=] {
      InferenceOptions any;
      apps::read_protocol({.scales = scales, .tile = tile, .overlap = overlap}, any);
    };
  };
  test::check_throws<ConfigError>(bad("1,,2", "", -1), {"--scales", "1,,2"});
  test::check_throws<ConfigError>(bad("0", "", -1), {"--scales"});
  test::check_throws<ConfigError>(bad("nan", "", -1), {"--scales"});
  test::check_throws<ConfigError>(bad("", "0x5", -1), {"--tile"});
  test::check_throws<ConfigError>(bad("", "32x64", 32), {"--overlap", "32"});
  test::check_throws<ConfigError>(bad("", "", 5), {"--overlap", "--tile"});
  o.resize_h = o.resize_w = 32;
  test::check_throws<ConfigError>([&] { static_cast<void>(apps::predict_mask(pointwise, picture(40, 40), o)); },
                                  {"--tile"});
}
