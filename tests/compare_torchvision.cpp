// limbeck's half of the comparison with torchvision: reads a state_dict written by torch.save and a batch, writes the logits in eval
// mode and all parameters and buffers after some steps of SGD in training mode, without dropout.
// The other half, which starts this program and judges the numbers: tests/golden/compare_torchvision.py.
//
//   compare_torchvision NETWORK WEIGHTS.pth BATCH.safetensors OUT.safetensors CLASSES STEPS LR
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "core/autograd.h"
#include "core/safetensors.h"
#include "models/weights.h"
#include "models/zoo.h"
#include "nn/sgd.h"
#include "ops/cross_entropy.h"
#include "ops/elementwise.h"
#include "ops/interpolate.h"

namespace limbeck {
namespace {

constexpr double kAuxWeight = 0.4;

Tensor loss_of(const Tensor& logits, const Tensor& labels) {
  if (labels.ndim() == 1) return ops::cross_entropy(logits, labels);
  return ops::cross_entropy(ops::resize_bilinear(logits, {labels.size(1), labels.size(2)}, false), labels);
}

void train(models::Model& model, const Tensor& images, const Tensor& labels, int steps, double lr) {
  std::vector<nn::ParameterGroup> groups(1);
  groups[0].params = model.named_parameters();
  groups[0].weight_decay = 1e-4;
  nn::Sgd optimizer(std::move(groups), {.momentum = 0.9});
  model.train();
  for (int i = 0; i < steps; ++i) {
    optimizer.zero_grad();
    const models::Output out = model.forward(images);
    Tensor loss = loss_of(out.logits, labels);
    if (out.aux.defined()) loss = ops::add(loss, ops::mul_scalar(loss_of(out.aux, labels), kAuxWeight));
    loss.backward();
    optimizer.step(lr);
  }
}

int run(const std::vector<std::string>& args) {
  if (args.size() != 7) {
    std::fprintf(stderr, "usage: compare_torchvision NETWORK WEIGHTS BATCH OUT CLASSES STEPS LR\n");
    return 2;
  }
  const bool segmentation = !models::is_classification(args[0]);
  Generator g(1);
  const auto model = models::make_model({.name = args[0],
                                         .classes = std::stoll(args[4]),
                                         .output_stride = segmentation ? 8 : 32,
                                         .aux = segmentation,
                                         .head_dropout = 0.0},
                                        g);
  models::load_weights(*model, args[1]);
  const SafetensorsFile batch = load_safetensors(args[2]);
  std::vector<NamedTensor> results;
  model->eval();
  {
    const NoGradGuard off;
    const models::Output out = model->forward(batch.at("images"));
    results.push_back({"logits", out.logits});
    if (out.aux.defined()) results.push_back({"aux", out.aux});
  }
  train(*model, batch.at("images"), batch.at("labels"), std::stoi(args[5]), std::stod(args[6]));
  for (const auto& [name, tensor] : model->state_dict()) results.push_back({"state." + name, tensor});
  save_safetensors(args[3], results, {});
  return 0;
}

}  // namespace
}  // namespace limbeck

int main(int argc, char** argv) {
  try {
    return limbeck::run({argv + 1, argv + argc});
  } catch (const std::exception& e) {
    std::fprintf(stderr, "compare_torchvision: %s\n", e.what());
    return 1;
  }
}
