// Loading of weight files: every form of Note [what a weight file may look like], every report, and real files.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "apps/export.h"
#include "apps/model_io.h"
#include "core/autograd.h"
#include "core/rng.h"
#include "core/safetensors.h"
#include "core/torch_file.h"
#include "datasets/image_io.h"
#include "datasets/mask_io.h"
#include "datasets/palettes.h"
#include "models/weights.h"
#include "models/zoo.h"
#include "nn/checkpoint.h"
#include "ops/interpolate.h"
#include "ops/reduce.h"
#include "ops/slice.h"
#include "tests/harness/op_case.h"
#include "tests/harness/sample_data.h"
#include "tests/harness/temp_dir.h"
#include "tests/harness/weight_dicts.h"

using namespace limbeck;
using namespace limbeck::test;
using models::load_weights;
using models::ModelSpec;
using models::WeightsReport;
using nn::StateDict;

namespace {

StateDict copy_of(const StateDict& state) {
  StateDict out;
  for (const auto& [name, tensor] : state) out.emplace(name, tensor.copy());
  return out;
}

/// An image as the sample weights expect it: x / 127.5 - 1.
Tensor scaled(const datasets::Image& image) {
  std::vector<float> planes;
  for (std::size_t c = 0; c < 3; ++c) {
    for (std::size_t i = c; i < image.rgb.size(); i += 3)
      planes.push_back(static_cast<float>(image.rgb[i]) / 127.5F - 1.0F);
  }
  return Tensor::from(planes, {1, 3, image.h, image.w});
}

}  // namespace

TEST_SUITE_BEGIN("weights");

TEST_CASE("a file of ours loads completely, remembers its network, and may be a checkpoint") {
  const TempDir dir;
  const auto from = make(kSmall, 1);
  const auto to = make(kSmall, 2);
  models::save_weights(*from, dir / "w.safetensors", {{"mean", "0.5"}});
  const WeightsReport report = load_weights(*to, dir / "w.safetensors");
  CHECK(report.missing.empty());
  CHECK(report.fresh.empty());
  CHECK(report.loaded.size() == from->state_dict().size());
  CHECK(report.metadata.at("mean") == "0.5");
  for (const auto& [name, tensor] : from->state_dict()) CHECK_MESSAGE(same(tensor, to->state_dict().at(name)), name);
  CHECK(models::read_spec(dir / "w.safetensors") == kSmall);

  nn::Checkpoint checkpoint;
  checkpoint.model = from->state_dict();
  nn::save_checkpoint(dir / "step_00000001", checkpoint);
  const auto third = make(kSmall, 3);
  CHECK(load_weights(*third, dir / "step_00000001").loaded.size() == report.loaded.size());
  check_throws<WeightsError>([&] { static_cast<void>(models::read_spec(dir / "step_00000001")); },
                             {"does not name a network"});
}

TEST_CASE("a bare MobileNetV2 file fills the backbone and leaves the head fresh") {
  const auto image_net = make(kImageNet, 1);
  shake(*image_net, 4);
  const auto student = make(kSmall, 2);
  const auto head_before = student->state_dict().at("classifier.weight").to_vector<float>();
  const WeightsReport r = load_weights(*student, image_net->state_dict(), "test");
  CHECK(r.missing.empty());
  CHECK(r.unexpected.empty());
  CHECK(contains(r.fresh, "classifier.weight"));
  CHECK(contains(r.ignored, "classifier.1.weight"));
  CHECK(contains(r.ignored, "features.18.1.running_var"));
  CHECK(student->state_dict().at("classifier.weight").to_vector<float>() == head_before);
  std::size_t in_backbone = 0;
  for (const auto& [name, tensor] : student->state_dict()) {
    if (!name.starts_with("backbone.")) continue;
    ++in_backbone;
    CHECK_MESSAGE(same(tensor, image_net->state_dict().at(name.substr(9))), name);
  }
  CHECK(r.loaded.size() == in_backbone);
  CHECK(r.to_string().find("fresh") != std::string::npos);
}

TEST_CASE("a bare ResNet file fills the backbone; dilation does not matter; fc is ignored") {
  const auto image_net = make({.name = "resnet18", .classes = 10}, 1);
  const auto model = make({.name = "deeplabv3plus_resnet18", .classes = 4, .output_stride = 8}, 2);
  const WeightsReport r = load_weights(*model, image_net->state_dict(), "test");
  CHECK(r.missing.empty());
  CHECK(contains(r.ignored, "fc.weight"));
  CHECK(same(model->state_dict().at("backbone.layer4.1.conv2.weight"),
             image_net->state_dict().at("layer4.1.conv2.weight")));
}

TEST_CASE("num_batches_tracked may be absent; anything else may not") {
  const auto image_net = make(kImageNet, 1);
  StateDict file = renamed(image_net->state_dict(),
                           [](const std::string& n) { return n.ends_with("num_batches_tracked") ? std::string() : n; });
  const auto student = make(kSmall, 2);
  CHECK(load_weights(*student, file, "test").missing.empty());
  file.erase("features.5.conv.3.bias");
  check_throws<WeightsError>(
      [&] { load_weights(*student, file, "FILE"); },
      {"FILE does not fit ka_student_mobilenet_v2", "1 missing (backbone.features.5.conv.3.bias)"});
  const WeightsReport r = load_weights(*student, file, "test", {.strict = false});
  CHECK(r.missing == std::vector<std::string>{"backbone.features.5.conv.3.bias"});
}

TEST_CASE("folded batch norm gives the same eval-mode network") {
  const auto from = make(kSmall, 1);
  shake(*from, 4);
  from->eval();
  // Fold by hand: every convolution that a batch norm follows.
  const StateDict s = from->state_dict();
  StateDict file;
  for (const auto& [name, tensor] : s) {
    if (tensor.ndim() != 4) continue;
    const std::string conv = name.substr(0, name.size() - 7);
    const std::size_t dot = conv.rfind('.');
    const std::string bn =
        conv == "classifier" ? "" : conv.substr(0, dot + 1) + std::to_string(std::stoi(conv.substr(dot + 1)) + 1);
    if (bn.empty() || !s.contains(bn + ".running_var")) {
      file.emplace(name, tensor.copy());
      file.emplace(conv + ".bias", s.at(conv + ".bias").copy());
      continue;
    }
    auto w = tensor.to_vector<float>();
    auto b = s.at(bn + ".bias").to_vector<float>();
    const auto gamma = s.at(bn + ".weight").to_vector<float>();
    const auto mean = s.at(bn + ".running_mean").to_vector<float>();
    const auto var = s.at(bn + ".running_var").to_vector<float>();
    for (std::size_t o = 0; o < b.size(); ++o) {
      const float scale = gamma[o] / std::sqrt(var[o] + 1e-5F);
      for (std::size_t i = 0; i < w.size() / b.size(); ++i) w[o * w.size() / b.size() + i] *= scale;
      b[o] -= mean[o] * scale;
    }
    // Head names without the ".0" of ConvBnAct, as in the published file.
    const std::string short_name = conv.starts_with("aspp.") ? conv.substr(0, dot) : conv;
    const std::string bare = short_name.starts_with("backbone.") ? short_name.substr(9) : short_name;
    file.emplace(bare + ".weight", Tensor::from(w, tensor.shape()));
    file.emplace(bare + ".bias", Tensor::from(b, {static_cast<std::int64_t>(b.size())}));
  }
  const auto to = make(kSmall, 2);
  shake(*to, 5);
  to->eval();
  const WeightsReport r = load_weights(*to, file, "test");
  CHECK(r.folded);
  CHECK(r.missing.empty());
  Tensor x = Tensor::empty({1, 3, 65, 65});
  Generator g(9);
  fill_normal_(x, g, 0.0, 1.0);
  const NoGradGuard off;
  CHECK(test::relative_error(to->forward(x).logits, from->forward(x).logits) < 1e-4);
  // Whatever the eps of a layer, it and the variance make 1.
  ModelSpec other = kSmall;
  other.bn_eps = 1e-3;
  other.head_bn_eps = 0.25;
  const auto uneven = make(other, 2);
  uneven->eval();
  CHECK(load_weights(*uneven, file, "test").folded);
  CHECK(test::relative_error(uneven->forward(x).logits, from->forward(x).logits) < 1e-4);
}

TEST_CASE("another class count is an error unless the caller allows it, and then only that tensor is skipped") {
  const auto from = make(kSmall, 1);
  ModelSpec spec = kSmall;
  spec.classes = 7;
  const auto to = make(spec, 2);
  const StateDict before = copy_of(to->state_dict());
  check_throws<WeightsError>([&] { load_weights(*to, from->state_dict(), "test"); },
                             {"classifier.weight: file [5, 256, 1, 1], network [7, 256, 1, 1]", "nothing was changed"});
  for (const auto& [name, tensor] : before) CHECK(same(tensor, to->state_dict().at(name)));
  const WeightsReport r = load_weights(*to, from->state_dict(), "test", {.new_classifier = true});
  CHECK(r.mismatched.size() == 2);
  CHECK(r.fresh == std::vector<std::string>{"classifier.bias", "classifier.weight"});
  CHECK(same(to->state_dict().at("classifier.weight"), before.at("classifier.weight")));
  CHECK(same(to->state_dict().at("aspp.project.0.weight"), from->state_dict().at("aspp.project.0.weight")));
}

TEST_CASE("a file of another network never loads silently") {
  const auto resnet = make({.name = "resnet18", .classes = 10}, 1);
  const auto student = make(kSmall, 2);
  for (const bool strict : {true, false}) {
    check_throws<WeightsError>([&] { load_weights(*student, resnet->state_dict(), "test", {.strict = strict}); },
                               {"0 loaded"});
  }
  // The same names with another width: shapes differ.
  ModelSpec wide = kSmall;
  wide.width = 0.5;
  const auto other = make(wide, 3);
  for (const bool fresh : {false, true}) {  // a new classifier is not a licence for other shapes
    check_throws<WeightsError>(
        [&] { load_weights(*student, other->state_dict(), "test", {.strict = false, .new_classifier = fresh}); },
        {"mismatched", "nothing was changed"});
  }
  // A DeepLabV3 classifier.1 is a 3x3 convolution, not an ImageNet classifier: it must load.
  const auto a = make({.name = "deeplabv3_mobilenet_v2", .classes = 5, .width = 0.35}, 1);
  const auto b = make({.name = "deeplabv3_mobilenet_v2", .classes = 5, .width = 0.35}, 2);
  CHECK(load_weights(*b, a->state_dict(), "test").ignored.empty());
  CHECK(same(a->state_dict().at("classifier.1.weight"), b->state_dict().at("classifier.1.weight")));
}

TEST_CASE("real ImageNet files: MobileNetV2 1.0 and 0.35") {
  const auto wide = test::sample_data("weights/mobilenet_v2_1.0_imagenet_ptq_bn.safetensors");
  const auto narrow = test::sample_data("weights/mobilenet_v2_0.35_imagenet_features.safetensors");
  if (!wide || !narrow) {
    MESSAGE("skipped: no sample weights; set LIMBECK_DATA");
    return;
  }
  const auto classifier = make({.name = "mobilenet_v2", .classes = 1000, .bn_eps = 1e-3});
  const WeightsReport full = load_weights(*classifier, *wide);
  CHECK(full.missing.empty());
  CHECK(full.unexpected.empty());
  CHECK(full.loaded.size() == 314 - 52);
  // A trained classifier sees the bus: class 779 is "school bus".
  const auto bus = test::sample_data("samples/VOC2012_labelme/VOCdevkit/VOC2012/JPEGImages/2011_000025.jpg");
  if (bus) {
    classifier->eval();
    const NoGradGuard off;
    const Tensor x = ops::resize_bilinear(scaled(datasets::read_image(*bus)), {224, 224}, false);
    const auto scores = classifier->forward(x).logits.to_vector<float>();
    CHECK(std::max_element(scores.begin(), scores.end()) - scores.begin() == 779);
  }

  for (const auto& [path, width] : {std::pair{*wide, 1.0}, std::pair{*narrow, 0.35}}) {
    CAPTURE(width);
    for (const char* name : {"ka_student_mobilenet_v2", "deeplabv3plus_mobilenet_v2", "mobilenet_v2_seg"}) {
      CAPTURE(name);
      const auto model = make({.name = name, .classes = 11, .width = width, .bn_eps = 1e-3});
      const WeightsReport r = load_weights(*model, path);
      CHECK(r.loaded.size() == 52 * 5 - 5);
      CHECK(r.missing.empty());
      CHECK(!r.fresh.empty());
    }
  }
}

TEST_CASE("a real folded VOC network loads and is a trained one") {
  const auto path = test::sample_data("weights/deeplabv3_mnv2_0.5_voc_folded.safetensors");
  if (!path) {
    MESSAGE("skipped: no sample weights; set LIMBECK_DATA");
    return;
  }
  const auto model = make({.name = "ka_student_mobilenet_v2",
                           .classes = 21,
                           .output_stride = 16,
                           .width = 0.5,
                           .width_divisor = 1,
                           .bn_eps = 1e-3});
  const WeightsReport r = load_weights(*model, *path);
  CHECK(r.folded);
  CHECK(r.missing.empty());
  CHECK(r.unexpected.empty());
  CHECK(r.fresh.empty());
  model->eval();
  // It segments real photographs: two VOC pictures, compared with their masks (255 is not judged).
  const auto folder = test::sample_data("samples/VOC2012_labelme/VOCdevkit/VOC2012");
  if (!folder) return;
  const NoGradGuard off;
  for (const std::string name : {"2011_000003", "2011_000025"}) {
    CAPTURE(name);
    const datasets::Image image = datasets::read_image(*folder / "JPEGImages" / (name + ".jpg"));
    const datasets::Mask mask = datasets::read_mask(*folder / "SegmentationClass" / (name + ".png"));
    Tensor x = Tensor::zeros({1, 3, 513, 513});  // the size it was trained at; zero is grey
    ops::slice(ops::slice(x, 2, 0, image.h), 3, 0, image.w).copy_(scaled(image));
    const Tensor logits = ops::resize_bilinear(model->forward(x).logits, {513, 513}, true);
    const auto ids = ops::argmax(logits, 1).to_vector<std::int64_t>();
    std::int64_t right = 0;
    std::int64_t judged = 0;
    for (std::int64_t row = 0; row < image.h; ++row) {
      for (std::int64_t column = 0; column < image.w; ++column) {
        if (mask.at(row, column) == 255) continue;
        ++judged;
        right += ids[static_cast<std::size_t>(row * 513 + column)] == mask.at(row, column) ? 1 : 0;
      }
    }
    CHECK(static_cast<double>(right) / static_cast<double>(judged) > 0.9);
  }
}

TEST_CASE("the input scaling of a file is what its metadata say") {
  CHECK(apps::normalisation_of({{"normalisation", "bgr_mean"}, {"input", "RGB, x/127.5-1"}}) == "bgr_mean");
  CHECK(apps::normalisation_of({{"input", "RGB x/127.5-1, 513x513"}}) == "symmetric");
  CHECK(apps::normalisation_of({{"input", "RGB"}}).empty());
  CHECK(apps::normalisation_of({}).empty());
  // What an import writes comes back with the file.
  apps::ModelCard card;
  card.spec = kSmall;
  card.spec.bn_eps = 1e-3;
  card.classes = {{"a", "b", "c", "d", "e"}, {{0, 0, 0}, {1, 0, 0}, {2, 0, 0}, {3, 0, 0}, {4, 0, 0}}};
  card.normalisation = "symmetric";
  card.align_corners = true;
  const TempDir dir;
  models::save_weights(*make(card.spec, 1), dir / "w.safetensors", apps::to_metadata(card));
  const apps::LoadedModel loaded = apps::load_model(dir / "w.safetensors");
  CHECK(loaded.card.spec == card.spec);
  CHECK(loaded.card.normalisation == "symmetric");
  CHECK(loaded.card.align_corners);
  const auto path = test::sample_data("weights/mobilenet_v2_0.35_imagenet_features.safetensors");
  if (path) CHECK(apps::normalisation_of(inspect_safetensors(*path).metadata) == "symmetric");
}

TEST_SUITE_END();

TEST_CASE("weights for torchvision's eps: the same scores without anybody saying what eps it was") {
  models::ModelSpec spec = kSmall;
  spec.bn_eps = 1e-3;
  const auto model = make(spec, 3);
  model->eval();
  apps::ModelCard card;
  card.spec = spec;
  card.classes = datasets::numbered_classes(spec.classes);
  const TempDir dir;
  apps::export_weights(dir / "w.pth", *model, card, true);
  apps::export_weights(dir / "w.safetensors", *model, card, false);
  models::ModelSpec usual = spec;
  usual.bn_eps = 1e-5;
  const auto other = make(usual, 4);
  static_cast<void>(load_weights(*other, dir / "w.pth"));
  other->eval();
  const apps::LoadedModel loaded = apps::load_model(dir / "w.safetensors");
  CHECK(loaded.card.spec == usual);
  Generator g(5);
  const Tensor x = Tensor::empty({1, 3, 33, 33});
  fill_normal_(x, g, 0, 1);
  const NoGradGuard off;
  const Tensor y = model->forward(x).logits;
  CHECK(test::relative_error(other->forward(x).logits, y) < 1e-5);
  CHECK(test::relative_error(loaded.model->forward(x).logits, y) < 1e-5);
}

TEST_CASE("a teacher's file need not describe itself, but must be whole") {
  const auto source = make(kSmall, 3);
  const TempDir dir;
  std::vector<NamedTensor> tensors, backbone;
  for (const auto& [name, tensor] : source->state_dict()) {
    tensors.push_back({name, tensor});
    if (name.starts_with("backbone.")) backbone.push_back({name, tensor});
  }
  save_torch_file(dir / "whole.pth", tensors);
  save_safetensors(dir / "whole.safetensors", tensors);
  save_torch_file(dir / "backbone.pth", backbone);
  apps::ModelCard card;
  card.spec = kSmall;
  card.classes = datasets::numbered_classes(kSmall.classes);
  models::save_weights(*source, dir / "own.safetensors", apps::to_metadata(card));
  CHECK(apps::describes_itself(dir / "own.safetensors"));
  for (const char* file : {"whole.pth", "whole.safetensors"}) {
    CHECK_FALSE(apps::describes_itself(dir / file));
    const apps::LoadedModel loaded = apps::load_foreign(dir / file, card);
    CHECK(same(loaded.model->state_dict().at("backbone.features.0.0.weight"),
               source->state_dict().at("backbone.features.0.0.weight")));
    CHECK_FALSE(loaded.model->is_training());
  }
  check_throws<WeightsError>([&] { static_cast<void>(apps::load_foreign(dir / "backbone.pth", card)); },
                             {"backbone.pth does not hold a whole", "fresh"});
  card.spec.classes = 7;
  check_throws<WeightsError>([&] { static_cast<void>(apps::load_foreign(dir / "whole.pth", card)); }, {"mismatched"});
}
