// The generated street scenes: repeatable, of any size, balanced, and not solvable by colour alone.
#include <algorithm>
#include <array>
#include <cmath>
#include <unordered_map>

#include "datasets/metrics.h"
#include "datasets/resample.h"
#include "datasets/scenes.h"
#include "tests/dataset_files.h"

using namespace limbeck;
using namespace limbeck::datasets;
using namespace limbeck::test;

namespace {

SceneOptions options_of(std::int64_t h, std::int64_t w, std::uint64_t seed = 0, const char* split = "train") {
  SceneOptions o;
  o.height = h;
  o.width = w;
  o.seed = seed;
  o.split = split;
  return o;
}

}  // namespace

TEST_CASE("scenes: a pure function of seed, split, index and size") {
  const auto o = options_of(48, 64);
  const Sample a = make_scene(o, 5);
  const Sample b = make_scene(o, 5);
  CHECK(a.image == b.image);
  CHECK(a.mask == b.mask);
  CHECK(make_scene(o, 6).mask != a.mask);
  CHECK(make_scene(options_of(48, 64, 1), 5).mask != a.mask);
  CHECK(make_scene(options_of(48, 64, 0, "val"), 5).mask != a.mask);
}

TEST_CASE("scenes: any size; only the eleven ids and 255") {
  for (const auto& [h, w] : {std::pair<std::int64_t, std::int64_t>{16, 16}, {33, 57}, {96, 128}, {150, 60}}) {
    CAPTURE(h);
    CAPTURE(w);
    for (std::uint64_t index = 0; index < 4; ++index) {
      const Sample s = make_scene(options_of(h, w), index);
      REQUIRE(s.image.h == h);
      REQUIRE(s.image.w == w);
      REQUIRE(s.mask.ids.size() == static_cast<std::size_t>(h * w));
      for (const auto id : s.mask.ids) REQUIRE((id < 11 || id == kIgnoreId));
    }
  }
  CHECK_CONTAINS(error_of<ConfigError>([] { (void)make_scene(options_of(8, 64), 0); }), "64x8");
}

TEST_CASE("scenes: the size changes the resolution, not the street") {
  std::uint64_t same = 0;
  std::uint64_t labelled = 0;
  for (std::uint64_t index = 0; index < 10; ++index) {
    const Mask small = make_scene(options_of(96, 128), index).mask;
    const Mask large = resize(make_scene(options_of(192, 256), index).mask, 96, 128);
    for (std::size_t i = 0; i < small.ids.size(); ++i) {
      if (small.ids[i] == kIgnoreId || large.ids[i] == kIgnoreId) continue;
      ++labelled;
      same += small.ids[i] == large.ids[i];
    }
  }
  CHECK(static_cast<double>(same) > 0.95 * static_cast<double>(labelled));
}

TEST_CASE("scenes: every class occurs often enough, the rim is thin") {
  std::array<std::uint64_t, 256> pixels{};
  std::array<int, 11> images{};
  constexpr int kScenes = 120;
  for (int index = 0; index < kScenes; ++index) {
    const Sample s = make_scene(options_of(96, 128), static_cast<std::uint64_t>(index));
    std::array<bool, 256> here{};
    for (const auto id : s.mask.ids) {
      ++pixels[id];
      here[id] = true;
    }
    for (std::size_t k = 0; k < images.size(); ++k) images[k] += here[k];
  }
  const double total = 96.0 * 128.0 * kScenes;
  // sky, building, pole, road, pavement, tree, sign, fence, car, pedestrian, bicyclist; in CamVid train (labelled
  // pixels): 16.8 23.1 1.0 31.5 4.5 9.7 1.2 1.1 5.8 0.6 0.3 percent
  const std::array<double, 11> least{10, 12, 0.8, 25, 2.5, 6, 0.5, 0.6, 4, 0.35, 0.3};
  const std::array<double, 11> most{25, 28, 3, 42, 9, 15, 2, 3, 12, 1.8, 1.8};
  for (std::size_t k = 0; k < 11; ++k) {
    CAPTURE(k);
    const double percent = 100 * static_cast<double>(pixels[k]) / total;
    CHECK(percent > least[k]);
    CHECK(percent < most[k]);
    CHECK(images[k] > kScenes / 3);
  }
  const double ignored = 100 * static_cast<double>(pixels[kIgnoreId]) / total;
  CHECK(ignored > 1);
  CHECK(ignored < 6);
}

TEST_CASE("scenes: a rim of ignored pixels runs around cars") {
  // Where a car meets something else, the pixel between them is ignored.
  int borders = 0;
  int direct = 0;
  for (std::uint64_t index = 0; index < 20; ++index) {
    const Mask m = make_scene(options_of(96, 128), index).mask;
    for (std::int64_t y = 0; y < m.h; ++y) {
      for (std::int64_t x = 0; x + 2 < m.w; ++x) {
        const auto car = static_cast<std::uint8_t>(SceneClass::kCar);
        if (m.at(y, x) != car && m.at(y, x + 2) != car) continue;
        borders += m.at(y, x + 1) == kIgnoreId;
        direct += m.at(y, x) == car && m.at(y, x + 1) != car && m.at(y, x + 1) != kIgnoreId;
      }
    }
  }
  CHECK(borders > 300);
  CHECK(direct < borders);  // a border that falls exactly between two pixels needs no rim
}

TEST_CASE("scenes: colour and height in the picture alone do not solve it") {
  // The best guess per (colour, row) learned on 150 scenes: what a network without context could do.
  std::unordered_map<std::uint32_t, std::array<std::uint32_t, 11>> table;
  const auto key_of = [](const Sample& s, std::int64_t y, std::int64_t x) {
    const std::uint8_t* p = s.image.at(y, x);
    const auto bits = [](std::uint8_t v) { return static_cast<std::uint32_t>(v) >> 4U; };
    const auto band = static_cast<std::uint32_t>(y * 8 / s.image.h);
    return (band << 12U) | (bits(p[0]) << 8U) | (bits(p[1]) << 4U) | bits(p[2]);
  };
  for (std::uint64_t index = 0; index < 150; ++index) {
    const Sample s = make_scene(options_of(48, 64), index);
    for (std::int64_t y = 0; y < s.mask.h; ++y) {
      for (std::int64_t x = 0; x < s.mask.w; ++x) {
        if (s.mask.at(y, x) != kIgnoreId) ++table[key_of(s, y, x)][s.mask.at(y, x)];
      }
    }
  }
  ConfusionMatrix matrix(11);
  for (std::uint64_t index = 0; index < 40; ++index) {
    const Sample s = make_scene(options_of(48, 64, 0, "val"), index);
    Mask guess(s.mask.h, s.mask.w, 3);
    for (std::int64_t y = 0; y < s.mask.h; ++y) {
      for (std::int64_t x = 0; x < s.mask.w; ++x) {
        const auto found = table.find(key_of(s, y, x));
        if (found == table.end()) continue;
        const auto best = std::max_element(found->second.begin(), found->second.end());
        guess.at(y, x) = static_cast<std::uint8_t>(best - found->second.begin());
      }
    }
    matrix.update(s.mask, guess);
  }
  const Metrics m = matrix.compute();
  MESSAGE("guess from colour and row: ", summary_line(m));
  CHECK(m.miou < 0.35);
  CHECK(m.pixel_accuracy > 0.5);  // nor is it noise
}

TEST_CASE("scenes: as a data set") {
  DatasetSpec spec;
  spec.kind = "scenes";
  spec.height = 32;
  spec.width = 48;
  const auto train = make_dataset(spec);
  CHECK(train->size() == 2000);
  CHECK(train->classes().names[10] == "bicyclist");
  CHECK(train->load(3).image == make_scene(options_of(32, 48), 3).image);
  CHECK(train->load(3).name == train->name(3));
  spec.split = "val";
  CHECK(make_dataset(spec)->size() == 200);
  CHECK(make_dataset(spec)->load(3).image != train->load(3).image);
  spec.samples = 7;
  CHECK(make_dataset(spec)->size() == 7);
  spec.limit = 5;
  CHECK(make_dataset(spec)->size() == 5);
  CHECK_CONTAINS(error_of<Error>([&] { (void)make_dataset(spec)->load(5); }), "5");
  spec.height = 4;
  CHECK_CONTAINS(error_of<ConfigError>([&] { (void)make_dataset(spec); }), "48x4");
}
