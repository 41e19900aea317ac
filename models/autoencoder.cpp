// What this is: models/autoencoder.h.
#include "models/autoencoder.h"

#include "core/json.h"
#include "core/parse_number.h"
#include "core/safetensors.h"
#include "nn/fused.h"
#include "ops/elementwise.h"

namespace limbeck::models {
namespace {

namespace fs = std::filesystem;

constexpr double kSlope = 0.1;  // of the released-code form

/// The encoder's stages; the decoder runs them backwards with in and out exchanged.
std::array<CodeStage, 3> stages_of(const AutoencoderOptions& o) {
  const std::int64_t code = o.code_channels();
  return {{{o.channels, o.channels, o.strides[0]}, {o.channels, code, o.strides[1]}, {code, code, o.strides[2]}}};
}

AutoencoderOptions checked(const AutoencoderOptions& o) {
  if (o.channels < 1 || o.code < 0 || o.code_channels() < 1) {
    fail<ConfigError>("autoencoder", "{} channels and a code of {}, expected both positive", o.channels,
                      o.code_channels());
  }
  for (const std::int64_t s : o.strides) {
    if (s < 1) fail<ConfigError>("autoencoder", "stride {}, expected at least 1", s);
    if (s != 1 && o.released_code)
      fail<ConfigError>("autoencoder", "stride {}: the released-code form has stride 1 only", s);
  }
  return o;
}

/// Size of a 3x3 convolution's result with padding 1.
std::int64_t strided(std::int64_t size, std::int64_t stride) { return (size - 1) / stride + 1; }

}  // namespace

std::array<std::int64_t, 3> autoencoder_strides(std::int64_t ratio) {
  switch (ratio) {
    case 1: return {1, 1, 1};
    case 2: return {2, 1, 1};
    case 4: return {2, 2, 1};
    case 8: return {2, 2, 2};
    default:
      fail<ConfigError>("autoencoder",
                        "the student's map is {} times coarser than the teacher's, expected 1, 2, 4 or 8", ratio);
  }
}

// --- encoder --------------------------------------------------------------------------------------------------------

FeatureEncoder::Layer::Layer(const AutoencoderOptions& o, const CodeStage& s, Generator& g)
    : conv({.in = s.in, .out = s.out, .kernel = 3, .stride = s.stride, .padding = 1, .bias = o.released_code}, g),
      bn(s.out, o.bn) {}

FeatureEncoder::FeatureEncoder(const AutoencoderOptions& o, Generator& g) : options_(checked(o)) {
  for (const CodeStage& stage : stages_of(o)) {
    const std::string name = std::to_string(layers_.size());
    layers_.push_back(std::make_unique<Layer>(o, stage, g));
    register_module(name + ".0", layers_.back()->conv);
    register_module(name + ".1", layers_.back()->bn);
  }
}

Tensor FeatureEncoder::forward(const Tensor& x) {
  Tensor y = x;
  for (const auto& layer : layers_) {
    y = options_.released_code
            ? ops::leaky_relu(nn::conv_bn_act(layer->conv, layer->bn, ops::Activation::kNone, y), kSlope)
            : nn::conv_bn_act(layer->conv, layer->bn, ops::Activation::kRelu, y);
  }
  return y;
}

// --- decoder --------------------------------------------------------------------------------------------------------

FeatureDecoder::Layer::Layer(const AutoencoderOptions& o, const CodeStage& s, bool last, Generator& g)
    : conv({.in = s.out, .out = s.in, .kernel = 3, .stride = s.stride, .padding = 1, .bias = o.released_code || last},
           g) {
  if (o.released_code || !last) bn.emplace(s.in, o.bn);
}

FeatureDecoder::FeatureDecoder(const AutoencoderOptions& o, Generator& g) : options_(checked(o)) {
  const auto stages = stages_of(o);
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const std::string name = std::to_string(i);
    layers_.push_back(std::make_unique<Layer>(o, stages.at(stages.size() - 1 - i), i + 1 == stages.size(), g));
    register_module(name + ".0", layers_.back()->conv);
    if (layers_.back()->bn) register_module(name + ".1", *layers_.back()->bn);
  }
}

Tensor FeatureDecoder::forward(const Tensor& code, std::array<std::int64_t, 2> size) {
  const nn::ModuleScope scope(*this);
  // The size in front of every encoder stage: what the decoder's stages, in reverse, have to restore.
  std::array<std::array<std::int64_t, 2>, 4> sizes{size};
  for (std::size_t i = 0; i < 3; ++i) {
    for (std::size_t d = 0; d < 2; ++d) sizes.at(i + 1).at(d) = strided(sizes.at(i).at(d), options_.strides.at(i));
  }
  LIMBECK_CHECK(code.ndim() == 4 && code.size(2) == sizes[3][0] && code.size(3) == sizes[3][1], "autoencoder",
                "code {} for a map of {}x{}, expected a code of {}x{}", code.shape(), size[0], size[1], sizes[3][0],
                sizes[3][1]);
  Tensor y = code;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    Layer& layer = *layers_[i];
    y = layer.conv.to_size(y, sizes.at(2 - i));
    if (!layer.bn) continue;
    y = nn::bn_act(*layer.bn, options_.released_code ? ops::Activation::kNone : ops::Activation::kRelu, y);
    if (options_.released_code) y = ops::leaky_relu(y, kSlope);
  }
  return y;
}

// --- both -----------------------------------------------------------------------------------------------------------

Autoencoder::Autoencoder(const AutoencoderOptions& options, Generator& g) : encoder_(options, g), decoder_(options, g) {
  register_module("encoder", encoder_);
  register_module("decoder", decoder_);
}

Autoencoder::Result Autoencoder::forward(const Tensor& x) {
  LIMBECK_CHECK(x.ndim() == 4, "autoencoder", "input {}, expected [N, C, H, W]", x.shape());
  Result r;
  r.code = encoder_(x);
  r.map = decoder_.forward(r.code, {x.size(2), x.size(3)});
  return r;
}

// --- files ----------------------------------------------------------------------------------------------------------

std::map<std::string, std::string> options_to_metadata(const AutoencoderOptions& o) {
  return {{"autoencoder", o.released_code ? "released-code" : "paper"},
          {"channels", std::to_string(o.channels)},
          {"code", std::to_string(o.code_channels())},
          {"strides", fmt::format("{},{},{}", o.strides[0], o.strides[1], o.strides[2])},
          {"bn_eps", json_number(o.bn.eps)},
          {"bn_momentum", json_number(o.bn.momentum)}};
}

void save_autoencoder(const Autoencoder& autoencoder, const fs::path& path,
                      const std::map<std::string, std::string>& extra) {
  auto metadata = options_to_metadata(autoencoder.options());
  metadata.insert(extra.begin(), extra.end());
  std::vector<NamedTensor> tensors;
  for (auto& [name, tensor] : autoencoder.state_dict()) tensors.push_back({name, tensor});
  save_safetensors(path, tensors, metadata);
}

namespace {

fs::path model_file(const fs::path& path) { return fs::is_directory(path) ? path / "model.safetensors" : path; }

template <class T>
T number_of(const fs::path& path, std::string_view key, std::string_view text) {
  const auto value = parse_number<T>(text);
  if (!value)
    fail<WeightsError>("autoencoder", "{}: metadata '{}' has '{}', expected a number", path.string(), key, text);
  return *value;
}

AutoencoderOptions options_from(const fs::path& path, const std::map<std::string, std::string>& metadata) {
  const auto text = [&](const char* key) -> std::string {
    const auto found = metadata.find(key);
    if (found != metadata.end()) return found->second;
    fail<WeightsError>("autoencoder", "{} is no autoencoder: its metadata has no '{}'", path.string(), key);
  };
  AutoencoderOptions o;
  const std::string form = text("autoencoder");
  if (form != "paper" && form != "released-code") {
    fail<WeightsError>("autoencoder", "{}: metadata 'autoencoder' is '{}', expected paper or released-code",
                       path.string(), form);
  }
  o.released_code = form == "released-code";
  o.channels = number_of<std::int64_t>(path, "channels", text("channels"));
  o.code = number_of<std::int64_t>(path, "code", text("code"));
  o.bn.eps = number_of<double>(path, "bn_eps", text("bn_eps"));
  o.bn.momentum = number_of<double>(path, "bn_momentum", text("bn_momentum"));
  const std::string strides = text("strides");
  std::string_view rest = strides;
  for (std::int64_t& stride : o.strides) {
    const std::size_t comma = std::min(rest.find(','), rest.size());
    stride = number_of<std::int64_t>(path, "strides", rest.substr(0, comma));
    rest.remove_prefix(std::min(comma + 1, rest.size()));
  }
  return o;
}

/// The entries behind `prefix`, without it; all for an empty prefix.
nn::StateDict entries_below(const SafetensorsFile& file, const std::string& prefix) {
  nn::StateDict out;
  for (const SafetensorsEntry& e : file.entries) {
    if (e.name.starts_with(prefix)) out.emplace(e.name.substr(prefix.size()), e.tensor);
  }
  return out;
}

template <class M>
std::shared_ptr<M> load(const fs::path& path_in, const std::string& prefix) {
  const fs::path path = model_file(path_in);
  const SafetensorsFile file = load_safetensors(path);
  Generator g;
  auto module = std::make_shared<M>(options_from(path, file.metadata), g);
  static_cast<void>(module->load_state_dict(entries_below(file, prefix)));
  return module;
}

}  // namespace

AutoencoderOptions read_autoencoder_options(const fs::path& path) {
  return options_from(model_file(path), inspect_safetensors(model_file(path)).metadata);
}

std::shared_ptr<Autoencoder> load_autoencoder(const fs::path& path) { return load<Autoencoder>(path, ""); }

std::shared_ptr<FeatureEncoder> load_encoder(const fs::path& path) { return load<FeatureEncoder>(path, "encoder."); }

}  // namespace limbeck::models
