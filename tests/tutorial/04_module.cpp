// Tutorial 4: modules. Parameters with names, training and inference mode, freezing, weight files, folded batch norm.
//
// Run it with `ctest --test-dir build -R tutorial_04 -V`. Before: 02_autograd.cpp. Next: 05_train.cpp.
#include <string>
#include <vector>

#include "core/rng.h"
#include "models/zoo.h"
#include "nn/fused.h"
#include "nn/tracer.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "ops/slice.h"
#include "tests/tutorial/expect.h"

using namespace limbeck;
using tutorial::expect;
using tutorial::message_of;
using tutorial::section;

namespace {

// A module is a class with its layers as plain members. The constructor gives each a name; nothing else is magic.
struct TinyBlock : nn::Module {
  explicit TinyBlock(Generator& g)
      : conv({.in = 3, .out = 8, .kernel = 3, .padding = 1, .bias = false}, g), bn(8), head({.in = 8, .out = 2}, g) {
    register_module("conv", conv);
    register_module("bn", bn);
    register_module("head", head);
  }
  [[nodiscard]] std::string type() const override { return "TinyBlock"; }

  Tensor forward(const Tensor& x) {
    // Convolution, batch norm and ReLU as one call. Section 4 shows what that buys.
    return head(nn::conv_bn_act(conv, bn, ops::Activation::kRelu, x));
  }

  nn::Conv2d conv;
  nn::BatchNorm2d bn;
  nn::Conv2d head;
};

double largest_difference(const Tensor& a, const Tensor& b) {
  return ops::amax(ops::abs(ops::sub(a, b)), {0, 1, 2, 3}, false).item();
}

Tensor noise(const Shape& shape, std::uint64_t seed) {
  const Tensor t = Tensor::empty(shape);
  Generator g(seed);
  fill_normal_(t, g, 0.0, 1.0);
  return t;
}

void names_and_counts() {
  section("1. Names");
  Generator g(1);
  const TinyBlock net(g);
  for (const nn::NamedTensor& p : net.named_parameters())
    fmt::print("  parameter {:12} {}\n", p.name, p.tensor.shape());
  for (const nn::NamedTensor& b : net.named_buffers()) fmt::print("  buffer    {:22} {}\n", b.name, b.tensor.shape());
  expect(net.parameter_count() == 3 * 8 * 9 + 8 + 8 + 8 * 2 + 2,
         "parameters are trained; their number is 3*8*9 + 2*8 + 8*2 + 2");
  expect(net.named_buffers().size() == 3, "buffers are saved but not trained: batch norm's running statistics");
  expect(net.state_dict().contains("bn.running_mean"), "state_dict() holds both, by name");

  // The generator decides the initial weights, and nothing else does: same seed, same network.
  Generator again(1);
  const TinyBlock twin(again);
  expect(twin.conv.weight().to_vector<float>() == net.conv.weight().to_vector<float>(),
         "the same seed gives the same weights");
}

void modes() {
  section("2. Training mode and eval mode");
  Generator g(1);
  TinyBlock net(g);
  const Tensor x = noise({4, 3, 6, 6}, 2);
  const double before = net.bn.running_mean().to_vector<double>()[0];
  static_cast<void>(net.forward(x));
  expect(net.bn.running_mean().to_vector<double>()[0] != before,
         "training mode: a forward moves the running statistics");
  net.eval();
  const auto settled = net.bn.running_mean().to_vector<double>();
  static_cast<void>(net.forward(x));
  expect(net.bn.running_mean().to_vector<double>() == settled, "eval mode: it uses them and leaves them alone");

  // In eval mode a sample's result does not depend on its neighbours in the batch; in training mode it does.
  const NoGradGuard off;
  const auto of_first = [&](const Tensor& batch) { return ops::slice(net.forward(batch), 0, 0, 1).copy(); };
  const Tensor alone = ops::slice(x, 0, 0, 1).copy();
  expect(largest_difference(of_first(x), of_first(alone)) < 1e-6,
         "eval mode: a sample alone or in a batch, same result");
  net.train();
  expect(largest_difference(of_first(x), of_first(alone)) > 1e-3,
         "training mode: the batch's statistics make a difference");
}

void freezing() {
  section("3. Freezing: how a teacher stays a teacher");
  Generator g(1);
  TinyBlock teacher(g);
  teacher.freeze();
  const Tensor x = noise({1, 3, 6, 6}, 2);
  expect(!teacher.forward(x).requires_grad(), "nothing that a frozen network computes is recorded");
  teacher.train();
  expect(!teacher.bn.is_training(), "train() cannot wake it up: its batch norm keeps its statistics");

  // Loading is strict: a file that does not fit is an error that lists every difference, and nothing is changed.
  nn::StateDict file = teacher.state_dict();
  file.erase("bn.weight");
  file["extra"] = Tensor::zeros({1});
  Generator other(2);
  TinyBlock student(other);
  const auto weights = student.conv.weight().to_vector<float>();
  const std::string message = message_of([&] { student.load_state_dict(file); });
  expect(message.find("bn.weight") != std::string::npos && message.find("extra") != std::string::npos,
         "the error names what is missing and what is unexpected");
  expect(student.conv.weight().to_vector<float>() == weights, "and the student is unchanged");
  student.load_state_dict(teacher.state_dict());
  expect(student.conv.weight().to_vector<float>() == teacher.conv.weight().to_vector<float>(),
         "a fitting file is copied");
}

void folding() {
  section("4. Two ways through conv_bn_act");
  Generator g(1);
  TinyBlock net(g);
  const Tensor x = noise({2, 3, 17, 17}, 2);
  for (int i = 0; i < 5; ++i) static_cast<void>(net.forward(x));  // some statistics
  net.eval();
  // With recording on, batch norm is a pass of its own (but fused with ReLU). Without, its scale and shift are folded into
  // the weights of the convolution: w' = w * gamma / sqrt(var + eps), and one kernel does all three steps.
  const Tensor recorded = nn::conv_bn_act(net.conv, net.bn, ops::Activation::kRelu, x);
  const NoGradGuard off;
  const Tensor folded = nn::conv_bn_act(net.conv, net.bn, ops::Activation::kRelu, x);
  fmt::print("  largest difference {:.1e}\n", largest_difference(recorded, folded));
  expect(recorded.requires_grad() && !folded.requires_grad(), "the first can be differentiated, the second is faster");
  expect(largest_difference(recorded, folded) < 1e-5, "they agree to rounding");
  net.bn.bias().fill_(3.0);
  expect(largest_difference(nn::conv_bn_act(net.conv, net.bn, ops::Activation::kRelu, x), folded) > 1.0,
         "a changed parameter is noticed: the folded weights are built anew");
}

void networks() {
  section("5. The networks of the zoo are modules like this one");
  // On the meta device tensors have shapes but no memory, so even ResNet-101 is free. LayerTracer counts the multiply-adds
  // (MACs) of the layers that run. A tap is a map inside the network, asked for by name: what distillation compares.
  const nn::ParameterDevice meta(kMeta);
  Generator g;
  const auto net = models::make_model({.name = "deeplabv3plus_resnet101", .classes = 21}, g);
  net->eval();
  const NoGradGuard off;
  nn::LayerTracer tracer;
  const std::vector<std::string> taps{"layer4", "aspp"};
  const models::Output out = net->forward(Tensor::empty({1, 3, 513, 513}, DType::kF32, kMeta), taps);
  fmt::print("  {} layers, {} parameters, {:.1f} GMACs\n", tracer.records().size(), net->parameter_count(),
             static_cast<double>(tracer.total_macs()) * 1e-9);
  expect(net->parameter_count() == 59'344'309, "59,344,309 parameters, as published");
  expect(out.logits.shape() == Shape{1, 21, 129, 129}, "logits at stride 4");
  expect(out.taps.at("aspp").size(1) == net->tap_info("aspp").channels, "taps are intermediate features by name");
  message_of([&] { static_cast<void>(net->tap_info("apss")); });
}

}  // namespace

int main() {
  names_and_counts();
  modes();
  freezing();
  folding();
  networks();
  return tutorial::result();
}
