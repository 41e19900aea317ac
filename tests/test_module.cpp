// Names, modes, state dictionaries and traces of modules.
#include <doctest/doctest.h>

#include "nn/layers.h"
#include "nn/tracer.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using test::check_throws;

namespace {

/// conv (bias), a batch norm, a Sequential of two, and a flattened name.
struct Net : nn::Module {
  explicit Net(Generator& g)
      : conv({.in = 2, .out = 3, .kernel = 3, .padding = 1}, g), bn(3), deep({.in = 3, .out = 4, .bias = false}, g) {
    tail.add<nn::Conv2d>(nn::ConvArgs{.in = 4, .out = 4}, g);
    tail.add<nn::ReLU>();
    register_module("conv", conv);
    register_module("bn", bn);
    register_module("block.0.1", deep);
    register_module("tail", tail);
  }
  Tensor operator()(const Tensor& x) { return tail(deep(bn(conv(x)))); }
  [[nodiscard]] std::string type() const override { return "Net"; }
  nn::Conv2d conv;
  nn::BatchNorm2d bn;
  nn::Conv2d deep;
  nn::Sequential tail;
};

std::vector<std::string> names_of(const std::vector<nn::NamedTensor>& list) {
  std::vector<std::string> out;
  for (const auto& t : list) out.push_back(t.name);
  return out;
}

struct Adopting : nn::Module {
  explicit Adopting(Generator& g) : inner(g) { adopt(inner); }
  Net inner;
};

struct Twice : nn::Module {
  Twice() {
    register_module("a", one);
    register_module("a", two);
  }
  nn::ReLU one, two;
};

}  // namespace

TEST_SUITE_BEGIN("module");

TEST_CASE("names follow registration order, own entries before children") {
  Generator g(1);
  const Net net(g);
  CHECK(names_of(net.named_parameters()) == std::vector<std::string>{"conv.weight", "conv.bias", "bn.weight", "bn.bias",
                                                                     "block.0.1.weight", "tail.0.weight",
                                                                     "tail.0.bias"});
  CHECK(names_of(net.named_buffers()) ==
        std::vector<std::string>{"bn.running_mean", "bn.running_var", "bn.num_batches_tracked"});
  CHECK(net.parameter_count() == 2 * 3 * 9 + 3 + 3 + 3 + 12 + 16 + 4);
  CHECK(net.own_parameter_count() == 0);
  CHECK(net.state_dict().size() == 10);
}

TEST_CASE("adopt adds entries without a name level") {
  Generator g(1);
  const Adopting net(g);
  CHECK(net.named_parameters().front().name == "conv.weight");
}

TEST_CASE("a name can be taken only once") {
  check_throws<Error>([] { const Twice t; }, {"[module]", "'a'"});
}

TEST_CASE("named_modules lists parents before children") {
  Generator g(1);
  Net net(g);
  std::vector<std::string> names;
  for (const auto& m : net.named_modules()) names.push_back(m.name);
  CHECK(names == std::vector<std::string>{"", "conv", "bn", "block.0.1", "tail", "tail.0", "tail.1"});
}

TEST_CASE("train and eval reach every module; a frozen one stays in eval mode") {
  Generator g(1);
  Net net(g);
  CHECK(net.bn.is_training());
  net.eval();
  CHECK(!net.bn.is_training());
  net.tail.freeze();
  net.train();
  CHECK(net.bn.is_training());
  CHECK(!net.tail.is_training());
  CHECK(!net.tail[0].is_training());
  CHECK(!net.tail[0].named_parameters()[0].tensor.requires_grad());
  CHECK(net.conv.weight().requires_grad());
  net.tail.unfreeze();
  net.train();
  CHECK(net.tail[0].is_training());
  CHECK(net.tail[0].named_parameters()[0].tensor.requires_grad());
}

TEST_CASE("a state dictionary shares memory and has no history") {
  Generator g(1);
  const Net net(g);
  const nn::StateDict state = net.state_dict();
  CHECK(!state.at("conv.weight").requires_grad());
  state.at("conv.weight").fill_(0.5);
  CHECK(net.conv.weight().to_vector<float>()[5] == 0.5F);
}

TEST_CASE("load_state_dict copies values and reports every name") {
  Generator a(1);
  Generator b(2);
  const Net from(a);
  Net to(b);
  CHECK(from.conv.weight().to_vector<float>() != to.conv.weight().to_vector<float>());
  const nn::LoadReport report = to.load_state_dict(from.state_dict());
  CHECK(report.complete());
  CHECK(report.loaded.size() == 10);
  for (const auto& [name, tensor] : from.state_dict()) {
    CHECK_MESSAGE(tensor.to_vector<double>() == to.state_dict().at(name).to_vector<double>(), name);
  }
  from.conv.weight().detach().fill_(7);
  CHECK(to.conv.weight().to_vector<float>()[0] != 7.0F);  // a copy, not the same memory
}

TEST_CASE("strict loading throws one error with all problems and changes nothing") {
  Generator a(1);
  Generator b(2);
  const Net from(a);
  Net to(b);
  nn::StateDict state = from.state_dict();
  state.erase("bn.bias");
  state.erase("tail.0.bias");
  state.emplace("extra.weight", Tensor::zeros({1}));
  state["conv.bias"] = Tensor::zeros({4});
  const auto before = to.conv.weight().to_vector<float>();
  check_throws<WeightsError>([&] { to.load_state_dict(state); },
                             {"bn.bias", "tail.0.bias", "extra.weight", "conv.bias: file [4], model [3]", "2 missing"});
  CHECK(to.conv.weight().to_vector<float>() == before);

  // Without strict, names may differ, but a shape still may not.
  check_throws<WeightsError>([&] { to.load_state_dict(state, {.strict = false}); }, {"conv.bias"});
  CHECK(to.conv.weight().to_vector<float>() == before);
  const auto report = to.load_state_dict(state, {.strict = false, .allow_shape_mismatch_skip = true});
  CHECK(report.missing == std::vector<std::string>{"bn.bias", "tail.0.bias"});
  CHECK(report.unexpected == std::vector<std::string>{"extra.weight"});
  CHECK(report.mismatched.size() == 1);
  CHECK(report.loaded.size() == 7);
  CHECK(to.conv.weight().to_vector<float>() == from.conv.weight().to_vector<float>());
}

TEST_CASE("convert_ changes floating tensors only and keeps requires_grad") {
  Generator g(1);
  Net net(g);
  net.tail.freeze();
  const auto before = net.conv.weight().to_vector<float>();
  net.convert_(DType::kF64);
  CHECK(net.conv.weight().dtype() == DType::kF64);
  CHECK(net.conv.weight().requires_grad());
  CHECK(!net.tail[0].named_parameters()[0].tensor.requires_grad());
  CHECK(net.state_dict().at("bn.num_batches_tracked").dtype() == DType::kI64);
  CHECK(net.conv.weight().to_vector<float>() == before);
}

TEST_CASE("layers run inside their names, and a tracer sees leaves only") {
  Generator g(1);
  Net net(g);
  net.eval();
  const NoGradGuard off;
  nn::LayerTracer tracer;
  const Tensor y = net(Tensor::zeros({2, 2, 5, 7}));
  CHECK(y.shape() == Shape{2, 4, 5, 7});
  const auto& r = tracer.records();
  REQUIRE(r.size() == 5);
  CHECK(r[0].name == "conv");
  CHECK(r[0].type == "Conv2d 3x3");
  CHECK(r[0].output == Shape{2, 3, 5, 7});
  CHECK(r[0].macs == 2 * 3 * 5 * 7 * 2 * 9);
  CHECK(r[0].params == 57);
  CHECK(r[1].macs == 0);
  CHECK(r[2].name == "block.0.1");
  CHECK(r[3].name == "tail.0");
  CHECK(r[4].type == "ReLU");
  CHECK(tracer.total_params() == net.parameter_count());

  nn::LayerTracer again;  // the same layers a second time: MACs count again, parameters do not
  static_cast<void>(net(Tensor::zeros({1, 2, 5, 7})));
  const auto once = again.total_macs();
  static_cast<void>(net(Tensor::zeros({1, 2, 5, 7})));
  CHECK(again.total_macs() == 2 * once);
  CHECK(again.total_params() == net.parameter_count());
  CHECK(r.size() == 5);
}

TEST_CASE("a module on the meta device has shapes and no memory") {
  const nn::ParameterDevice meta(kMeta);
  Generator g(1);
  Net net(g);
  net.eval();
  const NoGradGuard off;
  nn::LayerTracer tracer;
  const Tensor y = net(Tensor::empty({1, 2, 33, 65}, DType::kF32, kMeta));
  CHECK(y.shape() == Shape{1, 4, 33, 65});
  CHECK(y.device().is_meta());
  CHECK(tracer.total_params() == net.parameter_count());
  CHECK(nn::ParameterDevice::current().is_meta());
}

TEST_SUITE_END();
