// Classification: class folders, batches with one label per picture, top-k, the objective on logits [N,K].
#include <cmath>
#include <memory>

#include "core/autograd.h"
#include "datasets/check_data.h"
#include "datasets/class_folder.h"
#include "datasets/loader.h"
#include "datasets/top_k.h"
#include "distill/distiller.h"
#include "distill/pixel_kd.h"
#include "models/zoo.h"
#include "ops/cross_entropy.h"
#include "tests/dataset_files.h"

using namespace limbeck;
using namespace limbeck::datasets;
using namespace limbeck::test;

namespace {

DatasetSpec spec_of(const std::filesystem::path& root, const char* split = "train") {
  DatasetSpec spec;
  spec.kind = "image_folder";
  spec.root = root;
  spec.split = split;
  return spec;
}

distill::Term term_of(const char* yaml) {
  const Config config = Config::parse(yaml, "test");
  distill::Term term;
  term.loss = distill::make_loss(config);
  term.name = config.get<std::string>("loss");
  term.student_tap = config.get("student", "logits");
  term.teacher_tap = config.get("teacher", "logits");
  return term;
}

}  // namespace

TEST_CASE("image_folder: classes are folders, numbered alike in every split") {
  const TempFolder folder;
  write_image(folder / "train/b/1.png", noise_image(4, 6, 1));
  write_image(folder / "train/a/2.JPEG", noise_image(4, 6, 2));
  write_image(folder / "train/a/deep/3.jpg", noise_image(4, 6, 3));
  write_image(folder / "val/b/4.png", noise_image(4, 6, 4));
  const auto train = make_dataset(spec_of(folder.path()));
  REQUIRE(train->size() == 3);
  CHECK(train->target() == Target::kImage);
  CHECK(train->classes().names == std::vector<std::string>{"a", "b"});
  CHECK(train->load(2).label == 1);
  CHECK(train->load(2).image == noise_image(4, 6, 1));
  CHECK(train->name(2) == "b/1");
  CHECK(train->load(2).mask.ids.empty());
  const auto val = make_dataset(spec_of(folder.path(), "val"));
  CHECK(val->load(0).label == 1);  // although "b" is the only folder here
  CHECK(make_dataset(spec_of(folder.path(), "train+val"))->size() == 4);
  auto limited = spec_of(folder.path());
  limited.limit = 2;
  CHECK(make_dataset(limited)->load(1).label == 0);
  CHECK(make_dataset(limited)->size() == 2);

  write_image(folder / "val/c/5.png", noise_image(4, 6, 5));
  CHECK_CONTAINS(error_of([&] { (void)make_dataset(spec_of(folder.path(), "val")); }), "none of the 2 classes");
  std::filesystem::remove_all(folder.path() / "val/c");
  write_image(folder / "val/6.png", noise_image(4, 6, 5));
  CHECK_CONTAINS(error_of([&] { (void)make_dataset(spec_of(folder.path(), "val")); }), "6.png");
  CHECK_CONTAINS(error_of([&] { (void)make_dataset(spec_of(folder.path(), "test")); }), "test");
  std::filesystem::create_directories(folder.path() / "empty/train");
  CHECK_CONTAINS(error_of([&] { (void)make_dataset(spec_of(folder.path() / "empty")); }), "one per class");
}

TEST_CASE("image_folder: check-data counts pictures, and finds damage and leaks") {
  const TempFolder folder;
  for (int i = 0; i < 6; ++i) {
    const auto seed = static_cast<std::uint64_t>(i);
    write_image(folder / fmt::format("train/{}/{}.png", i < 4 ? "a" : "b", i), noise_image(4, 6, seed));
    write_image(folder / fmt::format("val/{}/{}.png", i < 4 ? "a" : "b", i), noise_image(4, 6, seed + 10));
  }
  const CheckReport good = check_data({spec_of(folder.path()), spec_of(folder.path(), "val")});
  CHECK(good.ok);
  CHECK(good.splits[0].class_images == std::vector<std::uint64_t>{4, 2});
  CHECK(good.class_weights[1] / good.class_weights[0] == doctest::Approx(2));
  CHECK_CONTAINS(to_text(good), "split train: 6 pictures, 6x4, one class per picture");
  write_image(folder / "val/a/copy.png", noise_image(4, 6, 2));
  write_text(folder / "train/a/broken.png", "no picture");
  const CheckReport bad = check_data({spec_of(folder.path()), spec_of(folder.path(), "val")});
  CHECK_FALSE(bad.ok);
  CHECK_CONTAINS(to_text(bad), "broken.png");
  CHECK_CONTAINS(to_text(bad), "leak");
}

TEST_CASE("loader: batches of whole pictures have labels i64 [N]") {
  const TempFolder folder;
  for (int i = 0; i < 8; ++i) {
    write_image(folder / fmt::format("train/c{}/p.png", i % 4), noise_image(20, 30, static_cast<std::uint64_t>(i)));
  }
  LoaderOptions o;
  o.batch = 2;
  o.transform.crop_h = o.transform.crop_w = 16;
  o.transform.area_min = 0.3;
  o.transform.area_max = 1;
  o.transform.max_class_share = 0.75;  // means nothing without masks
  const auto set = make_dataset(spec_of(folder.path()));
  Loader loader(set, o);
  const auto batch = loader.next();
  CHECK(batch->images.shape() == Shape{2, 3, 16, 16});
  CHECK(batch->labels.shape() == Shape{2});
  CHECK(batch->labels.dtype() == DType::kI64);
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(batch->labels.to_vector<std::int64_t>()[i] == set->load(batch->indices[i]).label);
  }
  // The bytes do not depend on the number of workers.
  o.workers = 0;
  Loader alone(set, o);
  CHECK(alone.next()->images.to_vector<float>() == batch->images.to_vector<float>());
}

TEST_CASE("top-k: ranks with ties and NaN") {
  TopK score(4, 2);
  const float nan = NAN;
  score.update(Tensor::from(std::vector<float>{3,   2,   1,   0,  //
                                               3,   2,   1,   0,  //
                                               3,   2,   1,   0,  //
                                               1,   1,   1,   1,  //
                                               1,   1,   1,   1,  //
                                               0,   nan, 0,   0,  //
                                               nan, nan, nan, nan},
                            {7, 4}),
               Tensor::from(std::vector<std::int64_t>{0, 1, 2, 0, 3, 1, 0}, {7}));
  CHECK(score.samples() == 7);
  CHECK(score.top1() == doctest::Approx(2.0 / 7));  // the first, and the first of equal scores
  CHECK(score.topk() == doctest::Approx(3.0 / 7));
  CHECK(score.class_accuracy()[0] == doctest::Approx(2.0 / 3));
  CHECK(score.class_accuracy()[1] == 0);
  CHECK(TopK(3).k() == 3);
  CHECK(TopK(3).top1() == 0);
  CHECK(std::isnan(TopK(3).class_accuracy()[2]));
  CHECK_CONTAINS(error_of([&] {
                   score.update(Tensor::from(std::vector<float>{0, 1, 2, 3}, {1, 4}),
                                Tensor::from(std::vector<std::int64_t>{4}, {1}));
                 }),
                 "label 4");
}

TEST_CASE("the objective of classification: cross entropy on [N,K], KD on logits, feature terms, class 255") {
  Generator g(1);
  const models::ModelSpec small{.name = "mobilenet_v2", .classes = 300, .width = 0.1};
  const auto student = models::make_model(small, g);
  const auto teacher = models::make_model({.name = "resnet18", .classes = 300}, g);
  Tensor images = Tensor::empty({3, 3, 32, 32});
  fill_normal_(images, g, 0, 1);
  const Tensor labels = Tensor::from(std::vector<std::int64_t>{255, 0, 299}, {3});
  distill::ObjectiveOptions options;
  options.whole_images = true;
  distill::Term feature = term_of("{loss: attention_kd, student: features.17, teacher: layer4}");
  distill::Distiller d(student, teacher, {term_of("{loss: pixel_kd, tau: 4}"), feature}, options);
  d.eval();
  const auto objective = d.forward(images, labels, 0, 1);
  REQUIRE(objective.terms.size() == 3);
  {
    const NoGradGuard off;
    const Tensor s = student->forward(images).logits;
    const Tensor t = teacher->forward(images).logits;
    REQUIRE(s.shape() == Shape{3, 300});
    CHECK(objective.terms[0].raw.item() ==
          doctest::Approx(ops::cross_entropy(s, labels, {.ignore_index = -1}).item()).epsilon(1e-6));
    // The teacher runs as a frozen plan.
    CHECK(objective.terms[1].raw.item() == doctest::Approx(distill::pixel_kd(s, t, {.tau = 4}).item()).epsilon(2e-4));
  }
  objective.total.backward();
  for (const auto& p : student->named_parameters()) CHECK_MESSAGE(p.tensor.grad().defined(), p.name);
  CHECK_CONTAINS(d.describe()[0], "mean over pictures");
}
