// Networks held to published sizes and costs to the unit. Shapes only, nothing is computed.
#include <doctest/doctest.h>

#include "models/mobilenet_v2.h"
#include "models/resnet.h"
#include "models/xception.h"
#include "models/zoo.h"
#include "nn/tracer.h"
#include "tests/harness/meta_model.h"

using namespace limbeck;
using models::ModelSpec;
using test::on_meta;

namespace {

struct Cost {
  std::int64_t params, macs;
  Shape logits, aux;
};

const Shape k224{1, 3, 224, 224};
const Shape k513{1, 3, 513, 513};

Cost cost_of(const ModelSpec& spec, const Shape& input) {
  const auto model = on_meta(spec);
  const NoGradGuard off;
  nn::LayerTracer tracer;
  const models::Output out = model->forward(Tensor::empty(input, DType::kF32, kMeta));
  CHECK(tracer.total_params() == model->parameter_count());
  return {model->parameter_count(), tracer.total_macs(), out.logits.shape(),
          out.aux.defined() ? out.aux.shape() : Shape{}};
}

void check_cost(const ModelSpec& spec, const Shape& input, std::int64_t params, std::int64_t macs) {
  CAPTURE(spec.name);
  CAPTURE(spec.output_stride);
  const Cost c = cost_of(spec, input);
  CHECK(c.params == params);
  CHECK(c.macs == macs);
}

/// Parameters and MACs of a backbone alone at 513x513.
template <class Net, class Options>
void check_backbone(const Options& options, std::int64_t params, std::int64_t macs, std::int64_t high_size) {
  const nn::ParameterDevice meta(kMeta);
  Generator g;
  Net net(options, g);
  net.eval();
  CAPTURE(options.output_stride);
  const NoGradGuard off;
  nn::LayerTracer tracer;
  const models::Features f = net.forward(Tensor::empty(k513, DType::kF32, kMeta));
  CHECK(net.parameter_count() == params);
  CHECK(tracer.total_macs() == macs);
  CHECK(f.high.size(2) == high_size);
  CHECK(f.high.size(1) == net.channels().high);
  CHECK(f.low.size(1) == net.channels().low);
  CHECK(f.middle.size(1) == net.channels().middle);
  CHECK(f.low.size(3) == 129);
}

}  // namespace

TEST_SUITE_BEGIN("model_costs");

TEST_CASE("classification networks of torchvision, and MobileNetV1") {
  check_cost({.name = "resnet18", .classes = 1000}, k224, 11'689'512, 1'814'073'344);
  check_cost({.name = "resnet34", .classes = 1000}, k224, 21'797'672, 3'663'761'408);
  check_cost({.name = "resnet50", .classes = 1000}, k224, 25'557'032, 4'089'184'256);
  check_cost({.name = "resnet101", .classes = 1000}, k224, 44'549'160, 7'801'405'440);
  check_cost({.name = "mobilenet_v2", .classes = 1000}, k224, 3'504'872, 300'774'272);
  check_cost({.name = "mobilenet_v1", .classes = 1000}, k224, 4'231'976, 568'740'352);
}

TEST_CASE("torchvision's deeplabv3 with auxiliary head") {
  const Cost r50 = cost_of({.name = "deeplabv3_resnet50", .classes = 21, .output_stride = 8, .aux = true}, k513);
  CHECK(r50.params == 42'004'074);
  CHECK(r50.logits == Shape{1, 21, 65, 65});
  CHECK(r50.aux == Shape{1, 21, 65, 65});
  CHECK(cost_of({.name = "deeplabv3_resnet101", .classes = 21, .output_stride = 8, .aux = true}, k513).params ==
        60'996'202);
}

TEST_CASE("ResNet backbones at all output strides") {
  using models::ResNet;
  using models::ResNetOptions;
  const auto at = [](int depth, std::int64_t os) { return ResNetOptions{.depth = depth, .output_stride = os}; };
  check_backbone<ResNet>(at(18, 32), 11'176'512, 9'998'427'328, 17);
  check_backbone<ResNet>(at(18, 16), 11'176'512, 16'709'313'728, 33);
  check_backbone<ResNet>(at(18, 8), 11'176'512, 49'592'657'088, 65);
  check_backbone<ResNet>(at(50, 32), 23'508'032, 22'551'684'288, 17);
  check_backbone<ResNet>(at(50, 16), 23'508'032, 34'086'020'288, 33);
  check_backbone<ResNet>(at(50, 8), 23'508'032, 102'729'999'552, 65);
  check_backbone<ResNet>(at(101, 32), 42'500'160, 43'177'239'744, 17);
  check_backbone<ResNet>(at(101, 16), 42'500'160, 54'711'575'744, 33);
  check_backbone<ResNet>(at(101, 8), 42'500'160, 182'751'093'952, 65);
}

TEST_CASE("MobileNetV2 backbone at all output strides, both dilation patterns") {
  using models::MobileNetV2;
  using models::MobileNetV2Options;
  for (const models::Dilation rule : {models::Dilation::kTv, models::Dilation::kJf}) {
    const auto at = [&](std::int64_t os) { return MobileNetV2Options{.output_stride = os, .dilation = rule}; };
    check_backbone<MobileNetV2>(at(32), 1'811'712, 1'544'053'184, 17);
    check_backbone<MobileNetV2>(at(16), 1'811'712, 2'502'824'384, 33);
    check_backbone<MobileNetV2>(at(8), 1'811'712, 7'903'166'912, 65);
  }
}

// The reference counts of Xception ran the first two convolutions of entry2 a second time, to get the low-level feature of a
// decoder: 128 -> 256 -> 256 channels on 129x129 pixels. Here they run once.
constexpr std::int64_t kEntry2Twice = 129 * 129 * (128 * 9 + 128 * 256 + 256 * 9 + 256 * 256);

TEST_CASE("Xception backbones") {
  using models::Xception;
  using models::XceptionOptions;
  const auto at = [](int depth, std::int64_t os) { return XceptionOptions{.depth = depth, .output_stride = os}; };
  check_backbone<Xception>(at(41, 16), 24'920'560, 36'240'931'584 - kEntry2Twice, 33);
  check_backbone<Xception>(at(41, 8), 24'920'560, 110'897'626'368 - kEntry2Twice, 65);
  check_backbone<Xception>(at(65, 16), 37'867'312, 50'263'836'480 - kEntry2Twice, 33);
  check_backbone<Xception>(at(65, 8), 37'867'312, 165'302'376'768 - kEntry2Twice, 65);
  // TensorFlow's model zoo prints 54.17 billion for the network it publishes; its counter adds a few per mille for other layers.
  const Cost zoo = cost_of({.name = "deeplabv3plus_xception65", .variant = "tfd", .separable = true}, k513);
  CHECK(static_cast<double>(zoo.macs) == doctest::Approx(54.17e9).epsilon(0.004));
}

TEST_CASE("KA student") {
  const auto at = [](std::int64_t os, std::int64_t classes = 21) {
    return ModelSpec{.name = "ka_student_mobilenet_v2", .classes = classes, .output_stride = os};
  };
  check_cost(at(32), k513, 2'113'557, 1'607'243'456);
  check_cost(at(16), k513, 2'113'557, 2'740'709'056);
  check_cost(at(8), k513, 2'113'557, 8'825'853'632);
  check_cost(at(4), k513, 2'113'557, 33'415'691'968);
  check_cost(at(16, 19), {1, 3, 1025, 2049}, 2'113'043, 21'233'054'912);
}

TEST_CASE("DeepLabV3+ in the AICSD form") {
  const auto spec = [](const char* backbone, std::int64_t classes) {
    return ModelSpec{.name = std::string("deeplabv3plus_") + backbone, .classes = classes, .output_stride = 16};
  };
  check_cost(spec("resnet101", 21), k513, 59'344'309, 92'820'363'712);
  check_cost(spec("resnet18", 21), k513, 16'608'181, 42'674'402'752);
  check_cost(spec("mobilenet_v2", 21), k513, 5'816'053, 26'937'170'752);
  check_cost(spec("resnet101", 19), k513, 59'343'795, 92'811'843'520);
  check_cost(spec("resnet18", 19), k513, 16'607'667, 42'665'882'560);
  check_cost(spec("mobilenet_v2", 19), k513, 5'815'539, 26'928'650'560);
  CHECK(cost_of(spec("resnet18", 21), k513).logits == Shape{1, 21, 129, 129});
}

TEST_CASE("Xception-41 with ASPP and the decoder of the AICSD form") {
  check_cost({.name = "deeplabv3plus_xception41", .classes = 21}, k513, 41'764'709, 74'349'719'552 - kEntry2Twice);
}

TEST_CASE("DeepLabV3 and DeepLabV3+ in VainF's form") {
  const auto spec = [](const char* name) {
    return ModelSpec{.name = name, .classes = 21, .output_stride = 16, .variant = "vf"};
  };
  check_cost(spec("deeplabv3_mobilenet_v2"), k513, 5'113'877, 6'005'827'264);
  check_cost(spec("deeplabv3_resnet50"), k513, 39'638'869, 51'078'150'592);
  check_cost(spec("deeplabv3_resnet101"), k513, 58'630'997, 71'703'706'048);
  check_cost(spec("deeplabv3plus_mobilenet_v2"), k513, 5'225'717, 17'121'909'568);
  check_cost(spec("deeplabv3plus_resnet50"), k513, 39'761'845, 62'379'547'072);
  check_cost(spec("deeplabv3plus_resnet101"), k513, 58'753'973, 83'005'102'528);
}

TEST_CASE("PSPNet in both forms, with their stems") {
  const Shape city{1, 3, 512, 1024};
  const auto spec = [](const char* backbone, const char* variant, const char* stem, bool aux) {
    return ModelSpec{.name = std::string("pspnet_") + backbone,
                     .classes = 19,
                     .output_stride = 8,
                     .aux = aux,
                     .variant = variant,
                     .stem = stem};
  };
  // The published cost leaves the auxiliary head out and pools in floor mode.
  check_cost(spec("resnet101", "td", "deep128_floor", false), city, 65'707'475, 523'405'099'008);
  check_cost(spec("resnet18", "td", "deep128_floor", false), city, 12'770'515, 120'911'429'632);
  check_cost(spec("resnet18", "mmseg", "v1c", false), city, 12'641'267, 108'450'152'448);
  const auto params = [&](const ModelSpec& s) { return on_meta(s)->parameter_count(); };
  CHECK(params(spec("resnet101", "td", "deep128", true)) == 70'437'350);
  CHECK(params(spec("resnet18", "td", "deep128", true)) == 13'068'262);
  CHECK(params(spec("resnet18", "td_leaky", "deep128", true)) == 13'068'262);
  CHECK(params(spec("resnet101", "mmseg", "v1c", true)) == 67'967'622);
  CHECK(params(spec("resnet101", "mmseg", "v1c", false)) == 65'602'931);
  CHECK(params(spec("resnet18", "mmseg", "v1c", true)) == 12'790'086);
  // Ceil mode gives one row and column more.
  CHECK(cost_of(spec("resnet18", "td", "deep128", true), city).logits == Shape{1, 19, 65, 129});
  CHECK(cost_of(spec("resnet18", "td", "deep128_floor", true), city).aux == Shape{1, 19, 64, 128});
}

TEST_CASE("mobilenet_v2_seg is the backbone and one 1x1 convolution") {
  const ModelSpec spec{.name = "mobilenet_v2_seg", .classes = 21};
  check_cost(spec, k513, 1'811'712 + 321 * 21, 2'502'824'384 + 33 * 33 * 320 * 21);
  CHECK(cost_of(spec, k513).logits == Shape{1, 21, 33, 33});
}

TEST_SUITE_END();
