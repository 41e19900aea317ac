// What this is: the task of `train` and `distill` with `task: classify`: a network that gives one class per picture, scored
//   by its top-1 accuracy. The objective and the weight file are those of a student.
// Read next: classify.h (the score).
#pragma once

#include "apps/classify.h"
#include "apps/student_task.h"

namespace limbeck::apps {

class ClassifyTask final : public StudentTask {
 public:
  using StudentTask::StudentTask;
  [[nodiscard]] std::string score_name() const override { return "top1"; }
  [[nodiscard]] Score validate(const std::filesystem::path& pictures) override;
};

}  // namespace limbeck::apps
