// safetensors: round trips, every kind of damaged file, and agreement with the Python package.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "core/file_io.h"
#include "core/json.h"
#include "core/rng.h"
#include "core/safetensors.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using test::check_throws;
using test::TempDir;

TEST_SUITE_BEGIN("safetensors");

namespace {

std::string file_with(std::string_view header, std::string_view data = {}) {
  const std::uint64_t length = header.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &length, 8);
  return out.append(header).append(data);
}

/// Loads a file of these bytes; the error must contain the file's name and `parts`.
void check_refused(const std::string& bytes, std::initializer_list<std::string_view> parts) {
  const TempDir dir;
  write_file_atomic(dir / "bad.safetensors", bytes);
  check_throws<WeightsError>([&] { static_cast<void>(load_safetensors(dir / "bad.safetensors")); }, parts);
  check_throws<WeightsError>([&] { static_cast<void>(inspect_safetensors(dir / "bad.safetensors")); },
                             {"bad.safetensors"});
}

void check_header(std::string_view header, std::initializer_list<std::string_view> parts, std::size_t data_bytes = 8) {
  check_refused(file_with(header, std::string(data_bytes, '\0')), parts);
}

/// Runs a Python program with arguments; false (and a printed reason) if no suitable Python is known.
bool run_python(const std::string& program, const std::filesystem::path& folder) {
  const char* python = std::getenv("LIMBECK_PYTHON");
  if (python == nullptr || *python == '\0') {
    MESSAGE("skipped: set LIMBECK_PYTHON to a Python with torch and safetensors");
    return false;
  }
  write_file_atomic(folder / "check.py", program);
  const std::string command = fmt::format("cd '{}' && '{}' check.py > out.txt 2>&1", folder.string(), python);
  const int status = std::system(command.c_str());
  CHECK_MESSAGE(status == 0, read_file(folder / "out.txt"));
  return status == 0;
}

}  // namespace

TEST_CASE("all types and ranks survive, in order, in the default layout") {
  const TempDir dir;
  Generator g(1);
  const Tensor image = Tensor::empty({2, 3, 4, 5});
  fill_normal_(image, g, 0, 1);
  std::vector<bfloat16> halves;
  for (int i = 0; i < 6; ++i) halves.emplace_back(static_cast<float>(i) * 0.3F);
  const std::vector<NamedTensor> tensors{
      {"z.image", image},
      {"bytes", Tensor::from(std::vector<std::uint8_t>{1, 2, 255}, {3})},
      {"scalar", Tensor::from(std::vector<std::int64_t>{-7}, {})},
      {"bf16", Tensor::from(halves, {2, 3})},
      {"f64", Tensor::from(std::vector<double>{1e-300, -0.0}, {2})},
      {"i32", Tensor::from(std::vector<std::int32_t>{1, -2, 3, 4, 5, 6, 7, 8}, {2, 2, 2})},
      {"empty", Tensor::empty({0, 3})},
      {"sliced", image.alias({2, 3, 2, 2}, image.strides(), 0)},
  };
  save_safetensors(dir / "a", tensors, {{"k", "v \"quoted\" \xC3\xA4"}, {"a", ""}});
  const auto file = load_safetensors(dir / "a");
  CHECK(file.metadata == std::map<std::string, std::string>{{"k", "v \"quoted\" \xC3\xA4"}, {"a", ""}});
  REQUIRE(file.entries.size() == tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto& e = file.entries[i];
    const Tensor& want = tensors[i].tensor;
    CAPTURE(e.name);
    CHECK(e.name == tensors[i].name);
    CHECK(e.tensor.shape() == want.shape());
    CHECK(e.shape == want.shape());
    CHECK(e.dtype == want.dtype());
    CHECK(e.tensor.dtype() == want.dtype());
    CHECK(e.tensor.strides() == default_strides(want.shape()));
    CHECK(e.tensor.to_vector<double>() == want.to_vector<double>());
  }
  CHECK(std::signbit(file.at("f64").to_vector<double>()[1]));

  // The same input gives the same bytes, and the row-major copy of a tensor is the same file.
  save_safetensors(dir / "b", tensors, {{"k", "v \"quoted\" \xC3\xA4"}, {"a", ""}});
  CHECK(read_file(dir / "a") == read_file(dir / "b"));
  const Tensor row_major = Tensor::empty_strided(image.shape(), row_major_strides(image.shape()), DType::kF32);
  row_major.copy_(image);
  save_safetensors(dir / "c", std::vector<NamedTensor>{{"x", image}});
  save_safetensors(dir / "d", std::vector<NamedTensor>{{"x", row_major}});
  CHECK(read_file(dir / "c") == read_file(dir / "d"));

  const auto header = inspect_safetensors(dir / "a");
  REQUIRE(header.entries.size() == tensors.size());
  CHECK(!header.entries[0].tensor.defined());
  CHECK(header.entries[0].shape == image.shape());
}

TEST_CASE("the data section is row-major whatever the tensor's layout") {
  const TempDir dir;
  std::vector<float> values(24);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  save_safetensors(dir / "a", std::vector<NamedTensor>{{"x", Tensor::from(values, {1, 2, 3, 4})}});
  const std::string bytes = read_file(dir / "a");
  CHECK(bytes.size() % 8 == 0);
  CHECK(std::memcmp(bytes.data() + bytes.size() - 96, values.data(), 96) == 0);
  // Every tensor is aligned to its element size, also behind an odd number of bytes.
  save_safetensors(dir / "b", std::vector<NamedTensor>{{"u", Tensor::zeros({3}, DType::kU8)},
                                                       {"d", Tensor::zeros({1}, DType::kF64)}});
  CHECK(read_file(dir / "b").find("\"d\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,8]}") !=
        std::string::npos);
}

TEST_CASE("F16 becomes f32 exactly, booleans become 0 or 1, unaligned data is fine") {
  const TempDir dir;
  const std::uint16_t halves[] = {0x0000, 0x8000, 0x3C00, 0xC000, 0x0001, 0x8001, 0x03FF,
                                  0x0400, 0x7BFF, 0x7C00, 0xFC00, 0x7E00, 0x3555};
  std::string data("\x01\x00\x07", 3);
  data.append(reinterpret_cast<const char*>(halves), sizeof halves);
  // One odd byte in front: the halves start at an odd address.
  write_file_atomic(
      dir / "a",
      file_with(
          R"({"b":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]},"h":{"dtype":"F16","shape":[13],"data_offsets":[3,29]}})",
          data));
  const auto file = load_safetensors(dir / "a");
  CHECK(file.entries[1].file_dtype == "F16");
  CHECK(file.at("b").to_vector<int>() == std::vector<int>{1, 0, 1});
  const auto h = file.at("h").to_vector<float>();
  CHECK(std::vector<float>(h.begin(), h.begin() + 11) ==
        std::vector<float>{0.0F, -0.0F, 1.0F, -2.0F, 0x1p-24F, -0x1p-24F, 0x1.FF8p-15F, 0x1p-14F, 65504.0F,
                           std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()});
  CHECK(std::signbit(h[1]));
  CHECK(std::isnan(h[11]));
  CHECK(h[12] == 0x1.554p-2F);
}

TEST_CASE("files that are too short, or no safetensors at all") {
  check_refused("", {"bad.safetensors", "found 0 bytes", "at least 8"});
  check_refused("1234567", {"found 7 bytes"});
  check_refused(std::string("\x80\x02}q\x00X\x01\x02\x03", 9), {"limit", "is this a safetensors file?"});
  check_refused(file_with("{}").substr(0, 9), {"header length 2 exceeds the file of 9 bytes"});
  std::string huge = file_with("{}");
  std::memset(huge.data(), 0xFF, 8);  // a length that would wrap around
  check_refused(huge, {"18446744073709551615", "limit of 100000000"});
  check_refused(file_with(""), {"not valid JSON"});
  check_refused(file_with("[]"), {"expected a JSON object", "a list"});
  check_refused(file_with("3"), {"expected a JSON object"});
  check_refused(file_with("{\"a\":"), {"not valid JSON"});
  check_refused(file_with("{} x"), {"not valid JSON"});
  check_refused(file_with(std::string(200'000, '[')), {"expected a JSON object"});
  check_refused(file_with("{\"a\":" + std::string(200'000, '{')), {"bad.safetensors"});
  check_throws<WeightsError>([] { static_cast<void>(load_safetensors("/none.safetensors")); },
                             {"/none.safetensors", "No such file"});
}

TEST_CASE("every field of the header is checked") {
  check_header(R"({"a":{"dtype":"F8","shape":[2],"data_offsets":[0,8]}})",
               {"\"a\": field 'dtype': found \"F8\", expected F32,"});
  check_header(R"({"a":{"dtype":7,"shape":[2],"data_offsets":[0,8]}})",
               {"field 'dtype': found the number 7, expected a text"});
  check_header(R"({"a":{"dtype":["F32"],"shape":[2],"data_offsets":[0,8]}})", {"field 'dtype': found a list"});
  check_header(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", {"field 'shape': found -2"});
  check_header(R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", {"field 'shape': found the number 2.0"});
  check_header(R"({"a":{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}})", {"field 'shape': found the text \"2\""});
  check_header(R"({"a":{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}})", {"field 'shape': found a list"});
  check_header(R"({"a":{"dtype":"F32","shape":2,"data_offsets":[0,8]}})",
               {"field 'shape': found the number 2, expected a list"});
  check_header(R"({"a":{"dtype":"F32","shape":null,"data_offsets":[0,8]}})", {"field 'shape': found null"});
  check_header(R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,2],"data_offsets":[0,8]}})", {"more than 6 dimensions"});
  check_header(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", {"field 'data_offsets': found 1 numbers"});
  check_header(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}})",
               {"field 'data_offsets': found more than 2"});
  check_header(R"({"a":{"dtype":"F32","shape":[2]}})", {"field 'data_offsets' is missing"});
  check_header(R"({"a":{"shape":[2],"data_offsets":[0,8]}})", {"field 'dtype' is missing"});
  check_header(R"({"a":{"dtype":"F32","data_offsets":[0,8]}})", {"field 'shape' is missing"});
  check_header(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}})", {"unknown field \"x\""});
  check_header(R"({"a":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}})",
               {"field \"shape\" occurs twice"});
  check_header(
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
      {"\"a\" occurs twice"});
  check_header(R"({"a":[1]})", {"\"a\": found a list, expected an object"});
  check_header(R"({"a":{"dtype":"F32","shape":{"x":1},"data_offsets":[0,8]}})", {"field 'shape': found an object"});
  check_header(R"({"__metadata__":{"k":1}})", {"\"__metadata__\": key \"k\": found the number 1, expected a text"}, 0);
  check_header(R"({"__metadata__":{"k":{}}})", {"key \"k\": found an object"}, 0);
}

TEST_CASE("shapes that overflow are refused before anything is allocated") {
  const std::string_view huge = R"({"a":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,8]}})";
  check_header(huge, {"\"a\": field 'shape': [4294967296, 4294967296] is too large"});
  check_header(R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]}})", {"is too large"});
  check_header(R"({"a":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,8]}})",
               {"field 'shape': found the number 99999999999999999999"});
  check_header(R"({"a":{"dtype":"F32","shape":[0,4294967296,4294967296,4],"data_offsets":[0,0]}})", {"is too large"},
               0);
  // 2^62 elements of 4 bytes wrap to 0 in 64 bits.
  check_header(R"({"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})", {"is too large"}, 0);
  // Fits as F16, but not as the f32 that it becomes.
  check_header(R"({"a":{"dtype":"F16","shape":[0,4611680001073637790],"data_offsets":[0,0]}})", {"is too large"}, 0);
}

TEST_CASE("data ranges must tile the file") {
  check_header(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", {"found 8 bytes, expected 12 for F32 [3]"});
  check_header(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})",
               {"found [8, 0], expected a range inside the 8 data bytes"});
  check_header(R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})",
               {"found [0, 16], expected a range inside the 8 data bytes"});
  check_header(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[18446744073709551608,18446744073709551615]}})",
               {"expected a range inside"});
  check_header(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
               {"begins at 4, expected 0 (bytes before it belong to no tensor)"});
  check_header(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
               {"found 8 data bytes, expected 4: the last 4 belong to no tensor"});
  check_header(
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
      {"\"b\": field 'data_offsets': begins at 4, expected 8 (overlaps another tensor)"});
  check_header(
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
      {"overlaps"});
  check_header("{}", {"found 8 data bytes, expected 0"});
  const TempDir dir;  // the borders that are allowed
  write_file_atomic(dir / "a", file_with("{}   "));
  CHECK(load_safetensors(dir / "a").entries.empty());
  write_file_atomic(
      dir / "b",
      file_with(
          R"({"b":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"e":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]},"f":{"dtype":"F32","shape":[0],"data_offsets":[1,1]}})",
          "x"));
  CHECK(load_safetensors(dir / "b").at("b").item() == 'x');
}

TEST_CASE("a truncated file is refused at every length") {
  const TempDir dir;
  save_safetensors(dir / "a",
                   std::vector<NamedTensor>{{"x", Tensor::zeros({5})}, {"y", Tensor::zeros({2}, DType::kI64)}},
                   {{"k", "v"}});
  const std::string whole = read_file(dir / "a");
  for (std::size_t n = 0; n < whole.size(); ++n) {
    write_file_atomic(dir / "b", whole.substr(0, n));
    CAPTURE(n);
    CHECK_THROWS_AS(static_cast<void>(load_safetensors(dir / "b")), WeightsError);
  }
  write_file_atomic(dir / "b", whole);
  CHECK(load_safetensors(dir / "b").entries.size() == 2);
}

TEST_CASE("random damage of the header never crashes") {
  const TempDir dir;
  save_safetensors(dir / "a",
                   std::vector<NamedTensor>{{"x", Tensor::zeros({2, 3})}, {"y", Tensor::zeros({4}, DType::kU8)}},
                   {{"k", "v"}});
  const std::string whole = read_file(dir / "a");
  Generator g(7);
  int loaded = 0;
  for (int i = 0; i < 2000; ++i) {
    std::string damaged = whole;
    for (std::uint64_t k = g.below(3) + 1; k > 0; --k)
      damaged[g.below(whole.size() - 28)] = static_cast<char>(g.below(256));
    write_file_atomic(dir / "b", damaged);
    try {
      static_cast<void>(load_safetensors(dir / "b"));
      ++loaded;
    } catch (const WeightsError& e) {
      CHECK(std::string_view(e.what()).find("/b") != std::string_view::npos);
    }
  }
  CHECK(loaded < 1000);  // damage to a name or to metadata text may go unnoticed
}

TEST_CASE("what cannot be saved") {
  const TempDir dir;
  const Tensor t = Tensor::zeros({1});
  const auto save = [&](const std::vector<NamedTensor>& tensors) {
    return [&dir, tensors] { save_safetensors(dir / "a", tensors); };
  };
  check_throws<WeightsError>(save({{"a", t}, {"a", t}}), {"/a", "\"a\" occurs twice"});
  check_throws<WeightsError>(save({{"x", Tensor()}}), {"\"x\" is an undefined tensor"});
  check_throws<WeightsError>(save({{"x", Tensor::empty({1}, DType::kF32, kMeta)}}), {"\"x\" is on meta"});
  check_throws<WeightsError>(save({{"__metadata__", t}}), {"reserved"});
  check_throws<WeightsError>(save({{"\xFF", t}}), {"not valid UTF-8"});
  check_throws<Error>(
      [&] {
        save_safetensors(dir / "none/a", std::vector<NamedTensor>{{"x", t}});
      },
      {"none/a", "No such file"});
  CHECK(dir.list().empty());
  save_safetensors(dir / "ok", std::vector<NamedTensor>{{"layer.weight", t}});
  check_throws<WeightsError>([&] { static_cast<void>(load_safetensors(dir / "ok").at("layer.wieght")); },
                             {"no tensor \"layer.wieght\"", "did you mean \"layer.weight\"?"});
}

TEST_CASE("Python reads our file and we read Python's") {
  const TempDir dir;
  std::vector<float> values(120);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) * 0.5F - 7;
  std::vector<bfloat16> low;
  for (int i = 0; i < 5; ++i) low.emplace_back(static_cast<float>(i) / 3);
  save_safetensors(
      dir / "ours.safetensors",
      std::vector<NamedTensor>{{"u8", Tensor::from(std::vector<std::uint8_t>{3, 255, 0}, {3})},
                               {"x", Tensor::from(values, {2, 3, 4, 5})},
                               {"low", Tensor::from(low, {5})},
                               {"count", Tensor::from(std::vector<std::int64_t>{42}, {})},
                               {"flag", Tensor::from(std::vector<std::int32_t>{1, 0}, {2}).copy_as(DType::kBool)}},
      {{"classes", "[\"a\"]"}});
  const bool ran = run_python(R"(
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
t = load_file("ours.safetensors")
assert set(t) == {"u8", "x", "low", "count", "flag"}, t.keys()
want = (torch.arange(120, dtype=torch.float32) * 0.5 - 7).reshape(2, 3, 4, 5)
assert t["x"].dtype == torch.float32 and torch.equal(t["x"], want), t["x"]
assert t["u8"].tolist() == [3, 255, 0] and t["u8"].dtype == torch.uint8
assert t["low"].dtype == torch.bfloat16 and torch.equal(t["low"], (torch.arange(5) / 3).bfloat16()), t["low"]
assert t["count"].shape == () and t["count"].item() == 42 and t["count"].dtype == torch.int64
assert t["flag"].tolist() == [True, False]
with safe_open("ours.safetensors", "pt") as f:
    assert f.metadata() == {"classes": '["a"]'}, f.metadata()
torch.manual_seed(0)
save_file({
    "conv": torch.arange(120, dtype=torch.float32).reshape(2, 3, 4, 5),
    "half": torch.tensor([0.1, -65504.0, 6e-8]).half(),
    "bf": torch.tensor([1 / 3]).bfloat16(),
    "f64": torch.tensor([1 / 3], dtype=torch.float64),
    "i32": torch.tensor([[1, -2]], dtype=torch.int32),
    "i64": torch.tensor(7),
    "mask": torch.tensor([True, False]),
    "none": torch.zeros(0, 4),
}, "theirs.safetensors", metadata={"format": "pt"})
)",
                              dir.path());
  if (!ran) return;
  const auto file = load_safetensors(dir / "theirs.safetensors");
  CHECK(file.metadata.at("format") == "pt");
  CHECK(file.entries.size() == 8);
  const Tensor& conv = file.at("conv");
  CHECK(conv.strides() == channels_last_strides({2, 3, 4, 5}));
  const auto v = conv.to_vector<float>();
  bool counting = true;
  for (std::size_t i = 0; i < v.size(); ++i) counting = counting && v[i] == static_cast<float>(i);
  CHECK(counting);
  CHECK(file.at("half").to_vector<float>() == std::vector<float>{0x1.998p-4F, -65504.0F, 0x1p-24F});
  CHECK(file.at("bf").item() == static_cast<double>(static_cast<float>(bfloat16(1.0F / 3))));
  CHECK(file.at("f64").item() == 1.0 / 3);
  CHECK(file.at("i32").to_vector<int>() == std::vector<int>{1, -2});
  CHECK(file.at("i64").shape().empty());
  CHECK(file.at("i64").item() == 7);
  CHECK(file.at("mask").to_vector<int>() == std::vector<int>{1, 0});
  CHECK(file.at("none").shape() == Shape{0, 4});
}

TEST_SUITE_END();
