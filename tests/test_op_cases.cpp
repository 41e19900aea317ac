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
LIMBECK_CASE_FAMILIES(LIMBECK_FAMILY_TEST)

}  // namespace

TEST_CASE("every family has a test case") {
  for (const auto& family : test::kFamilies) {
    CHECK_MESSAGE(tested_families().count(family.name) == 1, std::string(family.name), " has no test case");
  }
}

TEST_SUITE_END();
