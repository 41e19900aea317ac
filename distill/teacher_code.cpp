#include "distill/teacher_code.h"

#include "core/file_io.h"
#include "core/safetensors.h"

namespace limbeck::distill {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTeacher = "teacher";
constexpr const char* kTeacherTap = "teacher_tap";
constexpr const char* kFingerprint = "teacher_fingerprint";

/// The network's name in the zoo; for others the name of their class.
std::string zoo_name(const models::Model& model) {
  return model.spec().name.empty() ? model.type() : model.spec().name;
}

}  // namespace

std::string teacher_fingerprint(const models::Model& teacher) {
  std::uint32_t checksum = 0;
  std::int64_t count = 0;
  for (const auto& [name, tensor] : teacher.state_dict()) {
    if (name.ends_with("num_batches_tracked")) continue;
    const Tensor dense = tensor.to(kCpu).dense();
    checksum = crc32c(fmt::format("{} {} {}\n", name, name_of(dense.dtype()), dense.shape()), checksum);
    const auto bytes = static_cast<std::size_t>(dense.numel()) * size_of(dense.dtype());
    checksum = crc32c(std::string_view(static_cast<const char*>(dense.view().data), bytes), checksum);
    count += dense.numel();
  }
  return fmt::format("crc32c:{:08x}/{}", checksum, count);
}

std::map<std::string, std::string> autoencoder_metadata(const models::Model& teacher, const std::string& tap) {
  return {{kTeacher, zoo_name(teacher)}, {kTeacherTap, tap}, {kFingerprint, teacher_fingerprint(teacher)}};
}

models::TapInfo TeacherCode::info(const models::TapInfo& source) const {
  models::TapInfo code{kCodeTap, encoder->options().code_channels(), source.stride};
  for (const std::int64_t stride : encoder->options().strides) code.stride *= stride;
  return code;
}

std::shared_ptr<TeacherCode> load_teacher_code(const fs::path& path, const models::Model& teacher) {
  auto code = std::make_shared<TeacherCode>();
  code->encoder = models::load_encoder(path);
  const fs::path file = fs::is_directory(path) ? path / "model.safetensors" : path;
  const auto metadata = inspect_safetensors(file).metadata;
  const auto text = [&](const char* key) -> std::string {
    const auto found = metadata.find(key);
    if (found != metadata.end()) return found->second;
    fail<WeightsError>("autoencoder", "{} does not say which teacher it belongs to: its metadata has no '{}'",
                       file.string(), key);
  };
  code->tap = text(kTeacherTap);
  code->file = file.string();
  const std::string fingerprint = teacher_fingerprint(teacher);
  if (text(kFingerprint) != fingerprint) {
    fail<WeightsError>(
        "autoencoder",
        "{} is from another teacher: made for {} with weights {}, this teacher is {} with weights {}; train "
        "the autoencoder on this teacher",
        file.string(), text(kTeacher), text(kFingerprint), zoo_name(teacher), fingerprint);
  }
  code->encoder->freeze();
  return code;
}

}  // namespace limbeck::distill
