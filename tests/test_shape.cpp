// Shapes, strides, broadcasting.
#include <doctest/doctest.h>

#include "core/shape.h"

using namespace limbeck;

TEST_SUITE_BEGIN("shape");

TEST_CASE("a shape holds up to six sizes") {
  Shape s{2, 3, 4};
  CHECK(s.size() == 3);
  CHECK(s.numel() == 24);
  CHECK(s.to_string() == "[2, 3, 4]");
  CHECK(fmt::format("{}", s) == "[2, 3, 4]");
  s.push_back(5);
  CHECK(s == Shape{2, 3, 4, 5});
  CHECK(!(s == Shape{2, 3, 4}));
  CHECK(!(Shape{2, 3} == Shape{3, 2}));
  s.resize(2);
  CHECK(s == Shape{2, 3});
  s.resize(4);
  CHECK(s == Shape{2, 3, 0, 0});  // grown entries are zero even if there was something before
  CHECK(Shape{}.numel() == 1);
  CHECK(Shape{}.to_string() == "[]");
  CHECK(Shape{4, 0, 2}.numel() == 0);
  CHECK_THROWS_AS((Shape{1, 2, 3, 4, 5, 6, 7}), Error);
  Shape full{1, 2, 3, 4, 5, 6};
  CHECK_THROWS_AS(full.push_back(7), Error);
  CHECK_THROWS_AS(full.resize(7), Error);
}

TEST_CASE("strides") {
  CHECK(row_major_strides({2, 3, 4, 5}) == Strides{60, 20, 5, 1});
  CHECK(channels_last_strides({2, 3, 4, 5}) == Strides{60, 1, 15, 3});
  CHECK(default_strides({2, 3, 4, 5}) == Strides{60, 1, 15, 3});
  CHECK(default_strides({2, 3, 4}) == Strides{12, 4, 1});
  CHECK(default_strides({}) == Strides{});
  CHECK(row_major_strides({2, 0, 4}) == Strides{4, 4, 1});  // no zero strides, no division by zero later
  CHECK_THROWS_AS(static_cast<void>(channels_last_strides({2, 3})), Error);
}

TEST_CASE("broadcasting follows NumPy") {
  CHECK(broadcast_shapes("add", {2, 3, 4}, {4}) == Shape{2, 3, 4});
  CHECK(broadcast_shapes("add", {4}, {2, 3, 1}) == Shape{2, 3, 4});
  CHECK(broadcast_shapes("add", {}, {5, 6}) == Shape{5, 6});
  CHECK(broadcast_shapes("add", {3, 1}, {1, 4}) == Shape{3, 4});
  CHECK(broadcast_shapes("add", {1}, {0}) == Shape{0});
  CHECK_THROWS_WITH_AS(static_cast<void>(broadcast_shapes("add", {2, 3}, {2, 4})),
                       "[add] shapes [2, 3] and [2, 4] do not broadcast: 3 against 4", Error);
  CHECK_THROWS_AS(static_cast<void>(broadcast_shapes("add", {0}, {2})), Error);
}

TEST_SUITE_END();
