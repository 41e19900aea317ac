// The augmentations that published recipes name, against what their code does: photometric distortion, short sides,
// scale lists, BGR input, padding, area crops, evaluation at another size.
#include <algorithm>
#include <cmath>
#include <set>

#include "apps/evaluate.h"
#include "datasets/convert.h"
#include "datasets/photometric.h"
#include "datasets/transforms.h"
#include "tests/dataset_files.h"

using namespace limbeck;
using namespace limbeck::datasets;
using namespace limbeck::test;

namespace {

Normalisation identity() {
  Normalisation n;
  n.scale = {1, 1, 1};
  return n;
}

struct Result {
  std::vector<float> image;
  std::vector<std::uint8_t> labels;
};

Result run(const Sample& s, const TransformOptions& o, std::uint64_t index, std::uint64_t epoch = 0) {
  check_options(o);
  const auto [h, w] = output_size(o, s.image.h, s.image.w);
  Result r{std::vector<float>(static_cast<std::size_t>(h * w * 3), NAN),
           std::vector<std::uint8_t>(static_cast<std::size_t>(h * w), 77)};
  transform_sample(s, o, augmentation_stream(3, epoch, index), r.image.data(), r.labels.data());
  return r;
}

/// Applies `d` to one pixel.
std::array<float, 3> distorted(const PhotometricDistortion& d, std::array<float, 3> rgb) {
  d.apply({rgb.data(), 1, 1, 3});
  return rgb;
}

/// A picture whose red and green give the position of a pixel: (16 x, 16 y).
Sample coordinates(std::int64_t h, std::int64_t w) {
  Sample s{Image(h, w), Mask(h, w, 0), "coordinates"};
  for (std::int64_t y = 0; y < h; ++y) {
    for (std::int64_t x = 0; x < w; ++x) {
      s.image.at(y, x)[0] = static_cast<std::uint8_t>(x * 255 / (w - 1));
      s.image.at(y, x)[1] = static_cast<std::uint8_t>(y * 255 / (h - 1));
      s.mask.at(y, x) = static_cast<std::uint8_t>((y * 4 / h) * 4 + x * 4 / w);
    }
  }
  return s;
}

}  // namespace

TEST_CASE("photometric: each change alone has the values of the HSV cone") {
  PhotometricDistortion d;
  CHECK(distorted(d, {10, 200, 90}) == std::array<float, 3>{10, 200, 90});
  d.brightness = 70;
  CHECK(distorted(d, {10, 200, 90}) == std::array<float, 3>{80, 255, 160});
  d = {};
  d.contrast = 0.5F;
  CHECK(distorted(d, {10, 200, 90}) == std::array<float, 3>{5, 100, 45});
  d = {};
  d.saturation = 0.5F;  // V = 200 stays, S = 0.95 is halved
  const auto pale = distorted(d, {10, 200, 90});
  CHECK(pale[0] == doctest::Approx(200 - 0.5 * 190));
  CHECK(pale[1] == doctest::Approx(200));
  CHECK(pale[2] == doctest::Approx(200 - 0.5 * 110));
  d.saturation = 1.5F;  // S would exceed 1
  CHECK(distorted(d, {10, 200, 90})[0] == doctest::Approx(0).epsilon(1e-4));
  d = {};
  for (const float turn : {120.0F, -240.0F}) {  // a third of the circle: red becomes green
    d.hue_degrees = turn;
    const auto turned = distorted(d, {200, 50, 80});
    CHECK(turned[0] == doctest::Approx(80).epsilon(1e-3));
    CHECK(turned[1] == doctest::Approx(200).epsilon(1e-3));
    CHECK(turned[2] == doctest::Approx(50).epsilon(1e-3));
  }
  d.hue_degrees = 36;
  for (const std::array<float, 3> grey : {std::array<float, 3>{77, 77, 77}, {0, 0, 0}, {255, 255, 255}}) {
    CHECK(distorted(d, grey) == grey);  // no hue to turn
  }
  // There and back again.
  Generator g(1);
  for (int i = 0; i < 200; ++i) {
    std::array<float, 3> rgb{};
    for (float& v : rgb) v = static_cast<float>(g.below(256));
    d.hue_degrees = 30;
    const auto there = distorted(d, rgb);
    d.hue_degrees = -30;
    const auto back = distorted(d, there);
    for (std::size_t c = 0; c < 3; ++c) REQUIRE(back[c] == doctest::Approx(rgb[c]).epsilon(1e-3));
  }
}

TEST_CASE("photometric: draws cover the published ranges, each change half of the time") {
  int brightness = 0;
  int contrast = 0;
  int saturation = 0;
  int hue = 0;
  int first = 0;
  constexpr int kDraws = 2000;
  std::set<float> hues;
  for (std::uint64_t i = 0; i < kDraws; ++i) {
    const auto d = PhotometricDistortion::draw(Generator(5, i));
    brightness += d.brightness != 0;
    contrast += d.contrast != 1;
    saturation += d.saturation != 1;
    hue += d.hue_degrees != 0;
    first += d.contrast_first;
    CHECK(std::abs(d.brightness) <= 32);
    CHECK((d.contrast >= 0.5F && d.contrast < 1.5F));
    CHECK((d.saturation >= 0.5F && d.saturation < 1.5F));
    hues.insert(d.hue_degrees);
  }
  for (const int count : {brightness, contrast, saturation, first}) CHECK(std::abs(count - kDraws / 2) < 150);
  CHECK(std::abs(hue - kDraws * 35 / 72) < 150);  // one of the 36 turns is 0
  CHECK(*hues.begin() == -36);
  CHECK(*hues.rbegin() == 34);  // the upper end is excluded, as in the original
  CHECK(hues.size() == 36);
}

TEST_CASE("photometric: leaves the labels and all other draws as they were") {
  const Sample s{noise_image(40, 50, 1), noise_mask(40, 50, 5, 1), "noise"};
  TransformOptions o = TransformOptions::training(24, 24);
  o.max_class_share = 0.75;
  o.blur = 0.5;
  const Result plain = run(s, o, 3, 1);
  o.photometric = true;
  const Result changed = run(s, o, 3, 1);
  CHECK(changed.labels == plain.labels);
  CHECK(changed.image == run(s, o, 3, 1).image);
  int different = 0;
  for (std::uint64_t i = 0; i < 32; ++i) {
    o.photometric = false;
    const Result a = run(s, o, i);
    o.photometric = true;
    const Result b = run(s, o, i);
    CHECK(a.labels == b.labels);
    different += a.image != b.image;
  }
  CHECK(different >= 24);  // 1 of 16 draws changes nothing
}

TEST_CASE("recipes: short side 256..1026, and scale lists of the published steps") {
  // The window is as large as the largest result, so the padding tells the size.
  const Sample s{Image(64, 96, {9, 9, 9}), Mask(64, 96, 0), "flat"};
  TransformOptions o;
  o.crop_h = o.crop_w = 1600;
  o.short_side_min = 256;
  o.short_side_max = 1026;
  std::int64_t low = 9999;
  std::int64_t high = 0;
  for (std::uint64_t i = 0; i < 12; ++i) {
    const Result r = run(s, o, i);
    std::int64_t rows = 0;
    while (rows < 1600 && r.labels[static_cast<std::size_t>(rows * 1600)] == 0) ++rows;
    low = std::min(low, rows);
    high = std::max(high, rows);
    CHECK(std::count(r.labels.begin(), r.labels.end(), 0) == rows * std::llround(static_cast<double>(rows) * 1.5));
  }
  CHECK((low >= 256 && low < 450));
  CHECK((high <= 1026 && high > 850));

  const auto heights = [](double from, double to, double step) {
    const Sample tall{Image(40, 2), Mask(40, 2, 0), "tall"};
    TransformOptions t;
    t.crop_h = 100;
    t.crop_w = 8;
    t.scale_min = from;
    t.scale_max = to;
    t.scale_step = step;
    std::set<std::ptrdiff_t> seen;
    for (std::uint64_t i = 0; i < 300; ++i) {
      const Result r = run(tall, t, i);
      std::ptrdiff_t rows = 0;
      while (rows < 100 && r.labels[static_cast<std::size_t>(rows * 8)] == 0) ++rows;
      seen.insert(rows);
    }
    return seen;
  };
  CHECK(heights(0.5, 2.0, 0.25) == std::set<std::ptrdiff_t>{20, 30, 40, 50, 60, 70, 80});
  std::set<std::ptrdiff_t> tenths;
  for (int k = 7; k <= 21; ++k) tenths.insert(4 * k);
  CHECK(heights(0.7, 2.1, 0.1) == tenths);
}

TEST_CASE("recipes: BGR input minus the mean, and the three kinds of padding") {
  const Sample s{Image(2, 2, {250, 100, 30}), Mask(2, 2, 4), "flat"};
  TransformOptions o;
  o.crop_h = 2;
  o.crop_w = 3;
  o.normalisation = Normalisation::parse("bgr_mean");
  o.pad_zero = true;
  const Result r = run(s, o, 0);
  CHECK(r.image[0] == doctest::Approx(30 - 104.00698793));
  CHECK(r.image[1] == doctest::Approx(100 - 116.66876762));
  CHECK(r.image[2] == doctest::Approx(250 - 122.67891434));
  CHECK(r.image[6] == 0);
  CHECK(r.labels == std::vector<std::uint8_t>{4, 4, 255, 4, 4, 255});
  o.pad_zero = false;
  o.pad_colour = {0, 0, 0};
  CHECK(run(s, o, 0).image[6] == doctest::Approx(-104.00698793));
  CHECK(run(s, o, 0).labels[2] == kIgnoreId);  // whatever the picture is padded with
  // Released code of AICSD: the padding is labelled, as background. The picture and all draws stay as they are.
  TransformOptions background = o;
  background.pad_background = true;
  CHECK(run(s, background, 0).labels == std::vector<std::uint8_t>{4, 4, 0, 4, 4, 0});
  CHECK(run(s, background, 0).image == run(s, o, 0).image);
  // The single conversions agree with the training path, and a picture survives the way there and back.
  const Image noise = noise_image(3, 4, 9);
  const Tensor t = to_tensor(noise, o.normalisation);
  CHECK(t.view().at<float>(0, 0, 2, 1) == doctest::Approx(noise.at(2, 1)[2] - 104.00698793));
  CHECK(to_image(t, 0, o.normalisation) == noise);
}

TEST_CASE("area crops: share and aspect stay in their ranges, labels follow, nothing is padded") {
  const Sample s = coordinates(120, 160);
  TransformOptions o;
  o.normalisation = identity();
  o.crop_h = o.crop_w = 48;
  o.area_min = 0.08;
  o.area_max = 1;
  double smallest = 9;
  double largest = 0;
  for (std::uint64_t i = 0; i < 200; ++i) {
    const Result r = run(s, o, i);
    const auto at = [&](std::int64_t y, std::int64_t x, std::int64_t c) {
      return static_cast<double>(r.image[static_cast<std::size_t>((y * 48 + x) * 3 + c)]);
    };
    // 46 output pixels lie between the second and the last but one; borders are clamped.
    const double width = (at(20, 46, 0) - at(20, 1, 0)) / 255 * 159 / 45 * 48;
    const double height = (at(46, 20, 1) - at(1, 20, 1)) / 255 * 119 / 45 * 48;
    const double share = width * height / (120.0 * 160.0);
    CHECK(share > 0.07);
    CHECK(share < 1.04);
    CHECK((width / height > 0.70 && width / height < 1.43));
    smallest = std::min(smallest, share);
    largest = std::max(largest, share);
    CHECK(std::count(r.labels.begin(), r.labels.end(), kIgnoreId) == 0);
    // The label of a pixel away from block borders says where it came from.
    const double x = at(24, 24, 0) / 255 * 159;
    const double y = at(24, 24, 1) / 255 * 119;
    const auto clear = [](double v, double block) {
      return std::fmod(v, block) > 3 && std::fmod(v, block) < block - 3;
    };
    if (clear(x, 40) && clear(y, 30)) {
      CHECK(r.labels[24 * 48 + 24] == static_cast<int>(y / 30) * 4 + static_cast<int>(x / 40));
    }
  }
  CHECK(smallest < 0.2);
  CHECK(largest > 0.8);
  o.flip = 1;
  const Result flipped = run(s, o, 7);
  o.flip = 0;
  const Result plain = run(s, o, 7);
  CHECK(flipped.labels[5 * 48 + 3] == plain.labels[5 * 48 + 44]);

  o.area_max = 1.5;
  CHECK_CONTAINS(error_of<ConfigError>([&] { check_options(o); }), "area");
  o.area_max = 1;
  o.scale_max = 2;
  CHECK_CONTAINS(error_of<ConfigError>([&] { check_options(o); }), "excludes");
}

TEST_CASE("evaluation at another size: picture and labels together, the middle of both") {
  const Sample s = coordinates(60, 90);
  apps::InferenceOptions o;
  o.short_side = 120;
  const Sample scaled = apps::prepare_sample(s, o);
  CHECK(scaled.image.h == 120);
  CHECK(scaled.image.w == 180);
  CHECK(scaled.mask.h == 120);
  CHECK(scaled.mask.at(10, 10) == s.mask.at(5, 5));
  o.crop_h = o.crop_w = 100;
  const Sample cropped = apps::prepare_sample(s, o);
  CHECK(cropped.mask.w == 100);
  CHECK(cropped.mask.at(0, 0) == scaled.mask.at(10, 40));
  CHECK_CONTAINS(apps::protocol_of(o), "centre crop 100x100, picture and labels with shorter side 120");
  Sample whole = s;
  whole.mask = Mask();
  whole.label = 3;
  CHECK(apps::prepare_sample(whole, o).image.h == 100);
  CHECK(apps::prepare_sample(whole, o).label == 3);
}
