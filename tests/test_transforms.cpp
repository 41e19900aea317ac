// Augmentation must never separate picture and labels, never invent ids, and never depend on anything but its seed.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "datasets/convert.h"
#include "datasets/resample.h"
#include "datasets/transforms.h"
#include "tests/dataset_files.h"

using namespace limbeck;
using namespace limbeck::datasets;
using namespace limbeck::test;

namespace {

constexpr Rgb kPad{124, 116, 104};

/// Colours of ids in block_sample(); none is the pad colour.
Rgb colour_of_id(std::uint8_t id) {
  return {static_cast<std::uint8_t>(20 + 30 * id), static_cast<std::uint8_t>(230 - 25 * id), 40};
}

/// A picture that shows its labels: blocks of one colour per id.
Sample block_sample(std::int64_t h, std::int64_t w, std::int64_t block, std::uint64_t seed = 1) {
  Sample s{Image(h, w), Mask(h, w), "blocks"};
  for (std::int64_t y = 0; y < h; ++y) {
    for (std::int64_t x = 0; x < w; ++x) {
      Generator g(seed, mix_stream(static_cast<std::uint64_t>(y / block), static_cast<std::uint64_t>(x / block)));
      const auto id = static_cast<std::uint8_t>(g.below(6));
      s.mask.at(y, x) = id;
      const Rgb c = colour_of_id(id);
      std::copy(c.begin(), c.end(), s.image.at(y, x));
    }
  }
  return s;
}

struct Result {
  std::int64_t h, w;
  std::vector<float> image;
  std::vector<std::uint8_t> labels;
  [[nodiscard]] const float* at(std::int64_t y, std::int64_t x) const { return image.data() + (y * w + x) * 3; }
  [[nodiscard]] std::uint8_t label(std::int64_t y, std::int64_t x) const {
    return labels[static_cast<std::size_t>(y * w + x)];
  }
};

Result run(const Sample& s, const TransformOptions& o, std::uint64_t index = 0, std::uint64_t epoch = 0) {
  const auto [h, w] = output_size(o, s.image.h, s.image.w);
  Result r{h, w, std::vector<float>(static_cast<std::size_t>(h * w * 3), NAN),
           std::vector<std::uint8_t>(static_cast<std::size_t>(h * w), 77)};
  transform_sample(s, o, augmentation_stream(3, epoch, index), r.image.data(), r.labels.data());
  return r;
}

/// Normalisation that leaves byte values as they are.
Normalisation identity() {
  Normalisation n;
  n.scale = {1, 1, 1};
  return n;
}

}  // namespace

TEST_CASE("transforms: picture and labels move together") {
  const Sample s = block_sample(60, 80, 16);
  TransformOptions o;
  o.normalisation = identity();
  o.crop_h = 48;
  o.crop_w = 56;
  o.scale_min = 0.5;
  o.scale_max = 2.0;
  o.flip = 0.5;
  int inner = 0;
  int padded = 0;
  for (std::uint64_t index = 0; index < 60; ++index) {
    const Result r = run(s, o, index);
    for (std::int64_t y = 3; y + 3 < r.h; ++y) {
      for (std::int64_t x = 3; x + 3 < r.w; ++x) {
        const std::uint8_t id = r.label(y, x);
        bool uniform = true;  // away from block borders, where the picture is mixed
        for (std::int64_t v = -3; v <= 3; ++v) {
          for (std::int64_t u = -3; u <= 3; ++u) uniform = uniform && r.label(y + v, x + u) == id;
        }
        if (!uniform) continue;
        const Rgb expected = id == kIgnoreId ? kPad : colour_of_id(id);
        id == kIgnoreId ? ++padded : ++inner;
        for (std::size_t c = 0; c < 3; ++c) REQUIRE(r.at(y, x)[c] == doctest::Approx(expected[c]).epsilon(1e-4));
      }
    }
  }
  CHECK(inner > 10000);
  CHECK(padded > 1000);
}

TEST_CASE("transforms: padding is 255 in the labels and the mean colour in the picture, never class 0") {
  Sample s{Image(10, 12, {250, 5, 5}), Mask(10, 12, 3), "s"};
  TransformOptions o = TransformOptions::training(64, 64);
  o.scale_min = o.scale_max = 1.0;
  for (std::uint64_t index = 0; index < 8; ++index) {
    const Result r = run(s, o, index);
    CHECK(std::count(r.labels.begin(), r.labels.end(), 3) == 120);
    CHECK(std::count(r.labels.begin(), r.labels.end(), kIgnoreId) == 64 * 64 - 120);
    for (std::size_t i = 0; i < r.labels.size(); ++i) {
      if (r.labels[i] != kIgnoreId) continue;
      // The pad colour is the ImageNet mean, so the network sees almost zero there, jitter or not.
      for (std::size_t c = 0; c < 3; ++c) REQUIRE(std::abs(r.image[3 * i + c]) < 0.02F);
    }
  }
}

TEST_CASE("transforms: no id is invented by resizing, and nothing is left unwritten") {
  const Sample s{noise_image(37, 53, 1), noise_mask(37, 53, 2, 1), "noise"};
  Sample t = s;
  for (auto& id : t.mask.ids) id = id == 0 ? 2 : 9;  // averaging 2 and 9 would give ids in between
  for (std::uint64_t index = 0; index < 30; ++index) {
    TransformOptions o = TransformOptions::training(40, 40);
    o.blur = 0.5;
    const Result r = run(t, o, index);
    for (const auto id : r.labels) REQUIRE((id == 2 || id == 9 || id == kIgnoreId));
    for (const float v : r.image) REQUIRE(std::isfinite(v));
  }
}

TEST_CASE("transforms: a flip mirrors picture and labels exactly") {
  const Sample s{noise_image(5, 8, 1), noise_mask(5, 8, 200, 1), "noise"};
  TransformOptions o;
  o.normalisation = identity();
  const Result plain = run(s, o);
  o.flip = 1;
  const Result mirrored = run(s, o);
  for (std::int64_t y = 0; y < 5; ++y) {
    for (std::int64_t x = 0; x < 8; ++x) {
      CHECK(mirrored.label(y, x) == plain.label(y, 7 - x));
      for (int c = 0; c < 3; ++c) CHECK(mirrored.at(y, x)[c] == plain.at(y, 7 - x)[c]);
    }
  }
}

TEST_CASE("transforms: without options the picture is only normalised") {
  const Sample s{noise_image(6, 9, 2), noise_mask(6, 9, 11, 2), "noise"};
  const Result r = run(s, TransformOptions::evaluation());
  CHECK(r.labels == s.mask.ids);
  const std::array<double, 3> mean{0.485, 0.456, 0.406};
  const std::array<double, 3> stddev{0.229, 0.224, 0.225};
  for (std::size_t i = 0; i < r.image.size(); ++i) {
    REQUIRE(r.image[i] == doctest::Approx((s.image.rgb[i] / 255.0 - mean[i % 3]) / stddev[i % 3]).epsilon(1e-4));
  }
  TransformOptions o;
  o.normalisation = Normalisation::parse("symmetric");
  const Result sym = run(s, o);
  for (std::size_t i = 0; i < sym.image.size(); ++i) {
    REQUIRE(sym.image[i] == doctest::Approx(s.image.rgb[i] / 127.5 - 1).epsilon(1e-5));
  }
  CHECK_CONTAINS(error_of<ConfigError>([] { (void)Normalisation::parse("imagnet"); }), "imagnet");
}

TEST_CASE("transforms: a pure function of seed, epoch and index; options do not disturb each other's draws") {
  const Sample s = block_sample(60, 80, 7);
  TransformOptions o = TransformOptions::training(32, 32);
  const Result a = run(s, o, 5, 2);
  const Result b = run(s, o, 5, 2);
  CHECK(a.image == b.image);
  CHECK(a.labels == b.labels);
  CHECK(run(s, o, 5, 3).labels != a.labels);
  CHECK(run(s, o, 6, 2).labels != a.labels);
  TransformOptions plain = o;
  plain.brightness = plain.contrast = plain.saturation = 0;
  CHECK(run(s, plain, 5, 2).labels == a.labels);
  TransformOptions blurred = o;
  blurred.blur = 1;
  CHECK(run(s, blurred, 5, 2).labels == a.labels);
  CHECK(run(s, blurred, 5, 2).image != a.image);
  // Scale and flip do vary from sample to sample.
  std::set<std::vector<std::uint8_t>> seen;
  for (std::uint64_t index = 0; index < 20; ++index) seen.insert(run(s, o, index).labels);
  CHECK(seen.size() == 20);
}

TEST_CASE("transforms: random scale stays in its range, steps and short side") {
  // One white pixel column every 10: its distance in the output is 10 * scale.
  Sample s{Image(40, 400), Mask(40, 400, 0), "columns"};
  for (std::int64_t x = 0; x < 400; x += 10) {
    for (std::int64_t y = 0; y < 40; ++y) s.mask.at(y, x) = 1;
  }
  const auto spacing = [&](const TransformOptions& o, std::uint64_t index) {
    const Result r = run(s, o, index);
    std::vector<std::int64_t> starts;
    for (std::int64_t x = 1; x < r.w; ++x) {
      if (r.label(0, x) == 1 && r.label(0, x - 1) != 1) starts.push_back(x);
    }
    REQUIRE(starts.size() > 3);
    return static_cast<double>(starts.back() - starts.front()) / static_cast<double>(starts.size() - 1) / 10.0;
  };
  TransformOptions o;
  o.crop_h = 20;
  o.crop_w = 200;
  o.scale_min = 1.0;
  o.scale_max = 2.0;
  double low = 9;
  double high = 0;
  for (std::uint64_t i = 0; i < 60; ++i) {
    const double v = spacing(o, i);
    low = std::min(low, v);
    high = std::max(high, v);
  }
  CHECK(low > 0.97);
  CHECK(low < 1.15);
  CHECK(high < 2.03);
  CHECK(high > 1.85);
  o.scale_step = 0.5;
  std::set<int> steps;
  for (std::uint64_t i = 0; i < 60; ++i) steps.insert(static_cast<int>(std::lround(spacing(o, i) * 10)));
  CHECK(steps == std::set<int>{10, 15, 20});
  o = {};
  o.crop_h = 20;
  o.crop_w = 200;
  o.short_side_min = o.short_side_max = 60;  // 40 -> 60
  CHECK(spacing(o, 1) == doctest::Approx(1.5).epsilon(0.02));
}

TEST_CASE("transforms: crops with one overwhelming class are drawn again") {
  Sample s{Image(64, 256), Mask(64, 256, 0), "s"};
  for (std::int64_t y = 0; y < 64; ++y) {
    for (std::int64_t x = 120; x < 136; ++x) s.mask.at(y, x) = 1;
  }
  TransformOptions o;
  o.crop_h = o.crop_w = 32;
  const auto count_mixed = [&] {
    int mixed = 0;
    for (std::uint64_t i = 0; i < 100; ++i) {
      const Result r = run(s, o, i);
      mixed += std::count(r.labels.begin(), r.labels.end(), 1) >= 32 * 8;
    }
    return mixed;
  };
  const int without = count_mixed();
  o.max_class_share = 0.75;
  CHECK(count_mixed() > 2 * without + 10);
}

TEST_CASE("transforms: colour jitter changes what it says") {
  Sample s{Image(8, 8, {100, 150, 50}), Mask(8, 8, 0), "s"};
  TransformOptions o;
  o.normalisation = identity();
  o.brightness = 0.5;
  double low = 1e9;
  double high = 0;
  for (std::uint64_t i = 0; i < 60; ++i) {
    const Result r = run(s, o, i);
    const double factor = r.at(0, 0)[1] / 150.0;
    CHECK(r.at(3, 3)[0] == doctest::Approx(100 * factor).epsilon(1e-3));
    low = std::min(low, factor);
    high = std::max(high, factor);
  }
  CHECK(low >= 0.49);
  CHECK(low < 0.6);
  CHECK(high > 1.4);
  CHECK(high <= 1.51);
  o = {};
  o.normalisation = identity();
  o.saturation = 1;
  const double grey = 0.299 * 100 + 0.587 * 150 + 0.114 * 50;
  const Result r = run(s, o, 1);
  const double factor = (r.at(0, 0)[0] - grey) / (100 - grey);
  CHECK(r.at(0, 0)[2] == doctest::Approx(grey + factor * (50 - grey)).epsilon(1e-3));
  o.saturation = 0;
  o.contrast = 1;
  Sample grey_sample{Image(8, 8, {90, 90, 90}), Mask(8, 8, 0), "s"};  // a constant grey has no contrast to change
  CHECK(run(grey_sample, o, 1).at(2, 2)[1] == doctest::Approx(90).epsilon(1e-3));
  std::fill_n(grey_sample.image.rgb.begin(), 96, std::uint8_t{110});  // the upper half: mean 100
  const Result two = run(grey_sample, o, 1);
  CHECK(two.at(0, 0)[0] + two.at(7, 0)[0] == doctest::Approx(200).epsilon(1e-3));
  CHECK(std::abs(two.at(0, 0)[0] - 110) > 0.5);
}

TEST_CASE("transforms: blur keeps constants and the mean, and spreads a point") {
  Sample s{Image(33, 33), Mask(33, 33, 0), "s"};
  s.image.at(16, 16)[0] = 255;
  for (std::int64_t y = 0; y < 33; ++y) {
    for (std::int64_t x = 0; x < 33; ++x) s.image.at(y, x)[1] = 90;
  }
  TransformOptions o;
  o.normalisation = identity();
  o.blur = 1;
  o.blur_sigma = 2;
  float widest = 0;
  for (std::uint64_t index = 0; index < 10; ++index) {
    const Result r = run(s, o, index);
    double sum = 0;
    for (std::size_t i = 0; i < r.image.size(); i += 3) {
      sum += r.image[i];
      REQUIRE(r.image[i + 1] == doctest::Approx(90).epsilon(1e-4));
    }
    CHECK(sum == doctest::Approx(255).epsilon(1e-3));
    CHECK(r.at(16, 17)[0] == doctest::Approx(r.at(17, 16)[0]));
    CHECK(r.at(16, 14)[0] <= r.at(16, 15)[0]);
    widest = std::max(widest, r.at(16, 18)[0]);
  }
  CHECK(widest > 4);  // a Gaussian of sigma 1.5 has 255 * 0.029 there
  o.blur = 0;
  CHECK(run(s, o, 1).at(16, 16)[0] == 255);
}

TEST_CASE("resample: known values") {
  Image two(1, 2);
  two.rgb = {0, 0, 0, 200, 200, 200};
  const Image up = resize(two, 1, 4);  // sources at -0.25, 0.25, 0.75, 1.25
  CHECK(up.rgb[0] == 0);
  CHECK(up.rgb[3] == 50);
  CHECK(up.rgb[6] == 150);
  CHECK(up.rgb[9] == 200);
  const Image same = noise_image(7, 9, 1);
  CHECK(resize(same, 7, 9) == same);
  // Shrinking looks at every source pixel: one bright column of eight cannot vanish, wherever it is.
  for (std::int64_t x = 0; x < 8; ++x) {
    Image thin(4, 32);
    for (std::int64_t y = 0; y < 4; ++y) thin.at(y, 8 + x)[0] = 240;
    const Image small = resize(thin, 4, 4);
    int sum = 0;
    for (std::int64_t u = 0; u < 4; ++u) sum += small.at(1, u)[0];
    CHECK(sum >= 28);
    CHECK(sum <= 32);
  }
  CHECK(nearest_indices(4, 8, 0, 8) == std::vector<std::int64_t>{0, 0, 1, 1, 2, 2, 3, 3});
  CHECK(nearest_indices(8, 4, 0, 4) == std::vector<std::int64_t>{1, 3, 5, 7});
  CHECK(nearest_indices(8, 4, 2, 2) == std::vector<std::int64_t>{5, 7});
  const Mask mask = noise_mask(5, 6, 11, 1);
  CHECK(resize(mask, 5, 6) == mask);
  CHECK(resize(resize(mask, 15, 18), 5, 6) == mask);  // three times larger and back: the middle pixels
}

TEST_CASE("transforms: options that contradict each other are refused") {
  const auto refused = [](auto change) {
    TransformOptions o;
    change(o);
    return error_of<ConfigError>([&] { check_options(o); });
  };
  CHECK_CONTAINS(refused([](auto& o) { o.scale_max = 2; }), "crop");
  CHECK_CONTAINS(refused([](auto& o) { o.crop_h = 5; }), "crop");
  CHECK_CONTAINS(refused([](auto& o) { o.resize_w = 5; }), "resize");
  CHECK_CONTAINS(refused([](auto& o) { o.scale_min = 0; }), "scale_min");
  CHECK_CONTAINS(refused([](auto& o) { o.flip = 1.5; }), "flip");
  CHECK_CONTAINS(refused([](auto& o) { o.contrast = -1; }), "contrast");
  CHECK_CONTAINS(refused([](auto& o) { o.blur_sigma = 0; }), "blur_sigma");
  CHECK_CONTAINS(refused([](auto& o) { o.pad_background = true; }), "pad_label background: only a crop");
  CHECK_CONTAINS(refused([](auto& o) {
                   o.pad_background = true;
                   o.crop_h = o.crop_w = 8;
                   o.area_min = o.area_max = 0.5;
                 }),
                 "without `area`");
  CHECK_NOTHROW(check_options(TransformOptions::training(64, 64)));
  CHECK_NOTHROW(check_options(TransformOptions::evaluation(64, 64)));
}

TEST_CASE("convert: pictures, masks and tensors") {
  const Image image = noise_image(5, 7, 3);
  const Normalisation n = Normalisation::imagenet();
  const Tensor t = to_tensor(image, n);
  CHECK(t.shape() == Shape{1, 3, 5, 7});
  CHECK(to_image(t, 0, n) == image);
  CHECK(t.view().at<float>(0, 2, 4, 6) == doctest::Approx((image.at(4, 6)[2] / 255.0 - 0.406) / 0.225).epsilon(1e-4));
  const Tensor padded = to_tensor(image, n, 8);
  CHECK(padded.shape() == Shape{1, 3, 8, 8});
  CHECK(std::abs(padded.view().at<float>(0, 1, 7, 7)) < 0.02F);
  CHECK(padded.view().at<float>(0, 1, 4, 6) == t.view().at<float>(0, 1, 4, 6));

  const Mask mask = noise_mask(4, 6, 21, 3);
  CHECK(to_mask(to_tensor(mask)) == mask);
  const std::vector<std::int64_t> ids(mask.ids.begin(), mask.ids.end());
  CHECK(to_mask(Tensor::from(ids, {4, 6})) == mask);
  CHECK_CONTAINS(error_of([] { (void)to_mask(Tensor::from(std::vector<std::int64_t>{0, 300}, {1, 2})); }), "300");

  const Sample s{image, noise_mask(5, 7, 11, 3), "s"};
  const Sample inner = centre_crop(s, 3, 3);
  CHECK(inner.mask.at(0, 0) == s.mask.at(1, 2));
  CHECK(std::equal(inner.image.at(2, 2), inner.image.at(2, 2) + 3, s.image.at(3, 4)));
  const Sample outer = centre_crop(s, 9, 9);
  CHECK(std::count(outer.mask.ids.begin(), outer.mask.ids.end(), kIgnoreId) == 81 - 35);
  CHECK(outer.mask.at(2, 1) == s.mask.at(0, 0));
  CHECK(outer.image.at(0, 0)[0] == kPad[0]);
}
