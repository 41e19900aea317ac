// Tutorial 1: tensors. What they are, how they lie in memory, when bytes are shared, which element types exist.
//
// Read it from top to bottom; run it with `ctest --test-dir build -R tutorial_01 -V`. Next: 02_autograd.cpp.
// Each section says a thing and then checks it: expect(condition, sentence) prints the sentence, and the program fails where it
// is not so. Operations are in the namespace `ops`, one header per family.
#include <vector>

#include "core/tensor.h"
#include "ops/copy.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "ops/slice.h"
#include "tests/tutorial/expect.h"

using namespace limbeck;
using tutorial::expect;
using tutorial::section;

namespace {

void shapes_and_memory() {
  section("1. A shape is logical, the memory order is another matter");
  // A feature map is always indexed sample, channel, row, column: N, C, H, W. Values are given in that order too.
  const Tensor map = Tensor::from(std::vector<float>{0, 1, 2, 3, 4, 5,         // channel 0: two rows of three
                                                     10, 11, 12, 13, 14, 15},  // channel 1
                                  {1, 2, 2, 3});
  fmt::print("  {}, strides {}\n", map.describe(), map.strides());
  expect(map.view().at<float>(0, 1, 0, 2) == 12, "element (n 0, c 1, h 0, w 2) is 12");

  // But limbeck stores maps channels-last: the channels of a pixel are neighbours. The strides say so: one step along
  // C is one element, one step along W is C elements, one step along H is W * C elements.
  expect(map.strides() == Strides{12, 1, 6, 2}, "strides are H*W*C, 1, W*C, C");
  const float* memory = map.data<float>();
  expect(memory[0] == 0 && memory[1] == 10 && memory[2] == 1, "memory begins with both channels of pixel (0,0)");

  // Why: a 1x1 convolution becomes one matrix product over pixels, a per-pixel softmax reads one run of memory, and the
  // matrix units of CPUs and GPUs want exactly this. All other ranks (matrices, vectors) are row-major.
  expect(Tensor::empty({4, 3}).strides() == Strides{3, 1}, "a matrix is row-major");

  // to_vector() hides the layout again: it returns logical order.
  expect(map.to_vector<float>()[6] == 10, "to_vector() gives logical order: index 6 is channel 1's first element");

  // A tensor in another layout is legal; dense() brings it into the usual one. Ops do that for you.
  const Tensor planes = Tensor::empty_strided(map.shape(), row_major_strides(map.shape()), DType::kF32);
  planes.copy_(map);
  expect(planes.data<float>()[1] == 1 && !planes.is_dense(), "a row-major copy has other memory and is not `dense`");
  expect(planes.dense().data<float>()[1] == 10, "dense() returns a channels-last copy");
}

void handles_and_views() {
  section("2. A Tensor is a handle; views share bytes");
  const Tensor x = Tensor::from(std::vector<float>{0, 1, 2, 3, 4, 5}, {2, 3});
  const Tensor same = x;  // copies a pointer, not the data
  same.fill_(7);
  expect(x.to_vector<float>()[0] == 7, "a copied handle refers to the same array");
  const Tensor other = x.copy();
  other.fill_(1);
  expect(x.to_vector<float>()[0] == 7, "copy() makes an independent array");

  // slice, permute and (where possible) reshape only compute new strides.
  const Tensor second_row = ops::slice(x, 0, 1, 2);
  second_row.fill_(-1);
  expect(x.to_vector<float>()[3] == -1, "a slice is a window onto the original");
  const Tensor turned = ops::permute(x, {1, 0});
  fmt::print("  permute: {} with strides {}\n", turned.shape(), turned.strides());
  expect(turned.raw_data() == x.raw_data(), "permute moves no data");

  // Flattening a channels-last map to [N, C*H*W] has to reorder elements, so it copies. Its pixels as a matrix
  // [N, H*W, C] are a view: that is how they lie in memory.
  const Tensor map = Tensor::zeros({2, 3, 4, 5});
  expect(ops::reshape(map, {2, 60}).raw_data() != map.raw_data(), "map -> [N, C*H*W] copies");
  const Tensor pixels = ops::reshape(ops::permute(map, {0, 2, 3, 1}), {2, 20, 3});
  expect(pixels.raw_data() == map.raw_data(), "map -> pixels [N, H*W, C] is a view");

  // Every write through any handle raises the version of the shared storage. Tutorial 2 shows what that is for.
  const auto before = x.version();
  ops::add_(second_row, Tensor::scalar(1));
  expect(x.version() == before + 1, "a write through the slice raised the version of the whole storage");
}

void element_types() {
  section("3. Element types");
  // f32 for parameters and statistics, bf16 for fast convolutions, f64 only for reference kernels and gradient checks,
  // integers for labels. There is no implicit mixing; cast() says what you mean.
  const Tensor x = Tensor::from(std::vector<float>{1.0F, 1.001F, 3.14159F}, {3});
  const Tensor low = ops::cast(x, DType::kBF16);
  const auto v = low.to_vector<float>();
  fmt::print("  1.001 -> {}, 3.14159 -> {} in bf16\n", v[1], v[2]);
  // bf16 has f32's exponent and 8 bits of precision: about 2 to 3 decimal digits.
  expect(v[1] == 1.0F && v[2] == 3.140625F, "bf16 rounds to the nearest of its few numbers");
  const Tensor tiny = Tensor::full({1}, 1e-30);
  expect(ops::cast(tiny, DType::kBF16).item() > 0, "but it keeps the range of f32: 1e-30 survives");
  const std::string error = tutorial::message_of([&] { (void)ops::add(x, low); });
  expect(error.find("f32") != std::string::npos, "adding f32 and bf16 is an error that names both");
  // Sums of bf16 numbers are accumulated and returned in f32: the precision of the sum is not thrown away.
  expect(ops::sum(low).dtype() == DType::kF32, "the sum of a bf16 tensor is f32");
}

void broadcasting() {
  section("4. Broadcasting");
  // Shapes are aligned at the last dimension; a size of 1 is repeated. A per-channel factor is [1, C, 1, 1].
  const Tensor map = Tensor::full({2, 3, 4, 5}, 1.0);
  const Tensor factor = Tensor::from(std::vector<float>{1, 10, 100}, {1, 3, 1, 1});
  const Tensor y = ops::mul(map, factor);
  expect(y.shape() == map.shape() && ops::sum(y).item() == 2 * 20 * 111, "one factor per channel");
  const std::string error = tutorial::message_of([&] { (void)ops::mul(map, Tensor::zeros({3})); });
  expect(error.find("[2, 3, 4, 5]") != std::string::npos,
         "a [3] is aligned with W, not C: the error shows both shapes");
}

void meta_device() {
  section("5. The meta device: shapes without data");
  // A tensor on `meta` has a shape and no bytes. Ops compute shapes and skip their kernels: so `limbeck summary` prints a
  // network of a hundred megabytes in no time and memory.
  const Tensor big = Tensor::empty({64, 2048, 512, 512}, DType::kF32, kMeta);
  const Tensor y = ops::mean(ops::relu(big), {2, 3});
  fmt::print("  relu and mean of {} -> {}\n", big.describe(), y.describe());
  expect(y.shape() == Shape{64, 2048} && y.raw_data() == nullptr, "the result has a shape and no memory");
}

}  // namespace

int main() {
  shapes_and_memory();
  handles_and_views();
  element_types();
  broadcasting();
  meta_device();
  return tutorial::result();
}
