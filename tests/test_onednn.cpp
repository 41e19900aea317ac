// core/onednn: descriptors, post-operations, reorders, and that a steady state creates no primitives.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "core/memory.h"
#include "core/onednn/primitive.h"

using namespace limbeck;

TEST_SUITE_BEGIN("onednn");

namespace {

using onednn::Attributes;
using onednn::Desc;
using onednn::Primitive;

/// c = post(a b) for [2,3] x [3,2].
std::vector<float> multiply(const Attributes& attributes, std::vector<float> c) {
  const Desc a = onednn::dense_desc({2, 3}, DType::kF32);
  const Desc b = onednn::dense_desc({3, 2}, DType::kF32);
  const Desc y = onednn::dense_desc({2, 2}, DType::kF32);
  const auto pd = onednn::compat::matmul(onednn::engine(), a, b, Desc(), y, attributes.build());
  Primitive p(pd, {{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, y}});
  const std::vector<float> av{1, 2, 3, -4, -5, -6};
  const std::vector<float> bv{1, 0, 0, 1, 1, 1};
  p.run({{DNNL_ARG_DST, c.data()}, {DNNL_ARG_SRC, av.data()}, {DNNL_ARG_WEIGHTS, bv.data()}});  // any order
  return c;
}

}  // namespace

TEST_CASE("descriptors follow the view") {
  const Tensor x = Tensor::empty({2, 3, 4, 5}, DType::kBF16);
  CHECK(onednn::desc_of(x.view()) == Desc({2, 3, 4, 5}, dnnl::memory::data_type::bf16, dnnl::memory::format_tag::nhwc));
  CHECK(onednn::dense_desc({2, 3, 4, 5}, DType::kBF16) == onednn::desc_of(x.view()));
  const Tensor rows = Tensor::empty_strided({2, 3, 4, 5}, row_major_strides({2, 3, 4, 5}), DType::kF32);
  CHECK(onednn::desc_of(rows.view()) ==
        Desc({2, 3, 4, 5}, dnnl::memory::data_type::f32, dnnl::memory::format_tag::nchw));
  CHECK(onednn::vector_desc(7, DType::kF32).get_size() == 28);
  CHECK_THROWS_WITH_AS(static_cast<void>(onednn::type_of(DType::kF64)), doctest::Contains("f64 runs the reference"),
                       Error);
}

TEST_CASE("post-operations run in call order") {
  CHECK(multiply(Attributes(), {9, 9, 9, 9}) == std::vector<float>{4, 5, -10, -11});
  CHECK(multiply(Attributes().relu(), {9, 9, 9, 9}) == std::vector<float>{4, 5, 0, 0});
  CHECK(multiply(Attributes().sum().clip(0, 6), {1, 9, 20, 10}) == std::vector<float>{5, 6, 6, 0});
  CHECK(multiply(Attributes().clip(0, 6).sum(), {1, 9, 20, 10}) == std::vector<float>{5, 14, 20, 10});
}

TEST_CASE("a missing argument is reported") {
  const Desc y = onednn::vector_desc(4, DType::kF32);
  const dnnl::reorder::primitive_desc pd(onednn::engine(), y, onednn::engine(), y, Attributes().build());
  Primitive p(pd, {{DNNL_ARG_FROM, y}, {DNNL_ARG_TO, y}});
  const std::vector<float> from(4);
  CHECK_THROWS_WITH_AS(p.run({{DNNL_ARG_FROM, from.data()}}), doctest::Contains("1 of 2 arguments"), Error);
  CHECK_THROWS_AS(static_cast<void>(p.desc(DNNL_ARG_BIAS)), Error);
  CHECK(p.desc(DNNL_ARG_TO) == y);
}

TEST_CASE("reorder changes layout and type") {
  const std::vector<float> rows{1, 2, 3, 4, 5, 6};  // [2,3] row-major
  std::vector<float> columns(6);
  onednn::reorder(onednn::strided_desc({2, 3}, {3, 1}, DType::kF32), rows.data(),
                  onednn::strided_desc({2, 3}, {1, 2}, DType::kF32), columns.data());
  CHECK(columns == std::vector<float>{1, 4, 2, 5, 3, 6});
  std::vector<bfloat16> low(6);
  onednn::reorder(onednn::vector_desc(6, DType::kF32), rows.data(), onednn::vector_desc(6, DType::kBF16), low.data());
  CHECK(static_cast<float>(low[4]) == 5.0F);
}

TEST_CASE("a cache makes each primitive once and forgets the oldest") {
  struct Key {
    std::int64_t size;
  };
  LruCache<Key, Primitive> cache(2);
  const auto copy = [&](std::int64_t size) {
    std::vector<float> from(static_cast<std::size_t>(size), 3.0F);
    std::vector<float> to(from.size());
    Primitive& p = cache.get(Key{size}, [&] {
      const Desc d = onednn::vector_desc(size, DType::kF32);
      const dnnl::reorder::primitive_desc pd(onednn::engine(), d, onednn::engine(), d, Attributes().build());
      return Primitive(pd, {{DNNL_ARG_FROM, d}, {DNNL_ARG_TO, d}});
    });
    p.run({{DNNL_ARG_FROM, from.data()}, {DNNL_ARG_TO, to.data()}});
    CHECK(std::count(to.begin(), to.end(), 3.0F) == size);
  };
  for (int step = 0; step < 5; ++step) {
    copy(10);
    copy(20);
  }
  CHECK(cache.misses() == 2);
  CHECK(cache.hits() == 8);
  copy(30);
  copy(20);
  CHECK(cache.misses() == 3);
  copy(10);
  CHECK(cache.misses() == 4);
}

TEST_SUITE_END();
