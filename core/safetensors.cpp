// safetensors: the header is read with a streaming JSON parser straight into SafetensorsEntry, so that a hostile header
// (deep nesting, a million names, repeated keys) costs no more than its own length; then the data ranges are checked as
// a whole; only then is data touched.
// Read next: core/file_io.h.

#include "core/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_set>
#include <utility>

#include "core/file_io.h"
#include "core/half.h"
#include "core/json.h"
#include "core/nearest_word.h"

namespace limbeck {
namespace {

constexpr std::uint64_t kMaxHeader = 100'000'000;  // limit of the format
constexpr std::uint64_t kPrefix = 8;               // the header's length, little-endian

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

struct FileType {
  std::string_view name;
  DType dtype;
  std::uint64_t bytes;  // per element in the file
};
constexpr std::array<FileType, 8> kTypes{{{"F32", DType::kF32, 4},
                                          {"F64", DType::kF64, 8},
                                          {"BF16", DType::kBF16, 2},
                                          {"F16", DType::kF32, 2},
                                          {"I64", DType::kI64, 8},
                                          {"I32", DType::kI32, 4},
                                          {"U8", DType::kU8, 1},
                                          {"BOOL", DType::kBool, 1}}};

const FileType* find_type(std::string_view name) {
  const auto it = std::find_if(kTypes.begin(), kTypes.end(), [&](const FileType& t) { return t.name == name; });
  return it == kTypes.end() ? nullptr : &*it;
}

std::string_view file_type_of(DType dtype) {
  // F16 also maps to f32, but F32 comes first.
  return std::find_if(kTypes.begin(), kTypes.end(), [&](const FileType& t) { return t.dtype == dtype; })->name;
}

/// Names come from the file: shown quoted, control characters escaped, and cut.
std::string shown(std::string_view name) {
  return name.size() <= 200 ? json_quote(name) : json_quote(name.substr(0, 200)) + "...";
}

struct Range {
  std::uint64_t begin = 0, end = 0;
};

/// Receives the events of the JSON parser; a state machine over the nesting depth:
///   1 the header object, 2 one tensor or __metadata__, 3 the arrays "shape" and "data_offsets".
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderReader(const std::string& file) : file_(file) {}

  std::vector<SafetensorsEntry> entries;
  std::vector<Range> ranges;
  std::map<std::string, std::string> metadata;

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a bool"); }
  bool number_integer(number_integer_t value) override {
    return integer(value < 0, static_cast<std::uint64_t>(value), value);
  }
  bool number_unsigned(number_unsigned_t value) override { return integer(false, value, 0); }
  bool number_float(number_float_t, const string_t& text) override {
    return unexpected("the number " + text.substr(0, 40));
  }
  bool binary(binary_t&) override { return unexpected("binary data"); }

  bool string(string_t& text) override {
    if (depth_ == 2 && in_metadata_) {
      metadata[field_] = std::move(text);
      return true;
    }
    if (depth_ == 2 && field_ == "dtype") {
      const FileType* type = find_type(text);
      if (type == nullptr) {
        refuse("field 'dtype': found {}, expected F32, F64, BF16, F16, I64, I32, U8 or BOOL", shown(text));
      }
      entries.back().file_dtype = type->name;
      entries.back().dtype = type->dtype;
      has_dtype_ = true;
      return true;
    }
    return unexpected("the text " + shown(text));
  }

  bool start_object(std::size_t) override {
    if (depth_ <= 1) {
      ++depth_;
      fields_.clear();
      if (depth_ == 2) {
        in_metadata_ = tensor_ == "__metadata__";
        has_dtype_ = has_shape_ = has_offsets_ = false;
        if (!in_metadata_) {
          entries.emplace_back().name = tensor_;
          ranges.emplace_back();
        }
      }
      return true;
    }
    return unexpected("an object");
  }

  bool key(string_t& text) override {
    if (depth_ == 1) {
      tensor_ = text;
      if (!names_.insert(text).second) fail<WeightsError>("safetensors", "{}: {} occurs twice", file_, shown(text));
      return true;
    }
    field_ = text;
    if (!fields_.insert(text).second) refuse("field {} occurs twice", shown(text));
    if (!in_metadata_ && field_ != "dtype" && field_ != "shape" && field_ != "data_offsets") {
      refuse("unknown field {}, expected 'dtype', 'shape' and 'data_offsets'", shown(text));
    }
    return true;
  }

  bool end_object() override {
    if (depth_ == 2 && !in_metadata_) {
      if (!has_dtype_) refuse("field 'dtype' is missing");
      if (!has_shape_) refuse("field 'shape' is missing");
      if (!has_offsets_) refuse("field 'data_offsets' is missing");
    }
    --depth_;
    return true;
  }

  bool start_array(std::size_t) override {
    if (depth_ == 2 && !in_metadata_ && field_ != "dtype") {
      depth_ = 3;
      count_ = 0;
      return true;
    }
    return unexpected("a list");
  }

  bool end_array() override {
    depth_ = 2;
    if (field_ == "shape") {
      has_shape_ = true;
    } else {
      if (count_ != 2) refuse("field 'data_offsets': found {} numbers, expected 2", count_);
      has_offsets_ = true;
    }
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& e) override {
    std::string_view text = e.what();
    if (const auto colon = text.find("syntax error"); colon != std::string_view::npos) text.remove_prefix(colon);
    fail<WeightsError>("safetensors", "{}: header is not valid JSON at byte {}: {}", file_, position + kPrefix,
                       text.substr(0, 300));
  }

 private:
  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    fail<WeightsError>("safetensors", "{}: {}: {}", file_, shown(tensor_),
                       fmt::format(format, std::forward<Args>(args)...));
  }

  bool integer(bool negative, std::uint64_t value, std::int64_t original) {
    if (depth_ != 3) return unexpected("the number " + (negative ? std::to_string(original) : std::to_string(value)));
    if (negative) refuse("field '{}': found {}, expected a number of at least 0", field_, original);
    if (field_ == "shape") {
      if (count_ == kMaxDims) refuse("field 'shape': found more than {} dimensions", kMaxDims);
      if (value > static_cast<std::uint64_t>(INT64_MAX)) refuse("field 'shape': size {} is too large", value);
      entries.back().shape.push_back(static_cast<std::int64_t>(value));
    } else if (count_ == 0) {
      ranges.back().begin = value;
    } else {
      ranges.back().end = value;
    }
    ++count_;
    if (field_ != "shape" && count_ > 2) refuse("field 'data_offsets': found more than 2 numbers");
    return true;
  }

  /// Any value in a place where it does not belong.
  bool unexpected(const std::string& what) const {
    switch (depth_) {
      case 0: fail<WeightsError>("safetensors", "{}: header is {}, expected a JSON object", file_, what);
      case 1: refuse("found {}, expected an object", what);
      case 2:
        if (in_metadata_) refuse("key {}: found {}, expected a text", shown(field_), what);
        refuse("field '{}': found {}, expected {}", field_, what, field_ == "dtype" ? "a text" : "a list of numbers");
      default: refuse("field '{}': found {}, expected a number of at least 0", field_, what);
    }
  }

  const std::string& file_;
  int depth_ = 0;
  std::size_t count_ = 0;  // numbers seen in the current array
  bool in_metadata_ = false;
  bool has_dtype_ = false, has_shape_ = false, has_offsets_ = false;
  std::string tensor_, field_;
  std::unordered_set<std::string> names_, fields_;
};

/// Bytes in the file that shape and dtype ask for; empty when these, or those in memory (F16 becomes f32), do not fit 63 bits.
std::optional<std::uint64_t> byte_count(const SafetensorsEntry& e) {
  const std::uint64_t in_file = find_type(e.file_dtype)->bytes;
  const std::uint64_t wider = std::max<std::uint64_t>(in_file, size_of(e.dtype));
  std::uint64_t bytes = wider;
  bool zero = false;
  for (const auto size : e.shape) {
    if (size == 0) zero = true;
    // Overflow is an error even when another dimension is 0: strides are computed from the partial products.
    if (size != 0 && __builtin_mul_overflow(bytes, static_cast<std::uint64_t>(size), &bytes)) return std::nullopt;
  }
  if (bytes > static_cast<std::uint64_t>(INT64_MAX)) return std::nullopt;
  return zero ? 0 : bytes / wider * in_file;
}

/// Ranges must fit dtype and shape, and tile the data section exactly.
void check_ranges(const std::string& file, const HeaderReader& header, std::uint64_t data_bytes) {
  std::vector<std::size_t> order(header.entries.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    order[i] = i;
    const SafetensorsEntry& e = header.entries[i];
    const Range r = header.ranges[i];
    if (r.end < r.begin || r.end > data_bytes) {
      fail<WeightsError>(
          "safetensors",
          "{}: {}: field 'data_offsets': found [{}, {}], expected a range inside the {} data bytes of the file", file,
          shown(e.name), r.begin, r.end, data_bytes);
    }
    const auto wanted = byte_count(e);
    if (!wanted) {
      fail<WeightsError>("safetensors", "{}: {}: field 'shape': {} is too large", file, shown(e.name), e.shape);
    }
    if (*wanted != r.end - r.begin) {
      fail<WeightsError>("safetensors", "{}: {}: field 'data_offsets': found {} bytes, expected {} for {} {}", file,
                         shown(e.name), r.end - r.begin, *wanted, e.file_dtype, e.shape);
    }
  }
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::pair(header.ranges[a].begin, header.ranges[a].end) <
           std::pair(header.ranges[b].begin, header.ranges[b].end);
  });
  std::uint64_t position = 0;
  for (const std::size_t i : order) {
    const Range r = header.ranges[i];
    if (r.begin != position) {
      fail<WeightsError>("safetensors", "{}: {}: field 'data_offsets': begins at {}, expected {} ({})", file,
                         shown(header.entries[i].name), r.begin, position,
                         r.begin < position ? "overlaps another tensor" : "bytes before it belong to no tensor");
    }
    position = r.end;
  }
  if (position != data_bytes) {
    fail<WeightsError>("safetensors", "{}: found {} data bytes, expected {}: the last {} belong to no tensor", file,
                       data_bytes, position, data_bytes - position);
  }
}

Tensor read_tensor(const SafetensorsEntry& e, const char* data) {
  Tensor out = Tensor::empty(e.shape, e.dtype);
  const bool direct = out.is_row_major();
  const Tensor staging = direct ? out : Tensor::empty_strided(e.shape, row_major_strides(e.shape), e.dtype);
  const auto count = static_cast<std::size_t>(e.shape.numel());
  // The file may place a tensor at any byte, so elements are moved with memcpy before they are looked at.
  if (e.file_dtype == "F16") {
    auto* to = staging.data<float>();
    for (std::size_t i = 0; i < count; ++i) {
      std::uint16_t h = 0;
      std::memcpy(&h, data + 2 * i, 2);
      to[i] = half_to_float(h);
    }
  } else if (e.dtype == DType::kBool) {
    auto* to = staging.data<bool>();
    for (std::size_t i = 0; i < count; ++i) to[i] = data[i] != 0;  // a bool with another bit pattern is undefined
  } else if (count > 0) {
    std::memcpy(staging.raw_data(), data, count * size_of(e.dtype));
  }
  if (!direct) out.copy_(staging);
  return out;
}

SafetensorsFile read_file_checked(const std::filesystem::path& path, bool with_data) {
  const std::string name = path.string();
  std::shared_ptr<const MappedFile> file;
  try {
    file = MappedFile::open(path);
  } catch (const Error& e) {
    throw WeightsError(e.what());
  }
  if (file->size() < kPrefix) {
    fail<WeightsError>("safetensors", "{}: found {} bytes, expected at least {} (header length)", name, file->size(),
                       kPrefix);
  }
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file->data(), kPrefix);
  if (header_bytes > kMaxHeader) {
    fail<WeightsError>("safetensors", "{}: header length {} exceeds the limit of {}; is this a safetensors file?", name,
                       header_bytes, kMaxHeader);
  }
  if (header_bytes > file->size() - kPrefix) {
    fail<WeightsError>("safetensors", "{}: header length {} exceeds the file of {} bytes; is the download complete?",
                       name, header_bytes, file->size());
  }
  const std::string_view header = file->bytes().substr(kPrefix, header_bytes);
  HeaderReader reader(name);
  nlohmann::json::sax_parse(header.begin(), header.end(), &reader);
  check_ranges(name, reader, file->size() - kPrefix - header_bytes);

  SafetensorsFile result{std::move(reader.entries), std::move(reader.metadata)};
  if (with_data) {
    const char* data = file->bytes().data() + kPrefix + header_bytes;
    for (std::size_t i = 0; i < result.entries.size(); ++i) {
      result.entries[i].tensor = read_tensor(result.entries[i], data + reader.ranges[i].begin);
    }
  }
  return result;
}

/// JSON text of a name; unlike json_quote it refuses text that is not UTF-8, which would not load under its own name.
std::string quote_strict(std::string_view text, const std::string& file) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::exception&) {
    fail<WeightsError>("safetensors", "{}: {} is not valid UTF-8", file, shown(text));
  }
}

}  // namespace

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const noexcept {
  const auto it = std::find_if(entries.begin(), entries.end(), [&](const auto& e) { return e.name == name; });
  return it == entries.end() ? nullptr : &*it;
}

const Tensor& SafetensorsFile::at(std::string_view name) const {
  if (const auto* e = find(name)) return e->tensor;
  std::vector<std::string> names;
  names.reserve(entries.size());
  for (const auto& e : entries) names.push_back(e.name);
  const std::string near = nearest_word(name, names);
  fail<WeightsError>("safetensors", "no tensor {} among {}{}", shown(name), entries.size(),
                     near.empty() ? "" : ", did you mean " + shown(near) + "?");
}

SafetensorsFile load_safetensors(const std::filesystem::path& path) { return read_file_checked(path, true); }
SafetensorsFile inspect_safetensors(const std::filesystem::path& path) { return read_file_checked(path, false); }

void save_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                      const std::map<std::string, std::string>& metadata) {
  const std::string file_name = path.string();
  std::unordered_set<std::string_view> names;
  for (const auto& [name, tensor] : tensors) {
    if (!tensor.defined()) fail<WeightsError>("safetensors", "{}: {} is an undefined tensor", file_name, shown(name));
    if (tensor.device().is_meta()) {
      fail<WeightsError>("safetensors", "{}: {} is on {}, expected a tensor with data", file_name, shown(name),
                         tensor.device().to_string());
    }
    if (name == "__metadata__" || !names.insert(name).second) {
      fail<WeightsError>("safetensors", "{}: {} {}", file_name, shown(name),
                         name == "__metadata__" ? "is a reserved name" : "occurs twice");
    }
  }
  // Data: wide types first, so that every tensor is aligned; the header keeps the caller's order.
  std::vector<std::size_t> order(tensors.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return size_of(tensors[a].tensor.dtype()) > size_of(tensors[b].tensor.dtype());
  });
  std::vector<Range> ranges(tensors.size());
  std::uint64_t position = 0;
  for (const std::size_t i : order) {
    const Tensor& t = tensors[i].tensor;
    ranges[i] = {position, position + static_cast<std::uint64_t>(t.numel()) * size_of(t.dtype())};
    position = ranges[i].end;
  }

  std::string header;
  if (!metadata.empty()) {
    std::string body;
    for (const auto& [key, value] : metadata) {
      body += (body.empty() ? "" : ",") + quote_strict(key, file_name) + ":" + quote_strict(value, file_name);
    }
    header += "\"__metadata__\":{" + body + "}";
  }
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto& [name, t] = tensors[i];
    header += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                          header.empty() ? "" : ",", quote_strict(name, file_name), file_type_of(t.dtype()),
                          fmt::join(t.shape(), ","), ranges[i].begin, ranges[i].end);
  }
  header = "{" + header + "}";
  header.append((8 - header.size() % 8) % 8, ' ');
  const std::uint64_t header_bytes = header.size();
  if (header_bytes > kMaxHeader) {
    fail<WeightsError>("safetensors", "{}: the header needs {} bytes, the format allows {}", file_name, header_bytes,
                       kMaxHeader);
  }

  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&header_bytes, 1)));
  file.write(header);
  for (const std::size_t i : order) {
    const Tensor t = tensors[i].tensor.to(kCpu);
    Tensor row_major = t;
    if (!t.is_row_major()) {
      row_major = Tensor::empty_strided(t.shape(), row_major_strides(t.shape()), t.dtype());
      row_major.copy_(t);
    }
    file.write(std::string_view(static_cast<const char*>(row_major.raw_data()), ranges[i].end - ranges[i].begin));
  }
  file.commit();
}

}  // namespace limbeck
