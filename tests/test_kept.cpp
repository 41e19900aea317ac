// A data set kept in memory gives the same samples, reads each one once, and passes errors on.
#include <doctest/doctest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "core/error.h"
#include "datasets/kept.h"

using namespace limbeck;
using namespace limbeck::datasets;

TEST_SUITE_BEGIN("kept");

namespace {

/// Counts how often it is asked; sample 2 is broken at first.
class Counting final : public Dataset {
 public:
  [[nodiscard]] std::size_t size() const override { return 4; }
  [[nodiscard]] std::string name(std::size_t index) const override { return "sample " + std::to_string(index); }
  [[nodiscard]] const ClassInfo& classes() const override { return classes_; }
  [[nodiscard]] Sample load(std::size_t index) const override {
    ++loads;
    if (index == 2 && broken) fail<DataError>("data", "sample 2 is broken");
    Sample s{Image(2, 3, {static_cast<std::uint8_t>(index), 1, 2}), Mask(2, 3, static_cast<std::uint8_t>(index)),
             name(index)};
    return s;
  }
  mutable std::atomic<int> loads = 0;
  mutable std::atomic<bool> broken = true;

 private:
  ClassInfo classes_{{"a", "b"}, {{1, 2, 3}, {4, 5, 6}}};
};

}  // namespace

TEST_CASE("each sample is read once, also by many threads") {
  const auto source = std::make_shared<Counting>();
  source->broken = false;
  const auto kept = keep_in_memory(source);
  CHECK(kept->size() == 4);
  CHECK(kept->name(1) == "sample 1");
  CHECK(kept->classes().count() == 2);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (std::size_t i = 0; i < kept->size(); ++i) static_cast<void>(kept->load(i));
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(source->loads == 4);
  const Sample a = kept->load(3);
  const Sample b = source->load(3);
  CHECK(a.image == b.image);
  CHECK(a.mask == b.mask);
  CHECK(a.name == b.name);
}

TEST_CASE("an error is not kept") {
  const auto source = std::make_shared<Counting>();
  const auto kept = keep_in_memory(source);
  CHECK_THROWS_AS(static_cast<void>(kept->load(2)), DataError);
  source->broken = false;
  CHECK(kept->load(2).name == "sample 2");
}

TEST_SUITE_END();
