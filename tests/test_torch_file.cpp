// PyTorch's own files (written by tests/golden/make_torch_files.py) against what Python's safetensors package says is in
// them; then files that are damaged or hostile.
#include <doctest/doctest.h>

#include <filesystem>
#include <string>

#include "core/file_io.h"
#include "core/pickle.h"
#include "core/rng.h"
#include "core/torch_file.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;

namespace {

std::filesystem::path file(const char* name) {
  return std::filesystem::path(LIMBECK_GOLDEN_DIR) / "torch_files" / name;
}

void check_against_expected(const TorchFile& got) {
  const SafetensorsFile want = load_safetensors(file("expected.safetensors"));
  REQUIRE(got.tensors.size() == want.entries.size());
  for (const NamedTensor& t : got.tensors) {
    CAPTURE(t.name);
    const Tensor& w = want.at(t.name);
    CHECK(t.tensor.dtype() == w.dtype());
    REQUIRE(t.tensor.shape() == w.shape());
    CHECK(t.tensor.to_vector<double>() == w.to_vector<double>());
  }
}

/// Any outcome is fine except a crash, a hang, an exception of another type, or memory far beyond the file's size.
void must_not_crash(const std::filesystem::path& path) {
  try {
    static_cast<void>(load_torch_file(path));
  } catch (const Error&) {
  }
}

}  // namespace

TEST_CASE("torch files: every element type, shared storages, strides, both formats") {
  for (const char* name : {"zip.pth", "legacy.pth"}) {
    CAPTURE(name);
    CHECK(is_torch_file(file(name)));
    const TorchFile got = load_torch_file(file(name));
    CHECK(got.path.empty());
    check_against_expected(got);
  }
  CHECK_FALSE(is_torch_file(file("expected.safetensors")));
}

TEST_CASE("torch files: the dictionary is found under its usual names, other entries are left alone") {
  const TorchFile wrapped = load_torch_file(file("wrapped.pth"));
  CHECK(wrapped.path == "state_dict");
  check_against_expected(wrapped);
  const TorchFile nested = load_torch_file(file("nested_legacy.pth"));
  CHECK(nested.path == "model.state_dict");
  REQUIRE(nested.tensors.size() == 1);
  CHECK(nested.tensors[0].tensor.to_vector<float>() == std::vector<float>{1, 1});
}

TEST_CASE("torch files: code is refused by name and never run") {
  CHECK_THROWS_WITH_AS(static_cast<void>(load_torch_file(file("callable.pth"))), doctest::Contains("system"),
                       WeightsError);
  CHECK_THROWS_WITH_AS(static_cast<void>(load_torch_file(file("whole_module.pth"))),
                       doctest::Contains("torch.nn.modules.linear.Linear"), WeightsError);
}

TEST_CASE("torch files: bombs are refused before they unpack") {
  CHECK_THROWS_WITH_AS(static_cast<void>(load_torch_file(file("bomb.pth"))), doctest::Contains("times the file"),
                       WeightsError);
  CHECK_THROWS_WITH_AS(static_cast<void>(load_torch_file(file("expanded.pth"))), doctest::Contains("times the size"),
                       WeightsError);
}

TEST_CASE("torch files: a tensor without strides is refused by its bytes, however many elements it claims") {
  using namespace std::string_literals;
  const test::TempDir dir;
  const auto path = dir.path() / "w.pth";
  // A double of 2^61 elements takes 2^64 bytes, which 64 bits count as none; a byte of [0, 2^62, 3] has no stride in 63 bits.
  const std::string huge = "\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x20\x85K\x00\x85"s;
  const std::string none =
      "K\x00\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x40K\x03\x87"
      "K\x00K\x00K\x00\x87"s;
  for (const auto& [type, sizes_and_strides] : {std::pair{"DoubleStorage"s, huge}, {"ByteStorage"s, none}}) {
    CAPTURE(type);
    const std::string object =
        "\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n"s + type +
        "\nX\x01\x00\x00\x00kX\x03\x00\x00\x00"
        "cpuK\x01tQK\x00"s +
        sizes_and_strides + "tRs."s;
    write_file_atomic(path,
                      "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  // the magic number
                      "\x80\x02M\xe9\x03."                                         // protocol 1001
                      "\x80\x02}."s +
                          object + "\x80\x02]X\x01\x00\x00\x00ka."s +
                          (type == "ByteStorage" ? "\x01"s + std::string(8, '\0') : "\x01"s + std::string(15, '\0')));
    CHECK_THROWS_WITH_AS(static_cast<void>(load_torch_file(path)), doctest::Contains("reaches outside"), WeightsError);
  }
}

TEST_CASE("torch files: every truncation and many flipped bytes end in an error or in tensors, never in a crash") {
  const test::TempDir dir;
  Generator g(5);
  for (const char* name : {"zip.pth", "legacy.pth"}) {
    const std::string bytes = read_file(file(name));
    const auto path = dir.path() / name;
    for (std::size_t length = 0; length < bytes.size(); length += 7) {
      write_file_atomic(path, bytes.substr(0, length));
      CHECK_THROWS_AS(static_cast<void>(load_torch_file(path)), WeightsError);
    }
    for (int trial = 0; trial < 400; ++trial) {
      std::string damaged = bytes;
      for (int k = 0; k < 1 + trial % 3; ++k)
        damaged[static_cast<std::size_t>(g.below(bytes.size()))] = static_cast<char>(g.below(256));
      write_file_atomic(path, damaged);
      must_not_crash(path);
    }
  }
}

TEST_CASE("pickles: plain values of several protocols") {
  // pickle.dumps({"a": [1, -2, 2.5, None, True], "b": ("x", 70000, 1 << 40)}, protocol=2)
  using namespace std::string_view_literals;
  const std::string_view two =
      "\x80\x02}q\x00(X\x01\x00\x00\x00"
      "aq\x01]q\x02(K\x01J\xfe\xff\xff\xffG@\x04\x00\x00\x00\x00\x00\x00N\x88"
      "eX\x01\x00\x00\x00"
      "bq"
      "\x03X\x01\x00\x00\x00xq\x04Jp\x11\x01\x00\x8a\x06\x00\x00\x00\x00\x00\x01\x87q\x05u."sv;
  const PickleDocument document = load_pickle(two, "test");
  const PickleValue* list = document.root->find("a");
  REQUIRE(list != nullptr);
  REQUIRE(list->items.size() == 5);
  CHECK(list->items[0]->integer == 1);
  CHECK(list->items[1]->integer == -2);
  CHECK(list->items[2]->real == 2.5);
  CHECK(list->items[3]->kind == PickleValue::Kind::kNone);
  CHECK(list->items[4]->boolean);
  const PickleValue* tuple = document.root->find("b");
  REQUIRE(tuple != nullptr);
  CHECK(tuple->items[0]->text == "x");
  CHECK(tuple->items[1]->integer == 70000);
  CHECK(tuple->items[2]->integer == std::int64_t{1} << 40);
  CHECK(document.bytes_read == two.size());
}

TEST_CASE("pickles: what does not fit is refused with its position") {
  using namespace std::string_view_literals;
  const auto refused = [](std::string_view bytes, const char* text) {
    CHECK_THROWS_WITH_AS(static_cast<void>(load_pickle(bytes, "bad.pkl")), doctest::Contains(text), WeightsError);
  };
  refused(""sv, "truncated");
  refused("."sv, "the stack is empty");
  refused("\x80\x02X\xff\xff\xff\xff"sv, "bytes expected");
  refused("h\x05."sv, "memo 5 was never written");
  refused("Ka."sv.substr(0, 1), "truncated");
  refused("K\x01t."sv, "no mark");
  refused("K\x01K\x01K\x02s."sv, "expected a dictionary");
  refused("cos\nsystem\n(X\x02\x00\x00\x00lstR."sv, "'os.system'");
  refused("c__builtin__\neval\n."sv, "__builtin__.eval");
  refused("ctorch._utils\n_rebuild_tensor_v2\n)R."sv, "not described by");
  refused("K\x01K\x02R."sv, "expected a tuple");
  refused("\xff."sv, "opcode 0xff");
  std::string nested(200000, ']');  // deep nesting must not exhaust the stack
  nested += std::string(199999, 'a') + ".";
  CHECK(load_pickle(nested, "deep").root->items.size() == 1);
  refused(std::string(600000, '}') + ".", "more values than");
}

TEST_CASE("a written torch file reads back to the same tensors, of every type") {
  const test::TempDir dir;
  const auto path = dir.path() / "w.pth";
  Generator g(3);
  const Tensor map = Tensor::empty({2, 3, 4, 5});
  fill_normal_(map, g, 0.0, 1.0);
  const std::vector<NamedTensor> tensors{
      {"conv.weight", map},
      {"half", map.copy_as(DType::kBF16)},
      {"double", Tensor::from(std::vector<double>{0.1, -2}, {2})},
      {"count", Tensor::from(std::vector<std::int64_t>{std::int64_t{1} << 40}, Shape{})},
      {"ids", Tensor::from(std::vector<std::uint8_t>{1, 255}, {1, 2})}};
  save_torch_file(path, tensors);
  CHECK(is_torch_file(path));
  const TorchFile back = load_torch_file(path);
  REQUIRE(back.tensors.size() == tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    CHECK(back.tensors[i].name == tensors[i].name);
    CHECK(back.tensors[i].tensor.dtype() == tensors[i].tensor.dtype());
    CHECK(back.tensors[i].tensor.shape() == tensors[i].tensor.shape());
    CHECK(back.tensors[i].tensor.to_vector<double>() == tensors[i].tensor.to_vector<double>());
  }
  const std::vector<NamedTensor> twice{{"a", map}, {"a", map}};
  test::check_throws<WeightsError>([&] { save_torch_file(path, twice); }, {"'a'"});
  test::check_throws<Error>([&] { save_torch_file(dir.path() / "no" / "w.pth", tensors); }, {"w.pth"});
}
