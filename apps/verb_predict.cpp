// The verb `predict`: index masks of image files, or of frames on standard input.
#include <cstdio>
#include <filesystem>
#include <set>

#include "apps/cli.h"
#include "apps/inference.h"
#include "apps/model_io.h"
#include "core/json.h"
#include "core/log.h"
#include "datasets/compose.h"
#include "datasets/image_io.h"
#include "datasets/mask_io.h"
#include "nn/module.h"

namespace limbeck::apps {
namespace {

namespace fs = std::filesystem;

struct Picture {
  datasets::Image image;
  std::string name;     ///< in results
  std::string stem;     ///< the beginning of its files
  std::string problem;  ///< why it could not be read
};

/// Where pictures come from, one after another.
class Source {
 public:
  virtual ~Source() = default;
  /// False at the end.
  virtual bool next(Picture& picture) = 0;
  [[nodiscard]] virtual std::int64_t count() const = 0;  ///< 0: unknown
};

bool lies_below(const fs::path& path, const fs::path& folder) {
  const fs::path way = path.lexically_relative(folder);
  return !way.empty() && *way.begin() != ".." && *way.begin() != ".";
}

fs::path real_path(const fs::path& path) {
  std::error_code error;
  const fs::path real = fs::weakly_canonical(path, error);
  return error ? fs::absolute(path) : real;
}

/// The pictures of the command line. Masks of an earlier run, in a folder of their own inside a folder of pictures, are none.
std::vector<fs::path> pictures_of(const PredictArgs& args) {
  const fs::path out = real_path(args.out);
  std::vector<fs::path> files;
  std::size_t left_out = 0;
  for (const std::string& argument : args.images) {
    std::error_code unreadable;  // is said when the file is read
    const bool holds_results = fs::is_directory(argument, unreadable) && lies_below(out, real_path(argument));
    for (const fs::path& file : image_files({argument}, "predict")) {
      if (holds_results && lies_below(real_path(file), out)) {
        ++left_out;
      } else {
        files.push_back(file);
      }
    }
  }
  if (left_out > 0)
    log_info("{} in {} left out: taken for earlier results", format_count(left_out, "picture"), args.out);
  if (files.empty()) fail<DataError>("predict", "there are no pictures besides those in {}", args.out);
  return files;
}

std::string mask_name(const std::string& stem) { return stem + ".png"; }
std::string overlay_name(const std::string& stem) { return stem + "_overlay.png"; }

class Files final : public Source {
 public:
  /// `out` is the folder for results, or - for none.
  Files(std::vector<fs::path> files, const std::string& out) : files_(std::move(files)) {
    std::set<std::string> used;
    std::set<fs::path> inputs;
    for (const fs::path& file : files_) inputs.insert(real_path(file));
    for (const fs::path& file : files_) {
      const std::string stem = file.stem().string();
      std::string name = stem;
      for (int k = 2; used.contains(mask_name(name)) || used.contains(overlay_name(name)); ++k)
        name = fmt::format("{}_{}", stem, k);
      for (const std::string& result : {mask_name(name), overlay_name(name)}) {
        used.insert(result);
        if (out != "-" && inputs.contains(real_path(out) / result)) {
          fail<ConfigError>("predict", "{} would be written over a picture to segment; choose another --out than {}",
                            result, out);
        }
      }
      stems_.push_back(std::move(name));
    }
  }

  bool next(Picture& picture) override {
    if (at_ == files_.size()) return false;
    const fs::path& file = files_[at_];
    picture.name = file.string();
    picture.stem = stems_[at_++];
    picture.problem.clear();
    try {
      picture.image = datasets::read_photo(file);
    } catch (const DataError& e) {
      picture.problem = e.what();
    }
    return true;
  }
  [[nodiscard]] std::int64_t count() const override { return static_cast<std::int64_t>(files_.size()); }

 private:
  std::vector<fs::path> files_;
  std::vector<std::string> stems_;  // no two files of results have the same name
  std::size_t at_ = 0;
};

/// Raw RGB bytes, row by row, frame after frame, as `ffmpeg -f rawvideo -pix_fmt rgb24 -` writes them.
class Frames final : public Source {
 public:
  Frames(std::int64_t w, std::int64_t h) : w_(w), h_(h) {}
  bool next(Picture& picture) override {
    datasets::Image& image = picture.image;
    if (image.h != h_ || image.w != w_) image = datasets::Image(h_, w_);
    const std::size_t got = std::fread(image.rgb.data(), 1, image.rgb.size(), stdin);
    if (got == 0 && std::feof(stdin) != 0) {
      if (at_ == 0) fail<DataError>("predict", "standard input is empty, expected {}x{} RGB frames", w_, h_);
      return false;
    }
    if (got != image.rgb.size()) {
      fail<DataError>("predict", "standard input ends inside frame {}: {} bytes, expected {} of a {}x{} RGB frame", at_,
                      got, image.rgb.size(), w_, h_);
    }
    picture.name = picture.stem = fmt::format("frame_{:06}", at_++);
    return true;
  }
  [[nodiscard]] std::int64_t count() const override { return 0; }

 private:
  std::int64_t w_, h_;
  std::int64_t at_ = 0;
};

std::string shares_of(const datasets::Mask& mask, const datasets::ClassInfo& classes) {
  std::vector<double> count(classes.names.size(), 0.0);
  for (const auto id : mask.ids) count[id] += 1;
  JsonObject shares;
  for (std::size_t k = 0; k < count.size(); ++k) {
    if (count[k] > 0) shares.add(classes.names[k], count[k] / static_cast<double>(mask.ids.size()));
  }
  return shares.str();
}

std::unique_ptr<Source> source_of(const PredictArgs& args) {
  if (args.frames.empty() == args.images.empty()) {
    fail<ConfigError>("predict", "give image files or folders, or --stdin WxH for frames on standard input");
  }
  if (args.frames.empty()) return std::make_unique<Files>(pictures_of(args), args.out);
  const auto size = parse_size(args.frames, "--stdin", "WIDTHxHEIGHT such as 640x480");
  return std::make_unique<Frames>(size[0], size[1]);  // here width comes first, as video programs have it
}

Precision precision_of(const PredictArgs& args, const LoadedModel& loaded) {
  if (args.precision.empty()) return args.bf16 ? Precision::kBF16 : usual_precision(loaded);
  const Precision precision = parse_precision(args.precision, "--precision");
  if (args.bf16 && precision != Precision::kBF16)
    fail<ConfigError>("predict", "--bf16 and --precision {} contradict each other", args.precision);
  return precision;
}

}  // namespace

int run_predict(const PredictArgs& args) {
  if (args.out.empty())
    fail<ConfigError>("predict", "--out is missing: the folder for the masks, or - for raw ids on standard output");
  const bool raw = args.out == "-";
  if (raw && (args.json || args.overlay)) {
    fail<ConfigError>("predict", "--out - writes raw ids to standard output; --json and --overlay need a folder");
  }
  const auto source = source_of(args);
  const nn::ParameterDevice parameters(open_device(args.device));
  const LoadedModel loaded = load_model(args.model);
  if (models::is_classification(loaded.card.spec.name)) {
    fail<ConfigError>("predict", "{} classifies whole pictures; masks need a segmentation network",
                      loaded.card.spec.name);
  }
  InferenceOptions options;
  options.normalisation = datasets::Normalisation::parse(loaded.card.normalisation);
  options.align_corners = loaded.card.align_corners;
  options.precision = precision_of(args, loaded);
  options.device = device_of(*loaded.model);
  read_protocol(args.protocol, options);
  const ForwardFn network = network_of(loaded, options.precision);
  std::error_code error;
  if (!raw) fs::create_directories(args.out, error);
  if (error) fail("predict", "cannot create {}: {}", args.out, error.message());

  const auto& classes = loaded.card.classes;
  Progress progress("predict", source->count());
  std::uint64_t images = 0, unreadable = 0;
  std::int64_t pixels = 0;
  double computing = 0;
  const double start = monotonic_seconds();
  for (Picture picture; source->next(picture); progress.advance()) {
    JsonObject line;
    line.add("image", picture.name);
    if (!picture.problem.empty()) {
      // In raw results there is no way to say that a picture is missing.
      if (raw) throw DataError(picture.problem);
      ++unreadable;
      log_error("{}", picture.problem);
      if (args.json) fmt::print("{}\n", line.add("error", picture.problem).str());
      continue;
    }
    const datasets::Image& image = picture.image;
    const double begin = monotonic_seconds();
    const datasets::Mask mask = predict_mask(network, image, options);
    computing += monotonic_seconds() - begin;
    ++images;
    pixels += image.h * image.w;
    if (raw) {
      if (std::fwrite(mask.ids.data(), 1, mask.ids.size(), stdout) != mask.ids.size())
        fail("predict", "cannot write to standard output");
    } else {
      const fs::path mask_file = fs::path(args.out) / mask_name(picture.stem);
      datasets::write_mask(mask_file, mask, classes.palette);
      line.add("mask", mask_file.string());
    }
    if (args.overlay) {
      const fs::path overlay_file = fs::path(args.out) / overlay_name(picture.stem);
      datasets::write_image(overlay_file, datasets::overlay(image, mask, classes.palette));
      line.add("overlay", overlay_file.string());
    }
    if (args.json) fmt::print("{}\n", line.add_raw("shares", shares_of(mask, classes)).str());
  }
  progress.finish();
  if (raw && std::fflush(stdout) != 0) fail("predict", "cannot write to standard output");
  const double seconds = monotonic_seconds() - start;
  log_info("{} in {} ({:.2f} images/s, {:.2f} Mpixel/s; {:.0f} % of the time in the network), {}; masks in {}",
           format_count(images, "image"), format_duration(seconds), static_cast<double>(images) / seconds,
           static_cast<double>(pixels) / seconds * 1e-6, 100 * computing / seconds, protocol_of(options),
           raw ? "standard output" : args.out);
  if (unreadable > 0) fail_unreadable("predict", unreadable, images + unreadable);
  return 0;
}

}  // namespace limbeck::apps
