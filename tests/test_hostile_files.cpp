// Files that want to harm: each is refused with one clear error, and reading it takes little memory whatever it says. Then every seed
// of the fuzzers (tests/fuzz/README.md), among them what they found.
#include <doctest/doctest.h>

#include <map>
#include <utility>

#include "apps/model_io.h"
#include "core/config.h"
#include "core/file_io.h"
#include "core/pickle.h"
#include "core/safetensors.h"
#include "core/torch_file.h"
#include "datasets/image_io.h"
#include "datasets/mask_io.h"
#include "datasets/png_codec.h"
#include "tests/dataset_files.h"
#include "tests/fuzz/readers.h"
#include "tests/harness/memory_limit.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using namespace std::string_literals;
using test::check_throws;
using test::MemoryLimit;
using test::TempDir;

namespace {

std::string little_endian(std::uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out += static_cast<char>((value >> (8 * i)) & 0xFFU);
  return out;
}

std::string repeated(std::string_view part, std::size_t times) {
  std::string out;
  out.reserve(part.size() * times);
  for (std::size_t i = 0; i < times; ++i) out += part;
  return out;
}

/// A pickle text of protocol 2.
std::string text(std::string_view s) { return "X" + little_endian(s.size(), 4) + std::string(s); }

constexpr std::string_view kMagic{"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.", 21};

/// An older PyTorch file: `object` is the pickle of the dictionary, `keys` of the list of storages; then their contents.
std::string legacy_file(const std::string& object, const std::string& keys, const std::string& contents) {
  return std::string(kMagic) + "\x80\x02}" + text("little_endian") + "\x88s." + object + keys + contents;
}

/// The storage "0" of `count` floats, and a tensor made of it.
std::string storage(std::int64_t count) {
  return "(" + text("storage") + "ctorch\nFloatStorage\n" + text("0") + text("cpu") + "\x8a\x08" +
         little_endian(static_cast<std::uint64_t>(count), 8) + "NtQ";
}
std::string tensor_call(const std::string& of, const std::string& offset, const std::string& sizes,
                        const std::string& strides) {
  return "ctorch._utils\n_rebuild_tensor_v2\n(" + of + offset + sizes + strides + "\x89}tR";
}

std::string png_header(std::uint32_t w, std::uint32_t h, char depth, char colour) {
  const auto big = [](std::uint32_t v) {
    const std::string little = little_endian(v, 4);
    return std::string(little.rbegin(), little.rend());
  };
  std::string file = "\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"s + big(w) + big(h) + depth + colour + "\0\0\0"s + "crc.";
  file += "\0\0\0\x08IDATx\x9c\x63\0\0\0\0\0crc.\0\0\0\0IENDcrc."s;
  fuzz::repair_png({reinterpret_cast<std::uint8_t*>(file.data()), file.size()});
  return file;
}

std::string jpeg_header(std::uint16_t w, std::uint16_t h, std::size_t scans) {
  const auto big = [](std::uint16_t v) {
    return std::string{static_cast<char>(v >> 8U), static_cast<char>(v & 0xFFU)};
  };
  return "\xFF\xD8\xFF\xC0\0\x0b\x08"s + big(h) + big(w) + "\x01\x01\x11\0"s +
         repeated("\xFF\xDA\0\x08\x01\x01\0\0\x3f\0"s, scans) + "\xFF\xD9";
}

void check_picture(const std::string& file, std::initializer_list<std::string_view> parts) {
  check_throws<DataError>([&] { static_cast<void>(datasets::decode_image(datasets::bytes_of(file), "bad.file")); },
                          parts);
}

}  // namespace

TEST_SUITE_BEGIN("hostile_files");

TEST_CASE("safetensors: huge lengths, overlaps, deep nesting, repeated names") {
  const TempDir dir;
  const auto refused = [&](const std::string& header, std::size_t data, std::initializer_list<std::string_view> parts,
                           std::uint64_t length = 0) {
    const auto path = dir / "w.safetensors";
    write_file_atomic(path, little_endian(length == 0 ? header.size() : length, 8) + header + std::string(data, '\0'));
    const MemoryLimit limit(64);
    check_throws<WeightsError>([&] { static_cast<void>(load_safetensors(path)); }, parts);
    check_throws<WeightsError>([&] { static_cast<void>(inspect_safetensors(path)); }, parts);
  };
  refused("{}", 0, {"w.safetensors", "header length"}, ~std::uint64_t{0});
  refused("{}", 0, {"w.safetensors", "header length 90000000", "download"}, 90'000'000);
  refused(R"({"a":{"dtype":"F32","shape":[1073741824,1073741824],"data_offsets":[0,4611686018427387904]}})", 8,
          {"\"a\"", "data_offsets"});
  refused(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0, {"\"a\"", "too large"});
  refused(
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
      12, {"\"b\"", "overlaps"});
  refused(
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
      8, {"overlaps"});
  refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8, {"\"a\"", "[8, 0]"});
  refused(R"({"a":)" + std::string(1'000'000, '['), 0, {"\"a\"", "found a list"});
  refused(R"({"a":{"dtype":"U8","shape":[)" + repeated("1,", 500'000) + R"(1],"data_offsets":[0,1]}})", 1,
          {"more than", "dimensions"});
  refused(R"({"__metadata__":{"k":)" + std::string(1'000'000, '{'), 0, {"found an object"});
}

TEST_CASE("pickles: calls, and values that name one another over and over") {
  const auto refused = [](const std::string& pickle, std::initializer_list<std::string_view> parts) {
    const MemoryLimit limit(64);
    check_throws<WeightsError>([&] { static_cast<void>(load_pickle(pickle, "bad.pkl")); }, parts);
  };
  for (const auto& [module, name] : {std::pair{"os", "system"},
                                     {"builtins", "eval"},
                                     {"builtins", "getattr"},
                                     {"subprocess", "Popen"},
                                     {"torch.hub", "load"},
                                     {"torch", "load"},
                                     {"collections", "OrderedDict.__init__"}}) {
    const std::string full = fmt::format("'{}.{}'", module, name);
    refused(fmt::format("c{}\n{}\n", module, name) + text("touch /tmp/x") + "\x85R.",
            {"bad.pkl", full, "runs no code"});
    refused(text(module) + text(name) + "\x93" + text("touch /tmp/x") + "\x85R.", {full});  // STACK_GLOBAL
    refused("(i" + std::string(module) + "\n" + name + "\n.", {"opcode 0x69"});             // INST
  }
  refused("ctorch\nFloatStorage\n)R.", {"no function"});
  refused("\x8d" + little_endian(~std::uint64_t{0}, 8), {"bytes expected"});
  refused("B" + little_endian(0xFFFFFFFF, 4) + "x", {"bytes expected"});
  // A list of 20,000 pairs, from which ten thousand dictionaries are made: six bytes of pickle for each 320,000 of memory.
  const std::string pairs = "](" + repeated("K\x01K\x02\x86", 20'000) +
                            "eq\x01"
                            "0ccollections\nOrderedDict\nq\x02"
                            "0";
  refused(pairs + repeated("h\x02h\x01\x85R", 10'000) + ".", {"more values than a weight file"});
  // The same with the sizes of tensors.
  const std::string sizes = "(" + repeated("K\x01", 100'000) +
                            "tq\x01"
                            "0" +
                            storage(1) +
                            "q\x02"
                            "0";
  refused(sizes + tensor_call("h\x02", "K\0"s, "h\x01", "h\x01") + ".", {"100000 dimensions"});
  refused(repeated(")", 400'000), {"more values than a weight file"});
  refused("(" + text("storage") + "ctorch\nFloatStorage\n" + text("0") + text("cpu") + "K\x04" + "(K\x01K\x02ttQ.",
          {"part of another storage"});
  // Of nothing but None a list may be long: it costs no more than its entries.
  const MemoryLimit limit(64);
  CHECK(load_pickle("(" + std::string(1'000'000, 'N') + "l.", "long").root->items.size() == 1'000'000);
}

TEST_CASE("torch files: shapes that reach out of the file, names without end, keys that repeat") {
  const TempDir dir;
  const auto refused = [&](const std::string& file, std::initializer_list<std::string_view> parts) {
    const auto path = dir / "w.pth";
    write_file_atomic(path, file);
    const MemoryLimit limit(64);
    check_throws<WeightsError>([&] { static_cast<void>(load_torch_file(path)); }, parts);
  };
  const std::string keys = "](" + text("0") + "e.";
  const std::string four = little_endian(4, 8) + std::string(16, '\0');
  const auto file_with = [&](const std::string& tensor) {
    return legacy_file("}" + text("w") + tensor + "s.", keys, four);
  };
  const std::string huge = "\x8a\x08" + little_endian(std::uint64_t{1} << 62U, 8);
  refused(file_with(tensor_call(storage(4), "K\0"s, huge + "\x85", "K\x01\x85")), {"'w'", "outside of its storage"});
  refused(file_with(tensor_call(storage(4), huge, "K\x01\x85", "K\x01\x85")), {"'w'", "outside of its storage"});
  refused(file_with(tensor_call(storage(4), "K\x03", "K\x02\x85", "K\x01\x85")), {"'w'", "outside of its storage"});
  refused(file_with(tensor_call(storage(4), "J\xff\xff\xff\xff", "K\x02\x85", "K\x01\x85")),
          {"'w'", "outside of its storage"});
  refused(file_with(tensor_call(storage(4), "K\0"s, "J\xff\xff\xff\xff\x85", "K\x01\x85")),
          {"'w'", "outside of its storage"});
  refused(file_with(tensor_call(storage(4), "K\0"s, "J\0\0\0\x10\x85"s, "K\0\x85"s)),
          {"'w'", "more than 16 times"});  // stride 0
  refused(file_with(tensor_call(storage(std::int64_t{1} << 62), "K\0"s, "K\x01\x85", "K\x01\x85")),
          {"storage '0' has 16 bytes"});
  refused(legacy_file("}" + text("w") + tensor_call(storage(4), "K\0"s, "K\x01\x85", "K\x01\x85") + "s.", keys,
                      little_endian(~std::uint64_t{0}, 8)),
          {"storage '0'", "truncated"});
  // Ten thousand tensors share one name of a megabyte: each copy of it would be a megabyte, too.
  const std::string one = tensor_call(storage(4), "K\0"s, "K\x01\x85", "K\x01\x85");
  const std::string many =
      "}(" + text(std::string(1'000'000, 'n')) + "q\x01" + one + "q\x02" + repeated("h\x01h\x02", 10'000) + "u.";
  refused(legacy_file(many, keys, four), {"is there twice"});
  refused(legacy_file(
              "}(" + text("w") + one + text(std::string(1'000'000, 'n')) + "q\x01N" + repeated("h\x01N", 10'000) + "u.",
              keys, four),
          {"is there twice"});
  // Nested a hundred thousand deep.
  refused(legacy_file(repeated("]", 100'000) + repeated("a", 99'999) + ".", "].", ""), {"no dictionary of tensors"});
}

TEST_CASE("weight files whose metadata describe another network than the file holds") {
  const TempDir dir;
  const auto path = dir / "w.safetensors";
  const apps::ModelCard card{.spec = {.name = "mobilenet_v2_seg", .classes = 2, .width = 0.1},
                             .classes = {{"a", "b"}, {{0, 0, 0}, {1, 1, 1}}}};
  const auto refused = [&](const std::map<std::string, std::string>& changes,
                           std::initializer_list<std::string_view> parts) {
    auto metadata = apps::to_metadata(card);
    for (const auto& [key, value] : changes) metadata[key] = value;
    const std::vector<NamedTensor> tensors{{"classifier.bias", Tensor::zeros({2})}};
    save_safetensors(path, tensors, metadata);
    const MemoryLimit limit(64);
    check_throws<WeightsError>([&] { static_cast<void>(apps::load_model(path)); }, parts);
  };
  refused({}, {"w.safetensors", "the file 2"});
  refused({{"width", "60"}}, {"w.safetensors", "numbers, the file 2"});
  refused({{"width", "1e300"}}, {"w.safetensors", "width 1e+300"});
  refused({{"head_dropout", "7"}}, {"w.safetensors", "head_dropout 7"});
  refused({{"multi_grid", "-1,2,3"}}, {"w.safetensors", "multi_grid"});
  refused({{"width_divisor", "4611686018427387904"}}, {"w.safetensors", "divisor"});
  refused({{"model", "deeplabv3_resnet101"}, {"width", "1"}}, {"w.safetensors", "numbers, the file 2"});
  refused({{"model", "caffe"}}, {"w.safetensors", "unknown network 'caffe'"});
  refused({{"classes", "1000000000"}}, {"w.safetensors", "2 names, the network 1000000000 classes"});
  refused({{"class_names", R"(["a"])"}}, {"w.safetensors", "1 names, the network 2 classes"});
  refused({{"class_names", std::string(500'000, '[')}}, {"w.safetensors", "malformed"});
}

TEST_CASE("configurations: aliases that multiply, deep nesting, texts of megabytes") {
  const auto refused = [](const std::string& yaml, std::initializer_list<std::string_view> parts) {
    const MemoryLimit limit(128);
    check_throws<ConfigError>([&] { static_cast<void>(Config::parse(yaml, "bad.yaml")); }, parts);
  };
  refused("a: &a " + std::string(500'000, 'x') + "\nb: [" + repeated("*a, ", 1000) + "]\n",
          {"bad.yaml:2", "too many values"});
  refused("a: [" + repeated("x, ", 300'000) + "]\n", {"bad.yaml:1", "too many values"});
  refused("a: " + std::string(90, '[') + std::string(90, ']') + "\nb: " + std::string(110, '[') +
              std::string(110, ']') + "\n",
          {"bad.yaml:2", "100 levels"});
  refused("a: &a " + std::string(90, '[') + std::string(90, ']') + "\nb: " + std::string(20, '[') + "*a" +
              std::string(20, ']') + "\n",
          {"bad.yaml:2", "100 levels"});
  refused("a: " + std::string(400'000, '[') + "\n", {"bad.yaml:", "not valid YAML"});
  refused("a: " + std::string(2'000'000, 'x') + "\n", {"bad.yaml", "2000004 bytes"});
  for (const char* stray : {",", "---\n,\n"}) refused(stray, {"bad.yaml", "stray comma"});
  const std::string long_key(100'000, 'k');
  refused(long_key.substr(0, 1000) + ": 1\n" + long_key.substr(0, 1000) + ": 2\n",
          {"bad.yaml:2: duplicate key 'kkk", "kkk...'"});
}

TEST_CASE("pictures: headers that promise what the file cannot hold, bombs, endless scans") {
  const MemoryLimit limit(64);
  check_picture(png_header(16384, 16384, 8, 2), {"bad.file", "16384x16384 pixels", "cannot be in a file of"});
  check_picture(png_header(0x7FFFFFFF, 0x7FFFFFFF, 16, 6), {"bad.file"});
  check_picture(png_header(100'000, 100'000, 1, 0), {"bad.file", "more than"});
  check_picture(png_header(64, 64, 8, 2), {"bad.file", "ends too early"});
  check_picture(jpeg_header(65000, 65000, 1), {"bad.file", "more than"});
  check_picture(jpeg_header(10000, 10000, 1), {"bad.file", "10000x10000 pixels", "cannot be in a file of"});
  check_picture(jpeg_header(64, 64, 101), {"bad.file", "101 scans"});
  check_picture(jpeg_header(64, 64, 0), {"bad.file", "ends too early"});
  check_picture(jpeg_header(8, 8, 1), {"bad.file", "a scan without its Huffman tables"});
  // A Huffman table of 257 values, one more than decoders have room for, and one that is cut off.
  const std::string table = "\0"s + std::string(14, '\0') + "\xFF\x02" + std::string(257, 'v');
  check_picture("\xFF\xD8\xFF\xC4\x01\x14" + table + jpeg_header(8, 8, 1).substr(2), {"bad.file", "Huffman"});
  check_picture("\xFF\xD8\xFF\xC4\x00\x12"s + table.substr(0, 16) + jpeg_header(8, 8, 1).substr(2),
                {"bad.file", "Huffman"});
}

TEST_CASE("pictures: what is large and honest passes") {
  // More than the limit for texts and profiles in one chunk of pixels, and a mask of one class, which is as small as deflate can make it.
  const TempDir dir;
  const datasets::Image noise = test::noise_image(2400, 2600, 5);
  CHECK(datasets::decode_image(datasets::encode_png(noise), "noise") == noise);
  datasets::Mask mask(6000, 6000, 3);
  datasets::write_grey_mask(dir / "m.png", mask);
  CHECK(std::filesystem::file_size(dir / "m.png") < 100'000);
  CHECK(datasets::read_mask(dir / "m.png") == mask);
  datasets::Image grey(3000, 3000, {128, 128, 128});
  datasets::write_image(dir / "g.jpg", grey, 10);
  CHECK(datasets::read_image(dir / "g.jpg").w == 3000);
}

TEST_CASE("the seeds of the fuzzers are read or refused, in little memory, and most damage is noticed") {
  for (const fuzz::Reader& reader : fuzz::kReaders) {
    std::size_t files = 0, accepted = 0;
    const auto feed = [&](const std::filesystem::path& path) {
      CAPTURE(path.string());
      const std::string bytes = read_file(path);
      std::vector<std::uint8_t> file(bytes.begin(), bytes.end());
      const MemoryLimit limit(160);
      accepted += reader.accepts(file) ? 1 : 0;
      ++files;
      // Half a file is no file; a configuration may be one.
      const bool half = reader.accepts(std::span(file).first(file.size() / 2));
      if (reader.name != "config"s) CHECK_FALSE(half);
      if (reader.repair != nullptr) {  // a whole file is as it should be, so there is nothing to repair
        const bool before = reader.accepts(file);
        reader.repair(file);
        if (before) CHECK(reader.accepts(file));
      }
    };
    for (const auto& entry :
         std::filesystem::directory_iterator(std::filesystem::path(LIMBECK_SEEDS_DIR) / reader.name))
      feed(entry.path());
    if (reader.name == "torch_file"s) {
      for (const auto& entry :
           std::filesystem::directory_iterator(std::filesystem::path(LIMBECK_GOLDEN_DIR) / "torch_files")) {
        if (entry.path().extension() == ".pth") feed(entry.path());
      }
    }
    CAPTURE(reader.name);
    CHECK(files >= 2);
    CHECK(accepted >= 2);  // else nothing behind the first check was tried
  }
}

TEST_SUITE_END();
