// The numbers behind the pictures against a direct computation, the drawing of heat maps, and the choice of pixels.
#include <doctest/doctest.h>

#include <cmath>

#include "apps/visualize.h"
#include "core/rng.h"
#include "datasets/compose.h"
#include "datasets/heat.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using namespace limbeck::apps;
using datasets::Image;
using datasets::Mask;
using datasets::Rgb;

TEST_SUITE_BEGIN("visualize");

namespace {

std::vector<float> random_values(std::size_t count, std::uint64_t seed) {
  Generator g(seed);
  std::vector<float> values(count);
  for (float& v : values) v = static_cast<float>(g.uniform() * 2 - 1);
  return values;
}

/// Light as the eye sees it, roughly.
double light(Rgb c) { return 0.299 * c[0] + 0.587 * c[1] + 0.114 * c[2]; }

Rgb colour_at(const Image& image, std::int64_t y, std::int64_t x) {
  return {image.at(y, x)[0], image.at(y, x)[1], image.at(y, x)[2]};
}

Mask mask_of(std::int64_t h, std::int64_t w, std::initializer_list<int> ids) {
  Mask mask(h, w);
  std::size_t i = 0;
  for (const int id : ids) mask.ids[i++] = static_cast<std::uint8_t>(id);
  return mask;
}

}  // namespace

TEST_CASE("an affinity is the cosine between two positions") {
  constexpr std::int64_t kC = 5;
  constexpr std::int64_t kH = 3;
  constexpr std::int64_t kW = 4;
  auto values = random_values(kC * kH * kW, 1);
  for (std::int64_t c = 0; c < kC; ++c)
    values[static_cast<std::size_t>(c * kH * kW + 7)] = 0;  // a position without length
  const Tensor map = affinity_map(Tensor::from(values, {1, kC, kH, kW}), 2, 1);
  CHECK(map.shape() == Shape{1, 1, kH, kW});
  const auto got = map.to_vector<float>();
  for (std::int64_t i = 0; i < kH * kW; ++i) {
    double dot = 0;
    double a = 0;
    double b = 0;
    for (std::int64_t c = 0; c < kC; ++c) {
      const double q = values[static_cast<std::size_t>(c * kH * kW + 2 * kW + 1)];
      const double f = values[static_cast<std::size_t>(c * kH * kW + i)];
      dot += q * f;
      a += q * q;
      b += f * f;
    }
    CHECK(got[static_cast<std::size_t>(i)] == doctest::Approx(b > 0 ? dot / std::sqrt(a * b) : 0.0).epsilon(1e-6));
  }
  CHECK(got[2 * kW + 1] == doctest::Approx(1.0));
  test::check_throws<Error>([&] { static_cast<void>(affinity_map(map, 3, 0)); }, {"position (0, 3) of a 4x3 map"});
  test::check_throws<Error>(
      [&] {
        static_cast<void>(affinity_map(Tensor::from(std::vector<float>{1, 2}, {2, 1, 1, 1}), 0, 0));
      },
      {"[1,C,h,w]"});
}

TEST_CASE("saliency is a softmax over positions, relative to no preference") {
  const Tensor map = Tensor::from(std::vector<float>{9, 9, 9, 9, 0, 1, 2, 1e4F}, {1, 2, 2, 2});
  for (const float v : saliency_map(map, 0, 4).to_vector<float>()) CHECK(v == doctest::Approx(1));
  const auto peak = saliency_map(map, 1, 4).to_vector<float>();
  CHECK(peak[3] == doctest::Approx(4));  // all of it in one of four places, and no overflow on the way
  CHECK(peak[0] == 0);
  const auto soft = saliency_map(Tensor::from(std::vector<float>{0, 2, 4, 6}, {1, 1, 2, 2}), 0, 2).to_vector<float>();
  const double sum = 1 + std::exp(1.0) + std::exp(2.0) + std::exp(3.0);
  for (int i = 0; i < 4; ++i) CHECK(soft[static_cast<std::size_t>(i)] == doctest::Approx(4 * std::exp(i) / sum));
  CHECK(channel_of(map, 1).to_vector<float>() == std::vector<float>{0, 1, 2, 1e4F});
  test::check_throws<Error>([&] { static_cast<void>(saliency_map(map, 2, 4)); }, {"channel 2 of a map with 2"});
  test::check_throws<Error>([&] { static_cast<void>(saliency_map(map, 0, 0)); }, {"tau 0"});
}

TEST_CASE("the distance of two matrices compares directions of rows") {
  const Tensor a = Tensor::from(std::vector<float>{0, 3, 4, 0}, {2, 2});
  const Tensor scaled = Tensor::from(std::vector<float>{0, 30, 2, 0}, {2, 2});
  CHECK(row_distance(a, scaled) == doctest::Approx(0));
  const Tensor other = Tensor::from(std::vector<float>{1, 0, 4, 0}, {2, 2});
  CHECK(row_distance(a, other) == doctest::Approx(std::sqrt(2.0 / 4)));
}

TEST_CASE("pixels are picked deep inside the largest classes") {
  // Class 2 has 10 pixels, class 0 has 8, class 5 one; 255 is no class.
  const Mask mask = mask_of(4, 5, {2, 2, 2,   0, 0,  //
                                   2, 2, 2,   0, 0,  //
                                   2, 2, 2,   0, 0,  //
                                   5, 2, 255, 0, 0});
  CHECK(classes_by_size(mask) == std::vector<std::int64_t>{2, 0, 5});
  const auto pixels = pick_pixels(mask, 2);
  REQUIRE(pixels.size() == 2);
  CHECK(pixels[0] == PixelPosition{1, 1});  // two steps from every border
  CHECK(pixels[1] == PixelPosition{3, 0});  // all of class 0 lies at a border: the first of equal ones
  CHECK(pick_pixels(mask, 9).size() == 3);
  CHECK(pick_pixels(Mask(2, 2), 3).empty());
}

TEST_CASE("agreement and difference maps colour what they say") {
  const Mask truth = mask_of(1, 5, {0, 0, 0, 0, 255});
  const Mask a = mask_of(1, 5, {0, 1, 0, 1, 1});
  const Mask b = mask_of(1, 5, {0, 0, 1, 2, 1});
  const Image map = agreement_map(truth, a, b);
  for (std::int64_t x = 0; x < 4; ++x) CHECK(colour_at(map, 0, x) == kAgreementColours.at(static_cast<std::size_t>(x)));
  CHECK(colour_at(map, 0, 4) == Rgb{0, 0, 0});
  const std::vector<Rgb> palette{{1, 1, 1}, {2, 2, 2}, {3, 3, 3}};
  const Image difference = difference_map(a, b, palette);
  CHECK(colour_at(difference, 0, 0) == colour_at(difference, 0, 4));  // alike
  CHECK(colour_at(difference, 0, 1) == palette[0]);
  CHECK(colour_at(difference, 0, 3) == palette[2]);
  CHECK_THROWS_AS(static_cast<void>(agreement_map(truth, a, Mask(2, 2))), Error);
}

TEST_CASE("a pixel is written X,Y") {
  CHECK(parse_pixel("12,7") == PixelPosition{12, 7});
  CHECK(parse_pixel("12x7") == PixelPosition{12, 7});
  for (const char* text : {"12", "", "a,b", "1,", "-1,2", "1,2,3"}) {
    test::check_throws<ConfigError>([&] { static_cast<void>(parse_pixel(text)); }, {"--pixel", "expected X,Y"});
  }
}

TEST_CASE("heat colours get lighter all the way") {
  double before = -1;
  for (int i = 0; i <= 100; ++i) {
    const double now = light(datasets::heat_colour(i / 100.0));
    CHECK(now > before);
    before = now;
  }
  CHECK(datasets::heat_colour(-3) == datasets::heat_colour(0));
  CHECK(datasets::heat_colour(7) == datasets::heat_colour(1));
}

TEST_CASE("heat maps, ranges and overlays") {
  const std::vector<float> values{0, 5, 10, std::nanf("")};
  const auto range = datasets::range_of(values);
  CHECK(range.low == 0);
  CHECK(range.high == 10);
  CHECK(datasets::range_of(std::vector<float>{3, 3}).high == 4);
  const Image map = datasets::heat_map(values, 2, 2, range);
  CHECK(colour_at(map, 0, 0) == datasets::heat_colour(0));
  CHECK(colour_at(map, 0, 1) == datasets::heat_colour(0.5));
  CHECK(colour_at(map, 1, 0) == datasets::heat_colour(1));
  CHECK(colour_at(map, 1, 1) == Rgb{255, 0, 255});
  const Image picture(2, 2, {255, 0, 0});
  CHECK(datasets::heat_overlay(picture, values, range, 1.0) == map);
  CHECK(colour_at(datasets::heat_overlay(picture, values, range, 0.0), 0, 0) == Rgb{76, 76, 76});  // grey of red
  CHECK_THROWS_AS(static_cast<void>(datasets::heat_map(values, 3, 2, range)), Error);
}

TEST_CASE("a matrix shows every value as a colour, larger ones lighter") {
  const std::vector<std::string> names{"road", "a long name"};
  const Image picture = datasets::matrix_picture(std::vector<float>{0, 1, 0.25F, 1}, names, {0, 1});
  const auto count = [&](Rgb colour) {
    std::int64_t n = 0;
    for (std::int64_t y = 0; y < picture.h; ++y) {
      for (std::int64_t x = 0; x < picture.w; ++x) n += colour_at(picture, y, x) == colour ? 1 : 0;
    }
    return n;
  };
  const std::int64_t cell = 18 * 30;  // less the letters
  CHECK(count(datasets::heat_colour(0)) > cell / 2);
  CHECK(count(datasets::heat_colour(0.25)) > cell / 2);
  CHECK(count(datasets::heat_colour(1)) > cell);  // two cells
  CHECK(count({240, 240, 240}) > 50);             // the names
  CHECK_THROWS_AS(static_cast<void>(datasets::matrix_picture(std::vector<float>{1}, names, {0, 1})), Error);
  const Image bar = datasets::colour_bar("cosine", {0, 1}, 200);
  CHECK(bar.w == 200);
}

TEST_CASE("markers, rectangles, enlarged and stacked pictures stay inside their pictures") {
  Image image(8, 8, {10, 20, 30});
  datasets::draw_marker(image, 0, 7, 3);  // at a corner
  CHECK(colour_at(image, 0, 7) == Rgb{255, 40, 40});
  CHECK(colour_at(image, 7, 0) == Rgb{10, 20, 30});
  datasets::fill_rect(image, -5, -5, 100, 100, {1, 2, 3});
  CHECK(colour_at(image, 0, 7) == Rgb{1, 2, 3});
  const Image large = datasets::enlarged(image, 3);
  CHECK(large.h == 24);
  CHECK(colour_at(large, 23, 23) == Rgb{1, 2, 3});
  const Image both = datasets::stacked({image, Image(2, 10, {9, 9, 9})}, 1);
  CHECK(both.h == 11);
  CHECK(both.w == 10);
  CHECK(colour_at(both, 9, 9) == Rgb{9, 9, 9});
}

TEST_SUITE_END();
