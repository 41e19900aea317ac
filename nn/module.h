// What this is: Module, the base of everything with parameters, and UnaryModule, a module of one input and one output.
// What it is not: a layer (nn/layers.h), an optimizer (nn/optim.h) or a file format (nn/checkpoint.h).
// How it works: a module keeps its children, parameters and buffers as plain C++ members and registers their addresses
//   under a name in its constructor. Names joined by dots are the parameter names in files ("layer1.0.conv1.weight").
// Read next: nn/layers.h, then nn/fused.h.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/autograd.h"
#include "core/safetensors.h"
#include "core/tensor.h"

namespace limbeck::nn {

class Module;

/// A tensor and its full name, e.g. {"layer1.0.conv1.weight", w}. Shapes: any.
using limbeck::NamedTensor;

/// A module and its full name; the root has the empty name.
struct NamedModule {
  std::string name;
  Module* module;
};

/// Full name -> tensor. The tensors share memory with the module they came from and carry no history.
using StateDict = std::map<std::string, Tensor>;

struct LoadOptions {
  bool strict = true;                      ///< missing and unexpected names are errors
  bool allow_shape_mismatch_skip = false;  ///< keep the module's own tensor where shapes differ (a new class count)
};

/// What load_state_dict did with every name.
struct LoadReport {
  std::vector<std::string> loaded;
  std::vector<std::string> missing;     ///< in the module, not in the dictionary
  std::vector<std::string> unexpected;  ///< in the dictionary, not in the module
  std::vector<std::string> mismatched;  ///< "name: file [..], model [..]"

  [[nodiscard]] bool complete() const noexcept { return missing.empty() && unexpected.empty() && mismatched.empty(); }
  /// "314 loaded, 2 missing (a, b), 0 unexpected, 0 mismatched"; at most `most` names per list.
  [[nodiscard]] std::string to_string(std::size_t most = 8) const;
};

/// While alive, parameters and buffers of new modules live on `device`. With kMeta a network of any size is built
/// without memory, which is how summaries and the size tests work.
class ParameterDevice {
 public:
  explicit ParameterDevice(Device device) noexcept : previous_(current_) { current_ = device; }
  ParameterDevice(const ParameterDevice&) = delete;
  ParameterDevice& operator=(const ParameterDevice&) = delete;
  ~ParameterDevice() { current_ = previous_; }
  [[nodiscard]] static Device current() noexcept { return current_; }

 private:
  static inline thread_local Device current_ = limbeck::kCpu;
  Device previous_;
};

/// A named tree of parameters (trained), buffers (saved, not trained) and child modules.
/// Shapes: set by the subclass; a module never changes the shape of a registered tensor.
/// Throws: Error for a duplicate or empty name; WeightsError from load_state_dict.
class Module {
 public:
  Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
  virtual ~Module() = default;

  /// The kind of layer shown in summaries, e.g. "Conv2d".
  [[nodiscard]] virtual std::string type() const { return "Module"; }
  /// Name inside the parent, e.g. "conv1"; empty for a root.
  [[nodiscard]] const std::string& local_name() const noexcept { return local_name_; }

  // --- mode ---------------------------------------------------------------------------------------------------
  /// Training or inference behaviour of dropout and batch norm, for this module and all below it.
  /// A frozen module stays in eval mode: a teacher must not drift because somebody called train() on its parent.
  void train(bool on = true);
  void eval() { train(false); }
  [[nodiscard]] bool is_training() const noexcept { return training_; }
  /// Eval mode, and no parameter requires a gradient any more (the tape never sees them). unfreeze() undoes it.
  void freeze();
  void unfreeze();

  // --- contents -----------------------------------------------------------------------------------------------
  /// Own entries first, then those of the children, in the order of registration.
  [[nodiscard]] std::vector<NamedTensor> named_parameters() const;
  [[nodiscard]] std::vector<NamedTensor> named_buffers() const;
  /// This module (empty name) and everything below it, parents before children.
  [[nodiscard]] std::vector<NamedModule> named_modules();
  [[nodiscard]] std::vector<Tensor> parameters() const;
  /// Number of trainable numbers; buffers do not count.
  [[nodiscard]] std::int64_t parameter_count() const;
  /// Parameters of this module alone, without children.
  [[nodiscard]] std::int64_t own_parameter_count() const;
  [[nodiscard]] bool has_children() const noexcept { return !children_.empty(); }

  /// Parameters and buffers by name; the tensors share memory with the module.
  [[nodiscard]] StateDict state_dict() const;
  /// Copies values from `state` (element types are converted). Everything is checked before anything is written.
  /// Throws: one WeightsError that lists all missing, unexpected and mismatched names the options do not allow.
  LoadReport load_state_dict(const StateDict& state, LoadOptions options = {});

  /// Changes the element type of floating parameters and buffers; for reference runs in f64.
  /// Optimizers and averages hold the old tensors, so convert first.
  void convert_(DType dtype);
  /// Forgets all gradients (they become undefined, not zero).
  void zero_grad() const;

 protected:
  /// Adopts a member as child `name`. A name may contain dots where a file format has a container level that the
  /// C++ class does not need ("conv.0.0").
  void register_module(std::string name, Module& child);
  /// Adopts a member whose entries appear under this module's own names, as if they were registered here.
  void adopt(Module& child);
  /// Adopts a member tensor as parameter and makes it require a gradient. An undefined tensor is not registered.
  void register_parameter(std::string name, Tensor& tensor);
  void register_buffer(std::string name, Tensor& tensor);

 private:
  struct Slot {
    std::string name;
    Tensor* tensor;
  };
  struct Child {
    std::string name;
    Module* module;
  };
  template <class Visit>
  void visit_slots(const std::string& prefix, bool buffers, const Visit& visit) const;
  void collect_modules(const std::string& prefix, std::vector<NamedModule>& out);
  void check_new_name(const std::string& name) const;

  std::vector<Slot> parameters_;
  std::vector<Slot> buffers_;
  std::vector<Child> children_;
  std::string local_name_;
  bool training_ = true;
  bool frozen_ = false;
};

/// Opens the naming scope of a module for errors, anomaly mode and traces. The first line of a container's forward.
class ModuleScope {
 public:
  explicit ModuleScope(const Module& module) {
    if (!module.local_name().empty()) scope_.emplace(module.local_name());
  }

 private:
  std::optional<ScopeName> scope_;
};

/// A module that maps one tensor to one tensor. Call it with operator(), which opens the scope and feeds the tracer.
/// Shapes: set by the subclass.
class UnaryModule : public Module {
 public:
  [[nodiscard]] virtual Tensor forward(const Tensor& x) = 0;
  [[nodiscard]] Tensor operator()(const Tensor& x);
  /// Multiply-adds for these sizes; only convolutions and linear layers count (see Note [MACs] in nn/tracer.h).
  [[nodiscard]] virtual std::int64_t macs(const Shape& input, const Shape& output) const {
    (void)input;
    (void)output;
    return 0;
  }
};

}  // namespace limbeck::nn
