// What this is: save_torch_file(): a dictionary of tensors in the zip format of torch.save. The pickle is the shortest that says
//   OrderedDict(name -> tensor); the numbers lie beside it, one archive entry per tensor, not compressed.
// Read next: core/torch_file.cpp (the way back), core/pickle.h (the opcodes).
#include <zip.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <set>

#include "core/torch_file.h"

namespace limbeck {
namespace {

/// Writes opcodes of pickle protocol 2.
class PickleText {
 public:
  PickleText() : text_("\x80\x02") {}
  void op(char code) { text_ += code; }
  void global(const char* module, const char* name) {
    text_ += 'c';
    text_ += module;
    text_ += '\n';
    text_ += name;
    text_ += '\n';
  }
  void text(const std::string& s) {
    text_ += 'X';
    little_endian(static_cast<std::uint64_t>(s.size()), 4);
    text_ += s;
  }
  void integer(std::int64_t v) {
    if (v >= 0 && v <= std::numeric_limits<std::int32_t>::max()) {
      text_ += 'J';
      little_endian(static_cast<std::uint64_t>(v), 4);
    } else {
      text_ += "\x8a\x08";
      little_endian(static_cast<std::uint64_t>(v), 8);
    }
  }
  void tuple(const Shape& values) {
    op('(');
    for (const std::int64_t v : values) integer(v);
    op('t');
  }
  void empty_dictionary() {
    global("collections", "OrderedDict");
    text_ += ")R";
  }
  [[nodiscard]] const std::string& str() const noexcept { return text_; }

 private:
  void little_endian(std::uint64_t v, int bytes) {
    for (int i = 0; i < bytes; ++i) text_ += static_cast<char>((v >> (8 * i)) & 0xFF);
  }
  std::string text_;
};

const char* storage_class(const NamedTensor& t) {
  switch (t.tensor.dtype()) {
    case DType::kF32: return "FloatStorage";
    case DType::kF64: return "DoubleStorage";
    case DType::kBF16: return "BFloat16Storage";
    case DType::kI64: return "LongStorage";
    case DType::kI32: return "IntStorage";
    case DType::kU8: return "ByteStorage";
    default:
      fail<WeightsError>("torch", "tensor '{}' is {}, which torch files written here do not hold", t.name,
                         name_of(t.tensor.dtype()));
  }
}

void write_tensor(PickleText& p, const NamedTensor& t, std::size_t key) {
  p.global("torch._utils", "_rebuild_tensor_v2");
  p.op('(');
  p.op('(');  // the storage, which the reader looks up beside the pickle
  p.text("storage");
  p.global("torch", storage_class(t));
  p.text(std::to_string(key));
  p.text("cpu");
  p.integer(t.tensor.numel());
  p.op('t');
  p.op('Q');
  p.integer(0);
  p.tuple(t.tensor.shape());
  p.tuple(row_major_strides(t.tensor.shape()));
  p.op('\x89');  // requires no gradient
  p.empty_dictionary();
  p.op('t');
  p.op('R');
}

/// The numbers in row-major order.
std::string bytes_of(const Tensor& t) {
  Tensor plain = Tensor::empty_strided(t.shape(), row_major_strides(t.shape()), t.dtype());
  plain.copy_(t);
  return {static_cast<const char*>(plain.raw_data()), static_cast<std::size_t>(t.numel()) * size_of(t.dtype())};
}

class Archive {
 public:
  explicit Archive(const std::filesystem::path& path) : path_(path) {
    int code = 0;
    zip_ = zip_open(path.c_str(), ZIP_CREATE | ZIP_TRUNCATE, &code);
    if (zip_ == nullptr) {
      zip_error_t error;
      zip_error_init_with_code(&error, code);
      const std::string text = zip_error_strerror(&error);
      zip_error_fini(&error);
      fail("torch", "cannot write {}: {}", path.string(), text);
    }
  }
  Archive(const Archive&) = delete;
  Archive& operator=(const Archive&) = delete;
  ~Archive() {
    if (zip_ != nullptr) zip_discard(zip_);
  }
  /// `bytes` must live until close().
  void add(const std::string& name, const std::string& bytes) {
    zip_source_t* source = zip_source_buffer(zip_, bytes.data(), bytes.size(), 0);
    const zip_int64_t index = source == nullptr ? -1 : zip_file_add(zip_, name.c_str(), source, ZIP_FL_ENC_UTF_8);
    if (index < 0) {
      if (source != nullptr) zip_source_free(source);
      give_up();
    }
    if (zip_set_file_compression(zip_, static_cast<zip_uint64_t>(index), ZIP_CM_STORE, 0) != 0) give_up();
  }
  void close() {
    if (zip_close(zip_) != 0) give_up();
    zip_ = nullptr;
  }

 private:
  [[noreturn]] void give_up() { fail("torch", "cannot write {}: {}", path_.string(), zip_strerror(zip_)); }
  std::filesystem::path path_;
  zip_t* zip_ = nullptr;
};

}  // namespace

void save_torch_file(const std::filesystem::path& path, std::span<const NamedTensor> tensors) {
  PickleText pickle;
  pickle.empty_dictionary();
  pickle.op('(');
  std::set<std::string> names;
  for (std::size_t k = 0; k < tensors.size(); ++k) {
    const NamedTensor& t = tensors[k];
    if (!t.tensor.defined() || !t.tensor.device().is_cpu())
      fail<WeightsError>("torch", "tensor '{}' has no data on the CPU", t.name);
    if (!names.insert(t.name).second) fail<WeightsError>("torch", "two tensors are called '{}'", t.name);
    pickle.text(t.name);
    write_tensor(pickle, t, k);
  }
  pickle.op('u');
  pickle.op('.');

  std::vector<std::string> data;
  data.reserve(tensors.size());
  for (const NamedTensor& t : tensors) data.push_back(bytes_of(t.tensor));
  const std::string order = "little", version = "3\n";
  Archive archive(path);
  archive.add("archive/data.pkl", pickle.str());
  archive.add("archive/byteorder", order);
  for (std::size_t k = 0; k < data.size(); ++k) archive.add(fmt::format("archive/data/{}", k), data[k]);
  archive.add("archive/version", version);
  archive.close();
}

}  // namespace limbeck
