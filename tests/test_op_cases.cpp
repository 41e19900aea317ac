// Runs every family of tests/cases through the harness, and checks that no op is without cases and no family without a
// test.
#include <doctest/doctest.h>

#include <functional>
#include <set>
#include <string>

#include "distill/catalogue.h"
#include "ops/catalogue.h"
#include "tests/cases/all_cases.h"

using namespace limbeck;

TEST_SUITE_BEGIN("op_cases");

TEST_CASE("every op of the catalogues has cases") {
  std::set<std::string, std::less<>> covered;
  for (const auto& family : test::kFamilies) {
    for (const auto& c : family.cases()) covered.insert(c.op);
  }
  for (const auto name : ops::kCatalogue) CHECK_MESSAGE(covered.count(name) == 1, name, " has no OpCase");
  for (const auto name : distill::kCatalogue) CHECK_MESSAGE(covered.count(name) == 1, name, " has no OpCase");
}

namespace {

std::set<std::string, std::less<>>& tested_families() {
  static std::set<std::string, std::less<>> names;
  return names;
}

// One test case per family, so that a failure and the time it takes carry a name.
#define LIMBECK_FAMILY_TEST(family)                                             \
  TEST_CASE("cases of " #family) { test::check_cases(test::family##_cases()); } \
  [[maybe_unused]] const bool kTests_##family = tested_families().insert(#family).second;
LIMBECK_FAMILY_TEST(elementwise)
LIMBECK_FAMILY_TEST(reduce)
LIMBECK_FAMILY_TEST(matmul)
LIMBECK_FAMILY_TEST(copy)
LIMBECK_FAMILY_TEST(dropout)
LIMBECK_FAMILY_TEST(conv2d)
LIMBECK_FAMILY_TEST(depthwise)
LIMBECK_FAMILY_TEST(conv_transpose2d)
LIMBECK_FAMILY_TEST(batch_norm)
LIMBECK_FAMILY_TEST(pool2d)
LIMBECK_FAMILY_TEST(interpolate)
LIMBECK_FAMILY_TEST(softmax)
LIMBECK_FAMILY_TEST(cross_entropy)
LIMBECK_FAMILY_TEST(pixel_kd)
LIMBECK_FAMILY_TEST(channel_kd)
LIMBECK_FAMILY_TEST(attention_kd)
LIMBECK_FAMILY_TEST(pairwise_kd)
LIMBECK_FAMILY_TEST(batch_similarity_kd)
LIMBECK_FAMILY_TEST(inter_channel_kd)
LIMBECK_FAMILY_TEST(csd_kd)
LIMBECK_FAMILY_TEST(ifvd)
LIMBECK_FAMILY_TEST(ofd_kd)
LIMBECK_FAMILY_TEST(local_kd)
LIMBECK_FAMILY_TEST(icsd)
LIMBECK_FAMILY_TEST(feature_mse)
LIMBECK_FAMILY_TEST(ka_autoencoder_loss)
LIMBECK_FAMILY_TEST(ka_adapt)
LIMBECK_FAMILY_TEST(ka_affinity)

}  // namespace

TEST_CASE("every family has a test case") {
  for (const auto& family : test::kFamilies) {
    CHECK_MESSAGE(tested_families().count(family.name) == 1, std::string(family.name), " has no LIMBECK_FAMILY_TEST");
  }
}

TEST_SUITE_END();
