// Reference kernels of the attention losses: the two steps that touch the maps, any strides; and the formulas between them.
#include <algorithm>
#include <cmath>

#include "distill/attention_kd_kernels.h"

namespace limbeck::distill {
namespace {

template <class T>
void energy(const TensorView& x, const TensorView& q) {
  for (std::int64_t n = 0; n < x.n(); ++n) {
    for (std::int64_t h = 0; h < x.h(); ++h) {
      for (std::int64_t w = 0; w < x.w(); ++w) {
        double sum = 0;
        for (std::int64_t c = 0; c < x.c(); ++c) {
          const auto v = static_cast<double>(x.at<T>(n, c, h, w));
          sum += v * v;
        }
        q.at<double>(n, h, w) = sum / static_cast<double>(x.c());
      }
    }
  }
}

template <class T>
void energy_backward(const TensorView& x, const TensorView& gq, const TensorView& gx) {
  for (std::int64_t n = 0; n < x.n(); ++n) {
    for (std::int64_t c = 0; c < x.c(); ++c) {
      for (std::int64_t h = 0; h < x.h(); ++h) {
        for (std::int64_t w = 0; w < x.w(); ++w) {
          const double factor = 2 * gq.at<double>(n, h, w) / static_cast<double>(x.c());
          gx.at<T>(n, c, h, w) = static_cast<T>(factor * static_cast<double>(x.at<T>(n, c, h, w)));
        }
      }
    }
  }
}

/// x / max(||x||, 1e-12) in every group, and the norms.
struct Normalised {
  std::vector<double> value;
  std::vector<double> norm;
};

Normalised normalise_groups(const PositionGroups& groups, const double* x) {
  Normalised out;
  out.value.resize(static_cast<std::size_t>(groups.count * groups.length));
  for (std::int64_t g = 0; g < groups.count; ++g) {
    const std::int64_t start = groups.start(g);
    double squares = 0;
    for (std::int64_t j = 0; j < groups.length; ++j) squares += x[start + j * groups.step] * x[start + j * groups.step];
    const double norm = std::sqrt(squares);
    out.norm.push_back(norm);
    for (std::int64_t j = 0; j < groups.length; ++j) {
      const std::int64_t at = start + j * groups.step;
      out.value[static_cast<std::size_t>(at)] = x[at] / std::max(norm, kAttentionLeastNorm);
    }
  }
  return out;
}

/// Gradient of x given that of the normalised value: (d - a (a.d)) / norm; d / 1e-12 where the norm was raised to 1e-12.
void normalise_backward(const PositionGroups& groups, const Normalised& a, const double* d, double* gx) {
  for (std::int64_t g = 0; g < groups.count; ++g) {
    const std::int64_t start = groups.start(g);
    const double norm = a.norm[static_cast<std::size_t>(g)];
    double along = 0;  // a.d; the clamped norm is a constant
    if (norm > kAttentionLeastNorm) {
      for (std::int64_t j = 0; j < groups.length; ++j) {
        const std::int64_t at = start + j * groups.step;
        along += a.value[static_cast<std::size_t>(at)] * d[at];
      }
    }
    for (std::int64_t j = 0; j < groups.length; ++j) {
      const std::int64_t at = start + j * groups.step;
      gx[at] = (d[at] - a.value[static_cast<std::size_t>(at)] * along) / std::max(norm, kAttentionLeastNorm);
    }
  }
}

void store(double value, const TensorView& loss) {
  visit_reference_dtype("attention_kd", loss.dtype, [&](auto tag) {
    using T = decltype(tag);
    *loss.ptr<T>() = static_cast<T>(value);
  });
}

}  // namespace

PositionGroups::PositionGroups(const Shape& map, bool by_columns) : images(map[0]), width(map[3]), columns(by_columns) {
  count = by_columns ? map[0] * map[3] : map[0];
  length = by_columns ? map[2] : map[2] * map[3];
  step = by_columns ? map[3] : 1;
}

void attention_loss_ref(const Shape& map, AttentionForm form, const TensorView& q_s, const TensorView& q_t,
                        const TensorView& loss, const TensorView& gq) {
  const PositionGroups groups(map, form == AttentionForm::kColumns);
  const Normalised a_s = normalise_groups(groups, q_s.ptr<double>());
  const Normalised a_t = normalise_groups(groups, q_t.ptr<double>());
  const auto samples = static_cast<double>(map[0]);
  const std::int64_t positions = map[2] * map[3];
  std::vector<double> d(a_s.value.size());
  double total = 0;
  for (std::int64_t n = 0; n < map[0]; ++n) {
    double squares = 0;
    for (std::int64_t m = 0; m < positions; ++m) {
      const auto at = static_cast<std::size_t>(n * positions + m);
      d[at] = a_s.value[at] - a_t.value[at];
      squares += d[at] * d[at];
    }
    const double norm = std::sqrt(squares);
    const bool by_norm = form == AttentionForm::kNorm;
    total += by_norm ? norm / samples : squares / (samples * static_cast<double>(positions));
    // d becomes dL/da.
    const double slope =
        by_norm ? (norm > 0 ? 1 / (norm * samples) : 0) : 2 / (samples * static_cast<double>(positions));
    for (std::int64_t m = 0; m < positions; ++m) d[static_cast<std::size_t>(n * positions + m)] *= slope;
  }
  store(total, loss);
  if (gq.defined()) normalise_backward(groups, a_s, d.data(), gq.ptr<double>());
}

void psd_loss_ref(const Shape& map, const std::vector<TensorView>& q_s, const std::vector<TensorView>& q_t,
                  const TensorView& loss, const std::vector<TensorView>& gq) {
  const PositionGroups groups(map, false);
  const std::size_t layers = q_s.size();
  const auto size = static_cast<std::size_t>(groups.count * groups.length);
  const auto pairs = static_cast<double>(layers * (layers - 1) / 2);
  std::vector<Normalised> a_s;
  std::vector<Normalised> a_t;
  for (std::size_t k = 0; k < layers; ++k) {
    a_s.push_back(normalise_groups(groups, q_s[k].ptr<double>()));
    a_t.push_back(normalise_groups(groups, q_t[k].ptr<double>()));
  }
  std::vector<std::vector<double>> ga(layers, std::vector<double>(size, 0.0));
  std::vector<double> change_s(size);
  std::vector<double> change_t(size);
  std::vector<double> d(size);
  double total = 0;
  for (std::size_t k = 0; k < layers; ++k) {
    for (std::size_t l = k + 1; l < layers; ++l) {
      for (std::size_t i = 0; i < size; ++i) {
        change_s[i] = a_s[l].value[i] - a_s[k].value[i];
        change_t[i] = a_t[l].value[i] - a_t[k].value[i];
      }
      const Normalised r_s = normalise_groups(groups, change_s.data());
      const Normalised r_t = normalise_groups(groups, change_t.data());
      for (std::size_t i = 0; i < size; ++i) {
        const double difference = r_s.value[i] - r_t.value[i];
        total += difference * difference / (pairs * static_cast<double>(size));
        d[i] = 2 * difference / (pairs * static_cast<double>(size));
      }
      if (gq.empty()) continue;
      normalise_backward(groups, r_s, d.data(), change_s.data());
      for (std::size_t i = 0; i < size; ++i) {
        ga[l][i] += change_s[i];
        ga[k][i] -= change_s[i];
      }
    }
  }
  store(total, loss);
  for (std::size_t k = 0; k < gq.size(); ++k) normalise_backward(groups, a_s[k], ga[k].data(), gq[k].ptr<double>());
}

void energy_ref(const TensorView& x, const TensorView& q) {
  visit_reference_dtype("attention_kd", x.dtype, [&](auto tag) { energy<decltype(tag)>(x, q); });
}

void energy_backward_ref(const TensorView& x, const TensorView& gq, const TensorView& gx) {
  visit_reference_dtype("attention_kd", x.dtype, [&](auto tag) { energy_backward<decltype(tag)>(x, gq, gx); });
}

}  // namespace limbeck::distill
