// What this is: reading weight files of other projects (and our own) into a network, with a full account of every name.
// What it is not: checkpoints of a run (nn/checkpoint.h); a checkpoint directory can be given, its model file is read.
// Read next: models/weights.cpp (the rules as one list), core/safetensors.h.
//
// Note [what a weight file may look like]
//   our own               the network's names
//   another's             published names of other code bases, and wrappers in front of all names: models/weight_names.h
//   anybody's             with a list of names of the user's own: WeightMap in models/weight_names.h
//   a bare backbone       "features.*" or "conv1.*", "layer1.*": goes to "backbone.*"; the classifier of an ImageNet file
//                         (fc.*, classifier.1.*, features.18.*) is ignored where the network has none
//   folded batch norm     a convolution with bias where the network has convolution + batch norm: the bias becomes beta,
//                         gamma 1, mean 0, variance 1 - eps. Exact in eval mode; such a network cannot be trained
//                         with batch statistics until its batch norms are estimated anew.
//   num_batches_tracked   may be absent
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "models/model.h"
#include "models/weight_names.h"

namespace limbeck::models {

struct WeightsOptions {
  bool strict = true;  ///< every backbone (and, if the file has one, head) tensor must be found
  bool new_classifier =
      false;  ///< a last layer for another number of classes keeps the network's own values; any other
              ///< difference of shapes stays an error
  std::optional<WeightMap> map = {};
};

/// What happened to every name. All names are the network's, except `unexpected` and `ignored`, which are the file's.
struct WeightsReport {
  std::vector<std::string> loaded;
  std::vector<std::string> missing;
  std::vector<std::string> unexpected;
  std::vector<std::string> mismatched;
  std::vector<std::string> ignored;  ///< left out by rule: an ImageNet classifier, an auxiliary head nobody asked for
  std::vector<std::string> fresh;  ///< head tensors that keep their initial values: the file is a bare backbone, or its
                                   ///< classifier is for other classes and new_classifier was asked for
  bool folded = false;             ///< batch norm came folded into the convolutions
  std::map<std::string, std::string> metadata;  ///< the file's; `padding` also where only its names tell it

  /// "262 loaded, 0 missing, 0 unexpected, 0 mismatched, 2 ignored (fc.weight, fc.bias), 12 fresh (...)"
  [[nodiscard]] std::string to_string(std::size_t most = 6) const;
};

/// Loads a safetensors file, a PyTorch file (core/torch_file.h), or the model of a checkpoint directory.
/// Shapes: those of the network; element types are converted
/// Throws: one WeightsError with the whole report if the file does not fit as the options ask, or if nothing at all fits:
///         a teacher that silently keeps random weights is the classic failure of distillation set-ups. Nothing is written then.
WeightsReport load_weights(Model& model, const std::filesystem::path& path, const WeightsOptions& options = {});

/// As above, from tensors already read. `source` is named in errors.
/// Shapes: those of the network
WeightsReport load_weights(Model& model, const nn::StateDict& file, const std::string& source,
                           const WeightsOptions& options = {});

/// True for the metadata of a file that holds weights in 8 bits (nn/int8_weights.h), which cannot be loaded here.
/// Shapes: none
[[nodiscard]] bool has_int8_weights(const std::map<std::string, std::string>& metadata);

/// Writes parameters and buffers with spec_to_metadata() and `metadata` as safetensors.
/// Shapes: those of the network
/// Throws: Error naming path and reason.
void save_weights(const Model& model, const std::filesystem::path& path,
                  const std::map<std::string, std::string>& metadata = {});

/// The network a file written by save_weights() was made for.
/// Shapes: none
/// Throws: WeightsError if the file does not say.
[[nodiscard]] ModelSpec read_spec(const std::filesystem::path& path);

}  // namespace limbeck::models
