// What this is: the arguments of the verbs of `limbeck`, as plain structs, and one function per verb.
// What it is not: argument parsing; only main.cpp knows the parser library.
// Read next: verb_train.cpp (the main job), verb_eval.cpp.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/device.h"
#include "models/model.h"

namespace limbeck::apps {

/// Options that train, distill, eval and check-data share.
struct CommonArgs {
  std::string config;                  ///< -c FILE.yaml
  std::vector<std::string> overrides;  ///< a.b=value, applied in order
  std::string device = "cpu";
  std::string out;  ///< run or output folder
  std::optional<std::uint64_t> seed;
  bool json = false;  ///< results as JSON on stdout
};

struct TrainArgs : CommonArgs {
  bool resume = false;  ///< continue the run in `out`
  bool force = false;   ///< replace an existing run folder
};

struct AblateArgs : CommonArgs {
  std::vector<std::string> only;  ///< names of methods; empty: all
  bool force = false;             ///< train finished runs again
};

/// How pictures are segmented, see inference.h.
struct ProtocolArgs {
  std::string scales = {};  ///< "0.75,1,1.25"
  bool flip = false;
  std::string tile = {};      ///< HxW
  std::int64_t overlap = -1;  ///< negative: a quarter of the tile
};

struct EvalArgs : CommonArgs {
  ProtocolArgs protocol;
  std::string model;      ///< run folder, step folder or .safetensors file
  std::string split;      ///< overrides data.val_split
  std::string precision;  ///< f32 | bf16 | int8; empty: eval.precision
};

struct CalibrateArgs : CommonArgs {
  std::string model;                ///< run folder, step folder or .safetensors file
  std::vector<std::string> images;  ///< files or folders; none: the training split of the configuration
  std::int64_t count = 64;          ///< pictures that the ranges are found on
  bool pack = false;                ///< weights in 8 bits, too
  std::string split;                ///< scored; overrides data.val_split
};

struct PredictArgs : CommonArgs {
  std::string model;
  std::vector<std::string> images;  ///< files or folders
  std::string frames;               ///< WxH: raw RGB frames of this size come on standard input
  bool overlay = false;             ///< pictures with the mask's colours mixed in as well
  bool bf16 = false;                ///< the same as precision = bf16
  std::string precision;            ///< f32 | bf16 | int8
  ProtocolArgs protocol;
};

/// Which network, as options of a command line. They mean what models/model.h says.
struct NetworkArgs {
  std::string model;
  std::int64_t classes = 0;  ///< 0: the model's usual number (1000 for classifiers, 21 for segmentation)
  std::int64_t output_stride = 16;
  double width = 1.0;
  std::int64_t width_divisor = 8;
  std::string variant;
  std::string stem;
  std::string dilation;
  std::string padding;
  bool aux = false;
  bool separable = false;
  std::vector<std::int64_t> aspp_rates;  ///< three, or none
};

struct CompareArgs {
  std::string a, b;  ///< run folders
  bool json = false;
};

struct VisualizeArgs : CommonArgs {
  std::string teacher, student, plain;   ///< run folder, step folder or .safetensors file; plain may be empty
  std::vector<std::string> images;       ///< files; none: samples of the data set of `config` or of the student's run
  std::string split;                     ///< overrides data.val_split
  std::int64_t count = 2;                ///< samples of the data set
  std::vector<std::string> pixels;       ///< "X,Y" in image coordinates; none: one in each of the largest classes
  std::vector<std::string> classes;      ///< names, for the saliency maps; none: the largest ones
  std::string teacher_tap, student_tap;  ///< empty: the last feature before the classifier
  double tau = 4;                        ///< temperature of the saliency maps
};

struct SummaryArgs : NetworkArgs {
  std::string size = "513x513";
  bool json = false;
};

struct ImportArgs : NetworkArgs {
  std::string file;
  std::string out;
  double bn_eps = 0;            ///< 0: what the file says, else 1e-5
  double head_bn_eps = 0;       ///< 0: bn_eps
  std::string normalisation;    ///< empty: what the file says, else imagenet
  bool align_corners = false;   ///< logits are resized with align_corners
  std::string map;              ///< list of names, models/weight_names.h
  bool report = false;          ///< print every name
  bool lenient = false;         ///< accept missing and unexpected names
  bool new_classifier = false;  ///< accept a last layer for another number of classes and start a new one
  bool json = false;
};

struct ExportArgs {
  std::string model;  ///< run folder, step folder or .safetensors file
  std::string out;
  std::string format;  ///< onnx | safetensors | pth-compatible; empty: what the name of the file says
  int opset = 17;
  bool keep_batch_norm = false;
  std::string size = "256x256";
  std::int64_t batch = 1;
  bool dynamic_batch = false;
  bool dynamic_size = false;
  bool normalise = false;            ///< input scaling inside: the file takes 0..255
  std::string precision = "f32";     ///< f32 | int8
  std::string output;                ///< logits | resized | ids; empty: resized (logits of a classification network)
  std::vector<std::string> samples;  ///< pictures for the proof; empty: generated scenes
  std::string runtime = "auto";      ///< auto | onnxruntime | limbeck: who runs the file for the proof
  bool json = false;
};

struct BenchArgs {
  std::string what = "step";  ///< step | student
  std::string device = "cpu";
  std::string dtype = "f32";
  std::int64_t batch = 4;
  std::string size = "256x256";
  std::int64_t classes = 11;
  int steps = 10;
  int warmup = 3;
  bool cuda_graph = false;
  bool json = false;
  bool serve = false;  ///< time steps when a line on standard input asks for them
};

struct InitConfigArgs {
  std::string preset;  ///< empty: list them
  std::string out;     ///< file to write; empty: stdout
};

// Each verb returns the exit status; errors are exceptions that main() turns into the documented codes.
int run_train(const TrainArgs& args);
int run_autoencoder(const TrainArgs& args);
int run_distill(const TrainArgs& args);
int run_ablate(const AblateArgs& args);
int run_stages(const TrainArgs& args);
int run_eval(const EvalArgs& args);
int run_predict(const PredictArgs& args);
int run_calibrate(const CalibrateArgs& args);
int run_compare(const CompareArgs& args);
int run_visualize(const VisualizeArgs& args);
int run_summary(const SummaryArgs& args);
int run_check_data(const CommonArgs& args);
int run_import(const ImportArgs& args);
int run_export(const ExportArgs& args);
int run_bench(const BenchArgs& args);
int run_init_config(const InitConfigArgs& args);
int run_report(const std::string& run);

/// The spec the options describe.
[[nodiscard]] models::ModelSpec spec_of(const NetworkArgs& args);

/// The configuration file with the overrides applied. Throws ConfigError when no file was given.
[[nodiscard]] Config load_config(const CommonArgs& args);

/// The configuration given with -c, or the one stored in the run folder that `model` (a run folder, a step folder or a file in
/// one) belongs to. Throws ConfigError when there is neither.
[[nodiscard]] Config stored_config(const CommonArgs& args, const std::string& model);

/// Applies KEY=VALUE assignments. A length in steps replaces one in epochs, and the other way round.
void apply_overrides(Config& config, const std::vector<std::string>& overrides);

/// Image files, and those below folders. Throws DataError for a folder without any.
[[nodiscard]] std::vector<std::filesystem::path> image_files(const std::vector<std::string>& arguments,
                                                             const char* verb);

/// Throws DataError: so many of the pictures, each named in the log, could not be read.
[[noreturn]] void fail_unreadable(const char* verb, std::uint64_t unreadable, std::uint64_t all);

struct InferenceOptions;  // inference.h
/// Throws ConfigError naming the option.
void read_protocol(const ProtocolArgs& args, InferenceOptions& options);

/// "256x512" -> {256, 512} (height x width); one number means a square. Throws ConfigError.
[[nodiscard]] std::array<std::int64_t, 2> parse_size(const std::string& text, const char* option,
                                                     const char* expected = "HEIGHTxWIDTH such as 256x512");

/// The device that --device names, made ready. Throws ConfigError if it is not there.
[[nodiscard]] Device open_device(const std::string& text);

}  // namespace limbeck::apps
