// The verb `visualize`: what distillation changed, as pictures: segmentations side by side, the affinities of single pixels,
// the saliency of channels, and how alike networks see pairs of classes. PNG files and one page with all of them.
#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "apps/cli.h"
#include "apps/data_part.h"
#include "apps/evaluate.h"
#include "apps/html.h"
#include "apps/model_io.h"
#include "apps/visualize.h"
#include "core/autograd.h"
#include "core/file_io.h"
#include "core/log.h"
#include "core/nearest_word.h"
#include "datasets/compose.h"
#include "datasets/convert.h"
#include "datasets/image_io.h"
#include "distill/inter_class_kd.h"
#include "ops/elementwise.h"
#include "ops/interpolate.h"
#include "ops/reduce.h"

namespace limbeck::apps {
namespace {

namespace fs = std::filesystem;
using datasets::HeatRange;
using datasets::Image;
using datasets::Mask;
using datasets::Panel;

constexpr int kTextScale = 2;
constexpr std::int64_t kPanelWidth = 320;  // smaller pictures are enlarged to at least this

/// One network and what it says about the current picture.
struct Network {
  std::string role;  ///< teacher | plain | distilled
  LoadedModel loaded;
  std::string tap;
  models::Output output;  ///< of the current picture
  Mask mask;
  Tensor similarity;  ///< [K,K], sum over the pictures
};

struct Subject {
  std::string name;
  Image image;
  std::optional<Mask> truth;
};

/// The tap to look at: the one asked for, or the last feature before the classifier (for DeepLab teachers the projection that
/// distillation takes, at the stride of a student without decoder).
std::string choose_tap(const Network& network, const std::string& wanted) {
  const auto names = network.loaded.model->tap_names();
  const auto has = [&](const std::string& name) { return std::find(names.begin(), names.end(), name) != names.end(); };
  if (!wanted.empty()) {
    if (has(wanted)) return wanted;
    const std::string near = nearest_word(wanted, names);
    fail<ConfigError>("visualize", "the {} network has no tap '{}'{}; taps: {}", network.role, wanted,
                      near.empty() ? "" : fmt::format(", did you mean '{}'?", near), fmt::join(names, ", "));
  }
  for (const char* name : {"aspp", "head", "layer4"}) {
    if (has(name)) return name;
  }
  return "logits";
}

Network load_network(const std::string& role, const std::string& path, const std::string& tap) {
  Network network;
  network.role = role;
  network.loaded = load_model(path);
  network.tap = choose_tap(network, tap);
  log_info("{}: {} from {}, tap '{}'", role, network.loaded.card.spec.name, network.loaded.file.string(), network.tap);
  return network;
}

void check_classes(const std::vector<Network>& networks, const datasets::ClassInfo& classes, const char* owner) {
  for (const auto& n : networks) {
    if (n.loaded.card.spec.classes != classes.count()) {
      fail<WeightsError>("visualize", "the {} network ({}) has {} classes, the {} {}", n.role, n.loaded.file.string(),
                         n.loaded.card.spec.classes, owner, classes.count());
    }
  }
}

/// Pictures named on the command line, or samples of the data set spread evenly over it.
std::vector<Subject> collect_subjects(const VisualizeArgs& args, const std::vector<Network>& networks,
                                      datasets::ClassInfo& classes) {
  std::vector<Subject> subjects;
  if (!args.images.empty()) {
    for (const auto& file : args.images)
      subjects.push_back({fs::path(file).stem().string(), datasets::read_photo(file), std::nullopt});
    return subjects;
  }
  Config config = stored_config(args, args.student);
  if (!args.split.empty()) config.override_with("data.val_split=" + args.split);
  const auto dataset = datasets::make_dataset(read_data_part(config, args.overrides).val);
  classes = dataset->classes();
  check_classes(networks, classes, "data set");
  const std::size_t count = std::min<std::size_t>(static_cast<std::size_t>(args.count), dataset->size());
  for (std::size_t i = 0; i < count; ++i) {
    datasets::Sample sample = dataset->load((2 * i + 1) * dataset->size() / (2 * count));
    std::string name = sample.name;
    std::replace(name.begin(), name.end(), '/', '_');
    subjects.push_back({std::move(name), std::move(sample.image), std::move(sample.mask)});
  }
  return subjects;
}

/// Runs every network on the picture; fills output, mask and adds to similarity.
void look(std::vector<Network>& networks, const Image& image, double tau) {
  const NoGradGuard off;
  for (auto& n : networks) {
    const auto normalisation = datasets::Normalisation::parse(n.loaded.card.normalisation);
    const std::vector<std::string> taps{n.tap};
    n.output = n.loaded.model->forward(datasets::to_tensor(image, normalisation).to(device_of(*n.loaded.model)),
                                       n.tap == "logits" ? std::span<const std::string>() : taps);
    if (n.tap == "logits") n.output.taps["logits"] = n.output.logits;
    const Tensor full = ops::resize_bilinear(n.output.logits, {image.h, image.w}, n.loaded.card.align_corners);
    n.mask = datasets::to_mask(ops::argmax(full, 1).to(kCpu));
    const Tensor similarity = distill::inter_class_similarity(full, tau);
    n.similarity = n.similarity.defined() ? ops::add(n.similarity, similarity) : similarity;
  }
}

int factor_of(const Image& image) {
  return static_cast<int>(std::max<std::int64_t>(1, (kPanelWidth + image.w - 1) / image.w));
}

/// A [1,1,h,w] map at the size of the picture.
std::vector<float> at_size(const Tensor& map, const Image& image) {
  const NoGradGuard off;
  return ops::resize_bilinear(map, {image.h, image.w}, false).to_vector<float>();
}

double share_right(const Mask& truth, const Mask& mask) {
  std::int64_t right = 0;
  std::int64_t all = 0;
  for (std::size_t i = 0; i < truth.ids.size(); ++i) {
    if (truth.ids[i] == datasets::kIgnoreId) continue;
    ++all;
    right += truth.ids[i] == mask.ids[i] ? 1 : 0;
  }
  return all == 0 ? 0.0 : 100.0 * static_cast<double>(right) / static_cast<double>(all);
}

/// Patches with the meaning of agreement_map()'s colours.
Image agreement_legend(const std::string& a, const std::string& b, std::int64_t width) {
  datasets::ClassInfo meaning;
  meaning.names = {"both right", "only " + b, "only " + a, "both wrong"};
  meaning.palette.assign(kAgreementColours.begin(), kAgreementColours.end());
  return datasets::legend(meaning, width, kTextScale);
}

/// image | truth | teacher | plain | distilled | where they disagree
Image side_by_side_picture(const Subject& subject, const std::vector<Network>& networks,
                           const datasets::ClassInfo& classes) {
  const int factor = factor_of(subject.image);
  std::vector<Panel> panels{{datasets::enlarged(subject.image, factor), "image"}};
  const auto add_mask = [&](const Mask& mask, const std::string& caption) {
    panels.push_back(
        {datasets::enlarged(datasets::overlay(subject.image, mask, classes.palette, 0.7), factor), caption});
  };
  if (subject.truth) add_mask(*subject.truth, "truth");
  for (const auto& n : networks) {
    add_mask(n.mask,
             subject.truth ? fmt::format("{} ({:.1f} % right)", n.role, share_right(*subject.truth, n.mask)) : n.role);
  }
  // The student against what it would be without its teacher; without a plain student against the teacher.
  const Network& a = networks[networks.size() - 2];
  const Network& b = networks.back();
  const Image map =
      subject.truth ? agreement_map(*subject.truth, a.mask, b.mask) : difference_map(a.mask, b.mask, classes.palette);
  panels.push_back({datasets::enlarged(map, factor), fmt::format("{} against {}", b.role, a.role)});
  const Image rows = datasets::side_by_side(panels, 3, kTextScale);
  std::vector<Image> parts{rows, datasets::legend(classes, rows.w, kTextScale)};
  if (subject.truth) parts.push_back(agreement_legend(a.role, b.role, rows.w));
  return datasets::stacked(parts);
}

Image affinity_picture(const Subject& subject, const std::vector<Network>& networks,
                       const std::vector<PixelPosition>& pixels, const datasets::ClassInfo& classes) {
  constexpr HeatRange kRange{0, 1};
  const int factor = factor_of(subject.image);
  std::vector<Panel> panels;
  for (const auto& p : pixels) {
    const Mask& mask = subject.truth ? *subject.truth : networks.front().mask;
    const std::uint8_t id = mask.at(p.y, p.x);
    const std::string what = id < classes.names.size() ? classes.names[id] : "no label";
    const auto add = [&](Image picture, const std::string& caption) {
      picture = datasets::enlarged(picture, factor);
      datasets::draw_marker(picture, p.y * factor + factor / 2, p.x * factor + factor / 2);
      panels.push_back({std::move(picture), caption});
    };
    add(subject.image, fmt::format("{},{}: {}", p.x, p.y, what));
    for (const auto& n : networks) {
      const Tensor& feature = n.output.taps.at(n.tap);
      const Tensor map =
          affinity_map(feature, p.y * feature.size(2) / subject.image.h, p.x * feature.size(3) / subject.image.w);
      add(datasets::heat_overlay(subject.image, at_size(map, subject.image), kRange),
          fmt::format("{}: {}", n.role, n.tap));
    }
  }
  const Image rows = datasets::side_by_side(panels, static_cast<int>(networks.size()) + 1, kTextScale);
  return datasets::stacked({rows, datasets::colour_bar("cosine with the marked pixel", kRange, rows.w, kTextScale)});
}

/// One row per class: the logit map of every network, then its softmax over positions.
Image saliency_picture(const Subject& subject, const std::vector<Network>& networks,
                       const std::vector<std::int64_t>& chosen, const datasets::ClassInfo& classes, double tau) {
  const int factor = factor_of(subject.image);
  std::vector<Panel> panels;
  for (const auto k : chosen) {
    const auto& name = classes.names[static_cast<std::size_t>(k)];
    for (const bool softmax : {false, true}) {
      for (const auto& n : networks) {
        const Tensor map = softmax ? saliency_map(n.output.logits, k, tau) : channel_of(n.output.logits, k);
        const auto values = at_size(map, subject.image);
        HeatRange range = datasets::range_of(values);
        if (softmax) range.low = 0;
        const std::string caption =
            softmax ? fmt::format("{}: {} softmax 0..{}", n.role, name, format_short(range.high))
                    : fmt::format("{}: {} {}..{}", n.role, name, format_short(range.low), format_short(range.high));
        panels.push_back(
            {datasets::enlarged(datasets::heat_overlay(subject.image, values, range, 0.8), factor), caption});
      }
    }
  }
  const Image rows = datasets::side_by_side(panels, static_cast<int>(networks.size()), kTextScale);
  return datasets::stacked(
      {rows, datasets::colour_bar("dark: lowest, light: highest of the panel", {0, 1}, rows.w, kTextScale)});
}

/// The matrices with one common range of colours, so that panels compare.
Image similarity_picture(const std::vector<Network>& networks, const datasets::ClassInfo& classes,
                         std::size_t pictures) {
  std::vector<std::vector<float>> matrices;
  std::vector<float> all;
  for (const auto& n : networks) {
    const NoGradGuard off;
    matrices.push_back(ops::mul_scalar(n.similarity, 1.0 / static_cast<double>(pictures)).to_vector<float>());
    all.insert(all.end(), matrices.back().begin(), matrices.back().end());
  }
  const HeatRange range{0, datasets::range_of(all).high};
  std::vector<Panel> panels;
  for (std::size_t i = 0; i < networks.size(); ++i) {
    const std::string distance = i == 0 ? ""
                                        : fmt::format(", distance to the teacher {:.4f}",
                                                      row_distance(networks[0].similarity, networks[i].similarity));
    panels.push_back(
        {datasets::matrix_picture(matrices[i], classes.names, range, kTextScale), networks[i].role + distance});
  }
  const Image rows = datasets::side_by_side(panels, static_cast<int>(panels.size()), kTextScale);
  return datasets::stacked(
      {rows, datasets::colour_bar("divergence of column from row, nats", range, rows.w, kTextScale)});
}

std::vector<PixelPosition> choose_pixels(const VisualizeArgs& args, const Subject& subject, const Mask& mask) {
  std::vector<PixelPosition> pixels;
  for (const auto& text : args.pixels) {
    const PixelPosition p = parse_pixel(text);
    if (p.x >= subject.image.w || p.y >= subject.image.h) {
      fail<ConfigError>("visualize",
                        "--pixel {},{} is outside of {}, which is {} pixels wide and {} high (counted from 0)", p.x,
                        p.y, subject.name, subject.image.w, subject.image.h);
    }
    pixels.push_back(p);
  }
  return pixels.empty() ? pick_pixels(mask, 4) : pixels;
}

std::vector<std::int64_t> choose_classes(const VisualizeArgs& args, const datasets::ClassInfo& classes,
                                         const Mask& mask) {
  std::vector<std::int64_t> chosen;
  for (const auto& name : args.classes) {
    const auto found = std::find(classes.names.begin(), classes.names.end(), name);
    if (found == classes.names.end()) {
      const std::string near = nearest_word(name, classes.names);
      fail<ConfigError>("visualize", "no class '{}'{}; classes: {}", name,
                        near.empty() ? "" : fmt::format(", did you mean '{}'?", near), fmt::join(classes.names, ", "));
    }
    chosen.push_back(found - classes.names.begin());
  }
  if (!chosen.empty()) return chosen;
  chosen = classes_by_size(mask);
  chosen.resize(std::min<std::size_t>(chosen.size(), 3));
  return chosen;
}

class Page {
 public:
  explicit Page(fs::path folder) : folder_(std::move(folder)), text_(html_begin("limbeck: what the networks see")) {}
  void heading(const std::string& text) { text_ += "<h2>" + html_escape(text) + "</h2>\n"; }
  void paragraph(const std::string& text) { text_ += "<p>" + html_escape(text) + "</p>\n"; }
  void picture(const std::string& file, const Image& image) {
    datasets::write_image(folder_ / file, image);
    text_ += html_picture(file, image);
  }
  void facts(const std::vector<Network>& networks) {
    text_ += "<table>\n<tr><th>role</th><th>network</th><th>parameters</th><th>tap</th><th>file</th></tr>\n";
    for (const auto& n : networks) {
      text_ += fmt::format("<tr><td>{}</td><td>{}</td><td class=\"number\">{}</td><td>{}</td><td>{}</td></tr>\n",
                           n.role, n.loaded.card.spec.name, n.loaded.model->parameter_count(), html_escape(n.tap),
                           html_escape(n.loaded.file.string()));
    }
    text_ += "</table>\n";
  }
  void write() const { write_file_atomic(folder_ / "index.html", text_ + html_end()); }

 private:
  fs::path folder_;
  std::string text_;
};

}  // namespace

int run_visualize(const VisualizeArgs& args) {
  if (args.out.empty()) fail<ConfigError>("visualize", "--out is missing: the folder for the pictures");
  if (!(args.tau > 0)) fail<ConfigError>("visualize", "--tau {}, expected > 0", args.tau);
  const nn::ParameterDevice parameters(open_device(args.device));
  std::vector<Network> networks;
  networks.push_back(load_network("teacher", args.teacher, args.teacher_tap));
  if (!args.plain.empty()) networks.push_back(load_network("plain", args.plain, args.student_tap));
  networks.push_back(load_network("distilled", args.student, args.student_tap));
  datasets::ClassInfo classes = networks.front().loaded.card.classes;
  check_classes(networks, classes, "teacher");
  const auto subjects = collect_subjects(args, networks, classes);
  // Mistakes in --pixel must not leave half a page behind.
  for (const auto& subject : subjects) static_cast<void>(choose_pixels(args, subject, Mask()));
  static_cast<void>(choose_classes(args, classes, Mask()));

  std::error_code error;
  fs::create_directories(args.out, error);
  if (error) fail("visualize", "cannot create {}: {}", args.out, error.message());
  Page page(args.out);
  page.facts(networks);
  Progress progress("visualize", static_cast<std::int64_t>(subjects.size()));
  for (const auto& subject : subjects) {
    look(networks, subject.image, 1.0);
    const Mask& mask = subject.truth ? *subject.truth : networks.front().mask;
    const auto pixels = choose_pixels(args, subject, mask);
    page.heading(subject.name);
    page.picture(subject.name + "_masks.png", side_by_side_picture(subject, networks, classes));
    page.paragraph(
        "Affinity: cosine between the feature of the marked pixel and that of every position, at the tap named above each "
        "map. A network that has understood the class lights up the rest of it and nothing else.");
    page.picture(subject.name + "_affinity.png", affinity_picture(subject, networks, pixels, classes));
    page.paragraph(fmt::format(
        "Saliency of classes: the logit map and its softmax over positions with temperature {} (times the number "
        "of positions: 1 is no preference), which channel-wise distillation compares.",
        format_short(args.tau)));
    page.picture(subject.name + "_saliency.png",
                 saliency_picture(subject, networks, choose_classes(args, classes, mask), classes, args.tau));
    progress.advance();
  }
  progress.finish();
  page.heading("Similarity between classes");
  page.paragraph(fmt::format(
      "Row i, column j: divergence of the places of class j from the places of class i (softmax over positions of the "
      "logits at image size), mean over {}. The distance to the teacher compares rows of length 1, as "
      "inter-class similarity distillation does.",
      format_count(subjects.size(), "picture")));
  page.picture("inter_class.png", similarity_picture(networks, classes, subjects.size()));
  page.write();
  log_info("pictures and index.html in {}", args.out);
  return 0;
}

}  // namespace limbeck::apps
