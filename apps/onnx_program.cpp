// What this is: an ONNX file read back and run by limbeck's ops. It is the proof that a file holds what the network computes, so
//   it reads everything from the file and knows nothing of the graph that the file was written from.
// Files come from anywhere: each count, index and attribute is checked before it is used.
#include <onnx/onnx_pb.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <set>

#include "apps/onnx_file.h"
#include "apps/onnx_ops.h"
#include "core/autograd.h"
#include "core/file_io.h"

namespace limbeck::apps {
namespace {

Tensor read_tensor(const onnx::TensorProto& t, const std::string& file) {
  const auto bad = [&](const char* what) { fail<WeightsError>("onnx", "{}: tensor '{}' {}", file, t.name(), what); };
  if (t.dims_size() > static_cast<int>(kMaxDims)) bad("has too many dimensions");
  if (t.data_location() == onnx::TensorProto::EXTERNAL) bad("is stored in another file");
  Shape shape;
  std::int64_t count = 1;
  for (const std::int64_t d : t.dims()) {
    if (d < 0 || d > (std::int64_t{1} << 32) || (d > 0 && count > (std::int64_t{1} << 40) / d))
      bad("has an impossible size");
    shape.push_back(d);
    count *= d;
  }
  const auto n = static_cast<std::size_t>(count);
  const auto read = [&]<class T>(T, const auto& list) {
    std::vector<T> values(list.begin(), list.end());
    if (!t.raw_data().empty()) {
      if (t.raw_data().size() != n * sizeof(T)) bad("has another number of bytes than its dimensions say");
      values.resize(n);
      std::memcpy(values.data(), t.raw_data().data(), n * sizeof(T));
    }
    if (values.size() != n) bad("has another number of values than its dimensions say");
    return Tensor::from(values, shape);
  };
  if (t.data_type() == onnx::TensorProto::FLOAT) return read(float{}, t.float_data());
  if (t.data_type() == onnx::TensorProto::INT64) return read(std::int64_t{}, t.int64_data());
  if (t.data_type() == onnx::TensorProto::INT32) return read(std::int32_t{}, t.int32_data());
  if (t.data_type() == onnx::TensorProto::UINT8) return read(std::uint8_t{}, t.int32_data());
  if (t.data_type() == onnx::TensorProto::INT8) {  // no type of a tensor here; the numbers are what counts
    if (t.raw_data().size() != n) bad("has another number of bytes than its dimensions say");
    std::vector<std::int32_t> values;
    for (const char c : t.raw_data()) values.push_back(static_cast<std::int8_t>(c));
    return Tensor::from(values, shape);
  }
  bad("is neither float nor an integer of 8, 32 or 64 bits");
  return {};
}

/// The attributes of a node with their defaults.
class Attributes final : public OnnxAttributes {
 public:
  explicit Attributes(const onnx::NodeProto& node) : node_(node) {}
  [[nodiscard]] std::int64_t integer(std::string_view name, std::int64_t otherwise) const override {
    const auto* a = find(name, onnx::AttributeProto::INT);
    return a != nullptr ? a->i() : otherwise;
  }
  [[nodiscard]] double number(std::string_view name, double otherwise) const override {
    const auto* a = find(name, onnx::AttributeProto::FLOAT);
    return a != nullptr ? static_cast<double>(a->f()) : otherwise;
  }
  [[nodiscard]] std::string text(std::string_view name, const std::string& otherwise) const override {
    const auto* a = find(name, onnx::AttributeProto::STRING);
    return a != nullptr ? a->s() : otherwise;
  }
  [[nodiscard]] std::vector<std::int64_t> integers(std::string_view name,
                                                   std::vector<std::int64_t> otherwise) const override {
    const auto* a = find(name, onnx::AttributeProto::INTS);
    return a != nullptr ? std::vector<std::int64_t>(a->ints().begin(), a->ints().end()) : std::move(otherwise);
  }

 private:
  [[nodiscard]] const onnx::AttributeProto* find(std::string_view name,
                                                 onnx::AttributeProto::AttributeType type) const {
    for (const auto& a : node_.attribute()) {
      if (a.name() != name) continue;
      LIMBECK_CHECK(a.type() == type, "onnx", "attribute '{}' of node '{}' has another type", name, node_.name());
      return &a;
    }
    return nullptr;
  }
  const onnx::NodeProto& node_;
};

}  // namespace

struct OnnxProgram::Impl {
  onnx::ModelProto model;
  std::string file;
  std::map<std::string, Tensor> constants;
  std::map<std::string, std::string> metadata;
};

OnnxProgram::OnnxProgram(const std::filesystem::path& path) : impl_(std::make_unique<Impl>()) {
  impl_->file = path.string();
  const auto bytes = read_file<WeightsError>(path);
  if (!impl_->model.ParseFromString(bytes)) fail<WeightsError>("onnx", "{} is no ONNX file, or damaged", impl_->file);
  const onnx::GraphProto& graph = impl_->model.graph();
  for (const auto& t : graph.initializer()) impl_->constants[t.name()] = read_tensor(t, impl_->file);
  if (graph.input_size() != 1 || graph.output_size() < 1) {
    fail<WeightsError>("onnx", "{} has {} inputs and {} outputs, expected one input and at least one output",
                       impl_->file, graph.input_size(), graph.output_size());
  }
  for (const auto& entry : impl_->model.metadata_props()) impl_->metadata[entry.key()] = entry.value();
  for (const auto& node : graph.node()) {
    if (!knows_onnx_op(node.op_type())) {
      fail<WeightsError>("onnx", "{}: node '{}' is a {}, which limbeck does not run", impl_->file, node.name(),
                         node.op_type());
    }
    if (node.output_size() != 1)
      fail<WeightsError>("onnx", "{}: node '{}' has {} outputs", impl_->file, node.name(), node.output_size());
  }
}

OnnxProgram::OnnxProgram(OnnxProgram&&) noexcept = default;
OnnxProgram& OnnxProgram::operator=(OnnxProgram&&) noexcept = default;
OnnxProgram::~OnnxProgram() = default;

std::vector<std::string> OnnxProgram::outputs() const {
  std::vector<std::string> names;
  for (const auto& o : impl_->model.graph().output()) names.push_back(o.name());
  return names;
}

const std::map<std::string, std::string>& OnnxProgram::metadata() const { return impl_->metadata; }

std::vector<Tensor> OnnxProgram::run(const Tensor& x, const std::vector<std::string>& names) const {
  const NoGradGuard off;
  const onnx::GraphProto& graph = impl_->model.graph();
  std::map<std::string, int> readers;
  for (const auto& name : names) ++readers[name];
  for (const auto& node : graph.node()) {
    for (const auto& name : node.input()) ++readers[name];
  }
  std::map<std::string, Tensor> values{{graph.input(0).name(), x}};
  const auto value = [&](const std::string& name, const std::string& reader) -> Tensor {
    if (name.empty()) return {};  // an optional input that is not given
    if (const auto found = values.find(name); found != values.end()) return found->second;
    if (const auto found = impl_->constants.find(name); found != impl_->constants.end()) return found->second;
    fail<WeightsError>("onnx", "{}: '{}' reads '{}', which nothing before it makes", impl_->file, reader, name);
  };
  for (const auto& node : graph.node()) {
    const ScopeName scope(node.name());
    std::vector<Tensor> inputs;
    for (const auto& name : node.input()) inputs.push_back(value(name, node.name()));
    try {
      values[node.output(0)] = run_onnx_op(node.op_type(), inputs, Attributes(node));
    } catch (const Error& e) {
      fail<WeightsError>("onnx", "{}: node '{}' ({}): {}", impl_->file, node.name(), node.op_type(), e.what());
    }
    for (const auto& name : node.input()) {
      if (--readers[name] == 0) values.erase(name);
    }
  }
  std::vector<Tensor> out;
  for (const auto& name : names) out.push_back(value(name, "the caller"));
  return out;
}

}  // namespace limbeck::apps
