// The feature autoencoder and the connectors: sizes, parameters, restored shapes, files.
#include <doctest/doctest.h>

#include <cmath>

#include "core/autograd.h"
#include "models/autoencoder.h"
#include "models/connectors.h"
#include "nn/sgd.h"
#include "nn/tracer.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "tests/harness/op_case.h"
#include "tests/harness/random_input.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using models::Autoencoder;
using models::AutoencoderOptions;
using test::check_throws;
using test::random_input;

namespace {

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.to_vector<float>() == b.to_vector<float>();
}

double squares(const Tensor& t) {
  double sum = 0;
  for (const double v : t.to_vector<double>()) sum += v * v;
  return sum;
}

void check_all_gradients(const nn::Module& module) {
  for (const auto& p : module.named_parameters()) {
    CAPTURE(p.name);
    REQUIRE(p.tensor.grad().defined());
    CHECK(std::isfinite(squares(p.tensor.grad())));
    CHECK(squares(p.tensor.grad()) > 0);
  }
}

std::int64_t divided(std::int64_t size, const std::array<std::int64_t, 3>& strides) {
  for (const std::int64_t s : strides) size = (size + s - 1) / s;
  return size;
}

}  // namespace

TEST_SUITE_BEGIN("adapters");

TEST_CASE("KA: parameters of encoder, decoder and adapters") {
  const nn::ParameterDevice meta(kMeta);
  Generator g;
  Autoencoder ae({.channels = 256, .code = 128}, g);
  CHECK(ae.encoder().parameter_count() == 1'033'216);
  CHECK(ae.decoder().parameter_count() == 1'033'216);
  CHECK(models::Connector(models::ka_feature_adapter(256, 128), g).parameter_count() == 295'168);
  CHECK(models::Connector(models::ka_affinity_adapter(256, 128), g).parameter_count() == 295'040);
  // Multiply-adds of a 33x33 map: the three 3x3 convolutions, and the same again transposed.
  const NoGradGuard off;
  nn::LayerTracer tracer;
  ae.eval();
  CHECK(ae.forward(Tensor::empty({1, 256, 33, 33}, DType::kF32, kMeta)).map.shape() == Shape{1, 256, 33, 33});
  CHECK(tracer.total_macs() == std::int64_t{2} * 33 * 33 * 9 * (256 * 256 + 256 * 128 + 128 * 128));
  CHECK(tracer.total_params() == ae.parameter_count());
}

TEST_CASE("CT and CWD: parameters of the channel MLP and the feature adapter") {
  const nn::ParameterDevice meta(kMeta);
  Generator g;
  CHECK(models::ChannelMlp({.in = 512, .out = 2048}, g).parameter_count() == 5'246'976);
  CHECK(models::ChannelMlp({.in = 8, .out = 16, .hidden = 4}, g).parameter_count() == 8 * 4 + 4 + 4 * 16 + 16);
  CHECK(models::Connector(models::cwd_feature_adapter(128, 512), g).parameter_count() == 66'560);
}

TEST_CASE("the released form: torchdistill's widths, biases, LeakyReLU at both ends") {
  Generator g(5);
  Autoencoder ae({.channels = 21, .released_code = true}, g);
  CHECK(ae.options().code_channels() == 10);
  const auto conv = [](std::int64_t in, std::int64_t out) {
    return 9 * in * out + 3 * out;
  };  // weight, bias, gamma, beta
  CHECK(ae.encoder().parameter_count() == conv(21, 21) + conv(21, 10) + conv(10, 10));
  CHECK(ae.decoder().parameter_count() == conv(10, 10) + conv(10, 21) + conv(21, 21));
  for (const bool training : {true, false}) {
    ae.train(training);
    const Autoencoder::Result r = ae.forward(random_input({2, 21, 9, 7}));
    CHECK(r.code.shape() == Shape{2, 10, 9, 7});
    for (const Tensor& t : {r.code, r.map}) {
      double low = 0;
      double high = 0;
      for (const double v : t.to_vector<double>()) {
        low = std::min(low, v);
        high = std::max(high, v);
      }
      CHECK(low < 0);            // a ReLU would end here ...
      CHECK(low > -0.5 * high);  // ... and a linear layer would be symmetric
    }
  }
}

TEST_CASE("the paper's form: a code that is not negative, a linear reconstruction") {
  Generator g(6);
  Autoencoder ae({.channels = 8, .strides = {2, 1, 1}}, g);
  const Autoencoder::Result r = ae.forward(random_input({2, 8, 17, 12}));
  CHECK(r.code.shape() == Shape{2, 4, 9, 6});
  double lowest_code = 1;
  double lowest_map = 1;
  for (const double v : r.code.to_vector<double>()) lowest_code = std::min(lowest_code, v);
  for (const double v : r.map.to_vector<double>()) lowest_map = std::min(lowest_map, v);
  CHECK(lowest_code == 0);
  CHECK(lowest_map < 0);
  // Shifting the last bias shifts the map by the same amount: nothing follows it.
  Tensor last = ae.state_dict().at("decoder.2.0.bias");
  ae.eval();
  const NoGradGuard off;
  const Tensor before = ae.forward(random_input({1, 8, 5, 5})).map;
  last.copy_(ops::add_scalar(last, 3.0));
  const Tensor after = ae.forward(random_input({1, 8, 5, 5})).map;
  CHECK(test::relative_error(after, ops::add_scalar(before, 3.0)) < 1e-5);
}

TEST_CASE("the decoder restores every size, even and odd") {
  for (const std::array<std::int64_t, 3>& strides :
       {std::array<std::int64_t, 3>{1, 1, 1}, {2, 1, 1}, {2, 2, 1}, {2, 2, 2}, {1, 3, 2}}) {
    Generator g(2);
    Autoencoder ae({.channels = 4, .strides = strides}, g);
    ae.eval();
    const NoGradGuard off;
    for (const std::int64_t h : {33, 65, 129, 34, 50, 1, 2, 3}) {
      for (const std::int64_t w : {h, std::int64_t{37}}) {
        CAPTURE(h);
        CAPTURE(w);
        const Tensor x = random_input({1, 4, h, w});
        const Tensor code = ae.encode(x);
        CHECK(code.shape() == Shape{1, 2, divided(h, strides), divided(w, strides)});
        const Tensor map = ae.decode(code, {h, w});
        CHECK(map.shape() == x.shape());
        CHECK(std::isfinite(squares(map)));
      }
    }
  }
}

TEST_CASE("strides follow the ratio of the two output strides") {
  CHECK(models::autoencoder_strides(1) == std::array<std::int64_t, 3>{1, 1, 1});
  CHECK(models::autoencoder_strides(2) == std::array<std::int64_t, 3>{2, 1, 1});
  CHECK(models::autoencoder_strides(4) == std::array<std::int64_t, 3>{2, 2, 1});
  CHECK(models::autoencoder_strides(8) == std::array<std::int64_t, 3>{2, 2, 2});
  check_throws<ConfigError>([] { static_cast<void>(models::autoencoder_strides(3)); }, {"3 times", "1, 2, 4 or 8"});
}

TEST_CASE("an autoencoder learns: the reconstruction error falls, every parameter takes part") {
  for (const bool released : {false, true}) {
    Generator g(3);
    Autoencoder ae({.channels = 6,
                    .strides = released ? std::array<std::int64_t, 3>{1, 1, 1} : std::array<std::int64_t, 3>{2, 1, 1},
                    .released_code = released},
                   g);
    const Tensor x = random_input({4, 6, 9, 9}, 4);
    std::vector<nn::ParameterGroup> groups(1);
    groups[0].params = ae.named_parameters();
    const auto sgd = nn::make_optimizer({.name = "sgd", .momentum = 0.9}, std::move(groups));
    double first = 0;
    double last = 0;
    for (int step = 0; step < 30; ++step) {
      sgd->zero_grad();
      const Tensor loss = ops::mean(ops::square(ops::sub(ae.forward(x).map, x)));
      loss.backward();
      if (step == 0) {
        first = loss.item();
        if (!released) check_all_gradients(ae);  // a bias in front of batch norm has gradient 0 in the released form
      }
      last = loss.item();
      sgd->step(0.02);
    }
    CHECK(last < 0.9 * first);
  }
}

TEST_CASE("eval is deterministic, folded and recorded passes agree") {
  Generator g(7);
  Autoencoder ae({.channels = 8, .strides = {2, 2, 1}}, g);
  static_cast<void>(ae.forward(random_input({2, 8, 13, 11}, 8)));  // running statistics that are not 0 and 1
  ae.eval();
  const Tensor x = random_input({1, 8, 13, 11}, 9);
  const Tensor recorded = ae.forward(x).map;
  const NoGradGuard off;
  const Tensor a = ae.forward(x).map;
  CHECK(same_bits(a, ae.forward(x).map));
  CHECK(test::relative_error(a, recorded) < 1e-5);
}

TEST_CASE("a file carries the options; encoder alone or both come back bit for bit") {
  const test::TempDir dir;
  Generator g(11);
  Autoencoder ae({.channels = 6, .code = 5, .strides = {2, 2, 1}, .bn = {.eps = 1e-3, .momentum = 0.25}}, g);
  static_cast<void>(ae.forward(random_input({2, 6, 9, 9})));
  ae.eval();
  const auto path = dir / "ae.safetensors";
  models::save_autoencoder(ae, path, {{"teacher", "deeplabv3_resnet50"}, {"channels", "a caller cannot break this"}});
  const AutoencoderOptions o = models::read_autoencoder_options(path);
  CHECK(o.channels == 6);
  CHECK(o.code == 5);
  CHECK(o.strides == std::array<std::int64_t, 3>{2, 2, 1});
  CHECK(o.bn.eps == 1e-3);
  CHECK(o.bn.momentum == 0.25);
  CHECK(!o.released_code);
  const auto both = models::load_autoencoder(path);
  const auto encoder = models::load_encoder(path);
  both->eval();
  encoder->eval();
  const NoGradGuard off;
  const Tensor x = random_input({1, 6, 11, 8}, 5);
  CHECK(same_bits(both->forward(x).map, ae.forward(x).map));
  CHECK(same_bits((*encoder)(x), ae.encode(x)));

  Generator h(1);
  Autoencoder wider({.channels = 8}, h);
  const auto wrong = dir / "wrong.safetensors";
  std::vector<NamedTensor> tensors;
  for (auto& [name, tensor] : wider.state_dict()) tensors.push_back({name, tensor});
  save_safetensors(wrong, tensors,
                   {{"autoencoder", "paper"},
                    {"channels", "6"},
                    {"code", "3"},
                    {"strides", "1,1,1"},
                    {"bn_eps", "1e-5"},
                    {"bn_momentum", "0.1"}});
  check_throws<WeightsError>([&] { static_cast<void>(models::load_encoder(wrong)); }, {"0.0.weight", "[8, 8, 3, 3]"});
  const auto foreign = dir / "foreign.safetensors";
  save_safetensors(foreign, tensors, {{"model", "resnet18"}});
  check_throws<WeightsError>([&] { static_cast<void>(models::load_encoder(foreign)); },
                             {"no autoencoder", "foreign.safetensors"});
  save_safetensors(foreign, tensors,
                   {{"autoencoder", "paper"},
                    {"channels", "six"},
                    {"code", "3"},
                    {"strides", "1,1,1"},
                    {"bn_eps", "1e-5"},
                    {"bn_momentum", "0.1"}});
  check_throws<WeightsError>([&] { static_cast<void>(models::read_autoencoder_options(foreign)); },
                             {"'channels'", "'six'"});
}

TEST_CASE("impossible autoencoders and sizes are errors") {
  Generator g;
  const nn::ParameterDevice meta(kMeta);
  check_throws<ConfigError>([&] { Autoencoder({.channels = 0}, g); }, {"0 channels"});
  check_throws<ConfigError>([&] { Autoencoder({.channels = 4, .strides = {0, 1, 1}}, g); }, {"stride 0"});
  check_throws<ConfigError>(
      [&] {
        Autoencoder({.channels = 4, .strides = {2, 1, 1}, .released_code = true}, g);
      },
      {"released-code"});
  Autoencoder ae({.channels = 4, .strides = {2, 1, 1}}, g);
  check_throws<Error>(
      [&] {
        static_cast<void>(ae.decode(Tensor::empty({1, 2, 5, 5}, DType::kF32, kMeta), {11, 9}));
      },
      {"expected a code of 6x5"});
  nn::ConvTranspose2d deconv({.in = 2, .out = 2, .kernel = 3, .stride = 2, .padding = 1}, g);
  const Tensor x = Tensor::empty({1, 2, 5, 5}, DType::kF32, kMeta);
  CHECK(deconv.to_size(x, {9, 10}).shape() == Shape{1, 2, 9, 10});
  check_throws<Error>([&] { static_cast<void>(deconv.to_size(x, {9, 11})); }, {"9x11", "axis 3", "9 to 10"});
}

TEST_CASE("connectors: values, shapes, gradients, errors") {
  Generator g(4);
  const Tensor x = random_input({2, 3, 5, 7});
  for (const models::ConnectorArgs& args : {models::ConnectorArgs{.in = 3, .out = 4},
                                            {.in = 3, .out = 4, .kernel = 3, .bias = true},
                                            models::ka_feature_adapter(3, 4),
                                            models::ka_affinity_adapter(3, 4),
                                            models::cwd_feature_adapter(3, 4)}) {
    models::Connector c(args, g);
    const Tensor y = c(x);
    CHECK(y.shape() == Shape{2, 4, 5, 7});
    bool negative = false;
    for (const float v : y.to_vector<float>()) negative = negative || v < 0;
    CHECK(negative != args.relu);
    backward(y, random_input(y.shape(), 3));
    check_all_gradients(c);
  }
  models::ChannelMlp mlp({.in = 3, .out = 4, .hidden = 6, .kernel = 3}, g);
  const Tensor y = mlp(x);
  CHECK(y.shape() == Shape{2, 4, 5, 7});
  backward(y, random_input(y.shape(), 3));
  check_all_gradients(mlp);
  check_throws<ConfigError>([&] { models::Connector({.in = 3, .out = 4, .kernel = 2}, g); }, {"kernel 2"});
  check_throws<ConfigError>([&] { models::Connector({.in = 3, .out = 4, .batch_norm = true, .bias = true}, g); },
                            {"bias"});
  check_throws<ConfigError>([&] { models::ChannelMlp({.in = 3, .out = 4, .kernel = 4}, g); }, {"kernel 4"});
}

TEST_CASE("the channel MLP computes W2 relu(W1 x + b1) + b2") {
  Generator g(4);
  models::ChannelMlp mlp({.in = 2, .out = 4}, g);
  mlp.convert_(DType::kF64);
  // Reference values of PyTorch in f64, from the waves c sin(a k + b) + d cos(0.05 k).
  const auto wave = [](double a, double b, double c, double d, const Shape& shape) {
    std::vector<double> values(static_cast<std::size_t>(shape.numel()));
    for (std::size_t k = 0; k < values.size(); ++k) {
      const auto i = static_cast<double>(k);
      values[k] = c * std::sin(a * i + b) + d * std::cos(0.05 * i);
    }
    return Tensor::from(values, shape);
  };
  const auto state = mlp.state_dict();
  state.at("0.weight").copy_(wave(0.9, 0.2, 0.6, 0.1, {4, 2, 1, 1}));
  state.at("0.bias").copy_(wave(0.5, 0.1, 0.2, 0.0, {4}));
  state.at("2.weight").copy_(wave(0.7, 0.5, 0.5, -0.1, {4, 4, 1, 1}));
  state.at("2.bias").copy_(wave(0.3, 0.9, 0.1, 0.0, {4}));
  const Tensor fs = wave(0.41, 0.3, 1.5, 0.2, {2, 2, 4, 5});
  const Tensor ft = wave(0.19, 0.7, 1.2, 0.1, {2, 4, 4, 5});
  fs.set_requires_grad(true);
  const Tensor y = mlp(fs);
  const auto v = y.to_vector<double>();
  const double want[] = {0.574868503789, -0.631586059262, 0.170022016044, -0.054275772831};
  for (std::size_t c = 0; c < 4; ++c) CHECK(v[c * 20] == doctest::Approx(want[c]).epsilon(1e-10));
  const Tensor loss =
      ops::mul_scalar(ops::sum(ops::square(ops::sub(y, ft))), 0.5);  // sum over everything, divided by N
  loss.backward();
  CHECK(loss.item() == doctest::Approx(78.1010106331).epsilon(1e-10));
  CHECK(std::sqrt(squares(fs.grad())) == doctest::Approx(4.9771245696).epsilon(1e-9));
  CHECK(fs.grad().to_vector<double>()[0] == doctest::Approx(-0.0729138184938).epsilon(1e-9));
  const double norms[] = {27.8647689454, 31.42218904, 27.538619393, 39.7568120681};
  const auto params = mlp.named_parameters();
  for (std::size_t i = 0; i < 4; ++i)
    CHECK(std::sqrt(squares(params[i].tensor.grad())) == doctest::Approx(norms[i]).epsilon(1e-9));
}

TEST_SUITE_END();
