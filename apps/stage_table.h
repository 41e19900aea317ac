// What this is: the last page of a staged run: how the networks of its stages compare, as table.md and report.html.
// Read next: verb_run.cpp.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "apps/stages.h"

namespace limbeck::apps {

/// Scores every network of a finished staged run on the splits, where ROOT/STAGE/eval_SPLIT.json does not say it yet, and
/// writes ROOT/table.md and ROOT/report.html. Returns the table.
std::string write_stage_table(const std::filesystem::path& root, const StagedConfig& staged);

}  // namespace limbeck::apps
