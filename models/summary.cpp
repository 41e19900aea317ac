// What this is: models/summary.h.
#include "models/summary.h"

#include <algorithm>

#include "core/json.h"
#include "models/zoo.h"

namespace limbeck::models {
namespace {

std::string prefix_of(const std::string& name, int depth) {
  std::size_t at = 0;
  for (int i = 0; i < depth; ++i) {
    at = name.find('.', at);
    if (at == std::string::npos) return name;
    ++at;
  }
  return name.substr(0, at - 1);
}

/// Neighbouring layers with a common prefix as one row: type "N layers", the output of the last.
std::vector<nn::LayerRecord> grouped(const std::vector<nn::LayerRecord>& layers, int depth) {
  if (depth <= 0) return layers;
  std::vector<nn::LayerRecord> out;
  std::vector<int> counts;
  for (const nn::LayerRecord& layer : layers) {
    const std::string name = prefix_of(layer.name, depth);
    if (out.empty() || out.back().name != name) {
      out.push_back(layer);
      out.back().name = name;
      counts.push_back(1);
      continue;
    }
    nn::LayerRecord& row = out.back();
    row.output = layer.output;
    row.params += layer.params;
    row.macs += layer.macs;
    row.type = fmt::format("{} layers", ++counts.back());
  }
  return out;
}

/// 1234567 -> "1,234,567"
std::string with_commas(std::int64_t value) {
  std::string digits = std::to_string(value);
  for (std::ptrdiff_t i = static_cast<std::ptrdiff_t>(digits.size()) - 3; i > (value < 0 ? 1 : 0); i -= 3) {
    digits.insert(static_cast<std::size_t>(i), ",");
  }
  return digits;
}

std::string shape_json(const Shape& s) {
  std::vector<std::string> items;
  for (const std::int64_t v : s) items.push_back(std::to_string(v));
  return json_array(items);
}

}  // namespace

Summary summarize(const ModelSpec& spec, const Shape& input) {
  if (input.size() != 4 || input[1] != 3 || input.numel() <= 0) {
    fail<ConfigError>("summary", "input {}, expected [N, 3, H, W]", input);
  }
  const nn::ParameterDevice on_meta(kMeta);
  Generator unused;
  const auto model = make_model(spec, unused);
  model->eval();
  const NoGradGuard off;
  nn::LayerTracer tracer;
  const Output out = model->forward(Tensor::empty(input, DType::kF32, kMeta));

  Summary s;
  s.name = spec.name;
  s.input = input;
  s.outputs.push_back(out.logits.shape());
  if (out.aux.defined()) s.outputs.push_back(out.aux.shape());
  s.layers = tracer.records();
  s.params = model->parameter_count();
  s.macs = tracer.total_macs();
  for (const nn::NamedTensor& b : model->named_buffers()) s.buffers += b.tensor.numel();
  for (const nn::LayerRecord& l : s.layers) s.activation_numbers += l.output.numel();
  return s;
}

std::string summary_table(const Summary& s, int depth) {
  const std::vector<nn::LayerRecord> rows = grouped(s.layers, depth);
  std::size_t name_width = 5;
  std::size_t type_width = 4;
  for (const nn::LayerRecord& r : rows) {
    name_width = std::max(name_width, r.name.size());
    type_width = std::max(type_width, r.type.size());
  }
  std::string text = fmt::format("{}, input {}\n", s.name, s.input);
  const auto line = [&](std::string_view name, std::string_view type, std::string_view output, std::string_view params,
                        std::string_view macs) {
    text += fmt::format("{:<{}}  {:<{}}  {:<22}  {:>12}  {:>16}\n", name, name_width, type, type_width, output, params,
                        macs);
  };
  line("layer", "type", "output", "params", "MACs");
  for (const nn::LayerRecord& r : rows) {
    line(r.name, r.type, r.output.to_string(), with_commas(r.params), with_commas(r.macs));
  }
  line("total", fmt::format("{} rows", rows.size()), s.outputs.front().to_string(), with_commas(s.params),
       with_commas(s.macs));
  text += fmt::format(
      "{:.2f} M parameters ({:.1f} MB in f32), {:.3f} GMACs; batch norm, pooling and resize count as 0 MACs\n",
      static_cast<double>(s.params) * 1e-6, static_cast<double>(s.params) * 4e-6, static_cast<double>(s.macs) * 1e-9);
  return text;
}

std::string summary_json(const Summary& s) {
  std::vector<std::string> layers;
  for (const nn::LayerRecord& r : s.layers) {
    layers.push_back(JsonObject()
                         .add("name", r.name)
                         .add("type", r.type)
                         .add_raw("output", shape_json(r.output))
                         .add("params", r.params)
                         .add("macs", r.macs)
                         .str());
  }
  std::vector<std::string> outputs;
  for (const Shape& o : s.outputs) outputs.push_back(shape_json(o));
  return JsonObject()
      .add("model", s.name)
      .add_raw("input", shape_json(s.input))
      .add_raw("outputs", json_array(outputs))
      .add("params", s.params)
      .add("macs", s.macs)
      .add("buffers", s.buffers)
      .add_raw("layers", json_array(layers))
      .str();
}

}  // namespace limbeck::models
