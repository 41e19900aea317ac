// Scores against hand-made numbers and against a slow count.
#include <cmath>

#include "core/parallel.h"
#include "datasets/metrics.h"
#include "tests/dataset_files.h"

using namespace limbeck;
using namespace limbeck::datasets;
using namespace limbeck::test;

TEST_CASE("metrics: a small example by hand") {
  ConfusionMatrix m(3);
  //  truth 0: three pixels, two right, one taken for 1; truth 1: two pixels, one right, one taken for 2; one ignored
  m.update(mask_of({0, 0, 0, 1, 1, 255}), mask_of({0, 0, 1, 1, 2, 0}));
  CHECK(m.at(0, 0) == 2);
  CHECK(m.at(0, 1) == 1);
  CHECK(m.at(1, 2) == 1);
  CHECK(m.ignored() == 1);
  const Metrics r = m.compute();
  CHECK(r.pixels == 5);
  CHECK(r.ignored == 1);
  CHECK(r.iou[0] == doctest::Approx(2.0 / 3.0));
  CHECK(r.iou[1] == doctest::Approx(1.0 / 3.0));
  CHECK(r.iou[2] == doctest::Approx(0.0));  // predicted but never true: counts as 0, is not left out
  CHECK(r.miou == doctest::Approx(1.0 / 3.0));
  CHECK(r.pixel_accuracy == doctest::Approx(3.0 / 5.0));
  CHECK(r.mean_class_accuracy == doctest::Approx(0.5 * (2.0 / 3.0 + 0.5)));
  CHECK(r.weighted_iou == doctest::Approx(0.6 * 2.0 / 3.0 + 0.4 * 1.0 / 3.0));
  CHECK(r.classes_averaged == 3);
  CHECK(std::isnan(r.class_accuracy[2]));
}

TEST_CASE("metrics: classes that occur nowhere are left out and counted, and nothing is NaN") {
  ConfusionMatrix m(19);
  m.update(mask_of({4, 4, 7}), mask_of({4, 7, 7}));
  const Metrics r = m.compute();
  CHECK(r.miou == doctest::Approx(0.5));
  CHECK(r.classes_averaged == 2);
  CHECK(r.classes_excluded == 17);
  CHECK(std::isnan(r.iou[0]));
  // As TorchDistiller counts: intersections over max(1, union), averaged over all classes.
  const Metrics zero = m.compute(AbsentClasses::kZero);
  CHECK(zero.miou == doctest::Approx(2 * 0.5 / 19));
  CHECK(zero.classes_averaged == 19);
  CHECK(zero.classes_excluded == 0);
  CHECK(zero.iou[0] == 0);
  CHECK(zero.iou[4] == r.iou[4]);
  CHECK(zero.mean_class_accuracy == r.mean_class_accuracy);
  CHECK_CONTAINS(summary_line(zero), "mIoU 5.26 (19 of 19 classes)");
  const Metrics empty = ConfusionMatrix(3).compute();
  CHECK(empty.miou == 0);
  CHECK(empty.pixel_accuracy == 0);
  CHECK(empty.mean_class_accuracy == 0);
  CHECK(empty.classes_excluded == 3);
  ConfusionMatrix ignored(3);
  ignored.update(mask_of({255, 255}), mask_of({0, 200}));  // predictions under ignored pixels do not matter
  CHECK(ignored.compute().miou == 0);
  CHECK(ignored.compute().ignored == 2);
}

TEST_CASE("metrics: tensors of every id type, any thread count, merging") {
  constexpr std::int64_t kClasses = 21;
  const Mask truth = noise_mask(300, 401, kClasses, 1);
  Mask with_ignore = truth;
  for (std::size_t i = 0; i < with_ignore.ids.size(); i += 7) with_ignore.ids[i] = kIgnoreId;
  const Mask prediction = noise_mask(300, 401, kClasses, 2);
  ConfusionMatrix slow(kClasses);
  slow.update(with_ignore, prediction);

  const std::vector<std::int64_t> wide(prediction.ids.begin(), prediction.ids.end());
  const Tensor t = Tensor::from(with_ignore.ids, {1, 300, 401});
  const Tensor p8 = Tensor::from(prediction.ids, {1, 300, 401});
  const Tensor p64 = Tensor::from(wide, {1, 300, 401});
  const int threads = max_threads();
  for (const int n : {1, 2, 5}) {
    set_threads(n);
    ConfusionMatrix a(kClasses);
    a.update(t, p8);
    ConfusionMatrix b(kClasses);
    b.update(t, p64);
    CHECK(std::equal(a.counts().begin(), a.counts().end(), slow.counts().begin()));
    CHECK(std::equal(b.counts().begin(), b.counts().end(), slow.counts().begin()));
    CHECK(a.ignored() == slow.ignored());
    a.merge(b);
    CHECK(a.at(3, 4) == 2 * slow.at(3, 4));
    CHECK(a.ignored() == 2 * slow.ignored());
  }
  set_threads(threads);
  const ConfusionMatrix back = ConfusionMatrix::from_tensor(slow.to_tensor(), kClasses);
  CHECK(std::equal(back.counts().begin(), back.counts().end(), slow.counts().begin()));
  CHECK(back.ignored() == slow.ignored());
}

TEST_CASE("metrics: counts beyond 32 bits") {
  ConfusionMatrix m(2);
  m.update(mask_of({0, 1}), mask_of({0, 0}));
  for (int i = 0; i < 33; ++i) m.merge(ConfusionMatrix(m));  // doubles each time
  CHECK(m.at(0, 0) == (std::uint64_t{1} << 33U));
  CHECK(m.compute().pixel_accuracy == doctest::Approx(0.5));
  CHECK(ConfusionMatrix::from_tensor(m.to_tensor(), 2).at(1, 0) == (std::uint64_t{1} << 33U));
}

TEST_CASE("metrics: ids out of range and wrong shapes") {
  ConfusionMatrix m(3);
  CHECK_CONTAINS(error_of([&] { m.update(mask_of({0, 3}), mask_of({0, 0})); }), "truth id 3 at element 1");
  CHECK_CONTAINS(error_of([&] { m.update(mask_of({0, 0}), mask_of({0, 255})); }), "predicted id 255");
  const Tensor truth = Tensor::from(std::vector<std::uint8_t>{0, 1, 0, 2}, {1, 2, 2});
  const Tensor negative = Tensor::from(std::vector<std::int64_t>{0, 1, -1, 2}, {1, 2, 2});
  CHECK_CONTAINS(error_of([&] { m.update(truth, negative); }), "-1");
  CHECK(m.compute().pixels == 0);  // a rejected update leaves the matrix as it was
  CHECK_CONTAINS(error_of<Error>([&] { m.update(truth, Tensor::zeros({1, 2, 3}, DType::kU8)); }), "[1, 2, 3]");
  CHECK_CONTAINS(error_of<Error>([&] { m.update(truth, Tensor::zeros({1, 2, 2})); }), "f32");
}

TEST_CASE("metrics: text") {
  ConfusionMatrix m(2);
  m.update(mask_of({0, 0, 0, 1}), mask_of({0, 0, 0, 1}));
  const ClassInfo info{{"road", "sky"}, {{1, 1, 1}, {2, 2, 2}}};
  const std::string text = metrics_table(m.compute(), m, info);
  for (const char* part : {"road", "100.00", "75.00", "mIoU 100.00 (2 of 2 classes)"}) CHECK_CONTAINS(text, part);
}
