// What this is: the bookkeeping of nn/module.h: walking the tree, modes, loading. No arithmetic.
#include "nn/module.h"

#include <algorithm>
#include <set>

#include "nn/tracer.h"

namespace limbeck::nn {
namespace {

std::string join(const std::string& prefix, const std::string& name) {
  if (prefix.empty() || name.empty()) return prefix + name;
  return prefix + "." + name;
}

void append_names(std::string& text, const char* title, const std::vector<std::string>& names, std::size_t most) {
  text += fmt::format("{} {}", names.size(), title);
  if (names.empty()) return;
  text += " (";
  for (std::size_t i = 0; i < std::min(most, names.size()); ++i) {
    if (i > 0) text += ", ";
    text += names[i];
  }
  if (names.size() > most) text += fmt::format(", and {} more", names.size() - most);
  text += ")";
}

}  // namespace

std::string LoadReport::to_string(std::size_t most) const {
  std::string text = fmt::format("{} loaded, ", loaded.size());
  append_names(text, "missing", missing, most);
  text += ", ";
  append_names(text, "unexpected", unexpected, most);
  text += ", ";
  append_names(text, "mismatched", mismatched, most);
  return text;
}

void Module::check_new_name(const std::string& name) const {
  LIMBECK_CHECK(!name.empty(), "module", "a child, parameter or buffer of {} has an empty name", type());
  const auto taken = [&](const auto& list) {
    return std::any_of(list.begin(), list.end(), [&](const auto& entry) { return entry.name == name; });
  };
  LIMBECK_CHECK(!taken(parameters_) && !taken(buffers_) && !taken(children_), "module",
                "{} already has an entry named '{}'", type(), name);
}

void Module::register_module(std::string name, Module& child) {
  check_new_name(name);
  child.local_name_ = name;
  children_.push_back({std::move(name), &child});
}

void Module::adopt(Module& child) { children_.push_back({"", &child}); }

void Module::register_parameter(std::string name, Tensor& tensor) {
  if (!tensor.defined()) return;
  check_new_name(name);
  tensor.set_requires_grad(true);
  parameters_.push_back({std::move(name), &tensor});
}

void Module::register_buffer(std::string name, Tensor& tensor) {
  if (!tensor.defined()) return;
  check_new_name(name);
  buffers_.push_back({std::move(name), &tensor});
}

void Module::train(bool on) {
  training_ = on && !frozen_;
  for (const Child& child : children_) child.module->train(on && !frozen_);
}

void Module::freeze() {
  frozen_ = true;
  training_ = false;
  for (const Slot& slot : parameters_) {
    slot.tensor->set_requires_grad(false);
    slot.tensor->set_grad(Tensor());
  }
  for (const Child& child : children_) child.module->freeze();
}

void Module::unfreeze() {
  frozen_ = false;
  for (const Slot& slot : parameters_) slot.tensor->set_requires_grad(true);
  for (const Child& child : children_) child.module->unfreeze();
}

template <class Visit>
void Module::visit_slots(const std::string& prefix, bool buffers, const Visit& visit) const {
  for (const Slot& slot : buffers ? buffers_ : parameters_) visit(join(prefix, slot.name), *slot.tensor);
  for (const Child& child : children_) child.module->visit_slots(join(prefix, child.name), buffers, visit);
}

std::vector<NamedTensor> Module::named_parameters() const {
  std::vector<NamedTensor> out;
  visit_slots("", false, [&](std::string name, const Tensor& t) { out.push_back({std::move(name), t}); });
  return out;
}

std::vector<NamedTensor> Module::named_buffers() const {
  std::vector<NamedTensor> out;
  visit_slots("", true, [&](std::string name, const Tensor& t) { out.push_back({std::move(name), t}); });
  return out;
}

std::vector<Tensor> Module::parameters() const {
  std::vector<Tensor> out;
  visit_slots("", false, [&](const std::string&, const Tensor& t) { out.push_back(t); });
  return out;
}

void Module::collect_modules(const std::string& prefix, std::vector<NamedModule>& out) {
  out.push_back({prefix, this});
  for (const Child& child : children_) child.module->collect_modules(join(prefix, child.name), out);
}

std::vector<NamedModule> Module::named_modules() {
  std::vector<NamedModule> out;
  collect_modules("", out);
  return out;
}

std::int64_t Module::own_parameter_count() const {
  std::int64_t count = 0;
  for (const Slot& slot : parameters_) count += slot.tensor->numel();
  return count;
}

std::int64_t Module::parameter_count() const {
  std::int64_t count = 0;
  visit_slots("", false, [&](const std::string&, const Tensor& t) { count += t.numel(); });
  return count;
}

StateDict Module::state_dict() const {
  StateDict out;
  const auto add = [&](const std::string& name, const Tensor& t) { out.emplace(name, t.detach()); };
  visit_slots("", false, add);
  visit_slots("", true, add);
  return out;
}

LoadReport Module::load_state_dict(const StateDict& state, LoadOptions options) {
  LoadReport report;
  std::vector<std::pair<Tensor, Tensor>> copies;  // from, to
  std::set<std::string> known;
  const auto plan = [&](const std::string& name, const Tensor& own) {
    known.insert(name);
    const auto found = state.find(name);
    if (found == state.end()) {
      report.missing.push_back(name);
    } else if (found->second.shape() != own.shape()) {
      report.mismatched.push_back(fmt::format("{}: file {}, model {}", name, found->second.shape(), own.shape()));
    } else {
      report.loaded.push_back(name);
      copies.emplace_back(found->second, own.detach());
    }
  };
  visit_slots("", false, plan);
  visit_slots("", true, plan);
  for (const auto& [name, tensor] : state) {
    if (!known.contains(name)) report.unexpected.push_back(name);
  }

  const bool names_differ = !report.missing.empty() || !report.unexpected.empty();
  if ((options.strict && names_differ) || (!options.allow_shape_mismatch_skip && !report.mismatched.empty())) {
    fail<WeightsError>("load_state_dict", "the weights do not fit {}: {}; nothing was changed", type(),
                       report.to_string(1000));
  }
  for (const auto& [from, to] : copies) to.copy_(from);
  return report;
}

void Module::convert_(DType dtype) {
  LIMBECK_CHECK(is_floating(dtype), "module", "convert_ got {}, expected a floating type", name_of(dtype));
  const auto convert = [&](const Slot& slot) {
    Tensor& t = *slot.tensor;
    if (!is_floating(t.dtype()) || t.dtype() == dtype) return;
    const bool differentiable = t.requires_grad();
    t = t.detach().copy_as(dtype);
    t.set_requires_grad(differentiable);
  };
  for (const Slot& slot : parameters_) convert(slot);
  for (const Slot& slot : buffers_) convert(slot);
  for (const Child& child : children_) child.module->convert_(dtype);
}

void Module::zero_grad() const {
  visit_slots("", false, [](const std::string&, const Tensor& t) { t.set_grad(Tensor()); });
}

Tensor UnaryModule::operator()(const Tensor& x) {
  const ModuleScope scope(*this);
  Tensor y = forward(x);
  if (LayerTracer* tracer = LayerTracer::active(); tracer != nullptr && !has_children()) {
    tracer->record(*this, x.shape(), y);
  }
  return y;
}

}  // namespace limbeck::nn
