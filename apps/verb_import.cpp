// The verb `import`: weights of other projects become a file that eval, predict, distill and init: read. Whatever decides how the
// numbers must be used (network, eps of batch norm, input scaling, class names) is stored with them.
#include <algorithm>
#include <filesystem>
#include <utility>

#include "apps/cli.h"
#include "apps/model_io.h"
#include "core/json.h"
#include "core/log.h"
#include "core/parse_number.h"
#include "core/safetensors.h"
#include "core/torch_file.h"
#include "datasets/palettes.h"
#include "datasets/transforms.h"
#include "models/weight_names.h"
#include "models/weights.h"

namespace limbeck::apps {
namespace {

namespace fs = std::filesystem;

/// Names of the data set that is known for this number of classes; otherwise numbers.
datasets::ClassInfo usual_classes(std::int64_t count) {
  switch (count) {
    case 11: return datasets::camvid_classes();
    case 19: return datasets::cityscapes_classes();
    case 21: return datasets::voc_classes();
    case 59: return datasets::pascal_context_classes(false);
    case 60: return datasets::pascal_context_classes(true);
    case 150: return datasets::ade20k_classes();
    case 171: return datasets::coco_stuff_classes();
    default: return datasets::numbered_classes(count);
  }
}

/// "eps" and input scaling may be in the file's own metadata; what the command line says wins.
ModelCard make_card(const ImportArgs& args, const std::map<std::string, std::string>& metadata) {
  ModelCard card;
  card.spec = spec_of(args);
  const auto entry = [&](const char* key) {
    const auto found = metadata.find(key);
    return found == metadata.end() ? std::string() : found->second;
  };
  if (args.bn_eps > 0) {
    card.spec.bn_eps = args.bn_eps;
  } else if (const std::string eps = entry("bn_eps"); !eps.empty()) {
    card.spec.bn_eps = parse_number<double>(eps).value_or(0);
    if (!(card.spec.bn_eps > 0)) {
      fail<WeightsError>("import", "{}: metadata 'bn_eps' is '{}', expected a positive number; give --bn-eps",
                         args.file, eps);
    }
  }
  card.spec.head_bn_eps = args.head_bn_eps;
  card.normalisation = !args.normalisation.empty() ? args.normalisation : normalisation_of(metadata);
  if (card.normalisation.empty()) card.normalisation = "imagenet";
  static_cast<void>(datasets::Normalisation::parse(card.normalisation));  // throws for an unknown word
  card.align_corners = args.align_corners || entry("align_corners") == "true";
  card.classes = usual_classes(card.spec.classes);
  return card;
}

/// What the file's names say about the network, where the command line says nothing else.
void adopt_published_form(const nn::StateDict& file, const std::string& path, models::ModelSpec& spec) {
  const auto form = models::published_form(file);
  if (!form || spec.name.find("mobilenet_v2") == std::string::npos) return;
  const auto adopt = [&](const char* option, std::string& value, const std::string& published) {
    if (!value.empty() || published.empty()) return;
    value = published;
    log_info("{}: {} network, hence {} {}", path, form->origin, option, published);
  };
  adopt("padding", spec.padding, form->padding);
  if (!models::is_classification(spec.name)) adopt("dilation", spec.dilation, form->dilation);
}

void print_names(const char* title, const std::vector<std::string>& names) {
  for (const std::string& name : names) fmt::print("{:12} {}\n", title, name);
}

}  // namespace

int run_import(const ImportArgs& args) {
  if (!fs::exists(args.file)) fail<WeightsError>("import", "{} does not exist", args.file);
  if (fs::is_directory(args.file)) fail<WeightsError>("import", "{} is a folder, expected a weight file", args.file);
  nn::StateDict file;
  std::map<std::string, std::string> metadata;
  if (is_torch_file(args.file)) {
    TorchFile torch = load_torch_file(args.file);
    if (!torch.path.empty()) log_info("{}: the weights are under '{}'", args.file, torch.path);
    for (NamedTensor& t : torch.tensors) file.emplace(t.name, std::move(t.tensor));
  } else {
    SafetensorsFile safe = load_safetensors(args.file);
    metadata = std::move(safe.metadata);
    if (models::has_int8_weights(metadata))
      fail<WeightsError>("import", "{}: its weights are in 8 bits; there is nothing to import", args.file);
    for (SafetensorsEntry& e : safe.entries) file.emplace(e.name, std::move(e.tensor));
  }
  ModelCard card = make_card(args, metadata);
  adopt_published_form(file, args.file, card.spec);
  Generator g(0);
  const auto model = models::make_model(card.spec, g);
  models::WeightsOptions options;
  options.strict = !args.lenient;
  options.new_classifier = args.new_classifier;
  if (!args.map.empty()) options.map = models::WeightMap::read(args.map);
  const models::WeightsReport report = models::load_weights(*model, file, args.file, options);

  auto out = to_metadata(card);
  out["imported_from"] = fs::path(args.file).filename().string();
  models::save_weights(*model, args.out, out);
  if (args.json) {
    fmt::print("{}\n", JsonObject()
                           .add("out", args.out)
                           .add("loaded", std::span<const std::string>(report.loaded))
                           .add("missing", std::span<const std::string>(report.missing))
                           .add("unexpected", std::span<const std::string>(report.unexpected))
                           .add("mismatched", std::span<const std::string>(report.mismatched))
                           .add("ignored", std::span<const std::string>(report.ignored))
                           .add("fresh", std::span<const std::string>(report.fresh))
                           .add("folded", report.folded)
                           .str());
    return 0;
  }
  if (args.report) {
    print_names("loaded", report.loaded);
    print_names("missing", report.missing);
    print_names("unexpected", report.unexpected);
    print_names("mismatched", report.mismatched);
    print_names("ignored", report.ignored);
    print_names("fresh", report.fresh);
  }
  fmt::print("{}: {}\n", args.out, report.to_string());
  if (!report.fresh.empty())
    log_warn("{} tensors of the head keep random values: train before you evaluate", report.fresh.size());
  return 0;
}

}  // namespace limbeck::apps
