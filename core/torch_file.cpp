#include "core/torch_file.h"

#include <zip.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "core/file_io.h"
#include "core/half.h"
#include "core/pickle.h"

namespace limbeck {
namespace {

namespace fs = std::filesystem;
using Kind = PickleValue::Kind;

constexpr std::uint64_t kMostGrowth = 16;  // unpacked bytes per byte of the file
constexpr std::uint64_t kFreeGrowth = 1U << 20U;

struct StorageType {
  std::string_view name;
  std::size_t bytes;  // per element in the file
  DType dtype;        // of the tensors made from it
};
constexpr auto kStorageTypes = std::to_array<StorageType>({
    {"FloatStorage", 4, DType::kF32},
    {"DoubleStorage", 8, DType::kF64},
    {"HalfStorage", 2, DType::kF32},
    {"BFloat16Storage", 2, DType::kBF16},
    {"LongStorage", 8, DType::kI64},
    {"IntStorage", 4, DType::kI32},
    {"ShortStorage", 2, DType::kI32},
    {"CharStorage", 1, DType::kI32},
    {"ByteStorage", 1, DType::kU8},
    {"BoolStorage", 1, DType::kBool},
});

template <class... Args>
[[noreturn]] void refuse(const fs::path& path, fmt::format_string<Args...> text, Args&&... args) {
  fail<WeightsError>("torch file", "{}: {}", path.string(), fmt::format(text, std::forward<Args>(args)...));
}

/// Names come from the file; one of a megabyte would bury the message.
std::string_view shown(std::string_view name) { return name.substr(0, 200); }

// --- storages -------------------------------------------------------------------------------------------------------

/// Elements of one storage in the machine's byte order, converted to the tensor's type.
class StorageReader {
 public:
  StorageReader(const fs::path& path, std::uint64_t file_size)
      : path_(path), budget_(file_size * kMostGrowth + kFreeGrowth) {}

  /// Registers raw bytes under a key. The bytes are converted when a tensor asks for them.
  void put(std::string key, std::string bytes) { raw_.insert_or_assign(std::move(key), std::move(bytes)); }
  void swap_bytes(bool value) { swap_ = value; }
  [[nodiscard]] bool has(std::string_view key) const { return raw_.find(key) != raw_.end(); }

  [[nodiscard]] const StorageType& type_of(std::string_view name) const {
    const auto found =
        std::find_if(kStorageTypes.begin(), kStorageTypes.end(), [&](const StorageType& t) { return t.name == name; });
    if (found == kStorageTypes.end()) refuse(path_, "storage of the unknown type '{}'", name);
    return *found;
  }

  /// The tensor that `value` describes.
  Tensor make(std::string_view name, const PickleTensor& value) {
    const StorageType& type = type_of(value.storage.type);
    const Tensor elements = elements_of(value.storage, type);
    name = shown(name);
    if (value.sizes.size() != value.strides.size() || value.sizes.size() > kMaxDims) {
      refuse(path_, "tensor '{}' has {} sizes and {} strides, expected equally many and at most {}", name,
             value.sizes.size(), value.strides.size(), kMaxDims);
    }
    // The last element must lie in the storage; every product is checked before it is used. A stride of 0 reaches nowhere, so the
    // number of bytes is checked as well.
    auto bytes = static_cast<std::int64_t>(size_of(type.dtype));
    std::int64_t last = value.offset;
    bool fits = value.offset >= 0;
    for (std::size_t i = 0; i < value.sizes.size() && fits; ++i) {
      std::int64_t reach = 0;
      fits = value.sizes[i] >= 0 && value.strides[i] >= 0 &&
             !__builtin_mul_overflow(bytes, std::max<std::int64_t>(value.sizes[i], 1), &bytes) &&
             !__builtin_mul_overflow(std::max<std::int64_t>(value.sizes[i] - 1, 0), value.strides[i], &reach) &&
             !__builtin_add_overflow(last, reach, &last);
    }
    const bool empty = std::find(value.sizes.begin(), value.sizes.end(), 0) != value.sizes.end();
    if (!fits || (!empty && last >= elements.numel())) {
      refuse(path_,
             "tensor '{}' of shape [{}] with strides [{}] at element {} reaches outside of its storage of {} elements",
             name, fmt::join(value.sizes, ", "), fmt::join(value.strides, ", "), value.offset, elements.numel());
    }
    spend(empty ? 0 : static_cast<std::uint64_t>(bytes), name);
    const Shape shape{std::span<const std::int64_t>(value.sizes)};
    const Strides strides{std::span<const std::int64_t>(value.strides)};
    Tensor out = Tensor::empty(shape, type.dtype);
    if (empty) return out;
    auto* data =
        static_cast<std::byte*>(elements.raw_data()) + static_cast<std::size_t>(value.offset) * size_of(type.dtype);
    copy_view({data, type.dtype, shape, strides}, out.view());
    return out;
  }

 private:
  void spend(std::uint64_t bytes, std::string_view name) {
    if (bytes > budget_) {
      refuse(path_, "the tensors up to '{}' unpack to more than {} times the size of the file; this is no weight file",
             name, kMostGrowth);
    }
    budget_ -= bytes;
  }

  const Tensor& elements_of(const PickleStorage& storage, const StorageType& type) {
    const auto done = ready_.find(storage.key);
    if (done != ready_.end()) {
      if (done->second.first != type.name)
        refuse(path_, "storage '{}' is used as {} and as {}", shown(storage.key), done->second.first, type.name);
      return done->second.second;
    }
    const auto found = raw_.find(storage.key);
    if (found == raw_.end()) refuse(path_, "storage '{}' is missing; the file is truncated", shown(storage.key));
    std::string& bytes = found->second;
    std::uint64_t expected = 0;
    if (storage.count < 0 || __builtin_mul_overflow(static_cast<std::uint64_t>(storage.count), type.bytes, &expected) ||
        expected != bytes.size()) {
      refuse(path_, "storage '{}' has {} bytes, expected {} elements of {} ({} bytes each)", shown(storage.key),
             bytes.size(), storage.count, type.name, type.bytes);
    }
    if (swap_ && type.bytes > 1) {
      for (std::size_t i = 0; i < bytes.size(); i += type.bytes)
        std::reverse(bytes.begin() + static_cast<std::ptrdiff_t>(i),
                     bytes.begin() + static_cast<std::ptrdiff_t>(i + type.bytes));
    }
    spend(static_cast<std::uint64_t>(storage.count) * size_of(type.dtype), shown(storage.key));
    Tensor out = Tensor::empty({storage.count}, type.dtype);
    convert(bytes, type, out);
    bytes = {};
    return ready_.emplace(std::string(storage.key), std::pair(type.name, out)).first->second.second;
  }

  static void convert(const std::string& bytes, const StorageType& type, const Tensor& out) {
    const auto each = [&]<class From, class To>(From, To* to, auto&& function) {
      for (std::size_t i = 0; i < bytes.size() / sizeof(From); ++i) {
        From value;
        std::memcpy(&value, bytes.data() + i * sizeof(From), sizeof(From));
        to[i] = function(value);
      }
    };
    if (type.name == "HalfStorage") {
      each(std::uint16_t{}, out.data<float>(), [](std::uint16_t h) { return half_to_float(h); });
    } else if (type.name == "ShortStorage") {
      each(std::int16_t{}, out.data<std::int32_t>(), [](std::int16_t v) { return std::int32_t{v}; });
    } else if (type.name == "CharStorage") {
      each(std::int8_t{}, out.data<std::int32_t>(), [](std::int8_t v) { return std::int32_t{v}; });
    } else if (type.name == "BoolStorage") {  // any other byte than 0 and 1 in a bool is undefined behaviour
      each(std::uint8_t{}, out.data<bool>(), [](std::uint8_t v) { return v != 0; });
    } else if (!bytes.empty()) {
      std::memcpy(out.raw_data(), bytes.data(), bytes.size());
    }
  }

  fs::path path_;
  std::uint64_t budget_;
  bool swap_ = false;
  std::map<std::string, std::string, std::less<>> raw_;
  std::map<std::string, std::pair<std::string_view, Tensor>, std::less<>> ready_;
};

// --- the dictionary -------------------------------------------------------------------------------------------------

bool holds_tensors(const PickleValue& v) {
  return v.kind == Kind::kDict && std::any_of(v.pairs.begin(), v.pairs.end(), [](const auto& p) {
           return p.first->kind == Kind::kText && p.second->kind == Kind::kTensor;
         });
}

/// The dictionary of weights in `root`, at most two levels down. Returns null and lists the keys if there is none.
const PickleValue* find_dictionary(const PickleValue& root, std::string& path) {
  static constexpr auto kWrappers = std::to_array<std::string_view>(
      {"state_dict", "model_state_dict", "model_state", "model", "module", "network", "net", "student", "ema"});
  const PickleValue* at = &root;
  for (int depth = 0; depth < 3; ++depth) {
    if (holds_tensors(*at)) return at;
    const PickleValue* next = nullptr;
    for (const std::string_view key : kWrappers) {
      const PickleValue* candidate = at->find(key);
      if (candidate == nullptr || candidate->kind != Kind::kDict) continue;
      next = candidate;
      path += path.empty() ? std::string(key) : "." + std::string(key);
      break;
    }
    if (next == nullptr) return nullptr;
    at = next;
  }
  return nullptr;
}

TorchFile collect(const fs::path& path, const PickleValue& root, StorageReader& storages) {
  TorchFile file;
  const PickleValue* dictionary = find_dictionary(root, file.path);
  if (dictionary == nullptr) {
    std::vector<std::string_view> keys;
    for (const auto& [key, value] : root.pairs) {
      if (key->kind == Kind::kText && keys.size() < 12) keys.push_back(key->text.substr(0, 40));
    }
    refuse(path, "no dictionary of tensors in it{}{}; save one with torch.save(model.state_dict(), file)",
           keys.empty() ? "" : ", only the keys ", fmt::join(keys, ", "));
  }
  std::set<std::string_view> names;
  for (const auto& [key, value] : dictionary->pairs) {
    if (key->kind != Kind::kText) {
      file.skipped.emplace_back("(a key that is no text)");
      continue;
    }
    if (!names.insert(key->text).second) refuse(path, "entry '{}' is there twice", shown(key->text));
    if (value->kind != Kind::kTensor) {
      file.skipped.emplace_back(key->text);
      continue;
    }
    file.tensors.push_back({std::string(key->text), storages.make(key->text, *value->tensor)});
  }
  return file;
}

// --- zip archives ---------------------------------------------------------------------------------------------------

struct ZipCloser {
  void operator()(zip_t* z) const noexcept { zip_discard(z); }
  void operator()(zip_file_t* f) const noexcept { zip_fclose(f); }
};

class Archive {
 public:
  explicit Archive(const fs::path& path) : path_(path), size_(fs::file_size(path)) {
    int code = 0;
    zip_.reset(zip_open(path.c_str(), ZIP_RDONLY | ZIP_CHECKCONS, &code));
    if (!zip_) {
      zip_error_t error;
      zip_error_init_with_code(&error, code);
      const std::string text = zip_error_strerror(&error);
      zip_error_fini(&error);
      refuse(path, "a damaged zip archive ({}); the file is truncated or not a PyTorch file", text);
    }
    const std::int64_t count = zip_get_num_entries(zip_.get(), 0);
    for (std::int64_t i = 0; i < count; ++i) {
      const char* name = zip_get_name(zip_.get(), static_cast<zip_uint64_t>(i), ZIP_FL_ENC_RAW);
      if (name != nullptr) names_.emplace_back(name);
    }
  }

  [[nodiscard]] const std::vector<std::string>& names() const noexcept { return names_; }
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

  /// All bytes of an entry; its checksum is verified by libzip at the end of the data.
  [[nodiscard]] std::string read(const std::string& name) {
    zip_stat_t stat;
    zip_stat_init(&stat);
    if (zip_stat(zip_.get(), name.c_str(), ZIP_FL_ENC_RAW, &stat) != 0 || (stat.valid & ZIP_STAT_SIZE) == 0) {
      refuse(path_, "archive entry '{}' cannot be read ({})", name, zip_strerror(zip_.get()));
    }
    unpacked_ += stat.size;
    if (stat.size > size_ * kMostGrowth + kFreeGrowth || unpacked_ > size_ * kMostGrowth + kFreeGrowth) {
      refuse(path_, "archive entry '{}' unpacks to {} bytes, more than {} times the file; this is no weight file", name,
             stat.size, kMostGrowth);
    }
    const std::unique_ptr<zip_file_t, ZipCloser> entry(zip_fopen(zip_.get(), name.c_str(), ZIP_FL_ENC_RAW));
    if (!entry) refuse(path_, "archive entry '{}' cannot be opened ({})", name, zip_strerror(zip_.get()));
    std::string bytes(static_cast<std::size_t>(stat.size), '\0');
    std::size_t have = 0;
    while (have < bytes.size()) {
      const std::int64_t got = zip_fread(entry.get(), bytes.data() + have, bytes.size() - have);
      if (got <= 0)
        refuse(path_, "archive entry '{}' ends after {} of {} bytes ({})", name, have, bytes.size(),
               zip_file_strerror(entry.get()));
      have += static_cast<std::size_t>(got);
    }
    char beyond = 0;  // asking for more makes libzip compare the checksum
    if (zip_fread(entry.get(), &beyond, 1) != 0)
      refuse(path_, "archive entry '{}' is damaged ({})", name, zip_file_strerror(entry.get()));
    return bytes;
  }

 private:
  fs::path path_;
  std::uint64_t size_;
  std::uint64_t unpacked_ = 0;
  std::unique_ptr<zip_t, ZipCloser> zip_;
  std::vector<std::string> names_;
};

TorchFile load_zip(const fs::path& path) {
  Archive archive(path);
  constexpr std::string_view kPickle = "/data.pkl";
  std::string root;
  for (const std::string& name : archive.names()) {
    if (!name.ends_with(kPickle)) continue;
    if (!root.empty()) refuse(path, "several entries named data.pkl: {}{} and {}", root, kPickle, name);
    root = name.substr(0, name.size() - kPickle.size());
  }
  if (root.empty()) refuse(path, "a zip archive without data.pkl; it was not written by torch.save");
  const std::string pickle = archive.read(root + std::string(kPickle));
  const PickleDocument document = load_pickle(pickle, path.string());

  StorageReader storages(path, archive.size());
  const std::string data = root + "/data/";
  for (const std::string& name : archive.names()) {
    if (name == root + "/byteorder") storages.swap_bytes(archive.read(name) == "big");
    if (name.starts_with(data)) storages.put(name.substr(data.size()), archive.read(name));
  }
  return collect(path, *document.root, storages);
}

// --- the older format: magic number, protocol, system facts, object, keys, then the storages in the order of the keys ----

std::int64_t integer_of(const fs::path& path, const PickleDocument& document, const char* what) {
  if (document.root->kind != Kind::kInt) refuse(path, "field '{}' is no integer; this is no PyTorch file", what);
  return document.root->integer;
}

TorchFile load_legacy(const fs::path& path) {
  const std::string bytes = read_file<WeightsError>(path);
  const std::string source = path.string();
  std::string_view rest = bytes;
  std::deque<PickleDocument> documents;
  const auto next = [&]() -> const PickleDocument& {
    documents.push_back(load_pickle(rest, source));
    rest.remove_prefix(documents.back().bytes_read);
    return documents.back();
  };
  static_cast<void>(integer_of(path, next(), "magic number"));
  const std::int64_t protocol = integer_of(path, next(), "protocol version");
  if (protocol != 1001) refuse(path, "field 'protocol version': found {}, expected 1001", protocol);
  const PickleValue* little = next().root->find("little_endian");
  const PickleValue& object = *next().root;
  const PickleValue& keys = *next().root;
  if (keys.kind != Kind::kList && keys.kind != Kind::kTuple) refuse(path, "the list of storages is missing");

  // Only the description of a storage in the pickle tells the size of its elements.
  std::map<std::string_view, std::string_view> types;
  for (const PickleValue& value : documents[3].values) {
    if (value.kind == Kind::kStorage) types.emplace(value.tensor->storage.key, value.tensor->storage.type);
  }
  StorageReader storages(path, bytes.size());
  storages.swap_bytes(little != nullptr && little->kind == Kind::kBool && !little->boolean);
  for (const PickleValue* key : keys.items) {
    if (key->kind != Kind::kText) refuse(path, "a storage whose key is no text");
    const auto type = types.find(key->text);
    if (type == types.end()) {
      refuse(path, "storage '{}' is listed, but nothing in the file uses it", shown(key->text));
    }
    if (rest.size() < 8) refuse(path, "storage '{}' is missing; the file is truncated", shown(key->text));
    std::uint64_t count = 0;
    for (std::size_t i = 8; i-- > 0;) count = (count << 8U) | static_cast<unsigned char>(rest[i]);
    rest.remove_prefix(8);
    std::uint64_t size = 0;
    if (__builtin_mul_overflow(count, storages.type_of(type->second).bytes, &size) || size > rest.size()) {
      refuse(path, "storage '{}' of {} elements: {} bytes are left; the file is truncated", shown(key->text), count,
             rest.size());
    }
    storages.put(std::string(key->text), std::string(rest.substr(0, static_cast<std::size_t>(size))));
    rest.remove_prefix(static_cast<std::size_t>(size));
  }
  return collect(path, object, storages);
}

std::string first_bytes(const fs::path& path) {
  std::string bytes(16, '\0');
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             [](std::FILE* f) { return std::fclose(f); });
  if (!file) return "";
  bytes.resize(std::fread(bytes.data(), 1, bytes.size(), file.get()));
  return bytes;
}

bool is_zip(std::string_view head) { return head.starts_with(std::string_view("PK\x03\x04", 4)); }

/// PROTO 2, LONG1 of ten bytes: 0x1950a86a20f9469cfc6c, little-endian.
bool is_legacy(std::string_view head) {
  return head.starts_with(std::string_view("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 14));
}

}  // namespace

bool is_torch_file(const fs::path& path) {
  const std::string head = first_bytes(path);
  return is_zip(head) || is_legacy(head);
}

TorchFile load_torch_file(const fs::path& path) {
  const std::string head = first_bytes(path);
  if (is_zip(head)) return load_zip(path);
  if (is_legacy(head)) return load_legacy(path);
  if (head.empty()) refuse(path, "it cannot be read or is empty");
  refuse(
      path,
      "neither a zip archive nor a PyTorch pickle (PyTorch before 0.2 wrote tar files: load and save it again in Python)");
}

}  // namespace limbeck
