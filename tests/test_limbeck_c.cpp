// What this is: the C interface: results, refusals, threads. A program in C: apps/examples/segment.c.
#include <doctest/doctest.h>

#include <string>
#include <thread>

#include "apps/inference.h"
#include "apps/limbeck_c.h"
#include "apps/model_io.h"
#include "datasets/palettes.h"
#include "datasets/scenes.h"
#include "models/weights.h"
#include "tests/harness/random_network.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;

namespace {

std::string saved_network(const test::TempDir& dir, const std::string& name, std::uint64_t seed = 7) {
  const auto model = test::random_network(name, seed);
  apps::ModelCard card;
  card.spec = model->spec();
  card.classes = datasets::numbered_classes(card.spec.classes);
  const auto path = dir.path() / fmt::format("{}{}.safetensors", name, seed);
  models::save_weights(*model, path, apps::to_metadata(card));
  return path.string();
}

struct Handle {
  explicit Handle(const std::string& path) { REQUIRE(limbeck_load(path.c_str(), &model) == LIMBECK_OK); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() { limbeck_free(model); }
  limbeck_model* model = nullptr;
};

bool says(const char* part) { return std::string(limbeck_last_error()).find(part) != std::string::npos; }

std::vector<std::uint8_t> segment(limbeck_model* model, const datasets::Image& image) {
  std::vector<std::uint8_t> ids(image.rgb.size() / 3, 99);
  REQUIRE(limbeck_segment(model, image.rgb.data(), image.rgb.size(), static_cast<int>(image.h),
                          static_cast<int>(image.w), ids.data(), ids.size()) == LIMBECK_OK);
  return ids;
}

}  // namespace

TEST_CASE("the C interface gives what the C++ library gives") {
  const test::TempDir dir;
  const std::string path = saved_network(dir, "mobilenet_v2_seg");
  const Handle handle(path);
  CHECK(limbeck_abi() == LIMBECK_C_ABI);
  CHECK(limbeck_class_count(handle.model) == 5);
  CHECK(std::string(limbeck_class_name(handle.model, 4)) == "class 4");
  CHECK(limbeck_class_name(handle.model, 5) == nullptr);
  CHECK(limbeck_class_name(handle.model, -1) == nullptr);
  std::uint8_t rgb[3] = {1, 2, 3};
  CHECK(limbeck_class_colour(handle.model, 1, rgb, sizeof rgb) == LIMBECK_OK);
  CHECK(rgb[0] == 128);
  CHECK(rgb[1] == 0);

  const datasets::Image image = datasets::make_scene({.seed = 4, .height = 50, .width = 70}, 0).image;
  const apps::LoadedModel loaded = apps::load_model(path);
  apps::InferenceOptions options;
  options.normalisation = datasets::Normalisation::imagenet();
  CHECK(segment(handle.model, image) == apps::predict_mask(apps::frozen(*loaded.model), image, options).ids);
  std::vector<float> scores(5 * 50 * 70);
  CHECK(limbeck_scores(handle.model, image.rgb.data(), image.rgb.size(), 50, 70, scores.data(), scores.size()) ==
        LIMBECK_OK);
  const auto ids = segment(handle.model, image);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    for (std::size_t k = 0; k < 5; ++k) CHECK_MESSAGE(scores[k * 3500 + i] <= scores[ids[i] * 3500 + i], i);
  }
}

TEST_CASE("the C interface refuses with a code and a text, and writes nothing") {
  const test::TempDir dir;
  limbeck_model* none = reinterpret_cast<limbeck_model*>(1);
  CHECK(limbeck_load((dir.path() / "missing.safetensors").c_str(), &none) == LIMBECK_WEIGHTS);
  CHECK(none == nullptr);
  CHECK(says("missing.safetensors"));
  CHECK(limbeck_load(nullptr, &none) == LIMBECK_USAGE);
  CHECK(limbeck_load("x", nullptr) == LIMBECK_USAGE);
  CHECK(limbeck_load(saved_network(dir, "resnet18").c_str(), &none) == LIMBECK_USAGE);
  CHECK(says("resnet18"));
  limbeck_free(nullptr);
  CHECK(limbeck_class_count(nullptr) == 0);

  const Handle handle(saved_network(dir, "mobilenet_v2_seg"));
  CHECK(std::string(limbeck_last_error()).empty());
  std::vector<std::uint8_t> rgb(40 * 40 * 3), ids(40 * 40, 77);
  const auto segment_sized = [&](std::size_t in, int h, int w, std::size_t out) {
    return limbeck_segment(handle.model, rgb.data(), in, h, w, ids.data(), out);
  };
  CHECK(segment_sized(rgb.size() - 1, 40, 40, ids.size()) == LIMBECK_USAGE);
  CHECK(says("4799"));
  CHECK(segment_sized(rgb.size(), 40, 40, ids.size() - 1) == LIMBECK_USAGE);
  CHECK(segment_sized(rgb.size(), 0, 40, ids.size()) == LIMBECK_USAGE);
  CHECK(segment_sized(rgb.size(), 40, -40, ids.size()) == LIMBECK_USAGE);
  CHECK(segment_sized(rgb.size(), 2147483647, 2147483647, ids.size()) == LIMBECK_USAGE);
  CHECK(limbeck_segment(nullptr, rgb.data(), rgb.size(), 40, 40, ids.data(), ids.size()) == LIMBECK_USAGE);
  CHECK(limbeck_segment(handle.model, nullptr, rgb.size(), 40, 40, ids.data(), ids.size()) == LIMBECK_USAGE);
  CHECK(limbeck_segment(handle.model, rgb.data(), rgb.size(), 40, 40, nullptr, ids.size()) == LIMBECK_USAGE);
  CHECK(std::all_of(ids.begin(), ids.end(), [](std::uint8_t id) { return id == 77; }));
  std::uint8_t colour[2];
  CHECK(limbeck_class_colour(handle.model, 0, colour, sizeof colour) == LIMBECK_USAGE);
  float score = 0;
  CHECK(limbeck_scores(handle.model, rgb.data(), rgb.size(), 40, 40, &score, 1) == LIMBECK_USAGE);
}

TEST_CASE("the C interface from many threads: one handle shared, one of its own, errors apart") {
  const test::TempDir dir;
  const std::string path = saved_network(dir, "mobilenet_v2_seg", 1), other = saved_network(dir, "mobilenet_v2_seg", 2);
  const Handle shared(path);
  const datasets::Image image = datasets::make_scene({.seed = 4, .height = 33, .width = 47}, 0).image;
  const auto expected = segment(shared.model, image);
  std::vector<std::uint8_t> expected_other;
  {
    const Handle handle(other);
    expected_other = segment(handle.model, image);
  }
  CHECK(expected != expected_other);
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      auto& bad = wrong[static_cast<std::size_t>(t)];
      limbeck_model* own = nullptr;
      if (limbeck_load(other.c_str(), &own) != LIMBECK_OK) ++bad;
      for (int k = 0; k < 5; ++k) {
        std::vector<std::uint8_t> a(expected.size()), b(expected.size());
        limbeck_model* lost = nullptr;
        if (limbeck_load(fmt::format("lost{}", t).c_str(), &lost) != LIMBECK_WEIGHTS ||
            !says(fmt::format("lost{}", t).c_str()))
          ++bad;
        if (limbeck_segment(shared.model, image.rgb.data(), image.rgb.size(), 33, 47, a.data(), a.size()) != LIMBECK_OK)
          ++bad;
        if (limbeck_segment(own, image.rgb.data(), image.rgb.size(), 33, 47, b.data(), b.size()) != LIMBECK_OK) ++bad;
        bad += (a != expected ? 1 : 0) + (b != expected_other ? 1 : 0);
      }
      limbeck_free(own);
    });
  }
  for (auto& t : threads) t.join();
  CHECK(wrong == std::vector<int>(4, 0));
}
