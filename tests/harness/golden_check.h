// What this is: comparing tensors with what tests/golden/*.py stored of them: norm, projection and four elements.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/harness/golden.h"

namespace limbeck::test {

/// max|a - b| / max|b|; a large number where `a` is not finite
inline double golden_deviation(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double difference = 0;
  double size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference = std::max(difference, std::isfinite(a[i]) ? std::abs(a[i] - b[i]) : 1e300);
    size = std::max(size, std::abs(b[i]));
  }
  return difference / size;
}

/// Compares tensors with the stored {norm, projection, elements}; differences relative to the norm, or to a thousandth of
/// the largest norm for those that are (nearly) zero.
inline void check_summaries(const nlohmann::json& stored, const std::map<std::string, Tensor>& tensors,
                            double tolerance) {
  CHECK(stored.size() == tensors.size());
  double largest = 0;
  for (const auto& [key, s] : stored.items()) largest = std::max(largest, s.at("norm").get<double>());
  for (const auto& [key, s] : stored.items()) {
    CAPTURE(key);
    REQUIRE(tensors.count(key) == 1);
    const Tensor& t = tensors.at(key);
    const double norm = s.at("norm").get<double>();
    const double scale = std::max(norm, 1e-3 * largest);
    CHECK(std::abs(golden_norm(t) - norm) <= tolerance * scale);
    CHECK(std::abs(golden_projection(key, t) - s.at("projection").get<double>()) <= tolerance * scale);
    const auto values = t.to_vector<double>();
    for (std::size_t i = 0; i < 4; ++i) {
      CHECK(std::abs(values[i * (values.size() - 1) / 3] - s.at("elements")[i].get<double>()) <= tolerance * scale);
    }
  }
}

}  // namespace limbeck::test
