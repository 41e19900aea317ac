// What this is: apps/onnx_file.h in a build without libonnx.
#include "apps/onnx_file.h"

namespace limbeck::apps {
namespace {

[[noreturn]] void absent() {
  fail<ConfigError>("onnx",
                    "this limbeck was built without ONNX; install libonnx-dev, libprotobuf-dev and protobuf-compiler "
                    "(scripts/setup.sh does), then configure and build again with LIMBECK_ONNX=ON");
}

}  // namespace

struct OnnxProgram::Impl {};

bool onnx_available() noexcept { return false; }
void write_onnx(const std::filesystem::path&, const nn::Graph&, const OnnxOptions&) { absent(); }

OnnxProgram::OnnxProgram(const std::filesystem::path&) { absent(); }
OnnxProgram::OnnxProgram(OnnxProgram&&) noexcept = default;
OnnxProgram& OnnxProgram::operator=(OnnxProgram&&) noexcept = default;
OnnxProgram::~OnnxProgram() = default;
std::vector<Tensor> OnnxProgram::run(const Tensor&, const std::vector<std::string>&) const { absent(); }
std::vector<std::string> OnnxProgram::outputs() const { absent(); }
const std::map<std::string, std::string>& OnnxProgram::metadata() const { absent(); }

}  // namespace limbeck::apps
