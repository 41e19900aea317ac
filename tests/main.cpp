// Entry point of the unit tests. Usage: limbeck_tests [-ts=SUITE] [-tc=CASE]; see doctest's --help.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
