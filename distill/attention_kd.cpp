// Glue of the attention losses: checks, the three steps, nodes.
#include "distill/attention_kd.h"

#include <array>
#include <utility>
#include <vector>

#include "distill/attention_kd_kernels.h"
#include "distill/check_pair.h"
#include "distill/pair_loss.h"

namespace limbeck::distill {
namespace {

constexpr const char* kLoss = "attention_kd";
constexpr const char* kPsd = "psd_kd";

constexpr std::array<std::pair<AttentionForm, std::string_view>, 3> kNames{{
    {AttentionForm::kMeanSquare, "mean_square"},
    {AttentionForm::kNorm, "norm"},
    {AttentionForm::kColumns, "columns"},
}};

/// One number per position, f64.
Tensor positions_of(const Tensor& map) {
  return Tensor::empty({map.size(0), map.size(2), map.size(3)}, DType::kF64, map.device());
}

Tensor energy_of(const Tensor& map) {
  Tensor q = positions_of(map);
  kEnergy(map.device(), map.dtype(), map.view(), q.view());
  return q;
}

}  // namespace

std::string_view name_of(AttentionForm form) {
  for (const auto& [value, name] : kNames) {
    if (value == form) return name;
  }
  return "?";
}

AttentionForm parse_attention_form(std::string_view text) {
  for (const auto& [value, name] : kNames) {
    if (name == text) return value;
  }
  fail<ConfigError>(kLoss, "form \"{}\", expected mean_square, norm or columns", text);
}

Tensor attention_kd(const Tensor& student, const Tensor& teacher, const AttentionKdOptions& options) {
  check_positions(kLoss, student, teacher);
  return run_pair_loss(kLoss, student, teacher,
                       [&](const Tensor& s, const Tensor& t, const Tensor& loss, const Tensor& gradient) {
                         if (s.device().is_meta()) return;
                         const Tensor q_s = energy_of(s);
                         const Tensor q_t = energy_of(t);
                         const Tensor gq = gradient.defined() ? positions_of(s) : Tensor();
                         kAttentionLoss(s.device(), DType::kF64, s.shape(), options.form, q_s.view(), q_t.view(),
                                        loss.view(), gq.view());
                         if (gq.defined()) {
                           kEnergyBackward(s.device(), s.dtype(), s.view(), gq.view(), gradient.view());
                         }
                       });
}

Tensor psd_kd(std::span<const Tensor> students, std::span<const Tensor> teachers) {
  LIMBECK_CHECK(students.size() == teachers.size() && students.size() >= 2, kPsd,
                "{} student maps and {} teacher maps, expected as many of both, at least 2", students.size(),
                teachers.size());
  std::vector<Tensor> maps;
  std::vector<const Tensor*> inputs;
  std::vector<Tensor> energies;
  std::vector<TensorView> q_s;
  std::vector<TensorView> q_t;
  for (std::size_t k = 0; k < students.size(); ++k) {
    check_positions(kPsd, students[k], teachers[k]);
    check_positions(kPsd, students[k], students[0].detach());
    maps.push_back(students[k].dense());
    inputs.push_back(&students[k]);
    energies.push_back(energy_of(maps[k]));
    q_s.push_back(energies.back().view());
    energies.push_back(energy_of(teachers[k].dense()));
    q_t.push_back(energies.back().view());
  }
  Tensor loss = Tensor::empty(Shape{}, ops::loss_dtype(maps[0].dtype()), maps[0].device());
  auto node = record<MultiLossNode>(inputs);
  std::vector<Tensor> slopes;
  std::vector<TensorView> gq;
  for (std::size_t k = 0; node && k < maps.size(); ++k) {
    slopes.push_back(positions_of(maps[k]));
    gq.push_back(slopes.back().view());
  }
  kPsdLoss(loss.device(), DType::kF64, maps[0].shape(), q_s, q_t, loss.view(), gq);
  if (node) {
    node->label = kPsd;
    for (std::size_t k = 0; k < maps.size(); ++k) {
      node->gradients.push_back(Tensor::empty_like(maps[k]));
      kEnergyBackward(loss.device(), maps[k].dtype(), maps[k].view(), gq[k], node->gradients[k].view());
    }
    node->attach(loss);
  }
  return loss;
}

}  // namespace limbeck::distill
