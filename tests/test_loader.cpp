// Batches must be the same for any number of workers, and after resuming; errors must name the sample.
#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <numeric>
#include <set>
#include <thread>

#include "core/memory.h"
#include "datasets/loader.h"
#include "datasets/normalise.h"
#include "tests/dataset_files.h"
#include "tests/harness/memory_limit.h"

using namespace limbeck;
using namespace limbeck::datasets;
using namespace limbeck::test;

namespace {

/// Samples made from their index; can fail, be of odd sizes, and be slow in an irregular way.
class FakeDataset final : public Dataset {
 public:
  explicit FakeDataset(std::size_t size) : size_(size) {}
  std::set<std::size_t> broken, odd_sized;
  bool irregular = false;

  [[nodiscard]] std::size_t size() const override { return size_; }
  [[nodiscard]] std::string name(std::size_t index) const override { return fmt::format("sample_{}", index); }
  [[nodiscard]] const ClassInfo& classes() const override { return classes_; }
  [[nodiscard]] Sample load(std::size_t index) const override {
    if (irregular) std::this_thread::sleep_for(std::chrono::microseconds(index * 7919 % 2000));
    if (broken.contains(index)) fail<DataError>("fake", "file of sample {} is damaged", index);
    const std::int64_t w = odd_sized.contains(index) ? 13 : 12;
    return {noise_image(10, w, index), noise_mask(10, w, 5, index), name(index)};
  }

 private:
  std::size_t size_;
  ClassInfo classes_{{"a"}, {{1, 2, 3}}};
};

LoaderOptions options_for(int workers) {
  LoaderOptions o;
  o.batch = 3;
  o.workers = workers;
  o.seed = 9;
  o.transform = TransformOptions::training(8, 8);
  o.transform.blur = 0.5;
  return o;
}

struct Copy {
  std::vector<float> images;
  std::vector<std::uint8_t> labels;
  std::vector<std::size_t> indices;
  std::int64_t epoch, position;
  friend bool operator==(const Copy&, const Copy&) = default;
};

Copy copy_of(const Batch& b) {
  return {b.images.to_vector<float>(), b.labels.to_vector<std::uint8_t>(), b.indices, b.epoch, b.position};
}

std::vector<Copy> take(Loader& loader, int count) {
  std::vector<Copy> out;
  for (int i = 0; i < count; ++i) {
    auto batch = loader.next();
    REQUIRE(batch.has_value());
    out.push_back(copy_of(*batch));
  }
  return out;
}

}  // namespace

TEST_CASE("loader: the same batches for any number of workers and any prefetch") {
  auto dataset = std::make_shared<FakeDataset>(17);
  dataset->irregular = true;
  Loader serial(dataset, options_for(0));
  CHECK(serial.batches_per_epoch() == 5);
  const auto expected = take(serial, 12);  // more than two epochs
  CHECK(expected[4].epoch == 0);
  CHECK(expected[5].epoch == 1);
  CHECK(expected[5].position == 0);
  for (const int workers : {1, 2, 5}) {
    for (const int prefetch : {1, 4}) {
      auto o = options_for(workers);
      o.prefetch = prefetch;
      Loader loader(dataset, o);
      CHECK(take(loader, 12) == expected);
    }
  }
  auto other_seed = options_for(0);
  other_seed.seed = 10;
  Loader other(dataset, other_seed);
  CHECK(take(other, 12) != expected);
}

TEST_CASE("loader: shapes and content") {
  const auto dataset = std::make_shared<FakeDataset>(4);
  LoaderOptions o;
  o.batch = 2;
  o.shuffle = false;
  Loader loader(dataset, o);
  const auto batch = loader.next();
  REQUIRE(batch.has_value());
  CHECK(batch->images.shape() == Shape{2, 3, 10, 12});
  CHECK(batch->images.is_dense());
  CHECK(batch->labels.shape() == Shape{2, 10, 12});
  CHECK(batch->labels.dtype() == DType::kU8);
  CHECK(batch->indices == std::vector<std::size_t>{0, 1});
  const Sample second = dataset->load(1);
  CHECK(batch->images.view().at<float>(1, 2, 3, 4) ==
        doctest::Approx((second.image.at(3, 4)[2] / 255.0 - 0.406) / 0.225).epsilon(1e-4));
  CHECK(batch->labels.view().at<std::uint8_t>(1, 3, 4) == second.mask.at(3, 4));
}

TEST_CASE("loader: pictures of bytes are the same pictures, rounded to whole levels before the normalisation") {
  for (const bool rounded : {false, true}) {
    for (const auto& normalisation : {Normalisation::imagenet(), Normalisation::bgr_mean()}) {
      LoaderOptions o = options_for(1);
      o.transform.normalisation = normalisation;
      o.transform.crop_h = o.transform.crop_w = 16;  // larger than the pictures: padding
      if (!rounded) {
        o.transform.scale_min = o.transform.scale_max = 1;
        o.transform.brightness = o.transform.contrast = o.transform.saturation = o.transform.blur = 0;
      }
      const auto set = std::make_shared<FakeDataset>(17);
      const Batch floats = *Loader(set, o).next();
      o.bytes = true;
      const Batch bytes = *Loader(set, o).next();
      CHECK(bytes.images.dtype() == DType::kU8);
      CHECK(bytes.labels.to_vector<std::uint8_t>() == floats.labels.to_vector<std::uint8_t>());
      const auto expected = floats.images.to_vector<float>();
      const auto got = normalise(bytes.images, normalisation, DType::kF32).to_vector<float>();
      REQUIRE(got.size() == expected.size());
      std::size_t other = 0;
      float worst = 0;
      for (std::size_t i = 0; i < got.size(); ++i) {
        other += got[i] != expected[i] ? 1 : 0;
        worst = std::max(worst, std::abs(got[i] - expected[i]));
      }
      CHECK((other > 0) == rounded);
      CHECK(worst <= 0.5001F * *std::max_element(normalisation.scale.begin(), normalisation.scale.end()));
    }
  }
  LoaderOptions o = options_for(0);
  o.bytes = o.transform.pad_zero = true;
  CHECK_CONTAINS(error_of<ConfigError>([&] { Loader(std::make_shared<FakeDataset>(17), o); }), "network's zero");
}

TEST_CASE("loader: each epoch is another permutation") {
  const auto dataset = std::make_shared<FakeDataset>(40);
  const Loader loader(dataset, options_for(0));
  std::vector<std::size_t> all(40);
  std::iota(all.begin(), all.end(), std::size_t{0});
  auto first = loader.epoch_order(0);
  const auto second = loader.epoch_order(1);
  CHECK(first != second);
  CHECK(first != all);
  CHECK(first == loader.epoch_order(0));
  std::sort(first.begin(), first.end());
  CHECK(first == all);
}

TEST_CASE("loader: resuming at epoch and position gives the batches that would have come") {
  const auto dataset = std::make_shared<FakeDataset>(17);
  Loader loader(dataset, options_for(2));
  const auto all = take(loader, 12);
  Loader resumed(dataset, options_for(3));
  resumed.start(1, 2);  // batch number 7
  CHECK(take(resumed, 5) == std::vector<Copy>(all.begin() + 7, all.end()));
  resumed.start(0, 3);  // and back again, with batches in flight
  CHECK(take(resumed, 4) == std::vector<Copy>(all.begin() + 3, all.begin() + 7));
  resumed.start(0, 5);  // the end of an epoch is the start of the next
  CHECK(take(resumed, 1)[0] == all[5]);
  CHECK_CONTAINS(error_of<Error>([&] { resumed.start(0, 6); }), "6");
}

TEST_CASE("loader: one pass for evaluation sees every sample once") {
  const auto dataset = std::make_shared<FakeDataset>(10);
  auto o = options_for(2);
  o.shuffle = o.drop_last = o.endless = false;
  o.batch = 4;
  o.transform = TransformOptions::evaluation();
  Loader loader(dataset, o);
  CHECK(loader.batches_per_epoch() == 3);
  std::vector<std::size_t> seen;
  while (const auto batch = loader.next()) {
    CHECK(batch->images.size(0) == static_cast<std::int64_t>(batch->indices.size()));
    seen.insert(seen.end(), batch->indices.begin(), batch->indices.end());
  }
  CHECK(seen == std::vector<std::size_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  CHECK_FALSE(loader.next().has_value());
  loader.start(0);  // a second pass
  CHECK(loader.next()->indices.size() == 4);
}

TEST_CASE("loader: two ranks with batch 2 see what one rank with batch 4 sees") {
  const auto dataset = std::make_shared<FakeDataset>(15);
  auto o = options_for(1);
  o.batch = 4;
  Loader whole(dataset, o);
  o.batch = 2;
  o.world = 2;
  Loader left(dataset, o);
  o.rank = 1;
  Loader right(dataset, o);
  REQUIRE(left.batches_per_epoch() == whole.batches_per_epoch());
  for (int i = 0; i < 8; ++i) {
    const Copy w = take(whole, 1)[0];
    Copy l = take(left, 1)[0];
    const Copy r = take(right, 1)[0];
    l.images.insert(l.images.end(), r.images.begin(), r.images.end());
    l.labels.insert(l.labels.end(), r.labels.begin(), r.labels.end());
    l.indices.insert(l.indices.end(), r.indices.begin(), r.indices.end());
    CHECK(l == w);
  }
  // Evaluation without padding: the ranks share the samples, none twice.
  std::multiset<std::size_t> seen;
  for (int rank = 0; rank < 2; ++rank) {
    auto e = options_for(1);
    e.shuffle = e.drop_last = e.endless = false;
    e.batch = 4;
    e.world = 2;
    e.rank = rank;
    Loader loader(std::make_shared<FakeDataset>(10), e);
    while (const auto batch = loader.next()) seen.insert(batch->indices.begin(), batch->indices.end());
  }
  CHECK(seen.size() == 10);
  CHECK(std::set<std::size_t>(seen.begin(), seen.end()).size() == 10);
}

TEST_CASE("loader: a worker's exception arrives at the consumer with the sample's name") {
  for (const int workers : {0, 1, 3}) {
    auto dataset = std::make_shared<FakeDataset>(9);
    dataset->broken = {4};
    auto o = options_for(workers);
    o.shuffle = false;
    Loader loader(dataset, o);
    CHECK(take(loader, 1)[0].indices[0] == 0);
    const std::string error = error_of([&] { (void)loader.next(); });
    for (const char* part : {"sample_4", "index 4", "damaged"}) CHECK_CONTAINS(error, part);
    CHECK(take(loader, 1)[0].indices[0] == 6);  // it can go on
  }
}

TEST_CASE("loader: samples of different sizes in one batch") {
  auto dataset = std::make_shared<FakeDataset>(6);
  dataset->odd_sized = {1};
  LoaderOptions o;
  o.batch = 3;
  o.shuffle = false;
  Loader loader(dataset, o);
  const std::string error = error_of([&] { (void)loader.next(); });
  for (const char* part : {"sample_0", "12x10", "sample_1", "13x10", "crop"}) CHECK_CONTAINS(error, part);
  o.batch = 1;
  Loader single(dataset, o);
  CHECK(single.next()->images.size(3) == 12);
  CHECK(single.next()->images.size(3) == 13);
  o.batch = 3;
  o.transform.resize_h = o.transform.resize_w = 8;
  Loader resized(dataset, o);
  CHECK(resized.next()->images.shape() == Shape{3, 3, 8, 8});
}

TEST_CASE("loader: options that make no sense") {
  const auto dataset = std::make_shared<FakeDataset>(3);
  LoaderOptions o;
  CHECK_CONTAINS(error_of<ConfigError>([&] { Loader(dataset, o); }), "3 samples give no full batch of 4");
  o.drop_last = false;
  CHECK_NOTHROW(Loader(dataset, o));
  o.batch = 0;
  CHECK_CONTAINS(error_of<ConfigError>([&] { Loader(dataset, o); }), "batch 0");
  o.batch = 1;
  o.rank = 2;
  CHECK_CONTAINS(error_of<ConfigError>([&] { Loader(dataset, o); }), "rank 2");
  o.rank = 0;
  o.transform.flip = 7;
  CHECK_CONTAINS(error_of<ConfigError>([&] { Loader(dataset, o); }), "flip");
  CHECK_CONTAINS(error_of<ConfigError>([&] { Loader(nullptr, LoaderOptions{}); }), "no dataset");
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // whose threads need memory that they must get
TEST_CASE("loader: a thread that the system does not start") {
  // Memory for the stacks of a few threads; the last of 256 find none.
  pthread_attr_t usual;
  REQUIRE(pthread_getattr_default_np(&usual) == 0);
  std::size_t stack = 0;
  REQUIRE(pthread_attr_getstacksize(&usual, &stack) == 0);
  pthread_attr_destroy(&usual);
  const auto data = std::make_shared<FakeDataset>(20);
  std::string message;
  {
    const MemoryLimit limit(4 * (stack >> 20U) + 4);
    try {
      const Loader loader(data, options_for(256));
    } catch (const Error& e) {
      message = e.what();
    }
  }
  CAPTURE(message);
  CHECK(contains(message, "of 256 cannot be started"));
  CHECK(contains(message, "data.workers"));
  CHECK_FALSE(contains(message, "worker 1 of"));  // some did run, and were joined
  CHECK(Loader(data, options_for(2)).next()->indices.size() == 3);
}
#endif

TEST_CASE("loader: may be destroyed at any time, and reuses its buffers") {
  auto dataset = std::make_shared<FakeDataset>(60);
  dataset->irregular = true;
  for (int i = 0; i < 10; ++i) {
    Loader loader(dataset, options_for(3));
    for (int k = 0; k < i % 3; ++k) (void)loader.next();
  }
  auto o = options_for(2);
  o.transform = TransformOptions::training(128, 128);
  Loader loader(dataset, o);
  for (int i = 0; i < 12; ++i) (void)loader.next();
  // How many batches are alive at once depends on timing, so a few late allocations are possible; 60 are not.
  const auto before = CpuAllocator::get().stats().system_allocations;
  for (int i = 0; i < 30; ++i) (void)loader.next();
  CHECK(CpuAllocator::get().stats().system_allocations <= before + 4);
}
