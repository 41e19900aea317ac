// Inputs for the cross entropy.
#include "ops/cross_entropy.h"
#include "tests/cases/all_cases.h"

namespace limbeck::test {
namespace {

/// The same ids as another integer type, with another ignored id.
template <class T>
Tensor relabel(const Tensor& u8, T ignored) {
  std::vector<T> ids;
  for (const auto id : u8.to_vector<std::uint8_t>()) ids.push_back(id == 255 ? ignored : static_cast<T>(id));
  return Tensor::from(ids, u8.shape());
}

Shape label_shape(const Shape& logits) {
  return logits.size() == 4 ? Shape{logits[0], logits[2], logits[3]} : Shape{logits[0]};
}

OpCase make(const char* label, const Shape& shape, double ignored = 0.2, double smoothing = 0.0, bool weights = false) {
  OpCase c;
  c.op = "cross_entropy";
  c.label = label;
  c.inputs = [=](Generator& g) {
    std::vector<Tensor> in{random_normal(g, shape), random_labels(g, label_shape(shape), shape[1], ignored)};
    if (weights) in.push_back(random_uniform(g, {shape[1]}, 0.25, 2.0));
    return in;
  };
  c.forward = [=](std::span<const Tensor> in) {
    ops::CrossEntropyOptions options;
    options.label_smoothing = smoothing;
    if (weights) options.class_weights = in[2];
    return ops::cross_entropy(in[0], in[1], options);
  };
  if (weights) c.fixed = {2};
  return c;
}

template <class T>
OpCase with_label_type(const char* label, T ignored) {
  OpCase c = make(label, {2, 5, 6, 7});
  c.inputs = [=](Generator& g) {
    return std::vector<Tensor>{random_normal(g, {2, 5, 6, 7}), relabel(random_labels(g, {2, 6, 7}, 5, 0.3), ignored)};
  };
  c.forward = [=](std::span<const Tensor> in) {
    ops::CrossEntropyOptions options;
    options.ignore_index = static_cast<std::int64_t>(ignored);
    return ops::cross_entropy(in[0], in[1], options);
  };
  return c;
}

}  // namespace

std::vector<OpCase> cross_entropy_cases() {
  return {
      make("C=3", {2, 3, 4, 5}),
      make("C=19, N=1, several tiles", {1, 19, 13, 11}),
      make("C=21, nothing ignored", {2, 21, 5, 5}, 0.0),
      make("C=11, one pixel", {1, 11, 1, 1}, 0.0),
      make("C=1", {2, 1, 3, 5}),
      make("everything ignored", {2, 19, 4, 5}, 1.1),
      make("[N,K]", {9, 10}),
      make("label smoothing", {2, 11, 4, 5}, 0.2, 0.1),
      make("class weights", {2, 11, 4, 5}, 0.2, 0.0, true),
      make("class weights and label smoothing", {2, 19, 5, 7}, 0.2, 0.1, true),
      make("several blocks", {2, 19, 31, 33}, 0.1),
      with_label_type<std::int32_t>("i32 labels, ignore -1", -1),
      with_label_type<std::int64_t>("i64 labels, ignore -100", -100),
      with_label_type<std::uint8_t>("an ignored id that is a class", 2),
  };
}

}  // namespace limbeck::test
