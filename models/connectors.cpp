// What this is: models/connectors.h.
#include "models/connectors.h"

namespace limbeck::models {
namespace {

std::int64_t odd(const char* where, std::int64_t kernel) {
  if (kernel < 1 || kernel % 2 == 0) fail<ConfigError>(where, "kernel {}, expected an odd number", kernel);
  return kernel;
}

nn::ConvArgs conv_args(const ConnectorArgs& a) {
  if (a.bias && a.batch_norm)
    fail<ConfigError>("connector", "a bias in front of batch norm has no effect; use bias=false");
  return {.in = a.in,
          .out = a.out,
          .kernel = odd("connector", a.kernel),
          .padding = a.kernel / 2,
          .bias = a.bias,
          .init = a.init};
}

}  // namespace

Connector::Connector(const ConnectorArgs& a, Generator& g) : conv_(conv_args(a), g), relu_(a.relu) {
  register_module("0", conv_);
  if (!a.batch_norm) return;
  bn_.emplace(a.out, a.bn);
  register_module("1", *bn_);
}

Tensor Connector::forward(const Tensor& x) {
  const ops::Activation act = relu_ ? ops::Activation::kRelu : ops::Activation::kNone;
  return bn_ ? nn::conv_bn_act(conv_, *bn_, act, x) : nn::conv_act(conv_, act, x);
}

ConnectorArgs ka_feature_adapter(std::int64_t in, std::int64_t out) {
  return {.in = in, .out = out, .kernel = 3, .batch_norm = true, .relu = true};
}

ConnectorArgs ka_affinity_adapter(std::int64_t in, std::int64_t out) {
  return {.in = in, .out = out, .kernel = 3, .bias = true};
}

ConnectorArgs cwd_feature_adapter(std::int64_t in, std::int64_t out) {
  return {.in = in, .out = out, .batch_norm = true, .relu = true};
}

ChannelMlp::ChannelMlp(const ChannelMlpArgs& a, Generator& g)
    : first_({.in = a.in,
              .out = a.hidden > 0 ? a.hidden : a.out,
              .kernel = odd("channel_mlp", a.kernel),
              .padding = a.kernel / 2},
             g),
      second_({.in = a.hidden > 0 ? a.hidden : a.out, .out = a.out, .kernel = a.kernel, .padding = a.kernel / 2}, g) {
  register_module("0", first_);
  register_module("2", second_);
}

Tensor ChannelMlp::forward(const Tensor& x) { return second_(nn::conv_act(first_, ops::Activation::kRelu, x)); }

}  // namespace limbeck::models
