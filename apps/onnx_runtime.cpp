// Python is another process: the inputs go there as one safetensors file, the outputs come back as another, and whatever it says
// is kept for the error message. A library loaded into this process would need ONNX Runtime's header, which few machines have.
#include "apps/onnx_runtime.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "core/error.h"
#include "core/file_io.h"
#include "core/parallel.h"
#include "core/safetensors.h"

extern char** environ;

namespace limbeck::apps {
namespace {

namespace fs = std::filesystem;

constexpr int kAbsent = 3;         // status of the program below when a package is missing
constexpr int kCannotStart = 127;  // as a shell says it

constexpr const char* kProgram = R"python(
import json, struct, sys
try:
    import numpy, onnxruntime
except Exception as e:  # a package that is there may still be broken
    print(e)
    sys.exit(3)
model, source, target, threads = sys.argv[1:]
with open(source, "rb") as f:
    data = f.read()
start = 8 + struct.unpack("<Q", data[:8])[0]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(threads)
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
header, body = {"__metadata__": {"version": onnxruntime.__version__}}, b""
for name, entry in json.loads(data[8:start]).items():
    begin, end = entry["data_offsets"]
    x = numpy.frombuffer(data[start + begin : start + end], "<f4").reshape(entry["shape"])
    y = session.run(None, {session.get_inputs()[0].name: x})[0]
    raw = numpy.ascontiguousarray(y).tobytes()
    header[name] = {"dtype": {"float32": "F32", "int64": "I64"}[str(y.dtype)], "shape": list(y.shape), "data_offsets": [len(body), len(body) + len(raw)]}
    body += raw
text = json.dumps(header).encode()
with open(target, "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text + body)
)python";

/// A folder for the files that go to Python and back.
class Exchange {
 public:
  Exchange() {
    std::string name = (fs::temp_directory_path() / "limbeck-onnx-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) fail("export", "cannot create {}: {}", name, std::strerror(errno));
    folder_ = name;
  }
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;
  ~Exchange() {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  [[nodiscard]] std::string operator/(const char* name) const { return (folder_ / name).string(); }

 private:
  fs::path folder_;
};

/// Runs a program to its end with both outputs in `log`; its exit status, or 128 + the signal that ended it.
int run_process(std::vector<std::string> arguments, const std::string& log) {
  std::vector<char*> argv;
  for (std::string& a : arguments) argv.push_back(a.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
  pid_t child = 0;
  const int problem = posix_spawnp(&child, argv[0], &files, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  if (problem != 0) return kCannotStart;
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::string last_line(const std::string& text) {
  const std::size_t end = text.find_last_not_of(" \n");
  if (end == std::string::npos) return "it said nothing";
  const std::size_t newline = text.rfind('\n', end);
  return text.substr(newline == std::string::npos ? 0 : newline + 1, std::min<std::size_t>(end - newline, 400));
}

}  // namespace

std::optional<RuntimeAnswer> run_in_onnx_runtime(const fs::path& file, std::span<const Tensor> inputs,
                                                 std::string& absent) {
  const char* set = std::getenv("LIMBECK_PYTHON");
  const std::string python = set != nullptr && *set != '\0' ? set : "python3";
  const Exchange exchange;
  const std::string source = exchange / "in.safetensors", target = exchange / "out.safetensors", log = exchange / "log";
  std::vector<NamedTensor> tensors;
  for (std::size_t i = 0; i < inputs.size(); ++i) tensors.push_back({std::to_string(i), inputs[i]});
  save_safetensors(source, tensors);
  const int status =
      run_process({python, "-c", kProgram, file.string(), source, target, std::to_string(max_threads())}, log);
  if (status == kCannotStart) {
    absent = fmt::format("there is no {}", python);
    return std::nullopt;
  }
  const std::string words = last_line(read_file(log));
  if (status == kAbsent) {
    absent = fmt::format("{}: {}", python, words);
    return std::nullopt;
  }
  if (status != 0)
    fail("export", "{}: ONNX Runtime does not run it ({} ended with {}): {}", file.string(), python, status, words);
  const SafetensorsFile out = load_safetensors(target);
  RuntimeAnswer answer{out.metadata.at("version"), {}};
  for (const NamedTensor& t : tensors) answer.outputs.push_back(out.at(t.name));
  return answer;
}

}  // namespace limbeck::apps
