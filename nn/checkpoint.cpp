// What this is: the files of nn/checkpoint.h.
#include "nn/checkpoint.h"

#include <algorithm>
#include <bit>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/file_io.h"
#include "core/parse_number.h"

namespace limbeck::nn {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kModelFile = "model.safetensors";
constexpr const char* kTrainingFile = "training.safetensors";
constexpr const char* kStateFile = "state.json";
constexpr const char* kChecksumFile = "checksums.txt";
constexpr const char* kFirstLine = "limbeck checkpoint 1";

// --- writing --------------------------------------------------------------------------------------------------------

/// Doubles travel as their 64 bits, so that they come back exactly, NaN included; 64-bit integers as text, because many
/// JSON readers round them to doubles.
std::string bits_of(double value) { return fmt::format("{:016x}", std::bit_cast<std::uint64_t>(value)); }

std::string state_json(const Checkpoint& c) {
  Json j;
  j["format"] = "limbeck-checkpoint";
  j["version"] = 1;
  j["step"] = c.step;
  j["counters"] = c.counters;
  j["texts"] = c.texts;
  j["parts"] = Json::array();
  for (const auto& [name, part] : c.parts) j["parts"].push_back(name);
  j["numbers"] = Json::object();
  for (const auto& [name, value] : c.numbers) {
    j["numbers"][name] = {{"value", fmt::format("{}", value)}, {"bits", bits_of(value)}};
  }
  j["generators"] = Json::object();
  for (const auto& [name, g] : c.generators) {
    j["generators"][name] = {{"seed", std::to_string(g.seed())},
                             {"stream", std::to_string(g.stream())},
                             {"offset", std::to_string(g.offset())}};
  }
  try {
    return j.dump(2) + "\n";
  } catch (const Json::exception& e) {
    fail<WeightsError>("checkpoint", "a text or name is not UTF-8: {}", e.what());
  }
}

std::string checksum_line(const fs::path& directory, const char* name) {
  return fmt::format("{:08x} {} {}\n", crc32c_of_file(directory / name), fs::file_size(directory / name), name);
}

void write_checksums(const fs::path& directory) {
  std::string text = std::string(kFirstLine) + "\n";
  for (const char* name : {kModelFile, kTrainingFile, kStateFile}) text += checksum_line(directory, name);
  text += fmt::format("{:08x} above\n", crc32c(text));
  write_file_atomic(directory / kChecksumFile, text);
}

// --- reading --------------------------------------------------------------------------------------------------------

[[noreturn]] void damaged(const fs::path& file, std::string_view field, std::string_view found,
                          std::string_view expected) {
  fail<WeightsError>("checkpoint", "{}: {}, found {}, expected {}; take another checkpoint", file.string(), field,
                     found, expected);
}

struct Listed {
  std::string name;
  std::uint32_t crc = 0;
  std::uint64_t size = 0;
};

/// The three listed files, after checking that the list itself is whole.
std::vector<Listed> read_checksums(const fs::path& directory) {
  const fs::path path = directory / kChecksumFile;
  const auto text = read_file<WeightsError>(path);
  const std::size_t last = text.size() < 2 ? std::string::npos : text.rfind('\n', text.size() - 2);
  if (last == std::string::npos) damaged(path, "length", fmt::format("{} bytes", text.size()), "a list of files");
  const std::string_view body = std::string_view(text).substr(0, last + 1);
  const std::string expected_tail = fmt::format("{:08x} above\n", crc32c(body));
  if (text.substr(last + 1) != expected_tail) {
    damaged(path, "checksum of the list", text.substr(last + 1, 8), expected_tail.substr(0, 8));
  }
  std::istringstream lines{std::string(body)};
  std::string line;
  std::getline(lines, line);
  if (line != kFirstLine) damaged(path, "first line", "'" + line + "'", std::string("'") + kFirstLine + "'");
  std::vector<Listed> out;
  while (std::getline(lines, line)) {
    std::istringstream words(line);
    Listed entry;
    words >> std::hex >> entry.crc >> std::dec >> entry.size >> entry.name;
    if (words.fail()) damaged(path, "line", "'" + line + "'", "checksum, size, name");
    out.push_back(entry);
  }
  for (const char* name : {kModelFile, kTrainingFile, kStateFile}) {
    const bool found = std::any_of(out.begin(), out.end(), [&](const Listed& e) { return e.name == name; });
    if (!found) damaged(path, "list", fmt::format("{} files", out.size()), fmt::format("{} among them", name));
  }
  return out;
}

void verify_file(const fs::path& directory, const Listed& listed) {
  const fs::path path = directory / listed.name;
  std::error_code error;
  const std::uint64_t size = fs::file_size(path, error);
  if (error) damaged(path, "file", error.message(), fmt::format("{} bytes", listed.size));
  if (size != listed.size) damaged(path, "size", fmt::format("{} bytes", size), fmt::format("{} bytes", listed.size));
  const std::uint32_t crc = crc32c_of_file(path);
  if (crc != listed.crc) damaged(path, "CRC-32C", fmt::format("{:08x}", crc), fmt::format("{:08x}", listed.crc));
}

std::uint64_t parse_u64(const fs::path& path, const std::string& field, const std::string& text, int base) {
  const auto value = parse_number<std::uint64_t>(text, base);
  if (!value) damaged(path, field, "'" + text + "'", "an unsigned 64-bit number");
  return *value;
}

StateDict read_tensors(const fs::path& path, std::map<std::string, std::string>* metadata) {
  SafetensorsFile file = load_safetensors(path);
  StateDict out;
  for (SafetensorsEntry& e : file.entries) out.emplace(e.name, std::move(e.tensor));
  if (metadata != nullptr) *metadata = std::move(file.metadata);
  return out;
}

/// Fills everything of `c` that lives in state.json. `parts` receives the names of the parts.
void read_state(const fs::path& path, Checkpoint& c, std::vector<std::string>& parts) {
  const auto text = read_file<WeightsError>(path);
  std::string field = "document";
  try {
    const Json j = Json::parse(text);
    const auto get = [&](const char* name) -> const Json& {
      field = fmt::format("field '{}'", name);
      return j.at(name);
    };
    if (get("format") != "limbeck-checkpoint") damaged(path, field, j.at("format").dump(), "\"limbeck-checkpoint\"");
    if (get("version") != 1) damaged(path, field, j.at("version").dump(), "1");
    c.step = get("step").get<std::int64_t>();
    c.counters = get("counters").get<std::map<std::string, std::int64_t>>();
    c.texts = get("texts").get<std::map<std::string, std::string>>();
    parts = get("parts").get<std::vector<std::string>>();
    for (const auto& [name, value] : get("numbers").items()) {
      c.numbers[name] = std::bit_cast<double>(parse_u64(path, field, value.at("bits").get<std::string>(), 16));
    }
    for (const auto& [name, value] : get("generators").items()) {
      const auto number = [&](const char* key) { return parse_u64(path, field, value.at(key).get<std::string>(), 10); };
      Generator g(number("seed"), number("stream"));
      g.set_offset(number("offset"));
      c.generators.emplace(name, g);
    }
  } catch (const Json::exception& e) {
    damaged(path, field, e.what(), "the contents of a checkpoint of this version");
  }
}

std::vector<NamedTensor> as_list(const StateDict& dict, const std::string& prefix) {
  std::vector<NamedTensor> out;
  for (const auto& [name, tensor] : dict) out.push_back({prefix + name, tensor});
  return out;
}

/// Step number of a folder name, or -1.
std::int64_t step_of(const std::string& name) {
  constexpr std::string_view kPrefix = "step_";
  if (!name.starts_with(kPrefix) || name.size() < kPrefix.size() + 8) return -1;
  return parse_number<std::int64_t>(std::string_view(name).substr(kPrefix.size())).value_or(-1);
}

}  // namespace

std::string checkpoint_name(std::int64_t step) { return fmt::format("step_{:08d}", step); }

void save_checkpoint(const fs::path& directory, const Checkpoint& c) {
  std::vector<NamedTensor> training;
  for (const auto& [name, part] : c.parts) {
    if (name.empty() || name.find('/') != std::string::npos) {
      fail<WeightsError>("checkpoint", "part '{}': the name must not be empty or contain '/'", name);
    }
    for (NamedTensor& t : as_list(part, name + "/")) training.push_back(std::move(t));
  }
  AtomicDirectory out(directory);
  save_safetensors(out.path() / kModelFile, as_list(c.model, ""), c.model_metadata);
  save_safetensors(out.path() / kTrainingFile, training);
  write_file_atomic(out.path() / kStateFile, state_json(c));
  write_checksums(out.path());
  out.commit();
}

void verify_checkpoint(const fs::path& directory) {
  for (const Listed& listed : read_checksums(directory)) verify_file(directory, listed);
}

Checkpoint load_checkpoint(const fs::path& directory) {
  verify_checkpoint(directory);
  Checkpoint c;
  std::vector<std::string> parts;
  read_state(directory / kStateFile, c, parts);
  c.model = read_tensors(directory / kModelFile, &c.model_metadata);
  for (const std::string& name : parts) c.parts[name];  // an empty part comes back as an empty part
  for (auto& [name, tensor] : read_tensors(directory / kTrainingFile, nullptr)) {
    const std::size_t slash = name.find('/');
    const auto part = slash == std::string::npos ? c.parts.end() : c.parts.find(name.substr(0, slash));
    if (part == c.parts.end())
      damaged(directory / kTrainingFile, "tensor", "'" + name + "'", "a name PART/NAME of a known part");
    part->second.emplace(name.substr(slash + 1), std::move(tensor));
  }
  return c;
}

std::vector<fs::path> list_checkpoints(const fs::path& root) {
  std::vector<std::pair<std::int64_t, fs::path>> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(root, error)) {
    const std::int64_t step = step_of(entry.path().filename().string());
    if (step >= 0 && fs::exists(entry.path() / kChecksumFile)) found.emplace_back(step, entry.path());
  }
  std::sort(found.begin(), found.end());
  std::vector<fs::path> out;
  for (auto& [step, path] : found) out.push_back(std::move(path));
  return out;
}

std::optional<fs::path> latest_checkpoint(const fs::path& root) {
  auto all = list_checkpoints(root);
  if (all.empty()) return std::nullopt;
  return all.back();
}

void prune_checkpoints(const fs::path& root, std::size_t keep) {
  const auto all = list_checkpoints(root);
  for (std::size_t i = 0; i + keep < all.size(); ++i) fs::remove_all(all[i]);
}

}  // namespace limbeck::nn
