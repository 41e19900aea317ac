// Philox known answers, independence of streams, distributions, and repeatability whatever the threads.
#include <doctest/doctest.h>

#include <cmath>
#include <set>
#include <vector>

#include "core/parallel.h"
#include "core/rng.h"

using namespace limbeck;

TEST_SUITE_BEGIN("rng");

TEST_CASE("Philox 4x32-10 known answers") {
  using Words = std::array<std::uint32_t, 4>;
  // The test vectors of Random123 (Salmon et al.).
  CHECK(philox4x32({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox4x32({~0U, ~0U, ~0U, ~0U}, {~0U, ~0U}) == Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("the i-th word depends on seed, stream and position only") {
  Generator g(5, 9);
  std::vector<std::uint32_t> words;
  for (int i = 0; i < 10; ++i) words.push_back(g.next_word());
  const Generator fresh(5, 9);
  for (std::uint64_t i = 0; i < 10; ++i) CHECK(fresh.word_at(i) == words[i]);
  CHECK(fresh.offset() == 0);
  Generator later(5, 9);
  later.set_offset(7);
  CHECK(later.next_word() == words[7]);
  CHECK(later.offset() == 8);
  Generator reserving(5, 9);
  const Generator block = reserving.reserve(4);
  CHECK(block.word_at(3) == words[3]);
  CHECK(reserving.next_word() == words[4]);
  CHECK(words[0] == philox4x32({0, 0, 9, 0}, {5, 0})[0]);
  CHECK(words[5] == philox4x32({1, 0, 9, 0}, {5, 0})[1]);
}

TEST_CASE("seeds, streams and far positions differ in all 64 bits") {
  std::set<std::uint32_t> first;
  for (const std::uint64_t bit : {0ULL, 1ULL, 1ULL << 31U, 1ULL << 32U, 1ULL << 63U}) {
    first.insert(Generator(bit, 0).word_at(0));
    first.insert(Generator(0, bit).word_at(0));
    first.insert(Generator(0, 0).word_at(bit));
  }
  CHECK(first.size() == 13);  // 15 minus the three equal (0, 0, 0)
  CHECK(mix_stream(1, 2) != mix_stream(2, 1));
  CHECK(mix_stream(1, 2, 0) != mix_stream(1, 2, 1));
  std::set<std::uint64_t> streams;
  for (std::uint64_t epoch = 0; epoch < 100; ++epoch) {
    for (std::uint64_t sample = 0; sample < 100; ++sample) streams.insert(mix_stream(epoch, sample));
  }
  CHECK(streams.size() == 10'000);
}

TEST_CASE("uniform and normal numbers have the right moments") {
  Generator g(11);
  constexpr int kCount = 200'000;
  double sum = 0, square = 0, lowest = 1, highest = 0;
  for (int i = 0; i < kCount; ++i) {
    const double u = g.uniform();
    lowest = std::min(lowest, u);
    highest = std::max(highest, u);
    sum += u;
    square += u * u;
  }
  CHECK(lowest >= 0);
  CHECK(highest < 1);
  CHECK(highest > 0.9999);
  CHECK(std::abs(sum / kCount - 0.5) < 0.003);  // 4.6 standard errors
  CHECK(std::abs(square / kCount - 1.0 / 3) < 0.003);
  double s1 = 0, s2 = 0, s3 = 0, s4 = 0, outside = 0;
  for (int i = 0; i < kCount; ++i) {
    const double x = g.normal();
    REQUIRE(std::isfinite(x));
    s1 += x;
    s2 += x * x;
    s3 += x * x * x;
    s4 += x * x * x * x;
    outside += std::abs(x) > 1.959964 ? 1 : 0;
  }
  CHECK(std::abs(s1 / kCount) < 0.011);
  CHECK(std::abs(s2 / kCount - 1) < 0.016);
  CHECK(std::abs(s3 / kCount) < 0.05);
  CHECK(std::abs(s4 / kCount - 3) < 0.12);
  CHECK(std::abs(outside / kCount - 0.05) < 0.0025);
}

TEST_CASE("below() covers its range evenly") {
  Generator g(2);
  std::vector<int> count(7, 0);
  for (int i = 0; i < 70'000; ++i) ++count[g.below(7)];
  for (const int c : count) CHECK(std::abs(c - 10'000) < 450);
  for (int i = 0; i < 100; ++i) CHECK(g.below(1) == 0);
  bool large = false;
  for (int i = 0; i < 100; ++i) large = large || g.below(~0ULL) > (1ULL << 63U);
  CHECK(large);
  CHECK(to_unit_float(0) == 0.0F);
  CHECK(to_unit_float(~0U) < 1.0F);
}

TEST_CASE("fills do not depend on threads or layout, and advance the generator") {
  const int threads = max_threads();
  const Shape shape{2, 5, 37, 41};
  std::vector<std::vector<float>> results;
  for (const int count : {1, 2, 3}) {
    set_threads(count);
    Generator g(4);
    const Tensor t = Tensor::empty(shape);
    fill_normal_(t, g, 1.0, 2.0);
    results.push_back(t.to_vector<float>());
  }
  set_threads(threads);
  Generator g(4);
  const Tensor row_major = Tensor::empty_strided(shape, row_major_strides(shape), DType::kF32);
  fill_normal_(row_major, g, 1.0, 2.0);
  CHECK(results[0] == results[1]);
  CHECK(results[0] == results[2]);
  CHECK(results[0] == row_major.to_vector<float>());
  const Tensor next = Tensor::empty({4});
  fill_uniform_(next, g, -3, -2);
  const auto u = next.to_vector<float>();
  for (const float x : u) CHECK((x >= -3 && x < -2));
  const Tensor more = Tensor::empty({4});
  fill_uniform_(more, g, -3, -2);
  CHECK(more.to_vector<float>() != u);
  const Tensor f64 = Tensor::empty({4}, DType::kF64);
  Generator same(4);
  Generator same_again(4);
  fill_normal_(f64, same, 0, 1);
  const Tensor f32 = Tensor::empty({4});
  fill_normal_(f32, same_again, 0, 1);
  for (std::size_t i = 0; i < 4; ++i)
    CHECK(f32.to_vector<float>()[i] == static_cast<float>(f64.to_vector<double>()[i]));
}

TEST_SUITE_END();
