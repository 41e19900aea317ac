#include "apps/settings.h"

#include <algorithm>

#include "core/nearest_word.h"
#include "core/parse_number.h"
#include "distill/loss.h"
#include "nn/layers.h"

namespace limbeck::apps {
namespace {

/// [h, w] under `key`; one number means a square; absent: {0, 0}.
std::array<std::int64_t, 2> read_size(const Config& section, std::string_view key) {
  const auto values = section.find<std::vector<std::int64_t>>(key);
  if (!values) return {0, 0};
  if (values->empty() || values->size() > 2 ||
      std::any_of(values->begin(), values->end(), [](auto v) { return v < 1 || v > datasets::kMaxSide; })) {
    section.reject(key, "expected [height, width] with numbers from 1 to 65536");
  }
  return {values->front(), values->back()};
}

/// Three positive numbers under `key`; absent: `out` stays.
void read_three(const Config& section, std::string_view key, const char* expected, std::array<std::int64_t, 3>& out) {
  const auto values = section.find<std::vector<std::int64_t>>(key);
  if (!values) return;
  if (values->size() != out.size() || std::any_of(values->begin(), values->end(), [](auto v) { return v < 1; })) {
    section.reject(key, expected);
  }
  std::copy(values->begin(), values->end(), out.begin());
}

ModelSettings read_model(const Config& section, const ModelSettings& defaults) {
  ModelSettings m = defaults;
  m.spec.name = section.get<std::string>("name");
  m.spec.classes =
      section.get_in_range<std::int64_t>("classes", std::int64_t{0}, std::int64_t{0}, std::int64_t{100000});
  m.spec.output_stride =
      section.get_in_range<std::int64_t>("output_stride", m.spec.output_stride, std::int64_t{4}, std::int64_t{32});
  m.spec.width = section.get_in_range<double>("width", m.spec.width, 0.05, 4.0);
  m.spec.aux = section.get<bool>("aux", m.spec.aux);
  m.spec.bn_eps = section.get_in_range<double>("bn_eps", m.spec.bn_eps, 1e-12, 1.0);
  m.spec.head_bn_eps = section.get_in_range<double>("head_bn_eps", m.spec.head_bn_eps, 0.0, 1.0);
  m.spec.bn_momentum = section.get_in_range<double>("bn_momentum", m.spec.bn_momentum, 1e-6, 1.0);
  m.spec.relu6 = section.get<bool>("relu6", m.spec.relu6);
  m.spec.dilation = section.get("dilation", m.spec.dilation);
  m.spec.padding = section.get("padding", m.spec.padding);
  m.spec.variant = section.get("variant", m.spec.variant);
  m.spec.stem = section.get("stem", m.spec.stem);
  m.spec.separable = section.get<bool>("separable", m.spec.separable);
  m.spec.width_divisor =
      section.get_in_range<std::int64_t>("width_divisor", m.spec.width_divisor, std::int64_t{1}, std::int64_t{64});
  read_three(section, "multi_grid", "expected three positive factors, e.g. [1, 2, 4]", m.spec.multi_grid);
  read_three(section, "aspp_rates", "expected three positive rates, e.g. [12, 24, 36]", m.spec.aspp_rates);
  m.spec.head_dropout = section.get_in_range<double>("head_dropout", m.spec.head_dropout, -1.0, 0.99);
  m.spec.aspp_dropout = section.get_in_range<double>("aspp_dropout", m.spec.aspp_dropout, -1.0, 0.99);
  m.init = section.get("init", "");
  return m;
}

/// `palette: [r, g, b, r, g, b, ...]`, three numbers per class.
std::vector<datasets::Rgb> read_palette(const Config& data) {
  const auto numbers = data.get("palette", std::vector<std::int64_t>{});
  if (numbers.size() % 3 != 0 || std::any_of(numbers.begin(), numbers.end(), [](auto v) { return v < 0 || v > 255; })) {
    data.reject("palette", "expected [r, g, b, r, g, b, ...]: three numbers from 0 to 255 per class");
  }
  std::vector<datasets::Rgb> colours(numbers.size() / 3);
  for (std::size_t i = 0; i < numbers.size(); ++i) colours[i / 3][i % 3] = static_cast<std::uint8_t>(numbers[i]);
  return colours;
}

void require_known_kind(const Config& data, const std::string& kind) {
  const auto& kinds = datasets::dataset_kinds();
  if (std::find(kinds.begin(), kinds.end(), kind) != kinds.end()) return;
  const std::string likely = nearest_word(kind, kinds);
  data.reject("kind", fmt::format("unknown data set '{}'{}; known: {}", kind,
                                  likely.empty() ? "" : ", did you mean '" + likely + "'?", fmt::join(kinds, ", ")));
}

datasets::DatasetSpec read_dataset(const Config& data, std::string split) {
  datasets::DatasetSpec d;
  d.kind = data.get<std::string>("kind");
  require_known_kind(data, d.kind);
  d.root = data.get("root", "");
  if (d.kind != "scenes" && d.root.empty()) data.reject("root", "the folder of the data set is missing");
  d.split = std::move(split);
  d.list = data.get("list", "");
  d.image_dir = data.get("image_dir", "");
  d.label_dir = data.get("label_dir", "");
  d.image_suffix = data.get("image_suffix", "");
  d.label_suffix = data.get("label_suffix", "");
  d.classes = data.get("classes", std::vector<std::string>{});
  d.num_classes = data.get_in_range<std::int64_t>("num_classes", std::int64_t{0}, std::int64_t{0}, std::int64_t{255});
  d.ignore_index = static_cast<int>(
      data.get_in_range<std::int64_t>("ignore_index", std::int64_t{255}, std::int64_t{-1}, std::int64_t{65535}));
  d.reduce_zero_label = data.get<bool>("reduce_zero_label", false);
  const std::string decode = data.choice("mask_decode", "index", {"index", "first_channel", "colour"});
  if (decode == "first_channel") d.mask_decode = datasets::MaskDecode::kFirstChannel;
  if (decode == "colour") d.mask_decode = datasets::MaskDecode::kColour;
  d.palette = read_palette(data);
  d.seed = static_cast<std::uint64_t>(
      data.get_in_range<std::int64_t>("scene_seed", std::int64_t{0}, std::int64_t{0}, std::int64_t{1} << 62));
  const auto size = read_size(data, "scene_size");
  if (size[0] > 0) {
    d.height = size[0];
    d.width = size[1];
  }
  const Config map = data.section("label_map");
  for (const auto& key : map.keys()) {
    if (key == "other") {
      d.label_map_other = map.get<int>("other");
    } else {
      const auto id = parse_number<int>(key);
      if (!id) map.reject(key, "expected a number (id in the files) or 'other'");
      d.label_map[*id] = map.get<int>(key);
    }
  }
  return d;
}

datasets::TransformOptions read_transform(const Config& data) {
  datasets::TransformOptions t;
  const auto resize = read_size(data, "resize");
  t.resize_h = resize[0];
  t.resize_w = resize[1];
  const auto crop = read_size(data, "crop");
  t.crop_h = crop[0];
  t.crop_w = crop[1];
  const auto scale = data.get("scale", std::vector<double>{1.0, 1.0});
  if (scale.size() != 2) data.reject("scale", "expected [smallest, largest]");
  t.scale_min = scale[0];
  t.scale_max = scale[1];
  t.scale_step = data.get_in_range<double>("scale_step", 0.0, 0.0, 4.0);
  const auto side = data.get("short_side", std::vector<std::int64_t>{0, 0});
  if (side.size() != 2) data.reject("short_side", "expected [smallest, largest] in pixels");
  t.short_side_min = side[0];
  t.short_side_max = side[1];
  t.flip = data.get_in_range<double>("flip", 0.5, 0.0, 1.0);
  t.max_class_share = data.get_in_range<double>("max_class_share", 1.0, 0.01, 1.0);
  t.brightness = data.get_in_range<double>("brightness", 0.0, 0.0, 1.0);
  t.contrast = data.get_in_range<double>("contrast", 0.0, 0.0, 1.0);
  t.saturation = data.get_in_range<double>("saturation", 0.0, 0.0, 1.0);
  const auto area = data.get("area", std::vector<double>{0.0, 0.0});
  if (area.size() != 2) data.reject("area", "expected [smallest, largest] share of the picture");
  t.area_min = area[0];
  t.area_max = area[1];
  t.aspect = data.get_in_range<double>("aspect", t.aspect, 1.0, 10.0);
  t.photometric = data.get<bool>("photometric", false);
  const std::string pad = data.choice("pad", "mean", {"mean", "black", "zero"});
  if (pad == "black") t.pad_colour = {0, 0, 0};
  t.pad_zero = pad == "zero";
  t.pad_background = data.choice("pad_label", "ignore", {"ignore", "background"}) == "background";
  t.blur = data.get_in_range<double>("blur", 0.0, 0.0, 1.0);
  t.blur_sigma = data.get_in_range<double>("blur_sigma", 1.0, 0.01, 20.0);
  return t;
}

constexpr std::int64_t kMany = std::int64_t{1} << 40;

TrainSettings read_train(const Config& section, const TrainSettings& defaults) {
  TrainSettings t = defaults;
  const auto count = [&](std::string_view key, std::int64_t fallback, std::int64_t low, std::int64_t high = kMany) {
    return section.get_in_range<std::int64_t>(key, fallback, low, high);
  };
  const auto number = [&](std::string_view key, double fallback, double low, double high) {
    return section.get_in_range<double>(key, fallback, low, high);
  };
  t.steps = count("steps", 0, 0);
  t.epochs = count("epochs", t.steps > 0 ? 0 : defaults.epochs, 0);
  if ((t.steps > 0) == (t.epochs > 0)) section.reject("steps", "give either train.steps or train.epochs");
  t.batch = count("batch", t.batch, 1, 4096);
  t.accumulate = count("accumulate", t.accumulate, 1, 4096);
  t.precision = section.choice("precision", t.precision, {"f32", "bf16"});
  t.cuda_graph = section.choice("cuda_graph", t.cuda_graph, {"auto", "on", "off"});
  t.deterministic = section.get<bool>("deterministic", t.deterministic);
  t.optimizer = section.choice("optimizer", t.optimizer, {"sgd", "adamw"});
  t.lr = number("lr", t.lr, 0, 1e3);
  t.momentum = number("momentum", t.momentum, 0, 1);
  t.nesterov = section.get<bool>("nesterov", t.nesterov);
  t.weight_decay = number("weight_decay", t.weight_decay, 0, 1);
  t.decay_vectors = section.get<bool>("decay_vectors", t.decay_vectors);
  t.decay_depthwise = section.get<bool>("decay_depthwise", t.decay_depthwise);
  t.head_lr = number("head_lr", t.head_lr, 0, 1e4);
  t.constant_term_lr = section.choice("term_lr", "scheduled", {"scheduled", "constant"}) == "constant";
  t.schedule = section.choice("schedule", t.schedule, {"poly", "cosine", "step", "constant"});
  t.power = number("power", t.power, 0, 10);
  t.min_lr = number("min_lr", t.min_lr, 0, 1e3);
  t.warmup = count("warmup", t.warmup, 0);
  t.milestones = section.get("milestones", std::vector<std::int64_t>{});
  t.gamma = number("gamma", t.gamma, 0, 1);
  t.clip_norm = number("clip_norm", t.clip_norm, 0, 1e9);
  t.ema = number("ema", t.ema, 0, 0.999999);
  t.label_smoothing = number("label_smoothing", t.label_smoothing, 0, 0.99);
  t.class_weights =
      section.choice("class_weights", t.class_weights, {"none", "median_frequency", "sqrt_median_frequency"});
  t.align_corners = section.get<bool>("align_corners", t.align_corners);
  t.eval_every = count("eval_every", t.eval_every, 0);
  t.save_every = count("save_every", t.save_every, 0);
  t.keep = count("keep", t.keep, 1, 1000);
  t.log_every = count("log_every", t.log_every, 1);
  t.pictures = count("pictures", t.pictures, 0, 1000);
  return t;
}

std::vector<distill::Term> read_terms(const Config& distill) {
  std::vector<distill::Term> terms;
  for (const Config& section : distill.sections("terms")) {
    distill::Term term;
    term.loss = distill::make_loss(section);
    term.name = section.get("name", section.get<std::string>("loss"));
    term.student_tap = section.get("student", "logits");
    term.teacher_tap = section.get("teacher", "logits");
    term.weight = distill::WeightSchedule::from_config(section, "weight", 1.0);
    const std::string project = section.choice("project", "none", {"none", "1x1", "3x3"});
    if (project != "none") term.projection = project == "1x1" ? 1 : 3;
    const std::string align =
        section.choice("align", term.loss->alignment(), {"larger", "teacher", "student", "image"});
    if (align == "teacher") term.align = distill::SizeAlign::kTeacher;
    if (align == "student") term.align = distill::SizeAlign::kStudent;
    if (align == "image") term.align = distill::SizeAlign::kImage;
    terms.push_back(std::move(term));
  }
  if (terms.empty()) distill.reject("terms", "a distillation run needs at least one term");
  return terms;
}

ModelSettings read_teacher(const Config& section, bool classify) {
  ModelSettings teacher = read_model(section, {});
  if (teacher.init.empty()) section.reject("init", "the weights of the teacher are missing");
  teacher.init_strict = true;
  teacher.min_score = section.get_in_range<double>(classify ? "min_top1" : "min_miou", 0.0, 0.0, 100.0);
  teacher.gate_images = section.get_in_range<std::int64_t>("gate_images", std::int64_t{50}, std::int64_t{1}, kMany);
  return teacher;
}

/// The published recipe: one epoch, learning rate 0.1.
TrainSettings autoencoder_defaults() {
  TrainSettings t;
  t.epochs = 1;
  t.lr = 0.1;
  t.weight_decay = 1e-4;
  return t;
}

AutoencoderSettings read_autoencoder(const Config& section) {
  AutoencoderSettings a;
  a.tap = section.get("tap", a.tap);
  a.student_tap = section.get("student_tap", a.student_tap);
  a.code = section.get_in_range<std::int64_t>("code", a.code, std::int64_t{0}, std::int64_t{65536});
  a.released_code = section.choice("variant", "paper", {"paper", "released-code"}) == "released-code";
  a.alpha = section.get_in_range<double>("alpha", a.alpha, 0.0, 1e6);
  if (const auto strides = section.find<std::vector<std::int64_t>>("strides")) {
    if (strides->size() != a.strides.size() ||
        std::any_of(strides->begin(), strides->end(), [](auto v) { return v < 1 || v > 8; })) {
      section.reject("strides", "expected three strides from 1 to 8");
    }
    std::copy(strides->begin(), strides->end(), a.strides.begin());
  }
  return a;
}

}  // namespace

InferenceOptions evaluation_options(const DataSettings& data, bool align_corners) {
  InferenceOptions o;
  o.normalisation = data.transform.normalisation;
  o.resize_h = data.eval_h;
  o.resize_w = data.eval_w;
  o.short_side = data.eval_short_side;
  o.crop_h = data.eval_crop_h;
  o.crop_w = data.eval_crop_w;
  o.absent = data.eval_absent;
  o.align_corners = align_corners;
  return o;
}

datasets::Normalisation parse_normalisation(const std::string& name) { return datasets::Normalisation::parse(name); }

DataSettings read_data(const Config& config) {
  const Config data = config.section("data");
  DataSettings d;
  d.train = read_dataset(data, data.get("train_split", "train"));
  d.train.coarse_split = data.get("coarse_split", "");
  d.val = read_dataset(data, data.get("val_split", "val"));
  const auto limit = [&](std::string_view key) {
    return static_cast<std::size_t>(
        data.get_in_range<std::int64_t>(key, std::int64_t{0}, std::int64_t{0}, std::int64_t{1} << 40));
  };
  d.train.limit = limit("train_limit");
  d.val.limit = limit("val_limit");
  d.train.samples = limit("scene_train");
  d.val.samples = limit("scene_val");
  d.transform = read_transform(data);
  d.normalisation = data.choice("normalisation", "imagenet", {"imagenet", "symmetric", "bgr_mean"});
  d.transform.normalisation = parse_normalisation(d.normalisation);
  const auto eval = read_size(data, "eval_resize");
  d.eval_h = eval[0];
  d.eval_w = eval[1];
  d.eval_short_side =
      data.get_in_range<std::int64_t>("eval_short_side", std::int64_t{0}, std::int64_t{0}, std::int64_t{1} << 16);
  const auto crop = read_size(data, "eval_crop");
  d.eval_crop_h = crop[0];
  d.eval_crop_w = crop[1];
  if (data.choice("eval_absent", "skip", {"skip", "zero"}) == "zero") d.eval_absent = datasets::AbsentClasses::kZero;
  d.workers = data.get_in_range<std::int64_t>("workers", std::int64_t{2}, std::int64_t{0}, std::int64_t{256});
  d.keep_in_memory = data.get<bool>("keep_in_memory", d.keep_in_memory);
  d.bytes = data.choice("bytes", d.bytes, {"auto", "on", "off"});
  if (d.bytes == "on" && d.transform.pad_zero)
    data.reject("bytes", "no byte becomes the network's zero that `pad: zero` asks for");
  return d;
}

const char* name_of(Verb verb) noexcept {
  switch (verb) {
    case Verb::kTrain: return "train";
    case Verb::kAutoencoder: return "autoencoder";
    case Verb::kDistill: break;
  }
  return "distill";
}

Settings read_settings(const Config& config, Verb verb) {
  Settings s;
  s.verb = verb;
  s.seed = static_cast<std::uint64_t>(
      config.get_in_range<std::int64_t>("seed", std::int64_t{0}, std::int64_t{0}, std::int64_t{1} << 62));
  s.classify = config.choice("task", "segment", {"segment", "classify"}) == "classify";
  if (verb == Verb::kAutoencoder) {
    if (s.classify)
      config.reject("task", "an autoencoder squeezes the maps of a segmentation network; expected segment");
    s.autoencoder = read_autoencoder(config.section("autoencoder"));
    s.train = read_train(config.section("train"), autoencoder_defaults());
  } else {
    s.train = read_train(config.section("train"), {});
    s.aux_weight = config.get_in_range<double>("train.aux_weight", 0.4, 0.0, 100.0);
    s.ce_weight = distill::WeightSchedule::from_config(config.section("train"), "ce_weight", 1.0);
  }
  // An autoencoder with strides of its own needs no student.
  if (verb != Verb::kAutoencoder || config.has("model.name")) {
    s.model = read_model(config.section("model"), {});
    s.model.init_strict = config.get<bool>("model.init_strict", false);
  }
  s.data = read_data(config);
  datasets::check_options(s.data.transform);
  if (verb != Verb::kTrain) s.teacher = read_teacher(config.section("teacher"), s.classify);
  if (verb == Verb::kDistill) {
    s.terms = read_terms(config.section("distill"));
    s.teacher_code = config.get("distill.autoencoder", "");
    s.connector_epochs =
        config.get_in_range<std::int64_t>("distill.connector_epochs", std::int64_t{0}, std::int64_t{0}, kMany);
    s.teacher_in_train_mode =
        config.section("distill").choice("variant", "paper", {"paper", "released-code"}) == "released-code";
  }
  return s;
}

}  // namespace limbeck::apps
